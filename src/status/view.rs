//! One mirror as `status --json` and the REST API show it: configuration and status in one object.

use std::io;

use jiff::Timestamp;
use serde::Serialize;

use super::{RefOutcome, UpdateStatus, last_check, next_check, render_time};
use crate::config::{Mirror, TagsSetting};
use crate::credentials::{Cleaned, Credentials, read_host_keys};
use crate::layout::Layout;
use crate::plan::Divergent;
use crate::spool;
use crate::wire::Address;

/// The object, with the names of its fields in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Unique within the repository; see [`Mirror::id`].
    pub id: u32,
    /// The mirror's name.
    pub name: String,
    /// The repository's path.
    pub repository: String,
    /// `push`, `pull` or `both`.
    pub direction: &'static str,
    /// Whether the mirror is updated.
    pub enabled: bool,
    /// Its URL with credentials masked.
    pub url: String,
    /// `password`, `ssh_public_key` or `none`.
    pub auth_method: &'static str,
    /// Fingerprints of its pinned host keys.
    pub host_keys: Vec<HostKey>,
    /// As configured.
    pub only_protected_branches: bool,
    /// As configured.
    pub mirror_branch_regex: Option<String>,
    /// Whether `divergent_refs` is `keep`.
    pub keep_divergent_refs: bool,
    /// `overwrite`, `keep` or `fail`.
    pub divergent_refs: &'static str,
    /// `all`, `none` or a list of patterns.
    pub tags: serde_json::Value,
    /// `merged`, `deleted`, `mirror` or `never`.
    pub prune: &'static str,
    /// The status of the mirror, in GitLab's words.
    pub update_status: UpdateStatus,
    /// The last error.
    pub last_error: Option<Cleaned>,
    /// The end of the last attempt.
    pub last_update_at: Option<String>,
    /// The beginning of the last attempt.
    pub last_update_started_at: Option<String>,
    /// The end of the last success.
    pub last_successful_update_at: Option<String>,
    /// The number of pushes and full syncs that wait; 0 for a disabled mirror.
    pub pending: usize,
    /// Failed attempts since the last success.
    pub attempts: u32,
    /// When the next attempt is due; of a pull mirror or a two-way mirror, the next check.
    pub next_attempt_at: Option<String>,
    /// Of a pull mirror or a two-way mirror: when it was last checked.
    pub last_check_at: Option<String>,
    /// Of a pull mirror or a two-way mirror: when something was last taken.
    pub last_change_at: Option<String>,
    /// What is wrong: `v1:HOST:KIND:CODE`; left out if nothing is. Mirrors with the same cause have
    /// the same problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The start of the first failed attempt since the last success; left out if the last one succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Whether we made its repository; left out if not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub created_repository: bool,
    /// The refs that are not up to date, and those that the rules kept.
    pub refs: Vec<RefOutcome>,
    /// The URL as the API shows it; see [`Address::masked`].
    #[serde(skip)]
    pub masked_url: String,
    /// Whether first contact waits for a person's confirmation.
    #[serde(skip)]
    pub needs_adoption: bool,
}

/// A pinned host key.
#[derive(Clone, Debug, Serialize)]
pub struct HostKey {
    /// `SHA256:` and the digest in base64, as ssh-keygen(1) prints it.
    pub fingerprint_sha256: String,
}

/// What waits for a mirror.
///
/// # Errors
/// The operating system's.
pub fn waiting(layout: &Layout, mirror: &Mirror) -> io::Result<spool::Waiting> {
    match mirror.sends() {
        true => spool::waiting(layout, &mirror.name),
        false => spool::queued(layout, &mirror.name),
    }
}

impl View {
    /// Shows the URL of `mirror` with these credentials masked.
    pub fn mask(&mut self, mirror: &Mirror, credentials: &Credentials) {
        self.url = mirror.address.shown(credentials);
        self.masked_url = mirror.address.masked(credentials);
    }
}

/// Shows `mirror` of the repository with these files as it is at `now`.
///
/// # Errors
/// The operating system's, when the status, the queue or the pinned host keys cannot be read.
pub fn view(layout: &Layout, mirror: &Mirror, credentials: &Credentials, now: Timestamp) -> io::Result<View> {
    let directory = layout.remote(&mirror.name);
    let status = super::of(layout, mirror)?;
    let last_check_at = if mirror.takes() { last_check(&directory, &status, now).map(render_time) } else { None };
    let last_change_at = status.pull.as_ref().and_then(|pull| pull.last_change_at.clone());
    let next_attempt_at = match &status.pull {
        Some(_) if mirror.is_enabled => next_check(&directory, &status, now, None).map(render_time),
        _ => status.next_attempt_at,
    };
    let waiting = if mirror.is_enabled { waiting(layout, mirror)? } else { spool::Waiting::default() };
    let host_keys = match mirror.address {
        Address::Ssh { .. } => read_host_keys(&layout.remote(&mirror.name))?,
        _ => Vec::new(),
    };
    let is_waiting = waiting.any && matches!(status.update_status, UpdateStatus::Finished | UpdateStatus::None);
    Ok(View {
        id: mirror.id,
        name: mirror.name.clone(),
        repository: layout.git_dir().display().to_string(),
        direction: mirror.direction.as_str(),
        enabled: mirror.is_enabled,
        url: mirror.address.shown(credentials),
        masked_url: mirror.address.masked(credentials),
        auth_method: mirror.auth_method.as_str(),
        host_keys: host_keys.into_iter().map(|key| HostKey { fingerprint_sha256: key.sha256 }).collect(),
        only_protected_branches: mirror.only_protected_branches,
        mirror_branch_regex: mirror.mirror_branch_regex.as_ref().map(|regex| regex.as_str().to_owned()),
        keep_divergent_refs: mirror.divergent == Divergent::Keep,
        divergent_refs: mirror.divergent.as_str(),
        tags: match &mirror.tags {
            TagsSetting::All => "all".into(),
            TagsSetting::None => "none".into(),
            TagsSetting::Matching(patterns) => patterns.clone().into(),
        },
        prune: mirror.prune.as_str(),
        update_status: if is_waiting { UpdateStatus::Scheduled } else { status.update_status },
        last_error: status.last_error,
        last_update_at: status.last_update_at,
        last_update_started_at: status.last_update_started_at,
        last_successful_update_at: status.last_successful_update_at,
        pending: waiting.pushes,
        attempts: status.attempts,
        next_attempt_at,
        last_check_at,
        last_change_at,
        cause: status.cause,
        failing_since: status.failing_since,
        created_repository: status.created_repository,
        refs: status.refs,
        needs_adoption: status.needs_adoption,
    })
}
