//! The conversation with a mirror's receive-pack.
//!
//! ```text
//! connect ─▶ advertisement ─▶ (observe, plan) ─▶ commands + pack ─▶ report
//! ```
//!
//! [`Session::connect`] connects, [`Session::advertisement`] streams the refs, [`Session::push`] sends one request and returns the answer to
//! each command (gitprotocol-pack(5), "Pushing Data To a Server"). gix-transport reads and writes the packet lines.
//!
//! Guaranteed: no request is sent twice. A session that ends leaves no process behind. Every wait has a limit. Memory does not grow
//! with what the mirror sends, except for the refs that were asked for. Absent: decisions, retries, state. After a crash the mirror sees a
//! broken connection; git applies a push only when it has all of it.

use std::time::Duration;

use crate::credentials::{Credentials, Redactor};
use crate::refs::{NameRef, Oid};

mod address;
mod advertisement;
mod askpass;
mod body;
mod command;
mod egress;
mod error;
#[cfg(fuzzing)]
pub mod fuzzed;
mod headers;
mod http;
mod local;
mod messages;
mod multiplex;
mod over_http;
mod over_stream;
mod pack;
mod packets;
mod pool;
mod progress;
mod read_ahead;
mod report;
mod shown;
mod ssh;
mod stream;
mod symbolic;
mod tcp;
mod tls;
mod upload;
mod watch;

pub use address::{Address, Refused, parse};
pub use advertisement::{Advertised, Capabilities};
pub use askpass::{AskpassServer, VARIABLE as ASKPASS_VARIABLE, answer as answer_askpass};
pub use command::{Command, Request};
pub use egress::{Allowed, Egress};
pub use error::{Class, Error, Limit, RetrySmaller};
pub use pack::{DeltaBase, Incomplete, PackObjects, PackSource};
pub use pool::Pool;
pub use progress::Progress;
pub use report::{Answer, Report};
pub use symbolic::{Symbolic, symbolic};
pub use upload::Upload;

use over_http::OverHttp;
use over_stream::OverStream;

/// A service of git on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Takes pushes.
    ReceivePack,
    /// Is read from.
    UploadPack,
}

impl Service {
    /// The name of its program, and in URLs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ReceivePack => "git-receive-pack",
            Self::UploadPack => "git-upload-pack",
        }
    }

    /// The version of the protocol that it is asked for: `GIT_PROTOCOL` over ssh, `Git-Protocol` over http, an extra parameter over git://.
    const fn version(self) -> Option<&'static str> {
        match self {
            Self::ReceivePack => None,
            Self::UploadPack => Some("version=2"),
        }
    }
}

/// Whom to push to and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the mirror is.
    pub address: Address,
    /// With what it is greeted.
    pub credentials: Credentials,
    /// Its private key and pinned host keys, when it has them.
    pub ssh: Ssh,
    /// PEM certificates that are trusted instead of the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// The proxy's URL; `None` leaves it to the environment.
    pub proxy: Option<String>,
    /// The limits of waiting.
    pub timeouts: Timeouts,
    /// What it may reach; `None` is everything.
    pub egress: Option<Egress>,
}

/// What ssh is told beyond the user's own configuration.
#[derive(Clone, Debug, Default)]
pub struct Ssh {
    /// A private key to use, and no other.
    pub identity: Option<std::path::PathBuf>,
    /// The file of pinned host keys; only these count then.
    pub known_hosts: Option<std::path::PathBuf>,
    /// The program that answers ssh's question for the password, if the mirror has one.
    pub askpass: Option<std::path::PathBuf>,
    /// Further options in the form of ssh_config(5), `Keyword=value`.
    pub options: Vec<String>,
}

/// The limits of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection to come about.
    pub connect: Duration,
    /// Without a byte.
    pub stall: Duration,
    /// For one contact in whole.
    pub whole: Duration,
}

/// A connection to a service of git.
pub(crate) enum Connection {
    /// Two byte streams.
    Stream(Box<stream::Stream>),
    /// Requests and answers.
    Http(Box<http::Http>),
}

impl Connection {
    /// Reaches a service of the mirror, over a connection of `pool` if one serves. Over http nothing is sent yet.
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
                return Ok(Self::Http(Box::new(http::Http::new(url, host, target, pool)?)));
            }
        };
        Ok(Self::Stream(Box::new(stream)))
    }
}

/// A contact that has begun.
pub struct Session {
    conversation: Conversation,
    redactor: Redactor,
}

enum Conversation {
    Stream(Box<OverStream>),
    Http(Box<OverHttp>),
}

impl Session {
    /// Reaches the mirror, over a connection of `pool` if one serves.
    ///
    /// # Errors
    /// [`Error`]; over a stream some errors are only seen by [`Session::advertisement`].
    pub fn connect(target: &Target, pool: &Pool) -> Result<Self, Error> {
        let conversation = match Connection::open(Service::ReceivePack, target, pool)? {
            Connection::Stream(stream) => Conversation::Stream(Box::new(OverStream::new(*stream))),
            Connection::Http(http) => Conversation::Http(Box::new(OverHttp::new(*http))),
        };
        Ok(Self { conversation, redactor: Redactor::new(&target.credentials) })
    }

    /// Asks for the advertisement, so that the mirror can be at it while we do something else. Over a stream that was asked for by
    /// connecting.
    ///
    /// # Errors
    /// [`Error`].
    pub fn begin(&mut self) -> Result<(), Error> {
        match &mut self.conversation {
            Conversation::Stream(_) => Ok(()),
            Conversation::Http(http) => http.begin(),
        }
    }

    /// Reads the advertisement and calls `each` with every ref, `.have` lines excepted.
    ///
    /// # Errors
    /// [`Error`].
    pub fn advertisement(&mut self, each: &mut dyn FnMut(NameRef<'_>, Oid)) -> Result<Advertised, Error> {
        match &mut self.conversation {
            Conversation::Stream(stream) => stream.advertisement(&self.redactor, each),
            Conversation::Http(http) => http.advertisement(each),
        }
    }

    /// Sends one request and reads the report. Over a stream the session has then ended; over http another
    /// [`Session::advertisement`] may follow on the same connection.
    ///
    /// # Errors
    /// [`Error`], when nothing is known of any command: a report that is cut short is not an error here, it lacks answers.
    pub fn push(&mut self, request: &Request<'_>, pack: Option<PackSource>) -> Result<Report, Error> {
        match &mut self.conversation {
            Conversation::Stream(stream) => stream.push(request, pack, &self.redactor),
            Conversation::Http(http) => http.push(request, pack, &self.redactor),
        }
    }

    /// Sends one request without reading what the mirror has: `expected` is what it could do at the last contact. What then
    /// comes of its advertisement is read over and passed over.
    ///
    /// # Errors
    /// As [`Session::advertisement`] and [`Session::push`].
    pub fn push_optimistic(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        expected: &Capabilities,
    ) -> Result<Report, Error> {
        match &mut self.conversation {
            Conversation::Stream(stream) => stream.push_optimistic(request, pack, &self.redactor, expected),
            Conversation::Http(http) => http.push_optimistic(request, pack, &self.redactor, expected),
        }
    }

    /// Whether another advertisement can be read on this connection after a push.
    #[must_use]
    pub fn can_continue(&self) -> bool {
        matches!(self.conversation, Conversation::Http(_))
    }

    /// Whether the mirror may still carry out the commands of a push that failed with `error`. Over a stream that is so once receive-pack
    /// was heard, whatever it or somebody else said as it hung up; over http the answer's status tells.
    #[must_use]
    pub fn may_carry_out(&self, error: &Error) -> bool {
        let is_asked = matches!(&self.conversation, Conversation::Stream(stream) if stream.may_be_carried_out());
        is_asked || error.may_have_arrived()
    }

    /// Ends the conversation without a request, politely.
    pub fn end(self) {
        if let Conversation::Stream(stream) = self.conversation {
            stream.end();
        }
    }
}
