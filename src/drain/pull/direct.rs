//! The first pull of an empty repository. No decision depends on objects, so upstream's pack goes straight into our receive-pack, which
//! indexes it once.
//!
//! Guaranteed: if the pack is cut short, receive-pack refuses it, and no ref moves. If receive-pack refuses anything, the usual way through
//! the stage follows; it finds what was taken already.

use std::io::{Write, pipe};
use std::sync::Arc;

use super::Pull;
use super::check::Heard;
use crate::drain::fence::Fence;
use crate::drain::refusal::Refusals;
use crate::drain::update::UpdateResult;
use crate::drain::{Error, Mode};
use crate::fetch::{Wanted, sink_failed};
use crate::plan::{Decision, Rules, plan_pull};
use crate::push::{PackSource, Report};
use crate::refs::{Local, Oid};
use crate::wire::Error as WireError;

/// What both sides said.
struct Passed {
    fetched: Result<(), WireError>,
    report: Result<Report, Error>,
}

impl Pull<'_> {
    /// Takes everything, if this repository is empty. `None` if it is not, or if something was refused.
    pub(super) fn take_directly(
        &self,
        heard: &mut Heard,
        rules: &Rules,
        result: &mut UpdateResult,
    ) -> Result<Option<Vec<Decision>>, Error> {
        if self.context.mode == Mode::Plan || self.mirrored.exists() || self.repository.has_refs()? {
            return Ok(None);
        }
        let compared = self.compare(heard, rules)?;
        let observed = self.observe(self.repository, &heard.listed, &heard.refs, &compared, rules)?;
        let plan = plan_pull(rules, &observed);
        let is_new = compared.refs.iter().all(|(_, local, ..)| *local == Local::Absent);
        if !is_new || plan.order.is_empty() || plan.order.len() != plan.decisions.len() {
            return Ok(None);
        }
        let sent = plan.next_push();
        let mut wants: Vec<Oid> = sent.iter().filter_map(|decision| decision.remote).collect();
        wants.sort_unstable();
        wants.dedup();
        self.fence.map_or(Ok(()), Fence::check)?;
        let Passed { fetched, report } = self.pass_through(heard, &wants, &sent)?;
        match fetched {
            // Our receive-pack stopped reading: it says why.
            Ok(()) | Err(WireError::Broken { doing: "writing the objects", .. }) => {}
            Err(error) => return Err(error.into()),
        }
        result.scanned = Some(compared.scanned);
        self.record(&plan, &Refusals::default(), result);
        self.read_answers(&sent, report?, &mut Refusals::default(), result);
        let is_done = |decision: &&&Decision| {
            result.outcomes.get(&decision.name).is_some_and(|outcome| outcome.outcome.is_done())
        };
        let taken: Vec<Decision> = sent.iter().filter(is_done).map(|decision| (*decision).clone()).collect();
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

    /// Reads the pack from upstream in one thread, and gives it to our receive-pack in another.
    fn pass_through(&self, heard: &mut Heard, wants: &[Oid], sent: &[&Decision]) -> Result<Passed, Error> {
        let (reader, mut writer) = pipe().map_err(Error::files("make a pipe", self.incoming()))?;
        let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let (session, progress) = (&mut heard.session, &self.progress);
        let both = std::thread::scope(|scope| {
            let fetching = scope.spawn(move || {
                let wanted = Wanted { wants, haves: &[], progress };
                let sink = &mut |bytes: &[u8]| writer.write_all(bytes).map_err(sink_failed);
                session.fetch(&wanted, &mut std::iter::empty(), sink)
            });
            let report = self.receive(sent, PackSource::File(Arc::new(reader)));
            Passed { fetched: fetching.join().expect("the fetching thread does not panic"), report }
        });
        Ok(both)
    }
}
