//! How much happens at once: in all, at a host, for a repository, and at the hosts that `[hosts]` of the server's file names. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::fleet::{HostUse, Parts};

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

/// The limits of one host of `[hosts]`; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLimit {
    /// Maximum number of runs at once. Runs that only wait count too.
    pub jobs: Option<usize>,
    /// Maximum number of runs that begin in a minute.
    pub per_minute: Option<usize>,
}

impl HostLimit {
    /// The part of each machine if the limit is divided evenly among `machines`; at least 1.
    fn divided(self, machines: usize) -> Self {
        let part = |limit: usize| (limit / machines.max(1)).max(1);
        Self { jobs: self.jobs.map(part), per_minute: self.per_minute.map(part) }
    }

    /// The smaller of two limits.
    fn at_most(self, other: Self) -> Self {
        let least = |one: Option<usize>, other: Option<usize>| one.into_iter().chain(other).min();
        Self { jobs: least(self.jobs, other.jobs), per_minute: least(self.per_minute, other.per_minute) }
    }
}

/// [`NamedHosts::lower`] makes parts smaller before the database has stored them. They apply for at
/// least this long.
const LOWERED: SignedDuration = SignedDuration::from_secs(10);

pub(super) const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// The name of a host of `[hosts]` as it is compared: an IPv6 address without its brackets.
#[must_use]
pub fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// The hosts of `[hosts]`, and what began there lately.
#[derive(Default)]
pub(super) struct NamedHosts {
    limits: BTreeMap<String, HostLimit>,
    begun: HashMap<String, VecDeque<Timestamp>>,
    /// What this machine may use of them. `None` outside a fleet.
    parts: Option<Parts>,
}

impl NamedHosts {
    /// Changes the limits. Runs that began before still count.
    pub(super) fn set(&mut self, limits: BTreeMap<String, HostLimit>) {
        self.limits = limits.into_iter().map(|(name, limit)| (bare(&name).to_owned(), limit)).collect();
    }

    /// The name in `[hosts]` whose limits apply to an endpoint: the endpoint itself, or its host
    /// without the port.
    pub(super) fn name(&self, endpoint: &str) -> Option<&str> {
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

    /// Takes the parts of this machine.
    pub(super) fn share(&mut self, parts: Parts) {
        self.parts = Some(parts);
    }

    /// Lowers each part of this machine to the one given here. A smaller part stays as it is.
    pub(super) fn lower(&mut self, parts: &BTreeMap<String, HostLimit>, now: Timestamp) {
        let least = |name: &String| Some(self.limit(name, now)?.at_most(*parts.get(name)?));
        let of = parts.keys().filter_map(|name| Some((name.clone(), least(name)?))).collect();
        let Some(held) = &mut self.parts else { return };
        // `least` comes from the limits that apply now, so an expired part does not apply again.
        // The lowered parts apply even if the earlier ones have expired.
        held.until = held.until.max(now + LOWERED);
        held.of = of;
    }

    /// Whether this machine has less than the whole limit at an endpoint.
    pub(super) fn has_part(&self, endpoint: &str, now: Timestamp) -> bool {
        let name = self.name(endpoint).filter(|_| self.parts.is_some());
        name.is_some_and(|name| self.limit(name, now) != self.limits.get(name).copied())
    }

    /// Until when the parts of this machine hold.
    pub(super) fn parts_until(&self) -> Option<Timestamp> {
        self.parts.as_ref().map(|parts| parts.until)
    }

    /// How many runs began at each host in the last minute.
    pub(super) fn begun_at_each(&self, now: Timestamp) -> BTreeMap<String, HostUse> {
        let of = |name: &String| {
            let times = self.begun.get(name).into_iter().flatten();
            HostUse { begun: times.filter(|time| **time + MINUTE > now).count(), ..HostUse::default() }
        };
        self.limits.keys().map(|name| (name.clone(), of(name))).collect()
    }

    /// The limit that holds at a host of `[hosts]`.
    fn limit(&self, name: &str, now: Timestamp) -> Option<HostLimit> {
        let all = *self.limits.get(name)?;
        let Some(parts) = &self.parts else { return Some(all) };
        if now >= parts.until {
            return Some(all.divided(parts.machines));
        }
        // A host that has just been named has no part yet, and what was granted may be more than the file allows now.
        let nothing = HostLimit { jobs: all.jobs.map(|_| 0), per_minute: all.per_minute.map(|_| 0) };
        Some(parts.of.get(name).map_or(nothing, |part| part.at_most(all)))
    }

    /// Maximum number of runs at once at an endpoint, if `[hosts]` says it.
    pub(super) fn jobs(&self, endpoint: &str, now: Timestamp) -> Option<usize> {
        self.limit(self.name(endpoint)?, now)?.jobs
    }

    /// When a run may begin at an endpoint; `None` means now.
    pub(super) fn free_at(&self, endpoint: &str, now: Timestamp) -> Option<Timestamp> {
        let name = self.name(endpoint)?;
        let most = self.limit(name, now)?.per_minute?;
        if most == 0 {
            // Until the fleet gives it a part.
            return Some(now + MINUTE);
        }
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
        self.free_at(endpoint, now).is_some() || self.jobs(endpoint, now).is_some_and(|most| here() >= most)
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
