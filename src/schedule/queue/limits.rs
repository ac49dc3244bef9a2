//! How much happens at once: in all, at a host, for a repository, and at the hosts that `[hosts]` of the server's file names. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

/// How much happens at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::schedule) struct JobLimits {
    pub(in crate::schedule) all: usize,
    pub(in crate::schedule) per_host: usize,
    /// At a host that is far away, where a run spends most of its time waiting.
    pub(in crate::schedule) per_far_host: usize,
    pub(in crate::schedule) per_repository: usize,
    /// Repositories that are scanned at once.
    pub(in crate::schedule) scans: usize,
}

impl JobLimits {
    /// How many runs that only wait may go on without a place.
    pub(in crate::schedule) fn slow(self) -> usize {
        2 * self.all
    }

    /// How many places anyone may take. The rest is for repositories of which no job runs.
    pub(super) fn unreserved(self) -> usize {
        (self.all - self.all / 4).max(1)
    }
}

/// The limits of one host of `[hosts]`; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::schedule) struct HostLimit {
    /// Most runs at once. Runs that only wait count too.
    pub(in crate::schedule) jobs: Option<usize>,
    /// Most runs that begin in a minute.
    pub(in crate::schedule) per_minute: Option<usize>,
}

pub(super) const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// The hosts of `[hosts]`, and what began there lately.
#[derive(Default)]
pub(super) struct NamedHosts {
    limits: BTreeMap<String, HostLimit>,
    begun: HashMap<String, VecDeque<Timestamp>>,
}

impl NamedHosts {
    /// Changes the limits. What began counts on.
    pub(super) fn set(&mut self, limits: BTreeMap<String, HostLimit>) {
        let bare = |name: String| match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(address) => address.to_owned(),
            None => name,
        };
        self.limits = limits.into_iter().map(|(name, limit)| (bare(name), limit)).collect();
    }

    /// The name in `[hosts]` that holds for an endpoint: the endpoint itself, or its host without the port.
    fn name(&self, endpoint: &str) -> Option<&str> {
        if self.limits.is_empty() {
            return None;
        }
        let endpoint = endpoint.rsplit_once('@').map_or(endpoint, |(_, endpoint)| endpoint);
        let host = endpoint.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let host = host.map_or(endpoint, |(host, _)| host).trim_matches(['[', ']']);
        let find = |name: &str| self.limits.get_key_value(&name.to_ascii_lowercase());
        let found = find(endpoint).or_else(|| find(host));
        found.map(|(name, _)| &**name)
    }

    /// Most runs at once at an endpoint, if `[hosts]` says it.
    pub(super) fn jobs(&self, endpoint: &str) -> Option<usize> {
        self.limits[self.name(endpoint)?].jobs
    }

    /// When a run may begin at an endpoint; `None` means now.
    pub(super) fn free_at(&self, endpoint: &str, now: Timestamp) -> Option<Timestamp> {
        let name = self.name(endpoint)?;
        let most = self.limits[name].per_minute?;
        let begun = self.begun.get(name)?;
        let nth_last = begun.len().checked_sub(most).map(|at| begun[at])?;
        Some(nth_last + MINUTE).filter(|free| *free > now)
    }

    /// Whether no run may begin at an endpoint now. `running` is how many run at each endpoint; those of one host count together.
    pub(super) fn is_full<'e>(
        &self,
        endpoint: &str,
        running: impl Iterator<Item = (&'e str, usize)>,
        now: Timestamp,
    ) -> bool {
        let Some(name) = self.name(endpoint) else { return false };
        let here = || running.filter(|(other, _)| self.name(other) == Some(name)).map(|(_, runs)| runs).sum::<usize>();
        self.free_at(endpoint, now).is_some() || self.jobs(endpoint).is_some_and(|most| here() >= most)
    }

    /// A run begins.
    pub(super) fn begin(&mut self, endpoint: &str, now: Timestamp) {
        let Some(name) = self.name(endpoint).map(str::to_owned) else { return };
        let begun = self.begun.entry(name).or_default();
        begun.push_back(now);
        while begun.front().is_some_and(|time| *time + MINUTE <= now) {
            begun.pop_front();
        }
    }
}
