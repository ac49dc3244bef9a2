//! The packet lines that a mirror sends (gitprotocol-common(5), "pkt-line Format"), one by one.

use std::io::{self, Read};

use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::Error;
use crate::replies;

/// The next data line; `None` at a flush packet. An early end is [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn next_line<R: Read>(lines: &mut StreamingPeekableIter<R>) -> io::Result<Option<&[u8]>> {
    match lines.read_line() {
        None => Ok(None),
        Some(Err(error)) => Err(error),
        Some(Ok(Err(error))) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        Some(Ok(Ok(line))) => Ok(Some(line.as_slice().unwrap_or_default())),
    }
}

pub(crate) fn broken(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::InvalidData => Error::Protocol(source.to_string()),
        _ => Error::Broken { doing: "reading its refs", source },
    }
}

/// The error that an `ERR` packet means.
pub(crate) fn refused_by_server(message: &str) -> Error {
    let message = message.trim().to_owned();
    if replies::is_not_found_packet(&message) { Error::NotFound(message) } else { Error::Remote(message) }
}
