//! Does the same in every repository below the server's roots, in a few threads.
//!
//! Guaranteed: the answers come in the order of the repositories. `take_every` has only a few of
//! them in memory at once, unless one repository takes long. A repository that cannot be read is
//! reported, counted and skipped.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use super::{Base, Session, talk};
use crate::mirror::SyncGroup;
use crate::owner::{Hands, Owner};
use crate::repo;

/// The largest number of repositories that a thread takes at once.
const PORTION: usize = 16;
/// How many threads write at once. They wait for the disk most of the time, and share its syncs.
const WRITERS: usize = 32;
/// How many finished portions may wait for the receiver.
const AHEAD: usize = 16;

/// What is asked in a repository.
pub(super) type Ask<'a, T> = &'a (dyn Fn(&Session<'_>) -> anyhow::Result<T> + Sync);

/// Acts in a repository with its owner's rights. `None` where that is not needed.
pub(super) type AsOwner<'a, T> = &'a (dyn Fn(&Path) -> Option<anyhow::Result<T>> + Sync);

impl Base {
    /// Every repository below the roots. Prints warnings about the roots. Refuses templates that give two repositories the same URL.
    pub(super) fn repositories(&self) -> anyhow::Result<Vec<PathBuf>> {
        let repositories = self.server.repositories()?;
        self.server.remarks(&repositories).iter().for_each(|remark| self.warn(remark));
        self.server.check_urls_of(&repositories)?;
        Ok(repositories)
    }

    /// Whether a root is not there, so that `--all` does not cover all.
    pub(super) fn lacks_roots(&self) -> bool {
        self.server.missing_roots().next().is_some()
    }

    /// Reads something of every repository, and gives the answers to `take` one by one. Returns how many repositories could not be read.
    pub(super) fn take_every<T: Send>(
        &self,
        read: &(dyn Fn(&Path) -> anyhow::Result<T> + Sync),
        take: &mut dyn FnMut(&Path, T) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        take_in(&self.repositories()?, threads(), read, take)
    }

    /// Opens one repository and calls `ask` in it.
    pub(super) fn ask_in<T>(&self, path: &Path, ask: Ask<'_, T>) -> anyhow::Result<T> {
        repo::open_listed(path).map_err(Into::into).and_then(|shared| ask(&self.session_at(shared)))
    }

    /// Calls `ask` in every repository. Returns the answers, and how many repositories failed.
    pub(super) fn ask_every<T: Send>(&self, ask: Ask<'_, T>) -> anyhow::Result<(Vec<T>, usize)> {
        self.act_in_every(ask, &|_| None)
    }

    /// Does something in every repository. Where root must not act itself, `as_owner` runs a child process with the owner's rights, and
    /// makes the answer from its output.
    pub(super) fn act_in_every<T: Send>(
        &self,
        ask: Ask<'_, T>,
        as_owner: AsOwner<'_, T>,
    ) -> anyhow::Result<(Vec<T>, usize)> {
        Ok(self.act_in(&self.repositories()?, ask, as_owner))
    }

    /// The same in these repositories.
    pub(super) fn act_in<T: Send>(
        &self,
        repositories: &[PathBuf],
        ask: Ask<'_, T>,
        as_owner: AsOwner<'_, T>,
    ) -> (Vec<T>, usize) {
        let mut answers = Vec::new();
        let act = |path: &Path| as_owner(path).unwrap_or_else(|| self.ask_in(path, ask));
        let Ok(bad) = take_in::<T, Infallible>(repositories, threads(), &act, &mut |_, answer| {
            answers.push(answer);
            Ok(())
        });
        (answers, bad)
    }

    /// Writes in these repositories, with few syncs for all of them.
    pub(super) fn write_in<T: Send>(&self, repositories: &[PathBuf], ask: Ask<'_, T>) -> (Vec<T>, usize) {
        let (mut answers, group) = (Vec::new(), Arc::new(SyncGroup::default()));
        let act = |path: &Path| group.join(|| self.ask_in(path, ask));
        let Ok(bad) = take_in::<T, Infallible>(repositories, WRITERS, &act, &mut |_, answer| {
            answers.push(answer);
            Ok(())
        });
        (answers, bad)
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Acts in these repositories, and gives the answers to `take` in their order.
fn take_in<T: Send, E>(
    repositories: &[PathBuf],
    threads: usize,
    act: &(dyn Fn(&Path) -> anyhow::Result<T> + Sync),
    take: &mut dyn FnMut(&Path, T) -> Result<(), E>,
) -> Result<usize, E> {
    let (next, mut bad) = (AtomicUsize::new(0), 0);
    let (sender, answers) = sync_channel(AHEAD);
    let size = (repositories.len() / threads).clamp(1, PORTION);
    let portions: Vec<&[PathBuf]> = repositories.chunks(size).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(portions.len()) {
            let (sender, next, portions) = (sender.clone(), &next, &portions);
            scope.spawn(move || {
                loop {
                    let portion = next.fetch_add(1, Ordering::Relaxed);
                    let Some(paths) = portions.get(portion) else { return };
                    let acted: Vec<_> = paths.iter().map(|path| (path, act(path))).collect();
                    // Nobody takes more answers after an error.
                    if sender.send((portion, acted)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut early, mut expected) = (BTreeMap::new(), 0);
        for (portion, acted) in answers {
            early.insert(portion, acted);
            while let Some(acted) = early.remove(&expected) {
                for (path, answer) in acted {
                    match answer {
                        Ok(answer) => take(path, answer)?,
                        Err(error) => {
                            bad += 1;
                            talk(&format!("error: '{}': {error:#}", path.display()));
                        }
                    }
                }
                expected += 1;
            }
        }
        Ok(bad)
    })
}

/// Runs a command of this program in a child process with the rights of the repository's owner. Returns what the command printed. `None`
/// where no such child is needed.
pub(super) fn said_as_owner(
    base: &Base,
    git_dir: &Path,
    hands: Hands,
    arguments: &[&str],
) -> Option<anyhow::Result<Vec<u8>>> {
    let owner = Owner::of(git_dir, &base.server)?;
    let run = || {
        let mut asked = owner.command(git_dir, &base.server, hands)?;
        asked.command.args(arguments);
        Ok(asked.output()?)
    };
    Some(run())
}
