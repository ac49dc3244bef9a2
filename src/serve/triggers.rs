//! What makes the check of an upstream due, other than its interval: the API and webhooks.
//!
//! Guaranteed: the last delivery is never dropped. For each mirror, two webhooks that find nothing
//! new are served at once, then one every five seconds. The next one waits, and its check also
//! serves those that come before it is made. When a webhook finds a change, two are served at once
//! again. Absent: what upstream has; a check finds that out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::lanes::TooMany;
use super::mirrors::{Error, OpenProject};
use super::projects::Project;
use super::{App, now};
use crate::config::{Interval, Mirror};
use crate::mirror::{Operation, Wish};
use crate::status::{self, UpdateStatus};

/// Delayed checks share the threads of one token, so that they do not take those of requests.
const LANE: &str = "delayed webhooks";
/// How many webhooks that find nothing are served at once.
const AT_ONCE: u32 = 2;
/// How often one more is served after that.
const PERIOD: SignedDuration = SignedDuration::from_secs(5);

/// In seconds. A run may have taken a note that was written up to this long after the run began.
const TAKEN: u64 = 2;

/// What webhooks may still do.
#[derive(Debug, Default)]
pub(super) struct Allowances(Mutex<HashMap<(PathBuf, String), Allowance>>);

#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Timestamp,
    /// When upstream had last changed, as far as it was known then.
    change: Option<String>,
    /// The time of the check for those that came too early.
    later: Option<Timestamp>,
}

/// When a check may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    /// At this time, for this delivery and for all that come before it.
    At(Timestamp),
    /// At a time that an earlier delivery got.
    WithEarlier,
}

impl Allowances {
    /// Counts a webhook, and says when its check may be made.
    fn take(&self, key: (PathBuf, String), change: Option<&str>, now: Timestamp) -> Turn {
        let mut all = self.0.lock();
        let full = || Allowance { left: AT_ONCE, since: now, change: change.map(str::to_owned), later: None };
        let entry = all.entry(key).or_insert_with(full);
        let is_set_back = entry.since.duration_since(now) > PERIOD;
        if entry.change.as_deref() != change || is_set_back {
            *entry = full();
        }
        // If the time is further away, the clock was set back since.
        if entry.later.is_some_and(|later| now < later && later.duration_since(now) <= PERIOD * 2) {
            return Turn::WithEarlier;
        }
        while entry.left < AT_ONCE && now.duration_since(entry.since) >= PERIOD {
            entry.left += 1;
            entry.since += PERIOD;
        }
        if entry.left == 0 {
            entry.since += PERIOD;
            entry.later = Some(entry.since);
            return Turn::At(entry.since);
        }
        if entry.left == AT_ONCE {
            entry.since = now;
        }
        entry.left -= 1;
        Turn::Now
    }
}

impl App {
    /// Makes a check due now. During a run, one more run follows.
    pub(super) fn pull(&self, project: &Project, opened: &OpenProject, mirror: &Mirror) -> Result<(), Error> {
        // Nothing else would repeat a check that is lost in a crash.
        if opened.config.is_silent || mirror.pull.interval == Interval::None {
            self.note(opened, mirror)?;
        }
        if !opened.config.is_silent {
            self.workers.pull(&project.git_dir, mirror);
        }
        Ok(())
    }

    /// Makes a check due, because a webhook said that upstream changed.
    pub(super) fn pull_by_webhook(
        self: &Arc<Self>,
        project: &Arc<Project>,
        opened: &OpenProject,
        mirror: &Mirror,
    ) -> Result<(), Error> {
        let status = status::of(&opened.repository.layout(), mirror).map_err(anyhow::Error::from)?;
        let change = status.pull.and_then(|pull| pull.last_change_at);
        let key = (project.git_dir.clone(), mirror.name.clone());
        match self.allowances.take(key, change.as_deref(), now()) {
            Turn::Now => self.pull(project, opened, mirror),
            Turn::WithEarlier => Ok(()),
            Turn::At(_) if opened.config.is_silent => self.note(opened, mirror),
            Turn::At(later) => {
                let (app, project, name) = (Arc::clone(self), Arc::clone(project), mirror.name.clone());
                let wait = later.duration_since(now()).unsigned_abs();
                // The last delivery may come after a run has read upstream's refs, so a check follows in any case.
                tokio::runtime::Handle::current().spawn(async move {
                    tokio::time::sleep(wait).await;
                    loop {
                        let (own, project, name) = (Arc::clone(&app), Arc::clone(&project), name.clone());
                        match app.lanes.write(LANE, move || own.pull_now(&project, &name)).await {
                            Ok(()) => return,
                            // The last delivery is never dropped.
                            Err(TooMany) => tokio::time::sleep(PERIOD.unsigned_abs()).await,
                        }
                    }
                });
                if mirror.pull.interval == Interval::None {
                    self.note(opened, mirror)?;
                }
                Ok(())
            }
        }
    }

    /// Makes the check due that webhooks waited for. Silent mode and the mirror may have been
    /// changed meanwhile.
    fn pull_now(&self, project: &Project, name: &str) {
        let pull = || {
            let opened = self.open(project)?;
            let mirror = opened.config.mirror(name).filter(|mirror| mirror.is_enabled);
            mirror.map_or(Ok(()), |mirror| self.pull(project, &opened, mirror))
        };
        if let Err(error) = pull() {
            tracing::warn!("'{}', mirror '{name}': a webhook came, and the check fails: {error}", project.path);
        }
    }

    /// Notes durably that a check is due, unless a note is there that no run has taken yet.
    fn note(&self, opened: &OpenProject, mirror: &Mirror) -> Result<(), Error> {
        let layout = opened.repository.layout();
        let status = status::of(&layout, mirror).map_err(anyhow::Error::from)?;
        let noted = crate::spool::last_full(&layout, &mirror.name).map_err(anyhow::Error::from)?;
        // A run that is at work has taken what was there when it began.
        let begun = status.last_update_started_at.filter(|_| status.update_status == UpdateStatus::Started);
        let begun = begun.and_then(|time| time.parse::<Timestamp>().ok());
        let is_waiting = noted.is_some_and(|noted| {
            begun.is_none_or(|begun| noted > Duration::from_secs(begun.as_second().unsigned_abs() + TAKEN))
        });
        if !is_waiting {
            opened.run(&Operation::Request(mirror.into(), Wish::Compare))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_webhooks_are_served_and_then_one_in_five_seconds() {
        let at = |seconds: i64| Timestamp::from_second(1_767_720_000 + seconds).expect("in range");
        let allowances = Allowances::default();
        let take = |seconds, change: Option<&str>| {
            let key = (PathBuf::from("/r.git"), "m".to_owned());
            allowances.take(key, change, at(seconds))
        };
        let later = |seconds| Turn::At(at(seconds));
        let first = [take(0, None), take(1, None), take(1, None), take(4, None)];
        assert_eq!(first, [Turn::Now, Turn::Now, later(5), Turn::WithEarlier]);
        assert_eq!([take(5, None), take(6, None)], [later(10), Turn::WithEarlier]);
        assert_eq!([take(100, None), take(100, None), take(100, None)], [Turn::Now, Turn::Now, later(105)]);
        assert_eq!(take(101, Some("changed")), Turn::Now, "a change costs nothing");
    }
}
