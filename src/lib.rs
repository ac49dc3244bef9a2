//! Push and pull mirroring for bare Git repositories.
//!
//! ```text
//! git push ─▶ hook ─▶ spool ─▶ drain ─▶ observe ─▶ plan ─▶ push ─▶ status
//!             (disk)  (queue)  (facts)   (pure)    (wire)   (disk)
//!
//! upstream ─▶ check ─▶ stage ─▶ observe ─▶ plan ─▶ take ─▶ hook ─▶ spool ─▶ …
//! ```
//!
//! Data flows from left to right and never back. `docs/architecture.md` describes the modules, `docs/glossary.md` the words.
//!
//! **Invariants.** The hook knows the spool and nothing else. `plan` is total and pure. The expected old value of every command was
//! advertised on the same connection; in an optimistic push it is the base. A run sends nothing more once another run has begun. The base
//! holds only values that both the mirror and this repository had. A spool record is a durable hint; the repository is the truth. State is
//! where a file is. Absent, unreadable and busy are different answers. Secrets cannot be printed. Time and chance are arguments.

pub mod durable;
pub mod hook;
pub mod layout;
pub mod refs;
pub mod spool;
pub mod terminal;
pub mod wake;

#[cfg(feature = "mirror")]
pub mod cli;
#[cfg(feature = "mirror")]
pub mod config;
#[cfg(feature = "mirror")]
pub mod create;
#[cfg(feature = "mirror")]
pub mod credentials;
#[cfg(feature = "mirror")]
pub mod doctor;
#[cfg(feature = "mirror")]
pub mod drain;
#[cfg(feature = "mirror")]
pub mod fetch;
#[cfg(feature = "mirror")]
pub mod fleet;
#[cfg(feature = "mirror")]
pub mod import;
#[cfg(feature = "mirror")]
pub mod install;
#[cfg(feature = "mirror")]
pub mod metrics;
#[cfg(feature = "mirror")]
pub mod mirror;
#[cfg(feature = "mirror")]
pub mod notify;
#[cfg(feature = "mirror")]
pub mod owner;
#[cfg(feature = "mirror")]
pub mod plan;
#[cfg(feature = "mirror")]
pub mod process;
#[cfg(feature = "mirror")]
pub mod push;
#[cfg(feature = "mirror")]
pub mod remote_helper;
#[cfg(feature = "mirror")]
pub mod replies;
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
#[cfg(feature = "mirror")]
pub mod wire;
