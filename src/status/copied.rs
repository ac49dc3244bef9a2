//! A repository that was copied with its mirrors, as `cp -a` does it. Both then push to the same mirror, and each undoes what the other
//! did.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Status, read_as_is};
use crate::config::{self, Mirror, Server, Trust};
use crate::durable;
use crate::layout::Layout;

/// The repository that the state of this mirror was copied from, as long as that one is there and has the same mirror. `None` for a
/// repository that was only moved.
#[must_use]
pub fn original(status: &Status, git_dir: &Path, mirror: &Mirror) -> Option<PathBuf> {
    let other = status.repository.as_deref().map(Path::new).filter(|path| *path != git_dir)?;
    let (theirs, ours) = (identity(other)?, identity(git_dir)?);
    let their_status = read_as_is(&Layout::new(other).remote(&mirror.name)).ok()?;
    let is_same = their_status.tried_address.as_deref() == Some(&*mirror.identity());
    (theirs != ours && is_same && still_has(other, mirror)).then(|| other.to_owned())
}

/// Whether another repository may still push to this mirror. It may if its file has the mirror
/// enabled at the same address, or if its file cannot be read. It also may if its file does not
/// have the mirror, because a template may make it.
fn still_has(git_dir: &Path, mirror: &Mirror) -> bool {
    let path = Layout::new(git_dir).config();
    let Ok(text) = durable::read_text(&path) else { return true };
    let Ok(config) = config::parse(&path, &text, &Server::default(), None, Trust::Foreign) else { return true };
    config.mirror(&mirror.name).is_none_or(|theirs| theirs.is_enabled && theirs.identity() == mirror.identity())
}

/// The device and inode of a directory. They do not depend on the path by which it is opened.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
