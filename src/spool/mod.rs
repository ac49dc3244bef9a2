//! The spool: durable records of pushes that are not yet mirrored. The directory listing is the queue.
//!
//! ```text
//! mirror-push/spool/tmp/            a record being written; complete only once it has left
//! mirror-push/spool/incoming/       complete records, one a push, not yet given to the mirrors
//! mirror-push/spool/corrupt/        records that could not be read: moved aside, never deleted
//! mirror-push/spool/resync          one byte: `1` after a push that could not be recorded
//! mirror-push/remotes/NAME/queue/   one entry for each push that NAME has not yet been given
//! ```
//!
//! Guaranteed: a record in `incoming` or in a queue is whole or is recognised as damaged; every transition is one rename or
//! link that is synced before the step that depends on it; a repeated transition is harmless, since an entry keeps the
//! name of its record. A crash may therefore repeat work and never loses it.
//! Absent: what the records mean. They are hints; the repository is the truth.

use std::path::{Path, PathBuf};

mod enter;
#[cfg(feature = "mirror")]
mod fan_out;
mod hint;
#[cfg(feature = "mirror")]
mod queue;
mod record;
mod resync;

pub use enter::{Id, enter};
#[cfg(feature = "mirror")]
pub use fan_out::{FanOut, fan_out, incoming};
pub use hint::{hint, roots_file, runtime_directory, wake_socket};
#[cfg(feature = "mirror")]
pub use queue::{
    Backlog, Claim, backlog, claim, corrupt, finish, is_due, is_empty, mirrors, next_look, peek, pending, queues,
    request, request_full_sync, waits,
};
pub use record::{Record, Unreadable, decode, encode};
pub use resync::mark;

/// Where the files of this program lie in a repository.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below the repository's common directory `git_dir`.
    #[must_use]
    pub fn new(git_dir: &Path) -> Self {
        Self { root: git_dir.join("mirror-push") }
    }

    /// `mirror-push`, which holds everything of ours.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file of this repository's mirrors.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// Records being written.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("spool/tmp")
    }

    /// Complete records that no mirror was given yet.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.root.join("spool/incoming")
    }

    /// Records that could not be read.
    #[must_use]
    pub fn corrupt(&self) -> PathBuf {
        self.root.join("spool/corrupt")
    }

    /// The mark of a push that could not be recorded.
    #[must_use]
    pub fn resync(&self) -> PathBuf {
        self.root.join("spool/resync")
    }

    /// Everything of the mirror `name`.
    #[must_use]
    pub fn remote(&self, name: &str) -> PathBuf {
        self.root.join("remotes").join(name)
    }

    /// The queue of the mirror `name`.
    #[must_use]
    pub fn queue(&self, name: &str) -> PathBuf {
        self.remote(name).join("queue")
    }

    /// The directories that must exist before a push is spooled.
    #[must_use]
    pub fn spool_directories(&self) -> [PathBuf; 3] {
        [self.tmp(), self.incoming(), self.corrupt()]
    }
}

/// Makes the spool's directories with the permissions `directory_mode` (also the setgid bit), and the file of the resync mark.
/// What is there already keeps its permissions.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn prepare(layout: &Layout, directory_mode: u32) -> std::io::Result<()> {
    let ours = [layout.root().to_owned(), layout.root().join("spool"), layout.root().join("remotes")];
    let mut is_new = false;
    for directory in ours.into_iter().chain(layout.spool_directories()) {
        is_new |= make_directory(&directory, directory_mode)? == Made::Now;
    }
    if !layout.resync().exists() {
        resync::clear(layout)?;
        is_new = true;
    }
    if is_new { sync_directory(layout.root()) } else { Ok(()) }
}

/// Whether there was something to make.
#[cfg(feature = "mirror")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was not there.
    Now,
    /// It was.
    Before,
}

/// Makes one directory with the permissions `mode`, whatever the umask; does nothing if it exists.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn make_directory(path: &Path, mode: u32) -> std::io::Result<Made> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Made::Before),
        Err(error) => Err(error),
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map(|()| Made::Now),
    }
}

/// Syncs the directory `path`, so that renames, links and removals in it are durable.
///
/// # Errors
/// The operating system's, when the directory cannot be opened or synced.
#[expect(clippy::disallowed_methods, reason = "the one place that syncs a directory")]
pub fn sync_directory(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}
