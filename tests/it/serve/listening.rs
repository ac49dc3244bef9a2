//! Where the daemon listens: a socket from systemd, a Unix socket, and behind a proxy. And which host names it answers for.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::scene::daemon::{Daemon, LOCAL, command, configure, repository};
use crate::scene::sandbox::{Sandbox, wait_for};
use crate::scene::servers::free_port;

#[test]
fn it_listens_at_the_socket_of_systemd_and_reports_that_it_is_ready() {
    let sandbox = Sandbox::new();
    configure(&sandbox, "");
    repository(&sandbox, "acme/widget");
    let notify = UnixDatagram::bind(sandbox.path("notify")).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let socket = sandbox.path("page.sock");
    let mut activate = sandbox.command("systemd-socket-activate");
    activate.arg("-l").arg(&socket).arg(format!("--setenv=NOTIFY_SOCKET={}", sandbox.path("notify").display()));
    for (name, value) in sandbox.environment() {
        activate.arg(format!("--setenv={name}={}", value.to_str().unwrap()));
    }
    activate.arg(format!("--setenv=GIT_MIRROR_PUSH_CONFIG={}", sandbox.path("server.toml").display()));
    activate.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("serve").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = activate.spawn().unwrap();
    // The file is there a moment before somebody listens.
    wait_for("the socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let answer = over_unix(&socket, "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut buffer = [0; 256];
    let length = notify.recv(&mut buffer).unwrap();
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("READY=1"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

fn over_unix(socket: &std::path::Path, request: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// nginx with the example configuration that is installed, `dist/nginx.conf`.
#[test]
fn behind_the_proxy_of_the_example() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    daemon.add("acme/widget", sandbox.bare("mirror.git").to_str().unwrap());
    crate::scene::servers::certificates(&sandbox);
    let (port, d) = (free_port(), sandbox.path("proxy").display().to_string());
    std::fs::create_dir(&d).unwrap();
    let example = include_str!("../../../dist/nginx.conf")
        .replace("443", &format!("127.0.0.1:{port}"))
        .replace("8417", &daemon.port.to_string())
        .replace("/etc/ssl/mirrors.example.org.pem", &sandbox.path("tls/leaf.pem").display().to_string())
        .replace("/etc/ssl/private/mirrors.example.org.key", &sandbox.path("tls/leaf.key").display().to_string());
    let temp: String = ["client_body", "fastcgi", "proxy", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {d}/{kind};\n"))
        .concat();
    let config = format!(
        "user root;\ndaemon off;\npid {d}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}\n{example}\n}}\n"
    );
    std::fs::write(format!("{d}/nginx.conf"), config).unwrap();
    let arguments = ["-c", &format!("{d}/nginx.conf"), "-e", &format!("{d}/error.log")];
    let mut nginx = crate::scene::servers::start(&sandbox, "/usr/sbin/nginx", &arguments);
    wait_for("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let curl = |path: &str, more: &[&str]| {
        let mut curl = sandbox.command("curl");
        curl.args(["-s", "-i", "--cacert", sandbox.path("tls/ca.pem").to_str().unwrap()]);
        let output = curl.args(more).arg(format!("https://localhost:{port}{path}")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let token = format!("PRIVATE-TOKEN: {}", daemon.token);
    let list = curl("/api/v4/projects/acme%2Fwidget/remote_mirrors", &["-H", &token]);
    assert!(list.starts_with("HTTP/1.1 200") && list.contains("\"update_status\""), "{list}");
    assert!(
        list.contains(&format!("<https://localhost:{port}/api/v4/projects/acme%2Fwidget/remote_mirrors?page=1")),
        "{list}"
    );
    let login = curl("/login", &["-d", &format!("token={}", daemon.token)]);
    assert!(login.contains("303 See Other") && login.contains("SameSite=Strict; Max-Age=43200; Secure"), "{login}");
    let cookie = login.split("et-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    // nginx passes on each event at once, although the answer never ends.
    let events = curl("/projects/1/events", &["-m", "2", "-H", &format!("Cookie: {cookie}")]);
    assert!(events.contains("text/event-stream") && events.contains("data: "), "{events}");
    let large = curl("/api/v4/projects/1/remote_mirrors", &["-H", &token, "-d", &"x".repeat(70 << 10)]);
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    rustix::process::kill_process_group(rustix::process::Pid::from_child(&nginx), Signal::KILL).unwrap();
    nginx.wait().unwrap();
}

#[test]
fn a_unix_socket_that_a_dead_daemon_left_is_no_hindrance() {
    let sandbox = Sandbox::new();
    configure(&sandbox, "");
    let socket = sandbox.path("page.sock");
    for _ in 0..2 {
        let mut child = command(&sandbox, &["--listen", &format!("unix:{}", socket.display())]).spawn().unwrap();
        let ask = || over_unix(&socket, "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        wait_for("the daemon", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert!(ask().starts_with("HTTP/1.1 200"));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Only the socket of a dead daemon is replaced. At any other file the daemon ends with an error.
#[test]
fn no_other_file_is_replaced_by_the_daemons_socket() {
    let sandbox = Sandbox::new();
    configure(&sandbox, "");
    let taken = sandbox.path("taken");
    std::fs::write(&taken, "mine").unwrap();
    let mut child = command(&sandbox, &["--listen", &format!("unix:{}", taken.display())]).spawn().unwrap();
    wait_for("the end of the daemon", || child.try_wait().unwrap().is_some());
    let status = child.wait().unwrap();
    let log = std::fs::read_to_string(sandbox.path("daemon.log")).unwrap();
    assert!(!status.success() && log.contains("cannot listen at"), "{log}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    let left = std::fs::read_dir(sandbox.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".listen.")));
}

#[test]
fn only_configured_host_names_are_answered() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, &format!("{LOCAL}hosts = [\"Mirror.example.org\", \"::1\"]\n"));
    let status = |path: &str, host: &str| {
        let headers = [("Host", host), ("PRIVATE-TOKEN", &*daemon.token)];
        daemon.ask_with("GET", path, "", &headers).unwrap().status
    };
    for (host, expected) in [
        ("mirror.example.org", 200),
        ("MIRROR.example.org:8443", 200),
        ("[::1]:8080", 200),
        ("127.0.0.1", 421),
        ("evil.example.org", 421),
        ("mirror.example.org.evil.example", 421),
        ("localhost", 421),
    ] {
        for path in ["/metrics", "/login", "/api/v4/version"] {
            assert_eq!(status(path, host), expected, "{host}{path}");
        }
        assert_eq!(status("/healthz", host), 200, "{host}");
    }
    let answer = daemon.ask("GET", "/api/v4/version", "").unwrap();
    assert_eq!(answer.status, 421);
    let wrong = sandbox.path("server.toml");
    let text = std::fs::read_to_string(&wrong).unwrap().replace("::1", "h:80");
    std::fs::write(&wrong, text).unwrap();
    let said = command(&sandbox, &["--no-listen"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("'h:80' is not the name of a host, without its port"), "{said}");
    drop(daemon);
    let daemon = Daemon::start(&sandbox, &format!("{LOCAL}hosts = []\n"));
    assert_eq!(daemon.ask("GET", "/api/v4/version", "").unwrap().status, 200, "an empty list restricts nothing");
}
