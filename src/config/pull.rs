//! The direction of a mirror, the settings for taking refs (`direction = "pull"` or `"both"`), and
//! the settings for keeping values that are replaced. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::Address;

/// `direction`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The mirror gets our refs.
    #[default]
    Push,
    /// We take the refs of the mirror, which is our upstream.
    Pull,
    /// Whichever side changed a ref, the other side gets it.
    Both,
}

impl Direction {
    /// The words of files and JSON.
    pub const WORDS: [&str; 3] = ["push", "pull", "both"];

    /// The word in files and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Both => "both",
        }
    }

    /// Identifies a mirror with this address and direction (see [`Address::identity`]).
    pub(crate) fn identity(self, address: &Address) -> String {
        match self {
            Self::Push => address.identity(),
            Self::Pull | Self::Both => format!("{} {}", self.as_str(), address.identity()),
        }
    }
}

/// `interval`: when upstream is checked although nobody asked for a check.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// After half the time since upstream last changed, within `min_check_interval` and
    /// `max_check_interval`.
    #[default]
    Auto,
    /// Never.
    None,
    /// After this time.
    Every(Duration),
}

/// `keep_rewritten`: how long replaced values stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are not kept.
    Nothing,
    /// For this time.
    For(Duration),
    /// For ever.
    Forever,
}

impl Default for Keep {
    fn default() -> Self {
        Self::For(Duration::from_secs(90 * 24 * 3600))
    }
}

/// `hooks`: which hooks run for taken refs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Hooks {
    /// All that receive-pack runs.
    #[default]
    All,
    /// Those that may refuse: pre-receive, update and reference-transaction.
    Policy,
    /// None.
    None,
}

/// The settings for taking refs. `keep_rewritten` and `max_rewritten_size` count for a push
/// mirror too.
#[derive(Clone, Debug)]
pub struct Pull {
    /// `interval`
    pub interval: Interval,
    /// `min_check_interval`
    pub min_check_interval: Duration,
    /// `max_check_interval`
    pub max_check_interval: Duration,
    /// `keep_rewritten`
    pub keep_rewritten: Keep,
    /// `follow_head`
    pub follows_head: bool,
    /// `hooks`
    pub hooks: Hooks,
    /// `hook_environment`
    pub hook_environment: BTreeMap<String, String>,
    /// `max_rewritten_size`, in bytes.
    pub max_rewritten_size: u64,
    /// `max_input_size`, in bytes. `None` leaves it to git's `receive.maxInputSize`.
    pub max_input_size: Option<u64>,
}

impl Pull {
    /// The default of `max_rewritten_size`.
    pub const MAX_REWRITTEN_SIZE: u64 = 1 << 30;
    /// The default of `min_check_interval`.
    pub const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(60);
    /// The default of `max_check_interval`.
    pub const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(30 * 60);
}
