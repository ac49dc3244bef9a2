//! Setups that people have, and mistakes that they make.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

use crate::scene::Scene;
use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::estate::{Estate, TEMPLATE};
use crate::scene::sandbox::{Completed, Sandbox, wait_for};
use crate::scene::servers::{Kind, Server};

fn error_of(sandbox: &Sandbox, source: &Path) -> (String, String) {
    let shown = sandbox.status(source);
    (shown["update_status"].as_str().unwrap().to_owned(), shown["last_error"].as_str().unwrap_or_default().to_owned())
}

/// A self-signed certificate and its key, made with openssl in the folder `tls`.
fn self_signed(sandbox: &Sandbox, name: &str, arguments: &str) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout {name}.key -out {name}.pem {arguments} 2>/dev/null"
    );
    let made = sandbox.command("sh").current_dir(sandbox.path("tls")).arg("-c").arg(script).status().unwrap();
    assert!(made.success());
}

#[test]
fn the_servers_own_certificate_is_trusted_for_its_names_alone() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "http.receivepack", "true"]);
    std::fs::create_dir(sandbox.path("tls")).unwrap();
    self_signed(&sandbox, "own", "-subj /CN=test -addext subjectAltName=DNS:localhost");
    self_signed(&sandbox, "common", "-subj /O=Acme/CN=localhost");
    self_signed(&sandbox, "elsewhere", "-subj /CN=elsewhere.example -addext subjectAltName=DNS:elsewhere.example");
    self_signed(&sandbox, "twin", "-subj /CN=test -addext subjectAltName=DNS:localhost");
    for (certificate, trusted, is_taken) in [
        ("own", "own", true),
        ("common", "common", true),
        ("elsewhere", "elsewhere", false),
        ("own", "twin", false),
        ("own", "common", false),
    ] {
        let tls = sandbox.path("tls");
        let directory = sandbox.path(&format!("nginx-{certificate}-{trusted}"));
        let server =
            web(&sandbox, &directory, &tls.join(format!("{certificate}.pem")), &tls.join(format!("{certificate}.key")));
        let source = sandbox.bare(&format!("source-{certificate}-{trusted}.git"));
        std::fs::create_dir_all(source.join("mirror-push")).unwrap();
        let config = format!(
            "wake = \"none\"\n[remotes.m]\nurl = \"https://localhost:{}/mirror.git\"\nca_file = \"{}\"\n",
            server.port(),
            tls.join(format!("{trusted}.pem")).display()
        );
        std::fs::write(source.join("mirror-push/config.toml"), config).unwrap();
        let said = sandbox.mirror_push(&source, &["sync"]);
        let (status, error) = error_of(&sandbox, &source);
        assert_eq!(said.status == 0, is_taken, "{certificate} {trusted}: {said:?}");
        if !is_taken {
            assert!(status == "failed" && error.contains("TLS certificate of 'localhost' was refused"), "{error}");
        }
    }
    assert!(sandbox.refs(&mirror).is_empty());
}

/// nginx with git's http-backend, a certificate, and no password.
fn web(sandbox: &Sandbox, directory: &Path, certificate: &Path, key: &Path) -> Server {
    Server::start_open(sandbox, directory, certificate, key)
}

#[test]
fn http_at_an_https_port_is_a_failure_that_says_so() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = sandbox.source(&format!("https://127.0.0.1:{}/mirror.git", server.port()), &[]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    let (status, error) = error_of(&sandbox, &source);
    assert!(status == "failed" && error.contains("does not speak TLS at this port"), "{status}: {error}");
}

/// A server that advertises an empty repository and answers a POST before it has read the body.
fn early(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            if head.starts_with(b"GET") {
                let line =
                    format!("{} capabilities^{{}}\0report-status delete-refs object-format=sha1\n", "0".repeat(40));
                let body = format!("001f# service=git-receive-pack\n0000{:04x}{line}0000", line.len() + 4);
                let kind = "application/x-git-receive-pack-advertisement";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            } else {
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    port
}

#[test]
fn an_answer_that_comes_before_the_request_is_sent_is_read() {
    let sandbox = Sandbox::of(("sha1", "files"));
    for (answer, told) in [
        ("HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP 411"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP 403"),
        ("HTTP/1.1 429 Too Many\r\nRetry-After: 77\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "HTTP 429"),
    ] {
        let port = early(answer);
        let name = format!("source{port}.git");
        let source = sandbox.bare(&name);
        std::fs::create_dir_all(source.join("mirror-push")).unwrap();
        let config = format!("wake = \"none\"\n[remotes.m]\nurl = \"http://127.0.0.1:{port}/x.git\"\n");
        std::fs::write(source.join("mirror-push/config.toml"), config).unwrap();
        let work = sandbox.work(&source);
        // Random bytes do not compress, so the pack exceeds the 1 MiB up to which a body has a Content-Length.
        let mut large = Vec::new();
        std::fs::File::open("/dev/urandom").unwrap().take(8 << 20).read_to_end(&mut large).unwrap();
        std::fs::write(work.path.join("large"), large).unwrap();
        work.git(&["add", "large"]);
        work.commit("large");
        work.push(&["main"]);
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert_eq!(said.status, 1, "{told}: {said:?}");
        assert!(said.out.contains(told), "{told}: {said:?}");
    }
}

#[test]
fn a_full_disk_on_the_mirror_is_tried_again() {
    let scene = Scene::local(&[]).with(&["main"]);
    let Scene { sandbox, source, .. } = &scene;
    let work = scene.work();
    let full = sandbox.path("full");
    std::fs::create_dir(&full).unwrap();
    let mounted = sandbox.command("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&full).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return crate::scene::sandbox::skip("no file system can be mounted here");
    }
    let small = full.join("small.git");
    sandbox.git(&full, &["init", "-q", "--bare", "--template=", small.to_str().unwrap()]);
    sandbox.mirror_push_ok(source, &["set", "m", "--url", small.to_str().unwrap()]);
    let mut large = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take(1 << 20).read_to_end(&mut large).unwrap();
    std::fs::write(work.path.join("large"), large).unwrap();
    work.git(&["add", "large"]);
    work.commit("large");
    work.push(&["main"]);
    let said = sandbox.mirror_push(source, &["drain", "--json"]);
    let (status, _) = error_of(sandbox, source);
    assert!(sandbox.command("umount").arg("-l").arg(&full).status().unwrap().success());
    assert!(said.status == 1 && said.out.contains("No space left on device"), "{said:?}");
    assert_eq!(status, "scheduled", "{said:?}");
}

#[test]
fn a_templates_mirror_is_reset_and_not_removed() {
    let estate = Estate::new(TEMPLATE);
    let source = estate.repository("acme/widget.git");
    let mirror = estate.mirror("acme/widget.git");
    let run = |arguments: &[&str]| estate.run(&[&["--git-dir", source.to_str().unwrap()], arguments].concat());
    // This works even while the repository has no `mirror-push` directory.
    let said = run(&["disable", "backup"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    assert!(estate.sandbox.refs(&mirror).is_empty());
    let said = run(&["remove", "backup"]);
    assert!(said.status != 0 && said.err.contains("git mirror-push reset backup"), "{said:?}");
    assert_eq!(said.err.matches("comes from the server's file").count(), 1, "said once: {said:?}");
    assert_eq!(run(&["list", "--json"]).json()[0]["enabled"], false, "and still disabled");
    std::fs::create_dir_all(source.join("mirror-push/remotes/backup")).unwrap();
    std::fs::write(source.join("mirror-push/remotes/backup/secret"), "x").unwrap();
    let secret = source.join("mirror-push/remotes/backup/secret");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(run(&["reset", "backup"]).status, 0);
    assert_eq!(run(&["list", "--json"]).json()[0]["enabled"], true);
    assert!(source.join("mirror-push/remotes/backup/secret").exists(), "the secret stays");
    // A mirror from the repository's own file has no template to be reset to.
    let other = estate.mirror("other.git");
    assert_eq!(run(&["add", "own", other.to_str().unwrap()]).status, 0);
    let said = run(&["reset", "own"]);
    assert!(said.status != 0 && said.err.contains("git mirror-push remove own"), "{said:?}");
}

#[test]
fn the_api_does_not_remove_a_templates_mirror() {
    let sandbox = Sandbox::new();
    let mirrors = sandbox.path("mirrors");
    std::fs::create_dir(&mirrors).unwrap();
    let daemon =
        Daemon::start(&sandbox, &format!("{LOCAL}[remotes.backup]\nurl = \"{}/{{name}}.git\"\n", mirrors.display()));
    let source = daemon.repository("acme/widget");
    wait_for("the project", || daemon.api("GET", "projects/1/remote_mirrors", "").status == 200);
    let listed = daemon.api("GET", "projects/1/remote_mirrors", "");
    let id = serde_json::from_str::<serde_json::Value>(&listed.text).unwrap()[0]["id"].to_string();
    let removed = daemon.api("DELETE", &format!("projects/1/remote_mirrors/{id}"), "");
    assert!((400..500).contains(&removed.status) && removed.text.contains("server's file"), "{removed:?}");
    assert_eq!(daemon.api("GET", &format!("projects/1/remote_mirrors/{id}"), "").status, 200);
    assert!(source.exists());
}

#[test]
fn likely_mistakes_are_refused_in_commands_and_are_warnings_in_files() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let refused = |arguments: &[&str], form: &str| {
        let said: Completed = sandbox.mirror_push(&source, arguments);
        assert!(said.status == 129 && said.err.contains(form), "{arguments:?}: {said:?}");
    };
    let port = "git@127.0.0.1:2222/acme/x.git";
    refused(&["add", "x", port], "ssh://git@127.0.0.1:2222/acme/x.git");
    refused(&["set", "m", "--url", port], "ssh://git@127.0.0.1:2222/acme/x.git");
    refused(&["add", "x", "https://localhost/{path_dots}.git"], "{path_dots}");
    let twice = mirror.to_str().unwrap();
    refused(&["add", "x", twice], "mirror 'm' has the same URL");
    refused(&["add", "x", &format!("file://{twice}/")], "mirror 'm' has the same URL");
    // Two mirrors may have one URL if they share no refs: one has the branches, the other the tags.
    sandbox.mirror_push_ok(&source, &["set", "m", "--tags", "none"]);
    sandbox.mirror_push_ok(&source, &["add", "tags", twice, "--mirror-branch-regex", "^$"]);
    refused(&["set", "tags", "--mirror-branch-regex", ""], "mirror 'm' has the same URL");
    assert_eq!(sandbox.mirror_push_ok(&source, &["list"]).out.lines().count(), 2);
    // In a file, the same mistakes stop nothing.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        format!("{text}[remotes.twin]\nurl = \"{twice}\"\n[remotes.port]\nurl = \"{port}\"\nenabled = false\n"),
    )
    .unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let status = sandbox.mirror_push(&source, &["status"]).out;
    assert!(status.contains("has the same URL") && status.contains("ssh://git@127.0.0.1:2222/acme/x.git"), "{status}");
    let doctor = sandbox.mirror_push(&source, &["doctor"]).out;
    assert!(doctor.contains("has the same URL"), "{doctor}");
}

#[test]
fn a_placeholder_of_the_servers_file_that_nothing_fills_in_is_named() {
    let estate = Estate::new("[[repositories]]\nroot = \"ROOT\"\n[remotes.b]\nurl = \"MIRRORS/{path_dots}.git\"\n");
    let said = estate.run(&["status", "--all"]);
    assert!(said.status == 128 && said.err.contains("{path_dots}") && said.err.contains("server.toml:3"), "{said:?}");
}

#[test]
fn whoever_begins_to_overwrite_is_told_what_the_next_run_takes() {
    let scene = Scene::local(&["--divergent-refs", "keep"]).with(&["main", "main:topic"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let theirs = sandbox.git(mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(mirror, &["update-ref", "refs/heads/topic", &theirs]);
    assert_eq!(sandbox.mirror_push(source, &["sync"]).status, 1);
    let said = sandbox.mirror_push_ok(source, &["set", "m", "--divergent-refs", "overwrite"]);
    assert!(said.err.contains("refs/heads/topic") && said.err.contains(&theirs[..7]), "{said:?}");
    assert_eq!(sandbox.oid(mirror, "topic"), theirs, "it has not run yet");
}

#[test]
fn a_repository_of_another_user_is_served_only_if_the_servers_file_says_so() {
    if !crate::scene::sandbox::is_root("files of another owner are needed") {
        return;
    }
    let estate = Estate::new(TEMPLATE);
    let source = estate.repository("acme/widget.git");
    let mirror = estate.mirror("acme/widget.git");
    let sandbox = &estate.sandbox;
    sandbox.git(&source, &["config", "--global", "safe.directory", "*"]);
    let evil = sandbox.path("evil");
    sandbox.git(&source, &["config", "credential.helper", &format!("!touch '{}'; #", evil.display())]);
    assert!(sandbox.command("chown").args(["-R", "65534"]).arg(&source).status().unwrap().success());
    let run = |arguments: &[&str]| estate.run(&[&["--git-dir", source.to_str().unwrap()], arguments].concat());
    for command in [&["sync"][..], &["drain"], &["plan"], &["doctor"], &["install-hook"], &["add", "x", "/x.git"]] {
        let said = run(command);
        assert!(said.status == 128 && said.err.contains("owners = ["), "{command:?}: {said:?}");
    }
    for command in [&["sync", "--all"][..], &["plan", "--all"], &["install-hook", "--all"]] {
        let said = estate.run(command);
        assert!(said.status == 1 && said.err.contains("owners = ["), "{command:?}: {said:?}");
    }
    let mut helper = sandbox.command(env!("CARGO_BIN_EXE_git-remote-mirror"));
    helper.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml")).env("GIT_DIR", &source);
    let said = crate::scene::sandbox::run_with_input(helper.args(["backup", "backup"]), b"capabilities\nlist\n");
    assert!(said.status == 128 && said.err.contains("owners = ["), "{said:?}");
    for command in [&["status"][..], &["list"], &["show", "backup"], &["log"]] {
        let said = run(command);
        assert!(said.status < 2, "{command:?}: {said:?}");
    }
    assert!(sandbox.refs(&mirror).is_empty() && !source.join("hooks/post-receive").exists());
    assert!(!evil.exists());
}

#[test]
fn a_credential_helper_of_the_repository_is_never_run() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let url = format!("http://127.0.0.1:{}/mirror.git", server.port());
    let source = sandbox.source(&url, &["--auth-method", "password", "--username", "bot"]);
    server.configure_access(&sandbox, &source, "m");
    let evil = sandbox.path("evil");
    sandbox.git(&source, &["config", "credential.helper", &format!("!touch '{}'; #", evil.display())]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && !evil.exists(), "{said:?}");
}

#[test]
fn files_of_ours_are_not_read_or_written_through_links() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let remote = source.join("mirror-push/remotes/m");
    let target = sandbox.path("target");
    std::fs::write(&target, "untouched").unwrap();
    std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for name in ["history.jsonl", "secret", "status.json", "lock"] {
        let _ = std::fs::remove_file(remote.join(name));
        std::os::unix::fs::symlink(&target, remote.join(name)).unwrap();
        let said = sandbox.mirror_push(&source, &["sync"]);
        assert!(said.status != 0 && said.err.len() + said.out.len() < 2000, "{name}: {said:?}");
        assert!(format!("{said:?}").contains("symbolic link"), "{name}: {said:?}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched", "{name}");
        std::fs::remove_file(remote.join(name)).unwrap();
    }
    let config = source.join("mirror-push/config.toml");
    std::fs::rename(&config, sandbox.path("config.toml")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("config.toml"), &config).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 128 && said.err.contains("symbolic link"), "{said:?}");
}
