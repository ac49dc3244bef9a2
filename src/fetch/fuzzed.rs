//! Entry point for `tests/fuzz` to the reader of upload-pack's refs. Built for the fuzzer only.

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::greeting::{Greeting, greeting};
use super::symbolic::{self, Symbolic};
use crate::refs::RefName;

/// Reads what upload-pack says of `refs/heads/a` and `refs/heads/b`: its greeting, and its answer in version 2.
#[must_use]
pub fn symbolic(bytes: &[u8]) -> Option<Symbolic> {
    let names = ["refs/heads/a", "refs/heads/b"].map(|name| RefName::new(name.as_bytes()).expect("valid"));
    let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
    match greeting(&mut lines).ok()? {
        Greeting::Refs(first) => Some(Symbolic::of_older(&first)),
        Greeting::Commands(commands) => symbolic::answer(&mut lines, &names.each_ref(), commands.is_git).ok(),
    }
}
