//! The daemon as a node of a fleet: a thread that tells the database every two seconds that it lives, and sends copies of what has changed.
//!
//! Guaranteed: no other thread waits for the database. Absent: a queue of changes. A mark on each project says that its copy is behind, and a
//! daemon that ends before it has sent a copy reads and sends all of them after its next start.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::mem::Discriminant;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use parking_lot::Mutex;

use super::projects::{Project, Table};
use super::summaries::Mirrors;
use super::{App, now, random};
use crate::config::Server;
use crate::fleet::{self, Access, BEAT, CUT, Error, Node, Pulse, Repository, Tallies};
use crate::mirror;

/// How many repositories are sent in one transaction.
const BATCH: usize = 500;

/// What is known of the fleet.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    access: Option<Access>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the database answered last, as time since this machine was started.
    answered: Duration,
    /// How long the last answer took.
    took: Duration,
    /// How many repositories have a copy that is behind their files.
    behind: usize,
    /// The kind of the error that was logged last. `None` if the database answered then.
    said: Option<Discriminant<Error>>,
    /// Whether anything was logged.
    has_said: bool,
}

/// What the database has of this node.
#[derive(Default)]
struct Sent {
    /// The directories of the repositories that have copies.
    git_dirs: HashSet<String>,
    /// The repositories with which they were compared last.
    table: Option<Arc<Table>>,
    tallies: Option<Tallies>,
}

impl Fleet {
    /// The fleet that the configuration names, if any.
    pub(super) fn new(server: &Server) -> Self {
        // Until it is known to be cut off, it is taken for connected.
        let state = State { answered: uptime(), ..State::default() };
        Self { access: Access::of(server), state: Mutex::new(state) }
    }

    /// Whether the database has answered lately. `None` if there is no fleet.
    pub(super) fn is_connected(&self) -> Option<bool> {
        self.access.as_ref()?;
        let answered = self.state.lock().answered;
        Some(uptime().saturating_sub(answered) < CUT)
    }

    /// The numbers of the fleet, in Prometheus' text format.
    pub(super) fn metrics(&self) -> String {
        let Some(is_connected) = self.is_connected() else { return String::new() };
        let state = self.state.lock();
        let (took, behind) = (state.took.as_secs_f64(), state.behind);
        drop(state);
        let mut text = String::new();
        for (name, help, value) in [
            ("connected", "Whether the database of the fleet has answered lately.", f64::from(u8::from(is_connected))),
            ("beat_seconds", "How long the last answer of the database took.", took),
            ("books_behind", "Repositories whose copies in the database are behind their files.", behind as f64),
        ] {
            let name = format!("git_mirror_push_fleet_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        text
    }

    /// Logs what has changed.
    fn note(&self, result: Result<(), Error>) {
        let mut state = self.state.lock();
        // The same trouble has many wordings.
        let kind = result.as_ref().err().map(std::mem::discriminant);
        if state.said == kind && state.has_said {
            return;
        }
        match result {
            Err(error) => tracing::warn!("fleet: {error}; pushes are mirrored all the same"),
            Ok(()) => tracing::info!("fleet: the database answers"),
        }
        state.said = kind;
        state.has_said = true;
    }
}

impl App {
    /// Tells the database that this node lives, and how its mirrors stand, until told to stop.
    pub(super) fn beat_for_ever(&self, stopped: &Receiver<()>) {
        let Some(access) = self.fleet.access.clone() else { return };
        let mut node = Node::new(access, format!("{:016x}{:016x}", random(), random()));
        let mut sent = Sent::default();
        loop {
            let begun = uptime();
            self.fleet.note(self.beat(&mut node, &mut sent));
            let left = BEAT.saturating_sub(uptime().saturating_sub(begun));
            if stopped.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        node.leave();
    }

    fn beat(&self, node: &mut Node, sent: &mut Sent) -> Result<(), Error> {
        let begun = uptime();
        let (running, waiting) = self.workers.counts();
        let limits = limits(&self.workers.server());
        let answer = node.beat(&Pulse { running, waiting, limits, now: now() })?;
        {
            let mut state = self.fleet.state.lock();
            state.answered = uptime();
            state.took = uptime().saturating_sub(begun);
        }
        let table = self.projects.table();
        if answer.has_lost {
            *sent = Sent { git_dirs: node.copied()?.into_iter().collect(), ..Sent::default() };
            table.projects.iter().for_each(|project| project.is_copied.store(false, Ordering::Relaxed));
        }
        self.remove_copies(node, sent, &table)?;
        let is_changed = self.send_copies(node, sent, &table, begun)?;
        if is_changed || sent.tallies.is_none() {
            let tallies = tallies(&table);
            if sent.tallies.as_ref() != Some(&tallies) {
                node.send_tallies(&tallies)?;
                sent.tallies = Some(tallies);
            }
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
            node.send(&[], &gone)?;
            sent.git_dirs.retain(|git_dir| !gone.contains(git_dir));
            sent.tallies = None;
        }
        sent.table = Some(Arc::clone(table));
        Ok(())
    }

    /// Sends the copies that are behind, until the next beat is due. Returns whether there were any.
    fn send_copies(&self, node: &mut Node, sent: &mut Sent, table: &Table, begun: Duration) -> Result<bool, Error> {
        let is_behind = |project: &&Arc<Project>| !project.is_copied.load(Ordering::Relaxed) && project.is_read();
        let mut behind: Vec<&Arc<Project>> = table.projects.iter().filter(is_behind).collect();
        let is_changed = !behind.is_empty();
        while !behind.is_empty() && uptime().saturating_sub(begun) < BEAT {
            let batch: Vec<_> = behind.drain(..behind.len().min(BATCH)).collect();
            // Before the files are read, so that a change meanwhile is sent later.
            batch.iter().for_each(|project| project.is_copied.store(true, Ordering::Relaxed));
            let copies: Vec<Repository> = batch.iter().filter_map(|project| self.copy(project)).collect();
            if let Err(error) = node.send(&copies, &HashSet::new()) {
                batch.iter().for_each(|project| project.is_copied.store(false, Ordering::Relaxed));
                return Err(error);
            }
            sent.git_dirs.extend(batch.iter().filter_map(|project| Some(project.git_dir.to_str()?.to_owned())));
        }
        self.fleet.state.lock().behind = behind.len();
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

/// A digest of the limits of hosts, to see whether they are the same on all nodes.
fn limits(server: &Server) -> String {
    let limits =
        server.hosts.iter().map(|(name, host)| format!("{name} {:?} {:?}\n", host.max_jobs, host.max_per_minute));
    fleet::digest(&limits.collect::<String>())
}

/// The time since this machine was started. Nobody can set it, and it counts while the machine sleeps.
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}
