//! The threads that do the next job of the queue, for one batch or for the life of the daemon.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::queue::{Job, JobLimits, Next, Queue, Said};
use crate::drain::Down;

/// One thing to do.
pub(super) enum Task<'a> {
    /// Scan a repository's spool, and say what is to be served.
    Scan(PathBuf),
    /// Serve a mirror.
    Serve(&'a Job),
    /// Record that a mirror waits for its host, which is down.
    Defer(&'a Job, &'a Down),
}

/// The result of a task.
#[derive(Default)]
pub(super) struct Done {
    /// The jobs that a scan found.
    pub(super) jobs: Vec<Job>,
    /// What serving a mirror showed about its host.
    pub(super) said: Option<Said>,
}

/// The queue, shared by threads that wait for its changes.
pub(super) struct Crew {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queue: Queue,
    /// Whether one of the threads waits only until the next due time. The others sleep until the queue changes.
    has_watch: bool,
}

impl Crew {
    pub(super) fn new(limits: JobLimits) -> Self {
        Self { state: Mutex::new(State { queue: Queue::new(limits), has_watch: false }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the queue, and wakes the threads, which may have something to do now.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let changed = change(&mut self.lock().queue);
        self.changed.notify_all();
        changed
    }

    /// Changes the queue in a way that gives nobody anything to do.
    pub(super) fn note(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock().queue);
    }

    /// Looks at the queue.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Queue) -> T) -> T {
        read(&self.lock().queue)
    }

    /// Does tasks in the calling thread until none is left to begin. This is also the case after [`Queue::halt`].
    pub(super) fn work(&self, now: fn() -> Timestamp, act: &dyn Fn(Task<'_>) -> Done) {
        let mut state = self.lock();
        loop {
            match state.queue.next(now()) {
                Next::End => {
                    self.changed.notify_all();
                    return;
                }
                Next::Wait(time) => state = self.wait(state, time, now()),
                Next::Scan(git_dir) => {
                    drop(state);
                    let done = act(Task::Scan(git_dir));
                    state = self.lock();
                    state.queue.scanned();
                    // Most spools are empty. Then there is no reason to wake other threads.
                    if !done.jobs.is_empty() {
                        done.jobs.into_iter().for_each(|job| state.queue.add(job));
                        self.changed.notify_all();
                    }
                }
                Next::Defer(job, down) => {
                    drop(state);
                    act(Task::Defer(&job, &down));
                    state = self.lock();
                }
                Next::Serve(job) => {
                    drop(state);
                    let done = act(Task::Serve(&job));
                    state = self.lock();
                    state.queue.served(&job, done.said.unwrap_or(Said::Nothing));
                    self.changed.notify_all();
                }
            }
        }
    }

    /// Waits for a change of the queue. If no other thread watches the clock, waits at most until `time`.
    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        time: Option<Timestamp>,
        now: Timestamp,
    ) -> MutexGuard<'s, State> {
        let Some(time) = time.filter(|_| !state.has_watch) else {
            self.changed.wait(&mut state);
            return state;
        };
        state.has_watch = true;
        // Somebody may change the system time during the wait, so it lasts at most an hour.
        let left = Duration::try_from(time.duration_since(now)).unwrap_or_default().min(Duration::from_secs(3600));
        self.changed.wait_for(&mut state, left);
        state.has_watch = false;
        // Now nobody watches the clock. If this thread gets a task, the thread that is woken here takes over the watch.
        self.changed.notify_one();
        state
    }
}
