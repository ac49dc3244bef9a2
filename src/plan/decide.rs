//! One ref: the first table of the rules.

use super::{Action, Decision, Divergent, Kind, Observed, RefFacts, Rules, prune};
use crate::refs::{Ancestry, Local, Oid};

/// Decides one selected ref. `None` when there is nothing to say of it: a symbolic ref, or one that neither side has.
pub(super) fn decide(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Option<Decision> {
    if facts.kind == Kind::Symbolic {
        return None;
    }
    let action = match (facts.local, facts.remote) {
        (Local::Symbolic, _) | (Local::Absent, None) => return None,
        (Local::Unreadable, _) => Action::Reject("the ref cannot be read in this repository; see 'git fsck'".into()),
        (Local::Absent, Some(_)) => prune::decide(rules, observed, facts),
        (Local::At(_), None) => Action::Create,
        (Local::At(local), Some(remote)) => update(rules, facts, local, remote),
    };
    let local = if let Local::At(oid) = facts.local { Some(oid) } else { None };
    Some(Decision { name: facts.name.clone(), local, remote: facts.remote, action })
}

fn update(rules: &Rules, facts: &RefFacts, local: Oid, remote: Oid) -> Action {
    if local == remote {
        return Action::UpToDate;
    }
    match facts.ancestry {
        Ancestry::Equal | Ancestry::Behind => Action::FastForward,
        Ancestry::Diverged | Ancestry::Unknown if facts.is_remote_known => Action::Force,
        Ancestry::Diverged | Ancestry::Unknown => match rules.divergent {
            Divergent::Overwrite => Action::Force,
            Divergent::Keep | Divergent::Fail => Action::Divergent(divergence(facts, remote)),
        },
    }
}

fn divergence(facts: &RefFacts, remote: Oid) -> String {
    let remote = remote.short();
    match facts.ancestry {
        Ancestry::Unknown => {
            format!("the mirror has {remote}, which this repository does not have: someone pushed there")
        }
        _ => format!("the mirror has {remote}, which is not in the history of ours: someone moved it there"),
    }
}
