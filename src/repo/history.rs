//! Questions about history: is one value an ancestor of another, and where does new history leave what a mirror has.
//!
//! Walks use the commit-graph where there is one and share what they have read; there is no process per ref. A tag counts
//! as the commit that it peels to; a tag of a blob or a tree has no ancestry.

use std::collections::HashMap;

use gix::revision::plumbing::merge_base;
use gix::revision::plumbing::merge_base::Flags;
use gix::revwalk::graph::Commit;

use super::{Error, Repository, from_gix, is_refused, to_gix};
use crate::refs::{Ancestry, Oid};

/// What walks of one repository have in common.
pub struct History<'r> {
    repository: &'r Repository,
    graph: gix::revwalk::Graph<'r, 'r, Commit<Flags>>,
}

/// Commits are kept between questions up to this number: each question clears the marks of all of them.
const LARGEST_GRAPH: usize = 10_000;

/// How many commits a search for the border of new history may visit.
const LONGEST_WALK: usize = 50_000;

impl Repository {
    /// The commit-graph, if there is one that can be used. A damaged one is as good as none: it only saves time.
    #[must_use]
    pub fn commit_graph(&self) -> Option<gix::commitgraph::Graph> {
        self.inner.commit_graph_if_enabled().ok().flatten()
    }

    /// The commit that `oid` is or peels to, if it is here and whole.
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn commit_of(&self, oid: Oid) -> Result<Option<Oid>, Error> {
        if !self.may_hold(oid) {
            return Ok(None);
        }
        let found = self
            .inner
            .try_find_object(to_gix(oid))
            .and_then(|object| object.map(|object| object.peel_to_kind(gix::object::Kind::Commit)).transpose());
        match found {
            Ok(commit) => Ok(commit.map(|commit| from_gix(&commit.id))),
            Err(error) if is_refused(&error) => Err(self.unreadable(&oid.to_string(), &error)),
            Err(_) => Ok(None),
        }
    }
}

impl Repository {
    /// The commits from `tip` along first parents, newest first, up to the first that is in `haves`, or that is not here.
    #[must_use]
    pub fn first_parents(&self, tip: Oid, haves: &HashMap<Oid, u32>) -> Vec<Oid> {
        let Ok(walk) = self.inner.rev_walk([to_gix(tip)]).first_parent_only().all() else { return Vec::new() };
        let commits = walk.map_while(Result::ok).map(|commit| from_gix(&commit.id));
        commits.take_while(|oid| !haves.contains_key(oid)).collect()
    }
}

impl<'r> History<'r> {
    /// Prepares for questions about `repository`; `graph` is what [`Repository::commit_graph`] returned.
    #[must_use]
    pub fn new(repository: &'r Repository, graph: Option<&'r gix::commitgraph::Graph>) -> Self {
        Self { repository, graph: repository.inner.revision_graph(graph) }
    }

    /// How the mirror's value relates to ours. History that is not whole counts as [`Ancestry::Unknown`].
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn relation(&mut self, remote: Oid, local: Oid) -> Result<Ancestry, Error> {
        if remote == local {
            return Ok(Ancestry::Equal);
        }
        if !self.repository.is_here(remote)? {
            return Ok(Ancestry::Unknown);
        }
        Ok(match self.is_ancestor(remote, local)? {
            Some(true) => Ancestry::Behind,
            Some(false) => Ancestry::Diverged,
            None => Ancestry::Unknown,
        })
    }

    /// Whether `old` is `new` or an ancestor of it. `None` when history is not whole.
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn is_ancestor(&mut self, old: Oid, new: Oid) -> Result<Option<bool>, Error> {
        let (Some(old), Some(new)) = (self.repository.commit_of(old)?, self.repository.commit_of(new)?) else {
            return Ok(Some(false));
        };
        if self.graph.len() > LARGEST_GRAPH {
            self.graph.clear();
        }
        let old = to_gix(old);
        match merge_base(old, &[to_gix(new)], &mut self.graph) {
            Ok(bases) => Ok(Some(bases.is_some_and(|bases| bases.first() == &old))),
            Err(error) if is_refused(&error) => Err(self.repository.unreadable("the history", &error)),
            Err(_) => Ok(None),
        }
    }

    /// Which of `haves` (objects that the mirror has) border on the history of `tips`: what pack-objects must be told to
    /// leave out everything the mirror has. The walk stops at each have that it meets; when it has met none after
    /// 50,000 commits, every have that is here is returned.
    #[must_use]
    pub fn border(&self, tips: &[Oid], haves: &HashMap<Oid, u32>) -> Vec<Oid> {
        if !haves.keys().any(|have| self.repository.contains(*have)) {
            return Vec::new();
        }
        let tips = tips.iter().filter_map(|tip| self.repository.commit_of(*tip).ok().flatten()).map(to_gix);
        let met = std::cell::RefCell::new(Vec::new());
        let walk = self
            .repository
            .inner
            .rev_walk(tips)
            .sorting(gix::revision::walk::Sorting::ByCommitTime(
                gix::traverse::commit::simple::CommitTimeOrder::NewestFirst,
            ))
            .selected(|id| {
                let oid = from_gix(id);
                let is_have = haves.contains_key(&oid);
                if is_have {
                    met.borrow_mut().push(oid);
                }
                !is_have
            });
        let mut visited = 0;
        if let Ok(walk) = walk {
            visited = walk.take(LONGEST_WALK).take_while(Result::is_ok).count();
        }
        let mut border = met.take();
        if visited == LONGEST_WALK && border.is_empty() {
            border = haves.keys().copied().filter(|have| self.repository.contains(*have)).collect();
        }
        border.sort_unstable();
        border.dedup();
        border
    }
}
