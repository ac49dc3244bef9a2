//! Three repositories: a star with us in the middle, a chain and a ring. After a few rounds nothing
//! changes any more, and all have the same refs.

use std::path::PathBuf;

use crate::scene::sandbox::Sandbox;

/// Repositories, and two-way mirrors between them.
struct Several {
    sandbox: Sandbox,
    repositories: Vec<PathBuf>,
}

impl Several {
    fn new(links: &[(usize, usize)]) -> Self {
        let sandbox = Sandbox::new();
        let repositories: Vec<PathBuf> = (0..3).map(|number| sandbox.bare(&format!("{number}.git"))).collect();
        for (from, to) in links {
            let url = repositories[*to].display().to_string();
            sandbox.mirror_push_ok(&repositories[*from], &["set", "wake=none"]);
            let options = ["--direction", "both", "prune=deleted"];
            sandbox.mirror_push_ok(&repositories[*from], &[&["add", &format!("to{to}"), &url][..], &options].concat());
        }
        Self { sandbox, repositories }
    }

    /// A commit on top of what this repository has, pushed to `refspecs`.
    fn push(&self, number: usize, refspecs: &[&str]) {
        let bare = &self.repositories[number];
        let work = self.sandbox.work(bare);
        if !self.sandbox.oid(bare, "main").is_empty() {
            work.git(&["fetch", "-q", "origin"]);
            work.git(&["reset", "-q", "--hard", "origin/main"]);
        }
        work.commit(&format!("{number} {refspecs:?}"));
        work.push(refspecs);
    }

    /// Pulls and drains everywhere until nothing changes. Returns how many rounds changed
    /// something.
    fn settle(&self) -> usize {
        let refs = || self.repositories.iter().map(|one| self.sandbox.refs(one)).collect::<Vec<_>>();
        let mut before = refs();
        for round in 0.. {
            assert!(round < 8, "it does not come to rest: {before:?}");
            for repository in &self.repositories {
                self.sandbox.mirror_push(repository, &["pull"]);
                self.sandbox.mirror_push(repository, &["drain"]);
            }
            let now = refs();
            if now == before {
                return round;
            }
            before = now;
        }
        unreachable!()
    }

    fn are_equal(&self) -> bool {
        let first = self.sandbox.refs(&self.repositories[0]);
        self.repositories.iter().all(|one| self.sandbox.refs(one) == first)
    }

    fn statuses(&self) -> String {
        self.repositories.iter().map(|one| self.sandbox.statuses(one).to_string()).collect()
    }
}

#[test]
fn a_star_a_chain_and_a_ring_come_to_rest() {
    for links in [&[(0, 1), (0, 2)][..], &[(0, 1), (1, 2)], &[(0, 1), (1, 2), (2, 0)]] {
        let all = Several::new(links);
        all.push(0, &["main", "main:x", "main:y"]);
        assert!(all.settle() <= 3 && all.are_equal(), "{links:?}: {}", all.statuses());
        all.push(2, &["main"]);
        all.push(1, &["main:refs/tags/one", "main:branch"]);
        assert!(all.settle() <= 3 && all.are_equal(), "{links:?}: {}", all.statuses());
        // A deletion and a rewrite reach all repositories too, and neither is undone.
        let work = all.sandbox.work(&all.repositories[1]);
        work.push(&[":x"]);
        work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
        work.push(&["+HEAD:y"]);
        let rewritten = all.sandbox.oid(&all.repositories[1], "y");
        assert!(all.settle() <= 3 && all.are_equal(), "{links:?}: {}", all.statuses());
        let y = all.repositories.iter().map(|one| all.sandbox.oid(one, "y"));
        assert!(y.into_iter().all(|value| value == rewritten), "{links:?}: {}", all.statuses());
        assert!(all.repositories.iter().all(|one| all.sandbox.oid(one, "x").is_empty()), "{links:?}");
        assert!(!all.statuses().contains("\"failed\""), "{}", all.statuses());
    }
}

/// Two mirrors of one repository move the same ref apart: the conflict is with the second one, and a merge here ends it.
#[test]
fn two_mirrors_that_conflict_with_each_other() {
    let all = Several::new(&[(0, 1), (0, 2)]);
    all.push(0, &["main"]);
    all.settle();
    all.push(1, &["main"]);
    all.push(2, &["main"]);
    all.settle();
    assert!(!all.are_equal() && all.statuses().contains("\"conflict\""), "{}", all.statuses());
    let here = &all.repositories[0];
    let places = all.sandbox.git(here, &["for-each-ref", "--format=%(refname)", "refs/conflicts"]);
    let work = all.sandbox.work(here);
    work.git(&["fetch", "-q", "origin", "main", places.trim()]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.git(&["fetch", "-q", "origin", places.trim()]);
    work.git(&["merge", "-q", "-m", "both", "FETCH_HEAD"]);
    work.push(&["main"]);
    assert!(all.settle() <= 3 && all.are_equal(), "{}", all.statuses());
    let left = all.sandbox.git(here, &["for-each-ref", "refs/conflicts"]);
    assert!(left.is_empty() && !all.statuses().contains("\"failed\""), "{left} {}", all.statuses());
}
