//! Where this program's files are: below `mirror-push` in a repository, and in the daemon's runtime directory. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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

    /// `mirror-push`, the directory of all these files.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The repository's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The repository.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// The lock file for changes of `config.toml`.
    #[must_use]
    pub fn config_lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The spool.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Records that are still being written.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("spool/tmp")
    }

    /// Complete records that are not in the mirrors' queues yet.
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

    /// Values that refs here were moved away from.
    #[must_use]
    pub fn past(&self) -> PathBuf {
        self.root.join("past")
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

/// Where the daemon's runtime files are: the first directory of `$RUNTIME_DIRECTORY` (systemd.exec(5)), or `/run/git-mirror-push`.
#[must_use]
pub fn runtime_directory(variable: Option<&OsStr>) -> PathBuf {
    let first = variable.and_then(|value| value.as_bytes().split(|byte| *byte == b':').next());
    match first.filter(|path| path.starts_with(b"/")) {
        Some(path) => PathBuf::from(OsStr::from_bytes(path)),
        None => PathBuf::from("/run/git-mirror-push"),
    }
}

/// The datagram socket on which the daemon is woken.
#[must_use]
pub fn wake_socket(runtime: &Path) -> PathBuf {
    runtime.join("wake")
}

/// The file that lists the directories below which the daemon serves repositories, one per line.
#[must_use]
pub fn roots_file(runtime: &Path) -> PathBuf {
    runtime.join("roots")
}
