//! A new URL and its password belong together: neither address ever gets the password of the other.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Stdio;

use git_mirror_push::mirror::{self, Editor, Error, WhileBusy};
use git_mirror_push::{config, repo};

use crate::scene::sandbox::{Completed, Sandbox, run_with_input, wait_for};

/// A repository whose mirror `web` has this password.
fn scene(password: &str) -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    let add = ["add", "web", "https://bot@a.invalid/x.git", "--password-stdin"];
    assert_eq!(sandbox.mirror_push_with_input(&source, &add, &format!("{password}\n")).status, 0);
    (sandbox, source)
}

/// If the URL cannot be changed, the new password is not stored either.
#[test]
fn a_change_of_the_url_that_fails_leaves_the_old_password() {
    let (sandbox, source) = scene("old");
    let lock = std::fs::File::open(source.join("mirror-push/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let set = ["set", "web", "--url", "https://bot@b.invalid/x.git", "--password-stdin"];
    let said = sandbox.mirror_push_with_input(&source, &set, "new\n");
    assert!(said.status == 128 && said.err.contains("mirror-push"), "{said:?}");
    let secret = || std::fs::read_to_string(source.join("mirror-push/remotes/web/secret")).unwrap();
    assert_eq!(secret(), "old\n");
    drop(lock);
    // The file with the new URL is in place, but its directory cannot be synced. The old password is removed, because it does not belong
    // to the new host.
    let mut strace = sandbox.command("strace");
    strace.args(["-f", "-qq", "-o"]).arg(sandbox.path("strace")).arg("-P").arg(source.join("mirror-push"));
    strace.args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]);
    strace.args(["--", env!("CARGO_BIN_EXE_git-mirror-push"), "--git-dir"]).arg(&source).args(set);
    let said = run_with_input(&mut strace, b"new\n");
    assert!(said.status == 128 && said.err.contains("Input/output error"), "{said:?}");
    let text = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(text.contains("b.invalid") && !source.join("mirror-push/remotes/web/secret").exists(), "{text}");
    assert_eq!(sandbox.mirror_push_with_input(&source, &set, "new\n").status, 0);
    assert_eq!(secret(), "new\n");
}

/// A run, or a person who is asked for a password, knows the old URL. Meanwhile somebody changes URL and password.
#[test]
fn who_knows_the_old_url_does_not_get_the_new_password() {
    let (sandbox, source) = scene("old");
    let repository = repo::open(&source).unwrap().to_local();
    let server = config::Server::default();
    let before = config::load(&repository, &server).unwrap();
    let known = before.mirror("web").unwrap();
    assert_eq!(mirror::target(&repository, known, &server).unwrap().credentials.secret.unwrap().expose(), "old");
    let mut typing = sandbox.program(&source);
    typing.args(["credential", "web"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let typing = typing.spawn().unwrap();
    let has_read = |wanted: &str| {
        let calls = std::fs::read_to_string(format!("/proc/{}/syscall", typing.id())).unwrap_or_default();
        calls.starts_with(wanted)
    };
    // The number of the system call read(2) on x86-64 and on other machines, and the descriptor of standard input.
    wait_for("the command that waits for a password", || has_read("0 0x0 ") || has_read("63 0x0 "));
    let set = ["set", "web", "--url", "https://bot@b.invalid/x.git", "--password-stdin"];
    assert_eq!(sandbox.mirror_push_with_input(&source, &set, "new\n").status, 0);
    let said = mirror::target(&repository, known, &server);
    assert!(matches!(&said, Err(Error::Moved { name }) if name == "web"), "{said:?}");
    let mut typing = typing;
    std::io::Write::write_all(&mut typing.stdin.take().unwrap(), b"typed\n").unwrap();
    let said = Completed::of(&typing.wait_with_output().unwrap());
    assert!(said.status == 128 && said.err.contains("changed the URL of mirror 'web'"), "{said:?}");
    assert_eq!(std::fs::read_to_string(source.join("mirror-push/remotes/web/secret")).unwrap(), "new\n");
}

#[test]
fn of_two_changes_at_once_one_gives_both_url_and_password() {
    let (_sandbox, source) = scene("a");
    let repository = repo::open(&source).unwrap().to_local();
    let server = config::Server::default();
    let change = |host: &str| {
        let repository = repo::open(&source).unwrap().to_local();
        let now = jiff::Timestamp::now;
        let editor = Editor { repository: &repository, server: &server, now, while_busy: WhileBusy::Refuse };
        let keys = vec![("url", config::Change::Text(format!("https://bot@{host}.invalid/x.git")))];
        let secret = Some(git_mirror_push::credentials::Secret::new(host.to_owned()));
        for _ in 0..50 {
            loop {
                let seen = config::load(&repository, &server).unwrap().mirror("web").unwrap().into();
                let extras = mirror::Extras { secret: secret.clone(), ..Default::default() };
                match editor.set(&seen, keys.clone(), &extras) {
                    Err(Error::Moved { .. }) => {}
                    set => break drop(set.unwrap()),
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| change("a"));
        scope.spawn(|| change("b"));
        for _ in 0..200 {
            // If the file is the same before and after, the password that was read in between is for its URL.
            let file = || std::fs::metadata(source.join("mirror-push/config.toml")).unwrap();
            let stamp = || (file().ino(), file().ctime(), file().ctime_nsec());
            let before = stamp();
            let url = config::load(&repository, &server).unwrap().mirror("web").unwrap().identity();
            let found = std::fs::read_to_string(source.join("mirror-push/remotes/web/secret")).unwrap_or_default();
            let host = found.trim_end();
            assert!(before != stamp() || host.is_empty() || url.contains(&format!("{host}.invalid")), "{url}: {host}");
        }
    });
    let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    let secret = std::fs::read_to_string(source.join("mirror-push/remotes/web/secret")).unwrap();
    assert!(config.contains(&format!("@{}.invalid", secret.trim_end())), "{config}: {secret}");
}

/// Two people have seen the same URL. The second change brings no password, and must not get that of the first.
#[test]
fn a_change_is_only_for_the_url_that_its_author_has_seen() {
    let (_sandbox, source) = scene("old");
    let repository = repo::open(&source).unwrap().to_local();
    let server = config::Server::default();
    let now = jiff::Timestamp::now;
    let editor = Editor { repository: &repository, server: &server, now, while_busy: WhileBusy::Refuse };
    let url = |host: &str| vec![("url", config::Change::Text(format!("https://bot@{host}.invalid/x.git")))];
    let secret = |text: &str| mirror::Extras {
        secret: Some(git_mirror_push::credentials::Secret::new(text.to_owned())),
        ..Default::default()
    };
    let load = || config::load(&repository, &server).unwrap();
    let seen: mirror::Seen = load().mirror("web").unwrap().into();
    editor.set(&seen, url("b"), &secret("of b")).unwrap();
    let stored = || {
        let host = load().mirror("web").unwrap().address.host().unwrap().to_owned();
        (host, std::fs::read_to_string(source.join("mirror-push/remotes/web/secret")).unwrap())
    };
    let of_b = ("b.invalid".to_owned(), "of b\n".to_owned());
    for (keys, extras) in
        [(url("a"), mirror::Extras::default()), (Vec::new(), secret("of a")), (url("a"), secret("of a"))]
    {
        let said = editor.set(&seen, keys, &extras).map(drop);
        assert!(matches!(&said, Err(Error::Moved { name }) if name == "web"), "{said:?}");
        assert_eq!(stored(), of_b);
    }
    let confirm = mirror::Operation::Request(seen, mirror::Wish::Adopt).run(&editor).map(drop);
    assert!(matches!(&confirm, Err(Error::Moved { .. })), "{confirm:?}");
    // A change with the same URL that fails leaves the password.
    let lock = std::fs::File::open(source.join("mirror-push/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let seen: mirror::Seen = load().mirror("web").unwrap().into();
    assert!(editor.set(&seen, url("b"), &secret("new")).is_err());
    assert_eq!(stored(), of_b);
}
