//! Waking a drain as the hook does, and being that drain.

#![expect(clippy::disallowed_methods, reason = "starts the detached drain")]

use std::process::{Command, Stdio};

use super::Session;
use crate::config::{Config, Wake};
use crate::spool;

/// Tells the daemon, or starts a detached drain of the session's repository, unless the configuration leaves that to others.
pub(super) fn wake(session: &Session<'_>, config: &Config) {
    if config.wake == Wake::None || config.is_silent {
        return;
    }
    if spool::hint(&session.base.environment.runtime_directory, session.repository.git_dir()) {
        return;
    }
    let mut drain = Command::new(&session.base.environment.surroundings.program);
    if let Some(server) = &session.base.global.config {
        drain.arg("--config").arg(super::absolute(session, server));
    }
    let started = drain
        .arg("--git-dir")
        .arg(session.repository.git_dir())
        .args(["drain", "--detach"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        session.base.warn(&format!("the drain could not be started: {error}; run 'git mirror-push drain'"));
    }
}

/// Leaves the session of the pusher, so that its end is not ours.
pub(super) fn leave_session() {
    // Whoever leads a group already is not in the pusher's.
    let _ = rustix::process::setsid();
}
