//! Enters a record: writes it to `tmp`, syncs it, renames it into `incoming`, and syncs the
//! directory.
//!
//! If the hook is killed before the rename, a file stays in `tmp`, and the next drain compares everything.
//! If it is killed after the rename, the record is there, whatever the exit status of the hook is.
//!
//! A record takes its read and write permissions from the directory `incoming`, so that in a spool shared by several users (directories
//! of mode 2770) all of them can read and remove it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{Record, encode};
use crate::durable::{make_all, rename, sync_directory, write_synced};
use crate::layout::Layout;

/// The name of a record: when it was made, by which process, and a random number, so that two pushes in one
/// nanosecond, even from two machines, do not share a name. Names sort by time.
#[derive(Clone, Copy, Debug)]
pub struct Id {
    /// Since the Unix epoch.
    pub time: Duration,
    /// The process that writes.
    pub pid: u32,
    /// A random number.
    pub random: u64,
}

impl Id {
    /// The file name, `SECONDS.NANOSECONDS.PID.RANDOM`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{:010}.{:09}.{}.{:016x}", self.time.as_secs(), self.time.subsec_nanos(), self.pid, self.random)
    }

    /// The time that a file name contains, since the Unix epoch. `None` if the name does not begin
    /// like [`Id::file_name`]. The rest of the name may be anything.
    #[must_use]
    pub fn time_of(file_name: &str) -> Option<Duration> {
        let mut parts = file_name.split('.');
        Some(Duration::new(
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?,
        ))
    }

    /// The process that a file name contains. `None` if the third part of the name is not a number.
    #[must_use]
    pub fn pid_of(file_name: &str) -> Option<u32> {
        file_name.split('.').nth(2)?.parse().ok()
    }
}

/// A record that is written and not yet in `incoming`.
#[derive(Debug)]
pub struct Entering {
    tmp: PathBuf,
    incoming: PathBuf,
}

/// Writes `record` into `tmp`, creating the spool's directories when they are missing.
///
/// # Errors
/// The operating system's. A file that stays in `tmp` causes a full sync.
pub fn begin(layout: &Layout, id: Id, record: &Record) -> io::Result<Entering> {
    match begin_once(layout, id, record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for directory in layout.spool_directories() {
                make_all(&directory)?;
            }
            begin_once(layout, id, record)
        }
        begun => begun,
    }
}

fn begin_once(layout: &Layout, id: Id, record: &Record) -> io::Result<Entering> {
    let (tmp, incoming) = (layout.tmp().join(id.file_name()), layout.incoming());
    write_synced(&tmp, &encode(record), &incoming)?;
    Ok(Entering { tmp, incoming })
}

impl Entering {
    /// Makes the file in `tmp` survive a power failure too, for the case that [`Entering::finish`] comes much later.
    ///
    /// # Errors
    /// The operating system's.
    pub fn keep(&self) -> io::Result<()> {
        sync_directory(self.tmp.parent().unwrap_or(&self.tmp))
    }

    /// Moves the record into `incoming`, durably.
    ///
    /// # Errors
    /// The operating system's. If only the last sync failed, the record is in `incoming`. After any
    /// other error, its file is still in `tmp` and causes a full sync.
    pub fn finish(self) -> io::Result<()> {
        rename(&self.tmp, &self.incoming.join(self.tmp.file_name().unwrap_or_default()))?;
        sync_directory(&self.incoming)
    }
}
