//! Checks that the mirror did what it reported: a ref that it had lost, and that it now reports as created, must be there.

use std::collections::BTreeSet;

use super::Error;
use super::observe::remote;
use super::update::{Run, UpdateResult};
use crate::plan::Rules;
use crate::push::Session;
use crate::refs::RefName;
use crate::status::{Outcome, RefOutcome};

impl Run<'_> {
    /// Reads refs again that are in the base, were missing on the mirror, and are now reported as created. A server that reports success
    /// and does nothing would cause this push for ever. The second read tells such a server from one on which someone deleted the ref.
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
            // The base keeps its value, so that the next run checks the ref again.
            result.held.remove(name);
        }
        Ok(())
    }
}
