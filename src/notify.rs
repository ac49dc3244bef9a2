//! Notifications: a mirror begins to fail, still fails, or has recovered.
//!
//! The configured command reads one JSON object from standard input and has ten seconds. No shell
//! is involved. An event counts as sent once the command has succeeded. The status records it after
//! that, so a crash in between repeats the event and does not lose it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Notify;
use crate::process;
use crate::status::{RefOutcome, Status, UpdateStatus};

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How often a failure is reported again, unless `notify_interval` is set.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It began to fail.
    Failing,
    /// It still fails, and the interval since the last notification has passed.
    StillFailing,
    /// Its failure was reported, and it has recovered.
    Recovered,
}

/// What the command receives.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What happened.
    pub event: Event,
    /// The repository's path.
    pub repository: &'a str,
    /// The mirror's name.
    pub remote: &'a str,
    /// Its URL, credentials masked.
    pub url: &'a str,
    /// Its status.
    pub status: &'a Status,
}

/// The object on standard input.
#[derive(Serialize)]
struct Json<'a> {
    event: Event,
    repository: &'a str,
    name: &'a str,
    /// The old name of the field `name`.
    remote: &'a str,
    url: &'a str,
    update_status: UpdateStatus,
    error: Option<&'a str>,
    failing_since: Option<&'a str>,
    attempts: u32,
    next_attempt_at: Option<&'a str>,
    refs: &'a [RefOutcome],
}

/// The event to report after an attempt that ended in `status`, if there is one. Pure.
#[must_use]
pub fn event(status: &Status, settings: &Notify, now: Timestamp) -> Option<Event> {
    let is_past = |time: Option<&str>, wait: Duration| {
        let due = time.and_then(|time| time.parse::<Timestamp>().ok()).and_then(|time| time.checked_add(wait).ok());
        due.is_some_and(|due| due <= now)
    };
    let time = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    let since = time(status.failing_since.as_deref());
    // A notification from before the failure began was about an earlier failure. Either the address of the mirror has changed since, or
    // the recovery could not be reported.
    let is_of_this = |told: &&str| {
        status.update_status == UpdateStatus::Finished || since.is_none_or(|since| time(Some(told)) >= Some(since))
    };
    match (status.update_status, status.notified_at.as_deref().filter(is_of_this)) {
        (UpdateStatus::Finished, None) => None,
        (UpdateStatus::Finished, Some(_)) => Some(Event::Recovered),
        (_, Some(told)) => {
            is_past(Some(told), settings.interval.unwrap_or(DEFAULT_INTERVAL)).then_some(Event::StillFailing)
        }
        (_, None) => {
            is_past(status.failing_since.as_deref(), settings.after.unwrap_or_default()).then_some(Event::Failing)
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`process::Error`]
pub fn tell(command: &[String], message: &Message<'_>) -> Result<(), process::Error> {
    let Message { event, repository, remote, url, status } = *message;
    let json = Json {
        event,
        repository,
        name: remote,
        remote,
        url,
        update_status: status.update_status,
        error: status.last_error.as_deref(),
        failing_since: status.failing_since.as_deref(),
        attempts: status.attempts,
        next_attempt_at: status.next_attempt_at.as_deref(),
        refs: &status.refs,
    };
    let mut text = serde_json::to_vec(&json).unwrap_or_default();
    text.push(b'\n');
    process::run(&command[0], &mut process::configured(command), &text, LIMIT).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_told_when_it_is_due() {
        let at = |second: i64| Timestamp::from_second(1_767_720_000 + second).expect("in range");
        let status = |update_status, since: Option<i64>, told: Option<i64>| Status {
            update_status,
            failing_since: since.map(|second| at(second).to_string()),
            notified_at: told.map(|second| at(second).to_string()),
            ..Status::default()
        };
        let settings = Notify { after: Some(Duration::from_secs(60)), ..Notify::default() };
        use UpdateStatus::{Failed, Finished, Scheduled};
        for (status, now, expected) in [
            (status(Finished, None, None), 0, None),
            (status(Scheduled, Some(0), None), 59, None),
            (status(Scheduled, Some(0), None), 60, Some(Event::Failing)),
            (status(Failed, Some(0), Some(60)), 61, None),
            (status(Failed, Some(0), Some(60)), 60 + 86_400, Some(Event::StillFailing)),
            (status(Finished, None, Some(60)), 62, Some(Event::Recovered)),
            (status(Failed, Some(100), Some(60)), 160, Some(Event::Failing)),
        ] {
            assert_eq!(event(&status, &settings, at(now)), expected, "{status:?} at {now}");
        }
    }
}
