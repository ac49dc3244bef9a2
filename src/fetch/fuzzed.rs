//! Entry point for `tests/fuzz` to the reader of upload-pack's refs. Built for the fuzzer only.

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::symbolic::{self, Greeting, Symbolic};
use crate::refs::RefName;

/// Reads what upload-pack says of `refs/heads/a` and `refs/heads/b`: its greeting, and its answer in version 2.
#[must_use]
pub fn symbolic(bytes: &[u8]) -> Option<Symbolic> {
    let names = ["refs/heads/a", "refs/heads/b"].map(|name| RefName::new(name.as_bytes()).expect("valid"));
    let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
    match symbolic::greeting(&mut lines).ok()? {
        Greeting::Refs(symbolic) => Some(symbolic),
        Greeting::Commands { is_git, .. } => symbolic::answer(&mut lines, &names.each_ref(), is_git).ok(),
    }
}
