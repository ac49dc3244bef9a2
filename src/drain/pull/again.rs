//! A second look at our refs within a run, after some of them were set, refused, or moved by somebody else.

use std::collections::HashMap;

use super::{Pull, Update};
use crate::drain::Error;
use crate::drain::update::UpdateResult;
use crate::plan::{Decision, plan_pull};
use crate::refs::{Local, RefName};
use crate::repo::History;
use crate::status::RefOutcome;

impl Pull<'_> {
    /// Plans again without the refs whose value cannot be kept.
    pub(super) fn leave(
        &self,
        unkept: &[RefOutcome],
        sent: &[&Decision],
        update: &mut Update<'_>,
        result: &mut UpdateResult,
    ) {
        for outcome in unkept {
            let Some(decision) = sent.iter().find(|decision| decision.name == outcome.name) else { continue };
            update.refusals.finalize(decision, outcome);
            let facts = update.observed.refs.iter_mut().filter(|facts| facts.name == outcome.name);
            facts.for_each(|facts| facts.is_refused = true);
        }
        update.plan = plan_pull(update.rules, &update.observed);
        self.record(&update.plan, &update.refusals, result);
    }

    /// Reads again the refs that were sent. The facts of those that moved are collected anew.
    pub(super) fn look_again(
        &self,
        update: &mut Update<'_>,
        sent: &[&Decision],
        result: &UpdateResult,
    ) -> Result<(), Error> {
        let names: Vec<&RefName> = sent.iter().map(|decision| &decision.name).collect();
        let found = self.repository.find_each(&names)?;
        let now: HashMap<&RefName, Local> = names.into_iter().zip(found).collect();
        let graph = self.repository.commit_graph();
        let mut history = History::new(update.objects, graph.as_ref());
        let refs = &mut update.observed.refs;
        refs.retain(|facts| !result.outcomes.get(&facts.name).is_some_and(|outcome| outcome.outcome.is_done()));
        for facts in refs {
            let Some(local) = now.get(&facts.name) else { continue };
            if facts.local != *local {
                let pair = (facts.name.clone(), *local, facts.upstream, facts.base);
                *facts = self.facts(&pair, update.objects, &mut history, None)?;
            }
            let lease = if let Local::At(oid) = local { Some(*oid) } else { None };
            facts.is_refused = update.refusals.stands(&facts.name, lease);
        }
        update.observed.groups = update.refusals.groups().to_vec();
        Ok(())
    }
}
