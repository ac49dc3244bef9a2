//! What is wrong with a setup, and how to fix it. The doctor writes and removes a probe file in the spool, and may make the lock file
//! there. It changes nothing else.
//!
//! Each check is one function that returns its findings. A failed check does not end the others,
//! with one exception: without a valid configuration, only the repository and the machine are
//! examined.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{self, Config};
use crate::repo::Repository;

mod fleet;
mod mirror;
mod others;
mod repository;
mod two_way;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, but may fail later.
    Warning,
    /// It does not work.
    Error,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was asked: `hook`, `spool`, `reachable` …
    pub check: Cow<'static, str>,
    /// The mirror; `None` for the repository as a whole.
    pub remote: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check: check.into(), remote: None, severity: Severity::Ok, text: text.into(), fix: None }
    }

    fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            remote: None,
            severity: Severity::Warning,
            text: text.into(),
            fix: Some(fix.into()),
        }
    }

    fn error(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::warning(check, text, fix) }
    }
}

/// What is examined.
pub struct Subject<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The configuration in the server's files.
    pub server: &'a config::Server,
    /// The repository's configuration, or why it cannot be used.
    pub config: Result<&'a Config, &'a config::Error>,
    /// The current time.
    pub now: Timestamp,
}

/// Examines everything. Each mirror has a thread of its own, because it is contacted over the network.
#[must_use]
pub fn examine(subject: &Subject<'_>, shared: &crate::repo::Shared) -> Vec<Finding> {
    let mut findings = repository::examine(subject);
    let Ok(config) = subject.config else { return findings };
    findings.extend(others::examine(subject, config));
    findings.extend(fleet::examine(subject));
    let (now, server) = (subject.now, subject.server);
    let of_mirrors = std::thread::scope(|scope| {
        let examine = |mirror| move || mirror::examine(&shared.to_local(), server, config, mirror, now);
        let threads: Vec<_> = config.mirrors.iter().map(|mirror| (mirror, scope.spawn(examine(mirror)))).collect();
        // The panic hook has logged the place of the panic.
        let panicked = |mirror: &config::Mirror| {
            let finding = Finding::error("examined", "internal error", "report it, with what standard error says");
            vec![Finding { remote: Some(mirror.name.clone()), ..finding }]
        };
        let found = threads.into_iter().map(|(mirror, thread)| thread.join().unwrap_or_else(|_| panicked(mirror)));
        found.flatten().collect::<Vec<_>>()
    });
    findings.extend(of_mirrors);
    findings
}
