//! The spool: damaged records, queues, and who holds the lock.

use std::path::Path;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, run_with_input, script, wait_for};

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn damaged_records_are_moved_aside_and_cause_a_full_sync() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let work = sandbox.work(&source);
    let spool = source.join("mirror-push/spool");
    let damages: [&dyn Fn(Vec<u8>) -> Vec<u8>; 5] = [
        &|_| Vec::new(),
        &|text| text[..text.len() / 2].to_vec(),
        &|_| b"git-mirror-push spool 9\nfrom the future\n".to_vec(),
        &|_| vec![0; 4096],
        &|text| text.iter().map(|byte| if *byte == b'a' { b'b' } else { *byte }).collect(),
    ];
    for (n, damage) in damages.iter().enumerate() {
        work.commit("more");
        work.push(&["main", &format!("main:b{n}")]);
        for entry in std::fs::read_dir(spool.join("incoming")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read(&path).unwrap();
            std::fs::write(&path, damage(text)).unwrap();
        }
        let said = sandbox.mirror_push_ok(&source, &["drain"]);
        assert!(said.err.contains("moved to spool/corrupt"), "{said:?}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "damage {n}");
        assert_eq!((count(&spool.join("corrupt")), count(&spool.join("incoming"))), (n + 1, 0));
    }
    // A damaged entry of a queue is moved aside too.
    sandbox.git(&source, &["update-ref", "refs/heads/unseen", "main"]);
    std::fs::write(source.join("mirror-push/remotes/m/queue/0000000001.000000001.1.1"), "garbage").unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert_eq!(count(&spool.join("corrupt")), 6);
}

#[test]
fn a_push_that_fails_at_one_mirror_stays_queued_for_it_alone() {
    let sandbox = Sandbox::new();
    let good = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["add", "down", "git://127.0.0.1:1/x.git"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert_eq!(sandbox.refs(&good), sandbox.refs(&source));
    let status = sandbox.statuses(&source);
    assert_eq!((&status[0]["update_status"], &status[0]["pending"]), (&"finished".into(), &0.into()));
    assert_eq!((&status[1]["update_status"], &status[1]["pending"]), (&"scheduled".into(), &2.into()));
    assert_eq!(status[1]["attempts"], 1);
    // A permanent failure loses nothing either: the queue waits for a change of the configuration.
    sandbox.mirror_push_ok(&source, &["set", "down", "--url", "/nowhere.git"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain", "down"]).status, 1);
    let status = sandbox.mirror_push(&source, &["status", "--json", "down"]).json()[0].clone();
    assert_eq!(status["update_status"], "failed");
    assert!(status["pending"].as_u64().unwrap() >= 2, "{status}");
    let late = sandbox.bare("late.git");
    sandbox.mirror_push_ok(&source, &["set", "down", "--url", late.to_str().unwrap()]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&late), sandbox.refs(&source));
}

#[test]
fn the_next_drain_deletes_the_files_that_a_killed_removal_left() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let left = source.join("mirror-push/remotes/gone");
    std::fs::create_dir_all(left.join("queue")).unwrap();
    for name in ["lock", "secret", "id_ed25519", "status.json", "queue/1"] {
        std::fs::write(left.join(name), "").unwrap();
    }
    // A drain keeps the files of a mirror that its configuration lacks: another server's file may name that mirror.
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(left.join("secret").exists() && left.join("queue/1").exists());
    std::fs::write(left.join("removed"), "").unwrap();
    // While someone adds a mirror of that name, its files are not touched.
    let adding = std::fs::File::open(left.join("lock")).unwrap();
    adding.lock().unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(left.join("secret").exists());
    drop(adding);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let names: Vec<_> = std::fs::read_dir(&left).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
    assert!(source.join("mirror-push/remotes/m/lock").exists(), "the others are left alone");
}

#[test]
fn many_pushes_become_one_update() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let log = sandbox.path("updates");
    let hook = mirror.join("hooks/update");
    std::fs::write(&hook, format!("#!/bin/sh\necho $1 >> '{}'\n", log.display())).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let work = sandbox.work(&source);
    for _ in 0..20 {
        work.commit("more");
        work.push(&["main"]);
    }
    assert_eq!(sandbox.status(&source)["pending"], 20);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "refs/heads/main\n");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_push_whose_drain_finds_the_lock_taken_is_mirrored_by_the_other_drain() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    // A ref diverges and stays divergent. The first drain must look for new pushes all the same.
    let tree = sandbox.git_with_input(&mirror, &["mktree"], b"");
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", &tree]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/theirs", &theirs]);
    let (entered, blocker) = (sandbox.path("entered"), sandbox.path("blocker"));
    std::fs::write(&blocker, "").unwrap();
    let hook = mirror.join("hooks/pre-receive");
    let text = format!(
        "#!/bin/sh\ntouch '{}'\nwhile [ -e '{}' ]; do sleep 0.02; done\n",
        entered.display(),
        blocker.display()
    );
    std::fs::write(&hook, text).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:theirs"]);
    let mut first = sandbox.program(&source).arg("drain").stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the mirror's hook", || entered.exists());
    assert_eq!(sandbox.status(&source)["update_status"], "started");
    work.commit("two");
    work.push(&["main"]);
    let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
    assert_eq!(said.json(), serde_json::json!([]), "another drain is at work");
    std::fs::remove_file(&blocker).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(1));
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "the first drain looked again");
    assert_eq!(sandbox.oid(&mirror, "theirs"), theirs);
    assert!(source.join("mirror-push/remotes/m/lock").exists(), "the lock file is never unlinked");
}

#[test]
fn a_killed_drain_leaves_work_that_the_next_one_does() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let entered = sandbox.path("entered");
    let hook = mirror.join("hooks/pre-receive");
    std::fs::write(&hook, format!("#!/bin/sh\necho $$ > '{}'\nexec sleep 600\n", entered.display())).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    let mut drain = sandbox.program(&source).arg("drain").spawn().unwrap();
    wait_for("the mirror's hook", || entered.exists());
    drain.kill().unwrap();
    drain.wait().unwrap();
    let status = sandbox.status(&source);
    assert_eq!((&status["update_status"], &status["pending"]), (&"scheduled".into(), &1.into()));
    std::fs::remove_file(&hook).unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let pid = std::fs::read_to_string(&entered).unwrap().trim().parse().ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL);
}

#[test]
fn silent_mode_spools_and_sends_nothing() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["silent", "on"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert!(sandbox.refs(&mirror).is_empty());
    assert_eq!(sandbox.status(&source)["pending"], 1);
    sandbox.mirror_push_ok(&source, &["silent", "off"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

/// The pusher goes away, or someone kills the hooks, while the previous hook is at work.
#[test]
fn a_hook_that_is_killed_during_the_previous_hook_loses_no_push() {
    let scene = Scene::local(&[]).with(&["main"]);
    let (spool, previous) = (scene.source.join("mirror-push/spool"), scene.source.join("hooks/post-receive.previous"));
    let is_mirrored_by_a_drain = || {
        scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
        scene.is_mirrored()
    };
    script(&previous, "#!/bin/sh\ncat > /dev/null\nkill -9 $PPID\n");
    scene.push(&["main"]);
    assert_eq!(count(&spool.join("incoming")), 0);
    assert!(is_mirrored_by_a_drain());
    // If the record cannot be written, the repository is marked.
    std::fs::remove_dir(spool.join("tmp")).unwrap();
    std::fs::write(spool.join("tmp"), "").unwrap();
    scene.push(&["main"]);
    std::fs::remove_file(spool.join("tmp")).unwrap();
    assert!(is_mirrored_by_a_drain());
    // A drain in another container does not see the process that writes the record, so it may remove the record meanwhile.
    script(&previous, "#!/bin/sh\ncat > /dev/null\nrm mirror-push/spool/tmp/*\n");
    let work = scene.work();
    work.commit("two");
    let said = work.push(&["main"]);
    assert!(!said.err.contains("cannot record"), "{said:?}");
    assert_eq!(count(&spool.join("incoming")), 1);
    assert!(is_mirrored_by_a_drain());
}

#[test]
fn a_pipe_in_place_of_the_configuration_keeps_no_pusher_waiting() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    let config = source.join("mirror-push/config.toml");
    std::fs::remove_file(&config).unwrap();
    assert!(sandbox.command("mkfifo").arg(&config).status().unwrap().success());
    let work = sandbox.work(&source);
    let one = work.commit("one");
    let mut hook = sandbox.command("timeout");
    hook.arg("20").arg(source.join("hooks/post-receive")).current_dir(&source).env("GIT_DIR", ".");
    hook.env("RUNTIME_DIRECTORY", sandbox.path("none"));
    let line = format!("{} {one} refs/notes/x\n{0} {one} refs/heads/x\n", sandbox.digits('0'));
    assert_ne!(run_with_input(&mut hook, line.as_bytes()).status, 124, "it waited");
    assert_eq!(count(&source.join("mirror-push/spool/incoming")), 1);
}

/// git gives a hook without `#!` to the shell. If a previous hook cannot be started at all, the pusher reads why, and the push is recorded.
#[test]
fn a_previous_hook_without_an_interpreter_runs_too() {
    let scene = Scene::local(&[]);
    let previous = scene.source.join("hooks/post-receive.previous");
    script(&previous, "cat > seen\necho without an interpreter\n");
    let work = scene.sandbox.work(&scene.source);
    work.commit("one");
    let said = work.push(&["main"]);
    assert!(said.err.contains("remote: without an interpreter"), "{said:?}");
    assert!(std::fs::read_to_string(scene.source.join("seen")).unwrap().ends_with(" refs/heads/main\n"));
    script(&previous, "#!/nonexistent/interpreter\n");
    work.commit("two");
    let said = work.push(&["main"]);
    assert!(said.err.contains("post-receive.previous' cannot be started"), "{said:?}");
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source));
}
