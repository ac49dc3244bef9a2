//! One run of a two-way mirror: first what is decided for this repository, then what is decided for the mirror.
//!
//! ```text
//! pull ─▶ base ─▶ push ─▶ base      at most three rounds, while a ref moves in between
//! ```
//!
//! Guaranteed: the pull decides every ref. The push carries out only what was decided for the mirror, and only if both sides still have
//! the values that were decided on. The base is written after each half, so that a run that is killed at any point leaves a state that the
//! table of `plan` has a cell for. Absent: the table itself, which is `plan::both`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::absent::Presence;
use super::after::keep_held;
use super::coalesce::Touched;
use super::contact::{Contact, PriorState, is_adopted, pull, push};
use super::observe::{Scope, unreadable};
use super::pull::check::Heard;
use super::update::UpdateResult;
use super::{Check, Error, Mode};
use crate::plan::{Decided, Plan, Side};
use crate::refs::{Local, Oid, RefName};
use crate::repo::{History, Repository};
use crate::status::{Mirrored, Outcome, Past, RefOutcome, UpdateStatus, note_past};

/// Maximum number of rounds in a run. A round follows if a ref moved during the one before.
const ROUNDS: u32 = 3;

/// Earlier values of refs of this repository.
#[derive(Debug, Default)]
pub(super) struct Left<'t> {
    mirror: &'t str,
    touched: Option<&'t Touched>,
    past: Option<Past>,
}

impl<'t> Left<'t> {
    /// Reads them from the spooled pushes (`touched`) and from the file `mirror-push/past`.
    pub(super) fn of(repository: &Repository, mirror: &'t str, touched: &'t Touched, now: Timestamp) -> Self {
        Self { mirror, touched: Some(touched), past: Some(Past::of(&repository.layout(), now)) }
    }

    /// Whether the ref had this value earlier. A value that this mirror replaced does not count.
    pub(super) fn contains(&self, name: &RefName, value: Oid) -> bool {
        let known = self.touched.and_then(|touched| touched.refs.get(name));
        match self.past.as_ref().and_then(|past| past.find(name, value)) {
            Some(by) => by != Some(self.mirror),
            None => known.is_some_and(|known| known.olds.contains(&value)),
        }
    }
}

/// Runs both halves.
pub(super) fn both(
    contact: &Contact<'_>,
    scope: &Scope,
    known: &PriorState<'_>,
    heard: Option<Result<Heard, Error>>,
) -> UpdateResult {
    let mut whole = UpdateResult::default();
    if let Err(error) = halves(contact, scope, known, heard, &mut whole) {
        whole.error = Some(error);
    }
    whole
}

fn halves(
    contact: &Contact<'_>,
    scope: &Scope,
    known: &PriorState<'_>,
    mut heard: Option<Result<Heard, Error>>,
    whole: &mut UpdateResult,
) -> Result<(), Error> {
    if is_known(contact, scope, known)? {
        whole.pull = known.before.pull.clone();
        return Ok(());
    }
    let is_dry = contact.context.mode == Mode::Plan;
    if !is_dry {
        note_left(contact, known.touched)?;
    }
    for round in 1..=ROUNDS {
        let mirrored = open(contact)?;
        let mut taken = pull(contact, &PriorState { mirrored: &mirrored, ..*known }, heard.take());
        let mut decided = std::mem::take(&mut taken.for_mirror);
        join(whole, taken);
        note(contact, known, &mirrored, whole)?;
        park(contact, known, &mut decided, whole);
        if whole.error.is_some() || decided.is_empty() {
            break;
        }
        let mirrored = open(contact)?;
        let scope = Scope::Refs(decided.keys().cloned().collect());
        let known = &PriorState { mirrored: &mirrored, ..*known };
        let sent = push(contact, scope, known, decided.clone(), Presence::There)?;
        let has_moved = !is_dry && sent.error.is_none() && has_moved(&decided, &sent.outcomes);
        let is_new = |outcome: &RefOutcome| outcome.outcome.is_done() || outcome.outcome == Outcome::RemoteFailed;
        let has_changed = sent.outcomes.values().any(is_new);
        join(whole, sent);
        note(contact, known, &mirrored, whole)?;
        if let Some(pull) = whole.pull.as_mut().filter(|_| has_changed) {
            // This push changed the mirror, so `seen` is stale.
            pull.seen = None;
        }
        if !has_moved {
            break;
        }
        if round == ROUNDS {
            explain_hidden(&decided, whole);
        }
    }
    Ok(())
}

/// Skips what the mirror refused before, until there is a reason to try again: a push to the ref, a
/// request of a person, or the time of the retry.
fn park(
    contact: &Contact<'_>,
    known: &PriorState<'_>,
    decided: &mut BTreeMap<RefName, Decided>,
    whole: &mut UpdateResult,
) {
    let is_retry_due = known.before.next_attempt().is_some_and(|next| next <= (contact.context.now)());
    let is_quiet = matches!(contact.context.mode, Mode::Drain | Mode::Pull(Check::Due));
    if !is_quiet || is_retry_due || known.touched.is_full {
        return;
    }
    for refused in known.before.refs.iter().filter(|outcome| outcome.outcome == Outcome::RemoteRejected) {
        let is_same = |one: &Decided| (one.local, one.remote) == (refused.local, refused.remote);
        if !known.touched.due.contains(&refused.name) && decided.get(&refused.name).is_some_and(is_same) {
            decided.remove(&refused.name);
            whole.outcomes.insert(refused.name.clone(), refused.clone());
        }
    }
}

/// Sets the reason of refs that still differ from the decision after the last round. Either
/// upload-pack shows such a ref and receive-pack hides it, or the other way round.
fn explain_hidden(decided: &BTreeMap<RefName, Decided>, whole: &mut UpdateResult) {
    for (name, one) in decided {
        let Some(outcome) = whole.outcomes.get_mut(name).filter(|now| !now.outcome.is_done()) else { continue };
        let why = match (one.remote, outcome.remote) {
            _ if outcome.local != one.local => continue,
            (Some(_), None) => "the mirror shows it to readers and hides it from pushes",
            (None, Some(_)) => "the mirror has it and hides it from readers",
            _ => continue,
        };
        outcome.outcome = Outcome::RemoteRejected;
        outcome.remote = one.remote;
        outcome.reason = Some(why.into());
    }
}

fn open(contact: &Contact<'_>) -> Result<Mirrored, Error> {
    let directory = contact.repository.layout().remote(&contact.mirror.name);
    Mirrored::open(&directory, &contact.mirror.identity(), contact.repository).map_err(unreadable)
}

/// Stores the new base durably.
fn note(
    contact: &Contact<'_>,
    known: &PriorState<'_>,
    mirrored: &Mirrored,
    result: &mut UpdateResult,
) -> Result<(), Error> {
    if let Some(fence) = contact.fence {
        fence.check()?;
        keep_held(mirrored, result, is_adopted(contact.mirror, known.touched));
    }
    result.held.clear();
    Ok(())
}

/// Whether the mirror need not be contacted, because it already has the refs that were pushed here.
/// That is so after every pull: the hook records what was taken from the mirror.
fn is_known(contact: &Contact<'_>, scope: &Scope, known: &PriorState<'_>) -> Result<bool, Error> {
    let Scope::Refs(names) = scope else { return Ok(false) };
    let (touched, before) = (known.touched, known.before);
    let is_settled = before.update_status == UpdateStatus::Finished
        && before.pull.as_ref().is_some_and(|pull| pull.seen.is_some() && !pull.has_failed);
    let is_listed = |name: &RefName| before.refs.iter().any(|outcome| outcome.name == *name);
    if !is_settled
        || touched.needs_look
        || touched.is_released
        || names.iter().any(|name| !touched.due.contains(name) || is_listed(name))
    {
        return Ok(false);
    }
    let found = contact.repository.find_each(&names.iter().collect::<Vec<_>>())?;
    for (name, local) in names.iter().zip(found) {
        let base = known.mirrored.find(name).map_err(unreadable)?.base;
        if base.map_or(Local::Absent, Local::At) != local {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Notes the values that pushes rewrote or deleted.
fn note_left(contact: &Contact<'_>, touched: &Touched) -> Result<(), Error> {
    let names: Vec<&RefName> = touched.refs.keys().collect();
    let found = contact.repository.find_each(&names)?;
    let graph = contact.repository.commit_graph();
    let mut history = History::new(contact.repository, graph.as_ref());
    let mut left = Vec::new();
    for ((name, known), local) in touched.refs.iter().zip(found) {
        for old in &known.olds {
            let is_contained = match local {
                Local::At(local) => local == *old || history.is_ancestor(*old, local)? == Some(true),
                _ => false,
            };
            if !is_contained {
                left.push((name.clone(), *old));
            }
        }
    }
    note_in_past(contact.repository, &left, None, (contact.context.now)())
}

/// Notes values in `mirror-push/past`; see [`note_past`].
pub(super) fn note_in_past(
    repository: &Repository,
    left: &[(RefName, Oid)],
    by: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    note_past(repository, left, by, now)
        .map_err(Error::files("record the earlier values of refs", repository.layout().past()))
}

/// Whether one side moved a ref after the decision, so that the ref was not updated.
fn has_moved(decided: &BTreeMap<RefName, Decided>, outcomes: &BTreeMap<RefName, RefOutcome>) -> bool {
    decided.iter().any(|(name, decided)| {
        let outcome = outcomes.get(name).filter(|outcome| !outcome.outcome.is_done());
        outcome.is_some_and(|now| now.local != decided.local || now.remote != decided.remote)
    })
}

/// Adds the result of the next half. For a ref that the next half looked at, its outcome replaces
/// the earlier one. If the next half has no outcome for the ref, the earlier one is removed, unless
/// the ref was updated.
fn join(whole: &mut UpdateResult, next: UpdateResult) {
    let before = std::mem::take(whole);
    let is_looked_at = |name: &RefName| next.scanned.is_some() || next.looked.contains(name);
    let mut outcomes = before.outcomes;
    outcomes
        .retain(|name, outcome| outcome.outcome.is_done() || next.outcomes.contains_key(name) || !is_looked_at(name));
    for (name, outcome) in next.outcomes {
        let kept_as =
            outcomes.get(&name).and_then(|before| before.kept_as.clone()).filter(|_| outcome.outcome.is_done());
        outcomes.insert(name, RefOutcome { kept_as: outcome.kept_as.or(kept_as), ..outcome });
    }
    let (mut held, mut looked, mut unanswered) = (before.held, before.looked, before.unanswered);
    held.extend(next.held);
    looked.extend(next.looked);
    unanswered.extend(next.unanswered);
    *whole = UpdateResult {
        outcomes,
        held,
        looked,
        unanswered,
        scanned: next.scanned.or(before.scanned),
        pull: next.pull.or(before.pull),
        was_blank: before.was_blank || next.was_blank,
        has_compared_all: before.has_compared_all || next.has_compared_all,
        has_spooled: before.has_spooled || next.has_spooled,
        ..next
    };
}

/// The decisions of a pull that change the mirror.
pub(super) fn for_mirror(plan: &Plan) -> BTreeMap<RefName, Decided> {
    let sent = plan.decisions.iter().filter(|one| one.side == Side::There && one.action.is_sent());
    sent.map(|one| {
        let (local, remote, base, action) = (one.local, one.remote, one.base, one.action.clone());
        (one.name.clone(), Decided { local, remote, action, base })
    })
    .collect()
}

#[cfg(test)]
mod model;
