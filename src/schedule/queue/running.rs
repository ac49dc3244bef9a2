//! A mirror that is being served, and whether its run only waits for the mirror.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};

use super::{Job, OWNER};
use crate::push::Progress;

/// How often the daemon checks whether a run only waits for its mirror.
const LOOK: SignedDuration = SignedDuration::from_secs(5);
/// A run that sends fewer bytes in a second, and makes no pack either, only waits.
const MIN_SPEED: u64 = 10_000;

/// A mirror that is being served.
pub(super) struct Running {
    pub(super) host: String,
    /// Its progress, once it has begun.
    pub(super) progress: Option<Arc<Progress>>,
    /// When the last check was, and how many bytes it had sent by then.
    looked: (Timestamp, u64),
    /// Whether the last check showed that it only waits for its mirror. Then it has no place.
    pub(super) waits: bool,
    /// The job that arrived for it meanwhile.
    pub(super) again: Option<Job>,
}

impl Running {
    pub(super) fn new(host: String, now: Timestamp) -> Self {
        Self { host, progress: None, looked: (now, 0), waits: false, again: None }
    }

    /// When the next check is due. `None` for a mirror on this machine: its run never only waits, because this machine does all the work.
    /// Also `None` for the job of an owner, whose process does not tell what it does.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        (!self.host.is_empty() && !self.host.starts_with(OWNER)).then(|| self.looked.0 + LOOK)
    }

    pub(super) fn look(&mut self, now: Timestamp) {
        if self.next_look().is_none_or(|next| next > now) {
            return;
        }
        let sent = self.progress.as_ref().map_or(0, |progress| progress.bytes.load(Ordering::Relaxed));
        let seconds = u64::try_from(now.duration_since(self.looked.0).as_secs()).unwrap_or(1);
        let is_packing = self.progress.as_ref().is_some_and(|progress| progress.is_packing());
        self.waits = !is_packing && sent.saturating_sub(self.looked.1) < MIN_SPEED.saturating_mul(seconds);
        self.looked = (now, sent);
    }
}
