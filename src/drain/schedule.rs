//! Who is served when, among the mirrors of many repositories. Knows hosts and limits, and nothing of git.
//!
//! Hosts take turns, so that one with a thousand waiting repositories does not starve one with a single one. The first
//! contact with a host goes alone: when it shows that the host is down, everything else that waits for it is put off
//! without an attempt, and until then no other host waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// One mirror of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) git_dir: PathBuf,
    pub(super) mirror: String,
    /// Empty for this machine, which is never down.
    pub(super) host: String,
}

/// How many jobs run at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) per_host: usize,
}

struct Host<D> {
    waiting: VecDeque<Job>,
    running: usize,
    has_answered: bool,
    down: Option<D>,
}

struct Queue<D> {
    hosts: BTreeMap<String, Host<D>>,
    /// The host that was served last: the next one has its turn.
    last: String,
}

/// What serving a job said of its host.
pub(super) enum Said<D> {
    /// Nothing: there was nothing to do, or its turn has not come.
    Nothing,
    /// It answers.
    Up,
    /// It does not.
    Down(D),
}

/// What a thread does next.
enum Next<D> {
    Serve(Job),
    PutOff(Job, D),
    Wait,
    End,
}

/// Runs `jobs`. `serve` does one and says so when its host is down; `put_off` is called for each job of such a host that was
/// not begun.
pub(super) fn run<D: Clone + Send>(
    jobs: Vec<Job>,
    limits: Limits,
    serve: &(dyn Fn(&Job) -> Said<D> + Sync),
    put_off: &(dyn Fn(&Job, &D) + Sync),
) {
    let threads = limits.all.min(jobs.len());
    let queue = Mutex::new(Queue::new(jobs));
    let changed = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut guard: MutexGuard<'_, Queue<D>> = lock();
                loop {
                    match guard.next(limits.per_host) {
                        Next::End => return,
                        Next::Wait => guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                        Next::PutOff(job, down) => {
                            drop(guard);
                            put_off(&job, &down);
                            guard = lock();
                        }
                        Next::Serve(job) => {
                            drop(guard);
                            let said = serve(&job);
                            guard = lock();
                            guard.served(&job, said);
                            changed.notify_all();
                        }
                    }
                }
            });
        }
    });
}

impl<D: Clone> Queue<D> {
    fn new(jobs: Vec<Job>) -> Self {
        let mut hosts: BTreeMap<String, Host<D>> = BTreeMap::new();
        for job in jobs {
            let host = hosts.entry(job.host.clone()).or_insert_with(|| Host {
                waiting: VecDeque::new(),
                running: 0,
                has_answered: job.host.is_empty(),
                down: None,
            });
            host.waiting.push_back(job);
        }
        Self { hosts, last: String::new() }
    }

    fn next(&mut self, per_host: usize) -> Next<D> {
        use std::ops::Bound::{Excluded, Unbounded};
        let may_run = |(name, host): &(&String, &Host<D>)| {
            let limit = match host.has_answered {
                _ if host.down.is_some() || name.is_empty() => usize::MAX,
                true => per_host,
                false => 1,
            };
            !host.waiting.is_empty() && host.running < limit
        };
        let later = self.hosts.range::<String, _>((Excluded(&self.last), Unbounded));
        let Some(name) = later.chain(&self.hosts).find(may_run).map(|(name, _)| name.clone()) else {
            let is_over = self.hosts.values().all(|host| host.waiting.is_empty());
            return if is_over { Next::End } else { Next::Wait };
        };
        let host = self.hosts.get_mut(&name).expect("it was just found");
        let job = host.waiting.pop_front().expect("it has a job that waits");
        if let Some(down) = &host.down {
            return Next::PutOff(job, down.clone());
        }
        host.running += 1;
        self.last = name;
        Next::Serve(job)
    }

    fn served(&mut self, job: &Job, said: Said<D>) {
        let host = self.hosts.get_mut(&job.host).expect("every job's host is known");
        host.running -= 1;
        match said {
            Said::Nothing => {}
            Said::Up => host.has_answered = true,
            Said::Down(down) => host.down = Some(down).filter(|_| !job.host.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn jobs(host: &str, count: usize) -> Vec<Job> {
        let job = |n| Job { git_dir: format!("/{host}/{n}").into(), mirror: "m".into(), host: host.into() };
        (0..count).map(job).collect()
    }

    #[test]
    fn a_host_that_is_down_is_tried_once_and_delays_no_other() {
        let all = [jobs("dead", 500), jobs("alive", 50)].concat();
        let (tried, put_off, served) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let serve = |job: &Job| {
            if job.host == "alive" {
                served.fetch_add(1, Ordering::SeqCst);
                return Said::Up;
            }
            tried.fetch_add(1, Ordering::SeqCst);
            // It is only found to be down once the other host has been served.
            while served.load(Ordering::SeqCst) < 50 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            Said::Down("no route")
        };
        let put = |_: &Job, down: &&str| {
            assert_eq!(*down, "no route");
            put_off.fetch_add(1, Ordering::SeqCst);
        };
        run(all, Limits { all: 8, per_host: 4 }, &serve, &put);
        let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        assert_eq!((count(&tried), count(&put_off), count(&served)), (1, 499, 50));
    }

    #[test]
    fn limits_hold_and_hosts_take_turns() {
        let mut queue: Queue<()> = Queue::new([jobs("a", 9), jobs("b", 2)].concat());
        let served = |queue: &mut Queue<()>| match queue.next(2) {
            Next::Serve(job) => Some(job),
            _ => None,
        };
        let first = [served(&mut queue), served(&mut queue), served(&mut queue)].map(|job| job.map(|job| job.host));
        assert_eq!(first, [Some("a".into()), Some("b".into()), None], "one each, until they have answered");
        queue.served(&jobs("a", 1)[0], Said::Up);
        assert_eq!(served(&mut queue).map(|job| job.host), Some("a".into()));
        assert_eq!(served(&mut queue).map(|job| job.host), Some("a".into()));
        assert_eq!(served(&mut queue), None, "two at most for a host");
    }
}
