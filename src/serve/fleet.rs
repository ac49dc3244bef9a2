//! The daemon as a node of a fleet: a thread that tells the database every two seconds that it lives, and sends copies of what has changed.
//!
//! Guaranteed: no other thread waits for the database. Absent: a queue of changes. A mark on each project says that its copy is behind, and a
//! daemon that ends before it has sent a copy reads and sends all of them after its next start.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::mem::Discriminant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::projects::{Project, Table};
use super::summaries::Mirrors;
use super::{App, now, random};
use crate::config::{HostKeys, Server};
use crate::credentials::Redactor;
use crate::drain::{Down, Report};
use crate::durable;
use crate::fleet::{
    Access, Answer, Asked, BEAT, CUT, Error, Limit, Limits, Node, Own, Pulse, Repository, Tallies, Use,
};
use crate::mirror;
use crate::schedule::{HostLimit, HostUse, Parts};

/// How many repositories are sent in one transaction.
const BATCH: usize = 500;

/// After a beat, so long until the next one if something waits for a larger part of a limit.
const GAP: Duration = Duration::from_millis(100);
/// The file in the state directory with the number of nodes that lived at the last beat.
const LIVE: &str = "fleet-nodes";

/// What is known of the fleet.
#[derive(Debug)]
pub(super) struct Fleet {
    access: Option<Access>,
    /// Where the number of nodes is kept.
    live: PathBuf,
    state: Mutex<State>,
    /// What hosts have asked this node since the last beat.
    asked: Mutex<Vec<Asked>>,
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
    /// The parts of limits that this node has.
    parts: Limits,
}

/// What the database has of this node.
#[derive(Default)]
struct Sent {
    /// The directories of the repositories that have copies.
    git_dirs: HashSet<String>,
    /// The repositories with which they were compared last.
    table: Option<Arc<Table>>,
    tallies: Option<Tallies>,
    /// How many nodes live.
    live: usize,
}

impl Fleet {
    /// The fleet that the configuration names, if any.
    pub(super) fn new(server: &Server, state_directory: &Path) -> Self {
        // Until it is known to be cut off, it is taken for connected.
        let state = State { answered: uptime(), ..State::default() };
        let live = state_directory.join(LIVE);
        Self { access: Access::of(server), live, state: Mutex::new(state), asked: Mutex::default() }
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
        let (took, behind, parts) = (state.took.as_secs_f64(), state.behind, state.parts.clone());
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
        let name = "git_mirror_push_fleet_host_granted";
        let _ = writeln!(text, "# HELP {name} Jobs that may run at once at a host of [hosts].\n# TYPE {name} gauge");
        for (host, jobs) in parts.iter().filter_map(|(host, part)| Some((host, part.jobs?))) {
            let _ = writeln!(text, "{name}{{host=\"{host}\"}} {jobs}");
        }
        text
    }

    fn take(&self, answer: &Answer, begun: Duration) {
        let mut state = self.state.lock();
        state.answered = uptime();
        state.took = state.answered.saturating_sub(begun);
        state.parts = answer.parts.clone();
    }

    /// How many nodes lived at the last beat, also that of an earlier daemon; 1 if nobody knows.
    fn last_live(&self) -> usize {
        durable::read_text(&self.live).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    }

    fn keep_live(&self, live: usize) {
        if let Err(error) = durable::replace(&self.live, format!("{live}\n").as_bytes(), |_| Ok(())) {
            tracing::warn!("cannot write '{}': {error}", self.live.display());
        }
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
    /// Before anything begins: at hosts of `[hosts]` nothing may begin until the database has answered or failed to.
    pub(super) fn hold_hosts(&self) {
        if self.fleet.access.is_some() {
            let none = HostLimit { jobs: Some(0), per_minute: Some(0) };
            let of = self.workers.server().hosts.keys().map(|name| (name.clone(), none)).collect();
            self.workers.share(Parts { of, until: now() + CUT, machines: self.fleet.last_live() });
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
        let mut sent = Sent { live: self.fleet.last_live(), ..Sent::default() };
        let (mut is_first, mut is_needed) = (true, false);
        loop {
            let begun = uptime();
            let result = self.beat(&mut node, &mut sent);
            if is_first && result.is_err() {
                self.workers.share(Parts { of: BTreeMap::new(), until: now(), machines: sent.live });
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
        let granted = self.fleet.state.lock().parts.clone();
        let own = Own {
            limits: &limits,
            granted: &granted,
            uses: &self.workers.uses().into_iter().map(of_fleet).collect(),
            lower: &|parts| self.workers.lower(&of_schedule(parts)).into_iter().map(of_fleet).collect(),
        };
        let answer = node.beat(&Pulse { running, waiting, now: now() }, &own)?;
        self.fleet.take(&answer, begun);
        let parts = of_schedule(&answer.parts);
        self.workers.share(Parts { of: parts, until: now() + CUT, machines: answer.live });
        if sent.live != answer.live {
            self.fleet.keep_live(answer.live);
            sent.live = answer.live;
        }
        for asked in std::mem::take(&mut *self.fleet.asked.lock()) {
            node.ask(&asked)?;
        }
        answer.asked.iter().for_each(|asked| self.hold(asked));
        let table = self.projects.table();
        if answer.has_lost {
            let git_dirs = node.copied()?.into_iter().collect();
            *sent = Sent { git_dirs, live: sent.live, ..Sent::default() };
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

    /// A host has asked another node to wait, so this one waits too.
    fn hold(&self, asked: &Asked) {
        let until = now() + Duration::from_millis(u64::try_from(asked.milliseconds).unwrap_or(0));
        // Whoever may write to the database could put anything there.
        let error = Redactor::default().clean(&asked.said).on_one_line();
        self.workers.hold(&asked.host, Down { error, attempts: 1, next_attempt_at: until, cause: None });
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

/// The time since this machine was started. Nobody can set it, and it counts while the machine sleeps.
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}
