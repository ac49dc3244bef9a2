//! What the daemon knows of its fleet: whether the database answers, which parts of limits this
//! node has, and what the database answers to a request.
//!
//! Guaranteed: a request waits at most a second for each answer of the database, and not at all if
//! the database has just failed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::mem::Discriminant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::Server;
use crate::durable;
use crate::fleet::{Access, Answer, BEAT, CUT, Error, Limits, Look};

/// How long a request waits for an answer of the database.
const REQUEST: Duration = Duration::from_secs(1);
/// The file in the state directory with what a daemon must know of the fleet if it starts while the
/// database does not answer.
const KEPT: &str = "fleet.json";

impl Kept {
    /// What the file says. If it cannot be read, nothing leaves this machine until the database has answered.
    fn read(path: &Path) -> Self {
        let read = || match durable::read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => serde_json::from_str(&text?).map_err(io::Error::from),
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(
                "cannot read '{}', so this node is silent until the database answers: {error}",
                path.display()
            );
            Self { silent: true, ..Self::default() }
        })
    }
}

/// What is known of the fleet.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) access: Option<Access>,
    /// The file with what was known last.
    path: PathBuf,
    state: Mutex<State>,
    /// Until when hosts have asked this node to wait, as time since this machine was started, and what they said.
    pub(super) asked: Mutex<BTreeMap<String, (Duration, String)>>,
    /// A connection for requests. `None` if there is none yet, or the last one failed.
    reader: Mutex<Option<Look>>,
}

#[derive(Debug, Default)]
struct State {
    /// When the database answered last, as time since this machine was started.
    answered: Duration,
    /// Whether it has ever answered.
    has_answered: bool,
    /// How long the last answer took.
    took: Duration,
    /// How many repositories have a copy that is behind their files.
    behind: usize,
    /// The kind of the error that was logged last. `None` if the database answered then.
    said: Option<Discriminant<Error>>,
    /// Whether anything was logged.
    has_said: bool,
    /// Why this node cannot join until somebody changes something. `None` if it has joined, or the database does not answer.
    refused: Option<String>,
    /// The parts of limits that this node has.
    parts: Limits,
    /// What was known last.
    kept: Kept,
    /// Whether that is in the file.
    is_stored: bool,
    /// Until when no request asks the database, because the last one failed.
    unread_until: Duration,
}

/// What a daemon that starts while the database does not answer must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// How many nodes lived.
    nodes: usize,
    /// Whether nothing may leave any machine.
    silent: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self { nodes: 1, silent: false }
    }
}

impl Fleet {
    /// The fleet that the configuration names, if any.
    pub(super) fn new(server: &Server, state_directory: &Path) -> Self {
        let path = state_directory.join(KEPT);
        let access = Access::of(server);
        let kept = access.as_ref().map(|_| Kept::read(&path)).unwrap_or_default();
        // Until it is known to be cut off, it is taken for connected.
        let state = State { answered: uptime(), kept, is_stored: true, ..State::default() };
        Self { access, path, state: Mutex::new(state), asked: Mutex::default(), reader: Mutex::default() }
    }

    /// The name of this node. `None` without a fleet.
    pub(super) fn node(&self) -> Option<&str> {
        self.access.as_ref().map(Access::node)
    }

    /// Whether the database has answered lately. `None` if there is no fleet.
    pub(super) fn is_connected(&self) -> Option<bool> {
        self.access.as_ref()?;
        let answered = self.state.lock().answered;
        Some(uptime().saturating_sub(answered) < CUT)
    }

    /// What the database answers to a request. `None` if there is no fleet, if the database has not
    /// answered lately, or if it reports an error or does not answer within a second.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut Look) -> Result<T, Error>) -> Option<T> {
        let access = self.access.as_ref().filter(|_| self.is_connected() == Some(true))?;
        let mut reader = self.reader.try_lock_for(REQUEST)?;
        if uptime() < self.state.lock().unread_until {
            return None;
        }
        let look = reader.take().map_or_else(|| Look::open_within(access, REQUEST), Ok);
        match look.and_then(|mut look| ask(&mut look).map(|found| (look, found))) {
            Ok((look, found)) => {
                *reader = Some(look);
                Some(found)
            }
            Err(error) => {
                tracing::warn!("fleet: for a request: {error}");
                // Any other error concerns only this request, so the next one may ask.
                if matches!(error, Error::Unreachable(_)) {
                    self.state.lock().unread_until = uptime() + BEAT;
                }
                None
            }
        }
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

    /// Notes that the database has answered the beat that began at `begun`.
    pub(super) fn take(&self, answer: &Answer, begun: Duration) {
        let mut state = self.state.lock();
        state.answered = uptime();
        state.has_answered = true;
        state.took = state.answered.saturating_sub(begun);
        state.parts = answer.parts.clone();
    }

    /// Notes how many repositories have a copy that is behind their files.
    pub(super) fn note_behind(&self, count: usize) {
        self.state.lock().behind = count;
    }

    /// How many nodes were alive at the last beat, of this daemon or of an earlier one; 1 if that
    /// is unknown.
    pub(super) fn nodes(&self) -> usize {
        self.state.lock().kept.nodes
    }

    /// Keeps the number of nodes.
    pub(super) fn keep_nodes(&self, nodes: usize) {
        self.keep(|kept| kept.nodes = nodes);
    }

    /// Sets whether nothing may leave any machine. Returns whether that has changed.
    pub(super) fn set_silent(&self, is_silent: bool) -> bool {
        self.keep(|kept| kept.silent = is_silent)
    }

    /// A configuration that is silent if the fleet is.
    pub(super) fn as_silent(&self, server: &Arc<Server>) -> Arc<Server> {
        if !self.state.lock().kept.silent {
            return Arc::clone(server);
        }
        let mut silent = (**server).clone();
        silent.top.silent = Some(true);
        Arc::new(silent)
    }

    /// Changes what is known, and stores it. Returns whether it was a change.
    fn keep(&self, change: impl FnOnce(&mut Kept)) -> bool {
        let mut state = self.state.lock();
        let before = state.kept;
        change(&mut state.kept);
        let (kept, is_stored) = (state.kept, state.is_stored);
        drop(state);
        if kept != before || !is_stored {
            let text = serde_json::to_vec(&kept).unwrap_or_default();
            let written = durable::replace(&self.path, &text, |_| Ok(()));
            // If this fails, for example on a full disk, the next beat tries again.
            self.state.lock().is_stored = written.is_ok();
            if let (Err(error), true) = (written, is_stored || kept != before) {
                tracing::warn!("cannot write '{}': {error}", self.path.display());
            }
        }
        kept != before
    }

    /// Why the fleet does not count now. `None` if it does, or if there is no fleet.
    pub(super) fn trouble(&self) -> Option<String> {
        let silence =
            || (self.is_connected() == Some(false)).then(|| "the database of the fleet does not answer".to_owned());
        let refused = self.state.lock().refused.clone();
        refused.or_else(silence)
    }

    /// Whether the database has ever answered this daemon.
    pub(super) fn has_answered(&self) -> bool {
        self.state.lock().has_answered
    }

    /// Logs the result of a beat, unless the last one that was logged was of the same kind.
    pub(super) fn note(&self, result: Result<(), Error>) {
        let mut state = self.state.lock();
        state.refused = match &result {
            Err(error @ (Error::Version { .. } | Error::NoTables | Error::NameTaken(_))) => Some(error.to_string()),
            _ => None,
        };
        // Errors of one kind may have different messages, so only the kinds are compared.
        let kind = result.as_ref().err().map(std::mem::discriminant);
        if state.said == kind && state.has_said {
            return;
        }
        match result {
            Err(error) => tracing::warn!("fleet: {error}; pushes are still mirrored"),
            Ok(()) => tracing::info!("fleet: the database answers"),
        }
        state.said = kind;
        state.has_said = true;
    }
}

/// The time since this machine was started. Nobody can set it, and it counts while the machine sleeps.
pub(super) fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the test")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_silent() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(KEPT);
        assert_eq!(Kept::read(&path), Kept { nodes: 1, silent: false }, "a daemon that has never joined");
        for (text, expected) in [
            (r#"{"nodes": 3, "silent": false}"#, Kept { nodes: 3, silent: false }),
            (r#"{"nodes": 3, "silent": true}"#, Kept { nodes: 3, silent: true }),
            ("", Kept { nodes: 1, silent: true }),
            (r#"{"nodes": 3, "sil"#, Kept { nodes: 1, silent: true }),
        ] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(Kept::read(&path), expected, "{text}");
        }
    }
}
