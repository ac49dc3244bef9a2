//! Large and real histories, over each transport, within bounded memory.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::scene::sandbox::{Sandbox, peak_of};
use crate::scene::servers::{Kind, Server};

/// Peak memory that one of our processes may use, in KiB.
const MOST_MEMORY: u64 = 150 << 10;

/// A source with 100,000 commits, made with fast-import.
fn long_history(sandbox: &Sandbox, source: &Path) {
    let script = "
import sys
out = sys.stdout.buffer
for n in range(1, 100001):
    text = ('line %d ' % n * 40).encode()
    message = b'commit %d\\n' % n
    out.write(b'commit refs/heads/main\\nmark :%d\\ncommitter T <t@example.org> %d +0000\\ndata %d\\n%s' % (n, 1700000000 + n, len(message), message))
    if n > 1:
        out.write(b'from :%d\\n' % (n - 1))
    out.write(b'M 100644 inline dir%d/file%d\\ndata %d\\n%s\\n' % (n % 40, n % 1000, len(text), text))
out.write(b'reset refs/tags/v1\\nfrom :50000\\n\\ndone\\n')
";
    let mut python = sandbox.command("python3").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let status = sandbox
        .command("git")
        .arg("--git-dir")
        .arg(source)
        .args(["fast-import", "--quiet", "--done"])
        .stdin(python.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(status.success() && python.wait().unwrap().success());
}

#[test]
fn a_hundred_thousand_commits_over_each_transport_in_bounded_memory() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/nowhere.git", &[]);
    long_history(&sandbox, &source);
    for kind in [Kind::Path, Kind::Git, Kind::Ssh, Kind::Http, Kind::Https] {
        let home = Sandbox::new();
        let mirror = home.bare("mirror.git");
        let server = Server::start(&home, kind);
        sandbox.mirror_push_ok(&source, &["set", "m", "--url", &server.url("mirror.git")]);
        server.configure_access(&home, &source, "m");
        let sync = sandbox.program(&source).args(["sync", "-q"]).stdout(Stdio::null()).spawn().unwrap();
        let (status, peak) = peak_of(sync);
        assert_eq!(status, 0, "{kind:?}");
        assert!(peak > 0 && peak < MOST_MEMORY, "{kind:?}: {peak} KiB");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{kind:?}");
        eprintln!("{kind:?}: peak memory {peak} KiB");
        let config = source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with("allow_insecure") && !line.starts_with("ca_file"));
        std::fs::write(&config, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
}

/// Pushes the project's own history into `source`. If the sources are not in a git repository, pushes one commit of their files.
fn own_repository(sandbox: &Sandbox, source: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pushed = sandbox
        .command("git")
        .current_dir(root)
        .args(["-c", "safe.directory=*", "push", "-q", source.to_str().unwrap(), "HEAD:refs/heads/main"])
        .status()
        .unwrap();
    if !pushed.success() {
        let work = sandbox.work(source);
        sandbox.git(&work.path, &["--work-tree", root.to_str().unwrap(), "add", "src", "tests", "Cargo.toml"]);
        work.commit("the sources");
        work.push(&["HEAD:refs/heads/main"]);
    }
}

#[test]
fn the_projects_own_repository_on_four_kinds_of_mirror() {
    let sandbox = Sandbox::new();
    let source = sandbox.bare("source.git");
    own_repository(&sandbox, &source);
    let script: String =
        (0..50).map(|n| format!("create refs/heads/side/{n} main\ncreate refs/tags/t{n} main\n")).collect();
    sandbox.git_with_input(&source, &["update-ref", "--stdin"], script.as_bytes());
    let homes: Vec<(Sandbox, PathBuf, Server)> = [Kind::Path, Kind::Git, Kind::Ssh, Kind::Https]
        .into_iter()
        .map(|kind| {
            let home = Sandbox::new();
            let mirror = home.bare("mirror.git");
            let server = Server::start(&home, kind);
            (home, mirror, server)
        })
        .collect();
    for (n, (home, _, server)) in homes.iter().enumerate() {
        let name = format!("m{n}");
        sandbox.mirror_push_ok(&source, &["add", &name, &server.url("mirror.git"), "--disabled"]);
        server.configure_access(home, &source, &name);
    }
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("enabled = false\n", "");
    std::fs::write(&config, text).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    for (home, mirror, _) in &homes {
        assert_eq!(sandbox.refs(mirror), sandbox.refs(&source));
        home.git(mirror, &["fsck", "--strict", "--full"]);
    }
}
