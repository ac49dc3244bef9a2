//! The mark of a push that could not be recorded: the first byte of the file `spool/resync`. `0` means that there is none. Hooks write `1`.
//! A drain that begins to do something about it writes a byte of its own.
//!
//! The file exists since the hook was installed and has its block on the disk, so the mark can be set on a full disk. The drain clears it
//! only after the queue of every enabled mirror durably has a full-sync record. A crash in between repeats the sync and does not forget it.
//! A drain does not clear the mark of a hook or of another drain that came later, unless that came within the microseconds between its
//! last look and its write.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

#[cfg(feature = "mirror")]
use super::Id;
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
        Ok(length) => Ok(length > 0 && mark != *b"0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the file, without a mark.
#[cfg(feature = "mirror")]
pub(super) fn make(layout: &Layout) -> io::Result<()> {
    set(layout, b"0")
}

/// Returns whether the repository is marked. If so, the mark becomes that of the drain `id`.
#[cfg(feature = "mirror")]
pub(super) fn begin(layout: &Layout, id: Id) -> io::Result<bool> {
    let is_marked = is_marked(layout)?;
    if is_marked {
        set(layout, &own(id))?;
    }
    Ok(is_marked)
}

/// Clears the mark, if it is still that of the drain `id`. A file that somebody has removed has none.
#[cfg(feature = "mirror")]
pub(super) fn clear(layout: &Layout, id: Id) -> io::Result<()> {
    let mut mark = [0];
    match durable::open_to_read(&layout.resync()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?.0.read_at(&mut mark, 0)?,
    };
    if mark == own(id) { set(layout, b"0") } else { Ok(()) }
}

/// The mark of the drain `id`, which is neither `0` nor `1`.
#[cfg(feature = "mirror")]
fn own(id: Id) -> [u8; 1] {
    [id.random.to_le_bytes()[0] | 0x80]
}

fn set(layout: &Layout, value: &[u8; 1]) -> io::Result<()> {
    let (file, _) = durable::open_shared(&layout.resync(), OFlags::WRONLY | OFlags::CREATE)?;
    file.write_all_at(value, 0)?;
    durable::sync(&file)
}

#[cfg(all(test, feature = "mirror"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_mark_that_is_set_again_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        crate::spool::prepare(&layout, 0o755).expect("a spool");
        let [one, two] = [1, 2].map(|random| Id { time: Duration::ZERO, pid: 1, random });
        let is_marked = || is_marked(&layout).expect("readable");
        assert!(!begin(&layout, one).expect("readable") && !is_marked());
        mark(&layout).expect("marked");
        assert!(begin(&layout, one).expect("readable") && is_marked());
        // A push that could not be recorded, while the first drain works.
        mark(&layout).expect("marked");
        clear(&layout, one).expect("unchanged");
        assert!(is_marked());
        // Two drains: the one that looked last clears it.
        assert!(begin(&layout, one).expect("readable") && begin(&layout, two).expect("readable"));
        clear(&layout, one).expect("unchanged");
        assert!(is_marked());
        clear(&layout, two).expect("cleared");
        assert!(!is_marked());
    }
}
