//! What becomes of the refs of both sides.

use super::Pair;
use crate::scene::servers::Kind;

#[test]
fn what_either_side_adds_and_moves_forward_is_on_both() {
    for pair in [Pair::local(&[]), Pair::behind(Kind::Http, &[]), Pair::behind(Kind::Ssh, &[])] {
        let pair = pair.with(&["main", "main:old"]);
        assert_eq!(pair.synced(), [""; 0]);
        let (ours, theirs) = (pair.ours(), pair.theirs());
        theirs.commit("two");
        theirs.push(&["main", "main:their", "main:refs/tags/t"]);
        ours.push(&["main:our", "main:refs/tags/o"]);
        let said = pair.synced();
        let expected = [
            "refs/heads/main fast_forwarded here",
            "refs/heads/our created there",
            "refs/heads/their created here",
            "refs/tags/o created there",
            "refs/tags/t created here",
        ];
        assert_eq!(said, expected);
        assert!(pair.is_equal());
        // A merged branch that is deleted on either side is deleted on the other side.
        ours.push(&[":our"]);
        theirs.push(&[":their"]);
        assert_eq!(pair.synced(), ["refs/heads/our deleted there", "refs/heads/their deleted here"]);
        assert!(pair.is_equal() && pair.synced().is_empty());
    }
}

#[test]
fn a_rewrite_goes_to_the_side_that_did_not_move_and_the_value_replaced_here_is_kept() {
    let pair = Pair::local(&[]).with(&["main", "main:x", "main:y"]);
    let old = pair.here("x");
    let (ours, theirs) = (pair.ours(), pair.theirs());
    ours.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "ours"]);
    ours.push(&["+main:x"]);
    theirs.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "theirs"]);
    theirs.push(&["+main:y"]);
    assert_eq!(pair.synced(), ["refs/heads/x forced there", "refs/heads/y forced here"]);
    assert!(pair.is_equal());
    assert_eq!(pair.below("refs/rewritten"), [format!("refs/rewritten/m/{}/heads/y {old}", &old[..12])]);
}

#[test]
fn what_one_side_deleted_and_the_other_changed_is_made_again() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:x", "main:y"]);
    let (ours, theirs) = (pair.ours(), pair.theirs());
    ours.commit("ours");
    ours.push(&["main:x", ":y"]);
    theirs.commit("theirs");
    theirs.push(&[":x", "main:y"]);
    assert_eq!(pair.synced(), ["refs/heads/x restored there", "refs/heads/y restored here"]);
    assert!(pair.is_equal());
}

#[test]
fn a_conflict_stays_on_both_sides_until_somebody_merges() {
    for merges_here in [true, false] {
        let pair = Pair::behind(Kind::Http, &[]).with(&["main", "main:other"]);
        let base = pair.here("main");
        let (ours, theirs) = (pair.ours(), pair.theirs());
        ours.commit("ours");
        ours.push(&["main", "main:other"]);
        theirs.commit("theirs");
        theirs.push(&["main"]);
        let (left, right) = (pair.here("main"), pair.there("main"));
        let said = pair.sync();
        assert_eq!(said.status, 1, "{said:?}");
        assert_eq!((pair.here("main"), pair.there("main")), (left.clone(), right.clone()));
        assert_eq!(pair.there("other"), left, "other refs go on");
        let status = pair.status();
        let conflict = &status["refs"][0];
        assert_eq!(status["update_status"], "failed", "{status}");
        let expected = [("outcome", "conflict"), ("local", &left), ("remote", &right), ("base", &base)];
        assert!(expected.iter().all(|(key, value)| conflict[*key] == **value), "{conflict}");
        let place = conflict["kept_as"].as_str().unwrap().to_owned();
        assert!(place.starts_with("refs/conflicts/m/") && place.ends_with("/heads/main"), "{place}");
        assert_eq!(pair.below("refs/conflicts"), [format!("{place} {right}")]);
        let shown = pair.sandbox.mirror_push_ok(&pair.here, &["conflicts"]).out;
        assert!([&left, &right, &base, &place].iter().all(|text| shown.contains(&***text)), "{shown}");
        // A second look changes nothing.
        assert_eq!(pair.synced(), ["refs/heads/main conflict here"]);
        assert_eq!(pair.below("refs/conflicts"), [format!("{place} {right}")]);
        let merger = if merges_here { &ours } else { &theirs };
        let (from, what) = if merges_here { ("origin", &*place) } else { (pair.here.to_str().unwrap(), "main") };
        merger.git(&["fetch", "-q", from, what]);
        merger.git(&["merge", "-q", "-m", "both", "FETCH_HEAD"]);
        merger.push(&["main"]);
        pair.sync_ok();
        assert_eq!(pair.below("refs/conflicts"), [""; 0]);
        assert_eq!(pair.status()["update_status"], "finished");
    }
}

#[test]
fn a_person_resolves_a_conflict_and_the_other_value_is_kept() {
    for (side, policy) in [("--ours", None), ("--theirs", None), ("", Some("ours")), ("", Some("theirs"))] {
        let options: Vec<String> = policy.map(|policy| format!("conflicts={policy}")).into_iter().collect();
        let pair = Pair::local(&options.iter().map(String::as_str).collect::<Vec<_>>()).with(&["main"]);
        let (ours, theirs) = (pair.ours(), pair.theirs());
        ours.commit("ours");
        ours.push(&["main"]);
        theirs.commit("theirs");
        theirs.push(&["main"]);
        let (left, mut right) = (pair.here("main"), pair.there("main"));
        if policy.is_none() {
            assert_eq!(pair.sync().status, 1);
            // `resolve` refuses if the mirror's value is not the one that the person saw.
            theirs.commit("more");
            theirs.push(&["main"]);
            let said = pair.sandbox.mirror_push(&pair.here, &["resolve", "m", "main", side]);
            assert!(said.status == 128 && said.err.contains("has moved since"), "{said:?}");
            assert_eq!(pair.here("main"), left);
            right = pair.there("main");
            pair.sandbox.mirror_push_ok(&pair.here, &["resolve", "m", "main", side]);
        } else {
            pair.sync_ok();
        }
        let is_ours = side == "--ours" || policy == Some("ours");
        let (winner, loser) = if is_ours { (&left, &right) } else { (&right, &left) };
        assert!(pair.is_equal() && pair.here("main") == *winner, "{side} {policy:?}");
        let kept = format!("refs/rewritten/m/{}/heads/main {loser}", &loser[..12]);
        assert_eq!(pair.below("refs/rewritten"), [kept], "{side} {policy:?}");
        assert_eq!(pair.below("refs/conflicts"), [""; 0]);
    }
}

/// At the first contact nothing is deleted and nothing is forced: the result is the union.
#[test]
fn the_first_contact_makes_the_union() {
    let pair = Pair::local(&[]);
    let theirs = pair.theirs();
    theirs.commit("one");
    theirs.push(&["main", "main:theirs", "main:refs/tags/t"]);
    pair.sandbox.git(&pair.here, &["fetch", "-q", &pair.there.display().to_string(), "main:main"]);
    let ours = pair.ours();
    ours.commit("two");
    ours.push(&["main", "main:ours"]);
    pair.sync_ok();
    assert_eq!(pair.here("theirs"), pair.there("theirs"));
    assert!(!pair.there("ours").is_empty() && pair.below("refs/rewritten").is_empty());
    // Unrelated histories stay apart until a person confirms.
    let pair = Pair::local(&[]);
    let (ours, theirs) = (pair.ours(), pair.theirs());
    ours.commit("ours");
    ours.push(&["main", "main:a"]);
    theirs.commit("theirs");
    theirs.push(&["main", "main:b"]);
    let said = pair.sync();
    assert!(said.status == 1 && said.out.contains("no commit in common"), "{said:?}");
    assert!(pair.here("b").is_empty() && pair.there("a").is_empty());
    pair.sandbox.mirror_push(&pair.here, &["sync", "--adopt"]);
    assert!(!pair.here("b").is_empty() && !pair.there("a").is_empty());
    assert_eq!(pair.status()["refs"][0]["outcome"], "conflict");
}

#[test]
fn doctor_reports_what_hinders_a_two_way_mirror() {
    let pair = Pair::behind(Kind::Http, &[]).with(&["main"]);
    let findings = || {
        let said = pair.sandbox.mirror_push(&pair.here, &["doctor", "--json"]).json();
        let all = said.as_array().unwrap().clone();
        let names = all.iter().map(|one| one["check"].as_str().unwrap().to_owned());
        let wanted = ["default-branch", "force-push", "protection"];
        names.filter(|name| wanted.contains(&&**name)).collect::<Vec<_>>()
    };
    assert_eq!(findings(), ["force-push"]);
    pair.sandbox.git(&pair.here, &["config", "receive.denyNonFastForwards", "true"]);
    pair.sandbox.git(&pair.there, &["symbolic-ref", "HEAD", "refs/heads/other"]);
    assert_eq!(findings(), ["default-branch"]);
    pair.sandbox.git(&pair.there, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    crate::scene::sandbox::script(&pair.there.join("hooks/update"), "#!/bin/sh\necho protected >&2; exit 1\n");
    let ours = pair.ours();
    ours.commit("two");
    ours.push(&["main"]);
    assert_eq!(pair.sync().status, 1);
    assert_eq!(findings(), ["protection"]);
    // `receive.hideRefs` of our own namespaces on the mirror is no finding.
    let there = pair.there.display().to_string();
    let local = pair.sandbox.source_named("local.git", &there, &["--direction", "both"]);
    for hidden in ["refs/rewritten", "refs/conflicts"] {
        pair.sandbox.git(&pair.there, &["config", "--add", "receive.hideRefs", hidden]);
    }
    let said = pair.sandbox.mirror_push(&local, &["doctor"]);
    assert!(!said.out.contains("hideRefs"), "{said:?}");
}

/// A value that this repository had earlier comes back through another mirror, while our ref moves
/// on.
#[test]
fn a_late_value_is_replaced_and_kept() {
    for is_known in [true, false] {
        let pair = Pair::local(&[]).with(&["main"]);
        let ours = pair.ours();
        ours.commit("two");
        ours.push(&["main:x"]);
        pair.sync();
        let old = pair.here("x");
        ours.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
        ours.push(&["+main:x"]);
        pair.sync();
        let past = pair.here.join("mirror-push/past");
        let noted = std::fs::read_to_string(&past).unwrap();
        assert!(noted.contains(&old) && noted.lines().count() == 1, "{noted}");
        if is_known {
            // The file is bounded, and a line that was cut short harms no other.
            let line = noted.replace(&old, &pair.sandbox.digits('1'));
            std::fs::write(&past, format!("{}{}{}", line.repeat(20_000), &line[..20], &format!("\n{noted}"))).unwrap();
        } else {
            let old = noted.replace("\"at\":\"20", "\"at\":\"19");
            std::fs::write(&past, old).unwrap();
        }
        pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/x", &old]);
        ours.commit("more");
        ours.push(&["main:x"]);
        let said = pair.synced();
        let kept = format!("refs/rewritten/m/{}/heads/x {old}", &old[..12]);
        match is_known {
            true => {
                assert!(said[0] == "refs/heads/x forced there" && pair.below("refs/rewritten") == [kept], "{said:?}");
            }
            false => assert_eq!(said[0], "refs/heads/x conflict here", "it is too old"),
        }
        ours.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "again"]);
        ours.push(&["+main:y", "+main:main"]);
        ours.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "and again"]);
        ours.push(&["+main:y"]);
        pair.sync();
        let lines = std::fs::read_to_string(&past).unwrap().lines().count();
        assert!(lines > 1 && lines <= 10_000, "{lines}");
    }
}

/// The text separates what is taken from what is sent. The log does not list a conflict as
/// replaced.
#[test]
fn the_text_names_the_side() {
    let pair = Pair::local(&[]).with(&["main", "main:x"]);
    let (ours, theirs) = (pair.ours(), pair.theirs());
    ours.push(&["main:our"]);
    theirs.push(&["main:their"]);
    let url = pair.there.display();
    let said = pair.sandbox.mirror_push_ok(&pair.here, &["sync"]).out;
    let expected = format!("From {url} (m)\n * [new branch]      their\nTo {url} (m)\n * [new branch]      our\n");
    assert_eq!(said, expected);
    ours.commit("ours");
    ours.push(&["main:x"]);
    theirs.commit("theirs");
    theirs.push(&["main:x"]);
    pair.sync();
    let log = pair.sandbox.mirror_push_ok(&pair.here, &["log", "--json"]).out;
    assert!(!log.contains("replaced"), "{log}");
    let said = pair.sandbox.mirror_push(&pair.here, &["resolve", "m", "our", "--ours"]);
    assert!(said.status == 129 && said.err.contains("is not in conflict"), "{said:?}");
}
