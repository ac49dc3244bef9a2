//! The conversation with a mirror's receive-pack.
//!
//! ```text
//! connect ─▶ advertisement ─▶ (observe, plan) ─▶ commands + pack ─▶ report
//! ```
//!
//! [`Session::connect`] connects, [`Session::advertisement`] streams the refs, [`Session::push`] sends one request and returns the answer
//! to each command (gitprotocol-pack(5), "Pushing Data To a Server"). gix-transport reads and writes the packet lines.
//!
//! Guaranteed: no request is sent twice. A session that ends leaves no process behind, except the ssh process of a shared connection, which
//! belongs to the pool. Every wait has a limit. Memory does not grow with what the mirror sends, except for the refs that were asked for.
//! Absent: decisions, retries, state. After a crash the mirror sees a broken connection. git
//! carries out a push only after it has received the whole push.

use std::path::Path;

use crate::credentials::Redactor;
use crate::refs::{NameRef, Oid};
use crate::wire::{Connection, Error, Own, Pool, Service, Target, Timeouts, own_receive_pack};

mod advertisement;
mod body;
mod command;
#[cfg(fuzzing)]
pub mod fuzzed;
mod over_http;
mod over_stream;
mod pack;
mod progress;
mod report;

pub use advertisement::{Advertised, Capabilities};
pub use command::{Command, Request};
pub use pack::{DeltaBase, Incomplete, PackObjects, PackReader, PackSource};
pub use progress::Progress;
pub use report::{Answer, Report};

use advertisement::MaxBytes;
use over_http::OverHttp;
use over_stream::OverStream;

/// One conversation with a mirror's receive-pack.
pub struct Session {
    conversation: Conversation,
    redactor: Redactor,
}

enum Conversation {
    Stream(Box<OverStream>),
    Http(Box<OverHttp>),
}

impl Session {
    /// Prepares the conversation, over a connection of `pool` if one can be used. A stream is connected now. Over http nothing is sent yet.
    ///
    /// # Errors
    /// [`Error`]; many errors of a connection appear only in [`Session::advertisement`].
    pub fn connect(target: &Target, pool: &Pool) -> Result<Self, Error> {
        let most = if target.egress.is_some() { MaxBytes::CONFINED } else { MaxBytes::USUAL };
        let conversation = match Connection::open(Service::ReceivePack, target, pool)? {
            Connection::Stream(stream) => Conversation::Stream(Box::new(OverStream::new(*stream, most))),
            Connection::Http(http) => Conversation::Http(Box::new(OverHttp::new(*http, most))),
        };
        Ok(Self { conversation, redactor: Redactor::new(&target.credentials) })
    }

    /// Connects to the receive-pack of our own repository at `path`. Also returns the id of its process, which leads a process group.
    ///
    /// # Errors
    /// [`Error`]
    pub fn own(path: &Path, own: &Own, timeouts: Timeouts) -> Result<(Self, u32), Error> {
        let (stream, pid) = own_receive_pack(path, own, timeouts)?;
        let conversation = Conversation::Stream(Box::new(OverStream::new(stream, MaxBytes::USUAL)));
        Ok((Self { conversation, redactor: Redactor::default() }, pid))
    }

    /// Requests the advertisement, so that the mirror prepares it while we do something else. Over a stream, connecting has already
    /// requested it.
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
    /// [`Error`], when the request fails before its report. Over a stream, a report that is cut
    /// short before its first answer is an error too. Any other report that is cut short is no
    /// error: it lacks answers, and `Report::cut` says why.
    pub fn push(&mut self, request: &Request<'_>, pack: Option<PackSource>) -> Result<Report, Error> {
        match &mut self.conversation {
            Conversation::Stream(stream) => stream.push(request, pack, &self.redactor),
            Conversation::Http(http) => http.push(request, pack, &self.redactor),
        }
    }

    /// Sends one request without reading the advertisement first. `expected` has the mirror's capabilities of the last contact. An
    /// advertisement that arrives meanwhile is skipped.
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

    /// Whether the mirror may still carry out the commands of a push that failed with `error`. Over
    /// a stream it may, whatever `error` is, once receive-pack has answered and the commands are on
    /// their way. It cannot if the pack could not be made. In all other cases `error` decides.
    #[must_use]
    pub fn may_carry_out(&self, error: &Error) -> bool {
        let is_asked = matches!(&self.conversation, Conversation::Stream(stream) if stream.may_be_carried_out());
        is_asked || error.may_have_arrived()
    }

    /// Ends the conversation without a request. Over a stream, a flush packet tells the mirror that no commands follow.
    pub fn end(self) {
        if let Conversation::Stream(stream) = self.conversation {
            stream.end();
        }
    }
}
