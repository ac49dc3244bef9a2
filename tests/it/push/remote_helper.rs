//! `mirror::NAME`: git itself reads from and pushes to a configured mirror.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;

use crate::scene::Scene;
use crate::scene::sandbox::{Completed, Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, PASSWORD};

/// A mirror that was updated once: `main` and `topic`.
fn scene(kind: Kind, options: &[&str]) -> Scene {
    Scene::behind(kind, options).with(&["main", "main:topic"])
}

impl Scene {
    /// git in the source, with our helper on PATH.
    fn git(&self, arguments: &[&str]) -> Completed {
        self.git_in(&self.source, arguments)
    }

    fn git_in(&self, directory: &Path, arguments: &[&str]) -> Completed {
        let bin = Path::new(env!("CARGO_BIN_EXE_git-remote-mirror")).parent().unwrap();
        let usual = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([bin.to_owned()].into_iter().chain(std::env::split_paths(&usual))).unwrap();
        let output =
            self.sandbox.command("git").env("PATH", path).current_dir(directory).args(arguments).output().unwrap();
        let said = Completed {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!said.err.contains(PASSWORD) && !said.err.contains("panicked"), "{said:?}");
        said
    }
}

const KINDS: [Kind; 5] = [Kind::Path, Kind::Git, Kind::Ssh, Kind::Http, Kind::Https];

#[test]
fn a_mirror_is_read_over_every_transport() {
    for kind in KINDS {
        let scene = scene(kind, &["--divergent-refs", "keep"]);
        let theirs = scene.theirs("topic");
        let said = scene.git(&["ls-remote", "mirror::m"]);
        assert!(said.status == 0 && said.out.contains(&format!("{theirs}\trefs/heads/topic")), "{kind:?}: {said:?}");
        // The command that the doctor recommends.
        let said = scene.git(&["fetch", "-q", "mirror::m", "+refs/heads/*:refs/restored/*"]);
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.source, "refs/restored/topic"), theirs, "{kind:?}");
        let said = scene.git(&["fetch", "-q", "mirror::m", "topic"]);
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.source, "FETCH_HEAD"), theirs, "{kind:?}");
    }
}

/// Without the object format, git would read only the first 40 digits of a SHA-256 id (gitremote-helpers(7)).
#[test]
fn the_helper_tells_git_the_object_format() {
    for kind in [Kind::Path, Kind::Http] {
        let scene = scene(kind, &[]);
        let mut helper = scene.sandbox.command(env!("CARGO_BIN_EXE_git-remote-mirror"));
        helper.env("GIT_DIR", &scene.source).args(["mirror", "m"]);
        let said = run_with_input(&mut helper, b"capabilities\noption object-format true\nlist for-push\n\n");
        let lines: Vec<&str> = said.out.lines().collect();
        let format = format!(":object-format {}", scene.sandbox.formats().0);
        let expected = ["object-format", "ok", &format];
        assert!(expected.iter().all(|line| lines.contains(line)), "{kind:?}: {said:?}");
        assert!(said.out.contains(" refs/heads/topic\n"), "{kind:?}: {said:?}");
    }
}

#[test]
fn a_push_goes_through_the_rules_over_every_transport() {
    for kind in KINDS {
        let scene = scene(kind, &["--divergent-refs", "keep", "--prune", "deleted"]);
        let work = scene.sandbox.path("source.git.work");
        let commit = |message: &str| {
            scene.sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", message]);
            scene.sandbox.git(&work, &["push", "-q", "origin", "main", "main:topic", "main:fresh"]);
            scene.sandbox.git(&work, &["rev-parse", "HEAD"])
        };
        let two = commit("two");
        let said = scene.git(&["push", "mirror::m", "main", "fresh"]);
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.mirror, "main"), two);
        assert_eq!(scene.sandbox.oid(&scene.mirror, "fresh"), two);
        assert_ne!(scene.sandbox.oid(&scene.mirror, "topic"), two, "only what was asked for");
        // Divergent: refused with the reason, even when it is forced.
        let theirs = scene.theirs("topic");
        let said = scene.git(&["push", "--force", "mirror::m", "topic", "main"]);
        assert!(said.status == 1 && said.err.contains("divergent"), "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.mirror, "topic"), theirs);
        // Refused: another name or another value than this repository has, and the deletion of a ref that is here.
        for refspec in ["main:other", "main~1:main", ":fresh"] {
            let said = scene.git(&["push", "--force", "mirror::m", refspec]);
            assert!(said.status == 1 && said.err.contains("holds this repository's refs"), "{refspec}: {said:?}");
        }
        // The value may be written in another way: `HEAD`, `fresh^{}`.
        let said = scene.git(&["push", "mirror::m", "HEAD:main", "fresh^{}:fresh"]);
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        // A ref that was deleted here may be deleted there. A push that gives it a value is
        // refused, and does not delete it.
        scene.sandbox.git(&work, &["push", "-q", "origin", ":fresh"]);
        let said = scene.git(&["push", "--force", "mirror::m", "HEAD~1:refs/heads/fresh"]);
        assert!(said.status == 1 && said.err.contains("this one is not here"), "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.mirror, "fresh"), two);
        let said = scene.git(&["push", "mirror::m", ":fresh"]);
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.oid(&scene.mirror, "fresh"), "");
        // What is spooled stays spooled: the next drain serves the rest.
        scene.sandbox.mirror_push(&scene.source, &["set", "m", "--divergent-refs", "overwrite"]);
        scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source), "{kind:?}");
    }
}

#[test]
fn the_helper_works_in_a_working_tree_and_in_a_linked_worktree() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let work = sandbox.path("work");
    sandbox.git(&sandbox.path(""), &["init", "-q", work.to_str().unwrap()]);
    sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", "one"]);
    sandbox.git(&work, &["worktree", "add", "-q", "../linked", "-b", "side"]);
    let git_dir = work.join(".git");
    std::fs::create_dir_all(git_dir.join("mirror-push")).unwrap();
    std::fs::write(git_dir.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    sandbox.mirror_push_ok(&git_dir, &["add", "m", mirror.to_str().unwrap()]);
    let scene = Scene { sandbox, mirror, source: git_dir, server: None };
    for (directory, branch) in [("work", "main"), ("linked", "side")] {
        let said = scene.git_in(&scene.sandbox.path(directory), &["push", "mirror::m", branch]);
        assert_eq!(said.status, 0, "{said:?}");
        let said = scene.git_in(&scene.sandbox.path(directory), &["-c", "core.abbrev=12", "ls-remote", "mirror::m"]);
        assert!(said.out.contains(&format!("refs/heads/{branch}")), "{said:?}");
    }
    assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source));
}

#[test]
fn what_the_helper_cannot_do_is_refused_with_the_reason() {
    let scene = scene(Kind::Path, &[]);
    let said = scene.git(&["ls-remote", "mirror::none"]);
    assert!(said.status == 128 && said.err.contains("fatal: no mirror 'none' in"), "{said:?}");
    let said = scene.git_in(&scene.sandbox.path(""), &["clone", "-q", "mirror::m", "copy"]);
    assert!(said.status == 128 && said.err.contains("to clone a mirror, use its own URL"), "{said:?}");
    let work = scene.sandbox.path("source.git.work");
    scene.sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", "two"]);
    scene.sandbox.git(&work, &["push", "-q", "origin", "main"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["silent", "on"]);
    let said = scene.git(&["push", "mirror::m", "main"]);
    assert!(said.status != 0 && said.err.contains("silent mode"), "{said:?}");
    scene.sandbox.mirror_push_ok(&scene.source, &["silent", "off"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["disable", "m"]);
    let said = scene.git(&["push", "mirror::m", "main"]);
    assert!(said.status != 0 && said.err.contains("is disabled"), "{said:?}");
    let bare = scene.sandbox.command(env!("CARGO_BIN_EXE_git-remote-mirror")).output().unwrap();
    assert!(String::from_utf8_lossy(&bare.stderr).contains("git runs this program"), "{bare:?}");
}

#[test]
fn a_dry_run_pushes_nothing_and_options_that_would_be_ignored_are_refused() {
    for kind in [Kind::Path, Kind::Http] {
        let scene = scene(kind, &[]);
        let before = scene.sandbox.refs(&scene.mirror);
        scene.push(&["main"]);
        let said = scene.git(&["push", "--dry-run", "mirror::m", "main"]);
        assert!(said.status == 0 && said.err.contains("main -> main"), "{kind:?}: {said:?}");
        assert_eq!(scene.sandbox.refs(&scene.mirror), before, "{kind:?}");
        for option in ["--atomic", "--push-option=x"] {
            let said = scene.git(&["push", option, "mirror::m", "main"]);
            assert!(said.status == 128 && said.err.contains("does not support"), "{kind:?} {option}: {said:?}");
        }
        assert_eq!(scene.sandbox.refs(&scene.mirror), before, "{kind:?}");
        assert_eq!(scene.git(&["push", "mirror::m", "main"]).status, 0, "{kind:?}");
        assert!(scene.is_mirrored(), "{kind:?}");
    }
}

#[test]
fn the_reason_why_a_mirror_cannot_be_read_is_shown() {
    for (kind, reason) in [
        (Kind::Path, "is not a directory on this machine"),
        (Kind::Ssh, "does not appear to be a git repository"),
        (Kind::Git, "fatal: "),
    ] {
        let scene = scene(kind, &[]);
        std::fs::rename(&scene.mirror, scene.sandbox.path("away.git")).unwrap();
        let said = scene.git(&["ls-remote", "mirror::m"]);
        assert!(said.status == 128 && said.err.contains(reason), "{kind:?}: {said:?}");
    }
    let scene = scene(Kind::Ssh, &[]);
    std::fs::remove_file(scene.source.join("mirror-push/remotes/m/known_hosts")).unwrap();
    let said = scene.git(&["ls-remote", "mirror::m"]);
    assert!(said.status == 128 && said.err.contains("host key"), "{said:?}");
}

#[test]
fn a_helper_for_http_shows_the_password_to_nobody() {
    let scene = scene(Kind::Https, &[]);
    let strace = scene.sandbox.path("strace");
    let bin = Path::new(env!("CARGO_BIN_EXE_git-remote-mirror")).parent().unwrap().to_owned();
    let usual = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&usual))).unwrap();
    let mut command = scene.sandbox.command("strace");
    command.args(["-f", "-qq", "-v", "-s", "8192", "-e", "trace=execve", "-o"]).arg(&strace);
    let output =
        command.args(["git", "ls-remote", "mirror::m"]).current_dir(&scene.source).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = std::fs::read_to_string(strace).unwrap();
    assert!(calls.contains("remote-https") && calls.contains("GIT_ASKPASS") && !calls.contains(PASSWORD));
}

#[test]
fn a_push_by_name_leaves_what_is_spooled_for_others() {
    let scene = scene(Kind::Path, &[]);
    let work = scene.sandbox.path("source.git.work");
    scene.sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", "two"]);
    scene.sandbox.git(&work, &["push", "-q", "origin", "main", "main:topic", "main:fresh"]);
    let said = scene.git(&["push", "mirror::m", "main"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(scene.sandbox.oid(&scene.mirror, "main"), scene.sandbox.oid(&scene.source, "main"));
    assert_ne!(scene.sandbox.oid(&scene.mirror, "topic"), scene.sandbox.oid(&scene.source, "topic"));
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source));
}

/// The proxy of the mirror's configuration wants a password. It does not get the mirror's.
#[test]
fn a_proxy_that_asks_is_not_told_the_mirrors_password() {
    let scene = scene(Kind::Http, &[]);
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = proxy.local_addr().unwrap().port();
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut client in proxy.incoming().flatten() {
            let mut text = vec![0; 65_536];
            let count = client.read(&mut text).unwrap_or(0);
            kept.lock().unwrap().extend_from_slice(&text[..count]);
            let refusal = "HTTP/1.1 407 Asked\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = client.write_all(refusal.as_bytes());
        }
    });
    scene.sandbox.add_mirror_config(&scene.source, &format!("proxy = \"http://someone@127.0.0.1:{port}\""));
    let said = scene.git(&["ls-remote", "mirror::m"]);
    let text = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
    let told: Vec<&str> =
        text.lines().filter(|line| line.to_ascii_lowercase().starts_with("proxy-authorization")).collect();
    let decoded = |line: &&str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
        String::from_utf8_lossy(&bytes).contains(PASSWORD)
    };
    assert!(!told.iter().any(decoded), "{told:?}");
    assert!(said.status != 0 && said.err.contains("not for the host that asks"), "{said:?}");
}

#[test]
fn names_that_are_escaped_for_people_are_whole_for_git() {
    let scene = scene(Kind::Path, &[]);
    let name = "a\u{200f}b";
    scene.push(&[&format!("main:{name}")]);
    let said = scene.git(&["push", "mirror::m", &format!("refs/heads/{name}")]);
    assert!(said.status == 0 && !said.err.contains("unexpected"), "{said:?}");
    assert!(!scene.sandbox.oid(&scene.mirror, name).is_empty());
    let said = scene.git(&["push", "mirror::m", &format!("refs/heads/{name}")]);
    assert!(said.status == 0 && said.err.contains("Everything up-to-date"), "{said:?}");
    let said = scene.git(&["-c", "core.quotePath=false", "ls-remote", "mirror::m"]);
    assert!(said.out.contains(&format!("refs/heads/{name}\n")), "{said:?}");
}

/// In a shared repository another user may write git's configuration. git's helper for http must not run its programs, write its files or
/// ask its proxy.
#[test]
fn the_configuration_of_the_repository_does_not_reach_the_helper_for_http() {
    for (kind, options) in [(Kind::Http, &[][..]), (Kind::Http, &["--ref-format=reftable"])] {
        let scene = scene(kind, &[]);
        if !options.is_empty() && scene.sandbox.try_git(&scene.source, &["refs", "migrate", options[0]]).status != 0 {
            continue;
        }
        let ran = scene.sandbox.path("ran");
        let program = scene.sandbox.path("program");
        script(&program, &format!("#!/bin/sh\necho ran >> '{}'\necho x\n", ran.display()));
        let program = program.to_str().unwrap();
        let cookies = scene.sandbox.path("cookies");
        for (key, value) in [
            ("core.askPass", program),
            ("credential.helper", program),
            ("http.cookieFile", cookies.to_str().unwrap()),
            ("http.saveCookies", "true"),
            ("remote.mirror.proxy", "http://127.0.0.1:1"),
            ("http.http://127.0.0.1.proxy", "http://127.0.0.1:1"),
            ("http.proxy", "http://127.0.0.1:1"),
        ] {
            scene.sandbox.git(&scene.source, &["config", key, value]);
        }
        for version in ["protocol.version=2", "protocol.version=0"] {
            for password in [true, false] {
                if !password {
                    std::fs::rename(scene.source.join("mirror-push/remotes/m/secret"), scene.sandbox.path("secret"))
                        .unwrap();
                }
                let said = scene.git(&["-c", version, "ls-remote", "mirror::m"]);
                assert_eq!(said.status == 0, password, "{version}: {said:?}");
                assert!(!ran.exists() && !cookies.exists(), "{version} {password}: {said:?}");
                if !password {
                    std::fs::rename(scene.sandbox.path("secret"), scene.source.join("mirror-push/remotes/m/secret"))
                        .unwrap();
                }
            }
        }
    }
}

/// Before protocol version 2, git's helper itself fetches: it says what we have, and writes packs and `shallow` into the repository.
#[test]
fn an_old_protocol_over_http_fetches_only_what_is_missing() {
    let scene = scene(Kind::Http, &["--divergent-refs", "keep"]);
    let work = scene.sandbox.work(&scene.mirror);
    work.git(&["pull", "-q", "origin", "main"]);
    let theirs = work.commit("theirs");
    work.push(&["HEAD:refs/heads/theirs"]);
    let before = scene.sandbox.git(&scene.source, &["count-objects", "-v"]);
    let said =
        scene.git(&["-c", "protocol.version=0", "-c", "fetch.unpackLimit=1", "fetch", "mirror::m", "theirs:theirs"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(scene.sandbox.oid(&scene.source, "theirs"), theirs);
    let sent = std::fs::read_dir(scene.source.join("objects/pack")).unwrap().map(|file| file.unwrap().path());
    let sent: Vec<_> = sent.filter(|path| path.extension().is_some_and(|end| end == "idx")).collect();
    let count = |index: &Path| {
        let pack = index.with_extension("pack");
        scene
            .sandbox
            .git(&scene.source, &["verify-pack", "-v", pack.to_str().unwrap()])
            .lines()
            .filter(|line| line.contains(" commit "))
            .count()
    };
    assert!(sent.iter().any(|index| count(index) == 1), "{before} {said:?} {sent:?}");
    let shallow = scene.sandbox.bare("shallow.git");
    let config = scene.source.join("mirror-push");
    scene.sandbox.git(&shallow, &["config", "core.sharedRepository", "group"]);
    assert!(
        scene.sandbox.command("cp").arg("-a").arg(&config).arg(shallow.join("mirror-push")).status().unwrap().success()
    );
    let said =
        scene.git_in(&shallow, &["-c", "protocol.version=0", "fetch", "--depth=1", "mirror::m", "theirs:theirs"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(shallow.join("shallow").is_file(), "{said:?}");
    let loose = std::fs::read_dir(shallow.join("objects")).unwrap().map(|entry| entry.unwrap());
    let loose: Vec<_> = loose.filter(|entry| entry.file_name().len() == 2).collect();
    assert!(
        !loose.is_empty() && loose.iter().all(|entry| entry.metadata().unwrap().mode() & 0o020 != 0),
        "for the group"
    );
    assert_eq!(scene.sandbox.git(&shallow, &["rev-list", "theirs"]).lines().count(), 1);
    scene.sandbox.git(&shallow, &["fsck", "--connectivity-only"]);
}
