//! Many at once: pushers, drains that are killed, commands that change the configuration, git's own housekeeping.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, run_with_input, wait_at_lock, wait_for};

const PUSHERS: usize = 50;
const PUSHES: usize = 20;

/// Tells the other threads that the test is over, also when it failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The commits of each pusher: `PUSHES` on a branch of its own. One `git fast-import` makes them all.
fn prepare(sandbox: &Sandbox, work: &Path) -> Vec<Vec<String>> {
    let mut stream = String::from("commit refs/heads/main\ncommitter T <t@example.org> 0 +0000\ndata 0\n\n");
    for pusher in 0..PUSHERS {
        for push in 0..PUSHES {
            let from = if push == 0 { "from refs/heads/main\n" } else { "" };
            stream.push_str(&format!(
                "commit refs/heads/p{pusher}\ncommitter T <t@example.org> {push} +0000\ndata 4\np{pusher:03}\n{from}\n"
            ));
        }
    }
    sandbox.git_with_input(work, &["fast-import", "--quiet"], stream.as_bytes());
    (0..PUSHERS)
        .map(|pusher| {
            let range = format!("refs/heads/main..refs/heads/p{pusher}");
            let all = sandbox.git(work, &["rev-list", "--reverse", &range]);
            all.lines().map(str::to_owned).collect()
        })
        .collect()
}

/// A mirror whose reflogs are files, for [`moves`].
fn with_reflogs(sandbox: &Sandbox) -> PathBuf {
    let mirror = sandbox.bare_of("mirror.git", (sandbox.formats().0, "files"));
    sandbox.git(&mirror, &["config", "core.logAllRefUpdates", "always"]);
    mirror
}

/// Every change of a ref of a repository, from its reflogs: the path of the reflog, the old value, the new value.
fn moves(repository: &Path) -> Vec<(String, String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&repository.join("logs/refs"), &mut files);
    let mut moves = Vec::new();
    for file in files {
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let mut fields = line.split(' ').map(str::to_owned);
            moves.push((file.display().to_string(), fields.next().unwrap(), fields.next().unwrap()));
        }
    }
    moves
}

#[test]
fn fifty_pushers_and_drains_that_are_killed_at_random() {
    let sandbox = Sandbox::new();
    let mirror = with_reflogs(&sandbox);
    let source = sandbox.source("mirror.git", &[]);
    // Refs that a killed drain may have sent are read again after this time.
    sandbox.add_mirror_config(&source, "stall_timeout = \"2s\"");
    let work = sandbox.work(&source);
    for repository in [&source, &work.path] {
        // Reftable has one lock for all refs. With so many pushers, some wait for it longer than git's default time limit.
        sandbox.git(repository, &["config", "reftable.lockTimeout", "60000"]);
    }
    let commits = prepare(&sandbox, &work.path);
    let (is_over, killed, pushed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for drainer in 0..2_u64 {
            let (sandbox, source, is_over, killed) = (&sandbox, &source, &is_over, &killed);
            scope.spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15 + drainer;
                while !is_over.load(Ordering::Relaxed) {
                    let mut drain = sandbox.program(source).arg("drain").stdout(Stdio::null()).spawn().unwrap();
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    std::thread::park_timeout(Duration::from_millis(random % 60));
                    if drain.try_wait().unwrap().is_none() {
                        drain.kill().unwrap();
                        killed.fetch_add(1, Ordering::Relaxed);
                    }
                    drain.wait().unwrap();
                }
            });
        }
        let pushers: Vec<_> = commits
            .iter()
            .enumerate()
            .map(|(pusher, commits)| {
                let (sandbox, work, pushed) = (&sandbox, &work, &pushed);
                scope.spawn(move || {
                    for commit in commits {
                        let refspec = format!("{commit}:refs/heads/p{pusher}");
                        let said = sandbox.try_git(&work.path, &["push", "-q", "origin", &refspec]);
                        assert_eq!((said.status, &*said.err), (0, ""), "{said:?}");
                        pushed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
    });
    // A receive-pack whose drain was killed ends by itself.
    wait_for("an empty queue and an equal mirror", || {
        let is_drained = sandbox.mirror_push(&source, &["drain"]).status == 0;
        let queue = std::fs::read_dir(source.join("mirror-push/remotes/m/queue")).unwrap();
        is_drained && queue.count() == 0 && sandbox.refs(&mirror) == sandbox.refs(&source)
    });
    assert_eq!((pushed.load(Ordering::Relaxed), sandbox.refs(&mirror).len()), (PUSHERS * PUSHES, PUSHERS));
    let locks = sandbox.command("find").args([&source, &mirror]).args(["-name", "*.lock"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&locks), "", "no lock is left");
    let spool = source.join("mirror-push");
    for directory in ["spool/incoming", "spool/tmp", "spool/corrupt", "remotes/m/queue"] {
        assert_eq!(std::fs::read_dir(spool.join(directory)).unwrap().count(), 0, "{directory}");
    }
    // Every update moved its ref forward along its pusher's commits.
    let place: BTreeMap<&String, usize> =
        commits.iter().flat_map(|list| list.iter().enumerate().map(|(n, commit)| (commit, n + 1))).collect();
    let moves = moves(&mirror);
    for (name, old, new) in &moves {
        let (before, after) = (place.get(old).copied().unwrap_or(0), place[new]);
        assert!(before < after, "{name}: {old} to {new}");
    }
    let updates = moves.len();
    let killed = killed.load(Ordering::Relaxed);
    eprintln!("{} pushes, 0 lost; {updates} updates of the mirror; {killed} drains killed", PUSHERS * PUSHES);
    assert!(killed > 20, "{killed}");
}

#[test]
fn commands_that_change_the_configuration_during_drains() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for command in ["drain", "sync"] {
            let (sandbox, source, is_over) = (&sandbox, &source, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let said = sandbox.mirror_push(source, &[command]);
                    assert!([0, 1].contains(&said.status) && !said.err.contains("panicked"), "{said:?}");
                }
            });
        }
        for n in 0..15 {
            work.commit(&n.to_string());
            work.push(&["main", &format!("main:b{n}")]);
            sandbox.mirror_push_ok(&source, &["set", "m", "--prune", if n % 2 == 0 { "never" } else { "mirror" }]);
            sandbox.mirror_push_ok(&source, &["disable", "m"]);
            sandbox.mirror_push_ok(&source, &["enable", "m"]);
            sandbox.mirror_push_ok(&source, &["remove", "m"]);
            sandbox.mirror_push_ok(&source, &["add", "m", mirror.to_str().unwrap(), "--divergent-refs", "keep"]);
        }
    });
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    sandbox.mirror_push_ok(&source, &["remove", "m"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let left: Vec<_> =
        std::fs::read_dir(source.join("mirror-push/remotes/m")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

/// Gives the mirror a pre-receive hook that runs `script` while refs are being pushed.
fn meanwhile(mirror: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let hook = mirror.join("hooks/pre-receive");
    std::fs::write(
        &hook,
        format!("#!/bin/sh\nunset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n{script}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_ref_that_moves_or_vanishes_during_a_drain() {
    let scene = Scene::local(&["--prune", "deleted"]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    work.push(&["main:moves", "main:goes"]);
    let two = work.commit("two");
    work.push(&["main:moves2"]);
    let git = format!("git --git-dir '{}' update-ref", source.display());
    meanwhile(mirror, &format!("{git} refs/heads/moves {two} && {git} -d refs/heads/goes"));
    sandbox.mirror_push_ok(source, &["drain"]);
    std::fs::remove_file(mirror.join("hooks/pre-receive")).unwrap();
    assert_ne!(sandbox.oid(mirror, "goes"), "", "the ref arrives, because it was there when it was read");
    // Now the ref vanishes before it is sent. An empty mirror gets the default branch alone first, and the hook runs at that push.
    sandbox.git(source, &["update-ref", "refs/heads/goes", "main"]);
    std::fs::remove_dir_all(mirror).unwrap();
    sandbox.bare("mirror.git");
    meanwhile(mirror, &format!("{git} -d refs/heads/goes"));
    sandbox.mirror_push_ok(source, &["sync"]);
    assert_eq!(sandbox.oid(mirror, "goes"), "");
    std::fs::remove_file(mirror.join("hooks/pre-receive")).unwrap();
    // No hook of ours saw these moves; a comparison does.
    let said = sandbox.mirror_push_ok(source, &["sync", "--json"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "{said:?}");
    // The push of a branch is recorded, and the branch is deleted before the drain. That is no error.
    work.push(&["main:brief"]);
    sandbox.git(source, &["update-ref", "-d", "refs/heads/brief"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}

#[test]
fn gits_housekeeping_never_makes_us_delete_or_rewind() {
    let sandbox = Sandbox::new();
    let mirror = with_reflogs(&sandbox);
    // With `prune = "mirror"`, a ref that a listing misses would be deleted on the mirror.
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    let script: String = (0..200).map(|n| format!("create refs/heads/n{n} HEAD\n")).collect();
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], script.as_bytes());
    work.push(&["refs/heads/*:refs/heads/*"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let is_over = AtomicBool::new(false);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for command in [&["pack-refs", "--all", "--prune"][..], &["gc", "-q"], &["repack", "-adq"]] {
                    // A command may fail because a push holds a lock. That does not matter here.
                    sandbox.try_git(&source, command);
                }
            }
        });
        for round in 0..25 {
            work.commit(&round.to_string());
            let moved: Vec<String> = (0..20).map(|n| format!("main:n{}", (round * 7 + n * 10) % 200)).collect();
            let refspecs = moved.iter().map(String::as_str).chain(["main"]);
            let arguments: Vec<&str> = ["push", "-q", "origin"].into_iter().chain(refspecs).collect();
            // A push may fail if it meets a repack, so it is repeated.
            wait_for("a push", || sandbox.try_git(&work.path, &arguments).status == 0);
            let said = sandbox.mirror_push(&source, &[if round % 2 == 0 { "sync" } else { "drain" }, "--json"]);
            assert!(!said.out.contains("\"deleted\"") && !said.out.contains("\"forced\""), "{said:?}");
            rounds += 1;
        }
    });
    assert_eq!(rounds, 25);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert!(moves(&mirror).iter().all(|(_, _, new)| new.bytes().any(|byte| byte != b'0')), "a ref was deleted");
}

/// A source and its mirror. The mirror's hook holds each push until the file `go` exists. It writes `begin` and `end` into `log`.
fn holding(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let (log, go) = (sandbox.path("log"), sandbox.path("go"));
    let hook = format!(
        "echo begin >> '{l}'\nwhile [ ! -e '{g}' ]; do sleep 0.02; done\necho end >> '{l}'",
        l = log.display(),
        g = go.display()
    );
    meanwhile(&mirror, &hook);
    (source, mirror)
}

#[test]
fn two_syncs_at_once_take_turns() {
    let sandbox = Sandbox::new();
    let (source, mirror) = holding(&sandbox);
    let log = || std::fs::read_to_string(sandbox.path("log")).unwrap_or_default();
    let create = |name: &str| sandbox.git(&source, &["update-ref", &format!("refs/heads/{name}"), "main"]);
    let sync = || sandbox.program(&source).args(["sync", "-q"]).spawn().unwrap();
    create("first");
    let mut first = sync();
    wait_for("the first", || log() == "begin\n");
    create("second");
    let mut second = sync();
    // The second sync waits for the lock. Without a lock it would have reached the mirror in this time.
    std::thread::park_timeout(Duration::from_millis(400));
    assert_eq!(log(), "begin\n", "the second is not let in");
    std::fs::write(sandbox.path("go"), "").unwrap();
    for sync in [&mut first, &mut second] {
        assert!(sync.wait().unwrap().success());
    }
    assert_eq!(log(), "begin\nend\nbegin\nend\n");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_mirror_that_is_disabled_while_a_sync_waits_gets_nothing() {
    let sandbox = Sandbox::new();
    let (source, mirror) = holding(&sandbox);
    sandbox.git(&source, &["update-ref", "refs/heads/first", "main"]);
    let mut first = sandbox.program(&source).args(["sync", "-q"]).spawn().unwrap();
    wait_for("the first", || sandbox.path("log").exists());
    sandbox.git(&source, &["update-ref", "refs/heads/second", "main"]);
    let mut second = sandbox.program(&source).args(["sync", "-q"]).spawn().unwrap();
    std::thread::park_timeout(Duration::from_millis(200));
    sandbox.mirror_push_ok(&source, &["disable", "m"]);
    std::fs::write(sandbox.path("go"), "").unwrap();
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!((sandbox.oid(&mirror, "second"), sandbox.oid(&mirror, "first").is_empty()), (String::new(), false));
}

/// `status` holds the lock for a moment, to see whether a run is active. A drain that begins just then waits until the lock is free.
#[test]
fn a_look_at_the_status_turns_no_drain_away() {
    let scene = Scene::local(&[]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    work.commit("two");
    work.push(&["main"]);
    let lock = std::fs::File::open(source.join("mirror-push/remotes/m/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    let mut drain = sandbox.program(source).arg("drain").stdout(Stdio::null()).spawn().unwrap();
    wait_at_lock(&drain);
    drop(lock);
    assert!(drain.wait().unwrap().success());
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}

/// A drain does not try a mirror whose next attempt is not yet due. Its exit status is then 0.
#[test]
fn a_mirror_that_only_waits_is_no_failure_of_this_drain() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("git://127.0.0.1:9/mirror.git", &[]);
    // The file is written before the attempt, because a change of the configuration ends the wait.
    let server = sandbox.path("server.toml");
    std::fs::write(&server, format!("[[repositories]]\nroot = \"{}\"\n", sandbox.path("").display())).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain", "-q"]).status, 1, "it was tried");
    let said = sandbox.mirror_push(&source, &["drain", "-q"]);
    assert_eq!((said.status, &*said.out, &*said.err), (0, "", ""), "it waits");
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert!(said.status == 0 && said.out.contains("not tried again before"), "{said:?}");
    let mut all = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
    let said = run_with_input(all.arg("--config").arg(&server).args(["drain", "--all", "-q"]), b"");
    assert_eq!((said.status, &*said.out, &*said.err), (0, "", ""), "`drain --all` reports no failure either");
}
