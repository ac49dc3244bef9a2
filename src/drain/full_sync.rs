//! The wish for everything: a record that outlives a failure, a kill, and a push by name. A mirror that was never tried is owed it, and
//! so is who asks for a sync.
//!
//! Guaranteed: what a person said with it, the release of refs that go back and forth and the word on first contact, is in the record
//! before the run begins. A crash leaves one record or two.

use super::fence::since_epoch;
use super::{Context, Error, Mode, new_id};
use crate::config::Mirror;
use crate::repo::Repository;
use crate::spool::{self, Claim, Record};
use crate::status::Status;

/// Makes a full sync due if this run is to be one and no record says as much; records that say less go.
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
    let adopt = context.adopts.then(|| mirror.address.identity());
    let wish = Record { release: is_asked_for, adopt, ..Record::full(since_epoch((context.now)())) };
    if claim.records.iter().any(|record| says_as_much(record, &wish)) {
        return Ok(());
    }
    let all = claim.names.iter().zip(&claim.records);
    let less: Vec<String> =
        all.filter(|(_, record)| says_as_much(&wish, record)).map(|(name, _)| name.clone()).collect();
    let layout = repository.layout();
    let made = spool::request(&layout, &mirror.name, id, &wish);
    made.and_then(|()| spool::finish(&layout, &mirror.name, &less))
        .map_err(Error::files("make a full sync due", layout.queue(&mirror.name)))
}

/// Whether `record` asks for everything that `other` asks for.
fn says_as_much(record: &Record, other: &Record) -> bool {
    record.updates.is_none()
        && other.updates.is_none()
        && record.release >= other.release
        && (other.adopt.is_none() || record.adopt == other.adopt)
}
