//! Progress on a terminal: the current step for each mirror, with git's own percentages and rates. With `--all`, a last line counts the
//! mirrors that are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use super::Base;
use crate::push::Progress;
use crate::terminal::escaped;

type Shown = Arc<Mutex<Vec<(ProgressBar, Arc<Progress>)>>>;

/// The lines of progress. A thread updates them until this is dropped.
pub(super) struct Bars {
    all: MultiProgress,
    done: Option<ProgressBar>,
    bars: Shown,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bars {
    /// Starts, if standard error is a terminal and `-q` was not given.
    pub(super) fn start(base: &Base) -> Option<Self> {
        let is_shown = !base.global.quiet && std::io::IsTerminal::is_terminal(&std::io::stderr());
        is_shown.then(Self::new)
    }

    /// The same for many repositories: a last line counts the mirrors that are done.
    pub(super) fn start_for_many(base: &Base) -> Option<Self> {
        let mut bars = Self::start(base)?;
        let style = ProgressStyle::with_template("mirrors done: {pos}").expect("the template is valid");
        bars.done = Some(bars.all.add(ProgressBar::no_length().with_style(style)));
        Some(bars)
    }

    fn new() -> Self {
        let bars: Shown = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (shown, over) = (Arc::clone(&bars), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                shown.lock().retain(|(bar, progress)| {
                    bar.set_message(progress.phase().to_string());
                    // The run is over when it has dropped its reference to the counters.
                    let is_running = Arc::strong_count(progress) > 1;
                    if !is_running {
                        bar.finish_and_clear();
                    }
                    is_running
                });
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        Self { all: MultiProgress::new(), done: None, bars, is_over, thread: Some(thread) }
    }

    /// Adds a line with the label `name`.
    pub(super) fn add(&self, name: &str, progress: Arc<Progress>) {
        progress.watch();
        // A line that is too long for the terminal is cut.
        let style = ProgressStyle::with_template("{prefix}: {wide_msg}").expect("the template is valid");
        let bar = ProgressBar::no_length().with_style(style).with_prefix(escaped(name));
        let bar = match &self.done {
            Some(done) => self.all.insert_before(done, bar),
            None => self.all.add(bar),
        };
        bar.set_message("waiting");
        self.bars.lock().push((bar, progress));
    }

    /// Counts a mirror as done.
    pub(super) fn count(&self) {
        if let Some(done) = &self.done {
            done.inc(1);
        }
    }

    /// Calls `print` while the lines are hidden.
    pub(super) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.all.suspend(print)
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        let _ = self.all.clear();
    }
}
