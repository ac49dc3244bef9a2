//! The refs that hold the mirror's value of each conflict, so that people can merge it here:
//! `refs/conflicts/NAME/<8 digits>/heads/main`.
//!
//! Guaranteed: a value of the mirror that a conflict named, or that the loser of a conflict had,
//! stays below `refs/conflicts` or `refs/rewritten` until our ref contains it or `keep_rewritten`
//! has passed. A crash may leave a ref that is not needed, or an object that no ref needs.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::both::{for_mirror, note_in_past};
use super::pull::Pull;
use super::update::UpdateResult;
use super::{Error, kept};
use crate::config::Keep;
use crate::credentials::{Cleaned, Redactor};
use crate::fetch::{Held, Stage};
use crate::plan::{Action, Decision, Plan, Side};
use crate::refs::{Local, Oid, RefName};
use crate::repo::History;
use crate::status::{Outcome, RefOutcome};
use crate::wire::Error as WireError;

impl Pull<'_> {
    /// Notes, before the update, which values of our refs a two-way mirror replaces. If people push
    /// such a value to this mirror again, it does not count as late.
    pub(super) fn note_replaced(&self, sent: &[&Decision]) -> Result<(), Error> {
        if self.mirror.is_pull() {
            return Ok(());
        }
        let is_replaced = |one: &&&Decision| matches!(one.action, Action::Force | Action::Delete);
        let replaced = sent.iter().filter(is_replaced).filter_map(|one| Some((one.name.clone(), one.local?)));
        let replaced: Vec<(RefName, Oid)> = replaced.collect();
        note_in_past(self.repository, &replaced, Some(&self.mirror.name), (self.context.now)())
    }

    /// Prepares the push that follows: what is decided for the mirror, what is kept of it, and the refs of conflicts.
    pub(super) fn prepare_push(
        &self,
        plan: &Plan,
        stage: Option<&Stage>,
        result: &mut UpdateResult,
    ) -> Result<(), Error> {
        // A ref that moved here while others were taken was decided again.
        result.for_mirror = for_mirror(plan);
        self.keep_theirs(plan, stage, result)?;
        self.note_conflicts(stage, result)
    }

    /// Keeps the values that the push replaces on the mirror and that were never ours. What cannot
    /// be kept is not sent.
    fn keep_theirs(&self, plan: &Plan, stage: Option<&Stage>, result: &mut UpdateResult) -> Result<(), Error> {
        let is_kept = |one: &&Decision| one.side == Side::There && one.action.is_sent() && one.keeps;
        let kept: Vec<&Decision> = plan.decisions.iter().filter(is_kept).collect();
        if self.mirror.pull.keep_rewritten == Keep::Nothing || kept.is_empty() {
            return Ok(());
        }
        let (_held, refused) = self.bring_here(stage, kept.iter().filter_map(|decision| decision.remote))?;
        let (mut here, mut unkept) = (Vec::new(), Vec::new());
        for decision in kept {
            match &refused {
                Some(why) if !self.repository.is_here(decision.remote.unwrap_or(self.repository.null_oid()))? => {
                    unkept.push(RefOutcome::new(decision, Outcome::Rejected, Some(why.clone())));
                }
                _ => here.push(decision),
            }
        }
        unkept.extend(kept::keep(self.repository, &self.mirror.name, &here, (self.context.now)(), result)?);
        for outcome in unkept {
            result.for_mirror.remove(&outcome.name);
            result.outcomes.insert(outcome.name.clone(), outcome);
        }
        Ok(())
    }

    /// Makes the refs of the conflicts in `result`, and deletes those of conflicts that are over.
    fn note_conflicts(&self, stage: Option<&Stage>, result: &mut UpdateResult) -> Result<(), Error> {
        let prefix = format!("refs/conflicts/{}/", self.mirror.name);
        let there = self.repository.list(|name| name.as_bytes().starts_with(prefix.as_bytes()))?;
        let mut left: BTreeMap<RefName, Local> = there.refs.into_iter().collect();
        let is_conflict = |outcome: &&RefOutcome| outcome.outcome == Outcome::Conflict;
        let values: Vec<Oid> =
            result.outcomes.values().filter(is_conflict).filter_map(|outcome| outcome.remote).collect();
        let (_held, refused) = self.bring_here(stage, values.into_iter())?;
        if let Some(why) = refused {
            tracing::warn!("mirror '{}': {why}", self.mirror.name);
        }
        let (mut commands, mut over, mut kept_as) = (Vec::new(), Vec::new(), Vec::new());
        for outcome in result.outcomes.values_mut().filter(|outcome| outcome.outcome == Outcome::Conflict) {
            let (Some(remote), Some(name)) = (outcome.remote, place(&prefix, &outcome.name)) else { continue };
            if !self.repository.is_here(remote)? {
                continue;
            }
            let before = left.remove(&name);
            if before != Some(Local::At(remote)) {
                over.extend(before.map(|before| (name.clone(), before, Some(remote))));
                commands
                    .push((name.clone(), [b"update ", name.as_bytes(), format!("\0{remote}\0\0").as_bytes()].concat()));
            }
            kept_as.push((outcome.name.clone(), name));
        }
        let delete = |name: &RefName| [b"delete ", name.as_bytes(), b"\0\0"].concat();
        commands.extend(left.keys().map(|name| (name.clone(), delete(name))));
        over.extend(left.into_iter().map(|(name, value)| (name, value, None)));
        let unkept = self.keep_abandoned(&prefix, &over, result)?;
        // This comes after `keep_abandoned`, which may set `kept_as` to a ref below refs/rewritten.
        for (name, kept_as) in kept_as.into_iter().filter(|(_, kept_as)| !unkept.contains(kept_as)) {
            result.outcomes.entry(name).and_modify(|outcome| outcome.kept_as = Some(kept_as));
        }
        commands.retain(|(name, _)| !unkept.contains(name));
        let all: Vec<u8> = commands.iter().flat_map(|(_, command)| command).copied().collect();
        if kept::update_refs(self.repository, &all).is_ok() {
            return Ok(());
        }
        // A ref that cannot be set does not stop the others.
        for (name, command) in &commands {
            if let Err(error) = kept::update_refs(self.repository, command) {
                tracing::warn!("mirror '{}': a ref below {prefix} cannot be set: {error}", self.mirror.name);
                for outcome in result.outcomes.values_mut() {
                    outcome.kept_as.take_if(|kept_as| kept_as == name);
                }
            }
        }
        Ok(())
    }

    /// Keeps the old values of conflicts that are over or now have another value, unless the new
    /// value or our ref contains them. The mirror may have been rolled back, or be another one.
    /// Returns the refs below `prefix` whose value cannot be kept elsewhere.
    fn keep_abandoned(
        &self,
        prefix: &str,
        over: &[(RefName, Local, Option<Oid>)],
        result: &mut UpdateResult,
    ) -> Result<Vec<RefName>, Error> {
        let graph = self.repository.commit_graph();
        let mut history = History::new(self.repository, graph.as_ref());
        let (mut abandoned, mut places) = (Vec::new(), Vec::new());
        for (place, value, next) in over {
            let (Local::At(value), Some(name)) = (value, replaced(prefix, place)) else { continue };
            let contains = match self.repository.find_each(&[&name])?.first() {
                Some(Local::At(local)) => local == value || history.is_ancestor(*value, *local)? == Some(true),
                _ => false,
            };
            let contains = contains
                || match next {
                    Some(next) => history.is_ancestor(*value, *next)? == Some(true),
                    None => false,
                };
            if !contains {
                places.push((name.clone(), place.clone()));
                let (remote, base, action) = (Some(*value), None, Action::Force);
                let (side, keeps, step) = (Side::There, true, None);
                abandoned.push(Decision { name, local: None, remote, side, base, keeps, step, action });
            }
        }
        if self.mirror.pull.keep_rewritten == Keep::Nothing {
            return Ok(Vec::new());
        }
        let abandoned: Vec<&Decision> = abandoned.iter().collect();
        let refused = kept::keep(self.repository, &self.mirror.name, &abandoned, (self.context.now)(), result)?;
        let is_refused = |name: &RefName| refused.iter().any(|outcome| outcome.name == *name);
        Ok(places.into_iter().filter(|(name, _)| is_refused(name)).map(|(_, place)| place).collect())
    }

    /// Copies values of the mirror that are not here yet from the stage: all at once, or in halves
    /// if git refuses them, so that one bad value does not block the others. Returns what keeps git
    /// from dropping them before they have refs, and the reason of the last refusal, if there was one.
    fn bring_here(
        &self,
        stage: Option<&Stage>,
        values: impl Iterator<Item = Oid>,
    ) -> Result<(Option<Held>, Option<Cleaned>), Error> {
        let mut missing = Vec::new();
        for value in values {
            if !self.repository.is_here(value)? {
                missing.push(value);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let Some(stage) = stage.filter(|_| !missing.is_empty()) else { return Ok((None, None)) };
        let held = Held::of(stage.path(), self.repository);
        let mut known: HashSet<Oid> = self.repository.list(|_| true)?.values().collect();
        let (mut groups, mut refused) = (vec![&missing[..]], None);
        while let Some(group) = groups.pop() {
            match (stage.hand_over(self.repository, &held, group, known.iter().copied()), group) {
                (Ok(()), _) => known.extend(group),
                (Err(WireError::Protocol(_)), [_, _, ..]) => {
                    groups.extend(<[_; 2]>::from(group.split_at(group.len() / 2)));
                }
                (Err(WireError::Protocol(why)), _) => refused = Some(why),
                (Err(error), _) => return Err(error.into()),
            }
        }
        let why =
            refused.map(|why| Redactor::default().clean(&format!("what the mirror has cannot be kept here: {why}")));
        Ok((Some(held), why))
    }
}

/// The ref for the conflict of `name`. The digits keep apart what git cannot store side by side, like `x` and `x/y`.
fn place(prefix: &str, name: &RefName) -> Option<RefName> {
    let digits: String = Sha256::digest(name.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let rest = name.as_bytes().strip_prefix(b"refs/").unwrap_or(name.as_bytes());
    RefName::new(&[prefix.as_bytes(), digits.as_bytes(), b"/", rest].concat())
}

/// The ref in conflict for which `place`, a ref below `prefix`, was made.
fn replaced(prefix: &str, place: &RefName) -> Option<RefName> {
    let rest = place.as_bytes().strip_prefix(prefix.as_bytes())?;
    let at = rest.iter().position(|byte| *byte == b'/')?;
    RefName::new(&[b"refs/", &rest[at + 1..]].concat())
}
