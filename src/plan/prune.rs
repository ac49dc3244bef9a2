//! Deletion: the second table of the rules, and its safeguards.

use super::{Action, Decision, Divergent, Kind, MaxDeletes, Observed, Prune, Reason, RefFacts, Rules, Side};

/// Decides a ref that the mirror has and this repository does not.
pub(super) fn decide(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Action {
    match (reason_to_keep(rules, observed, facts), &observed.mirror.head_error) {
        (Some(reason), _) => Action::Kept(reason),
        (None, Some(why)) => Action::Defer(Reason::HeadUnreadable(why.clone())),
        (None, None) if observed.mirror.can_delete => Action::Delete,
        (None, None) => Action::Reject(Reason::NoDeletes),
    }
}

fn reason_to_keep(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Option<Reason> {
    let is_deleted_here = facts.deleted.is_known;
    let head = || Reason::Head { default_branch: observed.source.default_branch.clone() };
    Some(match (rules.prune, &observed.source.incomplete) {
        (_, Some(why)) => Reason::Incomplete(why.clone()),
        _ if observed.source.is_empty => Reason::NoRefs,
        (Prune::Never, _) => Reason::PruneNever,
        (Prune::Merged | Prune::Deleted, _) if !is_deleted_here => Reason::NeverHad,
        (Prune::Merged, _) if !facts.deleted.is_remote_merged => Reason::RemoteNotMerged,
        (Prune::Merged, _) if !facts.deleted.is_value_merged => Reason::ValueNotMerged,
        (Prune::Deleted, _) if !facts.is_remote_known => Reason::Foreign,
        _ if rules.divergent != Divergent::Overwrite && !facts.is_remote_known => Reason::NotOverwritten,
        _ if facts.kind == Kind::MaybeSymbolic => Reason::MaybeSymbolic,
        _ if observed.mirror.head.as_ref() == Some(&facts.name) => head(),
        _ => return None,
    })
}

/// If a run would delete more refs of one side than the limit allows, it deletes none of them.
/// `selected` is the number of selected refs that the side has.
pub(super) fn hold_mass_deletion(guard: MaxDeletes, selected: usize, side: Side, decisions: &mut [Decision]) {
    let limit = match guard {
        MaxDeletes::Unlimited => return,
        MaxDeletes::Limit(limit) => limit,
        MaxDeletes::Default => (selected / 2).max(50),
    };
    let is_deleted = |decision: &Decision| decision.action == Action::Delete && decision.side == side;
    let count = decisions.iter().filter(|decision| is_deleted(decision)).count();
    if count <= limit {
        return;
    }
    for decision in decisions.iter_mut().filter(|decision| is_deleted(decision)) {
        decision.action = Action::Kept(Reason::TooManyDeletes { count, limit });
    }
}
