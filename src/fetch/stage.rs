//! The stage: a bare repository of its own, in a mirror's directory, for objects that were taken from upstream and not yet accepted. Its
//! alternate is our repository, so history can be read across both, while our repository does not see the new objects.
//!
//! Guaranteed: the stage is removed when the value is dropped. After a crash it stays, and the next run removes it with [`sweep`].

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pack::Sink;
use super::session::sink_failed;
use crate::durable;
use crate::process::{Child, git};
use crate::replies::Cause;
use crate::repo::{self, Repository};
use crate::wire::Error;

/// How long `git index-pack` may take to end after the last byte: it resolves the deltas then.
const GRACE: Duration = Duration::from_secs(3 * 3600);

/// Objects that are not yet accepted.
pub struct Stage {
    path: PathBuf,
}

impl Stage {
    /// Makes an empty stage in the directory `path`, which must be empty or missing.
    ///
    /// # Errors
    /// The operating system's.
    pub fn make(path: &Path, repository: &Repository) -> io::Result<Self> {
        let objects = repository.git_dir().join("objects");
        if objects.as_os_str().as_bytes().contains(&b'\n') {
            return Err(io::Error::other("the path of the repository has a line feed in it"));
        }
        for directory in ["refs", "objects/info", "objects/pack"] {
            durable::make_all(&path.join(directory))?;
        }
        let stage = Self { path: path.to_owned() };
        let format = match repository.object_format() {
            "sha1" => "\trepositoryformatversion = 0\n".to_owned(),
            format => format!("\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = {format}\n[core]\n"),
        };
        let config = format!("[core]\n{format}\tbare = true\n");
        let alternates = [objects.as_os_str().as_bytes(), b"\n"].concat();
        for (name, text) in [
            ("config", config.as_bytes()),
            ("objects/info/alternates", &*alternates),
            ("HEAD", b"ref: refs/heads/none\n"),
        ] {
            durable::replace_unsynced(&path.join(name), text, |_| Ok(()))?;
        }
        // Where the history of a shallow repository ends.
        match durable::read(&repository.git_dir().join("shallow")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => durable::replace_unsynced(&path.join("shallow"), &read?.0, |_| Ok(()))?,
        }
        Ok(stage)
    }

    /// Its directory, which is a bare repository.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the pack that `feed` writes, of at most `max` bytes.
    ///
    /// # Errors
    /// [`Error`] of `feed`; or the pack is cut short, damaged or too large.
    pub fn take(&self, max: Option<u64>, feed: impl FnOnce(Sink<'_>) -> Result<(), Error>) -> Result<(), Error> {
        const NAME: &str = "git index-pack";
        let max_size = max.map(|max| format!("--max-input-size={max}"));
        // Nothing here needs to survive a power failure.
        let mut arguments = vec!["-c", "core.fsync=none", "index-pack", "--stdin", "--fix-thin"];
        arguments.extend(max_size.as_deref());
        let mut child = Child::start(NAME, &mut git(&self.path, &arguments))?;
        let mut stdin = child.stdin();
        let fed = feed(&mut |bytes| stdin.write_all(bytes).map_err(sink_failed));
        drop(stdin);
        match fed {
            // Its reader is gone, so the program says why.
            Err(Error::Broken { doing: "writing the objects", .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        let (status, message) = child.end(GRACE);
        if fed.is_ok() && status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
        Err(unusable(&message, max))
    }

    /// The only pack, if exactly one was taken.
    #[must_use]
    pub fn only_pack(&self) -> Option<PathBuf> {
        let packs = self.path.join("objects/pack");
        let names = durable::list(&packs).ok()?;
        let mut packed = names.into_iter().filter(|name| name.ends_with(".pack"));
        let (first, second) = (packed.next()?, packed.next());
        second.is_none().then(|| packs.join(first))
    }

    /// Opens it as a repository.
    ///
    /// # Errors
    /// As [`repo::open`].
    pub fn open(&self) -> Result<repo::Shared, repo::Error> {
        repo::open(&self.path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_all(&self.path) {
            tracing::warn!("cannot remove '{}': {error}", self.path.display());
        }
    }
}

/// Removes what a killed run left in the directory `path`.
///
/// # Errors
/// The operating system's.
pub fn sweep(path: &Path) -> io::Result<()> {
    match durable::list_there(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => durable::remove_all(path),
    }
}

/// Why a pack cannot be used, from the message of `git index-pack`.
fn unusable(message: &str, max: Option<u64>) -> Error {
    if Cause::TooLarge.is_in(message) {
        let limit = max.map(|max| format!(" ({max} bytes)")).unwrap_or_default();
        return Error::Unable(format!("its pack is larger than max_input_size allows{limit}; nothing was taken"));
    }
    let message = message.strip_prefix("fatal: ").unwrap_or(message);
    if Cause::DiskFull.is_in(message) {
        return Error::Program { program: "git index-pack".into(), status: String::new(), message: message.to_owned() };
    }
    Error::Protocol(format!("a pack that git index-pack refuses: {}", message.replace('\n', " ").trim()))
}
