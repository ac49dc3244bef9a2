//! The last outcome of each mirror, its past attempts, and what it held after our last contact.
//!
//! Guaranteed: `status.json` is replaced as a whole and synced before spool entries are finished.
//! `history.jsonl` is bounded. `mirrored/` holds only values that this repository itself had. A
//! damaged `status.json` causes a warning and counts as one that says "never tried". Damaged lines
//! of `mirrored/` count as unknown, so that at worst a rewrite is reported as divergence.
//! Absent: decisions. A crash leaves the old file or the new one.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

mod checks;
mod copied;
mod earlier;
mod history;
mod mirrored;
mod outcome;
mod past;
mod reasons;
mod runner;
mod sorted;
mod state;
mod summary;
mod view;

pub use checks::{CHECKED, last_check, next_check};
pub use copied::original;
pub use history::{Attempt, Replaced, append, read_history};
pub use mirrored::{Held, Mirrored};
pub use outcome::{Outcome, RefOutcome};
pub use past::{Past, note as note_past};
pub use runner::Runner;
pub use state::{Failures, Greeting, Move, Portion, PullState, Status};
pub use summary::{HalfStamp, Stamp, Standing, Summary};
pub use view::{HostKey, View, view, waiting};

use crate::config::Mirror;
use crate::durable;
use crate::layout::Layout;
use crate::repo::Sharing;

/// `update_status`, in GitLab's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStatus {
    /// Never tried.
    #[default]
    None,
    /// Spooled, or waiting to retry.
    Scheduled,
    /// At work.
    Started,
    /// Every selected ref is up to date, or the rules kept it.
    Finished,
    /// Something is wrong that a person must fix.
    Failed,
}

impl UpdateStatus {
    /// The word of the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scheduled => "scheduled",
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// The version that this program writes.
const VERSION: u32 = 1;

/// Reads the status in a mirror's directory. A missing file means that the mirror was never tried. If the file says `started` but
/// no run is active, the status is `scheduled`.
///
/// # Errors
/// As [`read_as_is`].
pub fn read(directory: &Path) -> io::Result<Status> {
    let mut status = read_as_is(directory)?;
    if status.update_status == UpdateStatus::Started && !is_at_work(directory, &status) {
        status.update_status = UpdateStatus::Scheduled;
    }
    Ok(status)
}

/// The status of a configured mirror: [`read`], then [`Status::at`] with its identity.
///
/// # Errors
/// As [`read_as_is`].
pub fn of(layout: &Layout, mirror: &Mirror) -> io::Result<Status> {
    Ok(read(&layout.remote(&mirror.name))?.at(&mirror.identity()))
}

/// Whether the run of a status that says `started` is still active. It is if its lock is held. If
/// we may not open the lock, we look for the process.
fn is_at_work(directory: &Path, status: &Status) -> bool {
    match durable::open_to_read(&directory.join("lock")) {
        // We hold the lock for a moment. `Lock::try_acquire` waits longer than that, so no drain gives up.
        Ok((lock, _)) => match fs2::FileExt::try_lock_shared(&lock) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => true,
            Err(_) => status.runner.as_ref().is_some_and(Runner::is_alive),
        },
        // Without the lock file, no run counts as active: nobody else could see its lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(_) => status.runner.as_ref().is_some_and(Runner::is_alive),
    }
}

/// The number of the run that wrote the status last; 0 when there is none.
///
/// # Errors
/// The operating system's.
pub fn generation(directory: &Path) -> io::Result<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        #[serde(default)]
        generation: u64,
    }
    match durable::read(&directory.join("status.json")) {
        Ok((text, _)) => Ok(serde_json::from_slice::<Numbered>(&text).map_or(0, |numbered| numbered.generation)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Reads the status in a mirror's directory as it was written. A missing file is a mirror that was never tried.
///
/// # Errors
/// The operating system's, and a file of a later version, which must not be replaced. A damaged file is no error: it is logged
/// as a warning.
pub fn read_as_is(directory: &Path) -> io::Result<Status> {
    let path = directory.join("status.json");
    let text = match durable::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Status::default()),
        read => read?.0,
    };
    match decoded(&text) {
        Ok(status) => Ok(status),
        Err(Unusable::Later(version)) => Err(later(&path, version)),
        Err(Unusable::Damaged(error)) => {
            tracing::debug!("'{}': {error}", path.display());
            tracing::warn!("'{}' is damaged; the next run writes it again and compares everything", path.display());
            Ok(Status::default())
        }
    }
}

/// Why a text is no status for this program.
enum Unusable {
    /// A later version of this program wrote it. It must not be replaced.
    Later(u64),
    Damaged(serde_json::Error),
}

fn decoded(text: &[u8]) -> Result<Status, Unusable> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    match serde_json::from_slice::<Status>(text) {
        Ok(status) if status.version <= VERSION => Ok(status),
        read => match serde_json::from_slice::<Version>(text) {
            Ok(Version { version }) if version > u64::from(VERSION) => Err(Unusable::Later(version)),
            _ => read.map_err(Unusable::Damaged),
        },
    }
}

fn later(path: &Path, version: u64) -> io::Error {
    let text = format!(
        "'{}' has version {version}, but this program knows only version {VERSION}; \
         install a newer git-mirror-push, or remove the file",
        path.display()
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Whether the status in a mirror's directory can be used. A missing file is no error.
///
/// # Errors
/// What is wrong with it.
pub fn examine(directory: &Path) -> Result<(), String> {
    let path = directory.join("status.json");
    match durable::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("'{}' cannot be read: {error}", path.display())),
        Ok((text, _)) => match decoded(&text) {
            Ok(_) => Ok(()),
            Err(Unusable::Later(version)) => Err(later(&path, version).to_string()),
            Err(Unusable::Damaged(_)) => Err(format!("'{}' is damaged", path.display())),
        },
    }
}

/// Replaces the status in a mirror's directory, durably.
///
/// # Errors
/// The operating system's. The old file is then still there, unless only the sync of the directory failed.
pub fn write(directory: &Path, status: &Status, sharing: Sharing) -> io::Result<()> {
    durable::replace(&directory.join("status.json"), &encoded(status)?, |file| sharing.publish(file))
}

/// Replaces the status as [`write()`] does, but does not sync it: a power failure may bring the old one back.
///
/// # Errors
/// The operating system's; the old file is then still there.
pub fn write_passing(directory: &Path, status: &Status, sharing: Sharing) -> io::Result<()> {
    durable::replace_unsynced(&directory.join("status.json"), &encoded(status)?, |file| sharing.publish(file))
}

fn encoded(status: &Status) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Status { version: VERSION, ..status.clone() })?;
    text.push(b'\n');
    Ok(text)
}

/// A time as JSON has it.
#[must_use]
pub fn render_time(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}
