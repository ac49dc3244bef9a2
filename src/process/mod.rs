//! Child processes: git, ssh, systemctl, and the commands of the configuration.
//!
//! Guaranteed: no shell is involved. Each program runs in its own process group. If the program still runs when its [`Child`] is ended or
//! dropped, the group gets TERM, and KILL if the program still runs 2 seconds later. A program that does not end even then is left behind
//! after 10 more seconds. The variables in `LOCAL_VARIABLES` are removed;
//! [`git`] keeps the alternates. The last 4 KiB of standard error are kept. If this process is killed, nothing stops the programs.

#![expect(clippy::disallowed_methods, reason = "starts programs")]

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions, getrlimit, kill_process, kill_process_group, pidfd_open,
    setrlimit, waitpid,
};

mod output;

/// How long a program is waited for after KILL.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// How long messages may still arrive after the program has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

use output::{Heard, head, tail};

/// The message for a program that failed without writing to standard error.
pub const NO_MESSAGE: &str = "it ended without a message";

/// Forbids core files, because they would write passwords and tokens from the memory to the disk.
pub fn forbid_core_files() {
    let limit = getrlimit(Resource::Core);
    // Lowering a limit needs no right.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("cannot start '{program}': {source}")]
    Start {
        /// Its name.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It failed.
    #[error("{program} failed{status}{}{message}", if message.is_empty() { "" } else { ": " })]
    Failed {
        /// Its name.
        program: String,
        /// ` with exit status N`, or empty.
        status: String,
        /// What it said.
        message: String,
    },
    /// It took too long.
    #[error("{program} did not end within {} seconds", limit.as_secs())]
    TooSlow {
        /// Its name.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// Variables that would make git use another repository or protocol version than the one that we choose.
const LOCAL_VARIABLES: [&str; 15] = [
    ALTERNATES,
    "GIT_CONFIG",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_PROTOCOL",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
];

/// Additional object directories (git(1)).
const ALTERNATES: &str = "GIT_ALTERNATE_OBJECT_DIRECTORIES";

/// Variables that pass configuration to git: those of `git -c`, and `GIT_CONFIG_KEY_<n>`. They are
/// meant for this repository, not for the mirror's.
pub const CONFIG_VARIABLES: [&str; 2] = ["GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"];

/// A program that runs in its own process group.
pub struct Child {
    name: String,
    inner: std::process::Child,
    stderr: Option<Heard>,
    /// Our end of its standard error, if that is a socket.
    stderr_socket: Option<UnixStream>,
    is_reaped: bool,
}

/// A command whose environment names no other repository, with three pipes, in its own process group.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for variable in LOCAL_VARIABLES {
        command.env_remove(variable);
    }
    command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    command
}

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Start`]
    pub fn start(name: &str, command: &mut Command) -> Result<Self, Error> {
        Self::start_heard(name, command, |_| {})
    }

    /// Starts it. `hear` receives its standard error while it is written.
    ///
    /// # Errors
    /// [`Error::Start`]
    pub fn start_heard(
        name: &str,
        command: &mut Command,
        hear: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Self, Error> {
        let mut inner = command.spawn().map_err(|source| Error::Start { program: name.to_owned(), source })?;
        let stderr = inner.stderr.take().map(|stderr| Heard::listen(stderr, tail(hear)));
        Ok(Self { name: name.to_owned(), inner, stderr, stderr_socket: None, is_reaped: false })
    }

    /// Starts it on sockets instead of pipes. ssh passes its pipes to the process that keeps a shared connection, so a pipe may stay open
    /// after ssh has ended. A socket can be shut down. Also returns two sockets: first the one to read its output from, then the one to
    /// write its input to.
    ///
    /// # Errors
    /// [`Error::Start`]
    pub fn start_on_sockets(name: &str, command: &mut Command) -> Result<(Self, UnixStream, UnixStream), Error> {
        let failed = |source| Error::Start { program: name.to_owned(), source };
        let (output, its_input) = UnixStream::pair().map_err(failed)?;
        let (input, its_output) = UnixStream::pair().map_err(failed)?;
        let (stderr, its_stderr) = UnixStream::pair().map_err(failed)?;
        // `try_clone` may fail. It is called before the program starts, because an error later would leave the program running.
        let shut = stderr.try_clone().map_err(failed)?;
        command.stdin(OwnedFd::from(its_input)).stdout(OwnedFd::from(its_output)).stderr(OwnedFd::from(its_stderr));
        let spawned = command.spawn().map_err(failed);
        // Otherwise `command` would keep the program's ends of the sockets open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let inner = spawned?;
        let stderr = Some(Heard::listen(stderr, tail(|_| {})));
        let child = Self { name: name.to_owned(), inner, stderr, stderr_socket: Some(shut), is_reaped: false };
        Ok((child, input, output))
    }

    /// Its process id, which is also that of its process group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> ChildStdin {
        self.inner.stdin.take().expect("stdin is piped and taken once")
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> ChildStdout {
        self.inner.stdout.take().expect("stdout is piped and taken once")
    }

    /// A function that sends a signal to its process group.
    pub fn killer(&self) -> impl Fn(Signal) + Send + 'static + use<> {
        let group = self.group();
        move |signal| {
            // A group that is gone needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Sends a signal to its process group, or to the program alone if it has not made its group yet.
    fn signal(&self, signal: Signal) {
        if kill_process_group(self.group(), signal).is_err() {
            let _ = kill_process(self.group(), signal);
        }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.inner)
    }

    /// Waits up to `grace` until it ends by itself, then terminates it. Returns its status and the end of its standard error.
    pub fn end(mut self, grace: Duration) -> (io::Result<ExitStatus>, String) {
        let status = self.reap(grace);
        let said = self.stderr.take().map(|said| said.last_words(LAST_WORDS)).unwrap_or_default();
        if let Some(socket) = &self.stderr_socket {
            // Ends the thread that reads it. It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        (status, String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Ends it as [`Self::end`] does, and returns the failure as an error.
    pub fn failure(self, grace: Duration) -> Error {
        let program = self.name.clone();
        let (status, message) = self.end(grace);
        let status =
            status.map(|status| status.code().map(|code| format!(" with exit status {code}")).unwrap_or_default());
        Error::Failed {
            program,
            status: status.unwrap_or_default(),
            message: if message.is_empty() { NO_MESSAGE.into() } else { message },
        }
    }

    fn reap(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.is_reaped = true;
        if let Some(status) = self.wait_for(grace)? {
            return Ok(status);
        }
        self.signal(Signal::TERM);
        if let Some(status) = self.wait_for(Duration::from_secs(2))? {
            return Ok(status);
        }
        self.signal(Signal::KILL);
        // A program that waits for a file system which hangs does not end. If it ends later, the thread takes its status.
        self.wait_for(LAST_WAIT)?.ok_or_else(|| {
            let program = self.group();
            let _ = std::thread::Builder::new().spawn(move || waitpid(Some(program), WaitOptions::empty()));
            io::ErrorKind::TimedOut.into()
        })
    }

    /// Waits with a time limit, which the standard library does not offer: on a pidfd, or by polling where the kernel has none (Linux
    /// before 5.3).
    fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        let end = pidfd_open(self.group(), PidfdFlags::empty()).ok();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(Some(status));
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            if let Some(end) = &end {
                // After an early wake-up the loop checks again.
                let limit = left.try_into().ok();
                let _ = poll(&mut [PollFd::new(end, PollFlags::IN)], limit.as_ref());
                continue;
            }
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.reap(Duration::ZERO);
        }
    }
}

/// A text as one word of a shell command, quoted as git quotes it for the other side of ssh.
#[must_use]
pub fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('!', r"'\!'"))
}

/// `git --git-dir=DIR` with the arguments. It keeps the user's `git -c` settings and alternates, and ignores replace refs.
pub fn git(git_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = command("git");
    if let Some(added) = std::env::var_os(ALTERNATES) {
        command.env(ALTERNATES, added);
    }
    command.arg("--git-dir").arg(git_dir).args(arguments).env("GIT_NO_REPLACE_OBJECTS", "1");
    // The configuration of the repository could name a program that fetches missing objects (`remote.NAME.uploadpack`).
    command.env("GIT_NO_LAZY_FETCH", "1");
    command
}

/// A command of the configuration: a program and its arguments, with the same clean environment.
///
/// # Panics
/// If `words` is empty. The configuration refuses an empty command.
#[must_use]
pub fn configured(words: &[String]) -> Command {
    let (program, arguments) = words.split_first().expect("a command of the configuration has a program");
    let mut command = command(program);
    command.args(arguments);
    command
}

/// Runs a program with `input` as its standard input. Returns its standard output, 64 KiB at most.
///
/// # Errors
/// [`Error`]. When `limit` is over, the program's process group is ended.
pub fn run(name: &str, command: &mut Command, input: &[u8], limit: Duration) -> Result<Vec<u8>, Error> {
    run_up_to(64 << 10, name, command, input, limit)
}

/// Runs a program as [`run`] does, and returns up to 64 MiB of its standard output.
///
/// # Errors
/// As [`run`].
pub fn run_long(name: &str, command: &mut Command, input: &[u8], limit: Duration) -> Result<Vec<u8>, Error> {
    run_up_to(64 << 20, name, command, input, limit)
}

fn run_up_to(most: usize, name: &str, command: &mut Command, input: &[u8], limit: Duration) -> Result<Vec<u8>, Error> {
    let mut child = Child::start(name, command)?;
    let (mut stdin, stdout, end) = (child.stdin(), child.stdout(), child.killer());
    let input = input.to_owned();
    // The program may ignore its input or write without end, so nobody waits for these threads.
    std::thread::spawn(move || stdin.write_all(&input));
    let output = Heard::listen(stdout, head(most));
    let status = child.wait_for(limit);
    let is_slow = matches!(status, Ok(None));
    if is_slow {
        end(Signal::TERM);
    }
    let (status, message) = child.end(Duration::ZERO);
    // Kills the processes that the program left behind in its process group, which may hold its output open.
    end(Signal::KILL);
    // On a busy machine the output may arrive late. It may be a secret, which must not be cut, so
    // we wait longer than for messages.
    let out = output.last_words(10 * LAST_WORDS);
    if is_slow {
        return Err(Error::TooSlow { program: name.to_owned(), limit });
    }
    match status {
        Ok(status) if status.success() => Ok(out),
        status => {
            let code = status.ok().and_then(|status| status.code());
            let status = code.map(|code| format!(" with exit status {code}")).unwrap_or_default();
            Err(Error::Failed { program: name.to_owned(), status, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_a_program_leaves_behind_is_not_waited_for() {
        for left in ["sleep 60 &", "setsid sleep 60 &"] {
            let begin = Instant::now();
            let mut program = command("sh");
            let out =
                run("sh", program.args(["-c", &format!("{left} echo out; echo err >&2; exit $0"), "0"]), b"x", LONG);
            assert_eq!(out.expect("success"), b"out\n", "{left}");
            let mut program = command("sh");
            let failed = run("sh", program.args(["-c", &format!("{left} echo err >&2; exit $0"), "3"]), b"x", LONG);
            let failed = failed.expect_err("exit status 3").to_string();
            assert!(failed.contains("exit status 3") && failed.contains("err"), "{failed}");
            assert!(begin.elapsed() < Duration::from_secs(20), "{left}");
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_is_kept_up_to_its_bound() {
        let mut program = command("sh");
        let out = run("sh", program.args(["-c", "yes | head -c 200000; exit 0"]), b"", LONG);
        assert_eq!(out.expect("success").len(), 65_536);
        let mut program = command("sh");
        let error = run("sh", program.args(["-c", "yes | head -c 20000 >&2; echo last >&2; exit 1"]), b"", LONG);
        let Err(Error::Failed { message, .. }) = error else { panic!("{error:?}") };
        assert!(message.len() <= 4096 && message.ends_with("last"), "{}", message.len());
    }
}
