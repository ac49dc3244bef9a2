//! How many objects are sent: never more than `git push` sends of the same refs to a mirror with the same contents.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, Work};

/// The number of objects in a repository.
fn objects(sandbox: &Sandbox, repository: &Path) -> usize {
    let counted = sandbox.git(repository, &["count-objects", "-v"]);
    let of = |key: &str| counted.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<usize>().ok()).unwrap();
    of("count:") + of("in-pack:")
}

/// A source with two mirrors that keep every pack as it came: ours, and the one that git pushes to.
struct Pair<'s> {
    sandbox: &'s Sandbox,
    source: PathBuf,
    ours: PathBuf,
    gits: PathBuf,
    work: Work<'s>,
}

impl<'s> Pair<'s> {
    fn new(sandbox: &'s Sandbox) -> Self {
        let [ours, gits] = ["mirror.git", "gits.git"].map(|name| {
            let bare = sandbox.bare(name);
            sandbox.git(&bare, &["config", "receive.unpackLimit", "1"]);
            bare
        });
        let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
        let work = sandbox.work(&source);
        Self { sandbox, source, ours, gits, work }
    }

    /// Mirrors with `command` and pushes with git, and compares how many objects came.
    fn compare(&self, command: &str, what: &str) -> (usize, usize) {
        let count = |repository: &Path| objects(self.sandbox, repository);
        let before = (count(&self.ours), count(&self.gits));
        self.sandbox.mirror_push_ok(&self.source, &[command, "-q"]);
        self.sandbox.git(&self.source, &["push", "-q", "--mirror", self.gits.to_str().unwrap()]);
        let sent = (count(&self.ours) - before.0, count(&self.gits) - before.1);
        assert_eq!(self.sandbox.refs(&self.ours), self.sandbox.refs(&self.gits), "{what}");
        assert!(sent.0 <= sent.1, "{what}: {} objects were sent, git sends {}", sent.0, sent.1);
        sent
    }

    /// `count` commits, each of which changes a file of its own directory.
    fn commits(&self, count: usize, name: &str) {
        for n in 0..count {
            let directory = self.work.path.join(format!("d{}", n % 7));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("{name}{}", n % 13)), format!("{name} {n}\n")).unwrap();
            self.work.git(&["add", "-A"]);
            self.work.commit(&format!("{name} {n}"));
        }
    }
}

#[test]
fn a_first_update_with_old_tags_and_branches() {
    let sandbox = Sandbox::new();
    let pair = Pair::new(&sandbox);
    pair.commits(120, "a");
    for n in 0..12 {
        pair.work.git(&["tag", "-a", "-m", "release", &format!("v{n}"), &format!("main~{}", n * 10)]);
        pair.work.git(&["branch", &format!("old{n}"), &format!("main~{}", n * 9 + 3)]);
    }
    pair.work.git(&["checkout", "-q", "-b", "topic", "main~50"]);
    pair.commits(5, "topic");
    pair.work.push(&["--all"]);
    pair.work.push(&["--tags"]);
    let (ours, _) = pair.compare("drain", "the first mirror");
    assert!(ours > 300, "{ours}");
}

#[test]
fn updates_after_the_first_one_of_a_short_and_a_long_history() {
    for base in [10, 150] {
        for command in ["drain", "sync"] {
            let sandbox = Sandbox::new();
            let pair = Pair::new(&sandbox);
            pair.commits(base, "a");
            pair.work.git(&["tag", "v1", &format!("main~{}", base / 2)]);
            pair.work.push(&["main", "v1"]);
            pair.compare(command, "first");
            let what = |text: &str| format!("{text}, {base} commits, {command}");
            let old = format!("main~{}", base - 3);
            pair.work.push(&[&format!("{old}:refs/heads/old")]);
            assert_eq!(pair.compare(command, &what("a branch at an old commit")).0, 0);
            pair.work.git(&["checkout", "-q", "-b", "hotfix", &old]);
            pair.commits(1, "fix");
            pair.work.push(&["hotfix"]);
            pair.compare(command, &what("a hotfix from an old release"));
            pair.work.git(&["checkout", "-q", "main"]);
            pair.work.git(&["merge", "-q", "--no-edit", "hotfix"]);
            pair.work.push(&["main"]);
            pair.compare(command, &what("the merge of the hotfix"));
            pair.work.push(&["+main~5:main"]);
            assert_eq!(pair.compare(command, &what("a rewind")).0, 0);
            pair.work.push(&["main"]);
            pair.compare(command, &what("main forward again after the rewind"));
            pair.work.git(&["mv", "d1", "moved"]);
            pair.work.git(&["mv", "d2/a2", "d3/there"]);
            pair.work.commit("renamed");
            pair.work.push(&["main"]);
            pair.compare(command, &what("renamed files"));
            pair.work.git(&["revert", "--no-edit", "HEAD"]);
            pair.work.push(&["main"]);
            pair.compare(command, &what("a revert"));
            pair.work.git(&["tag", "-a", "-m", "tag", "v2", "main~2"]);
            pair.work.push(&["v2"]);
            pair.compare(command, &what("an annotated tag on an old commit"));
            pair.work.git(&["checkout", "-q", "-b", "side", "main"]);
            pair.commits(3, "side");
            pair.work.push(&["side"]);
            pair.compare(command, &what("a side branch"));
            pair.work.push(&["side:main"]);
            assert_eq!(pair.compare(command, &what("main fast-forwarded to the side branch")).0, 0);
            pair.commits(100, "many");
            pair.work.push(&["side"]);
            pair.compare(command, &what("a hundred commits"));
        }
    }
}
