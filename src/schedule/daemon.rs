//! The daemon's workers: threads that live as long as the daemon, and what gives them work.
//!
//! Guaranteed: no push depends on what is in memory. A hint, a time or a request only says where to look. If one is lost, the push waits
//! until the next scan. What a person asked for is on the disk before it is in the queue of these threads. A crash leaves what a drain
//! leaves; the first scan of the next daemon finds it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::as_owner;
use super::batch::{Every, RECONCILE, Scan, limits, named_limits};
use super::pool::{Crew, Done, Role, Task};
use super::queue::{HostLimit, HostUse, Parts, Queue};
use crate::config::{Mirror, Server};
use crate::credentials::Cleaned;
use crate::drain::{Check, Down, Error, MassDelete, Mode, Report, Unchanged};
use crate::layout::Layout;
use crate::owner::Owner;
use crate::plan::Restore;
use crate::status;
use crate::wire::Pool;

/// How often a mirror that is not served is looked at.
const PARKED: Duration = Duration::from_secs(60);
/// The nice value of the threads that look through all repositories.
const NICE: i32 = 10;

/// Lowers the priority of this thread, so that work on all repositories does not delay a push. On Linux each thread has a priority of its
/// own (sched(7)). If this fails, the thread only delays the others a little.
pub fn yield_to_others() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

/// What happens to a mirror or a repository.
#[derive(Debug)]
pub enum Event<'a> {
    /// The run of a mirror begins.
    Begun {
        /// The repository.
        git_dir: &'a Path,
        /// The mirror.
        mirror: &'a str,
    },
    /// The run of a mirror has ended, or the mirror waits for its next attempt.
    Ended(&'a Report),
    /// Work on a repository failed, and there is no report on a mirror that says so.
    Failed {
        /// The repository.
        git_dir: &'a Path,
        /// Why.
        error: &'a Error,
    },
}

/// Threads that serve mirrors, and their queue.
pub struct Workers {
    crew: Crew,
    server: Mutex<Arc<Server>>,
    now: fn() -> Timestamp,
    since: Timestamp,
    random: fn() -> u64,
    pool: Pool,
    /// Mirrors that are not served, and why.
    parked: Mutex<HashMap<(PathBuf, String), Cleaned>>,
    on_event: Box<dyn Fn(Event<'_>) + Send + Sync>,
    on_scan: Box<OnScan>,
}

/// Called with each repository that is to be scanned. See [`Every::on_scan`].
type OnScan = dyn Fn(&Path, Scan<'_>) + Send + Sync;

impl Workers {
    /// Workers that serve nothing yet.
    #[must_use]
    pub fn new(
        server: Arc<Server>,
        now: fn() -> Timestamp,
        random: fn() -> u64,
        on_event: Box<dyn Fn(Event<'_>) + Send + Sync>,
        on_scan: Box<OnScan>,
    ) -> Self {
        let crew = Crew::new(limits(&server));
        crew.change(|queue| {
            queue.set_limits(limits(&server), named_limits(&server));
            queue.open();
        });
        Self {
            crew,
            server: Mutex::new(server),
            now,
            since: now(),
            random,
            pool: Pool::default(),
            parked: Mutex::default(),
            on_event,
            on_scan,
        }
    }

    /// The configuration that counts now.
    #[must_use]
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.lock())
    }

    /// Takes a new configuration. The number of threads changes only with a restart.
    pub fn reload(&self, server: Arc<Server>) {
        let (limits, named) = (limits(&server), named_limits(&server));
        *self.server.lock() = server;
        self.crew.change(|queue| queue.set_limits(limits, named));
    }

    /// Returns after [`Workers::halt`] was called and the running jobs have ended.
    pub fn run(&self) {
        let limits = limits(&self.server());
        std::thread::scope(|scope| {
            let work = |role| self.crew.work(role, self.now, &|task| self.act(task));
            // The extra threads are for runs that only wait for their mirror, and for scans while all other threads serve mirrors.
            for _ in 0..limits.all + limits.slow() + limits.scans {
                scope.spawn(move || work(Role::Worker));
            }
            scope.spawn(move || {
                yield_to_others();
                work(Role::Scanner);
            });
        });
    }

    /// Queues a scan of a repository's spool.
    pub fn wake(&self, git_dir: PathBuf) {
        self.crew.change(|queue| queue.scan(git_dir));
    }

    /// Queues scans of these repositories' spools.
    pub fn scan(&self, git_dirs: Vec<PathBuf>) {
        let now = (self.now)();
        self.crew.change_for_all(|queue| queue.scan_all(git_dirs, now));
    }

    /// How long the last look through all spools took, or the one that goes on has taken so far if that is longer.
    #[must_use]
    pub fn scan_time(&self) -> Duration {
        self.crew.read(|queue| queue.scan_time((self.now)()))
    }

    /// Queues a full sync of a mirror. A mirror that is being served is served once more afterwards.
    pub fn sync(&self, git_dir: &Path, mirror: &Mirror) {
        self.add(git_dir, mirror, Mode::Sync(MassDelete::Guarded));
    }

    /// Queues a check of an upstream. If the mirror is being served, it is served once more afterwards.
    pub fn pull(&self, git_dir: &Path, mirror: &Mirror) {
        self.add(git_dir, mirror, Mode::Pull(Check::Now));
    }

    fn add(&self, git_dir: &Path, mirror: &Mirror, mode: Mode) {
        let job = match Owner::of(git_dir, &self.server()) {
            Some(owner) => as_owner::job(&owner, git_dir, &mirror.name, mode),
            None => Every::job_of(git_dir, mirror, mode),
        };
        self.crew.change(|queue| queue.add(job));
    }

    /// What happens at the hosts of `[hosts]`.
    #[must_use]
    pub fn uses(&self) -> BTreeMap<String, HostUse> {
        self.crew.read(|queue| queue.uses((self.now)()))
    }

    /// Lowers this machine's parts of the limits of `[hosts]` to `parts`, where these are smaller
    /// than the parts in force. Returns what happens at these hosts afterwards.
    pub fn lower(&self, parts: &BTreeMap<String, HostLimit>) -> BTreeMap<String, HostUse> {
        self.crew.change(|queue| queue.lower(parts, (self.now)()))
    }

    /// Takes the parts of the limits of `[hosts]` that this machine may use.
    pub fn share(&self, parts: Parts) {
        self.crew.change(|queue| queue.share(parts));
    }

    /// Begins no job at a host before the time of `down`.
    pub fn hold(&self, endpoint: &str, down: Down) {
        self.crew.change(|queue| queue.hold(endpoint, down));
    }

    /// Ends [`Workers::wait_for_need`], now or when it is called next.
    pub fn urge(&self) {
        self.crew.urge();
    }

    /// Replaces the set of mirrors that are not served, for the repositories that `is_meant`
    /// chooses. `mirrors` has the reason for each. A mirror that is served again has its turn
    /// within a minute.
    pub fn park(&self, is_meant: &dyn Fn(&Path) -> bool, mirrors: HashMap<(PathBuf, String), Cleaned>) {
        let mut parked = self.parked.lock();
        parked.retain(|(git_dir, _), _| !is_meant(git_dir));
        parked.extend(mirrors);
    }

    fn parked(&self, git_dir: &Path, mirror: &str) -> Option<Down> {
        let error = self.parked.lock().get(&(git_dir.to_owned(), mirror.to_owned())).cloned()?;
        let next_attempt_at = (self.now)() + PARKED;
        Some(Down { error, attempts: 1, next_attempt_at, cause: Some("v1:-:double_url:-".into()) })
    }

    /// Waits until a job waits for a larger part of a limit, or the workers are halted, or the time
    /// is over. [`Workers::urge`] and [`Workers::scan`] also end it.
    pub fn wait_for_need(&self, limit: Duration) {
        self.crew.wait_for_need(limit);
    }

    /// Whether [`Workers::halt`] was called.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.crew.read(Queue::is_halted)
    }

    /// Makes the workers begin no further job.
    pub fn halt(&self) {
        self.crew.change_for_all(Queue::halt);
    }

    /// How many mirrors are being served, and how many wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.crew.read(Queue::counts)
    }

    /// Queues a scan for the next attempt at a mirror. Another program may have set the time.
    fn scan_when_due(&self, git_dir: &Path, mirror: &str) {
        // If the status cannot be read, the next scan of all repositories finds what is due.
        let (directory, now) = (Layout::new(git_dir).remote(mirror), (self.now)());
        let status = status::read(&directory).unwrap_or_default();
        let next = match status.pull {
            Some(_) => status::next_check(&directory, &status, now, Some(self.since)),
            None => status.next_attempt(),
        };
        // The status has milliseconds, rounded down.
        let next = next.and_then(|next| next.checked_add(Duration::from_millis(1)).ok());
        if let Some(next) = next.filter(|next| *next > now) {
            self.crew.change(|queue| queue.scan_by((git_dir.to_owned(), mirror.to_owned()), next));
        }
    }

    fn act(&self, task: Task<'_>) -> Done {
        let server = self.server();
        let on_report = |report: Result<Report, (PathBuf, Error)>| match &report {
            Ok(report) => {
                let key = (PathBuf::from(&report.repository), report.remote.clone());
                self.crew.change(|queue| queue.scan_at(key, report.next_attempt_at));
                (self.on_event)(Event::Ended(report));
            }
            Err((git_dir, error)) => (self.on_event)(Event::Failed { git_dir, error }),
        };
        let every = Every {
            server: &server,
            mode: Mode::Drain,
            adopts: false,
            creates: false,
            restore: Restore::Changed,
            pool: &self.pool,
            unchanged: Unchanged::Omitted,
            now: self.now,
            since: Some(self.since),
            random: self.random,
            reconcile: Some(server.top.reconcile_interval.unwrap_or(RECONCILE)),
            parked: &|git_dir, mirror| self.parked(git_dir, mirror),
            on_scan: &|git_dir, scan| {
                // What was found with an old configuration does not hold for the new one.
                let is_current = || Arc::ptr_eq(&server, &self.server());
                (self.on_scan)(git_dir, &mut || scan().filter(|_| is_current()));
            },
            on_nothing: &|git_dir, mirror| self.scan_when_due(git_dir, mirror),
            on_begin: &|git_dir, mirror, progress| {
                self.crew.note(|queue| queue.begun(&(git_dir.to_owned(), mirror.to_owned()), progress));
                (self.on_event)(Event::Begun { git_dir, mirror });
            },
            on_report: &on_report,
        };
        every.act(task)
    }
}
