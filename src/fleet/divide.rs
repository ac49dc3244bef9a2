//! How a limit of a host is divided among the nodes. Pure.
//!
//! A node that wants less than an even part gets what it wants. What nobody wants is divided too, so that the first job of a quiet node waits
//! for no answer of the database. If there is less than one for each node that wants something, nodes take turns.
//!
//! A node may have its part only as far as the other nodes have given back what they had before. So the sum is never above the limit, in
//! whatever order the nodes ask.

/// What a node has and wants at a host: places for jobs, or contacts in a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// What it has been granted.
    pub(super) granted: usize,
    /// What it uses. This is more than it has been granted, after a smaller grant.
    pub(super) used: usize,
    /// What it could use.
    pub(super) wanted: usize,
}

/// What the node `me` is granted of `limit`. `claims` are those of all nodes that live, in an order on which all agree, as is `turn`.
pub(super) fn grant(limit: usize, claims: &[Claim], me: usize, turn: usize) -> usize {
    let others = claims.iter().enumerate().filter(|(at, _)| *at != me);
    let held = others.map(|(_, claim)| claim.granted.max(claim.used)).sum();
    parts(limit, claims, turn)[me].min(limit.saturating_sub(held))
}

/// The parts to which all nodes are entitled. Their sum is the limit.
fn parts(limit: usize, claims: &[Claim], turn: usize) -> Vec<usize> {
    let mut parts = vec![0; claims.len()];
    let wanting: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].wanted > 0).collect();
    if wanting.len() > limit {
        // The turns go over all nodes, so that one that wants something comes first in time, whoever else wants something meanwhile.
        let first = turn.wrapping_mul(limit) % claims.len();
        let in_turn = (first..claims.len()).chain(0..first).filter(|at| claims[*at].wanted > 0);
        in_turn.take(limit).for_each(|at| parts[at] = 1);
        return parts;
    }
    let mut left = limit;
    // Those that want least come first: what they leave is divided among the others.
    let mut by_want = wanting;
    by_want.sort_by_key(|at| claims[*at].wanted);
    for (place, at) in by_want.iter().enumerate() {
        let nodes = by_want.len() - place;
        parts[*at] = claims[*at].wanted.min(left.div_ceil(nodes));
        left -= parts[*at];
    }
    let nodes = claims.len().max(1);
    for place in 0..nodes.min(claims.len()) {
        let at = (turn + place) % nodes;
        parts[at] += left / nodes + usize::from(place < left % nodes);
    }
    parts
}

#[cfg(test)]
mod tests;
