//! One ssh connection for many mirrors at one host: ssh's own multiplexing (ssh_config(5), `ControlMaster`, `ControlPersist`).
//!
//! Mirrors with the same ssh options, key and known_hosts contents share one master connection, from the second contact on. Its socket is in
//! a directory of mode 0700. ssh keeps the master for one minute after the last session; the end of the pool closes it at once.
//! A mirror whose `ssh_options` name `ControlPath` or `ControlMaster` shares in its own way, or not at all.
//!
//! Guaranteed: a master has at most as many sessions as sshd allows by default; then another one is opened. A dead master is replaced. A
//! master that does not answer within a second, or on which a contact failed, is not used again. After a crash the master ends within a
//! minute, and an empty directory remains. Absent: mirrors with a password; each of them gets its own connection.

#![expect(clippy::disallowed_methods, reason = "waits for a socket that ssh makes, with a limit")]

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::process::{command, run};

/// Sessions on one connection: sshd's default for `MaxSessions` is 10.
const MAX_SESSIONS: usize = 8;
/// Connections of one kind.
const MAX_MASTERS: usize = 4;
/// Kinds; beyond, all are forgotten.
const MAX_KINDS: usize = 256;
/// How long a connection may take to answer on its socket.
const MUX_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest path of a socket that is surely taken by ssh, which adds to it.
const MAX_PATH: usize = 80;

/// What two contacts must have in common: everything that ssh is told.
pub(super) type Kind = Vec<OsString>;

/// The shared connections of a pool.
#[derive(Clone, Default)]
pub(super) struct Multiplex {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    directory: Option<tempfile::TempDir>,
    made: u32,
    hosts: HashMap<Kind, Host>,
}

#[derive(Default)]
struct Host {
    uses: u64,
    masters: Vec<ControlMaster>,
}

/// One connection.
struct ControlMaster {
    socket: PathBuf,
    sessions: usize,
    /// Its maker's session is open, or has ended. A session that comes before it can take its place, where sshd allows one only.
    is_settled: bool,
}

/// Leave to use a connection, or to make it.
pub(super) struct ControlSlot {
    multiplex: Multiplex,
    kind: Kind,
    socket: PathBuf,
    is_maker: bool,
}

/// What a socket answered.
enum Greeting {
    Ready,
    Absent,
    Unresponsive,
}

impl Multiplex {
    /// A connection for one more session. `None` when the contact is to have one of its own. Waits `limit` at most for one that is
    /// being made.
    pub(super) fn slot(&self, kind: &Kind, limit: Duration) -> Option<ControlSlot> {
        {
            let mut state = self.lock();
            if state.hosts.len() >= MAX_KINDS && !state.hosts.contains_key(kind) {
                state.hosts.clear();
            }
            let host = state.hosts.entry(kind.clone()).or_default();
            host.uses += 1;
            if host.uses == 1 {
                return None;
            }
        }
        let deadline = Instant::now() + limit;
        loop {
            let (mut slot, is_alone, is_settled) = self.reserve(kind)?;
            if is_alone || is_settled {
                match greeting(&slot.socket) {
                    Greeting::Ready => return Some(slot),
                    Greeting::Unresponsive => slot.discard(),
                    // Who made it is gone, or nobody has yet.
                    Greeting::Absent if is_alone => {
                        slot.is_maker = true;
                        slot.settle(false);
                        return Some(slot);
                    }
                    Greeting::Absent => {}
                }
            }
            if Instant::now() > deadline {
                return None;
            }
            drop(slot);
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Takes a place on a connection that has room, or on a new one; says whether no other place is taken, and whether it is settled.
    fn reserve(&self, kind: &Kind) -> Option<(ControlSlot, bool, bool)> {
        let mut state = self.lock();
        let host = state.hosts.entry(kind.clone()).or_default();
        if !host.masters.iter().any(|master| master.sessions < MAX_SESSIONS) {
            if host.masters.len() >= MAX_MASTERS {
                return None;
            }
            let socket = state.new_socket()?;
            state.hosts.entry(kind.clone()).or_default().masters.push(ControlMaster {
                socket,
                sessions: 0,
                is_settled: false,
            });
        }
        let host = state.hosts.get_mut(kind)?;
        let master = host.masters.iter_mut().find(|master| master.sessions < MAX_SESSIONS)?;
        master.sessions += 1;
        let (socket, is_maker) = (master.socket.clone(), false);
        let slot = ControlSlot { multiplex: self.clone(), kind: kind.clone(), socket, is_maker };
        Some((slot, master.sessions == 1, master.is_settled))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new_socket(&mut self) -> Option<PathBuf> {
        if self.directory.is_none() {
            self.directory = tempfile::Builder::new().prefix("git-mirror-push.").tempdir().ok();
        }
        self.made += 1;
        let socket = self.directory.as_ref()?.path().join(self.made.to_string());
        (socket.as_os_str().len() <= MAX_PATH).then_some(socket)
    }
}

impl ControlSlot {
    /// The options that make ssh use the connection, or make it.
    pub(super) fn options(&self) -> [OsString; 3] {
        let mut path = OsString::from("ControlPath=");
        path.push(self.socket.display().to_string().replace('%', "%%"));
        ["ControlMaster=auto".into(), path, "ControlPersist=60".into()]
    }

    /// The session is open: others may use the connection.
    pub(super) fn opened(&self) {
        if self.is_maker {
            self.settle(true);
        }
    }

    fn settle(&self, is_settled: bool) {
        let mut state = self.multiplex.lock();
        let masters = state.hosts.get_mut(&self.kind).into_iter().flat_map(|host| &mut host.masters);
        masters.filter(|master| master.socket == self.socket).for_each(|master| master.is_settled = is_settled);
    }

    /// Has nobody use the connection any more: something is wrong with it.
    pub(super) fn discard(&self) {
        if let Some(host) = self.multiplex.lock().hosts.get_mut(&self.kind) {
            host.masters.retain(|master| master.socket != self.socket);
        }
    }
}

impl Drop for ControlSlot {
    fn drop(&mut self) {
        let mut state = self.multiplex.lock();
        let masters = state.hosts.get_mut(&self.kind).into_iter().flat_map(|host| &mut host.masters);
        for master in masters.filter(|master| master.socket == self.socket) {
            master.sessions -= 1;
            master.is_settled |= self.is_maker;
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let Some(directory) = &self.directory else { return };
        for socket in (1..=self.made).map(|number| directory.path().join(number.to_string())) {
            if matches!(greeting(&socket), Greeting::Ready) {
                let mut path = OsString::from("-oControlPath=");
                path.push(&socket);
                let mut exit = command("ssh");
                exit.args(["-F", "none", "-O", "exit"]).arg(path).arg("--").arg("mirror");
                // One that does not go now goes within a minute.
                let _ = run("ssh", &mut exit, b"", MUX_TIMEOUT);
            }
        }
    }
}

/// A master says hello first: a length, the number 1, a version (OpenSSH's PROTOCOL.mux).
fn greeting(socket: &Path) -> Greeting {
    let hello = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(MUX_TIMEOUT))?;
        let mut hello = [0; 12];
        stream.read_exact(&mut hello)
    };
    match hello() {
        Ok(()) => Greeting::Ready,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Greeting::Unresponsive,
        Err(_) => Greeting::Absent,
    }
}
