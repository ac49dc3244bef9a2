//! What a run learns, noted in its result: values that the mirror has, decisions, answers, and what was not answered.

use std::collections::BTreeSet;

use super::coalesce::RefHistory;
use super::full_scan::FullScan;
use super::observe::Scope;
use super::refusal::{self, Refusals};
use super::update::{Run, UpdateResult};
use super::{Error, Mode};
use crate::plan::{Decision, Plan, RefFacts};
use crate::push::{Answer, Report, Session};
use crate::refs::{Local, RefName};
use crate::status::{Held, Outcome, RefOutcome};
use crate::wire::Error as PushError;

impl Run<'_> {
    /// Notes for each ref: which of the mirror's values are ours, which noted refs the mirror no longer has, and the values at which a
    /// ref was deleted here while the mirror still has it.
    pub(super) fn note_values(
        &self,
        scanned: Option<&mut FullScan>,
        observed: &[RefFacts],
        noted: &[Held],
        result: &mut UpdateResult,
    ) {
        if let Some(scanned) = scanned {
            result.held.extend(scanned.gone.drain(..).map(|name| (name, Held::default())));
            result.held.extend(scanned.unnoted.drain(..).map(|(name, oid)| (name, Held::at(oid))));
        }
        for (facts, noted) in observed.iter().zip(noted) {
            let known = self.past.touched.refs.get(&facts.name);
            // What this run has noted since `mirrored/` was read takes precedence: an earlier push of this run may have arrived.
            let lately = result.held.get(&facts.name);
            let now = held_now(facts, lately.unwrap_or(noted), known);
            if now != *noted || lately.is_some() {
                result.held.insert(facts.name.clone(), now);
            }
        }
    }

    /// Records a command that the mirror accepted.
    pub(super) fn note_done(&self, decision: &Decision, result: &mut UpdateResult) {
        let now = decision.new_value().map(Held::at).unwrap_or_default();
        let is_noted = || self.past.mirrored.find(&decision.name).is_ok_and(|noted| noted == now);
        if result.held.contains_key(&decision.name) || !is_noted() {
            result.held.insert(decision.name.clone(), now);
        }
        let kept_as = result.outcomes.get(&decision.name).and_then(|before| before.kept_as.clone());
        let outcome = RefOutcome { local: decision.new_value(), kept_as, ..RefOutcome::of(decision) };
        result.outcomes.insert(decision.name.clone(), outcome);
    }

    /// Marks all refs of a push that failed as a whole, or was not sent, as failed. The error is the reason.
    pub(super) fn mark_failed(&self, sent: &[&Decision], error: &PushError, result: &mut UpdateResult) {
        let reason = self.redactor.clean(&error.to_string());
        for decision in sent {
            let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(reason.clone()));
            result.outcomes.insert(decision.name.clone(), outcome);
        }
    }

    /// Notes the commands of a push that failed in `session`, if the mirror may still carry them out.
    pub(super) fn note_unanswered(
        &self,
        session: &Session,
        sent: &[&Decision],
        error: &PushError,
        result: &mut UpdateResult,
    ) {
        if session.may_carry_out(error) {
            sent.iter().for_each(|decision| {
                result.unanswered.entry(decision.name.clone()).or_default().extend(decision.new_value());
            });
        }
    }

    /// Notes every decision. A ref that is to be sent counts as failed ("it was not sent") until the report says otherwise.
    pub(super) fn record_decisions(&self, scope: &Scope, plan: &Plan, refusals: &Refusals, result: &mut UpdateResult) {
        if let Scope::Refs(names) = scope {
            // These refs are decided anew. A ref without a decision now, such as one that exists on neither side, needs nothing.
            names.iter().for_each(|name| {
                result.outcomes.remove(name);
            });
        }
        if matches!(scope, Scope::All) && !result.outcomes.is_empty() {
            // A ref without a decision needs nothing now: for example, it is the same on both sides.
            let decided: BTreeSet<&RefName> = plan.decisions.iter().map(|decision| &decision.name).collect();
            result.outcomes.retain(|name, outcome| !outcome.outcome.is_listed() || decided.contains(name));
        }
        let is_dry = self.context.mode == Mode::Plan;
        let outcome = |decision: &Decision| match decision.action.is_sent() && !is_dry {
            true => RefOutcome::new(decision, Outcome::RemoteFailed, Some("it was not sent".into())),
            false => refusals.of(decision).cloned().unwrap_or_else(|| RefOutcome::of(decision)),
        };
        // `collect` makes a map of many sorted refs in one pass.
        let noted = plan.decisions.iter().map(|decision| (decision.name.clone(), outcome(decision)));
        match result.outcomes.is_empty() {
            true => result.outcomes = noted.collect(),
            false => result.outcomes.extend(noted),
        }
    }

    /// Notes the answers, and returns the refs that are to be looked at and decided again.
    pub(super) fn read_report(
        &self,
        sent: &[&Decision],
        mut report: Report,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Vec<RefName> {
        let mut again = Vec::new();
        let cut = report.cut.as_ref().map(|cut| self.redactor.clean(&cut.to_string()));
        let is_split = report.cut.is_none() && refusals.bisect(sent, &report, self.mirror.is_atomic);
        let is_refused = report.answers.values().any(|answer| matches!(answer, Answer::Refused(_)));
        let is_decided_again = self.mirror.is_atomic && is_refused && refusals.retry_atomic();
        for decision in sent {
            let outcome = match report.answers.remove(&decision.name) {
                Some(Answer::Done) => {
                    self.note_done(decision, result);
                    again.extend(decision.step.map(|_| decision.name.clone()));
                    continue;
                }
                Some(Answer::Refused(message)) => {
                    let outcome = refusal::outcome(decision, message, self.incomplete());
                    if outcome.outcome == Outcome::Kept || self.mirror.is_atomic && !is_decided_again {
                        // A ref that the mirror's HEAD protects is not sent again, so a repeated atomic push leaves it out. An atomic push
                        // is decided again only once.
                        refusals.finalize(decision, &outcome);
                    } else if is_split || is_decided_again || refusals.note(decision, &outcome) {
                        again.push(decision.name.clone());
                    }
                    outcome
                }
                None => {
                    let why = "the mirror's report does not mention it";
                    let outcome = refusals.unanswered(decision, cut.as_ref(), why);
                    result.unanswered.entry(decision.name.clone()).or_default().extend(decision.new_value());
                    outcome
                }
            };
            result.outcomes.insert(decision.name.clone(), outcome);
        }
        result.error = report.cut.map(Error::Push);
        again
    }
}

/// The new record of a ref in `mirrored/`, after both sides were read.
fn held_now(facts: &RefFacts, noted: &Held, known: Option<&RefHistory>) -> Held {
    let Some(remote) = facts.remote else { return Held::default() };
    let mut now = noted.clone();
    if facts.is_remote_known || facts.local == Local::At(remote) {
        now.base = Some(remote);
    }
    match facts.local {
        Local::At(local) if local == remote => now.deleted.clear(),
        Local::Absent => now.deleted.extend(known.iter().flat_map(|known| &known.deleted)),
        _ => {}
    }
    now
}
