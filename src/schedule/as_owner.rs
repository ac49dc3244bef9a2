//! Repositories that root serves in the place of their owners: a child process with the owner's rights does the work (see `owner`).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::batch::Every;
use super::queue::{Job, OWNER, Said};
use crate::config::Direction;
use crate::credentials::{Cleaned, Redactor};
use crate::drain::{Check, Error, Host, MassDelete, Mode, Report};
use crate::layout::Layout;
use crate::mirror;
use crate::owner::{Hands, Owner};
use crate::plan::{Restore, Side};
use crate::process;
use crate::spool;
use crate::status::{self, RefOutcome, UpdateStatus};

/// A report as `drain --json` prints it.
#[derive(Deserialize)]
struct Printed {
    name: String,
    update_status: UpdateStatus,
    error: Option<String>,
    refs: Vec<RefOutcome>,
    #[serde(default)]
    created_repository: bool,
}

/// One job for all mirrors of such a repository. The queue treats the owner as a host, so the limits of a host apply to each owner.
pub(super) fn job(git_dir: &Path, mode: Mode) -> Job {
    let uid = git_dir.metadata().map(|file| file.uid()).unwrap_or_default();
    Job { git_dir: git_dir.to_owned(), mirror: String::new(), host: format!("{OWNER}{uid}"), mode }
}

/// What such a job tells the queue about its "host", the owner: it is up. A duration of zero means that it is not far away, so the higher
/// limit for far hosts never applies.
pub(super) fn said() -> Said {
    Said::Up(Duration::ZERO)
}

/// Does the job in a child process. Returns a report on each mirror that had something to do.
pub(super) fn serve(every: &Every<'_>, owner: &Owner, job: &Job) -> Result<Vec<Report>, Error> {
    let failed = |source| process::Error::Start { program: "git mirror-push".into(), source };
    let mut asked = owner
        .command(&job.git_dir, every.server, Hands::Secrets)
        .map_err(|source| mirror::Error::from(failed(source)))?;
    asked.command.arg("--json").args(arguments(job.mode));
    if every.adopts {
        asked.command.arg("--adopt");
    }
    if every.creates {
        asked.command.arg("--create");
    }
    if every.restore == Restore::All {
        asked.command.arg("--restore");
    }
    let queues = spool::queues(&Layout::new(&job.git_dir));
    let queues = queues.map_err(Error::files("list the mirrors", job.git_dir.clone()))?;
    let (parked, served): (Vec<String>, Vec<String>) =
        queues.into_iter().map(|(name, _)| name).partition(|name| (every.parked)(&job.git_dir, name).is_some());
    if !parked.is_empty() {
        // A mirror that is too new to have a queue is left to the next run.
        if served.is_empty() {
            return Ok(Vec::new());
        }
        asked.command.args(served);
    }
    let begin = (every.now)();
    let out = asked.output().map_err(mirror::Error::from)?;
    let printed: Vec<Printed> = serde_json::from_slice(&out).map_err(|error| Error::Panicked(error.to_string()))?;
    Ok(printed.into_iter().map(|printed| report(&job.git_dir, printed, begin)).collect())
}

fn arguments(mode: Mode) -> &'static [&'static str] {
    match mode {
        Mode::Drain => &["drain", "--due"],
        Mode::Pull(Check::Due) => &["pull", "--due"],
        Mode::Pull(Check::Now) => &["pull"],
        Mode::Reconcile => &["drain", "--reconcile"],
        Mode::Sync(MassDelete::Guarded) => &["sync"],
        Mode::Sync(MassDelete::Allowed) => &["sync", "--allow-mass-delete"],
        Mode::Plan => &["plan"],
    }
}

/// The report on a mirror that the child printed. `begin` is when the child began.
fn report(git_dir: &Path, printed: Printed, begin: Timestamp) -> Report {
    // The name becomes part of a path, and the child, which is not root, is not trusted. So only its last component is used.
    let name = Path::new(&printed.name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let status = status::read(&Layout::new(git_dir).remote(&name)).unwrap_or_default();
    let is_well = printed.update_status == UpdateStatus::Finished;
    let next_attempt_at: Option<Timestamp> = status.next_attempt();
    let last: Option<Timestamp> = status.last_update_at.as_deref().and_then(|time| time.parse().ok());
    let was_tried = last.is_some_and(|last| last >= begin);
    let touches = |side| printed.refs.iter().any(|outcome| outcome.side == side);
    Report {
        direction: match (touches(Side::Here), touches(Side::There)) {
            (true, true) => Direction::Both,
            (true, false) => Direction::Pull,
            (false, _) => Direction::Push,
        },
        cause: status.cause.clone(),
        created_repository: printed.created_repository,
        repository: git_dir.display().to_string(),
        url: name.clone(),
        remote: name,
        update_status: printed.update_status,
        error: printed.error.map(|error| -> Cleaned { Redactor::default().clean(&error) }),
        refs: printed.refs,
        next_attempt_at,
        is_well,
        is_attempted: is_well || status.attempts > 0,
        is_answered: is_well,
        attempts: status.attempts,
        host: if was_tried { Host::Up } else { Host::Unknown },
        // The child wakes the drain of the push mirrors itself.
        has_spooled: false,
    }
}
