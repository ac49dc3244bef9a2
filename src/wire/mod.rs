//! The way to a mirror: addresses, transports, and the reasons why a contact failed.
//!
//! `Connection::open` reaches a service of git. A `Stream` is two byte streams (a program, ssh, TCP), and `Http` is requests and answers.
//! `push` and `fetch` hold the conversation over them. gix-transport reads and writes the packet
//! lines.
//!
//! Guaranteed: a connection that ends leaves no process behind, except the shared connection of ssh
//! (see `ssh_control`); every wait has a limit, except in an [`Upload`], where git holds the
//! conversation; a confined mirror reaches only what its egress policy allows; an error says
//! whether another try is worth it. Absent: the conversation, decisions, state. After a crash the
//! mirror sees a broken connection.

use std::time::Duration;

use crate::credentials::Credentials;

mod address;
mod api;
mod askpass;
mod egress;
mod error;
#[cfg(fuzzing)]
pub mod fuzzed;
mod headers;
mod http;
mod local;
mod messages;
mod packets;
mod pool;
mod read_ahead;
mod shell;
mod shown;
mod ssh;
mod ssh_control;
mod stream;
mod tcp;
mod tls;
mod upload;
mod watch;

pub use address::{Address, Refused, parse};
pub use api::{Api, Reply, Scheme, path_segment};
pub use askpass::{AskpassServer, VARIABLE as ASKPASS_VARIABLE, answer as answer_askpass};
pub use egress::{Allowed, Egress};
pub use error::{CertificateProblem, Class, Error, Limit, RetrySmaller};
pub use local::Own;
pub use pool::Pool;
pub use shell::shell;
#[cfg(feature = "fleet")]
pub use tls::client_tls;
pub use upload::Upload;

pub(crate) use address::bracketed;
pub(crate) use http::{Http, Lines as HttpLines, drain};
pub(crate) use messages::{Messages, about};
pub(crate) use packets::{broken, next_line, refused_by_server};
pub(crate) use ssh::known_as;
pub(crate) use stream::{Lines as StreamLines, Sending, Stage, Stream};

/// A service of git on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Takes pushes.
    ReceivePack,
    /// Serves fetches.
    UploadPack,
}

impl Service {
    /// The name of its program, which URLs contain too.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReceivePack => "git-receive-pack",
            Self::UploadPack => "git-upload-pack",
        }
    }

    /// The protocol version that we ask for: `GIT_PROTOCOL` over ssh and on this machine, `Git-Protocol` over http, an extra parameter over
    /// git://.
    const fn version(self) -> Option<&'static str> {
        match self {
            Self::ReceivePack => None,
            Self::UploadPack => Some("version=2"),
        }
    }
}

/// Which mirror to contact, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the mirror is.
    pub address: Address,
    /// The user name and the password or token.
    pub credentials: Credentials,
    /// The settings for ssh: private key, pinned host keys, options.
    pub ssh: Ssh,
    /// PEM certificates that are trusted instead of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// The proxy's URL; `None` leaves it to the environment.
    pub proxy: Option<String>,
    /// The limits of waiting.
    pub timeouts: Timeouts,
    /// Which addresses may be connected to; `None` allows all.
    pub egress: Option<Egress>,
}

/// Settings for ssh in addition to the user's own configuration.
#[derive(Clone, Debug, Default)]
pub struct Ssh {
    /// The only private key that ssh may use.
    pub identity: Option<std::path::PathBuf>,
    /// The file of pinned host keys; only these count then.
    pub known_hosts: Option<std::path::PathBuf>,
    /// The program that answers ssh's question for the password, if the mirror has one.
    pub askpass: Option<std::path::PathBuf>,
    /// Further options in the form of ssh_config(5), `Keyword=value`.
    pub options: Vec<String>,
    /// How many contacts are likely within a minute.
    pub contacts: Contacts,
}

/// How many contacts with a mirror over ssh are likely within a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contacts {
    /// One. Contacts share a connection from the second contact on.
    #[default]
    One,
    /// More, so later contacts share the connection of the first contact.
    More,
}

/// The limits of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Maximum time to establish a connection.
    pub connect: Duration,
    /// Abort when nothing was sent or received for this long.
    pub stall: Duration,
    /// Maximum time for one whole contact.
    pub whole: Duration,
}

/// Starts the receive-pack of our own repository, and connects to it. Also returns the id of its process, which leads a process group.
///
/// # Errors
/// [`Error::NotFound`] or [`Error::Start`]
pub(crate) fn own_receive_pack(path: &std::path::Path, own: &Own, timeouts: Timeouts) -> Result<(Stream, u32), Error> {
    local::connect_own(path, own, timeouts)
}

/// A connection to a service of git.
pub(crate) enum Connection {
    /// Two byte streams.
    Stream(Box<Stream>),
    /// Requests and answers.
    Http(Box<Http>),
}

impl Connection {
    /// Connects to a service of the mirror. Uses a connection of `pool` if one fits. Over http
    /// nothing is sent yet.
    pub(crate) fn open(service: Service, target: &Target, pool: &Pool) -> Result<Self, Error> {
        if let Some(egress) = target.egress.as_ref().filter(|_| !matches!(target.address, Address::Git { .. })) {
            egress.check(&target.address)?;
        }
        let stream = match &target.address {
            Address::Local(path) => local::connect(service, path, target)?,
            Address::Ssh { user, host, port, path } => {
                ssh::connect(service, user.as_deref(), host, *port, path, target, pool)?
            }
            Address::Git { host, port, path } => tcp::connect(service, host, *port, path, target)?,
            Address::Http { url, host } => {
                return Ok(Self::Http(Box::new(Http::new(url, host, target, pool)?)));
            }
        };
        Ok(Self::Stream(Box::new(stream)))
    }
}
