//! When upstream is checked.

use super::Taking;
use crate::scene::sandbox::{Sandbox, run_with_input, wait_at_lock, wait_for};

/// How many attempts the history has.
fn attempts(s: &Taking) -> usize {
    s.sandbox.mirror_push_ok(&s.here, &["log", "--json"]).json().as_array().unwrap().len()
}

#[test]
fn a_check_that_is_not_due_is_not_made() {
    let s = Taking::local(&["interval=1h"]).with(&["main"]);
    s.work().commit("two");
    s.work().push(&["main"]);
    s.sandbox.mirror_push_ok(&s.here, &["pull", "--due"]);
    assert!(!s.is_taken());
    s.sandbox.mirror_push_ok(&s.here, &["drain"]);
    assert!(!s.is_taken(), "a drain serves spooled pushes only");
    s.pull_ok();
    assert!(s.is_taken());
    let status = s.status();
    let next: jiff::Timestamp = status["next_attempt_at"].as_str().unwrap().parse().unwrap();
    let left = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((2800..=4400).contains(&left), "{status}");
    s.sandbox.mirror_push_ok(&s.here, &["set", "m", "interval=1s"]);
    s.pull_ok();
    s.work().commit("three");
    s.work().push(&["main"]);
    wait_for("the end of the interval", || {
        s.sandbox.mirror_push_ok(&s.here, &["pull", "--due"]);
        s.is_taken()
    });
}

#[test]
fn an_addition_makes_the_first_pull_due() {
    let s = Taking::local(&[]);
    s.work().commit("one");
    s.work().push(&["main"]);
    s.sandbox.mirror_push_ok(&s.here, &["drain"]);
    assert!(s.is_taken());
}

#[test]
fn silent_mode_stops_pulls() {
    let s = Taking::local(&[]).with(&["main"]);
    s.sandbox.mirror_push_ok(&s.here, &["silent", "on"]);
    s.work().commit("two");
    s.work().push(&["main"]);
    s.pull_ok();
    assert!(!s.is_taken());
    // A push here does not wait for a mirror that only takes.
    let ours = s.sandbox.work(&s.here);
    ours.commit("ours");
    ours.push(&["HEAD:refs/heads/ours"]);
    assert_eq!(s.status()["pending"], 0, "{}", s.status());
    ours.push(&[":refs/heads/ours"]);
    s.sandbox.mirror_push_ok(&s.here, &["silent", "off"]);
    s.pull_ok();
    assert!(s.is_taken());
}

#[test]
fn an_upstream_that_is_gone_is_tried_again_and_found() {
    let s = Taking::local(&[]).with(&["main"]);
    let aside = s.sandbox.path("aside.git");
    std::fs::rename(&s.up, &aside).unwrap();
    let said = s.pull();
    assert!(said.status == 1 && said.out.contains("not found"), "{said:?}");
    let before = attempts(&s);
    s.sandbox.mirror_push(&s.here, &["pull", "--due"]);
    assert_eq!(attempts(&s), before, "`pull --due` respects the back-off");
    std::fs::rename(&aside, &s.up).unwrap();
    s.pull_ok();
    assert_eq!(s.status()["update_status"], "finished");
}

#[test]
fn a_change_of_the_address_is_a_first_contact() {
    let s = Taking::local(&[]).with(&["main", "main:x"]);
    let other = s.sandbox.bare("other.git");
    let work = s.sandbox.work(&other);
    work.commit("unrelated");
    work.push(&["main"]);
    s.sandbox.mirror_push_ok(&s.here, &["set", "m", "--url", &other.display().to_string()]);
    let said = s.pull();
    assert!(said.status == 1 && said.out.contains("no commit in common"), "{said:?}");
    assert!(!s.here("x").is_empty());
}

#[test]
fn two_pulls_at_once_do_the_work_once() {
    let s = Taking::local(&[]);
    let work = s.work();
    for number in 0..20 {
        work.commit(&format!("{number}"));
        work.git(&["branch", &format!("b{number}")]);
    }
    work.push(&["--all"]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| s.pull_ok());
        }
    });
    wait_for("the end", || s.is_taken());
    assert_eq!(s.status()["update_status"], "finished");
    assert_eq!(s.leftovers(), Vec::<String>::new());
}

/// A pull asks upstream before it takes the lock. While it waits for the lock, another run and an edit of the configuration come before it.
#[test]
fn what_was_heard_before_the_lock_counts_only_if_nothing_changed_meanwhile() {
    let s = Taking::local(&[]).with(&["main"]);
    let remote = s.here.join("mirror-push/remotes/m");
    let meanwhile = |act: &dyn Fn()| {
        let lock = std::fs::File::open(remote.join("lock")).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let mut pull = s.sandbox.program(&s.here).args(["pull", "-q"]).spawn().unwrap();
        wait_at_lock(&pull);
        act();
        drop(lock);
        assert!(pull.wait().unwrap().success());
    };
    let work = s.work();
    work.commit("two");
    work.push(&["main"]);
    meanwhile(&|| {
        work.commit("three");
        work.push(&["main"]);
        // As another run would leave it.
        let text = std::fs::read_to_string(remote.join("status.json")).unwrap();
        let mut status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["generation"] = (status["generation"].as_u64().unwrap() + 1).into();
        std::fs::write(remote.join("status.json"), status.to_string()).unwrap();
    });
    assert!(s.is_taken(), "after another run, the pull asks upstream again");
    // An answer for a smaller selection of refs must not look like a deletion of the other refs.
    s.sandbox.mirror_push_ok(&s.here, &["set", "m", "prune=deleted"]);
    work.push(&["main:dev"]);
    s.pull_ok();
    let path = s.here.join("mirror-push/config.toml");
    let all = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{all}mirror_branch_regex = \"main\"\n")).unwrap();
    s.pull_ok();
    work.commit("four");
    work.push(&["main"]);
    meanwhile(&|| std::fs::write(&path, &all).unwrap());
    assert_eq!(s.here("main"), s.sandbox.oid(&s.up, "main"));
    assert_eq!(s.here("dev"), s.sandbox.oid(&s.up, "dev"), "upstream still has it");
}

/// A changed setting counts with the next check, although both sides are as they were.
#[test]
fn a_setting_that_was_edited_in_the_file_counts_at_the_next_check() {
    let s = Taking::local(&[]).with(&["main", "main:dev"]);
    let path = s.here.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}follow_head = false\n")).unwrap();
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/dev"]);
    let head = || {
        s.pull_ok();
        s.sandbox.git(&s.here, &["symbolic-ref", "HEAD"]).trim().to_owned()
    };
    assert_eq!((head(), head()), ("refs/heads/main".into(), "refs/heads/main".into()));
    std::fs::write(&path, text).unwrap();
    assert_eq!(head(), "refs/heads/dev");
}

/// A drain of many repositories looks at the files of each, and opens only those with something to do.
#[test]
fn an_idle_repository_of_a_template_is_not_opened() {
    let sandbox = Sandbox::new();
    let (up, here) = (sandbox.upstream(), sandbox.bare("srv/here.git"));
    let (root, server) = (sandbox.path("srv"), sandbox.path("server.toml"));
    let template = format!("[remotes.m]\nurl = \"{}\"\ndirection = \"pull\"\n", up.display());
    std::fs::write(&server, format!("[[repositories]]\nroot = \"{}\"\n{template}", root.display())).unwrap();
    let run = |arguments: &[&str]| {
        let mut strace = sandbox.command("strace");
        strace.args(["-f", "-qq", "-e", "trace=openat", "-o"]).arg(sandbox.path("strace"));
        strace.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("--config").arg(&server).args(arguments);
        assert_eq!(run_with_input(&mut strace, b"").status, 0, "{arguments:?}");
        std::fs::read_to_string(sandbox.path("strace")).unwrap().contains("here.git/objects")
    };
    assert!(run(&["pull", "--all"]));
    assert_eq!(sandbox.refs(&here), sandbox.refs(&up));
    assert!(!run(&["drain", "--all"]));
    std::fs::remove_file(here.join("mirror-push/remotes/m/status.json")).unwrap();
    assert!(run(&["drain", "--all"]));
}
