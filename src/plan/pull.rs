//! The rules of a pull: a third table, for refs that upstream may change here. L is ours, U upstream's, B the base.

use std::collections::HashSet;

use super::{
    Action, BothFacts, Decision, Divergent, FirstContact, Limits, Plan, Prune, PullReason, Reason, Rules, Side, Stop,
    both, limits, order, prune, withhold_everything,
};
use crate::refs::{Ancestry, Local, Oid, RefName};

/// Everything that is known about the two sides when a pull is planned.
#[derive(Clone, Debug, Default)]
pub struct ObservedPull {
    /// The refs in question.
    pub refs: Vec<PullFacts>,
    /// This repository.
    pub here: Here,
    /// The mirror whose refs are taken.
    pub upstream: Upstream,
    /// Whether every selected ref was compared once with this address.
    pub first_contact: FirstContact,
    /// Whether refs that were deleted here are taken again (`--restore`).
    pub restore: Restore,
    /// The parts of an update that a hook of ours declined as a whole.
    pub groups: Vec<HashSet<RefName>>,
}

/// Whether refs that were deleted here are taken again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restore {
    /// They stay deleted until upstream changes them.
    #[default]
    Changed,
    /// They are taken again.
    All,
}

/// One ref.
#[derive(Clone, Debug)]
pub struct PullFacts {
    /// Its full name.
    pub name: RefName,
    /// L.
    pub local: Local,
    /// U.
    pub upstream: Option<Oid>,
    /// B.
    pub base: Option<Oid>,
    /// How L relates to U; of no meaning when one of them is missing, or for a tag.
    pub ancestry: Ancestry,
    /// Whether L is an ancestor of upstream's default branch. Known only for a ref that upstream does not have.
    pub is_local_merged: bool,
    /// Whether B is an ancestor of upstream's default branch. Known only for a ref that upstream
    /// does not have.
    pub is_base_merged: bool,
    /// Whether L is a commit. A tag object is in no history, even if its commit is.
    pub is_local_commit: bool,
    /// Whether the ref would be set, for the third time within an hour, to a value that it had here and left.
    pub is_flapping: bool,
    /// Whether this repository refused the change earlier in the run.
    pub is_refused: bool,
    /// Why upstream's value cannot be fetched; `None` if it can.
    pub unfetched: Option<String>,
    /// The other pull mirror that selects this ref, if there is one.
    pub other: Option<String>,
    /// What matters only for a two-way mirror.
    pub both: BothFacts,
}

/// This repository.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// The branch that HEAD names.
    pub head: Option<RefName>,
    /// How many refs the rules select.
    pub selected: usize,
    /// Why the list of our refs may lack something; `None` when it is complete.
    pub incomplete: Option<String>,
}

/// The mirror whose refs are taken.
#[derive(Clone, Debug, Default)]
pub struct Upstream {
    /// Whether it shows no refs at all.
    pub is_empty: bool,
    /// Whether it had refs at the last contact.
    pub had_refs: bool,
    /// Whether both sides have branches or tags, and no branch of one shares a commit with a branch of the other. Computed only at first
    /// contact.
    pub is_unrelated: bool,
}

/// Decides every observed ref. The plan of a two-way mirror also has decisions for the other side.
/// Its `order` and `next` have only those for this side.
#[must_use]
pub fn plan_pull(rules: &Rules, observed: &ObservedPull) -> Plan {
    let mut decisions: Vec<Decision> = observed
        .refs
        .iter()
        .filter(|facts| rules.selects(facts.name.borrowed()))
        .filter_map(|facts| match rules.conflicts {
            None => decide(rules, observed, facts),
            Some(conflicts) => both::decide(conflicts, rules, observed, facts),
        })
        .collect();
    prune::hold_mass_deletion(rules.max_deletes, observed.here.selected, Side::Here, &mut decisions);
    let stop = stop(observed);
    if let Some(stop) = stop {
        let is_unrelated = stop == Stop::Unrelated;
        let reason = Reason::Pull(if is_unrelated { PullReason::Unrelated } else { PullReason::NothingUpstream });
        for decision in &mut decisions {
            match decision.action {
                Action::Divergent(_) if stop == Stop::Unrelated => decision.action = Action::Divergent(reason.clone()),
                _ if decision.action.is_sent() => decision.action = Action::Reject(reason.clone()),
                _ => {}
            }
        }
    }
    if rules.divergent == Divergent::Fail && decisions.iter().any(|one| matches!(one.action, Action::Divergent(_))) {
        withhold_everything(&mut decisions);
    }
    decisions.iter_mut().for_each(|decision| decision.keeps &= decision.action.is_sent());
    let order = order::of_pull(&decisions);
    let limits = Limits { groups: observed.groups.clone(), ..Limits::default() };
    let next = limits::next_of_pull(&limits, &decisions, &order);
    Plan { decisions, order, next, companions: Vec::new(), stop }
}

/// Why nothing at all is taken.
fn stop(observed: &ObservedPull) -> Option<Stop> {
    let is_unconfirmed = observed.first_contact == FirstContact::Unconfirmed;
    if observed.upstream.is_empty && observed.upstream.had_refs {
        Some(Stop::NothingUpstream)
    } else {
        (is_unconfirmed && observed.upstream.is_unrelated).then_some(Stop::Unrelated)
    }
}

/// Decides about one selected ref. `None` if the ref is symbolic here, if neither side has it, or
/// if [`deletion`] decides nothing.
fn decide(rules: &Rules, observed: &ObservedPull, facts: &PullFacts) -> Option<Decision> {
    let local = if let Local::At(oid) = facts.local { Some(oid) } else { None };
    let action = match (facts.local, facts.upstream) {
        (Local::Symbolic, _) | (Local::Absent, None) => return None,
        (Local::Unreadable, _) => Action::Reject(Reason::Unreadable),
        _ if facts.unfetched.is_some() => unfetched(facts),
        (Local::Absent, Some(upstream)) => match facts.base {
            None => Action::Create,
            Some(base) if base == upstream && observed.restore == Restore::Changed => {
                Action::Kept(Reason::Pull(PullReason::DeletedHere))
            }
            Some(_) => Action::Restore,
        },
        (Local::At(local), Some(upstream)) => update(rules, observed, facts, local, upstream),
        (Local::At(local), None) => deletion(rules, observed, facts, local)?,
    };
    let is_set = action.is_sent() && action != Action::Delete;
    let action = match action {
        action if action.is_sent() && facts.other.is_some() => {
            Action::Reject(Reason::Pull(PullReason::TakenByOther(facts.other.clone().unwrap_or_default())))
        }
        action if action.is_sent() && facts.is_refused => Action::Refused,
        _ if is_set && facts.is_flapping => Action::Flapping(Reason::Flapping { remote: facts.upstream, local }),
        action => action,
    };
    let keeps = match action {
        Action::Force => true,
        Action::Delete => !(facts.is_local_merged && facts.is_local_commit),
        _ => false,
    };
    let name = facts.name.clone();
    Some(Decision {
        name,
        local,
        remote: facts.upstream,
        side: Side::Here,
        base: facts.base,
        keeps,
        step: None,
        action,
    })
}

/// The decision about a ref whose value cannot be fetched. The next run tries again.
pub(super) fn unfetched(facts: &PullFacts) -> Action {
    Action::Defer(Reason::Pull(PullReason::Unfetched(facts.unfetched.clone().unwrap_or_default())))
}

fn update(rules: &Rules, observed: &ObservedPull, facts: &PullFacts, local: Oid, upstream: Oid) -> Action {
    let is_forward = facts.name.tag().is_none() && facts.ancestry == Ancestry::Behind;
    if local == upstream {
        Action::UpToDate
    } else if is_forward {
        Action::FastForward
    } else if facts.base == Some(local) {
        Action::Force
    } else if rules.divergent != Divergent::Overwrite {
        Action::Divergent(Reason::Pull(PullReason::MovedHere(upstream)))
    } else if observed.first_contact == FirstContact::Unconfirmed && facts.base.is_none() {
        Action::Divergent(Reason::Pull(PullReason::NotContained(upstream)))
    } else {
        Action::Force
    }
}

/// Decides a ref that upstream does not have. `None` if it is ours alone, or while first contact is
/// not confirmed.
pub(super) fn deletion(rules: &Rules, observed: &ObservedPull, facts: &PullFacts, local: Oid) -> Option<Action> {
    if observed.first_contact == FirstContact::Unconfirmed {
        return None;
    }
    let Some(base) = facts.base else {
        let is_wanted = rules.divergent == Divergent::Overwrite && rules.prune == Prune::Mirror;
        return is_wanted.then(|| guarded(observed, facts));
    };
    let is_ours = base == local;
    let is_merged = facts.is_local_merged && facts.is_base_merged;
    Some(match rules.prune {
        Prune::Never => Action::Kept(Reason::PruneNever),
        Prune::Merged if !is_merged => Action::Kept(Reason::Pull(PullReason::NotMergedUpstream)),
        Prune::Deleted if !is_ours => Action::Kept(Reason::Pull(PullReason::GoneAndMoved)),
        _ if rules.divergent != Divergent::Overwrite && !is_ours => {
            Action::Kept(Reason::Pull(PullReason::GoneAndMoved))
        }
        Prune::Merged | Prune::Deleted | Prune::Mirror => guarded(observed, facts),
    })
}

/// A deletion, unless a safeguard holds.
fn guarded(observed: &ObservedPull, facts: &PullFacts) -> Action {
    if observed.upstream.is_empty {
        Action::Kept(Reason::NoRefs)
    } else if let Some(why) = &observed.here.incomplete {
        Action::Kept(Reason::Incomplete(why.clone()))
    } else if observed.here.head.as_ref() == Some(&facts.name) {
        Action::Kept(Reason::Pull(PullReason::OurHead))
    } else {
        Action::Delete
    }
}

#[cfg(test)]
mod tests;
