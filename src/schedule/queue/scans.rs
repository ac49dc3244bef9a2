//! Which repositories' spools are looked at next. Pure.
//!
//! A repository that was woken, or whose time has come, does not wait for the look through all
//! repositories. In the daemon, a separate thread does that look. It has a lower priority than the
//! other threads, so that it hardly delays a push.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

/// The scans that wait.
#[derive(Default)]
pub(super) struct Scans {
    woken: VecDeque<PathBuf>,
    /// What is in `woken`.
    is_woken: HashSet<PathBuf>,
    /// The rest of the look through all repositories.
    all: VecDeque<PathBuf>,
    running: usize,
    /// When the current look through all repositories began. `None` if there is none.
    begun: Option<Timestamp>,
    /// How long the last one took.
    took: Duration,
}

impl Scans {
    /// Adds a repository that was woken.
    pub(super) fn wake(&mut self, git_dir: PathBuf) {
        if self.is_woken.insert(git_dir.clone()) {
            self.woken.push_back(git_dir);
        }
    }

    /// Adds a look through all repositories. What is left of the one before comes first.
    pub(super) fn add_all(&mut self, git_dirs: Vec<PathBuf>, now: Timestamp) {
        if self.begun.is_none() && !git_dirs.is_empty() {
            self.begun = Some(now);
        }
        let left: HashSet<&PathBuf> = self.all.iter().collect();
        let new: Vec<PathBuf> = git_dirs.into_iter().filter(|git_dir| !left.contains(git_dir)).collect();
        self.all.extend(new);
    }

    /// The next repository that was woken, when fewer than `most` are being scanned.
    pub(super) fn begin_woken(&mut self, most: usize) -> Option<PathBuf> {
        let next = if self.running < most { self.woken.pop_front() } else { None }?;
        self.is_woken.remove(&next);
        self.running += 1;
        Some(next)
    }

    /// The next repository of the look through all, when fewer than `most` are being scanned.
    pub(super) fn begin_next(&mut self, most: usize) -> Option<PathBuf> {
        let next = if self.running < most { self.all.pop_front() } else { None }?;
        self.running += 1;
        Some(next)
    }

    /// A repository was scanned.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.running -= 1;
        if self.all.is_empty()
            && let Some(begun) = self.begun.take()
        {
            self.took = now.duration_since(begun).unsigned_abs();
        }
    }

    /// How long the last look through all repositories took, or how long the current one has taken
    /// so far, whichever is longer.
    pub(super) fn took(&self, now: Timestamp) -> Duration {
        self.begun.map_or(self.took, |begun| self.took.max(now.duration_since(begun).unsigned_abs()))
    }

    /// Whether no repository waits or is being scanned.
    pub(super) fn is_empty(&self) -> bool {
        self.running == 0 && self.woken.is_empty() && self.all.is_empty()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.woken.clear();
        self.is_woken.clear();
        self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("a time")
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_woken_repository_does_not_wait_for_all_others() {
        let mut scans = Scans::default();
        scans.add_all(paths(&["a", "b", "c"]), at(0));
        assert_eq!(scans.begin_next(9), Some("a".into()));
        assert_eq!(scans.begin_woken(9), None);
        ["c", "c", "d"].iter().for_each(|name| scans.wake(name.into()));
        assert_eq!(scans.begin_woken(2), Some("c".into()));
        assert_eq!(scans.begin_woken(2), None, "two places");
        scans.end(at(1));
        assert_eq!(scans.begin_woken(2), Some("d".into()), "waking twice is waking once");
        scans.end(at(1));
        assert_eq!(scans.begin_woken(2), None);
        scans.end(at(1));
        assert_eq!(scans.begin_next(9), Some("b".into()));
        scans.wake("b".into());
        assert_eq!(scans.begin_woken(2), Some("b".into()), "it may have changed since the scan began");
    }

    #[test]
    fn a_second_look_adds_what_does_not_wait_and_the_time_is_from_first_to_last() {
        let mut scans = Scans::default();
        scans.add_all(Vec::new(), at(0));
        scans.wake("x".into());
        assert!(scans.begin_woken(1).is_some());
        scans.end(at(5));
        assert_eq!(scans.took(at(9)), Duration::ZERO, "no look through all repositories");
        scans.add_all(paths(&["a", "b"]), at(10));
        assert_eq!(scans.begin_next(1), Some("a".into()));
        scans.add_all(paths(&["a", "b", "c"]), at(11));
        let mut rest = Vec::new();
        loop {
            assert_eq!(scans.took(at(11)), Duration::from_secs(1), "so far");
            scans.end(at(12));
            let Some(next) = scans.begin_next(1) else { break };
            rest.push(next);
        }
        assert_eq!((rest, scans.took(at(99))), (paths(&["b", "a", "c"]), Duration::from_secs(2)));
        assert!(scans.is_empty());
    }
}
