//! Random scenes against a model of the rules: pushes, foreign changes, other configurations, kills and runs in any order. The model is
//! written from the tables of the rules in the documentation, and shares no code with the program.
//!
//! `MIRROR_PUSH_MODEL_SECONDS` sets how long scenes are tried (default 40), `MIRROR_PUSH_MODEL_SEED` the first seed (default 1). A scene
//! that fails is shortened as far as possible and shown with its seed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

mod rules;

use rules::{MAIN, Model, Queued, Refs};

use crate::scene::random::Random;
use crate::scene::sandbox::{Sandbox, run_with_input};

const REFS: [&str; 6] = [MAIN, "refs/heads/a", "refs/heads/b", "refs/heads/c/d", "refs/tags/t", "refs/tags/u"];

/// One step of a scene. A value is the number of a commit.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A push here: a new commit on top of the ref's value, or of main's.
    Push(usize),
    /// A push here that rewrites: a new commit on top of the value's first parent.
    Rewrite(usize),
    /// A push here that deletes the ref.
    Delete(usize),
    /// A push here that merges the ref into main.
    Merge(usize),
    /// Someone commits to the ref on the mirror.
    Foreign(usize),
    /// Someone deletes it there.
    ForeignDelete(usize),
    Policy(&'static str),
    Prune(&'static str),
    /// Only branches that match, and all tags.
    Select(&'static str),
    Drain,
    Sync,
    /// A drain that is killed after so many milliseconds.
    Kill(u64),
}

fn scene(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = vec![Step::Push(0), Step::Sync];
    for _ in 0..8 + random.below(14) {
        let name = random.below(REFS.len());
        steps.push(match random.below(24) {
            0..=5 => Step::Push(name),
            6..=7 => Step::Rewrite(name),
            8..=9 => Step::Delete(name),
            10 => Step::Merge(name),
            11..=12 => Step::Foreign(name),
            13 => Step::ForeignDelete(name),
            14 => Step::Policy(["overwrite", "keep", "keep", "fail"][random.below(4)]),
            15 => Step::Prune(["merged", "deleted", "mirror", "never"][random.below(4)]),
            16 => Step::Select([".", "^(main|a)$", "^(b|c/)"][random.below(3)]),
            17 => Step::Kill(random.below(25) as u64),
            18..=20 => Step::Sync,
            _ => Step::Drain,
        });
    }
    steps.push(Step::Sync);
    steps
}

struct World {
    sandbox: Sandbox,
    source: PathBuf,
    mirror: PathBuf,
    model: Model,
    commits: usize,
    /// Whether something has changed that makes the next run look at everything.
    is_full: bool,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &[]);
        Self { sandbox, source, mirror, model: Model::new(), commits: 0, is_full: true }
    }

    fn refs(&self, repository: &Path) -> Refs {
        let all = self.sandbox.refs(repository);
        all.iter().map(|line| line.split_once(' ').unwrap()).map(|(name, oid)| (name.into(), oid.into())).collect()
    }

    fn commit(&mut self, repository: &Path, parents: Vec<String>) -> String {
        self.commits += 1;
        let tree = self.sandbox.git_with_input(repository, &["mktree"], b"");
        let message = format!("commit {}", self.commits);
        let mut arguments = vec!["commit-tree", "-m", &message, &tree];
        parents.iter().for_each(|parent| arguments.extend(["-p", parent]));
        let oid = self.sandbox.git(repository, &arguments);
        self.model.parents.insert(oid.clone(), parents);
        oid
    }

    /// Changes a ref here and runs the hook, as a push does.
    fn push(&mut self, name: &str, new: Option<String>) {
        let old = self.refs(&self.source).get(name).cloned();
        if old == new {
            return;
        }
        let zeros = self.sandbox.digits('0');
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| zeros.clone());
        match &new {
            Some(new) => self.sandbox.git(&self.source, &["update-ref", name, new]),
            None => self.sandbox.git(&self.source, &["update-ref", "-d", name]),
        };
        let line = format!("{} {} {name}\n", text(&old), text(&new));
        let mut hook = self.sandbox.command(env!("CARGO_BIN_EXE_git-mirror-post-receive"));
        let said = run_with_input(hook.current_dir(&self.source).env("GIT_DIR", "."), line.as_bytes());
        assert_eq!(said.status, 0, "{said:?}");
        self.model.queue.push(Queued { name: name.to_owned(), old, new });
    }

    fn configure(&mut self, arguments: &[&str]) {
        self.sandbox.mirror_push_ok(&self.source, &[&["set", "m"], arguments].concat());
        self.is_full = true;
    }

    /// Runs a command, and compares the mirror with the model.
    fn run(&mut self, command: &str) -> Result<(), String> {
        let is_full = command == "sync" || self.is_full || self.model.policy == "fail";
        if !is_full && self.model.queue.is_empty() && self.model.listed.is_empty() {
            return Ok(());
        }
        let scope: BTreeSet<String> = self
            .model
            .queue
            .iter()
            .map(|queued| queued.name.clone())
            .chain(self.model.listed.iter().cloned())
            .collect();
        let scope = (!is_full).then_some(&scope);
        let (expected, listed) = self.model.expected(&self.refs(&self.source), &self.refs(&self.mirror), scope);
        let said = self.sandbox.mirror_push(&self.source, &[command, "--json"]);
        let found = self.refs(&self.mirror);
        if said.err.contains("panicked") || ![0, 1].contains(&said.status) {
            return Err(format!("{command}: {said:?}"));
        }
        if found != expected {
            return Err(format!("{command}: the mirror has {found:#?}, expected {expected:#?}\n{}", said.out));
        }
        // In a run over some refs the others stay listed as they were.
        if is_full {
            self.model.listed = listed;
        } else if let Some(scope) = scope {
            self.model.listed.retain(|name| !scope.contains(name));
            self.model.listed.extend(listed);
        }
        self.is_full = false;
        let (ours, there) = (self.refs(&self.source), self.refs(&self.mirror));
        self.model.learn(&ours, &there, scope);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Push(n) | Step::Rewrite(n) => {
                let ours = self.refs(&self.source);
                let value = ours.get(REFS[n]).or(ours.get(REFS[0])).cloned();
                let is_rewrite = matches!(step, Step::Rewrite(_));
                let base = match value {
                    Some(value) if is_rewrite => self.model.parents[&value].first().cloned(),
                    value => value,
                };
                let new = self.commit(&self.source.clone(), base.into_iter().collect());
                self.push(REFS[n], Some(new));
            }
            Step::Delete(n) => self.push(REFS[n], None),
            Step::Merge(n) => {
                let ours = self.refs(&self.source);
                if let (Some(main), Some(value)) = (ours.get(REFS[0]).cloned(), ours.get(REFS[n]).cloned()) {
                    let new = self.commit(&self.source.clone(), vec![main, value]);
                    self.push(REFS[0], Some(new));
                }
            }
            Step::Foreign(n) => {
                let there = self.refs(&self.mirror);
                let base = there.get(REFS[n]).or(there.get(REFS[0])).cloned();
                let new = self.commit(&self.mirror.clone(), base.into_iter().collect());
                self.model.foreign.insert(new.clone());
                self.sandbox.git(&self.mirror, &["update-ref", REFS[n], &new]);
            }
            Step::ForeignDelete(n) => {
                self.sandbox.git(&self.mirror, &["update-ref", "-d", REFS[n]]);
            }
            Step::Policy(policy) => {
                self.model.policy = policy;
                self.configure(&["--divergent-refs", policy]);
            }
            Step::Prune(prune) => {
                self.model.prune = prune;
                self.configure(&["--prune", prune]);
            }
            Step::Select(regex) => {
                self.model.selection = regex;
                self.configure(&["--mirror-branch-regex", regex]);
            }
            Step::Drain => self.run("drain")?,
            Step::Sync => {
                self.run("sync")?;
                // A second sync changes nothing.
                let (refs, history) = (self.refs(&self.mirror), self.history());
                self.sandbox.mirror_push(&self.source, &["sync"]);
                if self.refs(&self.mirror) != refs {
                    return Err(format!("a second sync changed {refs:#?} to {:#?}", self.refs(&self.mirror)));
                }
                let second = self.history().split_off(history.len());
                if !second.contains("\"updated\":0") {
                    return Err(format!("a second sync did something: {second}"));
                }
            }
            Step::Kill(after) => self.killed(after)?,
        }
        Ok(())
    }

    fn history(&self) -> String {
        std::fs::read_to_string(self.source.join("mirror-push/remotes/m/history.jsonl")).unwrap_or_default()
    }

    /// Kills a drain. It may have done a part of its work: each ref has its old value or the one that it was to get. A sync does the rest.
    fn killed(&mut self, after: u64) -> Result<(), String> {
        let before = self.refs(&self.mirror);
        let (all, _) = self.model.expected(&self.refs(&self.source), &before, None);
        let mut drain = self.sandbox.program(&self.source);
        let mut drain = drain.arg("drain").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(after));
        let _ = drain.kill();
        drain.wait().unwrap();
        let begin = Instant::now();
        // The receive-pack that the drain started goes on for a moment.
        while begin.elapsed() < Duration::from_millis(60) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let found = self.refs(&self.mirror);
        let names: BTreeSet<&String> = before.keys().chain(found.keys()).chain(all.keys()).collect();
        for name in names {
            let value = found.get(name);
            if value != before.get(name) && value != all.get(name) {
                return Err(format!(
                    "killed: {name} is {value:?}, was {:?}, was to be {:?}",
                    before.get(name),
                    all.get(name)
                ));
            }
        }
        self.is_full = true;
        self.run("sync")
    }

    fn end(&self) -> Result<(), String> {
        for repository in [&self.mirror, &self.source] {
            let said = self.sandbox.try_git(repository, &["fsck", "--strict"]);
            if said.status != 0 {
                return Err(format!("fsck: {said:?}"));
            }
        }
        let remote = self.source.join("mirror-push");
        let left = self.sandbox.command("find").arg(&remote).args(["-name", ".*", "-type", "f"]).output().unwrap();
        let left = String::from_utf8(left.stdout).unwrap();
        if left.lines().count() > 1 {
            return Err(format!("temporary files: {left}"));
        }
        Ok(())
    }
}

/// Plays a scene; the number of the step that fails, and why.
fn play(steps: &[Step]) -> Result<(), (usize, String)> {
    let mut world = World::new();
    for (n, step) in steps.iter().enumerate() {
        world.step(*step).map_err(|why| (n, why))?;
    }
    world.end().map_err(|why| (steps.len().saturating_sub(1), why))
}

/// A shorter scene that still fails, found by leaving out one step after the other, and why it fails.
fn shortest(steps: &[Step], failed_at: usize) -> (Vec<Step>, String) {
    let mut steps = steps[..=failed_at].to_vec();
    let mut why = String::new();
    let begin = Instant::now();
    let mut n = steps.len();
    while n > 0 && begin.elapsed() < Duration::from_secs(30) {
        n -= 1;
        let mut fewer = steps.clone();
        fewer.remove(n);
        if let Err((at, reason)) = play(&fewer) {
            fewer.truncate(at + 1);
            n = n.min(fewer.len());
            (steps, why) = (fewer, reason);
        }
    }
    (steps, why)
}

#[test]
fn random_scenes_end_as_the_rules_say() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let limit = Duration::from_secs(number("MIRROR_PUSH_MODEL_SECONDS", 40));
    let first = number("MIRROR_PUSH_MODEL_SEED", 1);
    let begin = Instant::now();
    let mut scenes = 0;
    for seed in first.. {
        if begin.elapsed() > limit {
            break;
        }
        let steps = scene(seed);
        if let Err((at, why)) = play(&steps) {
            let (shortest, reason) = shortest(&steps, at);
            let why = if reason.is_empty() { why } else { reason };
            panic!("seed {seed}: {shortest:#?}\n{why}");
        }
        scenes += 1;
    }
    eprintln!("{scenes} scenes");
    assert!(scenes > 10, "{scenes} scenes");
}
