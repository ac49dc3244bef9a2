//! One mirror, one run: as many pushes as the plan needs, on as few connections as the transport allows.
//!
//! The first look covers the whole scope. A further push looks again at the refs that are still to be sent, on its own
//! connection, so the lease of every command is the value that was advertised there. A refused lease is decided again, three
//! times at most (see `refusal`). What is too much for the mirror at once goes in smaller portions (see `chunk`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::coalesce::RefHistory;
use super::fence::{Fence, Late};
use super::full_scan::{FullScan, full_scan};
use super::observe::{KnownValues, LocalRefs, Remote, Scope, observe, remote};
use super::optimistic::Optimistic;
use super::refusal::{self, Refusals};
use super::{Context, Error, MassDelete, Mode, chunk, symbolic};
use crate::config::Mirror;
use crate::credentials::Redactor;
use crate::plan::{Decision, Divergent, FirstContact, MaxDeletes, Plan, RefFacts, Rules, Stop, plan};
use crate::push::{Answer, Capabilities, DeltaBase, Progress, Report, RetrySmaller, Session, Target};
use crate::refs::{Local, Oid, RefName};
use crate::repo::Repository;
use crate::status::{Held, Outcome, Portion, RefOutcome};

/// What a run did.
#[derive(Default)]
pub(super) struct UpdateResult {
    /// The outcome of each ref that was looked at.
    pub(super) outcomes: BTreeMap<RefName, RefOutcome>,
    /// Refs that were asked for by name and looked at, whether or not there was something to say of them.
    pub(super) looked: BTreeSet<RefName>,
    /// What is known of refs now and was not noted.
    pub(super) held: HashMap<RefName, Held>,
    /// Why the run ended early.
    pub(super) error: Option<Error>,
    /// What went over the wire.
    pub(super) progress: Arc<Progress>,
    /// How much the mirror takes at once, as far as it showed.
    pub(super) portion: Portion,
    /// What it can do.
    pub(super) capabilities: Option<Capabilities>,
    /// What the last look at all refs showed; `outcomes` then lacks no ref that is not right.
    pub(super) scanned: Option<FullScan>,
    /// Values that were sent and of which no answer came: the mirror may still take them.
    pub(super) unanswered: Late,
    /// Whether the mirror was seen without branches and tags.
    pub(super) was_blank: bool,
}

impl UpdateResult {
    /// Whether the mirror answered for every ref, so that the entries that led here are done with.
    pub(super) fn is_answered(&self) -> bool {
        self.error.is_none() && self.outcomes.values().all(|outcome| outcome.outcome != Outcome::RemoteFailed)
    }

    /// Whether everything is right that is known, `refs` being what is listed.
    pub(super) fn is_well(&self, refs: &[RefOutcome]) -> bool {
        self.is_answered() && !refs.iter().any(|outcome| outcome.outcome.is_failure())
    }

    /// Whether the host failed before it said anything of the repository.
    pub(super) fn is_host_down(&self) -> bool {
        matches!(&self.error, Some(Error::Push(error)) if self.outcomes.is_empty() && error.is_host_failure())
    }
}

/// Everything a run needs.
pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) mirror: &'a Mirror,
    pub(super) target: &'a Target,
    pub(super) context: &'a Context<'a>,
    pub(super) past: KnownValues<'a>,
    pub(super) first_contact: FirstContact,
    /// Whether this run may still send; `None` for one that never does.
    pub(super) fence: Option<&'a Fence>,
    pub(super) redactor: Redactor,
    pub(super) progress: Arc<Progress>,
    /// What the last run learned.
    pub(super) portion: Portion,
    /// Where our history ends.
    pub(super) shallow: Vec<Oid>,
    /// What the mirror can do, if small changes may be sent without asking it first.
    pub(super) expected: Option<Capabilities>,
}

impl Run<'_> {
    /// Mirrors `scope`.
    pub(super) fn run(&self, scope: Scope) -> UpdateResult {
        let mut result =
            UpdateResult { progress: Arc::clone(&self.progress), portion: self.portion, ..UpdateResult::default() };
        if let Err(error) = self.try_run(scope, &mut result) {
            result.error = Some(error);
        }
        result
    }

    fn try_run(&self, scope: Scope, result: &mut UpdateResult) -> Result<(), Error> {
        let rules = self.rules()?;
        let (mut scope, mut asked) = selected(scope, &rules);
        let mut refusals = Refusals::default();
        let mut session = Some(Session::connect(self.target, self.context.pool)?);
        if let Some(current) = session.as_mut() {
            match self.push_optimistic(current, &rules, &scope, &mut refusals, result)? {
                Optimistic::Done => return Ok(()),
                Optimistic::Untried => {}
                Optimistic::Again(rest) => {
                    scope = Scope::Refs(rest);
                    session = session.filter(Session::can_continue);
                }
            }
        }
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => Session::connect(self.target, self.context.pool)?,
            };
            let address = &self.target.address;
            let (there, ours, mut scanned) = match &scope {
                Scope::All => {
                    let unchanged = self.context.unchanged;
                    let (there, mut scanned) =
                        full_scan(&mut current, address, &rules, self.repository, self.past.mirrored, unchanged)?;
                    (there, LocalRefs::Listed(std::mem::take(&mut scanned.ours)), Some(scanned))
                }
                Scope::Refs(names) => (remote(&mut current, address, &rules, names)?, LocalRefs::Asked(names), None),
            };
            self.check_object_format(&there)?;
            result.capabilities = Some(there.advertised.capabilities.clone());
            result.was_blank |= there.branches_and_tags == 0;
            let (mut observed, noted) = observe(self.repository, ours, &there, &self.past, self.first_contact)?;
            self.note_values(scanned.as_mut(), &observed.refs, &noted, result);
            let first = plan(&rules, &observed);
            let is_known_better = symbolic::ask(self, &rules, &first, &mut observed);
            let mut plan = if is_known_better { plan(&rules, &observed) } else { first };
            result.looked.append(&mut asked);
            self.record_decisions(&scope, &plan, result);
            result.scanned = scanned.or(result.scanned.take());
            if let Some(Stop::FirstContact { unknown }) = plan.stop {
                current.end();
                let (name, url) = (self.mirror.name.clone(), self.target.address.plain());
                return Err(Error::FirstContact { unknown, name, url });
            }
            refusals.drop_refused(&mut plan, |name, outcome| {
                result.outcomes.insert(name.clone(), outcome.clone());
            });
            if self.context.mode == Mode::Plan || plan.order.is_empty() {
                current.end();
                return Ok(());
            }
            let limit = result.portion.refs.unwrap_or(usize::MAX).min(self.mirror.max_refs_per_push);
            let limit = if self.mirror.is_atomic { usize::MAX } else { limit };
            let whole = refusals.next_push(&plan, limit);
            let slice = chunk::slice(result.portion, self.repository, &whole, &there);
            let sent = slice.as_ref().map_or_else(|| whole.clone(), |slice| vec![slice]);
            let mut rest: BTreeSet<RefName> =
                plan.order.iter().map(|index| plan.decisions[*index].name.clone()).collect();
            self.check_fence()?;
            // What a run gives to a blank mirror is as a whole what one push would give it, copies of bases excepted.
            let base = if result.was_blank { DeltaBase::Pack } else { DeltaBase::Anywhere };
            match self.push(&mut current, &sent, &there, base) {
                Ok(report) if chunk::is_too_large(&report) && self.reduce(&whole, &there, result) => {}
                Ok(report) => {
                    let done = slice.as_ref().filter(|part| report.answers.get(&part.name) == Some(&Answer::Done));
                    let part = done.map(|part| part.name.clone());
                    sent.iter().for_each(|decision| {
                        rest.remove(&decision.name);
                    });
                    rest.extend(self.read_report(&sent, report, &mut refusals, result));
                    rest.extend(part);
                    result.portion.grow();
                }
                Err(error) => {
                    self.note_unanswered(&sent, &error, result);
                    let is_reduced = error.retry_smaller().is_some() && self.reduce(&whole, &there, result);
                    if !is_reduced
                        && error.is_size_failure()
                        && let [decision] = whole.as_slice()
                    {
                        // Too large however it is sent: this ref stays behind, the others go on.
                        let message = Some(self.redactor.clean(&error.to_string()));
                        let outcome = RefOutcome::new(decision, Outcome::RemoteRejected, message);
                        refusals.finalize(decision, &outcome);
                        rest.remove(&decision.name);
                        result.outcomes.insert(decision.name.clone(), outcome);
                    } else if !is_reduced || error.retry_smaller() != Some(RetrySmaller::AtOnce) {
                        self.mark_failed(&whole, &error, result);
                        return Err(error.into());
                    }
                    let reason = self.redactor.clean(&error.to_string());
                    tracing::info!("mirror '{}': {reason}; less at once", self.mirror.name);
                }
            }
            let is_over = rest.is_empty() || result.error.is_some();
            if current.can_continue() {
                session = Some(current);
            }
            if is_over {
                return self.look_for_what_was_made_again(session, &rules, result);
            }
            if rules.divergent != Divergent::Fail {
                scope = Scope::Refs(rest);
            }
        }
    }

    /// Makes sure that no other run has begun, before commands are sent.
    pub(super) fn check_fence(&self) -> Result<(), Error> {
        self.fence.map_or(Ok(()), Fence::check)
    }

    /// Makes the next push smaller. `false` when there is nothing left to cut.
    pub(super) fn reduce(&self, sent: &[&Decision], there: &Remote, result: &mut UpdateResult) -> bool {
        let smaller = chunk::halved(result.portion, self.repository, sent, there);
        let smaller = smaller.filter(|_| !self.mirror.is_atomic);
        result.portion = smaller.unwrap_or(result.portion);
        smaller.is_some()
    }

    /// Notes what is now known of refs: which of the mirror's values are ours, which noted refs it has no longer, and with which values
    /// a ref was deleted here that it still has.
    fn note_values(
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
            // What this run has noted since counts, a slice that arrived for one.
            let lately = result.held.get(&facts.name);
            let now = held_now(facts, lately.unwrap_or(noted), known);
            if now != *noted || lately.is_some() {
                result.held.insert(facts.name.clone(), now);
            }
        }
    }

    /// Notes a command to which the mirror agreed.
    pub(super) fn note_done(&self, decision: &Decision, result: &mut UpdateResult) {
        let now = decision.local.map(Held::at).unwrap_or_default();
        let is_noted = || self.past.mirrored.find(&decision.name).is_ok_and(|noted| noted == now);
        if result.held.contains_key(&decision.name) || !is_noted() {
            result.held.insert(decision.name.clone(), now);
        }
        result.outcomes.insert(decision.name.clone(), RefOutcome::of(decision));
    }

    /// A push of which nothing is known: its refs get the reason.
    pub(super) fn mark_failed(&self, sent: &[&Decision], error: &crate::push::Error, result: &mut UpdateResult) {
        let reason = self.redactor.clean(&error.to_string());
        for decision in sent {
            let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(reason.clone()));
            result.outcomes.insert(decision.name.clone(), outcome);
        }
    }

    /// Notes the commands of a push that failed, if the mirror may still carry them out.
    pub(super) fn note_unanswered(&self, sent: &[&Decision], error: &crate::push::Error, result: &mut UpdateResult) {
        if error.may_have_arrived() {
            sent.iter().for_each(|decision| {
                result.unanswered.entry(decision.name.clone()).or_default().extend(decision.local);
            });
        }
    }

    fn rules(&self) -> Result<Rules, Error> {
        let default_branch = self.repository.default_branch()?;
        let mut rules = self.context.config.rules(self.mirror, default_branch.as_ref());
        if self.context.mode == Mode::Sync(MassDelete::Allowed) {
            rules.max_deletes = MaxDeletes::Unlimited;
        }
        Ok(rules)
    }

    pub(super) fn check_object_format(&self, there: &Remote) -> Result<(), Error> {
        let (ours, theirs) = (self.repository.object_format(), &there.advertised.capabilities.object_format);
        if ours == theirs {
            return Ok(());
        }
        let what = format!(
            "this repository's object format is {ours} and the mirror's is {theirs}; make the mirror with 'git init --bare --object-format={ours}'"
        );
        Err(crate::push::Error::Unable(what).into())
    }

    /// Notes every decision: those that are sent count as not answered until the report says otherwise.
    fn record_decisions(&self, scope: &Scope, plan: &Plan, result: &mut UpdateResult) {
        if let Scope::Refs(names) = scope {
            // What was to be sent and has vanished on both sides since needs nothing more.
            names.iter().for_each(|name| {
                result.outcomes.remove(name);
            });
        }
        if matches!(scope, Scope::All) && !result.outcomes.is_empty() {
            // What is not among the decisions is the same on both sides now.
            let decided: BTreeSet<&RefName> = plan.decisions.iter().map(|decision| &decision.name).collect();
            result.outcomes.retain(|name, outcome| !outcome.outcome.is_listed() || decided.contains(name));
        }
        let is_dry = self.context.mode == Mode::Plan;
        let outcome = |decision: &Decision| match decision.action.is_sent() && !is_dry {
            true => RefOutcome::new(decision, Outcome::RemoteFailed, Some("it was not sent".into())),
            false => RefOutcome::of(decision),
        };
        // Of many refs that are sorted a map is made at once.
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
                    continue;
                }
                Some(Answer::Refused(message)) => {
                    let outcome = refusal::outcome(decision, message, self.incomplete());
                    if outcome.outcome == Outcome::Kept || self.mirror.is_atomic && !is_decided_again {
                        // What the mirror's HEAD keeps is no part of an atomic push; and that is decided again once only.
                        refusals.finalize(decision, &outcome);
                    } else if is_split || is_decided_again || refusals.note(decision, &outcome) {
                        again.push(decision.name.clone());
                    }
                    outcome
                }
                None => {
                    let message = cut.clone().unwrap_or_else(|| "the mirror's report does not mention it".into());
                    let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(message));
                    refusals.finalize(decision, &outcome);
                    result.unanswered.entry(decision.name.clone()).or_default().extend(decision.local);
                    outcome
                }
            };
            result.outcomes.insert(decision.name.clone(), outcome);
        }
        result.error = report.cut.map(Error::Push);
        again
    }
}

/// The scope without what the rules do not select, and the names that were asked for.
fn selected(scope: Scope, rules: &Rules) -> (Scope, BTreeSet<RefName>) {
    match scope {
        Scope::All => (scope, BTreeSet::new()),
        Scope::Refs(asked) => {
            let names = asked.iter().filter(|name| rules.selects(name.borrowed())).cloned().collect();
            (Scope::Refs(names), asked)
        }
    }
}

/// What is known of a ref once both sides were seen.
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
