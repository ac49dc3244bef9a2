//! The body of a POST to receive-pack: commands, then the pack.
//!
//! Guaranteed: a pack of up to 1 MiB is read completely before it is sent, because some servers
//! need the length of the body. Of a larger pack, only a little more than 1 MiB is read in advance.

use std::io::{self, Cursor, Read};

use super::PackSource;
use super::pack::PackReader;
use crate::wire::Error;

/// Packs up to this size are sent with `Content-Length`.
const SMALL_PACK: u64 = 1 << 20;

/// The body of a POST: commands, then the pack.
pub(super) struct RequestBody {
    front: Cursor<Vec<u8>>,
    rest: Option<PackReader>,
    /// Why the pack could not be made.
    pub(super) pack_failure: Option<Error>,
}

/// The body and its length, if that is known without holding more than [`SMALL_PACK`].
pub(super) fn body(head: Vec<u8>, pack: Option<PackSource>) -> Result<(RequestBody, Option<u64>), Error> {
    let mut front = head;
    let mut rest = None;
    if let Some(pack) = pack {
        let mut reader = pack.open()?;
        let read = (&mut reader).take(SMALL_PACK + 1).read_to_end(&mut front);
        let read = read.map_err(|error| reader.failure(&error))?;
        rest = (read as u64 > SMALL_PACK).then_some(reader);
    }
    let length = rest.is_none().then_some(front.len() as u64);
    Ok((RequestBody { front: Cursor::new(front), rest, pack_failure: None }, length))
}

impl Read for RequestBody {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.front.read(buf)?;
        if count > 0 {
            return Ok(count);
        }
        let Some(rest) = &mut self.rest else { return Ok(0) };
        let read = rest.read(buf);
        if let Err(error) = &read {
            self.pack_failure = Some(rest.failure(error));
        }
        read
    }
}
