//! Programs that we start: `git receive-pack`, `git pack-objects`, `ssh`.
//!
//! Guaranteed: no shell; each program is in a process group of its own that ends with its owner, first asked (TERM), then made
//! (KILL); variables that name another repository do not reach it (git rev-parse --local-env-vars); of what it says on
//! stderr the last 4 KiB are kept.

#![expect(clippy::disallowed_methods, reason = "the one place that starts programs")]

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::stream::Stream;
use super::watch::Insistence;
use super::{Error, Target};

/// Variables that would make git work on another repository, or in another protocol version, than we say.
const LOCAL_VARIABLES: [&str; 15] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
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

/// Variables that carry `git -c`: they are meant for this repository, not for the mirror's.
const CONFIG_VARIABLES: [&str; 2] = ["GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"];

/// A program that runs in its own process group.
pub(super) struct Child {
    name: &'static str,
    inner: std::process::Child,
    stderr: Option<JoinHandle<Vec<u8>>>,
    is_reaped: bool,
}

/// A command of git's or ssh's with a clean environment and all three descriptors ours.
pub(super) fn command(program: &str) -> Command {
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
    pub(super) fn start(name: &'static str, command: &mut Command) -> Result<Self, Error> {
        let mut inner = command.spawn().map_err(|source| Error::Start { program: name, source })?;
        let stderr = inner.stderr.take().map(|stderr| std::thread::spawn(move || tail(stderr)));
        Ok(Self { name, inner, stderr, is_reaped: false })
    }

    /// Its standard input, once.
    pub(super) fn stdin(&mut self) -> ChildStdin {
        self.inner.stdin.take().expect("stdin is piped and taken once")
    }

    /// Its standard output, once.
    pub(super) fn stdout(&mut self) -> ChildStdout {
        self.inner.stdout.take().expect("stdout is piped and taken once")
    }

    /// What ends its process group, for the watch.
    pub(super) fn ender(&self) -> impl Fn(Insistence) + Send + 'static + use<> {
        let group = self.group();
        move |insistence| {
            let signal = if insistence == Insistence::Ask { Signal::TERM } else { Signal::KILL };
            // A group that is gone needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.inner)
    }

    /// Waits until it ends by itself, `grace` at most, then ends it. Returns its status and what it said.
    pub(super) fn end(mut self, grace: Duration) -> (io::Result<ExitStatus>, String) {
        let status = self.reap(grace);
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        (status, String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// The error that its end means.
    pub(super) fn failure(self, grace: Duration) -> Error {
        let program = self.name;
        let (status, words) = self.end(grace);
        let status =
            status.map(|status| status.code().map(|code| format!(" with exit status {code}")).unwrap_or_default());
        Error::Program {
            program,
            status: status.unwrap_or_default(),
            words: if words.is_empty() { "it ended without a word".into() } else { words },
        }
    }

    fn reap(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.is_reaped = true;
        if let Some(status) = self.wait_for(grace)? {
            return Ok(status);
        }
        let _ = kill_process_group(self.group(), Signal::TERM);
        if let Some(status) = self.wait_for(Duration::from_secs(2))? {
            return Ok(status);
        }
        let _ = kill_process_group(self.group(), Signal::KILL);
        self.inner.wait()
    }

    /// Looks again at growing intervals: there is no wait with a limit in the standard library.
    fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(Some(status));
            }
            if begin.elapsed() >= limit {
                return Ok(None);
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

/// Reads to the end and keeps the last 4 KiB.
fn tail(mut stderr: impl Read) -> Vec<u8> {
    const KEPT: usize = 4096;
    let mut kept = Vec::new();
    let mut chunk = [0; KEPT];
    while let Ok(count @ 1..) = stderr.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..count]);
        kept.drain(..kept.len().saturating_sub(KEPT));
    }
    kept
}

/// Starts the receive-pack of a repository on this machine.
pub(super) fn receive_pack(path: &Path, target: &Target) -> Result<Stream, Error> {
    if !path.is_dir() {
        return Err(Error::NotFound(format!("'{}' is no directory on this machine", path.display())));
    }
    let mut command = command("git");
    for variable in CONFIG_VARIABLES {
        command.env_remove(variable);
    }
    let child = Child::start("git receive-pack", command.arg("receive-pack").arg(path))?;
    Ok(Stream::of_child(child, target.timeouts))
}

/// `git --git-dir=DIR` with the arguments; the environment still says `git -c` of the user.
pub(super) fn git(git_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = command("git");
    command.arg("--git-dir").arg(git_dir).args(arguments).env("GIT_NO_REPLACE_OBJECTS", "1");
    command
}

/// Runs `git` to its end and returns what it wrote, or what it said when it failed.
///
/// # Errors
/// [`Error::Start`] or [`Error::Program`].
pub fn run_git(git_dir: &Path, arguments: &[&str]) -> Result<String, Error> {
    let mut child = Child::start("git", &mut git(git_dir, arguments))?;
    drop(child.stdin());
    let mut out = String::new();
    let read = child.stdout().read_to_string(&mut out);
    let (status, words) = child.end(Duration::from_secs(10));
    match (read, status) {
        (Ok(_), Ok(status)) if status.success() => Ok(out),
        (_, status) => {
            let status = status.ok().and_then(|status| status.code()).map(|code| format!(" with exit status {code}"));
            Err(Error::Program { program: "git", status: status.unwrap_or_default(), words })
        }
    }
}

/// Adds one option as a single argument, `-oKeyword=value`.
pub(super) fn option(command: &mut Command, text: impl AsRef<OsStr>) {
    let mut argument = std::ffi::OsString::from("-o");
    argument.push(text);
    command.arg(argument);
}
