//! Whether anything is due in a repository, from the files below `mirror-push` alone. Most repositories are idle at most times, so a scan
//! opens no repository, parses no configuration unless it has changed, and takes no lock.
//!
//! Guaranteed: what is not sure to be idle counts as due, and the run that serves it finds out. Absent: looking itself (see `batch`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::batch::Every;
use crate::config;
use crate::drain::Error;
use crate::durable;
use crate::layout::Layout;
use crate::mirror::is_being_removed;
use crate::spool;
use crate::status::{self, Status, UpdateStatus};

/// How long a repository counts as idle at most.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

impl Every<'_> {
    /// Until when a drain of the repository would find nothing to do, from its files alone. `None` if it may find something now.
    pub(super) fn idle_until(&self, layout: &Layout, git_dir: &Path) -> Result<Option<Timestamp>, Error> {
        let files = |doing| Error::files(doing, layout.root().to_owned());
        if !spool::is_empty(layout).map_err(files("read the spool"))? {
            return Ok(None);
        }
        let queues = spool::queues(layout).map_err(files("list the mirrors"))?;
        let own = config::names_in(layout).map_err(files("read the configuration"))?;
        let (now, edited) = ((self.now)(), durable::changed(&layout.config()));
        let mut until = now.checked_add(LONGEST).unwrap_or(Timestamp::MAX);
        for (name, queued) in &queues {
            let status = status::read(&layout.remote(name)).map_err(files("read the status"))?;
            let is_moved = || match own.contains(name) {
                true => {
                    edited > durable::changed(&layout.remote(name).join("status.json"))
                        && self.is_moved(layout, git_dir, name, &status)
                }
                false => self.server.template_identity(name, git_dir).is_some_and(|address| !status.is_at(&address)),
            };
            if *queued > 0 || status.is_new() || is_moved() {
                return Ok(None);
            }
            let next = match status.pull {
                Some(_) => status::next_check(&layout.remote(name), &status, now, self.since),
                None => status.next_attempt_at.is_some().then_some(now),
            };
            until =
                [next, self.comparison_at(git_dir, name, &status)].into_iter().flatten().fold(until, Timestamp::min);
            if until <= now {
                return Ok(None);
            }
        }
        let is_known = |name: &str| queues.iter().any(|(known, _)| known == name);
        let is_placed = || self.server.place(git_dir).is_some();
        let is_idle = !queues.iter().any(|(name, _)| is_being_removed(&layout.remote(name)))
            && own.iter().all(|name| is_known(name))
            && (self.server.template_names().all(is_known) || !is_placed());
        Ok(is_idle.then_some(until))
    }

    /// Whether a full comparison is due.
    pub(super) fn is_comparison_due(&self, git_dir: &Path, name: &str, status: &Status) -> bool {
        self.comparison_at(git_dir, name, status).is_some_and(|time| time <= (self.now)())
    }

    /// When the next full comparison is due: `reconcile` after the last one, or now if there was none. `None` while the mirror waits for
    /// another attempt that has not failed for good. Each mirror is due up to a tenth of `reconcile` earlier, so that mirrors that were
    /// made together are not always compared together.
    fn comparison_at(&self, git_dir: &Path, name: &str, status: &Status) -> Option<Timestamp> {
        let is_quiet = status.next_attempt_at.is_none() || status.update_status == UpdateStatus::Failed;
        let interval = self.reconcile.filter(|_| is_quiet)?;
        let mut hasher = DefaultHasher::new();
        (git_dir, name).hash(&mut hasher);
        let early = interval.mul_f64((hasher.finish() % 1000) as f64 / 10_000.0);
        let last = status.last_full_at.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
        Some(last.map_or(Timestamp::UNIX_EPOCH, |last| last.checked_add(interval - early).unwrap_or(Timestamp::MAX)))
    }

    /// Whether an enabled mirror has another address in the repository's file than at its last attempt. Also `true` if the file does not
    /// name the mirror or cannot be used.
    fn is_moved(&self, layout: &Layout, git_dir: &Path, name: &str, status: &Status) -> bool {
        let Ok(text) = durable::read_text(&layout.config()) else { return true };
        let placed = self.server.place(git_dir);
        let config = config::parse(&layout.config(), &text, self.server, placed.as_ref(), config::Trust::Foreign);
        // A file that cannot be used counts as changed, so that the run that serves the repository reports the error.
        config.map_or(true, |config| {
            config.mirror(name).is_none_or(|mirror| mirror.is_enabled && !status.is_at(&mirror.identity()))
        })
    }
}
