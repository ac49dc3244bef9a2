//! When upstream is checked.

use super::Taking;
use crate::scene::sandbox::wait_for;

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
    assert_eq!(attempts(&s), before, "the back-off holds for what nobody asked for");
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
