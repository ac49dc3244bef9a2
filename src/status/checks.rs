//! When an upstream is checked next.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{PullState, Status, UpdateStatus};
use crate::config::Interval;
use crate::durable;

/// Missed checks are spread over this time, or over the interval of the mirror if that is shorter.
const SPREAD: Duration = Duration::from_secs(300);

/// The file in a mirror's directory whose time says when upstream was last checked.
pub const CHECKED: &str = "checked";

/// When upstream was last checked: the time of the file `checked`, or the end of the last run if that is later. A time long after `now`
/// does not count: the clock was wrong then.
#[must_use]
pub fn last_check(directory: &Path, status: &Status, now: Timestamp) -> Option<Timestamp> {
    let checked = durable::stat(&directory.join(CHECKED)).ok();
    let checked = checked.and_then(|file| Timestamp::new(file.st_mtime, i32::try_from(file.st_mtime_nsec).ok()?).ok());
    let run = status.last_update_at.as_deref().and_then(|time| time.parse().ok());
    // The clock of a file server may be ahead of ours.
    let is_likely = |time: &Timestamp| time.duration_since(now) < SignedDuration::from_mins(5);
    checked.filter(is_likely).max(run.filter(is_likely)).map(|time| time.min(now))
}

/// When upstream is to be checked next if nobody requests a check. `None` means never; a time that
/// has passed means now. Checks that became due by the clock before `since`, while no daemon ran,
/// are spread over five minutes after `since`, so that a restart does not check everything at once.
#[must_use]
pub fn next_check(directory: &Path, status: &Status, now: Timestamp, since: Option<Timestamp>) -> Option<Timestamp> {
    let next_attempt = status.next_attempt();
    let Some(pull) = &status.pull else { return next_attempt.or(Some(Timestamp::UNIX_EPOCH)) };
    // After an error of the whole run, the back-off decides. Single refs that are not up to date do
    // not delay the check of the others.
    if pull.has_failed || status.update_status == UpdateStatus::Scheduled {
        return next_attempt.or(Some(Timestamp::UNIX_EPOCH));
    }
    let last = last_check(directory, status, now).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut hasher = DefaultHasher::new();
    (directory, last.as_second()).hash(&mut hasher);
    let chance = hasher.finish();
    let by_clock = period(pull, last).map(|period| {
        let next = later(last, jittered(period, chance));
        let missed = since.filter(|since| next < *since);
        missed.map_or(next, |since| later(since, period.min(SPREAD).mul_f64(share(chance))))
    });
    [by_clock, next_attempt].into_iter().flatten().min()
}

/// The time between two checks, after a check at `last`.
fn period(pull: &PullState, last: Timestamp) -> Option<Duration> {
    match pull.interval {
        Interval::None => None,
        Interval::Every(period) => Some(period),
        Interval::Auto => {
            let change = pull.last_change_at.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
            let quiet = change.map_or(Duration::MAX, |change| last.duration_since(change.min(last)).unsigned_abs() / 2);
            let least = Duration::from_secs(pull.min_check_interval);
            let most = Duration::from_secs(pull.max_check_interval).max(least);
            Some(quiet.clamp(least, most))
        }
    }
}

/// A time that differs from `period` by at most a fifth, so that mirrors that were made together are not always checked together.
fn jittered(period: Duration, chance: u64) -> Duration {
    period.mul_f64(0.8 + 0.4 * share(chance))
}

/// A number from 0 to 1.
fn share(chance: u64) -> f64 {
    (chance % 10_000) as f64 / 10_000.0
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_720_000 + seconds).expect("in range")
    }

    fn pull(interval: Interval, change: Option<i64>) -> PullState {
        PullState {
            interval,
            last_change_at: change.map(|seconds| at(seconds).to_string()),
            min_check_interval: 60,
            max_check_interval: 1800,
            ..PullState::default()
        }
    }

    #[test]
    fn a_quiet_upstream_is_checked_less_often() {
        let seconds = |interval, change, last| period(&pull(interval, change), at(last)).map(|period| period.as_secs());
        assert_eq!(seconds(Interval::Auto, Some(0), 10), Some(60));
        assert_eq!(seconds(Interval::Auto, Some(0), 600), Some(300));
        assert_eq!(seconds(Interval::Auto, Some(0), 100_000), Some(1800));
        assert_eq!(seconds(Interval::Auto, None, 0), Some(1800));
        assert_eq!(seconds(Interval::None, Some(0), 10), None);
        assert_eq!(seconds(Interval::Every(Duration::from_secs(7)), Some(0), 10), Some(7));
        for chance in [0, 1, 9_999, u64::MAX] {
            let found = jittered(Duration::from_secs(100), chance).as_secs();
            assert!((80..=120).contains(&found), "{found}");
        }
    }

    #[test]
    fn what_was_missed_is_spread_and_a_clock_ahead_delays_nothing() {
        // A thousand mirrors were due before the daemon began. They are spread over five minutes.
        let status = |last: i64| Status {
            update_status: UpdateStatus::Finished,
            last_update_at: Some(at(last).to_string()),
            pull: Some(pull(Interval::Every(Duration::from_secs(600)), None)),
            ..Status::default()
        };
        let next = |number: i64, since| {
            let directory = Path::new("/none").join(number.to_string());
            next_check(&directory, &status(number), at(10_000), since).expect("by the clock").duration_since(at(10_000))
        };
        assert!((0..1000).all(|number| next(number, None).as_secs() < 0));
        for minute in 0..5 {
            let in_it = |number: &i64| next(*number, Some(at(10_000))).as_secs() / 60 == minute;
            let found = (0..1000).filter(in_it).count();
            assert!((140..260).contains(&found), "{found} in minute {minute}");
        }
        // The clock of the machine that wrote the status was a minute ahead, or a day.
        let ahead = |seconds: i64| last_check(Path::new("/none"), &status(10_000 + seconds), at(10_000));
        assert_eq!((ahead(60), ahead(86_400)), (Some(at(10_000)), None));
    }
}
