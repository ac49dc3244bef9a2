//! Refs that the mirror hides from readers. What upload-pack does not show may still be there. So
//! receive-pack is asked too before a two-way mirror deletes a ref here.

use std::collections::BTreeSet;

use super::Pull;
use crate::drain::Error;
use crate::plan::{Action, ObservedPull, Plan, Rules, Side, plan_pull};
use crate::push::Session;
use crate::refs::RefName;

impl Pull<'_> {
    /// Removes from the plan the deletions here of refs that the mirror still has.
    pub(super) fn confirm_deletions(
        &self,
        plan: Plan,
        observed: &mut ObservedPull,
        rules: &Rules,
    ) -> Result<Plan, Error> {
        let is_deleted = |one: &&crate::plan::Decision| one.side == Side::Here && one.action == Action::Delete;
        let deleted: BTreeSet<RefName> = plan.decisions.iter().filter(is_deleted).map(|one| one.name.clone()).collect();
        if rules.conflicts.is_none() || plan.stop.is_some() || deleted.is_empty() {
            return Ok(plan);
        }
        let shown = self.shown(&deleted).unwrap_or_else(|error| {
            // Nothing else has to wait for it.
            tracing::warn!("mirror '{}': what it deleted cannot be confirmed: {error}", self.mirror.name);
            deleted
        });
        if shown.is_empty() {
            return Ok(plan);
        }
        for facts in observed.refs.iter_mut().filter(|facts| shown.contains(&facts.name)) {
            facts.both.is_hidden = true;
        }
        Ok(plan_pull(rules, observed))
    }

    /// Those of `names` that receive-pack shows.
    fn shown(&self, names: &BTreeSet<RefName>) -> Result<BTreeSet<RefName>, Error> {
        let mut session = Session::connect(self.target, self.context.pool)?;
        let mut shown = BTreeSet::new();
        session.advertisement(&mut |name, _| {
            if names.contains(name.as_bytes()) {
                shown.insert(name.to_owned());
            }
        })?;
        session.end();
        Ok(shown)
    }
}
