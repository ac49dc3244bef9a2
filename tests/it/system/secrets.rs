//! The canary: a password that must be found nowhere but in the file `secret` and on the wire.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::scene::sandbox::{Sandbox, run_with_input, script, skip};
use crate::scene::servers::{Kind, PASSWORD, PASSWORD_IN_URL, Server};

fn holds(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
}

/// Searches every file below a directory except those named `secret`. Follows no link.
fn search(directory: &Path, canaries: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            search(&path, canaries, found);
        } else if path.file_name().is_some_and(|name| name != "secret") {
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.extend(
                canaries.iter().filter(|canary| holds(&bytes, canary)).map(|c| format!("{} in {}", c, path.display())),
            );
        }
    }
}

/// Searches the arguments and the environments of all processes but this one.
fn processes(canaries: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.chars().all(|c| c.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            for canary in canaries.iter().filter(|canary| holds(&bytes, canary)) {
                found.push(format!("{canary} in {file}: {}", String::from_utf8_lossy(&bytes).replace('\0', " ")));
            }
        }
    }
}

/// A password that no other test has, because this test searches all processes of the machine for it.
const OWN: &str = "0wn%c4nary%Tok3n";
/// The same as it stands in a URL.
const OWN_IN_URL: &str = "0wn%25c4nary%25Tok3n";

#[test]
fn a_password_is_found_nowhere_but_where_it_belongs() {
    use base64::Engine;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("mirror-bot:{OWN}"));
    let canaries = [OWN, OWN_IN_URL, &basic];
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    // The mirror knows the password and repeats it in its message.
    let hook = mirror.join("hooks/pre-receive");
    script(
        &hook,
        &format!("#!/bin/sh\nsleep 0.2\necho \"remote says $(cat '{}')\"\nexit 1\n", sandbox.path("echo").display()),
    );
    let server = Server::start_with_password(&sandbox, OWN);
    let source = sandbox.source("/mirror.git", &[]);
    let (over, mut seen) = (AtomicBool::new(false), Vec::new());
    let mut output = Vec::new();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut found = Vec::new();
            while !over.load(Ordering::Relaxed) {
                processes(&canaries, &mut found);
            }
            found
        });
        let mut run = |arguments: &[&str], input: &str| {
            let said = sandbox.mirror_push_with_input(&source, arguments, input);
            output.extend([said.out, said.err]);
            said.status
        };
        assert_eq!(
            run(&["set", "m", "--url", "https://mirror-bot@localhost/x.git", "--password-stdin"], &format!("{OWN}\n")),
            0
        );
        assert_eq!(
            run(&["set", "m", "--url", &server.url("mirror.git").replace(&format!(":{PASSWORD_IN_URL}"), "")], ""),
            0
        );
        server.configure_access(&sandbox, &source, "m");
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        std::fs::write(sandbox.path("echo"), OWN).unwrap();
        for command in [
            &["drain", "-vvv"][..],
            &["sync", "--json"],
            &["status"],
            &["status", "--json"],
            &["list"],
            &["show", "m"],
            &["log"],
            &["plan"],
        ] {
            run(command, "");
        }
        // No server is at this address. The error must not show the password either.
        run(&["set", "m", "--url", "https://localhost:1/x.git"], "");
        run(&["sync", "-vvv"], "");
        over.store(true, Ordering::Relaxed);
        seen = watching.join().unwrap();
    });
    assert!(output.iter().any(|text| text.contains("remote says *****")), "the mirror's message is shown: {output:?}");
    std::fs::remove_file(sandbox.path("echo")).unwrap();
    search(&sandbox.path(""), &canaries, &mut seen);
    seen.extend(output.iter().filter(|text| canaries.iter().any(|canary| text.contains(canary))).cloned());
    assert!(seen.is_empty(), "{} places, the first: {}", seen.len(), seen[0]);
    let secret = source.join("mirror-push/remotes/m/secret");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), format!("{OWN}\n"));
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    // A `secret` that others may read is not used.
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && said.out.contains("chmod 600"), "{said:?}");
}

#[test]
fn a_mirror_that_repeats_the_password_is_redacted() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let hook = mirror.join("hooks/pre-receive");
    script(&hook, &format!("#!/bin/sh\necho 'token {PASSWORD} is read-only'\nexit 1\n"));
    let server = Server::start(&sandbox, Kind::Https);
    let source = server.source(&sandbox, "mirror.git", &[]);
    let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(config.contains("username = \"mirror-bot\"") && !config.contains("c4nary"), "{config}");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["drain", "-v"]);
    assert!(said.out.contains("token ***** is read-only"), "{said:?}");
    assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD), "{said:?}");
    let status = std::fs::read_to_string(source.join("mirror-push/remotes/m/status.json")).unwrap();
    assert!(status.contains("*****") && !status.contains(PASSWORD));
    assert_eq!(
        sandbox.mirror_push_ok(&source, &["list"]).out,
        format!("m\thttps://mirror-bot@localhost:{}/mirror.git\n", server.port())
    );
}

/// Whoever pastes a token where the user name belongs has given a password.
#[test]
fn a_token_in_place_of_the_user_name_is_the_password() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &["--disabled"]);
    for (name, token) in [("a", "ghp_c4naryc4nary"), ("b", "glpat-c4nary-x"), ("c", "0123456789abcdef0123")] {
        let said = sandbox
            .mirror_push_ok(&source, &["add", name, &format!("https://{token}@127.0.0.1:1/{name}.git"), "--disabled"]);
        let secret = std::fs::read_to_string(source.join(format!("mirror-push/remotes/{name}/secret"))).unwrap();
        assert_eq!(secret, format!("{token}\n"));
        let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
        let shown = sandbox.mirror_push_ok(&source, &["status", "--json"]).out;
        assert!(![&said.out, &said.err, &config, &shown].iter().any(|text| text.contains(token)), "{name}");
        assert!(shown.contains(&format!("https://x-access-token@127.0.0.1:1/{name}.git")), "{shown}");
    }
    // GitHub also takes a token as the user name, with the fixed password `x-oauth-basic`.
    sandbox.mirror_push_ok(&source, &["add", "e", "https://ghp_c4nary:x-oauth-basic@127.0.0.1:1/e.git", "--disabled"]);
    assert_eq!(std::fs::read_to_string(source.join("mirror-push/remotes/e/secret")).unwrap(), "ghp_c4nary\n");
    // A file that somebody edited may have a token as the user name. No command shows it.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(!text.contains("ghp_"), "{text}");
    std::fs::write(
        &config,
        format!("{text}\n[remotes.f]\nurl = \"https://127.0.0.1:1/f.git\"\nusername = \"ghp_c4nary\"\n"),
    )
    .unwrap();
    std::fs::write(source.join("mirror-push/remotes/f/secret"), "").ok();
    for command in
        [&["status"][..], &["status", "--json"], &["list"], &["show", "f"], &["sync", "f"], &["doctor"], &["log"]]
    {
        let said = sandbox.mirror_push(&source, command);
        assert!(!said.out.contains("ghp_c4nary") && !said.err.contains("ghp_c4nary"), "{command:?}: {said:?}");
    }
    // A long user name is not taken for a token if a password is given with it or is stored.
    let mut add = sandbox.program(&source);
    add.args(["add", "d", "https://averylongnameofaservice@127.0.0.1:1/x.git", "--disabled", "--password-stdin"]);
    assert_eq!(run_with_input(&mut add, b"c4nary\n").status, 0);
    sandbox.mirror_push_ok(&source, &["set", "d", "--url", "https://averylongnameofaservice@127.0.0.1:1/y.git"]);
    assert!(
        sandbox.mirror_push_ok(&source, &["list"]).out.contains("https://averylongnameofaservice@127.0.0.1:1/y.git")
    );
    assert_eq!(std::fs::read_to_string(source.join("mirror-push/remotes/d/secret")).unwrap(), "c4nary\n");
}

/// A server that gives everybody this answer.
fn answering(answer: String) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(answer.as_bytes());
        }
    });
    port
}

/// A long message of the server is cut. A password that the cut would split must not show its beginning.
#[test]
fn a_password_across_the_cut_is_masked_and_long_messages_are_cut() {
    let canary = "c4nary-password-of-thirty-bytes";
    for (before, status) in
        [(280, "403 Forbidden"), (290, "403 Forbidden"), (299, "404 Not Found"), (5000, "500 Error")]
    {
        let sandbox = Sandbox::new();
        let body = format!("{}{canary} and more", "x".repeat(before));
        let length = body.len();
        let port = answering(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ));
        let source = sandbox
            .source(&format!("http://127.0.0.1:{port}/x.git"), &["--auth-method", "password", "--username", "u"]);
        sandbox.add_mirror_config(&source, "allow_insecure_http = true");
        let secret = source.join("mirror-push/remotes/m/secret");
        std::fs::write(&secret, canary).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        let error = said.json()[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("xxx") && !error.contains("c4nar") && error.len() < 700, "{before}: {error}");
    }
    // A packet line of almost the greatest length.
    let sandbox = Sandbox::new();
    let line = format!("ERR {}", "y".repeat(65_000));
    let port = answering(format!("{:04x}{line}", line.len() + 4));
    let source = sandbox.source(&format!("git://127.0.0.1:{port}/x.git"), &[]);
    sandbox.mirror_push(&source, &["sync"]);
    let error = sandbox.status(&source)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("yyy") && error.len() < 700, "{} bytes", error.len());
}

#[test]
fn the_daemon_leaves_no_core_file() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Where the limit is 0 already, the test would show nothing.
    let limit = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: limit.maximum, ..limit }).unwrap();
    if getrlimit(Resource::Core).current == Some(0) {
        return skip("no program may leave a core file here");
    }
    let sandbox = Sandbox::new();
    let daemon = crate::scene::daemon::Daemon::start(&sandbox, "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
}

/// The advice names the target of a redirect, which the server chose: a password in it is masked there, too.
#[test]
fn a_password_in_the_target_of_a_redirect_is_masked_in_the_advice() {
    let canary = "c4naryPasswordInAPath";
    let sandbox = Sandbox::new();
    let location = format!("https://h.example/{canary}/x.git/info/refs");
    let port = answering(format!(
        "HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ));
    let source =
        sandbox.source(&format!("http://127.0.0.1:{port}/x.git"), &["--auth-method", "password", "--username", "u"]);
    sandbox.add_mirror_config(&source, "allow_insecure_http = true");
    let secret = source.join("mirror-push/remotes/m/secret");
    std::fs::write(&secret, canary).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    for command in
        [&["sync"][..], &["status"], &["status", "--json"], &["log", "--json"], &["doctor"], &["doctor", "--json"]]
    {
        let said = sandbox.mirror_push(&source, command);
        assert!(!said.out.contains(canary) && !said.err.contains(canary), "{command:?}: {said:?}");
    }
    let error = sandbox.status(&source)["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("redirects to https://h.example/*****/x.git"), "{error}");
}
