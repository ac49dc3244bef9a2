//! Abusive clients: too many, too slow, too large. Other clients are still answered, and the drains continue.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, wait_for};

/// Connections that say nothing.
const SILENT: usize = 10_000;

fn connect(daemon: &Daemon<'_>) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends this and reads the status line.
fn say(daemon: &Daemon<'_>, text: &[u8]) -> String {
    let mut stream = connect(daemon);
    // The daemon may refuse the request before it is written completely. Its answer is still read.
    let _ = stream.write_all(text);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn descriptors(daemon: &Daemon<'_>) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

#[test]
fn ten_thousand_connections_that_say_nothing_hold_up_nobody() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let count = hard.map_or(SILENT, |hard| SILENT.min(hard as usize - 200));
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    daemon.add("acme/widget", mirror.to_str().unwrap());
    let work = sandbox.work(&source);
    let mut silent = Vec::new();
    for n in 0..count {
        silent.push(connect(&daemon));
        if n % 1000 == 999 {
            let begin = Instant::now();
            assert_eq!(daemon.api("GET", "projects/1/remote_mirrors", "").status, 200, "with {n} others");
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?} with {n} others", begin.elapsed());
            work.commit(&n.to_string());
            work.push(&["main"]);
            wait_for("the mirror", || sandbox.refs(&source) == sandbox.refs(&mirror));
        }
    }
    assert!(descriptors(&daemon) < 700, "{} descriptors", descriptors(&daemon));
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(memory < 100 << 10, "{memory} KiB");
}

#[test]
fn what_is_too_large_or_not_http_is_refused() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    let post = |length: usize, body: &[u8]| {
        let head = format!(
            "POST /api/v4/projects/1/remote_mirrors HTTP/1.1\r\nHost: h\r\nPRIVATE-TOKEN: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
            daemon.token
        );
        say(&daemon, &[head.as_bytes(), body].concat())
    };
    assert_eq!(post(65 << 10, &vec![b' '; 65 << 10]), "HTTP/1.1 413 Payload Too Large");
    assert_eq!(post(4, b"null"), "HTTP/1.1 400 Bad Request");
    let endless = format!(
        "POST /api/v4/projects/1/remote_mirrors HTTP/1.1\r\nHost: h\r\nPRIVATE-TOKEN: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        daemon.token,
        format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(5),
    );
    assert_eq!(say(&daemon, endless.as_bytes()), "HTTP/1.1 413 Payload Too Large");
    let header = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100 << 10));
    // The daemon closes the connection while the client still sends. The client may then lose the answer.
    let said = say(&daemon, header.as_bytes());
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "the head is too large: {said}");
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n",
        b"HELO there\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let said = say(&daemon, nonsense);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 5"), "{said}");
    }
    assert_eq!(daemon.api("GET", "projects/1", "").status, 200);
}

#[test]
fn a_request_head_that_never_ends_is_cut_off() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let mut slow = connect(&daemon);
    slow.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let begin = Instant::now();
    // One header every second: no pause is long, but the head never ends.
    while begin.elapsed() < Duration::from_secs(20) {
        std::thread::park_timeout(Duration::from_secs(1));
        if slow.write_all(b"X: y\r\n").is_err() {
            break;
        }
    }
    assert!((8..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert_eq!(daemon.ask("GET", "/healthz", "").unwrap().status, 200);
}
