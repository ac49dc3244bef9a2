//! Many mirrors: which one is updated next, by which thread, and when it is due.
//!
//! The queue is pure: hosts take turns; limits hold in total, for each host and for each repository; a host that is down delays nobody
//! else. A pool of threads takes the next job from it. A batch (`--all`) ends when the queue is empty; the daemon's workers wait for hints,
//! due times and scans.
//!
//! Guaranteed: one thread at a time works on a mirror. A panic in one mirror's run ends that run alone. Absent: what a run does
//! ([`crate::drain`]). Nothing here is on the disk: after a crash all repositories are scanned again.

mod as_owner;
mod batch;
mod daemon;
mod pool;
mod queue;

pub use batch::{Every, drain_every};
pub use daemon::{Event, Workers};
