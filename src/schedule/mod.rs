//! Many mirrors: which of them is served next, by whom, and when it is due.
//!
//! The queue is pure: hosts take turns, limits hold for all, for each host and for each repository, and a host that is down holds up
//! nobody else. A pool of threads takes from it what is next. A batch (`--all`) ends when the queue is empty; the daemon's workers
//! wait for hints, turns and scans.
//!
//! Guaranteed: a mirror is served by one thread at a time; a panic in one mirror's run ends that run alone. Absent: what a run does,
//! which is [`crate::drain`]'s. Nothing here is on the disk: after a crash every spool is looked through again.

mod batch;
mod daemon;
mod pool;
mod queue;

pub use batch::{Every, drain_every};
pub use daemon::{Event, Workers};
