//! Waking whoever updates the mirrors: one datagram to the daemon, without waiting for an answer, or a drain in the background.
//!
//! The daemon lists the directories that it serves in the file `roots` beside its socket `wake`. So a hook knows whether a daemon takes its
//! hint. A lost hint costs the wait until the daemon's next scan.

#![expect(clippy::disallowed_methods, reason = "reads the daemon's file of roots, and starts the detached drain")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::layout::{roots_file, wake_socket};

/// Tells the daemon to look at a repository. `false` when no daemon listens that serves it; also when the daemon runs as
/// another user than the repository's owner, so that it may not be able to.
#[must_use]
pub fn hint(runtime: &Path, git_dir: &Path) -> bool {
    let Ok(roots) = std::fs::read(roots_file(runtime)) else { return false };
    let Ok(path) = git_dir.canonicalize() else { return false };
    let mut roots = roots.split(|byte| *byte == b'\n').filter(|root| !root.is_empty());
    if !roots.any(|root| path.starts_with(OsStr::from_bytes(root))) {
        return false;
    }
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(path.as_os_str().as_bytes(), wake_socket(runtime))
    });
    let owner = |path: &Path| std::fs::metadata(path).map(|file| file.uid()).ok();
    let is_same_owner = owner(&roots_file(runtime)) == owner(&path);
    match sent {
        Ok(_) => is_same_owner,
        // It listens, and has more hints than it has read: then it looks through every spool.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock && is_same_owner,
    }
}

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
    drain.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}

/// Leaves the session of the pusher, so that the end of that session does not end this drain.
#[cfg(feature = "mirror")]
pub fn leave_session() {
    // Whoever leads a group already is not in the pusher's.
    let _ = rustix::process::setsid();
}
