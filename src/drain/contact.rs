//! One mirror, one run: as many pushes as the plan needs, on as few connections as the transport allows.
//!
//! The first look covers the whole scope. A further push looks again at the refs that are still to be sent, on its own
//! connection, so the lease of every command is the value that was advertised there. A refused lease is decided again, three
//! times at most (see `refusal`). What is too much for the mirror at once goes in smaller portions (see `portion`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ahead::Ahead;
use super::compare::{Compared, compare};
use super::observe::{Ours, Past, Remote, Scope, observe, remote};
use super::refusal::{self, Refusals};
use super::{Context, Error, MassDelete, Mode, portion};
use crate::config::Mirror;
use crate::credentials::Redactor;
use crate::plan::{Decision, Divergent, MaxDeletes, Plan, RefFacts, Rules, plan};
use crate::push::{
    Answer, Capabilities, Command, Gaps, PackObjects, PackSource, Progress, Relief, Report, Request, Session, Target,
};
use crate::refs::{Local, Oid, RefName};
use crate::repo::{History, Repository};
use crate::status::{Outcome, Portion, RefOutcome};

/// What a run did.
#[derive(Default)]
pub(super) struct Contact {
    /// The outcome of each ref that was looked at.
    pub(super) outcomes: BTreeMap<RefName, RefOutcome>,
    /// What the mirror is now known to hold and was ours; `None` is a ref that it does not have.
    pub(super) held: HashMap<RefName, Option<Oid>>,
    /// Why the run ended early.
    pub(super) error: Option<Error>,
    /// What went over the wire.
    pub(super) progress: Arc<Progress>,
    /// How much the mirror takes at once, as far as it showed.
    pub(super) portion: Portion,
    /// What it can do.
    pub(super) capabilities: Option<Capabilities>,
    /// What the last look at all refs showed; `outcomes` then lacks no ref that is not right.
    pub(super) compared: Option<Compared>,
}

impl Contact {
    /// Whether the mirror answered for every ref, so that the entries that led here are done with.
    pub(super) fn is_answered(&self) -> bool {
        self.error.is_none() && self.outcomes.values().all(|outcome| outcome.outcome != Outcome::RemoteFailed)
    }

    /// Whether the host failed before it said anything of the repository.
    pub(super) fn is_host_down(&self) -> bool {
        matches!(&self.error, Some(Error::Push(error)) if self.outcomes.is_empty() && error.is_of_host())
    }
}

/// Everything a run needs.
pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) mirror: &'a Mirror,
    pub(super) target: &'a Target,
    pub(super) context: &'a Context<'a>,
    pub(super) past: Past<'a>,
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
    pub(super) fn run(&self, scope: Scope) -> Contact {
        let mut contact = Contact { progress: Arc::clone(&self.progress), portion: self.portion, ..Contact::default() };
        if let Err(error) = self.try_run(scope, &mut contact) {
            contact.error = Some(error);
        }
        contact
    }

    fn try_run(&self, mut scope: Scope, contact: &mut Contact) -> Result<(), Error> {
        let rules = self.rules()?;
        let mut refusals = Refusals::default();
        let mut session = Some(Session::connect(self.target, self.context.pool)?);
        if let Some(current) = session.as_mut() {
            match self.push_ahead(current, &rules, &scope, &mut refusals, contact)? {
                Ahead::Done => return Ok(()),
                Ahead::Untried => {}
                Ahead::Again(rest) => {
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
            let (there, ours, mut compared) = match &scope {
                Scope::All => {
                    let unchanged = self.context.unchanged;
                    let (there, mut compared) =
                        compare(&mut current, address, &rules, self.repository, self.past.mirrored, unchanged)?;
                    (there, Ours::Listed(std::mem::take(&mut compared.ours)), Some(compared))
                }
                Scope::Refs(names) => (remote(&mut current, address, &rules, names)?, Ours::Asked(names), None),
            };
            self.check_object_format(&there)?;
            contact.capabilities = Some(there.advertised.capabilities.clone());
            let (observed, noted) = observe(self.repository, ours, &there, &self.past)?;
            self.note_held(compared.as_mut(), &observed.refs, &noted, contact);
            let mut plan = plan(&rules, &observed);
            self.take_down(&scope, &plan, contact);
            contact.compared = compared.or(contact.compared.take());
            refusals.withdraw(&mut plan, |name, outcome| {
                contact.outcomes.insert(name.clone(), outcome.clone());
            });
            if self.context.mode == Mode::Plan || plan.order.is_empty() {
                current.end();
                return Ok(());
            }
            let limit = contact.portion.refs.unwrap_or(usize::MAX).min(self.mirror.max_refs_per_push);
            let limit = if self.mirror.is_atomic { usize::MAX } else { limit };
            let whole = refusals.next_push(&plan, limit);
            let slice = portion::slice(contact.portion, self.repository, &whole, &there);
            let sent = slice.as_ref().map_or_else(|| whole.clone(), |slice| vec![slice]);
            let mut rest: BTreeSet<RefName> =
                plan.order.iter().map(|index| plan.decisions[*index].name.clone()).collect();
            match self.push(&mut current, &sent, &there) {
                Ok(report) if portion::is_too_large(&report) && self.reduce(&whole, &there, contact) => {}
                Ok(report) => {
                    let done = slice.as_ref().filter(|part| report.answers.get(&part.name) == Some(&Answer::Done));
                    let part = done.map(|part| part.name.clone());
                    sent.iter().for_each(|decision| {
                        rest.remove(&decision.name);
                    });
                    rest.extend(self.read_report(&sent, report, &mut refusals, contact));
                    rest.extend(part);
                    contact.portion.grow();
                }
                Err(error) => {
                    let is_reduced = error.relief().is_some() && self.reduce(&whole, &there, contact);
                    if !is_reduced
                        && error.is_of_size()
                        && let [decision] = whole.as_slice()
                    {
                        // Too large however it is sent: this ref stays behind, the others go on.
                        let words = Some(self.redactor.clean(&error.to_string()));
                        let outcome = RefOutcome::new(decision, Outcome::RemoteRejected, words);
                        refusals.stand(decision, &outcome);
                        rest.remove(&decision.name);
                        contact.outcomes.insert(decision.name.clone(), outcome);
                    } else if !is_reduced || error.relief() != Some(Relief::AtOnce) {
                        self.blame(&whole, &error, contact);
                        return Err(error.into());
                    }
                    tracing::info!("mirror '{}': {error}; less at once", self.mirror.name);
                }
            }
            if rest.is_empty() || contact.error.is_some() {
                return Ok(());
            }
            if rules.divergent != Divergent::Fail {
                scope = Scope::Refs(rest);
            }
            if current.can_continue() {
                session = Some(current);
            }
        }
    }

    /// Makes the next push smaller. `false` when there is nothing left to cut.
    pub(super) fn reduce(&self, sent: &[&Decision], there: &Remote, contact: &mut Contact) -> bool {
        let smaller = portion::halved(contact.portion, self.repository, sent, there);
        let smaller = smaller.filter(|_| !self.mirror.is_atomic || sent.len() == 1);
        contact.portion = smaller.unwrap_or(contact.portion);
        smaller.is_some()
    }

    /// Of what the mirror holds, that which was ours; and what it does not hold any more.
    fn note_held(
        &self,
        compared: Option<&mut Compared>,
        observed: &[RefFacts],
        noted: &[Option<Oid>],
        contact: &mut Contact,
    ) {
        if let Some(compared) = compared {
            contact.held.extend(compared.gone.drain(..).map(|name| (name, None)));
            contact.held.extend(compared.unnoted.drain(..).map(|(name, oid)| (name, Some(oid))));
        }
        for (facts, noted) in observed.iter().zip(noted) {
            // What is noted needs no note, unless this run has noted something else since.
            let is_noted = facts.remote == *noted && !contact.held.contains_key(&facts.name);
            let is_ours = facts.remote.is_none_or(|remote| facts.is_remote_known || facts.local == Local::At(remote));
            if is_ours && !is_noted {
                contact.held.insert(facts.name.clone(), facts.remote);
            }
        }
    }

    /// Notes a value, unless it is what `mirrored/` says already.
    fn hold(&self, name: &RefName, value: Option<Oid>, contact: &mut Contact) {
        let is_noted = || self.past.mirrored.find(name).is_ok_and(|noted| noted == value);
        if contact.held.contains_key(name) || !is_noted() {
            contact.held.insert(name.clone(), value);
        }
    }

    /// Notes a command to which the mirror agreed.
    pub(super) fn note_done(&self, decision: &Decision, contact: &mut Contact) {
        self.hold(&decision.name, decision.local, contact);
        contact.outcomes.insert(decision.name.clone(), RefOutcome::of(decision));
    }

    /// A push of which nothing is known: its refs get the reason.
    pub(super) fn blame(&self, sent: &[&Decision], error: &crate::push::Error, contact: &mut Contact) {
        let reason = self.redactor.clean(&error.to_string());
        for decision in sent {
            let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(reason.clone()));
            contact.outcomes.insert(decision.name.clone(), outcome);
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
    fn take_down(&self, scope: &Scope, plan: &Plan, contact: &mut Contact) {
        if let Scope::Refs(names) = scope {
            // What was to be sent and has vanished on both sides since needs nothing more.
            names.iter().for_each(|name| {
                contact.outcomes.remove(name);
            });
        }
        if matches!(scope, Scope::All) && !contact.outcomes.is_empty() {
            // What is not among the decisions is the same on both sides now.
            let decided: BTreeSet<&RefName> = plan.decisions.iter().map(|decision| &decision.name).collect();
            contact.outcomes.retain(|name, outcome| !outcome.outcome.is_listed() || decided.contains(name));
        }
        let is_dry = self.context.mode == Mode::Plan;
        let outcome = |decision: &Decision| match decision.action.is_sent() && !is_dry {
            true => RefOutcome::new(decision, Outcome::RemoteFailed, Some("it was not sent".into())),
            false => RefOutcome::of(decision),
        };
        // Of many refs that are sorted a map is made at once.
        let noted = plan.decisions.iter().map(|decision| (decision.name.clone(), outcome(decision)));
        match contact.outcomes.is_empty() {
            true => contact.outcomes = noted.collect(),
            false => contact.outcomes.extend(noted),
        }
    }

    fn push(&self, session: &mut Session, sent: &[&Decision], there: &Remote) -> Result<Report, crate::push::Error> {
        let commands = self.commands(sent);
        let request = self.request(&commands, &there.advertised.capabilities)?;
        let pack = request.needs_pack().then(|| self.pack(&commands, there));
        session.push(&request, pack)
    }

    pub(super) fn commands(&self, sent: &[&Decision]) -> Vec<Command> {
        let null = self.repository.null_oid();
        let command = |decision: &&Decision| Command {
            old: decision.remote.unwrap_or(null),
            new: decision.local.unwrap_or(null),
            name: decision.name.clone(),
        };
        sent.iter().map(command).collect()
    }

    pub(super) fn request<'c>(
        &'c self,
        commands: &'c [Command],
        capabilities: &Capabilities,
    ) -> Result<Request<'c>, crate::push::Error> {
        if !capabilities.report_status && !capabilities.report_status_v2 {
            return Err(crate::push::Error::Unable("it does not report what it did (no report-status)".into()));
        }
        if self.mirror.is_atomic && !capabilities.atomic {
            let what = "it does not support atomic pushes; set atomic = false";
            return Err(crate::push::Error::Unable(what.into()));
        }
        let shallow = &self.shallow;
        Ok(Request { commands, shallow, push_options: &self.mirror.push_options, is_atomic: self.mirror.is_atomic })
    }

    /// What the new values have and the mirror's values have not, if that is little.
    pub(super) fn small_pack(&self, commands: &[Command], there: &Remote) -> Option<PackSource> {
        let pack = self.repository.small_pack(&tips(commands), &there.values)?;
        Some(PackSource::Made(pack, Arc::clone(&self.progress)))
    }

    /// The pack holds what the new values have and the mirror's values have not.
    fn pack(&self, commands: &[Command], there: &Remote) -> PackSource {
        if let Some(pack) = self.small_pack(commands, there) {
            return pack;
        }
        let tips = tips(commands);
        let graph = self.repository.commit_graph();
        let history = History::new(self.repository, graph.as_ref());
        let mut haves = history.border(&tips, &there.values);
        // The replaced values always help: of a forced update the border knows nothing.
        haves.extend(commands.iter().filter_map(|c| c.old.non_null()).filter(|old| self.repository.contains(*old)));
        haves.sort_unstable();
        haves.dedup();
        PackSource::Program(PackObjects {
            git_dir: self.repository.git_dir().to_owned(),
            tips,
            haves,
            ofs_delta: there.advertised.capabilities.ofs_delta,
            gaps: self.gaps(),
            progress: Arc::clone(&self.progress),
        })
    }

    /// What our repository lacks on purpose.
    fn gaps(&self) -> Gaps {
        Gaps { is_shallow: !self.shallow.is_empty(), is_partial: self.repository.is_partial() }
    }

    /// Notes the answers, and returns the refs that are to be looked at and decided again.
    pub(super) fn read_report(
        &self,
        sent: &[&Decision],
        mut report: Report,
        refusals: &mut Refusals,
        contact: &mut Contact,
    ) -> Vec<RefName> {
        let mut again = Vec::new();
        let cut = report.cut.as_ref().map(|cut| self.redactor.clean(&cut.to_string()));
        let is_split = report.cut.is_none() && refusals.split(sent, &report, self.mirror.is_atomic);
        for decision in sent {
            let outcome = match report.answers.remove(&decision.name) {
                Some(Answer::Done) => {
                    self.note_done(decision, contact);
                    continue;
                }
                Some(Answer::Refused(words)) => {
                    let outcome = refusal::outcome(decision, words, self.gaps());
                    if is_split || refusals.add(decision, &outcome) {
                        again.push(decision.name.clone());
                    }
                    outcome
                }
                None => {
                    let words = cut.clone().unwrap_or_else(|| "the mirror's report does not mention it".into());
                    let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(words));
                    refusals.stand(decision, &outcome);
                    outcome
                }
            };
            contact.outcomes.insert(decision.name.clone(), outcome);
        }
        contact.error = report.cut.map(Error::Push);
        again
    }
}

/// The values that are sent, each once.
fn tips(commands: &[Command]) -> Vec<Oid> {
    let mut tips: Vec<Oid> = commands.iter().filter_map(|command| command.new.non_null()).collect();
    tips.sort_unstable();
    tips.dedup();
    tips
}
