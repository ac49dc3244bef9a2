//! A push over two byte streams: one advertisement, one request, one report.
//!
//! The request is written in a thread of its own while the report is read. So a mirror that sends messages while it receives a large pack
//! never blocks us, and we never block it.

use std::io::{self, Read, Write};

use super::advertisement::MaxBytes;
use super::{Advertised, Capabilities, PackSource, Report, Request, advertisement, report};
use crate::credentials::Redactor;
use crate::refs::{NameRef, Oid};
use crate::wire::{Error, Sending, Stage, Stream, StreamLines};

/// A push over a stream.
pub(super) struct OverStream {
    stream: Stream,
    capabilities: Capabilities,
    most: MaxBytes,
    /// Whether receive-pack has answered and commands are being sent. From then on it may carry them out.
    is_asked: bool,
}

impl OverStream {
    /// Prepares a push over an open connection to receive-pack.
    pub(super) fn new(stream: Stream, most: MaxBytes) -> Self {
        Self { stream, capabilities: Capabilities::default(), most, is_asked: false }
    }

    /// Reads the advertisement.
    pub(super) fn advertisement(
        &mut self,
        redactor: &Redactor,
        each: &mut dyn FnMut(NameRef<'_>, Oid),
    ) -> Result<Advertised, Error> {
        match advertisement::read(self.stream.lines(), self.most, each) {
            Ok(advertised) => {
                self.stream.opened();
                self.capabilities = advertised.capabilities.clone();
                Ok(advertised)
            }
            Err(error) => Err(self.stream.failure(error, Stage::Opening, redactor)),
        }
    }

    /// Sends the request, reads the report, ends the conversation.
    pub(super) fn push(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
    ) -> Result<Report, Error> {
        self.exchange(request, pack, redactor, |_| Ok(()))
    }

    /// Sends the request at once, and reads the advertisement meanwhile.
    pub(super) fn push_optimistic(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
        expected: &Capabilities,
    ) -> Result<Report, Error> {
        self.capabilities = expected.clone();
        let most = self.most;
        self.exchange(request, pack, redactor, |lines| advertisement::pass_over(lines, most))
    }

    /// Sends the request in another thread. Meanwhile this thread calls `before`, which reads what comes before the report, and then reads
    /// the report.
    fn exchange(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
        before: impl FnOnce(&mut StreamLines) -> Result<(), Error>,
    ) -> Result<Report, Error> {
        let head = request.encode(&self.capabilities);
        let (mut sending, receiving) = self.stream.split();
        let (capabilities, is_asked) = (&self.capabilities, &mut self.is_asked);
        let (sent, mut report) = std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let sent = send(&mut sending, &head, pack);
                if let Err(Error::Pack { .. } | Error::Start { .. }) = sent {
                    // The mirror must not wait for a pack that cannot come.
                    sending.abort();
                }
                sent
            });
            let report = match before(receiving.lines) {
                Ok(()) => {
                    *is_asked = true;
                    receiving.lines.reset();
                    report::read(receiving.lines, request, capabilities, redactor)
                }
                Err(error) => Report { cut: Some(error), ..Report::default() },
            };
            if report.cut.is_some() {
                receiving.abort();
            }
            (sender.join().expect("the sending thread does not panic"), report)
        });
        let Some(cut) = report.cut.take() else {
            self.stream.finish();
            return Ok(report);
        };
        let cut = match sent {
            Err(error @ (Error::Pack { .. } | Error::Start { .. })) => {
                // git never unpacks a pack that ends early, so it carries out no command.
                self.is_asked = false;
                error
            }
            _ => cut,
        };
        let stage = if self.is_asked { Stage::Commands } else { Stage::Opening };
        let why = self.stream.failure(cut, stage, redactor);
        if report.answers.is_empty() {
            return Err(why);
        }
        report.cut = Some(why);
        Ok(report)
    }

    /// Whether receive-pack has answered, so that it may carry out the commands. Otherwise the error decides: see
    /// `Error::may_have_arrived`.
    pub(super) fn may_be_carried_out(&self) -> bool {
        self.is_asked
    }

    /// Ends the conversation without a request.
    pub(super) fn end(self) {
        self.stream.end();
    }
}

/// Writes the commands and the pack. The stall limit does not run while the pack is being made.
fn send(output: &mut Sending<'_>, head: &[u8], pack: Option<PackSource>) -> Result<(), Error> {
    let broken = |source| Error::Broken { doing: "sending the objects", source };
    output.write_all(head).map_err(broken)?;
    output.flush().map_err(broken)?;
    let Some(pack) = pack else { return Ok(()) };
    output.pause();
    let mut pack = pack.open()?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        output.pause();
        let count = match pack.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(pack.failure(&error)),
        };
        output.resume();
        if count == 0 {
            break;
        }
        output.write_all(&chunk[..count]).map_err(broken)?;
    }
    output.flush().map_err(broken)
}
