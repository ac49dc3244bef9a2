//! How a limit of a host is divided among the nodes. Pure.
//!
//! A node that wants less than an even part gets what it wants. What nobody wants is divided too,
//! so that the first job of a quiet node need not wait for an answer of the database. If there is
//! less than one for each node that wants something, nodes take turns. Of the nodes that have
//! nothing, the one whose last turn began first is next. If a job outlasts the turn of its node,
//! the others wait longer, but the order stays.
//!
//! A node is granted no more than the limit minus what the other nodes still have or use. So the
//! sum is never above the limit, in whatever order the nodes ask.

/// How long a node has a place if others wait for it, in seconds.
const TURN: i64 = 10;

/// What a node has and wants at a host: places for jobs, or contacts in a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// What it has been granted.
    pub(super) granted: usize,
    /// What it uses. This can exceed the grant, after the grant was lowered.
    pub(super) used: usize,
    /// What it could use.
    pub(super) wanted: usize,
    /// When its grant last rose from 0, in seconds since the Unix epoch by the clock of the
    /// database; 0 if it never did.
    pub(super) since: i64,
}

/// What the node `me` is granted of `limit` now, and when its grant last rose from 0. `claims` are
/// those of all nodes that live, in the same order on every node.
pub(super) fn grant(limit: usize, claims: &[Claim], me: usize, now: i64) -> (usize, i64) {
    let others = claims.iter().enumerate().filter(|(at, _)| *at != me);
    let held = others.map(|(_, claim)| claim.granted.max(claim.used)).sum();
    let granted = parts(limit, claims, now)[me].min(limit.saturating_sub(held));
    let is_new = granted > 0 && claims[me].granted == 0;
    (granted, if is_new { now } else { claims[me].since })
}

/// The parts to which all nodes are entitled. Their sum is the limit.
fn parts(limit: usize, claims: &[Claim], now: i64) -> Vec<usize> {
    let mut parts = vec![0; claims.len()];
    let mut wanting: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].wanted > 0).collect();
    if wanting.len() > limit {
        // First those whose turn is not over, then those that have nothing, then those that have had something for longer than a turn.
        let order = |claim: &Claim| match claim.granted {
            0 => (1, claim.since),
            _ if now < claim.since + TURN => (0, 0),
            _ => (2, -claim.since),
        };
        wanting.sort_by_key(|at| order(&claims[*at]));
        wanting.into_iter().take(limit).for_each(|at| parts[at] = 1);
        return parts;
    }
    let mut left = limit;
    // Those that want least come first: what they leave is divided among the others.
    wanting.sort_by_key(|at| claims[*at].wanted);
    for (place, at) in wanting.iter().enumerate() {
        parts[*at] = claims[*at].wanted.min(left.div_ceil(wanting.len() - place));
        left -= parts[*at];
    }
    let nodes = claims.len().max(1);
    let first = usize::try_from(now / TURN).unwrap_or(0);
    for place in 0..claims.len() {
        parts[(first + place) % nodes] += left / nodes + usize::from(place < left % nodes);
    }
    parts
}

#[cfg(test)]
mod tests;
