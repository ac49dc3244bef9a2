//! The daemon is woken by hooks, killed, restarted, told to end, and told to read its files again.
//! No push is lost.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::scene::daemon::{Daemon, LOCAL, command, configure, repository};
use crate::scene::sandbox::{Sandbox, script, wait_for};
use crate::scene::servers::free_port;

pub(super) fn is_mirrored(sandbox: &Sandbox, source: &std::path::Path, mirror: &std::path::Path) -> bool {
    let ours = sandbox.refs(source);
    !ours.is_empty() && ours == sandbox.refs(mirror)
}

#[test]
fn a_push_wakes_the_daemon_and_starts_no_drain() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let work = sandbox.work(&source);
    let mut waits = Vec::new();
    for n in 0..20 {
        work.commit(&n.to_string());
        work.push(&["main"]);
        let begin = Instant::now();
        wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
        waits.push(begin.elapsed());
    }
    waits.sort_unstable();
    assert!(waits[10] < Duration::from_millis(500), "from the push to the mirror: {waits:?}");
    let traced = || {
        let trace = sandbox.path("trace");
        work.commit("traced");
        let mut push = sandbox.command("strace");
        push.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml"));
        push.current_dir(&work.path).args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&trace);
        assert!(push.args(["git", "push", "-q", "origin", "main"]).status().unwrap().success());
        std::fs::read_to_string(&trace).unwrap()
    };
    let calls = traced();
    wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
    assert!(calls.contains("hooks/post-receive") && !calls.contains("drain"), "{calls}");
    if !crate::scene::sandbox::is_root("a repository of another owner is needed") {
        return;
    }
    // The hook cannot know whether the daemon may serve a repository of another user. So it starts a drain too.
    sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    let server = sandbox.path("server.toml");
    let text = std::fs::read_to_string(&server).unwrap();
    std::fs::write(&server, text.replace("[[repositories]]", "[[repositories]]\nowners = [\"65534\"]")).unwrap();
    std::os::unix::fs::chown(&source, Some(65_534), None).unwrap();
    let calls = traced();
    assert!(calls.contains("drain"), "{calls}");
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_and_restarted_loses_no_push() {
    let sandbox = Sandbox::new();
    configure(&sandbox, LOCAL);
    let port = free_port();
    let source = repository(&sandbox, "acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let mut daemon = Daemon::start_as_configured(&sandbox, port);
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let work = sandbox.work(&source);
    for n in 0..24 {
        work.commit(&n.to_string());
        work.push(&[&format!("main:b{n}"), "main"]);
        if n % 2 == 0 {
            // Kill the daemon a little later each time: before it gets the hint, while it reads the spool, during the push.
            std::thread::park_timeout(Duration::from_millis(3 * n));
            daemon.signal(Signal::KILL);
            daemon.ended();
            // Pushes go on while nobody serves them: the hook starts drains of its own.
            work.commit("alone");
            work.push(&["main"]);
            daemon = Daemon::start_as_configured(&sandbox, port);
        }
    }
    wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
    assert_eq!(sandbox.refs(&mirror).len(), 25);
}

#[test]
fn what_no_hook_reported_is_found_by_a_scan_or_a_comparison() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("scan_interval = \"1s\"\nreconcile_interval = \"3s\"\n{LOCAL}"));
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("wake = \"none\"\n{text}")).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the scan", || is_mirrored(&sandbox, &source, &mirror));
    // No push made this ref, so only a comparison finds it.
    sandbox.git(&source, &["update-ref", "refs/heads/quiet", "main"]);
    wait_for("the comparison", || is_mirrored(&sandbox, &source, &mirror));
    // A mirror that somebody writes into the file is mirrored, without a push or a command.
    let second = sandbox.bare("second.git");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[remotes.second]\nurl = \"{}\"\n", second.display())).unwrap();
    wait_for("the new mirror", || is_mirrored(&sandbox, &source, &second));
    // A comparison also runs for a mirror whose next attempt is hours away. Here somebody moves a branch on the mirror and moves it back.
    sandbox.mirror_push_ok(&source, &["set", "second", "--divergent-refs", "keep"]);
    let main = sandbox.oid(&second, "main");
    let clone = sandbox.path("clone");
    sandbox.git(&sandbox.path("home"), &["clone", "-q", second.to_str().unwrap(), clone.to_str().unwrap()]);
    sandbox.git(&clone, &["commit", "-q", "--allow-empty", "-m", "theirs"]);
    sandbox.git(&clone, &["push", "-q", "origin", "HEAD:main"]);
    work.commit("two");
    work.push(&["main"]);
    let state = || sandbox.mirror_push(&source, &["status", "second", "--json"]).json()[0]["update_status"].clone();
    wait_for("the divergence", || state() == "failed");
    sandbox.git(&second, &["update-ref", "refs/heads/main", &main]);
    wait_for("the comparison of a mirror whose next attempt is hours away", || is_mirrored(&sandbox, &source, &second));
}

#[test]
fn more_hints_than_the_kernel_queues_lose_no_push() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("scan_interval = \"1h\"\n{LOCAL}"));
    let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap().trim().parse::<usize>().unwrap();
    let count = (most + 5).min(40);
    let pairs: Vec<_> = (0..count)
        .map(|n| {
            let source = daemon.repository(&format!("r{n}"));
            let mirror = sandbox.bare(&format!("m{n}.git"));
            daemon.add(&format!("r{n}"), mirror.to_str().unwrap());
            (source, mirror)
        })
        .collect();
    let work = sandbox.work(&pairs[0].0);
    work.commit("one");
    daemon.signal(Signal::STOP);
    for (source, _) in &pairs {
        let begin = Instant::now();
        work.git(&["push", "-q", source.to_str().unwrap(), "main"]);
        assert!(begin.elapsed() < Duration::from_secs(5), "the push does not wait for the daemon");
    }
    daemon.signal(Signal::CONT);
    wait_for("every mirror", || pairs.iter().all(|(source, mirror)| is_mirrored(&sandbox, source, mirror)));
}

#[test]
fn false_hints_change_nothing() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("scan_interval = \"1h\"\n{LOCAL}"));
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let outside = sandbox.bare("outside.git");
    std::os::unix::fs::symlink(&outside, sandbox.path("srv/link.git")).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let inside = sandbox.path("srv").display().to_string();
    for hint in [
        "",
        "x",
        "/",
        "/etc",
        &format!("{inside}/../outside.git"),
        &format!("{inside}/link.git"),
        &"a".repeat(9000),
        &format!("{inside}/none.git"),
    ] {
        let _ = socket.send_to(hint.as_bytes(), sandbox.path("run/wake"));
    }
    let _ = socket.send_to(&[0xff, 0, 0xfe], sandbox.path("run/wake"));
    std::thread::park_timeout(Duration::from_millis(300));
    assert_eq!(daemon.ask("GET", "/healthz", "").unwrap().status, 200);
    assert!(!outside.join("mirror-push").exists() && !daemon.log().contains("outside"), "{}", daemon.log());
    // The daemon still acts on a true hint.
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the mirror", || is_mirrored(&sandbox, &source, &mirror));
}

#[test]
fn after_sigterm_running_updates_have_time_to_finish() {
    let sandbox = Sandbox::new();
    configure(&sandbox, &format!("shutdown_timeout = \"20s\"\n{LOCAL}"));
    let port = free_port();
    let source = repository(&sandbox, "acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let (gate, begun) = (sandbox.path("gate"), sandbox.path("begun"));
    let hook = format!(
        "#!/bin/sh\n: > '{b}'\nwhile [ -e '{b}' ] && [ ! -e '{g}' ]; do sleep 0.05; done\n",
        b = begun.display(),
        g = gate.display()
    );
    script(&mirror.join("hooks/pre-receive"), &hook);
    let work = sandbox.work(&source);
    let mut daemon = Daemon::start_as_configured(&sandbox, port);
    daemon.add("acme/widget", mirror.to_str().unwrap());
    work.commit("one");
    work.push(&["main"]);
    wait_for("the run", || begun.exists());
    daemon.signal(Signal::TERM);
    wait_for("its socket to go", || !sandbox.path("run/wake").exists());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(daemon.ended(), Some(0));
    assert!(is_mirrored(&sandbox, &source, &mirror), "the running update has succeeded");
    // If the time is too short, the next daemon carries out the update.
    configure(&sandbox, &format!("shutdown_timeout = \"1s\"\n{LOCAL}"));
    let mut daemon = Daemon::start_as_configured(&sandbox, port);
    std::fs::remove_file(&gate).unwrap();
    std::fs::remove_file(&begun).unwrap();
    work.commit("two");
    work.push(&["main"]);
    wait_for("the run", || begun.exists());
    let begin = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10));
    std::fs::write(&gate, "").unwrap();
    let _daemon = Daemon::start_as_configured(&sandbox, port);
    wait_for("the next daemon", || is_mirrored(&sandbox, &source, &mirror));
}

#[test]
fn a_request_at_work_is_answered_after_sigterm() {
    let sandbox = Sandbox::new();
    let mut daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    daemon.add("acme/widget", "/nonexistent.git");
    // The change waits for the lock of the configuration.
    let lock = std::fs::File::open(source.join("mirror-push/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (url, token) = (daemon.url("/api/v4/projects/acme%2Fwidget/remote_mirrors"), daemon.token.clone());
    let asked = std::thread::spawn(move || {
        crate::scene::daemon::ask(&url, "POST", "url=/another.git", &[("PRIVATE-TOKEN", &token)])
    });
    let waits = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        let mut paths = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        paths.any(|path| path.ends_with("mirror-push/lock"))
    };
    wait_for("the request", waits);
    daemon.signal(Signal::TERM);
    wait_for("the end to begin", || daemon.log().contains("stopping"));
    // Long enough for a daemon to end that does not wait for the answer.
    std::thread::park_timeout(Duration::from_secs(1));
    drop(lock);
    let answer = asked.join().unwrap();
    assert_eq!(answer.map(|answer| answer.status), Some(201), "{}", daemon.log());
    assert_eq!(daemon.ended(), Some(0));
    let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(config.contains("/another.git"), "{config}");
}

#[test]
fn after_sighup_with_a_broken_file_the_last_good_configuration_stays() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    daemon.repository("acme/widget");
    let create = || daemon.api("POST", "projects/1/remote_mirrors", "url=http://127.0.0.1/x.git").status;
    assert_eq!(create(), 400);
    std::fs::write(sandbox.path("server.toml"), "nonsense = [").unwrap();
    daemon.signal(Signal::HUP);
    wait_for("the error", || daemon.log().contains("the configuration stays as it was"));
    assert_eq!((create(), daemon.api("GET", "projects/1", "").status), (400, 200));
    configure(&sandbox, "[api]\nallowed_hosts = [\"127.0.0.1\"]\n");
    daemon.signal(Signal::HUP);
    wait_for("the new file", || create() == 201);
}

#[test]
fn the_address_of_a_mirror_is_checked_again_at_each_run() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let id = daemon.add("acme/widget", mirror.to_str().unwrap());
    configure(&sandbox, "");
    daemon.signal(Signal::HUP);
    wait_for("the new file", || daemon.log().contains("was reloaded"));
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let status = || daemon.api("GET", &format!("projects/1/remote_mirrors/{id}"), "").json();
    wait_for("the refusal", || status()["update_status"] == "failed");
    assert!(status()["last_error"].as_str().unwrap().contains("is blocked"), "{}", status());
    assert_eq!(sandbox.refs(&mirror).len(), 0);
}

#[test]
fn temporary_failures_are_tried_again_and_hold_up_nobody() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let (source, other) = (daemon.repository("acme/widget"), daemon.repository("acme/other"));
    let (mirror, good) = (sandbox.bare("mirror.git"), sandbox.bare("good.git"));
    daemon.add("acme/other", good.to_str().unwrap());
    let work = sandbox.work(&source);
    work.commit("one");
    // A port where nobody listens yet, and one where nobody ever answers.
    let port = free_port();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for port in [port, silent_port] {
        daemon.add("acme/widget", &format!("git://127.0.0.1:{port}/mirror.git"));
    }
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("confined", "retry_delay = \"1s\"\nmax_retry_delay = \"1s\"\nconfined"))
        .unwrap();
    work.push(&["main"]);
    wait_for("the failure", || {
        daemon.api("GET", "projects/acme%2Fwidget/remote_mirrors/1", "").json()["attempts"].as_u64() > Some(1)
    });
    work.git(&["push", "-q", other.to_str().unwrap(), "main"]);
    wait_for("the other", || is_mirrored(&sandbox, &other, &good));
    let _server = crate::scene::servers::Server::start_at(&sandbox, crate::scene::servers::Kind::Git, port);
    wait_for("the host that is back", || is_mirrored(&sandbox, &source, &mirror));
}

#[test]
fn a_setup_that_cannot_work_is_reported() {
    let sandbox = Sandbox::new();
    let said = |arguments: &[&str]| {
        let output = command(&sandbox, arguments).stderr(Stdio::piped()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(sandbox.path("server.toml"), "").unwrap();
    let (status, words) = said(&["--no-listen"]);
    assert!(status == 128 && words.contains("no file says where repositories are"), "{words}");
    let daemon = Daemon::start(&sandbox, "");
    let (status, words) = said(&["--no-listen"]);
    assert!(status == 128 && words.contains("another daemon uses"), "{words}");
    let taken = format!("127.0.0.1:{}", daemon.port);
    drop(daemon);
    let _listener = std::net::TcpListener::bind(&taken).unwrap();
    let (status, words) = said(&["--listen", &taken]);
    assert!(status == 128 && words.contains(&format!("cannot listen at {taken}")), "{words}");
    for bad in ["8417", "unix:relative", "nowhere:1"] {
        let (status, words) = said(&["--listen", bad]);
        assert!(status == 129 && words.contains("127.0.0.1:8417"), "{words}");
    }
    std::fs::write(sandbox.path("file"), "").unwrap();
    for (variable, text) in [("RUNTIME_DIRECTORY", "runtime directory"), ("STATE_DIRECTORY", "state directory")] {
        let output = command(&sandbox, &["--no-listen"])
            .env(variable, sandbox.path("file/x"))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(128) && words.contains(text), "{words}");
    }
}

#[test]
fn a_full_disk_below_the_daemons_state_keeps_nobody_out_and_stops_no_drain() {
    let sandbox = Sandbox::new();
    configure(&sandbox, &format!("scan_interval = \"1s\"\n{LOCAL}"));
    let Some(state) = crate::scene::disk::Small::new(&sandbox, &sandbox.path("state")) else { return };
    // The file of project numbers has room for exactly one more line in its last page.
    let numbers = |length: usize| format!("{{\"id\":7,\"git_dir\":\"/{}\"}}\n", "x".repeat(length));
    let widget = format!("{{\"id\":8,\"git_dir\":\"{}\"}}\n", sandbox.path("srv/acme/widget.git").display());
    let text = numbers(4096 - numbers(0).len() - widget.len());
    std::fs::write(sandbox.path("state/projects.jsonl"), &text).unwrap();
    let daemon = Daemon::start_as_configured(&sandbox, free_port());
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let fresh = daemon.new_token("never-used", &[]);
    state.fill();
    let headers = [("PRIVATE-TOKEN", &*fresh)];
    assert_eq!(daemon.ask_with("GET", "/api/v4/user", "", &headers).unwrap().status, 200);
    // A repository that has no project id yet is not shown by the API, but it is mirrored.
    let other = daemon.repository("acme/other");
    let second = sandbox.bare("second.git");
    sandbox.mirror_push_ok(&other, &["add", "m", second.to_str().unwrap()]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    work.git(&["push", "-q", other.to_str().unwrap(), "main"]);
    wait_for("the mirrors", || is_mirrored(&sandbox, &source, &mirror) && is_mirrored(&sandbox, &other, &second));
    wait_for("the trouble to be reported", || daemon.ask("GET", "/healthz", "").unwrap().status == 503);
    state.free();
    wait_for("the repair", || daemon.api("GET", "projects/acme%2Fother", "").status == 200);
    wait_for("the health", || daemon.ask("GET", "/healthz", "").unwrap().status == 200);
    let number = |path: &str| daemon.api("GET", &format!("projects/{path}"), "").json()["id"].as_u64();
    assert_eq!((number("acme%2Fwidget"), number("acme%2Fother")), (Some(8), Some(9)));
}
