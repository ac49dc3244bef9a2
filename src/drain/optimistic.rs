//! The optimistic push: commands are sent without reading the mirror's refs first.
//!
//! Over http this saves the request for the advertisement, over a stream the wait for it. Nothing can be lost: the base is the expected old
//! value of each command, so a mirror with another value refuses it. If a command does not succeed, a normal update follows, which reads
//! the refs first.
//!
//! Only a small change is sent this way: all of its refs are to be sent, the base has a value of one of them or of the default branch, and
//! their objects fit a pack that is made in process. So a failed attempt costs little. A ref without a base is sent as a new one. A
//! deletion is never sent this way: when receive-pack lacks the object of the expected old value, it deletes the ref whatever its value is
//! ("allowing deletion of corrupt ref").

use std::collections::{BTreeSet, HashMap};

use super::observe::{LocalRefs, Remote, Scope, observe, unreadable};
use super::refusal::{self, Refusals};
use super::update::{Run, UpdateResult};
use super::{Context, Error, Mode, chunk};
use crate::config::Mirror;
use crate::plan::{Action, Decision, Divergent, Rules, plan};
use crate::push::{Answer, Capabilities, Report, Session};
use crate::refs::{Oid, RefName};
use crate::replies::Cause;
use crate::status::{Greeting, Portion, Status, UpdateStatus};
use crate::wire::Error as PushError;

/// Maximum number of refs in an optimistic push.
const MAX_REFS: usize = 50;

/// If the base has at most this number of refs, the pack leaves out what any of their values contains.
const MAX_BELIEVED: u64 = 1000;

/// The result of the attempt.
pub(super) enum Optimistic {
    /// The mirror agreed to everything.
    Done,
    /// Nothing was sent: the session is as it was.
    Untried,
    /// These refs must be read first.
    Again(BTreeSet<RefName>),
}

/// The mirror's capabilities at the last contact, or `None` if this run must read the refs first. An optimistic push needs a drain, a
/// configuration that allows it, and a last contact that succeeded at this URL and left no limit on the size of a push.
pub(super) fn expected(context: &Context<'_>, mirror: &Mirror, before: &Status, url: &str) -> Option<Capabilities> {
    let Greeting { url: greeted, capabilities } = before.greeting.as_ref()?;
    let is_expected = context.mode == Mode::Drain
        && mirror.is_optimistic
        && mirror.divergent != Divergent::Fail
        && before.update_status == UpdateStatus::Finished
        && before.portion == Portion::default()
        && greeted == url;
    is_expected.then(|| capabilities.clone())
}

impl Run<'_> {
    /// Tries an optimistic push.
    pub(super) fn push_optimistic(
        &self,
        session: &mut Session,
        rules: &Rules,
        scope: &Scope,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<Optimistic, Error> {
        let (Some(capabilities), Scope::Refs(names)) = (&self.expected, scope) else { return Ok(Optimistic::Untried) };
        if names.is_empty() || names.len() > MAX_REFS.min(self.mirror.max_refs_per_push) {
            return Ok(Optimistic::Untried);
        }
        let there = self.believed(names, capabilities)?;
        if there.values.is_empty() {
            return Ok(Optimistic::Untried);
        }
        self.check_object_format(&there)?;
        let (observed, _) = observe(self.repository, LocalRefs::Asked(names), &there, &self.past, self.first_contact)?;
        let plan = plan(rules, &observed);
        let sent = plan.next_push();
        let is_deleted = |decision: &&Decision| decision.action == Action::Delete;
        // A ref without a decision is on neither side, as far as we know. Only a look at the mirror can confirm that.
        if plan.stop.is_some()
            || sent.is_empty()
            || sent.len() < plan.decisions.len().max(names.len())
            || sent.iter().any(is_deleted)
        {
            return Ok(Optimistic::Untried);
        }
        let commands = self.commands(&sent);
        let request = self.request(&commands);
        let haves = self.believed_values(&there)?;
        let Some(pack) = self.small_pack(&sent, &haves) else { return Ok(Optimistic::Untried) };
        self.check_fence()?;
        match session.push_optimistic(&request, Some(pack), capabilities) {
            Ok(report) if chunk::is_too_large(&report) && self.reduce(&sent, &there, result) => {
                Ok(Optimistic::Again(names.clone()))
            }
            Ok(report) => {
                result.capabilities = Some(capabilities.clone());
                let again = self.read_early_report(&sent, &report, refusals, result);
                Ok(if again.is_empty() { Optimistic::Done } else { Optimistic::Again(again) })
            }
            Err(error) => {
                self.note_unanswered(session, &sent, &error, result);
                // The server may have just closed an idle connection. That says nothing about the size.
                let is_cut = matches!(error, PushError::Upload(_) | PushError::Broken { .. });
                if error.retry_smaller().is_some() && !is_cut {
                    self.reduce(&sent, &there, result);
                }
                if is_final(&error, session) {
                    self.mark_failed(&sent, &error, result);
                    return Err(error.into());
                }
                let reason = self.redactor.clean(&error.to_string());
                tracing::debug!("mirror '{}': {reason}; falling back to a normal push", self.mirror.name);
                Ok(Optimistic::Again(names.clone()))
            }
        }
    }

    /// Records the answers to an optimistic push. Returns every ref that the mirror did not accept, to be read again. A refusal does not
    /// show reliably whether the expected old value was stale, because servers word it differently. The value that is read shows it.
    fn read_early_report(
        &self,
        sent: &[&Decision],
        report: &Report,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> BTreeSet<RefName> {
        let is_split = report.cut.is_none() && refusals.bisect(sent, report, self.mirror.is_atomic);
        let mut again = BTreeSet::new();
        for decision in sent {
            match report.answers.get(&decision.name) {
                Some(Answer::Done) => {
                    self.note_done(decision, result);
                    continue;
                }
                None => {
                    result.unanswered.entry(decision.name.clone()).or_default().extend(decision.local);
                }
                Some(Answer::Refused(message)) => {
                    // Missing objects only show that our belief about the mirror was wrong.
                    let is_of_belief = Cause::MissingObjects.is_in(message);
                    if !is_split && !self.mirror.is_atomic && !is_of_belief {
                        refusals.doubt(decision, &refusal::outcome(decision, message.clone(), self.incomplete()));
                    }
                }
            }
            again.insert(decision.name.clone());
        }
        again
    }

    /// The values that the mirror is believed to have, which the pack leaves out. Includes the whole base unless it is large.
    fn believed_values(&self, there: &Remote) -> Result<HashMap<Oid, u32>, Error> {
        let mut values = there.values.clone();
        if self.past.mirrored.count() <= MAX_BELIEVED {
            let all = self.past.mirrored.all().map_err(unreadable)?;
            all.iter().for_each(|(_, oid)| *values.entry(*oid).or_default() += 1);
        }
        Ok(values)
    }

    /// The mirror's side as the base has it: the refs in scope, and the default branch, from which most new history begins.
    fn believed(&self, names: &BTreeSet<RefName>, capabilities: &Capabilities) -> Result<Remote, Error> {
        let value = |name: &RefName| self.past.mirrored.find(name).map(|held| held.base).map_err(unreadable);
        let mut refs: Vec<(RefName, Oid)> = Vec::with_capacity(names.len());
        for name in names {
            refs.extend(value(name)?.map(|oid| (name.clone(), oid)));
        }
        let default = match self.repository.default_branch()? {
            Some(name) => value(&name)?,
            None => None,
        };
        Ok(Remote::believed(&self.target.address, capabilities, refs, default))
    }
}

/// Whether a normal update would fail as well, or wait as long again: the host cannot be reached, does not answer, asks us to wait (429,
/// 503), or refuses us before it reads a command.
fn is_final(error: &PushError, session: &Session) -> bool {
    match error {
        PushError::Resolve { .. } | PushError::Connect { .. } | PushError::Timeout(_) | PushError::Blocked { .. } => {
            true
        }
        PushError::HostKey { .. }
        | PushError::HostKeyChanged { .. }
        | PushError::Certificate { .. }
        | PushError::Start { .. } => true,
        PushError::Status { status: 429 | 503, .. } => true,
        // At some hosts a normal update, which asks for the refs first, would make a repository that was deleted there.
        PushError::NotFound(_) => true,
        PushError::Credentials(_) | PushError::Program { .. } => !session.can_continue(),
        _ => false,
    }
}
