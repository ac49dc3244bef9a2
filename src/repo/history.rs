//! Questions about history: is one value an ancestor of another, and which commits does the mirror lack.
//!
//! Walks use the commit-graph if there is one, and share what they have read. There is no process per ref. A tag counts as the commit that
//! it peels to; a tag of a blob or tree has no ancestry.

use std::collections::{BinaryHeap, HashMap};

use gix::ObjectId;
use gix::revision::plumbing::merge_base;
use gix::revision::plumbing::merge_base::Flags;
use gix::revwalk::graph::Commit;

use super::{Error, Repository, from_gix, is_refused, to_gix};
use crate::refs::{Ancestry, Oid};

/// The graph of commits that walks of one repository share.
pub struct History<'r> {
    repository: &'r Repository,
    graph: gix::revwalk::Graph<'r, 'r, Commit<Flags>>,
}

/// Maximum number of commits that are kept between questions. Each question clears the marks of all of them.
const MAX_GRAPH: usize = 10_000;

/// If the mirror has at most this many values, all of them tell pack-objects what to leave out, as in `git push`.
const FEW_HAVES: usize = 1000;

/// Maximum number of commits that the search for the boundary of new history visits. After that, all values of the mirror are used.
const MAX_WALK: usize = 1000;

/// A commit that the mirror may lack.
const NEW: u8 = 1;
/// A commit that the mirror has.
const HAVE: u8 = 2;
/// A commit that is in the queue of a walk.
const QUEUED: u8 = 4;

impl Repository {
    /// The commit-graph, if there is one that can be used. A damaged one counts as none, because a commit-graph only saves time.
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
    /// The commits from `tip` along first parents, newest first. The list ends before the first commit that is in `haves` or is not here.
    #[must_use]
    pub fn first_parents(&self, tip: Oid, haves: &HashMap<Oid, u32>) -> Vec<Oid> {
        let Ok(walk) = self.inner.rev_walk([to_gix(tip)]).first_parent_only().all() else { return Vec::new() };
        let commits = walk.map_while(Result::ok).map(|commit| from_gix(&commit.id));
        commits.take_while(|oid| !haves.contains_key(oid)).collect()
    }
}

impl Repository {
    /// The commits that are reachable from `tips`, newest first. It ends early where a commit cannot be read.
    pub fn newest_first(&self, tips: &[Oid]) -> impl Iterator<Item = Oid> + use<'_> {
        let tips: Vec<ObjectId> =
            tips.iter().filter_map(|tip| self.commit_of(*tip).ok().flatten()).map(to_gix).collect();
        let order = gix::traverse::commit::simple::CommitTimeOrder::NewestFirst;
        let walk = self.inner.rev_walk(tips).sorting(gix::revision::walk::Sorting::ByCommitTime(order)).all().ok();
        walk.into_iter().flatten().map_while(Result::ok).map(|commit| from_gix(&commit.id))
    }
}

impl<'r> History<'r> {
    /// Prepares for questions about `repository`; `graph` is what [`Repository::commit_graph`] returned.
    #[must_use]
    pub fn new(repository: &'r Repository, graph: Option<&'r gix::commitgraph::Graph>) -> Self {
        Self { repository, graph: repository.inner.revision_graph(graph) }
    }

    /// How the mirror's value relates to ours. [`Ancestry::Unknown`] if its object is not here or the history is not whole.
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

    /// Whether the commit of `old` is that of `new` or an ancestor of it. `Some(false)` if one of them is not here or peels to no commit.
    /// `None` when history is not whole.
    ///
    /// # Errors
    /// [`Error::Read`] when the operating system did not let us look.
    pub fn is_ancestor(&mut self, old: Oid, new: Oid) -> Result<Option<bool>, Error> {
        let (Some(old), Some(new)) = (self.repository.commit_of(old)?, self.repository.commit_of(new)?) else {
            return Ok(Some(false));
        };
        if self.graph.len() > MAX_GRAPH {
            self.graph.clear();
        }
        let old = to_gix(old);
        match merge_base(old, &[to_gix(new)], &mut self.graph) {
            Ok(bases) => Ok(Some(bases.is_some_and(|bases| bases.first() == &old))),
            Err(error) if is_refused(&error) => Err(self.repository.unreadable("the history", &error)),
            Err(_) => Ok(None),
        }
    }
}

impl Repository {
    /// The values that pack-objects may assume on the mirror, so that it leaves their history out. If they are few, all are named, as
    /// in `git push`. If they are many, only those that bound the history of `tips` are named, provided that a short walk finds them.
    #[must_use]
    pub fn boundary(&self, tips: &[Oid], haves: &HashMap<Oid, u32>) -> Vec<Oid> {
        let all = || haves.keys().copied().filter(|have| self.contains(*have)).collect();
        if haves.len() <= FEW_HAVES {
            return all();
        }
        let tips: Vec<ObjectId> =
            tips.iter().filter_map(|tip| self.commit_of(*tip).ok().flatten()).map(to_gix).collect();
        match self.closed_by(&tips, haves, MAX_WALK) {
            Some((_, met)) => met,
            None => all(),
        }
    }

    /// The commits in the history of `tips` that a mirror with the values `haves` lacks. `None` when there are more than `most`, when
    /// a commit cannot be read, or when the search would take long.
    #[must_use]
    pub(super) fn new_commits(
        &self,
        tips: &[ObjectId],
        haves: &HashMap<Oid, u32>,
        most: usize,
    ) -> Option<Vec<ObjectId>> {
        if haves.len() > FEW_HAVES {
            return self.closed_by(tips, haves, most).map(|(commits, _)| commits);
        }
        let graph = self.commit_graph();
        let mut walk = Walk::new(self.inner.revision_graph(graph.as_ref()));
        for have in haves.keys().filter(|have| self.contains(**have)) {
            if let Some(commit) = self.commit_of(*have).ok()? {
                walk.mark(to_gix(commit), HAVE)?;
            }
        }
        for tip in tips {
            walk.mark(*tip, NEW)?;
        }
        walk.new_commits(most)
    }

    /// The commits from `tips` down to values of `haves`, and the values that were reached. `None`
    /// when there are more than `most` commits, when a commit cannot be read, or when a line of
    /// history does not reach such a value.
    fn closed_by(
        &self,
        tips: &[ObjectId],
        haves: &HashMap<Oid, u32>,
        most: usize,
    ) -> Option<(Vec<ObjectId>, Vec<Oid>)> {
        let met = std::cell::RefCell::new(Vec::new());
        let order = gix::traverse::commit::simple::CommitTimeOrder::NewestFirst;
        let walk = self.inner.rev_walk(tips.iter().copied()).sorting(gix::revision::walk::Sorting::ByCommitTime(order));
        let walk = walk.selected(|id| {
            let oid = from_gix(id);
            let is_have = haves.contains_key(&oid);
            if is_have {
                met.borrow_mut().push(oid);
            }
            !is_have
        });
        let mut commits = Vec::new();
        for commit in walk.ok()? {
            let commit = commit.ok()?;
            if commits.len() == most || commit.parent_ids.is_empty() {
                return None;
            }
            commits.push(commit.id);
        }
        Some((commits, met.into_inner()))
    }
}

/// A walk like git's `limit_list`: it finds the commits that are reachable from the new values and from no value of the mirror, newest
/// first. It is exact as long as no commit has an earlier date than its parents. Otherwise it may report a commit as new although the
/// mirror has it.
struct Walk<'r> {
    graph: gix::revwalk::Graph<'r, 'r, Commit<u8>>,
    queue: BinaryHeap<(gix::date::SecondsSinceUnixEpoch, ObjectId)>,
    /// How many commits in the queue are new as far as it is known.
    new: usize,
}

impl<'r> Walk<'r> {
    /// Maximum number of commits that are visited. If that is not enough, git makes the pack.
    const MAX_VISITED: usize = 2000;

    fn new(graph: gix::revwalk::Graph<'r, 'r, Commit<u8>>) -> Self {
        Self { graph, queue: BinaryHeap::new(), new: 0 }
    }

    /// Marks a commit, and puts it into the queue if the mark is new. `None` when the commit cannot be read.
    fn mark(&mut self, id: ObjectId, mark: u8) -> Option<()> {
        let commit = self.graph.get_or_insert_commit(id, |_| {}).ok()??;
        let before = commit.data;
        if before & mark != 0 {
            return Some(());
        }
        commit.data = before | mark | QUEUED;
        let time = commit.commit_time;
        self.new += usize::from(commit.data == NEW | QUEUED);
        self.new -= usize::from(before == NEW | QUEUED);
        if before & QUEUED == 0 {
            self.queue.push((time, id));
        }
        Some(())
    }

    /// Walks until no mark can change any more. `None` when more than `most` commits are new, a commit cannot be
    /// read, or the walk is too long.
    fn new_commits(mut self, most: usize) -> Option<Vec<ObjectId>> {
        let (mut found, mut oldest, mut looked) = (Vec::new(), i64::MAX, 0);
        while let Some((time, id)) = self.queue.pop() {
            if self.new == 0 && time < oldest {
                break;
            }
            looked += 1;
            let commit = self.graph.get_mut(&id)?;
            let marks = commit.data & !QUEUED;
            commit.data = marks;
            let parents = commit.parents.clone();
            if marks == NEW {
                self.new -= 1;
                oldest = oldest.min(time);
                found.push(id);
            }
            if found.len() > most || looked > Self::MAX_VISITED {
                return None;
            }
            for parent in parents {
                self.mark(parent, if marks & HAVE == 0 { NEW } else { HAVE })?;
            }
        }
        let graph = &self.graph;
        found.retain(|id| graph.get(id).is_some_and(|commit| commit.data & HAVE == 0));
        found.dedup();
        Some(found)
    }
}
