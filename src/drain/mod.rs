//! The drain: one run for one mirror, from what is spooled to its status.
//!
//! ```text
//! fan out ─▶ lock ─▶ claim ─▶ coalesce ─▶ observe ─▶ plan ─▶ push ─▶ status ─▶ finish ─▶ look again
//! ```
//!
//! Guaranteed: one drain at a time for each (repository, mirror). Refs and configuration are read after the lock was taken. A queue entry
//! is finished only after its outcome is durable. The drain that held the lock looks again after releasing it. So it finds a push whose own
//! drain saw the lock taken. Absent: the rules and the protocol. A crash leaves entries in the queue, and the next drain repeats the work;
//! what the mirror already has is then up to date.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{Config, Mirror, Server};
use crate::mirror::{self, Lock, forget, is_being_removed, new_id, prepare};
use crate::plan::{MaxDeletes, Restore, Rules, Side};
use crate::push::Progress;
use crate::refs::{Oid, RefName};
use crate::repo::{Repository, Shared};
use crate::spool;
use crate::wire::{Class, Pool};

mod absent;
mod advice;
mod after;
mod backoff;
mod both;
mod cause;
mod check;
mod chunk;
mod claim;
mod coalesce;
mod companions;
mod conflicts;
mod contact;
mod defer;
mod fence;
mod flapping;
mod foreign;
mod full_scan;
mod full_sync;
mod kept;
mod observe;
mod optimistic;
mod pull;
mod reach;
mod record;
mod refusal;
mod report;
mod result;
mod run;
mod scope;
mod send;
mod symbolic;
mod update;
mod verify;

pub use absent::will_be_made;
pub use advice::{advice, explained};
pub use defer::{Down, defer};
pub use full_scan::Unchanged;
pub use kept::{Kept, expire_all, kept};
pub use pull::reach_upstream;
pub use reach::reach;
pub use report::{Host, Report};
pub use run::serve;

/// What a drain is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mirror what is spooled.
    Drain,
    /// Compare and mirror everything selected, because a person asked for it.
    Sync(MassDelete),
    /// The same, because `reconcile_interval` has passed.
    Reconcile,
    /// Check the upstreams of pull mirrors, and take what changed.
    Pull(Check),
    /// Say what a sync would do, and do nothing.
    Plan,
}

/// Which upstreams are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Those that are due.
    Due,
    /// All, because a person asked for it.
    Now,
}

/// Whether the guard against a mass deletion holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassDelete {
    /// It does.
    Guarded,
    /// `--allow-mass-delete`
    Allowed,
}

/// What a drain needs besides the repository.
pub struct Context<'a> {
    /// The repository's configuration.
    pub config: &'a Config,
    /// The server's configuration. With it, the repository's configuration is read again under the lock of a mirror.
    pub server: &'a Server,
    /// What is asked for.
    pub mode: Mode,
    /// The refs that are asked for by name; `None` means those that the mode selects.
    pub only: Option<&'a BTreeSet<RefName>>,
    /// Whether a person confirmed first contact with the mirrors (`--adopt`).
    pub adopts: bool,
    /// Whether the repository of a mirror is made even if it was there once (`sync --create`).
    pub creates: bool,
    /// Whether pull mirrors take refs again that were deleted here (`sync --restore`).
    pub restore: Restore,
    /// A conflict that a person resolves.
    pub resolve: Option<&'a Resolve>,
    /// Connections that are shared.
    pub pool: &'a Pool,
    /// Whether the reports name what is the same on both sides.
    pub unchanged: Unchanged,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// When the daemon began; `None` outside the daemon. See [`crate::status::next_check`].
    pub since: Option<Timestamp>,
    /// Chance, for the jitter of the back-off.
    pub random: fn() -> u64,
    /// Called when a mirror's run begins, with its progress counters.
    pub on_begin: OnBegin<'a>,
}

/// A conflict of a two-way mirror, and the side whose value is to win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// The ref.
    pub name: RefName,
    /// Our value that the person was shown.
    pub local: Option<Oid>,
    /// The mirror's value that the person was shown.
    pub remote: Option<Oid>,
    /// The side that is updated.
    pub side: Side,
}

impl Context<'_> {
    /// The rules of a mirror of `repository`, for this run.
    fn rules(&self, repository: &Repository, mirror: &Mirror) -> Result<Rules, Error> {
        let default_branch = repository.default_branch()?;
        let mut rules = self.config.rules(mirror, default_branch.as_ref());
        if self.mode == Mode::Sync(MassDelete::Allowed) {
            rules.max_deletes = MaxDeletes::Unlimited;
        }
        Ok(rules)
    }
}

/// The callback for the beginning of a mirror's run.
pub type OnBegin<'a> = &'a (dyn Fn(&Mirror, Arc<Progress>) + Sync);

/// Why a drain could not begin, or why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] crate::repo::Error),
    /// The configuration changed into one that cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The mirror's files or settings cannot be used.
    #[error(transparent)]
    Mirror(#[from] mirror::Error),
    /// The mirror cannot be reached, or the conversation with it failed.
    #[error(transparent)]
    Push(#[from] crate::wire::Error),
    /// The mirror's repository is not there and could not be made.
    #[error(transparent)]
    Create(#[from] crate::create::Error),
    /// The mirror's repository was there once and is not found now.
    #[error("{source}; it was there{}", seen.as_ref().map(|day| format!(" on {day}")).unwrap_or_else(|| " once".into()))]
    Gone {
        /// The answer.
        source: Box<crate::wire::Error>,
        /// The day of the last success.
        seen: Option<String>,
    },
    /// The mirror may not be the intended one.
    #[error("first contact: '{url}' has {} this repository does not have, so nothing was sent; check the URL, and if it is right: git mirror-push sync {name} --adopt", values(*unknown))]
    FirstContact {
        /// How many refs of the mirror cause this: this repository does not have their objects. 0 if the mirror has only refs that are not
        /// selected.
        unknown: usize,
        /// The mirror.
        name: String,
        /// Its URL as it is shown.
        url: String,
    },
    /// The upstream of a pull may not be the intended one.
    #[error(
        "first contact: '{}' and '{url}' have no commit in common, so nothing is taken; check the URL, and if it is right: git mirror-push sync {name} --adopt",
        here.display()
    )]
    Unrelated {
        /// This repository.
        here: PathBuf,
        /// The mirror.
        name: String,
        /// Its URL as it is shown.
        url: String,
    },
    /// Upstream shows no refs, although it had some.
    #[error(
        "upstream shows no refs: it is an empty repository now, or the account may not see them; nothing was deleted here"
    )]
    NothingUpstream,
    /// Refs are not taken in a repository that another user could misuse.
    #[error("{0}")]
    NotTaken(String),
    /// A value that is to be replaced could not be kept.
    #[error("cannot keep a value that is to be replaced: {0}")]
    Keep(String),
    /// Another run has begun while this one was at work.
    #[error("another run for this mirror has started and continues the work")]
    Superseded,
    /// A run panicked.
    #[error("internal error: {0}; please report it")]
    Panicked(String),
}

impl Error {
    /// Whether another try is worth it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Push(error) => error.class(),
            Self::Create(error) => error.class(),
            // The system was out of descriptors, for example. That passes; a wrong file does not.
            Self::Mirror(mirror::Error::Credentials(error))
                if error.raw_os_error().is_some() && error.kind() != std::io::ErrorKind::NotFound =>
            {
                Class::Temporary
            }
            Self::Mirror(
                mirror::Error::Locks { .. }
                | mirror::Error::InsecureHttp
                | mirror::Error::Credentials(_)
                | mirror::Error::Refused(_),
            )
            | Self::FirstContact { .. }
            | Self::Gone { .. }
            | Self::Unrelated { .. }
            | Self::NothingUpstream
            | Self::NotTaken(_) => Class::Permanent,
            Self::Mirror(_) | Self::Repository(_) | Self::Config(_) => Class::Temporary,
            Self::Superseded | Self::Panicked(_) | Self::Keep(_) => Class::Temporary,
        }
    }

    /// Whether a person can end it by confirming first contact.
    fn needs_adoption(&self) -> bool {
        matches!(self, Self::FirstContact { .. } | Self::Unrelated { .. })
    }

    /// How long the mirror asks us to wait.
    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Push(error) => error.retry_after(),
            Self::Create(error) => error.retry_after(),
            _ => None,
        }
    }

    /// How long the mirror waits for its turn to be created, which is no failure.
    fn turn(&self) -> Option<std::time::Duration> {
        match self {
            Self::Create(crate::create::Error::Waits { wait, .. }) => Some(*wait),
            _ => None,
        }
    }

    /// The error of an operation on files, from what the operating system says.
    pub(crate) fn files(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Mirror(mirror::Error::Files { doing, path, source })
    }
}

/// Updates `mirrors` of the repository in parallel. Returns a report for each that had something to do.
///
/// # Errors
/// [`Error`], when this process must not serve the repository, or the spool cannot be read or written. Trouble with one mirror is in its
/// report.
pub fn drain(shared: &Shared, context: &Context<'_>, mirrors: &[&Mirror]) -> Result<Vec<Report>, Error> {
    if context.config.is_silent && context.mode != Mode::Plan {
        tracing::info!("silent mode: nothing leaves this machine");
        return Ok(Vec::new());
    }
    let repository = shared.to_local();
    crate::config::authorise(&repository, context.server)?;
    if context.mode != Mode::Plan {
        fan_out(&repository, context)?;
    }
    let one = |mirror: &&Mirror| serve(&shared.to_local(), context, mirror);
    if let [mirror] = mirrors {
        return Ok(one(mirror).into_iter().collect());
    }
    Ok(std::thread::scope(|scope| {
        let threads: Vec<_> = mirrors.iter().map(|mirror| scope.spawn(move || one(mirror))).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("a mirror's thread does not panic")).collect()
    }))
}

/// Finishes interrupted removals, and gives what is in `incoming` to every enabled mirror that is
/// pushed to. A mirror that has a queue, but is not in this configuration, gets a request for a
/// full sync instead.
///
/// # Errors
/// [`Error`], when the spool cannot be read or written.
pub fn fan_out(repository: &Repository, context: &Context<'_>) -> Result<(), Error> {
    for mirror in context.config.mirrors.iter().filter(|mirror| mirror.is_enabled) {
        prepare(repository, &mirror.name)?;
    }
    // A pull mirror does not get what is pushed here.
    let gets_pushes = |mirror: &&Mirror| mirror.is_enabled && mirror.sends();
    let enabled: Vec<&str> = context.config.mirrors.iter().filter(gets_pushes).map(|mirror| &*mirror.name).collect();
    let layout = repository.layout();
    let known = spool::mirrors(&layout).map_err(Error::files("list the mirrors", layout.root().to_owned()))?;
    finish_removals(repository, context, &known);
    let is_other = |name: &&str| context.config.mirror(name).is_none() && !is_being_removed(&layout.remote(name));
    let others: Vec<&str> = known.iter().map(String::as_str).filter(is_other).collect();
    let done = spool::fan_out(&layout, &enabled, &others, new_id((context.now)()))
        .map_err(Error::files("give spooled pushes to the mirrors", layout.root().to_owned()))?;
    for (name, error) in &done.failed {
        tracing::warn!("mirror '{name}', which no file names, cannot be given a full sync: {error}");
    }
    for (name, reason) in &done.corrupt {
        tracing::warn!("spool record {name}: {reason}; moved to spool/corrupt, all refs of every mirror are compared");
    }
    if done.resync {
        tracing::warn!("a push could not be recorded; all refs of every mirror are compared");
    }
    Ok(())
}

/// Ends the removals that could not be finished: their process was killed, or a run had the lock.
fn finish_removals(repository: &Repository, context: &Context<'_>, known: &[String]) {
    let layout = repository.layout();
    let is_gone = |name: &&String| context.config.mirror(name).is_none() && is_being_removed(&layout.remote(name));
    for name in known.iter().filter(is_gone) {
        // A failure must not stop the other mirrors.
        if let Err(error) = forget_removed(repository, context, name) {
            tracing::warn!("{error}");
        }
    }
}

/// Ends the removals of a silent repository, for which nothing else is done.
///
/// # Errors
/// [`Error`], when its mirrors cannot be listed.
pub fn clean_up(repository: &Repository, context: &Context<'_>) -> Result<(), Error> {
    let layout = repository.layout();
    let known = spool::mirrors(&layout).map_err(Error::files("list the mirrors", layout.root().to_owned()))?;
    finish_removals(repository, context, &known);
    Ok(())
}

/// Ends a removal whose process was killed before the files were gone. It acts only on the mark of a removal. A mirror that this
/// configuration does not name may still be in use: another server's file may name it.
fn forget_removed(repository: &Repository, context: &Context<'_>, name: &str) -> Result<(), Error> {
    let directory = repository.layout().remote(name);
    let Some(_lock) = Lock::try_acquire(&directory, repository.sharing())? else { return Ok(()) };
    if crate::config::load(repository, context.server)?.mirror(name).is_some() || !is_being_removed(&directory) {
        return Ok(());
    }
    forget(&directory).map_err(Error::files("forget a removed mirror", directory))
}

/// What first contact found, in words.
fn values(unknown: usize) -> String {
    match unknown {
        0 => "branches or tags whose objects".into(),
        1 => "1 ref whose object".into(),
        count => format!("{count} refs whose objects"),
    }
}
