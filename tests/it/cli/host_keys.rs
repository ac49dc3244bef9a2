//! Host keys: detected under the right name, and reported when they change.

use super::keys::pushed;
use crate::scene::sandbox::{Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, Server};

/// Whether the keys are pinned, or only known to ssh: a host with another key than before is reported with both fingerprints.
#[test]
fn a_changed_host_key_is_reported_with_both_fingerprints() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Ssh);
    let source = server.source(&sandbox, "mirror.git", &[]);
    pushed(&sandbox, &source);
    let fingerprint = |file: &str| {
        let shown = sandbox.command("ssh-keygen").args(["-lf", file]).output().unwrap().stdout;
        String::from_utf8(shown).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    let pins = source.join("mirror-push/remotes/m/known_hosts");
    let pinned = std::fs::read_to_string(&pins).unwrap();
    let host = pinned.split(' ').next().unwrap();
    // The key of somebody else.
    let other = std::fs::read_to_string(sandbox.path("ssh/client.pub")).unwrap();
    let expected = format!(
        "the host key of '127.0.0.1:{}' has CHANGED: it offers {}, and {} is trusted; ",
        server.port(),
        fingerprint("ssh/host.pub"),
        fingerprint("ssh/client.pub")
    );
    std::fs::write(&pins, format!("{host} {other}")).unwrap();
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(&expected) && error.contains("ask the administrator"), "{error}");
    // Pins of another host, from before the URL changed, make nothing CHANGED.
    std::fs::write(&pins, format!("other.example {other}")).unwrap();
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("is not known") && !error.contains("CHANGED"), "{error}");
    std::fs::remove_file(&pins).unwrap();
    let known = sandbox.path("known");
    std::fs::write(&known, format!("# a comment\n{host} {other}")).unwrap();
    let option = format!("ssh_options = [\"UserKnownHostsFile={}\"]", known.display());
    sandbox.add_mirror_config(&source, &option);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let error = said.json()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(&expected), "{error}");
}

/// ssh's configuration says under which name a host's keys are looked up; for a confined mirror it says nothing.
#[test]
fn detected_keys_are_pinned_under_the_name_that_ssh_looks_up() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Ssh);
    let source = server.source(&sandbox, "mirror.git", &[]);
    pushed(&sandbox, &source);
    std::fs::write(sandbox.path("ssh_config"), "Host 127.0.0.1\n HostKeyAlias another\n").unwrap();
    std::fs::write(sandbox.path("server.toml"), "[api]\nallowed_hosts = [\"127.0.0.1\"]\n").unwrap();
    let real = "PATH=${PATH#*:} command -v ssh";
    let config = sandbox.path("ssh_config");
    script(
        &sandbox.path("bin/ssh"),
        &format!(
            "#!/bin/sh\n[ \"$1\" != -F ] || exec \"$({real})\" \"$@\"\nexec \"$({real})\" -F '{}' \"$@\"\n",
            config.display()
        ),
    );
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |words: &[&str]| {
        let mut command = sandbox.program(&source);
        command.env("PATH", &path).arg("--config").arg(sandbox.path("server.toml")).args(words);
        run_with_input(&mut command, b"")
    };
    for (confined, name) in [(false, "another".to_owned()), (true, format!("[127.0.0.1]:{}", server.port()))] {
        sandbox.mirror_push_ok(&source, &["set", "m", &format!("confined={confined}")]);
        let said = run(&["host-keys", "m", "--detect", "--yes"]);
        assert_eq!(said.status, 0, "{said:?}");
        let pins = std::fs::read_to_string(source.join("mirror-push/remotes/m/known_hosts")).unwrap();
        assert!(pins.starts_with(&format!("{name} ")), "{confined}: {pins}");
        let said = run(&["sync"]);
        assert_eq!(said.status, 0, "{confined}: what was pinned is what ssh looks up: {said:?}");
    }
}
