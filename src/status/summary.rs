//! A mirror in short, for counts and lists over many repositories: a few hundred bytes, without its refs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{CHECKED, Failures, Status, UpdateStatus, last_check, waiting};
use crate::config::{Config, Mirror};
use crate::durable;
use crate::layout::Layout;
use crate::spool;

/// Maximum number of characters of an error.
const MAX_ERROR: usize = 200;

/// How a mirror stands. The order is that of lists: the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Something is wrong that a person must fix.
    Failing,
    /// Its repository cannot be read.
    Unreadable,
    /// An attempt failed, and the next one is due later.
    Retrying,
    /// Something waits for it.
    Waiting,
    /// It is being served.
    Running,
    /// Every selected ref is up to date, or the rules kept it.
    UpToDate,
    /// It was never tried.
    NeverTried,
    /// It is switched off.
    Disabled,
}

impl Standing {
    /// All, the worst first.
    pub const ALL: [Self; 8] = [
        Self::Failing,
        Self::Unreadable,
        Self::Retrying,
        Self::Waiting,
        Self::Running,
        Self::UpToDate,
        Self::NeverTried,
        Self::Disabled,
    ];

    /// The standing of a mirror with this status and this many failed attempts.
    #[must_use]
    pub fn of(is_enabled: bool, status: UpdateStatus, attempts: u32) -> Self {
        match status {
            _ if !is_enabled => Self::Disabled,
            UpdateStatus::Failed => Self::Failing,
            UpdateStatus::Scheduled if attempts > 0 => Self::Retrying,
            UpdateStatus::Scheduled => Self::Waiting,
            UpdateStatus::Started => Self::Running,
            UpdateStatus::Finished => Self::UpToDate,
            UpdateStatus::None => Self::NeverTried,
        }
    }

    /// The word in URLs of the page and in labels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Unreadable => "unreadable",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::UpToDate => "up_to_date",
            Self::NeverTried => "never_tried",
            Self::Disabled => "disabled",
        }
    }
}

/// A digest of the times of change (stat(2), ctime) of the files that are read for the summaries of
/// a repository's mirrors, and to see whether anything is due there. These times also change when a file is renamed, and unlike the mtime
/// they cannot be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    digest: u64,
    /// The latest time, in milliseconds since the Unix epoch.
    latest: i64,
}

/// A stamp of what all mirrors of a repository share.
#[derive(Debug)]
pub struct HalfStamp {
    hasher: DefaultHasher,
    /// The latest time, in milliseconds since the Unix epoch.
    latest: i64,
}

/// In milliseconds. The clock of a file system advances in steps of at most this length. So a file
/// that has just changed may change again within a step, and its time stays the same.
const TICK: i64 = 100;

/// In milliseconds. Some file systems have times of whole seconds, and a file server may have another clock.
const COARSE_TICK: i64 = 3000;

impl Stamp {
    /// Whether no file had changed for so long that each later change gives another stamp, even if the file system has only whole seconds.
    #[must_use]
    pub fn is_settled(&self, now: Timestamp) -> bool {
        self.latest < now.as_millisecond() - COARSE_TICK
    }

    /// Begins with what all mirrors share. `generation` is the number of the configuration.
    #[must_use]
    pub fn begin(layout: &Layout, generation: u64) -> HalfStamp {
        let mut hasher = DefaultHasher::new();
        generation.hash(&mut hasher);
        let remotes = layout.root().join("remotes");
        let spool = [layout.incoming(), layout.tmp(), layout.corrupt(), layout.resync()];
        HalfStamp { hasher, latest: 0 }.with(&[layout.config(), remotes]).with(&spool)
    }
}

impl HalfStamp {
    /// Adds the mirrors of these names. `None` if one of the files has just changed.
    #[must_use]
    pub fn and<'n>(mut self, layout: &Layout, names: impl Iterator<Item = &'n str>, now: Timestamp) -> Option<Stamp> {
        for name in names {
            let directory = layout.remote(name);
            self = self.with(&[directory.join("status.json"), directory.join(CHECKED), layout.queue(name), directory]);
        }
        let is_past = self.latest < now.as_millisecond() - TICK;
        is_past.then(|| Stamp { digest: self.hasher.finish(), latest: self.latest })
    }

    fn with(mut self, paths: &[PathBuf]) -> Self {
        for changed in paths.iter().map(|path| durable::changed(path)) {
            changed.hash(&mut self.hasher);
            let (seconds, nanoseconds) = changed.unwrap_or_default();
            self.latest = self.latest.max(seconds.saturating_mul(1000) + nanoseconds / 1_000_000);
        }
        self
    }
}

/// A mirror in short.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its number in the repository.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The host of its address with the port, as in causes; `-` for this machine.
    pub host: String,
    /// How it stands. Something may wait for a mirror whose last run was good.
    pub standing: Standing,
    /// Its status after the last run.
    pub update_status: UpdateStatus,
    /// The cause if the mirror is failing or retrying: `v1:HOST:KIND:CODE`.
    pub cause: Option<String>,
    /// The last error, cut to 200 characters, if the mirror is failing or retrying.
    pub error: Option<String>,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
    /// The beginning of the last attempt.
    pub started: Option<Timestamp>,
    /// The end of the last attempt.
    pub tried: Option<Timestamp>,
    /// The end of the last success.
    pub succeeded: Option<Timestamp>,
    /// When the upstream of a pull mirror was last checked.
    pub checked: Option<Timestamp>,
    /// When something was last taken from that upstream.
    pub changed: Option<Timestamp>,
    /// The pushes that are not mirrored yet, if it is enabled.
    pub backlog: spool::Backlog,
    /// Records of the repository that could not be read.
    pub corrupt: usize,
    /// Its failed attempts, ever.
    pub failures: Failures,
}

impl Summary {
    /// Every mirror of a repository in short.
    ///
    /// # Errors
    /// The operating system's, when its files cannot be read.
    pub fn all(layout: &Layout, config: &Config, now: Timestamp) -> io::Result<Vec<Self>> {
        let corrupt = spool::corrupt(layout)?;
        config.mirrors.iter().map(|mirror| Self::of(layout, mirror, corrupt, now)).collect()
    }

    fn of(layout: &Layout, mirror: &Mirror, corrupt: usize, now: Timestamp) -> io::Result<Self> {
        let status = super::of(layout, mirror)?;
        let checked = status.pull.as_ref().and_then(|_| last_check(&layout.remote(&mirror.name), &status, now));
        let (mut backlog, mut stands) = (spool::Backlog::default(), status.update_status);
        if mirror.is_enabled && waiting(layout, mirror)?.any {
            backlog = spool::backlog(layout, &mirror.name)?;
            if matches!(stands, UpdateStatus::Finished | UpdateStatus::None) {
                stands = UpdateStatus::Scheduled;
            }
        }
        let standing = Standing::of(mirror.is_enabled, stands, status.attempts);
        let is_bad = matches!(standing, Standing::Failing | Standing::Retrying);
        let Status { last_error, cause, failures, .. } = status;
        let time = |text: Option<&str>| text?.parse().ok();
        Ok(Self {
            id: mirror.id,
            name: mirror.name.clone(),
            host: mirror.address.endpoint().unwrap_or_else(|| "-".into()),
            standing,
            update_status: status.update_status,
            cause: cause.filter(|_| is_bad),
            error: last_error.filter(|_| is_bad).map(|error| error.chars().take(MAX_ERROR).collect()),
            failing_since: time(status.failing_since.as_deref()),
            started: time(status.last_update_started_at.as_deref()),
            tried: time(status.last_update_at.as_deref()),
            succeeded: time(status.last_successful_update_at.as_deref()),
            checked,
            changed: time(status.pull.as_ref().and_then(|pull| pull.last_change_at.as_deref())),
            backlog,
            corrupt,
            failures,
        })
    }

    /// The age of the oldest push that is not mirrored yet, in seconds.
    #[must_use]
    pub fn oldest_pending(&self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        self.backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.as_secs()))
    }

    /// Whether every selected ref is up to date or kept by the rules, and no push waits.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.update_status == UpdateStatus::Finished && self.backlog.pushes == 0
    }

    /// Whether an enabled mirror is not up to date, has pushes that wait, or has records that could
    /// not be read.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        (!self.is_right() || self.corrupt > 0) && self.standing != Standing::Disabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test may write files")]
    fn a_stamp_is_settled_after_the_longest_step_of_a_clock() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        std::fs::create_dir_all(layout.root()).expect("its directory");
        std::fs::write(layout.config(), "").expect("a file");
        let (seconds, nanoseconds) = durable::changed(&layout.config()).expect("a time");
        let after = |milliseconds: i64| {
            let now = seconds * 1000 + nanoseconds / 1_000_000 + milliseconds;
            Timestamp::from_millisecond(now).expect("a time")
        };
        let stamp = |milliseconds| Stamp::begin(&layout, 0).and(&layout, std::iter::empty(), after(milliseconds));
        assert_eq!(stamp(TICK), None, "the file may change again with the same time");
        let stamp = stamp(TICK + 1).expect("a stamp");
        // With whole seconds it still may.
        assert!(!stamp.is_settled(after(COARSE_TICK)) && stamp.is_settled(after(COARSE_TICK + 1)));
    }
}
