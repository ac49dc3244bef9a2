//! The syncs of many threads, put together: one syncfs(2) instead of an fsync(2) for each file.
//!
//! Guaranteed: when a sync returns, everything that was written to its file or changed in its
//! directory before it began is on the disk, as with fsync. Where syncfs does less than that, fsync
//! is used. The syncs of one thread keep their order. The cost: syncfs writes everything that waits
//! for that file system, and an error of another program's write is an error here too. Absent: an
//! error that the kernel has already reported, to another program or to an earlier round, of a file
//! that was written before the round began. fsync would report it again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::storage::is_synced_as_a_whole;

/// How long a sync waits for those of the other members.
const PATIENCE: Duration = Duration::from_millis(10);

thread_local! {
    static OF_THREAD: RefCell<Option<Arc<Group>>> = const { RefCell::new(None) };
}

/// Threads whose syncs are put together.
#[derive(Debug, Default)]
pub struct Group {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many threads are members.
    members: usize,
    /// The round that gathers now.
    round: u64,
    /// How many members wait in it.
    waiting: usize,
    /// One open file for each file system that it has to sync.
    files: HashMap<u64, File>,
    /// The rounds that are over: the number of the error, and how many members have not read it yet.
    over: HashMap<u64, (Option<i32>, usize)>,
}

impl Group {
    /// Does something during which the syncs of this thread are put together with those of the other members.
    pub fn join<T>(self: &Arc<Self>, act: impl FnOnce() -> T) -> T {
        struct Member(Arc<Group>);
        impl Drop for Member {
            fn drop(&mut self) {
                OF_THREAD.set(None);
                self.0.state.lock().members -= 1;
                // The others may be waiting for this member only.
                self.0.changed.notify_all();
            }
        }
        self.state.lock().members += 1;
        OF_THREAD.set(Some(Arc::clone(self)));
        let _member = Member(Arc::clone(self));
        act()
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if !is_synced_as_a_whole(file)? {
            return file.sync_all();
        }
        let system = file.metadata()?.dev();
        let mut state = self.state.lock();
        if let Entry::Vacant(new) = state.files.entry(system) {
            new.insert(file.try_clone()?);
        }
        let round = state.round;
        state.waiting += 1;
        let mut is_patient = true;
        loop {
            if let Some((error, unread)) = state.over.get_mut(&round) {
                let error = *error;
                *unread -= 1;
                if *unread == 0 {
                    state.over.remove(&round);
                }
                return error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)));
            }
            if state.round == round && (state.waiting >= state.members || !is_patient) {
                let (files, waiting) = (std::mem::take(&mut state.files), std::mem::take(&mut state.waiting));
                state.round += 1;
                drop(state);
                let synced = files.values().try_for_each(rustix::fs::syncfs);
                state = self.state.lock();
                state.over.insert(round, (synced.err().map(rustix::io::Errno::raw_os_error), waiting));
                self.changed.notify_all();
            } else {
                is_patient = !self.changed.wait_for(&mut state, PATIENCE).timed_out();
            }
        }
    }
}

/// Syncs a file or a directory, together with other threads if this thread is a member of a group.
pub(super) fn sync(file: &File) -> io::Result<()> {
    match OF_THREAD.with_borrow(Clone::clone) {
        Some(group) => group.sync(file),
        None => file.sync_all(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the test")]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_sync_returns_whoever_leaves_and_whoever_is_late() {
        let scene = tempfile::tempdir().expect("a directory");
        let group = Arc::new(Group::default());
        std::thread::scope(|scope| {
            for n in 0..8_usize {
                let (group, path) = (Arc::clone(&group), scene.path().join(n.to_string()));
                scope.spawn(move || {
                    group.join(|| {
                        // The members do not sync equally often, and one is slow.
                        for _ in 0..=n * 3 {
                            let mut file = File::create(&path).expect("made");
                            file.write_all(b"x").expect("written");
                            if n == 3 {
                                std::thread::park_timeout(Duration::from_millis(15));
                            }
                            sync(&file).expect("synced");
                        }
                    });
                    sync(&File::open(&path).expect("opened")).expect("synced alone");
                });
            }
        });
        let state = group.state.lock();
        assert!(
            state.members == 0 && state.waiting == 0 && state.over.is_empty() && state.files.is_empty(),
            "{state:?}"
        );
        assert!(state.round < 200, "{state:?}");
    }
}
