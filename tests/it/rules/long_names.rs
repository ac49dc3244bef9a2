//! Ref names near and beyond the limits of files (255 bytes in a part, 4,096 in a path) and of reftable (about 4,040 in all). Whoever pushes
//! one stops no other ref, in no direction.

use std::path::PathBuf;

use crate::scene::sandbox::{Completed, Sandbox, Work, default_formats, run_with_input, skip};

/// The length of a name, and of its longest part.
const LENGTHS: [(usize, usize); 7] =
    [(266, 255), (267, 256), (3_000, 200), (4_000, 200), (4_020, 200), (4_050, 200), (4_095, 200)];
/// Names that a repository can have in `packed-refs` only, as after a clone.
const PACKED: [(usize, usize); 4] = [(268, 257), (4_096, 200), (8_000, 200), (60_000, 200)];

/// The name of a branch, of `length` bytes, whose parts have up to `part` bytes. The first letter tells the branches apart.
fn branch((length, part): (usize, usize)) -> String {
    let first = char::from(b'a' + u8::try_from(length % 23).unwrap());
    let mut name = String::from("refs/heads/");
    while name.len() < length {
        let left = length - name.len();
        let next = if left == part + 1 { part - 1 } else { left.min(part) };
        name.extend(std::iter::repeat_n(first, next));
        if name.len() < length {
            name.push('/');
        }
    }
    name
}

/// A pair of repositories. One of them has long names from a pusher, and the mirror is to bring them to the other one.
struct Sides {
    sandbox: Sandbox,
    here: PathBuf,
    there: PathBuf,
    is_pull: bool,
    title: String,
}

impl Sides {
    fn of((giver, taker): (&'static str, &'static str), direction: &str) -> Self {
        let is_pull = direction == "pull";
        let (hash, ours, theirs) =
            (default_formats().0, if is_pull { taker } else { giver }, if is_pull { giver } else { taker });
        let sandbox = Sandbox::of((hash, ours));
        let there = sandbox.bare_of("there.git", (hash, theirs));
        let prune = if is_pull { "mirror" } else { "deleted" };
        let here = sandbox.source("there.git", &["--direction", direction, "--prune", prune]);
        Self { sandbox, here, there, is_pull, title: format!("{direction} from {giver} to {taker}") }
    }

    fn giver_and_taker(&self) -> (&PathBuf, &PathBuf) {
        if self.is_pull { (&self.there, &self.here) } else { (&self.here, &self.there) }
    }

    fn work(&self) -> Work<'_> {
        self.sandbox.work(self.giver_and_taker().0)
    }

    /// Runs the mirror. Then main is equal, and each other ref is equal or in the status.
    fn run(&self, what: &str) {
        let commands: &[&str] = if self.is_pull { &["pull"] } else { &["drain", "sync"] };
        for command in commands {
            let said = self.sandbox.mirror_push(&self.here, &[command, "--json"]);
            self.check(&format!("{}, {what}, {command}", self.title), &said);
        }
    }

    fn check(&self, what: &str, said: &Completed) {
        let (giver, taker) = self.giver_and_taker();
        let (given, taken) = (self.sandbox.refs(giver), self.sandbox.refs(taker));
        let short: String = format!("{said:?}").chars().take(2000).collect();
        assert!(said.status <= 1, "{what}: {short}");
        let main = |side: &[String]| side.iter().find(|line| line.starts_with("refs/heads/main ")).cloned();
        assert_eq!(main(&given), main(&taken), "{what}: {short}");
        let status = self.sandbox.status(&self.here);
        let reasons: Vec<(&str, &str)> = status["refs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| Some((entry["ref"].as_str()?, entry["reason"].as_str()?)))
            .collect();
        for (line, other) in given.iter().map(|line| (line, &taken)).chain(taken.iter().map(|line| (line, &given))) {
            let name = line.split_once(' ').unwrap().0;
            let has_reason = reasons.iter().any(|(other, reason)| *other == name && !reason.is_empty());
            assert!(
                other.contains(line) || has_reason,
                "{what}: {} ({} bytes) is on one side",
                &name[..20],
                name.len()
            );
        }
    }

    /// Gives the giver the names that only `packed-refs` can have, and tells its hook of them.
    fn add_packed(&self, oid: &str) {
        let giver = self.giver_and_taker().0;
        let path = giver.join("packed-refs");
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_once('\n').unwrap();
        let names = PACKED.map(branch);
        let mut lines: Vec<String> = rest.lines().map(str::to_owned).collect();
        lines.extend(names.iter().map(|name| format!("{oid} {name}")));
        // git sorts this file by name.
        lines.sort_by(|one, other| one.split_once(' ').unwrap().1.cmp(other.split_once(' ').unwrap().1));
        std::fs::write(&path, format!("{head}\n{}\n", lines.join("\n"))).unwrap();
        if !self.is_pull {
            let none = self.sandbox.digits('0');
            let input: String = names.iter().map(|name| format!("{none} {oid} {name}\n")).collect();
            let mut hook = self.sandbox.command(giver.join("hooks/post-receive"));
            assert_eq!(run_with_input(hook.current_dir(giver).env("GIT_DIR", "."), input.as_bytes()).status, 0);
        }
    }
}

/// The pairs of storages of refs that this git and this variant of the tests have.
fn storages() -> Vec<(&'static str, &'static str)> {
    if default_formats().1 == "reftable" {
        return vec![("reftable", "reftable")];
    }
    let sandbox = Sandbox::new();
    let arguments = ["init", "-q", "--bare", "--ref-format=reftable", "x.git"];
    if sandbox.try_git(&sandbox.path("home"), &arguments).status != 0 {
        skip("this git knows no reftable");
        return vec![("files", "files")];
    }
    vec![("files", "files"), ("files", "reftable"), ("reftable", "files")]
}

fn long_names_stop_nothing(direction: &str) {
    for pair in storages() {
        let sides = Sides::of(pair, direction);
        let (work, giver) = (sides.work(), sides.giver_and_taker().0);
        work.commit("one");
        work.push(&["main"]);
        sides.run("first");
        let names: Vec<String> = LENGTHS.into_iter().map(branch).collect();
        // git takes some of these names, and refuses others.
        let push = |spec: String| sides.sandbox.try_git(&work.path, &["push", "-q", "--force", "origin", &spec]).status;
        let taken = names.iter().filter(|name| push(format!("main:{name}")) == 0).count();
        assert!((3..LENGTHS.len()).contains(&taken), "{pair:?}: {taken}");
        let oid = work.commit("two");
        work.push(&["main"]);
        sides.run("created");
        if pair.0 == "files" {
            sides.sandbox.git(giver, &["pack-refs", "--all"]);
            sides.add_packed(&oid);
        }
        for name in &names {
            push(format!("main:{name}"));
        }
        work.commit("three");
        work.push(&["main"]);
        sides.run("moved");
        for name in &names {
            push(format!(":{name}"));
        }
        work.commit("four");
        work.push(&["main"]);
        sides.run("deleted");
    }
}

#[test]
fn in_a_push() {
    long_names_stop_nothing("push");
}

#[test]
fn in_a_pull() {
    long_names_stop_nothing("pull");
}

#[test]
fn both_ways() {
    long_names_stop_nothing("both");
}
