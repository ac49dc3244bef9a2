//! `create = "path"`: `git init --bare` on this machine.

#![expect(clippy::disallowed_methods, reason = "makes a repository outside of our own")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::Facts;
use super::{Error, Made};
use crate::process;

/// How long `git init` may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the repository beside its place, syncs it, and moves it there. An empty directory at its place is replaced.
pub(super) fn create(path: &Path, facts: &Facts) -> Result<Made, Error> {
    let failed = |source| Error::Files { path: path.to_owned(), source };
    if !is_unused(path).map_err(failed)? {
        let what = format!("'{}' exists and is no repository; remove it, or change the URL", path.display());
        return Err(Error::Refused(what));
    }
    let (parent, fresh) = beside(path).ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(parent).map_err(failed)?;
    // A run that was killed may have left it.
    remove(&fresh).map_err(failed)?;
    let made = init(&fresh, facts).and_then(|()| publish(&fresh, path, parent).map_err(failed));
    if made.is_err() {
        // The error that is returned says more.
        let _ = remove(&fresh);
    }
    made.map(|()| Made::Now)
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

/// The directory above, and the path where the repository is made first.
fn beside(path: &Path) -> Option<(&Path, PathBuf)> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(".creating");
    let parent = path.parent()?;
    Some((parent, parent.join(name)))
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

/// Moves the repository to its place, once it is on the disk.
fn publish(fresh: &Path, path: &Path, parent: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(fresh)?)?;
    // Fails if something that is no empty directory has come there meanwhile.
    fs::rename(fresh, path)?;
    File::open(parent)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
