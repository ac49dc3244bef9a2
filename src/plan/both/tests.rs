//! The table of a two-way mirror, row by row. The base is 3 where there is one; ours is 1 and theirs 2 where they moved.

use super::*;
use crate::plan::tests::{name, oid, rules};
use crate::plan::{Divergent, Here, Plan, Prune, plan_pull};

const MOVEMENTS: [Movement; 5] =
    [Movement::Same, Movement::Created, Movement::Forward, Movement::Rewritten, Movement::Deleted];

/// A ref that each side moved in this way; `None` if the two cannot have the same base.
fn facts(refname: &str, ours: Movement, theirs: Movement) -> Option<PullFacts> {
    let has_no_base = |movement| movement == Movement::Created;
    let needs_base = |movement| matches!(movement, Movement::Forward | Movement::Rewritten | Movement::Deleted);
    let is_new = has_no_base(ours) || has_no_base(theirs);
    if is_new && (needs_base(ours) || needs_base(theirs)) {
        return None;
    }
    let base = (!is_new).then(|| oid(3));
    let value = |movement, moved: u8| match movement {
        Movement::Same => base,
        Movement::Deleted => None,
        _ => Some(oid(moved)),
    };
    Some(PullFacts {
        name: name(refname),
        local: value(ours, 1).map_or(Local::Absent, Local::At),
        upstream: value(theirs, 2),
        base,
        ancestry: Ancestry::Diverged,
        is_local_merged: true,
        is_base_merged: true,
        is_local_commit: true,
        is_flapping: false,
        is_refused: false,
        unfetched: None,
        other: None,
        both: BothFacts {
            is_base_in_local: ours == Movement::Forward,
            is_base_in_remote: theirs == Movement::Forward,
            ..BothFacts::default()
        },
    })
}

fn planned(conflicts: Conflicts, refs: Vec<PullFacts>) -> Plan {
    let rules = Rules { conflicts: Some(conflicts), ..rules(Divergent::Keep, Prune::Merged) };
    let here = Here { selected: refs.len(), ..Here::default() };
    plan_pull(&rules, &ObservedPull { refs, here, ..ObservedPull::default() })
}

fn words(decision: &Decision) -> String {
    let action = match decision.action {
        Action::UpToDate => return "nothing".into(),
        Action::Conflict(_) => return "conflict".into(),
        Action::Create => "create",
        Action::Restore => "restore",
        Action::FastForward => "fast-forward",
        Action::Force => "force",
        Action::Delete => "delete",
        Action::Flapping(_) => "flapping",
        Action::Refused => "refused",
        _ => panic!("{decision:?}"),
    };
    let side = if decision.side == Side::Here { "here" } else { "there" };
    format!("{action} {side}{}", if decision.keeps { ", kept" } else { "" })
}

fn decided(conflicts: Conflicts, facts: PullFacts) -> String {
    planned(conflicts, vec![facts]).decisions.first().map_or("nothing".into(), words)
}

#[test]
fn every_pair_of_movements() {
    let table = [
        ["nothing", "create here", "fast-forward here", "force here, kept", "delete here"],
        ["create there", "conflict", "-", "-", "-"],
        ["fast-forward there", "-", "conflict", "conflict", "restore there"],
        ["force there, kept", "-", "conflict", "conflict", "restore there"],
        ["delete there, kept", "-", "restore here", "restore here", "nothing"],
    ];
    for (ours, row) in MOVEMENTS.into_iter().zip(table) {
        for (theirs, expected) in MOVEMENTS.into_iter().zip(row) {
            let Some(facts) = facts("refs/heads/x", ours, theirs) else {
                assert_eq!(expected, "-", "{ours:?} {theirs:?}");
                continue;
            };
            assert_eq!(decided(Conflicts::Keep, facts.clone()), expected, "{ours:?} {theirs:?}");
            let (ours_wins, theirs_wins) = match expected {
                "conflict" => ("force there, kept", "force here, kept"),
                other => (other, other),
            };
            assert_eq!(decided(Conflicts::Ours, facts.clone()), ours_wins, "{ours:?} {theirs:?}");
            assert_eq!(decided(Conflicts::Theirs, facts), theirs_wins, "{ours:?} {theirs:?}");
        }
    }
}

#[test]
fn what_contains_the_other_side_is_no_conflict_if_both_only_moved_forward() {
    use Movement::{Created, Forward, Rewritten};
    for (ours, theirs, is_fast) in
        [(Forward, Forward, true), (Created, Created, true), (Forward, Rewritten, false), (Rewritten, Forward, false)]
    {
        for refname in ["refs/heads/x", "refs/tags/x"] {
            let usual = facts(refname, ours, theirs).expect("possible");
            let behind = PullFacts { ancestry: Ancestry::Behind, ..usual.clone() };
            let ahead = PullFacts { both: BothFacts { is_remote_in_local: true, ..usual.both }, ..usual.clone() };
            let is_fast = is_fast && refname != "refs/tags/x";
            let expected = if is_fast { ["fast-forward here", "fast-forward there"] } else { ["conflict"; 2] };
            assert_eq!([behind, ahead].map(|facts| decided(Conflicts::Keep, facts)), expected, "{ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_tag_never_moves_forward() {
    use Movement::{Forward, Same};
    assert_eq!(decided(Conflicts::Keep, facts("refs/tags/v", Same, Forward).expect("possible")), "force here, kept");
    assert_eq!(decided(Conflicts::Keep, facts("refs/tags/v", Forward, Same).expect("possible")), "force there, kept");
}

/// If the mirror has a value that this repository had and left, the mirror is only late. The value
/// is kept first, because it may not be kept already.
#[test]
fn a_late_value_is_no_movement() {
    use Movement::{Created, Deleted, Forward, Rewritten, Same};
    let late = |ours, theirs| {
        let usual = facts("refs/heads/x", ours, theirs).expect("possible");
        let both = BothFacts { is_late: true, ..usual.both };
        decided(Conflicts::Keep, PullFacts { both, ..usual })
    };
    assert_eq!(late(Forward, Rewritten), "force there, kept");
    assert_eq!(late(Rewritten, Rewritten), "force there, kept");
    assert_eq!(late(Created, Created), "force there, kept");
    assert_eq!(late(Deleted, Rewritten), "delete there, kept");
    assert_eq!(late(Same, Rewritten), "force here, kept", "ours did not move");
    assert_eq!(late(Rewritten, Same), "force there", "a push here left it");
    assert_eq!(late(Deleted, Same), "delete there", "a push here deleted it");
    assert_eq!(late(Rewritten, Forward), "conflict", "theirs moved on");
}

#[test]
fn a_person_decides_a_conflict() {
    let usual = facts("refs/heads/x", Movement::Forward, Movement::Forward).expect("possible");
    for (side, expected) in [(Side::There, "force there, kept"), (Side::Here, "force here, kept")] {
        let both = BothFacts { chosen: Some(side), ..usual.both };
        assert_eq!(decided(Conflicts::Keep, PullFacts { both, ..usual.clone() }), expected);
    }
}

#[test]
fn only_what_is_decided_for_this_side_is_taken() {
    use Movement::{Created, Deleted, Same};
    let refs = vec![
        facts("refs/heads/a", Same, Created).expect("possible"),
        facts("refs/heads/b", Created, Same).expect("possible"),
        facts("refs/heads/c", Deleted, Same).expect("possible"),
    ];
    let plan = planned(Conflicts::Keep, refs);
    assert_eq!(
        plan.decisions.iter().map(words).collect::<Vec<_>>(),
        ["create here", "create there", "delete there, kept"]
    );
    assert_eq!((plan.order, plan.next), (vec![0], vec![0]));
}

#[test]
fn a_deletion_there_is_guarded_here() {
    use Movement::{Deleted, Same};
    let gone = facts("refs/heads/x", Same, Deleted).expect("possible");
    let with = |prune, gone: PullFacts, head: &str| {
        let rules = Rules { conflicts: Some(Conflicts::Keep), ..rules(Divergent::Keep, prune) };
        let here = Here { head: Some(name(head)), selected: 1, incomplete: None };
        let plan = plan_pull(&rules, &ObservedPull { refs: vec![gone], here, ..ObservedPull::default() });
        plan.decisions[0].action.clone()
    };
    assert_eq!(with(Prune::Merged, gone.clone(), "refs/heads/main"), Action::Delete);
    assert!(matches!(with(Prune::Merged, gone.clone(), "refs/heads/x"), Action::Kept(_)), "HEAD names it");
    assert!(matches!(with(Prune::Never, gone.clone(), "refs/heads/main"), Action::Kept(_)));
    let unmerged = PullFacts { is_local_merged: false, ..gone };
    assert!(matches!(with(Prune::Merged, unmerged.clone(), "refs/heads/main"), Action::Kept(_)));
    assert_eq!(with(Prune::Deleted, unmerged, "refs/heads/main"), Action::Delete);
}
