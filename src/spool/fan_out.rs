//! Fan-out: what is in `incoming` is linked into the queue of every enabled mirror, then leaves `incoming`.
//!
//! An entry is a hard link of its record and keeps its name, so two drains that fan out at once, or one that is killed and
//! repeated, make the same entries. If the system refuses a link to a record that another user made, the entry is a copy.
//! An entry may come back after its mirror has finished it: as a copy, or because the record has not left `incoming` yet. The mirror then
//! finds that there is nothing left to do.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::{Id, Unreadable, decode, queue, resync};
use crate::durable::{self, list, remove_if_there, sync_directory};
use crate::layout::Layout;

/// What one fan-out did.
#[derive(Debug, Default)]
pub struct FanOut {
    /// Records given to the mirrors.
    pub records: usize,
    /// Records moved to `corrupt`, with the reason. Each of them caused a full sync of every mirror.
    pub corrupt: Vec<(String, Unreadable)>,
    /// Mirrors that this drain does not know and that could not be given a full sync, with the reason.
    pub failed: Vec<(String, io::Error)>,
    /// Whether a push could not be recorded or was cut short, so that every mirror was given a full sync.
    pub resync: bool,
}

/// The names of the complete records that are not in the queues of all mirrors yet, oldest first.
///
/// # Errors
/// The operating system's. A spool that does not exist yet is empty.
pub fn incoming(layout: &Layout) -> io::Result<Vec<String>> {
    list(&layout.incoming())
}

/// Gives every record in `incoming` to each of `mirrors`. `id` names the full-sync record, if one is needed. `others` are mirrors that have
/// a queue, but are not in the configuration of this drain. Each of them gets one full-sync record instead, because the next drain may have
/// the server's file that names them. An error in their files delays no other mirror, but on a full disk everything stays in `incoming`.
///
/// # Errors
/// The operating system's; what was not yet given stays in `incoming`.
pub fn fan_out(layout: &Layout, mirrors: &[&str], others: &[&str], id: Id) -> io::Result<FanOut> {
    let mut done = FanOut::default();
    let mut whole = Vec::new();
    for name in incoming(layout)? {
        match durable::read(&layout.incoming().join(&name)) {
            Ok((text, _)) => match decode(&text) {
                Ok(_) => whole.push(name),
                Err(reason) => done.corrupt.push((name, reason)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let unfinished = abandoned(layout, id.time)?;
    done.resync = resync::begin(layout, id)? || !unfinished.is_empty();
    for mirror in mirrors {
        link_into_queue(layout, mirror, &whole, id)?;
        if done.resync || !done.corrupt.is_empty() {
            queue::request_full_sync(layout, mirror, id)?;
        }
    }
    if !whole.is_empty() || done.resync || !done.corrupt.is_empty() {
        for other in others {
            match ensure_full_sync(layout, other, id) {
                Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    return Err(error);
                }
                Err(error) => done.failed.push(((*other).to_owned(), error)),
                Ok(()) => {}
            }
        }
    }
    if done.resync {
        resync::clear(layout, id)?;
        for name in &unfinished {
            remove_if_there(&layout.tmp().join(name))?;
        }
    }
    for (name, _) in &done.corrupt {
        move_aside(layout, &layout.incoming().join(name), name)?;
    }
    for name in &whole {
        remove_if_there(&layout.incoming().join(name))?;
    }
    done.records = whole.len();
    Ok(done)
}

/// Makes a full sync due, unless one is due already.
fn ensure_full_sync(layout: &Layout, mirror: &str, id: Id) -> io::Result<()> {
    if list(&layout.queue(mirror))?.iter().any(|name| name.ends_with(queue::FULL)) {
        return Ok(());
    }
    queue::request_full_sync(layout, mirror, id)
}

fn link_into_queue(layout: &Layout, mirror: &str, records: &[String], id: Id) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let queue = layout.queue(mirror);
    durable::make_all(&queue)?;
    for name in records {
        match durable::link(&layout.incoming().join(name), &queue.join(name)) {
            Ok(()) => {}
            // Another drain was faster: the entry is there, or the record has left for every queue.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
            // Another user made the record. Linux lets us link it only if we may read and write it (proc(5), protected_hardlinks).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                copy_into_queue(layout, &queue, name, id)?;
            }
            Err(error) => return Err(error),
        }
    }
    sync_directory(&queue)
}

/// Makes an entry that is a copy of its record. The copy is first a file in `tmp` with the unique name of this fan-out. The name has our
/// process id, so another drain sees that the writer is alive.
fn copy_into_queue(layout: &Layout, queue: &Path, name: &str, id: Id) -> io::Result<()> {
    let record = layout.incoming().join(name);
    let copy = layout.tmp().join(id.file_name());
    let bytes = match durable::read(&record) {
        // Its owner may have changed it since. The copy belongs to us, so it must not become anything but a record.
        Ok((bytes, _)) if decode(&bytes).is_ok() => bytes,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "a record was changed while it was read")),
        // The record has left for every queue.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let linked = durable::write_synced(&copy, &bytes, &record).and_then(|()| durable::link(&copy, &queue.join(name)));
    remove_if_there(&copy)?;
    match linked {
        // Another drain was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The record may have left since it was read, and the mirror may have finished it. The new entry stays: another drain that found
        // it may rely on it. At worst the mirror does the work once more, as after a crash.
        linked => linked,
    }
}

/// Moves a damaged record into `corrupt`, where it is counted and never deleted.
pub(super) fn move_aside(layout: &Layout, path: &Path, name: &str) -> io::Result<()> {
    durable::make_all(&layout.corrupt())?;
    match durable::rename(path, &layout.corrupt().join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory(&layout.corrupt()),
    }
}

/// Files in `tmp` whose writer is gone: pushes that were never recorded.
fn abandoned(layout: &Layout, now: Duration) -> io::Result<Vec<String>> {
    /// A file of this age has no writer anywhere. Without this limit, a file would stay while any process here has its writer's process id:
    /// process ids are reused, and the writer may have been on another machine or in another container.
    const OLD: Duration = Duration::from_secs(3600);
    let writer_is_gone = |name: &String| {
        let seconds = name.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let old = now.saturating_sub(Duration::from_secs(seconds)) > OLD;
        let pid = Id::pid_of(name).and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        old || pid.is_none_or(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
    };
    Ok(list(&layout.tmp())?.into_iter().filter(writer_is_gone).collect())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_is_an_entry_once_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        let queue = layout.queue("m");
        for path in [layout.incoming(), layout.tmp(), queue.clone()] {
            fs::create_dir_all(path).expect("made");
        }
        let id = Id { time: Duration::from_secs(1), pid: 1, random: 1 };
        copy_into_queue(&layout, &queue, "left", id).expect("it left for every queue");
        let text = super::super::encode(&super::super::Record::full(id.time));
        fs::write(layout.incoming().join("record"), &text).expect("written");
        for _ in 0..2 {
            copy_into_queue(&layout, &queue, "record", id).expect("copied, or there already");
        }
        assert_eq!(list(&queue).expect("listed"), ["record"]);
        assert_eq!(fs::read(queue.join("record")).expect("read"), text);
        fs::write(layout.incoming().join("changed"), "[remotes.evil]").expect("written");
        copy_into_queue(&layout, &queue, "changed", id).expect_err("it is no record any more");
        assert_eq!(list(&layout.tmp()).expect("listed"), Vec::<String>::new());
        fs::remove_dir_all(&queue).expect("removed");
        copy_into_queue(&layout, &queue, "record", id).expect_err("an entry that cannot be made is an error");
        assert_eq!(list(&layout.tmp()).expect("listed"), Vec::<String>::new());
    }
}
