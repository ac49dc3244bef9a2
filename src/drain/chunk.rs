//! The size of a push, after a mirror has shown that a whole push is too large.
//!
//! The first step is fewer refs per push. A single branch is then sent in slices of its history: each push sets it to a later ancestor of
//! its value on the first-parent line. Each slice after the first is a fast-forward. The mirror keeps each slice, so a crash repeats at
//! most one. Merged side branches are not split.

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

/// The only branch of the next push, and the ancestor to which this push sets it. `None` if the next push is not a slice of one branch.
pub(super) fn step(portion: Portion, repository: &Repository, plan: &Plan, there: &Remote) -> Option<(RefName, Oid)> {
    let most = portion.commits?;
    let next = plan.next_push();
    let decision = branch(&next)?;
    let line = repository.first_parents(decision.local?, &there.values);
    let at = line.len().checked_sub(most).filter(|at| *at > 0)?;
    Some((decision.name.clone(), line[at]))
}

/// The smaller size of the next push, after the objects of `packed` were too large. `None` if nothing is left to split.
pub(super) fn halved(
    portion: Portion,
    repository: &Repository,
    packed: &[&Decision],
    there: &Remote,
) -> Option<Portion> {
    if packed.len() > 1 {
        return Some(Portion { refs: Some(packed.len() / 2), ..portion });
    }
    let line = repository.first_parents(branch(packed)?.local?, &there.values).len();
    let commits = portion.commits.map_or(line, |most| most.min(line));
    (commits > 1).then_some(Portion { refs: Some(1), commits: Some(commits / 2) })
}

/// The branch of a push that has no other ref. A tag is never sent in slices: a mirror may refuse a tag that changes.
fn branch<'d>(sent: &[&'d Decision]) -> Option<&'d Decision> {
    match sent {
        [one] if one.action != Action::Delete && one.name.branch().is_some() => Some(one),
        _ => None,
    }
}
