//! The hint that wakes the daemon: one datagram with the repository's path, which nobody waits for.
//!
//! The daemon writes the file `roots` beside its socket `wake`: which repositories it serves. A hint that nobody takes, because no
//! daemon listens, is told from one that was taken; one that is lost costs the wait until the daemon's next scan.

#![expect(clippy::disallowed_methods, reason = "reads the daemon's file of roots")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the daemon's runtime files are: `$RUNTIME_DIRECTORY` (systemd.exec(5), of several the first) or `/run/git-mirror-push`.
#[must_use]
pub fn runtime_directory(variable: Option<&OsStr>) -> PathBuf {
    let first = variable.and_then(|value| value.as_bytes().split(|byte| *byte == b':').next());
    match first.filter(|path| path.starts_with(b"/")) {
        Some(path) => PathBuf::from(OsStr::from_bytes(path)),
        None => PathBuf::from("/run/git-mirror-push"),
    }
}

/// The datagram socket on which the daemon is woken.
#[must_use]
pub fn wake_socket(runtime: &Path) -> PathBuf {
    runtime.join("wake")
}

/// The file that says below which directories the daemon serves repositories, one a line.
#[must_use]
pub fn roots_file(runtime: &Path) -> PathBuf {
    runtime.join("roots")
}

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
