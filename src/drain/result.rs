//! The result of a run: the next status, when the next attempt is due, and the line of the history. Pure.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::absent::Presence;
use super::backoff::{MAX_RETRY_AFTER, delay};
use super::cause::cause;
use super::explained;
use super::update::UpdateResult;
use crate::config::Mirror;
use crate::credentials::{Cleaned, Credentials};
use crate::plan::Side;
use crate::refs::RefName;
use crate::status::{
    Attempt, Failures, Greeting, Outcome, Portion, PullState, RefOutcome, Replaced, Status, UpdateStatus, render_time,
};
use crate::wire::Class;

/// The times and other inputs of one run.
pub(super) struct Times {
    pub(super) started: Timestamp,
    pub(super) ended: Timestamp,
    /// Chance, for the jitter.
    pub(super) random: u64,
    /// Whether everything that is selected was in scope.
    pub(super) is_full: bool,
    /// When to read refs again that an unanswered push may still change.
    pub(super) next_look: Option<Timestamp>,
}

/// The refs that are not up to date after a run, and those that the rules kept.
fn listed_refs(before: &Status, result: &UpdateResult) -> Vec<RefOutcome> {
    let mut refs: BTreeMap<RefName, RefOutcome> = BTreeMap::new();
    if result.scanned.is_none() {
        refs.extend(before.refs.iter().map(|outcome| (outcome.name.clone(), outcome.clone())));
    }
    // A ref that was read and has no outcome is on neither side, is symbolic, or is not selected.
    refs.retain(|name, _| !result.looked.contains(name));
    for outcome in result.outcomes.values() {
        refs.remove(&outcome.name);
        if outcome.outcome.is_listed() {
            refs.insert(outcome.name.clone(), outcome.clone());
        }
    }
    refs.into_values().collect()
}

fn update_status(result: &UpdateResult, refs: &[RefOutcome], run: &Times) -> UpdateStatus {
    match &result.error {
        Some(error) if error.class() == Class::Permanent => UpdateStatus::Failed,
        Some(_) => UpdateStatus::Scheduled,
        None if !result.is_answered() => UpdateStatus::Scheduled,
        None if refs.iter().any(|outcome| outcome.outcome.is_failure()) => UpdateStatus::Failed,
        None if run.next_look.is_some() => UpdateStatus::Scheduled,
        None => UpdateStatus::Finished,
    }
}

/// The status after a run.
pub(super) fn next_status(
    before: &Status,
    result: &UpdateResult,
    credentials: &Credentials,
    mirror: &Mirror,
    run: &Times,
) -> Status {
    let refs = listed_refs(before, result);
    let update_status = update_status(result, &refs, run);
    let is_well = result.is_well(&refs);
    let last_error = match &result.error {
        Some(error) => Some(explained(error, mirror, credentials)),
        None if is_well => None,
        None => Some(summary(&refs)),
    };
    let turn = result.error.as_ref().and_then(super::Error::turn);
    let (attempts, failing_since) = streak(before, is_well, turn.is_some(), run.started);
    let next = match (run.next_look, turn) {
        (Some(look), _) if is_well => Some(look),
        (_, Some(turn)) => run.ended.checked_add(turn.min(MAX_RETRY_AFTER)).ok(),
        _ => next_attempt(before, update_status, result, mirror, run),
    };
    let ended = render_time(run.ended);
    let capabilities = result.capabilities.clone().filter(|_| update_status == UpdateStatus::Finished);
    Status {
        version: before.version,
        update_status,
        last_error,
        last_update_at: Some(ended.clone()),
        last_update_started_at: Some(render_time(run.started)),
        last_successful_update_at: if is_well { Some(ended) } else { before.last_successful_update_at.clone() },
        attempts,
        next_attempt_at: next.map(render_time),
        tried_up_to: None,
        last_full_at: if run.is_full { Some(render_time(run.started)) } else { before.last_full_at.clone() },
        failing_since,
        notified_at: before.notified_at.clone(),
        failures: counted(before.failures, result, update_status, is_well || turn.is_some()),
        // The next run relies on the capabilities only if the status of this one is finished.
        greeting: capabilities.map(|capabilities| Greeting { url: mirror.address.shown(credentials), capabilities }),
        portion: if result.is_answered() { Portion::default() } else { result.portion },
        pid: None,
        runner: None,
        at_work: None,
        // The caller replaces the generation, the address, the settings and the moves. It has set
        // the repository in `before`.
        generation: before.generation,
        address: before.address.clone(),
        repository: before.repository.clone(),
        tried_address: Some(mirror.identity()),
        tried_settings: before.tried_settings.clone(),
        moves: before.moves.clone(),
        needs_adoption: result.error.as_ref().is_some_and(super::Error::needs_adoption),
        pull: pull_state(before, result),
        cause: cause(result, &refs, mirror),
        created_repository: before.created_repository || result.creation == Presence::Created,
        refs,
    }
}

/// How many attempts there were since the last success, and when the first of them failed. A mirror
/// that waits for its turn to be created (`waits`) has not failed again. But it has at least one
/// attempt, because `next_attempt_at` delays only a mirror with failed attempts.
fn streak(before: &Status, is_well: bool, waits: bool, started: Timestamp) -> (u32, Option<String>) {
    let since = before.failing_since.clone();
    match (is_well, waits) {
        (true, _) => (0, None),
        (false, true) => (before.attempts.max(1), since),
        (false, false) => (before.attempts.saturating_add(1), since.or_else(|| Some(render_time(started)))),
    }
}

/// The counters of failures after this attempt. With `no_failure`, they stay as they were.
fn counted(before: Failures, result: &UpdateResult, update_status: UpdateStatus, no_failure: bool) -> Failures {
    let mut failures = before;
    match (&result.error, update_status) {
        _ if no_failure => {}
        (_, UpdateStatus::Scheduled) => failures.temporary += 1,
        (Some(_), UpdateStatus::Failed) => failures.permanent += 1,
        (None, UpdateStatus::Failed) => failures.refs += 1,
        _ => {}
    }
    failures
}

/// One line that names the first refs that are not up to date.
fn summary(refs: &[RefOutcome]) -> Cleaned {
    const NAMED: usize = 5;
    let failed: Vec<&RefOutcome> = refs.iter().filter(|outcome| outcome.outcome.is_failure()).collect();
    let named = failed
        .iter()
        .take(NAMED)
        .map(|outcome| format!("{} ({})", outcome.name, outcome.outcome.as_str().replace('_', " ")));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if failed.len() > NAMED {
        text.push_str(&format!(" and {} more", failed.len() - NAMED));
    }
    let subject = if failed.len() == 1 {
        "1 ref is not up to date"
    } else {
        &format!("{} refs are not up to date", failed.len())
    };
    let place = if failed.iter().any(|outcome| outcome.side == Side::There) { "on the mirror" } else { "here" };
    Cleaned::default().and_ours(&format!("{subject} {place}: {text}"))
}

pub(super) fn attempt(result: &UpdateResult, after: &Status, started: Timestamp) -> Attempt {
    let count =
        |wanted: fn(Outcome) -> bool| result.outcomes.values().filter(|outcome| wanted(outcome.outcome)).count();
    Attempt {
        started_at: render_time(started),
        finished_at: after.last_update_at.clone().unwrap_or_default(),
        update_status: after.update_status,
        updated: count(|outcome| !outcome.is_listed() && outcome != Outcome::UpToDate),
        failed: count(Outcome::is_failure),
        objects: result.progress.objects.load(Ordering::Relaxed),
        bytes: result.progress.bytes.load(Ordering::Relaxed),
        error: after.last_error.clone(),
        replaced: result.outcomes.values().filter_map(replaced).collect(),
    }
}

/// The value that a forced update or a deletion replaced, or that was kept.
fn replaced(outcome: &RefOutcome) -> Option<Replaced> {
    // A conflict replaces nothing: the ref in `kept_as` only shows what the mirror has.
    let is_kept = outcome.kept_as.is_some() && outcome.outcome != Outcome::Conflict;
    let is_lost = matches!(outcome.outcome, Outcome::Forced | Outcome::Deleted) || is_kept;
    let old = outcome.old_value().filter(|_| is_lost)?.to_string();
    Some(Replaced { name: outcome.name.text().into_owned(), old, new: outcome.new_value().map(|oid| oid.to_string()) })
}

/// When to retry without a new push; `None` if a retry would change nothing.
fn next_attempt(
    before: &Status,
    update_status: UpdateStatus,
    result: &UpdateResult,
    mirror: &Mirror,
    run: &Times,
) -> Option<Timestamp> {
    // Pushes to other refs do not postpone the retry of refs that failed.
    let standing = before.next_attempt().filter(|next| before.update_status == update_status && *next > run.ended);
    if update_status == UpdateStatus::Failed && standing.is_some() {
        return standing;
    }
    let class = match update_status {
        UpdateStatus::Scheduled => Class::Temporary,
        UpdateStatus::Failed => Class::Permanent,
        _ => return None,
    };
    let wish = result.error.as_ref().and_then(super::Error::retry_after);
    run.ended.checked_add(delay(mirror.waits, class, before.attempts.saturating_add(1), wish, run.random)).ok()
}

fn pull_state(before: &Status, result: &UpdateResult) -> Option<PullState> {
    let pull = result.pull.clone().or_else(|| before.pull.clone())?;
    Some(PullState { has_failed: result.error.is_some(), ..pull })
}
