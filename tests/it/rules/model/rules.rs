//! The model: which values the mirror has after a run, and what is known of it then. Pure: it sees refs and commits, no repository.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The default branch.
pub(super) const MAIN: &str = "refs/heads/main";

pub(super) type Refs = BTreeMap<String, String>;

/// The values that this repository is known to have had for a ref (M in docs/rules.md), without those of queued pushes.
#[derive(Clone, Default)]
struct Known {
    /// The last value that both sides had.
    base: Option<String>,
    /// Values that were deleted here while the mirror kept the ref.
    deleted: BTreeSet<String>,
}

/// A push that is not yet mirrored.
#[derive(Clone)]
pub(super) struct Queued {
    pub(super) name: String,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
}

pub(super) struct Model {
    /// The parents of each commit.
    pub(super) parents: HashMap<String, Vec<String>>,
    /// Objects that only the mirror has.
    pub(super) foreign: BTreeSet<String>,
    pub(super) policy: &'static str,
    pub(super) prune: &'static str,
    pub(super) selection: &'static str,
    known: BTreeMap<String, Known>,
    pub(super) queue: Vec<Queued>,
    /// Refs that the last run listed as not up to date.
    pub(super) listed: BTreeSet<String>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            parents: HashMap::new(),
            foreign: BTreeSet::new(),
            policy: "overwrite",
            prune: "merged",
            selection: ".",
            known: BTreeMap::new(),
            queue: Vec::new(),
            listed: BTreeSet::new(),
        }
    }

    fn is_ancestor(&self, old: &str, new: &str) -> bool {
        if self.foreign.contains(old) {
            return false;
        }
        let (mut open, mut seen) = (vec![new.to_owned()], BTreeSet::new());
        while let Some(commit) = open.pop() {
            if commit == old {
                return true;
            }
            if seen.insert(commit.clone()) {
                open.extend(self.parents.get(&commit).into_iter().flatten().cloned());
            }
        }
        false
    }

    fn selects(&self, name: &str) -> bool {
        match (name.strip_prefix("refs/heads/"), self.selection) {
            (None, _) | (_, ".") => true,
            (Some(branch), "^(main|a)$") => branch == "main" || branch == "a",
            (Some(branch), _) => branch.starts_with('b') || branch.starts_with("c/"),
        }
    }

    /// What the mirror has after a run over these refs; and the refs that are listed as not up to date.
    pub(super) fn expected(
        &self,
        ours: &Refs,
        there: &Refs,
        scope: Option<&BTreeSet<String>>,
    ) -> (Refs, BTreeSet<String>) {
        let (mut after, mut listed, mut diverges) = (there.clone(), BTreeSet::new(), false);
        let names: BTreeSet<&String> = ours.keys().chain(there.keys()).collect();
        for name in names.into_iter().filter(|name| self.selects(name)) {
            if scope.is_some_and(|scope| !scope.contains(name)) {
                continue;
            }
            let known = self.known.get(name).cloned().unwrap_or_default();
            let queued: Vec<&Queued> = self.queue.iter().filter(|queued| queued.name == *name).collect();
            let olds: BTreeSet<String> = queued.iter().filter_map(|queued| queued.old.clone()).collect();
            let is_known = |value: &String| {
                known.base.as_ref() == Some(value) || known.deleted.contains(value) || olds.contains(value)
            };
            match (ours.get(name), there.get(name)) {
                (Some(l), None) => {
                    after.insert(name.clone(), l.clone());
                }
                (Some(l), Some(r)) if l == r || self.is_ancestor(r, l) || is_known(r) || self.policy == "overwrite" => {
                    after.insert(name.clone(), l.clone());
                }
                (Some(_), Some(_)) => {
                    listed.insert(name.clone());
                    diverges = true;
                }
                (None, Some(r)) => {
                    let deletions = queued.iter().filter(|queued| queued.new.is_none());
                    let mut values: BTreeSet<String> = deletions.filter_map(|queued| queued.old.clone()).collect();
                    values.extend(known.deleted.iter().cloned());
                    if values.is_empty() {
                        values.extend(known.base.clone());
                    }
                    if values.is_empty() {
                        values = olds.clone();
                    }
                    let was_here = !values.is_empty();
                    let main = ours.get(MAIN).cloned().unwrap_or_default();
                    let is_merged = |value: &String| !main.is_empty() && self.is_ancestor(value, &main);
                    let by_prune = match self.prune {
                        "merged" => was_here && is_merged(r) && values.iter().all(is_merged),
                        "deleted" => was_here && is_known(r),
                        "mirror" => true,
                        _ => false,
                    };
                    let may = self.policy == "overwrite" || is_known(r);
                    if by_prune && may && name != MAIN && !ours.is_empty() {
                        after.remove(name);
                    } else {
                        listed.insert(name.clone());
                    }
                }
                (None, None) => {}
            }
        }
        if self.policy == "fail" && diverges {
            after = there.clone();
        }
        (after, listed)
    }

    /// Updates what is known after a run that saw these refs, and empties the queue.
    pub(super) fn learn(&mut self, ours: &Refs, there: &Refs, scope: Option<&BTreeSet<String>>) {
        let mut names: BTreeSet<String> = ours.keys().chain(there.keys()).cloned().collect();
        names.extend(self.known.keys().cloned());
        names.retain(|name| self.selects(name));
        for name in names {
            if scope.is_some_and(|scope| !scope.contains(&name)) {
                continue;
            }
            let queued: Vec<Queued> = self.queue.iter().filter(|queued| queued.name == name).cloned().collect();
            let known = self.known.entry(name.clone()).or_default();
            let Some(r) = there.get(&name) else {
                *known = Known::default();
                continue;
            };
            let is_old = known.deleted.contains(r) || queued.iter().any(|queued| queued.old.as_ref() == Some(r));
            if ours.get(&name) == Some(r) {
                *known = Known { base: Some(r.clone()), deleted: BTreeSet::new() };
                continue;
            }
            if is_old {
                known.base = Some(r.clone());
            }
            if !ours.contains_key(&name) {
                known.deleted.extend(queued.into_iter().filter(|q| q.new.is_none()).filter_map(|q| q.old));
            }
        }
        self.queue.clear();
    }
}
