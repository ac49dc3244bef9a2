//! Makes the repository of a mirror that does not exist: empty, with our object format and
//! description. It also gets our default branch's name, except at GitHub and GitLab.
//!
//! `path` and `ssh` run `git init`; `github`, `gitlab` and `gitea` ask the API of the host; `create_command` runs a program.
//! `pace` says when a host may be asked for one more.
//!
//! Guaranteed: nothing that exists is changed, except that `path` may replace an empty directory. A
//! repository on this machine appears as a whole or not at all. A token goes only to the API of the
//! mirror's host, or to `create_url`. Absent: whether a repository may be made ([`crate::drain`]
//! decides that, once for each mirror), and what is pushed into it. After a crash there is no
//! repository, or an empty one, which the next run finds.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Create, CreateKind, Maker, Mirror};
use crate::credentials::Secret;
use crate::repo::{self, Repository};
use crate::wire::{self, Address, Class, Pool, Target};

mod command;
mod facts;
mod gitea;
mod github;
mod gitlab;
mod host;
mod pace;
mod path;
mod ssh;

pub use pace::{Pace, Turn, pace};
pub use path::is_free;

use facts::Facts;
use host::Host;

/// The repository that is wanted.
pub struct Wanted<'w> {
    /// Ours, whose mirror is made.
    pub repository: &'w Repository,
    /// The mirror.
    pub mirror: &'w Mirror,
    /// How it is made.
    pub create: &'w Create,
    /// The mirror's address, credentials and limits.
    pub target: &'w Target,
    /// The token of `create_token_file`, or the mirror's own password.
    pub token: Option<&'w Secret>,
    /// Connections that are shared.
    pub pool: &'w Pool,
}

/// The result of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    Now,
    /// The host says that it exists already.
    Before,
}

/// Why a repository was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contact with the host failed.
    #[error("cannot create the repository: {0}")]
    Wire(#[from] wire::Error),
    /// Our repository cannot be read.
    #[error(transparent)]
    Repository(#[from] repo::Error),
    /// The host or we do not make it. The text says why and what to do.
    #[error("cannot create the repository: {0}")]
    Refused(String),
    /// The host wants us to wait before anything else is created there.
    #[error("'{host}' asks to wait before more repositories are created")]
    Limited {
        /// The host.
        host: String,
        /// How long.
        wait: Duration,
    },
    /// Others are created at this host first.
    #[error("waiting to be created, {} at '{host}', about {}", ordinal(*place), minutes(*wait))]
    Waits {
        /// The host.
        host: String,
        /// Its place in the queue, from 1.
        place: usize,
        /// How long.
        wait: Duration,
    },
    /// A file or directory cannot be made.
    #[error("cannot create '{}': {source}", path.display())]
    Files {
        /// Its path.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// git or the program of `create_command` failed.
    #[error("cannot create the repository: {0}")]
    Program(String),
}

impl Error {
    /// Whether another try is worth it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Wire(error) => error.class(),
            Self::Refused(_) => Class::Permanent,
            Self::Repository(_) | Self::Limited { .. } | Self::Waits { .. } => Class::Temporary,
            Self::Files { .. } | Self::Program(_) => Class::Temporary,
        }
    }

    /// How long to wait at least.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Wire(error) => error.retry_after(),
            Self::Limited { wait, .. } | Self::Waits { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

/// Makes the repository.
///
/// # Errors
/// [`Error`]
pub fn create(wanted: &Wanted<'_>) -> Result<Made, Error> {
    let facts = Facts::of(wanted.repository)?;
    let kind = match &wanted.create.maker {
        Maker::Command(words) => return command::create(words, wanted, &facts),
        Maker::Kind(kind) => *kind,
    };
    match kind {
        CreateKind::Path => match &wanted.target.address {
            Address::Local(path) => path::create(path, &facts),
            _ => Err(Error::Refused("its URL is no path on this machine".into())),
        },
        CreateKind::Ssh => ssh::create(wanted, &facts),
        // The host makes it when something is pushed.
        CreateKind::Push => Ok(Made::Before),
        CreateKind::Github => github::create(&Host::of(wanted, kind)?, &facts, wanted.create.visibility),
        CreateKind::Gitlab => gitlab::create(&Host::of(wanted, kind)?, &facts, wanted.create.visibility),
        CreateKind::Gitea => gitea::create(&Host::of(wanted, kind)?, &facts, wanted.create.visibility),
    }
}

/// A number with the ending of its ordinal.
fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A time in minutes, rounded up; below a minute in seconds.
fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_times_are_said_as_people_say_them() {
        for (number, text) in
            [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (112, "112th"), (214, "214th"), (121, "121st")]
        {
            assert_eq!(ordinal(number), text);
        }
        for (seconds, text) in [(0, "1 s"), (59, "59 s"), (60, "1 min"), (1605, "27 min")] {
            assert_eq!(minutes(Duration::from_secs(seconds)), text);
        }
    }
}
