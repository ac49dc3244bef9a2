//! The daemon as a node of a fleet: every two seconds a thread tells the database that the node is
//! alive, gets the node's parts of limits, and sends copies of what has changed (`copies`).
//!
//! Guaranteed: no worker waits for the database. The beats continue while updates run, also after
//! the daemon was told to end.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::copies::Sent;
use super::fleet::uptime;
use super::summaries::Mirrors;
use super::{App, now, random};
use crate::config::{HostKeys, Server};
use crate::credentials::Redactor;
use crate::drain::{Down, Report};
use crate::fleet::{Asked, BEAT, CUT, Error, Limit, Limits, Node, Own, Pulse, Use};
use crate::schedule::{HostLimit, HostUse, Parts, bare};

/// The time from one beat to the next while something waits for a larger part of a limit.
const GAP: Duration = Duration::from_millis(100);
/// If a host asked another node to wait, this node waits for at most this long.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl App {
    /// Called before any run begins. No run may begin at a host of `[hosts]` until the database has
    /// answered or has failed to answer.
    pub(super) fn hold_hosts(&self) {
        if self.fleet.access.is_some() {
            self.workers.share(Parts { of: BTreeMap::new(), until: now() + CUT, machines: self.fleet.nodes() });
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
            let until = uptime() + Duration::try_from(until.duration_since(now())).unwrap_or_default();
            let said = report.error.clone().unwrap_or_default().on_one_line().to_string();
            self.fleet.asked.lock().insert(host, (until, said));
            self.workers.urge();
        }
    }

    /// Tells the database that this node lives, and how its mirrors stand, until the workers are halted and nothing runs.
    pub(super) fn beat_for_ever(&self) {
        let Some(access) = self.fleet.access.clone() else { return };
        let mut node = Node::new(access, format!("{:016x}{:016x}", random(), random()));
        let (mut sent, mut is_needed, mut shared) = (Sent::default(), false, Duration::ZERO);
        loop {
            let begun = uptime();
            let result = self.beat(&mut node, &mut sent, &mut shared);
            if result.is_err() && (!self.fleet.has_answered() || uptime() >= shared + CUT) {
                // The workers count `CUT` by the clock of the day, which somebody may have set back meanwhile.
                self.workers.share(Parts { of: BTreeMap::new(), until: now(), machines: self.fleet.nodes() });
            }
            if result.is_err() && self.fleet.is_connected() == Some(false) {
                self.serve_parked(&mut sent);
            }
            let is_done = result.is_ok();
            self.fleet.note(result);
            // If something waits for a larger part of a limit, the next beat comes at once. If that
            // continues, the beats are `GAP` apart. A database that fails is asked only every
            // `BEAT`.
            let gap = match (is_done, is_needed) {
                (false, _) => BEAT,
                (true, true) => GAP,
                (true, false) => Duration::ZERO,
            };
            self.rest(begun + gap);
            self.workers.wait_for_need((begun + BEAT).saturating_sub(uptime()));
            is_needed = uptime() < begun + BEAT;
            if self.workers.is_halted() {
                // Runs that have not ended still count against the limits, so the beats continue.
                while self.workers.counts().0 > 0 && uptime() < begun + BEAT {
                    std::thread::park_timeout(Duration::from_millis(20));
                }
                if self.workers.counts().0 == 0 {
                    if is_done {
                        // Runs that began since the last beat count against the limits for a
                        // minute. If this beat fails, the database assumes that all it granted has
                        // begun.
                        let _ = self.beat(&mut node, &mut sent, &mut shared);
                    }
                    break;
                }
            }
        }
        node.leave();
    }

    /// Waits until then, or until the workers are halted.
    fn rest(&self, until: Duration) {
        while uptime() < until && !self.workers.is_halted() {
            std::thread::park_timeout(until.saturating_sub(uptime()).min(GAP));
        }
    }

    /// Notes in `shared` when a beat began that brought the node's parts of limits, even if something fails afterwards.
    fn beat(&self, node: &mut Node, sent: &mut Sent, shared: &mut Duration) -> Result<(), Error> {
        let (begun, at) = (uptime(), now());
        let (running, waiting) = self.workers.counts();
        let limits = limits(&self.workers.server());
        let own = Own {
            limits: &limits,
            uses: &self.workers.uses().into_iter().map(of_fleet).collect(),
            lower: &|parts| self.workers.lower(&of_schedule(parts)).into_iter().map(of_fleet).collect(),
        };
        let answer = node.beat(&Pulse { running, waiting, now: at }, &own)?;
        // Noted before anything below can fail, because `node.beat` reports the loss only once.
        sent.has_lost |= answer.has_lost;
        self.fleet.take(&answer, begun);
        // The other nodes count from the time when the database got this beat, which is not before
        // the beat began. So this node stops using its parts early enough.
        self.workers.share(Parts { of: of_schedule(&answer.parts), until: at + CUT, machines: answer.live });
        *shared = begun;
        self.fleet.keep_nodes(answer.live);
        self.set_silent(answer.is_silent);
        answer.asked.iter().for_each(|asked| self.hold(asked));
        self.tell_asked(node)?;
        self.send(node, sent, begun)
    }

    /// Tells the other nodes for how long hosts have asked this one to wait.
    fn tell_asked(&self, node: &mut Node) -> Result<(), Error> {
        // The copy releases the lock at once, so that no worker waits for the database.
        let asked = self.fleet.asked.lock().clone();
        for (host, (until, said)) in asked {
            let left = until.saturating_sub(uptime());
            if !left.is_zero() {
                let milliseconds = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
                node.ask(&Asked { host: host.clone(), milliseconds, said })?;
            }
            let mut all = self.fleet.asked.lock();
            if all.get(&host).is_some_and(|(known, _)| *known == until) {
                all.remove(&host);
            }
        }
        Ok(())
    }

    /// A host has asked another node to wait, so this one waits too.
    fn hold(&self, asked: &Asked) {
        let wait = Duration::from_millis(u64::try_from(asked.milliseconds).unwrap_or(0)).min(LONGEST);
        // Whoever may write to the database could put anything there.
        let error = Redactor::default().clean(&asked.said).on_one_line();
        self.workers.hold(&asked.host, Down { error, attempts: 1, next_attempt_at: now() + wait, cause: None });
    }
}

/// `[hosts]` of the configuration, by the names that the queue has for them.
fn limits(server: &Server) -> Limits {
    let limit = |host: &HostKeys| Limit { jobs: host.max_jobs, per_minute: host.max_per_minute };
    server.hosts.iter().map(|(name, host)| (bare(name).to_owned(), limit(host))).collect()
}

fn of_schedule(parts: &Limits) -> BTreeMap<String, HostLimit> {
    let part = |part: &Limit| HostLimit { jobs: part.jobs, per_minute: part.per_minute };
    parts.iter().map(|(name, limit)| (name.clone(), part(limit))).collect()
}

fn of_fleet((name, found): (String, HostUse)) -> (String, Use) {
    let HostUse { running, waiting, begun } = found;
    (name, Use { running, waiting, begun })
}
