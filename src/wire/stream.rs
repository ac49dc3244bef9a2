//! A connection of two byte streams: the pipes or sockets of a program, or a TCP connection.
//!
//! Guaranteed: every wait has a limit; the two directions can be used by two threads at once; a program ends with its connection.
//! [`Stream::failure`] finds why a connection broke: a limit, or what the program said. Absent: what is said over the connection.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gix_transport::packetline::PacketLineRef;
use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use rustix::process::Signal;

use super::askpass::AskpassServer;
use super::read_ahead::ReadAhead;
use super::ssh::{error_of, one_line};
use super::ssh_control::ControlSocket;
use super::watch::{WatchThread, Watched};
use super::{Error, Timeouts};
use crate::credentials::Redactor;
use crate::process::{self, Child};
use crate::replies;

/// How long a program may take to end by itself after the last byte.
const GRACE: Duration = Duration::from_secs(5);

type Input = BufReader<Watched<Box<dyn Read + Send>>>;
type Output = Watched<Box<dyn Write + Send>>;

/// The packet lines that come.
pub(crate) type Lines = StreamingPeekableIter<Input>;

/// One connection to a service of git.
pub(crate) struct Stream {
    lines: Lines,
    output: Option<Output>,
    abort: Abort,
    guard: Option<WatchThread>,
    child: Option<Child>,
    offer: Option<AskpassServer>,
    /// The shared connection of ssh that it uses.
    shared: Option<ControlSocket>,
    /// The file of pinned host keys, to say which were expected.
    known_hosts: Option<PathBuf>,
}

/// Ends the connection. A program gets the signal: `TERM` asks it to end, `KILL` forces it.
type Abort = Box<dyn Fn(Signal) + Send + Sync>;

/// The direction to the service. Nothing more is sent after it is dropped.
pub(crate) struct Sending<'a> {
    output: Output,
    abort: &'a Abort,
}

/// The direction from the service.
pub(crate) struct Receiving<'a> {
    pub(crate) lines: &'a mut Lines,
    abort: &'a Abort,
}

/// What was going on when a connection broke. It decides what the message of a program means, and whether other mirrors may still use a
/// shared ssh connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Receive-pack has not answered yet.
    Opening,
    /// Receive-pack has answered and got commands. A message may now come from any program there, such as a hook. So it is not read as a
    /// message of ssh.
    Commands,
    /// Upload-pack was asked. It may refuse a user who may only push, and then the connection is still good.
    Reading,
}

impl Stream {
    /// Over the pipes of a program.
    pub(super) fn of_child(mut child: Child, timeouts: Timeouts) -> Self {
        let (input, output) = (Box::new(child.stdout()), Box::new(child.stdin()));
        let abort = Box::new(child.killer());
        Self::new(input, output, timeouts, child.killer(), abort, Some(child))
    }

    /// Over the sockets of a program. They are shut down when the program is ended, because other processes may hold them too.
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
                // An error means that the socket is shut down already.
                let _ = ends.0.shutdown(Shutdown::Both);
                let _ = ends.1.shutdown(Shutdown::Both);
            }
        };
        let (on_limit, abort) = (killer(), Box::new(killer()));
        let input = Box::new(ReadAhead::new(input)?);
        Ok(Self::new(input, Box::new(Ending(output)), timeouts, on_limit, abort, Some(child)))
    }

    /// Over a connection that `abort` shuts down.
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
        abort: Abort,
        child: Option<Child>,
    ) -> Self {
        let guard = WatchThread::new(timeouts, on_limit);
        let input = BufReader::with_capacity(64 << 10, Watched { inner: input, watch: guard.watch.clone() });
        let output = Watched { inner: output, watch: guard.watch.clone() };
        Self {
            lines: StreamingPeekableIter::new(input, &[PacketLineRef::Flush], false),
            output: Some(output),
            abort,
            guard: Some(guard),
            child,
            offer: None,
            shared: None,
            known_hosts: None,
        }
    }

    /// Keeps what belongs to ssh: the server for the password question, the shared connection, and the file of pinned host keys.
    pub(super) fn keeping(
        self,
        offer: Option<AskpassServer>,
        shared: Option<ControlSocket>,
        known_hosts: Option<PathBuf>,
    ) -> Self {
        Self { offer, shared, known_hosts, ..self }
    }

    /// The packet lines that come.
    pub(crate) fn lines(&mut self) -> &mut Lines {
        &mut self.lines
    }

    /// Sends a few bytes. Call it only while the other side sends nothing, because nothing is read meanwhile.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let output = self.output.as_mut().expect("the direction to the service is open");
        output.write_all(bytes).and_then(|()| output.flush())
    }

    /// The service has answered, so no password is needed any more.
    pub(crate) fn opened(&mut self) {
        self.offer = None;
    }

    /// The two directions, for two threads. So a service that sends messages while it receives
    /// cannot block us, and we cannot block it. Call it once: it takes the direction to the
    /// service.
    pub(crate) fn split(&mut self) -> (Sending<'_>, Receiving<'_>) {
        let output = self.output.take().expect("a stream is split once");
        let abort = &self.abort;
        (Sending { output, abort }, Receiving { lines: &mut self.lines, abort })
    }

    /// Asks the other side to end at once.
    pub(crate) fn abort(&self) {
        (self.abort)(Signal::TERM);
    }

    /// Ends the connection without a request: a flush packet says that there are no commands.
    pub(crate) fn end(mut self) {
        if self.output.is_some() {
            // The mirror may have hung up already; nothing is lost by that.
            let _ = self.say(b"0000");
        }
        self.finish();
    }

    /// Ends the connection after the last byte.
    pub(crate) fn finish(&mut self) {
        self.output = None;
        self.offer = None;
        self.guard = None;
        if let Some(child) = self.child.take() {
            let _ = child.end(GRACE);
        }
    }

    /// The real reason behind a broken connection: a limit that ran out, or what the program said. The connection has then ended.
    pub(crate) fn failure(&mut self, error: Error, stage: Stage, redactor: &Redactor) -> Error {
        self.output = None;
        self.offer = None;
        let expired = self.guard.take().and_then(|guard| guard.watch.expired());
        let child = self.child.take();
        let shared = self.shared.take();
        if let Some(limit) = expired {
            shared.iter().for_each(ControlSocket::discard);
            return Error::Timeout(limit);
        }
        let why = match (error, child) {
            (broken @ Error::Broken { .. }, Some(child)) => self.said(child, broken, stage, redactor),
            (error, _) => error,
        }
        .cleaned(redactor);
        // A missing repository is not a fault of the connection.
        let is_broken = matches!(why, Error::Broken { .. } | Error::Program { .. } | Error::Connect { .. });
        shared.iter().filter(|_| is_broken && stage != Stage::Reading).for_each(ControlSocket::discard);
        why
    }

    /// The error that the last message of a program means; `broken` if it wrote nothing.
    fn said(&self, child: Child, broken: Error, stage: Stage, redactor: &Redactor) -> Error {
        let (program, status, message) = match child.failure(GRACE) {
            process::Error::Failed { program, status, message } => (program, status, message),
            other => return other.into(),
        };
        let message = replies::without_multiplexing(&message);
        if message.is_empty() || message == process::NO_MESSAGE {
            return broken;
        }
        let message = redactor.clean(&message);
        if stage == Stage::Commands {
            return Error::Program { program, status, message: one_line(&message) };
        }
        error_of(program, status, &message, self.known_hosts.as_deref())
    }
}

impl Sending<'_> {
    /// From here on the service waits for us, so the stall limit does not run.
    pub(crate) fn pause(&self) {
        self.output.watch.pause();
    }

    /// From here on we wait for the service again.
    pub(crate) fn resume(&self) {
        self.output.watch.resume();
    }

    /// Asks the other side to end at once.
    pub(crate) fn abort(&self) {
        (self.abort)(Signal::TERM);
    }
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Receiving<'_> {
    /// Asks the other side to end at once.
    pub(crate) fn abort(&self) {
        (self.abort)(Signal::TERM);
    }
}

/// A socket to write to. Dropping it ends this direction, even if other processes hold the socket too.
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
        // An error means that the socket is shut down already.
        let _ = self.0.shutdown(Shutdown::Write);
    }
}
