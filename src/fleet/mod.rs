//! Several machines, each with a daemon and disks of its own, that share a PostgreSQL database.
//!
//! The database holds what no machine alone can know: which nodes live, and how all mirrors stand. Guaranteed: it can be lost. Pushes are
//! recorded and mirrored without it, and the copies in it are made again from the files of each node. It holds no password, no key and no
//! URL with credentials. Absent: repositories that two machines serve, requests that one node hands to another, and tokens.
//!
//! A node that is killed leaves its rows, and is called gone when the database has not heard of it for a while. A transaction that a crash
//! cuts off changes nothing, and is made again.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{FleetKeys, Server};
use crate::credentials::{Cleaned, Redactor};

mod copies;
#[cfg(feature = "fleet")]
mod database;
#[cfg(not(feature = "fleet"))]
#[path = "no_database.rs"]
mod database;
mod divide;
mod hosts;
mod look;
mod node;
mod projects;
mod schema;

pub use copies::{Later, Repository, Tallies, Tally, digest};
pub use hosts::{Asked, Limit, Limits, Own, Use};
pub use look::{Counts, HostNode, Look, Only, SeenHost, SeenNode, Shown, Twin, Twins};
pub use node::{Answer, Node, Pulse};
pub use projects::{Listed, Numbered, expressions};
pub use schema::{init, print};

/// How often a node asks the database.
pub const BEAT: Duration = Duration::from_secs(2);
/// A node that had no answer for this long is cut off. It then relies on itself alone.
pub const CUT: Duration = Duration::from_secs(10);
/// A node is gone if the database has not heard of it for this many seconds.
const GONE: u32 = 15;

/// The longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Why the database of the fleet cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's file names no database.
    #[error("this machine is in no fleet: the server's file has no url in [fleet]")]
    NoFleet,
    /// The program cannot speak to a database.
    #[error("this program was built without the feature 'fleet'")]
    NotBuilt,
    /// The URL cannot be used.
    #[error("the url in [fleet] cannot be used: {0}")]
    Url(Cleaned),
    /// There is no usable password.
    #[error("{0}")]
    Secret(String),
    /// The connection would not be protected.
    #[error(
        "the database is on another machine, and its url says sslmode=disable; allow_insecure in [fleet] permits that"
    )]
    Insecure,
    /// It cannot be reached, or the connection has ended.
    #[error("cannot reach the database of the fleet: {0}")]
    Unreachable(Cleaned),
    /// It has answered with an error.
    #[error("the database of the fleet refuses: {0}")]
    Refused(Cleaned),
    /// It has answered with something that no statement of ours returns.
    #[error("the database of the fleet gave an answer that makes no sense: {0}")]
    Odd(Cleaned),
    /// It is not prepared.
    #[error("the database of the fleet has no tables of ours; 'git mirror-push fleet init' makes them")]
    NoTables,
    /// Its tables are of another version.
    #[error(
        "the tables in the database of the fleet have version {found}, but this program knows only version {}: {fix}",
        schema::VERSION
    )]
    Version {
        /// The version of the tables.
        found: u32,
        /// What to do.
        fix: &'static str,
    },
    /// Another daemon has this node's name.
    #[error(
        "another running daemon is node '{0}' of the fleet; give each machine a name of its own with node in [fleet]"
    )]
    NameTaken(String),
    /// No node has this name.
    #[error("the fleet has no node '{0}'; 'git mirror-push fleet' lists them")]
    NoNode(String),
    /// The node still runs.
    #[error(
        "node '{0}' is running; stop its daemon, or remove [fleet] from its configuration, and try again after {GONE} seconds"
    )]
    StillThere(String),
}

/// How the database is reached, and as whom.
#[derive(Clone, Debug)]
pub struct Access {
    url: String,
    keys: FleetKeys,
    /// Where systemd puts the password.
    #[cfg_attr(not(feature = "fleet"), expect(dead_code, reason = "only a connection needs it"))]
    systemd: Option<PathBuf>,
    node: String,
}

impl Access {
    /// What the server's files say. `None` if this machine is in no fleet.
    #[must_use]
    pub fn of(server: &Server) -> Option<Self> {
        let keys = server.fleet.clone();
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        Some(Self {
            url: keys.url.clone()?,
            systemd: server.credential_env.directory.as_ref().map(|directory| directory.join("fleet")),
            node: keys.node.clone().unwrap_or_else(host),
            keys,
        })
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The user of the URL, who is to have the rights of a daemon; empty if it names none.
    fn user(&self) -> String {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let user = rest.split_once('@').map_or("", |(user, _)| user);
        percent_encoding::percent_decode_str(user).decode_utf8_lossy().into_owned()
    }
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> Cleaned {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Many errors repeat their cause.
    texts.dedup_by(|inner, outer| outer.contains(&**inner));
    Redactor::default().clean(&texts.join(": "))
}
