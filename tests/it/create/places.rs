//! `create = "path"`, `create = "ssh"` and `create_command`: where git or a program makes the repository.

use std::path::{Path, PathBuf};

use crate::scene::injected::{self, Fault, Threads, at_every_point};
use crate::scene::sandbox::{Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, Server};

/// A source with one commit on the branch `trunk`, which is its default branch, with a description, and with the mirror `m` at `url`.
fn source(sandbox: &Sandbox, url: &str, options: &[&str]) -> PathBuf {
    let source = sandbox.source(url, options);
    sandbox.git(&source, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    std::fs::write(source.join("description"), "It's the \"widget\" $(id)\n").unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main:trunk", "main:topic"]);
    source
}

fn head(sandbox: &Sandbox, repository: &Path) -> String {
    sandbox.git(repository, &["symbolic-ref", "HEAD"])
}

#[test]
fn a_path_is_created_once_with_our_branch_format_and_description() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.path("new/deep/m.git");
    let source = source(&sandbox, mirror.to_str().unwrap(), &["create=path"]);
    let said = sandbox.mirror_push_ok(&source, &["plan"]);
    assert!(said.out.contains("   would create the repository\n") && said.out.contains("[new branch]"), "{said:?}");
    let json = sandbox.mirror_push_ok(&source, &["plan", "--json"]).json();
    assert_eq!(json[0]["created_repository"], true);
    assert_eq!(json[0]["refs"].as_array().unwrap().len(), 2);
    let said = sandbox.mirror_push(&source, &["doctor"]);
    assert!(said.out.contains("there is no repository there yet; the next run creates it"), "{said:?}");
    assert!(!sandbox.path("new").exists(), "looking creates nothing");

    let said = sandbox.mirror_push_ok(&source, &["sync"]);
    assert!(said.out.contains("   created the repository\n"), "{said:?}");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert_eq!(head(&sandbox, &mirror), "refs/heads/trunk");
    assert_eq!(std::fs::read_to_string(mirror.join("description")).unwrap(), "It's the \"widget\" $(id)\n");
    let format = |at: &Path| sandbox.git(at, &["rev-parse", "--show-object-format"]);
    assert_eq!(format(&mirror), format(&source));
    let status = sandbox.status(&source);
    assert!(status["created_repository"] == true && status["update_status"] == "finished", "{status}");

    // A mirror that was there once and is gone is made again only if a person asks for it.
    std::fs::rename(&mirror, sandbox.path("moved.git")).unwrap();
    let work = sandbox.work(&source);
    work.commit("two");
    work.push(&["main:trunk"]);
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert!(
        said.status == 1 && said.out.contains("; it was there on 2") && said.out.contains("sync m --create"),
        "{said:?}"
    );
    assert_eq!(sandbox.status(&source)["update_status"], "failed");
    let said = sandbox.mirror_push(&source, &["plan"]);
    assert!(said.out.contains("; it was there on 2") && !said.out.contains("would create"), "{said:?}");
    assert!(!mirror.exists());
    sandbox.mirror_push_ok(&source, &["sync", "m", "--create"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn nothing_that_exists_is_changed() {
    let sandbox = Sandbox::new();
    let place = sandbox.path("m.git");
    let source = source(&sandbox, place.to_str().unwrap(), &["create=path"]);
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("precious"), "x").unwrap();
    for make in [(), ()] {
        let () = make;
        let said = sandbox.mirror_push(&source, &["sync"]);
        assert!(said.status == 1 && said.out.contains("not appear to be a git repository"), "{said:?}");
        let names: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"]);
    }
    std::fs::remove_dir_all(&place).unwrap();
    std::os::unix::fs::symlink(sandbox.path("nowhere"), &place).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && !sandbox.path("nowhere").exists(), "a link is not followed: {said:?}");
    std::fs::remove_file(&place).unwrap();
    // An empty directory may be a mount point, or may have been made for the mirror. So the
    // repository is created in it.
    std::fs::create_dir(&place).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&place), sandbox.refs(&source));
    // A directory with an owner or mode of its own was made by somebody for a reason.
    let other = sandbox.path("shared.git");
    std::fs::create_dir(&other).unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o2770)).unwrap();
    sandbox.mirror_push_ok(&source, &["add", "shared", other.to_str().unwrap(), "create=path", "--disabled"]);
    sandbox.mirror_push_ok(&source, &["enable", "shared"]);
    let said = sandbox.mirror_push(&source, &["sync", "shared"]);
    assert!(said.status == 1 && said.out.contains("owner or mode of its own"), "{said:?}");
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 0);
    // Without `create`, nothing is created.
    let said = sandbox.mirror_push(&source, &["add", "other", sandbox.path("typo.git").to_str().unwrap()]);
    assert_eq!(said.status, 0, "{said:?}");
    let said = sandbox.mirror_push(&source, &["sync", "other"]);
    assert!(said.status == 1 && said.out.contains("is not a directory on this machine"), "{said:?}");
    let said = sandbox.mirror_push(&source, &["sync", "other", "--create"]);
    assert!(said.status == 129 && said.err.contains("set other create="), "{said:?}");
}

/// Six repositories with one mirror, whose runs begin at once: one makes it, and no half repository appears.
#[test]
fn runs_that_create_one_repository_at_once_make_a_whole_one() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.path("place/same.git");
    let sources: Vec<PathBuf> = (0..6)
        .map(|n| sandbox.source_named(&format!("s{n}"), mirror.to_str().unwrap(), &["create=path", "--disabled"]))
        .collect();
    for round in 0..4 {
        let _ = std::fs::remove_dir_all(sandbox.path("place"));
        std::thread::scope(|scope| {
            for source in &sources {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    sandbox.mirror_push(source, &["enable", "m"]);
                    sandbox.mirror_push(source, &["sync", "--create"]);
                });
            }
        });
        sandbox.git(&mirror, &["rev-parse", "--is-bare-repository"]);
        sandbox.git(&mirror, &["fsck", "--strict"]);
        let names: Vec<_> = std::fs::read_dir(sandbox.path("place")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["same.git"], "round {round}");
    }
    // Directories of others with names like those of our temporary directories are not removed.
    std::fs::remove_dir_all(&mirror).unwrap();
    for name in [".same.git.creating", ".same.git.creating-mine", "same.git.creating"] {
        std::fs::create_dir_all(sandbox.path("place").join(name).join("precious")).unwrap();
    }
    sandbox.mirror_push(&sources[0], &["sync", "--create"]);
    assert_eq!(std::fs::read_dir(sandbox.path("place")).unwrap().count(), 4);
}

/// A run that creates its mirror is killed at one in three of the system calls that
/// `scene::injected` lists. The next run completes the work.
#[test]
fn a_creation_that_is_killed_is_taken_up_by_the_next_run() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.path("place/m.git");
    let source = source(&sandbox, mirror.to_str().unwrap(), &["create=path"]);
    let saved = sandbox.path("source.saved");
    let copy = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        assert!(sandbox.command("cp").args(["-a", "--"]).arg(from).arg(to).status().unwrap().success());
    };
    copy(&source, &saved);
    let drain = |fault| {
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        let mut command = injected::under(&sandbox, fault, Threads::Main, program);
        run_with_input(command.arg("--git-dir").arg(&source).arg("sync"), b"")
    };
    let points = at_every_point(|point| {
        copy(&saved, &source);
        let _ = std::fs::remove_dir_all(sandbox.path("place"));
        drain(Some((Fault::Kill, point)));
        let is_reached = injected::is_reached(&sandbox);
        let said = drain(None);
        assert_eq!(said.status, 0, "{point:?}: {said:?}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{point:?}");
        assert_eq!(head(&sandbox, &mirror), "refs/heads/trunk", "{point:?}");
        let names: Vec<_> = std::fs::read_dir(sandbox.path("place")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["m.git"], "{point:?}");
        is_reached
    });
    assert!(points > 10, "{points} points");
}

#[test]
fn a_shell_over_ssh_creates_a_repository() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, Kind::Ssh);
    let source = source(&sandbox, &server.url("far/it's a mirror.git"), &["create=ssh"]);
    server.configure_access(&sandbox, &source, "m");
    let said = sandbox.mirror_push_ok(&source, &["plan"]);
    assert!(said.out.contains("would create the repository"), "{said:?}");
    assert!(!sandbox.path("far").exists());
    sandbox.mirror_push_ok(&source, &["sync"]);
    let mirror = sandbox.path("far/it's a mirror.git");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert_eq!(head(&sandbox, &mirror), "refs/heads/trunk");
    assert_eq!(std::fs::read_to_string(mirror.join("description")).unwrap(), "It's the \"widget\" $(id)\n");

    // With an account that only serves git, the error says what is needed.
    let keys = sandbox.path("ssh/authorized_keys");
    let key = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("command=\"git-shell -c \\\"$SSH_ORIGINAL_COMMAND\\\"\" {key}")).unwrap();
    std::fs::rename(&mirror, sandbox.path("moved.git")).unwrap();
    let said = sandbox.mirror_push(&source, &["sync", "--create"]);
    assert!(said.status == 1 && said.out.contains("needs an account with a shell and git"), "{said:?}");
    assert!(!mirror.exists());
}

#[test]
fn a_command_creates_a_repository_and_says_why_not() {
    let sandbox = Sandbox::new();
    let (maker, heard, mirror) = (sandbox.path("maker"), sandbox.path("heard"), sandbox.path("m.git"));
    let command = format!("create_command=[\"{}\", \"x y\"]", maker.display());
    let source = source(&sandbox, mirror.to_str().unwrap(), &[&command, "create_visibility=internal"]);
    script(&maker, "#!/bin/sh\necho first >&2\necho 'the quota is used up' >&2\nexit 3\n");
    let said = sandbox.mirror_push(&source, &["sync"]);
    let expected = "cannot create the repository: create_command failed with exit status 3: the quota is used up";
    assert!(said.status == 1 && said.out.contains(expected), "{said:?}");
    let made = format!(
        "#!/bin/sh\ncat >'{}'\ntest \"$1\" = 'x y' && git init -q --bare '{}'\n",
        heard.display(),
        mirror.display()
    );
    script(&maker, &made);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(&heard).unwrap()).unwrap();
    let expected = serde_json::json!({
        "repository": source, "name": "m", "url": mirror, "visibility": "internal",
        "description": "It's the \"widget\" $(id)", "default_branch": "trunk", "object_format": sandbox.formats().0,
    });
    assert_eq!(asked, expected);
}

#[test]
fn keys_that_do_not_fit_the_url_are_refused() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("mirror.git", &[]);
    for (url, keys, expected) in [
        ("https://127.0.0.1/x/y.git", &["create=path"][..], "create = \"path\" needs a URL that is a path"),
        ("/srv/x.git", &["create=github"], "for a path use create = \"path\""),
        ("git://127.0.0.1/x.git", &["create=push"], "create does not work with a git:// URL"),
        ("https://127.0.0.1/x/y.git", &["create=ssh"], "create = \"ssh\" needs an ssh URL"),
        ("https://127.0.0.1/x/y.git", &["create=forge"], "create"),
        ("https://127.0.0.1/x/y.git", &["create=push", "--direction", "both"], "a two-way mirror is read before"),
        ("https://127.0.0.1/x/y.git", &["create=gitea", "create_visibility=internal"], "no internal repositories"),
        ("https://127.0.0.1/x/y.git", &["create=push", "create_visibility=public"], "the host chooses the visibility"),
        ("https://127.0.0.1/x/y.git", &["create=github", "create_url=https://u:p@127.0.0.1/api"], "create_url"),
        ("https://127.0.0.1/x/y.git", &["create=github", "create_command=[\"/bin/true\"]"], "exclude each other"),
        ("https://127.0.0.1/x/y.git", &["create_command=[\"true\"]"], "absolute path"),
    ] {
        let said = sandbox.mirror_push(&source, &[&["add", "n", url, "--disabled"], keys].concat());
        assert!(said.status != 0 && said.err.contains(expected), "{keys:?}: {said:?}");
    }
    assert!(!std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap().contains("[remotes.n]"));
    // A key in [defaults] applies only to the mirrors whose URL it fits.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[defaults]\ncreate = \"github\"\n")).unwrap();
    assert_eq!(sandbox.mirror_push_ok(&source, &["list"]).status, 0);
}
