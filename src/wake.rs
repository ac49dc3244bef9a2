//! Starts an update of the mirrors: sends one datagram to the daemon and does not wait for an answer, or starts a drain in the background.
//!
//! The daemon lists the directories that it serves in the file `roots` beside its socket `wake`. From `roots` a hook learns
//! whether the daemon serves its repository. If a hint is lost, the daemon finds the work at its next scan.

#![expect(clippy::disallowed_methods, reason = "reads the daemon's file of roots, and starts the detached drain")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::layout::{roots_file, wake_socket};

/// Sends the daemon a hint to look at a repository. `false` if no daemon serves it. If the daemon's user does not own the repository, the
/// hint is sent, but the result is `false` too, because the daemon may be unable to serve it.
#[must_use]
pub fn hint(runtime: &Path, git_dir: &Path) -> bool {
    let Some((socket, path)) = daemon_of(runtime, git_dir) else { return false };
    let is_taken = match socket.send(path.as_os_str().as_bytes()) {
        Ok(_) => true,
        // The socket's queue is full. The daemon then looks through every spool.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    is_taken && is_same_owner(runtime, &path)
}

/// Whether a running daemon serves a repository, and its user owns it.
#[cfg(feature = "mirror")]
#[must_use]
pub fn is_served(runtime: &Path, git_dir: &Path) -> bool {
    daemon_of(runtime, git_dir).is_some_and(|(_, path)| is_same_owner(runtime, &path))
}

/// A socket connected to the daemon, and the repository's path. `None` if no daemon runs, or if none of its roots holds the repository.
fn daemon_of(runtime: &Path, git_dir: &Path) -> Option<(UnixDatagram, PathBuf)> {
    let roots = std::fs::read(roots_file(runtime)).ok()?;
    let path = git_dir.canonicalize().ok()?;
    let mut roots = roots.split(|byte| *byte == b'\n').filter(|root| !root.is_empty());
    if !roots.any(|root| path.starts_with(OsStr::from_bytes(root))) {
        return None;
    }
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(wake_socket(runtime)).ok()?;
    Some((socket, path))
}

fn is_same_owner(runtime: &Path, repository: &Path) -> bool {
    let owner = |path: &Path| std::fs::metadata(path).map(|file| file.uid()).ok();
    owner(&roots_file(runtime)) == owner(repository)
}

/// The variable that tells a drain that it is such a child (see [`leave_session`]).
const AGAIN: &str = "GIT_MIRROR_PUSH_DETACHED";

/// Starts `program drain --detach` for a repository, with the server's configuration file `server` if one is given, and does not wait
/// for it.
///
/// # Errors
/// The operating system's, when the program cannot be started.
pub fn start_drain(program: &Path, server: Option<&Path>, git_dir: &Path) -> io::Result<()> {
    let mut drain = Command::new(program);
    if let Some(server) = server {
        drain.arg("--config").arg(server);
    }
    drain.arg("--git-dir").arg(git_dir).args(["drain", "--detach"]);
    // Settings of the receive-pack that runs the hook must not reach other programs of git.
    for variable in ["GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_MIRROR_PUSH_PULL", AGAIN] {
        drain.env_remove(variable);
    }
    // When the pusher's terminal closes, the kernel sends SIGHUP to the process group in its
    // foreground. The drain needs some time to leave the session. So it gets a process group of its
    // own from the start.
    drain.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Leaves the session of the pusher. Then the end of that session does not end this drain, and no
/// program that the drain starts asks at the pusher's terminal. `false` if this function has
/// started another process, which does the work.
#[cfg(feature = "mirror")]
#[must_use]
pub fn leave_session() -> bool {
    use rustix::process::{Pid, getpid, setpgid, setsid};
    if setsid().is_ok() {
        return true;
    }
    // The leader of a process group cannot leave its session (setsid(2)), and `start_drain` made
    // this process such a leader. So this process joins the group of the session's leader for a
    // moment.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Field 6 of proc_pid_stat(5). The name of the program, field 2, may have spaces and parentheses in it.
    let session = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(3)?.parse().ok());
    let leader = session.and_then(Pid::from_raw);
    let joined = |leader: Pid| leader == getpid() || setpgid(None, Some(leader)).and_then(|()| setsid()).is_ok();
    if leader.is_some_and(joined) {
        return true;
    }
    // The session's leader is not visible, for example because it is in another PID namespace, or
    // its group cannot be joined. A child of this process leads no group, so it can leave the
    // session. There is at most one such child, and none of a child that root has started: it would
    // lack what root handed over.
    if [AGAIN, "GIT_MIRROR_PUSH_OWNER"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let again = |program| Command::new(program).args(std::env::args_os().skip(1)).env(AGAIN, "1").spawn();
    std::env::current_exe().and_then(again).is_err()
}
