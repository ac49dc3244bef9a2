//! First contact: what a mistyped URL would overwrite stays untouched until a person confirms the address.

use std::collections::BTreeSet;

use super::{Action, Decision, FirstContact, Observed, Reason, RefFacts, Stop};
use crate::refs::RefName;

/// Withholds every command when first contact is not over and the mirror looks like somebody else's. It does so in two cases: a
/// command would overwrite or delete a value whose object we do not have, or we have no object of any branch or tag of the mirror.
pub(super) fn stop(observed: &Observed, decisions: &mut [Decision]) -> Option<Stop> {
    if observed.first_contact == FirstContact::Over {
        return None;
    }
    let is_unknown = |facts: &&RefFacts| facts.remote.is_some() && !facts.is_remote_here;
    let unknown: BTreeSet<&RefName> = observed.refs.iter().filter(is_unknown).map(|facts| &facts.name).collect();
    let is_lost = |decision: &Decision| matches!(decision.action, Action::Force | Action::Delete);
    let is_stopped =
        |decision: &Decision| (is_lost(decision) || observed.mirror.is_stranger) && unknown.contains(&decision.name);
    let count = decisions.iter().filter(|decision| is_stopped(decision)).count();
    if count == 0 && !observed.mirror.is_stranger {
        return None;
    }
    for decision in decisions {
        if is_stopped(decision) {
            decision.action = decision
                .remote
                .map_or(Action::Reject(Reason::Unconfirmed), |remote| Action::Divergent(Reason::FirstContact(remote)));
        } else if decision.action.is_sent() {
            decision.action = Action::Reject(Reason::Unconfirmed);
        }
    }
    Some(Stop::FirstContact { unknown: count })
}
