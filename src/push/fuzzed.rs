//! Entry points for `tests/fuzz`: the functions that read what a mirror sends. Built for the fuzzer only.

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::{Answer, Capabilities, Command, Request, advertisement, report};
use crate::credentials::Redactor;
use crate::refs::{Oid, RefName};

/// Reads an advertisement; returns its refs.
#[must_use]
pub fn advertisement(bytes: &[u8]) -> Option<Vec<(RefName, Oid)>> {
    let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
    let mut refs = Vec::new();
    advertisement::read(&mut lines, advertisement::MaxBytes::USUAL, &mut |name, oid| refs.push((name.to_owned(), oid)))
        .ok()?;
    Some(refs)
}

/// Reads the report on a push of `refs/heads/a` and `refs/heads/b`; returns which of the two count as done.
#[must_use]
pub fn report(bytes: &[u8], side_band_64k: bool) -> [bool; 2] {
    let oid = Oid::from_hex(&[b'1'; 40]).expect("valid");
    let names = ["refs/heads/a", "refs/heads/b"].map(|name| RefName::new(name.as_bytes()).expect("valid"));
    let commands = names.clone().map(|name| Command { old: oid.null(), new: oid, name });
    let request = Request { commands: &commands, shallow: &[], push_options: &[], is_atomic: false, progress: None };
    let capabilities = Capabilities { side_band_64k, ..Capabilities::default() };
    let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
    let report = report::read(&mut lines, &request, &capabilities, &Redactor::default());
    names.map(|name| report.answers.get(&name) == Some(&Answer::Done))
}
