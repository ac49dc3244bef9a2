//! A conversation over two byte streams: the pipes of a program, or a TCP connection.
//!
//! The request is written in a thread of its own while the report is read. So a mirror that sends messages while it receives a large pack
//! never blocks us, and we never block it.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use rustix::process::Signal;

use super::askpass::AskpassServer;
use super::multiplex::ControlSlot;
use super::read_ahead::ReadAhead;
use super::ssh::{error_of, one_line};
use super::symbolic::{self, Greeting, Symbolic};
use super::watch::{Watch, WatchThread, Watched};
use super::{Advertised, Capabilities, Error, PackSource, Report, Request, Timeouts, advertisement, report};
use crate::credentials::Redactor;
use crate::process::{self, Child};
use crate::refs::{NameRef, Oid, RefName};

/// How long a program may take to end by itself after the last byte.
const GRACE: Duration = Duration::from_secs(5);

type Input = BufReader<Watched<Box<dyn Read + Send>>>;
type Output = Watched<Box<dyn Write + Send>>;

/// One conversation.
pub(super) struct Stream {
    lines: StreamingPeekableIter<Input>,
    output: Option<Output>,
    capabilities: Capabilities,
    abort: Box<dyn Fn(Signal) + Send + Sync>,
    guard: Option<WatchThread>,
    child: Option<Child>,
    offer: Option<AskpassServer>,
    slot: Option<ControlSlot>,
    /// Whether receive-pack was heard and is given commands.
    is_asked: bool,
}

impl Stream {
    /// With a program.
    pub(super) fn of_child(mut child: Child, timeouts: Timeouts) -> Self {
        let (input, output) = (Box::new(child.stdout()), Box::new(child.stdin()));
        let abort = Box::new(child.killer());
        Self::new(input, output, timeouts, child.killer(), abort, Some(child))
    }

    /// With a program on sockets, which are shut when it is ended: others may hold them too.
    pub(super) fn of_sockets(
        child: Child,
        input: UnixStream,
        output: UnixStream,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        let ends = Arc::new((input.try_clone()?, output.try_clone()?));
        let killer = || {
            let (ends, end) = (Arc::clone(&ends), child.killer());
            move |insistence| {
                end(insistence);
                // What is shut already needs no shutting.
                let _ = ends.0.shutdown(Shutdown::Both);
                let _ = ends.1.shutdown(Shutdown::Both);
            }
        };
        let (on_limit, abort) = (killer(), Box::new(killer()));
        let input = Box::new(ReadAhead::new(input)?);
        Ok(Self::new(input, Box::new(Ending(output)), timeouts, on_limit, abort, Some(child)))
    }

    /// With a connection that `abort` shuts.
    pub(super) fn of_socket(
        input: Box<dyn Read + Send>,
        output: Box<dyn Write + Send>,
        timeouts: Timeouts,
        abort: impl Fn(Signal) + Send + Sync + Clone + 'static,
    ) -> Self {
        Self::new(input, output, timeouts, abort.clone(), Box::new(abort), None)
    }

    fn new(
        input: Box<dyn Read + Send>,
        output: Box<dyn Write + Send>,
        timeouts: Timeouts,
        on_limit: impl Fn(Signal) + Send + 'static,
        abort: Box<dyn Fn(Signal) + Send + Sync>,
        child: Option<Child>,
    ) -> Self {
        let guard = WatchThread::new(timeouts, on_limit);
        let input = BufReader::with_capacity(64 << 10, Watched { inner: input, watch: guard.watch.clone() });
        let output = Watched { inner: output, watch: guard.watch.clone() };
        Self {
            lines: StreamingPeekableIter::new(input, &[PacketLineRef::Flush], false),
            output: Some(output),
            capabilities: Capabilities::default(),
            abort,
            guard: Some(guard),
            child,
            offer: None,
            slot: None,
            is_asked: false,
        }
    }

    /// Keeps the password's socket, and its place on a shared connection, as long as the conversation.
    pub(super) fn keeping(self, offer: Option<AskpassServer>, slot: Option<ControlSlot>) -> Self {
        Self { offer, slot, ..self }
    }

    /// Reads the advertisement.
    pub(super) fn advertisement(
        &mut self,
        redactor: &Redactor,
        each: &mut dyn FnMut(NameRef<'_>, Oid),
    ) -> Result<Advertised, Error> {
        match advertisement::read(&mut self.lines, each) {
            Ok(advertised) => {
                self.offer = None;
                self.slot.iter().for_each(ControlSlot::opened);
                self.capabilities = advertised.capabilities.clone();
                Ok(advertised)
            }
            Err(error) => Err(self.why(error, redactor)),
        }
    }

    /// Asks upload-pack, which is at the other end, which refs are symbolic, and ends the conversation.
    pub(super) fn symbolic(mut self, names: &[&RefName], redactor: &Redactor) -> Result<Symbolic, Error> {
        let mut has_more = false;
        let asked = symbolic::greeting(&mut self.lines).and_then(|greeting| match greeting {
            Greeting::Refs(symbolic) => {
                has_more = true;
                Ok(symbolic)
            }
            Greeting::Commands { ls_refs: false, .. } => Ok(Symbolic::default()),
            Greeting::Commands { object_format, is_git, .. } => {
                let output = self.output.as_mut().expect("nothing was said yet");
                let request = symbolic::request(object_format.as_deref(), names);
                let sent = output.write_all(&request).and_then(|()| output.flush());
                sent.map_err(|source| Error::Broken { doing: "asking for its refs", source })?;
                symbolic::answer(&mut self.lines, names, is_git)
            }
        });
        match asked {
            Ok(symbolic) => {
                self.offer = None;
                self.slot.iter().for_each(ControlSlot::opened);
                if has_more {
                    // All its refs are on their way, and nobody reads them.
                    (self.abort)(Signal::TERM);
                }
                self.end();
                Ok(symbolic)
            }
            Err(error) => {
                // Who may push and not read is told so over a connection that is good.
                let slot = self.slot.take();
                let why = self.why(error, redactor);
                slot.iter().filter(|_| matches!(why, Error::Timeout(_))).for_each(ControlSlot::discard);
                Err(why)
            }
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
        self.exchange(request, pack, redactor, advertisement::pass_over)
    }

    /// Sends the request in a thread of its own and reads: what comes `before` the report, and the report.
    fn exchange(
        &mut self,
        request: &Request<'_>,
        pack: Option<PackSource>,
        redactor: &Redactor,
        before: impl FnOnce(&mut StreamingPeekableIter<Input>) -> Result<(), Error>,
    ) -> Result<Report, Error> {
        let head = request.encode(&self.capabilities);
        let mut output = self.output.take().expect("a stream pushes once");
        let watch = output.watch.clone();
        let (abort, lines, capabilities) = (&self.abort, &mut self.lines, &self.capabilities);
        let (slot, is_asked) = (&self.slot, &mut self.is_asked);
        let (sent, mut report) = std::thread::scope(|scope| {
            let sending = scope.spawn(move || {
                let sent = send(&mut output, &head, pack, &watch);
                if let Err(Error::Pack { .. } | Error::Start { .. }) = sent {
                    // The mirror must not wait for a pack that cannot come.
                    abort(Signal::TERM);
                }
                sent
            });
            let report = match before(lines) {
                Ok(()) => {
                    *is_asked = true;
                    slot.iter().for_each(ControlSlot::opened);
                    lines.reset();
                    report::read(lines, request, capabilities, redactor)
                }
                Err(error) => Report { cut: Some(error), ..Report::default() },
            };
            if report.cut.is_some() {
                abort(Signal::TERM);
            }
            (sending.join().expect("the sending thread does not panic"), report)
        });
        self.offer = None;
        if report.cut.is_none() {
            self.finish();
            return Ok(report);
        }
        let cut = match sent {
            Err(error @ (Error::Pack { .. } | Error::Start { .. })) => {
                // A pack that ends in the middle is never unpacked.
                self.is_asked = false;
                error
            }
            _ => report.cut.take().expect("checked above"),
        };
        let why = self.why(cut, redactor);
        if report.answers.is_empty() {
            return Err(why);
        }
        report.cut = Some(why);
        Ok(report)
    }

    /// Whether receive-pack may carry out the commands of a push that failed, whatever it said.
    pub(super) fn may_be_carried_out(&self) -> bool {
        self.is_asked
    }

    /// Ends the conversation without a request: a flush packet says that there are no commands.
    pub(super) fn end(mut self) {
        if let Some(mut output) = self.output.take() {
            // The mirror may have hung up already; nothing is lost by that.
            let _ = output.write_all(b"0000").and_then(|()| output.flush());
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.output = None;
        self.guard = None;
        if let Some(child) = self.child.take() {
            let _ = child.end(GRACE);
        }
    }

    /// The real reason behind a broken stream: a limit that ran out, or what the program said.
    fn why(&mut self, error: Error, redactor: &Redactor) -> Error {
        self.output = None;
        let expired = self.guard.take().and_then(|guard| guard.watch.expired());
        let child = self.child.take();
        let slot = self.slot.take();
        if let Some(limit) = expired {
            slot.iter().for_each(ControlSlot::discard);
            return Error::Timeout(limit);
        }
        let why = match (error, child) {
            (Error::Broken { doing, source }, Some(child)) => match child.failure(GRACE) {
                process::Error::Failed { message, .. } if message == process::NO_MESSAGE => {
                    Error::Broken { doing, source }
                }
                process::Error::Failed { program, status, message } => {
                    let message = redactor.clean(&message);
                    // After receive-pack was heard, the words may be anybody's, a hook's for one, and say nothing of the way to it.
                    if self.is_asked {
                        Error::Program { program, status, message: one_line(&message) }
                    } else {
                        error_of(program, status, &message)
                    }
                }
                other => other.into(),
            },
            (error, _) => error,
        };
        // A mirror that is not there says nothing against the connection.
        if matches!(why, Error::Broken { .. } | Error::Program { .. } | Error::Connect { .. }) {
            slot.iter().for_each(ControlSlot::discard);
        }
        why
    }
}

/// A socket to write to, whose end is the end of what is written although it has other holders.
struct Ending(UnixStream);

impl Write for Ending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // What is shut already needs no shutting.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// Writes the commands and the pack. Time that the pack takes to be made is not the mirror's.
fn send(output: &mut Output, head: &[u8], pack: Option<PackSource>, watch: &Watch) -> Result<(), Error> {
    let broken = |source| Error::Broken { doing: "sending the objects", source };
    output.write_all(head).map_err(broken)?;
    output.flush().map_err(broken)?;
    let Some(pack) = pack else { return Ok(()) };
    watch.pause();
    let mut pack = pack.open()?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        watch.pause();
        let count = match pack.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(pack.failure(&error)),
        };
        watch.resume();
        if count == 0 {
            break;
        }
        output.write_all(&chunk[..count]).map_err(broken)?;
    }
    output.flush().map_err(broken)
}
