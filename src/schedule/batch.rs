//! Many repositories in one run (`--all`): each is scanned, and what is due is done, while the
//! hosts take turns (see `queue`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::as_owner;
use super::pool::{Crew, Done, Role, Task};
use super::queue::{HostLimit, Job, JobLimits, Said};
use crate::config::{self, Config, HostKeys, Mirror, Server};
use crate::drain::{self, Check, Context, Down, Error, Host, Mode, OnBegin, Report, Unchanged};
use crate::layout::Layout;
use crate::owner::Owner;
use crate::plan::Restore;
use crate::push::Progress;
use crate::repo;
use crate::spool;
use crate::status;
use crate::wire::{Address, Pool};

/// How many mirrors are served at once when the server's file does not say.
const MAX_JOBS: usize = 16;
/// How many of them are served at one host at once. sshd begins to turn connections away when ten are not yet logged in.
const MAX_JOBS_PER_HOST: usize = 8;
/// How often the daemon compares every mirror in full, unless `reconcile_interval` is set.
pub(super) const RECONCILE: Duration = Duration::from_secs(24 * 3600);
/// How many mirrors of one repository are served at once.
const MAX_JOBS_PER_REPOSITORY: usize = 4;

/// Called with the repository and the mirror of a run that begins.
pub type OnRun<'a> = &'a (dyn Fn(&Path, &str, Arc<Progress>) + Sync);

/// Called with the report on a mirror, or with a repository that could not be served at all.
pub type OnReport<'a> = &'a (dyn Fn(Result<Report, (PathBuf, Error)>) + Sync);

/// Scans a repository. Returns the time until which nothing is due there, unless a file of [`Stamp`](status::Stamp) or the configuration of
/// the server changes. `None` if something may be due now.
pub type Scan<'a> = &'a mut dyn FnMut() -> Option<Timestamp>;

/// What a scan of a repository found.
enum Found {
    /// Nothing is due until this time.
    Nothing(Timestamp),
    /// Something may be due.
    Jobs(Vec<Job>),
}

/// What a run over many repositories needs.
pub struct Every<'a> {
    /// The server's files.
    pub server: &'a Server,
    /// What is asked for.
    pub mode: Mode,
    /// Whether a person confirmed first contact with the mirrors (`--adopt`).
    pub adopts: bool,
    /// Whether the repository of a mirror is made even if it was there once (`sync --create`).
    pub creates: bool,
    /// Whether pull mirrors take refs again that were deleted here (`sync --restore`).
    pub restore: Restore,
    /// Connections that are shared.
    pub pool: &'a Pool,
    /// Whether the reports name what is the same on both sides.
    pub unchanged: Unchanged,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// When the daemon began; `None` outside the daemon. See [`status::next_check`].
    pub since: Option<Timestamp>,
    /// Chance, for the jitter of the back-off.
    pub random: fn() -> u64,
    /// How often a mirror is compared in full without being asked, if at all.
    pub reconcile: Option<Duration>,
    /// Why a mirror must not be served now, if it must not.
    pub parked: &'a (dyn Fn(&Path, &str) -> Option<Down> + Sync),
    /// Called with each repository that is to be scanned, and with what scans it. It need not scan a repository of which it knows that
    /// nothing is due.
    pub on_scan: &'a (dyn Fn(&Path, Scan<'_>) + Sync),
    /// Called with a mirror for which nothing was due.
    pub on_nothing: &'a (dyn Fn(&Path, &str) + Sync),
    /// Called when the run of a mirror begins.
    pub on_begin: OnRun<'a>,
    /// Called with the report on each mirror, and with each repository that could not be served at all.
    pub on_report: OnReport<'a>,
}

/// Serves every mirror of `repositories` for which there is something to do.
pub fn drain_every(repositories: Vec<PathBuf>, every: &Every<'_>) {
    let crew = Crew::new(limits(every.server));
    let threads = limits(every.server).all.min(repositories.len().max(1));
    crew.change(|queue| {
        queue.set_limits(limits(every.server), named_limits(every.server));
        queue.scan_all(repositories, (every.now)());
    });
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| crew.work(Role::Worker, every.now, &|task| every.act(task)));
        }
    });
}

/// The limits of the server's files.
pub(super) fn limits(server: &Server) -> JobLimits {
    JobLimits {
        all: server.top.max_jobs.unwrap_or(MAX_JOBS),
        per_host: server.top.max_jobs_per_host.unwrap_or(MAX_JOBS_PER_HOST),
        per_far_host: server.top.max_jobs_per_host.unwrap_or(MAX_JOBS),
        per_repository: server.top.max_jobs_per_repository.unwrap_or(MAX_JOBS_PER_REPOSITORY),
        scans: std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The limits of `[hosts]`.
pub(super) fn named_limits(server: &Server) -> BTreeMap<String, HostLimit> {
    let limit = |host: &HostKeys| HostLimit { jobs: host.max_jobs, per_minute: host.max_per_minute };
    server.hosts.iter().map(|(name, host)| (name.clone(), limit(host))).collect()
}

impl Every<'_> {
    /// Does the next task of the queue. A panic ends this task and no other.
    pub(super) fn act(&self, task: Task<'_>) -> Done {
        let git_dir = match &task {
            Task::Scan(git_dir) => git_dir.clone(),
            Task::Serve(job) | Task::Defer(job, _) => job.git_dir.clone(),
        };
        catch_unwind(AssertUnwindSafe(|| self.try_act(task))).unwrap_or_else(|_| {
            (self.on_report)(Err((git_dir, Error::Panicked("see the log".into()))));
            Done::default()
        })
    }

    fn try_act(&self, task: Task<'_>) -> Done {
        match task {
            Task::Scan(git_dir) => {
                let mut done = Done::default();
                (self.on_scan)(&git_dir, &mut || match self.scan(&git_dir) {
                    Ok(Found::Nothing(until)) => Some(until),
                    Ok(Found::Jobs(jobs)) => {
                        done.jobs = jobs;
                        None
                    }
                    Err(error) => {
                        (self.on_report)(Err((git_dir.clone(), error)));
                        None
                    }
                });
                done
            }
            Task::Serve(job) => {
                let (said, has_spooled) = self.serve(job);
                let onward = if has_spooled { self.onward(&job.git_dir) } else { Ok(Vec::new()) };
                let jobs = onward.unwrap_or_else(|error| {
                    (self.on_report)(Err((job.git_dir.clone(), error)));
                    Vec::new()
                });
                Done { said: Some(said), jobs }
            }
            Task::Defer(job, down) => {
                self.defer(job, down);
                Done::default()
            }
        }
    }

    /// Scans a repository. Returns until when nothing is due there, or its jobs.
    fn scan(&self, git_dir: &Path) -> Result<Found, Error> {
        let layout = Layout::new(git_dir);
        if self.mode == Mode::Drain
            && let Some(until) = self.idle_until(&layout, git_dir)?
        {
            return Ok(Found::Nothing(until));
        }
        self.jobs_of(&layout, git_dir).map(Found::Jobs)
    }

    fn jobs_of(&self, layout: &Layout, git_dir: &Path) -> Result<Vec<Job>, Error> {
        if let Some(owner) = Owner::of(git_dir, self.server) {
            return Ok(vec![as_owner::job(&owner, git_dir, "", self.mode_for_owner(layout, git_dir)?)]);
        }
        let repository = repo::open_listed(git_dir)?.to_local();
        config::authorise(&repository, self.server)?;
        let config = config::load(&repository, self.server)?;
        if config.is_silent && self.mode != Mode::Plan {
            drain::clean_up(&repository, &self.context(&config, self.mode, &|_, _| {}))?;
            return Ok(Vec::new());
        }
        if self.mode != Mode::Plan {
            drain::fan_out(&repository, &self.context(&config, self.mode, &|_, _| {}))?;
        }
        let is_served = |mirror: &&Mirror| match self.mode {
            Mode::Plan => true,
            Mode::Pull(_) => mirror.is_enabled && mirror.takes(),
            _ => mirror.is_enabled,
        };
        let served = config.mirrors.iter().filter(is_served);
        let mut jobs = Vec::new();
        for mirror in served {
            let job = self.job(layout, repository.git_dir(), mirror)?;
            // A parked mirror is deferred here, and not when its turn comes. That contacts nobody,
            // so it needs no place at its host.
            match (self.parked)(&job.git_dir, &job.mirror) {
                Some(down) => self.defer(&job, &down),
                None => jobs.push(job),
            }
        }
        Ok(jobs)
    }

    /// Jobs for the push mirrors of a repository that has just taken something.
    fn onward(&self, git_dir: &Path) -> Result<Vec<Job>, Error> {
        if let Some(owner) = Owner::of(git_dir, self.server) {
            return Ok(vec![as_owner::job(&owner, git_dir, "", Mode::Drain)]);
        }
        let repository = repo::open_listed(git_dir)?.to_local();
        let config = config::load(&repository, self.server)?;
        drain::fan_out(&repository, &self.context(&config, Mode::Drain, &|_, _| {}))?;
        let pushes = config.mirrors.iter().filter(|mirror| mirror.is_enabled && mirror.sends());
        Ok(pushes.map(|mirror| Self::job_of(repository.git_dir(), mirror, Mode::Drain)).collect())
    }

    pub(super) fn job_of(git_dir: &Path, mirror: &Mirror, mode: Mode) -> Job {
        let host = mirror.address.endpoint().unwrap_or_default();
        Job { git_dir: git_dir.to_owned(), mirror: mirror.name.clone(), host, mode }
    }

    /// The mode of a child that drains for the owner: it compares all mirrors if a full comparison of any of them is due.
    fn mode_for_owner(&self, layout: &Layout, git_dir: &Path) -> Result<Mode, Error> {
        let files = |doing| Error::files(doing, layout.root().to_owned());
        if self.mode != Mode::Drain || self.reconcile.is_none() {
            return Ok(self.mode);
        }
        for (name, _) in spool::queues(layout).map_err(files("list the mirrors"))? {
            let status = status::read(&layout.remote(&name)).map_err(files("read the status"))?;
            if self.is_comparison_due(git_dir, &name, &status) {
                return Ok(Mode::Reconcile);
            }
        }
        Ok(Mode::Drain)
    }

    /// The job of a mirror. It is a full comparison if one is due.
    fn job(&self, layout: &Layout, git_dir: &Path, mirror: &Mirror) -> Result<Job, Error> {
        let read = || status::of(layout, mirror);
        let is_due = self.mode == Mode::Drain
            && self.reconcile.is_some()
            && self.is_comparison_due(
                git_dir,
                &mirror.name,
                &read().map_err(Error::files("read the status", layout.remote(&mirror.name)))?,
            );
        let mode = match self.mode {
            _ if is_due => Mode::Reconcile,
            Mode::Drain if mirror.takes() => Mode::Pull(Check::Due),
            mode => mode,
        };
        Ok(Self::job_of(git_dir, mirror, mode))
    }

    fn context<'c>(&'c self, config: &'c Config, mode: Mode, on_begin: OnBegin<'c>) -> Context<'c> {
        Context {
            config,
            server: self.server,
            mode,
            only: None,
            adopts: self.adopts,
            creates: self.creates,
            restore: self.restore,
            resolve: None,
            pool: self.pool,
            unchanged: self.unchanged,
            now: self.now,
            since: self.since,
            random: self.random,
            on_begin,
        }
    }

    fn with<T>(&self, job: &Job, act: impl FnOnce(&repo::Repository, &Context<'_>) -> T) -> Result<T, Error> {
        let repository = repo::open_listed(&job.git_dir)?.to_local();
        config::authorise(&repository, self.server)?;
        let config = config::load(&repository, self.server)?;
        let on_begin = |mirror: &Mirror, progress| (self.on_begin)(&job.git_dir, &mirror.name, progress);
        Ok(act(&repository, &self.context(&config, job.mode, &on_begin)))
    }

    /// Serves a mirror. Returns what that showed about its host, and whether something was spooled for the push mirrors of the repository.
    fn serve(&self, job: &Job) -> (Said, bool) {
        // Silent mode may have begun since the job was queued.
        if self.server.top.silent == Some(true) && job.mode != Mode::Plan {
            return (Said::Nothing, false);
        }
        if let Some(owner) = Owner::of(&job.git_dir, self.server) {
            let reports = as_owner::serve(self, &owner, job).unwrap_or_else(|error| {
                (self.on_report)(Err((job.git_dir.clone(), error)));
                Vec::new()
            });
            let has_spooled = reports.iter().any(|report| report.has_spooled);
            reports.into_iter().for_each(|report| (self.on_report)(Ok(report)));
            return (as_owner::said(), has_spooled);
        }
        if let Some(down) = (self.parked)(&job.git_dir, &job.mirror) {
            self.defer(job, &down);
            return (Said::Nothing, false);
        }
        let (begin, mut is_ssh) = ((self.now)(), false);
        let served = self.with(job, |repository, context| {
            let mirror = context.config.mirror(&job.mirror)?;
            is_ssh = matches!(mirror.address, Address::Ssh { .. });
            drain::serve(repository, context, mirror)
        });
        match served {
            Ok(None) => {
                (self.on_nothing)(&job.git_dir, &job.mirror);
                (Said::Nothing, false)
            }
            Ok(Some(report)) => {
                let has_spooled = report.has_spooled;
                let said = match (report.host, Down::of(&report)) {
                    (_, Some(down)) => Said::Down(down),
                    (Host::Up, None) => {
                        let took = (self.now)().duration_since(begin).unsigned_abs();
                        // An ssh server never counts as far, because sshd would turn away more connections at once while they log in.
                        Said::Up(if is_ssh { Duration::ZERO } else { took })
                    }
                    _ => Said::Nothing,
                };
                (self.on_report)(Ok(report));
                (said, has_spooled)
            }
            Err(error) => {
                (self.on_report)(Err((job.git_dir.clone(), error)));
                (Said::Nothing, false)
            }
        }
    }

    fn defer(&self, job: &Job, down: &Down) {
        let held = self.with(job, |repository, context| match context.config.mirror(&job.mirror) {
            Some(mirror) => drain::defer(repository, context, mirror, down),
            None => Ok(None),
        });
        match held.and_then(|held| held) {
            Ok(None) => {}
            Ok(Some(report)) => (self.on_report)(Ok(report)),
            Err(error) => (self.on_report)(Err((job.git_dir.clone(), error))),
        }
    }
}
