//! Temporary and permanent failures.

use std::path::Path;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, script, wait_for};
use crate::scene::servers::{Kind, Server, free_port};

fn attempts(source: &Path) -> usize {
    std::fs::read_to_string(source.join("mirror-push/remotes/m/history.jsonl")).unwrap().lines().count()
}

#[test]
fn a_host_that_is_down_is_not_tried_at_every_push_and_sync_does_not_wait() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("git://127.0.0.1:1/x.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    let status = sandbox.status(&source);
    assert_eq!((&status["update_status"], &status["attempts"]), (&"scheduled".into(), &1.into()));
    let wait = |status: &serde_json::Value| {
        let time = |key: &str| status[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        time("next_attempt_at").duration_since(time("last_update_at")).as_secs_f64()
    };
    assert!((9.9..=10.1).contains(&wait(&status)), "{status}");
    for _ in 0..5 {
        work.commit("more");
        work.push(&["main"]);
        let said = sandbox.mirror_push(&source, &["drain"]);
        assert!(said.status == 0 && said.out.contains("not tried again before"), "{said:?}");
    }
    assert_eq!(attempts(&source), 1, "a push does not shorten the wait");
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    let status = sandbox.status(&source);
    assert_eq!((attempts(&source), &status["attempts"], &status["pending"]), (2, &2.into(), &7.into()));
    assert!((9.9..=20.1).contains(&wait(&status)), "{status}");
    // Another configuration is a reason to try at once, also one that was written by hand.
    let mirror = sandbox.bare("mirror.git");
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("git://127.0.0.1:1/x.git", mirror.to_str().unwrap())).unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let status = sandbox.mirror_push_ok(&source, &["status", "--json"]).json()[0].clone();
    assert_eq!((&status["attempts"], &status["next_attempt_at"]), (&0.into(), &serde_json::Value::Null));
}

/// A host that locks accounts after wrong passwords must not get one for each mirror that is added.
#[test]
fn another_mirror_in_the_file_is_no_reason_to_try_again() {
    let sandbox = Sandbox::new();
    let source = sandbox.source(sandbox.path("missing.git").to_str().unwrap(), &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    let other = sandbox.bare("other.git");
    sandbox.mirror_push_ok(&source, &["add", "other", other.to_str().unwrap(), "-q"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!((attempts(&source), sandbox.refs(&other)), (1, sandbox.refs(&source)));
    // Its own settings are one, and so are rules that hold for every mirror, also if they were written by hand.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("[remotes.m]\n", "[remotes.m]\ntimeout = \"77m\"\n", 1);
    std::fs::write(&config, &text).unwrap();
    assert_eq!((sandbox.mirror_push(&source, &["drain"]).status, attempts(&source)), (1, 2));
    std::fs::write(&config, format!("# Nothing new.\n{text}")).unwrap();
    assert_eq!((sandbox.mirror_push(&source, &["drain"]).status, attempts(&source)), (0, 2));
    std::fs::write(&config, format!("protected_branches = [\"release/*\"]\n{text}")).unwrap();
    assert_eq!((sandbox.mirror_push(&source, &["drain"]).status, attempts(&source)), (1, 3));
}

#[test]
fn a_mirror_that_comes_back_is_updated_by_itself() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let port = free_port();
    let source = sandbox.source(&format!("git://127.0.0.1:{port}/mirror.git"), &[]);
    sandbox.add_mirror_config(&source, "retry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    let config = source.join("mirror-push/config.toml");
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap().replace("wake = \"none\"\n", "")).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the first attempt", || source.join("mirror-push/remotes/m/history.jsonl").exists());
    work.commit("two");
    work.push(&["main"]);
    wait_for("a second attempt", || attempts(&source) > 1);
    assert!(sandbox.refs(&mirror).is_empty());
    let _server = Server::start_at(&sandbox, Kind::Git, port);
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    wait_for("the status", || sandbox.mirror_push(&source, &["status"]).status == 0);
}

#[test]
fn one_drain_keeps_running_for_two_mirrors_with_different_delays() {
    let sandbox = Sandbox::new();
    let (first, second) = (sandbox.bare("first.git"), sandbox.bare("second.git"));
    let ports = [free_port(), free_port()];
    let source = sandbox.source(&format!("git://127.0.0.1:{}/first.git", ports[0]), &[]);
    sandbox.add_mirror_config(&source, "retry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    sandbox.mirror_push_ok(&source, &["add", "n", &format!("git://127.0.0.1:{}/second.git", ports[1])]);
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("wake = \"none\"\n", "");
    let text = text.replace("[remotes.n]\n", "[remotes.n]\nretry_delay = \"4s\"\nmax_retry_delay = \"4s\"\n");
    std::fs::write(&config, text).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("several attempts", || {
        source.join("mirror-push/remotes/m/history.jsonl").exists() && attempts(&source) > 2
    });
    let slow = std::fs::read_to_string(source.join("mirror-push/remotes/n/history.jsonl")).unwrap().lines().count();
    assert!(slow < attempts(&source), "the other mirror has its own pace: {slow}");
    let _servers = ports.map(|port| Server::start_at(&sandbox, Kind::Git, port));
    wait_for("both mirrors", || [&first, &second].iter().all(|mirror| sandbox.refs(mirror) == sandbox.refs(&source)));
    let drains = || {
        let found =
            sandbox.command("pgrep").args(["-f", "--", &format!("--git-dir {}", source.display())]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).lines().count()
    };
    wait_for("the end of the drain that stayed", || drains() == 0);
}

#[test]
fn after_a_permanent_failure_a_push_or_a_change_causes_the_next_attempt() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/nowhere.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    for status in [1, 0, 0] {
        assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, status, "what only waits is not attempted");
        assert_eq!(attempts(&source), 1, "nothing is new");
    }
    let status = sandbox.status(&source);
    assert_eq!(status["update_status"], "failed");
    assert!(status["next_attempt_at"].is_string(), "a slow interval tries again: {status}");
    work.commit("two");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(attempts(&source), 2, "a new push causes an attempt");
    let mirror = sandbox.bare("mirror.git");
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", mirror.to_str().unwrap()]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_refused_ref_is_tried_again_by_a_push_to_it_and_by_its_slow_interval() {
    let scene = Scene::local(&["--divergent-refs", "keep"]).with(&["main", "main:topic"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    let (hook, log) = (mirror.join("hooks/update"), sandbox.path("log"));
    let text = format!("#!/bin/sh\necho $1 >> '{}'\n[ $1 != refs/heads/topic ]\n", log.display());
    script(&hook, &text);
    let tried = || std::fs::read_to_string(&log).unwrap().lines().filter(|line| *line == "refs/heads/topic").count();
    // The mirror refuses a rewrite. Later attempts must still count it as a rewrite, not as a divergence.
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("rewritten");
    work.push(&["+other:topic"]);
    assert_eq!(sandbox.mirror_push(source, &["drain"]).status, 1);
    assert_eq!(tried(), 1);
    work.push(&["other:fresh"]);
    assert_eq!(sandbox.mirror_push(source, &["drain"]).status, 1);
    assert_eq!(tried(), 1, "another ref's push does not try it again");
    work.commit("again");
    work.push(&["+other:topic"]);
    assert_eq!(sandbox.mirror_push(source, &["drain"]).status, 1);
    assert_eq!(tried(), 2);
    // Six hours later.
    let path = source.join("mirror-push/remotes/m/status.json");
    let mut status: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    status["next_attempt_at"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(&path, status.to_string()).unwrap();
    assert_eq!(sandbox.mirror_push(source, &["drain"]).status, 1);
    assert_eq!(tried(), 3);
    std::fs::remove_file(hook).unwrap();
    sandbox.mirror_push_ok(source, &["sync"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "forced, although keep is set: it was ours");
}

#[test]
fn a_sync_that_could_not_be_done_stays_due() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let port = free_port();
    let source = sandbox.source(mirror.to_str().unwrap(), &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", &format!("git://127.0.0.1:{port}/mirror.git")]);
    sandbox.add_mirror_config(&source, "retry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    std::fs::remove_dir_all(source.join("mirror-push/remotes/m/queue")).unwrap();
    // No hook saw this, and the host is down: only the sync knows of it.
    sandbox.git(&source, &["update-ref", "refs/heads/unseen", "main"]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    let _server = Server::start_at(&sandbox, Kind::Git, port);
    wait_for("a drain that is due", || {
        sandbox.mirror_push(&source, &["drain", "--json"]).json()[0]["update_status"] == "finished"
    });
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn another_secret_is_a_reason_to_try_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = server.source(&sandbox, "mirror.git", &[]);
    let secret = source.join("mirror-push/remotes/m/secret");
    let right = std::fs::read_to_string(&secret).unwrap();
    std::fs::write(&secret, "wrong").unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    let before = attempts(&source);
    sandbox.mirror_push(&source, &["drain"]);
    assert_eq!(attempts(&source), before, "the mirror waits after a permanent failure");
    // The secret is written by hand, not by a command. The pause makes sure that the time of the file differs.
    std::thread::park_timeout(std::time::Duration::from_millis(20));
    std::fs::write(&secret, right).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}
