//! The daemon as a node of a fleet: a thread that tells the database every two seconds that it lives, and sends copies of what has changed.
//!
//! Guaranteed: no other thread waits for the database. Absent: a queue of changes. A mark on each project says that its copy is behind, and a
//! daemon that ends before it has sent a copy reads and sends all of them after its next start.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fleet::uptime;
use super::projects::{Project, Table};
use super::summaries::Mirrors;
use super::{App, now, random};
use crate::config::{HostKeys, Server};
use crate::credentials::{Cleaned, Redactor};
use crate::drain::{Down, Report};
use crate::fleet::{
    Asked, BEAT, CUT, Error, Later, Limit, Limits, Node, Numbered, Own, Pulse, Repository, Tallies, Use,
};
use crate::mirror;
use crate::schedule::{HostLimit, HostUse, Parts};

/// How many repositories are sent in one transaction.
const BATCH: usize = 500;

/// After a beat, so long until the next one if something waits for a larger part of a limit.
const GAP: Duration = Duration::from_millis(100);
/// How often all mirrors with one URL are looked for. Those of a repository whose copy is sent are looked for then.
const LOOK: Duration = Duration::from_secs(60);

/// What the database has of this node.
#[derive(Default)]
struct Sent {
    /// The directories of the repositories that have copies.
    git_dirs: HashSet<String>,
    /// The repositories with which they were compared last.
    table: Option<Arc<Table>>,
    tallies: Option<Tallies>,
    /// When mirrors with one URL were last looked for, as time since this machine was started.
    parked: Option<Duration>,
}

impl App {
    /// Before anything begins: at hosts of `[hosts]` nothing may begin until the database has answered or failed to.
    pub(super) fn hold_hosts(&self) {
        if self.fleet.access.is_some() {
            let none = HostLimit { jobs: Some(0), per_minute: Some(0) };
            let of = self.workers.server().hosts.keys().map(|name| (name.clone(), none)).collect();
            self.workers.share(Parts { of, until: now() + CUT, machines: self.fleet.nodes() });
        }
    }

    /// A host has asked us to wait. The other nodes are to wait too.
    pub(super) fn host_asked(&self, git_dir: &Path, report: &Report) {
        let (Some(project), Some(until)) = (self.project_at(git_dir), report.next_attempt_at) else { return };
        let host = project.look(|mirrors| match mirrors {
            Mirrors::Read(all) => all.iter().find(|one| one.name == report.remote).map(|one| one.host.clone()),
            _ => None,
        });
        if let Some(host) = host.filter(|_| self.fleet.access.is_some()) {
            let milliseconds = i64::try_from(until.duration_since(now()).as_millis()).unwrap_or(0);
            let said = report.error.clone().unwrap_or_default().on_one_line().to_string();
            self.fleet.asked.lock().push(Asked { host, milliseconds, said });
            self.workers.urge();
        }
    }

    /// Tells the database that this node lives, and how its mirrors stand, until the workers are halted.
    pub(super) fn beat_for_ever(&self) {
        let Some(access) = self.fleet.access.clone() else { return };
        let mut node = Node::new(access, format!("{:016x}{:016x}", random(), random()));
        let mut sent = Sent::default();
        let (mut is_first, mut is_needed) = (true, false);
        loop {
            let begun = uptime();
            let result = self.beat(&mut node, &mut sent);
            if is_first && result.is_err() {
                self.workers.share(Parts { of: BTreeMap::new(), until: now(), machines: self.fleet.nodes() });
            }
            if result.is_err() && self.fleet.is_connected() == Some(false) {
                // Whether another mirror has the same URL is not known any more.
                self.workers.park(&|_| true, HashMap::new());
                sent.parked = None;
            }
            self.fleet.note(result);
            is_first = false;
            // The first need is met at once, and later ones a few times in a second.
            let gap = if is_needed { GAP } else { Duration::ZERO };
            std::thread::park_timeout(gap.saturating_sub(uptime().saturating_sub(begun)));
            if self.workers.wait_for_need(BEAT.saturating_sub(uptime().saturating_sub(begun))) {
                break;
            }
            is_needed = uptime().saturating_sub(begun) < BEAT;
        }
        node.leave();
    }

    fn beat(&self, node: &mut Node, sent: &mut Sent) -> Result<(), Error> {
        let begun = uptime();
        let (running, waiting) = self.workers.counts();
        let limits = limits(&self.workers.server());
        let own = Own {
            limits: &limits,
            uses: &self.workers.uses().into_iter().map(of_fleet).collect(),
            lower: &|parts| self.workers.lower(&of_schedule(parts)).into_iter().map(of_fleet).collect(),
        };
        let answer = node.beat(&Pulse { running, waiting, now: now() }, &own)?;
        self.fleet.take(&answer, begun);
        let parts = of_schedule(&answer.parts);
        self.workers.share(Parts { of: parts, until: now() + CUT, machines: answer.live });
        self.fleet.keep_nodes(answer.live);
        self.set_silent(answer.is_silent);
        for asked in std::mem::take(&mut *self.fleet.asked.lock()) {
            node.ask(&asked)?;
        }
        answer.asked.iter().for_each(|asked| self.hold(asked));
        let table = self.projects.table();
        if answer.has_lost {
            let git_dirs = node.copied()?.into_iter().collect();
            *sent = Sent { git_dirs, ..Sent::default() };
            for project in &table.projects {
                project.is_copied.store(false, Ordering::Relaxed);
                project.is_numbered.store(false, Ordering::Relaxed);
            }
        }
        self.number(node)?;
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
        let is_due = sent.parked.is_none_or(|at| begun.saturating_sub(at) >= LOOK);
        if is_due {
            self.workers.park(&|_| true, node.later()?.into_iter().map(reason).collect());
            sent.parked = Some(begun);
        }
        Ok(())
    }

    /// A host has asked another node to wait, so this one waits too.
    fn hold(&self, asked: &Asked) {
        let until = now() + Duration::from_millis(u64::try_from(asked.milliseconds).unwrap_or(0));
        // Whoever may write to the database could put anything there.
        let error = Redactor::default().clean(&asked.said).on_one_line();
        self.workers.hold(&asked.host, Down { error, attempts: 1, next_attempt_at: until, cause: None });
    }

    /// Makes the numbers of projects those of the fleet.
    fn number(&self, node: &mut Node) -> Result<(), Error> {
        let table = self.projects.table();
        let of = |project: &Arc<Project>| {
            let git_dir = project.git_dir.to_str()?.to_owned();
            Some(Numbered { id: project.id, git_dir, path: project.path.clone() })
        };
        let is_new = |project: &&Arc<Project>| !project.is_numbered.load(Ordering::Relaxed);
        let new: Vec<&Arc<Project>> = table.projects.iter().filter(is_new).collect();
        for part in new.chunks(BATCH) {
            let changed = node.number(&part.iter().copied().filter_map(of).collect::<Vec<_>>())?;
            for Numbered { id, git_dir, .. } in &changed {
                tracing::warn!("fleet: the project of '{git_dir}' has the number {id} now, as the fleet knows it");
            }
            part.iter().for_each(|project| project.is_numbered.store(true, Ordering::Relaxed));
            let changed: Vec<_> =
                changed.into_iter().map(|numbered| (numbered.id, PathBuf::from(numbered.git_dir))).collect();
            if let Err(error) = self.projects.renumber(changed) {
                tracing::error!("cannot store the project numbers: {error}");
            }
        }
        if self.projects.is_short_of_numbers() {
            self.projects.reserve(node.reserve()?);
        }
        Ok(())
    }

    /// Removes the copies of repositories that are gone. While a root is missing, nothing is known of what it held.
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
        let mut behind: Vec<&Arc<Project>> = table.projects.iter().filter(is_behind).collect();
        let is_changed = !behind.is_empty();
        while !behind.is_empty() && uptime().saturating_sub(begun) < BEAT {
            let batch: Vec<_> = behind.drain(..behind.len().min(BATCH)).collect();
            // Before the files are read, so that a change meanwhile is sent later.
            batch.iter().for_each(|project| project.is_copied.store(true, Ordering::Relaxed));
            let copies: Vec<Repository> = batch.iter().filter_map(|project| self.copy(project)).collect();
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
            sent.git_dirs.extend(batch.iter().filter_map(|project| Some(project.git_dir.to_str()?.to_owned())));
        }
        self.fleet.note_behind(behind.len());
        Ok(is_changed)
    }

    fn copy(&self, project: &Project) -> Option<Repository> {
        let (git_dir, path) = (&project.git_dir, &project.path);
        let read = || -> anyhow::Result<Option<Repository>> {
            let (layout, config) = mirror::to_show(git_dir, &self.workers.server())?;
            Ok(Repository::read(git_dir, path, &layout, &config, now())?)
        };
        // Why it cannot be read is in the log: see `summaries`.
        read().unwrap_or_else(|_| Repository::unreadable(git_dir, path))
    }
}

/// A mirror that is not served, and why: it would overwrite what an earlier one of the fleet pushes.
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

/// `[hosts]` of the configuration, by the names that the queue has for them.
fn limits(server: &Server) -> Limits {
    let limit = |host: &HostKeys| Limit { jobs: host.max_jobs, per_minute: host.max_per_minute };
    server.hosts.iter().map(|(name, host)| (name.trim_matches(['[', ']']).to_owned(), limit(host))).collect()
}

fn of_schedule(parts: &Limits) -> BTreeMap<String, HostLimit> {
    let part = |part: &Limit| HostLimit { jobs: part.jobs, per_minute: part.per_minute };
    parts.iter().map(|(name, limit)| (name.clone(), part(limit))).collect()
}

fn of_fleet((name, found): (String, HostUse)) -> (String, Use) {
    let HostUse { running, waiting, begun } = found;
    (name, Use { running, waiting, begun })
}
