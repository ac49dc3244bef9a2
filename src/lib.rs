//! Push mirroring for bare Git repositories.
//!
//! ```text
//! git push ─▶ hook ─▶ spool ─▶ drain ─▶ observe ─▶ plan ─▶ push ─▶ status
//!             (disk)  (queue)  (facts)   (pure)    (wire)   (disk)
//! ```
//!
//! Facts flow left to right and never back.
//!
//! **Words.** *Touched*: the refs that spool records name. *Observed*: the facts about refs on both sides that a decision
//! needs. *Plan*: what is to happen to each ref, decided from rules and observed facts alone. *Decision*: the plan for one
//! ref. *Outcome*: what became of it. All other words are git's, Postfix's and GitLab's.
//!
//! **Invariants.** The hook knows the spool and nothing else. `plan` is total and pure. The sender decides nothing. The old
//! value of every command is one that the mirror was seen to hold: on the same connection or, in a small push that goes ahead, at the last
//! contact. A run whose fence was passed sends nothing more. Only a value that the mirror held and that was ours enters the base. A spool record is a durable hint, the repository
//! the truth. State is where a file is. Absent, unreadable and busy are three different answers. Secrets cannot be printed.
//! Time and chance are arguments.

pub mod durable;
pub mod hook;
pub mod layout;
pub mod refs;
pub mod spool;
pub mod wake;

#[cfg(feature = "mirror")]
pub mod cli;
#[cfg(feature = "mirror")]
pub mod config;
#[cfg(feature = "mirror")]
pub mod credentials;
#[cfg(feature = "mirror")]
pub mod doctor;
#[cfg(feature = "mirror")]
pub mod drain;
#[cfg(feature = "mirror")]
pub mod install;
#[cfg(feature = "mirror")]
pub mod metrics;
#[cfg(feature = "mirror")]
pub mod mirror;
#[cfg(feature = "mirror")]
pub mod notify;
#[cfg(feature = "mirror")]
pub mod plan;
#[cfg(feature = "mirror")]
pub mod process;
#[cfg(feature = "mirror")]
pub mod push;
#[cfg(feature = "mirror")]
pub mod remote_helper;
#[cfg(feature = "mirror")]
pub mod repo;
#[cfg(feature = "mirror")]
pub mod schedule;
#[cfg(feature = "mirror")]
pub mod serve;
#[cfg(feature = "mirror")]
pub mod status;
#[cfg(feature = "mirror")]
pub mod tokens;
