//! Random scenes with real repositories and the built program: people who commit, rewrite, delete, make again and merge on both sides, syncs,
//! drains and pulls, and kills at any time. A commit is lost only if somebody gave it up. What
//! differs at the end is reported.
//!
//! The same scenes also run with two setups without a base: pull with overwrite and push by force;
//! and the same with a pre-receive hook that pushes to the other side first, as GitLab's
//! documentation of bidirectional mirroring recommends.
//!
//! `MIRROR_PUSH_STORM_SCENES` sets how many scenes each test has (default: 100 with a two-way
//! mirror, 12 without a base). `MIRROR_PUSH_STORM_SEED` sets the first seed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::Pair;
use crate::scene::random::Random;
use crate::scene::sandbox::run_with_input;
use crate::scene::servers::Kind;

const REFS: [&str; 4] = ["refs/heads/main", "refs/heads/a", "refs/heads/b/c", "refs/tags/t"];

/// What keeps the two sides equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    /// A two-way mirror.
    Ours,
    /// Pull with overwrite, push by force.
    Overwrite,
    /// The same, and each push to this side is pushed to the other side first, and declined if that fails.
    Proxied,
}

struct Scene<'p> {
    pair: &'p Pair,
    tool: Tool,
    random: Random,
    made: BTreeSet<String>,
    given_up: BTreeSet<String>,
    log: Vec<String>,
}

impl Scene<'_> {
    fn commits(&self, side: &Path, arguments: &[&str]) -> BTreeSet<String> {
        let all = self.pair.sandbox.git(side, &[&["rev-list"], arguments].concat());
        all.lines().map(str::to_owned).collect()
    }

    /// A commit on one side.
    fn commit(&mut self, side: &Path, parents: &[&str]) -> String {
        let message = format!("{}", self.made.len());
        let tree = self.pair.sandbox.git_with_input(side, &["mktree"], b"");
        let mut arguments = vec!["commit-tree", "-m", &message, tree.trim()];
        parents.iter().for_each(|parent| arguments.extend(["-p", parent]));
        let oid = self.pair.sandbox.git(side, &arguments).trim().to_owned();
        self.made.insert(oid.clone());
        oid
    }

    /// Somebody moves a ref on one side.
    fn push(&mut self) {
        let (here, there) = (self.pair.here.clone(), self.pair.there.clone());
        let is_here = self.random.below(2) == 0;
        let (side, other) = if is_here { (&here, &there) } else { (&there, &here) };
        let name = REFS[self.random.below(REFS.len())];
        let (old, theirs) = (self.pair.sandbox.oid(side, name), self.pair.sandbox.oid(other, name));
        let parent = self.pair.sandbox.oid(side, &format!("{name}^"));
        let parents: Vec<&str> = [&*parent].into_iter().filter(|parent| !parent.is_empty()).collect();
        let main = self.pair.sandbox.oid(side, "refs/heads/main");
        let new = match self.random.below(12) {
            _ if old.is_empty() && main.is_empty() => self.commit(side, &[]),
            _ if old.is_empty() => self.commit(side, &[&main]),
            0..=4 => self.commit(side, &[&old]),
            5..=6 => self.commit(side, &parents),
            7 => parent.clone(),
            8 => String::new(),
            _ if theirs.is_empty() => self.commit(side, &[&old]),
            _ => {
                self.pair.sandbox.git(side, &["fetch", "-q", other.to_str().unwrap(), &theirs]);
                self.commit(side, &[&old, &theirs])
            }
        };
        self.log.push(format!("{} {name}: {old} -> {new}", if is_here { "here" } else { "there" }));
        if is_here && self.tool == Tool::Proxied && !self.is_taken_there(name, &new) {
            self.made.remove(&new);
            return;
        }
        let null = self.pair.sandbox.digits('0');
        let (from, to) = (if old.is_empty() { &null } else { &old }, if new.is_empty() { &null } else { &new });
        let update = format!("update {name}\0{to}\0{from}\0");
        let mut git = self.pair.sandbox.command("git");
        let moved = run_with_input(git.current_dir(side).args(["update-ref", "--stdin", "-z"]), update.as_bytes());
        if moved.status != 0 {
            // A process that a killed run left behind has moved the ref meanwhile.
            self.log.push(moved.err);
            self.made.remove(&new);
            return;
        }
        if !old.is_empty() {
            let away = if new.is_empty() { vec![&*old] } else { vec![&*old, "--not", &*new] };
            let away = self.commits(side, &away);
            self.given_up.extend(away);
        }
        if is_here {
            let mut hook = self.pair.sandbox.command(self.pair.here.join("hooks/post-receive"));
            let hooked = run_with_input(hook.current_dir(&self.pair.here), format!("{from} {to} {name}\n").as_bytes());
            assert_eq!(hooked.status, 0, "{hooked:?}");
        }
    }

    /// What the hook does before a push to this side is accepted.
    fn is_taken_there(&self, name: &str, new: &str) -> bool {
        let there = self.pair.there.to_str().unwrap();
        self.pair.sandbox.try_git(&self.pair.here, &["push", "-q", there, &format!("{new}:{name}")]).status == 0
    }

    /// One job of a setup without a base: the pull, the push, or both with the pull first.
    fn overwrite(&mut self, word: &str) {
        let (here, there) = (&self.pair.here, self.pair.there.to_str().unwrap());
        let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        if word != "drain" {
            let taken = [&["fetch", "-q", "--prune", "--update-head-ok", there], &all[..]].concat();
            self.pair.sandbox.try_git(here, &taken);
        }
        if word != "pull" {
            self.pair.sandbox.try_git(here, &[&["push", "-q", "--prune", there], &all[..]].concat());
        }
    }

    fn run(&mut self) {
        let words: &[&str] = [&["sync"][..], &["drain"], &["pull"]][self.random.below(3)];
        let is_killed = self.random.below(4) == 0;
        if self.tool != Tool::Ours {
            return self.overwrite(words[0]);
        }
        self.log.push(format!("{words:?} killed: {is_killed}"));
        let mut program = self.pair.sandbox.program(&self.pair.here);
        program.args(words).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = program.spawn().unwrap();
        if is_killed {
            std::thread::sleep(Duration::from_micros(200 * self.random.below(200) as u64));
            let _ = child.kill();
        }
        child.wait().unwrap();
    }

    /// The commits that are in no ref of either side, although nobody gave them up.
    fn lost(&self) -> Vec<&String> {
        let mut reachable = self.commits(&self.pair.here, &["--all"]);
        reachable.extend(self.commits(&self.pair.there, &["--all"]));
        self.made.iter().filter(|one| !self.given_up.contains(*one) && !reachable.contains(*one)).collect()
    }

    /// Syncs until nothing changes. Then checks that no commit is lost and that each difference is
    /// reported.
    fn settle(&mut self) {
        let pair = self.pair;
        let both = || (pair.sandbox.refs(&pair.here), pair.sandbox.refs(&pair.there));
        let mut before = both();
        for round in 0.. {
            let said = pair.sync();
            assert!(round < 4, "it does not settle: {said:?} {:#?}", self.log);
            let now = both();
            if now == before {
                break;
            }
            before = now;
        }
        let lost = self.lost();
        let status = pair.status();
        assert!(lost.is_empty(), "lost: {lost:?} {status} {:#?}", self.log);
        let is_reported = |name: &&str| status["refs"].as_array().unwrap().iter().any(|one| one["ref"] == **name);
        let differs = |name: &&str| pair.here(name) != pair.there(name);
        let silent: Vec<&str> = REFS.into_iter().filter(differs).filter(|name| !is_reported(name)).collect();
        assert!(silent.is_empty(), "not reported: {silent:?} {status} {:#?}", self.log);
        assert!(status["update_status"] != "started", "{status}");
    }
}

/// The seeds of the scenes: `usual` many, unless the environment says otherwise.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("MIRROR_PUSH_STORM_SEED").unwrap_or(1);
    first..first + number("MIRROR_PUSH_STORM_SCENES").unwrap_or(usual)
}

/// Plays a scene.
fn play(pair: &Pair, tool: Tool, seed: u64) -> Scene<'_> {
    let (random, log) = (Random::new(seed), vec![format!("seed {seed}")]);
    let mut scene = Scene { pair, tool, random, made: BTreeSet::new(), given_up: BTreeSet::new(), log };
    for _ in 0..10 + scene.random.below(15) {
        if scene.random.below(5) < 3 { scene.push() } else { scene.run() }
    }
    scene
}

fn scenes(kind: Option<Kind>) {
    for seed in seeds(100) {
        let pair = match &kind {
            None => Pair::local(&["prune=deleted"]),
            Some(kind) => Pair::behind(*kind, &["prune=deleted"]),
        };
        play(&pair, Tool::Ours, seed).settle();
    }
}

#[test]
fn random_scenes_on_this_machine() {
    scenes(None);
}

#[test]
fn random_scenes_over_http() {
    scenes(Some(Kind::Http));
}

/// The same scenes without a base lose commits. So these scenes can show a loss.
#[test]
fn without_a_base_commits_are_lost() {
    for tool in [Tool::Overwrite, Tool::Proxied] {
        let (mut losing, mut lost, mut all) = (0, 0, 0);
        for seed in seeds(12) {
            let pair = Pair::local(&[]);
            let mut scene = play(&pair, tool, seed);
            scene.overwrite("sync");
            let gone = scene.lost().len();
            losing += u32::from(gone > 0);
            lost += gone;
            all += 1;
        }
        eprintln!("{tool:?}: {lost} commits lost, in {losing} of {all} scenes");
        assert!(losing > 0);
    }
}
