//! Facts for the plan: our refs, the mirror's, what this repository is known to have had, and how they are related.

use std::collections::{BTreeSet, HashMap};

use super::Error;
use super::coalesce::{Known, Touched};
use crate::plan::{Deleted, Kind, Mirror, Observed, RefFacts, Rules, Source};
use crate::push::{Address, Advertised, LocalMirror, Session};
use crate::refs::{Ancestry, Local, Oid, RefName};
use crate::repo::{History, Repository};
use crate::status::Mirrored;

/// Which refs are looked at.
pub(super) enum Scope {
    /// All that are selected.
    All,
    /// These.
    Refs(BTreeSet<RefName>),
}

impl Scope {
    fn holds(&self, name: &RefName) -> bool {
        match self {
            Self::All => true,
            Self::Refs(names) => names.contains(name),
        }
    }
}

/// The mirror's side, as its advertisement says it.
pub(super) struct Remote {
    pub(super) advertised: Advertised,
    /// The refs in scope.
    refs: HashMap<RefName, Oid>,
    /// Every value that it has, selected or not, and how many refs have it.
    pub(super) values: HashMap<Oid, u32>,
    selected: usize,
    own: Own,
}

/// What the advertisement of receive-pack does not say, and a mirror on this machine lets us see.
enum Own {
    Seen(LocalMirror),
    Unseen,
}

impl Remote {
    /// Whether the mirror has this ref, as far as it is in scope.
    pub(super) fn has(&self, name: &RefName) -> bool {
        self.refs.contains_key(name)
    }

    /// What kind of ref it is there. `is_ours` says that we made it, so that it was no symbolic ref.
    fn kind(&self, name: &RefName, value: Oid, is_ours: bool) -> Kind {
        match &self.own {
            Own::Seen(mirror) if mirror.is_symbolic(name) => Kind::Symbolic,
            Own::Seen(_) => Kind::Plain,
            Own::Unseen if !is_ours && self.values.get(&value).is_some_and(|count| *count > 1) => Kind::MaybeSymbolic,
            Own::Unseen => Kind::Plain,
        }
    }
}

/// Reads the advertisement.
pub(super) fn remote(session: &mut Session, address: &Address, rules: &Rules, scope: &Scope) -> Result<Remote, Error> {
    let (mut refs, mut values, mut selected) = (HashMap::new(), HashMap::<Oid, u32>::new(), 0);
    let advertised = session.advertisement(&mut |name, oid| {
        *values.entry(oid).or_default() += 1;
        if rules.selects(name) {
            selected += 1;
            if scope.holds(name) {
                refs.insert(name.clone(), oid);
            }
        }
    })?;
    let own = LocalMirror::of(address).map_or(Own::Unseen, Own::Seen);
    Ok(Remote { advertised, refs, values, selected, own })
}

/// What is needed to judge a ref besides the two sides.
pub(super) struct Past<'a> {
    pub(super) touched: &'a Touched,
    pub(super) mirrored: &'a Mirrored,
}

/// Puts the facts together.
pub(super) fn observe(
    repository: &Repository,
    rules: &Rules,
    scope: &Scope,
    remote: &Remote,
    past: &Past<'_>,
) -> Result<Observed, Error> {
    let (mut locals, incomplete) = locals(repository, rules, scope)?;
    let names: Vec<RefName> = match scope {
        Scope::All => {
            let mut names: Vec<RefName> = locals.keys().chain(remote.refs.keys()).cloned().collect();
            names.sort_unstable();
            names.dedup();
            names
        }
        Scope::Refs(names) => names.iter().cloned().collect(),
    };
    if let Scope::All = scope {
        past.mirrored.load().map_err(unreadable)?;
    }
    let default_branch = repository.default_branch()?;
    let graph = repository.commit_graph();
    let default_oid = match &default_branch {
        Some(name) => oid_of(repository.find(name)?),
        None => None,
    };
    let mut judge = Judge { repository, history: History::new(repository, graph.as_ref()), default_oid };
    let nothing = Known::default();
    let mut refs = Vec::with_capacity(names.len());
    for name in names {
        let local = locals.remove(&name).unwrap_or(Local::Absent);
        let known = past.touched.refs.get(&name).unwrap_or(&nothing);
        let mirrored = past.mirrored.find(&name).map_err(unreadable)?;
        refs.push(judge.facts(remote, name, local, mirrored, known)?);
    }
    let is_empty = refs.iter().all(|facts| facts.local == Local::Absent) && !repository.has_refs()?;
    Ok(Observed {
        refs,
        source: Source { default_branch, is_empty, incomplete },
        mirror: Mirror {
            is_empty: remote.advertised.is_empty,
            head: match &remote.own {
                Own::Seen(mirror) => mirror.head(),
                Own::Unseen => None,
            },
            selected: remote.selected,
            can_delete: remote.advertised.capabilities.delete_refs,
        },
    })
}

fn oid_of(local: Local) -> Option<Oid> {
    if let Local::At(oid) = local { Some(oid) } else { None }
}

type Locals = (HashMap<RefName, Local>, Option<String>);

fn locals(repository: &Repository, rules: &Rules, scope: &Scope) -> Result<Locals, Error> {
    match scope {
        Scope::All => {
            let listing = repository.list(|name| rules.selects(name))?;
            Ok((listing.refs.into_iter().collect(), listing.incomplete))
        }
        Scope::Refs(names) => {
            let found = names.iter().map(|name| Ok((name.clone(), repository.find(name)?)));
            Ok((found.collect::<Result<_, Error>>()?, None))
        }
    }
}

struct Judge<'r> {
    repository: &'r Repository,
    history: History<'r>,
    default_oid: Option<Oid>,
}

impl Judge<'_> {
    fn facts(
        &mut self,
        there: &Remote,
        name: RefName,
        listed: Local,
        mirrored: Option<Oid>,
        known: &Known,
    ) -> Result<RefFacts, Error> {
        let remote = there.refs.get(&name).copied();
        // `git pack-refs` may have hidden a ref from the listing: an absence counts only when it is found twice.
        let local = match listed {
            Local::Absent if remote.is_some() => self.repository.find(&name)?,
            // A power failure may have left a ref whose object never reached the disk. It must not stop the others.
            Local::At(oid) if remote != Some(oid) && !self.repository.is_here(oid)? => Local::Unreadable,
            seen => seen,
        };
        let is_remote_known =
            remote.is_some() && (remote == mirrored || remote.is_some_and(|oid| known.olds.contains(&oid)));
        let ancestry = match (local, remote) {
            (Local::At(local), Some(remote)) => self.history.relation(remote, local)?,
            _ => Ancestry::Unknown,
        };
        let deleted = match (local, remote) {
            (Local::Absent, Some(remote)) => self.deletion(remote, mirrored, known)?,
            _ => Deleted::default(),
        };
        let kind = match remote {
            Some(remote) if local != Local::At(remote) => {
                there.kind(&name, remote, deleted.is_known || is_remote_known)
            }
            _ => Kind::Plain,
        };
        Ok(RefFacts { name, local, remote, ancestry, is_remote_known, kind, deleted })
    }

    fn deletion(&mut self, remote: Oid, mirrored: Option<Oid>, known: &Known) -> Result<Deleted, Error> {
        let values: Vec<Oid> = match known.deleted.is_empty() {
            true => mirrored.into_iter().collect(),
            false => known.deleted.iter().copied().collect(),
        };
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

    /// Whether `oid` is in the default branch. A default branch that is itself being moved in this drain counts as it is now.
    fn is_merged(&mut self, oid: Oid) -> Result<bool, Error> {
        let Some(default) = self.default_oid else { return Ok(false) };
        Ok(self.repository.commit_of(oid)?.is_some() && self.history.is_ancestor(oid, default)? == Some(true))
    }
}

/// `mirrored/` that cannot be read is not an empty one.
pub(super) fn unreadable(source: std::io::Error) -> Error {
    Error::Files { doing: "read what the mirror held", path: "mirrored".into(), source }
}
