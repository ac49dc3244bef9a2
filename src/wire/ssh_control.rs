//! One ssh connection for many mirrors at one host: ssh's own multiplexing (ssh_config(5), `ControlMaster`, `ControlPersist`).
//!
//! Mirrors with the same ssh options, key and known_hosts contents get the same `ControlPath`: from the second contact on, or from the
//! first one if more are likely. The socket is in a directory of mode 0700. ssh itself opens the shared connection. A contact gets a
//! connection of its own if sshd allows no more sessions on the shared one, or if two contacts try to open it at the same time. ssh keeps
//! the connection for one minute after the last session; the end of the pool closes it at once. If
//! `ssh_options` name `ControlPath` or `ControlMaster`, the user's settings apply instead. The same
//! holds if more contacts are likely and the user's ssh_config(5) sets `ControlPath`.
//!
//! Guaranteed: later contacts do not use a connection on which a push broke, or on which any
//! contact reached a limit. After a crash the connection ends within a minute after its last
//! session, and an empty directory remains. Absent: mirrors with a password; each of their contacts
//! gets its own connection.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Contacts;
use super::ssh::file_option;
use crate::durable;
use crate::process::{command, run};

/// Maximum number of kinds that are remembered. If one more comes, all others are dropped first.
const MAX_KINDS: usize = 256;
/// How long ssh may take to close a connection at the end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest socket path that ssh certainly accepts. While ssh makes the socket, it appends a random suffix to the path.
const MAX_PATH: usize = 80;

/// What two contacts must have in common to share a connection: everything that ssh is told.
pub(super) type Kind = Vec<OsString>;

/// The sockets of the connections that a pool shares.
#[derive(Clone, Default)]
pub(super) struct ControlSockets {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    directory: Option<tempfile::TempDir>,
    made: u32,
    sockets: HashMap<Kind, Socket>,
}

enum Socket {
    /// The next contact gets a new socket: the first contact had a connection of its own, or the
    /// shared connection failed.
    Next,
    /// The socket of the shared connection.
    At(PathBuf),
    /// The user's configuration of ssh names a socket.
    OfUser,
}

/// The socket that a contact uses.
pub(super) struct ControlSocket {
    of: ControlSockets,
    kind: Kind,
    path: PathBuf,
}

impl ControlSockets {
    /// The socket for one more contact. `None` when it is to have a connection of its own.
    pub(super) fn socket(&self, kind: Kind, contacts: Contacts) -> Option<ControlSocket> {
        let mut state = self.lock();
        if state.sockets.len() >= MAX_KINDS && !state.sockets.contains_key(&kind) {
            state.sockets.clear();
        }
        let path = match state.sockets.get(&kind) {
            None if contacts == Contacts::One => {
                state.sockets.insert(kind, Socket::Next);
                return None;
            }
            Some(Socket::OfUser) => return None,
            Some(Socket::At(path)) => path.clone(),
            Some(Socket::Next) | None => state.new_path()?,
        };
        state.sockets.insert(kind.clone(), Socket::At(path.clone()));
        Some(ControlSocket { of: self.clone(), kind, path })
    }

    /// Whether a contact of this kind has begun before.
    pub(super) fn has_met(&self, kind: &Kind) -> bool {
        self.lock().sockets.contains_key(kind)
    }

    /// Leaves all contacts of this kind to the user's configuration of ssh.
    pub(super) fn leave_to_user(&self, kind: Kind) {
        self.lock().sockets.insert(kind, Socket::OfUser);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn new_path(&mut self) -> Option<PathBuf> {
        if self.directory.is_none() {
            self.directory = durable::private_directory(&std::env::temp_dir()).ok();
        }
        self.made += 1;
        let path = self.directory.as_ref()?.path().join(self.made.to_string());
        (path.as_os_str().len() <= MAX_PATH).then_some(path)
    }
}

impl ControlSocket {
    /// The options with which ssh uses the shared connection, or opens it.
    pub(super) fn options(&self) -> [OsString; 3] {
        ["ControlMaster=auto".into(), file_option("ControlPath", &self.path).into(), "ControlPersist=60".into()]
    }

    /// Gives later contacts another connection, because this one failed.
    pub(super) fn discard(&self) {
        let mut state = self.of.lock();
        let is_current = |socket: &&mut Socket| matches!(socket, Socket::At(path) if *path == self.path);
        if let Some(current) = state.sockets.get_mut(&self.kind).filter(is_current) {
            *current = Socket::Next;
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let Some(directory) = &self.directory else { return };
        let sockets = (1..=self.made).map(|number| directory.path().join(number.to_string()));
        for socket in sockets.filter(|socket| socket.exists()) {
            let path = format!("-o{}", file_option("ControlPath", &socket));
            let mut exit = command("ssh");
            exit.args(["-F", "none", "-O", "exit"]).arg(path).arg("--").arg("mirror");
            // A connection that does not end now ends within a minute.
            let _ = run("ssh", &mut exit, b"", EXIT_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ssh itself reads the option: `ssh -G` prints what it takes as the path.
    #[test]
    fn ssh_takes_any_path_as_the_control_path() {
        for path in ["/tmp/plain/1", "/tmp/with a space/1", "/tmp/per%cent/1"] {
            let socket = ControlSocket { path: path.into(), kind: Vec::new(), of: ControlSockets::default() };
            let mut ssh = command("ssh");
            ssh.args(["-G", "-F", "none"]);
            for option in socket.options() {
                ssh.arg("-o").arg(option);
            }
            let said = run("ssh", ssh.arg("host"), b"", Duration::from_secs(30)).expect("run");
            let said = String::from_utf8_lossy(&said);
            assert!(said.lines().any(|line| line.replace("%%", "%") == format!("controlpath {path}")), "{said}");
        }
    }

    #[test]
    fn a_connection_that_broke_is_given_up_for_all_later_contacts() {
        let sockets = ControlSockets::default();
        let next = |kind: &str| sockets.socket(vec![kind.into()], Contacts::One);
        assert!(next("a").is_none(), "the first contact is alone");
        let (first, second) = (next("a").expect("shared"), next("a").expect("shared"));
        assert_eq!(first.path, second.path);
        assert!(next("b").is_none(), "another kind shares nothing with it");
        first.discard();
        let third = next("a").expect("shared");
        assert_ne!(third.path, first.path);
        // An earlier contact may fail later. It must not discard the new connection.
        second.discard();
        assert_eq!(next("a").expect("shared").path, third.path);
        let early = sockets.socket(vec!["c".into()], Contacts::More).expect("shared");
        assert_eq!(next("c").expect("shared").path, early.path, "more contacts were expected");
    }
}
