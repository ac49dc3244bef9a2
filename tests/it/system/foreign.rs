//! A user other than root serves another user's repository, or a shared repository with files of
//! another member. Nothing that the other user names is run, read, followed or written.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scene::sandbox::{Completed, Sandbox, Work, is_root, run_with_input, script, wait_for};
use crate::scene::servers::{Kind, Server};

mod paths;

/// The user who runs the program, and the user who owns the repository.
const US: u32 = 65_534;
const BOB: u32 = 65_533;

/// Root prepares; the program runs as [`US`].
struct Shared {
    sandbox: Sandbox,
    server: Server,
    mirror: PathBuf,
    source: PathBuf,
    config: PathBuf,
}

impl Shared {
    fn new(owner: u32) -> Self {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Git);
        let source = sandbox.bare("source.git");
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        let config = source.join("mirror-push/config.toml");
        std::fs::create_dir(config.parent().unwrap()).unwrap();
        let text = format!(
            "reconcile_interval = \"2s\"\n[[repositories]]\nroot = \"{}\"\nowners = [\"{BOB}\"]\n[api]\nallow_local_network = true\n",
            sandbox.path("").display()
        );
        std::fs::write(sandbox.path("server.toml"), text).unwrap();
        std::fs::set_permissions(sandbox.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_git-mirror-push"), sandbox.path("program")).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_git-mirror-post-receive"), sandbox.path("git-mirror-post-receive")).unwrap();
        sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
        let shared = Self { sandbox, server, mirror, source, config };
        shared.give(&shared.source, owner);
        shared
    }

    /// Gives everything below a path to a user. Others may write it, as in a shared repository.
    fn give(&self, path: &Path, owner: u32) {
        for (program, words) in [("chown", ["-hR", &owner.to_string()]), ("chmod", ["-R", "a+rwX"])] {
            assert!(self.sandbox.command(program).args(words).arg(path).status().unwrap().success());
        }
    }

    /// Writes the repository's file as Bob.
    fn configure(&self, text: &str) {
        std::fs::write(&self.config, format!("wake = \"none\"\n{text}")).unwrap();
        chown(&self.config, Some(BOB), None).unwrap();
    }

    /// A program that runs as us, in the sandbox.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command("setpriv");
        command.args([&format!("--reuid={US}"), &format!("--regid={US}"), "--clear-groups", "--"]);
        command.env("GIT_DIR", &self.source).env("GIT_MIRROR_PUSH_CONFIG", self.sandbox.path("server.toml"));
        command.arg(program).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Completed {
        Completed::of(&self.command(&self.sandbox.path("program"), arguments).output().unwrap())
    }

    /// The working tree of the source, at its newest commit.
    fn work(&self) -> Work<'_> {
        let work = self.sandbox.work(&self.source);
        work.git(&["fetch", "-q"]);
        work.git(&["reset", "-q", "--hard", "origin/main"]);
        work
    }

    /// A mirror that is named in Bob's file.
    fn remote(&self) -> String {
        format!("[remotes.m]\nid = 1\nurl = \"{}\"\n", self.server.url("mirror.git"))
    }

    fn is_mirrored(&self) -> bool {
        self.sandbox.refs(&self.mirror) == self.sandbox.refs(&self.source)
    }
}

/// Which keys of Bob's file count, in his own repository and as a member of a group that shares
/// ours.
#[test]
fn only_harmless_keys_of_another_users_file_count() {
    if !is_root("files of other users are needed") {
        return;
    }
    for owner in [BOB, US] {
        let shared = Shared::new(owner);
        if owner == US {
            shared.sandbox.git(&shared.source, &["config", "core.sharedRepository", "group"]);
            chown(shared.source.join("config"), Some(US), None).unwrap();
        }
        let path = |name: &str| shared.sandbox.path(name);
        let run = path("run-me");
        script(&run, &format!("#!/bin/sh\nid -u >> '{}'\necho secret\n", path("ran").display()));
        std::fs::write(path("secret"), "ours\n").unwrap();
        std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
        chown(path("secret"), Some(US), None).unwrap();
        let told = |key: &str, value: &Path| format!("{key} = {:?}\n", value.display().to_string());
        let evil = [
            format!("notify = [{:?}]\n", run.display().to_string()),
            told("metrics_file", &path("metrics")),
            "[defaults]\nmax_retry_delay = \"9h\"\n".into(),
            shared.remote(),
            "username = \"u\"\n".into(),
            told("password_file", &path("secret")),
            "[remotes.command]\nid = 2\nurl = \"http://127.0.0.1:1/x.git\"\nusername = \"u\"\n".into(),
            format!("password_command = [{:?}]\n", run.display().to_string()),
            told("[remotes.path]\nid = 3\nurl", &shared.mirror),
        ];
        shared.configure(&evil.concat());
        shared.sandbox.git(&shared.source, &["config", "credential.helper", &format!("!{}", run.display())]);
        let said = shared.run(&["sync"]);
        assert!(shared.is_mirrored(), "{said:?}");
        assert!(said.status == 1 && !path("ran").exists() && !path("metrics").exists(), "{said:?}");
        assert!(!said.out.contains("ours") && !said.err.contains("ours"), "{said:?}");
        let statuses = shared.run(&["status", "--json"]).json();
        let of =
            |name: &str| statuses.as_array().unwrap().iter().find(|status| status["name"] == name).unwrap().clone();
        assert_eq!(of("m")["update_status"], "finished", "{statuses}");
        assert!(of("path")["last_error"].as_str().unwrap().contains("'this machine' is blocked"), "{statuses}");
        // If we wrote the file, it would belong to us, and all its keys would count.
        for command in [
            &["set", "m", "prune=mirror"][..],
            &["add", "n", "http://127.0.0.1:1/y.git"],
            &["protect", "x"],
            &["remove", "m"],
        ] {
            let said = shared.run(command);
            assert!(said.status == 128 && said.err.contains("belongs to another user"), "{command:?}: {said:?}");
            assert_eq!(std::fs::metadata(&shared.config).unwrap().uid(), BOB);
        }
        // The other commands, the remote helper and the daemon neither run nor write what Bob names.
        for command in
            [&["sync", "--all"][..], &["drain", "--all"], &["doctor", "--all"], &["install-hook", "--all"], &["check"]]
        {
            let said = shared.run(command);
            assert!(!path("ran").exists() && !path("metrics").exists(), "{command:?}: {said:?}");
        }
        std::fs::copy(env!("CARGO_BIN_EXE_git-remote-mirror"), path("helper")).unwrap();
        let said = run_with_input(
            &mut shared.command(&path("helper"), &["path", "path"]),
            b"capabilities\nconnect git-upload-pack\n",
        );
        assert!(said.status == 128 && said.err.contains("'this machine' is blocked"), "{said:?}");
        let mut daemon =
            shared.command(&path("program"), &["--config", "server.toml", "serve", "--listen", "127.0.0.1:0"]);
        let mut daemon = daemon.stderr(std::process::Stdio::null()).spawn().unwrap();
        let work = shared.work();
        work.commit("for the daemon");
        work.push(&["main"]);
        wait_for("the daemon", || shared.is_mirrored());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(!path("ran").exists() && !path("metrics").exists(), "the daemon");
        let said = shared.run(&["doctor"]);
        assert!(
            said.out.contains(
                "its mirrors are confined, and these keys are ignored: max_retry_delay, metrics_file, notify"
            ),
            "{said:?}"
        );
    }
}

#[test]
fn keys_secrets_and_pins_of_another_user_are_not_used() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(BOB);
    shared.configure(&format!("{}username = \"u\"\nauth_method = \"password\"\n", shared.remote()));
    assert_eq!(shared.run(&["sync"]).status, 0);
    let directory = shared.config.with_file_name("remotes").join("m");
    let pins = directory.join("known_hosts");
    std::fs::write(&pins, "x\n").unwrap();
    std::fs::set_permissions(&pins, std::fs::Permissions::from_mode(0o644)).unwrap();
    chown(&pins, Some(US), None).unwrap();
    assert_eq!(shared.run(&["sync"]).status, 0, "pins of ours");
    chown(&pins, Some(BOB), None).unwrap();
    let said = shared.run(&["sync"]);
    assert!(said.status == 1 && format!("{said:?}").contains("must belong to you or root"), "{said:?}");
    std::fs::remove_file(&pins).unwrap();
    // A key that belongs to Bob is not used.
    std::fs::write(directory.join("id_ed25519"), "key\n").unwrap();
    std::fs::write(directory.join("id_ed25519.pub"), "ssh-ed25519 AAAA bob\n").unwrap();
    chown(directory.join("id_ed25519"), Some(BOB), None).unwrap();
    let said = shared.run(&["public-key", "m"]);
    assert!(said.status != 0 && !said.out.contains("bob"), "{said:?}");
    chown(directory.join("id_ed25519"), Some(US), None).unwrap();
    assert!(shared.run(&["public-key", "m"]).out.contains("bob"));
}

/// A member of the group fills a file of ours that the group may write. He renames it, so that its
/// content would decide what we do.
#[test]
fn a_file_that_the_group_may_write_does_not_speak_for_its_owner() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(US);
    shared.sandbox.git(&shared.source, &["config", "core.sharedRepository", "group"]);
    let (ran, run) = (shared.sandbox.path("ran"), shared.sandbox.path("run-me"));
    script(&run, &format!("#!/bin/sh\necho >> '{}'\n", ran.display()));
    shared.configure(&shared.remote());
    chown(&shared.config, Some(US), None).unwrap();
    std::fs::set_permissions(&shared.config, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(shared.run(&["sync"]).status, 0);
    let remote = shared.config.with_file_name("remotes").join("m");
    let lock = remote.join("lock");
    let file = std::fs::metadata(&lock).unwrap();
    assert_eq!((file.uid(), file.permissions().mode() & 0o020), (US, 0o020), "the group may write the lock");
    std::fs::write(&lock, format!("wake = \"none\"\nnotify = [{:?}]\n{}", run.display().to_string(), shared.remote()))
        .unwrap();
    std::fs::rename(&lock, &shared.config).unwrap();
    std::fs::remove_dir_all(&shared.mirror).unwrap();
    let said = shared.run(&["sync"]);
    assert!(said.status == 1 && !ran.exists(), "the mirror is gone, and nobody is notified by that program: {said:?}");
    let said = shared.run(&["set", "m", "prune=mirror"]);
    assert!(said.status == 128 && said.err.contains("chmod go-w"), "{said:?}");
    assert!(shared.run(&["doctor"]).out.contains("can be written by the group"));
    // When the group may no longer write the file, it counts.
    std::fs::set_permissions(&shared.config, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = shared.run(&["sync"]);
    assert!(said.status == 1 && ran.exists(), "{said:?}");
    // The same with pins.
    std::fs::write(remote.join("known_hosts"), "x\n").unwrap();
    std::fs::set_permissions(remote.join("known_hosts"), std::fs::Permissions::from_mode(0o664)).unwrap();
    chown(remote.join("known_hosts"), Some(US), None).unwrap();
    let said = shared.run(&["sync"]);
    assert!(said.status == 1 && format!("{said:?}").contains("other users can write"), "{said:?}");
}

/// Git's own configuration of a repository can name a program that fetches objects which are missing.
#[test]
fn no_program_fetches_missing_objects_of_another_users_repository() {
    if !is_root("files of other users are needed") {
        return;
    }
    let mut shared = Shared::new(BOB);
    shared.configure(&shared.remote());
    let directory = shared.sandbox.path("");
    let path = |name: &str| directory.join(name);
    script(&path("evil"), &format!("#!/bin/sh\nid -u > '{}'\nexec git upload-pack \"$@\"\n", path("ran").display()));
    let work = shared.work();
    std::fs::write(work.path.join("large"), "x".repeat(400 << 10)).unwrap();
    work.git(&["add", "large"]);
    work.commit("large");
    work.push(&["main"]);
    shared.sandbox.command("cp").arg("-a").arg(&shared.source).arg(path("whole.git")).status().unwrap();
    let blob = shared.sandbox.git(&shared.source, &["rev-parse", "main:large"]);
    let (url, evil) = (path("whole.git"), path("evil"));
    for (key, value) in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "x"),
        ("remote.x.url", url.to_str().unwrap()),
        ("remote.x.promisor", "true"),
        ("remote.x.partialclonefilter", "blob:none"),
        ("remote.x.uploadpack", evil.to_str().unwrap()),
    ] {
        shared.sandbox.git(&shared.source, &["config", key, value]);
    }
    std::fs::remove_file(shared.source.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    shared.give(&shared.source, BOB);
    // Two variables forbid it, and each of them suffices. git before 2.45 knows only the second.
    let real = shared.sandbox.git(&directory, &["--exec-path"]);
    std::fs::create_dir(path("tools")).unwrap();
    shared.sandbox.set_git(&path("tools"));
    for variable in ["GIT_NO_LAZY_FETCH", "GIT_ALLOW_PROTOCOL"] {
        script(&path("tools/git"), &format!("#!/bin/sh\nunset {variable}\nexec '{real}/git' \"$@\"\n"));
        let said = shared.run(&["sync"]);
        assert!(!path("ran").exists(), "without {variable}: {said:?}");
        assert_eq!(said.status, 1, "{said:?}");
    }
}

#[test]
fn our_password_does_not_follow_an_address_that_another_user_chose() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(BOB);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let length = std::io::Read::read(&mut client, &mut head).unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    shared.configure(&format!(
        "[remotes.m]\nid = 1\nurl = \"http://127.0.0.1:{port}/x.git\"\nusername = \"u\"\nauth_method = \"password\"\nallow_insecure_http = true\n"
    ));
    let directory = shared.config.with_file_name("remotes").join("m");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("secret"), "hunter2\n").unwrap();
    std::fs::set_permissions(directory.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    shared.give(directory.parent().unwrap(), BOB);
    std::fs::set_permissions(directory.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(directory.join("secret"), Some(US), None).unwrap();
    assert_eq!(shared.run(&["sync"]).status, 1);
    let heard = heard.join().unwrap().to_lowercase();
    assert!(heard.starts_with("get /x.git/") && !heard.contains("authorization"), "{heard}");
}
