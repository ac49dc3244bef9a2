//! `status.json` as a structure.

use serde::{Deserialize, Serialize};

use super::{RefOutcome, Runner, UpdateStatus};
use crate::config::Interval;
use crate::credentials::Cleaned;
use crate::push::Capabilities;

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
    /// The newest spool record that an attempt tried without success. It is still in the queue.
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
    /// A digest of the settings of the last attempt. After a permanent failure, a changed file with the same settings is no reason to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_settings: Option<String>,
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
    /// How much the mirror takes in one push. Set during an update that is too large for one push.
    #[serde(default, skip_serializing_if = "Portion::is_whole")]
    pub portion: Portion,
    /// Of a pull mirror or a two-way mirror: what its last pull knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullState>,
    /// What is wrong, in a form that can be compared: `v1:HOST:KIND:CODE`. `None` if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Whether we made the mirror's repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub created_repository: bool,
    /// The refs that are not up to date, and those that the rules kept.
    pub refs: Vec<RefOutcome>,
}

/// What the last run of a pull mirror knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullState {
    /// When a run last took something.
    pub last_change_at: Option<String>,
    /// The branch that upstream's HEAD named.
    pub head: Option<String>,
    /// The object format with which upstream speaks protocol version 2. `None` if it speaks an older version.
    pub speaks_two: Option<String>,
    /// A digest of both sides and of the rules after a run that left nothing to do: as long as it is the same, there is nothing new.
    pub seen: Option<String>,
    /// Whether the last run itself ended with an error, so that the back-off decides when the next one begins.
    #[serde(default)]
    pub has_failed: bool,
    /// `interval`, `min_check_interval` and `max_check_interval` as they were then.
    #[serde(default)]
    pub interval: Interval,
    /// See `interval`. In seconds.
    #[serde(default)]
    pub min_check_interval: u64,
    /// See `interval`. In seconds.
    #[serde(default)]
    pub max_check_interval: u64,
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
    /// Its name; bytes that are not UTF-8 are replaced.
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
    /// Maximum number of refs.
    pub refs: Option<usize>,
    /// Maximum number of commits of a branch that is pushed alone, counted along its first parents.
    pub commits: Option<usize>,
}

impl Portion {
    fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// Lets the next push hold more refs again, after a push that arrived.
    pub fn grow(&mut self) {
        self.refs = self.refs.map(|refs| refs.saturating_mul(2));
    }
}

impl Status {
    /// Whether the mirror was never tried, so that its first sync is still to come.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.last_update_started_at.is_none()
    }

    /// The status of the mirror at `address`. If this status is about another address, the result
    /// keeps only `version`, `failures`, `generation`, `repository`, `address` and `notified_at`.
    /// It keeps `notified_at` so that a recovery is still reported. A status that says `started` is
    /// returned as it is.
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

    /// Whether this status is about the mirror at `address`. A status without an address is about
    /// every one.
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
