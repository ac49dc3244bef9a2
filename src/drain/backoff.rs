//! When the next attempt is due. Pure: the clock and chance are arguments.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::Waits;
use crate::status::{Status, UpdateStatus};
use crate::wire::Class;

/// How long a retry waits after a permanent failure. Other modules call it the slow interval.
const LASTING: Duration = Duration::from_secs(6 * 3600);

/// The longest wait that a server may ask for with `Retry-After`.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long to wait after failure number `attempts` (from 1). After a temporary failure, the wait is a random time between `retry_delay`
/// and a limit that doubles with each failure up to `max_retry_delay`. It is never shorter than the server's `Retry-After`, of which 24
/// hours count at most.
pub(super) fn delay(waits: Waits, class: Class, attempts: u32, wish: Option<Duration>, random: u64) -> Duration {
    if class == Class::Permanent {
        return LASTING;
    }
    let doublings = attempts.saturating_sub(1).min(20);
    let window = waits.retry.saturating_mul(1 << doublings).min(waits.max_retry).max(waits.retry);
    let span = u64::try_from((window - waits.retry).as_millis()).unwrap_or(u64::MAX - 1);
    let jittered = waits.retry + Duration::from_millis(random % (span + 1));
    jittered.max(wish.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// What decides whether an update of a mirror is due.
pub(super) struct Now<'a> {
    pub(super) now: Timestamp,
    pub(super) status: &'a Status,
    pub(super) waits: Waits,
    /// When the newest push was spooled.
    pub(super) newest: Option<Timestamp>,
    /// Whether the queue has a push that no attempt has tried.
    pub(super) has_new_push: bool,
    /// When the configuration or the secret last changed.
    pub(super) changed: Option<Timestamp>,
}

impl Now<'_> {
    /// When the next update of the mirror is due; `None` means now.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let started = parse(self.status.last_update_started_at.as_deref());
        let ended = parse(self.status.last_update_at.as_deref());
        let is_since = |time: Option<Timestamp>| time.is_some_and(|time| ended.is_none_or(|ended| time > ended));
        // After a successful attempt, `next_attempt_at` only says when some refs are read again. That delays nothing else.
        let retry = self.status.next_attempt().filter(|_| self.status.attempts > 0);
        // A changed configuration or secret ends every wait for a retry (`changed` says which changes count). A new push ends only the wait after
        // a permanent failure.
        let is_parked = self.status.update_status == UpdateStatus::Failed;
        let has_news = is_since(self.changed) || is_parked && self.has_new_push;
        let retry = retry.filter(|_| !has_news);
        // A time that cannot be right was written while the clock was wrong, or on another machine. It holds nothing back.
        let after =
            |time: Option<Timestamp>, wait: Duration| time.filter(|time| *time <= self.now)?.checked_add(wait).ok();
        let longest = MAX_RETRY_AFTER.max(self.waits.max_retry);
        let latest = self.now.checked_add(longest).unwrap_or(Timestamp::MAX);
        let retry = retry.filter(|time| *time <= latest);
        let (interval, settled) = (after(started, self.waits.min_interval), after(self.newest, self.waits.settle));
        [retry, interval, settled].into_iter().flatten().max().filter(|time| *time > self.now)
    }
}

fn parse(time: Option<&str>) -> Option<Timestamp> {
    time?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = crate::config::DEFAULT_WAITS;

    #[test]
    fn times_of_a_clock_that_was_ahead_hold_nothing_back() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).expect("a time");
        let year = 365 * 24 * 3600;
        let status = Status {
            update_status: UpdateStatus::Scheduled,
            attempts: 1,
            next_attempt_at: Some(at(year).to_string()),
            last_update_started_at: Some(at(year).to_string()),
            ..Status::default()
        };
        let waits = Waits { min_interval: Duration::from_secs(60), settle: Duration::from_secs(5), ..WAITS };
        let now = |newest| Now { now: at(0), status: &status, waits, newest, has_new_push: true, changed: None };
        assert_eq!(now(Some(at(year))).due(), None);
        assert_eq!(now(Some(at(-1))).due(), Some(at(4)), "a usual push settles");
        // The configuration may allow long waits.
        let status =
            Status { next_attempt_at: Some(at(3 * 24 * 3600).to_string()), last_update_started_at: None, ..status };
        let due = |max_retry| {
            let waits = Waits { max_retry, ..WAITS };
            Now { now: at(0), status: &status, waits, newest: None, has_new_push: true, changed: None }.due()
        };
        assert_eq!(due(WAITS.max_retry), None);
        assert_eq!(due(Duration::from_secs(4 * 24 * 3600)), Some(at(3 * 24 * 3600)));
    }

    #[test]
    fn temporary_failures_back_off_between_ten_seconds_and_an_hour() {
        let seconds = |attempts, random| delay(WAITS, Class::Temporary, attempts, None, random).as_secs_f64();
        assert_eq!(seconds(1, u64::MAX), 10.0, "the first window has no width");
        for attempts in 1..60 {
            let window = (10.0 * f64::powi(2.0, attempts as i32 - 1)).min(3600.0);
            for random in [0, 1, 12_345_678_901, u64::MAX] {
                let waited = seconds(attempts, random);
                assert!((10.0..=window).contains(&waited), "{attempts}: {waited}");
            }
            assert_eq!(seconds(attempts, ((window - 10.0) * 1000.0) as u64), window, "the whole window is used");
        }
        let wish = |seconds| delay(WAITS, Class::Temporary, 1, Some(Duration::from_secs(seconds)), 0).as_secs();
        assert_eq!((wish(90), wish(1), wish(10_000_000)), (90, 10, 86_400));
        assert_eq!(delay(WAITS, Class::Permanent, 1, None, 7).as_secs(), 6 * 3600);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_720_000 + second).expect("in range")
    }

    fn status(update_status: UpdateStatus, next: Option<i64>) -> Status {
        let text = |second| Some(at(second).to_string());
        Status {
            update_status,
            last_update_started_at: text(0),
            last_update_at: text(1),
            next_attempt_at: next.and_then(text),
            attempts: 1,
            ..Status::default()
        }
    }

    #[test]
    fn an_update_is_due_by_time_or_after_a_change() {
        let due = |status: &Status, now: i64, has_new_push: bool, changed: Option<i64>| {
            let changed = changed.map(at);
            let due = Now { now: at(now), status, waits: WAITS, newest: None, has_new_push, changed }.due();
            due.map(|time| time.as_second() - at(0).as_second())
        };
        let waiting = status(UpdateStatus::Scheduled, Some(100));
        assert_eq!(due(&waiting, 50, false, None), Some(100));
        assert_eq!(due(&waiting, 50, true, None), Some(100), "a push does not hurry a host that is down");
        assert_eq!(due(&waiting, 50, false, Some(30)), None, "a changed configuration ends the wait");
        assert_eq!(due(&waiting, 100, false, None), None);
        let parked = status(UpdateStatus::Failed, Some(21_600));
        assert_eq!(due(&parked, 50, false, Some(-9)), Some(21_600));
        assert_eq!(due(&parked, 50, true, None), None, "a new push ends the wait after a permanent failure");
        assert_eq!(due(&status(UpdateStatus::Finished, None), 2, true, None), None);
        let looks_later = Status { attempts: 0, ..waiting };
        assert_eq!(due(&looks_later, 50, true, None), None, "refs that are to be read again later delay no push");
    }

    #[test]
    fn min_interval_and_settle_hold_pushes_back() {
        let waits = Waits { min_interval: Duration::from_secs(60), settle: Duration::from_secs(5), ..WAITS };
        let status = status(UpdateStatus::Finished, None);
        let due = |now, newest| {
            Now { now: at(now), status: &status, waits, newest: Some(at(newest)), has_new_push: true, changed: None }
                .due()
        };
        assert_eq!(due(30, 29), Some(at(60)));
        assert_eq!(due(61, 60), Some(at(65)));
        assert_eq!(due(65, 60), None);
    }
}
