//! What follows from a refusal, within one run. Pure.
//!
//! A ref that may have moved since it was advertised is read again. If it moved, it is decided
//! again, until the third refusal. If it did not move, it was refused for another reason, and the
//! refusal is final. A push is bisected if the mirror's pre-receive hook declines the whole push,
//! or if our own receive-pack refuses its whole pack. Bisecting finds the refs that cause it: at
//! most 2·k·⌈log2(n)⌉+1 pushes for k such refs among n, and never more than 64 in one run.

use std::collections::{HashMap, HashSet};

use crate::credentials::Cleaned;
use crate::plan::{Action, Decision, Side};
use crate::push::{Answer, Incomplete, Report};
use crate::refs::{Oid, RefName};
use crate::replies::Cause;
use crate::status::{Outcome, RefOutcome};

/// How often one run tries to update a ref whose lease (the expected old value) is always refused.
const MAX_TRIES: u32 = 3;

/// How many pushes one run spends on bisecting.
const MAX_SPLITS: u32 = 64;

/// The refusals of one run.
#[derive(Default)]
pub(super) struct Refusals {
    refused: HashMap<RefName, Refusal>,
    /// Halves of declined pushes that are still to be tried, the next one last.
    groups: Vec<HashSet<RefName>>,
    /// The number of pushes that were such halves.
    splits: u32,
    /// Whether an atomic push was decided again.
    is_atomic_retried: bool,
}

struct Refusal {
    lease: Option<Oid>,
    tries: u32,
    outcome: RefOutcome,
}

impl Refusals {
    /// Records a refusal. Returns whether the ref is to be read again.
    pub(super) fn note(&mut self, decision: &Decision, outcome: &RefOutcome) -> bool {
        if !outcome.reason.as_deref().is_some_and(|reason| Cause::Stale.is_in(reason)) {
            self.finalize(decision, outcome);
            return false;
        }
        let tries = self.refused.get(&decision.name).map_or(1, |before| before.tries + 1);
        let refusal = Refusal { lease: decision.old_value(), tries, outcome: outcome.clone() };
        self.refused.insert(decision.name.clone(), refusal);
        tries < MAX_TRIES
    }

    /// Records a refusal of an optimistic push. The next read shows whether the lease was stale: if the mirror has the expected value, the
    /// refusal is final.
    pub(super) fn doubt(&mut self, decision: &Decision, outcome: &RefOutcome) {
        let refusal = Refusal { lease: decision.old_value(), tries: 1, outcome: outcome.clone() };
        self.refused.insert(decision.name.clone(), refusal);
    }

    /// Whether to decide a refused atomic push again. `true` only the first time.
    pub(super) fn retry_atomic(&mut self) -> bool {
        !std::mem::replace(&mut self.is_atomic_retried, true)
    }

    /// Notes an outcome that nothing in this run will change.
    pub(super) fn finalize(&mut self, decision: &Decision, outcome: &RefOutcome) {
        let refusal = Refusal { lease: decision.old_value(), tries: MAX_TRIES, outcome: outcome.clone() };
        self.refused.insert(decision.name.clone(), refusal);
    }

    /// Notes that the report has no answer for a ref, because it was cut short (`cut` says how) or for the reason `why`. Such a ref is not
    /// sent again in this run.
    pub(super) fn unanswered(&mut self, decision: &Decision, cut: Option<&Cleaned>, why: &'static str) -> RefOutcome {
        let reason = cut.cloned().unwrap_or_else(|| why.into());
        let outcome = RefOutcome::new(decision, Outcome::RemoteFailed, Some(reason));
        self.finalize(decision, &outcome);
        outcome
    }

    /// Whether the ref must not be sent again: its refusal is final, or it did not move since.
    /// `held` is the value that it has now on the side that refused.
    pub(super) fn stands(&self, name: &RefName, held: Option<Oid>) -> bool {
        let refusal = self.refused.get(name);
        refusal.is_some_and(|refusal| refusal.lease == held || refusal.tries >= MAX_TRIES)
    }

    /// The earlier outcome for a ref that the plan does not send again (`Action::Refused`).
    pub(super) fn of(&self, decision: &Decision) -> Option<&RefOutcome> {
        let refusal = self.refused.get(&decision.name).filter(|_| decision.action == Action::Refused)?;
        Some(&refusal.outcome)
    }

    /// The halves of declined pushes that are still to be tried, the next one last.
    pub(super) fn groups(&self) -> &[HashSet<RefName>] {
        &self.groups
    }

    /// Records that `sent` is pushed. Takes halves from the end of the list until it finds that of `sent`. The halves that it skips have
    /// nothing left to send.
    pub(super) fn begin(&mut self, sent: &[&Decision]) {
        while let Some(group) = self.groups.pop() {
            if sent.iter().any(|decision| group.contains(&decision.name)) {
                self.splits += 1;
                return;
            }
        }
    }

    /// Halves a push that was declined as a whole: by the mirror's pre-receive hook, or by our own
    /// receive-pack, which refuses the whole pack. Returns `false` if the push is not halved: it
    /// was not declined as a whole, it has one ref, it is atomic, or too many pushes would follow.
    pub(super) fn bisect(&mut self, sent: &[&Decision], report: &Report, is_atomic: bool) -> bool {
        let is_cause = |decision: &Decision, message: &str| {
            // Our own receive-pack refuses a whole pack if fsck rejects one object of it. Each half
            // gets a pack of its own.
            let is_passing = Cause::DiskFull.is_in(message) || Cause::Locked.is_in(message);
            let is_pack = decision.side == Side::Here && Cause::MissingObjects.is_in(message) && !is_passing;
            is_pack || Cause::HookDeclined.is_in(message)
        };
        let is_declined = |decision: &&Decision| matches!(report.answers.get(&decision.name), Some(Answer::Refused(message)) if is_cause(decision, message));
        // The push that was declined first, the halves that were tried, those that wait, and the two new ones.
        let to_come = 1 + self.splits as usize + self.groups.len() + 2;
        if is_atomic || sent.len() < 2 || to_come > MAX_SPLITS as usize || !sent.iter().all(is_declined) {
            return false;
        }
        let (first, second) = sent.split_at(sent.len() / 2);
        for half in [second, first] {
            self.groups.push(half.iter().map(|decision| decision.name.clone()).collect());
        }
        true
    }
}

/// The outcome of a refusal. If the mirror refuses a deletion because its HEAD names the branch, the outcome is `Kept`, with the fix as the
/// reason.
pub(super) fn outcome(decision: &Decision, message: Cleaned, incomplete: Incomplete) -> RefOutcome {
    if decision.action == Action::Delete && Cause::CurrentBranch.is_in(&message) {
        let reason = "the mirror's HEAD names it; first give the mirror another default branch";
        return RefOutcome::new(decision, Outcome::Kept, Some(reason.into()));
    }
    if Cause::CheckedOut.is_in(&message) {
        let reason = "the branch is currently checked out there; make the mirror bare (there: git config core.bare true), or let its working tree follow (there: git config receive.denyCurrentBranch updateInstead)";
        return RefOutcome::new(decision, Outcome::RemoteRejected, Some(reason.into()));
    }
    if Cause::Locked.is_in(&message) || Cause::DiskFull.is_in(&message) {
        // The mirror did not decide anything, so the push is tried again.
        return RefOutcome::new(decision, Outcome::RemoteFailed, Some(message));
    }
    let message = match fix(&message, incomplete) {
        Some(fix) => message.and_ours(&format!("; {fix}")),
        None => message,
    };
    RefOutcome::new(decision, Outcome::RemoteRejected, Some(message))
}

/// The fix for a refusal because of the permissions there, or because our repository is shallow or partial.
fn fix(message: &str, incomplete: Incomplete) -> Option<&'static str> {
    if Cause::NotWritable.is_in(message) {
        return Some(
            "the user who pushes has no write permission in the mirror's repository; fix its owner or mode there",
        );
    }
    if incomplete.is_shallow && Cause::ShallowRefused.is_in(message) {
        return Some(
            "this repository is shallow; either there: git config receive.shallowUpdate true, or here: git fetch --unshallow",
        );
    }
    (incomplete.is_partial && Cause::MissingObjects.is_in(message)).then_some(Incomplete::FETCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(action: Action) -> Decision {
        let oid = Oid::from_hex(&[b'1'; 40]);
        Decision {
            name: RefName::new(b"refs/heads/x").expect("valid"),
            local: oid,
            remote: None,
            side: Side::There,
            base: None,
            keeps: false,
            step: None,
            action,
        }
    }

    #[test]
    fn what_the_words_of_servers_mean() {
        let update = decision(Action::FastForward);
        #[rustfmt::skip]
        let table = [
            // message                                                          outcome                   worth another look
            ("cannot lock ref 'x': Unable to create '/r/x.lock': File exists.",   Outcome::RemoteFailed,   true),
            ("cannot lock references",                                            Outcome::RemoteFailed,   true),
            ("failed to update ref: data is locked",                              Outcome::RemoteFailed,   true),
            ("unpacker error: No space left on device",                           Outcome::RemoteFailed,   false),
            ("unable to write file: Disk quota exceeded",                         Outcome::RemoteFailed,   false),
            ("failed to update ref",                                              Outcome::RemoteRejected, true),
            ("incorrect old value provided",                                      Outcome::RemoteRejected, true),
            ("reference already exists",                                          Outcome::RemoteRejected, true),
            ("reference does not exist",                                          Outcome::RemoteRejected, true),
            ("invalid old id sent",                                               Outcome::RemoteRejected, true),
            ("fetch first",                                                       Outcome::RemoteRejected, true),
            ("stale info",                                                        Outcome::RemoteRejected, true),
            ("hook declined",                                                     Outcome::RemoteRejected, false),
            ("non-fast-forward",                                                  Outcome::RemoteRejected, false),
            ("deletion prohibited",                                               Outcome::RemoteRejected, false),
            ("deletion of the current branch prohibited",                         Outcome::RemoteRejected, false),
        ];
        for (message, expected, is_worth) in table {
            let found = outcome(&update, message.into(), Incomplete::default());
            assert_eq!(found.outcome, expected, "{message}");
            assert_eq!(Refusals::default().note(&update, &found), is_worth, "{message}");
        }
        let kept = outcome(
            &decision(Action::Delete),
            "deletion of the current branch prohibited".into(),
            Incomplete::default(),
        );
        assert_eq!(kept.outcome, Outcome::Kept);
    }

    #[test]
    fn a_refused_optimistic_push_is_final_only_if_the_mirror_has_the_expected_value() {
        let believed = decision(Action::FastForward);
        let moved = Decision { remote: Oid::from_hex(&[b'2'; 40]), ..believed.clone() };
        let found = outcome(&believed, "message of a server that nobody has met".into(), Incomplete::default());
        let mut refusals = Refusals::default();
        refusals.doubt(&believed, &found);
        for (seen, is_sent) in [(believed, false), (moved, true)] {
            assert_eq!(!refusals.stands(&seen.name, seen.remote), is_sent);
            let again = Decision { action: Action::Refused, ..seen };
            assert_eq!(refusals.of(&again), Some(&found));
            assert_eq!(refusals.of(&Decision { action: Action::Create, ..again }), None);
        }
    }

    #[test]
    fn a_ref_whose_lease_is_refused_three_times_is_not_sent_again() {
        let mut refusals = Refusals::default();
        let stale = |lease: u8| {
            let decision = Decision { remote: Oid::from_hex(&[b'0' + lease; 40]), ..decision(Action::FastForward) };
            let outcome = outcome(&decision, "failed to lock".into(), Incomplete::default());
            (decision, outcome)
        };
        for (lease, is_worth_a_look) in [(2, true), (3, true), (4, false)] {
            let (decision, outcome) = stale(lease);
            assert_eq!(refusals.note(&decision, &outcome), is_worth_a_look);
            let moved = stale(9).0;
            assert_eq!(refusals.stands(&moved.name, moved.remote), !is_worth_a_look, "{lease}");
        }
    }

    #[test]
    fn an_atomic_push_is_decided_again_once() {
        let mut refusals = Refusals::default();
        assert!(refusals.retry_atomic() && !refusals.retry_atomic());
    }
}
