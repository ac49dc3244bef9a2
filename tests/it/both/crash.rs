//! A run of a two-way mirror is killed, or gets an error, at one in three of the system calls that
//! `scene::injected` lists. The next run must complete the work.

use super::Pair;
use crate::scene::injected::{Fault, Threads, at_every_point, is_reached, under};
use crate::scene::sandbox::run_with_input;

fn copy(pair: &Pair, from: &str, to: &str) {
    let _ = std::fs::remove_dir_all(pair.sandbox.path(to));
    assert!(pair.sandbox.command("cp").args(["-a", "--", from, to]).status().unwrap().success());
}

#[test]
fn a_run_that_is_killed_or_has_no_space_at_any_step() {
    let names = ["main", "main:ours", "main:x", "main:y", "main:both", "main:d", "main:e"];
    let pair = Pair::local(&["prune=deleted"]).with(&names);
    let old = pair.here("y");
    let (ours, theirs) = (pair.ours(), pair.theirs());
    ours.commit("ours");
    ours.push(&["main:ours", "main:both", ":d"]);
    theirs.commit("theirs");
    theirs.push(&["main", "main:both", ":e"]);
    ours.git(&["checkout", "-q", "--orphan", "rewritten"]);
    ours.commit("x");
    ours.push(&["+HEAD:x"]);
    theirs.git(&["checkout", "-q", "--orphan", "rewritten"]);
    theirs.commit("y");
    theirs.push(&["+HEAD:y"]);
    let (left, right) = (pair.here("both"), pair.there("both"));
    let expected = [pair.there("main"), pair.here("ours"), pair.here("x"), pair.there("y")];
    let sides = [("source.git", "source.saved"), ("there.git", "there.saved")];
    sides.iter().for_each(|(from, to)| copy(&pair, from, to));
    at_every_point(|point| {
        let fault = if point.n() / 3 % 2 == 0 { Fault::Kill } else { Fault::Error("ENOSPC") };
        sides.iter().for_each(|(to, from)| copy(&pair, from, to));
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        let mut command = under(&pair.sandbox, Some((fault, point)), Threads::All, program);
        run_with_input(command.arg("--git-dir").arg(&pair.here).arg("sync"), b"");
        let is_reached = is_reached(&pair.sandbox);
        let said = pair.sync();
        let now = ["main", "ours", "x", "y"].map(|name| (pair.here(name), pair.there(name)));
        assert_eq!(now, expected.each_ref().map(|value| (value.clone(), value.clone())), "{point:?}: {said:?}");
        assert_eq!((pair.here("both"), pair.there("both")), (left.clone(), right.clone()), "{point:?}: {said:?}");
        let gone = ["d", "e"].map(|name| (pair.here(name), pair.there(name)));
        assert_eq!(gone, [0; 2].map(|_| (String::new(), String::new())), "{point:?}: {said:?}");
        let conflicts = pair.below("refs/conflicts");
        assert!(conflicts.len() == 1 && conflicts[0].ends_with(&right), "{point:?}: {conflicts:?}");
        assert!(pair.below("refs/rewritten").iter().any(|line| line.ends_with(&old)), "{point:?}: {said:?}");
        assert_eq!(pair.synced(), ["refs/heads/both conflict here"], "{point:?}");
        assert!(!pair.here.join("mirror-push/remotes/m/incoming").exists(), "{point:?}");
        is_reached
    });
}
