//! One ref: the first table of the rules.

use super::{Action, Decision, Divergent, Kind, Observed, RefFacts, Rules, prune};
use crate::refs::{Ancestry, Local, Oid};

/// Decides about one selected ref. `None` for a symbolic ref, and for one that neither side has.
pub(super) fn decide(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Option<Decision> {
    if facts.kind == Kind::Symbolic {
        return None;
    }
    const MAX_NAME: usize = 60_000;
    let action = match (facts.local, facts.remote) {
        (Local::Symbolic, _) | (Local::Absent, None) => return None,
        _ if facts.kind == Kind::Unreadable => {
            Action::Defer("the mirror's ref, which is on this machine, cannot be read".into())
        }
        (Local::At(_), _) if facts.name.as_bytes().len() > MAX_NAME => {
            Action::Reject("its name is longer than a command of the push protocol can be".into())
        }
        (Local::Unreadable, _) => Action::Reject("the ref cannot be read in this repository; see 'git fsck'".into()),
        (Local::Absent, Some(_)) => prune::decide(rules, observed, facts),
        (Local::At(_), None) => Action::Create,
        (Local::At(local), Some(remote)) => update(rules, facts, local, remote),
    };
    let is_set = matches!(action, Action::Create | Action::FastForward | Action::Force);
    let action = if is_set && facts.is_flapping { Action::Flapping(flapping(facts)) } else { action };
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

fn flapping(facts: &RefFacts) -> String {
    let short = |oid: Option<Oid>| oid.map_or_else(|| "nothing".to_owned(), |oid| oid.short());
    let local = if let Local::At(oid) = facts.local { Some(oid) } else { None };
    format!(
        "flapping: the mirror has {}, here it is {}, and the mirror left that value twice within an hour; does another mirror write to this ref? A new value, or 'git mirror-push sync', sends it again",
        short(facts.remote),
        short(local)
    )
}

fn divergence(facts: &RefFacts, remote: Oid) -> String {
    let remote = remote.short();
    match facts.ancestry {
        Ancestry::Unknown => {
            format!("the mirror has {remote}, which this repository does not have: someone pushed there")
        }
        _ => format!("the mirror has {remote}, which is not in our history: someone else changed it there"),
    }
}
