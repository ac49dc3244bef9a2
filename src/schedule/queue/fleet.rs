//! What a fleet needs from the queue: to know what happens at the hosts of `[hosts]`, to lower or
//! replace this machine's parts of their limits, and to hold a host that asked another machine to
//! wait.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::limits::HostLimit;
use super::{Down, OWNER, Queue};

/// What happens at a host of `[hosts]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostUse {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that began in the last minute.
    pub begun: usize,
}

/// The parts of the limits of `[hosts]` that this machine may use.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// By the name of the host.
    pub of: BTreeMap<String, HostLimit>,
    /// Until when they hold. After that, the part for each host is its limit divided by the number
    /// of machines, and at least 1.
    pub until: Timestamp,
    /// How many machines share the limits.
    pub machines: usize,
}

impl Queue {
    /// What happens at the hosts of `[hosts]`.
    pub(in crate::schedule) fn uses(&self, now: Timestamp) -> BTreeMap<String, HostUse> {
        let mut uses: BTreeMap<String, HostUse> = self.named.begun_at_each(now);
        for (endpoint, host) in &self.hosts {
            if let Some(found) = self.named.name(endpoint).and_then(|name| uses.get_mut(name)) {
                found.running += host.running;
                found.waiting += host.waiting.len();
            }
        }
        uses
    }

    /// Lowers the parts of this machine to `parts`, where these are smaller than the parts in
    /// force. Returns what happens at these hosts afterwards.
    pub(in crate::schedule) fn lower(
        &mut self,
        parts: &BTreeMap<String, HostLimit>,
        now: Timestamp,
    ) -> BTreeMap<String, HostUse> {
        self.named.lower(parts, now);
        self.uses(now)
    }

    /// Takes new parts.
    pub(in crate::schedule) fn share(&mut self, parts: Parts) {
        self.named.share(parts);
        (self.is_short, self.is_urged) = (false, false);
    }

    /// Whether something waits because this machine has too small a part of a limit, or
    /// [`Queue::urge`] was called. The former is computed when a thread finds no job to begin.
    pub(in crate::schedule) fn is_short(&self) -> bool {
        self.is_short || self.is_urged
    }

    /// Sets [`Queue::is_short`] although no job waits for a larger part.
    pub(in crate::schedule) fn urge(&mut self) {
        self.is_urged = true;
    }

    pub(super) fn find_short(&mut self, now: Timestamp) {
        let running = || self.hosts.iter().map(|(name, host)| (&**name, host.running));
        let is_short = |(name, host): (&String, &super::Host)| {
            let waits = !host.waiting.is_empty() && host.down.is_none();
            waits && self.named.has_part(name, now) && self.named.is_full(name, running(), now)
        };
        self.is_short = self.hosts.iter().any(is_short);
    }

    /// The time at which the parts end, if a job waits for a larger part.
    pub(super) fn next_part(&self, now: Timestamp) -> Option<Timestamp> {
        self.named.parts_until().filter(|until| self.is_short && *until > now)
    }

    /// A host has asked another machine to wait.
    pub(in crate::schedule) fn hold(&mut self, endpoint: &str, down: Down) {
        if endpoint.is_empty() || endpoint.starts_with(OWNER) {
            return;
        }
        let host = self.hosts.entry(endpoint.to_owned()).or_default();
        if host.down.as_ref().is_none_or(|known| known.next_attempt_at < down.next_attempt_at) {
            host.down = Some(down);
        }
    }
}
