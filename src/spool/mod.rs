//! The spool: durable records of pushes that are not yet mirrored. The directory listing is the queue.
//!
//! ```text
//! mirror-push/spool/tmp/            records that are being written; a complete one is moved to `incoming`
//! mirror-push/spool/incoming/       complete records, one for each push, not yet in the queues of the mirrors
//! mirror-push/spool/corrupt/        records that could not be read: moved aside, never deleted
//! mirror-push/spool/resync          one byte; not `0`: a push could not be recorded
//! mirror-push/remotes/NAME/queue/   one entry for each push that is not yet mirrored to NAME, and for each request to compare refs
//! ```
//!
//! Guaranteed: a record in `incoming` or in a queue is whole or is recognised as damaged. Every
//! transition is one rename or link, which is synced before the step that depends on it. A repeated
//! transition does no harm, because an entry keeps the name of its record. So a crash may repeat
//! work, and loses none.
//! Absent: what the records mean. They are hints; the repository is the truth.

#[cfg(feature = "mirror")]
use crate::durable::{Made, make_directory, sync_directory};
#[cfg(feature = "mirror")]
use crate::layout::Layout;

mod enter;
#[cfg(feature = "mirror")]
mod fan_out;
#[cfg(feature = "mirror")]
mod queue;
mod record;
mod resync;

pub use enter::{Entering, Id, begin};
#[cfg(feature = "mirror")]
pub use fan_out::{FanOut, fan_out, incoming};
#[cfg(feature = "mirror")]
pub use queue::{
    Backlog, Claim, Waiting, backlog, claim, corrupt, finish, is_due, is_empty, last_full, mirrors, next_look, peek,
    pending, queued, queues, request, request_full_sync, waiting,
};
pub use record::{Record, Unreadable, decode, encode};
#[cfg(feature = "mirror")]
pub use resync::is_marked;
pub use resync::mark;

/// Makes the spool's directories with the permissions `directory_mode`, which may contain the
/// setgid bit, and the file of the resync mark. What is there already keeps its permissions.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn prepare(layout: &Layout, directory_mode: u32) -> std::io::Result<()> {
    let ours = [layout.root().to_owned(), layout.spool(), layout.root().join("remotes")];
    let mut is_new = false;
    for directory in ours.into_iter().chain(layout.spool_directories()) {
        is_new |= make_directory(&directory, Some(directory_mode))? == Made::Now;
    }
    if !layout.resync().exists() {
        resync::make(layout)?;
        is_new = true;
    }
    if is_new { sync_directory(layout.root()) } else { Ok(()) }
}
