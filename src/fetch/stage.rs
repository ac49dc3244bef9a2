//! The stage: a bare repository of its own, in a mirror's directory, for objects that were taken from upstream and not yet accepted. Its
//! alternate is our repository, so history can be read across both, while our repository does not see the new objects.
//!
//! Guaranteed: the stage is removed when the value is dropped. A parallel `git repack -ad` or `git gc` does not drop objects that were
//! handed over while the caller has [`Held`]. After a crash, or if it could not be made completely, the files of the stage and the marks
//! of what was handed over stay, and the next run removes them with [`sweep`].

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::pack::Sink;
use super::session::sink_failed;
use crate::durable;
use crate::process::{Child, git};
use crate::push::{DeltaBase, Incomplete, PackObjects, PackSource};
use crate::refs::Oid;
use crate::replies::Cause;
use crate::repo::{self, Repository};
use crate::wire::Error;

/// How long `git index-pack` may run after the last byte of the pack. In this time it resolves the
/// deltas.
const GRACE: Duration = Duration::from_secs(3 * 3600);

/// The largest pack that is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// In bytes.
    pub bytes: u64,
    /// The key of the configuration that sets it.
    pub key: &'static str,
}

/// Objects that are not yet accepted.
pub struct Stage {
    path: PathBuf,
}

/// Packs of a repository that git must keep although no ref needs them yet. Dropped, it lets git decide.
#[must_use = "git may drop the objects before a ref needs them"]
#[derive(Debug)]
pub struct Held {
    packs: PathBuf,
    mark: String,
}

impl Held {
    /// For the packs that a stage in the directory `stage` hands over to `repository`.
    pub fn of(stage: &Path, repository: &Repository) -> Self {
        let packs = repository.git_dir().join("objects/pack");
        // Without the path of the repository, which may be moved before the mark is looked for.
        let stage = stage.strip_prefix(repository.git_dir()).unwrap_or(stage);
        Self { packs, mark: format!("git-mirror-push: {}", stage.display()) }
    }

    /// Removes the `.keep` files that say what `git index-pack --keep` wrote for us.
    fn release(&self) -> io::Result<()> {
        let names = match durable::list(&self.packs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for path in names.iter().filter(|name| name.ends_with(".keep")).map(|name| self.packs.join(name)) {
            let is_ours = |text: Vec<u8>| text.strip_suffix(b"\n") == Some(self.mark.as_bytes());
            if durable::read(&path).is_ok_and(|(text, _)| is_ours(text)) {
                durable::remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!("a '.keep' file in '{}' cannot be removed: {error}", self.packs.display());
        }
    }
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

    /// Takes the pack that `feed` writes.
    ///
    /// # Errors
    /// [`Error`] of `feed`; or the pack is cut short, damaged or too large.
    pub fn take(&self, max: Option<Limit>, feed: impl FnOnce(Sink<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let max_size = max.map(|max| format!("--max-input-size={}", max.bytes));
        // Nothing here needs to survive a power failure.
        let mut arguments = vec!["-c", "core.fsync=none", "index-pack", "--stdin", "--fix-thin"];
        arguments.extend(max_size.as_deref());
        index(&self.path, &arguments, max, feed)
    }

    /// Puts `tips` into `repository`, with the part of their history that it lacks. They are safe from `git gc` until `held` is dropped.
    /// The history of each value of `known` that is in `repository` must be complete there. With
    /// `receive.fsckObjects`, or else `transfer.fsckObjects`, the objects are checked first.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a part of the history is missing in both, or an object fails its
    /// check; other [`Error`]s. The repository then has nothing new, or a pack that no ref needs.
    pub fn hand_over(
        &self,
        repository: &Repository,
        held: &Held,
        tips: &[Oid],
        known: impl Iterator<Item = Oid>,
    ) -> Result<(), Error> {
        let keep = format!("--keep={}", held.mark);
        let pack = PackSource::Program(PackObjects {
            git_dir: self.path.clone(),
            tips: tips.to_vec(),
            haves: known.filter(|tip| repository.is_here(*tip).unwrap_or(false)).collect(),
            ofs_delta: true,
            incomplete: Incomplete::default(),
            base: DeltaBase::Anywhere,
            progress: Arc::default(),
        });
        let mut arguments = vec!["index-pack", "--stdin", "--fix-thin", &*keep];
        let key = ["receive.fsckObjects", "transfer.fsckObjects"]
            .into_iter()
            .find(|key| repository.git_config(key).is_some());
        arguments.extend(key.filter(|key| repository.git_flag(key)).map(|_| "--fsck-objects"));
        let mut pack = pack.open()?;
        index(repository.git_dir(), &arguments, None, |sink| {
            let mut piece = vec![0; 64 << 10];
            loop {
                match pack.read(&mut piece) {
                    Ok(0) => return Ok(()),
                    Ok(length) => sink(&piece[..length])?,
                    Err(error) => return Err(incomplete(&error)),
                }
            }
        })
    }

    /// How large the packs are that were taken, in bytes.
    ///
    /// # Errors
    /// The operating system's.
    pub fn size(&self) -> io::Result<u64> {
        self.packs()?.iter().map(|pack| Ok(pack.metadata()?.len())).sum()
    }

    /// The only pack, if exactly one was taken.
    ///
    /// # Errors
    /// The operating system's.
    pub fn only_pack(&self) -> io::Result<Option<PathBuf>> {
        let mut packs = self.packs()?;
        Ok(packs.pop().filter(|_| packs.is_empty()))
    }

    fn packs(&self) -> io::Result<Vec<PathBuf>> {
        let packs = self.path.join("objects/pack");
        let names = durable::list(&packs)?;
        Ok(names.into_iter().filter(|name| name.ends_with(".pack")).map(|name| packs.join(name)).collect())
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

/// Gives a pack to `git index-pack`.
fn index(
    git_dir: &Path,
    arguments: &[&str],
    max: Option<Limit>,
    feed: impl FnOnce(Sink<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut child = Child::start("git index-pack", &mut git(git_dir, arguments))?;
    let mut stdin = child.stdin();
    let fed = feed(&mut |bytes| stdin.write_all(bytes).map_err(sink_failed));
    drop(stdin);
    // If `git index-pack` stopped reading, its own message says why.
    let is_gone = |error: &Error| matches!(error, Error::Broken { doing: "writing the objects", source } if source.kind() == io::ErrorKind::BrokenPipe);
    if let Err(error) = fed.as_ref()
        && !is_gone(error)
    {
        return fed;
    }
    let (status, message) = child.end(GRACE);
    if fed.is_ok() && status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(unusable(&message, max))
}

/// Why the history of what was taken cannot be packed.
fn incomplete(error: &io::Error) -> Error {
    let message = error.to_string();
    if message.is_empty() || Cause::OurSide.is_in(&message) {
        return Error::Program { program: "git pack-objects".into(), status: String::new(), message };
    }
    Error::Protocol(format!("an incomplete history: {}", message.replace('\n', " ")))
}

/// Removes what a killed run left in the directory `path`, and the marks of packs that it had handed over to `repository`.
///
/// # Errors
/// The operating system's.
pub fn sweep(path: &Path, repository: &Repository) -> io::Result<()> {
    drop(Held::of(path, repository));
    match durable::list_there(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => durable::remove_all(path),
    }
}

/// Why a pack cannot be used, from the message of `git index-pack`.
fn unusable(message: &str, max: Option<Limit>) -> Error {
    if let Some(Limit { bytes, key }) = max.filter(|_| Cause::TooLarge.is_in(message)) {
        return Error::Unable(format!("its pack is larger than {key} allows ({bytes} bytes); nothing was taken"));
    }
    let message = message.strip_prefix("fatal: ").unwrap_or(message);
    if message.is_empty() || Cause::DiskFull.is_in(message) || Cause::OurSide.is_in(message) {
        return Error::Program { program: "git index-pack".into(), status: String::new(), message: message.to_owned() };
    }
    Error::Protocol(format!("a pack that git index-pack refuses: {}", message.replace('\n', " ").trim()))
}
