//! A mirror that waits: for its next attempt, or because its host is known to be down.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use jiff::Timestamp;

use super::backoff::Now;
use super::fence::{self, Fence};
use super::{Context, Error, Host, Mode, Report, full_sync};
use crate::config::Mirror;
use crate::credentials::Cleaned;
use crate::mirror::{Lock, credentials, new_id};
use crate::repo::Repository;
use crate::spool::{self, Claim};
use crate::status::{self, Status, UpdateStatus, render_time};

/// When the next update of the mirror is due; `None` means now.
pub(super) fn due(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    status: &Status,
    claim: &Claim,
) -> Option<Timestamp> {
    let layout = repository.layout();
    let secret = layout.remote(&mirror.name).join("secret");
    let files = [layout.config()];
    let files = files.iter().chain(&context.server.files);
    // After a permanent failure, the files may have changed for another mirror. A host must not get a wrong password again for that.
    let tried = status.tried_settings.as_ref().filter(|_| status.update_status == UpdateStatus::Failed);
    let is_same = tried.is_some_and(|tried| *tried == settings(context, mirror));
    let own = [Some(&secret), mirror.password_file.as_ref(), mirror.ca_file.as_ref()];
    let changed = files.filter(|_| !is_same).chain(own.into_iter().flatten()).filter_map(|path| modified(path)).max();
    let newest = claim.records.iter().map(|record| record.time).max();
    let newest = newest.and_then(|time| Timestamp::from_duration(time.try_into().ok()?).ok());
    // Only records that no failed attempt has tried count as new. Names sort by time.
    let has_new_push = claim.names.iter().any(|name| status.tried_up_to.as_ref().is_none_or(|tried| name > tried));
    Now { now: (context.now)(), status, waits: mirror.waits, newest, has_new_push, changed }.due()
}

/// A digest of everything in the configuration that an attempt depends on.
pub(super) fn settings(context: &Context<'_>, mirror: &Mirror) -> String {
    // An id may depend on the other mirrors.
    let own = Mirror { id: 0, ..mirror.clone() };
    // The server's [api] says to which addresses a confined mirror may connect.
    let api = mirror.is_confined.then_some(&context.server.api);
    let mut hasher = DefaultHasher::new();
    format!("{:?}", (own, &context.config.protected_branches, api)).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn modified(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(std::fs::metadata(path).ok()?.modified().ok()?).ok()
}

/// A host that does not answer. One mirror found this, and the others at the host rely on it.
#[derive(Clone, Debug)]
pub struct Down {
    /// The error.
    pub error: Cleaned,
    /// Failed attempts of that mirror.
    pub attempts: u32,
    /// When that mirror is tried again.
    pub next_attempt_at: Timestamp,
    /// The cause.
    pub cause: Option<String>,
}

impl Down {
    /// The state of the host, if the report shows that it is down.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        let next_attempt_at = report.next_attempt_at.filter(|_| matches!(report.host, Host::Down | Host::Busy))?;
        let error = report.error.clone().unwrap_or_default();
        Some(Self { error, attempts: report.attempts, next_attempt_at, cause: report.cause.clone() })
    }
}

/// Records that a mirror waits for a host that is down, as if its update had been tried. [`Mode::Plan`] records nothing. `None` if another
/// drain holds the mirror's lock, or, in [`Mode::Drain`], if nothing is to be mirrored or the mirror waits already.
///
/// # Errors
/// [`Error`], when the mirror's files cannot be read or written.
pub fn defer(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    down: &Down,
) -> Result<Option<Report>, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let files = |doing| Error::files(doing, directory.clone());
    let before = || status::of(&layout, mirror).map_err(files("read the status"));
    if context.mode == Mode::Plan {
        let waiting = Status { last_error: Some(down.error.clone()), ..before()? };
        return Ok(Some(deferred(repository, mirror, waiting, down.next_attempt_at)));
    }
    let Some(_lock) = Lock::try_acquire(&directory, repository.sharing())? else { return Ok(None) };
    let claim = spool::claim(&layout, &mirror.name, new_id((context.now)())).map_err(files("read the queue"))?;
    let before = fence::status_before(repository, mirror, &claim, (context.now)())?;
    let pending = spool::pending(&layout, &mirror.name).map_err(files("read the queue"))?;
    let is_asked_for = context.mode != Mode::Drain;
    let is_waiting = before.attempts > 0 && before.next_attempt().is_some_and(|next| next > (context.now)());
    if !is_asked_for && (is_waiting || pending == 0 && before.next_attempt_at.is_none() && !before.is_new()) {
        return Ok(None);
    }
    full_sync::make_due(repository, context, context.mode, mirror, &before, &claim)?;
    let after = Status {
        update_status: UpdateStatus::Scheduled,
        last_error: Some(down.error.clone()),
        cause: down.cause.clone(),
        attempts: before.attempts.max(down.attempts),
        last_update_at: Some(render_time((context.now)())),
        next_attempt_at: Some(render_time(down.next_attempt_at)),
        tried_address: Some(mirror.identity()),
        tried_settings: Some(settings(context, mirror)),
        generation: Fence::after(&before, directory.clone(), (context.now)()).generation,
        pid: None,
        runner: None,
        at_work: None,
        ..before
    };
    status::write(&directory, &after, repository.sharing()).map_err(files("write the status"))?;
    Ok(Some(deferred(repository, mirror, after, down.next_attempt_at)))
}

/// The report on a mirror that is not due yet.
pub(super) fn deferred(repository: &Repository, mirror: &Mirror, status: Status, due: Timestamp) -> Report {
    let waiting = match status.update_status {
        UpdateStatus::Failed => UpdateStatus::Failed,
        _ => UpdateStatus::Scheduled,
    };
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(&credentials(&repository.layout(), mirror).unwrap_or_default()),
        direction: mirror.direction,
        update_status: waiting,
        error: Some(match status.last_error {
            Some(error) => error.and_ours(&format!("; not tried again before {}", render_time(due))),
            None => Cleaned::from("held back until ").and_ours(&render_time(due)),
        }),
        refs: Vec::new(),
        next_attempt_at: Some(due),
        is_well: false,
        is_attempted: false,
        is_answered: false,
        attempts: status.attempts,
        host: Host::Unknown,
        has_spooled: false,
        cause: status.cause,
        created_repository: false,
        is_superseded: false,
    }
}
