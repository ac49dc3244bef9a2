//! Values that somebody else put on a mirror and that a push replaces or deletes there by the
//! rules. They are fetched first, and kept in this repository (`kept`).
//!
//! Guaranteed: a value that was never ours is here, under a ref, before it is replaced, if it can
//! be fetched. Not kept: what the mirror does not give, what is larger than `max_rewritten_size`,
//! and what is malformed or incomplete. It is replaced all the same if the rules say so. Nothing is
//! kept in a partial repository, or in one where another user could make git run his programs as
//! us. A crash leaves the stage, which the next run with such a value removes. Absent: values that
//! this repository is known to have had; they were replaced here first.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::refusal::Refusals;
use super::update::{Run, UpdateResult};
use super::{Error, kept};
use crate::config::Keep;
use crate::fetch::{self, Held, Limit, Stage, Wanted};
use crate::plan::{Decision, Plan};
use crate::push::Session;
use crate::refs::{Oid, RefName};
use crate::replies;
use crate::status::{Outcome, RefOutcome};
use crate::wire::{Class, Error as WireError};

/// How often one run fetches such a value of one ref. A ref that somebody moves faster waits.
const MAX_TRIES: u32 = 3;

/// What this run asked of the mirror to keep such values.
#[derive(Debug, Default)]
pub(super) struct Asked {
    tries: BTreeMap<RefName, u32>,
    /// The size of the packs that were received, in bytes. In one run it is at most
    /// `max_rewritten_size`.
    bytes: u64,
    /// The part of `bytes` that no line of `kept.jsonl` counts yet.
    pub(super) unnoted: u64,
    /// Values that the mirror does not give.
    unkept: HashSet<Oid>,
}

/// What the mirror gave.
#[derive(Default)]
struct Brought {
    values: HashSet<Oid>,
    /// Why the values that are neither here nor in [`Asked::unkept`] have to wait.
    passing: Option<Error>,
}

impl Run<'_> {
    /// Keeps the values that the next push of `plan` replaces on the mirror and that were never ours. Returns the session if that push may
    /// be sent now. Otherwise the mirror is to be looked at again: values were fetched, which may have taken long, or some refs have to wait.
    pub(super) fn keep_foreign(
        &self,
        session: Session,
        plan: &Plan,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<Option<Session>, Error> {
        let replaced = self.replaced(plan);
        if replaced.is_empty() {
            return Ok(Some(session));
        }
        let incoming = self.incoming();
        fetch::sweep(&incoming, self.repository).map_err(Error::files("remove what a killed run left", incoming))?;
        let mut missing = Vec::new();
        for decision in &replaced {
            let Some(value) = decision.remote else { continue };
            if !result.asked.unkept.contains(&value) && !self.repository.is_here(value)? {
                missing.push(*decision);
            }
        }
        // The mirror may allow this account only one conversation.
        let session = ended_if(!missing.is_empty(), Some(session));
        // Until the values have refs.
        let held = Held::of(&self.incoming(), self.repository);
        let brought = self.fetch_foreign(&missing, &held, result)?;
        let waiting = self.make_refs(&replaced, &missing, brought, result)?;
        let session = ended_if(!waiting.is_empty(), session);
        // All refs of an atomic push wait together.
        if self.mirror.is_atomic
            && let Some(reason) = waiting.first().and_then(|outcome| outcome.reason.as_ref())
        {
            return Err(Error::Keep(reason.to_string()));
        }
        for outcome in waiting {
            let Some(decision) = replaced.iter().find(|decision| decision.name == outcome.name) else { continue };
            refusals.finalize(decision, &outcome);
            result.outcomes.insert(outcome.name.clone(), outcome);
        }
        Ok(session)
    }

    /// What the next push replaces on the mirror and is to be kept.
    fn replaced<'p>(&self, plan: &'p Plan) -> Vec<&'p Decision> {
        let replaced: Vec<&Decision> = plan.next_push().into_iter().filter(|decision| decision.keeps).collect();
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

    /// Makes refs for the values of `replaced` that are here. Returns the outcomes of the refs that have to wait, and of those whose value no
    /// ref can keep.
    fn make_refs(
        &self,
        replaced: &[&Decision],
        missing: &[&Decision],
        brought: Brought,
        result: &mut UpdateResult,
    ) -> Result<Vec<RefOutcome>, Error> {
        // A value that a ref here has needs no other name. A ref below `refs/conflicts` does not
        // count, because it is deleted when its conflict ends.
        let is_other = |name: &[u8]| !name.starts_with(b"refs/rewritten/") && !name.starts_with(b"refs/conflicts/");
        let others = self.repository.list(|name| is_other(name.as_bytes()))?;
        let tips: HashSet<Oid> = others.values().collect();
        let mut here = Vec::new();
        for decision in replaced {
            let Some(value) = decision.remote.filter(|value| !tips.contains(value)) else { continue };
            if brought.values.contains(&value) || self.repository.is_here(value)? {
                here.push(*decision);
            }
        }
        let mut waiting = Vec::new();
        if !here.is_empty() {
            kept::hide(self.repository)?;
            waiting = kept::keep(self.repository, &self.mirror.name, &here, (self.context.now)(), result)?;
        }
        if let Some(error) = brought.passing {
            let why = self.redactor.clean(&format!("what it replaces there cannot be fetched yet: {error}"));
            let is_settled = |value: &Oid| brought.values.contains(value) || result.asked.unkept.contains(value);
            let left = missing.iter().filter(|decision| decision.remote.is_some_and(|value| !is_settled(&value)));
            waiting.extend(left.map(|decision| RefOutcome::new(decision, Outcome::RemoteFailed, Some(why.clone()))));
        }
        Ok(waiting)
    }

    fn incoming(&self) -> PathBuf {
        self.repository.layout().remote(&self.mirror.name).join("incoming")
    }

    /// Fetches the values of `missing`: all at once, or in halves if that fails, so that one bad
    /// value does not block the others.
    fn fetch_foreign(&self, missing: &[&Decision], held: &Held, result: &mut UpdateResult) -> Result<Brought, Error> {
        let mut brought = Brought::default();
        if missing.is_empty() {
            return Ok(brought);
        }
        self.progress.begin("receiving what is to be replaced");
        let tries = |asked: &Asked, decision: &Decision| asked.tries.get(&decision.name).copied().unwrap_or(0);
        let (tried, missing): (Vec<&Decision>, Vec<&Decision>) =
            missing.iter().partition(|decision| tries(&result.asked, decision) >= MAX_TRIES);
        if !tried.is_empty() {
            brought.passing = Some(Error::Keep("somebody moves it while it is fetched".into()));
        }
        for decision in &missing {
            *result.asked.tries.entry(decision.name.clone()).or_default() += 1;
        }
        // What we have is not sent again.
        let mut known: HashSet<Oid> = self.repository.list(|_| true)?.values().collect();
        let mut groups = vec![&missing[..]];
        while let Some(group) = groups.pop().filter(|group| !group.is_empty()) {
            let wanted: BTreeSet<Oid> = group.iter().filter_map(|decision| decision.remote).collect();
            let error = match self.bring(group, &wanted, &known, held, &mut result.asked) {
                Ok(()) => {
                    known.extend(&wanted);
                    brought.values.extend(wanted);
                    continue;
                }
                Err(error) => error,
            };
            match group {
                _ if is_down(&error) => {
                    brought.passing = Some(error);
                    break;
                }
                [_, _, ..] => groups.extend(<[_; 2]>::from(group.split_at(group.len() / 2))),
                // This run has used up `max_rewritten_size`.
                _ if matches!(error, Error::Keep(_)) => {
                    brought.passing = Some(error);
                    break;
                }
                _ if is_passing(&error) => brought.passing = Some(error),
                // It moved, which the next look shows.
                [one] if is_moved(&error) && tries(&result.asked, one) < MAX_TRIES => {}
                _ => self.give_up(group, &error, &mut result.asked),
            }
        }
        Ok(brought)
    }

    /// Notes that a value cannot be kept.
    fn give_up(&self, group: &[&Decision], error: &Error, asked: &mut Asked) {
        let why = self.redactor.clean(&error.to_string());
        for decision in group {
            let Some(value) = decision.remote else { continue };
            asked.unkept.insert(value);
            let (mirror, name) = (&self.mirror.name, decision.name.text());
            tracing::warn!("mirror '{mirror}': '{name}' is replaced there and its value {value} is not kept: {why}");
        }
    }

    /// Fetches `wanted`, the values that `group` replaces, through a stage, checks that nothing of their history is missing, and copies their
    /// pack here. The histories of `known` are here.
    fn bring(
        &self,
        group: &[&Decision],
        wanted: &BTreeSet<Oid>,
        known: &HashSet<Oid>,
        held: &Held,
        asked: &mut Asked,
    ) -> Result<(), Error> {
        let mut session = fetch::Session::connect(self.target, self.context.pool, None)?;
        let names: Vec<Vec<u8>> = group.iter().map(|decision| decision.name.as_bytes().to_vec()).collect();
        let mut shown = BTreeSet::new();
        session.list(&names, &mut |_, oid| {
            shown.insert(oid);
        })?;
        // Version 2 also gives what its list hides. An older server gives only what it lists.
        if session.speaks_two().is_none() && !wanted.is_subset(&shown) {
            return Err(WireError::Unable("upload-pack does not show it".into()).into());
        }
        let incoming = self.incoming();
        let stage = Stage::make(&incoming, self.repository).map_err(Error::files("stage objects", incoming))?;
        let wants: Vec<Oid> = wanted.iter().copied().collect();
        let request = Wanted { wants: &wants, haves: &[], progress: &self.progress };
        // With a shallow history no tips are sent: the mirror would conclude that all their
        // ancestors are here.
        let tips: Vec<Oid> = known.iter().copied().filter(|_| self.shallow.is_empty()).collect();
        let mut walk = self.repository.newest_first(&tips);
        let left = self.mirror.pull.max_rewritten_size.saturating_sub(self.used(asked)?);
        // Git takes 0 for no limit.
        let limit = Limit { bytes: left.max(1), key: "max_rewritten_size" };
        match stage.take(Some(limit), |sink| session.fetch(&request, &mut walk, sink)) {
            // The next run has the whole size for it.
            Err(WireError::Unable(why)) if asked.bytes > 0 => return Err(Error::Keep(why)),
            taken => taken?,
        }
        session.end();
        let size = stage.only_pack().ok().flatten().and_then(|pack| Some(pack.metadata().ok()?.len()));
        stage.hand_over(self.repository, held, &wants, known.iter().copied())?;
        asked.bytes += size.unwrap_or(0);
        asked.unnoted += size.unwrap_or(0);
        Ok(())
    }

    /// How much of `max_rewritten_size` is used up, in bytes: by this run, and of a confined mirror by
    /// earlier ones. Whoever has a token controls a confined mirror, and could fill our disk run by
    /// run. So what is kept of such a mirror counts until it expires.
    fn used(&self, asked: &Asked) -> Result<u64, Error> {
        if !self.mirror.is_confined {
            return Ok(asked.bytes);
        }
        // The list has what this run has noted already.
        let noted: u64 =
            kept(self.repository, &self.mirror.name)?.iter().fold(0, |sum, kept| kept.fetched.saturating_add(sum));
        Ok(noted.saturating_add(asked.unnoted))
    }
}

/// The session, unless it is to end.
fn ended_if(is_over: bool, session: Option<Session>) -> Option<Session> {
    match session {
        Some(session) if is_over => {
            session.end();
            None
        }
        session => session,
    }
}

/// Whether the host does not answer, so that no other value can be fetched now either.
fn is_down(error: &Error) -> bool {
    matches!(error, Error::Push(failure) if failure.is_host_failure() && is_passing(error))
}

/// Whether upload-pack does not have the value any more.
fn is_moved(error: &Error) -> bool {
    matches!(error, Error::Push(WireError::Remote(message)) if replies::is_moved_want(message))
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
