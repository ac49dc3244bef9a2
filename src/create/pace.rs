//! When a host may be asked for one more repository: at most `create_per_minute` in any minute, one
//! at a time, and not before the time that the host asked for. A mirror that asks too early is
//! promised a later time, in the order of asking. The clock is an argument.
//!
//! This holds within one process. Absent: what other processes create.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

const MINUTE: Duration = Duration::from_secs(60);

/// How long after its time a promise is kept for someone who does not come back.
const HELD: Duration = Duration::from_secs(3600);

/// The creations at all hosts.
#[derive(Default)]
pub struct Pace {
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Default)]
struct Host {
    /// All times that were given out, of the last minute and later, in order. A creation that came
    /// late stands here with its promised time.
    times: VecDeque<Timestamp>,
    /// The times of the creations of the last minute alone, in order.
    made: VecDeque<Timestamp>,
    /// The promised times, by who asked.
    promised: HashMap<String, Timestamp>,
    /// The host asked that nothing is created before this time.
    not_before: Option<Timestamp>,
    /// Held while something is created there.
    at_work: Arc<Mutex<()>>,
}

/// The answer to [`Pace::ask`].
pub enum Turn {
    /// Create it now, and hold this lock meanwhile.
    Now(Arc<Mutex<()>>),
    /// Come back then.
    Later {
        /// When.
        at: Timestamp,
        /// The place among those who wait, from 1.
        place: usize,
    },
}

/// The pace of this process.
pub fn pace() -> &'static Pace {
    static PACE: LazyLock<Pace> = LazyLock::new(Pace::default);
    &PACE
}

impl Pace {
    /// Whether `who` may create a repository at `host`.
    pub fn ask(&self, host: &str, who: &str, per_minute: usize, now: Timestamp) -> Turn {
        let mut hosts = self.hosts.lock();
        let host = hosts.entry(host.to_owned()).or_default();
        host.forget(now);
        let is_closed = host.made.len() >= per_minute || host.not_before.is_some_and(|until| until > now);
        let at = match host.promised.get(who) {
            // A late asker gets a new time if the minute is full or the host asked for a pause.
            Some(at) if *at > now || !is_closed => *at,
            _ => host.next(per_minute, now),
        };
        if at > now {
            host.promise(who, at);
            let place = host.promised.values().filter(|promised| **promised > now && **promised <= at).count();
            return Turn::Later { at, place };
        }
        if host.promised.remove(who).is_none() {
            host.times.push_back(at);
        }
        host.made.push_back(now);
        Turn::Now(Arc::clone(&host.at_work))
    }

    /// Until when nothing may be created at `host`, because it asked for a pause.
    pub fn paused(&self, host: &str, now: Timestamp) -> Option<Timestamp> {
        self.hosts.lock().get(host)?.not_before.filter(|until| *until > now)
    }

    /// Moves what is promised so that nothing happens at `host` before `until`.
    pub fn wait(&self, host: &str, until: Timestamp, now: Timestamp) {
        let mut hosts = self.hosts.lock();
        let host = hosts.entry(host.to_owned()).or_default();
        host.not_before = host.not_before.max(Some(until));
        let Some(first) = host.times.iter().find(|time| **time > now).copied().filter(|first| *first < until) else {
            return;
        };
        let later = until.duration_since(first);
        let moved = |time: &mut Timestamp| {
            if *time > now {
                *time = time.checked_add(later).unwrap_or(*time);
            }
        };
        host.times.iter_mut().for_each(moved);
        host.promised.values_mut().for_each(moved);
    }
}

impl Host {
    /// The earliest time for one more creation. It is not before any promised time, and never gives
    /// more than `per_minute` in a minute, counted by promised times and by real ones.
    fn next(&self, per_minute: usize, now: Timestamp) -> Timestamp {
        let after_window = |times: &VecDeque<Timestamp>| {
            let first = times.len().checked_sub(per_minute).map(|at| times[at]);
            first.and_then(|time| time.checked_add(MINUTE).ok())
        };
        let (promised, made) = (after_window(&self.times), after_window(&self.made));
        [Some(now), self.not_before, self.times.back().copied(), promised, made]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(now)
    }

    fn promise(&mut self, who: &str, at: Timestamp) {
        if self.promised.insert(who.to_owned(), at) != Some(at) {
            self.times.push_back(at);
        }
    }

    /// Forgets what no longer matters.
    fn forget(&mut self, now: Timestamp) {
        let is_old = |time: &Timestamp, age: Duration| time.checked_add(age).is_ok_and(|end| end <= now);
        while self.times.front().is_some_and(|time| is_old(time, MINUTE)) {
            self.times.pop_front();
        }
        while self.made.front().is_some_and(|time| is_old(time, MINUTE)) {
            self.made.pop_front();
        }
        self.promised.retain(|_, at| !is_old(at, HELD));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    #[test]
    fn those_who_come_too_early_get_a_place_and_keep_it() {
        let pace = Pace::default();
        let ask = |who: &str, now| match pace.ask("h", who, 2, at(now)) {
            Turn::Now(_) => None,
            Turn::Later { at: when, place } => Some((when.duration_since(at(0)).as_secs(), place)),
        };
        assert_eq!([ask("a", 0), ask("b", 1)], [None, None]);
        assert_eq!([ask("c", 2), ask("d", 2), ask("e", 2)], [Some((60, 1)), Some((61, 2)), Some((120, 3))]);
        assert_eq!(ask("e", 30), Some((120, 3)), "who asks again keeps the place");
        assert_eq!(ask("c", 60), None);
        assert_eq!(ask("e", 60), Some((120, 2)));
        pace.wait("h", at(200), at(60));
        assert_eq!([ask("d", 61), ask("e", 120)], [Some((200, 1)), Some((259, 2))], "the host asked for it");
        assert_eq!(ask("f", 130), Some((260, 3)));
        assert_eq!([ask("d", 200), ask("e", 259), ask("f", 260)], [None, None, None]);
        assert!(matches!(pace.ask("other", "a", 2, at(0)), Turn::Now(_)), "hosts do not wait for each other");
    }

    #[test]
    fn what_was_created_late_counts_for_those_who_come_first() {
        let pace = Pace::default();
        let ask = |who: &str, now| matches!(pace.ask("h", who, 2, at(now)), Turn::Now(_));
        assert_eq!(["a", "b", "c", "d"].map(|who| ask(who, 0)), [true, true, false, false]);
        assert_eq!(["c", "d"].map(|who| ask(who, 110)), [true, true], "they come later than promised");
        assert_eq!(["e", "f"].map(|who| ask(who, 121)), [false, false]);
        assert_eq!(["e", "f"].map(|who| ask(who, 170)), [true, true]);
    }

    /// A thousand repositories, of which some come late and some never, at a host that asks for a pause now and then.
    #[test]
    fn a_thousand_repositories_are_created_once_each_at_the_pace_of_the_host() {
        for seed in 0..20_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = move || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random
            };
            let (pace, mut created, mut asked, mut blocked) = (Pace::default(), Vec::new(), Vec::new(), at(0));
            let mut removed = 0;
            // When each one comes next.
            let mut due: BTreeMap<(i64, usize), ()> = (0..1000).map(|who| ((0, who), ())).collect();
            while let Some(((now, who), ())) = due.pop_first() {
                match pace.ask("h", &who.to_string(), 8, at(now)) {
                    Turn::Later { at: when, .. } => {
                        // One in fifty is removed, and one in ten is late.
                        let late = if next().is_multiple_of(10) { (next() % 90).cast_signed() } else { 0 };
                        if next().is_multiple_of(50) {
                            removed += 1;
                        } else {
                            due.insert((when.as_second() - 1_800_000_000 + late, who), ());
                        }
                    }
                    Turn::Now(_) => {
                        asked.push(now);
                        let of_minute = asked.iter().rev().take_while(|time| **time > now - 60).count();
                        assert!(of_minute <= 8, "seed {seed}: {of_minute} within a minute");
                        assert!(at(now) >= blocked, "seed {seed}: {who} came before the host wanted it");
                        if next().is_multiple_of(40) {
                            let pause = (next() % 600).cast_signed();
                            blocked = at(now + pause);
                            pace.wait("h", blocked, at(now));
                            due.insert((now + pause, who), ());
                        } else {
                            created.push((now, who));
                        }
                    }
                }
            }
            let mut who: Vec<usize> = created.iter().map(|(_, who)| *who).collect();
            who.sort_unstable();
            who.dedup();
            assert_eq!(who.len(), created.len(), "seed {seed}: one was created twice");
            assert_eq!(created.len() + removed, 1000, "seed {seed}: one was forgotten");
        }
    }
}
