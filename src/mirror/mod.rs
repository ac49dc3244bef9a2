//! The directory of a mirror, `mirror-push/remotes/NAME`, and its settings: lock, editing, removal, destination.
//!
//! Guaranteed: the files of a mirror are made before the configuration names the mirror, and removed after its name has left the
//! configuration. So a crash while a mirror is added or removed leaves a mirror that works, or none. Absent: what is sent, and when
//! ([`crate::drain`]).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::durable;
use crate::repo::{self, Repository};
use crate::spool;

mod destination;
mod edit;
mod host_keys;
mod local;
mod lock;
mod operation;
mod other_head;
mod removal;
mod shown;

pub use crate::durable::Group as SyncGroup;
use destination::unmoved;
pub use destination::{Seen, create_token, credentials, found_credentials, target};
pub use edit::{Editor, Extras, Keys, WhileBusy, Wish, clean_url, token_as_password};
pub use host_keys::{detect, host_keys_of};
pub use local::{LocalMirror, LostHead};
pub use lock::Lock;
pub use operation::{Answer, Operation};
pub use other_head::OtherHead;
pub use removal::{forget, is_being_removed, mark_removed};
pub use shown::{to_show, with_shown};

/// What went wrong with a mirror's files or settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be met or is probably a mistake. The text says why.
    #[error("{0}")]
    Refused(String),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] repo::Error),
    /// The configuration cannot be read or written, or would not be valid.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// A file of the mirror cannot be read or written.
    #[error("cannot {doing} in '{}': {source}", path.display())]
    Files {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// This file system has no locks that work.
    #[error("the file system of '{}' has no working locks: {source}; move the repository to one that has", path.display())]
    Locks {
        /// The lock file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Another process or thread holds the lock of the mirror, and we do not wait for it.
    #[error("mirror '{name}' is being updated or removed; try again later")]
    Busy {
        /// The mirror.
        name: String,
    },
    /// The URL of the mirror is another one now. The password is not for the URL that was read before.
    #[error("somebody else has just changed the URL of mirror '{name}' or removed the mirror; try again")]
    Moved {
        /// The mirror.
        name: String,
    },
    /// The credentials cannot be obtained.
    #[error("cannot get the credentials: {0}")]
    Credentials(std::io::Error),
    /// A password would cross the network in the clear.
    #[error("a password would go over plain http; use https, or set allow_insecure_http = true for this mirror")]
    InsecureHttp,
    /// Another program could not be run, or it failed.
    #[error(transparent)]
    Program(#[from] crate::process::Error),
}

impl Error {
    /// The error of an operation on files, from what the operating system says.
    pub(crate) fn files(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Files { doing, path, source }
    }
}

/// Makes the directories of a mirror.
///
/// # Errors
/// [`Error::Files`].
pub fn prepare(repository: &Repository, name: &str) -> Result<(), Error> {
    let layout = repository.layout();
    let mode = repository.sharing().directory_mode().unwrap_or(0o755);
    let made = spool::prepare(&layout, mode)
        .and_then(|()| durable::make_directory(&layout.remote(name), Some(mode)))
        .and_then(|_| durable::make_directory(&layout.queue(name), Some(mode)));
    made.map(drop).map_err(Error::files("make directories", layout.root().to_owned()))
}

/// A new name for a spool record.
#[must_use]
pub fn new_id(now: Timestamp) -> spool::Id {
    let time = std::time::Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    spool::Id { time, pid: std::process::id(), random: RandomState::new().hash_one(time) }
}
