//! Damage to a server: garbage in the configuration, missing directories, a repository restored from a backup.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::Sandbox;

fn scene(options: &[&str]) -> (Sandbox, PathBuf, PathBuf) {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", options);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:topic"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    (sandbox, mirror, source)
}

fn commit_and_push(sandbox: &Sandbox, refs: &[&str]) {
    let work = sandbox.path("source.git.work");
    sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", "more"]);
    let arguments: Vec<&str> = ["push", "-q", "origin"].iter().chain(refs).copied().collect();
    let said = sandbox.try_git(&work, &arguments);
    assert_eq!(said.status, 0, "{said:?}");
}

#[test]
fn a_configuration_of_garbage_stops_no_push_and_loses_none() {
    let (sandbox, mirror, source) = scene(&[]);
    let config = source.join("mirror-push/config.toml");
    let good = std::fs::read(&config).unwrap();
    for garbage in
        [&b"\xff\xfe\0"[..], b"[", b"[remotes.m]\n", b"a = ", b"remotes = 3\n", b"[remotes.\"../x\"]\nurl = \"/x\"\n"]
    {
        std::fs::write(&config, garbage).unwrap();
        commit_and_push(&sandbox, &["main"]);
        let refs = sandbox.refs(&mirror);
        for command in ["drain", "sync", "status", "plan", "list"] {
            let said = sandbox.mirror_push(&source, &[command]);
            assert_eq!(said.status, 128, "{said:?}");
            assert!(said.err.contains("config.toml") && !said.err.contains("panicked"), "{said:?}");
        }
        assert_eq!(sandbox.refs(&mirror), refs, "a file with an error in it configures nothing");
        std::fs::write(&config, &good).unwrap();
        sandbox.mirror_push_ok(&source, &["drain"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    }
}

#[test]
fn directories_that_are_gone_are_made_again() {
    for gone in [
        "spool",
        "spool/tmp",
        "spool/incoming",
        "spool/corrupt",
        "remotes",
        "remotes/m",
        "remotes/m/queue",
        "remotes/m/mirrored",
        "remotes/m/lock",
        "remotes/m/status.json",
    ] {
        let (sandbox, mirror, source) = scene(&["--divergent-refs", "keep"]);
        let path = source.join("mirror-push").join(gone);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.unwrap();
        commit_and_push(&sandbox, &["main", "HEAD:topic", "HEAD:fresh"]);
        let said = sandbox.mirror_push(&source, &["drain"]);
        assert!([0, 1].contains(&said.status) && !said.err.contains("panicked"), "{gone}: {said:?}");
        sandbox.mirror_push_ok(&source, &["sync"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{gone}");
    }
}

fn copy(sandbox: &Sandbox, from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    assert!(sandbox.command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn a_repository_from_yesterdays_backup_overwrites_only_where_the_rules_say_so() {
    for (policy, prune) in [("keep", "mirror"), ("fail", "mirror"), ("overwrite", "merged"), ("overwrite", "deleted")] {
        let (sandbox, mirror, source) = scene(&["--divergent-refs", policy, "--prune", prune]);
        copy(&sandbox, &source, &sandbox.path("backup.git"));
        commit_and_push(&sandbox, &["main", "HEAD:today"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        let today = sandbox.refs(&mirror);
        // The disk was lost. The refs and the state files are yesterday's.
        copy(&sandbox, &sandbox.path("backup.git"), &source);
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert!(!said.err.contains("panicked"), "{said:?}");
        assert_ne!(sandbox.oid(&mirror, "today"), "", "{policy}: what we never had is not deleted: {said:?}");
        if policy != "overwrite" {
            assert_eq!((said.status, sandbox.refs(&mirror)), (1, today), "{policy}: {said:?}");
            let status = sandbox.status(&source);
            let refs = status["refs"].to_string();
            assert!(refs.contains("divergent") && refs.contains("this repository never had"), "{policy}: {refs}");
        }
        // When today's work is pushed again, the mirror equals the source, and nothing is lost.
        let work = sandbox.path("source.git.work");
        sandbox.git(&work, &["push", "-q", "origin", "main", "main:today"]);
        sandbox.mirror_push_ok(&source, &["sync"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{policy}");
    }
}

#[test]
fn state_files_that_are_older_than_the_mirror_overwrite_nobodys_work() {
    let (sandbox, mirror, source) = scene(&["--divergent-refs", "keep"]);
    let remote = source.join("mirror-push/remotes/m");
    copy(&sandbox, &remote, &sandbox.path("books"));
    commit_and_push(&sandbox, &["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    copy(&sandbox, &sandbox.path("books"), &remote);
    // Someone adds a commit on the mirror, on top of our value.
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    assert_eq!(sandbox.oid(&mirror, "main"), theirs);
}
