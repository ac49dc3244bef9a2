//! `mirrored/`: what a mirror held after our last contact, as far as it was a value that this repository itself had.
//!
//! A private ref store in git's own format, written by gix-ref. It makes a rewrite here distinguishable from a change there. A
//! value that someone else gave the mirror never enters it, for what is in it may be overwritten.
//!
//! The mirror's lock is held by whoever writes, so a ref lock that is found here is the leaving of a killed process.

#![expect(clippy::disallowed_methods, reason = "writes packed-refs, removes stale ref locks")]

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};

use crate::refs::{Oid, RefName};
use crate::repo::{Repository, from_gix, is_refused, one_line, to_gix};

/// Above this number of changes `packed-refs` is written anew.
const MANY: usize = 64;

/// The store of one mirror.
pub struct Mirrored {
    store: gix::refs::file::Store,
    path: PathBuf,
    all: OnceCell<Vec<(RefName, Oid)>>,
}

impl Mirrored {
    /// The store in a mirror's directory.
    #[must_use]
    pub fn open(directory: &Path, repository: &Repository) -> Self {
        let path = directory.join("mirrored");
        Self { store: repository.private_refs(&path), path, all: OnceCell::new() }
    }

    /// Whether there was a contact at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// The value of one ref. What is damaged is not known.
    ///
    /// # Errors
    /// The operating system's, when it did not let us look: that is not the same as not known.
    pub fn find(&self, name: &RefName) -> io::Result<Option<Oid>> {
        if let Some(all) = self.all.get() {
            let at = all.binary_search_by(|(other, _)| other.cmp(name));
            return Ok(at.ok().map(|at| all[at].1));
        }
        let Some(name) = full_name(name) else { return Ok(None) };
        match self.store.try_find(name.as_ref()) {
            Ok(found) => Ok(found.and_then(|found| found.target.try_id().map(from_gix))),
            Err(error) if is_refused(&error) => Err(io::Error::other(one_line(&error))),
            Err(_) => Ok(None),
        }
    }

    /// All values, sorted by name, read once. What is damaged is not known.
    ///
    /// # Errors
    /// As [`Mirrored::find`].
    pub fn all(&self) -> io::Result<&[(RefName, Oid)]> {
        if self.all.get().is_none() {
            let all = self.read_all()?;
            self.all.get_or_init(|| all);
        }
        Ok(self.all.get().expect("it was just loaded"))
    }

    /// Gives all values to `with`, in the order of their names. What is damaged is not known.
    ///
    /// # Errors
    /// As [`Mirrored::find`].
    pub fn each<T>(&self, with: impl FnOnce(&mut dyn Iterator<Item = (RefName, Oid)>) -> T) -> io::Result<T> {
        if !self.exists() {
            return Ok(with(&mut std::iter::empty()));
        }
        // A damaged `packed-refs` hides what is loose from the iterator: what is not known is told as divergence at worst.
        let platform = match self.store.iter() {
            Err(error) if is_refused(&error) => return Err(io::Error::other(one_line(&error))),
            Err(_) => return Ok(with(&mut std::iter::empty())),
            Ok(platform) => platform,
        };
        let mut refused = None;
        let refs = platform.all()?.map_while(|reference| match reference {
            Ok(reference) => {
                let name = RefName::new(reference.name.as_bstr());
                Some(name.zip(reference.target.try_id().map(from_gix)))
            }
            Err(error) if is_refused(&error) => {
                refused = Some(io::Error::other(one_line(&error)));
                None
            }
            Err(_) => Some(None),
        });
        let done = with(&mut refs.flatten());
        refused.map_or(Ok(done), Err)
    }

    fn read_all(&self) -> io::Result<Vec<(RefName, Oid)>> {
        let mut found: Vec<_> = self.each(|refs| refs.collect())?;
        // The store's iterator goes by name.
        if !found.is_sorted() {
            found.sort_unstable();
        }
        Ok(found)
    }

    /// Sets values, or forgets them. Forgetting comes first, so that `x` can follow `x/y`.
    ///
    /// # Errors
    /// What the store says. Values that were not set are not known: at worst a rewrite is reported as divergence.
    pub fn set(&self, values: &[(RefName, Option<Oid>)]) -> io::Result<()> {
        if values.len() > MANY {
            return self.rewrite(values);
        }
        std::fs::create_dir_all(self.path.join("refs"))?;
        let (gone, kept): (Vec<_>, Vec<_>) = values.iter().partition(|(_, oid)| oid.is_none());
        for part in [gone, kept] {
            if !part.is_empty() {
                self.write(&part)?;
            }
        }
        Ok(())
    }

    /// Writes `packed-refs` anew and removes the loose refs, which it now holds: a transaction would make a lock file for
    /// each ref. Killed in between, it leaves loose refs that hide newer values, which is less knowledge and no wrong one.
    fn rewrite(&self, values: &[(RefName, Option<Oid>)]) -> io::Result<()> {
        std::fs::create_dir_all(&self.path)?;
        let mut all: BTreeMap<RefName, Oid> = self.all()?.iter().cloned().collect();
        for (name, oid) in values {
            match oid {
                Some(oid) => all.insert(name.clone(), *oid),
                None => all.remove(name),
            };
        }
        let mut text = b"# pack-refs with: sorted \n".to_vec();
        for (name, oid) in &all {
            text.extend_from_slice(format!("{oid} ").as_bytes());
            text.extend_from_slice(name.as_bytes());
            text.push(b'\n');
        }
        let mut tmp = tempfile::Builder::new().prefix(".packed-refs.").tempfile_in(&self.path)?;
        tmp.write_all(&text)?;
        tmp.persist(self.path.join("packed-refs")).map_err(|error| error.error)?;
        match std::fs::remove_dir_all(self.path.join("refs")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(self.path.join("refs"))
    }

    fn write(&self, values: &[&(RefName, Option<Oid>)]) -> io::Result<()> {
        let failed = |error: gix::Error| io::Error::other(one_line(&error));
        match self.transact(values) {
            Ok(()) => Ok(()),
            Err(_) => {
                remove_stale_locks(&self.path)?;
                self.transact(values).map_err(failed)
            }
        }
    }

    fn transact(&self, values: &[&(RefName, Option<Oid>)]) -> Result<(), gix::Error> {
        let edits: Vec<RefEdit> = values.iter().filter_map(|(name, oid)| edit(name, *oid)).collect();
        let at_once = gix::lock::acquire::Fail::Immediately;
        self.store.transaction().prepare(edits, at_once, at_once)?.commit(None)?;
        Ok(())
    }
}

fn full_name(name: &RefName) -> Option<FullName> {
    FullName::try_from(gix::bstr::BStr::new(name.as_bytes())).ok()
}

fn edit(name: &RefName, oid: Option<Oid>) -> Option<RefEdit> {
    let change = match oid {
        Some(oid) => {
            let log = LogChange { mode: RefLog::AndReference, ..Default::default() };
            Change::Update { log, expected: PreviousValue::Any, new: Target::Object(to_gix(oid)) }
        }
        None => Change::Delete { expected: PreviousValue::Any, log: RefLog::AndReference },
    };
    Some(RefEdit { change, name: full_name(name)?, deref: false })
}

/// No ref name ends in `.lock`, so every such file is a lock, and its process is gone.
fn remove_stale_locks(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_stale_locks(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
