//! A read-ahead buffer for ssh: a thread reads from the socket, at most 16 MiB ahead of the reader.
//!
//! ssh is slow when its reader lags behind, because ssh then moves its growing buffer again and
//! again. With 100,000 refs, these moves took more time than everything else.

use std::io::{self, Cursor, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, sync_channel};

/// Bytes per read, and the number of such chunks that may wait: together 16 MiB.
const CHUNK: usize = 64 << 10;
const MAX_CHUNKS: usize = 256;

/// The bytes that were read and are not yet used. Its thread ends with the socket, or when this is dropped.
pub(super) struct ReadAhead {
    socket: UnixStream,
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: Cursor<Vec<u8>>,
}

impl ReadAhead {
    /// Begins to read.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        let (sender, chunks) = sync_channel(MAX_CHUNKS);
        let mut input = socket.try_clone()?;
        std::thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            loop {
                let read = match input.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => Ok(chunk[..count].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if sender.send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Self { socket, chunks, current: Cursor::default() })
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buf)?;
            if count > 0 || buf.is_empty() {
                return Ok(count);
            }
            match self.chunks.recv() {
                Ok(chunk) => self.current = Cursor::new(chunk?),
                // The thread is gone: this was all.
                Err(_) => return Ok(0),
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // An error means that the socket is shut down already.
        let _ = self.socket.shutdown(Shutdown::Read);
    }
}
