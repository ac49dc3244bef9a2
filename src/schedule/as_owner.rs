//! Repositories that root serves in the place of their owners: a child process with the owner's rights does the work (see `owner`).

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::batch::Every;
use super::queue::{Job, OWNER, Said};
use crate::config::{self, Config, Direction, Mirror, Trust};
use crate::credentials::{Cleaned, Redactor};
use crate::drain::{Check, Error, Host, MassDelete, Mode, Report};
use crate::durable;
use crate::layout::Layout;
use crate::mirror;
use crate::owner::{Hands, Owner};
use crate::plan::{Restore, Side};
use crate::process;
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

/// A job for one mirror of such a repository, or for all of them if `mirror` is empty. The queue treats the owner as a host, so the limits
/// of a host apply to each owner.
pub(super) fn job(owner: &Owner, git_dir: &Path, mirror: &str, mode: Mode) -> Job {
    Job { git_dir: git_dir.to_owned(), mirror: mirror.to_owned(), host: format!("{OWNER}{}", owner.uid()), mode }
}

/// What such a job tells the queue about its "host", the owner: it is up. A duration of zero means that it is not far away, so the higher
/// limit for far hosts never applies.
pub(super) fn said() -> Said {
    Said::Up(Duration::ZERO)
}

/// Does the job in a child process. Returns a report on each mirror that had something to do.
/// The child starts no drain: that would serve parked mirrors too, and lack what root hands over.
pub(super) fn serve(every: &Every<'_>, owner: &Owner, job: &Job) -> Result<Vec<Report>, Error> {
    let failed = |source| process::Error::Start { program: "git mirror-push".into(), source };
    let mut asked = owner
        .command(&job.git_dir, every.server, Hands::Secrets)
        .map_err(|source| mirror::Error::from(failed(source)))?;
    asked.command.args(["--json", "--no-wake"]).args(arguments(job.mode));
    if every.adopts {
        asked.command.arg("--adopt");
    }
    if every.creates {
        asked.command.arg("--create");
    }
    if every.restore == Restore::All {
        asked.command.arg("--restore");
    }
    match names(every, job) {
        Served::All => {}
        Served::Only(names) if names.is_empty() => return Ok(Vec::new()),
        Served::Only(names) => drop(asked.command.args(names)),
    }
    let begin = (every.now)();
    let out = asked.output().map_err(mirror::Error::from)?;
    let printed: Vec<Printed> = serde_json::from_slice(&out).map_err(|error| Error::Panicked(error.to_string()))?;
    Ok(printed.into_iter().map(|printed| report(job, printed, begin)).collect())
}

/// Which mirrors a job serves.
enum Served {
    All,
    Only(Vec<String>),
}

/// Leaves out the mirrors that are parked.
fn names(every: &Every<'_>, job: &Job) -> Served {
    let is_parked = |name: &str| (every.parked)(&job.git_dir, name).is_some();
    if !job.mirror.is_empty() {
        return Served::Only(Some(job.mirror.clone()).filter(|name| !is_parked(name)).into_iter().collect());
    }
    // A file that cannot be used is left to the child, which reports the error.
    let Ok(config) = configuration(every, &job.git_dir) else { return Served::All };
    if !config.mirrors.iter().any(|mirror| is_parked(&mirror.name)) {
        return Served::All;
    }
    let is_meant = |mirror: &Mirror| match job.mode {
        Mode::Plan => true,
        Mode::Pull(_) => mirror.is_enabled && mirror.takes(),
        _ => mirror.is_enabled,
    };
    let served = config.mirrors.into_iter().filter(|mirror| is_meant(mirror) && !is_parked(&mirror.name));
    Served::Only(served.map(|mirror| mirror.name).collect())
}

/// What root takes from the configuration of a repository without opening it: the names of its mirrors, and what they are for.
fn configuration(every: &Every<'_>, git_dir: &Path) -> Result<Config, Error> {
    let path = Layout::new(git_dir).config();
    let text = match durable::read_text(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(Error::files("read the configuration", path.clone()))?,
    };
    let placed = every.server.place(git_dir);
    Ok(config::parse(&path, &text, every.server, placed.as_ref(), Trust::Foreign).map_err(mirror::Error::from)?)
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
fn report(job: &Job, printed: Printed, begin: Timestamp) -> Report {
    let git_dir = &*job.git_dir;
    // The name becomes part of a path, and the child, which is not root, is not trusted. So only its last component is used.
    let name = Path::new(&printed.name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let status = status::read(&Layout::new(git_dir).remote(&name)).unwrap_or_default();
    let is_well = printed.update_status == UpdateStatus::Finished;
    let next_attempt_at: Option<Timestamp> = status.next_attempt();
    let last: Option<Timestamp> = status.last_update_at.as_deref().and_then(|time| time.parse().ok());
    let was_tried = last.is_some_and(|last| last >= begin);
    let has_taken = printed.refs.iter().any(|outcome| outcome.side == Side::Here && outcome.outcome.is_done());
    let touches = |side| printed.refs.iter().any(|outcome| outcome.side == side);
    Report {
        direction: match (touches(Side::Here), touches(Side::There)) {
            (true, true) => Direction::Both,
            (true, false) => Direction::Pull,
            (false, _) => Direction::Push,
        },
        cause: status.cause.clone(),
        created_repository: printed.created_repository,
        // The child does not print it.
        is_superseded: false,
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
        // `drain --due` drains what it has taken.
        has_spooled: matches!(job.mode, Mode::Pull(_) | Mode::Sync(_) | Mode::Reconcile) && has_taken,
    }
}
