//! Progress on a terminal: objects, bytes and rate of each mirror that is being pushed to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::config::Mirror;
use crate::push;

type Shown = Arc<Mutex<Vec<(ProgressBar, Arc<push::Progress>)>>>;

/// The bars, which a thread keeps moving until this is dropped.
pub(super) struct Bars {
    all: MultiProgress,
    bars: Shown,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bars {
    /// Starts with no bar.
    pub(super) fn new() -> Self {
        let bars: Shown = Arc::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (shown, over) = (Arc::clone(&bars), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for (bar, counted) in shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
                    bar.set_position(counted.bytes.load(Ordering::Relaxed));
                    let objects = counted.objects.load(Ordering::Relaxed);
                    if objects > 0 {
                        bar.set_message(format!("{objects} objects,"));
                    }
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        Self { all: MultiProgress::new(), bars, is_over, thread: Some(thread) }
    }

    /// Adds a bar for a mirror.
    pub(super) fn add(&self, mirror: &Mirror, counted: Arc<push::Progress>) {
        let style = ProgressStyle::with_template("{prefix}: {msg} {bytes}, {bytes_per_sec} {spinner}")
            .expect("the template is valid");
        let bar = self.all.add(ProgressBar::new_spinner().with_style(style).with_prefix(mirror.name.clone()));
        bar.set_message("comparing,");
        self.bars.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((bar, counted));
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
