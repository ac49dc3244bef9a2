//! The fence: a run stops when another run for the same mirror has begun, and refs whose commands were not answered are read again later.
//!
//! Each run writes a number, the generation, into its `started` status. It reads the number again before it sends commands and before it
//! writes the outcome. If another run has begun meanwhile (the lock was revoked, or the process was suspended), the run sends nothing more.
//! It then writes only records of what the mirror accepted or did not answer. A server may carry out commands after its client is gone.
//! Therefore the run queues a record with the refs of such commands. The record is due after `stall_timeout` and makes a later run read
//! these refs again. It names the values that were sent, so these count as ours whatever happens here meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::Error;
use crate::config::Mirror;
use crate::mirror::new_id;
use crate::refs::{Local, Oid, RefName, RefUpdate};
use crate::repo::Repository;
use crate::spool::{self, Claim, Record};
use crate::status::{self, Status, UpdateStatus, render_time};

/// Refs, each with the values that the mirror may still set.
pub(super) type Late = BTreeMap<RefName, BTreeSet<Oid>>;

/// The number of a run.
#[derive(Clone, Debug)]
pub(super) struct Fence {
    directory: PathBuf,
    /// Milliseconds since the Unix epoch, or one more than the run before.
    pub(super) generation: u64,
}

impl Fence {
    /// The number of the run that begins now. It is larger than the one in `before`.
    pub(super) fn after(before: &Status, directory: PathBuf, now: Timestamp) -> Self {
        let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
        Self { directory, generation: now.max(before.generation.saturating_add(1)) }
    }

    /// Makes sure that no other run has begun: [`Error::Superseded`] when one has.
    pub(super) fn check(&self) -> Result<(), Error> {
        let files = Error::files("read the status", self.directory.clone());
        match status::generation(&self.directory).map_err(files)? {
            found if found == self.generation => Ok(()),
            _ => Err(Error::Superseded),
        }
    }
}

/// Requests that a run reads these refs again, not before `look`. Nothing is written if there are
/// no refs, or if nothing is sent to the mirror. Older records that the new one covers are removed.
pub(super) fn look_at(
    repository: &Repository,
    mirror: &Mirror,
    claim: &Claim,
    late: &Late,
    look: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    // Our own receive-pack is ended before the next run reads our refs, so nothing of a pull comes late.
    if late.is_empty() || !mirror.sends() {
        return Ok(());
    }
    let null = repository.null_oid();
    let mut updates = Vec::new();
    for (name, values) in late {
        let update = |value| RefUpdate { old: value, new: value, name: name.clone() };
        updates.extend(values.iter().copied().map(update));
        if values.is_empty() {
            updates.push(update(null));
        }
    }
    let id = new_id(now);
    let record = Record { look: Some(since_epoch(look)), ..Record::of(id.time, updates) };
    let layout = repository.layout();
    let files = Error::files("note what is to be looked at again", layout.queue(&mirror.name));
    let is_known = |update: &RefUpdate| {
        let late = late.get(&update.name);
        late.is_some_and(|values| {
            [update.old, update.new].iter().all(|value| value.is_null() || values.contains(value))
        })
    };
    let is_covered = |record: &&Record| record.look.is_some() && record.updates.iter().flatten().all(is_known);
    let older: Vec<String> = claim.looks().filter(|(_, record)| is_covered(record)).map(|(name, _)| name).collect();
    let kept = spool::request(&layout, &mirror.name, id, &record);
    kept.and_then(|()| spool::finish(&layout, &mirror.name, &older)).map_err(files)
}

pub(super) fn since_epoch(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default()
}

/// When to read refs again that a server may still change: after `stall_timeout`, when the server should have given up on a silent client.
pub(super) fn look_time(mirror: &Mirror, now: Timestamp) -> Timestamp {
    now.checked_add(mirror.timeouts.stall).unwrap_or(now)
}

/// The status before this run. The caller holds the mirror's lock. If the previous run never ended, the mirror may still carry out its
/// commands, so their refs are read again later. Its work is repeated at once, even if an earlier temporary failure had set a delay.
/// The result leaves out what the status knows of another address (see [`Status::at`]).
pub(super) fn status_before(
    repository: &Repository,
    mirror: &Mirror,
    claim: &Claim,
    now: Timestamp,
) -> Result<Status, Error> {
    let directory = repository.layout().remote(&mirror.name);
    let files = |doing| Error::files(doing, directory.clone());
    let mut before = status::read_as_is(&directory).map_err(files("read the status"))?;
    if before.update_status == UpdateStatus::Started {
        let late = left_by(repository, &before, claim)?;
        look_at(repository, mirror, claim, &late, look_time(mirror, now), now)?;
        let is_failing = before.refs.iter().any(|outcome| outcome.outcome.is_failure());
        before.update_status = if is_failing { UpdateStatus::Failed } else { UpdateStatus::Scheduled };
        // Refs that failed keep their slow interval. The new push that the dead run was for is due at once in any case.
        if !is_failing {
            before.next_attempt_at = before.next_attempt_at.map(|_| render_time(now));
        }
        (before.pid, before.runner, before.at_work) = (None, None, None);
        // Written now, so that the dead run is handled only once, even if this run has nothing to do yet.
        status::write_passing(&directory, &before, repository.sharing()).map_err(files("write the status"))?;
    }
    Ok(before.at(&mirror.identity()))
}

/// The refs for which a run that never ended may have sent commands. Each has the values that the queue names and its present value here.
/// The queue still has the entries of that run, because an entry leaves the queue only after its outcome is durable.
fn left_by(repository: &Repository, dead: &Status, claim: &Claim) -> Result<Late, Error> {
    let mut late = Late::new();
    let records = claim.records.iter().chain(&claim.waiting);
    for update in records.filter_map(|record| record.updates.as_ref()).flatten() {
        let values = late.entry(update.name.clone()).or_default();
        values.extend([update.old, update.new].into_iter().filter_map(Oid::non_null));
    }
    let locals: Vec<(RefName, Local)> = match &dead.at_work {
        Some(names) => {
            let names: Vec<RefName> = names.iter().filter_map(|name| RefName::new(name.as_bytes())).collect();
            let found = repository.find_each(&names.iter().collect::<Vec<_>>())?;
            names.into_iter().zip(found).collect()
        }
        None => repository.list(|_| true)?.refs,
    };
    for (name, local) in locals {
        let values = late.entry(name).or_default();
        if let Local::At(oid) = local {
            values.insert(oid);
        }
    }
    Ok(late)
}
