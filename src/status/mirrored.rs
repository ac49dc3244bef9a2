//! `mirrored/`: what a mirror held after our last contact, as far as it was a value that this repository itself had.
//!
//! A private ref store in git's own format, written by gix-ref. It makes a rewrite here distinguishable from a change there. A
//! value that someone else gave the mirror never enters it, for what is in it may be overwritten.
//!
//! The mirror's lock is held by whoever writes, so a ref lock that is found here is the leaving of a killed process.

#![expect(clippy::disallowed_methods, reason = "removes stale ref locks")]

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use gix::refs::file::transaction::PackedRefs;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};

use crate::refs::{Oid, RefName};
use crate::repo::{Repository, from_gix, one_line, to_gix};

/// Above this number of changes they go into `packed-refs` at once instead of into a file each.
const MANY: usize = 64;

/// The store of one mirror.
pub struct Mirrored<'r> {
    store: gix::refs::file::Store,
    repository: &'r Repository,
    path: PathBuf,
    all: OnceCell<HashMap<RefName, Oid>>,
}

impl<'r> Mirrored<'r> {
    /// The store in a mirror's directory.
    #[must_use]
    pub fn open(directory: &Path, repository: &'r Repository) -> Self {
        let path = directory.join("mirrored");
        Self { store: repository.private_refs(&path), repository, path, all: OnceCell::new() }
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
        std::fs::create_dir_all(self.path.join("refs"))?;
        let (gone, kept): (Vec<_>, Vec<_>) = values.iter().partition(|(_, oid)| oid.is_none());
        for part in [gone, kept] {
            if !part.is_empty() {
                self.write(&part)?;
            }
        }
        Ok(())
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
        let mut transaction = self.store.transaction();
        if edits.len() > MANY {
            let objects = Box::new(self.repository.objects().clone());
            transaction =
                transaction.packed_refs(PackedRefs::DeletionsAndNonSymbolicUpdatesRemoveLooseSourceReference(objects));
        }
        let at_once = gix::lock::acquire::Fail::Immediately;
        transaction.prepare(edits, at_once, at_once)?.commit(None)?;
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
