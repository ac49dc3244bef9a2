//! The comparison of our refs, upstream's and the base, and the stage for objects that only upstream has.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::Pull;
use super::check::Heard;
use crate::credentials::{Cleaned, Redactor};
use crate::drain::Error;
use crate::drain::full_scan::{FullScan, Unchanged};
use crate::drain::observe::unreadable;
use crate::durable;
use crate::fetch::{Limit, Stage, Wanted, sweep};
use crate::plan::Rules;
use crate::refs::{Local, Oid, RefName};
use crate::repo::{History, Repository};
use crate::wire::Error as WireError;

/// How often upstream may change while its objects are asked for.
const MAX_TRIES: u32 = 3;
/// After this number of fetches, a group that fails is not halved. Its values count as not given.
const MAX_FETCHES: u32 = 64;
/// After this number of fetches without a success, the server counts as one that refuses
/// everything. One bad value among 16,000 is found with fewer fetches.
const MAX_REFUSED: u32 = 16;
/// How many values `haves` returns at most. Each costs a lookup at upstream, and fifty bytes of the
/// request.
const MAX_HAVES: usize = 1024;

/// A ref: ours, upstream's, and the base.
pub(super) type Pair = (RefName, Local, Option<Oid>, Option<Oid>);

/// The result of comparing the three lists of refs.
pub(super) struct Compared {
    /// The refs that are not the same on both sides: ours, upstream's, and the base.
    pub(super) refs: Vec<Pair>,
    /// How many selected refs this repository has.
    pub(super) ours: usize,
    pub(super) scanned: FullScan,
    /// The values that upstream does not give, each with the reason.
    pub(super) unfetched: BTreeMap<Oid, Cleaned>,
}

/// The result of a fetch.
enum Fetched {
    /// Everything is staged, except these values.
    Except(BTreeMap<Oid, Cleaned>),
    /// Upstream's refs changed since it listed them.
    Moved,
}

impl Pull<'_> {
    /// The directory for objects that are not yet accepted. A plan, which takes no lock, has one of its own.
    pub(super) fn incoming(&self) -> PathBuf {
        let directory = self.repository.layout().remote(&self.mirror.name);
        match self.fence {
            Some(_) => directory.join("incoming"),
            None => directory.join(format!("incoming.{}", std::process::id())),
        }
    }

    /// Removes what a killed run left, and what a killed plan left.
    pub(super) fn sweep_all(&self, incoming: &Path) -> Result<(), Error> {
        let files = |path: PathBuf| Error::files("remove what a killed run left", path);
        sweep(incoming, self.repository).map_err(files(incoming.to_owned()))?;
        let directory = self.repository.layout().remote(&self.mirror.name);
        for name in durable::list(&directory).map_err(files(directory.clone()))? {
            let Some(pid) = name.strip_prefix("incoming.") else { continue };
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            if pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)) {
                sweep(&directory.join(&name), self.repository).map_err(files(directory.join(&name)))?;
            }
        }
        Ok(())
    }

    /// Compares the three lists, and stages what upstream has and this repository lacks.
    pub(super) fn stage(
        &self,
        heard: &mut Heard,
        rules: &Rules,
        incoming: &Path,
    ) -> Result<(Option<Stage>, Compared), Error> {
        let mut tries = 0;
        loop {
            let mut compared = self.compare(heard, rules)?;
            let wants = self.wants(&compared)?;
            if wants.is_empty() {
                return Ok((None, compared));
            }
            tries += 1;
            let made = Stage::make(incoming, self.repository);
            let stage = made.map_err(Error::files("stage objects", incoming.to_owned()))?;
            match self.fetch_each(heard, rules, &stage, &wants, &compared)? {
                Fetched::Except(unfetched) => {
                    compared.unfetched = unfetched;
                    return Ok((Some(stage), compared));
                }
                Fetched::Moved if tries < MAX_TRIES => {}
                Fetched::Moved => {
                    return Err(Error::NotTaken("upstream's refs change faster than they are read".into()));
                }
            }
        }
    }

    /// Fetches `wants` in one request. If upstream cannot give them, fetches them in halves, so
    /// that one bad value does not prevent the others.
    fn fetch_each(
        &self,
        heard: &mut Heard,
        rules: &Rules,
        stage: &Stage,
        wants: &[Oid],
        compared: &Compared,
    ) -> Result<Fetched, Error> {
        self.progress.begin("receiving objects");
        let tips: HashSet<Oid> = self.repository.list(|_| true)?.values().collect();
        let mut haves = self.haves(compared, &tips)?;
        let tips: Vec<Oid> = tips.into_iter().collect();
        let (mut unfetched, mut groups, mut tries, mut has_any) = (BTreeMap::new(), vec![wants], 0, false);
        while let Some(group) = groups.pop() {
            tries += 1;
            let failure = match self.fetch(heard, stage, group, &haves, &tips) {
                Ok(()) if groups.is_empty() => break,
                Ok(()) => None,
                Err(Error::Push(error @ (WireError::Remote(_) | WireError::Protocol(_)))) => Some(error),
                Err(error) => return Err(error),
            };
            match (failure, group) {
                (None, _) => {
                    has_any = true;
                    haves.extend(group);
                }
                // A server that refuses everything is not asked again and again.
                (Some(error), [_, _, ..]) if !has_any && tries >= MAX_REFUSED => return Err(error.into()),
                (Some(_), [_, _, ..]) if tries < MAX_FETCHES => {
                    groups.extend(<[_; 2]>::from(group.split_at(group.len() / 2)));
                }
                (Some(error), _) => {
                    let why = match error {
                        WireError::Protocol(why) => why,
                        error => error.to_string(),
                    };
                    let why = Redactor::default().clean(&why);
                    unfetched.extend(group.iter().map(|value| (*value, why.clone())));
                }
            }
            // The conversation is over: an older upstream answers only one request for objects in
            // each.
            let again = self.look(rules)?;
            let has_moved = heard.refs != again.refs;
            *heard = again;
            if has_moved {
                return Ok(Fetched::Moved);
            }
        }
        Ok(Fetched::Except(unfetched))
    }

    /// The values of upstream that are not here, each once.
    pub(super) fn wants(&self, compared: &Compared) -> Result<Vec<Oid>, Error> {
        let mut wants: Vec<Oid> = Vec::new();
        for upstream in compared.refs.iter().filter_map(|(_, _, upstream, _)| *upstream) {
            if !self.repository.is_here(upstream)? {
                wants.push(upstream);
            }
        }
        wants.sort_unstable();
        wants.dedup();
        Ok(wants)
    }

    /// Fetches one pack into the stage.
    fn fetch(&self, heard: &mut Heard, stage: &Stage, wants: &[Oid], haves: &[Oid], tips: &[Oid]) -> Result<(), Error> {
        let max = self.mirror.pull.max_input_size.or_else(|| git_size(self.repository, "receive.maxInputSize"));
        let staged = stage.size().map_err(Error::files("list the stage", stage.path().to_owned()))?;
        // Git takes 0 for no limit.
        let max = max.map(|bytes| Limit { bytes: bytes.saturating_sub(staged).max(1), key: "max_input_size" });
        let wanted = Wanted { wants, haves, progress: &self.progress };
        // If no value is known that upstream has, we name ours from the newest commit on, and
        // upstream says which it has.
        let mut walk = self.repository.newest_first(if haves.is_empty() { tips } else { &[] });
        Ok(stage.take(max, |sink| heard.session.fetch(&wanted, &mut walk, sink))?)
    }

    /// Values that upstream had, and that a ref here still contains. `mirrored/` keeps no object
    /// alive, so the history of any other base may be incomplete here. The bases of refs that
    /// changed come first.
    pub(super) fn haves(&self, compared: &Compared, tips: &HashSet<Oid>) -> Result<Vec<Oid>, Error> {
        let graph = self.repository.commit_graph();
        let mut history = History::new(self.repository, graph.as_ref());
        let mut haves = Vec::new();
        for (_, local, _, base) in &compared.refs {
            let (Some(base), Local::At(local)) = (base, local) else { continue };
            if tips.contains(base) || history.is_ancestor(*base, *local)? == Some(true) {
                haves.push(*base);
            }
        }
        let noted = self.mirrored.all().map_err(unreadable)?;
        haves.extend(noted.iter().map(|(_, base)| *base).filter(|base| tips.contains(base)));
        let mut seen = HashSet::new();
        haves.retain(|have| seen.insert(*have));
        haves.truncate(MAX_HAVES);
        Ok(haves)
    }

    /// Merges our refs, upstream's and the base.
    pub(super) fn compare(&self, heard: &Heard, rules: &Rules) -> Result<Compared, Error> {
        let (upstream, symbolic) = (&heard.refs, &heard.listed.symbolic);
        let is_symbolic = |name: &RefName| symbolic.binary_search(name).is_ok();
        let mut ours = self.ours(rules)?;
        // A ref that is symbolic upstream is neither taken nor deleted here.
        ours.refs.retain(|(name, _)| !is_symbolic(name));
        let noted = self.mirrored.all().map_err(unreadable)?;
        let base_of = |name: &RefName| value_of(noted, name);
        let mut scanned = FullScan::default();
        let mut refs = Vec::new();
        for (name, local) in &ours.refs {
            let (there, base) = (value_of(upstream, name), base_of(name));
            match (local, there) {
                (Local::At(oid), Some(value)) if *oid == value => {
                    if base != Some(value) {
                        scanned.unnoted.push((name.clone(), value));
                    }
                    if self.context.unchanged == Unchanged::Reported {
                        scanned.unchanged.push((name.clone(), value));
                    }
                }
                _ => refs.push((name.clone(), *local, there, base)),
            }
        }
        let is_missing =
            |(name, _): &&(RefName, Oid)| ours.refs.binary_search_by(|(other, _)| other.cmp(name)).is_err();
        let missing: Vec<&(RefName, Oid)> = upstream.iter().filter(is_missing).collect();
        // `git pack-refs` may have hidden a ref from the list of ours.
        let found = self.repository.find_each(&missing.iter().map(|(name, _)| name).collect::<Vec<_>>())?;
        let found = missing.into_iter().zip(found).filter(|((_, value), local)| *local != Local::At(*value));
        refs.extend(found.map(|((name, value), local)| (name.clone(), local, Some(*value), base_of(name))));
        refs.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        let is_gone = |name: &&RefName| {
            rules.selects(name.borrowed()) && value_of(upstream, name).is_none() && !is_symbolic(name)
        };
        scanned.gone = noted.iter().map(|(name, _)| name).filter(is_gone).cloned().collect();
        scanned.ours.incomplete = ours.incomplete;
        Ok(Compared { refs, ours: ours.refs.len(), scanned, unfetched: BTreeMap::new() })
    }
}

/// The value of a ref in a sorted list.
fn value_of(refs: &[(RefName, Oid)], name: &RefName) -> Option<Oid> {
    refs.binary_search_by(|(other, _)| other.cmp(name)).ok().map(|at| refs[at].1)
}

/// A size in git's configuration, in bytes (git-config(1): `k`, `m`, `g`). `None` when it is not set, is no size, or is 0.
fn git_size(repository: &Repository, key: &str) -> Option<u64> {
    let text = repository.git_config(key)?.to_ascii_lowercase();
    let (number, shift) = match text.chars().next_back()? {
        'k' => (&text[..text.len() - 1], 10),
        'm' => (&text[..text.len() - 1], 20),
        'g' => (&text[..text.len() - 1], 30),
        _ => (&*text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|size| *size > 0)
}
