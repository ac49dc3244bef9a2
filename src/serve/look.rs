//! Which repositories there are: the daemon looks below the roots now and then. A request starts a
//! look only if the last one is old enough. For unknown numbers, requests may start a limited
//! number of looks.
//!
//! Guaranteed: a request waits for no look that takes long. A repository that a client or a hook names is found before the next look. Absent: a
//! watch of the directories; a new repository that nobody names is seen at the next look.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::projects::{self, Project, Table};
use super::{App, now};
use crate::config::Server;
use crate::durable;

/// The shortest interval between looks through all spools that the daemon chooses, when the
/// server's file does not set it. A look that is asked for comes earlier.
const SCAN: Duration = Duration::from_secs(60);
/// Looks take at most 1/`SHARE` of the time, unless [`RARELY`] is shorter. The interval in the
/// server's file replaces this limit for looks through all spools.
const SHARE: u32 = 100;
/// The longest time from one look to the next that the daemon chooses. It matters if a look seemed
/// to take long because the machine slept.
const RARELY: Duration = Duration::from_secs(3600);
/// A client gets a list of repositories that is at most this old, or older if looks take long.
const FRESH: Duration = Duration::from_secs(1);
/// A look that takes longer is made in the background.
const SHORT: Duration = Duration::from_millis(10);

/// How many looks for unknown numbers there may be, and in which time.
const NUMBERS: (usize, Duration) = (10, Duration::from_secs(10));

/// What is asked of the thread that looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The list of repositories.
    List,
    /// The list, and what is in the spools.
    Scan,
}

/// What the last look for repositories showed.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// When it began, and how long it took.
    last: Mutex<Option<(Timestamp, Duration)>>,
    /// The times of the last looks for unknown numbers.
    for_numbers: Mutex<Vec<Timestamp>>,
    /// The warnings about roots that were logged, so that each is logged only once.
    remarks: Mutex<Vec<String>>,
    /// Whether the repositories could be listed and their numbers are stored.
    is_ready: AtomicBool,
    /// Whether a root was missing.
    is_partial: AtomicBool,
}

impl Look {
    /// Whether the repositories could be listed and their numbers are stored.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// Whether all roots were there.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_partial.load(Ordering::Relaxed)
    }
}

impl App {
    /// Finds a project by number or path, even if no look has found it yet.
    pub(super) fn find(&self, id_or_path: &str) -> Option<Arc<Project>> {
        self.projects.table().find(id_or_path).or_else(|| {
            let server = self.workers.server();
            projects::at_path(&server, id_or_path).iter().for_each(|git_dir| self.add(&server, git_dir));
            if id_or_path.bytes().all(|byte| byte.is_ascii_digit()) && self.may_look_for_number() {
                self.look_around();
            }
            self.projects.table().find(id_or_path)
        })
    }

    /// Whether to look for an unknown number: the last look was short, and few were made for
    /// unknown numbers lately.
    fn may_look_for_number(&self) -> bool {
        let is_short = self.look.last.lock().is_none_or(|(_, took)| took <= SHORT);
        let mut looks = self.look.for_numbers.lock();
        looks.retain(|at| now().duration_since(*at).unsigned_abs() < NUMBERS.1);
        let may_look = is_short && looks.len() < NUMBERS.0;
        looks.extend(may_look.then(now));
        may_look
    }

    /// Takes a repository into the list, if it is not there.
    pub(super) fn add(&self, server: &Server, git_dir: &Path) {
        if let Err(error) = self.projects.add(server, git_dir) {
            tracing::error!("cannot store the project numbers: {error}");
        }
    }

    /// The projects, as the last look found them. If that is a while ago, looks again, and does not wait for a look that takes long.
    pub(super) fn table(&self) -> Arc<Table> {
        let last = *self.look.last.lock();
        let age = last.map(|(at, took)| (now().duration_since(at).unsigned_abs(), took));
        match age {
            Some((age, took)) if age <= FRESH.max(took.saturating_mul(SHARE)).min(RARELY) => {}
            Some((_, took)) if took > SHORT => self.ask(Wanted::List),
            _ => drop(self.look_around()),
        }
        self.projects.table()
    }

    /// Lists the repositories, and returns them if that was possible. If the numbers cannot be stored, new repositories are served, but
    /// the API and the page do not show them.
    pub(super) fn look_around(&self) -> Option<Vec<PathBuf>> {
        let begun = now();
        // Read before the configuration is: if the number is too small, the next look only computes
        // the paths again.
        let generation = self.generation.load(Ordering::Relaxed);
        let server = self.server_with_roots();
        let listed = server.repositories_on(1).inspect_err(|error| tracing::error!("{error}")).ok();
        let mut remarks = listed.as_ref().map(|git_dirs| server.remarks(git_dirs)).unwrap_or_default();
        remarks.extend(on_network(&server));
        let mut said = self.look.remarks.lock();
        remarks.iter().filter(|remark| !said.contains(remark)).for_each(|remark| tracing::warn!("{remark}"));
        self.look.is_partial.store(server.missing_roots().next().is_some(), Ordering::Relaxed);
        *said = remarks;
        drop(said);
        let numbered = listed.as_deref().map(|git_dirs| self.projects.refresh(&server, generation, git_dirs));
        if let Some(Err(error)) = &numbered {
            tracing::error!("cannot store the project numbers: {error}");
        }
        self.look.is_ready.store(matches!(numbered, Some(Ok(()))), Ordering::Relaxed);
        *self.look.last.lock() = Some((begun, now().duration_since(begun).unsigned_abs()));
        listed
    }

    /// Looks through all spools now and then, and when asked.
    pub(super) fn look_for_ever(&self, asked: &Receiver<Wanted>) {
        loop {
            if let Some(git_dirs) = self.look_around() {
                self.workers.scan(git_dirs);
            }
            let mut waited = Duration::ZERO;
            while let Some(left) = self.scan_interval().checked_sub(waited).filter(|left| !left.is_zero()) {
                // How long the scan that has just begun takes is known only at its end. So the
                // interval is computed again after each step.
                let (step, begun) = (left.min(SCAN), now());
                match asked.recv_timeout(step) {
                    Ok(Wanted::Scan) => break,
                    Ok(Wanted::List) => {
                        // Several may have asked, and one look is enough for them.
                        if asked.try_iter().any(|wanted| wanted == Wanted::Scan) {
                            break;
                        }
                        self.look_around();
                        waited += now().duration_since(begun).unsigned_abs().min(step);
                    }
                    Err(RecvTimeoutError::Timeout) => waited += step,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    /// The time from one look through all spools to the next.
    fn scan_interval(&self) -> Duration {
        let listing = self.look.last.lock().map_or(Duration::ZERO, |(_, took)| took);
        let grown = || SCAN.max((listing + self.workers.scan_time()).saturating_mul(SHARE)).min(RARELY);
        self.workers.server().top.scan_interval.unwrap_or_else(grown)
    }

    /// Asks the thread that looks.
    pub(super) fn ask(&self, wanted: Wanted) {
        if let Some(scans) = &*self.scans.lock() {
            // If the receiver is gone, the daemon is ending.
            let _ = scans.send(wanted);
        }
    }
}

/// A sentence for each root on a network file system. Two daemons for one repository are not supported.
fn on_network(server: &Server) -> impl Iterator<Item = String> {
    server.roots.iter().filter_map(|root| {
        let kind = durable::network_file_system(&root.path).ok()??;
        let path = root.path.display();
        Some(format!("root '{path}' is on a network file system ({kind}): no other machine may serve its repositories"))
    })
}
