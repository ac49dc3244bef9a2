//! The decision about one ref. This is the first table of the rules; `prune` is the second.

use super::{Action, Decision, Divergent, Kind, Observed, Reason, RefFacts, Rules, Side, prune};
use crate::refs::{Ancestry, Local, Oid};

/// Decides about one selected ref. `None` if the ref is symbolic on either side, or if neither side has it.
pub(super) fn decide(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Option<Decision> {
    if facts.kind == Kind::Symbolic {
        return None;
    }
    const MAX_NAME: usize = 60_000;
    let action = match (facts.local, facts.remote) {
        (Local::Symbolic, _) | (Local::Absent, None) => return None,
        _ if facts.kind == Kind::Unreadable => Action::Defer(Reason::MirrorUnreadable),
        (Local::At(_), _) if facts.name.as_bytes().len() > MAX_NAME => Action::Reject(Reason::NameTooLong),
        (Local::Unreadable, _) => Action::Reject(Reason::Unreadable),
        (local, remote) if facts.decided.as_ref().is_some_and(|decided| !decided.holds(local, remote)) => {
            Action::Defer(Reason::Moved)
        }
        (Local::Absent, Some(_)) => match prune::decide(rules, observed, facts) {
            Action::Delete if facts.name.as_bytes().len() > MAX_NAME => Action::Kept(Reason::NameTooLong),
            action => action,
        },
        (Local::At(local), remote) => match (&facts.decided, remote) {
            (Some(decided), _) => decided.action.clone(),
            (None, None) => Action::Create,
            (None, Some(remote)) => update(rules, facts, local, remote),
        },
    };
    let is_set = action.is_sent() && action != Action::Delete;
    let local = if let Local::At(oid) = facts.local { Some(oid) } else { None };
    let action = match action {
        action if action.is_sent() && facts.is_refused => Action::Refused,
        _ if is_set && facts.is_flapping => Action::Flapping(Reason::Flapping { remote: facts.remote, local }),
        action => action,
    };
    // The command would lose a value that was never ours, so the value is kept first. A deletion
    // loses nothing that our default branch contains.
    let is_foreign = facts.remote.is_some() && !facts.is_remote_known;
    let keeps = is_foreign
        && match action {
            Action::Force => true,
            // The new value contains the tag's commit, but not the tag object.
            Action::FastForward => facts.name.tag().is_some(),
            Action::Delete => !facts.deleted.is_remote_merged,
            _ => false,
        };
    Some(Decision {
        name: facts.name.clone(),
        local,
        remote: facts.remote,
        side: Side::There,
        base: facts.decided.as_ref().and_then(|decided| decided.base),
        keeps,
        step: None,
        action,
    })
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
            Divergent::Keep | Divergent::Fail if facts.ancestry == Ancestry::Unknown => {
                Action::Divergent(Reason::NotHere(remote))
            }
            Divergent::Keep | Divergent::Fail => Action::Divergent(Reason::NotInHistory(remote)),
        },
    }
}
