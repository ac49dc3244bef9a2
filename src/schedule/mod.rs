//! Many mirrors: which one is updated next, by which thread, and when it is due.
//!
//! The queue only decides: it has no clock, file or thread. Hosts take turns. Limits hold in total, for each host and for each repository.
//! A host that is down delays no other host. A pool of threads takes the next job from the queue. A batch (`--all`) ends when the queue is
//! empty; the daemon's workers wait for hints, due times and scans.
//!
//! Guaranteed: one thread at a time works on a mirror. A panic in one mirror's run ends that run alone. Absent: what a run does
//! ([`crate::drain`]). Nothing here is on the disk: after a crash all repositories are scanned again.

mod as_owner;
mod batch;
mod daemon;
mod idle;
mod pool;
mod queue;

pub use batch::{Every, OnReport, OnRun, Scan, drain_every};
pub use daemon::{Event, Workers, yield_to_others};
pub use queue::{HostLimit, HostUse, Parts, bare};
