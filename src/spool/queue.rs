//! The queue of one mirror: entries are claimed, and finished once their outcome is durable.
//!
//! Claiming leaves the entries where they are, except damaged ones; the mirror's lock makes the claim exclusive. Only claimed
//! entries are finished, so an entry that arrives meanwhile stays.

use std::collections::BTreeMap;
use std::io;

use super::fan_out::move_aside;
use super::{Id, Record, decode, encode};
use crate::durable::{self, list, list_there, remove_if_there, sync_directory, write_synced};
use crate::layout::Layout;

/// The end of the name of a full-sync record.
pub(super) const FULL: &str = ".full";
/// The end of the name of an entry that is not a push, but asks to read some refs of the mirror again.
const LOOK: &str = ".look";

/// The entries of a mirror's queue, oldest first.
#[derive(Debug, Default)]
pub struct Claim {
    /// The file names of the entries that are due.
    pub names: Vec<String>,
    /// The records, in the order of `names`.
    pub records: Vec<Record>,
    /// Records that are due later. They stay in the queue. The values that they name already count
    /// as values that this repository had.
    pub waiting: Vec<Record>,
    /// File names, in the order of `waiting`.
    pub waiting_names: Vec<String>,
}

impl Claim {
    /// The records that ask for a look, due or not, with their file names.
    pub fn looks(&self) -> impl Iterator<Item = (String, &Record)> {
        let due = self.names.iter().cloned().zip(&self.records);
        let waiting = self.waiting_names.iter().cloned().zip(&self.waiting);
        due.chain(waiting).filter(|(_, record)| record.look.is_some())
    }

    /// When the first of the records that wait is due, since the Unix epoch.
    #[must_use]
    pub fn next_look(&self) -> Option<std::time::Duration> {
        self.waiting.iter().filter_map(|record| record.look).min()
    }
}

/// Whether and how much waits for a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The number of pushes and full syncs that wait. [`waiting`] counts the queue, `incoming`, and
    /// a push that could not be recorded. [`queued`] counts only the queue.
    pub pushes: usize,
    /// Whether anything waits, also a look at refs that is due later.
    pub any: bool,
}

/// What waits for `mirror`.
///
/// # Errors
/// The operating system's.
pub fn waiting(layout: &Layout, mirror: &str) -> io::Result<Waiting> {
    // A record moves from `incoming` to the queue, so in this order it is seen at least once.
    let mut names = super::incoming(layout)?;
    names.extend(list(&layout.queue(mirror))?);
    // A push that could not be recorded waits too.
    let is_marked = super::resync::is_marked(layout)?;
    let waiting = Waiting::of(names);
    Ok(Waiting { pushes: waiting.pushes + usize::from(is_marked), any: waiting.any || is_marked })
}

/// What waits for `mirror` in its own queue. For a mirror that gets no pushes (a pull mirror), this
/// is all that waits: the records in `incoming` are not for it.
///
/// # Errors
/// The operating system's.
pub fn queued(layout: &Layout, mirror: &str) -> io::Result<Waiting> {
    Ok(Waiting::of(list(&layout.queue(mirror))?))
}

impl Waiting {
    fn of(mut names: Vec<String>) -> Self {
        let any = !names.is_empty();
        names.retain(|name| !name.ends_with(LOOK));
        names.sort_unstable();
        names.dedup();
        Self { pushes: names.len(), any }
    }
}

/// The number of pushes and full syncs that wait for `mirror`.
///
/// # Errors
/// The operating system's.
pub fn pending(layout: &Layout, mirror: &str) -> io::Result<usize> {
    Ok(waiting(layout, mirror)?.pushes)
}

/// When the last full sync in the queue of `mirror` was asked for, since the Unix epoch.
///
/// # Errors
/// The operating system's.
pub fn last_full(layout: &Layout, mirror: &str) -> io::Result<Option<std::time::Duration>> {
    let names = list(&layout.queue(mirror))?;
    Ok(names.iter().filter(|name| name.ends_with(FULL)).filter_map(|name| Id::time_of(name)).max())
}

/// Whether something that waits for `mirror` is due at `now`, a time since the Unix epoch.
///
/// # Errors
/// The operating system's.
pub fn is_due(layout: &Layout, mirror: &str, now: std::time::Duration) -> io::Result<bool> {
    Ok(pending(layout, mirror)? > 0 || next_look(layout, mirror)?.is_some_and(|look| look <= now))
}

/// When the first look at refs of `mirror` is due, since the Unix epoch.
///
/// # Errors
/// The operating system's.
pub fn next_look(layout: &Layout, mirror: &str) -> io::Result<Option<std::time::Duration>> {
    let names = list(&layout.queue(mirror))?;
    let records =
        names.iter().filter(|name| name.ends_with(LOOK)).map(|name| durable::read(&layout.queue(mirror).join(name)));
    let mut next = None;
    for text in records {
        // A damaged entry is due at once: the run that claims it compares everything.
        let look = match text {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            text => decode(&text?.0).map_or(Some(std::time::Duration::ZERO), |record| record.look),
        };
        next = [next, look].into_iter().flatten().min();
    }
    Ok(next)
}

/// What waits for a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many pushes and full syncs wait, as in [`pending`].
    pub pushes: usize,
    /// How many refs the records name.
    pub refs: usize,
    /// When the oldest record was written, since the Unix epoch.
    pub oldest: Option<std::time::Duration>,
}

/// Measures what waits for `mirror`.
///
/// # Errors
/// The operating system's.
pub fn backlog(layout: &Layout, mirror: &str) -> io::Result<Backlog> {
    let mut records = peek(layout, mirror)?;
    records.retain(|record| record.look.is_none());
    let updates = records.iter().filter_map(|record| record.updates.as_ref()).flatten();
    let names: std::collections::BTreeSet<_> = updates.map(|update| &update.name).collect();
    let oldest = records.iter().map(|record| record.time).min();
    Ok(Backlog { pushes: pending(layout, mirror)?, refs: names.len(), oldest })
}

/// The number of records that could not be read.
///
/// # Errors
/// The operating system's.
pub fn corrupt(layout: &Layout) -> io::Result<usize> {
    Ok(list(&layout.corrupt())?.len())
}

/// Whether nothing waits to be given to the mirrors: no record in `incoming`, no mark, and no file
/// in `tmp`. A file in `tmp` is one that a hook is writing now, or that a killed hook left.
///
/// # Errors
/// The operating system's.
pub fn is_empty(layout: &Layout) -> io::Result<bool> {
    Ok(super::incoming(layout)?.is_empty() && list(&layout.tmp())?.is_empty() && !super::resync::is_marked(layout)?)
}

/// The mirrors that have a queue here, each with the number of entries in it.
///
/// # Errors
/// The operating system's.
pub fn queues(layout: &Layout) -> io::Result<Vec<(String, usize)>> {
    let mut queues = Vec::new();
    for name in list(&layout.root().join("remotes"))? {
        match list_there(&layout.queue(&name)) {
            Ok(entries) => queues.push((name, entries.len())),
            // A file that is not ours, or a directory without a queue.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(queues)
}

/// The mirrors that have a queue here. A queue that cannot be listed counts too, so that it does
/// not stop the other mirrors.
///
/// # Errors
/// The operating system's.
pub fn mirrors(layout: &Layout) -> io::Result<Vec<String>> {
    let names = list(&layout.root().join("remotes"))?;
    Ok(names.into_iter().filter(|name| layout.queue(name).is_dir()).collect())
}

/// Reads the queue of `mirror`. Moves a damaged entry to `corrupt`, and puts a full-sync record in its place.
///
/// # Errors
/// The operating system's.
pub fn claim(layout: &Layout, mirror: &str, id: Id) -> io::Result<Claim> {
    let queue = layout.queue(mirror);
    let mut claimed = Claim::default();
    for name in list(&queue)? {
        let path = queue.join(&name);
        let Ok(record) = decode(&durable::read(&path)?.0) else {
            request_full_sync(layout, mirror, id)?;
            move_aside(layout, &path, &name)?;
            claimed.names.push(full_sync_name(id));
            claimed.records.push(Record::full(id.time));
            continue;
        };
        if record.look.is_some_and(|look| look > id.time) {
            claimed.waiting.push(record);
            claimed.waiting_names.push(name);
            continue;
        }
        claimed.names.push(name);
        claimed.records.push(record);
    }
    Ok(claimed)
}

/// Reads the records that wait for `mirror`, in its queue and in `incoming`, and changes nothing. Damaged records are left out.
///
/// # Errors
/// The operating system's.
pub fn peek(layout: &Layout, mirror: &str) -> io::Result<Vec<Record>> {
    // A record moves from `incoming` to the queue, so in this order it is seen at least once.
    let mut records = BTreeMap::new();
    for directory in [layout.incoming(), layout.queue(mirror)] {
        for name in list(&directory)? {
            match durable::read(&directory.join(&name)) {
                Ok((text, _)) => records.extend(decode(&text).ok().map(|record| (name, record))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(records.into_values().collect())
}

/// Removes claimed entries. Their outcome must be durable before this call.
///
/// # Errors
/// The operating system's; entries that remain are mirrored again.
pub fn finish(layout: &Layout, mirror: &str, names: &[String]) -> io::Result<()> {
    let queue = layout.queue(mirror);
    for name in names {
        remove_if_there(&queue.join(name))?;
    }
    Ok(())
}

/// Makes a full sync of `mirror` due.
///
/// # Errors
/// The operating system's.
pub fn request_full_sync(layout: &Layout, mirror: &str, id: Id) -> io::Result<()> {
    request(layout, mirror, id, &Record::full(id.time))
}

/// Puts a record into the queue of `mirror` alone, durably.
///
/// # Errors
/// The operating system's.
pub fn request(layout: &Layout, mirror: &str, id: Id, record: &Record) -> io::Result<()> {
    let queue = layout.queue(mirror);
    durable::make_all(&queue)?;
    let name = match (&record.look, &record.updates) {
        (Some(_), _) => id.file_name() + LOOK,
        (None, None) => full_sync_name(id),
        (None, Some(_)) => id.file_name(),
    };
    let tmp = layout.remote(mirror).join(format!("queue.{}", id.file_name()));
    remove_if_there(&tmp)?;
    write_synced(&tmp, &encode(record), &queue)?;
    durable::rename(&tmp, &queue.join(name))?;
    sync_directory(&queue)
}

fn full_sync_name(id: Id) -> String {
    id.file_name() + FULL
}
