//! One update: as many pushes as the plan needs, on as few connections as the transport allows.
//!
//! The first scan covers the whole scope. Before each further push, the refs that remain are read
//! again on the connection of that push. So the expected old value of every command was advertised
//! on the same connection. Only an optimistic push takes it from the base (see `optimistic`). A ref
//! that moved meanwhile is decided again, until the third refusal (see `refusal`). A push that is
//! too large for the mirror is sent in smaller ones (see `chunk`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::absent::Presence;
use super::companions::Companions;
use super::fence::{Fence, Late};
use super::foreign::Asked;
use super::full_scan::{FullScan, full_scan};
use super::observe::{KnownValues, LocalRefs, Remote, Scope, observe, remote};
use super::optimistic::Optimistic;
use super::refusal::Refusals;
use super::{Context, Error, Host, Mode, chunk, full_sync, symbolic};
use crate::config::Mirror;
use crate::credentials::Redactor;
use crate::plan::{Decided, Decision, Divergent, FirstContact, Limits, Observed, Plan, Rules, Stop, plan};
use crate::push::{Answer, Capabilities, DeltaBase, Progress, Session};
use crate::refs::{Oid, RefName};
use crate::repo::Repository;
use crate::status::{Held, Outcome, Portion, PullState, RefOutcome};
use crate::wire::{RetrySmaller, Target};

/// What a run did.
#[derive(Default)]
pub(super) struct UpdateResult {
    /// The outcome of each ref that was looked at.
    pub(super) outcomes: BTreeMap<RefName, RefOutcome>,
    /// Refs that were asked for by name, with or without an outcome, selected or not.
    pub(super) looked: BTreeSet<RefName>,
    /// What is newly known of refs, to be stored in `mirrored/`.
    pub(super) held: HashMap<RefName, Held>,
    /// Why the run ended early.
    pub(super) error: Option<Error>,
    /// What went over the wire.
    pub(super) progress: Arc<Progress>,
    /// The push size that the mirror accepts, as far as it is known.
    pub(super) portion: Portion,
    /// What the mirror can do.
    pub(super) capabilities: Option<Capabilities>,
    /// The result of the last full scan. If there is one, `outcomes` has every ref that is not up to date.
    pub(super) scanned: Option<FullScan>,
    /// Values that were sent and not answered: the mirror may still set them.
    pub(super) unanswered: Late,
    /// Whether the mirror was seen without branches and tags.
    pub(super) was_blank: bool,
    /// What was asked of the mirror for values that are to be replaced.
    pub(super) asked: Asked,
    /// Of a pull: whether every selected ref was compared, so that first contact is over.
    pub(super) has_compared_all: bool,
    /// Of a pull: whether it spooled something for the push mirrors.
    pub(super) has_spooled: bool,
    /// Of a two-way mirror's pull: what is decided for the mirror.
    pub(super) for_mirror: BTreeMap<RefName, Decided>,
    /// Of a pull: what it knows now.
    pub(super) pull: Option<PullState>,
    /// What is known of the objects that the mirror got together with its first branch.
    pub(super) companions: Companions,
    /// Whether the mirror's repository was made for this run, or would be.
    pub(super) creation: Presence,
}

impl UpdateResult {
    /// Whether the mirror answered for every ref, so that the claimed queue entries are finished.
    pub(super) fn is_answered(&self) -> bool {
        self.error.is_none() && self.outcomes.values().all(|outcome| outcome.outcome != Outcome::RemoteFailed)
    }

    /// Whether the mirror answered for every ref, and none of `refs`, the refs that the status lists, failed.
    pub(super) fn is_well(&self, refs: &[RefOutcome]) -> bool {
        self.is_answered() && !refs.iter().any(|outcome| outcome.outcome.is_failure())
    }

    /// What the run showed about the host.
    pub(super) fn host(&self) -> Host {
        match &self.error {
            Some(Error::Push(error)) if self.outcomes.is_empty() && error.is_host_failure() => {
                match error.asks_to_wait() {
                    true => Host::Busy,
                    false => Host::Down,
                }
            }
            _ => Host::Up,
        }
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
    /// The push size that the last run found.
    pub(super) portion: Portion,
    /// The commits where our history ends, in a shallow repository.
    pub(super) shallow: Vec<Oid>,
    /// What the mirror can do, if small changes may be sent without asking it first.
    pub(super) expected: Option<Capabilities>,
    /// Of a two-way mirror: what was decided for the refs in scope.
    pub(super) decided: BTreeMap<RefName, Decided>,
    /// Whether the mirror's repository is there.
    pub(super) presence: Presence,
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
        let rules = self.context.rules(self.repository, self.mirror)?;
        let (mut scope, mut asked) = selected(scope, &rules);
        let mut refusals = Refusals::default();
        if self.presence == Presence::Missing {
            return self.decide_for_a_new_one(&rules, result);
        }
        self.progress.begin("connecting");
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
        let mut has_asked_for_all = matches!(scope, Scope::All);
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => Session::connect(self.target, self.context.pool)?,
            };
            let (there, plan) = self.decide(&mut current, &rules, &scope, &refusals, result)?;
            // The mirror was emptied, or its host deleted it and made it again. It then lacks more
            // than what is spooled.
            let is_emptied = there.advertised.is_empty && self.past.mirrored.count() > 0 && self.fence.is_some();
            if is_emptied && matches!(scope, Scope::Refs(_)) && !std::mem::replace(&mut has_asked_for_all, true) {
                full_sync::request(self.repository, self.context, self.mirror)?;
            }
            result.looked.append(&mut asked);
            if let Some(error) = plan.stop.and_then(|stop| self.stopped(stop)) {
                current.end();
                if let Error::Push(error) = &error {
                    self.mark_failed(&plan.next_push(), error, result);
                }
                return Err(error);
            }
            if self.context.mode == Mode::Plan || plan.order.is_empty() {
                current.end();
                return Ok(());
            }
            let Some(mut current) = self.keep_foreign(current, &plan, &mut refusals, result)? else { continue };
            let rest = self.push_some(&mut current, &plan, &there, &mut refusals, result)?;
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

    /// Reads the mirror's refs and decides about those in scope.
    fn decide(
        &self,
        session: &mut Session,
        rules: &Rules,
        scope: &Scope,
        refusals: &Refusals,
        result: &mut UpdateResult,
    ) -> Result<(Remote, Plan), Error> {
        self.progress.begin("comparing refs");
        let address = &self.target.address;
        let (mut there, ours, mut scanned) = match scope {
            Scope::All => {
                let unchanged = self.context.unchanged;
                let (there, mut scanned) =
                    full_scan(session, address, rules, self.repository, self.past.mirrored, unchanged)?;
                (there, LocalRefs::Listed(std::mem::take(&mut scanned.ours)), Some(scanned))
            }
            Scope::Refs(names) => (remote(session, address, rules, names)?, LocalRefs::Asked(names), None),
        };
        self.check_object_format(&there)?;
        let plan = self.judge(rules, scope, (&mut there, ours, scanned.take()), refusals, result)?;
        Ok((there, plan))
    }

    /// Decides what a repository that is still to be made would get.
    fn decide_for_a_new_one(&self, rules: &Rules, result: &mut UpdateResult) -> Result<(), Error> {
        let listing = self.repository.list(|name| rules.selects(name.borrowed()))?;
        let mut there = Remote::new_one(&self.target.address, self.repository.object_format());
        let sides = (&mut there, LocalRefs::Listed(listing), Some(FullScan::default()));
        self.judge(rules, &Scope::All, sides, &Refusals::default(), result).map(drop)
    }

    /// Decides about the refs of both sides.
    fn judge(
        &self,
        rules: &Rules,
        scope: &Scope,
        (there, ours, mut scanned): (&mut Remote, LocalRefs<'_>, Option<FullScan>),
        refusals: &Refusals,
        result: &mut UpdateResult,
    ) -> Result<Plan, Error> {
        there.add_objects(result.companions.accepted());
        result.capabilities = Some(there.advertised.capabilities.clone());
        result.was_blank |= there.branches_and_tags == 0;
        let (mut observed, noted) = observe(self.repository, ours, there, &self.past, self.first_contact)?;
        self.note_values(scanned.as_mut(), &observed.refs, &noted, result);
        for facts in &mut observed.refs {
            facts.is_refused = refusals.stands(&facts.name, facts.remote);
            facts.decided = self.decided.get(&facts.name).cloned();
        }
        let refs = result.portion.refs.unwrap_or(usize::MAX).min(self.mirror.max_refs_per_push);
        let companions = if result.portion.refs.is_none() { result.companions.most(refs) } else { 0 };
        observed.limits = Limits { refs: Some(refs), groups: refusals.groups().to_vec(), step: None, companions };
        let plan = self.final_plan(rules, &mut observed, there, result.portion);
        self.record_decisions(scope, &plan, refusals, result);
        result.scanned = scanned.or(result.scanned.take());
        Ok(plan)
    }

    /// The final plan. A first plan shows what to ask the mirror, and whether a branch is sent in slices; then the plan is made again.
    fn final_plan(&self, rules: &Rules, observed: &mut Observed, there: &Remote, portion: Portion) -> Plan {
        let mut last = plan(rules, observed);
        if symbolic::ask(self, rules, &last, observed) {
            last = plan(rules, observed);
        }
        observed.limits.step = chunk::step(portion, self.repository, &last, there);
        if observed.limits.step.is_some() { plan(rules, observed) } else { last }
    }

    /// The error of a plan that was stopped. `None` if the plan is only shown, except at first
    /// contact, which is an error then too.
    fn stopped(&self, stop: Stop) -> Option<Error> {
        let unable = |what: &str| Error::Push(crate::wire::Error::Unable(what.into()));
        if self.context.mode == Mode::Plan && !matches!(stop, Stop::FirstContact { .. }) {
            return None;
        }
        Some(match stop {
            Stop::FirstContact { unknown } => {
                Error::FirstContact { unknown, name: self.mirror.name.clone(), url: self.target.address.plain() }
            }
            Stop::NoReport => unable("it does not report what it did (no report-status)"),
            Stop::NoAtomic => unable("it does not support atomic pushes; set atomic = false"),
            // Only the plan of a pull stops for these.
            Stop::NothingUpstream | Stop::Unrelated => return None,
        })
    }

    /// Sends the next push of the plan, and returns the refs that are still to be sent or to be decided again.
    fn push_some(
        &self,
        session: &mut Session,
        plan: &Plan,
        there: &Remote,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<BTreeSet<RefName>, Error> {
        let sent = plan.next_push();
        refusals.begin(&sent);
        let mut rest: BTreeSet<RefName> = plan.order.iter().map(|index| plan.decisions[*index].name.clone()).collect();
        self.check_fence()?;
        // In an empty mirror, a delta base outside the pack would be stored again with each push, so deltas stay within the pack.
        let base = if result.was_blank { DeltaBase::Pack } else { DeltaBase::Anywhere };
        match self.push(session, plan, there, base) {
            Ok(report) if chunk::is_too_large(&report) && self.reduce(&plan.next_pack(), there, result) => {}
            Ok(report) if result.companions.note(plan, &report) => {
                let is_done = |decision: &&&Decision| report.answers.get(&decision.name) == Some(&Answer::Done);
                for decision in sent.iter().filter(is_done) {
                    self.note_done(decision, result);
                    rest.remove(&decision.name);
                }
            }
            Ok(report) => {
                sent.iter().for_each(|decision| {
                    rest.remove(&decision.name);
                });
                rest.extend(self.read_report(&sent, report, refusals, result));
                result.portion.grow();
            }
            Err(error) => {
                self.note_unanswered(session, &sent, &error, result);
                let is_repeatable = error.retry_smaller().is_none() && !session.may_carry_out(&error);
                if is_repeatable && result.companions.give_up(plan) {
                    let reason = self.redactor.clean(&error.to_string());
                    tracing::info!("mirror '{}': {reason}; sending the default branch alone", self.mirror.name);
                } else if let Some(given_up) = self.after_failure(error, plan, there, refusals, result)? {
                    rest.remove(&given_up);
                }
            }
        }
        Ok(rest)
    }

    /// Handles a push that failed as a whole: makes the next push smaller, or gives up a single ref that is too large and returns that ref.
    /// If nothing can be sent at once, marks the refs as failed and returns the error.
    fn after_failure(
        &self,
        error: crate::wire::Error,
        plan: &Plan,
        there: &Remote,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Result<Option<RefName>, Error> {
        let sent = plan.next_push();
        let reason = self.redactor.clean(&error.to_string());
        let is_reduced = error.retry_smaller().is_some() && self.reduce(&plan.next_pack(), there, result);
        let mut given_up = None;
        if !is_reduced
            && error.is_size_failure()
            && let [decision] = &*sent
        {
            let outcome = RefOutcome::new(decision, Outcome::RemoteRejected, Some(reason.clone()));
            refusals.finalize(decision, &outcome);
            result.outcomes.insert(decision.name.clone(), outcome);
            given_up = Some(decision.name.clone());
        } else if !is_reduced || error.retry_smaller() != Some(RetrySmaller::AtOnce) {
            self.mark_failed(&sent, &error, result);
            return Err(error.into());
        }
        match &given_up {
            Some(name) => tracing::info!("mirror '{}': {reason}; '{name}' is not sent in this run", self.mirror.name),
            None => tracing::info!("mirror '{}': {reason}; the next push is smaller", self.mirror.name),
        }
        Ok(given_up)
    }

    /// Makes sure that no other run has begun, before commands are sent.
    pub(super) fn check_fence(&self) -> Result<(), Error> {
        self.fence.map_or(Ok(()), Fence::check)
    }

    /// Makes the next push smaller than one with the objects of `packed`. `false` if it cannot be smaller, or is atomic.
    pub(super) fn reduce(&self, packed: &[&Decision], there: &Remote, result: &mut UpdateResult) -> bool {
        let smaller = chunk::halved(result.portion, self.repository, packed, there);
        let smaller = smaller.filter(|_| !self.mirror.is_atomic);
        result.portion = smaller.unwrap_or(result.portion);
        smaller.is_some()
    }

    pub(super) fn check_object_format(&self, there: &Remote) -> Result<(), Error> {
        let (ours, theirs) = (self.repository.object_format(), &there.advertised.capabilities.object_format);
        if ours == theirs {
            return Ok(());
        }
        let what = format!(
            "this repository's object format is {ours} and the mirror's is {theirs}; make the mirror with 'git init --bare --object-format={ours}'"
        );
        Err(crate::wire::Error::Unable(what).into())
    }
}

/// The selected refs of the scope, and all names that were asked for.
fn selected(scope: Scope, rules: &Rules) -> (Scope, BTreeSet<RefName>) {
    match scope {
        Scope::All => (scope, BTreeSet::new()),
        Scope::Refs(asked) => {
            let names = asked.iter().filter(|name| rules.selects(name.borrowed())).cloned().collect();
            (Scope::Refs(names), asked)
        }
    }
}
