//! The daemon and the drains of the timers with the restrictions of their systemd units: `as_unit.py` applies them where no systemd runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::documents::block;
use crate::scene::daemon::{ask, configure};
use crate::scene::sandbox::{Completed, Sandbox, is_root, wait_for};
use crate::scene::servers::{Kind, Server, free_port};

/// The user who owns the repositories: Debian's `nobody`.
const OWNER: &str = "65534";

/// A command with the restrictions of a unit of this project and of a drop-in.
fn as_unit(sandbox: &Sandbox, unit: &str, drop_in: &str, arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::write(sandbox.path("drop-in.conf"), drop_in).unwrap();
    let mut command = sandbox.command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "python3"]).arg(root.join("tests/it/system/as_unit.py"));
    command.arg(sandbox.path("")).arg(root.join("dist").join(unit)).arg("drop-in.conf");
    command.args(["--", env!("CARGO_BIN_EXE_git-mirror-push")]).args(arguments);
    command.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml"));
    command
}

/// A daemon of a unit.
struct Served<'s> {
    sandbox: &'s Sandbox,
    port: u16,
    child: Child,
}

impl<'s> Served<'s> {
    fn start(sandbox: &'s Sandbox, drop_in: &str) -> Self {
        let port = free_port();
        let log = std::fs::File::create(sandbox.path("daemon.log")).unwrap();
        let listen = format!("127.0.0.1:{port}");
        let mut command = as_unit(sandbox, "git-mirror-push.service", drop_in, &["serve", "--listen", &listen]);
        let served = Self { sandbox, port, child: command.stderr(log).spawn().unwrap() };
        wait_for("the daemon", || served.ask("GET", "/healthz", "", "").is_some());
        served
    }

    fn ask(&self, method: &str, path: &str, body: &str, token: &str) -> Option<crate::scene::daemon::Answer> {
        ask(&format!("http://127.0.0.1:{}{path}", self.port), method, body, &[("PRIVATE-TOKEN", token)])
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("daemon.log")).unwrap()
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        // The daemon lets its jobs end first.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A sandbox where other users may read, and repositories of the owner.
fn scene(lines: &str, names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::set_permissions(sandbox.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    configure(&sandbox, lines);
    std::fs::create_dir_all(sandbox.path("srv/acme")).unwrap();
    names.iter().for_each(|name| drop(sandbox.bare(&format!("srv/acme/{name}.git"))));
    sandbox
}

fn give(sandbox: &Sandbox, paths: &[&str]) {
    let status = sandbox.command("chown").args(["-hR", &format!("{OWNER}:{OWNER}")]).args(paths).status();
    assert!(status.unwrap().success());
}

/// Enables the mirrors of a repository, and starts nothing.
fn enable(source: &Path) {
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("enabled = false\n", "")).unwrap();
}

/// Runs a program as the owner, without the restrictions of a unit.
fn as_owner(sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Completed {
    let ids = [&format!("--reuid={OWNER}"), &format!("--regid={OWNER}"), "--clear-groups", program];
    Completed::of(&sandbox.command("setpriv").args(ids).args(arguments).output().unwrap())
}

fn push(sandbox: &Sandbox, name: &str) {
    let work = sandbox.work(&sandbox.path(&format!("srv/acme/{name}.git")));
    work.commit(name);
    give(sandbox, &[work.path.to_str().unwrap()]);
    let said = as_owner(sandbox, "git", &["-C", work.path.to_str().unwrap(), "push", "-q", "origin", "main"]);
    assert_eq!(said.status, 0, "{said:?}");
}

#[test]
fn the_units_leave_the_daemon_and_the_timers_what_they_need() {
    if !is_root("namespaces and another user") {
        return;
    }
    const USER: &str = "[Service]\nUser=nobody\n";
    let kinds = [Kind::Path, Kind::Git, Kind::Ssh, Kind::Https];
    let names = kinds.map(|kind| format!("{kind:?}").to_lowercase());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sandbox = scene("[api]\nallow_local_network = true\n", &[&names[..], &["pulled", "made"]].concat());
    let mut servers = Vec::new();
    for (kind, name) in kinds.into_iter().zip(&names) {
        let source = sandbox.path(&format!("srv/acme/{name}.git"));
        sandbox.bare(&format!("{name}.git"));
        let server = Server::start(&sandbox, kind);
        let url = server.url(&format!("{name}.git")).replace("ssh://", "ssh://root@");
        sandbox.mirror_push_ok(&source, &["add", "m", &url, "--disabled"]);
        server.configure_access(&sandbox, &source, "m");
        enable(&source);
        servers.push(server);
    }
    let up = sandbox.upstream();
    let pulled = sandbox.path("srv/acme/pulled.git");
    sandbox.mirror_push_ok(&pulled, &["add", "m", &servers[3].url("up.git"), "--direction", "pull", "--disabled"]);
    servers[3].configure_access(&sandbox, &pulled, "m");
    enable(&pulled);
    let made = sandbox.path("srv/acme/made.git");
    sandbox.mirror_push_ok(&made, &["install-hook"]);
    std::fs::write(made.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    sandbox.bare("made.git");
    give(&sandbox, &["srv", "home", "path.git", "made.git"]);
    let daemon = Served::start(&sandbox, USER);
    names.iter().for_each(|name| push(&sandbox, name));
    for name in &names {
        let (mirror, source) = (sandbox.path(&format!("{name}.git")), sandbox.path(&format!("srv/acme/{name}.git")));
        wait_for(&format!("{name}: {}", daemon.log()), || {
            !sandbox.refs(&mirror).is_empty() && sandbox.refs(&mirror) == sandbox.refs(&source)
        });
    }
    wait_for("the pull", || sandbox.refs(&pulled) == sandbox.refs(&up));
    // The API makes a mirror with a key of its own.
    let said = as_owner(&sandbox, env!("CARGO_BIN_EXE_git-mirror-push"), &["token", "create", "--name", "t"]);
    let token = said.out.trim_end();
    let mirrors = "/api/v4/projects/acme%2Fmade/remote_mirrors";
    let body = r#"{"url":"ssh://git@127.0.0.1:1/x.git","auth_method":"ssh_public_key","name":"k"}"#;
    let made = daemon.ask("POST", mirrors, body, token).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let key = daemon.ask("GET", &format!("{mirrors}/{}/public_key", made.json()["id"]), "", token).unwrap();
    assert!(key.text.contains("ssh-ed25519 "), "{key:?}");
    drop(daemon);
    // The drain of the timer.
    let (made, there) = (sandbox.path("srv/acme/made.git"), sandbox.path("made.git"));
    let add = ["--git-dir", made.to_str().unwrap(), "add", "m", there.to_str().unwrap()];
    let said = as_owner(&sandbox, env!("CARGO_BIN_EXE_git-mirror-push"), &add);
    assert_eq!(said.status, 0, "{said:?}");
    push(&sandbox, "made");
    assert!(sandbox.refs(&there).is_empty());
    let mut drain = as_unit(&sandbox, "git-mirror-push-drain.service", USER, &["drain", "--all", "-q"]);
    let said = Completed::of(&drain.output().unwrap());
    assert_eq!(sandbox.refs(&there), sandbox.refs(&made), "{said:?}");
}

/// The drop-in that server.md gives to those who serve repositories of several owners.
#[test]
fn with_the_documented_drop_in_root_serves_repositories_of_others() {
    if !is_root("namespaces and another user") {
        return;
    }
    let drop_in = block("docs/server.md", "ini", "User=root", &[]);
    let sandbox = scene("", &["widget"]);
    let mirror = sandbox.bare("mirror.git");
    let text = std::fs::read_to_string(sandbox.path("server.toml")).unwrap();
    let text = text.replace("[[repositories]]\n", &format!("[[repositories]]\nowners = [\"{OWNER}\"]\n"));
    std::fs::write(sandbox.path("server.toml"), format!("{text}[remotes.m]\nurl = \"{}\"\n", mirror.display()))
        .unwrap();
    let source = sandbox.path("srv/acme/widget.git");
    // The owner lets nobody else look.
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o700)).unwrap();
    give(&sandbox, &["srv", "home", "mirror.git"]);
    let hook = ["--git-dir", source.to_str().unwrap(), "install-hook"];
    assert_eq!(as_owner(&sandbox, env!("CARGO_BIN_EXE_git-mirror-push"), &hook).status, 0);
    let daemon = Served::start(&sandbox, &drop_in);
    push(&sandbox, "widget");
    wait_for(&format!("the mirror: {}", daemon.log()), || {
        !sandbox.refs(&mirror).is_empty() && sandbox.refs(&mirror) == sandbox.refs(&source)
    });
    drop(daemon);
    let mut find = sandbox.command("find");
    let left = find.arg(&source).arg(&mirror).args(["!", "-user", OWNER, "-printf", "%p of %u\n"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "files that root made");
}
