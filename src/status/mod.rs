//! The last outcome of each mirror, its past attempts, and what it held after our last contact.
//!
//! Guaranteed: `status.json` is replaced as a whole and synced before spool entries are finished; `history.jsonl` is bounded;
//! `mirrored/` holds only values that this repository itself had. A damaged `status.json` counts as one that says "never tried",
//! with a warning; damaged lines of `mirrored/` count as unknown, so that at worst a rewrite is reported as divergence.
//! Absent: decisions. A crash leaves the old file or the new one.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

mod copied;
mod earlier;
mod history;
mod mirrored;
mod outcome;
mod reasons;
mod runner;
mod sorted;
mod view;

pub use copied::original;
pub use history::{Attempt, Replaced, append, read_history};
pub use mirrored::{Held, Mirrored};
pub use outcome::{Outcome, RefOutcome};
pub use runner::Runner;
pub use view::{HostKey, View, view};

use crate::config::Mirror;
use crate::credentials::Cleaned;
use crate::durable;
use crate::layout::Layout;
use crate::push::Capabilities;
use crate::repo::Sharing;

/// `update_status`, in GitLab's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStatus {
    /// Never tried.
    #[default]
    None,
    /// Spooled, or waiting to retry.
    Scheduled,
    /// At work.
    Started,
    /// Every selected ref is up to date, or the rules kept it.
    Finished,
    /// Something is wrong that a person must fix.
    Failed,
}

impl UpdateStatus {
    /// The word of the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scheduled => "scheduled",
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// `status.json`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the form; 1.
    pub version: u32,
    /// How the mirror stands.
    pub update_status: UpdateStatus,
    /// The last error, cleaned; `None` after a success.
    pub last_error: Option<Cleaned>,
    /// The end of the last attempt. All times are UTC with milliseconds.
    pub last_update_at: Option<String>,
    /// The start of the last attempt.
    pub last_update_started_at: Option<String>,
    /// The end of the last attempt after which every selected ref was up to date, or kept by the rules.
    pub last_successful_update_at: Option<String>,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// When the next attempt is due, if one waits.
    pub next_attempt_at: Option<String>,
    /// The newest spool record that an attempt has tried and had to leave in the queue.
    #[serde(default)]
    pub tried_up_to: Option<String>,
    /// The start of the last attempt that compared everything.
    #[serde(default)]
    pub last_full_at: Option<String>,
    /// The process that is at work, while `update_status` is `started`.
    pub pid: Option<u32>,
    /// The same process, identified uniquely: a process id may be reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
    /// The number of the last run, which only grows: milliseconds since the Unix epoch, or one more than the run before.
    #[serde(default)]
    pub generation: u64,
    /// The refs that the run at work may change; `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_work: Option<Vec<String>>,
    /// The address with which first contact is over; see [`crate::wire::Address::identity`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The path of the repository that this mirror belongs to. A copy of the repository finds the path of the original here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The address of the last attempt. What the status says of refs, attempts and errors belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_address: Option<String>,
    /// Whether first contact waits for a person's confirmation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_adoption: bool,
    /// Refs that were lately forced, deleted or made again, to see whether they go back and forth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// The start of the first failed attempt since the last success.
    #[serde(default)]
    pub failing_since: Option<String>,
    /// When the `notify` command last reported a failure; `None` once it has reported the recovery.
    #[serde(default)]
    pub notified_at: Option<String>,
    /// All attempts that failed, ever.
    #[serde(default)]
    pub failures: Failures,
    /// The mirror's capabilities at the last contact, if that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<Greeting>,
    /// How much the mirror takes in one push, during an update that is too large for it.
    #[serde(default, skip_serializing_if = "Portion::is_whole")]
    pub portion: Portion,
    /// The refs that are not up to date, and those that the rules kept.
    pub refs: Vec<RefOutcome>,
}

/// What a mirror said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Which mirror: its URL as it is shown.
    pub url: String,
    /// What it could do.
    pub capabilities: Capabilities,
}

/// A ref of the mirror that was set to another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Its name; bytes that are no UTF-8 are replaced.
    #[serde(rename = "ref")]
    pub name: String,
    /// When.
    pub at: String,
    /// The value that it left; `None` when the mirror did not have it.
    pub from: Option<String>,
    /// The value that it got; `None` when it was deleted.
    pub to: Option<String>,
}

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Attempts that a later one may repeat with success.
    pub temporary: u64,
    /// Attempts after which a person has to do something.
    #[serde(rename = "lasting", alias = "permanent")]
    pub permanent: u64,
    /// Attempts that failed only because refs diverged, went back and forth, or were refused.
    pub refs: u64,
}

/// How much goes into one push, where a mirror has shown a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    /// Most refs.
    pub refs: Option<usize>,
    /// Most commits of a branch that is pushed alone, counted along its first parents.
    pub commits: Option<usize>,
}

impl Portion {
    fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// After a push that arrived: the next one may hold more refs again.
    pub fn grow(&mut self) {
        self.refs = self.refs.map(|refs| refs.saturating_mul(2));
    }
}

/// The version that this program writes.
const VERSION: u32 = 1;

/// Reads the status in a mirror's directory. A missing file means that the mirror was never tried. If the file says `started` but
/// no run is active, the status is `scheduled`.
///
/// # Errors
/// As [`read_as_is`].
pub fn read(directory: &Path) -> io::Result<Status> {
    let mut status = read_as_is(directory)?;
    if status.update_status == UpdateStatus::Started && !is_at_work(directory, &status) {
        status.update_status = UpdateStatus::Scheduled;
    }
    Ok(status)
}

/// The status of a configured mirror, as [`read`] and [`Status::at`] give it.
///
/// # Errors
/// As [`read_as_is`].
pub fn of(layout: &Layout, mirror: &Mirror) -> io::Result<Status> {
    Ok(read(&layout.remote(&mirror.name))?.at(&mirror.address.identity()))
}

/// Whether the run of a status that says `started` is still active: its lock is held. If we may not open the lock, we look for the process.
fn is_at_work(directory: &Path, status: &Status) -> bool {
    match durable::open_to_read(&directory.join("lock")) {
        // We hold the lock for a moment. `Lock::try_acquire` waits longer than that, so no drain gives up.
        Ok((lock, _)) => match fs2::FileExt::try_lock_shared(&lock) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => true,
            Err(_) => status.runner.as_ref().is_some_and(Runner::is_alive),
        },
        // Without the lock file, no run counts as active: nobody else could see its lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(_) => status.runner.as_ref().is_some_and(Runner::is_alive),
    }
}

/// The number of the run that wrote the status last; 0 when there is none.
///
/// # Errors
/// The operating system's.
pub fn generation(directory: &Path) -> io::Result<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        #[serde(default)]
        generation: u64,
    }
    match durable::read(&directory.join("status.json")) {
        Ok((text, _)) => Ok(serde_json::from_slice::<Numbered>(&text).map_or(0, |numbered| numbered.generation)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Reads the status in a mirror's directory as it was written. A missing file is a mirror that was never tried.
///
/// # Errors
/// The operating system's, and a file of a later version, which must not be replaced. A damaged file is no error: it is logged
/// as a warning.
pub fn read_as_is(directory: &Path) -> io::Result<Status> {
    let path = directory.join("status.json");
    // Most files are smaller than this. So the size need not be asked first, which matters with ten thousand files.
    let mut text = Vec::with_capacity(4096);
    match durable::open_to_read(&path).and_then(|(mut file, _)| file.read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Status::default()),
        read => read?,
    };
    match decoded(&text) {
        Ok(status) => Ok(status),
        Err(Unusable::Later(version)) => Err(later(&path, version)),
        Err(Unusable::Damaged(error)) => {
            tracing::debug!("'{}': {error}", path.display());
            tracing::warn!("'{}' is damaged; the next run writes it again and compares everything", path.display());
            Ok(Status::default())
        }
    }
}

/// Why a text is no status for this program.
enum Unusable {
    /// A later program wrote it; it must not be replaced.
    Later(u64),
    Damaged(serde_json::Error),
}

fn decoded(text: &[u8]) -> Result<Status, Unusable> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    match serde_json::from_slice::<Status>(text) {
        Ok(status) if status.version <= VERSION => Ok(status),
        read => match serde_json::from_slice::<Version>(text) {
            Ok(Version { version }) if version > u64::from(VERSION) => Err(Unusable::Later(version)),
            _ => read.map_err(Unusable::Damaged),
        },
    }
}

fn later(path: &Path, version: u64) -> io::Error {
    let text = format!(
        "'{}' is of version {version}, this program knows {VERSION}; install a later one, or remove the file",
        path.display()
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Whether the status in a mirror's directory can be used. A missing file is no error.
///
/// # Errors
/// What is wrong with it.
pub fn examine(directory: &Path) -> Result<(), String> {
    let path = directory.join("status.json");
    match durable::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("'{}' cannot be read: {error}", path.display())),
        Ok((text, _)) => match decoded(&text) {
            Ok(_) => Ok(()),
            Err(Unusable::Later(version)) => Err(later(&path, version).to_string()),
            Err(Unusable::Damaged(_)) => Err(format!("'{}' is damaged", path.display())),
        },
    }
}

/// Replaces the status in a mirror's directory, durably.
///
/// # Errors
/// The operating system's. The old file is then still there, unless only the sync of the directory failed.
pub fn write(directory: &Path, status: &Status, sharing: Sharing) -> io::Result<()> {
    durable::replace(&directory.join("status.json"), &encoded(status)?, |file| sharing.publish(file))
}

/// Replaces the status as [`write()`] does, but does not sync it: a power failure may bring the old one back.
///
/// # Errors
/// The operating system's; the old file is then still there.
pub fn write_passing(directory: &Path, status: &Status, sharing: Sharing) -> io::Result<()> {
    durable::replace_unsynced(&directory.join("status.json"), &encoded(status)?, |file| sharing.publish(file))
}

fn encoded(status: &Status) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Status { version: VERSION, ..status.clone() })?;
    text.push(b'\n');
    Ok(text)
}

impl Status {
    /// Whether the mirror was never tried, so that its first sync is still to come.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.last_update_started_at.is_none()
    }

    /// The status of the mirror at `address`: what is known of another address is left out. The result keeps the counters, the number of
    /// the run, the repository, the address with which first contact is over, and `notified_at`, so that a recovery is still notified. A
    /// status that says `started` is returned as it is.
    #[must_use]
    pub fn at(self, address: &str) -> Self {
        if self.is_at(address) || self.update_status == UpdateStatus::Started {
            return self;
        }
        Self {
            version: self.version,
            generation: self.generation,
            address: self.address,
            repository: self.repository,
            notified_at: self.notified_at,
            failures: self.failures,
            ..Self::default()
        }
    }

    /// Whether this status is about the mirror at `address`. A status without an address counts as such.
    #[must_use]
    pub fn is_at(&self, address: &str) -> bool {
        self.tried_address.as_ref().or(self.address.as_ref()).is_none_or(|tried| tried == address)
    }

    /// When the next attempt is due, if one waits.
    #[must_use]
    pub fn next_attempt(&self) -> Option<jiff::Timestamp> {
        self.next_attempt_at.as_deref()?.parse().ok()
    }
}

/// A time as JSON has it.
#[must_use]
pub fn render_time(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}
