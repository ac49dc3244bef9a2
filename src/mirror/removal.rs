//! The removal of a mirror: first a mark in its directory, then the deletion of its files.
//!
//! A process that is killed in between leaves the mark. The next drain of the repository then removes the remaining files.

#![expect(clippy::disallowed_methods, reason = "makes the mark of a removal, and removes files")]

use std::path::Path;

use crate::durable;

/// The file that says that a mirror is being removed.
const REMOVED: &str = "removed";

/// Marks a mirror as one that is being removed, durably.
///
/// # Errors
/// The operating system's.
pub fn mark_removed(directory: &Path) -> std::io::Result<()> {
    std::fs::File::create(directory.join(REMOVED))?.sync_all()?;
    durable::sync_directory(directory)
}

/// Takes the mark of a removal away, if there is one.
///
/// # Errors
/// The operating system's.
fn unmark_removed(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(directory.join(REMOVED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a mirror is being removed.
#[must_use]
pub fn is_being_removed(directory: &Path) -> bool {
    directory.join(REMOVED).is_file()
}

/// Removes the files of a mirror that is no longer configured, in this order: everything else, the mark of the removal, the queue.
/// The caller holds the lock; its file stays.
///
/// # Errors
/// The operating system's.
pub fn forget(directory: &Path) -> std::io::Result<()> {
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            directories.push(path);
        } else if path.file_name().is_some_and(|name| name != "lock" && name != REMOVED) {
            std::fs::remove_file(&path)?;
        }
    }
    let (queue, others): (Vec<_>, Vec<_>) = directories.into_iter().partition(|path| path.ends_with("queue"));
    others.iter().try_for_each(std::fs::remove_dir_all)?;
    unmark_removed(directory)?;
    queue.iter().try_for_each(std::fs::remove_dir_all)
}
