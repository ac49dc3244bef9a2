//! How much is sent in one push, after a mirror has shown that everything at once is too much.
//!
//! First fewer refs. Then, for a single branch, slices of its history: the branch is set to an ancestor of its value on the first-parent
//! line, and continues from there. Each slice that arrives is a fast-forward that the mirror keeps, so a crash repeats one slice. Merged
//! side branches are not cut.

use crate::plan::{Action, Decision, Plan};
use crate::push::{Answer, Report};
use crate::refs::{Oid, RefName};
use crate::replies::Cause;
use crate::repo::Repository;
use crate::status::Portion;

use super::observe::Remote;

/// Whether the mirror took nothing because the pack was too large for it.
pub(super) fn is_too_large(report: &Report) -> bool {
    let is_told = |answer: &Answer| matches!(answer, Answer::Refused(message) if Cause::TooLarge.is_in(message));
    !report.answers.is_empty() && report.answers.values().all(is_told)
}

/// The value that the branch of the next push gets first; `None` when its history goes as a whole.
pub(super) fn step(portion: Portion, repository: &Repository, plan: &Plan, there: &Remote) -> Option<(RefName, Oid)> {
    let most = portion.commits?;
    let next = plan.next_push();
    let decision = branch(&next)?;
    let line = repository.first_parents(decision.local?, &there.values);
    let at = line.len().checked_sub(most).filter(|at| *at > 0)?;
    Some((decision.name.clone(), line[at]))
}

/// What is sent the next time, after `sent` was too much. `None` when there is nothing left to cut.
pub(super) fn halved(portion: Portion, repository: &Repository, sent: &[&Decision], there: &Remote) -> Option<Portion> {
    if sent.len() > 1 {
        return Some(Portion { refs: Some(sent.len() / 2), ..portion });
    }
    let line = repository.first_parents(branch(sent)?.local?, &there.values).len();
    let commits = portion.commits.map_or(line, |most| most.min(line));
    (commits > 1).then_some(Portion { refs: Some(1), commits: Some(commits / 2) })
}

/// The branch that is sent alone. Tags are not moved along: a mirror may rightly refuse a tag that changes.
fn branch<'d>(sent: &[&'d Decision]) -> Option<&'d Decision> {
    match sent {
        [one] if one.action != Action::Delete && one.name.branch().is_some() => Some(one),
        _ => None,
    }
}
