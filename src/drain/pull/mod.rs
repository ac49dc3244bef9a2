//! One run of a pull mirror: what changed upstream comes here.
//!
//! ```text
//! list ─▶ stage what is missing ─▶ observe ─▶ plan ─▶ keep ─▶ take ─▶ spool ─▶ base
//! ```
//!
//! Guaranteed: what the plan refuses never enters the repository; a value that is to be kept
//! (`keep_rewritten`) is kept before it is replaced; what was taken is spooled before the base says
//! so. So after a crash at any point, the next run finds a state that the rules know. Absent: who
//! asked for the run, and its status (`run`).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use check::Heard;
use take::{Forced, Objects, done};

use super::both::{Left, for_mirror};
use super::fence::Fence;
use super::kept;
use super::observe::unreadable;
use super::refusal::Refusals;
use super::update::UpdateResult;
use super::{Context, Error, Mode};
use crate::config::{Keep, Mirror, Server};
use crate::credentials::Redactor;
use crate::fetch::{Listed, Session, Stage};
use crate::mirror;
use crate::plan::{Action, Decision, ObservedPull, Plan, PullFacts, Rules, Side, Stop, plan_pull};
use crate::push::Progress;
use crate::refs::{Local, NameRef, Oid, RefName, RefUpdate};
use crate::repo::{History, Listing, Repository};
use crate::status::{Held, Mirrored, Move, Outcome, PullState, RefOutcome, Status, render_time};
use crate::wire::{Address, Pool, Target};

mod again;
pub(super) mod check;
mod direct;
mod head;
mod hidden;
mod observe;
mod stage;
mod take;

/// Everything a run needs.
pub(super) struct Pull<'a> {
    pub(super) repository: &'a Repository,
    pub(super) mirror: &'a Mirror,
    pub(super) target: &'a Target,
    pub(super) context: &'a Context<'a>,
    pub(super) mirrored: &'a Mirrored,
    /// Of a two-way mirror: values that refs here had and no longer have.
    pub(super) left: &'a Left<'a>,
    pub(super) before: &'a Status,
    pub(super) is_first: bool,
    /// The recent moves of refs; empty if a person asked to set flapping refs again.
    pub(super) moves: &'a [Move],
    /// Whether a person confirmed first contact.
    pub(super) is_confirmed: bool,
    /// Whether this run may still write; `None` for one that never does.
    pub(super) fence: Option<&'a Fence>,
    pub(super) progress: Arc<Progress>,
    /// Whether the only hook here is ours, so that this run spools in its place. It is determined
    /// once, at the first use.
    pub(super) hook: OnceCell<bool>,
}

/// What is to be taken, and what was.
struct Update<'u> {
    rules: &'u Rules,
    observed: ObservedPull,
    plan: Plan,
    refusals: Refusals,
    /// A repository with all objects: the stage, or our own if nothing is missing.
    objects: &'u Repository,
    stage: Option<&'u Stage>,
    taken: Vec<Decision>,
}

impl Pull<'_> {
    /// Takes what changed. `heard` is what upstream said a moment ago, if it was asked.
    pub(super) fn run(&self, heard: Option<Result<Heard, Error>>) -> UpdateResult {
        let mut result = UpdateResult { progress: Arc::clone(&self.progress), ..UpdateResult::default() };
        let before = self.before.pull.clone().unwrap_or_default();
        result.pull = Some(PullState {
            interval: self.mirror.pull.interval,
            min_check_interval: self.mirror.pull.min_check_interval.as_secs(),
            max_check_interval: self.mirror.pull.max_check_interval.as_secs(),
            seen: None,
            ..before
        });
        if let Err(error) = self.try_run(heard, &mut result) {
            result.error = Some(error);
        }
        result
    }

    fn try_run(&self, heard: Option<Result<Heard, Error>>, result: &mut UpdateResult) -> Result<(), Error> {
        let rules = self.context.rules(self.repository, self.mirror)?;
        let incoming = self.incoming();
        if self.fence.is_some() {
            take::check_hooks(self.repository, self.mirror)?;
            self.end_left()?;
            self.sweep_all(&incoming)?;
            kept::hide(self.repository)?;
        }
        if let Address::Local(path) = &self.target.address
            && path.canonicalize().is_ok_and(|path| path == self.repository.git_dir())
        {
            return Err(Error::NotTaken("upstream is this very repository; give the URL of another one".into()));
        }
        let mut heard = match heard {
            // The configuration may have changed since.
            Some(Ok(heard)) if heard.is_heard_for(&rules) => heard,
            Some(Err(error)) => return Err(error),
            _ => self.look(&rules)?,
        };
        if let Some(pull) = &mut result.pull {
            pull.speaks_two = heard.session.speaks_two().map(str::to_owned);
        }
        let ours = self.ours(&rules)?;
        if let Some(taken) = self.take_directly(&mut heard, &rules, result)? {
            let Heard { session, listed, refs, .. } = heard;
            session.end();
            return self.finish(&rules, &listed, &refs, ours, &taken, result);
        }
        let (stage, compared) = self.stage(&mut heard, &rules, &incoming)?;
        let staged = stage.as_ref().map(Stage::open).transpose()?.map(|shared| shared.to_local());
        let with_objects = staged.as_ref().unwrap_or(self.repository);
        let Heard { session, listed, refs, .. } = heard;
        session.end();
        let mut observed = self.observe(with_objects, &listed, &refs, &compared, &rules)?;
        let plan = self.confirm_deletions(plan_pull(&rules, &observed), &mut observed, &rules)?;
        let (refusals, taken, objects, stage_there) = (Refusals::default(), Vec::new(), with_objects, stage.as_ref());
        let mut update = Update { rules: &rules, observed, plan, refusals, objects, stage: stage_there, taken };
        result.scanned = Some(compared.scanned);
        self.record(&update.plan, &update.refusals, result);
        if let Some(stop) = update.plan.stop {
            return Err(self.stopped(stop));
        }
        result.for_mirror = for_mirror(&update.plan);
        if self.context.mode == Mode::Plan {
            return Ok(());
        }
        let ended = self.take_all(&mut update, &listed, result);
        // If spooling fails, the new base is not stored: the push mirrors do not know of it yet.
        self.pass_on(&update.observed, &update.taken, result).inspect_err(|_| result.held.clear())?;
        ended?;
        if rules.conflicts.is_some() {
            self.prepare_push(&update.plan, update.stage, result)?;
        }
        // The refs were listed twice. What could not be read once may be readable the next time.
        let Update { taken, observed, .. } = update;
        let ours = Listing { incomplete: ours.incomplete.or(unread(observed)), ..ours };
        drop((staged, stage));
        self.finish(&rules, &listed, &refs, ours, &taken, result)
    }

    /// Follows upstream's HEAD, packs the refs, and notes what the next run has to know.
    fn finish(
        &self,
        rules: &Rules,
        listed: &Listed,
        refs: &[(RefName, Oid)],
        ours: Listing,
        taken: &[Decision],
        result: &mut UpdateResult,
    ) -> Result<(), Error> {
        let has_followed = self.follow_head(listed, refs, ours.refs.is_empty(), result)?;
        self.pack_refs(taken);
        result.has_compared_all = true;
        if let Some(pull) = &mut result.pull {
            if result.outcomes.values().any(|outcome| outcome.outcome.is_done()) {
                pull.last_change_at = Some(render_time((self.context.now)()));
            }
            // If the stage could not be removed, or our refs could not be listed completely, `seen` stays empty, so that the next run
            // removes it, or does what this one could not judge.
            let is_clean = has_followed && !self.incoming().exists() && ours.incomplete.is_none();
            let is_settled = is_clean && result.error.is_none() && !has_passing(&result.outcomes);
            let ours = after(ours, taken);
            pull.seen = is_settled.then(|| self.digest(rules, listed, refs, &ours)).transpose()?;
        }
        Ok(())
    }

    /// Spools what was taken, and what earlier runs may have taken, and notes the new base of these refs.
    fn pass_on(&self, observed: &ObservedPull, taken: &[Decision], result: &mut UpdateResult) -> Result<(), Error> {
        let taken: Vec<&Decision> = taken.iter().collect();
        let scanned = result.scanned.as_mut().expect("the refs were compared");
        let (unnoted, gone) = (std::mem::take(&mut scanned.unnoted), std::mem::take(&mut scanned.gone));
        let null = self.repository.null_oid();
        // The base of a ref that neither side has is forgotten. If the ref is still here, its base
        // stays.
        let is_here = |facts: &&PullFacts| facts.local != Local::Absent;
        let kept: BTreeSet<&RefName> = observed.refs.iter().filter(is_here).map(|facts| &facts.name).collect();
        let gone: Vec<RefName> = gone.into_iter().filter(|name| !kept.contains(name)).collect();
        // `git pack-refs` may have hidden a ref from the list of ours.
        let found = self.repository.find_each(&gone.iter().collect::<Vec<_>>())?;
        let absent = gone.into_iter().zip(found).filter(|(_, local)| *local == Local::Absent);
        let forgotten: Vec<RefName> = absent.map(|(name, _)| name).collect();
        // What the base does not say yet may have been taken by a run that was killed before it spooled.
        let done: BTreeSet<&RefName> = taken.iter().map(|decision| &decision.name).collect();
        let mut moved = Vec::new();
        let now = unnoted.iter().map(|(name, value)| (name, *value)).chain(forgotten.iter().map(|name| (name, null)));
        for (name, new) in now {
            let base = self.mirrored.find(name).map_err(unreadable)?.base;
            if !done.contains(name) && base.unwrap_or(null) != new {
                moved.push(RefUpdate { old: base.unwrap_or(null), new, name: name.clone() });
            }
        }
        result.has_spooled = self.spool(&taken, moved)?;
        result.held.extend(unnoted.into_iter().map(|(name, value)| (name, Held::at(value))));
        result.held.extend(forgotten.into_iter().map(|name| (name, Held::default())));
        Ok(())
    }

    /// Updates our refs, until nothing is left to do.
    fn take_all(&self, update: &mut Update<'_>, listed: &Listed, result: &mut UpdateResult) -> Result<(), Error> {
        let haves: HashMap<Oid, u32> = self.repository.list(|_| true)?.values().map(|value| (value, 1)).collect();
        while !update.plan.next.is_empty() {
            let sent: Vec<Decision> = update.plan.next_push().into_iter().cloned().collect();
            let sent: Vec<&Decision> = sent.iter().collect();
            // The updates, with the deletions that make room for new names, are a push of their own
            // before the other deletions: the new value of a default branch may contain a value
            // that is deleted, which then need not be kept.
            let updates = sent.iter().rposition(|one| one.action != Action::Delete).map_or(0, |at| at + 1);
            let is_split = updates > 0 && update.refusals.groups().is_empty();
            let sent = if is_split { &sent[..updates] } else { &sent[..] };
            self.fence.map_or(Ok(()), Fence::check)?;
            let unkept = self.keep(sent, listed, result)?;
            if !unkept.is_empty() {
                self.leave(&unkept, sent, update, result);
                continue;
            }
            self.note_replaced(sent)?;
            // The pack of the stage is sent as it is only if every ref that needs its objects is
            // updated at once. Otherwise objects that nothing needs yet would enter the repository.
            let is_first = update.taken.is_empty() && update.refusals.groups().is_empty();
            let is_whole = is_first && self.is_whole(&update.observed, sent)?;
            let staged = update.stage.filter(|_| is_whole);
            let pack = staged.map(Stage::only_pack).transpose();
            let pack = pack.map_err(Error::files("list the stage", self.incoming()))?.flatten();
            let objects = Objects { repository: update.objects, pack, haves: &haves };
            update.refusals.begin(sent);
            let report = self.pack(sent, &objects).and_then(|pack| self.receive(sent, pack, Forced::Set));
            let report = report.inspect_err(|error| self.mark_failed(sent, error, result))?;
            let again = self.read_answers(sent, report, &mut update.refusals, result);
            update.taken.extend(done(sent, result).into_iter().cloned());
            if result.error.is_some() || again.is_empty() && sent.len() == update.plan.order.len() {
                break;
            }
            self.look_again(update, sent, result)?;
            update.plan = plan_pull(update.rules, &update.observed);
            self.record(&update.plan, &update.refusals, result);
        }
        Ok(())
    }

    /// Whether every value of upstream that is not here is sent.
    fn is_whole(&self, observed: &ObservedPull, sent: &[&Decision]) -> Result<bool, Error> {
        let sent: BTreeSet<Oid> = sent.iter().filter_map(|decision| decision.remote).collect();
        for upstream in observed.refs.iter().filter_map(|facts| facts.upstream).filter(|value| !sent.contains(value)) {
            if !self.repository.is_here(upstream)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Keeps the values that are replaced, and notes where. If a value cannot be kept, its ref must
    /// not be sent: returns the outcomes of these refs.
    fn keep(&self, sent: &[&Decision], listed: &Listed, result: &mut UpdateResult) -> Result<Vec<RefOutcome>, Error> {
        if self.mirror.pull.keep_rewritten == Keep::Nothing {
            return Ok(Vec::new());
        }
        let graph = self.repository.commit_graph();
        let mut history = History::new(self.repository, graph.as_ref());
        let names: Vec<RefName> =
            [listed.head.clone(), self.repository.default_branch()?].into_iter().flatten().collect();
        let heads = self.repository.find_each(&names.iter().collect::<Vec<_>>())?;
        let mut replaced = Vec::new();
        for decision in sent {
            let mut keeps = decision.keeps;
            if decision.action == Action::Delete && !keeps {
                // Upstream's default branch contains the value. The value is still kept, unless a
                // branch here contains it too: our branch with the name of upstream's default
                // branch, or our own default branch.
                let local = decision.local.unwrap_or(self.repository.null_oid());
                let mut is_contained = false;
                for head in &heads {
                    let Local::At(head) = head else { continue };
                    is_contained = is_contained || history.is_ancestor(local, *head)? == Some(true);
                }
                keeps = !is_contained;
            }
            if keeps {
                replaced.push(*decision);
            }
        }
        kept::keep(self.repository, &self.mirror.name, &replaced, (self.context.now)(), result)
    }

    /// Notes every decision. A ref that is to be sent counts as failed until the report says otherwise.
    fn record(&self, plan: &Plan, refusals: &Refusals, result: &mut UpdateResult) {
        let is_dry = self.context.mode == Mode::Plan;
        for decision in &plan.decisions {
            let before = result.outcomes.get(&decision.name).and_then(|before| before.kept_as.clone());
            let what = if decision.side == Side::Here { "it was not taken" } else { "it was not sent" };
            let outcome = match decision.action.is_sent() && !is_dry && plan.stop.is_none() {
                true => RefOutcome::new(decision, Outcome::RemoteFailed, Some(what.into())),
                false => refusals.of(decision).cloned().unwrap_or_else(|| RefOutcome::of(decision)),
            };
            result.outcomes.insert(decision.name.clone(), RefOutcome { kept_as: before, ..outcome });
        }
    }

    fn mark_failed(&self, sent: &[&Decision], error: &Error, result: &mut UpdateResult) {
        let reason = Redactor::default().clean(&error.to_string());
        for decision in sent {
            let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(reason.clone()));
            result.outcomes.insert(decision.name.clone(), outcome);
        }
    }

    fn stopped(&self, stop: Stop) -> Error {
        match stop {
            Stop::Unrelated => Error::Unrelated {
                here: self.repository.git_dir().to_owned(),
                name: self.mirror.name.clone(),
                url: self.target.address.plain(),
            },
            _ => Error::NothingUpstream,
        }
    }
}

/// Connects to an upstream, checks that refs can be taken from it, and reads them. Changes nothing. Returns the branch that its HEAD names.
///
/// # Errors
/// [`Error`]
pub fn reach_upstream(
    repository: &Repository,
    mirror: &Mirror,
    server: &Server,
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Option<RefName>, Error> {
    take::check_hooks(repository, mirror)?;
    let target = mirror::target(repository, mirror, server)?;
    let mut session = Session::connect(&target, &Pool::default(), None)?;
    let listed = session.list(&[b"refs/heads/".to_vec(), b"refs/tags/".to_vec()], each)?;
    session.end();
    check::check_object_format(repository, &listed)?;
    Ok(listed.head)
}

/// Our refs after `taken`, if nobody else changes them.
fn after(ours: Listing, taken: &[Decision]) -> Listing {
    let mut refs: BTreeMap<RefName, Local> = ours.refs.into_iter().collect();
    for decision in taken {
        match decision.remote {
            Some(value) => refs.insert(decision.name.clone(), Local::At(value)),
            None => refs.remove(&decision.name),
        };
    }
    Listing { refs: refs.into_iter().collect(), incomplete: ours.incomplete }
}

/// What of this repository could not be read.
fn unread(observed: ObservedPull) -> Option<String> {
    let mut unreadable = observed.refs.into_iter().filter(|facts| facts.local == Local::Unreadable);
    observed.here.incomplete.or_else(|| unreadable.next().map(|facts| facts.name.to_string()))
}

/// Whether a ref may have another outcome at the next try although neither side changes. Refs that
/// are still to be sent to the mirror do not count: the push judges them.
fn has_passing(outcomes: &BTreeMap<RefName, RefOutcome>) -> bool {
    outcomes.values().any(|outcome| outcome.outcome == Outcome::RemoteFailed && outcome.side == Side::Here)
}
