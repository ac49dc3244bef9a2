//! Asks a mirror over the network for its HEAD and its symbolic refs before a branch is deleted there: a command to a symbolic ref would
//! delete the ref that it names. If the mirror cannot be read, its receive-pack still protects the branch that HEAD names.

use std::time::Duration;

use super::update::Run;
use crate::fetch;
use crate::plan::{Action, Kind, Observed, Plan, Prune, RefFacts, Rules};
use crate::refs::{Local, RefName};
use crate::wire::{Address, Target, Timeouts};

/// Asks the mirror and adds its answer to the facts, if `first` deletes a branch or the answer could allow a deletion. Returns whether the
/// mirror answered.
pub(super) fn ask(run: &Run<'_>, rules: &Rules, first: &Plan, observed: &mut Observed) -> bool {
    if first.stop.is_some() || matches!(run.target.address, Address::Local(_)) {
        return false;
    }
    let deleted = first.decisions.iter().filter(|decision| decision.action == Action::Delete);
    let deleted = deleted.map(|decision| &decision.name).filter(|name| name.branch().is_some());
    let unclear = observed.refs.iter().filter(|facts| could_go(rules, facts)).map(|facts| &facts.name);
    let mut names: Vec<&RefName> = deleted.chain(unclear).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return false;
    }
    let said = match fetch::symbolic(&hasty(run.target), run.context.pool, &names) {
        Ok(said) => said,
        Err(error) => {
            let why = run.redactor.clean(&error.to_string());
            tracing::debug!("mirror '{}': its symbolic refs cannot be read: {why}", run.mirror.name);
            return false;
        }
    };
    let names: Vec<RefName> = names.into_iter().cloned().collect();
    for facts in observed.refs.iter_mut().filter(|facts| names.binary_search(&facts.name).is_ok()) {
        if said.symbolic.contains(&facts.name) {
            facts.kind = Kind::Symbolic;
        } else if facts.kind == Kind::MaybeSymbolic && said.plain.contains(&facts.name) {
            facts.kind = Kind::Plain;
        }
    }
    observed.mirror.head = said.head.or(observed.mirror.head.take());
    true
}

/// The target with shorter time limits: the conversation with receive-pack waits meanwhile and must not time out.
fn hasty(target: &Target) -> Target {
    let limit = (target.timeouts.stall / 2).min(Duration::from_secs(10));
    let timeouts = target.timeouts;
    let timeouts = Timeouts { connect: timeouts.connect.min(limit), stall: limit, whole: timeouts.whole.min(limit) };
    Target { timeouts, ..target.clone() }
}

/// Whether the plan might delete a ref if it were known not to be symbolic on the mirror.
fn could_go(rules: &Rules, facts: &RefFacts) -> bool {
    facts.kind == Kind::MaybeSymbolic
        && facts.local == Local::Absent
        && (rules.prune == Prune::Mirror || facts.deleted.is_known)
}
