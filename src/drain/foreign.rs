//! What somebody else put on a mirror, and a push replaces or deletes there by the rules: it is fetched first, and kept in this repository
//! (`kept`).
//!
//! Guaranteed: if it can be fetched, nothing that was never ours is replaced before it is here, under a ref. What the mirror does not give,
//! what is larger than `max_rewritten_size`, and what is malformed or incomplete is not kept; the rules decide all the same. A crash leaves
//! the stage, which the next such fetch removes. Absent: values that this repository is known to have had; they were replaced here first.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::refusal::Refusals;
use super::update::{Run, UpdateResult};
use super::{Error, kept};
use crate::config::Keep;
use crate::fetch::{self, Limit, Stage, Wanted};
use crate::plan::Decision;
use crate::refs::{Local, Oid, RefName};
use crate::repo::Repository;
use crate::status::{Outcome, RefOutcome};
use crate::wire::Error as WireError;

/// What became of the values that are to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// They are kept, as far as that is possible, or there are none.
    Kept,
    /// The mirror was read for them, which may have taken long, or some have to wait. The mirror is to be looked at again.
    Again,
}

impl Run<'_> {
    /// Keeps the values that `sent` replaces on the mirror and that were never ours.
    pub(super) fn keep_foreign(
        &self,
        sent: &[&Decision],
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<Foreign, Error> {
        let is_off = self.mirror.pull.keep_rewritten == Keep::Nothing;
        let replaced: Vec<&Decision> = sent.iter().filter(|decision| decision.keeps).copied().collect();
        if is_off || replaced.is_empty() || self.repository.is_partial() {
            return Ok(Foreign::Kept);
        }
        let tips = tips(self.repository)?;
        let mut missing = Vec::new();
        for decision in &replaced {
            let Some(value) = decision.remote else { continue };
            if !result.asked.contains(&value) && !self.repository.is_here(value)? {
                missing.push(*decision);
            }
        }
        let fetched = if missing.is_empty() { Ok(HashSet::new()) } else { self.fetch_foreign(&missing, &tips, result) };
        let (brought, passing) = fetched.map_or_else(|error| (HashSet::new(), Some(error)), |brought| (brought, None));
        let mut here = Vec::new();
        for decision in replaced {
            let Some(value) = decision.remote.filter(|value| !tips.contains(value)) else { continue };
            if brought.contains(&value) || self.repository.is_here(value)? {
                here.push(decision);
            }
        }
        if !here.is_empty() {
            kept::hide(self.repository)?;
            kept::keep(self.repository, &self.mirror.name, &here, (self.context.now)(), result)?;
        }
        if let Some(error) = passing {
            self.wait(&missing, &error, refusals, result);
        }
        Ok(if missing.is_empty() { Foreign::Kept } else { Foreign::Again })
    }

    /// Brings the values of `missing` here, and returns those that came. None of them is asked for again in this run.
    ///
    /// # Errors
    /// A temporary failure.
    fn fetch_foreign(
        &self,
        missing: &[&Decision],
        tips: &HashSet<Oid>,
        result: &mut UpdateResult,
    ) -> Result<HashSet<Oid>, Error> {
        self.progress.begin("receiving what is to be replaced");
        let (brought, why) = match self.bring(missing, tips) {
            Ok(brought) => (brought, "the mirror does not have it any more".into()),
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => (HashSet::new(), self.redactor.clean(&error.to_string()).to_string()),
        };
        for decision in missing {
            let Some(value) = decision.remote else { continue };
            result.asked.insert(value);
            if !brought.contains(&value) {
                let (name, mirror) = (decision.name.text(), &self.mirror.name);
                tracing::warn!(
                    "mirror '{mirror}': '{name}' is replaced there and its value {value} is not kept: {why}"
                );
            }
        }
        Ok(brought)
    }

    /// Fetches values through a stage, checks that nothing of their history is missing, and copies their pack here.
    fn bring(&self, missing: &[&Decision], tips: &HashSet<Oid>) -> Result<HashSet<Oid>, Error> {
        let mut session = fetch::Session::connect(self.target, self.context.pool, None)?;
        let names: Vec<Vec<u8>> = missing.iter().map(|decision| decision.name.as_bytes().to_vec()).collect();
        let mut there: BTreeMap<RefName, Oid> = BTreeMap::new();
        session.list(&names, &mut |name, oid| {
            there.insert(name.to_owned(), oid);
        })?;
        // If it moved, the lease refuses the command, and the new value is looked at.
        let is_there = |decision: &&&Decision| there.get(&decision.name).copied() == decision.remote;
        let wants: BTreeSet<Oid> = missing.iter().filter(is_there).filter_map(|decision| decision.remote).collect();
        let wants: Vec<Oid> = wants.into_iter().collect();
        if wants.is_empty() {
            return Ok(HashSet::new());
        }
        let incoming = self.repository.layout().remote(&self.mirror.name).join("incoming");
        let staged = |source| Error::files("stage objects", incoming.clone())(source);
        fetch::sweep(&incoming).map_err(staged)?;
        let stage = Stage::make(&incoming, self.repository).map_err(staged)?;
        let wanted = Wanted { wants: &wants, haves: &[], progress: &self.progress };
        let mut walk = self.repository.newest_first(&tips.iter().copied().collect::<Vec<_>>());
        let limit = Limit { bytes: self.mirror.pull.max_rewritten_size, key: "max_rewritten_size" };
        stage.take(Some(limit), |sink| session.fetch(&wanted, &mut walk, sink))?;
        session.end();
        stage.hand_over(self.repository, &wants)?;
        Ok(wants.into_iter().collect())
    }

    /// Leaves refs out of this run, because their values could not be fetched yet.
    fn wait(&self, missing: &[&Decision], error: &Error, refusals: &mut Refusals, result: &mut UpdateResult) {
        let why = self.redactor.clean(&format!("what it replaces there cannot be fetched yet: {error}"));
        for decision in missing {
            let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(why.clone()));
            refusals.finalize(decision, &outcome);
            result.outcomes.insert(decision.name.clone(), outcome);
        }
    }
}

/// Whether a later try may bring what this one did not. The mirror has just answered to receive-pack, so a program that fails means that its
/// account may not read.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Push(WireError::Program { program, .. }) => program != "ssh",
        Error::Push(WireError::Protocol(_)) => false,
        error => error.class() == crate::wire::Class::Temporary,
    }
}

/// The values of all our refs, except those that are only kept.
pub(super) fn tips(repository: &Repository) -> Result<HashSet<Oid>, Error> {
    let values = repository
        .list(|name| !name.as_bytes().starts_with(b"refs/rewritten/"))?
        .refs
        .into_iter()
        .map(|(_, local)| local);
    Ok(values.filter_map(|local| if let Local::At(oid) = local { Some(oid) } else { None }).collect())
}
