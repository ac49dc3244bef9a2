//! Mirrors that lie: a receive-pack that sends many kinds of malformed advertisements and reports.
//!
//! Whatever it sends, the sync ends, does not panic, and believes no success that was not reported. It changes no ref here. It keeps the
//! push in the queue or names the ref in the status. The status is small and has no control characters. Memory stays bounded.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::scene::sandbox::{Completed, Sandbox, default_formats, peak_of};

/// Peak memory that a hostile mirror may cost, in KiB. An endless advertisement costs most: it is read up to its limit.
const MOST_MEMORY: u64 = 512 << 10;

fn packet(text: &[u8]) -> Vec<u8> {
    [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
}

fn packets(lines: &[&[u8]]) -> Vec<u8> {
    [lines.iter().flat_map(|line| packet(line)).collect(), b"0000".to_vec()].concat()
}

const CAPABILITIES: &str = "report-status delete-refs side-band-64k quiet ofs-delta object-format=sha1 agent=git/2.47";
const OLD: &str = "1111111111111111111111111111111111111111";

/// The advertisement of a mirror with one branch of its own.
fn advertisement() -> Vec<u8> {
    packets(&[format!("{OLD} refs/heads/other\0{CAPABILITIES}\n").as_bytes()])
}

fn banded(report: &[u8]) -> Vec<u8> {
    packets(&[&[b"\x01", report].concat()])
}

fn done() -> Vec<u8> {
    banded(&packets(&[b"unpack ok\n", b"ok refs/heads/main\n"]))
}

/// What the mirror says.
#[derive(Clone)]
struct Script {
    advertisement: Vec<u8>,
    report: Vec<u8>,
    /// Sent again and again after the report.
    endless: Vec<u8>,
}

/// A receive-pack of git:// that follows the script of the moment.
struct Liar {
    port: u16,
    script: Arc<Mutex<Script>>,
}

impl Liar {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Mutex::new(Script { advertisement: vec![], report: vec![], endless: vec![] }));
        let followed = Arc::clone(&script);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let script = followed.lock().unwrap().clone();
                // An error means that the client hung up.
                let _ = follow(&script, client);
            }
        });
        Self { port, script }
    }
}

fn read_packet(client: &mut TcpStream) -> std::io::Result<usize> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let length = usize::from_str_radix(std::str::from_utf8(&length).unwrap_or("0"), 16).unwrap_or(0);
    let mut rest = vec![0; length.saturating_sub(4)];
    client.read_exact(&mut rest)?;
    Ok(length)
}

fn follow(script: &Script, mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    read_packet(&mut client)?;
    client.write_all(&script.advertisement)?;
    if !script.report.is_empty() {
        let mut commands = 0;
        while read_packet(&mut client)? > 0 {
            commands += 1;
        }
        if commands > 0 {
            // The pack ends where nothing more comes for 20 ms. This mirror does not parse it.
            client.set_read_timeout(Some(Duration::from_millis(20)))?;
            while client.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {}
        }
        client.write_all(&script.report)?;
    }
    while !script.endless.is_empty() {
        client.write_all(&script.endless)?;
    }
    client.shutdown(Shutdown::Both)
}

struct Victim {
    sandbox: Sandbox,
    source: PathBuf,
    liar: Liar,
    inputs: usize,
}

impl Victim {
    fn new() -> Self {
        let sandbox = Sandbox::of(("sha1", default_formats().1));
        let liar = Liar::start();
        let source = sandbox.source(&format!("git://127.0.0.1:{}/x.git", liar.port), &[]);
        sandbox.add_mirror_config(&source, "stall_timeout = \"5s\"\ntimeout = \"60s\"\nretry_delay = \"1s\"");
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        Self { sandbox, source, liar, inputs: 0 }
    }

    /// Syncs with a mirror that says this. Returns the mirror's `update_status`.
    fn against(&mut self, advertisement: &[u8], report: &[u8], endless: &[u8]) -> String {
        self.inputs += 1;
        let what = String::from_utf8_lossy(&[advertisement, b" | ", report, b" | ", endless].concat()).into_owned();
        let what: String = what.chars().take(400).collect();
        let (advertisement, report, endless) = (advertisement.to_vec(), report.to_vec(), endless.to_vec());
        *self.liar.script.lock().unwrap() = Script { advertisement, report, endless };
        let refs = self.sandbox.refs(&self.source);
        let error = std::fs::File::create(self.sandbox.path("stderr")).unwrap();
        let mut sync = self.sandbox.program(&self.source);
        let (status, peak) =
            peak_of(sync.args(["sync", "--adopt"]).stdout(Stdio::null()).stderr(error).spawn().unwrap());
        let said = std::fs::read_to_string(self.sandbox.path("stderr")).unwrap();
        assert!([0, 1].contains(&status) && !said.contains("panicked"), "{what}: {status} {said}");
        assert!(peak < MOST_MEMORY, "{what}: {peak} KiB");
        assert_eq!(self.sandbox.refs(&self.source), refs, "{what}");
        let remote = self.source.join("mirror-push/remotes/m");
        let text = std::fs::read_to_string(remote.join("status.json")).unwrap();
        assert!(text.len() < 64 << 10, "{what}: {} bytes of status", text.len());
        assert!(!text.contains("\\u00") && !text.contains("\\u202"), "{what}: {text}");
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        let state = status["update_status"].as_str().unwrap().to_owned();
        if state != "finished" {
            assert!(status["last_error"].is_string(), "{what}: {status}");
            let queued = std::fs::read_dir(remote.join("queue")).unwrap().count();
            let is_kept = queued > 0 || !status["refs"].as_array().unwrap().is_empty();
            assert!(is_kept, "{what}: neither queued nor named: {status}");
        }
        // The base and the queue are removed, so that the next case begins anew.
        let _ = std::fs::remove_dir_all(remote.join("mirrored"));
        let _ = std::fs::remove_dir_all(remote.join("queue"));
        state
    }
}

#[test]
fn every_malformed_advertisement() {
    let mut victim = Victim::new();
    assert_eq!(victim.against(&advertisement(), &done(), b""), "finished", "an honest mirror is believed");
    let whole = advertisement();
    for cut in 0..whole.len() {
        assert_ne!(victim.against(&whole[..cut], b"", b""), "finished", "cut to {cut}");
    }
    // Each byte is changed in turn. What is still an advertisement may be believed. Nothing may panic.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= [0xff, 0x01][at % 2];
        victim.against(&bytes, &done(), b"");
    }
    let line = |text: &str| packets(&[text.as_bytes()]);
    let no_status = line(&format!("{OLD} refs/heads/other\0delete-refs ofs-delta\n"));
    let wrong = [
        b"0000".to_vec(),
        b"0001".to_vec(),
        b"0002".to_vec(),
        b"0003".to_vec(),
        b"0004".to_vec(),
        b"fff5".to_vec(),
        b"ffff".to_vec(),
        b"-001".to_vec(),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0; 70_000],
        vec![b'0'; 70_000],
        line("ERR no"),
        line(&format!("ERR {}", "\u{1b}]0;x\u{7}".repeat(3000))),
        line("version 2\n"),
        line(&format!("{OLD}refs/heads/other\n")),
        line(&format!("{} refs/heads/other\0{CAPABILITIES}\n", "z".repeat(40))),
        line(&format!("{} refs/heads/other\0{CAPABILITIES}\n", "1".repeat(64))),
        line(&format!("{OLD} refs/heads/other\0report-status object-format=sha256\n")),
        line(&format!("{OLD} refs/heads/other\0report-status object-format=md5\n")),
        no_status,
    ];
    for bytes in &wrong {
        assert_ne!(victim.against(bytes, &done(), b""), "finished", "{}", String::from_utf8_lossy(bytes));
    }
    // Names that cannot be mirrored are passed over; the other lines count.
    for name in ["refs/heads/../../x", "refs/heads/a..b", "refs/heads/", "HEAD", "", "refs/heads/x.lock", "\u{1b}[31m"]
    {
        let lines = [
            format!("{OLD} refs/heads/other\0{CAPABILITIES}\n"),
            format!("{OLD} {name}\n"),
            format!("{OLD} refs/heads/other\n"),
        ];
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert_eq!(victim.against(&packets(&lines), &done(), b""), "finished", "{name}");
    }
    eprintln!("{} malformed advertisements", victim.inputs);
}

#[test]
fn every_malformed_report() {
    let mut victim = Victim::new();
    let whole = done();
    for cut in 1..whole.len() - 4 {
        assert_ne!(victim.against(&advertisement(), &whole[..cut], b""), "finished", "cut to {cut}");
    }
    let inner = packets(&[b"unpack ok\n", b"ok refs/heads/main\n"]);
    for at in 0..inner.len() - 4 {
        let mut bytes = inner.clone();
        bytes[at] ^= 0x01;
        let is_success = bytes.windows(9).any(|part| part == b"unpack ok")
            && bytes.windows(18).any(|part| part == b"ok refs/heads/main");
        let state = victim.against(&advertisement(), &banded(&bytes), b"");
        assert!(state != "finished" || is_success, "byte {at} changed");
    }
    let wrong: Vec<Vec<u8>> = [
        packets(&[]),
        packets(&[b"ok refs/heads/main\n"]),
        packets(&[b"unpack ok\n"]),
        packets(&[b"unpack ok\n", b"ok refs/heads/mai\n"]),
        packets(&[b"unpack ok\n", b"ng refs/heads/main\n"]),
        packets(&[b"unpack ok\n", b"ng refs/heads/main no\n", b"ok refs/heads/other\n"]),
        packets(&[b"unpack ok\n", b"ok refs/heads/main\n", b"ng refs/heads/main after all not\n"]),
        packets(&[b"unpack failed\n", b"ok refs/heads/main\n"]),
        packets(&[b"unpack ok\n", b"ok refs/heads/main\n", b"option refname refs/heads/elsewhere\n"]),
        packets(&[
            b"unpack ok\n",
            b"ok refs/heads/main\n",
            b"option new-oid 2222222222222222222222222222222222222222\n",
        ]),
        b"0000".to_vec(),
        b"unpack ok\nok refs/heads/main\n".to_vec(),
    ]
    .iter()
    .map(|report| banded(report))
    .chain([
        inner,
        packets(&[b"\x03the disk is on fire"]),
        packets(&[b"\x04\x00"]),
        packets(&[b""]),
        packets(&[&[b"\x02", &b"x".repeat(60_000)[..]].concat()]),
        b"0004".repeat(1000),
    ])
    .collect();
    for report in wrong {
        let state = victim.against(&advertisement(), &report, b"");
        assert_ne!(state, "finished", "{}", String::from_utf8_lossy(&report));
    }
    // Long messages are shortened or refused, and cleaned.
    for (times, expected) in [(2000, "scheduled"), (200, "failed")] {
        let words = format!("ng refs/heads/main {}\n", "\u{1b}[2J\u{9b}secret\u{202e} ".repeat(times));
        let report = banded(&packets(&[b"unpack ok\n", words.as_bytes()]));
        assert_eq!(victim.against(&advertisement(), &report, b""), expected);
    }
    eprintln!("{} malformed reports", victim.inputs);
}

#[test]
fn advertisements_and_reports_without_an_end() {
    let mut victim = Victim::new();
    let first = advertisement();
    let first = &first[..first.len() - 4];
    let many: Vec<u8> = (0..500).flat_map(|n| packet(format!("{n:040x} refs/heads/{n:0200}\n").as_bytes())).collect();
    let unpacked = packet(&[b"\x01", &packet(b"unpack ok\n")[..]].concat());
    for (advertisement, report, endless) in [
        (first, &b""[..], &many[..]),
        (first, b"", b"0032shallow 1111111111111111111111111111111111111111"),
        (first, b"", b"0004"),
        (b"", b"", b"0000"),
        (b"", b"", b"000eversion 1\n"),
        (&advertisement(), b"0008\x02...", &packet(&[b"\x02", &b"more ".repeat(12_000)[..]].concat())),
        (&advertisement(), b"0008\x02...", b"0006\x02."),
        (&advertisement(), &unpacked, &packet(&[b"\x01", &packet(b"ng refs/heads/main no\n")[..]].concat())),
        (&advertisement(), &unpacked, b"0005\x01"),
        (&advertisement(), b"0004", b"0004"),
    ] {
        assert_ne!(victim.against(advertisement, report, endless), "finished");
    }
}

/// Anyone with a token can add a confined mirror, and many may be read at once. So its list of refs has a lower limit.
#[test]
fn a_confined_mirror_may_advertise_less_than_one_of_the_administrator() {
    let mut victim = Victim::new();
    let (first, line) = (advertisement(), packet(format!("{OLD} .have\n").as_bytes()));
    let large = [&first[..first.len() - 4], &line.repeat((33 << 20) / line.len() + 1), b"0000"].concat();
    assert_eq!(victim.against(&large, &done(), b""), "finished");
    victim.sandbox.add_mirror_config(&victim.source, "confined = true");
    let server = victim.sandbox.path("server.toml");
    std::fs::write(&server, "[api]\nallow_local_network = true\n").unwrap();
    let mut sync = victim.sandbox.program(&victim.source);
    let said = Completed::of(&sync.arg("--config").arg(&server).args(["sync", "--adopt"]).output().unwrap());
    assert!(said.status == 1 && said.out.contains("its list of refs is larger than 32 MiB"), "{said:?}");
}

/// A web server that answers every request with this.
fn web(answer: Vec<u8>, is_endless: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 8192]);
            while client.write_all(&answer).is_ok() && is_endless {}
        }
    });
    port
}

#[test]
fn hostile_web_servers() {
    let mut victim = Victim::new();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-advertisement\r\n";
    // 16 MiB of the digit 0 in gzip, again and again. We ask for no compression and decompress nothing.
    let bomb = "import gzip, sys; sys.stdout.buffer.write(gzip.compress(b'0' * (1 << 24)))";
    let bomb = victim.sandbox.command("python3").args(["-c", bomb]).output().unwrap().stdout;
    let with = |more: &str, body: &[u8]| [head.as_bytes(), more.as_bytes(), b"\r\n", body].concat();
    for (answer, is_endless) in [
        (with("Content-Encoding: gzip\r\n", &bomb), true),
        (with("Transfer-Encoding: chunked\r\n", b"ffffffffffffffffffff\r\n"), false),
        (with("Transfer-Encoding: chunked\r\n", b"-1\r\n"), false),
        (with("Content-Length: 99999999999999999999\r\n", b"x"), false),
        (with("Content-Length: 5\r\nContent-Length: 6\r\n", b"00000000"), false),
        (with("X: y\r\n", b"x"), true),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n".to_vec(), true),
        (b"HTTP/1.1 999 \xff\xff\r\n\r\n".to_vec(), false),
        (b"HTTP/9.9 200 OK\r\n\r\n".to_vec(), false),
        (b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), true),
        (b"HTTP/1.1 429 Later\r\nRetry-After: 99999999999999999999\r\n\r\n".to_vec(), false),
        (b"HTTP/1.1 429 Later\r\nRetry-After: -5\r\nContent-Type: text/plain\r\n\r\n\x1b[2J".to_vec(), false),
        (with("Content-Length: 34\r\n", b"001f# service=git-receive-pack\n000"), false),
        (with("Content-Length: 34\r\n", b"001e# service=git-upload-pack\n0000"), false),
    ] {
        let url = format!("http://127.0.0.1:{}/x.git", web(answer, is_endless));
        victim.sandbox.mirror_push_ok(&victim.source, &["set", "m", "--url", &url]);
        assert_ne!(victim.against(b"", b"", b""), "finished", "{url}");
    }
}

/// The error message that ends a report is stored for each ref that has no answer. It is cleaned first.
#[test]
fn a_password_in_a_report_that_breaks_off_is_not_shown() {
    const CANARY: &str = "c4nary-in-a-broken-report";
    let mut victim = Victim::new();
    victim.sandbox.mirror_push_with_input(&victim.source, &["credential", "m"], &format!("{CANARY}\n"));
    // One ref is answered, the other is not.
    victim.sandbox.git(&victim.source, &["update-ref", "refs/heads/second", "refs/heads/main"]);
    let answered = [packet(b"unpack ok\n"), packet(b"ok refs/heads/main\n")].concat();
    let begun = packet(&[b"\x01", &answered[..]].concat());
    let report = [begun, packet(format!("\x03the token {CANARY} has expired\n").as_bytes())].concat();
    let state = victim.against(&advertisement(), &report, b"");
    assert_ne!(state, "finished");
    let shown = victim.sandbox.mirror_push(&victim.source, &["status", "--json", "-v"]);
    let log = victim.sandbox.mirror_push(&victim.source, &["log"]);
    let remote = victim.source.join("mirror-push/remotes/m");
    let status = std::fs::read_to_string(remote.join("status.json")).unwrap();
    let history = std::fs::read_to_string(remote.join("history.jsonl")).unwrap();
    assert!(status.contains("has expired") && status.contains("*****"), "{status}");
    let said = std::fs::read_to_string(victim.sandbox.path("stderr")).unwrap();
    for text in [&shown.out, &shown.err, &log.out, &log.err, &status, &history, &said] {
        assert!(!text.contains(CANARY), "{text}");
    }
}
