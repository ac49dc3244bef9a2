//! Refs that go back and forth on the mirror, because another mirror or program undoes our updates. Pure.
//!
//! The moves of a ref are remembered from its first forced update or deletion on, for one hour. A ref that is only fast-forwarded leaves
//! nothing here.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::refs::{Oid, RefName};
use crate::status::{Move, Outcome, RefOutcome, render_time};

/// How long a move is remembered.
const MEMORY: SignedDuration = SignedDuration::from_hours(1);

/// How often a ref may return to a value that the mirror had left.
const MAX_RETURNS: usize = 2;

/// Maximum number of moves that are remembered of one mirror; the oldest are forgotten.
const MAX_MOVES: usize = 1000;

/// Whether an update of `name` to `local` would be one return too many. `remote` is the present
/// value on the side that is updated. A new value on either side ends the flapping.
pub(super) fn is_flapping(moves: &[Move], name: &RefName, remote: Option<Oid>, local: Oid) -> bool {
    if moves.is_empty() {
        return false;
    }
    let name = name.text().into_owned();
    let moves: Vec<&Move> = moves.iter().filter(|known| known.name == name).collect();
    let local = local.to_string();
    let remote = remote.map(|oid| oid.to_string());
    let is_new_there = remote.as_ref().is_some_and(|remote| {
        let is_it = |value: &Option<String>| value.as_ref() == Some(remote);
        !moves.iter().any(|known| is_it(&known.from) || is_it(&known.to))
    });
    let (returns, left) = returns(&moves, remote.as_ref());
    !is_new_there && left.contains(&local) && returns >= MAX_RETURNS
}

/// How many of `moves` returned to a value that the mirror had left, and all values that it left. If a move does not start at the value
/// that the previous move set, someone else moved the ref in between. So the mirror left the value of the previous move too.
fn returns<'m>(moves: &[&'m Move], remote: Option<&'m String>) -> (usize, BTreeSet<&'m String>) {
    let mut left = BTreeSet::new();
    let mut returns = 0;
    let mut held = None;
    for known in moves {
        if held != known.from.as_ref() {
            left.extend(held);
        }
        returns += usize::from(known.to.as_ref().is_some_and(|to| left.contains(to)));
        left.extend(&known.from);
        held = known.to.as_ref();
    }
    if held != remote {
        left.extend(held);
    }
    (returns, left)
}

/// What is remembered after a run that did `outcomes` at `now`.
pub(super) fn remembered<'o>(
    before: &[Move],
    outcomes: impl Iterator<Item = &'o RefOutcome>,
    now: Timestamp,
) -> Vec<Move> {
    let is_recent =
        |known: &&Move| known.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at).abs() <= MEMORY);
    let mut moves: Vec<Move> = before.iter().filter(is_recent).cloned().collect();
    let known: BTreeSet<String> = moves.iter().map(|known| known.name.clone()).collect();
    for outcome in outcomes.filter(|outcome| outcome.outcome.is_done()) {
        let is_of_interest = matches!(outcome.outcome, Outcome::Forced | Outcome::Deleted);
        if is_of_interest || !known.is_empty() && known.contains(&*outcome.name.text()) {
            let text = |oid: Option<Oid>| oid.map(|oid| oid.to_string());
            moves.push(Move {
                name: outcome.name.text().into_owned(),
                at: render_time(now),
                from: text(outcome.old_value()),
                to: text(outcome.new_value()),
            });
        }
    }
    let excess = moves.len().saturating_sub(MAX_MOVES);
    moves.drain(..excess);
    moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Side;

    fn oid(digit: u8) -> Oid {
        Oid::from_hex(&[digit; 40]).expect("valid")
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_767_720_000 + 60 * minute).expect("in range")
    }

    fn forced(from: u8, to: u8) -> RefOutcome {
        RefOutcome {
            name: RefName::new(b"refs/heads/main").expect("valid"),
            outcome: Outcome::Forced,
            side: Side::There,
            local: Some(oid(to)),
            remote: Some(oid(from)),
            base: None,
            reason: None,
            kept_as: None,
        }
    }

    #[test]
    fn the_third_return_within_an_hour_is_not_sent() {
        let (a, b, c) = (b'a', b'b', b'c');
        let name = RefName::new(b"refs/heads/main").expect("valid");
        let is_flapping = |moves: &[Move], remote, local| is_flapping(moves, &name, Some(oid(remote)), oid(local));
        let mut moves = Vec::new();
        for (minute, from, to) in [(0, a, b), (1, b, a), (2, a, b)] {
            assert!(!is_flapping(&moves, from, to), "{minute}");
            moves = remembered(&moves, [forced(from, to)].iter(), at(minute));
        }
        assert!(is_flapping(&moves, b, a), "the third time");
        assert!(!is_flapping(&moves, b, c), "a new value here");
        assert!(!is_flapping(&moves, c, a), "a new value there");
        assert!(!is_flapping(&remembered(&moves, [].iter(), at(63)), b, a), "an hour later");
        assert!(is_flapping(&remembered(&moves, [].iter(), at(59)), b, a), "within the hour");
    }

    #[test]
    fn a_ref_that_someone_moves_back_on_the_mirror_is_noticed() {
        let name = RefName::new(b"refs/heads/main").expect("valid");
        let (theirs, ours) = (b'a', b'b');
        let mut moves = Vec::new();
        for minute in 0..3 {
            assert!(!is_flapping(&moves, &name, Some(oid(theirs)), oid(ours)), "{minute}");
            moves = remembered(&moves, [forced(theirs, ours)].iter(), at(minute));
        }
        assert!(is_flapping(&moves, &name, Some(oid(theirs)), oid(ours)));
    }

    #[test]
    fn what_only_moves_forward_is_not_remembered() {
        let forward = RefOutcome { outcome: Outcome::FastForwarded, ..forced(b'a', b'b') };
        assert_eq!(remembered(&[], [forward.clone()].iter(), at(0)), []);
        let moves = remembered(&[], [forced(b'b', b'a')].iter(), at(0));
        assert_eq!(remembered(&moves, [forward].iter(), at(1)).len(), 2, "but after a forced update it is");
    }
}
