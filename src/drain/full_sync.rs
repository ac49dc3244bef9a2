//! The record of a full sync. It is in the queue before the sync begins, so that a sync which fails or is killed stays due.
//!
//! Guaranteed: the record holds what a person asked for with the sync: to push flapping refs again, and to confirm first contact. A crash
//! leaves one record or two. Absent: the sync itself.

use super::fence::since_epoch;
use super::{Context, Error, Mode};
use crate::config::Mirror;
use crate::mirror::new_id;
use crate::repo::Repository;
use crate::spool::{self, Claim, Record};
use crate::status::Status;

/// Queues a full-sync record if this run is a full sync and no record asks for it yet. Full-sync records that ask for less are removed.
pub(super) fn make_due(
    repository: &Repository,
    context: &Context<'_>,
    mode: Mode,
    mirror: &Mirror,
    before: &Status,
    claim: &Claim,
) -> Result<(), Error> {
    let is_asked_for = matches!(mode, Mode::Sync(_)) && context.only.is_none();
    if !is_asked_for && mode != Mode::Reconcile && !before.is_new() {
        return Ok(());
    }
    let id = new_id((context.now)());
    let adopt = context.adopts.then(|| mirror.identity());
    let asked = Record { release: is_asked_for, adopt, ..Record::full(since_epoch((context.now)())) };
    if claim.records.iter().any(|record| asks_for_all_of(record, &asked)) {
        return Ok(());
    }
    let all = claim.names.iter().zip(&claim.records);
    let less: Vec<String> =
        all.filter(|(_, record)| asks_for_all_of(&asked, record)).map(|(name, _)| name.clone()).collect();
    let layout = repository.layout();
    let made = spool::request(&layout, &mirror.name, id, &asked);
    made.and_then(|()| spool::finish(&layout, &mirror.name, &less))
        .map_err(Error::files("make a full sync due", layout.queue(&mirror.name)))
}

/// Queues a full sync for after this run.
pub(super) fn request(repository: &Repository, context: &Context<'_>, mirror: &Mirror) -> Result<(), Error> {
    let layout = repository.layout();
    let made = spool::request_full_sync(&layout, &mirror.name, new_id((context.now)()));
    made.map_err(Error::files("make a full sync due", layout.queue(&mirror.name)))
}

/// Whether `record` asks for everything that `other` asks for.
fn asks_for_all_of(record: &Record, other: &Record) -> bool {
    record.updates.is_none()
        && other.updates.is_none()
        && record.release >= other.release
        && (other.adopt.is_none() || record.adopt == other.adopt)
}
