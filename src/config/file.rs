//! The files as written: serde types and nothing else. The repository's and the server's file have the same keys, all optional here;
//! `check` knows which are required and which do not belong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::explain::explain;
use super::{Error, line_of};

/// `R/mirror-push/config.toml`, `/etc/git-mirror-push/config.toml` or a file of `conf.d`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Option<Spanned<u32>>,
    pub(super) protected_branches: Option<Vec<String>>,
    pub(super) silent: Option<bool>,
    pub(super) wake: Option<Wake>,
    pub(super) notify: Option<Spanned<Vec<String>>>,
    pub(super) notify_after: Option<Period>,
    pub(super) notify_interval: Option<Period>,
    pub(super) metrics_file: Option<Spanned<String>>,
    pub(super) max_jobs: Option<Spanned<usize>>,
    pub(super) max_jobs_per_host: Option<Spanned<usize>>,
    pub(super) max_jobs_per_repository: Option<Spanned<usize>>,
    pub(super) scan_interval: Option<Spanned<Period>>,
    pub(super) reconcile_interval: Option<Spanned<Period>>,
    pub(super) shutdown_timeout: Option<Spanned<Period>>,
    pub(super) api: Option<Spanned<Api>>,
    #[serde(default)]
    pub(super) repositories: Vec<Repositories>,
    pub(super) defaults: Option<Remote>,
    #[serde(default)]
    pub(super) remotes: BTreeMap<Spanned<String>, Remote>,
}

impl File {
    /// Forgets the commands that it names.
    pub(super) fn take_commands(&mut self) {
        self.notify = None;
        self.remotes.values_mut().chain(&mut self.defaults).for_each(|remote| remote.password_command = None);
    }
}

/// `[[repositories]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repositories {
    pub(super) root: Spanned<String>,
    pub(super) include: Option<Vec<String>>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) owners: Vec<String>,
}

/// `[api]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Api {
    pub(super) allow_local_network: Option<bool>,
    pub(super) allowed_hosts: Option<Vec<Spanned<String>>>,
}

/// `[remotes.NAME]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remote {
    pub(super) id: Option<u32>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) enabled: Option<bool>,
    pub(super) confined: Option<bool>,
    pub(super) only_protected_branches: Option<bool>,
    pub(super) mirror_branch_regex: Option<Spanned<String>>,
    pub(super) divergent_refs: Option<DivergentSetting>,
    pub(super) tags: Option<TagsSetting>,
    pub(super) prune: Option<PruneSetting>,
    pub(super) auth_method: Option<AuthMethod>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) password_command: Option<Spanned<Vec<String>>>,
    pub(super) refspecs: Option<Vec<Spanned<String>>>,
    pub(super) ssh_options: Option<Vec<Spanned<String>>>,
    pub(super) proxy: Option<Spanned<String>>,
    pub(super) ca_file: Option<String>,
    pub(super) allow_insecure_http: Option<bool>,
    pub(super) connect_timeout: Option<Period>,
    pub(super) stall_timeout: Option<Period>,
    pub(super) timeout: Option<Period>,
    pub(super) retry_delay: Option<Period>,
    pub(super) max_retry_delay: Option<Period>,
    pub(super) min_interval: Option<Period>,
    pub(super) settle: Option<Period>,
    pub(super) max_refs_per_push: Option<usize>,
    pub(super) max_deletes: Option<usize>,
    pub(super) push_options: Option<Vec<Spanned<String>>>,
    pub(super) atomic: Option<bool>,
    pub(super) optimistic: Option<bool>,
    pub(super) set_head: Option<bool>,
}

/// `wake`: who drains after a push.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Wake {
    /// The daemon if one listens, else a detached drain.
    #[default]
    Auto,
    /// cron, a timer or you.
    None,
}

/// `auth_method`, in GitLab's words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// User name and password or token.
    Password,
    /// A key of the mirror's own.
    SshPublicKey,
    /// Nothing of ours: ssh's own keys, or an open server.
    None,
}

impl AuthMethod {
    /// The word in files and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::SshPublicKey => "ssh_public_key",
            Self::None => "none",
        }
    }
}

/// `divergent_refs`
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DivergentSetting {
    Overwrite,
    Keep,
    Fail,
}

/// `prune`
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PruneSetting {
    Merged,
    Deleted,
    Mirror,
    Never,
}

/// `tags`: `"all"`, `"none"`, or patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagsSetting {
    /// Every tag.
    All,
    /// No tag.
    None,
    /// Those that one of the patterns matches.
    Matching(Vec<String>),
}

impl<'de> Deserialize<'de> for TagsSetting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "tags is \"all\", \"none\" or a list of patterns like [\"v*\"]")]
        enum Written {
            Word(String),
            Patterns(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) if word == "none" => Ok(Self::None),
            Written::Word(_) => {
                Err(serde::de::Error::custom("tags is \"all\", \"none\" or a list of patterns like [\"v*\"]"))
            }
            Written::Patterns(patterns) => Ok(Self::Matching(patterns)),
        }
    }
}

/// A length of time as text: `"10s"`, `"5m"`, `"3h"`, `"2d"`.
#[derive(Clone, Copy)]
pub(super) struct Period(pub(super) Duration);

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_period(&String::deserialize(deserializer)?).map(Period).map_err(serde::de::Error::custom)
    }
}

/// Reads a length of time: a number with `s`, `m`, `h` or `d`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_period(text: &str) -> Result<Duration, String> {
    let seconds = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<u64>().ok());
    let period = number.and_then(|number| number.checked_mul(seconds)).filter(|seconds| *seconds > 0);
    period
        .map(Duration::from_secs)
        .ok_or_else(|| format!("'{text}' is not a duration; write \"10s\", \"5m\", \"3h\" or \"2d\""))
}

/// Reads a file.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| meaning(path, text, &error))
}

fn meaning(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let what = explain(error.message(), text, line);
    Error::Meaning { path: path.to_owned(), line, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_text_with_a_unit() {
        assert_eq!(parse_period("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_period("3h"), Ok(Duration::from_secs(10800)));
        for bad in ["", "s", "10", "1.5h", "-1s", "0s", "5 m", "99999999999999999999s", "18446744073709551615d", "é"] {
            assert!(parse_period(bad).is_err(), "{bad}");
        }
    }
}
