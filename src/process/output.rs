//! What a program writes, read by a thread. A process that the program left behind may keep the pipe open. So after the
//! program has ended, we wait for the end of its output for `LAST_WORDS` at most.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use parking_lot::Mutex;

/// What a thread reads from a program.
pub(super) struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Closed when there is nothing more to read.
    end: Receiver<()>,
}

impl Heard {
    /// Reads until the end, or until `take` returns a break. `take` adds each piece to what was read so far.
    pub(super) fn listen(
        mut from: impl Read + Send + 'static,
        mut take: impl FnMut(&mut Vec<u8>, &[u8]) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, end) = mpsc::channel();
        let kept = Arc::clone(&bytes);
        std::thread::spawn(move || {
            let _sender = sender;
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                if take(&mut kept.lock(), &chunk[..count]).is_break() {
                    break;
                }
            }
        });
        Self { bytes, end }
    }

    /// What was read, after the program has ended. More may arrive for as long as `grace`.
    pub(super) fn last_words(self, grace: Duration) -> Vec<u8> {
        // The thread sends nothing, so this is always an error: the output has ended, or the time is over.
        let _ = self.end.recv_timeout(grace);
        std::mem::take(&mut self.bytes.lock())
    }
}

/// Keeps the last 4 KiB, and passes each piece to `hear`.
pub(super) fn tail(mut hear: impl FnMut(&[u8])) -> impl FnMut(&mut Vec<u8>, &[u8]) -> ControlFlow<()> {
    const KEPT: usize = 4096;
    move |kept, piece| {
        hear(piece);
        kept.extend_from_slice(piece);
        kept.drain(..kept.len().saturating_sub(KEPT));
        ControlFlow::Continue(())
    }
}

/// Keeps the first `most` bytes, and then ends the reading.
pub(super) fn head(most: usize) -> impl FnMut(&mut Vec<u8>, &[u8]) -> ControlFlow<()> {
    move |kept, piece| {
        kept.extend_from_slice(&piece[..piece.len().min(most - kept.len())]);
        if kept.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
