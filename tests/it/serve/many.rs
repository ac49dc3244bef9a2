//! What the daemon knows of many repositories without reading their files: which repositories
//! exist, their numbers, and the states of their mirrors.

use std::path::PathBuf;

use rustix::process::Signal;

use super::life::is_mirrored;
use crate::scene::daemon::{self, Daemon, LOCAL, configure};
use crate::scene::sandbox::{Sandbox, Work, script, wait_for};
use crate::scene::servers::free_port;

/// With an interval of an hour, the daemon scans the repositories only at its start.
const ONE_LOOK: &str = "scan_interval = \"1h\"\n[api]\nallow_local_network = true\n";

fn number(daemon: &Daemon<'_>, path: &str) -> Option<u64> {
    daemon.api("GET", &format!("projects/{}", path.replace('/', "%2F")), "").json()["id"].as_u64()
}

#[test]
fn a_number_is_permanent_and_an_incomplete_line_gives_none() {
    let sandbox = Sandbox::new();
    configure(&sandbox, LOCAL);
    for name in ["a", "b"] {
        daemon::repository(&sandbox, name);
    }
    let file = sandbox.path("state/projects.jsonl");
    let port = free_port();
    {
        let daemon = Daemon::start_as_configured(&sandbox, port);
        assert_eq!((number(&daemon, "a"), number(&daemon, "b")), (Some(1), Some(2)));
    }
    // As after a power failure while the line of a third repository was written.
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    std::fs::write(&file, format!("{text}{{\"id\":3,\"git_dir\":\"/srv/c\"")).unwrap();
    std::fs::rename(sandbox.path("srv/a.git"), sandbox.path("srv/z.git")).unwrap();
    {
        let daemon = Daemon::start_as_configured(&sandbox, port);
        assert_eq!((number(&daemon, "b"), number(&daemon, "z"), number(&daemon, "a")), (Some(2), Some(3), None));
    }
    let lines = std::fs::read_to_string(&file).unwrap();
    assert!(lines.starts_with(&text) && lines.lines().count() == 3 && lines.ends_with('\n'), "{lines}");
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
    // The number of a repository that comes back is its old one. A file of an earlier version is read once.
    std::fs::rename(sandbox.path("srv/z.git"), sandbox.path("srv/a.git")).unwrap();
    std::fs::remove_file(&file).unwrap();
    let old = |name: &str, id: u32| format!("\"{}\": {id}", sandbox.path("srv").join(name).display());
    let text = format!("{{\"last\": 9, \"ids\": {{{}, {}}}}}", old("a.git", 4), old("gone.git", 9));
    std::fs::write(sandbox.path("state/projects.json"), text).unwrap();
    for _ in 0..2 {
        let daemon = Daemon::start_as_configured(&sandbox, port);
        assert_eq!((number(&daemon, "a"), number(&daemon, "b")), (Some(4), Some(10)));
        assert!(!sandbox.path("state/projects.json").exists());
    }
}

#[test]
fn a_repository_that_a_client_names_is_found_without_a_look_and_no_other_is() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, ONE_LOOK);
    let source = daemon.repository("acme/new");
    assert_eq!(number(&daemon, "acme/new"), Some(1));
    assert_eq!(number(&daemon, "acme/new.git"), Some(1));
    daemon.repository("acme/later");
    // A path that the list would not contain is no project either: one inside a repository, or
    // behind a link.
    sandbox.git(&source, &["init", "-q", "--bare", "modules/inner.git"]);
    std::os::unix::fs::symlink(&source, sandbox.path("srv/acme/link.git")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("srv/acme"), sandbox.path("srv/group")).unwrap();
    std::fs::create_dir_all(sandbox.path("srv/acme/empty.git")).unwrap();
    for path in [
        "acme/new.git/modules/inner",
        "acme/link",
        "group/new",
        "acme/empty",
        "acme",
        "..",
        "%2E%2E/srv/acme/new",
        "acme//later",
        "acme/./later",
        "/acme/later",
        "acme/later/",
    ] {
        assert_eq!(daemon.api("GET", &format!("projects/{}", path.replace('/', "%2F")), "").status, 404, "{path}");
    }
    assert_eq!(number(&daemon, "acme/later"), Some(2));
    assert_eq!(daemon.api("GET", "projects", "").json().as_array().unwrap().len(), 2);
}

/// A repository with a mirror, to which one commit was pushed.
fn mirrored<'s>(daemon: &Daemon<'s>) -> (PathBuf, PathBuf, Work<'s>) {
    let source = daemon.repository("acme/widget");
    let mirror = daemon.sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let work = daemon.sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    (source, mirror, work)
}

/// Whether the metrics count so many mirrors of this machine in this state.
fn counts(daemon: &Daemon<'_>, state: &str, count: usize) -> bool {
    let line = format!("git_mirror_push_mirrors{{host=\"-\",state=\"{state}\"}} {count}");
    daemon.ask_with("GET", "/metrics", "", &[]).unwrap().text.lines().any(|found| found == line)
}

#[test]
fn the_page_sees_what_other_programs_change() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, ONE_LOOK);
    let (source, mirror, _) = mirrored(&daemon);
    let counts = |state: &str, count: usize| counts(&daemon, state, count);
    wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
    wait_for("its state", || counts("up_to_date", 1));
    sandbox.mirror_push_ok(&source, &["disable", "local"]);
    wait_for("the change of the configuration", || counts("disabled", 1) && !counts("up_to_date", 1));
    sandbox.mirror_push_ok(&source, &["enable", "local"]);
    sandbox.mirror_push_ok(&source, &["add", "second", sandbox.path("none.git").to_str().unwrap(), "--disabled"]);
    wait_for("the second mirror", || counts("disabled", 1) && counts("up_to_date", 1));
    std::fs::write(source.join("mirror-push/config.toml"), "nonsense = [").unwrap();
    let unreadable = || daemon.ask_with("GET", "/metrics", "", &[]).unwrap().text;
    wait_for("the trouble", || unreadable().contains("\ngit_mirror_push_unreadable_repositories 1\n"));
    std::fs::remove_file(source.join("mirror-push/config.toml")).unwrap();
    daemon.signal(Signal::HUP);
    wait_for("the repair", || unreadable().contains("\ngit_mirror_push_unreadable_repositories 0\n"));
}

#[test]
fn a_summary_does_not_outlive_a_configuration_or_a_run_that_is_killed() {
    let sandbox = Sandbox::new();
    let there = sandbox.path("there");
    std::fs::create_dir(&there).unwrap();
    let template = |enabled: bool| {
        let url = format!("{}/{{name}}.git", there.display());
        configure(&sandbox, &format!("{ONE_LOOK}[remotes.t]\nurl = \"{url}\"\nenabled = {enabled}\n"));
    };
    template(true);
    let daemon = Daemon::start_as_configured(&sandbox, free_port());
    let source = daemon.repository("one/widget");
    let mirror = sandbox.bare("there/widget.git");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    daemon.signal(Signal::HUP);
    wait_for("the mirror", || counts(&daemon, "up_to_date", 1));
    // No file of the repository changes.
    template(false);
    daemon.signal(Signal::HUP);
    wait_for("the configuration", || counts(&daemon, "disabled", 1));
    template(true);
    daemon.signal(Signal::HUP);
    wait_for("the first configuration", || counts(&daemon, "up_to_date", 1));
    // Of two repositories with one URL, the second one is not shown as if it were mirrored.
    daemon.repository("two/widget");
    assert!(number(&daemon, "two/widget").is_some());
    let metrics = || daemon.ask_with("GET", "/metrics", "", &[]).unwrap().text;
    wait_for("the second one", || metrics().contains("\ngit_mirror_push_unreadable_repositories 1\n"));
    std::fs::remove_dir_all(sandbox.path("srv/two")).unwrap();
    // A run of another program holds the lock of the mirror. When it is killed, no file changes.
    let gate = sandbox.path("gate");
    let waits = format!("#!/bin/sh\nwhile ! test -e '{}'; do sleep 0.05; done\n", gate.display());
    script(&mirror.join("hooks/pre-receive"), &waits);
    sandbox.git(&source, &["branch", "other", "main"]);
    let mut run = sandbox.program(&source);
    let mut run = run.arg("--config").arg(sandbox.path("server.toml")).args(["sync", "t"]).spawn().unwrap();
    wait_for("the run", || counts(&daemon, "running", 1));
    run.kill().unwrap();
    run.wait().unwrap();
    wait_for("its end", || !counts(&daemon, "running", 1));
    std::fs::write(&gate, "").unwrap();
}

#[test]
fn a_push_that_nobody_announced_is_mirrored_by_the_scan_that_finds_it() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, ONE_LOOK);
    // The scan reads these repositories first, so all other threads sleep when it finds the push.
    (0..100).for_each(|n| drop(daemon.repository(&format!("aaa/r{n}"))));
    let (source, mirror, work) = mirrored(&daemon);
    wait_for("the first sync", || is_mirrored(&sandbox, &source, &mirror));
    sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
    for n in 0..3 {
        work.commit(&n.to_string());
        work.push(&["main"]);
        assert!(!is_mirrored(&sandbox, &source, &mirror), "somebody announced it");
        daemon.signal(Signal::HUP);
        wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
    }
}

#[test]
fn metrics_and_health() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("scan_interval = \"1s\"\n{LOCAL}"));
    let (source, mirror, work) = mirrored(&daemon);
    let metrics = || daemon.ask_with("GET", "/metrics", "", &[]).unwrap();
    let has = |line: &str| metrics().text.lines().any(|found| found == line);
    wait_for("the metrics", || has("git_mirror_push_mirrors{host=\"-\",state=\"up_to_date\"} 1"));
    assert!(!metrics().text.contains("mirror=\"local\""), "a mirror that is up to date has no series of its own");
    std::fs::rename(&mirror, sandbox.path("moved.git")).unwrap();
    work.commit("two");
    work.push(&["main"]);
    let labels = format!("{{repository=\"{}\",mirror=\"local\"}}", source.display());
    wait_for("the failure", || has("git_mirror_push_mirrors{host=\"-\",state=\"failing\"} 1"));
    assert!(has(&format!("git_mirror_push_up_to_date{labels} 0")), "{}", metrics().text);
    assert!(has("git_mirror_push_host_failed_attempts{host=\"-\",class=\"permanent\"} 1"), "{}", metrics().text);
    let metrics = metrics();
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in [
        "last_success_timestamp_seconds",
        "pending_refs",
        "oldest_pending_seconds",
        "failures_total",
        "push_duration_seconds",
        "running_jobs",
    ] {
        assert!(metrics.text.contains(&format!("\ngit_mirror_push_{name}")), "{name}");
    }
    assert!(!metrics.text.contains("refs/heads") && !metrics.text.contains("mirror.git"));
    std::fs::rename(sandbox.path("srv"), sandbox.path("elsewhere")).unwrap();
    wait_for("the trouble", || daemon.ask("GET", "/healthz", "").unwrap().status == 503);
    std::fs::rename(sandbox.path("elsewhere"), sandbox.path("srv")).unwrap();
    wait_for("the repair", || daemon.ask("GET", "/healthz", "").unwrap().status == 200);
    let _ = daemon::ask(&daemon.url("/?token=gmp-canary"), "GET", "", &[]);
    assert!(!daemon.log().contains("gmp-canary"), "queries are not logged");
}

/// While nothing is due and no file changes, a scan opens no file. Whatever changes in a repository without a word to the daemon is seen at
/// the next scan.
#[test]
fn scans_of_idle_repositories_open_no_file_and_miss_no_change() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "scan_interval = \"1s\"\n[api]\nallow_local_network = true\n");
    let (source, mirror, work) = mirrored(&daemon);
    let up = sandbox.upstream();
    let pulled = daemon.repository("acme/pulled");
    let pull = ["add", "m", up.to_str().unwrap(), "--direction", "pull", "interval=30m"];
    sandbox.mirror_push_ok(&pulled, &pull);
    wait_for("the mirrors", || {
        is_mirrored(&sandbox, &source, &mirror)
            && sandbox.refs(&pulled) == sandbox.refs(&up)
            && counts(&daemon, "up_to_date", 2)
    });
    let idle = || {
        let log = sandbox.path("strace");
        let mut strace = sandbox.command("timeout");
        strace.args(["-s", "INT", "2.2", "strace", "-f", "-qq", "-e", "trace=openat,openat2,newfstatat,statx", "-o"]);
        assert!(strace.arg(&log).args(["-p", &daemon.pid().to_string()]).output().is_ok());
        let text = std::fs::read_to_string(&log).unwrap();
        let count =
            |call: &str, path: &str| text.lines().filter(|line| line.contains(call) && line.contains(path)).count();
        (count("newfstatat(", "status.json"), count("openat2(", "/mirror-push/"))
    };
    // The second scan after the last change remembers that nothing is due.
    wait_for("a scan that only looks at times", || matches!(idle(), (4.., 0)));
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("wake = \"none\"\n{text}")).unwrap();
    let arrives = |what: &str| {
        wait_for(what, || is_mirrored(&sandbox, &source, &mirror));
        std::thread::park_timeout(std::time::Duration::from_millis(5000));
    };
    arrives("a changed configuration");
    work.commit("two");
    work.push(&["main"]);
    arrives("a push whose hook wakes nobody");
    sandbox.git(&source, &["update-ref", "refs/heads/unseen", "main"]);
    std::fs::write(source.join("mirror-push/spool/resync"), "1").unwrap();
    arrives("the mark of a push that could not be recorded");
    // A time that comes.
    sandbox.mirror_push_ok(&pulled, &["set", "m", "interval=2s"]);
    std::thread::park_timeout(std::time::Duration::from_millis(5000));
    let upstream = sandbox.work(&up);
    upstream.commit("there");
    upstream.push(&["main"]);
    wait_for("a check that is due", || sandbox.refs(&pulled) == sandbox.refs(&up));
    sandbox.mirror_push_ok(&pulled, &["set", "m", "interval=30m"]);
    wait_for("a scan that only looks at times", || matches!(idle(), (4.., 0)));
}
