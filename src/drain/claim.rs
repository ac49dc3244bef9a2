//! The queue of a mirror: what a run claims from it, and whether the run is due.

use jiff::Timestamp;

use super::defer::{deferred, due};
use super::{Check, Context, Error, Mode, Report, fence, full_sync};
use crate::config::Mirror;
use crate::mirror::new_id;
use crate::repo::Repository;
use crate::spool::{self, Claim};
use crate::status::{self, Status, UpdateStatus, render_time};

/// Whether a mirror is to be updated now.
pub(super) enum Due {
    /// Now, with these queue entries. The status is the one before this run.
    Now(Claim, Box<Status>),
    /// Not now. There is a report if pushes wait.
    Not(Option<Box<Report>>),
}

/// Claims the queue of a mirror and decides whether its update is due.
pub(super) fn claim_due(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    mode: Mode,
    started: Timestamp,
) -> Result<Due, Error> {
    let layout = repository.layout();
    let files = Error::files("read the queue", layout.remote(&mirror.name));
    let claim_all = || spool::claim(&layout, &mirror.name, new_id(started));
    let claimed = claim_all().map_err(Error::files("read the queue", layout.remote(&mirror.name)))?;
    let before = fence::status_before(repository, mirror, &claimed, started)?;
    full_sync::make_due(repository, context, mode, mirror, &before, &claimed)?;
    let claim = claim_all().map_err(files)?;
    if matches!(mode, Mode::Drain | Mode::Pull(Check::Due)) {
        let is_parked =
            before.next_attempt_at.is_some() && before.refs.iter().any(|outcome| outcome.outcome.is_failure());
        if mode == Mode::Drain && claim.names.is_empty() && !is_parked {
            settle_waiting(repository, mirror, &before, &claim)?;
            return Ok(Due::Not(None));
        }
        // A check without queue entries begins only when it is due, so it does not wait here.
        if (mode == Mode::Drain || !claim.names.is_empty())
            && let Some(due) = due(repository, context, mirror, &before, &claim)
        {
            // Reports pushes that wait, but not refs that only wait for their slow interval.
            let is_news = !claim.names.is_empty();
            let report = is_news.then(|| Box::new(deferred(repository, mirror, before, due)));
            return Ok(Due::Not(report));
        }
    }
    Ok(Due::Now(claim, Box::new(before)))
}

/// The timestamp of a time since the Unix epoch. `None` if it is out of range.
pub(super) fn time_of(time: std::time::Duration) -> Option<Timestamp> {
    Timestamp::from_duration(time.try_into().ok()?).ok()
}

/// Corrects the status of a mirror whose queue has only requests to read some refs again later. A run that never ended may have left a
/// wrong status.
fn settle_waiting(repository: &Repository, mirror: &Mirror, before: &Status, claim: &Claim) -> Result<(), Error> {
    let Some(look) = claim.next_look().and_then(time_of) else { return Ok(()) };
    let look = Some(render_time(look));
    if before.update_status == UpdateStatus::Failed || before.next_attempt_at == look {
        return Ok(());
    }
    let directory = repository.layout().remote(&mirror.name);
    let after = Status {
        update_status: UpdateStatus::Scheduled,
        next_attempt_at: look,
        runner: None,
        pid: None,
        at_work: None,
        ..before.clone()
    };
    status::write(&directory, &after, repository.sharing()).map_err(Error::files("write the status", directory))
}
