//! What goes into one push: the whole plan, unless the mirror has shown a limit.
//!
//! The default branch is pushed to an empty mirror first and alone, because many servers make the first branch that
//! they receive their default branch. An atomic push is never divided.

use std::collections::HashSet;

use super::{Decision, Mirror, Rules, Stop};
use crate::refs::{Oid, RefName};

/// What one push may hold.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// At most this many refs, and at least one; `None`: any number.
    pub refs: Option<usize>,
    /// Parts of a push that the mirror's hook declined as a whole. Each is a push of its own, the last one first.
    pub groups: Vec<HashSet<RefName>>,
    /// The branch whose history is sent in slices, and the intermediate value that the next push sets it to. Used only when the branch is
    /// pushed alone.
    pub step: Option<(RefName, Oid)>,
    /// A push of the default branch alone may carry the objects of at most this many other refs.
    pub companions: usize,
}

/// The decisions of the next push, as indices. `order` has all decisions that are to be sent.
pub(super) fn next_push(
    limits: &Limits,
    rules: &Rules,
    decisions: &[Decision],
    order: &[usize],
    is_first_alone: bool,
) -> Vec<usize> {
    if rules.is_atomic {
        return order.to_vec();
    }
    let most = if is_first_alone { 1 } else { limits.refs.unwrap_or(usize::MAX).max(1) };
    group(limits, decisions, order).unwrap_or_else(|| order.iter().copied().take(most).collect())
}

/// The decisions of the next update here, as indices.
pub(super) fn next_of_pull(limits: &Limits, decisions: &[Decision], order: &[usize]) -> Vec<usize> {
    group(limits, decisions, order).unwrap_or_else(|| order.to_vec())
}

/// The members of the next part of a declined push, as indices.
fn group(limits: &Limits, decisions: &[Decision], order: &[usize]) -> Option<Vec<usize>> {
    let members = |group: &HashSet<RefName>| -> Vec<usize> {
        order.iter().copied().filter(|index| group.contains(&decisions[*index].name)).collect()
    };
    limits.groups.iter().rev().map(members).find(|members| !members.is_empty())
}

/// The refs whose objects the next push carries although it does not set them, as indices. `next` has the decisions of that push.
pub(super) fn companions(limits: &Limits, order: &[usize], next: &[usize], is_first_alone: bool) -> Vec<usize> {
    if !is_first_alone || next != &order[..1] {
        return Vec::new();
    }
    order.iter().skip(1).copied().take(limits.companions).collect()
}

/// Why nothing can be sent: the mirror lacks a capability that every push with these rules needs.
pub(super) fn stop(rules: &Rules, mirror: &Mirror) -> Option<Stop> {
    if !mirror.can_report {
        return Some(Stop::NoReport);
    }
    (rules.is_atomic && !mirror.can_push_atomically).then_some(Stop::NoAtomic)
}
