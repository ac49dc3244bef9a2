//! The daemon's side of hints (see `wake::hint`): the socket `wake`, the file `roots`, and the lock against a second daemon.

#![expect(clippy::disallowed_methods, reason = "makes the daemon's runtime files")]

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use fs2::FileExt;

use crate::config::Server;
use crate::durable::{self, with_mode};
use crate::layout::{roots_file, wake_socket};

/// If this many hints came without a pause, the daemon looks through all spools at the next pause, because some hints may be lost. The
/// kernel may queue only about ten (net.unix.max_dgram_qlen).
const BURST: u32 = 8;

/// The longest time without a look through all spools while hints come without a pause.
const LONGEST_BURST: Duration = Duration::from_millis(500);

/// The length of a pause.
const PAUSE: Duration = Duration::from_millis(200);

/// The runtime files of this daemon. Their lock keeps a second daemon out.
pub(super) struct WakeSocket {
    runtime: PathBuf,
    socket: UnixDatagram,
    /// Whether [`WakeSocket::close`] was called. An empty read does not show that, because an empty datagram is valid.
    is_closed: AtomicBool,
    _lock: File,
}

/// What was heard.
pub(super) enum Heard {
    /// Look at this repository.
    Repository(PathBuf),
    /// Some hints may have been lost.
    TooMuch,
}

impl WakeSocket {
    /// Takes the runtime directory, and makes it if it does not exist.
    pub(super) fn new(runtime: &Path) -> anyhow::Result<Self> {
        let named = || format!("cannot use the runtime directory '{}'; set RUNTIME_DIRECTORY", runtime.display());
        // Hooks of other users reach the socket in it.
        durable::make_directories(runtime, 0o755).with_context(named)?;
        let lock = durable::open_lock(&runtime.join("lock"), 0o600).with_context(named)?;
        lock.try_lock_exclusive().with_context(|| format!("another daemon uses '{}'", runtime.display()))?;
        let path = wake_socket(runtime);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(named),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).with_context(named)?;
        // Anyone may send a hint, because a hint is never trusted.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).with_context(named)?;
        Ok(Self { runtime: runtime.to_owned(), socket, is_closed: AtomicBool::new(false), _lock: lock })
    }

    /// Writes which directories are served.
    pub(super) fn announce(&self, server: &Server) -> io::Result<()> {
        let mut roots = Vec::new();
        for root in &server.roots {
            roots.extend_from_slice(root.path.as_os_str().as_bytes());
            roots.push(b'\n');
        }
        durable::replace_unsynced(&roots_file(&self.runtime), &roots, with_mode(0o644))
    }

    /// Receives hints until [`WakeSocket::close`] is called or reading fails.
    pub(super) fn listen(&self, mut on_heard: impl FnMut(Heard)) {
        let mut buffer = [0; 4096];
        let mut burst = 0;
        #[expect(clippy::disallowed_methods, reason = "the length of a burst")]
        let now = || std::time::Instant::now();
        let mut since = now();
        loop {
            let pause = (burst > 0).then_some(PAUSE);
            let received = self.socket.set_read_timeout(pause).and_then(|()| self.socket.recv(&mut buffer));
            match received {
                Ok(0) if self.is_closed.load(Ordering::Acquire) => return,
                Ok(length) => {
                    burst += 1;
                    // In a flood there is no pause, and what the kernel did not queue would wait for the next scan.
                    if burst > BURST && since.elapsed() > LONGEST_BURST {
                        on_heard(Heard::TooMuch);
                        since = now();
                    }
                    on_heard(Heard::Repository(PathBuf::from(OsStr::from_bytes(&buffer[..length]))));
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if burst >= BURST {
                        on_heard(Heard::TooMuch);
                    }
                    (burst, since) = (0, now());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(
                        "the socket 'wake' cannot be read any more: {error}; until the daemon is restarted, each push waits for the next scan (scan_interval)"
                    );
                    return;
                }
            }
        }
    }

    /// Ends [`WakeSocket::listen`]. From now on the hooks start drains of their own.
    pub(super) fn close(&self) {
        // If the files cannot be removed, a hook finds nobody at the socket and starts a drain.
        let _ = std::fs::remove_file(wake_socket(&self.runtime));
        let _ = std::fs::remove_file(roots_file(&self.runtime));
        self.is_closed.store(true, Ordering::Release);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
