//! `mirrored/`: what a mirror held after our last contact, as far as it was a value that this repository itself had.
//!
//! A private ref store in git's own format, written by gix-ref. It makes a rewrite here distinguishable from a change there. A
//! value that someone else gave the mirror never enters it, for what is in it may be overwritten.
//!
//! The mirror's lock is held by whoever writes, so a ref lock that is found here is the leaving of a killed process.

#![expect(clippy::disallowed_methods, reason = "writes packed-refs, removes stale ref locks")]

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};

use crate::refs::{Oid, RefName};
use crate::repo::{Repository, from_gix, one_line, to_gix};

/// Above this number of changes `packed-refs` is written anew.
const MANY: usize = 64;

/// The store of one mirror.
pub struct Mirrored {
    store: gix::refs::file::Store,
    path: PathBuf,
    all: OnceCell<HashMap<RefName, Oid>>,
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

    /// The value of one ref. What cannot be read is not known.
    #[must_use]
    pub fn find(&self, name: &RefName) -> Option<Oid> {
        if let Some(all) = self.all.get() {
            return all.get(name).copied();
        }
        let name = full_name(name)?;
        let found = self.store.try_find(name.as_ref()).ok().flatten()?;
        found.target.try_id().map(from_gix)
    }

    /// All values, read once. What cannot be read is not known.
    #[must_use]
    pub fn all(&self) -> &HashMap<RefName, Oid> {
        self.all.get_or_init(|| self.read_all())
    }

    /// Reads all values at once, for those who will ask for most of them.
    pub fn load(&self) {
        self.all.get_or_init(|| self.read_all());
    }

    fn read_all(&self) -> HashMap<RefName, Oid> {
        let Ok(platform) = self.store.iter() else {
            return HashMap::new();
        };
        let Ok(all) = platform.all() else { return HashMap::new() };
        all.filter_map(|reference| {
            let reference = reference.ok()?;
            Some((RefName::new(reference.name.as_bstr())?, from_gix(reference.target.try_id()?)))
        })
        .collect()
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
        let mut all: BTreeMap<RefName, Oid> = self.all().iter().map(|(name, oid)| (name.clone(), *oid)).collect();
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
