//! One mirror from lock to status.

use std::path::Path;
use std::sync::Arc;

use super::ahead::expected;
use super::coalesce::{Touched, coalesce};
use super::contact::{Contact, Run};
use super::observe::{Past, Scope};
use super::settle::{Times, attempt, settled};
use super::wait::{deferred, due};
use super::{
    Context, Error, Host, LocalMirror, Lock, Mode, Report, cleaned, credentials, fan_out, new_id, prepare, target,
};
use crate::config::Mirror;
use crate::credentials::{Credentials, Redactor, judge};
use crate::notify::{self, Event};
use crate::plan::Divergent;
use crate::push::{Class, Progress};
use crate::repo::Repository;
use crate::spool;
use crate::status::{self, Mirrored, Outcome, RefOutcome, Status, UpdateStatus, render_time};

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
    while last.is_answered
        && context.mode != Mode::Plan
        && context.only.is_none()
        && has_more(repository, context, mirror)
    {
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
    // It may have been changed, disabled or removed while this drain came here or waited for the lock.
    let config = crate::config::load(repository, context.server)?;
    let mirror = match config.mirror(&mirror.name) {
        Some(mirror) if mirror.is_enabled => mirror,
        Some(_) => return Ok(None),
        None => {
            super::forget(&directory).map_err(files("forget a removed mirror"))?;
            return Ok(None);
        }
    };
    let context = &Context { config: &config, ..*context };
    let started = (context.now)();
    let claim_all = || spool::claim(&layout, &mirror.name, new_id(started)).map_err(files("read the queue"));
    let mut claim = claim_all()?;
    let before = status::read(&directory).map_err(files("read the status"))?;
    if before.is_new() && claim.records.iter().all(|record| record.updates.is_some()) {
        // A mirror that was never tried is owed everything. As a record that outlives a failure, a kill, and a push by name.
        spool::request_full_sync(&layout, &mirror.name, new_id(started)).map_err(files("make the first sync due"))?;
        claim = claim_all()?;
    }
    let is_parked = before.next_attempt_at.is_some() && before.refs.iter().any(|outcome| outcome.outcome.is_failure());
    if mode == Mode::Drain {
        if claim.names.is_empty() && !is_parked {
            return Ok(None);
        }
        if let Some(due) = due(repository, context, mirror, &before, &claim) {
            // Refs that wait for their slow interval are no news; pushes that wait are.
            return Ok((!claim.names.is_empty()).then(|| deferred(repository, mirror, before, due)));
        }
    }
    let working = Status {
        update_status: UpdateStatus::Started,
        last_update_started_at: Some(render_time(started)),
        pid: Some(std::process::id()),
        next_attempt_at: None,
        ..before.clone()
    };
    status::write_passing(&directory, &working, repository.sharing()).map_err(files("write the status"))?;
    let touched = coalesce(&claim.records);
    let mirrored = Mirrored::open(&directory, repository);
    let is_slow_turn = before.next_attempt().is_some_and(|next| next <= started);
    let scope = match context.only {
        Some(names) => Scope::Refs(names.clone()),
        None => scope(mode, mirror, &touched, &before, mirrored.exists(), is_slow_turn),
    };
    let is_full = matches!(scope, Scope::All);
    let (contact, credentials) = contact(repository, context, mirror, scope, &touched, &mirrored, &before);
    keep_held(&mirrored, &contact);
    if contact.error.is_none() {
        mend_head(repository, mirror, &mirrored);
    }
    let times = Times { started, ended: (context.now)(), random: (context.random)(), is_full };
    let mut after = settled(&before, &contact, &credentials, mirror, &times);
    after.tried_up_to = match context.only {
        // Who asked for some refs by name has tried nothing of what is spooled.
        Some(_) => before.tried_up_to,
        None => claim.names.last().filter(|_| !contact.is_answered()).cloned(),
    };
    status::write(&directory, &after, repository.sharing()).map_err(files("write the status"))?;
    let attempt = attempt(&contact, &after, started);
    status::append(&directory, &attempt).map_err(files("write the history"))?;
    tell(repository, context, mirror, &directory, &mut after)?;
    if !contact.is_answered() && mode != Mode::Drain && !touched.is_full && context.only.is_none() {
        // What a sync could not do is still due: without a record no drain would try it again.
        let id = new_id((context.now)());
        spool::request_full_sync(&layout, &mirror.name, id).map_err(files("keep the sync due"))?;
    }
    // What was asked for by name is not all that is spooled.
    if contact.is_answered() && context.only.is_none() {
        spool::finish(&layout, &mirror.name, &claim.names).map_err(files("finish spool entries"))?;
    }
    Ok(Some(report(repository, mirror, &credentials, after, contact)))
}

/// Tells whom the configuration names, if there is news. It is noted only when the command succeeded, so that news which
/// could not be told are told by the next attempt.
fn tell(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    directory: &Path,
    after: &mut Status,
) -> Result<(), Error> {
    let settings = &context.config.notify;
    let (Some(command), Some(event)) = (&settings.command, notify::event(after, settings, (context.now)())) else {
        return Ok(());
    };
    let credentials = credentials(repository, mirror).unwrap_or_default();
    let message = notify::Message {
        event,
        repository: &repository.git_dir().display().to_string(),
        remote: &mirror.name,
        url: &mirror.address.shown(&credentials),
        status: after,
    };
    match notify::tell(command, &message) {
        Ok(()) => {
            after.notified_at = (event != Event::Recovered).then(|| render_time((context.now)()));
            let files = Error::files("write the status", directory.to_owned());
            status::write(directory, after, repository.sharing()).map_err(files)
        }
        Err(error) => {
            tracing::warn!("notify: {error}");
            Ok(())
        }
    }
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
        next_attempt_at: after.next_attempt(),
        error: after.last_error,
        is_answered: contact.is_answered(),
        attempts: after.attempts,
        host: if contact.is_host_down() { Host::Down } else { Host::Up },
        refs: refs(contact),
    }
}

/// Everything that was looked at and is to be reported, by name.
fn refs(contact: Contact) -> Vec<RefOutcome> {
    let unchanged = contact.compared.map(|compared| compared.unchanged).unwrap_or_default();
    let unchanged = unchanged.into_iter().filter(|(name, _)| !contact.outcomes.contains_key(name));
    let mut refs: Vec<RefOutcome> = unchanged.map(|(name, oid)| RefOutcome::unchanged(name, oid)).collect();
    refs.extend(contact.outcomes.values().cloned());
    refs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    refs
}

fn plan_only(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Result<Report, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let records = spool::peek(&layout, &mirror.name).map_err(Error::files("read the queue", directory.clone()))?;
    let mirrored = Mirrored::open(&directory, repository);
    let touched = coalesce(&records);
    let (contact, credentials) =
        contact(repository, context, mirror, Scope::All, &touched, &mirrored, &Status::default());
    let now = (context.now)();
    let times = Times { started: now, ended: now, random: 0, is_full: true };
    let after = settled(&Status::default(), &contact, &credentials, mirror, &times);
    Ok(report(repository, mirror, &credentials, after, contact))
}

/// Everything is compared when it is asked for, at the first contact, and where one ref decides about all others. Refs
/// that were not right are judged again at every contact, for the mirror may have changed; but what it refused is not sent
/// again until someone moves it here, or its slow interval is over.
fn scope(mode: Mode, mirror: &Mirror, touched: &Touched, before: &Status, is_known: bool, is_slow_turn: bool) -> Scope {
    let is_full = mode != Mode::Drain || touched.is_full || !is_known || mirror.divergent == Divergent::Fail;
    if is_full {
        return Scope::All;
    }
    let judged_again = before.refs.iter().filter(|outcome| is_slow_turn || outcome.outcome != Outcome::RemoteRejected);
    Scope::Refs(touched.refs.keys().cloned().chain(judged_again.map(|outcome| outcome.name.clone())).collect())
}

fn contact(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    scope: Scope,
    touched: &Touched,
    mirrored: &Mirrored,
    before: &Status,
) -> (Contact, Credentials) {
    let target = target(repository, mirror, context.server);
    match target.and_then(|target| Ok((target, repository.shallow_commits()?))) {
        Ok((target, shallow)) => {
            let redactor = Redactor::new(&target.credentials);
            let progress = Arc::new(Progress::default());
            (context.on_begin)(mirror, Arc::clone(&progress));
            let past = Past { touched, mirrored };
            let portion = before.portion;
            let expected = expected(context, mirror, before, &mirror.address.shown(&target.credentials));
            let target = &target;
            let run = Run { repository, mirror, target, context, past, redactor, progress, portion, shallow, expected };
            let contact = run.run(scope);
            let is_refused = matches!(&contact.error, Some(Error::Push(crate::push::Error::Credentials(_))));
            if is_refused || contact.error.is_none() {
                judge(repository.git_dir(), &target.credentials, !is_refused);
            }
            (contact, target.credentials.clone())
        }
        Err(error) => (Contact { error: Some(error), ..Contact::default() }, Credentials::default()),
    }
}

/// Notes what the mirror holds. A failure costs knowledge, not correctness, so it is only told.
fn keep_held(mirrored: &Mirrored, contact: &Contact) {
    let mut changed: Vec<_> = contact.held.iter().map(|(name, oid)| (name.clone(), *oid)).collect();
    if changed.is_empty() && mirrored.exists() {
        return;
    }
    changed.sort_unstable();
    if let Err(error) = mirrored.set(&changed) {
        tracing::warn!("cannot note what the mirror holds: {error}");
    }
}

/// Lets the mirror's HEAD name our default branch, where that is wished and the mirror has it. A failure is told, and `status` goes on naming the
/// mend.
fn mend_head(repository: &Repository, mirror: &Mirror, mirrored: &Mirrored) {
    let Some(local) = mirror.sets_head.then(|| LocalMirror::of(&mirror.address)).flatten() else { return };
    let has = |name| matches!(mirrored.find(&name), Ok(Some(_)));
    let mended = repository.default_branch().map_err(Error::from).and_then(|ours| match ours.is_some_and(has) {
        true => local.set_head(repository),
        false => Ok(()),
    });
    if let Err(error) = mended {
        tracing::warn!("mirror '{}': cannot set HEAD: {error}", mirror.name);
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
        next_attempt_at: None,
        is_answered: false,
        attempts: 0,
        host: Host::Unknown,
        refs: Vec::new(),
    }
}
