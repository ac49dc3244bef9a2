//! How many objects are sent: never more than `git push` sends of the same refs to the same mirror.

use std::path::{Path, PathBuf};

use crate::sandbox::{Sandbox, Work};

/// The objects that a repository keeps.
fn objects(sandbox: &Sandbox, repository: &Path) -> usize {
    let counted = sandbox.git(repository, &["count-objects", "-v"]);
    let of = |key: &str| counted.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<usize>().ok()).unwrap();
    of("count:") + of("in-pack:")
}

/// A source with two mirrors that keep every pack as it came: ours, and the one that git pushes to.
struct Scene<'s> {
    sandbox: &'s Sandbox,
    source: PathBuf,
    ours: PathBuf,
    gits: PathBuf,
    work: Work<'s>,
}

impl<'s> Scene<'s> {
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
        self.sandbox.ok(&self.source, &[command, "-q"]);
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
fn a_first_mirror_with_old_tags_and_branches() {
    let sandbox = Sandbox::new();
    let scene = Scene::new(&sandbox);
    scene.commits(120, "a");
    for n in 0..12 {
        scene.work.git(&["tag", "-a", "-m", "release", &format!("v{n}"), &format!("main~{}", n * 10)]);
        scene.work.git(&["branch", &format!("old{n}"), &format!("main~{}", n * 9 + 3)]);
    }
    scene.work.git(&["checkout", "-q", "-b", "topic", "main~50"]);
    scene.commits(5, "topic");
    scene.work.push(&["--all"]);
    scene.work.push(&["--tags"]);
    let (ours, _) = scene.compare("drain", "the first mirror");
    assert!(ours > 300, "{ours}");
}

#[test]
fn what_follows_a_first_mirror_small_and_large() {
    for base in [10, 150] {
        for command in ["drain", "sync"] {
            let sandbox = Sandbox::new();
            let scene = Scene::new(&sandbox);
            scene.commits(base, "a");
            scene.work.git(&["tag", "v1", &format!("main~{}", base / 2)]);
            scene.work.push(&["main", "v1"]);
            scene.compare(command, "first");
            let what = |text: &str| format!("{text}, {base} commits, {command}");
            let old = format!("main~{}", base - 3);
            scene.work.push(&[&format!("{old}:refs/heads/old")]);
            assert_eq!(scene.compare(command, &what("a branch at an old commit")).0, 0);
            scene.work.git(&["checkout", "-q", "-b", "hotfix", &old]);
            scene.commits(1, "fix");
            scene.work.push(&["hotfix"]);
            scene.compare(command, &what("a hotfix from an old release"));
            scene.work.git(&["checkout", "-q", "main"]);
            scene.work.git(&["merge", "-q", "--no-edit", "hotfix"]);
            scene.work.push(&["main"]);
            scene.compare(command, &what("its merge"));
            scene.work.push(&["+main~5:main"]);
            assert_eq!(scene.compare(command, &what("a rewind")).0, 0);
            scene.work.push(&["main"]);
            scene.compare(command, &what("and forward again"));
            scene.work.git(&["mv", "d1", "moved"]);
            scene.work.git(&["mv", "d2/a2", "d3/there"]);
            scene.work.commit("renamed");
            scene.work.push(&["main"]);
            scene.compare(command, &what("renamed files"));
            scene.work.git(&["revert", "--no-edit", "HEAD"]);
            scene.work.push(&["main"]);
            scene.compare(command, &what("a revert"));
            scene.work.git(&["tag", "-a", "-m", "tag", "v2", "main~2"]);
            scene.work.push(&["v2"]);
            scene.compare(command, &what("an annotated tag on an old commit"));
            scene.work.git(&["checkout", "-q", "-b", "side", "main"]);
            scene.commits(3, "side");
            scene.work.push(&["side"]);
            scene.compare(command, &what("a side branch"));
            scene.work.push(&["side:main"]);
            assert_eq!(scene.compare(command, &what("that main takes")).0, 0);
            scene.commits(100, "many");
            scene.work.push(&["side"]);
            scene.compare(command, &what("a hundred commits"));
        }
    }
}
