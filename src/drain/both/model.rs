//! Random schedules of a model: one ref on two or three sides, users, and runs that are interleaved
//! step by step and killed between any two steps. Decisions come from the table itself. A commit
//! may be lost only if a user gave it up, and everything comes to rest.
//!
//! `MIRROR_PUSH_MODEL_SCHEDULES` sets how many schedules each arrangement gets (default 25,000).

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::drain::flapping::{is_flapping, remembered};
use crate::plan::{
    Action, Branches, Conflicts, Decision, Divergent, Here, MaxDeletes, ObservedPull, Prune, PullFacts, Rules, Side,
    Tags, plan_pull,
};
use crate::plan::{BothFacts, Upstream};
use crate::refs::{Ancestry, Local, Oid, RefName};
use crate::status::{Move, Outcome, RefOutcome};

/// A commit is a number below 128. A set of commits is a bit mask.
type Commit = usize;
type Commits = u128;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % bound
    }
}

/// A repository.
#[derive(Default)]
struct Repository {
    value: Option<Commit>,
    /// What `refs/rewritten` and `refs/conflicts` contain.
    kept: Commits,
}

/// A two-way mirror: `there`, of the repository `here`.
struct Link {
    here: usize,
    there: usize,
    base: Option<Commit>,
    /// The old values of pushes to `here` that no run has finished.
    spooled: BTreeSet<Commit>,
    moves: Vec<Move>,
    run: Option<Run>,
    is_conflict: bool,
}

/// How far a run is.
#[derive(Clone)]
struct Run {
    step: usize,
    claimed: BTreeSet<Commit>,
    looked: Option<Commit>,
    decision: Option<Decision>,
}

struct World {
    random: Random,
    /// Each commit's history, itself included.
    history: Vec<Commits>,
    parents: Vec<Option<Commit>>,
    sides: Vec<Repository>,
    links: Vec<Link>,
    /// What a user moved a ref away from, on any side.
    given_up: Commits,
    minute: i64,
    /// How often a ref changed.
    updates: usize,
    rules: Rules,
    name: RefName,
    log: Vec<String>,
}

fn oid(commit: Commit) -> Oid {
    Oid::from_hex(format!("{:040x}", commit + 1).as_bytes()).expect("valid")
}

fn commit_of(oid: Oid) -> Commit {
    usize::from_str_radix(&oid.to_string(), 16).expect("a number") - 1
}

impl World {
    fn new(seed: u64, sides: usize, links: &[(usize, usize)]) -> Self {
        let link = |(here, there): &(usize, usize)| Link {
            here: *here,
            there: *there,
            base: None,
            spooled: BTreeSet::new(),
            moves: Vec::new(),
            run: None,
            is_conflict: false,
        };
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            random,
            history: Vec::new(),
            parents: Vec::new(),
            sides: (0..sides).map(|_| Repository::default()).collect(),
            links: links.iter().map(link).collect(),
            given_up: 0,
            minute: 0,
            updates: 0,
            rules: Rules {
                branches: Branches::All,
                tags: Tags::All,
                namespaces: Vec::new(),
                excluded: Vec::new(),
                divergent: Divergent::Keep,
                conflicts: Some(Conflicts::Keep),
                prune: Prune::Deleted,
                max_deletes: MaxDeletes::Unlimited,
                is_atomic: false,
            },
            name: RefName::new(b"refs/heads/main").expect("valid"),
            log: Vec::new(),
        }
    }

    fn commit(&mut self, parents: &[Commit]) -> Commit {
        let number = self.history.len();
        let history = parents.iter().fold(1 << number, |all, parent| all | self.history[*parent]);
        self.history.push(history);
        self.parents.push(parents.first().copied());
        number
    }

    fn contains(&self, new: Option<Commit>, old: Option<Commit>) -> bool {
        let (Some(new), Some(old)) = (new, old) else { return false };
        self.history[new] & (1 << old) != 0
    }

    fn all_of(&self, value: Option<Commit>) -> Commits {
        value.map_or(0, |commit| self.history[commit])
    }

    /// The ref of a repository changes, and its hook spools for all mirrors.
    fn set(&mut self, side: usize, value: Option<Commit>) {
        self.updates += 1;
        let old = std::mem::replace(&mut self.sides[side].value, value);
        for link in self.links.iter_mut().filter(|link| link.here == side) {
            link.spooled.extend(old);
        }
    }

    /// A user pushes.
    fn push(&mut self) {
        let side = self.random.below(self.sides.len());
        let old = self.sides[side].value;
        let new = match (self.random.below(12), old) {
            (_, None) => {
                let parents: Vec<Commit> = match self.random.below(3) {
                    0 if !self.history.is_empty() => vec![self.random.below(self.history.len())],
                    _ => Vec::new(),
                };
                Some(self.commit(&parents))
            }
            (0..=4, Some(old)) => Some(self.commit(&[old])),
            (5..=6, Some(old)) => {
                let parents: Vec<Commit> = self.parents[old].into_iter().collect();
                Some(self.commit(&parents))
            }
            (7, Some(old)) => self.parents[old],
            (8, Some(_)) => None,
            // A merge of what another side has.
            (_, Some(old)) => {
                let other = self.random.below(self.sides.len());
                let other = self.sides[other].value.unwrap_or(old);
                Some(self.commit(&[old, other]))
            }
        };
        self.log.push(format!("user {side}: {old:?} -> {new:?}"));
        self.given_up |= self.all_of(old) & !self.all_of(new);
        self.set(side, new);
    }

    /// One step of a run of `link`, which begins if none is at work. Returns whether it is over.
    fn step(&mut self, link: usize) -> bool {
        let Link { here, there, .. } = self.links[link];
        let mut run = self.links[link].run.take().unwrap_or(Run {
            step: 0,
            claimed: self.links[link].spooled.clone(),
            looked: None,
            decision: None,
        });
        let step = run.step;
        run.step += 1;
        match step {
            0 => run.looked = self.sides[there].value,
            1 => {
                let decision = self.decide(link, &run);
                self.log.push(format!("link {link}: {decision:?}"));
                self.links[link].is_conflict = decision
                    .as_ref()
                    .is_some_and(|one| matches!(one.action, Action::Conflict(_) | Action::Flapping(_)));
                if let Some(remote) = run.looked.filter(|_| self.links[link].is_conflict) {
                    self.sides[here].kept |= self.history[remote];
                }
                if self.sides[here].value == run.looked {
                    self.links[link].base = run.looked;
                    return self.finish(link, &run);
                }
                run.decision = decision.filter(|one| one.action.is_sent());
                if run.decision.is_none() {
                    return self.finish(link, &run);
                }
            }
            2 => {
                let decision = run.decision.as_ref().expect("decided");
                if decision.keeps {
                    self.sides[here].kept |= self.all_of(decision.old_value().map(commit_of));
                }
            }
            // A ref that moved is decided again by another run. What was spooled stays.
            3 if !self.update(link, run.decision.as_ref().expect("decided")) => return true,
            3 => {}
            _ => {
                let decision = run.decision.as_ref().expect("decided");
                self.links[link].base = decision.new_value().map(commit_of);
                return self.finish(link, &run);
            }
        }
        self.links[link].run = Some(run);
        false
    }

    /// Carries out a decision, if nothing that it depends on has moved.
    fn update(&mut self, link: usize, decision: &Decision) -> bool {
        let Link { here, there, .. } = self.links[link];
        let (local, remote) = (decision.local.map(commit_of), decision.remote.map(commit_of));
        let now = (self.sides[here].value, self.sides[there].value);
        let (side, other, holds) = match decision.side {
            Side::Here => (here, remote, now.0 == local),
            Side::There => (there, local, now == (local, remote)),
        };
        if !holds {
            return false;
        }
        self.set(side, other);
        let at = Timestamp::from_second(1_767_720_000 + 60 * self.minute).expect("in range");
        let done = RefOutcome::new(decision, Outcome::of(&decision.action), None);
        self.links[link].moves = remembered(&self.links[link].moves, std::iter::once(&done), at);
        true
    }

    fn finish(&mut self, link: usize, run: &Run) -> bool {
        self.links[link].spooled.retain(|old| !run.claimed.contains(old));
        true
    }

    fn decide(&self, link: usize, run: &Run) -> Option<Decision> {
        let Link { here, base, .. } = self.links[link];
        let (local, remote) = (self.sides[here].value, run.looked);
        let is_flapping = |from: Option<Commit>, to: Option<Commit>| {
            to.is_some_and(|to| is_flapping(&self.links[link].moves, &self.name, from.map(oid), oid(to)))
        };
        let facts = PullFacts {
            name: self.name.clone(),
            local: local.map_or(Local::Absent, |local| Local::At(oid(local))),
            upstream: remote.map(oid),
            base: base.map(oid),
            ancestry: if self.contains(remote, local) { Ancestry::Behind } else { Ancestry::Diverged },
            is_local_merged: false,
            is_base_merged: false,
            is_local_commit: true,
            is_flapping: is_flapping(local, remote),
            is_refused: false,
            unfetched: None,
            other: None,
            both: BothFacts {
                is_base_in_local: self.contains(local, base),
                is_base_in_remote: self.contains(remote, base),
                is_remote_in_local: self.contains(local, remote),
                is_late: remote.is_some_and(|remote| run.claimed.contains(&remote)),
                is_hidden: false,
                chosen: None,
            },
        };
        let (refs, here) = (vec![facts], Here { head: None, selected: 1, incomplete: None });
        let observed = ObservedPull { refs, here, upstream: Upstream::default(), ..ObservedPull::default() };
        let decision = plan_pull(&self.rules, &observed).decisions.pop()?;
        // The push plans again, and checks for flapping on the mirror's side.
        let is_flap = decision.side == Side::There && decision.action.is_sent() && is_flapping(remote, local);
        if is_flap {
            let reason = crate::plan::Reason::Moved;
            return Some(Decision { action: Action::Flapping(reason), ..decision });
        }
        Some(decision)
    }

    /// Runs every mirror until nothing changes. Returns how many rounds that took.
    fn settle(&mut self, most: usize) -> Option<usize> {
        for link in 0..self.links.len() {
            self.links[link].run = None;
        }
        for round in 0..=most {
            let before = self.updates;
            for link in 0..self.links.len() {
                while !self.step(link) {}
            }
            if before == self.updates {
                return Some(round);
            }
        }
        None
    }

    fn is_settled_well(&self) -> bool {
        let is_apart = |link: &Link| self.sides[link.here].value != self.sides[link.there].value;
        self.links.iter().all(|link| !is_apart(link) || link.is_conflict)
    }

    fn lost(&self) -> Commits {
        let reachable = self.sides.iter().fold(0, |all, side| all | side.kept | self.all_of(side.value));
        let made = (1 << self.history.len()) - 1;
        made & !self.given_up & !reachable
    }
}

/// Runs one schedule. Returns how many rounds it took to settle.
fn schedule(seed: u64, sides: usize, links: &[(usize, usize)], most: usize) -> usize {
    let mut world = World::new(seed, sides, links);
    let steps = 20 + world.random.below(60);
    for _ in 0..steps {
        world.minute += 1;
        let link = world.random.below(world.links.len());
        match world.random.below(100) {
            0..=32 => world.push(),
            33..=36 => world.links[link].run = None,
            _ => {
                world.step(link);
            }
        }
        assert_eq!(world.lost(), 0, "seed {seed} of {links:?}: {:#?}", world.log);
    }
    let rounds = world.settle(most);
    let (lost, well) = (world.lost(), world.is_settled_well());
    assert!(rounds.is_some() && lost == 0 && well, "seed {seed} of {links:?}: {rounds:?} {lost:b} {:#?}", world.log);
    rounds.unwrap_or_default()
}

/// Its name, how many sides it has, its mirrors, and in how many rounds it settles at most.
type Arrangement = (&'static str, usize, &'static [(usize, usize)], usize);

/// One mirror, two sides that are each other's mirrors, a chain, a star and a ring of three.
#[test]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "the environment sets the number of schedules")]
fn no_commit_is_lost_and_everything_comes_to_rest() {
    let schedules = std::env::var("MIRROR_PUSH_MODEL_SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules: u64 = schedules.unwrap_or(25_000);
    let arrangements: [Arrangement; 5] = [
        ("one mirror", 2, &[(0, 1)], 3),
        ("each other's mirrors", 2, &[(0, 1), (1, 0)], 3),
        ("chain", 3, &[(0, 1), (1, 2)], 3),
        ("star", 3, &[(0, 1), (0, 2)], 3),
        ("ring", 3, &[(0, 1), (1, 2), (2, 0)], 7),
    ];
    std::thread::scope(|scope| {
        for (what, sides, links, most) in arrangements {
            scope.spawn(move || {
                let rounds = (1..=schedules).map(|seed| schedule(seed, sides, links, most)).max();
                println!("{what}: {schedules} schedules, settled in {} rounds", rounds.unwrap_or_default());
            });
        }
    });
}
