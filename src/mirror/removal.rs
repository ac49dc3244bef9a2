//! The removal of a mirror: first a mark in its directory, then the deletion of its files.
//!
//! The queue and then the mark are deleted last. The lock file stays. If the process is killed before it has deleted the queue, the next
//! drain of the repository deletes the remaining files.

use std::path::Path;

use rustix::fs::OFlags;

use crate::durable;

/// The file that says that a mirror is being removed.
const REMOVED: &str = "removed";

/// Marks a mirror as one that is being removed, durably.
///
/// # Errors
/// The operating system's.
pub fn mark_removed(directory: &Path) -> std::io::Result<()> {
    let (mark, _) = durable::open(&directory.join(REMOVED), OFlags::WRONLY | OFlags::CREATE)?;
    mark.sync_all()?;
    durable::sync_directory(directory)
}

/// Whether a mirror is being removed.
#[must_use]
pub fn is_being_removed(directory: &Path) -> bool {
    directory.join(REMOVED).is_file()
}

/// Removes the files of a mirror that is not configured. The caller holds the lock. The lock file
/// stays. The queue is removed last but one, because a drain finds the directory by its queue. The
/// mark of the removal is removed last: if a drain finds a queue without the mark, it keeps the
/// queue, because the file of another server may name that mirror.
///
/// # Errors
/// The operating system's.
pub fn forget(directory: &Path) -> std::io::Result<()> {
    let mut names = durable::list_there(directory)?;
    names.retain(|name| !["lock", "queue", REMOVED].contains(&&**name));
    names.extend(["queue", REMOVED].map(str::to_owned));
    names.iter().try_for_each(|name| durable::remove_all(&directory.join(name)))
}
