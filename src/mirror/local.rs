//! A mirror on this machine: its HEAD and its symbolic refs, which receive-pack does not show, and setting its HEAD (`set_head`).

#![expect(clippy::disallowed_methods, reason = "reads HEAD and loose refs of a mirror on this machine")]

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, other_head};
use crate::process::{self, git, shell_word};
use crate::refs::{Local, RefName};
use crate::repo::{GitRefs, Repository};
use crate::wire::Address;

/// A mirror on this machine.
pub struct LocalMirror {
    git_dir: PathBuf,
    is_bare: bool,
    /// The content of its file HEAD, or why that cannot be read.
    head: Result<Vec<u8>, String>,
    /// Reads its refs with git, when they are not files.
    by_git: Option<GitRefs>,
    /// HEAD as git reports it, when the file is only a stub. Read once.
    head_by_git: OnceCell<Result<Option<RefName>, String>>,
    /// Its symbolic refs, if its refs are not files. Read when they are first asked for.
    symbolic: OnceCell<Result<BTreeSet<RefName>, String>>,
}

/// A HEAD that names a branch which our repository does not have. If the mirror lacks it too, a clone of the mirror checks out nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHead {
    git_dir: PathBuf,
    head: RefName,
    ours: RefName,
    /// Whether the mirror itself has the branch.
    is_there: bool,
}

impl fmt::Display for LostHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.is_there { "" } else { ", so clones of it check out nothing" };
        write!(f, "its HEAD names '{}', which does not exist here{result}", self.head)
    }
}

impl LostHead {
    /// The command that fixes it.
    #[must_use]
    pub fn fix(&self) -> String {
        let git_dir = shell_word(&self.git_dir.display().to_string());
        let by_hand = format!("git --git-dir {git_dir} symbolic-ref HEAD {}", other_head::word(&self.ours));
        format!("{by_hand}; to let each run do this: set_head = true")
    }
}

impl LocalMirror {
    /// The mirror at `address`, if it is on this machine.
    #[must_use]
    pub fn of(address: &Address) -> Option<Self> {
        let Address::Local(path) = address else { return None };
        let inner = path.join(".git");
        let is_bare = !inner.is_dir();
        let git_dir = if is_bare { path.clone() } else { inner };
        let head = match std::fs::read(git_dir.join("HEAD")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(|error| error.to_string()),
        };
        let is_stub = head.as_ref().is_ok_and(|head| GitRefs::is_stub(head));
        let by_git = is_stub.then(|| GitRefs::at(&git_dir));
        Some(Self { git_dir, is_bare, head, by_git, head_by_git: OnceCell::new(), symbolic: OnceCell::new() })
    }

    /// The branch that its HEAD names. `None` when HEAD is detached or cannot be read.
    #[must_use]
    pub fn head(&self) -> Option<RefName> {
        match &self.by_git {
            Some(refs) => self.asked_head(refs).clone().ok().flatten(),
            None => RefName::new(self.head.as_ref().ok()?.strip_prefix(b"ref:")?.trim_ascii()),
        }
    }

    /// Why its HEAD cannot be read. In that case HEAD may name any branch.
    #[must_use]
    pub fn head_error(&self) -> Option<String> {
        match (&self.by_git, &self.head) {
            (Some(refs), _) => self.asked_head(refs).clone().err(),
            (None, head) => head.as_ref().err().cloned(),
        }
    }

    fn asked_head(&self, refs: &GitRefs) -> &Result<Option<RefName>, String> {
        self.head_by_git.get_or_init(|| refs.head().map_err(|error| error.to_string()))
    }

    /// Where it is.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Whether its ref `name` is a symbolic ref. Symbolic refs are never packed, and their target need not exist.
    ///
    /// # Errors
    /// Why the ref cannot be read. The caller must not treat it as a plain ref.
    pub fn kind(&self, name: &RefName) -> Result<bool, String> {
        if let Some(refs) = &self.by_git {
            let all = self.symbolic.get_or_init(|| symbolic_of(refs));
            return all.as_ref().map(|all| all.contains(name)).map_err(Clone::clone);
        }
        const ABSENT: [io::ErrorKind; 4] = [
            io::ErrorKind::NotFound,
            io::ErrorKind::NotADirectory,
            io::ErrorKind::IsADirectory,
            io::ErrorKind::InvalidFilename,
        ];
        let path = self.git_dir.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        match std::fs::read(path) {
            Ok(text) => Ok(text.starts_with(b"ref:")),
            Err(error) if ABSENT.contains(&error.kind()) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its HEAD, if that names a branch that `repository` does not have, although the default branch of `repository` exists.
    ///
    /// # Errors
    /// [`Error::Repository`]
    pub fn lost_head(&self, repository: &Repository) -> Result<Option<LostHead>, Error> {
        let (Some(head), Some(ours)) = (self.head(), repository.default_branch()?) else { return Ok(None) };
        if head == ours {
            return Ok(None);
        }
        let found = repository.find_each(&[&head, &ours])?;
        let is_lost = matches!(found[..], [Local::Absent, Local::At(_)]);
        if !is_lost {
            return Ok(None);
        }
        let there = crate::repo::open(&self.git_dir).map(|there| there.to_local().find(&head));
        let is_there = matches!(there, Ok(Ok(Local::At(_))));
        Ok(Some(LostHead { git_dir: self.git_dir.clone(), head, ours, is_there }))
    }

    /// Makes a lost HEAD name our default branch. Skips a mirror with a working tree, whose files would no longer match its HEAD.
    ///
    /// # Errors
    /// [`Error`]
    pub fn set_head(&self, repository: &Repository) -> Result<(), Error> {
        let Some(lost) = self.lost_head(repository)?.filter(|_| self.is_bare) else { return Ok(()) };
        let name = lost.ours.to_string();
        let command = &mut git(&self.git_dir, &["symbolic-ref", "HEAD", &name]);
        process::run("git symbolic-ref", command, b"", Duration::from_secs(30))?;
        tracing::info!("HEAD of '{}' names {name} now", self.git_dir.display());
        Ok(())
    }
}

fn symbolic_of(refs: &GitRefs) -> Result<BTreeSet<RefName>, String> {
    let listing = refs.list().map_err(|error| error.to_string())?;
    let symbolic = listing.refs.into_iter().filter(|(_, value)| *value == Local::Symbolic);
    Ok(symbolic.map(|(name, _)| name).collect())
}
