//! What causes trouble with a two-way mirror: branches that only one side protects, rewritten
//! history, and different default branches.

use super::Finding;
use crate::config::Mirror;
use crate::refs::RefName;
use crate::repo::Repository;
use crate::status::{Outcome, RefOutcome};

/// What both sides' settings show. `head` is the branch that the mirror's HEAD names.
pub(super) fn settings(repository: &Repository, mirror: &Mirror, head: Option<&RefName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ours = repository.default_branch().ok().flatten();
    if let (Some(ours), Some(theirs)) = (&ours, head)
        && ours != theirs
    {
        let text = format!(
            "HEAD names {} here and {} there, so the two sides use different branches to judge what is merged and may be deleted",
            ours.short(),
            theirs.short()
        );
        let fix =
            format!("git symbolic-ref HEAD {theirs}; or change the default branch of the mirror to {}", ours.short());
        findings.push(Finding::warning("default-branch", text, fix));
    }
    if !repository.git_flag("receive.denyNonFastForwards") {
        let text = format!(
            "people may rewrite branches here; a rewrite is a conflict when '{}' moves at the same time",
            mirror.name
        );
        let fix =
            "git config receive.denyNonFastForwards true; and protect the branches of the mirror from force pushes";
        findings.push(Finding::warning("force-push", text, fix));
    }
    findings
}

/// What one side refuses and the other accepted.
pub(super) fn protection(mirror: &Mirror, refs: &[RefOutcome]) -> Option<Finding> {
    let refused = |outcome: &&RefOutcome| matches!(outcome.outcome, Outcome::Rejected | Outcome::RemoteRejected);
    let first = refs.iter().find(refused)?;
    let text = format!(
        "one side refuses what the other accepted, for example {}: {}",
        first.name.short(),
        first.reason.as_deref().unwrap_or("no reason given")
    );
    let fix = format!(
        "protect a branch on both sides or on neither, and let the mirror's account push to it: git mirror-push status {}",
        mirror.name
    );
    Some(Finding::warning("protection", text, fix))
}
