//! The mark of a push that could not be recorded: the first byte of the file `spool/resync`, `1` or `0`.
//!
//! The file exists since the hook was installed and has its block on the disk, so the mark can be set on a full disk. The drain clears it
//! only after the queue of every enabled mirror durably has a full-sync record. A crash in between repeats the sync and does not forget it.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use crate::durable;
use crate::layout::Layout;

/// Marks the repository, so that the next drain compares everything.
///
/// # Errors
/// The operating system's, when the file can be neither written nor created.
pub fn mark(layout: &Layout) -> io::Result<()> {
    set(layout, b"1")
}

/// Whether the repository is marked. If the file is missing, it is not. A file that cannot be read
/// is an error.
#[cfg(feature = "mirror")]
pub fn is_marked(layout: &Layout) -> io::Result<bool> {
    let mut mark = [0];
    match durable::open_to_read(&layout.resync()).and_then(|(file, _)| file.read_at(&mut mark, 0)) {
        Ok(_) => Ok(mark == *b"1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Clears the mark. Makes the file if it is missing.
#[cfg(feature = "mirror")]
pub(super) fn clear(layout: &Layout) -> io::Result<()> {
    set(layout, b"0")
}

fn set(layout: &Layout, value: &[u8; 1]) -> io::Result<()> {
    let (file, _) = durable::open_shared(&layout.resync(), OFlags::WRONLY | OFlags::CREATE)?;
    file.write_all_at(value, 0)?;
    durable::sync(&file)
}
