//! The rules of a two-way mirror: a fourth table. L is ours, R the mirror's, B the base. Each side's movement since B decides.
//!
//! A run first carries out what the table decides for this repository. Then the plan of a push
//! checks what the table decided for the mirror ([`super::Decided`]). If a ref moved in between, it
//! is decided again. If a run is killed between two steps, a row of the table covers the values of
//! L, R and B that it leaves.

use super::pull::{ObservedPull, PullFacts, deletion, unfetched};
use super::{Action, Conflicts, Decision, FirstContact, PullReason, Reason, Rules, Side};
use crate::refs::{Ancestry, Local, Oid};

/// How the values of a two-way mirror are related, besides what [`PullFacts`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BothFacts {
    /// B is an ancestor of L.
    pub is_base_in_local: bool,
    /// B is an ancestor of R.
    pub is_base_in_remote: bool,
    /// R is an ancestor of L.
    pub is_remote_in_local: bool,
    /// R is a value that the ref had here and left, by a rewrite or deletion.
    pub is_late: bool,
    /// The mirror does not show R to readers, but its receive-pack has the ref.
    pub is_hidden: bool,
    /// A person chose this side for a conflict between these very values.
    pub chosen: Option<Side>,
}

/// What one side did to a ref since the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Movement {
    Same,
    Created,
    /// The new value contains the base.
    Forward,
    /// Anything else; for a tag, any other value.
    Rewritten,
    Deleted,
}

fn movement(base: Option<Oid>, value: Option<Oid>, contains_base: bool) -> Movement {
    match (base, value) {
        (base, value) if base == value => Movement::Same,
        (None, _) => Movement::Created,
        (Some(_), None) => Movement::Deleted,
        _ if contains_base => Movement::Forward,
        _ => Movement::Rewritten,
    }
}

/// Decides about one selected ref. `None` if it is symbolic here, or if neither side has it.
pub(super) fn decide(
    conflicts: Conflicts,
    rules: &Rules,
    observed: &ObservedPull,
    facts: &PullFacts,
) -> Option<Decision> {
    let local = match facts.local {
        Local::Symbolic => return None,
        Local::At(oid) => Some(oid),
        Local::Absent | Local::Unreadable => None,
    };
    let (side, action) = match facts.local {
        Local::Unreadable => (Side::Here, Action::Reject(Reason::Unreadable)),
        _ if local.is_none() && facts.upstream.is_none() => return None,
        _ if facts.unfetched.is_some() => (Side::Here, unfetched(facts)),
        _ => row(conflicts, rules, observed, facts, local),
    };
    let is_set_here = side == Side::Here && action.is_sent();
    let action = match action {
        _ if is_set_here && facts.other.is_some() => {
            Action::Reject(Reason::Pull(PullReason::TakenByOther(facts.other.clone().unwrap_or_default())))
        }
        _ if is_set_here && facts.is_refused => Action::Refused,
        action if is_set_here && action != Action::Delete && facts.is_flapping => {
            Action::Flapping(Reason::Flapping { remote: facts.upstream, local })
        }
        action => action,
    };
    let keeps = match (side, &action) {
        (Side::Here, Action::Force) => true,
        (Side::Here, Action::Delete) => !(facts.is_local_merged && facts.is_local_commit),
        // A mirror's value that is not the base is kept. The base is kept too, unless a push here
        // is known to have replaced it: our refs may have been restored from a backup.
        (Side::There, Action::Force | Action::Delete) => facts.upstream != facts.base || !facts.both.is_late,
        _ => false,
    };
    let (name, remote, base) = (facts.name.clone(), facts.upstream, facts.base);
    Some(Decision { name, local, remote, side, base, keeps, step: None, action })
}

/// The row of the table, with the side that is updated.
fn row(
    conflicts: Conflicts,
    rules: &Rules,
    observed: &ObservedPull,
    facts: &PullFacts,
    local: Option<Oid>,
) -> (Side, Action) {
    use Movement::{Created, Deleted, Forward, Rewritten, Same};
    let (here, there) = (|action| (Side::Here, action), |action| (Side::There, action));
    let is_tag = facts.name.tag().is_some();
    let both = facts.both;
    let is_late = both.is_late && observed.first_contact == FirstContact::Over;
    let ours = movement(facts.base, local, both.is_base_in_local && !is_tag);
    let theirs = movement(facts.base, facts.upstream, both.is_base_in_remote && !is_tag);
    match (ours, theirs) {
        _ if local == facts.upstream => here(Action::UpToDate),
        (Same, Created) => here(Action::Create),
        (Same, Forward) => here(Action::FastForward),
        (Same, Rewritten) => here(Action::Force),
        (Same, Deleted) if both.is_hidden => here(Action::Kept(Reason::Pull(PullReason::Hidden))),
        (Same, Deleted) => match local.and_then(|local| deletion(rules, observed, facts, local)) {
            Some(action) => here(action),
            None => here(Action::UpToDate),
        },
        (Created, Same) => there(Action::Create),
        (Forward, Same) => there(Action::FastForward),
        (Rewritten, Same) => there(Action::Force),
        (Deleted, Same) => there(Action::Delete),
        (Created, Created) | (Forward, Forward) if facts.ancestry == Ancestry::Behind && !is_tag => {
            here(Action::FastForward)
        }
        (Created, Created) | (Forward, Forward) if both.is_remote_in_local && !is_tag => there(Action::FastForward),
        // The mirror is only late: it has a value that this repository had and left.
        (Deleted, Rewritten) if is_late => there(Action::Delete),
        (Created | Forward | Rewritten, Rewritten | Created) if is_late => there(Action::Force),
        (Deleted, Forward | Rewritten) => here(Action::Restore),
        (Forward | Rewritten, Deleted) => there(Action::Restore),
        // While first contact is not confirmed, `conflicts` does not apply: neither side wins by
        // itself.
        _ if observed.first_contact == FirstContact::Unconfirmed => conflict(Conflicts::Keep, facts, local),
        _ => conflict(conflicts, facts, local),
    }
}

fn conflict(conflicts: Conflicts, facts: &PullFacts, local: Option<Oid>) -> (Side, Action) {
    let usual = match conflicts {
        Conflicts::Keep => None,
        Conflicts::Ours => Some(Side::There),
        Conflicts::Theirs => Some(Side::Here),
    };
    match facts.both.chosen.or(usual) {
        Some(side) => (side, Action::Force),
        None => (Side::Here, Action::Conflict(Reason::Conflict { local, remote: facts.upstream, base: facts.base })),
    }
}

#[cfg(test)]
mod tests;
