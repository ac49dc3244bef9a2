//! Passwords, keys and files of ours are safe from mirrors, redirects, repositories and other users.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::scene::sandbox::{Sandbox, is_root, is_variant, script};
use crate::scene::servers::{Kind, PASSWORD, Server, USER};

fn error(sandbox: &Sandbox, source: &Path) -> String {
    let shown = sandbox.status(source);
    shown["last_error"].as_str().unwrap_or_default().to_owned()
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A source whose mirror is behind http and needs a password.
fn web(sandbox: &Sandbox, server: &Server, confined: bool) -> PathBuf {
    let url = format!("http://127.0.0.1:{}/mirror.git", server.port());
    let source = sandbox.source(&url, &["--auth-method", "password", "--username", USER]);
    sandbox.add_mirror_config(&source, &format!("allow_insecure_http = true\nconfined = {confined}"));
    source
}

#[test]
fn a_confined_mirror_gets_no_password_but_its_own() {
    for confined in [false, true] {
        let sandbox = Sandbox::new();
        sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Http);
        let source = web(&sandbox, &server, confined);
        let file = sandbox.path("password");
        private(&file, &format!("{PASSWORD}\n"));
        let program = sandbox.path("say-password");
        script(&program, &format!("#!/bin/sh\ncat '{}'\n", file.display()));
        let helper = sandbox.path("helper");
        script(
            &helper,
            &format!(
                "#!/bin/sh\n[ \"$1\" = get ] && echo 'username={USER}' && printf 'password=' && cat '{}'\n",
                file.display()
            ),
        );
        let config = source.join("mirror-push/config.toml");
        let plain = std::fs::read_to_string(&config).unwrap();
        let server_file = sandbox.path("server.toml");
        let allowed = "[api]\nallow_local_network = true\n";
        let with = |defaults: &str| std::fs::write(&server_file, format!("{allowed}{defaults}")).unwrap();
        let directory = sandbox.path("credentials");
        std::fs::create_dir(&directory).unwrap();
        let is_taken = |environment: &[(&str, &Path)]| {
            let mut command = sandbox.program(&source);
            command.arg("--config").arg(&server_file).arg("sync");
            environment.iter().for_each(|(name, value)| {
                command.env(name, value);
            });
            let status = command.output().unwrap().status.code();
            if status != Some(0) {
                assert!(error(&sandbox, &source).contains("HTTP 401"), "{}", error(&sandbox, &source));
            }
            status == Some(0)
        };
        with("");
        assert!(!is_taken(&[]), "there is no password yet");
        with(&format!("[defaults]\npassword_file = \"{}\"\n", file.display()));
        assert_eq!(is_taken(&[]), !confined, "password_file of the server");
        with(&format!("[defaults]\npassword_command = [\"{}\"]\n", program.display()));
        assert_eq!(is_taken(&[]), !confined, "password_command of the server");
        with("");
        std::fs::write(
            &config,
            plain.replace("[remotes.m]\n", &format!("[remotes.m]\npassword_file = \"{}\"\n", file.display())),
        )
        .unwrap();
        assert_eq!(is_taken(&[]), !confined, "password_file");
        std::fs::write(&config, &plain).unwrap();
        private(&directory.join("m"), &format!("{PASSWORD}\n"));
        assert_eq!(is_taken(&[("CREDENTIALS_DIRECTORY", &directory)]), !confined, "systemd");
        private(&sandbox.path("home/.netrc"), &format!("machine 127.0.0.1 login {USER} password {PASSWORD}\n"));
        assert_eq!(is_taken(&[]), !confined, ".netrc");
        std::fs::remove_file(sandbox.path("home/.netrc")).unwrap();
        sandbox.git(&source, &["config", "--global", "credential.helper", helper.to_str().unwrap()]);
        assert_eq!(is_taken(&[]), !confined, "git's helper");
        private(&source.join("mirror-push/remotes/m/secret"), PASSWORD);
        assert!(is_taken(&[]), "its own");
    }
}

#[test]
fn a_systemd_credential_that_cannot_be_read_is_not_replaced_by_another_password() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = web(&sandbox, &server, false);
    private(&sandbox.path("home/.netrc"), &format!("machine 127.0.0.1 login {USER} password {PASSWORD}\n"));
    let directory = sandbox.path("credentials");
    std::fs::create_dir_all(directory.join("m")).unwrap();
    let mut command = sandbox.program(&source);
    let output = command.env("CREDENTIALS_DIRECTORY", &directory).arg("sync").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&sandbox, &source).contains("systemd credential"), "{}", error(&sandbox, &source));
    assert!(server.requests(&sandbox).is_empty());
}

/// A server at `port` that redirects every request. Returns the first line of each request.
fn redirecting(port: u16, to: u16, status: u16) -> Arc<Mutex<Vec<String>>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            noted.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            let _ = write!(
                stream,
                "HTTP/1.1 {status} Elsewhere\r\nLocation: http://127.0.0.1:{to}/mirror.git/info/refs?service=git-receive-pack\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
    });
    asked
}

#[test]
fn no_redirect_of_a_push_or_of_the_request_for_refs_is_followed() {
    for status in [301, 302, 307, 308] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Http);
        let source = server.source(&sandbox, "mirror.git", &[]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        // From now on the same address redirects to another server.
        let port = server.port();
        drop(server);
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        other.set_nonblocking(true).unwrap();
        let to = other.local_addr().unwrap().port();
        let asked = redirecting(port, to, status);
        for (command, method) in [("drain", if is_variant("looking") { "GET" } else { "POST" }), ("sync", "GET")] {
            work.commit("more");
            work.push(&["main"]);
            assert_eq!(sandbox.mirror_push(&source, &[command]).status, 1, "{status}");
            let target = format!("redirects to http://127.0.0.1:{to}/mirror.git/info/refs (HTTP");
            assert!(error(&sandbox, &source).contains(&target), "{}", error(&sandbox, &source));
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            assert!(asked.first().is_some_and(|line| line.starts_with(method)), "{status} {command}: {asked:?}");
            assert!(other.accept().is_err(), "{status}: the target was asked");
        }
        assert_ne!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
    }
}

#[test]
fn a_confined_mirror_does_not_get_the_keys_of_the_user() {
    for confined in [false, true] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Ssh);
        let source = server.source(&sandbox, "mirror.git", &[]);
        // The server takes only the user's key. `IdentityFile` stands for a key in the user's home directory.
        let directory = source.join("mirror-push/remotes/m");
        std::fs::remove_file(directory.join("id_ed25519")).unwrap();
        let key = sandbox.path("ssh/client");
        sandbox.add_mirror_config(
            &source,
            &format!("confined = {confined}\nssh_options = [\"IdentityFile={}\"]", key.display()),
        );
        std::fs::write(sandbox.path("server.toml"), "[api]\nallowed_hosts = [\"127.0.0.0/8\"]\n").unwrap();
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        let mut command = sandbox.program(&source);
        let output = command.arg("--config").arg(sandbox.path("server.toml")).arg("sync").output().unwrap();
        assert_eq!(output.status.success(), !confined, "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(sandbox.refs(&mirror).is_empty(), confined);
    }
}

#[test]
fn options_of_ssh_that_run_programs_or_weaken_it_are_refused_however_they_are_written() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("ssh://git@127.0.0.1/x.git", &["--disabled"]);
    let config = source.join("mirror-push/config.toml");
    let plain = std::fs::read_to_string(&config).unwrap();
    for keyword in [
        "ProxyCommand",
        "LocalCommand",
        "PermitLocalCommand",
        "KnownHostsCommand",
        "RemoteCommand",
        "PKCS11Provider",
        "SecurityKeyProvider",
        "XAuthLocation",
        "Include",
        "StrictHostKeyChecking",
        "BatchMode",
        "SmartcardDevice",
        "VerifyHostKeyDNS",
        "NoHostAuthenticationForLocalhost",
    ] {
        for written in [
            format!("{keyword}=no"),
            format!("{}=no", keyword.to_uppercase()),
            format!("{} =no", keyword.to_lowercase()),
        ] {
            std::fs::write(
                &config,
                plain.replace("[remotes.m]\n", &format!("[remotes.m]\nssh_options = [\"{written}\"]\n")),
            )
            .unwrap();
            let said = sandbox.mirror_push(&source, &["list"]);
            assert!(said.status == 128 && said.err.contains("config.toml:"), "{written}: {said:?}");
        }
    }
    std::fs::write(&config, plain.replace("[remotes.m]\n", "[remotes.m]\nssh_options = [\"Compression=yes\"]\n"))
        .unwrap();
    sandbox.mirror_push_ok(&source, &["list"]);
}

#[test]
fn a_repository_cannot_turn_off_the_silent_mode_of_the_server() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let server = sandbox.path("server.toml");
    std::fs::write(&server, "silent = true\n").unwrap();
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    for own in ["", "silent = false\n"] {
        std::fs::write(&config, format!("{own}{text}")).unwrap();
        for command in ["drain", "sync"] {
            let mut run = sandbox.program(&source);
            assert!(run.arg("--config").arg(&server).arg(command).status().unwrap().success());
            assert!(sandbox.refs(&mirror).is_empty(), "{command} {own}");
        }
    }
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "the push was spooled meanwhile");
}

/// A named pipe would keep its reader waiting for ever, and with it a daemon that serves others too.
#[test]
fn a_named_pipe_in_place_of_a_file_of_ours_keeps_nobody_waiting() {
    for place in ["config.toml", "remotes/m/known_hosts", "remotes/m/history.jsonl", "remotes/m/status.json"]
        .into_iter()
        .chain(["remotes/m/secret", "remotes/m/queue/1.1.1.look", "remotes/m/queue/1.1.1", "spool/incoming/1.1.1"])
    {
        let sandbox = Sandbox::new();
        sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &[]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        let path = source.join("mirror-push").join(place);
        let _ = std::fs::remove_file(&path);
        assert!(sandbox.command("mkfifo").arg(&path).status().unwrap().success());
        let server = sandbox.path("server.toml");
        std::fs::write(&server, format!("[[repositories]]\nroot = \"{}\"\n", sandbox.path("").display())).unwrap();
        for arguments in [&["drain"][..], &["drain", "--all"], &["sync"], &["plan"], &["status"], &["log"], &["doctor"]]
        {
            let mut command = sandbox.command("timeout");
            command.args(["20", env!("CARGO_BIN_EXE_git-mirror-push"), "--config"]).arg(&server);
            let output = command.arg("--git-dir").arg(&source).args(arguments).output().unwrap();
            assert_ne!(output.status.code(), Some(124), "{place}: {arguments:?} waits");
        }
    }
}

/// Whatever the umask is, another user of the machine can hold no lock, can create no file in our directories, and cannot list the state
/// directory.
#[test]
fn another_user_holds_no_lock_and_plants_no_file_whatever_the_umask() {
    if !is_root("a second user") {
        return;
    }
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let binary = env!("CARGO_BIN_EXE_git-mirror-push");
    let bare = sandbox.bare("source.git");
    let (config, state, run) = (bare.join("mirror-push"), sandbox.path("state"), sandbox.path("run"));
    // Everything is made under the loosest umask.
    let text = format!(
        "#!/bin/sh\nset -e\numask 000\nmkdir '{c}'\nchmod 755 '{c}'\necho 'wake = \"none\"' > '{c}/config.toml'\nchmod 644 '{c}/config.toml'\n\
         {binary} --git-dir '{b}' add m '{m}'\n{binary} --git-dir '{b}' sync\n\
         {binary} token create --name t >/dev/null\n\
         STATE_DIRECTORY='{s}2' {binary} --config server.toml serve --listen 127.0.0.1:0 >daemon.out 2>&1 &\n\
         n=0; until [ -e '{r}/lock' ] || [ $n -gt 300 ]; do n=$((n + 1)); sleep 0.02; done\nkill $!\n",
        c = config.display(),
        b = bare.display(),
        m = mirror.display(),
        s = state.display(),
        r = run.display()
    );
    std::fs::write(
        sandbox.path("server.toml"),
        format!("[[repositories]]\nroot = \"{}\"\n", sandbox.path("").display()),
    )
    .unwrap();
    script(&sandbox.path("make"), &text);
    let made = sandbox.command(sandbox.path("make")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::set_permissions(sandbox.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let other = |words: &[&str]| {
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).args(words);
        command.output().unwrap().status.success()
    };
    for lock in [config.join("lock"), config.join("remotes/m/lock"), state.join("tokens.lock"), run.join("lock")] {
        assert!(lock.exists(), "{} is not there", lock.display());
        assert!(!other(&["flock", "-n", lock.to_str().unwrap(), "true"]), "{} can be held", lock.display());
    }
    for directory in [&state, &run, &config.join("remotes/m"), &config.join("spool/incoming")] {
        let planted = directory.join("planted");
        assert!(!other(&["touch", planted.to_str().unwrap()]), "{} can be written", directory.display());
    }
    let made_by_serve = sandbox.path("state2");
    for state in [&state, &made_by_serve] {
        assert!(state.is_dir() && !other(&["ls", state.to_str().unwrap()]), "{} can be listed", state.display());
    }
    // Tokens in a file of another user are not used.
    let tokens = state.join("tokens.json");
    std::os::unix::fs::chown(&tokens, Some(65534), Some(65534)).unwrap();
    let mut list = sandbox.command(binary);
    let said = list.env("STATE_DIRECTORY", &state).args(["token", "list"]).output().unwrap();
    assert!(
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("belongs to another user"),
        "{said:?}"
    );
}

/// A directory of ours that is a link could lead to files of somebody else.
#[test]
fn no_directory_below_mirror_push_is_reached_through_a_link() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    // A second repository, with state of its own.
    let other = sandbox.path("other.git");
    std::fs::rename(&source, &other).unwrap();
    let source = sandbox.source("mirror.git", &["--prune", "never"]);
    let work = sandbox.work(&other);
    work.commit("secret");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&other, &["sync"]);
    let link = |name: &str| {
        let (ours, theirs) = (source.join(name), other.join(name));
        std::fs::rename(&ours, source.join("aside")).unwrap();
        std::os::unix::fs::symlink(&theirs, &ours).unwrap();
        ours
    };
    for name in ["mirror-push/remotes/m", "mirror-push/remotes", "mirror-push"] {
        let ours = link(name);
        if name == "mirror-push" {
            // The user who runs the command may link `mirror-push` itself, for example to another disk.
            assert!(sandbox.mirror_push(&source, &["status"]).status < 2);
            if !is_root("a link of another owner is needed") {
                break;
            }
            std::os::unix::fs::lchown(&ours, Some(65_534), None).unwrap();
        }
        let said = sandbox.mirror_push(&source, &["status"]);
        assert!(said.status == 128 && said.err.contains("symbolic link"), "{name}: {said:?}");
        std::fs::remove_file(&ours).unwrap();
        std::fs::rename(source.join("aside"), &ours).unwrap();
    }
    assert!(sandbox.mirror_push(&source, &["status"]).status < 2);
}
