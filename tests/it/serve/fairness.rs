//! One token or client cannot keep the others from the API or from the workers. The number of a project's mirrors is bounded.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::scene::daemon::{Daemon, LOCAL, ask};
use crate::scene::sandbox::{Sandbox, is_root, wait_for};

/// How long another token waits at most, for an answer and for a push to arrive.
const SOON: Duration = Duration::from_secs(2);

/// A git:// server that advertises one ref a second without end, so that no time limit is reached. Returns its port.
fn drip() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = client.read(&mut [0; 1024]);
                for number in 0.. {
                    let capabilities = if number == 0 { "\0report-status delete-refs ofs-delta" } else { "" };
                    let line = format!("{} refs/heads/b{number}{capabilities}\n", "1".repeat(40));
                    if write!(client, "{:04x}{line}", line.len() + 4).is_err() {
                        return;
                    }
                    std::thread::park_timeout(Duration::from_secs(1));
                }
            });
        }
    });
    port
}

/// How many mirrors the daemon is updating.
fn running(daemon: &Daemon<'_>) -> usize {
    let text = daemon.ask("GET", "/metrics", "").unwrap().text;
    let line = text.lines().find_map(|line| line.strip_prefix("git_mirror_push_running_jobs "));
    line.unwrap().parse().unwrap()
}

/// Requests of another token to read and to change `good/widget` are answered soon, and its pushes are mirrored soon.
fn others_are_served(daemon: &Daemon<'_>, source: &Path, mirror: &Path) {
    let sandbox = daemon.sandbox;
    let work = sandbox.work(source);
    for number in 0..10 {
        for (method, path, status) in [("GET", "", 200), ("POST", "/1/sync", 204)] {
            let begin = Instant::now();
            let answer = daemon.api(method, &format!("projects/good%2Fwidget/remote_mirrors{path}"), "");
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(begin.elapsed() < SOON, "{method} was answered after {:?}", begin.elapsed());
        }
        work.commit(&number.to_string());
        let begin = Instant::now();
        work.push(&["main"]);
        wait_for("the mirror", || sandbox.refs(source) == sandbox.refs(mirror));
        assert!(begin.elapsed() < SOON, "a push after {:?}", begin.elapsed());
    }
}

#[test]
fn a_greedy_token_does_not_delay_another() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("good/widget");
    let mirror = sandbox.bare("mirror.git");
    let projects: Vec<String> = (0..6).map(|number| format!("bad/p{number}")).collect();
    projects.iter().for_each(|project| drop(daemon.repository(project)));
    daemon.add("good/widget", mirror.to_str().unwrap());
    let mut options: Vec<&str> = projects.iter().flat_map(|project| ["--project", project]).collect();
    options.extend(["--scope", "api"]);
    let token = daemon.new_token("greedy", &options);
    let bad = |method: &str, path: &str, body: &str| {
        ask(&daemon.url(&format!("/api/v4/projects/{path}")), method, body, &[("PRIVATE-TOKEN", &token)]).unwrap()
    };
    let slow = |name: &str, project: &str| {
        // Each mirror has a port of its own, which counts as a host. A host gets one run at a time until it has answered.
        let url = format!("git://127.0.0.1:{}/{name}.git", drip());
        let body = serde_json::json!({ "url": url, "name": name, "enabled": true }).to_string();
        bad("POST", &format!("{}/remote_mirrors", project.replace('/', "%2F")), &body)
    };
    // Start more endless runs than the daemon makes at once (`max_jobs`).
    for project in &projects {
        for number in 0..3 {
            assert_eq!(slow(&format!("m{number}"), project).status, 201);
        }
    }
    wait_for("the slow runs", || running(&daemon) >= 12);
    let first = &projects[0];
    let path = format!("{}/remote_mirrors", first.replace('/', "%2F"));
    let id = bad("GET", &path, "").json()[0]["id"].as_u64().unwrap();
    assert_eq!(bad("DELETE", &format!("{path}/{id}"), "").status, 204, "a removal does not wait for the run");
    let taken = slow("m0", first);
    assert_eq!(taken.status, 409, "{taken:?}");
    assert!(taken.text.contains("409 Conflict: mirror 'm0' is being updated or removed"), "{taken:?}");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..20).for_each(|_| drop(slow("m0", first))));
        }
        others_are_served(&daemon, &source, &mirror);
    });
}

/// A name server of this test takes every question and answers none. More mirrors than may be updated at once wait for it, and more requests
/// of one token than there are threads.
#[test]
fn a_name_server_that_never_answers_delays_only_those_who_need_it() {
    if !is_root("a mount namespace with a name server of its own") {
        return;
    }
    let sandbox = Sandbox::new();
    let address = format!("127.53.{}.{}", std::process::id() / 250 % 250, std::process::id() % 250 + 1);
    let silent = std::net::UdpSocket::bind((&*address, 53)).unwrap();
    let daemon = Daemon::start_with_name_server(&sandbox, "scan_interval = \"1s\"\n", &address);
    let source = daemon.repository("good/widget");
    let mirror = sandbox.bare("mirror.git");
    sandbox.mirror_push_ok(&source, &["add", "m", mirror.to_str().unwrap()]);
    let projects: Vec<String> = (0..8).map(|number| format!("bad/p{number}")).collect();
    for project in &projects {
        let repository = daemon.repository(project);
        let work = sandbox.work(&repository);
        work.commit("one");
        sandbox.git(&repository, &["fetch", "-q", work.path.to_str().unwrap(), "main:main"]);
        let host = project.replace('/', "-");
        let remote = |n: usize| format!("[remotes.m{n}]\nurl = \"git://{host}-{n}.example.org/x.git\"\n");
        std::fs::create_dir_all(repository.join("mirror-push")).unwrap();
        std::fs::write(repository.join("mirror-push/config.toml"), (0..3).map(remote).collect::<String>()).unwrap();
    }
    wait_for("the runs that wait for an address", || running(&daemon) >= 12);
    let mut options: Vec<&str> = projects.iter().flat_map(|project| ["--project", project]).collect();
    options.extend(["--scope", "api"]);
    let token = daemon.new_token("greedy", &options);
    let asked: Vec<TcpStream> = (0..40)
        .map(|number| {
            let path = projects[number % projects.len()].replace('/', "%2F");
            let body = format!("{{\"url\":\"git://q{number}.example.org/x.git\",\"name\":\"q{number}\"}}");
            let head = format!(
                "POST /api/v4/projects/{path}/remote_mirrors HTTP/1.1\r\nHost: h\r\nPRIVATE-TOKEN: {token}\r\n"
            );
            let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
            stream.write_all([head, length, body].concat().as_bytes()).unwrap();
            stream
        })
        .collect();
    others_are_served(&daemon, &source, &mirror);
    drop(asked);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok(), "the name server was asked");
}

#[test]
fn a_project_has_a_bounded_number_of_mirrors_and_a_regex_a_bounded_size() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("{LOCAL}max_mirrors_per_project = 3\n"));
    let source = daemon.repository("acme/widget");
    sandbox.mirror_push_ok(&source, &["add", "own", "/nowhere.git", "--disabled"]);
    let make = |extra: serde_json::Value| {
        let mut body = serde_json::json!({ "url": "git://127.0.0.1:1/x.git" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        daemon.api("POST", "projects/1/remote_mirrors", &body.to_string())
    };
    let large = make(serde_json::json!({ "mirror_branch_regex": r"\pL{100}" }));
    assert_eq!(large.status, 400, "{large:?}");
    assert!(large.text.contains("size limit"), "{large:?}");
    for number in 0..3 {
        let made = make(serde_json::json!({ "name": format!("m{number}") }));
        assert_eq!(made.status, 201, "the administrator's own mirrors do not count: {made:?}");
    }
    let more = make(serde_json::json!({}));
    assert_eq!(more.status, 400, "{more:?}");
    assert!(more.text.contains("the project has 3 mirrors and may have no more"), "{more:?}");
    assert_eq!(daemon.api("DELETE", "projects/1/remote_mirrors/2", "").status, 204);
    assert_eq!(make(serde_json::json!({})).status, 201);
}

#[test]
fn bodies_that_never_come_hold_up_nobody() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    let head = "POST /login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let mut slow: Vec<TcpStream> = (0..520)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
            write!(stream, "{head}Content-Length: 1000\r\n\r\nt").unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        let begin = Instant::now();
        assert_eq!(daemon.api("GET", "projects/1/remote_mirrors", "").status, 200);
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
    // The last connection is still open. The daemon answers there that the body took too long.
    let begin = Instant::now();
    let last = slow.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut said = vec![0; 64];
    let length = last.read(&mut said).unwrap();
    assert!(said[..length].starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said[..length]));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

/// Any local user may send hints. A flood of them delays no request and no push.
#[test]
fn a_flood_of_hints_delays_nobody() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("good/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("good/widget", mirror.to_str().unwrap());
    let wake = sandbox.path("run/wake");
    let is_over = AtomicBool::new(false);
    let work = sandbox.work(&source);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..2)
            .map(|number| {
                let (wake, is_over) = (&wake, &is_over);
                scope.spawn(move || {
                    let socket = UnixDatagram::unbound().unwrap();
                    let mut sent = 0_u64;
                    while !is_over.load(Ordering::Relaxed) {
                        // Repositories that do not exist, and nonsense.
                        let hint = if number == 0 { format!("/nowhere/{sent}.git") } else { "x".repeat(4000) };
                        sent += u64::from(socket.send_to(hint.as_bytes(), wake).is_ok());
                    }
                    sent
                })
            })
            .collect();
        let over = Over(&is_over);
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            for _ in 0..10 {
                let begin = Instant::now();
                assert_eq!(daemon.ask("GET", "/api/v4/projects/good%2Fwidget/remote_mirrors", "").unwrap().status, 200);
                slowest = slowest.max(begin.elapsed());
            }
            work.commit(&number.to_string());
            work.push(&["main"]);
            let begin = Instant::now();
            wait_for("the push", || sandbox.oid(&mirror, "main") == sandbox.oid(&source, "main"));
            slowest = slowest.max(begin.elapsed());
        }
        drop(over);
        let sent: u64 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        assert!(sent > 1000 && slowest < SOON, "{sent} hints, the slowest answer took {slowest:?}");
    });
}

/// Ends the other threads, also if an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
