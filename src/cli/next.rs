//! When a mirror is tried next, and who will do it.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Session;
use super::protect::end_of_silence;
use crate::config::{Config, Direction, Wake};
use crate::mirror::Lock;
use crate::process;
use crate::spool;
use crate::status::{UpdateStatus, View};
use crate::wake;

/// Which process makes the next attempt if nobody runs a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Daemon,
    /// A drain that a hook started, which waits for the next attempt.
    Drain,
    Timer,
    Nobody,
    /// This process cannot find out, because it may not open the lock file of the spool.
    Unknown,
}

impl Maker {
    fn of(session: &Session<'_>) -> Self {
        match () {
            () if wake::is_served(&session.base.environment.runtime_directory, session.repository.git_dir()) => {
                Self::Daemon
            }
            // The timer runs `drain --all`, which drains only repositories below the roots of the server's file.
            () if session.base.server.place(session.repository.git_dir()).is_some() && has_timer() => Self::Timer,
            () => Self::drain(session),
        }
    }

    fn drain(session: &Session<'_>) -> Self {
        let spool = session.repository.layout().spool();
        if !spool.join("lock").exists() {
            return Self::Nobody;
        }
        match Lock::try_acquire(&spool, session.repository.sharing()) {
            Ok(Some(_)) => Self::Nobody,
            Ok(None) => Self::Drain,
            Err(_) => Self::Unknown,
        }
    }
}

/// When the mirror is tried again, how often it failed, who makes the attempt, and what to do if nobody does.
pub(super) fn attempt(session: &Session<'_>, config: &Config, view: &View, now: Timestamp) -> Option<String> {
    if !view.enabled || view.update_status == UpdateStatus::Started {
        return None;
    }
    if config.is_silent {
        return Some(format!("silent mode: nothing is sent; {}", end_of_silence(session.base)));
    }
    if view.next_attempt_at.is_none() && view.pending == 0 {
        return None;
    }
    if view.direction != Direction::Push.as_str() {
        let next = view.next_attempt_at.as_ref().and_then(|next| next.parse::<Timestamp>().ok())?;
        let maker = Maker::of(session);
        return Some(next_check(next.duration_since(now).as_secs(), &failed(view.attempts), maker, &view.name));
    }
    let Some(next) = view.next_attempt_at.as_ref().and_then(|next| next.parse::<Timestamp>().ok()) else {
        // With `wake = "auto"`, a drain was started, which may not have come to this mirror yet. If it was killed, nobody else comes.
        let is_due = config.wake == Wake::None || has_waited(session, view, now);
        let nobody = is_due && Maker::of(session) == Maker::Nobody;
        return nobody.then(|| format!("{NOBODY}: 'git mirror-push drain {}' mirrors what waits", view.name));
    };
    let failed = failed(view.attempts);
    // A new push ends the wait for the retry of a permanent failure.
    let is_permanent = view.update_status == UpdateStatus::Failed;
    Some(said(next.duration_since(now).as_secs(), &failed, Maker::of(session), is_permanent, &view.name))
}

/// Whether something waits for the mirror for longer than a drain needs to begin.
fn has_waited(session: &Session<'_>, view: &View, now: Timestamp) -> bool {
    const LONG: SignedDuration = SignedDuration::from_secs(10);
    let backlog = spool::backlog(&session.repository.layout(), &view.name);
    let oldest = backlog.ok().and_then(|backlog| backlog.oldest);
    let oldest = oldest.and_then(|oldest| Timestamp::from_duration(oldest.try_into().ok()?).ok());
    oldest.is_some_and(|oldest| now.duration_since(oldest) >= LONG)
}

/// When upstream is checked next, and by whom.
fn next_check(seconds: i64, failed: &str, maker: Maker, name: &str) -> String {
    let when = if seconds <= 0 { "next check: due".to_owned() } else { format!("next check in {}", after(seconds)) };
    match maker {
        Maker::Daemon => format!("{when}, by the daemon{failed}"),
        Maker::Timer => format!("{when}, by the timer{failed}"),
        // A drain that waits serves pushes only.
        Maker::Drain | Maker::Nobody | Maker::Unknown => {
            format!("{when}{failed}, but no daemon or timer is running: 'git mirror-push pull {name}' checks now")
        }
    }
}

fn failed(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        1 => ", after 1 failed attempt".to_owned(),
        attempts => format!(", after {attempts} failed attempts"),
    }
}

/// A number of seconds in words.
fn after(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", (seconds + 1800) / 3600),
    }
}

/// Whether systemd runs the timer that drains all repositories.
fn has_timer() -> bool {
    let mut asked = process::command("systemctl");
    asked.args(["is-active", "--quiet", "git-mirror-push-drain.timer"]);
    let runs_systemd = Path::new("/run/systemd/system").is_dir();
    runs_systemd && process::run("systemctl", &mut asked, b"", Duration::from_secs(5)).is_ok()
}

const NOBODY: &str = "no daemon, drain or timer is running";

fn said(seconds: i64, failed: &str, maker: Maker, is_permanent: bool, name: &str) -> String {
    let after = after(seconds);
    let when = if seconds <= 0 { "next attempt: due".to_owned() } else { format!("next attempt in {after}") };
    match maker {
        Maker::Daemon => format!("{when}, by the daemon{failed}"),
        // It does not wait for the retry of a permanent failure.
        Maker::Drain if is_permanent && seconds > 0 => {
            format!(
                "next attempt at the next push{failed}; the waiting drain does not try it again: 'git mirror-push sync {name}' tries now"
            )
        }
        Maker::Drain => format!("{when}, by the waiting drain{failed}"),
        Maker::Timer => format!("{when}, by the timer{failed}"),
        Maker::Unknown => format!("{when}{failed}"),
        Maker::Nobody if seconds <= 0 => {
            format!("{when}{failed}; {NOBODY}: the next push triggers it, or 'git mirror-push drain {name}'")
        }
        // No process waits for the time of the retry, so the next push makes the attempt.
        Maker::Nobody if is_permanent => {
            format!("next attempt at the next push{failed}; {NOBODY}: 'git mirror-push sync {name}' tries now")
        }
        Maker::Nobody => {
            format!(
                "next attempt at the first push that comes {after} from now or later{failed}; {NOBODY}: 'git mirror-push sync {name}' tries now"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_when_and_who() {
        for (seconds, maker, expected) in [
            (-5, Maker::Daemon, "next attempt: due, by the daemon, after 2 failed attempts"),
            (90, Maker::Timer, "next attempt in 90 s, by the timer, after 2 failed attempts"),
            (
                0,
                Maker::Nobody,
                "next attempt: due, after 2 failed attempts; no daemon, drain or timer is running: the next push triggers it, or 'git mirror-push drain m'",
            ),
            (
                600,
                Maker::Nobody,
                "next attempt at the first push that comes 10 min from now or later, after 2 failed attempts; no daemon, drain or timer is running: 'git mirror-push sync m' tries now",
            ),
            (7200, Maker::Daemon, "next attempt in 2 h, by the daemon, after 2 failed attempts"),
        ] {
            assert_eq!(said(seconds, ", after 2 failed attempts", maker, false, "m"), expected);
        }
        assert_eq!(
            said(20_000, "", Maker::Drain, true, "m"),
            "next attempt at the next push; the waiting drain does not try it again: 'git mirror-push sync m' tries now"
        );
        assert_eq!(
            said(20_000, "", Maker::Nobody, true, "m"),
            "next attempt at the next push; no daemon, drain or timer is running: 'git mirror-push sync m' tries now"
        );
    }
}
