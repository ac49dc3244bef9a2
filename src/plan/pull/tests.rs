//! The rules of a pull as tables.

use super::*;
use crate::plan::MaxDeletes;
use crate::plan::tests::{name, oid, rules};

/// L is 1, U is 2, B is 3.
fn facts(refname: &str) -> PullFacts {
    PullFacts {
        name: name(refname),
        local: Local::At(oid(1)),
        upstream: Some(oid(2)),
        base: Some(oid(3)),
        ancestry: Ancestry::Diverged,
        is_local_merged: false,
        is_base_merged: false,
        is_local_commit: true,
        is_flapping: false,
        is_refused: false,
        unfetched: None,
        other: None,
        both: BothFacts::default(),
    }
}

fn observed(refs: Vec<PullFacts>) -> ObservedPull {
    let here = Here { selected: refs.len(), ..Here::default() };
    ObservedPull { refs, here, ..ObservedPull::default() }
}

fn word(decision: &Decision) -> &'static str {
    match (&decision.action, decision.keeps) {
        (Action::UpToDate, _) => "up to date",
        (Action::Create, false) => "create",
        (Action::Restore, false) => "restore",
        (Action::FastForward, false) => "fast-forward",
        (Action::Force, true) => "forced, kept",
        (Action::Delete, true) => "delete, kept",
        (Action::Delete, false) => "delete",
        (Action::Divergent(_), false) => "divergent",
        (Action::Kept(_), false) => "kept",
        (Action::Flapping(_), false) => "flapping",
        (Action::Defer(_), false) => "deferred",
        (Action::Reject(_), false) => "reject",
        (Action::Refused, false) => "refused",
        other => panic!("{other:?}"),
    }
}

fn decided(rules: &Rules, observed: &ObservedPull) -> Vec<&'static str> {
    plan_pull(rules, observed).decisions.iter().map(word).collect()
}

const POLICIES: [Divergent; 3] = [Divergent::Overwrite, Divergent::Keep, Divergent::Fail];

#[test]
fn the_table_of_updates() {
    let usual = || facts("refs/heads/x");
    let rows: [(&str, PullFacts, [&[&str]; 3]); 10] = [
        ("L = U", PullFacts { upstream: Some(oid(1)), ..usual() }, [&["up to date"]; 3]),
        ("L and B absent", PullFacts { local: Local::Absent, base: None, ..usual() }, [&["create"]; 3]),
        ("L absent, B = U", PullFacts { local: Local::Absent, base: Some(oid(2)), ..usual() }, [&["kept"]; 3]),
        ("L absent, B is not U", PullFacts { local: Local::Absent, ..usual() }, [&["restore"]; 3]),
        ("L and U absent", PullFacts { local: Local::Absent, upstream: None, ..usual() }, [&[]; 3]),
        ("L an ancestor of U", PullFacts { ancestry: Ancestry::Behind, ..usual() }, [&["fast-forward"]; 3]),
        ("L = B", PullFacts { base: Some(oid(1)), ..usual() }, [&["forced, kept"]; 3]),
        ("moved here", usual(), [&["forced, kept"], &["divergent"], &["divergent"]]),
        (
            "moved here, no base",
            PullFacts { base: None, ..usual() },
            [&["forced, kept"], &["divergent"], &["divergent"]],
        ),
        (
            "L is ahead of U",
            PullFacts { base: Some(oid(2)), ancestry: Ancestry::Diverged, ..usual() },
            [&["forced, kept"], &["divergent"], &["divergent"]],
        ),
    ];
    for (what, facts, expected) in rows {
        for (policy, expected) in POLICIES.into_iter().zip(expected) {
            assert_eq!(
                decided(&rules(policy, Prune::Merged), &observed(vec![facts.clone()])),
                expected,
                "{what}, {policy:?}"
            );
        }
    }
    let broken = PullFacts { local: Local::Unreadable, ..usual() };
    assert_eq!(decided(&rules(Divergent::Overwrite, Prune::Merged), &observed(vec![broken])), ["reject"]);
    let unfetched = PullFacts { unfetched: Some("damaged there".into()), ..usual() };
    assert_eq!(decided(&rules(Divergent::Overwrite, Prune::Mirror), &observed(vec![unfetched])), ["deferred"]);
    let symbolic = PullFacts { local: Local::Symbolic, ..usual() };
    assert_eq!(decided(&rules(Divergent::Overwrite, Prune::Merged), &observed(vec![symbolic])), Vec::<&str>::new());
}

#[test]
fn every_change_of_a_tag_is_a_rewrite() {
    let moved = PullFacts { ancestry: Ancestry::Behind, base: Some(oid(1)), ..facts("refs/tags/v1") };
    let moved_here = PullFacts { ancestry: Ancestry::Behind, ..facts("refs/tags/v1") };
    let keep = rules(Divergent::Keep, Prune::Merged);
    assert_eq!(decided(&keep, &observed(vec![moved, moved_here])), ["forced, kept", "divergent"]);
}

#[test]
fn what_was_deleted_here_comes_back_only_if_asked_for_or_changed() {
    let gone = PullFacts { local: Local::Absent, base: Some(oid(2)), ..facts("refs/heads/x") };
    let mut seen = observed(vec![gone]);
    seen.restore = Restore::All;
    assert_eq!(decided(&rules(Divergent::Keep, Prune::Merged), &seen), ["restore"]);
}

#[test]
fn the_table_of_deletions() {
    let gone = |is_local_merged, is_base_merged, base: Option<u8>| PullFacts {
        upstream: None,
        base: base.map(oid),
        is_local_merged,
        is_base_merged,
        ..facts("refs/heads/x")
    };
    // Merged, deleted, mirror, never; under "overwrite", then under "keep".
    type Row = [&'static [&'static str]; 4];
    let rows: [(&str, PullFacts, Row, Row); 6] = [
        ("ours alone", gone(true, true, None), [&[], &[], &["delete"], &[]], [&[]; 4]),
        ("ours alone, not merged", gone(false, true, None), [&[], &[], &["delete, kept"], &[]], [&[]; 4]),
        (
            "L = B, merged",
            gone(true, true, Some(1)),
            [&["delete"], &["delete"], &["delete"], &["kept"]],
            [&["delete"], &["delete"], &["delete"], &["kept"]],
        ),
        (
            "L = B, not merged",
            gone(false, false, Some(1)),
            [&["kept"], &["delete, kept"], &["delete, kept"], &["kept"]],
            [&["kept"], &["delete, kept"], &["delete, kept"], &["kept"]],
        ),
        (
            "moved here, merged",
            gone(true, true, Some(3)),
            [&["delete"], &["kept"], &["delete"], &["kept"]],
            [&["kept"], &["kept"], &["kept"], &["kept"]],
        ),
        (
            "moved here, only the base merged",
            gone(false, true, Some(3)),
            [&["kept"], &["kept"], &["delete, kept"], &["kept"]],
            [&["kept"], &["kept"], &["kept"], &["kept"]],
        ),
    ];
    for (what, facts, overwrite, keep) in rows {
        for (policy, row) in [(Divergent::Overwrite, overwrite), (Divergent::Keep, keep), (Divergent::Fail, keep)] {
            for (prune, expected) in [Prune::Merged, Prune::Deleted, Prune::Mirror, Prune::Never].into_iter().zip(row) {
                let found = decided(&rules(policy, prune), &observed(vec![facts.clone()]));
                assert_eq!(found, expected, "{what}, {policy:?}, {prune:?}");
            }
        }
    }
}

#[test]
fn a_tag_object_is_kept_even_if_its_commit_is_merged() {
    let gone = PullFacts {
        upstream: None,
        base: Some(oid(1)),
        is_local_merged: true,
        is_base_merged: true,
        is_local_commit: false,
        ..facts("refs/tags/v1")
    };
    assert_eq!(decided(&rules(Divergent::Keep, Prune::Merged), &observed(vec![gone])), ["delete, kept"]);
}

#[test]
fn safeguards_of_deletions() {
    let gone = |refname: &str| PullFacts { upstream: None, base: Some(oid(1)), ..facts(refname) };
    let mirror = rules(Divergent::Overwrite, Prune::Mirror);
    let mut head = observed(vec![gone("refs/heads/x")]);
    head.here.head = Some(name("refs/heads/x"));
    assert_eq!(decided(&mirror, &head), ["kept"]);
    let mut incomplete = observed(vec![gone("refs/heads/x")]);
    incomplete.here.incomplete = Some("a file cannot be read".into());
    assert_eq!(decided(&mirror, &incomplete), ["kept"]);
    let many: Vec<PullFacts> = (0..51).map(|index| gone(&format!("refs/heads/x{index}"))).collect();
    assert_eq!(decided(&mirror, &observed(many.clone())), ["kept"; 51]);
    let allowed = Rules { max_deletes: MaxDeletes::Unlimited, ..mirror.clone() };
    assert_eq!(decided(&allowed, &observed(many)), ["delete, kept"; 51]);
    let mut empty = observed(vec![gone("refs/heads/x")]);
    (empty.upstream.is_empty, empty.upstream.had_refs) = (true, true);
    assert_eq!(plan_pull(&mirror, &empty).stop, Some(Stop::NothingUpstream));
    assert_eq!(decided(&mirror, &empty), ["kept"]);
}

#[test]
fn at_first_contact_nothing_is_deleted_and_unrelated_histories_stay_apart() {
    let ours = PullFacts { upstream: None, base: None, ..facts("refs/heads/ours") };
    let theirs = PullFacts { local: Local::Absent, base: None, ..facts("refs/heads/theirs") };
    let both = PullFacts { base: None, ..facts("refs/heads/both") };
    let mut seen = observed(vec![ours, theirs, both]);
    seen.first_contact = FirstContact::Unconfirmed;
    let mirror = rules(Divergent::Overwrite, Prune::Mirror);
    assert_eq!(decided(&mirror, &seen), ["create", "divergent"]);
    seen.upstream.is_unrelated = true;
    let plan = plan_pull(&mirror, &seen);
    assert!(plan.stop == Some(Stop::Unrelated) && plan.order.is_empty());
    seen.first_contact = FirstContact::Over;
    assert_eq!(decided(&mirror, &seen), ["delete, kept", "create", "forced, kept"]);
}

#[test]
fn fail_takes_nothing_at_all() {
    let new = PullFacts { local: Local::Absent, base: None, ..facts("refs/heads/new") };
    let seen = observed(vec![facts("refs/heads/moved"), new]);
    assert_eq!(decided(&rules(Divergent::Fail, Prune::Merged), &seen), ["divergent", "reject"]);
    assert_eq!(decided(&rules(Divergent::Keep, Prune::Merged), &seen), ["divergent", "create"]);
}

#[test]
fn a_name_is_freed_before_it_is_used() {
    for (gone, made) in [("refs/heads/x", "refs/heads/x/y"), ("refs/heads/x/y", "refs/heads/x")] {
        let gone = PullFacts { upstream: None, base: Some(oid(1)), ..facts(gone) };
        let made = PullFacts { local: Local::Absent, base: None, ..facts(made) };
        let plan = plan_pull(&rules(Divergent::Keep, Prune::Deleted), &observed(vec![made, gone]));
        let sent: Vec<&Action> = plan.next_push().iter().map(|decision| &decision.action).collect();
        assert_eq!(sent, [&Action::Delete, &Action::Create]);
    }
}

#[test]
fn what_was_refused_flaps_or_is_taken_by_another_is_not_sent() {
    let refused = PullFacts { is_refused: true, ancestry: Ancestry::Behind, ..facts("refs/heads/a") };
    let flapping = PullFacts { is_flapping: true, ancestry: Ancestry::Behind, ..facts("refs/heads/b") };
    let twice = PullFacts { other: Some("m".into()), ancestry: Ancestry::Behind, ..facts("refs/heads/c") };
    let seen = observed(vec![refused, flapping, twice]);
    let plan = plan_pull(&rules(Divergent::Keep, Prune::Merged), &seen);
    assert_eq!(plan.decisions.iter().map(word).collect::<Vec<_>>(), ["refused", "flapping", "reject"]);
    assert!(plan.order.is_empty());
}
