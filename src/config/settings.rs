//! The settings of a mirror, merged: the repository's own file first, then the server's template, then `[defaults]`, then the built-in
//! defaults. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::{AuthMethod, DEFAULT_MAX_REFS, DEFAULT_TIMEOUTS, DEFAULT_WAITS, Mirror, TagsSetting, Waits};
use crate::plan::{Divergent, Prune};
use crate::push::{Address, Timeouts};

/// Declares the settings and how those of two files are merged, so that no key can be forgotten in one of them.
macro_rules! settings {
    ($($key:ident: $kind:ty),* $(,)?) => {
        /// The keys of a mirror, checked one by one; `None` is a key that is not said.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Settings {
            $(pub(super) $key: Option<$kind>,)*
        }

        impl Settings {
            /// What is said here, and below it what is said there.
            pub(super) fn over(self, below: &Self) -> Self {
                Self { $($key: self.$key.or_else(|| below.$key.clone()),)* }
            }
        }
    };
}

settings! {
    id: u32,
    url: String,
    enabled: bool,
    confined: bool,
    only_protected_branches: bool,
    mirror_branch_regex: String,
    divergent_refs: Divergent,
    tags: TagsSetting,
    prune: Prune,
    auth_method: AuthMethod,
    username: String,
    password_file: PathBuf,
    password_command: Vec<String>,
    refspecs: Vec<String>,
    ssh_options: Vec<String>,
    proxy: String,
    ca_file: PathBuf,
    allow_insecure_http: bool,
    connect_timeout: Duration,
    stall_timeout: Duration,
    timeout: Duration,
    retry_delay: Duration,
    max_retry_delay: Duration,
    min_interval: Duration,
    settle: Duration,
    max_refs_per_push: usize,
    max_deletes: usize,
    push_options: Vec<String>,
    atomic: bool,
    optimistic: bool,
    set_head: bool,
}

impl Settings {
    /// The mirror that these settings make, or what is wrong with them together.
    pub(super) fn into_mirror(self, name: &str, id: u32) -> Result<Mirror, String> {
        let url = self.url.ok_or_else(|| format!("remote '{name}' has no url"))?;
        let (address, in_url) = crate::push::parse(&url).map_err(|refused| refused.to_string())?;
        let only_protected_branches = self.only_protected_branches.unwrap_or(false);
        let mirror_branch_regex = self.mirror_branch_regex.filter(|regex| !regex.is_empty());
        if only_protected_branches && mirror_branch_regex.is_some() {
            return Err(format!("remote '{name}': {EXCLUDE_EACH_OTHER}"));
        }
        let username = self.username.or(in_url.username);
        let has_password = self.password_file.is_some() || self.password_command.is_some();
        let auth_method = self.auth_method.unwrap_or(match &address {
            Address::Http { .. } if username.is_some() || has_password => AuthMethod::Password,
            Address::Ssh { .. } if has_password => AuthMethod::Password,
            _ => AuthMethod::None,
        });
        Ok(Mirror {
            id,
            name: name.to_owned(),
            address,
            username,
            is_enabled: self.enabled.unwrap_or(true),
            is_confined: self.confined.unwrap_or(false),
            only_protected_branches,
            mirror_branch_regex,
            divergent: self.divergent_refs.unwrap_or(Divergent::Overwrite),
            tags: self.tags.unwrap_or(TagsSetting::All),
            prune: self.prune.unwrap_or(Prune::Merged),
            auth_method,
            password_file: self.password_file,
            password_command: self.password_command,
            refspecs: self.refspecs.unwrap_or_default(),
            ssh_options: self.ssh_options.unwrap_or_default(),
            proxy: self.proxy,
            ca_file: self.ca_file,
            allow_insecure_http: self.allow_insecure_http.unwrap_or(false),
            timeouts: Timeouts {
                connect: self.connect_timeout.unwrap_or(DEFAULT_TIMEOUTS.connect),
                stall: self.stall_timeout.unwrap_or(DEFAULT_TIMEOUTS.stall),
                whole: self.timeout.unwrap_or(DEFAULT_TIMEOUTS.whole),
            },
            waits: Waits {
                retry: self.retry_delay.unwrap_or(DEFAULT_WAITS.retry),
                max_retry: self.max_retry_delay.unwrap_or(DEFAULT_WAITS.max_retry),
                min_interval: self.min_interval.unwrap_or(DEFAULT_WAITS.min_interval),
                settle: self.settle.unwrap_or(DEFAULT_WAITS.settle),
            },
            max_refs_per_push: self.max_refs_per_push.unwrap_or(DEFAULT_MAX_REFS).max(1),
            max_deletes: self.max_deletes,
            push_options: self.push_options.unwrap_or_default(),
            is_atomic: self.atomic.unwrap_or(false),
            is_optimistic: self.optimistic.unwrap_or(true),
            sets_head: self.set_head.unwrap_or(false),
        })
    }
}

/// What is said of two keys that cannot be together.
pub(super) const EXCLUDE_EACH_OTHER: &str =
    "mirror_branch_regex and only_protected_branches = true exclude each other; choose one";
