//! The rules as tables. L is ours, R the mirror's, M what this repository is known to have had.

use super::*;
use crate::refs::{Ancestry, Local};

mod limits;
mod selection;

pub(super) fn oid(digit: u8) -> Oid {
    Oid::from_hex(&[b'0' + digit; 40]).expect("forty digits")
}

pub(super) fn name(text: &str) -> RefName {
    RefName::new(text.as_bytes()).expect("well-formed")
}

pub(super) fn rules(divergent: Divergent, prune: Prune) -> Rules {
    Rules {
        branches: Branches::All,
        tags: Tags::All,
        namespaces: vec![],
        excluded: vec![],
        divergent,
        conflicts: None,
        prune,
        max_deletes: MaxDeletes::Default,
        is_atomic: false,
    }
}

fn facts(refname: &str) -> RefFacts {
    RefFacts {
        name: name(refname),
        local: Local::At(oid(1)),
        remote: Some(oid(2)),
        ancestry: Ancestry::Diverged,
        is_remote_known: false,
        kind: Kind::Plain,
        deleted: Deleted::default(),
        is_remote_here: true,
        is_flapping: false,
        decided: None,
        is_refused: false,
    }
}

fn observed(refs: Vec<RefFacts>) -> Observed {
    let mirror = Mirror {
        selected: refs.len(),
        can_delete: true,
        can_report: true,
        can_push_atomically: true,
        ..Mirror::default()
    };
    let source = Source { default_branch: Some(name("refs/heads/main")), is_empty: false, incomplete: None };
    Observed { refs, source, mirror, ..Observed::default() }
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::UpToDate => "up to date",
        Action::Create => "create",
        Action::Restore => "restore",
        Action::FastForward => "fast-forward",
        Action::Force => "forced update",
        Action::Delete => "delete",
        Action::Divergent(_) => "divergent",
        Action::Kept(_) => "kept",
        Action::Flapping(_) => "flapping",
        Action::Reject(_) => "reject",
        Action::Defer(_) => "defer",
        Action::Refused => "refused",
        Action::Conflict(_) => unreachable!("only of two-way mirrors"),
    }
}

fn decided(rules: &Rules, observed: &Observed) -> Vec<&'static str> {
    plan(rules, observed).decisions.iter().map(|decision| word(&decision.action)).collect()
}

#[test]
fn what_was_never_ours_is_kept_before_it_is_replaced() {
    let foreign = facts("refs/heads/x");
    let known = RefFacts { is_remote_known: true, ..foreign.clone() };
    let behind = RefFacts { ancestry: Ancestry::Behind, ..foreign.clone() };
    let absent = RefFacts { remote: None, ..foreign.clone() };
    let gone = RefFacts { local: Local::Absent, ..foreign.clone() };
    let gone_known = RefFacts { is_remote_known: true, ..gone.clone() };
    let merged = Deleted { is_known: true, is_remote_merged: true, is_value_merged: true };
    let gone_merged = RefFacts { deleted: merged, ..gone.clone() };
    let refused = RefFacts { is_refused: true, ..foreign.clone() };
    let cases = [foreign, known, behind, absent, gone, gone_known, gone_merged, refused];
    let rules = rules(Divergent::Overwrite, Prune::Mirror);
    let keeps = cases.map(|facts| plan(&rules, &observed(vec![facts])).decisions[0].keeps);
    assert_eq!(keeps, [true, false, false, false, true, false, false, false]);
}

#[test]
fn the_table_of_updates() {
    let r_is_l = RefFacts { remote: Some(oid(1)), ancestry: Ancestry::Equal, ..facts("refs/heads/x") };
    let r_absent = RefFacts { remote: None, ..facts("refs/heads/x") };
    let r_ancestor = RefFacts { ancestry: Ancestry::Behind, ..facts("refs/heads/x") };
    let r_ancestor_in_m = RefFacts { is_remote_known: true, ..r_ancestor.clone() };
    let r_in_m = RefFacts { is_remote_known: true, ..facts("refs/heads/x") };
    let r_in_m_gone = RefFacts { ancestry: Ancestry::Unknown, ..r_in_m.clone() };
    let r_other = facts("refs/heads/x");
    let r_unknown = RefFacts { ancestry: Ancestry::Unknown, ..facts("refs/heads/x") };
    let broken = RefFacts { local: Local::Unreadable, ..facts("refs/heads/x") };
    #[rustfmt::skip]
    let table = [
        // situation          "overwrite"      "keep"           "fail"
        (&r_is_l,           ["up to date",    "up to date",    "up to date"]),
        (&r_absent,         ["create",        "create",        "create"]),
        (&r_ancestor,       ["fast-forward",  "fast-forward",  "fast-forward"]),
        (&r_ancestor_in_m,  ["fast-forward",  "fast-forward",  "fast-forward"]),
        (&r_in_m,           ["forced update", "forced update", "forced update"]),
        (&r_in_m_gone,      ["forced update", "forced update", "forced update"]),
        (&r_other,          ["forced update", "divergent",     "divergent"]),
        (&r_unknown,        ["forced update", "divergent",     "divergent"]),
        (&broken,           ["reject",        "reject",        "reject"]),
    ];
    for (situation, row) in table {
        for (divergent, expected) in [Divergent::Overwrite, Divergent::Keep, Divergent::Fail].into_iter().zip(row) {
            for refname in ["refs/heads/x", "refs/tags/x"] {
                let situation = RefFacts { name: name(refname), ..situation.clone() };
                let rules = rules(divergent, Prune::Merged);
                assert_eq!(
                    decided(&rules, &observed(vec![situation.clone()])),
                    [expected],
                    "{divergent:?} {situation:?}"
                );
            }
        }
    }
}

#[test]
fn the_table_of_deletions() {
    let gone = |is_known, is_remote_merged, is_value_merged, is_remote_known| RefFacts {
        local: Local::Absent,
        is_remote_known,
        deleted: Deleted { is_known, is_remote_merged, is_value_merged },
        ..facts("refs/heads/x")
    };
    #[rustfmt::skip]
    let table = [
        // known here, R merged, V merged, R in M     "merged"  "deleted" "mirror"  "never"
        (gone(true, true, true, true),              ["delete", "delete", "delete", "kept"]),
        (gone(true, true, true, false),             ["delete", "kept",   "delete", "kept"]),
        (gone(true, true, false, true),             ["kept",   "delete", "delete", "kept"]),
        (gone(true, false, true, true),             ["kept",   "delete", "delete", "kept"]),
        (gone(true, false, false, false),           ["kept",   "kept",   "delete", "kept"]),
        (gone(false, true, true, true),             ["kept",   "kept",   "delete", "kept"]),
        (gone(false, true, true, false),            ["kept",   "kept",   "delete", "kept"]),
    ];
    for (situation, row) in table {
        for (prune, expected) in [Prune::Merged, Prune::Deleted, Prune::Mirror, Prune::Never].into_iter().zip(row) {
            let seen = observed(vec![situation.clone()]);
            assert_eq!(decided(&rules(Divergent::Overwrite, prune), &seen), [expected], "{prune:?} {situation:?}");
            for divergent in [Divergent::Keep, Divergent::Fail] {
                let expected = if situation.is_remote_known { expected } else { "kept" };
                assert_eq!(
                    decided(&rules(divergent, prune), &seen),
                    [expected],
                    "{divergent:?} {prune:?} {situation:?}"
                );
            }
        }
    }
}

fn deletable(refname: &str) -> RefFacts {
    RefFacts {
        local: Local::Absent,
        is_remote_known: true,
        deleted: Deleted { is_known: true, is_remote_merged: true, is_value_merged: true },
        ..facts(refname)
    }
}

#[test]
fn nothing_is_deleted_in_doubt() {
    let mirror = rules(Divergent::Overwrite, Prune::Mirror);
    let sure = observed(vec![deletable("refs/heads/x")]);
    assert_eq!(decided(&mirror, &sure), ["delete"]);

    let mut incomplete = sure.clone();
    incomplete.source.incomplete = Some("a ref is broken".into());
    let mut empty = sure.clone();
    empty.source.is_empty = true;
    let mut head = sure.clone();
    head.mirror.head = Some(name("refs/heads/x"));
    for doubt in [incomplete, empty, head] {
        assert_eq!(decided(&mirror, &doubt), ["kept"]);
    }
    let mut unable = sure;
    unable.mirror.can_delete = false;
    assert_eq!(decided(&mirror, &unable), ["reject"]);
}

#[test]
fn a_mass_deletion_must_be_allowed() {
    let many = |count: usize| (0..count).map(|n| deletable(&format!("refs/heads/b{n}"))).collect::<Vec<_>>();
    let deletes = |guard, count, selected| {
        let mut seen = observed(many(count));
        seen.mirror.selected = selected;
        let rules = Rules { max_deletes: guard, ..rules(Divergent::Overwrite, Prune::Mirror) };
        plan(&rules, &seen).order.len()
    };
    assert_eq!(deletes(MaxDeletes::Default, 50, 50), 50, "up to 50 always");
    assert_eq!(deletes(MaxDeletes::Default, 51, 60), 0, "more than 50 and more than half");
    assert_eq!(deletes(MaxDeletes::Default, 60, 120), 60, "half of a large mirror");
    assert_eq!(deletes(MaxDeletes::Limit(3), 4, 100), 0);
    assert_eq!(deletes(MaxDeletes::Limit(3), 3, 100), 3);
    assert_eq!(deletes(MaxDeletes::Unlimited, 400, 400), 400);
}

#[test]
fn fail_pushes_nothing_at_all() {
    let create = RefFacts { remote: None, ..facts("refs/heads/new") };
    let seen = observed(vec![create, facts("refs/heads/x"), deletable("refs/heads/old")]);
    let failed = plan(&rules(Divergent::Fail, Prune::Deleted), &seen);
    assert!(failed.order.is_empty());
    let words: Vec<_> = failed.decisions.iter().map(|decision| word(&decision.action)).collect();
    assert_eq!(words, ["reject", "divergent", "reject"]);
    assert_eq!(plan(&rules(Divergent::Keep, Prune::Deleted), &seen).order.len(), 2);
}

#[test]
fn symbolic_refs_are_skipped() {
    let ours = RefFacts { local: Local::Symbolic, ..facts("refs/heads/alias") };
    let theirs = RefFacts { kind: Kind::Symbolic, ..facts("refs/heads/alias") };
    let theirs_alone = RefFacts { kind: Kind::Symbolic, ..deletable("refs/heads/alias") };
    for symbolic in [ours, theirs, theirs_alone] {
        assert!(plan(&rules(Divergent::Overwrite, Prune::Mirror), &observed(vec![symbolic])).decisions.is_empty());
    }
    let perhaps = RefFacts { kind: Kind::MaybeSymbolic, ..deletable("refs/heads/alias") };
    assert_eq!(decided(&rules(Divergent::Overwrite, Prune::Mirror), &observed(vec![perhaps])), ["kept"]);
}

#[test]
fn commands_go_in_an_order_that_works() {
    let create = |refname| RefFacts { remote: None, ..facts(refname) };
    let seen = observed(vec![
        deletable("refs/heads/late"),
        create("refs/heads/a"),
        deletable("refs/heads/a/b"),
        create("refs/heads/main"),
        create("refs/heads/c/d"),
        deletable("refs/heads/c"),
    ]);
    let sent = |plan: &Plan| plan.next_push().iter().map(|d| d.name.short()).collect::<Vec<_>>();
    let busy = plan(&rules(Divergent::Overwrite, Prune::Deleted), &seen);
    assert_eq!(sent(&busy), ["a/b", "c", "a", "main", "c/d", "late"]);

    let mut first = observed(vec![create("refs/heads/a"), create("refs/heads/main"), create("refs/tags/v1")]);
    first.mirror.is_empty = true;
    let first = plan(&rules(Divergent::Overwrite, Prune::Deleted), &first);
    assert_eq!(sent(&first), ["main"], "the default branch of an empty mirror goes alone");
    assert_eq!(first.order.len(), 3);
}

#[test]
fn the_table_of_first_contact() {
    let unconfirmed = |refs: Vec<RefFacts>, is_stranger| {
        let mut seen = observed(refs);
        seen.first_contact = FirstContact::Unconfirmed;
        seen.mirror.is_stranger = is_stranger;
        seen
    };
    let new = RefFacts { remote: None, ..facts("refs/heads/a-new") };
    let here = facts("refs/heads/here");
    let ours = RefFacts { ancestry: Ancestry::Behind, ..facts("refs/heads/ours") };
    let unknown = RefFacts { is_remote_here: false, ancestry: Ancestry::Unknown, ..facts("refs/heads/unknown") };
    let only_there = RefFacts { local: Local::Absent, ..unknown.clone() };
    #[rustfmt::skip]
    let table = [
        // refs, is stranger     "overwrite"                        "keep"
        (vec![&new, &here],    false, ["create forced-update",         "create divergent"]),
        (vec![&new, &ours],    false, ["create fast-forward",          "create fast-forward"]),
        (vec![&new, &unknown], false, ["reject divergent",             "create divergent"]),
        (vec![&new, &only_there], false, ["create kept",               "create kept"]),
        (vec![&new, &only_there], true,  ["reject divergent",          "reject divergent"]),
        (vec![&new, &unknown], true,  ["reject divergent",             "reject divergent"]),
        (vec![&new],           true,  ["reject",                       "reject"]),
    ];
    for (refs, is_stranger, row) in table {
        for (divergent, expected) in [Divergent::Overwrite, Divergent::Keep].into_iter().zip(row) {
            let mut seen = unconfirmed(refs.iter().copied().cloned().collect(), is_stranger);
            let rules = rules(divergent, Prune::Merged);
            let words = |seen: &Observed| decided(&rules, seen).join(" ").replace("forced update", "forced-update");
            assert_eq!(words(&seen), expected, "{divergent:?} {seen:?}");
            let is_stopped = expected.contains("reject");
            assert_eq!(plan(&rules, &seen).stop.is_some(), is_stopped);
            assert_eq!(plan(&rules, &seen).order.is_empty(), is_stopped || expected.starts_with("kept"));
            seen.first_contact = FirstContact::Over;
            assert!(plan(&rules, &seen).stop.is_none() && !words(&seen).contains("reject"));
        }
    }
    let mirror = rules(Divergent::Overwrite, Prune::Mirror);
    let seen = unconfirmed(vec![new, only_there], false);
    assert_eq!(
        decided(&mirror, &seen),
        ["reject", "divergent"],
        "a deletion of a value that is not here needs confirmation too"
    );
}

#[test]
fn what_the_mirror_refused_is_not_sent_again() {
    let mirror = rules(Divergent::Overwrite, Prune::Mirror);
    let refused = |facts: RefFacts| RefFacts { is_refused: true, ..facts };
    let create = RefFacts { remote: None, ..facts("refs/heads/a") };
    let gone = RefFacts { local: Local::Absent, ..facts("refs/heads/b") };
    let same = RefFacts { remote: Some(oid(1)), ancestry: Ancestry::Equal, ..facts("refs/heads/c") };
    let seen = observed(vec![refused(create), refused(gone), refused(facts("refs/heads/d")), refused(same)]);
    assert_eq!(decided(&mirror, &seen), ["refused", "refused", "refused", "up to date"]);
    assert!(plan(&mirror, &seen).order.is_empty());
    // If an empty mirror refused the default branch, no other ref is pushed alone in its place.
    let main = RefFacts { remote: None, ..facts("refs/heads/main") };
    let other = RefFacts { remote: None, ..facts("refs/heads/other") };
    let mut empty = observed(vec![refused(main.clone()), other.clone()]);
    empty.mirror.is_empty = true;
    empty.refs.push(RefFacts { remote: None, ..facts("refs/heads/third") });
    assert_eq!(plan(&mirror, &empty).next.len(), 2);
    empty.refs = vec![main, other];
    assert_eq!(plan(&mirror, &empty).next.len(), 1);
}

#[test]
fn a_ref_that_flaps_is_not_set_and_may_be_deleted() {
    let flapping = |facts: RefFacts| RefFacts { is_flapping: true, ..facts };
    let overwrite = rules(Divergent::Overwrite, Prune::Mirror);
    let create = RefFacts { remote: None, ..facts("refs/heads/a") };
    let forward = RefFacts { ancestry: Ancestry::Behind, ..facts("refs/heads/b") };
    let refs =
        vec![flapping(create), flapping(forward), flapping(facts("refs/heads/c")), flapping(deletable("refs/heads/d"))];
    assert_eq!(decided(&overwrite, &observed(refs)), ["flapping", "flapping", "flapping", "delete"]);
}

#[test]
fn what_cannot_be_read_there_is_not_touched() {
    let overwrite = rules(Divergent::Overwrite, Prune::Mirror);
    let unreadable = RefFacts { kind: Kind::Unreadable, ..facts("refs/heads/a") };
    assert_eq!(decided(&overwrite, &observed(vec![unreadable])), ["defer"]);
    let mut seen = observed(vec![deletable("refs/heads/a")]);
    seen.mirror.head_error = Some("no permission".into());
    assert_eq!(decided(&overwrite, &seen), ["defer"]);
    let long = RefFacts { name: name(&format!("refs/heads/{}", "x/".repeat(31_000) + "x")), ..facts("refs/heads/a") };
    assert_eq!(decided(&overwrite, &observed(vec![long.clone()])), ["reject"]);
    let long_there = RefFacts { name: long.name, ..deletable("refs/heads/a") };
    assert_eq!(
        decided(&overwrite, &observed(vec![long_there])),
        ["kept"],
        "a command to delete it would not fit in a packet line"
    );
}

#[test]
fn the_default_branch_of_an_empty_mirror_goes_alone_unless_all_is_one_push() {
    let refs = ["refs/heads/a", "refs/heads/main"].map(|refname| RefFacts { remote: None, ..facts(refname) });
    let mut seen = observed(refs.to_vec());
    seen.mirror.is_empty = true;
    let usual = rules(Divergent::Overwrite, Prune::Merged);
    assert_eq!(plan(&usual, &seen).next.len(), 1);
    let atomic = Rules { is_atomic: true, ..usual };
    assert_eq!(plan(&atomic, &seen).next.len(), 2);
}
