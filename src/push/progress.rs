//! The progress of a push: counters, and the current phase if someone watches. The texts of the phases come from
//! `git pack-objects --progress` and from the mirror (side band 2). Without a watcher no phase is kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::credentials::{Cleaned, Redactor};
use crate::replies;

/// How far a push is, for another thread to show.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects in the pack, once its header is known.
    pub objects: AtomicU64,
    /// Bytes of the pack that were passed on.
    pub bytes: AtomicU64,
    is_watched: AtomicBool,
    is_packing: AtomicBool,
    phase: Mutex<Cleaned>,
}

impl Progress {
    /// From now on someone watches.
    pub fn watch(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    /// Whether someone watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// Whether the next bytes of the pack are being made. Then we wait for our own machine and not for the mirror.
    #[must_use]
    pub fn is_packing(&self) -> bool {
        self.is_packing.load(Ordering::Relaxed)
    }

    /// From now on the next bytes of the pack are being made.
    pub(crate) fn begin_packing(&self) {
        self.is_packing.store(true, Ordering::Relaxed);
    }

    /// From now on the next bytes of the pack exist, and we wait for the mirror.
    pub(crate) fn end_packing(&self) {
        self.is_packing.store(false, Ordering::Relaxed);
    }

    /// Counts bytes of a pack.
    pub(crate) fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The current phase, with a percentage and a rate where git gives them.
    #[must_use]
    pub fn phase(&self) -> Cleaned {
        self.phase.lock().clone()
    }

    /// Begins a phase.
    pub fn begin(&self, phase: &'static str) {
        if self.is_watched() {
            self.set(phase.into());
        }
    }

    /// Takes progress output of a program or of the mirror, and keeps its last text that is neither empty nor git's `Total` line. Line
    /// feeds and carriage returns separate the texts.
    pub(crate) fn hear(&self, prefix: &'static str, written: &[u8], redactor: &Redactor) {
        if !self.is_watched() {
            return;
        }
        let states = written.rsplit(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
        let mut states = states.map(|state| redactor.clean_bytes(state));
        if let Some(state) = states.find(|state| !state.is_empty() && !replies::is_total(state)) {
            self.set(Cleaned::from(prefix).and(&state));
        }
    }

    fn set(&self, phase: Cleaned) {
        *self.phase.lock() = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_is_kept_only_if_someone_watches() {
        let progress = Progress::default();
        progress.begin("comparing refs");
        assert_eq!(&*progress.phase(), "");
        progress.watch();
        progress.begin("comparing refs");
        assert_eq!(&*progress.phase(), "comparing refs");
        for (written, shown) in [
            ("Writing objects:  45% (9/20)\rWriting objects:  50% (10/20)\r", "remote: Writing objects:  50% (10/20)"),
            ("\nTotal 20 (delta 0), reused 0 (delta 0)\n", "remote: Writing objects:  50% (10/20)"),
            ("a\nResolving\u{1b}[2J deltas: 100% (3/3), done.\n", "remote: Resolving[2J deltas: 100% (3/3), done."),
        ] {
            progress.hear("remote: ", written.as_bytes(), &Redactor::default());
            assert_eq!(&*progress.phase(), shown);
        }
    }
}
