//! What tells people and machines that something is wrong: `notify`, `check`, the metrics file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::scene::Scene;
use crate::scene::daemon::{Daemon, configure};
use crate::scene::sandbox::{Sandbox, script};

fn scene() -> Scene {
    Scene::local(&[]).with(&["main"])
}

impl Scene {
    fn script(&self, text: &str) -> PathBuf {
        let path = self.sandbox.path("tell");
        script(&path, &format!("#!/bin/sh\n{text}\n"));
        path
    }

    fn top(&self, lines: &str) {
        let config = self.source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{lines}\n{text}")).unwrap();
    }

    fn url(&self, url: &str) {
        self.sandbox.mirror_push_ok(&self.source, &["set", "m", "--url", url]);
    }

    fn sync(&self) -> i32 {
        self.sandbox.mirror_push(&self.source, &["sync"]).status
    }
}

fn events(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_change_of_state_is_notified_once() {
    let scene = scene();
    let log = scene.sandbox.path("events");
    let script = scene.script(&format!("[ \"$1\" = 'a b $(id)' ] && cat >> '{}'", log.display()));
    scene.top(&format!("notify = [\"{}\", \"a b $(id)\"]\nnotify_interval = \"2s\"", script.display()));
    assert_eq!(scene.sync(), 0);
    assert!(events(&log).is_empty(), "nothing has changed");
    scene.url("https://bot:s3cret@127.0.0.1:1/x.git");
    assert_eq!((scene.sync(), scene.sync()), (1, 1));
    let told = events(&log);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["event"], &told[0]["name"]), (&"failing".into(), &"m".into()));
    assert_eq!(told[0]["remote"], told[0]["name"]);
    assert_eq!(told[0]["url"], "https://*****:*****@127.0.0.1:1/x.git");
    assert_eq!((&told[0]["update_status"], &told[0]["attempts"]), (&"scheduled".into(), &1.into()));
    assert!(told[0]["error"].as_str().unwrap().contains("cannot connect") && !told[0].to_string().contains("s3cret"));
    std::thread::park_timeout(Duration::from_millis(2100));
    scene.sync();
    assert_eq!(events(&log)[1]["event"], "still_failing");
    scene.url(scene.mirror.to_str().unwrap());
    assert_eq!((scene.sync(), scene.sync()), (0, 0));
    let told: Vec<_> = events(&log).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told, ["failing", "still_failing", "recovered"]);
}

#[test]
fn a_failed_notification_is_repeated_and_one_that_hangs_is_ended() {
    let scene = scene();
    let (log, good) = (scene.sandbox.path("events"), scene.sandbox.path("good"));
    let script = scene.script(&format!("[ -e '{}' ] || exit 7\ncat >> '{}'", good.display(), log.display()));
    scene.top(&format!("notify = [\"{}\"]", script.display()));
    scene.url("/nowhere.git");
    let said = scene.sandbox.mirror_push(&scene.source, &["sync"]);
    assert!(said.status == 1 && said.err.contains("exit status 7"), "{said:?}");
    std::fs::write(&good, "").unwrap();
    scene.sync();
    assert_eq!(events(&log)[0]["event"], "failing");
    // Now a command that hangs, with a child that keeps its pipes open.
    let pids = scene.sandbox.path("pids");
    scene.script(&format!("sleep 99 & echo $! $$ > '{}'; exec sleep 98", pids.display()));
    scene.url(scene.mirror.to_str().unwrap());
    let begin = Instant::now();
    let said = scene.sandbox.mirror_push(&scene.source, &["sync"]);
    assert!(said.status == 0 && said.err.contains("did not end within 10 seconds"), "{said:?}");
    assert!(begin.elapsed() < Duration::from_secs(16), "{:?}", begin.elapsed());
    assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source));
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        crate::scene::sandbox::wait_for("its end", || state().is_empty() || state().contains(") Z "));
    }
}

#[test]
fn commands_are_taken_only_from_files_of_ours() {
    if !crate::scene::sandbox::is_root("files of another owner are needed") {
        return;
    }
    let scene = scene();
    let mark = scene.sandbox.path("mark");
    let script = scene.script(&format!("touch '{}'", mark.display()));
    scene.top(&format!("notify = [\"{}\"]", script.display()));
    scene.url("/nowhere.git");
    // The repository and its file belong to another user, and root has made it a safe.directory.
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
    chown(&scene.source);
    chown(&scene.source.join("mirror-push/config.toml"));
    scene.sandbox.git(&scene.mirror, &["config", "--global", "--add", "safe.directory", "*"]);
    assert_eq!(scene.sync(), 128, "safe.directory is not enough");
    assert!(!mark.exists());
}

#[test]
fn check_answers_as_monitoring_plugins_do() {
    let scene = scene();
    let check = |arguments: &[&str]| {
        let said = scene.sandbox.mirror_push(&scene.source, &[&["check"], arguments].concat());
        assert_eq!((said.out.lines().count(), &*said.err), (1, ""), "{said:?}");
        (said.status, said.out)
    };
    let (status, line) = check(&[]);
    let expected = "MIRRORS OK - 1 of 1 mirrors up to date | mirrors=1 failed=0;;0 waiting=0;0 pending=0 oldest=0s;3600;86400 corrupt=0;0\n";
    assert_eq!((status, &*line), (0, expected));
    let work = scene.sandbox.path("source.git.work");
    scene.sandbox.git(&work, &["push", "-q", "origin", "main:next"]);
    assert_eq!(check(&[]).0, 0, "it has just been pushed");
    std::thread::park_timeout(Duration::from_millis(1100));
    let (status, line) = check(&["--warning", "1s"]);
    assert!(status == 1 && line.contains("a push waits for"), "{line}");
    assert_eq!(check(&["-w", "1s", "-c", "1s"]).0, 2);
    scene.url("git://127.0.0.1:1/x.git");
    scene.sync();
    let (status, line) = check(&["m"]);
    assert!(status == 1 && line.contains("cannot connect"), "{line}");
    scene.url("/nowhere.git");
    scene.sync();
    let (status, line) = check(&[]);
    assert!(status == 2 && line.contains("MIRRORS CRITICAL") && line.contains("was not found"), "{line}");
    assert_eq!(check(&["none"]).0, 3);
    std::fs::write(scene.source.join("mirror-push/config.toml"), "|nonsense\n").unwrap();
    let (status, line) = check(&[]);
    assert!(status == 3 && line.starts_with("MIRRORS UNKNOWN - ") && !line.contains('|'), "{line}");
    let said = scene.sandbox.mirror_push(Path::new("/nowhere"), &["check"]);
    assert_eq!(said.status, 3, "{said:?}");
}

#[test]
fn check_warns_of_what_will_not_be_mirrored() {
    let sandbox = Sandbox::new();
    let source = sandbox.bare("source.git");
    sandbox.bare("mirror.git");
    let check = || {
        let said = sandbox.mirror_push(&source, &["check"]);
        (said.status, said.out.split(" | ").next().unwrap_or_default().to_owned())
    };
    let is = |status: i32, text: &str| assert_eq!(check(), (status, text.to_owned()));
    is(3, "MIRRORS UNKNOWN - no mirror is configured");
    sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
    sandbox.mirror_push_ok(&source, &["add", "m", sandbox.path("mirror.git").to_str().unwrap()]);
    is(1, "MIRRORS WARNING - 0 of 1 mirrors up to date; 1 mirror was never tried");
    sandbox.mirror_push_ok(&source, &["sync"]);
    is(0, "MIRRORS OK - 1 of 1 mirrors up to date");
    sandbox.mirror_push_ok(&source, &["silent", "on"]);
    is(1, "MIRRORS WARNING - 1 of 1 mirrors up to date; 1 repository is silent: nothing is sent");
    sandbox.mirror_push_ok(&source, &["silent", "off"]);
    sandbox.mirror_push_ok(&source, &["uninstall-hook"]);
    is(1, "MIRRORS WARNING - 1 of 1 mirrors up to date; 1 repository has no hook: its pushes are not recorded");
    sandbox.mirror_push_ok(&source, &["set", "hook=none"]);
    is(0, "MIRRORS OK - 1 of 1 mirrors up to date");
    sandbox.mirror_push_ok(&source, &["disable", "m"]);
    is(0, "MIRRORS OK - every mirror is disabled");
}

#[test]
fn status_says_who_makes_the_next_attempt() {
    let sandbox = Sandbox::new();
    configure(&sandbox, "");
    let source = crate::scene::daemon::repository(&sandbox, "x");
    sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
    sandbox.mirror_push_ok(&source, &["add", "m", "git://127.0.0.1:1/x.git", "retry_delay=1h", "max_retry_delay=1h"]);
    let status = || sandbox.mirror_push(&source, &["status"]).out;
    let says = |text: &str| assert!(status().contains(text), "{text}: {}", status());
    says("no daemon, drain or timer is running: 'git mirror-push drain m' mirrors what waits");
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    says(
        "min from now or later, after 1 failed attempt; no daemon, drain or timer is running: 'git mirror-push sync m' tries now",
    );
    // A drain that a hook started waits for the next attempt.
    let mut drain = sandbox.program(&source).args(["drain", "--detach"]).spawn().unwrap();
    crate::scene::sandbox::wait_for("the drain", || status().contains("by the waiting drain, after 1 failed attempt"));
    drain.kill().unwrap();
    drain.wait().unwrap();
    says("no daemon, drain or timer is running");
    let daemon = Daemon::start_as_configured(&sandbox, crate::scene::servers::free_port());
    says("by the daemon, after 1 failed attempt");
    if crate::scene::sandbox::is_root("a repository of another owner is needed") {
        // The daemon may be unable to serve a repository of another owner. `status` itself needs only safe.directory.
        sandbox.git(&source, &["config", "--global", "--add", "safe.directory", "*"]);
        std::os::unix::fs::chown(&source, Some(65_534), None).unwrap();
        says("no daemon, drain or timer is running");
        std::os::unix::fs::chown(&source, Some(0), None).unwrap();
        says("by the daemon, after 1 failed attempt");
    }
    drop(daemon);
    says("no daemon, drain or timer is running");
    sandbox.mirror_push_ok(&source, &["silent", "on"]);
    says("silent mode: nothing is sent; 'git mirror-push silent off' ends it");
    sandbox.mirror_push_ok(&source, &["silent", "off"]);
    // After a permanent error, the next push starts the next attempt.
    sandbox.mirror_push_ok(&source, &["set", "m", "url=/nowhere.git"]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    says(
        "next attempt at the next push, after 1 failed attempt; no daemon, drain or timer is running: 'git mirror-push sync m'",
    );
}

#[test]
fn the_metrics_file_is_replaced_after_each_drain() {
    let scene = scene();
    let file = scene.sandbox.path("mirrors.prom");
    scene.top(&format!("metrics_file = \"{}\"", file.display()));
    assert_eq!(scene.sync(), 0);
    let value = |name: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("git_mirror_push_{name}{{"))).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().unwrap().parse::<f64>().ok())
    };
    assert_eq!((value("up_to_date"), value("pending_pushes")), (Some(1.0), Some(0.0)));
    assert!(value("last_success_timestamp_seconds").unwrap() > 1.7e9);
    scene.url("git://127.0.0.1:1/x.git");
    scene.sync();
    assert_eq!((value("up_to_date"), value("failures_total")), (Some(0.0), Some(1.0)));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    // A missing directory is reported, and the mirrors are updated nevertheless.
    scene.url(scene.mirror.to_str().unwrap());
    scene.top("# moved");
    let config = scene.source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("mirrors.prom", "gone/mirrors.prom");
    std::fs::write(&config, text).unwrap();
    let said = scene.sandbox.mirror_push(&scene.source, &["sync"]);
    assert!(said.status == 0 && said.err.contains("gone/mirrors.prom"), "{said:?}");
    let status = scene.status();
    assert_eq!(status["update_status"], "finished");
}
