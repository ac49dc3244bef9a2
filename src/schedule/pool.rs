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
    /// The jobs that it made necessary.
    pub(super) jobs: Vec<Job>,
    /// What serving a mirror showed about its host.
    pub(super) said: Option<Said>,
}

/// The queue, shared by threads that wait for its changes.
pub(super) struct Crew {
    state: Mutex<State>,
    changed: Condvar,
    /// As `changed`, but for the scanner alone. So a wake-up for a worker never goes to the
    /// scanner.
    changed_for_scanner: Condvar,
    /// Ends [`Crew::wait_for_need`]. Notified when a job waits because this machine has too small a
    /// part of a limit of its fleet, and by [`Crew::urge`] and [`Crew::change_for_all`].
    short: Condvar,
}

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// All tasks. In the daemon, the scanner has the scans of all repositories.
    Worker,
    /// Only the scans of all repositories.
    Scanner,
}

struct State {
    queue: Queue,
    /// The time at which one of the waiting threads wakes up by itself. The others sleep until they
    /// are woken.
    watch: Option<Timestamp>,
}

impl Crew {
    pub(super) fn new(limits: JobLimits) -> Self {
        Self {
            state: Mutex::new(State { queue: Queue::new(limits), watch: None }),
            changed: Condvar::new(),
            changed_for_scanner: Condvar::new(),
            short: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Changes the queue, and wakes one thread, which may have something to do now. A thread that
    /// gets a task wakes the next thread. So few tasks wake only few threads.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let changed = change(&mut self.lock().queue);
        self.changed.notify_one();
        changed
    }

    /// As [`Crew::change`]. Also wakes the scanner, and ends [`Crew::wait_for_need`].
    pub(super) fn change_for_all<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let changed = self.change(change);
        self.changed_for_scanner.notify_all();
        self.short.notify_all();
        changed
    }

    /// Changes the queue without waking a thread: the change makes no task.
    pub(super) fn note(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock().queue);
    }

    /// Waits until something waits for a larger part of a limit, or the time is over.
    /// [`Crew::urge`] and [`Crew::change_for_all`] (a halt, or scans of all repositories) also end
    /// it.
    pub(super) fn wait_for_need(&self, limit: Duration) {
        let mut state = self.lock();
        if !state.queue.is_short() && !state.queue.is_halted() {
            self.short.wait_for(&mut state, limit);
        }
    }

    /// Ends [`Crew::wait_for_need`], now or when it is called next.
    pub(super) fn urge(&self) {
        self.lock().queue.urge();
        self.short.notify_all();
    }

    /// Looks at the queue.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Queue) -> T) -> T {
        read(&self.lock().queue)
    }

    /// Does tasks in the calling thread until none is left to begin. This is also the case after [`Queue::halt`].
    pub(super) fn work(&self, role: Role, now: fn() -> Timestamp, act: &dyn Fn(Task<'_>) -> Done) {
        let mut state = self.lock();
        loop {
            let next = match role {
                Role::Worker => state.queue.next(now()),
                Role::Scanner => state.queue.next_of_scanner(),
            };
            match next {
                Next::End => {
                    self.changed.notify_all();
                    return;
                }
                Next::Wait(_) if role == Role::Scanner => self.changed_for_scanner.wait(&mut state),
                Next::Wait(time) => {
                    if state.queue.is_short() {
                        self.short.notify_all();
                    }
                    state = self.wait(state, time, now());
                }
                Next::Scan(git_dir) => {
                    (state, _) = self.act(role, state, act, Task::Scan(git_dir));
                    state.queue.scanned(now());
                }
                Next::Defer(job, down) => (state, _) = self.act(role, state, act, Task::Defer(&job, &down)),
                Next::Serve(job) => {
                    let said;
                    (state, said) = self.act(role, state, act, Task::Serve(&job));
                    state.queue.served(&job, said.unwrap_or(Said::Nothing));
                }
            }
        }
    }

    /// Does a task. Meanwhile another worker looks for the next one, or watches the clock.
    fn act<'s>(
        &'s self,
        role: Role,
        state: MutexGuard<'s, State>,
        act: &dyn Fn(Task<'_>) -> Done,
        task: Task<'_>,
    ) -> (MutexGuard<'s, State>, Option<Said>) {
        drop(state);
        if role == Role::Worker {
            self.changed.notify_one();
        }
        let done = act(task);
        let mut state = self.lock();
        // A worker takes the new jobs itself. The scanner serves no job, so it wakes a worker.
        if role == Role::Scanner && !done.jobs.is_empty() {
            self.changed.notify_one();
        }
        done.jobs.into_iter().for_each(|job| state.queue.add(job));
        (state, done.said)
    }

    /// Waits until this thread is woken. It also wakes up by itself at `time`, unless another
    /// thread already wakes up then or earlier.
    fn wait<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        time: Option<Timestamp>,
        now: Timestamp,
    ) -> MutexGuard<'s, State> {
        let Some(time) = time.filter(|time| state.watch.is_none_or(|watch| *time < watch)) else {
            self.changed.wait(&mut state);
            return state;
        };
        state.watch = Some(time);
        // Somebody may change the system time during the wait, so it lasts at most an hour.
        let left = Duration::try_from(time.duration_since(now)).unwrap_or_default().min(Duration::from_secs(3600));
        self.changed.wait_for(&mut state, left);
        // Whoever is awake looks at the clock again before it waits.
        if state.watch == Some(time) {
            state.watch = None;
        }
        state
    }
}
