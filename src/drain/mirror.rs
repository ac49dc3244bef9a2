//! One mirror from lock to status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::coalesce::{Touched, coalesce};
use super::contact::{Contact, Run};
use super::observe::{Past, Scope};
use super::{Context, Error, Lock, Mode, Report, cleaned, credentials, fan_out, new_id, prepare, target};
use crate::config::Mirror;
use crate::credentials::{Credentials, Redactor};
use crate::plan::Divergent;
use crate::push::{Class, Progress};
use crate::refs::RefName;
use crate::repo::Repository;
use crate::spool;
use crate::status::{self, Attempt, Mirrored, Outcome, RefOutcome, Status, UpdateStatus, render_time};

/// Serves one mirror until nothing new is spooled for it. `None` when there was nothing to do, or another drain is at it.
pub(super) fn serve(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Option<Report> {
    let begin = match context.mode {
        Mode::Plan => plan_only(repository, context, mirror).map(Some),
        _ => serve_once(repository, context, mirror, context.mode),
    };
    let mut last = match begin {
        Ok(Some(report)) => report,
        Ok(None) => return None,
        Err(error) => return Some(failed(repository, mirror, &error)),
    };
    // A push that came while the lock was held may have found it taken: look again now that it is not.
    while last.is_answered && context.mode != Mode::Plan && has_more(repository, context, mirror) {
        match serve_once(repository, context, mirror, Mode::Drain) {
            Ok(Some(report)) => last = report,
            Ok(None) => break,
            Err(error) => return Some(failed(repository, mirror, &error)),
        }
    }
    Some(last)
}

fn has_more(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> bool {
    fan_out(repository, context).is_ok()
        && spool::pending(&repository.layout(), &mirror.name).is_ok_and(|pending| pending > 0)
}

fn serve_once(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    mode: Mode,
) -> Result<Option<Report>, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    prepare(repository, &mirror.name)?;
    let _lock = match mode {
        Mode::Drain => match Lock::try_acquire(&directory, repository.sharing())? {
            Some(lock) => lock,
            None => return Ok(None),
        },
        _ => Lock::acquire(&directory, repository.sharing())?,
    };
    let files = |doing| Error::files(doing, directory.clone());
    let started = (context.now)();
    let claim = spool::claim(&layout, &mirror.name, new_id(started)).map_err(files("read the queue"))?;
    if mode == Mode::Drain && claim.names.is_empty() {
        return Ok(None);
    }
    let before = status::read(&directory).map_err(files("read the status"))?;
    let working = Status {
        update_status: UpdateStatus::Started,
        last_update_started_at: Some(render_time(started)),
        pid: Some(std::process::id()),
        ..before.clone()
    };
    status::write_passing(&directory, &working, repository.sharing()).map_err(files("write the status"))?;
    let touched = coalesce(&claim.records);
    let mirrored = Mirrored::open(&directory, repository);
    let scope = scope(mode, mirror, &touched, &before, mirrored.exists());
    let is_full = matches!(scope, Scope::All);
    let (contact, credentials) = contact(repository, context, mirror, scope, &touched, &mirrored);
    keep_held(&mirrored, &contact);
    let after = settled(&before, &contact, &credentials, is_full, (started, (context.now)()));
    status::write(&directory, &after, repository.sharing()).map_err(files("write the status"))?;
    let attempt = attempt(&contact, &after, started);
    status::append(&directory, &attempt).map_err(files("write the history"))?;
    if contact.is_answered() {
        spool::finish(&layout, &mirror.name, &claim.names).map_err(files("finish spool entries"))?;
    }
    Ok(Some(report(repository, mirror, &credentials, after, contact)))
}

fn report(
    repository: &Repository,
    mirror: &Mirror,
    credentials: &Credentials,
    after: Status,
    contact: Contact,
) -> Report {
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(credentials),
        update_status: after.update_status,
        error: after.last_error,
        is_answered: contact.is_answered(),
        refs: contact.outcomes.into_values().collect(),
    }
}

fn plan_only(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Result<Report, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let records = spool::peek(&layout, &mirror.name).map_err(Error::files("read the queue", directory.clone()))?;
    let mirrored = Mirrored::open(&directory, repository);
    let touched = coalesce(&records);
    let (contact, credentials) = contact(repository, context, mirror, Scope::All, &touched, &mirrored);
    let now = (context.now)();
    let after = settled(&Status::default(), &contact, &credentials, true, (now, now));
    Ok(report(repository, mirror, &credentials, after, contact))
}

/// Everything is compared when it is asked for, at the first contact, and where one ref decides about all others. Refs
/// that were not right are judged again at every contact, for the mirror may have changed; but what it refused is not sent
/// again until someone moves it here.
fn scope(mode: Mode, mirror: &Mirror, touched: &Touched, before: &Status, is_known: bool) -> Scope {
    let is_full = mode != Mode::Drain || touched.is_full || !is_known || mirror.divergent == Divergent::Fail;
    if is_full {
        return Scope::All;
    }
    let judged_again = before.refs.iter().filter(|outcome| outcome.outcome != Outcome::RemoteRejected);
    Scope::Refs(touched.refs.keys().cloned().chain(judged_again.map(|outcome| outcome.name.clone())).collect())
}

fn contact(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    scope: Scope,
    touched: &Touched,
    mirrored: &Mirrored,
) -> (Contact, Credentials) {
    match target(repository, mirror) {
        Ok(target) => {
            let redactor = Redactor::new(&target.credentials);
            let progress = Arc::new(Progress::default());
            (context.on_begin)(mirror, Arc::clone(&progress));
            let past = Past { touched, mirrored };
            let run = Run { repository, mirror, target: &target, context, past, redactor, progress };
            (run.run(scope), target.credentials.clone())
        }
        Err(error) => (Contact { error: Some(error), ..Contact::default() }, Credentials::default()),
    }
}

/// Notes what the mirror holds. A failure costs knowledge, not correctness, so it is only told.
fn keep_held(mirrored: &Mirrored, contact: &Contact) {
    let news: BTreeMap<&RefName, _> = contact.held.iter().map(|(name, oid)| (name, *oid)).collect();
    let changed: Vec<_> = news
        .into_iter()
        .filter(|(name, oid)| mirrored.find(name).is_ok_and(|held| held != *oid))
        .map(|(name, oid)| (name.clone(), oid))
        .collect();
    if changed.is_empty() && mirrored.exists() {
        return;
    }
    if let Err(error) = mirrored.set(&changed) {
        tracing::warn!("cannot note what the mirror holds: {error}");
    }
}

/// The status after a run.
fn settled(
    before: &Status,
    contact: &Contact,
    credentials: &Credentials,
    is_full: bool,
    (started, ended): (Timestamp, Timestamp),
) -> Status {
    let mut refs: BTreeMap<RefName, RefOutcome> = BTreeMap::new();
    if !is_full || contact.error.is_some() {
        refs.extend(before.refs.iter().map(|outcome| (outcome.name.clone(), outcome.clone())));
    }
    for outcome in contact.outcomes.values() {
        refs.remove(&outcome.name);
        if outcome.outcome.is_listed() {
            refs.insert(outcome.name.clone(), outcome.clone());
        }
    }
    let refs: Vec<RefOutcome> = refs.into_values().collect();
    let update_status = match &contact.error {
        Some(error) if error.class() == Class::Lasting => UpdateStatus::Failed,
        Some(_) => UpdateStatus::Scheduled,
        None if !contact.is_answered() => UpdateStatus::Scheduled,
        None if refs.iter().any(|outcome| outcome.outcome.is_failure()) => UpdateStatus::Failed,
        None => UpdateStatus::Finished,
    };
    let is_well = update_status == UpdateStatus::Finished;
    let last_error = match &contact.error {
        Some(error) => Some(cleaned(error, credentials)),
        None if is_well => None,
        None => Some(summary(&refs)),
    };
    let ended = render_time(ended);
    Status {
        version: before.version,
        update_status,
        last_error,
        last_update_at: Some(ended.clone()),
        last_update_started_at: Some(render_time(started)),
        last_successful_update_at: if is_well { Some(ended) } else { before.last_successful_update_at.clone() },
        attempts: if is_well { 0 } else { before.attempts.saturating_add(1) },
        next_attempt_at: None,
        pid: None,
        refs,
    }
}

/// One line that names the first refs that are not right.
fn summary(refs: &[RefOutcome]) -> String {
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
    format!("{subject} on the mirror: {text}")
}

fn attempt(contact: &Contact, after: &Status, started: Timestamp) -> Attempt {
    let count =
        |wanted: fn(Outcome) -> bool| contact.outcomes.values().filter(|outcome| wanted(outcome.outcome)).count();
    Attempt {
        started_at: render_time(started),
        finished_at: after.last_update_at.clone().unwrap_or_default(),
        update_status: after.update_status,
        updated: count(|outcome| !outcome.is_listed() && outcome != Outcome::UpToDate),
        failed: count(Outcome::is_failure),
        objects: contact.progress.objects.load(Ordering::Relaxed),
        bytes: contact.progress.bytes.load(Ordering::Relaxed),
        error: after.last_error.clone(),
    }
}

/// The report on a mirror whose books could not be kept.
fn failed(repository: &Repository, mirror: &Mirror, error: &Error) -> Report {
    let credentials = credentials(repository, mirror).unwrap_or_default();
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(&credentials),
        update_status: if error.class() == Class::Lasting { UpdateStatus::Failed } else { UpdateStatus::Scheduled },
        error: Some(cleaned(error, &credentials)),
        is_answered: false,
        refs: Vec::new(),
    }
}
