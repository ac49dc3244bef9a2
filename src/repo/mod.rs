//! The repository whose refs are mirrored. gix reads it; git reads the refs that gix cannot read.
//!
//! Guaranteed: a repository of another user is refused unless `safe.directory` allows it (git-config(1)). So is one that git would not
//! open, and one with grafts, because git sees another history there than the one that is stored. Replace refs are ignored: the stored
//! objects are mirrored. For a ref, "absent", "unreadable" and "symbolic" are different answers. Absent: every write in the repository.
//! Nothing is cached between drains, so a crash leaves at most the temporary directory of `alternates`.

use std::cell::OnceCell;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use alternates::Added;
use format::RefStorage;

use crate::durable;
use crate::layout::Layout;
use crate::refs::{Oid, RefName};
use crate::replies;

mod alternates;
mod format;
mod git_refs;
mod gix_errors;
mod history;
mod pack;
mod plain;
mod refs;
mod reftable;
mod remotes;
mod shallow_partial;
mod sharing;

pub use git_refs::GitRefs;
pub use gix_errors::{is_refused, one_line};
pub use history::History;
pub use plain::Plain;
pub use refs::Listing;
pub use remotes::GitRemote;
pub use sharing::Sharing;

/// Why a repository cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path names no repository, or one that git itself would not open.
    #[error("'{}' is not a git repository: {reason}", path.display())]
    NotARepository {
        /// The path that was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Git would refuse it too (`safe.directory`).
    #[error("repository '{0}' belongs to another user; run as that user, or: git config --global --add safe.directory '{0}'", path.display())]
    OtherOwner {
        /// The repository.
        path: PathBuf,
    },
    /// Its refs are stored in a way that this git does not read.
    #[error("cannot read the refs of '{}': {message}; reftable needs git 2.45 or later on the PATH", path.display())]
    RefStorage {
        /// The repository.
        path: PathBuf,
        /// Git's message.
        message: String,
    },
    /// It uses an extension that this program does not know, or that its format version does not
    /// allow. Git's rule is to leave such a repository alone (gitrepository-layout(5)).
    #[error("repository '{}' has extensions.{name}{why}", path.display())]
    Extension {
        /// The repository.
        path: PathBuf,
        /// The extension.
        name: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// It has grafts, so git sees another history than the one that is stored.
    #[error("repository '{}' has grafts ('info/grafts'), so git sees another history than the one that is stored; turn them into replace refs: git replace --convert-graft-file", path.display())]
    Grafts {
        /// The repository.
        path: PathBuf,
    },
    /// A ref or an object could not be read.
    #[error("cannot read {what} of '{}': {reason}", path.display())]
    Read {
        /// What was read.
        what: String,
        /// The repository.
        path: PathBuf,
        /// The error of the store.
        reason: String,
    },
}

/// An open repository, for one thread.
pub struct Repository {
    inner: gix::Repository,
    git_dir: PathBuf,
    /// Reads its refs with git, when gix cannot.
    by_git: Option<GitRefs>,
    /// The temporary directory of `alternates`. `inner` reads it, so it must exist as long as `inner`.
    _added: Added,
    /// HEAD as git reported it. It is kept, because it is needed more than once.
    head: OnceCell<Option<RefName>>,
}

/// A repository that can be given to another thread, which makes a [`Repository`] of its own from it.
pub struct Shared {
    inner: gix::ThreadSafeRepository,
    git_dir: PathBuf,
    by_git: Option<GitRefs>,
    added: Added,
}

impl Shared {
    /// A handle for the calling thread.
    #[must_use]
    pub fn to_local(&self) -> Repository {
        let mut inner = self.inner.to_thread_local();
        inner.object_cache_size_if_unset(16 << 20);
        let (git_dir, by_git) = (self.git_dir.clone(), self.by_git.clone());
        Repository { inner, git_dir, by_git, _added: self.added.clone(), head: OnceCell::new() }
    }
}

/// Opens a repository that a list of repositories names. `path` must be its common directory, and no component of it a symbolic link.
/// Otherwise somebody who may write in `path` or above it could make it lead to another repository, with a file `commondir` or a link.
///
/// # Errors
/// As [`open`].
pub fn open_listed(path: &Path) -> Result<Shared, Error> {
    let shared = open(path)?;
    if shared.git_dir == path {
        return Ok(shared);
    }
    let reason = format!("its files are in '{}'", shared.git_dir.display());
    Err(Error::NotARepository { path: path.to_owned(), reason })
}

/// Opens the repository at `path`: a bare repository, or the working tree or `.git` directory of one that is not bare. A linked worktree
/// stands for the repository that it belongs to.
///
/// # Errors
/// [`Error::NotARepository`], [`Error::OtherOwner`], [`Error::Extension`], [`Error::Grafts`], or [`Error::Read`] when its alternates or
/// `info/grafts` cannot be read.
pub fn open(path: &Path) -> Result<Shared, Error> {
    let refused = |error: &gix::Error| {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let reason = one_line(error);
        if replies::is_other_owner(&reason) {
            return Error::OtherOwner { path };
        }
        // A message must not have the content of a file in it, which may be a password.
        let reason = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "there is no such directory".into(),
            Ok(metadata) if metadata.is_file() => "it is a file".into(),
            Ok(_) if path.join(".git").is_file() => "its '.git' does not lead to a repository".into(),
            Ok(_) if !path.join("HEAD").exists() && !path.join(".git").exists() => "it has no HEAD".into(),
            _ => reason,
        };
        Error::NotARepository { reason, path }
    };
    let options = gix::open::Options::default().bail_if_untrusted(true).config_overrides(["core.useReplaceRefs=false"]);
    let as_is = options.clone().open_path_as_is(true);
    let mut inner = match as_is.clone().open(path) {
        Ok(repository) => repository,
        Err(first) => options.open(path).map_err(|_| refused(&first))?,
    };
    let common = inner.to_thread_local().common_dir().to_owned();
    if inner.git_dir() != common {
        // A linked worktree has a HEAD of its own, which is not the repository's.
        inner = as_is.open(&common).map_err(|error| refused(&error))?;
    }
    let added = alternates::add(&mut inner).map_err(|error| Error::Read {
        what: "the objects".into(),
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let local = inner.to_thread_local();
    let git_dir = common.canonicalize().unwrap_or(common);
    let by_git = match format::examine(&local, &git_dir)? {
        RefStorage::Files => None,
        RefStorage::Reftable => Some(GitRefs::at(&git_dir)),
    };
    Ok(Shared { inner, git_dir, by_git, added })
}

impl Repository {
    /// The absolute path of the common directory: the repository itself when it is bare.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Whether it has a working tree. A commit made there runs no hook of a push.
    #[must_use]
    pub fn has_working_tree(&self) -> bool {
        !self.inner.is_bare()
    }

    /// Where this program's files are.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(&self.git_dir)
    }

    /// Whom the repository is shared with (`core.sharedRepository`).
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        let value = self.inner.config_snapshot().string("core.sharedRepository");
        Sharing::from_config(value.as_ref().map(|value| value.to_string()).as_deref())
    }

    /// Whether users other than its owner may change the repository: `core.sharedRepository` says so, or the permissions of its directory,
    /// which only the owner can change. The group of a directory without the set-group-ID bit is taken for the owner's private one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let mode = std::fs::metadata(&self.git_dir).map_or(0, |directory| directory.mode());
        self.sharing().is_writable_for_others() || mode & 0o002 != 0 || mode & 0o2020 == 0o2020
    }

    /// A value of the repository's git configuration, system and user files included.
    #[must_use]
    pub fn git_config(&self, key: &str) -> Option<String> {
        self.inner.config_snapshot().string(key).map(|value| value.to_string())
    }

    /// All values of a key of the repository's git configuration, system and user files included.
    #[must_use]
    pub fn git_config_all(&self, key: &str) -> Vec<String> {
        let config = self.inner.config_snapshot();
        let values = config.plumbing().strings(key).unwrap_or_default();
        values.iter().map(ToString::to_string).collect()
    }

    /// Whether a boolean of the repository's git configuration is true.
    #[must_use]
    pub fn git_flag(&self, key: &str) -> bool {
        self.inner.config_snapshot().boolean(key).unwrap_or(false)
    }

    /// Where git looks for hooks: `core.hooksPath`, or `hooks` in the repository (githooks(5)).
    ///
    /// # Errors
    /// [`Error::Read`], when the value is no path.
    pub fn hooks_directory(&self) -> Result<PathBuf, Error> {
        let configured = self.inner.config_snapshot().trusted_path("core.hooksPath").map_err(|error| Error::Read {
            what: "core.hooksPath".into(),
            path: self.git_dir.clone(),
            reason: error.to_string(),
        })?;
        Ok(self.git_dir.join(configured.as_deref().unwrap_or(Path::new("hooks"))))
    }

    /// The command of a post-receive hook in git's configuration (git-hook(1): `hook.NAME.event`, `hook.NAME.command`), if it contains
    /// `program`. Not every version of git runs such hooks.
    #[must_use]
    pub fn configured_hook(&self, program: &str) -> Option<String> {
        let config = self.inner.config_snapshot();
        let mut sections = config.sections_by_name("hook")?;
        sections.find_map(|section| {
            let event = section.value("event")?;
            let command = section.value("command")?.to_string();
            (event == "post-receive" && command.contains(program)).then_some(command)
        })
    }

    /// Whether git is configured with credential helpers (gitcredentials(7)), for any URL.
    #[must_use]
    pub fn has_credential_helper(&self) -> bool {
        let config = self.inner.config_snapshot();
        let mut sections = config.sections_by_name("credential").into_iter().flatten();
        sections.any(|section| section.value("helper").is_some())
    }

    /// Whether its refs are stored as reftable, so that they are read with git.
    #[must_use]
    pub fn is_reftable(&self) -> bool {
        self.by_git.is_some()
    }

    /// The name of the object format as `object-format` says it on the wire: `sha1` or `sha256`.
    #[must_use]
    pub fn object_format(&self) -> &'static str {
        match self.inner.object_hash() {
            gix::hash::Kind::Sha256 => "sha256",
            _ => "sha1",
        }
    }

    /// The null id of this repository's object format.
    #[must_use]
    pub fn null_oid(&self) -> Oid {
        from_gix(self.inner.object_hash().null_ref())
    }

    /// The text of its file `description` (gitrepository-layout(5)), 4 KiB at most; empty if there is none.
    #[must_use]
    pub fn description(&self) -> String {
        const MAX_READ: u64 = 4 << 10;
        let mut text = Vec::new();
        let read = durable::open_to_read(&self.git_dir.join("description"));
        let _ = read.and_then(|(file, _)| file.take(MAX_READ).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The branch that HEAD names, whether or not it exists. `None` when HEAD is detached.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn default_branch(&self) -> Result<Option<RefName>, Error> {
        if let Some(refs) = &self.by_git {
            if let Some(known) = self.head.get() {
                return Ok(known.clone());
            }
            let head = refs.head()?;
            return Ok(self.head.get_or_init(|| head).clone());
        }
        let name = self.inner.head_name().map_err(|error| self.unreadable("HEAD", &error))?;
        Ok(name.and_then(|name| RefName::new(name.as_bstr())))
    }

    /// Whether the object is probably here. This is good enough to leave it out of a pack, but not for a decision.
    #[must_use]
    pub fn contains(&self, oid: Oid) -> bool {
        self.may_hold(oid) && self.inner.has_object(to_gix(oid))
    }

    /// Whether the object is here. An object whose header cannot be read is not. The rest of it is
    /// not checked.
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn is_here(&self, oid: Oid) -> Result<bool, Error> {
        if !self.may_hold(oid) {
            return Ok(false);
        }
        match self.inner.try_find_header(to_gix(oid)) {
            Ok(header) => Ok(header.is_some()),
            Err(error) if is_refused(&error) => Err(self.unreadable(&oid.to_string(), &error)),
            Err(_) => Ok(false),
        }
    }

    /// The file at `path` in the tree of a commit. `None` when it is not there or cannot be read.
    #[must_use]
    pub fn file_of(&self, commit: Oid, path: &str) -> Option<Vec<u8>> {
        let tree = self.inner.find_object(to_gix(commit)).ok()?.peel_to_tree().ok()?;
        let entry = tree.lookup_entry_by_path(path).ok()??;
        Some(entry.object().ok()?.detach().data)
    }

    /// Whether the id is of this repository's object format. An id of another format must not reach the object store.
    fn may_hold(&self, oid: Oid) -> bool {
        oid.as_bytes().len() == self.inner.object_hash().len_in_bytes()
    }

    /// A private ref store in git's own format at `path`, with this repository's object format.
    #[must_use]
    pub fn private_refs(&self, path: &Path) -> gix::refs::file::Store {
        let options = gix::refs::store::init::Options {
            write_reflog: gix::refs::store::WriteReflog::Disable,
            ..Default::default()
        };
        gix::refs::file::Store::at_opts(path.to_owned(), self.inner.object_hash(), options)
    }

    fn unreadable(&self, what: &str, error: &gix::Error) -> Error {
        Error::Read { what: what.to_owned(), path: self.git_dir.clone(), reason: one_line(error) }
    }
}

/// Converts an id of gix to ours.
#[must_use]
pub fn from_gix(oid: &gix::oid) -> Oid {
    Oid::from_bytes(oid.as_bytes()).expect("gix knows SHA-1 and SHA-256 only")
}

/// Converts an id of ours to gix's.
#[must_use]
pub fn to_gix(oid: Oid) -> gix::ObjectId {
    gix::ObjectId::from_bytes_or_panic(oid.as_bytes())
}
