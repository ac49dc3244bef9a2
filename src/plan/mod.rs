//! Facts in, plan out: what happens to each ref of one mirror.
//!
//! [`plan`] is total and pure: no clock, file, environment, log or network. All rules about selection, divergence and
//! deletion are here and nowhere else; `tests.rs` holds them as tables. The sender makes no choice, so whatever could
//! make it refuse a ref or send less (the mirror's capabilities, its HEAD, earlier refusals, limits) is a fact in [`Observed`].

use crate::refs::{Oid, RefName};

mod both;
mod contact;
mod decide;
mod limits;
mod observed;
mod order;
mod pattern;
mod prune;
mod pull;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

pub use both::BothFacts;
pub use limits::Limits;
pub use observed::{Decided, Deleted, FirstContact, Kind, Mirror, Observed, RefFacts, Source};
pub use pattern::Pattern;
pub use pull::{Here, ObservedPull, PullFacts, Restore, Upstream, plan_pull};
pub use reason::{PullReason, Reason};
pub use rules::{Branches, Conflicts, Divergent, MaxDeletes, Prune, Rules, Tags};

/// What is to happen to one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both sides have the same value.
    UpToDate,
    /// The side that is updated lacks the ref.
    Create,
    /// The side that is updated deleted the ref. The ref is made again, because the other side
    /// changed it since, or because a person asked for it (`--restore`).
    Restore,
    /// The value of the side that is updated is an ancestor of the new one.
    FastForward,
    /// The value of the side that is updated is replaced. That value is the lease: the command is
    /// refused if the ref has changed meanwhile.
    Force,
    /// The ref is deleted. The lease is its value.
    Delete,
    /// The side that is updated has a value that the other is not known to have had. The rules keep
    /// it, or first contact is not confirmed.
    Divergent(Reason),
    /// Both sides moved the ref, each to a value that does not contain the other's. Neither is updated.
    Conflict(Reason),
    /// One side has the ref and the other does not. It is neither deleted nor made, for this
    /// reason.
    Kept(Reason),
    /// On the side that is updated, the ref goes back and forth between values that it had before;
    /// see [`RefFacts::is_flapping`] and [`PullFacts::is_flapping`].
    Flapping(Reason),
    /// No command is sent for the ref, for this reason. The side that is updated was not asked.
    Reject(Reason),
    /// A fact that the decision needs could not be read, or the ref moved after it was decided. A
    /// later run decides.
    Defer(Reason),
    /// The side that is updated refused this change earlier in the run; see
    /// [`RefFacts::is_refused`].
    Refused,
}

impl Action {
    /// Whether a command is sent.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        matches!(self, Self::Create | Self::Restore | Self::FastForward | Self::Force | Self::Delete)
    }
}

/// The side that a decision updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The mirror.
    #[default]
    There,
    /// This repository.
    Here,
}

/// The plan for one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The ref.
    pub name: RefName,
    /// Our value, if the ref is here and can be read.
    pub local: Option<Oid>,
    /// The mirror's value that was observed.
    pub remote: Option<Oid>,
    /// The side that is updated. The value of this side is the lease of the command.
    pub side: Side,
    /// The last value that both sides are known to have held, if that matters for the decision.
    pub base: Option<Oid>,
    /// Whether the value that is replaced is kept here, under another ref, first.
    pub keeps: bool,
    /// The next push sets the branch to this intermediate value, because the mirror does not take the branch's whole history at once.
    pub step: Option<Oid>,
    /// What happens.
    pub action: Action,
}

impl Decision {
    /// The new value of the command; `None` for a deletion.
    #[must_use]
    pub fn new_value(&self) -> Option<Oid> {
        match self.side {
            Side::There => self.step.or(self.local),
            Side::Here => self.remote,
        }
    }

    /// The value that the command expects; `None` if it expects no ref.
    #[must_use]
    pub fn old_value(&self) -> Option<Oid> {
        match self.side {
            Side::There => self.remote,
            Side::Here => self.local,
        }
    }
}

/// The plan for one mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The decisions, in the order of `Observed::refs`. A ref that is not selected, is symbolic or is on neither side has no decision.
    pub decisions: Vec<Decision>,
    /// All decisions that are to be sent, in one push or several, as indices in sending order.
    pub order: Vec<usize>,
    /// The decisions of the next push, as indices.
    pub next: Vec<usize>,
    /// The refs that the next push does not set although it carries their objects, as indices. Only
    /// a push of the default branch alone to an empty mirror has them. Their own push then needs no
    /// second pack.
    pub companions: Vec<usize>,
    /// Why nothing at all is sent, if the reason is the mirror as a whole and not one of its refs.
    pub stop: Option<Stop>,
}

/// Why nothing at all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At first contact the mirror looks like somebody else's repository.
    FirstContact {
        /// How many selected refs cause this: this repository does not have the objects that the mirror has for them. 0 if only refs that
        /// are not selected cause it.
        unknown: usize,
    },
    /// The mirror does not report what it did with each ref.
    NoReport,
    /// The push is to be atomic, and the mirror cannot do that.
    NoAtomic,
    /// Upstream shows no refs, although it had some.
    NothingUpstream,
    /// At the first contact of a pull, the two histories have no commit in common.
    Unrelated,
}

impl Plan {
    /// The decisions of the next push, in sending order.
    #[must_use]
    pub fn next_push(&self) -> Vec<&Decision> {
        self.next.iter().map(|index| &self.decisions[*index]).collect()
    }

    /// The decisions whose objects the next push carries: its own, then its companions.
    #[must_use]
    pub fn next_pack(&self) -> Vec<&Decision> {
        self.next.iter().chain(&self.companions).map(|index| &self.decisions[*index]).collect()
    }
}

/// Decides every observed ref.
#[must_use]
pub fn plan(rules: &Rules, observed: &Observed) -> Plan {
    let mut decisions: Vec<Decision> = observed
        .refs
        .iter()
        .filter(|facts| rules.selects(facts.name.borrowed()))
        .filter_map(|facts| decide::decide(rules, observed, facts))
        .collect();
    prune::hold_mass_deletion(rules.max_deletes, observed.mirror.selected, Side::There, &mut decisions);
    let stop = contact::stop(observed, &mut decisions);
    if rules.divergent == Divergent::Fail && decisions.iter().any(|d| matches!(d.action, Action::Divergent(_))) {
        withhold_everything(&mut decisions);
    }
    let (order, is_first_alone) = order::order(&decisions, observed);
    let limits = &observed.limits;
    let next = limits::next_push(limits, rules, &decisions, &order, is_first_alone);
    let companions = limits::companions(limits, &order, &next, is_first_alone);
    if let ([index], Some((name, value))) = (&*next, &limits.step)
        && decisions[*index].name == *name
        && !rules.is_atomic
    {
        decisions[*index].step = Some(*value);
    }
    let stop = stop.or_else(|| limits::stop(rules, &observed.mirror).filter(|_| !order.is_empty()));
    Plan { decisions, order, next, companions, stop }
}

fn withhold_everything(decisions: &mut [Decision]) {
    for decision in decisions.iter_mut().filter(|decision| decision.action.is_sent()) {
        decision.action = Action::Reject(Reason::OtherDiverges);
    }
}
