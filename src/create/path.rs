//! `create = "path"`: `git init --bare` on this machine.

#![expect(clippy::disallowed_methods, reason = "makes a repository outside of our own")]

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;

use super::facts::Facts;
use super::{Error, Made};
use crate::process;

/// How long `git init` may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the repository beside its place, syncs it, and moves it there. An empty directory at its
/// place is replaced if its owner, group and mode are those of a new directory.
pub(super) fn create(path: &Path, facts: &Facts) -> Result<Made, Error> {
    let failed = |source| Error::Files { path: path.to_owned(), source };
    if !is_unused(path).map_err(failed)? {
        let what = format!("'{}' exists and is no repository; remove it, or change the URL", path.display());
        return Err(Error::Refused(what));
    }
    let parent = path.parent().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(parent).map_err(failed)?;
    let stem = stem(path).ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    remove_leftovers(parent, &stem).map_err(failed)?;
    let fresh = Fresh::new(parent, &stem).map_err(failed)?;
    init(&fresh.path, facts)?;
    if let Ok(there) = fs::symlink_metadata(path)
        && !is_like(&there, &fresh.path.metadata().map_err(failed)?)
    {
        let what = format!(
            "'{}' is an empty directory with an owner or mode of its own; make the repository in it (git init --bare), or remove it",
            path.display()
        );
        return Err(Error::Refused(what));
    }
    fresh.publish(path, parent).map_err(failed)?;
    Ok(Made::Now)
}

/// Whether nothing is there, or an empty directory. A place that cannot be looked at is not free.
#[must_use]
pub fn is_free(path: &Path) -> bool {
    is_unused(path).unwrap_or(false)
}

fn is_unused(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(file) if file.is_dir() => Ok(fs::read_dir(path)?.next().is_none()),
        Ok(_) => Ok(false),
    }
}

fn is_like(one: &Metadata, other: &Metadata) -> bool {
    (one.uid(), one.gid(), one.mode()) == (other.uid(), other.gid(), other.mode())
}

/// The beginning of the name of the directory in which the repository is made.
fn stem(path: &Path) -> Option<OsString> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".creating-");
    Some(name)
}

/// A directory that is removed again unless it is published. Its lock shows other runs that somebody works in it.
struct Fresh {
    path: PathBuf,
    /// Holds the lock.
    directory: File,
}

impl Fresh {
    fn new(parent: &Path, stem: &OsString) -> io::Result<Self> {
        const TRIES: u32 = 10;
        for _ in 0..TRIES {
            let mut name = stem.clone();
            name.push(format!("{:016x}", RandomState::new().hash_one(std::process::id())));
            let path = parent.join(name);
            DirBuilder::new().create(&path)?;
            let fresh = Self { directory: File::open(&path)?, path };
            fresh.directory.lock_exclusive()?;
            // Before we had the lock, another run may have removed the directory as a leftover.
            let (held, named) = (fresh.directory.metadata()?, fresh.path.metadata());
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                return Ok(fresh);
            }
        }
        Err(ErrorKind::ResourceBusy.into())
    }

    /// Moves the repository to its place, once it is on the disk.
    fn publish(&self, path: &Path, parent: &Path) -> io::Result<()> {
        rustix::fs::syncfs(&self.directory)?;
        // Fails if something that is no empty directory has come there meanwhile.
        fs::rename(&self.path, path)?;
        File::open(parent)?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // After `publish` the directory is not there any more. The next run removes what is left.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed runs left: directories of this user whose lock nobody holds.
fn remove_leftovers(parent: &Path, stem: &OsString) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let Ok(file) = entry.metadata() else { continue };
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(stem.as_encoded_bytes()).unwrap_or_default();
        let is_named = rest.len() == 16 && rest.iter().all(u8::is_ascii_hexdigit);
        if !is_named || !file.is_dir() || file.uid() != ours {
            continue;
        }
        let Ok(directory) = File::open(entry.path()) else { continue };
        if directory.try_lock_exclusive().is_ok() {
            // Another run may remove or publish the directory just now. We hold its lock until the
            // directory is gone. A run that has just made it waits for the lock, and then sees that
            // the directory is gone.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn init(fresh: &Path, facts: &Facts) -> Result<(), Error> {
    let mut git = process::command("git");
    git.args(["init", "--quiet", "--bare"]).arg(format!("--object-format={}", facts.object_format));
    if let Some(branch) = &facts.default_branch {
        git.arg(format!("--initial-branch={branch}"));
    }
    let out = process::run("git init", git.arg("--").arg(fresh), b"", LIMIT);
    out.map_err(|error| Error::Program(error.to_string()))?;
    if facts.description.is_empty() {
        return Ok(());
    }
    let path = fresh.join("description");
    fs::write(&path, format!("{}\n", facts.description)).map_err(|source| Error::Files { path, source })
}
