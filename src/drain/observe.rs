//! The facts for the plan: our refs, the mirror's, the values that this repository had, and how they are related.

use std::collections::{BTreeSet, HashMap};

use super::Error;
use super::coalesce::{RefHistory, Touched};
use super::flapping::is_flapping;
use crate::mirror::LocalMirror;
use crate::plan::{Deleted, FirstContact, Kind, Limits, Mirror, Observed, RefFacts, Rules, Source};
use crate::push::{Advertised, Capabilities, Session};
use crate::refs::{Ancestry, Local, NameRef, Oid, RefName};
use crate::repo::{History, Listing, Repository};
use crate::status::{Held, Mirrored, Move};
use crate::wire::Address;

/// Which refs are looked at.
pub(super) enum Scope {
    /// All that are selected.
    All,
    /// These.
    Refs(BTreeSet<RefName>),
}

/// The mirror's side, as its advertisement says it.
pub(super) struct Remote {
    pub(super) advertised: Advertised,
    /// The refs in scope, sorted.
    refs: Vec<(RefName, Oid)>,
    /// Every value that it has, selected or not, and how many refs have it. 0 for a value that it has without a ref.
    pub(super) values: HashMap<Oid, u32>,
    selected: usize,
    /// How many branches and tags it has, selected or not.
    pub(super) branches_and_tags: usize,
    /// The values of refs that are neither branches nor tags, and how many such refs have each.
    others: HashMap<Oid, u32>,
    /// The mirror's repository, if it is on this machine. It shows HEAD and symbolic refs, which the advertisement does not.
    own: Option<LocalMirror>,
}

impl Remote {
    /// The mirror's side as the base has it: the sorted `refs`, and `other`, the value of one more ref.
    pub(super) fn believed(
        address: &Address,
        capabilities: &Capabilities,
        refs: Vec<(RefName, Oid)>,
        other: Option<Oid>,
    ) -> Self {
        let mut values = HashMap::new();
        refs.iter().map(|(_, oid)| *oid).chain(other).for_each(|oid| *values.entry(oid).or_default() += 1);
        let advertised = Advertised { capabilities: capabilities.clone(), is_empty: false };
        Self {
            advertised,
            selected: refs.len(),
            branches_and_tags: refs.len(),
            others: HashMap::new(),
            refs,
            values,
            own: LocalMirror::of(address),
        }
    }

    /// The mirror's side of a repository that is still to be made.
    pub(super) fn new_one(address: &Address, object_format: &str) -> Self {
        let capabilities = Capabilities {
            report_status: true,
            delete_refs: true,
            atomic: true,
            object_format: object_format.to_owned(),
            ..Capabilities::default()
        };
        AdvertisedRefs::default().into_remote(Advertised { capabilities, is_empty: true }, address)
    }

    /// Adds values whose objects the mirror has, with or without a ref.
    pub(super) fn add_objects(&mut self, values: &[Oid]) {
        values.iter().for_each(|oid| {
            self.values.entry(*oid).or_default();
        });
    }

    /// The value of a ref in scope.
    pub(super) fn value(&self, name: &RefName) -> Option<Oid> {
        let at = self.refs.binary_search_by(|(other, _)| other.cmp(name)).ok()?;
        Some(self.refs[at].1)
    }

    /// The kind of a ref on the mirror. If `is_ours`, this repository made the ref, so it is not a symbolic one.
    fn kind(&self, name: &RefName, value: Oid, is_ours: bool) -> Kind {
        match self.own.as_ref().map(|mirror| mirror.kind(name)) {
            Some(Ok(true)) => Kind::Symbolic,
            Some(Ok(false)) => Kind::Plain,
            Some(Err(_)) => Kind::Unreadable,
            None if !is_ours && self.values.get(&value).is_some_and(|count| *count > 1) => Kind::MaybeSymbolic,
            None => Kind::Plain,
        }
    }
}

impl Remote {
    /// The kind of a ref that is not advertised. It may be a dangling symbolic ref, and a push would write through it.
    fn dangling(&self, name: &RefName) -> Kind {
        match self.own.as_ref().map(|mirror| mirror.kind(name)) {
            Some(Ok(true)) => Kind::Symbolic,
            Some(Err(_)) => Kind::Unreadable,
            Some(Ok(false)) | None => Kind::Plain,
        }
    }
}

/// An advertisement, collected while it streams in.
#[derive(Default)]
pub(super) struct AdvertisedRefs {
    /// The selected refs that the caller keeps.
    pub(super) refs: Vec<(RefName, Oid)>,
    values: HashMap<Oid, u32>,
    selected: usize,
    branches_and_tags: usize,
    others: HashMap<Oid, u32>,
}

impl AdvertisedRefs {
    /// Counts a ref. Returns whether it is selected.
    pub(super) fn count(&mut self, rules: &Rules, name: NameRef<'_>, oid: Oid) -> bool {
        *self.values.entry(oid).or_default() += 1;
        let is_selected = rules.selects(name);
        self.selected += usize::from(is_selected);
        match name.branch().or_else(|| name.tag()) {
            Some(_) => self.branches_and_tags += 1,
            None => *self.others.entry(oid).or_default() += 1,
        }
        is_selected
    }

    /// Sorts the refs and removes duplicates. git sorts its advertisement; other servers may not, or may repeat a ref.
    pub(super) fn into_remote(self, advertised: Advertised, address: &Address) -> Remote {
        let Self { mut refs, values, selected, branches_and_tags, others } = self;
        if !refs.is_sorted() {
            refs.sort_unstable();
        }
        refs.dedup_by(|one, other| one.0 == other.0);
        Remote { advertised, refs, values, selected, branches_and_tags, others, own: LocalMirror::of(address) }
    }
}

/// Reads the advertisement and keeps the selected refs in `names`.
pub(super) fn remote(
    session: &mut Session,
    address: &Address,
    rules: &Rules,
    names: &BTreeSet<RefName>,
) -> Result<Remote, Error> {
    let mut heard = AdvertisedRefs::default();
    let advertised = session.advertisement(&mut |name, oid| {
        if heard.count(rules, name, oid) && names.contains(name.as_bytes()) {
            heard.refs.push((name.to_owned(), oid));
        }
    })?;
    Ok(heard.into_remote(advertised, address))
}

/// What is needed to judge a ref besides the two sides.
pub(super) struct KnownValues<'a> {
    pub(super) touched: &'a Touched,
    pub(super) mirrored: &'a Mirrored,
    /// The recent moves of refs; empty if a person asked to push flapping refs again.
    pub(super) moves: &'a [Move],
}

/// Where our side of the refs comes from.
pub(super) enum LocalRefs<'a> {
    /// A list of all that may differ.
    Listed(Listing),
    /// These refs, each read by name.
    Asked(&'a BTreeSet<RefName>),
}

/// Collects the facts. Also returns what `mirrored/` records for each ref.
pub(super) fn observe(
    repository: &Repository,
    ours: LocalRefs<'_>,
    remote: &Remote,
    past: &KnownValues<'_>,
    first_contact: FirstContact,
) -> Result<(Observed, Vec<Held>), Error> {
    let default_branch = repository.default_branch()?;
    let (mut sides, incomplete, default_oid) = sides(repository, ours, remote, default_branch.as_ref())?;
    look_again(repository, &mut sides)?;
    let noted = past.mirrored.find_sorted(sides.iter().map(|side| &side.name)).map_err(unreadable)?;
    let graph = repository.commit_graph();
    let history = History::new(repository, graph.as_ref());
    let mut judge = FactBuilder { repository, history, default_oid, first_contact, moves: past.moves };
    let nothing = RefHistory::default();
    let mut refs = Vec::with_capacity(sides.len());
    for (side, held) in sides.into_iter().zip(&noted) {
        let known = past.touched.refs.get(&side.name).unwrap_or(&nothing);
        refs.push(judge.facts(remote, side, held, known)?);
    }
    let is_empty = refs.iter().all(|facts| facts.local == Local::Absent) && !repository.has_refs()?;
    // The mirror's HEAD matters only where a ref may be deleted.
    let is_only_there = |facts: &RefFacts| facts.local == Local::Absent && facts.remote.is_some();
    let own = remote.own.as_ref().filter(|_| refs.iter().any(is_only_there));
    let capabilities = &remote.advertised.capabilities;
    let observed = Observed {
        refs,
        source: Source { default_branch, is_empty, incomplete },
        mirror: Mirror {
            is_empty: remote.advertised.is_empty,
            head: own.and_then(LocalMirror::head),
            head_error: own.and_then(LocalMirror::head_error),
            selected: remote.selected,
            can_delete: capabilities.delete_refs,
            can_report: capabilities.report_status || capabilities.report_status_v2,
            can_push_atomically: capabilities.atomic,
            is_stranger: first_contact == FirstContact::Unconfirmed && is_stranger(repository, remote),
        },
        first_contact,
        limits: Limits::default(),
    };
    Ok((observed, noted))
}

/// Whether the mirror has branches or tags, and none of their values is here.
fn is_stranger(repository: &Repository, remote: &Remote) -> bool {
    let is_of_branch_or_tag = |(oid, count): &(&Oid, &u32)| remote.others.get(oid).is_none_or(|others| others < count);
    remote.branches_and_tags > 0
        && !remote.values.iter().filter(is_of_branch_or_tag).any(|(oid, _)| repository.contains(*oid))
}

fn oid_of(local: Local) -> Option<Oid> {
    if let Local::At(oid) = local { Some(oid) } else { None }
}

/// A ref as it is on both sides.
struct RefPair {
    name: RefName,
    local: Local,
    /// The mirror's value.
    value: Option<Oid>,
}

/// The refs in question, sorted; why our own list may lack something; and the value of the default branch.
type RefPairs = (Vec<RefPair>, Option<String>, Option<Oid>);

fn sides(
    repository: &Repository,
    ours: LocalRefs<'_>,
    there: &Remote,
    default_branch: Option<&RefName>,
) -> Result<RefPairs, Error> {
    let asked: Vec<&RefName> = match &ours {
        LocalRefs::Listed(_) => Vec::new(),
        LocalRefs::Asked(names) => names.iter().collect(),
    };
    let names: Vec<&RefName> = asked.iter().copied().chain(default_branch).collect();
    let mut found = repository.find_each(&names)?.into_iter();
    let (sides, incomplete) = match ours {
        LocalRefs::Listed(listing) => (merged(listing.refs, &there.refs), listing.incomplete),
        LocalRefs::Asked(_) => {
            let side =
                |(name, local): (&RefName, Local)| RefPair { name: name.clone(), local, value: there.value(name) };
            (asked.into_iter().zip(&mut found).map(side).collect(), None)
        }
    };
    Ok((sides, incomplete, found.next().and_then(oid_of)))
}

/// Reads again the refs that only the mirror seems to have. `git pack-refs` may have hidden a ref from the first read, so a ref counts as
/// absent only if both reads miss it.
fn look_again(repository: &Repository, sides: &mut [RefPair]) -> Result<(), Error> {
    let is_missing = |side: &&RefPair| side.local == Local::Absent && side.value.is_some();
    let missing: Vec<&RefName> = sides.iter().filter(is_missing).map(|side| &side.name).collect();
    let found = repository.find_each(&missing)?;
    for (side, local) in sides.iter_mut().filter(|side| is_missing(&&**side)).zip(found) {
        side.local = local;
    }
    Ok(())
}

/// Two sorted lists as one.
fn merged(locals: Vec<(RefName, Local)>, there: &[(RefName, Oid)]) -> Vec<RefPair> {
    let mut sides = Vec::with_capacity(locals.len().max(there.len()));
    let only_there =
        |(name, oid): &(RefName, Oid)| RefPair { name: name.clone(), local: Local::Absent, value: Some(*oid) };
    let mut there = there.iter().peekable();
    for (name, local) in locals {
        while let Some(before) = there.next_if(|(other, _)| *other < name) {
            sides.push(only_there(before));
        }
        let value = there.next_if(|(other, _)| *other == name).map(|(_, oid)| *oid);
        sides.push(RefPair { name, local, value });
    }
    sides.extend(there.map(only_there));
    sides
}

struct FactBuilder<'r> {
    repository: &'r Repository,
    history: History<'r>,
    default_oid: Option<Oid>,
    first_contact: FirstContact,
    /// The recent moves of refs.
    moves: &'r [Move],
}

impl FactBuilder<'_> {
    fn facts(&mut self, there: &Remote, side: RefPair, held: &Held, known: &RefHistory) -> Result<RefFacts, Error> {
        let RefPair { name, local, value: remote } = side;
        let local = match local {
            // A power failure may have left a ref whose object never reached the disk. It must not stop the others.
            Local::At(oid) if remote != Some(oid) && !self.repository.is_here(oid)? => Local::Unreadable,
            seen => seen,
        };
        let is_known = |oid| held.base == Some(oid) || held.deleted.contains(&oid) || known.olds.contains(&oid);
        let is_remote_known = remote.is_some_and(is_known);
        let ancestry = match (local, remote) {
            (Local::At(local), Some(remote)) => self.history.relation(remote, local)?,
            _ => Ancestry::Unknown,
        };
        let deleted = match (local, remote) {
            (Local::Absent, Some(remote)) => self.deletion(remote, held, known)?,
            _ => Deleted::default(),
        };
        let kind = match remote {
            Some(remote) if local != Local::At(remote) => {
                there.kind(&name, remote, deleted.is_known || is_remote_known)
            }
            None => there.dangling(&name),
            _ => Kind::Plain,
        };
        let is_asked = |oid: Oid| self.first_contact == FirstContact::Over || self.repository.contains(oid);
        let is_flapping = match local {
            Local::At(local) if remote != Some(local) => is_flapping(self.moves, &name, remote, local),
            _ => false,
        };
        let is_remote_here = remote.is_some_and(is_asked);
        Ok(RefFacts {
            name,
            local,
            remote,
            ancestry,
            is_remote_known,
            kind,
            deleted,
            is_remote_here,
            is_flapping,
            decided: None,
            is_refused: false,
        })
    }

    /// What is known of the deletion of a ref here. The deleted values come from the spool and from `mirrored/`. If neither has one, the
    /// base stands for them, or else the older values that the spool knows.
    fn deletion(&mut self, remote: Oid, held: &Held, known: &RefHistory) -> Result<Deleted, Error> {
        let mut values: BTreeSet<Oid> = known.deleted.union(&held.deleted).copied().collect();
        if values.is_empty() {
            values.extend(held.base);
        }
        if values.is_empty() {
            values.clone_from(&known.olds);
        }
        if values.is_empty() {
            return Ok(Deleted::default());
        }
        let is_remote_merged = self.is_merged(remote)?;
        let mut is_value_merged = true;
        for value in values {
            is_value_merged &= self.is_merged(value)?;
        }
        Ok(Deleted { is_known: true, is_remote_merged, is_value_merged })
    }

    /// Whether `oid` is in the default branch. The default branch counts with its current value here, even if the mirror does not have that
    /// value yet.
    fn is_merged(&mut self, oid: Oid) -> Result<bool, Error> {
        let Some(default) = self.default_oid else { return Ok(false) };
        Ok(self.repository.commit_of(oid)?.is_some() && self.history.is_ancestor(oid, default)? == Some(true))
    }
}

/// The error for a `mirrored/` that cannot be read. It must not count as empty.
pub(super) fn unreadable(source: std::io::Error) -> Error {
    Error::files("read what the mirror had", "mirrored".into())(source)
}
