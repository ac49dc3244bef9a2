//! What somebody else put on a mirror, and a push replaces or deletes there by the rules: it is fetched first, and kept in this repository
//! (`kept`).
//!
//! Guaranteed: if it can be fetched, nothing that was never ours is replaced before it is here, under a ref. What the mirror does not give,
//! what is larger than `max_rewritten_size`, and what is malformed or incomplete is not kept; the rules decide all the same. In a
//! repository where another user could make git run his programs as us, nothing is kept. A crash leaves the stage, which the next such
//! fetch removes. Absent: values that this repository is known to have had; they were replaced here first.

use std::collections::{BTreeMap, HashSet};

use super::refusal::Refusals;
use super::update::{Run, UpdateResult};
use super::{Error, kept};
use crate::config::Keep;
use crate::fetch::{self, Limit, Stage, Wanted};
use crate::plan::Decision;
use crate::refs::{Local, Oid, RefName};
use crate::replies;
use crate::repo::Repository;
use crate::status::{Outcome, RefOutcome};
use crate::wire::{Class, Error as WireError};

/// How often one run fetches such a value of one ref. A ref that somebody moves faster waits.
const MAX_TRIES: u32 = 3;

/// What is to be done after the values that are to be replaced were kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// They are kept, as far as that is possible, or there are none. The push may be sent.
    Kept,
    /// The mirror is to be looked at again: it was read for the values, which may have taken long, or some refs have to wait.
    Again,
}

/// What was asked of the mirror for the values in this run.
#[derive(Debug, Default)]
pub(super) struct Asked {
    tries: BTreeMap<RefName, u32>,
    /// How large the packs were that came, in bytes. All of a run together are at most `max_rewritten_size`.
    bytes: u64,
    /// Values that the mirror does not give.
    unkept: HashSet<Oid>,
}

/// What the mirror gave.
#[derive(Default)]
struct Brought {
    values: HashSet<Oid>,
    /// Why the others have to wait.
    passing: Option<Error>,
}

impl Run<'_> {
    /// What `sent` replaces on the mirror and is to be kept.
    fn replaced<'d>(&self, sent: &[&'d Decision]) -> Vec<&'d Decision> {
        let replaced: Vec<&Decision> = sent.iter().filter(|decision| decision.keeps).copied().collect();
        let is_off = self.mirror.pull.keep_rewritten == Keep::Nothing;
        if is_off || replaced.is_empty() || self.repository.is_partial() {
            return Vec::new();
        }
        if let Err(error) = kept::check_owner(self.repository) {
            tracing::warn!("mirror '{}': what is replaced there is not kept: {error}", self.mirror.name);
            return Vec::new();
        }
        replaced
    }

    /// Those of `sent` whose replaced values must be fetched from the mirror, to be kept.
    pub(super) fn missing_foreign<'d>(
        &self,
        sent: &[&'d Decision],
        result: &UpdateResult,
    ) -> Result<Vec<&'d Decision>, Error> {
        let mut missing = Vec::new();
        for decision in self.replaced(sent) {
            let Some(value) = decision.remote else { continue };
            if !result.asked.unkept.contains(&value) && !self.repository.is_here(value)? {
                missing.push(decision);
            }
        }
        Ok(missing)
    }

    /// Keeps the values that `sent` replaces on the mirror and that were never ours. Those of `missing` are fetched; no other conversation
    /// with the mirror should be open then, because it may allow only one.
    pub(super) fn keep_foreign(
        &self,
        sent: &[&Decision],
        missing: &[&Decision],
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<Foreign, Error> {
        let replaced = self.replaced(sent);
        if replaced.is_empty() {
            return Ok(Foreign::Kept);
        }
        let tips = tips(self.repository)?;
        let brought = match missing.is_empty() {
            true => Brought::default(),
            false => self.fetch_foreign(missing, &tips, result)?,
        };
        let mut here = Vec::new();
        for decision in replaced {
            let Some(value) = decision.remote.filter(|value| !tips.contains(value)) else { continue };
            if brought.values.contains(&value) || self.repository.is_here(value)? {
                here.push(decision);
            }
        }
        let mut waiting = Vec::new();
        if !here.is_empty() {
            kept::hide(self.repository)?;
            waiting = kept::keep(self.repository, &self.mirror.name, &here, (self.context.now)(), result)?;
        }
        if let Some(error) = brought.passing {
            // All refs of an atomic push wait together.
            if self.mirror.is_atomic {
                return Err(error);
            }
            let why = self.redactor.clean(&format!("what it replaces there cannot be fetched yet: {error}"));
            let is_absent = |decision: &&&Decision| {
                decision
                    .remote
                    .is_some_and(|value| !brought.values.contains(&value) && !result.asked.unkept.contains(&value))
            };
            let absent = missing.iter().filter(is_absent);
            waiting.extend(absent.map(|decision| RefOutcome::new(decision, Outcome::RemoteFailed, Some(why.clone()))));
        }
        if self.mirror.is_atomic
            && let Some(reason) = waiting.first().and_then(|outcome| outcome.reason.as_ref())
        {
            return Err(Error::Keep(reason.to_string()));
        }
        let is_again = !missing.is_empty() || !waiting.is_empty();
        for outcome in waiting {
            let Some(decision) = sent.iter().find(|decision| decision.name == outcome.name) else { continue };
            refusals.finalize(decision, &outcome);
            result.outcomes.insert(outcome.name.clone(), outcome);
        }
        Ok(if is_again { Foreign::Again } else { Foreign::Kept })
    }

    /// Brings the values of `missing` here: all at once, or each alone if that fails because of one of them.
    fn fetch_foreign(
        &self,
        missing: &[&Decision],
        tips: &HashSet<Oid>,
        result: &mut UpdateResult,
    ) -> Result<Brought, Error> {
        self.progress.begin("receiving what is to be replaced");
        let mut brought = Brought::default();
        let tries = |asked: &Asked, decision: &Decision| asked.tries.get(&decision.name).copied().unwrap_or(0);
        let (tried, missing): (Vec<&Decision>, Vec<&Decision>) =
            missing.iter().partition(|decision| tries(&result.asked, decision) >= MAX_TRIES);
        if !tried.is_empty() {
            brought.passing = Some(Error::Keep("somebody moves it while it is fetched".into()));
        }
        for decision in &missing {
            *result.asked.tries.entry(decision.name.clone()).or_default() += 1;
        }
        let alone = missing.iter().map(std::slice::from_ref);
        let groups = std::iter::once(&missing[..]).chain(alone.filter(|_| missing.len() > 1));
        for group in groups {
            let wanted: Vec<Oid> = group.iter().filter_map(|decision| decision.remote).collect();
            if wanted.iter().all(|value| brought.values.contains(value)) {
                continue;
            }
            match self.bring(group, tips, &mut result.asked) {
                Ok(()) => brought.values.extend(wanted),
                Err(error) if is_passing(&error) => {
                    let is_down = matches!(&error, Error::Push(error) if error.is_host_failure());
                    brought.passing = Some(error);
                    if is_down {
                        break;
                    }
                }
                Err(_) if group.len() > 1 => {}
                // It moved, which the next look shows.
                Err(Error::Push(WireError::Remote(message)))
                    if replies::is_moved_want(&message) && tries(&result.asked, group[0]) < MAX_TRIES => {}
                Err(error) => {
                    result.asked.unkept.extend(wanted);
                    let why = self.redactor.clean(&error.to_string());
                    let (name, value) = (group[0].name.text(), group[0].remote.unwrap_or(self.repository.null_oid()));
                    tracing::warn!(
                        "mirror '{}': '{name}' is replaced there and its value {value} is not kept: {why}",
                        self.mirror.name
                    );
                }
            }
        }
        Ok(brought)
    }

    /// Fetches the values that `group` replaces, through a stage, checks that nothing of their history is missing, and copies their pack here.
    fn bring(&self, group: &[&Decision], tips: &HashSet<Oid>, asked: &mut Asked) -> Result<(), Error> {
        let mut session = fetch::Session::connect(self.target, self.context.pool, None)?;
        let names: Vec<Vec<u8>> = group.iter().map(|decision| decision.name.as_bytes().to_vec()).collect();
        let mut there: BTreeMap<RefName, Oid> = BTreeMap::new();
        session.list(&names, &mut |name, oid| {
            there.insert(name.to_owned(), oid);
        })?;
        // Version 2 also gives what its list hides. An older server gives only what it lists.
        let is_given = |decision: &&&Decision| {
            session.speaks_two().is_some() || there.get(&decision.name).copied() == decision.remote
        };
        let mut wants: Vec<Oid> = group.iter().filter(is_given).filter_map(|decision| decision.remote).collect();
        wants.sort_unstable();
        wants.dedup();
        if wants.len() < group.iter().filter_map(|decision| decision.remote).collect::<HashSet<_>>().len() {
            return Err(WireError::Unable("upload-pack does not show it".into()).into());
        }
        let incoming = self.repository.layout().remote(&self.mirror.name).join("incoming");
        let staged = |source| Error::files("stage objects", incoming.clone())(source);
        fetch::sweep(&incoming).map_err(staged)?;
        let stage = Stage::make(&incoming, self.repository).map_err(staged)?;
        let wanted = Wanted { wants: &wants, haves: &[], progress: &self.progress };
        // The mirror does not know where a shallow history ends, so it gets no values from which it could conclude too much.
        let known: Vec<Oid> = tips.iter().copied().filter(|_| self.shallow.is_empty()).collect();
        let mut walk = self.repository.newest_first(&known);
        let left = self.mirror.pull.max_rewritten_size.saturating_sub(asked.bytes);
        // Git takes 0 for no limit.
        let limit = Limit { bytes: left.max(1), key: "max_rewritten_size" };
        match stage.take(Some(limit), |sink| session.fetch(&wanted, &mut walk, sink)) {
            // The next run has the whole size for it.
            Err(WireError::Unable(why)) if asked.bytes > 0 => return Err(Error::Keep(why)),
            taken => taken?,
        }
        session.end();
        let size = stage.only_pack().ok().flatten().and_then(|pack| Some(pack.metadata().ok()?.len()));
        stage.hand_over(self.repository, &wants, tips.iter().copied())?;
        asked.bytes += size.unwrap_or(0);
        Ok(())
    }
}

/// Whether a later try may bring what this one did not.
fn is_passing(error: &Error) -> bool {
    match error {
        // A pack that git refuses is refused again.
        Error::Push(WireError::Protocol(_)) => false,
        Error::Push(WireError::Start { .. }) => true,
        // ssh itself ends with 255. Otherwise the program there ended, although receive-pack had just answered: the account may not read.
        Error::Push(WireError::Program { program, status, .. }) if program == "ssh" => status.contains("255"),
        error => error.class() == Class::Temporary,
    }
}

/// The values of all our refs, except those that are only kept.
pub(super) fn tips(repository: &Repository) -> Result<HashSet<Oid>, Error> {
    let values = repository.list(|name| !name.as_bytes().starts_with(b"refs/rewritten/"))?;
    let values = values.refs.into_iter().map(|(_, local)| local);
    Ok(values.filter_map(|local| if let Local::At(oid) = local { Some(oid) } else { None }).collect())
}
