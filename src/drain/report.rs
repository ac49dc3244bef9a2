//! The outcome of a run for one mirror, for the caller.

use jiff::Timestamp;

use super::absent::Presence;
use super::update::UpdateResult;
use super::{Context, Error, explained};
use crate::config::{Direction, Mirror};
use crate::credentials::{Cleaned, Credentials};
use crate::mirror::credentials;
use crate::plan::Side;
use crate::repo::Repository;
use crate::status::{RefOutcome, Status, UpdateStatus, next_check};
use crate::wire::Class;

/// The outcome for one mirror.
#[derive(Clone, Debug)]
pub struct Report {
    /// The repository's path.
    pub repository: String,
    /// The mirror's name.
    pub remote: String,
    /// Its URL as it is shown.
    pub url: String,
    /// Whether it gets our refs, we take its refs, or both.
    pub direction: Direction,
    /// Its status.
    pub update_status: UpdateStatus,
    /// The error.
    pub error: Option<Cleaned>,
    /// The refs that were looked at and are to be reported, sorted by name.
    pub refs: Vec<RefOutcome>,
    /// When the next attempt is due, if one waits.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether everything that was attempted is up to date.
    pub is_well: bool,
    /// Whether an update was tried. `false` if the mirror only waits, or if upstream was checked
    /// and refs that failed earlier were not tried again.
    pub is_attempted: bool,
    /// Whether the mirror answered for every ref, so that its queue entries are finished.
    pub is_answered: bool,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// What the attempt showed about the host.
    pub host: Host,
    /// Whether the run spooled something for the push mirrors of the repository without waking
    /// anybody.
    pub has_spooled: bool,
    /// What is wrong; see [`Status::cause`].
    pub cause: Option<String>,
    /// Whether the mirror's repository was made. In a plan: whether it would be.
    pub created_repository: bool,
    /// Whether the run stopped because another run for the mirror had begun (see `fence`).
    pub is_superseded: bool,
}

impl Report {
    /// Whether something was attempted, and is not up to date.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_attempted && !self.is_well
    }
}

/// What an attempt showed about the mirror's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nothing: it was not contacted.
    Unknown,
    /// It answered, even if the answer was an error about the repository. Also the value for a run
    /// that failed on this machine before it contacted the host.
    Up,
    /// It failed before it said anything about the repository.
    Down,
    /// It asked us to wait, for example with the status 429.
    Busy,
}

/// The report on a run that ended with the status `after`.
pub(super) fn report(
    repository: &Repository,
    mirror: &Mirror,
    credentials: &Credentials,
    after: Status,
    result: UpdateResult,
) -> Report {
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(credentials),
        direction: mirror.direction,
        update_status: after.update_status,
        next_attempt_at: after.next_attempt(),
        is_well: result.is_well(&after.refs),
        is_attempted: true,
        error: after.last_error,
        is_answered: result.is_answered(),
        attempts: after.attempts,
        host: result.host(),
        has_spooled: result.has_spooled,
        cause: after.cause,
        created_repository: result.creation != Presence::There,
        is_superseded: false,
        refs: refs(result, side_of(mirror)),
    }
}

/// The report on an upstream that was checked and has nothing new.
pub(super) fn unchanged(
    repository: &Repository,
    mirror: &Mirror,
    credentials: &Credentials,
    status: Status,
    now: Timestamp,
) -> Report {
    let is_well = status.update_status == UpdateStatus::Finished;
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(credentials),
        direction: mirror.direction,
        update_status: status.update_status,
        next_attempt_at: next_check(&repository.layout().remote(&mirror.name), &status, now, None),
        is_well,
        // Refs that failed earlier were not tried again.
        is_attempted: is_well,
        error: status.last_error,
        is_answered: true,
        attempts: status.attempts,
        host: Host::Up,
        has_spooled: false,
        cause: status.cause,
        created_repository: false,
        is_superseded: false,
        refs: status.refs,
    }
}

/// The side that the runs of a mirror update.
pub(super) fn side_of(mirror: &Mirror) -> Side {
    if mirror.sends() { Side::There } else { Side::Here }
}

/// Everything that was looked at and is to be reported, by name.
fn refs(result: UpdateResult, side: Side) -> Vec<RefOutcome> {
    let unchanged = result.scanned.map(|scanned| scanned.unchanged).unwrap_or_default();
    let unchanged = unchanged.into_iter().filter(|(name, _)| !result.outcomes.contains_key(name));
    let mut refs: Vec<RefOutcome> = unchanged.map(|(name, oid)| RefOutcome::unchanged(name, oid, side)).collect();
    refs.extend(result.outcomes.values().cloned());
    refs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    refs
}

/// The report on a run that failed outside of the update itself: a file could not be read or written, another run has begun, or a panic.
pub(super) fn failed(repository: &Repository, context: &Context<'_>, mirror: &Mirror, error: &Error) -> Report {
    let credentials = credentials(&repository.layout(), mirror).unwrap_or_default();
    Report {
        repository: repository.git_dir().display().to_string(),
        remote: mirror.name.clone(),
        url: mirror.address.shown(&credentials),
        direction: mirror.direction,
        update_status: if error.class() == Class::Permanent { UpdateStatus::Failed } else { UpdateStatus::Scheduled },
        error: Some(explained(error, mirror, &credentials)),
        // The refs that the superseded run may have updated are read again at once.
        next_attempt_at: matches!(error, Error::Superseded).then(|| (context.now)()),
        is_well: false,
        is_attempted: true,
        is_answered: false,
        attempts: 0,
        host: Host::Unknown,
        has_spooled: false,
        cause: None,
        created_repository: false,
        is_superseded: matches!(error, Error::Superseded),
        refs: Vec::new(),
    }
}
