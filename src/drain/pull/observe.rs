//! The facts for the plan of a pull.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Pull;
use super::stage::{Compared, Pair};
use crate::config::{Direction, Mirror};
use crate::credentials::Cleaned;
use crate::drain::Error;
use crate::drain::flapping::is_flapping;
use crate::fetch::Listed;
use crate::plan::{BothFacts, FirstContact, Here, ObservedPull, Prune, PullFacts, Rules, Upstream};
use crate::process::{self, git};
use crate::refs::{Ancestry, Local, Oid, RefName};
use crate::repo::{History, Repository};

/// How long git may take to look for the roots of one history.
const LIMIT: Duration = Duration::from_secs(600);

impl Pull<'_> {
    /// Collects the facts.
    pub(super) fn observe(
        &self,
        objects: &Repository,
        listed: &Listed,
        upstream: &[(RefName, Oid)],
        compared: &Compared,
        rules: &Rules,
    ) -> Result<ObservedPull, Error> {
        let graph = self.repository.commit_graph();
        let mut history = History::new(objects, graph.as_ref());
        let mut refs = Vec::with_capacity(compared.refs.len());
        let gives = |value: &Oid| !compared.unfetched.contains_key(value);
        for (name, local, there, base) in &compared.refs {
            let base = base.filter(|_| !self.begins_anew(listed));
            // Whether the values of a ref are merged matters only if the ref may be deleted.
            let is_asked = there.is_none() && (base.is_some() || rules.prune == Prune::Mirror);
            let one = (name.clone(), *local, *there, base);
            let default = listed.head_value.filter(|value| is_asked && gives(value));
            refs.push(match there.and_then(|value| compared.unfetched.get(&value)) {
                Some(why) => self.facts_without(&one, why),
                None => self.facts(&one, objects, &mut history, default)?,
            });
        }
        let here = self.this_side(compared)?;
        let upstream: Vec<(RefName, Oid)> = upstream.iter().filter(|(_, value)| gives(value)).cloned().collect();
        let is_new = self.is_first;
        let upstream_facts = Upstream {
            is_empty: listed.is_empty,
            had_refs: self.mirrored.exists() && self.mirrored.count() > 0 && !self.begins_anew(listed),
            is_unrelated: is_new && !self.is_confirmed && self.is_unrelated(objects, &upstream, rules)?,
        };
        Ok(ObservedPull {
            refs,
            here,
            upstream: upstream_facts,
            first_contact: if is_new { FirstContact::Unconfirmed } else { FirstContact::Over },
            restore: self.context.restore,
            groups: Vec::new(),
        })
    }

    /// Whether a person confirmed that a two-way mirror is empty now, so that it gets everything again.
    fn begins_anew(&self, listed: &Listed) -> bool {
        listed.is_empty && self.is_confirmed && self.mirror.sends()
    }

    /// The facts of one ref. `default` is the commit of upstream's default branch, if it matters whether values are merged into it.
    pub(super) fn facts(
        &self,
        (name, local, there, base): &Pair,
        objects: &Repository,
        history: &mut History<'_>,
        default: Option<Oid>,
    ) -> Result<PullFacts, Error> {
        let local = match local {
            Local::At(oid) if !self.repository.is_here(*oid)? => Local::Unreadable,
            local => *local,
        };
        let ancestry = match (local, there) {
            (Local::At(local), Some(there)) if name.tag().is_none() => history.relation(local, *there)?,
            _ => Ancestry::Unknown,
        };
        let mut is_merged = |value: Option<Oid>| -> Result<bool, Error> {
            let (Some(value), Some(default)) = (value, default) else { return Ok(false) };
            Ok(objects.is_here(value)?
                && objects.is_here(default)?
                && objects.commit_of(value)?.is_some()
                && history.is_ancestor(value, default)? == Some(true))
        };
        let ours = if let Local::At(oid) = local { Some(oid) } else { None };
        let is_local_commit = match ours.filter(|_| default.is_some()) {
            Some(ours) => objects.commit_of(ours)? == Some(ours),
            None => false,
        };
        let (is_local_merged, is_base_merged) = (is_merged(ours)?, is_merged(*base)?);
        let both = match self.mirror.direction {
            Direction::Both => self.both_facts(name, [ours, *there, *base], history)?,
            _ => BothFacts::default(),
        };
        Ok(PullFacts {
            name: name.clone(),
            local,
            upstream: *there,
            base: *base,
            ancestry,
            is_local_merged,
            is_base_merged,
            is_local_commit,
            is_flapping: there.is_some_and(|there| is_flapping(self.moves, name, ours, there)),
            is_refused: false,
            unfetched: None,
            other: self.other(name)?,
            both,
        })
    }

    /// The facts of a ref whose value upstream does not give.
    fn facts_without(&self, (name, local, there, base): &Pair, why: &Cleaned) -> PullFacts {
        PullFacts {
            name: name.clone(),
            local: *local,
            upstream: *there,
            base: *base,
            ancestry: Ancestry::Unknown,
            is_local_merged: false,
            is_base_merged: false,
            is_local_commit: false,
            is_flapping: false,
            is_refused: false,
            unfetched: Some(why.to_string()),
            other: None,
            both: BothFacts::default(),
        }
    }

    /// How ours, upstream's value and the base of a ref are related.
    fn both_facts(
        &self,
        name: &RefName,
        [ours, there, base]: [Option<Oid>; 3],
        history: &mut History<'_>,
    ) -> Result<BothFacts, Error> {
        let mut is_in = |old: Option<Oid>, new: Option<Oid>| match (old, new) {
            (Some(old), Some(new)) => history.is_ancestor(old, new).map(|is_in| is_in == Some(true)),
            _ => Ok(false),
        };
        let chosen = self.context.resolve.filter(|one| one.name == *name && (one.local, one.remote) == (ours, there));
        Ok(BothFacts {
            is_base_in_local: is_in(base, ours)?,
            is_base_in_remote: is_in(base, there)?,
            is_remote_in_local: is_in(there, ours)?,
            is_late: there.is_some_and(|there| self.left.contains(name, there)),
            is_hidden: false,
            chosen: chosen.map(|one| one.side),
        })
    }

    fn this_side(&self, compared: &Compared) -> Result<Here, Error> {
        Ok(Here {
            head: self.repository.default_branch()?,
            selected: compared.ours,
            incomplete: compared.scanned.ours.incomplete.clone(),
        })
    }

    /// Another enabled mirror that takes this ref, if there is one. For a two-way mirror, only pull
    /// mirrors count.
    fn other(&self, name: &RefName) -> Result<Option<String>, Error> {
        let is_other = |other: &&Mirror| {
            let takes = if self.mirror.is_pull() { other.takes() } else { other.is_pull() };
            takes && other.is_enabled && other.name != self.mirror.name
        };
        let mut others = self.context.config.mirrors.iter().filter(is_other).peekable();
        if others.peek().is_none() {
            return Ok(None);
        }
        let default_branch = self.repository.default_branch()?;
        let selects =
            |other: &&Mirror| self.context.config.rules(other, default_branch.as_ref()).selects(name.borrowed());
        Ok(others.find(selects).map(|other| other.name.clone()))
    }

    /// Whether both sides have selected branches or tags, and no branch of one shares a commit with
    /// a branch of the other. Two histories that share a commit also share a root, so only roots
    /// are compared.
    fn is_unrelated(&self, objects: &Repository, upstream: &[(RefName, Oid)], rules: &Rules) -> Result<bool, Error> {
        let is_branch_or_tag = |name: &RefName| name.branch().or_else(|| name.tag()).is_some();
        let ours: Vec<(RefName, Oid)> = self
            .ours(rules)?
            .refs
            .into_iter()
            .filter_map(|(name, local)| if let Local::At(oid) = local { Some((name, oid)) } else { None })
            .collect();
        let has_any = |refs: &[(RefName, Oid)]| refs.iter().any(|(name, _)| is_branch_or_tag(name));
        if !has_any(&ours) || !has_any(upstream) {
            return Ok(false);
        }
        let branches = |refs: &[(RefName, Oid)]| -> BTreeSet<Oid> {
            refs.iter().filter(|(name, _)| name.branch().is_some()).map(|(_, oid)| *oid).collect()
        };
        let (ours, theirs) = (branches(&ours), branches(upstream));
        if ours.iter().any(|oid| theirs.contains(oid)) {
            return Ok(false);
        }
        let roots = |tips: &BTreeSet<Oid>| roots(objects, tips);
        Ok(roots(&ours)?.is_disjoint(&roots(&theirs)?))
    }
}

/// The commits without parents that are reachable from `tips`.
fn roots(repository: &Repository, tips: &BTreeSet<Oid>) -> Result<BTreeSet<Oid>, Error> {
    let input: String = tips.iter().map(|oid| format!("{oid}\n")).collect();
    let command = &mut git(repository.git_dir(), &["rev-list", "--max-parents=0", "--stdin"]);
    let said = process::run_long("git rev-list", command, input.as_bytes(), LIMIT)
        .map_err(|error| Error::Mirror(crate::mirror::Error::Program(error)))?;
    Ok(said.split(|byte| *byte == b'\n').filter_map(Oid::from_hex).collect())
}
