//! What the daemon sends to the database of its fleet: the numbers of its projects, and copies of how their mirrors stand.
//!
//! Guaranteed: what the database may have lost is sent again, also if that fails at first. Absent:
//! a queue of changes. Instead, each project has a mark that its copy is behind. At its start, the
//! daemon reads and sends all copies, so a copy that the last daemon did not send is not forgotten.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fleet::uptime;
use super::projects::{Project, Table};
use super::summaries::Mirrors;
use super::{App, now};
use crate::credentials::{Cleaned, Redactor};
use crate::fleet::{BEAT, Error, Later, Node, Numbered, Repository, Tallies};
use crate::mirror;
use crate::status::Standing;

/// How many repositories are sent in one transaction.
const BATCH: usize = 200;
/// How often the daemon looks for all mirrors that have the same URL as another one. For the
/// mirrors of a repository, it looks whenever it sends their copy.
const LOOK: Duration = Duration::from_secs(60);

/// What the database has of this node.
#[derive(Default)]
pub(super) struct Sent {
    /// Whether the database may have lost something, and the projects are not yet marked as behind.
    pub(super) has_lost: bool,
    /// The directories of the repositories that have copies.
    git_dirs: HashSet<String>,
    /// The table with which `git_dirs` was last compared.
    table: Option<Arc<Table>>,
    tallies: Option<Tallies>,
    /// When the daemon last looked for mirrors that have the same URL as another one, as time
    /// since this machine was started.
    parked: Option<Duration>,
}

impl App {
    /// Sends what the database does not have, until two seconds after the beat began (`begun`).
    pub(super) fn send(&self, node: &mut Node, sent: &mut Sent, begun: Duration) -> Result<(), Error> {
        if sent.has_lost {
            for project in &self.projects.table().projects {
                project.is_copied.store(false, Ordering::Relaxed);
                project.is_numbered.store(false, Ordering::Relaxed);
            }
            // The database may give the reserved numbers to somebody else.
            self.projects.reserve(0..0);
            *sent = Sent { git_dirs: node.copied()?.into_iter().collect(), ..Sent::default() };
        }
        self.number(node, begun)?;
        let table = self.projects.table();
        self.remove_copies(node, sent, &table)?;
        let is_changed = self.send_copies(node, sent, &table, begun)?;
        if is_changed || sent.tallies.is_none() {
            let tallies = tallies(&table);
            if sent.tallies.as_ref() != Some(&tallies) {
                node.send_tallies(&tallies)?;
                sent.tallies = Some(tallies);
            }
        }
        if sent.parked.is_none_or(|at| begun.saturating_sub(at) >= LOOK) {
            self.workers.park(&|_| true, node.later()?.into_iter().map(reason).collect());
            sent.parked = Some(begun);
        }
        Ok(())
    }

    /// Serves all mirrors again: whether another mirror has the same URL is not known any more.
    pub(super) fn serve_parked(&self, sent: &mut Sent) {
        self.workers.park(&|_| true, HashMap::new());
        sent.parked = None;
    }

    /// Whether the beat that began at `begun` must end: it has taken two seconds, or the workers
    /// are halted.
    fn is_over(&self, begun: Duration) -> bool {
        uptime().saturating_sub(begun) >= BEAT || self.workers.is_halted()
    }

    /// Gives projects the numbers that the fleet has for them.
    fn number(&self, node: &mut Node, begun: Duration) -> Result<(), Error> {
        let table = self.projects.table();
        let of = |project: &Arc<Project>| {
            let git_dir = project.git_dir.to_str()?.to_owned();
            Some(Numbered { id: project.id, git_dir, path: project.path.clone() })
        };
        let is_new = |project: &&Arc<Project>| !project.is_numbered.load(Ordering::Relaxed);
        let new: Vec<&Arc<Project>> = table.projects.iter().filter(is_new).collect();
        let (mut changed, mut asked, mut failed): (Vec<(u32, PathBuf)>, usize, _) = (Vec::new(), 0, None);
        for part in new.chunks(BATCH).take_while(|_| !self.is_over(begun)) {
            let own: Vec<Numbered> = part.iter().copied().filter_map(of).collect();
            match node.number(&own, self.projects.last_number()) {
                Ok(given) => {
                    let given = given.into_iter().map(|numbered| (numbered.id, PathBuf::from(numbered.git_dir)));
                    let of_part = |git_dir: &Path| part.iter().any(|project| project.git_dir == git_dir);
                    changed.extend(given.filter(|(_, git_dir)| of_part(git_dir)));
                    asked += part.len();
                }
                // What the database has answered so far counts.
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // All at once, because projects may have exchanged their numbers.
        let refused = match self.projects.renumber(changed) {
            Ok(refused) => refused,
            Err(error) => {
                tracing::error!("cannot store the project numbers: {error}");
                return failed.map_or(Ok(()), Err);
            }
        };
        // The project that has the number may be one that was not asked for yet.
        let is_whole = asked == new.len();
        let done = new[..asked].iter().filter(|project| is_whole || !refused.contains(&project.git_dir));
        done.for_each(|project| project.is_numbered.store(true, Ordering::Relaxed));
        if let Some(error) = failed {
            return Err(error);
        }
        if self.projects.is_short_of_numbers() {
            self.projects.reserve(node.reserve()?);
        }
        Ok(())
    }

    /// Removes the copies of repositories that are gone. While a root is missing, it removes
    /// nothing, because the repositories there may still exist.
    fn remove_copies(&self, node: &mut Node, sent: &mut Sent, table: &Arc<Table>) -> Result<(), Error> {
        let is_same = sent.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, table));
        if is_same || !self.look.is_ready() || !self.look.is_whole() {
            return Ok(());
        }
        let there: HashSet<&str> = table.projects.iter().filter_map(|project| project.git_dir.to_str()).collect();
        let gone: HashSet<String> =
            sent.git_dirs.iter().filter(|git_dir| !there.contains(&***git_dir)).cloned().collect();
        if !gone.is_empty() {
            node.remove(&gone)?;
            sent.git_dirs.retain(|git_dir| !gone.contains(git_dir));
            sent.tallies = None;
        }
        sent.table = Some(Arc::clone(table));
        Ok(())
    }

    /// Sends the copies that are behind, until the next beat is due. Returns whether there were any.
    fn send_copies(&self, node: &mut Node, sent: &mut Sent, table: &Table, begun: Duration) -> Result<bool, Error> {
        let is_behind = |project: &&Arc<Project>| {
            let is_numbered = project.is_numbered.load(Ordering::Relaxed);
            is_numbered && !project.is_copied.load(Ordering::Relaxed) && project.is_read()
        };
        let behind: Vec<&Arc<Project>> = table.projects.iter().filter(is_behind).collect();
        let mut rest = &behind[..];
        while !rest.is_empty() && !self.is_over(begun) {
            let (mut batch, mut copies): (Vec<&Arc<Project>>, Vec<Repository>) = (Vec::new(), Vec::new());
            // A disk may be slow, and the other nodes must not take this one for gone.
            while let Some((project, others)) =
                rest.split_first().filter(|_| batch.len() < BATCH && !self.is_over(begun))
            {
                // Before the files are read, so that a change meanwhile is sent later.
                project.is_copied.store(true, Ordering::Relaxed);
                copies.extend(self.copy(project));
                batch.push(project);
                rest = others;
            }
            match node.send(&copies) {
                Ok(later) => {
                    let git_dirs: HashSet<&Path> = batch.iter().map(|project| &*project.git_dir).collect();
                    self.workers.park(&|git_dir| git_dirs.contains(git_dir), later.into_iter().map(reason).collect());
                }
                Err(error) => {
                    batch.iter().for_each(|project| project.is_copied.store(false, Ordering::Relaxed));
                    return Err(error);
                }
            }
            // No file changes when a run is killed. So the copy of a project with a running mirror
            // is read and sent again.
            let runs = batch.iter().filter(|project| project.is_running());
            runs.for_each(|project| project.is_copied.store(false, Ordering::Relaxed));
            sent.git_dirs.extend(batch.iter().filter_map(|project| Some(project.git_dir.to_str()?.to_owned())));
        }
        self.fleet.note_behind(rest.len());
        Ok(!behind.is_empty())
    }

    /// The copy of a project. `None` if its path is not UTF-8, because such a project has no copy.
    /// `None` also if its files cannot be read and its summary does not say so yet; then the next
    /// beat tries again.
    fn copy(&self, project: &Project) -> Option<Repository> {
        let (git_dir, path) = (&project.git_dir, &project.path);
        let read = || -> anyhow::Result<Option<Repository>> {
            let server = self.workers.server();
            server.check_url_of(git_dir)?;
            let (layout, config) = mirror::to_show(git_dir, &server)?;
            Ok(Repository::read(git_dir, path, &layout, &config, now())?)
        };
        // Why it cannot be read is in the log: see `summaries`.
        read().unwrap_or_else(|_| {
            let is_known = project.look(|mirrors| matches!(mirrors, Mirrors::Unreadable));
            if !is_known {
                project.is_copied.store(false, Ordering::Relaxed);
                return None;
            }
            Repository::unreadable(git_dir, path)
        })
    }
}

impl Project {
    /// Whether one of its mirrors is being served, as far as is known.
    fn is_running(&self) -> bool {
        self.look(|mirrors| match mirrors {
            Mirrors::Read(all) => all.iter().any(|mirror| mirror.standing == Standing::Running),
            Mirrors::Unread | Mirrors::Unreadable => false,
        })
    }
}

/// A mirror that is not served, and why: another mirror of the fleet has the same URL and was there
/// first, and this one would overwrite what that one pushes.
fn reason(later: Later) -> ((PathBuf, String), Cleaned) {
    let Later { git_dir, name, node, repository, mirror } = later;
    let why =
        format!("mirror '{mirror}' of '{repository}' on node {node} pushes to the same URL; remove one of the two");
    ((PathBuf::from(git_dir), name), Redactor::default().clean(&why).on_one_line())
}

/// How the mirrors of these projects stand.
fn tallies(table: &Table) -> Tallies {
    let mut tallies = Tallies::default();
    for project in &table.projects {
        project.look(|mirrors| match mirrors {
            Mirrors::Unread => {}
            Mirrors::Unreadable => tallies.add_unreadable(),
            Mirrors::Read(mirrors) => mirrors.iter().for_each(|mirror| tallies.add(mirror)),
        });
    }
    tallies
}
