//! Whether the mirror did what it reported: refs that it reported as updated and that have another value at the next scan.

use std::collections::BTreeSet;

use super::Error;
use super::observe::remote;
use super::update::{Run, UpdateResult};
use crate::plan::Rules;
use crate::push::Session;
use crate::refs::RefName;
use crate::status::{Outcome, RefOutcome};

impl Run<'_> {
    /// A ref that was noted as done, was not there, and was reported as done again: a server that says yes and does nothing would have
    /// it made for ever. One more look tells it from a ref that someone deleted there.
    pub(super) fn look_for_what_was_made_again(
        &self,
        session: Option<Session>,
        rules: &Rules,
        result: &mut UpdateResult,
    ) -> Result<(), Error> {
        let is_suspect = |outcome: &&RefOutcome| {
            let is_noted = || self.past.mirrored.find(&outcome.name).is_ok_and(|held| held.base.is_some());
            outcome.outcome == Outcome::Created && is_noted()
        };
        let suspects = result.outcomes.values().filter(is_suspect).map(|outcome| outcome.name.clone());
        let suspects: BTreeSet<RefName> = suspects.collect();
        if suspects.is_empty() || result.error.is_some() {
            return Ok(());
        }
        let mut session = match session {
            Some(session) => session,
            None => Session::connect(self.target, self.context.pool)?,
        };
        let there = remote(&mut session, &self.target.address, rules, &suspects)?;
        session.end();
        for name in suspects.iter().filter(|name| there.value(name).is_none()) {
            let outcome = result.outcomes.get_mut(name).expect("suspects are outcomes");
            outcome.outcome = Outcome::RemoteRejected;
            outcome.reason = Some("the mirror reported that it was created, but it is not there".into());
            // What is noted stays, so that the next look is as careful.
            result.held.remove(name);
        }
        Ok(())
    }
}
