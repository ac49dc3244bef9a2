//! A repository that was copied with its mirrors, as `cp -a` does it. Both then push to the same mirror, and each undoes what the other did.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Status, read_as_is};
use crate::config::Mirror;
use crate::layout::Layout;

/// The repository that the state of this mirror was copied from, as long as that one is there and has the same mirror. `None` for a
/// repository that was only moved.
#[must_use]
pub fn original(status: &Status, git_dir: &Path, mirror: &Mirror) -> Option<PathBuf> {
    let other = status.repository.as_deref().map(Path::new).filter(|path| *path != git_dir)?;
    let (theirs, ours) = (identity(other)?, identity(git_dir)?);
    let their_status = read_as_is(&Layout::new(other).remote(&mirror.name)).ok()?;
    let is_same = their_status.tried_address.as_deref() == Some(&*mirror.address.identity());
    (theirs != ours && is_same).then(|| other.to_owned())
}

/// What stays the same however a directory is named: its device and inode.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
