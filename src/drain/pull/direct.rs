//! Where no decision depends on objects, upstream's pack goes straight into our receive-pack, which
//! indexes it once. That is so at the first pull of an empty repository, and when refs were only
//! added and branches only moved forward. receive-pack checks that they moved forward.
//!
//! Guaranteed: if the pack is cut short, receive-pack refuses it, and no ref moves. If receive-pack refuses anything, the usual way through
//! the stage follows; it finds what was taken already.

use std::io::{Write, pipe};
use std::sync::Arc;

use super::Pull;
use super::check::Heard;
use super::stage::{Compared, Pair};
use super::take::Forced;
use crate::drain::fence::Fence;
use crate::drain::refusal::Refusals;
use crate::drain::update::UpdateResult;
use crate::drain::{Error, Mode};
use crate::fetch::{Wanted, sink_failed};
use crate::plan::{Decision, ObservedPull, Plan, Rules, plan_pull};
use crate::push::{Answer, PackSource, Report};
use crate::refs::{Ancestry, Local, Oid};
use crate::status::UpdateStatus;
use crate::wire::Error as WireError;

/// A plan whose pack goes straight into our receive-pack.
struct Direct {
    compared: Compared,
    observed: ObservedPull,
    plan: Plan,
    wants: Vec<Oid>,
    haves: Vec<Oid>,
}

/// What both sides said.
struct Passed {
    fetched: Result<(), WireError>,
    report: Result<Report, Error>,
}

impl Pull<'_> {
    /// Takes everything. `None` if a decision depends on objects, or if something was refused.
    pub(super) fn take_directly(
        &self,
        heard: &mut Heard,
        rules: &Rules,
        result: &mut UpdateResult,
    ) -> Result<Option<Vec<Decision>>, Error> {
        let Some(Direct { compared, observed, plan, wants, haves }) = self.plan_directly(heard, rules)? else {
            return Ok(None);
        };
        let sent = plan.next_push();
        self.fence.map_or(Ok(()), Fence::check)?;
        let Passed { fetched, report } = self.pass_through(heard, &wants, &haves, &sent)?;
        let failure = match fetched {
            // Our receive-pack stopped reading: it says why.
            Ok(()) | Err(WireError::Broken { doing: "writing the objects", .. }) => None,
            // Upstream's refs moved since it listed them, or it cannot give one of the values.
            Err(WireError::Remote(_) | WireError::Protocol(_)) => {
                *heard = self.look(rules)?;
                return Ok(None);
            }
            Err(error) => Some(error.into()),
        };
        let (report, mut failure): (Report, Option<Error>) = match (report, failure) {
            (Ok(report), failure) => (report, failure),
            (Err(error), failure) => return Err(failure.unwrap_or(error)),
        };
        let has_any = report.answers.values().any(|answer| *answer == Answer::Done);
        if let Some(failure) = failure.take_if(|_| !has_any) {
            return Err(failure);
        }
        result.scanned = Some(compared.scanned);
        self.record(&plan, &Refusals::default(), result);
        self.read_answers(&sent, report, &mut Refusals::default(), result);
        let is_done = |decision: &&&Decision| {
            result.outcomes.get(&decision.name).is_some_and(|outcome| outcome.outcome.is_done())
        };
        let taken: Vec<Decision> = sent.iter().filter(is_done).map(|decision| (*decision).clone()).collect();
        if let Some(failure) = failure {
            // The connection broke after the whole pack had come.
            self.pass_on(&observed, &taken, result).inspect_err(|_| result.held.clear())?;
            return Err(failure);
        }
        if taken.len() < sent.len() {
            // What was taken is the same on both sides now. The usual way spools it and notes its base.
            result.outcomes.retain(|_, outcome| outcome.outcome.is_done());
            result.held.clear();
            result.error = None;
            *heard = self.look(rules)?;
            return Ok(None);
        }
        self.pass_on(&observed, &taken, result).inspect_err(|_| result.held.clear())?;
        Ok(Some(taken))
    }

    /// The plan, if it sends everything that differs and no decision depends on objects.
    fn plan_directly(&self, heard: &Heard, rules: &Rules) -> Result<Option<Direct>, Error> {
        let is_first = !self.mirrored.exists() && !self.repository.has_refs()?;
        // What was refused last time would be refused again, and fetched twice.
        let is_next = self.mirrored.exists() && self.before.update_status == UpdateStatus::Finished;
        if self.context.mode == Mode::Plan || !is_first && !is_next {
            return Ok(None);
        }
        let compared = self.compare(heard, rules)?;
        if !compared.refs.iter().all(moves_forward) {
            return Ok(None);
        }
        let haves = self.haves(&compared, &self.repository.list(|_| true)?.values().collect())?;
        let mut observed = self.observe(self.repository, &heard.listed, &heard.refs, &compared, rules)?;
        for facts in observed.refs.iter_mut().filter(|facts| facts.local != Local::Absent) {
            facts.ancestry = Ancestry::Behind;
            facts.both.is_base_in_remote = true;
        }
        let plan = plan_pull(rules, &observed);
        let wants = self.wants(&compared)?;
        let is_everything = plan.order.len() == plan.decisions.len() && plan.next.len() == plan.order.len();
        let is_sent = plan.stop.is_none() && is_everything && !wants.is_empty() && !(is_next && haves.is_empty());
        Ok(is_sent.then_some(Direct { compared, observed, plan, wants, haves }))
    }

    /// Reads the pack from upstream in one thread, and gives it to our receive-pack in another.
    fn pass_through(
        &self,
        heard: &mut Heard,
        wants: &[Oid],
        haves: &[Oid],
        sent: &[&Decision],
    ) -> Result<Passed, Error> {
        let (reader, mut writer) = pipe().map_err(Error::files("make a pipe", self.incoming()))?;
        let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let (session, progress) = (&mut heard.session, &self.progress);
        let both = std::thread::scope(|scope| {
            let fetching = scope.spawn(move || {
                let wanted = Wanted { wants, haves, progress };
                let sink = &mut |bytes: &[u8]| writer.write_all(bytes).map_err(sink_failed);
                session.fetch(&wanted, &mut std::iter::empty(), sink)
            });
            let report = self.receive(sent, PackSource::File(Arc::new(reader)), Forced::Refused);
            Passed { fetched: fetching.join().expect("the fetching thread does not panic"), report }
        });
        Ok(both)
    }
}

/// Whether a ref was added upstream, or a branch that is here as upstream had it may have moved forward.
fn moves_forward((name, local, there, base): &Pair) -> bool {
    match (local, there, base) {
        (Local::Absent, Some(_), None) => true,
        (Local::At(local), Some(_), Some(base)) => local == base && name.branch().is_some(),
        _ => false,
    }
}
