//! What a mirror on this machine lets us see beside its advertisement: its HEAD and its symbolic refs. Over the wire receive-pack
//! tells neither. And the one thing that is changed there without receive-pack, where it is wished: HEAD.

#![expect(clippy::disallowed_methods, reason = "reads HEAD and loose refs of a mirror on this machine")]

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use crate::process::{self, git};
use crate::push::Address;
use crate::refs::{Local, RefName};
use crate::repo::{GitRefs, Repository};

/// A mirror on this machine.
pub struct LocalMirror {
    git_dir: PathBuf,
    is_bare: bool,
    /// What its file HEAD says.
    head: Vec<u8>,
    /// Where its refs are read when they are not files.
    by_git: Option<GitRefs>,
    /// Its symbolic refs, if they are not files: read when they are asked for. `None` when git cannot tell.
    symbolic: OnceCell<Option<BTreeSet<RefName>>>,
}

/// A HEAD that names a branch which is not mirrored: a clone of the mirror checks out nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostHead {
    git_dir: PathBuf,
    head: RefName,
    ours: RefName,
}

impl fmt::Display for LostHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its HEAD names '{}', which is not here, so clones of it check out nothing of ours", self.head)
    }
}

impl LostHead {
    /// The command that mends it.
    #[must_use]
    pub fn mend(&self) -> String {
        let by_hand = format!("git --git-dir '{}' symbolic-ref HEAD {}", self.git_dir.display(), self.ours);
        format!("{by_hand}; or for ever: set_head = true")
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
        let head = std::fs::read(git_dir.join("HEAD")).unwrap_or_default();
        let by_git = GitRefs::is_stub(&head).then(|| GitRefs::at(&git_dir));
        Some(Self { git_dir, is_bare, head, by_git, symbolic: OnceCell::new() })
    }

    /// The branch that its HEAD names. `None` when that cannot be told.
    #[must_use]
    pub fn head(&self) -> Option<RefName> {
        match &self.by_git {
            Some(refs) => refs.head().ok().flatten(),
            None => RefName::new(self.head.strip_prefix(b"ref:")?.trim_ascii()),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Whether its ref `name` is a symbolic ref; these are never packed. `None` when that cannot be told.
    #[must_use]
    pub fn is_symbolic(&self, name: &RefName) -> Option<bool> {
        if let Some(refs) = &self.by_git {
            let all = self.symbolic.get_or_init(|| symbolic_of(refs));
            return all.as_ref().map(|all| all.contains(name));
        }
        let path = self.git_dir.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        Some(std::fs::read(path).is_ok_and(|text| text.starts_with(b"ref:")))
    }

    /// Whether its HEAD names a branch that `repository` does not have, while that one's own default branch exists.
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
        Ok(is_lost.then(|| LostHead { git_dir: self.git_dir.clone(), head, ours }))
    }

    /// Lets a lost HEAD name our default branch. Not in a repository with a working tree, whose files would no longer be those of its branch.
    ///
    /// # Errors
    /// [`Error`]
    pub(super) fn set_head(&self, repository: &Repository) -> Result<(), Error> {
        let Some(lost) = self.lost_head(repository)?.filter(|_| self.is_bare) else { return Ok(()) };
        let name = lost.ours.to_string();
        let command = &mut git(&self.git_dir, &["symbolic-ref", "HEAD", &name]);
        let failed = |error: process::Error| Error::Push(error.into());
        process::run("git symbolic-ref", command, b"", Duration::from_secs(30)).map_err(failed)?;
        tracing::info!("HEAD of '{}' names {name} now", self.git_dir.display());
        Ok(())
    }
}

fn symbolic_of(refs: &GitRefs) -> Option<BTreeSet<RefName>> {
    let listing = refs.list().ok()?;
    let symbolic = listing.refs.into_iter().filter(|(_, value)| *value == Local::Symbolic);
    Some(symbolic.map(|(name, _)| name).collect())
}
