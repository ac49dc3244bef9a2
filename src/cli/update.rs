//! `drain`, `pull`, `sync`, `plan`: the commands that update mirrors or say what an update would
//! do.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::args::{self, Pull, Sync};
use super::progress::Bars;
use super::protect::end_of_silence;
use super::{BEHIND, DONE, Session, Usage, by_name, chosen, now, print_json, render};
use crate::config::Mirror;
use crate::drain::{self, Check, Context, MassDelete, Mode, Report, Resolve, Unchanged};
use crate::mirror::Lock;
use crate::plan::Restore;
use crate::push::Progress;
use crate::repo;
use crate::spool;
use crate::status::{self, RefOutcome, UpdateStatus};
use crate::wire;

/// Mirrors what is spooled. A drain that was started in the background (`--detach`) stays while a mirror waits for its next attempt.
pub(super) fn drain(session: &Session<'_>, drain: &args::Drain, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mode = if drain.reconcile { Mode::Reconcile } else { Mode::Drain };
    let names = &drain.scope.names;
    let mut reports = if drain.due { serve(session, Mode::Pull(Check::Due).into(), names)? } else { Vec::new() };
    reports.extend(serve(session, mode.into(), names)?);
    show(session, mode, &reports, out)?;
    let status = exit_status(&reports);
    if drain.detach {
        linger(session, reports, out)?;
    }
    Ok(status)
}

/// How long a woken drain stays for the next attempts. After that the next push, a timer or `sync` takes over.
const MAX_STAY: Duration = Duration::from_secs(24 * 3600);

/// How long a drain that stays waits until it reads the status files again. Another drain may have
/// set an earlier attempt.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits for the next attempt and makes it, until no mirror waits. Only one process per repository
/// waits; the others exit. This process also reads the status files, because a mirror may have
/// failed in a drain that has exited.
fn linger(session: &Session<'_>, mut reports: Vec<Report>, out: &mut dyn Write) -> anyhow::Result<()> {
    let spool = session.repository.layout().spool();
    let end = now().checked_add(MAX_STAY)?;
    let Some(_lock) = Lock::try_acquire(&spool, session.repository.sharing())? else { return Ok(()) };
    let mut pause = Duration::from_secs(1);
    loop {
        let is_held = |report: &&Report| report.update_status == UpdateStatus::Scheduled;
        let held = reports.iter().filter(is_held).filter_map(|report| report.next_attempt_at).min();
        // Somebody may be writing a file of the configuration. The mirrors still wait then.
        let read = waiting(session).or_else(|error| {
            tracing::warn!("'{}': {error:#}", session.repository.git_dir().display());
            now().checked_add(POLL_INTERVAL).map(Some)
        });
        let next = held.into_iter().chain(read?).min();
        let Some(next) = next.filter(|next| *next <= end && now() < end) else { return Ok(()) };
        match Duration::try_from(next.duration_since(now())) {
            Ok(left) if !left.is_zero() => std::thread::park_timeout(left.min(POLL_INTERVAL)),
            _ => {
                reports = attempt(session, out).unwrap_or_else(|error| {
                    tracing::warn!("'{}': {error:#}", session.repository.git_dir().display());
                    Vec::new()
                });
                // If nothing was attempted, another drain probably holds the lock. The longer pause gives it time.
                pause = if !reports.iter().any(|report| report.is_attempted) {
                    (pause * 2).min(POLL_INTERVAL * 6)
                } else {
                    Duration::from_secs(1)
                };
                std::thread::park_timeout(pause);
            }
        }
    }
}

/// One more attempt, with the server's files as they are now: they may have been changed since this process began to wait.
fn attempt(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<Vec<Report>> {
    let base = session.base.reloaded()?;
    let session = base.session_at(repo::open(session.repository.git_dir())?);
    run(&session, Mode::Drain.into(), &[], out)
}

/// When the next work is due. This is the earliest next attempt in the status files, or the
/// earliest time at which a queued record asks to read some refs again.
fn waiting(session: &Session<'_>) -> anyhow::Result<Option<Timestamp>> {
    let config = session.config()?;
    if config.is_silent {
        // 'silent off' wakes a drain.
        return Ok(None);
    }
    let layout = session.repository.layout();
    let mut next = None;
    for mirror in config.mirrors.iter().filter(|mirror| mirror.is_enabled) {
        let status = status::of(&layout, mirror)?;
        let due = status.next_attempt().filter(|_| status.update_status == UpdateStatus::Scheduled);
        let look = spool::next_look(&layout, &mirror.name)?;
        let look = look.and_then(|time| Timestamp::from_duration(time.try_into().ok()?).ok());
        // The back-off after a failure also delays the second reading of refs (`look` in a record).
        let backs_off = status.update_status == UpdateStatus::Scheduled && status.attempts > 0;
        let look = look.map(|look| due.filter(|_| backs_off).map_or(look, |due| due.max(look)));
        next = [next, due, look].into_iter().flatten().min();
    }
    Ok(next)
}

pub(super) fn exit_status(reports: &[Report]) -> u8 {
    if reports.iter().any(Report::is_behind) { BEHIND } else { DONE }
}

pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Checks upstreams, and takes what changed.
pub(super) fn pull(session: &Session<'_>, pull: &Pull, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    for name in &pull.scope.names {
        if !by_name(&config, name)?.takes() {
            let text = format!("mirror '{name}' is a push mirror; to update it: git mirror-push sync {name}");
            return Err(Usage(text).into());
        }
    }
    Ok(exit_status(&run(session, Mode::Pull(check_of(pull)).into(), &pull.scope.names, out)?))
}

/// Which upstreams `pull` checks.
pub(super) fn check_of(pull: &Pull) -> Check {
    if pull.due { Check::Due } else { Check::Now }
}

/// Compares and mirrors everything.
pub(super) fn sync(session: &Session<'_>, sync: &Sync, out: &mut dyn Write) -> anyhow::Result<u8> {
    if sync.create {
        let config = session.config()?;
        let chosen = chosen(&config, &sync.scope.names)?;
        let is_named = !sync.scope.names.is_empty();
        let cannot: Vec<&&Mirror> = chosen.iter().filter(|mirror| mirror.create.is_none()).collect();
        if let Some(mirror) = cannot.first().filter(|_| is_named || cannot.len() == chosen.len()) {
            let name = &mirror.name;
            let text = format!(
                "nothing says how the repository of mirror '{name}' is created; choose one: git mirror-push set {name} create=path|ssh|push|github|gitlab|gitea"
            );
            return Err(Usage(text).into());
        }
    }
    Ok(exit_status(&run(session, Asked::of(sync), &sync.scope.names, out)?))
}

/// What a command asks of every mirror.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) mode: Mode,
    /// Whether first contact is confirmed (`--adopt`).
    pub(super) adopts: bool,
    /// Whether a mirror's repository is made even if it was there once (`--create`).
    pub(super) creates: bool,
    /// Whether refs that were deleted here are taken again (`--restore`).
    pub(super) restore: Restore,
    /// A conflict that is resolved.
    pub(super) resolve: Option<&'a Resolve>,
}

impl From<Mode> for Asked<'_> {
    fn from(mode: Mode) -> Self {
        Self { mode, adopts: false, creates: false, restore: Restore::Changed, resolve: None }
    }
}

impl Asked<'_> {
    /// A sync with these options.
    pub(super) fn of(sync: &Sync) -> Self {
        let guard = if sync.allow_mass_delete { MassDelete::Allowed } else { MassDelete::Guarded };
        let restore = if sync.restore { Restore::All } else { Restore::Changed };
        Self { mode: Mode::Sync(guard), adopts: sync.adopt, creates: sync.create, restore, resolve: None }
    }
}

/// Says what `sync` would do.
pub(super) fn plan(session: &Session<'_>, names: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    Ok(exit_status(&run(session, Mode::Plan.into(), names, out)?))
}

/// Whether refs that were up to date before are shown.
pub(super) fn unchanged(base: &super::Base) -> Unchanged {
    if base.global.json || base.global.verbose > 0 { Unchanged::Reported } else { Unchanged::Omitted }
}

pub(super) fn run(
    session: &Session<'_>,
    asked: Asked<'_>,
    names: &[String],
    out: &mut dyn Write,
) -> anyhow::Result<Vec<Report>> {
    let reports = serve(session, asked, names)?;
    show(session, asked.mode, &reports, out)?;
    Ok(reports)
}

/// Serves the mirrors of these names, or all of them.
fn serve(session: &Session<'_>, asked: Asked<'_>, names: &[String]) -> anyhow::Result<Vec<Report>> {
    let Asked { mode, adopts, creates, restore, resolve } = asked;
    let config = session.config()?;
    // A plan changes nothing, so it is made for disabled mirrors too.
    let is_served = |mirror: &&Mirror| match mode {
        Mode::Plan => true,
        Mode::Pull(_) => mirror.is_enabled && mirror.takes(),
        _ => mirror.is_enabled,
    };
    let mirrors: Vec<&Mirror> = chosen(&config, names)?.into_iter().filter(is_served).collect();
    let is_left = |name: &&String| mode != Mode::Plan && config.mirror(name).is_some_and(|mirror| !mirror.is_enabled);
    for name in names.iter().filter(is_left) {
        session.base.warn(&format!("mirror '{name}' is disabled; 'git mirror-push enable {name}' serves it again"));
    }
    if config.is_silent && mode != Mode::Plan {
        session.base.say(&format!("silent: nothing leaves this machine; {}", end_of_silence(session.base)));
    }
    let bars = Bars::start(session.base).filter(|_| mode != Mode::Plan);
    let on_begin = |mirror: &Mirror, progress: Arc<Progress>| {
        if let Some(bars) = &bars {
            bars.add(&mirror.name, progress);
        }
    };
    let pool = wire::Pool::default();
    let context = Context {
        config: &config,
        server: &session.base.server,
        mode,
        only: None,
        adopts,
        creates,
        restore,
        resolve,
        pool: &pool,
        unchanged: unchanged(session.base),
        now,
        since: None,
        random,
        on_begin: &on_begin,
    };
    let reports = drain::drain(&session.shared, &context, &mirrors)?;
    drop(bars);
    if let Some(file) = config.metrics_file.as_ref().filter(|_| mode != Mode::Plan)
        && let Err(error) = super::measure::write_one(session, file)
    {
        session.base.warn(&format!("{error:#}"));
    }
    if reports.iter().any(|report| report.has_spooled) {
        session.wake(&config);
    }
    Ok(reports)
}

fn show(session: &Session<'_>, mode: Mode, reports: &[Report], out: &mut dyn Write) -> anyhow::Result<()> {
    if session.base.global.json {
        return print_json(out, &reports.iter().map(Json::from).collect::<Vec<_>>());
    }
    for report in reports {
        render::report(session.base, report, mode, out)?;
    }
    Ok(())
}

/// A report as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Json<'a> {
    repository: &'a str,
    name: &'a str,
    /// The old name of the field `name`.
    remote: &'a str,
    update_status: UpdateStatus,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    created_repository: bool,
    refs: &'a [RefOutcome],
}

impl<'a> From<&'a Report> for Json<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            repository: &report.repository,
            name: &report.remote,
            remote: &report.remote,
            update_status: report.update_status,
            error: report.error.as_deref(),
            created_repository: report.created_repository,
            refs: &report.refs,
        }
    }
}
