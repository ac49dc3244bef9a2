//! Entry point for `tests/fuzz` to the reader of packet lines. Built for the fuzzer only.

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::next_line;

/// Reads packet lines to their end; returns how many there were.
#[must_use]
pub fn packet_lines(bytes: &[u8]) -> usize {
    let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
    let mut count = 0;
    while let Ok(Some(_)) = next_line(&mut lines) {
        count += 1;
    }
    count
}
