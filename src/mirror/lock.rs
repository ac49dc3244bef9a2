//! The lock of a mirror: an advisory lock (flock(2)) on the file `lock`, which is never unlinked. The operating system releases it when the
//! process that holds it ends.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use fs2::FileExt;

use super::Error;
use crate::durable;
use crate::repo::Sharing;

/// The pauses before each try at a lock, in milliseconds.
const PAUSES: [u64; 6] = [0, 1, 2, 5, 10, 20];

/// How many times [`Lock::acquire`] calls [`Lock::try_acquire`] before it says that it waits. Together these tries take about a second.
const TRIES_IN_SILENCE: u32 = 26;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock in a mirror's directory if it is free or becomes free within about 40 milliseconds. It tries that long because
    /// `status` holds the lock for a moment, to see whether a run is active. `None` when another process keeps the lock.
    ///
    /// # Errors
    /// [`Error::Locks`], where locks do not work, and [`Error::Files`].
    pub fn try_acquire(directory: &Path, sharing: Sharing) -> Result<Option<Self>, Error> {
        let file = open(directory, sharing)?;
        for pause in PAUSES {
            std::thread::park_timeout(Duration::from_millis(pause));
            match file.try_lock_exclusive() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {}
                Err(source) => return Err(Error::Locks { path: directory.join("lock"), source }),
            }
        }
        Ok(None)
    }

    /// Waits for the lock. After a second it says what it waits for.
    ///
    /// # Errors
    /// As [`Lock::try_acquire`].
    pub fn acquire(directory: &Path, sharing: Sharing) -> Result<Self, Error> {
        for _ in 0..TRIES_IN_SILENCE {
            if let Some(lock) = Self::try_acquire(directory, sharing)? {
                return Ok(lock);
            }
        }
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        tracing::warn!("waiting for the running update of mirror '{name}'");
        let file = open(directory, sharing)?;
        file.lock_exclusive().map_err(|source| Error::Locks { path: directory.join("lock"), source })?;
        Ok(Self { _file: file })
    }
}

fn open(directory: &Path, sharing: Sharing) -> Result<File, Error> {
    let path = directory.join("lock");
    // A process that can open the file can hold the lock. So only the owner may open it, and the group if the repository is shared.
    durable::open_lock(&path, sharing.private_mode()).map_err(Error::files("open the lock", path))
}
