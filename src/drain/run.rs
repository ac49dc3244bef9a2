//! One run for one mirror, from its lock to its status.

use jiff::Timestamp;

use super::after::{agreed, keep_held, mend_head, tell};
use super::check::check_upstream;
use super::claim::{Due, claim_due, time_of};
use super::coalesce::coalesce;
use super::contact::{PriorState, is_adopted, run_once};
use super::defer;
use super::fence::{self, Fence};
use super::flapping::remembered;
use super::observe::{Scope, unreadable};
use super::pull::check::Heard;
use super::report::{failed, report};
use super::result::{Times, attempt, next_status};
use super::scope::{names, scope};
use super::update::UpdateResult;
use super::{Check, Context, Error, Mode, Report, fan_out, kept};
use crate::config::{Direction, Mirror};
use crate::durable;
use crate::mirror::{Lock, forget, is_being_removed, prepare};
use crate::repo::Repository;
use crate::spool::{self, Claim};
use crate::status::{self, Mirrored, Runner, Status, UpdateStatus, next_check, render_time};

/// Updates one mirror until nothing new is spooled for it. `None` if there was nothing to do, another drain holds its lock, or it was
/// disabled or removed. A panic ends only this mirror's run.
#[must_use]
pub fn serve(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Option<Report> {
    let served =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve_until_idle(repository, context, mirror)));
    served.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let error = Error::Panicked(text.unwrap_or("no message").to_owned());
        Some(failed(repository, context, mirror, &error))
    })
}

fn serve_until_idle(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Option<Report> {
    let begin = match context.mode {
        Mode::Plan => plan_only(repository, context, mirror).map(Turn::from),
        Mode::Pull(check) if mirror.takes() => check_upstream(repository, context, mirror, check),
        Mode::Pull(_) => Ok(Turn::Idle),
        _ => serve_once(repository, context, mirror, context.mode, None),
    };
    let mut last = match begin {
        Ok(Turn::Report(report)) => *report,
        Ok(Turn::Idle | Turn::Busy | Turn::Unwanted) => return None,
        Err(error) => return Some(failed(repository, context, mirror, &error)),
    };
    // The drain of a push that arrived meanwhile may have found the lock taken, so this one looks
    // again after releasing it.
    while last.is_answered
        && context.mode != Mode::Plan
        && context.only.is_none()
        && has_more(repository, context, mirror)
    {
        let (has_spooled, created_repository) = (last.has_spooled, last.created_repository);
        match serve_once(repository, context, mirror, Mode::Drain, None) {
            Ok(Turn::Report(report)) => {
                last = Report {
                    has_spooled: report.has_spooled || has_spooled,
                    created_repository: report.created_repository || created_repository,
                    ..*report
                };
            }
            Ok(Turn::Idle | Turn::Busy | Turn::Unwanted) => break,
            Err(error) => return Some(Report { has_spooled, ..failed(repository, context, mirror, &error) }),
        }
    }
    Some(last)
}

fn has_more(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> bool {
    let now = fence::since_epoch((context.now)());
    // The mirror may have been removed while the run held its lock. If the configuration cannot be read, the next turn says so.
    let Ok(config) = crate::config::load(repository, context.server) else { return true };
    let context = &Context { config: &config, ..*context };
    let is_given = fan_out(repository, context).is_ok() && config.mirror(&mirror.name).is_some();
    is_given && spool::is_due(&repository.layout(), &mirror.name, now).unwrap_or(true)
}

/// The result of one turn at a mirror.
pub(super) enum Turn {
    /// It was contacted, or is not due yet.
    Report(Box<Report>),
    /// There was nothing to do.
    Idle,
    /// Another drain holds its lock.
    Busy,
    /// It was disabled or removed meanwhile.
    Unwanted,
}

/// One turn: takes the lock, reads the configuration again, and updates the mirror if something is due. `heard` is what upstream said a
/// moment ago, if it was asked.
pub(super) fn serve_once(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    mode: Mode,
    mut heard: Option<Recent>,
) -> Result<Turn, Error> {
    // Somebody who may write the configuration could change it before each read, so the tries are
    // limited.
    const TRIES: u32 = 3;
    for _ in 0..TRIES {
        if let Some(turn) = try_serve(repository, context, mirror, mode, heard.take())? {
            return Ok(turn);
        }
    }
    Ok(Turn::Busy)
}

/// `None` if the mirror's address changed, or the mirror was disabled or removed, between two reads
/// of the configuration.
fn try_serve(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    mode: Mode,
    heard: Option<Recent>,
) -> Result<Option<Turn>, Error> {
    let directory = repository.layout().remote(&mirror.name);
    prepare(repository, &mirror.name)?;
    let lock = match mode {
        // Nobody waits for the result of such a run, so it does not wait for the lock.
        Mode::Drain | Mode::Pull(Check::Due) => match Lock::try_acquire(&directory, repository.sharing())? {
            Some(lock) => lock,
            None => return Ok(Some(Turn::Busy)),
        },
        _ => Lock::acquire(&directory, repository.sharing())?,
    };
    // The mirror may have been changed, disabled or removed since this drain read the configuration.
    let config = crate::config::load(repository, context.server)?;
    let mirror = match config.mirror(&mirror.name) {
        Some(mirror) if mirror.is_enabled => mirror,
        Some(_) => return Ok(Some(Turn::Unwanted)),
        // Another server's file may still name it, so only a removal deletes its files.
        None if is_being_removed(&directory) => {
            forget(&directory).map_err(Error::files("forget a removed mirror", directory))?;
            return Ok(Some(Turn::Unwanted));
        }
        None => {
            // `prepare` may have made it after the removal had ended. A queue with entries stays.
            let _ = durable::remove_empty(&repository.layout().queue(&mirror.name));
            return Ok(Some(Turn::Unwanted));
        }
    };
    let context = &Context { config: &config, ..*context };
    let started = (context.now)();
    let due = claim_due(repository, context, mirror, mode, started)?;
    // Claimed entries may ask for a mirror as it is configured now: a person first changes the
    // file, then requests a sync.
    let config = crate::config::load(repository, context.server)?;
    let is_same = |now: &&Mirror| now.is_enabled && now.identity() == mirror.identity();
    let Some(mirror) = config.mirror(&mirror.name).filter(is_same) else {
        // The claimed entries may be meant for another address.
        drop(lock);
        return Ok(None);
    };
    let context = &Context { config: &config, ..*context };
    match due {
        Due::Now(claim, before) => {
            // If another run ended in between, it may have taken newer values than those in
            // `heard`. If the address was changed, another upstream was heard.
            let is_new =
                |recent: &Recent| recent.generation == before.generation && recent.identity == mirror.identity();
            let heard = heard.filter(is_new).map(|recent| recent.heard);
            let work = Work { mode, claim: &claim, started, heard };
            update_and_record(repository, context, mirror, work, *before).map(Some)
        }
        Due::Not(report) => Ok(Some(report.map_or(Turn::Idle, Turn::Report))),
    }
}

/// What upstream said before the lock was taken.
pub(super) struct Recent {
    /// The number of the last run at that time.
    pub(super) generation: u64,
    /// Whose answer it is; see [`Mirror::identity`].
    pub(super) identity: String,
    pub(super) heard: Result<Heard, Error>,
}

/// What one update is to do.
struct Work<'w> {
    mode: Mode,
    claim: &'w Claim,
    started: Timestamp,
    /// What upstream said a moment ago, if it was asked.
    heard: Option<Result<Heard, Error>>,
}

/// Updates the mirror and records the outcome. Finishes the claimed entries only after that.
fn update_and_record(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    work: Work<'_>,
    before: Status,
) -> Result<Turn, Error> {
    let Work { mode, claim, started, heard } = work;
    let directory = repository.layout().remote(&mirror.name);
    let before = placed(repository, mirror, before);
    let mut touched = coalesce(&claim.records, &claim.waiting);
    touched.is_released |= matches!(mode, Mode::Sync(_));
    let open = || Mirrored::open(&directory, &mirror.identity(), repository).map_err(unreadable);
    let mirrored = open()?;
    let is_retry_due = before.next_attempt().is_some_and(|next| next <= started);
    let scope = match context.only {
        Some(names) => Scope::Refs(names.clone()),
        None => scope(mode, mirror, &touched, &before, mirrored.exists(), is_retry_due),
    };
    let known = PriorState { touched: &touched, mirrored: &mirrored, before: &before, is_first: !mirrored.exists() };
    let fence = Fence::after(&before, directory.clone(), started);
    write_started(repository, mirror, &before, &fence, &scope, started)?;
    let is_full = matches!(scope, Scope::All);
    let (mut result, credentials) = run_once(repository, context, mirror, scope, &known, Some(&fence), heard);
    leave_if_superseded(repository, context, mirror, &fence, &result)?;
    // A two-way mirror has noted its base already.
    let mirrored = if mirror.direction == Direction::Both { open()? } else { mirrored };
    let is_known = keep_held(&mirrored, &mut result, is_adopted(mirror, &touched));
    if matches!(mode, Mode::Reconcile | Mode::Sync(_)) {
        expire(repository, mirror, started);
    }
    if mirror.sends() && result.error.is_none() {
        mend_head(repository, mirror, &result, &mirrored);
    }
    let ended = (context.now)();
    let look = fence::look_time(mirror, ended);
    fence::look_at(repository, mirror, claim, &result.unanswered, look, ended)?;
    let next_look = [claim.next_look().and_then(time_of), Some(look).filter(|_| !result.unanswered.is_empty())];
    let times =
        Times { started, ended, random: (context.random)(), is_full, next_look: next_look.into_iter().flatten().min() };
    let mut after = next_status(&before, &result, &credentials, mirror, &times);
    (after.generation, after.tried_settings) = (fence.generation, Some(defer::settings(context, mirror)));
    after.address = if is_known { Some(mirror.identity()) } else { before.address };
    let moves = if touched.is_released { &[][..] } else { &before.moves };
    after.moves = remembered(moves, result.outcomes.values(), ended);
    after.tried_up_to = match context.only {
        // A run for refs that were asked for by name has not tried the queue.
        Some(_) => before.tried_up_to,
        None => claim.names.last().filter(|_| !result.is_answered()).cloned(),
    };
    record(repository, context, mirror, claim, &result, &mut after, started)?;
    let next_check = next_check(&repository.layout().remote(&mirror.name), &after, ended, context.since);
    let mut done = report(repository, mirror, &credentials, after, result);
    // A drain that waits for the next attempt must also wake up for the next look.
    done.next_attempt_at = [done.next_attempt_at, times.next_look].into_iter().flatten().min();
    if mirror.takes() {
        done.next_attempt_at = next_check;
    }
    Ok(done.into())
}

/// The status with the path of this repository, or of the one that it is a copy of.
fn placed(repository: &Repository, mirror: &Mirror, status: Status) -> Status {
    let original = status::original(&status, repository.git_dir(), mirror);
    let path = original.as_deref().unwrap_or(repository.git_dir()).to_str().map(str::to_owned);
    Status { repository: path, ..status }
}

/// Deletes kept values whose time has passed. An error is only logged, so that the run is recorded
/// in any case.
fn expire(repository: &Repository, mirror: &Mirror, now: Timestamp) {
    if let Err(error) = kept::expire(repository, &mirror.name, mirror.pull.keep_rewritten, now) {
        tracing::warn!("mirror '{}': {error}", mirror.name);
    }
}

/// Writes the outcome durably, then finishes the queue entries that led to it.
fn record(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    claim: &Claim,
    result: &UpdateResult,
    after: &mut Status,
    started: Timestamp,
) -> Result<(), Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let files = |doing| Error::files(doing, directory.clone());
    status::write(&directory, after, repository.sharing()).map_err(files("write the status"))?;
    status::append(&directory, &attempt(result, after, started)).map_err(files("write the history"))?;
    tell(repository, context, mirror, &directory, after)?;
    // A run for refs that were asked for by name does not cover the whole queue.
    if result.is_answered() && context.only.is_none() {
        spool::finish(&layout, &mirror.name, &claim.names).map_err(files("finish spool entries"))?;
    }
    Ok(())
}

/// Writes the `started` status, with the generation of this run and the refs that it may change.
fn write_started(
    repository: &Repository,
    mirror: &Mirror,
    before: &Status,
    fence: &Fence,
    scope: &Scope,
    started: Timestamp,
) -> Result<(), Error> {
    let working = Status {
        update_status: UpdateStatus::Started,
        last_update_started_at: Some(render_time(started)),
        pid: Some(std::process::id()),
        runner: Some(Runner::this()),
        generation: fence.generation,
        // A run of a two-way mirror may change any ref, whatever its scope.
        at_work: names(scope).filter(|_| mirror.direction != Direction::Both),
        tried_address: Some(mirror.identity()),
        ..before.clone()
    };
    let directory = repository.layout().remote(&mirror.name);
    let written = status::write_passing(&directory, &working, repository.sharing());
    written.map_err(Error::files("write the status", directory))
}

/// If another run has begun meanwhile, writes only records of what the mirror accepted and of what it did not answer, and returns
/// [`Error::Superseded`].
fn leave_if_superseded(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    fence: &Fence,
    result: &UpdateResult,
) -> Result<(), Error> {
    match fence.check() {
        Err(Error::Superseded) => {}
        checked => return checked,
    }
    let now = (context.now)();
    let others = Claim::default();
    fence::look_at(repository, mirror, &others, &agreed(result), now, now)?;
    fence::look_at(repository, mirror, &others, &result.unanswered, fence::look_time(mirror, now), now)?;
    Err(Error::Superseded)
}

impl From<Report> for Turn {
    fn from(report: Report) -> Self {
        Self::Report(Box::new(report))
    }
}

fn plan_only(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Result<Report, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let records = spool::peek(&layout, &mirror.name).map_err(Error::files("read the queue", directory.clone()))?;
    let mirrored = Mirrored::open(&directory, &mirror.identity(), repository).map_err(unreadable)?;
    let touched = coalesce(&records, &[]);
    let last = status::of(&layout, mirror).unwrap_or_default();
    let last_successful_update_at = last.last_successful_update_at;
    let before = Status { moves: last.moves, last_successful_update_at, ..Status::default() };
    let known = PriorState { touched: &touched, mirrored: &mirrored, before: &before, is_first: !mirrored.exists() };
    let (result, credentials) = run_once(repository, context, mirror, Scope::All, &known, None, None);
    let now = (context.now)();
    let times = Times { started: now, ended: now, random: 0, is_full: true, next_look: None };
    let after = next_status(&Status::default(), &result, &credentials, mirror, &times);
    Ok(report(repository, mirror, &credentials, after, result))
}
