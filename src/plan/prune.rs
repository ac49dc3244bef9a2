//! Deletion: the second table of the rules, and its safeguards.

use super::{Action, Decision, Divergent, Kind, MaxDeletes, Mirror, Observed, Prune, RefFacts, Rules};

/// Decides a ref that the mirror has and this repository does not.
pub(super) fn decide(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Action {
    match reason_to_keep(rules, observed, facts) {
        Some(reason) => Action::Kept(reason),
        None if observed.mirror.head_error.is_some() => {
            let why = observed.mirror.head_error.as_deref().unwrap_or_default();
            Action::Defer(format!("not deleted: the mirror's HEAD, which may name it, cannot be read: {why}"))
        }
        None if observed.mirror.can_delete => Action::Delete,
        None => Action::Reject("the mirror does not let refs be deleted (no delete-refs capability)".into()),
    }
}

fn reason_to_keep(rules: &Rules, observed: &Observed, facts: &RefFacts) -> Option<String> {
    if let Some(why) = &observed.source.incomplete {
        return Some(format!("not deleted: the refs of this repository could not be listed completely: {why}"));
    }
    if observed.source.is_empty {
        return Some("not deleted: this repository has no refs at all".into());
    }
    let by_prune = match rules.prune {
        Prune::Never => Some("not here, and prune = \"never\""),
        Prune::Mirror => None,
        Prune::Merged | Prune::Deleted if !facts.deleted.is_known => Some("this repository never had it"),
        Prune::Merged if !facts.deleted.is_remote_merged => {
            Some("deleted here, but what the mirror has is not merged into the default branch")
        }
        Prune::Merged if !facts.deleted.is_value_merged => {
            Some("deleted here, but what was deleted is not merged into the default branch")
        }
        Prune::Deleted if !facts.is_remote_known => {
            Some("deleted here, but the mirror has a value that this repository never had")
        }
        Prune::Merged | Prune::Deleted => None,
    };
    if let Some(reason) = by_prune {
        return Some(reason.into());
    }
    if rules.divergent != Divergent::Overwrite && !facts.is_remote_known {
        return Some("this repository never had the mirror's value, and divergent_refs is not \"overwrite\"".into());
    }
    if facts.kind == Kind::MaybeSymbolic {
        let why = "it may be a symbolic ref, and deleting it would delete the ref that it names; if it is not, delete it on the mirror by hand";
        return Some(format!("this repository never had it, and another ref of the mirror has the same value: {why}"));
    }
    (observed.mirror.head.as_ref() == Some(&facts.name)).then(|| {
        format!(
            "the mirror's HEAD names it; first give the mirror another default branch \
             (git symbolic-ref HEAD refs/heads/{})",
            observed.source.default_branch.as_ref().map_or_else(|| "NAME".into(), |name| name.short())
        )
    })
}

/// Keeps all refs if a run would delete more than the limit.
pub(super) fn hold_mass_deletion(guard: MaxDeletes, mirror: &Mirror, decisions: &mut [Decision]) {
    let limit = match guard {
        MaxDeletes::Unlimited => return,
        MaxDeletes::Limit(limit) => limit,
        MaxDeletes::Default => (mirror.selected / 2).max(50),
    };
    let count = decisions.iter().filter(|decision| decision.action == Action::Delete).count();
    if count <= limit {
        return;
    }
    for decision in decisions.iter_mut().filter(|decision| decision.action == Action::Delete) {
        decision.action = Action::Kept(format!(
            "{count} refs would be deleted at once and the limit is {limit}; if that is right: git mirror-push sync --allow-mass-delete"
        ));
    }
}
