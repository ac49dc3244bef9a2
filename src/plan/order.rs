//! The order of commands: first the default branch, if the mirror is empty; then deletes that make room for a new ref name; then updates;
//! then all other deletes.

use std::collections::BTreeSet;

use super::{Action, Decision, Observed, Side};
use crate::refs::RefName;

/// The indices of the decisions that are sent, in sending order, and whether the first of them goes alone.
pub(super) fn order(decisions: &[Decision], observed: &Observed) -> (Vec<usize>, bool) {
    let is_first = |decision: &Decision| {
        observed.mirror.is_empty
            && decision.action != Action::Delete
            && observed.source.default_branch.as_ref() == Some(&decision.name)
    };
    let order = ordered(decisions, Side::There, is_first);
    let is_first_alone = order.first().is_some_and(|index| is_first(&decisions[*index]));
    (order, is_first_alone)
}

/// The indices of the decisions of a pull that are sent, in sending order.
pub(super) fn of_pull(decisions: &[Decision]) -> Vec<usize> {
    ordered(decisions, Side::Here, |_| false)
}

fn ordered(decisions: &[Decision], side: Side, is_first: impl Fn(&Decision) -> bool) -> Vec<usize> {
    let is_sent = |decision: &Decision| decision.side == side && decision.action.is_sent();
    let is_made =
        |decision: &&Decision| is_sent(decision) && matches!(decision.action, Action::Create | Action::Restore);
    let made: BTreeSet<&RefName> = decisions.iter().filter(is_made).map(|decision| &decision.name).collect();
    let rank = |decision: &Decision| match decision.action {
        _ if is_first(decision) => 0,
        Action::Delete if frees_a_path(&decision.name, &made) => 1,
        Action::Delete => 3,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..decisions.len()).filter(|index| is_sent(&decisions[*index])).collect();
    order.sort_by_key(|index| rank(&decisions[*index]));
    order
}

/// Whether a ref in `creates` is below `name`, or `name` is below it: `x` and `x/y` cannot exist together.
fn frees_a_path(name: &RefName, creates: &BTreeSet<&RefName>) -> bool {
    let is_below = || {
        let below = [name.as_bytes(), b"/"].concat();
        let first = RefName::new(&[&below[..], b"\x21"].concat());
        first.is_some_and(|first| {
            creates.range::<RefName, _>(first..).next().is_some_and(|next| next.as_bytes().starts_with(&below))
        })
    };
    let ancestors = name.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ancestors.filter_map(|(at, _)| RefName::new(&name.as_bytes()[..at])).any(|dir| creates.contains(&dir)) || is_below()
}
