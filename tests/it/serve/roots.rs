//! What the daemon notices while it runs: an edited address, after SIGHUP, and a root that is missing or appears later.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::life::is_mirrored;
use crate::scene::daemon::{Daemon, LOCAL, command, configure, repository};
use crate::scene::sandbox::{Sandbox, wait_for};

#[test]
fn an_edited_address_and_a_root_that_comes_later_are_noticed() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.bare("first-widget.git"), sandbox.bare("second-widget.git"));
    let template = |name: &str| format!("[remotes.t]\nurl = \"{}/{name}-{{name}}.git\"\n", sandbox.path("").display());
    let missing = sandbox.path("later");
    let lines = |name: &str| {
        let roots = format!("[[repositories]]\nroot = \"{}\"\ninclude = [\"none\", \"y\"]\n", missing.display());
        format!("scan_interval = \"1s\"\n{roots}{}", template(name))
    };
    configure(&sandbox, &lines("first"));
    let source = repository(&sandbox, "acme/widget");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let mut daemon = command(&sandbox, &["--no-listen"]).spawn().unwrap();
    let log = || std::fs::read_to_string(sandbox.path("daemon.log")).unwrap();
    wait_for("the first mirror", || is_mirrored(&sandbox, &source, &first));
    std::thread::park_timeout(Duration::from_millis(2500));
    assert_eq!(log().matches("does not exist").count(), 1, "a missing root is reported once: {}", log());
    configure(&sandbox, &lines("second"));
    kill_process(Pid::from_child(&daemon), Signal::HUP).unwrap();
    wait_for("the second mirror", || is_mirrored(&sandbox, &source, &second));
    // The missing root appears, as a symbolic link. Its repository has a configuration of its own.
    let real = sandbox.path("real");
    std::fs::create_dir(&real).unwrap();
    let other = sandbox.bare("real/y.git");
    let third = sandbox.bare("third.git");
    let work = sandbox.work(&other);
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&other, &["set", "wake=none"]);
    sandbox.mirror_push_ok(&other, &["add", "own", third.to_str().unwrap()]);
    std::os::unix::fs::symlink(&real, &missing).unwrap();
    wait_for("the repository of the later root", || is_mirrored(&sandbox, &other, &third));
    let announced = std::fs::read_to_string(sandbox.path("run/roots")).unwrap();
    let real = real.canonicalize().unwrap();
    assert!(announced.lines().any(|line| Path::new(line) == real), "the file for hooks has its real path: {announced}");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// The daemon still serves its other roots, so a load balancer may send it requests.
#[test]
fn a_daemon_that_misses_one_root_is_ready() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "[[repositories]]\nroot = \"/nowhere/git\"\n");
    let answer = daemon.ask("GET", "/healthz", "").unwrap();
    assert_eq!((answer.status, &*answer.text), (200, "ok, but a root is missing; see the log\n"));
}

#[test]
fn a_repository_that_wants_no_hook_gets_none() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let hook = source.join("hooks/post-receive");
    sandbox.mirror_push_ok(&source, &["uninstall-hook"]);
    std::fs::write(source.join("mirror-push/config.toml"), "hook = \"none\"\n").unwrap();
    daemon.add("acme/widget", "/nowhere.git");
    assert!(hook.symlink_metadata().is_err());
    std::fs::write(source.join("mirror-push/config.toml"), "").unwrap();
    daemon.add("acme/widget", "/nowhere.git");
    assert!(hook.symlink_metadata().is_ok());
}
