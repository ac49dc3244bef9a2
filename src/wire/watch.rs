//! The time limits of one conversation: `stall_timeout` and `timeout`.
//!
//! A thread waits for the limit that is due first. Each byte that is sent or received restarts
//! `stall_timeout`. That limit does not run while this machine makes the pack. When a limit is
//! reached, the thread calls `abort`, which signals the process group or shuts down the socket.
//! Then the blocked read or write returns, and [`Watch::expired`] says which limit it was.

#![expect(clippy::disallowed_methods, reason = "measures how long nothing happened")]

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::process::Signal;

use super::{Limit, Timeouts};

/// A handle on the watch, for those whose bytes it counts.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    last: Instant,
    is_paused: bool,
    is_over: bool,
    expired: Option<Limit>,
}

/// The owner of the watch; the watch ends with it.
pub(super) struct WatchThread {
    pub(super) watch: Watch,
    thread: Option<JoinHandle<()>>,
}

impl WatchThread {
    /// Begins to watch. `abort` is called at most twice: first with `TERM`, and two seconds later with `KILL`.
    pub(super) fn new(timeouts: Timeouts, abort: impl Fn(Signal) + Send + 'static) -> Self {
        let state = State { last: Instant::now(), is_paused: false, is_over: false, expired: None };
        let watch = Watch(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }));
        let watched = watch.clone();
        let thread = std::thread::spawn(move || watched.run(timeouts, &abort));
        Self { watch, thread: Some(thread) }
    }
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        self.watch.state().is_over = true;
        self.watch.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in the watching thread has been reported by that thread.
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// A byte came or went.
    pub(super) fn touch(&self) {
        self.state().last = Instant::now();
    }

    /// From here on the mirror waits for us, so the stall limit does not run.
    pub(super) fn pause(&self) {
        self.state().is_paused = true;
    }

    /// From here on we wait for the mirror again.
    pub(super) fn resume(&self) {
        let mut state = self.state();
        state.is_paused = false;
        state.last = Instant::now();
        self.0.changed.notify_all();
    }

    /// Which limit ran out, if one did.
    pub(super) fn expired(&self) -> Option<Limit> {
        self.state().expired
    }

    fn run(&self, timeouts: Timeouts, abort: &dyn Fn(Signal)) {
        let begin = Instant::now();
        let mut state = self.state();
        let limit = loop {
            if state.is_over {
                return;
            }
            let now = Instant::now();
            let whole = timeouts.whole.saturating_sub(now - begin);
            let stall = if state.is_paused { Duration::MAX } else { timeouts.stall.saturating_sub(now - state.last) };
            if whole.is_zero() {
                break Limit::Whole;
            }
            if stall.is_zero() {
                break Limit::Stall;
            }
            self.0.changed.wait_for(&mut state, whole.min(stall));
        };
        state.expired = Some(limit);
        drop(state);
        abort(Signal::TERM);
        let mut state = self.state();
        self.0.changed.wait_while_for(&mut state, |state| !state.is_over, Duration::from_secs(2));
        if !state.is_over {
            drop(state);
            abort(Signal::KILL);
        }
    }
}

/// A reader or writer whose bytes the watch counts.
pub(crate) struct Watched<T> {
    pub(super) inner: T,
    pub(super) watch: Watch,
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.watch.touch();
        Ok(count)
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buf)?;
        self.watch.touch();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
