//! Which mirror is updated when. Knows hosts, limits and times, and nothing of git.
//!
//! Hosts take turns, so a host with a thousand waiting repositories does not starve a host with one. A running job has a place; the limits
//! say how many places there are. The mirrors of one repository have a limit too, and some places are kept for repositories of which no job
//! runs.
//!
//! The first job for a host runs alone. If it shows that the host is down, all other jobs for this host are deferred without an attempt
//! until the next attempt is due, and no other host waits. Scanning a repository contacts nobody, so it waits for no host.
//!
//! In the daemon, a run that only waits for its mirror gives up its place after five seconds, and a second job may begin at a host that
//! has not answered. So mirrors that are slow on purpose do not keep the others waiting. A run that makes a pack, or sends one, keeps its
//! place.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::drain::{Check, Down, MassDelete, Mode};
use crate::push::Progress;

mod fleet;
mod limits;
mod running;
mod scans;

pub use fleet::{HostUse, Parts};
pub(super) use limits::JobLimits;
use limits::NamedHosts;
pub use limits::{HostLimit, bare};
use running::Running;
use scans::Scans;

/// A mirror: its repository and its name there.
pub(super) type Key = (PathBuf, String);

/// One mirror of one repository that is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) git_dir: PathBuf,
    pub(super) mirror: String,
    /// Empty for this machine, which is never down.
    pub(super) host: String,
    pub(super) mode: Mode,
}

impl Job {
    fn key(&self) -> Key {
        (self.git_dir.clone(), self.mirror.clone())
    }
}

/// How the "host" of an owner's job begins. No host has a space in its name.
pub(super) const OWNER: &str = "owner ";

/// A host is far away if the first run that it answered took this long or longer. Every run takes at least one round trip.
const FAR: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Host {
    waiting: VecDeque<Job>,
    running: usize,
    has_answered: bool,
    /// The duration of the first run that the host answered. Few other runs were going on there
    /// then, so the load of the host hardly counts.
    first: Option<Duration>,
    down: Option<Down>,
}

/// The jobs that wait, the jobs that run, and the times of later scans.
pub(super) struct Queue {
    limits: JobLimits,
    named: NamedHosts,
    hosts: BTreeMap<String, Host>,
    /// The host of the last job that began. The search for the next job begins after it.
    last: String,
    /// The mirrors that are being served.
    running: HashMap<Key, Running>,
    /// How many jobs of a repository run.
    repositories: HashMap<PathBuf, usize>,
    waiting: BTreeSet<Key>,
    scans: Scans,
    later: BTreeSet<(Timestamp, Key)>,
    due: HashMap<Key, Timestamp>,
    /// Whether more jobs may arrive, as in the daemon.
    is_open: bool,
    is_halted: bool,
    /// Whether something waits because this machine has too small a part of a limit of its fleet.
    is_short: bool,
    /// Whether [`Queue::urge`] was called since this machine last got its parts.
    is_urged: bool,
}

/// What the run of a job showed about its host.
pub(super) enum Said {
    /// Nothing: it was not contacted, or the run failed here.
    Nothing,
    /// It answered; the run took this long.
    Up(Duration),
    /// It did not answer.
    Down(Down),
}

/// What a thread does next.
#[derive(Debug)]
pub(super) enum Next {
    Scan(PathBuf),
    Serve(Job),
    Defer(Job, Down),
    /// Wait for a change of the queue, or until this time.
    Wait(Option<Timestamp>),
    /// Nothing is left.
    End,
}

impl Queue {
    pub(super) fn new(limits: JobLimits) -> Self {
        Self {
            limits,
            named: NamedHosts::default(),
            hosts: BTreeMap::new(),
            last: String::new(),
            running: HashMap::new(),
            repositories: HashMap::new(),
            waiting: BTreeSet::new(),
            scans: Scans::default(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            is_open: false,
            is_halted: false,
            is_short: false,
            is_urged: false,
        }
    }

    /// From now on more jobs may arrive, so threads do not end when the queue is empty.
    pub(super) fn open(&mut self) {
        self.is_open = true;
    }

    /// Queues a scan of a repository. A thread reads its spool and, if something may be due, adds jobs for its mirrors.
    pub(super) fn scan(&mut self, git_dir: PathBuf) {
        if !self.is_halted {
            self.scans.wake(git_dir);
        }
    }

    /// Queues scans of all repositories. Those that wait for such a scan already are not added again.
    pub(super) fn scan_all(&mut self, git_dirs: Vec<PathBuf>, now: Timestamp) {
        if !self.is_halted {
            self.scans.add_all(git_dirs, now);
        }
    }

    /// How long the last scan of all repositories took, or the one that goes on has taken so far if that is longer.
    pub(super) fn scan_time(&self, now: Timestamp) -> Duration {
        self.scans.took(now)
    }

    /// Queues a job. A mirror that waits already is not added again; its job gets the mode that
    /// does more. A mirror that is being served is served once more afterwards.
    pub(super) fn add(&mut self, job: Job) {
        if self.is_halted {
            return;
        }
        let key = job.key();
        if let Some(Running { again, .. }) = self.running.get_mut(&key) {
            if again.as_ref().is_none_or(|waiting| strength(job.mode) > strength(waiting.mode)) {
                *again = Some(job);
            }
            return;
        }
        let host = self.hosts.entry(job.host.clone()).or_default();
        host.has_answered |= job.host.is_empty();
        if self.waiting.insert(key) {
            host.waiting.push_back(job);
        } else if let Some(waiting) = host.waiting.iter_mut().find(|waiting| waiting.key() == job.key())
            && strength(job.mode) > strength(waiting.mode)
        {
            waiting.mode = job.mode;
        }
    }

    /// Queues a scan of a mirror's repository for that time. It replaces the time that was set for this mirror before.
    pub(super) fn scan_at(&mut self, key: Key, time: Option<Timestamp>) {
        if let Some(before) = self.due.remove(&key) {
            self.later.remove(&(before, key.clone()));
        }
        if let Some(time) = time.filter(|_| !self.is_halted) {
            self.later.insert((time, key.clone()));
            self.due.insert(key, time);
        }
    }

    /// Queues a scan of a mirror's repository for that time, unless one is queued for an earlier time.
    pub(super) fn scan_by(&mut self, key: Key, time: Timestamp) {
        if self.due.get(&key).is_none_or(|due| *due > time) {
            self.scan_at(key, Some(time));
        }
    }

    /// Forgets all jobs and scans that have not begun, and takes no more.
    pub(super) fn halt(&mut self) {
        self.is_halted = true;
        self.is_open = false;
        self.scans.clear();
        self.later.clear();
        self.due.clear();
        self.waiting.clear();
        self.hosts.values_mut().for_each(|host| host.waiting.clear());
        self.running.values_mut().for_each(|running| running.again = None);
    }

    /// Whether [`Queue::halt`] was called.
    pub(super) fn is_halted(&self) -> bool {
        self.is_halted
    }

    /// Changes the limits; what runs goes on.
    pub(super) fn set_limits(&mut self, limits: JobLimits, named: BTreeMap<String, HostLimit>) {
        self.limits = limits;
        self.named.set(named);
    }

    /// How many mirrors are being served, and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// What the scanner does next. The scanner is the daemon's thread that scans all repositories.
    pub(super) fn next_of_scanner(&mut self) -> Next {
        match self.scans.begin_next(usize::MAX) {
            Some(git_dir) => Next::Scan(git_dir),
            None if self.is_open => Next::Wait(None),
            None => Next::End,
        }
    }

    /// What any other thread does next.
    pub(super) fn next(&mut self, now: Timestamp) -> Next {
        while let Some((_, key)) = self.later.first().filter(|(time, _)| *time <= now).cloned() {
            self.scan_at(key.clone(), None);
            self.scan(key.0);
        }
        let scans = self.limits.scans;
        let next = match self.is_open {
            // One more, because one of the running scans may be the scanner's.
            true => self.scans.begin_woken(scans + 1),
            false => self.scans.begin_woken(scans).or_else(|| self.scans.begin_next(scans)),
        };
        if let Some(git_dir) = next {
            return Next::Scan(git_dir);
        }
        if let Some(next) = self.next_job(now) {
            return next;
        }
        self.find_short(now);
        let is_empty = self.scans.is_empty() && self.waiting.is_empty();
        if is_empty && !self.is_open {
            return Next::End;
        }
        let later = self.later.first().map(|(time, _)| *time);
        // The next look at the running jobs may show that one of them only waits for its mirror.
        // Then a waiting job gets its place.
        let look = self.running.values().filter_map(Running::next_look).min();
        let look = look.filter(|_| self.is_open && !self.waiting.is_empty());
        let waiting = self.hosts.iter().filter(|(_, host)| !host.waiting.is_empty());
        let free = waiting.filter_map(|(name, _)| self.named.free_at(name, now)).min();
        Next::Wait(later.into_iter().chain(look).chain(free).chain(self.next_part(now)).min())
    }

    /// How many places are taken. Runs that only wait have none, as far as there are threads for them.
    fn taken(&self) -> usize {
        let waiting = self.running.values().filter(|running| running.waits).count();
        self.running.len() - waiting.min(self.limits.slow())
    }

    /// A run has begun.
    pub(super) fn begun(&mut self, key: &Key, progress: Arc<Progress>) {
        if let Some(running) = self.running.get_mut(key) {
            running.progress = Some(progress);
        }
    }

    fn next_job(&mut self, now: Timestamp) -> Option<Next> {
        use std::ops::Bound::{Excluded, Unbounded};
        for host in self.hosts.values_mut() {
            if host.down.as_ref().is_some_and(|down| down.next_attempt_at <= now) {
                host.down = None;
                host.has_answered = false;
            }
        }
        let (limits, repositories) = (self.limits, &self.repositories);
        if self.is_open {
            self.running.values_mut().for_each(|running| running.look(now));
        }
        let taken = self.taken();
        let mut idle: HashMap<&str, usize> = HashMap::new();
        for running in self.running.values().filter(|running| running.waits) {
            *idle.entry(&running.host).or_default() += 1;
        }
        let (named, hosts) = (&self.named, &self.hosts);
        let running = || hosts.iter().map(|(name, host)| (&**name, host.running));
        let place = |(name, host): (&String, &Host)| {
            let limit = match host.has_answered {
                _ if host.down.is_some() => usize::MAX,
                _ if taken >= limits.all || named.is_full(name, running(), now) => 0,
                _ if name.is_empty() => usize::MAX,
                true if named.jobs(name, now).is_some() => usize::MAX,
                true if host.first.is_some_and(|took| took >= FAR) => limits.per_far_host,
                true => limits.per_host,
                false => 1,
            };
            let may_run = |job: &Job| {
                let most = if taken < limits.unreserved() { limits.per_repository } else { 1 };
                host.down.is_some() || repositories.get(&job.git_dir).is_none_or(|count| *count < most)
            };
            // Runs that only wait have no place at their host either. But at most twice the limit may run there.
            let busy = host.running - idle.get(&**name).copied().unwrap_or(0);
            let has_room = busy < limit && host.running < limit.saturating_mul(2);
            let at = host.waiting.iter().position(may_run).filter(|_| has_room)?;
            Some((name.clone(), at))
        };
        let later = self.hosts.range::<String, _>((Excluded(&self.last), Unbounded));
        let (name, at) = later.chain(&self.hosts).find_map(place)?;
        let host = self.hosts.get_mut(&name).expect("it was just found");
        let job = host.waiting.remove(at).expect("it was just found");
        self.waiting.remove(&job.key());
        if let Some(down) = &host.down {
            return Some(Next::Defer(job, down.clone()));
        }
        host.running += 1;
        self.named.begin(&name, now);
        self.running.insert(job.key(), Running::new(job.host.clone(), now));
        *self.repositories.entry(job.git_dir.clone()).or_default() += 1;
        self.last = name;
        Some(Next::Serve(job))
    }

    /// A repository was scanned.
    pub(super) fn scanned(&mut self, now: Timestamp) {
        self.scans.end(now);
    }

    /// A job was served.
    pub(super) fn served(&mut self, job: &Job, said: Said) {
        let host = self.hosts.get_mut(&job.host).expect("every job's host is known");
        host.running -= 1;
        match said {
            Said::Nothing => {}
            Said::Up(took) => {
                host.has_answered = true;
                host.first.get_or_insert(took);
            }
            Said::Down(down) => host.down = Some(down).filter(|_| !job.host.is_empty()),
        }
        if let Some(count) = self.repositories.get_mut(&job.git_dir) {
            *count -= 1;
            if *count == 0 {
                self.repositories.remove(&job.git_dir);
            }
        }
        if let Some(again) = self.running.remove(&job.key()).and_then(|running| running.again) {
            self.add(again);
        }
    }
}

/// How much a mode does. One that does more also does what the others do.
fn strength(mode: Mode) -> u8 {
    match mode {
        Mode::Plan => 0,
        Mode::Drain | Mode::Pull(Check::Due) => 1,
        Mode::Pull(Check::Now) => 2,
        Mode::Reconcile => 3,
        Mode::Sync(MassDelete::Guarded) => 4,
        Mode::Sync(MassDelete::Allowed) => 5,
    }
}

#[cfg(test)]
mod tests;
