//! One run of a two-way mirror: first what is decided for this repository, then what is decided for the mirror.
//!
//! ```text
//! pull ─▶ base ─▶ push ─▶ base      again, at most three times, while a ref moves in between
//! ```
//!
//! Guaranteed: the pull decides every ref. The push carries out only what was decided for the mirror, and only if both sides still have
//! the values that were decided on. The base is written after each half, so that a run that is killed at any point leaves a state that the
//! table of `plan` knows. Absent: the table.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::after::keep_held;
use super::coalesce::Touched;
use super::contact::{Contact, PriorState, is_adopted, pull, push};
use super::observe::{Scope, unreadable};
use super::pull::check::Heard;
use super::update::UpdateResult;
use super::{Error, Mode};
use crate::plan::{Decided, Plan, Side};
use crate::refs::{Local, Oid, RefName};
use crate::repo::{History, Repository};
use crate::status::{Mirrored, Outcome, Past, RefOutcome, note_past};

/// How often a ref may move while a run is at work.
const ROUNDS: u32 = 3;

/// Values that refs of this repository have left.
#[derive(Debug, Default)]
pub(super) struct Left<'t> {
    touched: Option<&'t Touched>,
    past: Option<Past>,
}

impl<'t> Left<'t> {
    /// What is spooled and what is noted.
    pub(super) fn of(repository: &Repository, touched: &'t Touched, now: Timestamp) -> Self {
        Self { touched: Some(touched), past: Some(Past::of(&repository.layout(), now)) }
    }

    /// Whether a ref had this value and left it.
    pub(super) fn contains(&self, name: &RefName, value: Oid) -> bool {
        let known = self.touched.and_then(|touched| touched.refs.get(name));
        known.is_some_and(|known| known.olds.contains(&value))
            || self.past.as_ref().is_some_and(|past| past.contains(name, value))
    }
}

/// Runs both halves.
pub(super) fn both(
    contact: &Contact<'_>,
    scope: &Scope,
    known: &PriorState<'_>,
    mut heard: Option<Result<Heard, Error>>,
) -> Result<UpdateResult, Error> {
    if let Some(result) = nothing_new(contact, scope, known)? {
        return Ok(result);
    }
    let is_dry = contact.context.mode == Mode::Plan;
    if !is_dry {
        note_left(contact, known.touched)?;
    }
    let mut whole = UpdateResult::default();
    for round in 1.. {
        let mirrored = open(contact)?;
        let now = PriorState { mirrored: &mirrored, ..*known };
        let mut taken = pull(contact, &now, heard.take());
        let decided = std::mem::take(&mut taken.for_mirror);
        let is_left = |outcome: &&RefOutcome| matches!(outcome.outcome, Outcome::Forced | Outcome::Deleted);
        let replaced = taken.outcomes.values().filter(is_left);
        let replaced = replaced.filter_map(|outcome| Some((outcome.name.clone(), outcome.local?)));
        note_left_values(contact, &replaced.collect::<Vec<_>>())?;
        whole = joined(whole, taken);
        note(contact, known, &mirrored, &mut whole)?;
        if whole.error.is_some() || decided.is_empty() {
            break;
        }
        let mirrored = open(contact)?;
        let now = PriorState { mirrored: &mirrored, ..*known };
        let scope = Scope::Refs(decided.keys().cloned().collect());
        let sent = push(contact, scope, &now, decided.clone())?;
        let has_moved = !is_dry && sent.error.is_none() && has_moved(&decided, &sent.outcomes);
        let has_changed = sent.outcomes.values().any(|outcome| outcome.outcome != Outcome::Kept);
        whole = joined(whole, sent);
        note(contact, known, &mirrored, &mut whole)?;
        if let Some(pull) = whole.pull.as_mut().filter(|_| has_changed) {
            // What was seen of the mirror is not what it has now.
            pull.seen = None;
        }
        if !has_moved || round == ROUNDS {
            break;
        }
    }
    Ok(whole)
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

/// The result of a run that need not contact the mirror: the refs that were pushed here are as the mirror has them, which is so after every
/// pull, because its hook records what was taken.
fn nothing_new(contact: &Contact<'_>, scope: &Scope, known: &PriorState<'_>) -> Result<Option<UpdateResult>, Error> {
    let Scope::Refs(names) = scope else { return Ok(None) };
    let (touched, before) = (known.touched, known.before);
    let is_settled = before.pull.as_ref().is_some_and(|pull| pull.seen.is_some() && !pull.has_failed);
    if !is_settled || touched.needs_look || touched.is_released || names.iter().any(|name| !touched.due.contains(name))
    {
        return Ok(None);
    }
    let found = contact.repository.find_each(&names.iter().collect::<Vec<_>>())?;
    for (name, local) in names.iter().zip(found) {
        let base = known.mirrored.find(name).map_err(unreadable)?.base;
        if base.map_or(Local::Absent, Local::At) != local {
            return Ok(None);
        }
    }
    Ok(Some(UpdateResult { pull: before.pull.clone(), ..UpdateResult::default() }))
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
    note_left_values(contact, &left)
}

fn note_left_values(contact: &Contact<'_>, left: &[(RefName, Oid)]) -> Result<(), Error> {
    let noted = note_past(contact.repository, left, (contact.context.now)());
    noted.map_err(Error::files("note what refs have left", contact.repository.layout().past()))
}

/// Whether a ref was not decided for good because one side moved it.
fn has_moved(decided: &BTreeMap<RefName, Decided>, outcomes: &BTreeMap<RefName, RefOutcome>) -> bool {
    decided.iter().any(|(name, decided)| {
        let outcome = outcomes.get(name).filter(|outcome| !outcome.outcome.is_done());
        outcome.is_some_and(|now| now.local != decided.local || now.remote != decided.remote)
    })
}

/// Both results as one. What the second says of a ref counts.
fn joined(first: UpdateResult, second: UpdateResult) -> UpdateResult {
    let (mut outcomes, mut held, mut looked, mut unanswered) =
        (first.outcomes, first.held, first.looked, first.unanswered);
    outcomes.extend(second.outcomes);
    held.extend(second.held);
    looked.extend(second.looked);
    unanswered.extend(second.unanswered);
    UpdateResult {
        outcomes,
        held,
        looked,
        unanswered,
        scanned: second.scanned.or(first.scanned),
        pull: second.pull.or(first.pull),
        was_blank: first.was_blank || second.was_blank,
        has_compared_all: first.has_compared_all || second.has_compared_all,
        has_spooled: first.has_spooled || second.has_spooled,
        ..second
    }
}

/// What is decided for the mirror, of the decisions of a pull.
pub(super) fn for_mirror(plan: &Plan) -> BTreeMap<RefName, Decided> {
    let sent = plan.decisions.iter().filter(|one| one.side == Side::There && one.action.is_sent());
    sent.map(|one| {
        let (local, remote, base, action, keeps) = (one.local, one.remote, one.base, one.action.clone(), one.keeps);
        (one.name.clone(), Decided { local, remote, action, base, keeps })
    })
    .collect()
}

#[cfg(test)]
mod model;
