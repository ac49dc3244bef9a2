//! Listening sockets and connections, and their limits.
//!
//! Guaranteed: a client whose request is not whole holds a connection only until another client needs it, at most ten seconds for the head
//! and ten for the body. So clients that only hold connections keep nobody out. Absent: the time limit for an answer, which
//! [`super::router`] sets, and TLS, which a reverse proxy adds.

#![expect(clippy::disallowed_methods, reason = "opens the sockets that it listens on")]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::client::Peer;
use crate::config::Listen;
use crate::durable;

/// Connections at once.
const MAX_CONNECTIONS: usize = 512;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long active connections may take to end when the daemon is told to end.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long connections may take to close after the last answer.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// A socket that listens.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// With its path.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// The sockets that systemd hands over (sd_listen_fds(3)), or the one that is asked for.
    pub(super) fn open(wanted: Option<&Listen>) -> anyhow::Result<Vec<Self>> {
        let mut handed = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for index in 0..handed.len() {
            if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
                socket.set_nonblocking(true)?;
                listeners.push(Self::Tcp(TcpListener::from_std(socket)?));
            } else if let Some(socket) = handed.take_unix_listener(index)? {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
                listeners.push(Self::Unix(UnixListener::from_std(socket)?, path));
            }
        }
        match wanted {
            Some(wanted) if listeners.is_empty() => Ok(vec![Self::bind(wanted)?]),
            _ => Ok(listeners),
        }
    }

    fn bind(wanted: &Listen) -> anyhow::Result<Self> {
        match wanted {
            Listen::Tcp(address) => {
                let bound = || {
                    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
                    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                    socket.set_reuseaddr(true)?;
                    socket.bind(address)?;
                    socket.listen(BACKLOG)
                };
                Ok(Self::Tcp(bound().with_context(|| format!("cannot listen at {address}"))?))
            }
            Listen::Unix(path) => {
                let named = || format!("cannot listen at '{}'", path.display());
                remove_stale(path).with_context(named)?;
                // The socket is made in a private directory, so nobody connects before its mode is right.
                let parent = path.parent().unwrap_or(Path::new("/"));
                let private = durable::private_directory(parent).with_context(named)?;
                let made = private.path().join("socket");
                let socket = UnixListener::bind(&made).with_context(named)?;
                // Members of the socket's group may connect. The administrator adds the proxy's user to that group.
                std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o660)).with_context(named)?;
                // Unlike a rename, link(2) replaces nothing: it fails if another daemon made a socket here meanwhile.
                std::fs::hard_link(&made, path).with_context(named)?;
                Ok(Self::Unix(socket, path.clone()))
            }
        }
    }

    /// Where it listens, for people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Tcp(socket) => {
                socket.local_addr().map_or_else(|_| "tcp".into(), |address| format!("http://{address}/"))
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer { name: address.ip().to_string(), is_local: address.ip().is_loopback() };
                Ok((Box::new(stream), peer))
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept().await?;
                Ok((Box::new(stream), Peer { name: "unix".into(), is_local: true }))
            }
        }
    }
}

/// Removes a socket that a dead process has left behind. Anything else at this path is not ours to remove.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if is_socket && error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The connections that there are.
#[derive(Default)]
pub(super) struct ConnectionLimit {
    state: Mutex<CrowdState>,
}

#[derive(Default)]
struct CrowdState {
    count: usize,
    next: u64,
    /// Idle connections; the one that has been idle longest comes first.
    idle: BTreeMap<u64, AbortHandle>,
}

impl ConnectionLimit {
    fn lock(&self) -> MutexGuard<'_, CrowdState> {
        self.state.lock()
    }

    /// Makes room for one more connection. At the limit, the one that has been idle longest is closed. `false` when none is idle.
    fn admit(&self) -> bool {
        let mut state = self.lock();
        if state.count >= MAX_CONNECTIONS {
            let Some((_, oldest)) = state.idle.pop_first() else { return false };
            oldest.abort();
        }
        state.count += 1;
        true
    }

    /// Waits until no request is at work, and a moment longer for connections that are closing. The streams of open pages are left.
    pub(super) async fn emptied(&self) {
        const STEP: Duration = Duration::from_millis(5);
        let until = async |is_over: &dyn Fn(&CrowdState) -> bool, limit| {
            let wait = async {
                while !is_over(&self.lock()) {
                    tokio::time::sleep(STEP).await;
                }
            };
            let _ = tokio::time::timeout(limit, wait).await;
        };
        until(&|state| state.count == state.idle.len(), LAST_ANSWERS).await;
        until(&|state| state.count == 0, LAST_BYTES).await;
    }
}

impl CrowdState {
    fn is_idle(&mut self, slot: &mut u64, handle: AbortHandle) {
        self.next += 1;
        // A request that was refused before it was whole never made its connection busy.
        self.idle.remove(slot);
        *slot = self.next;
        self.idle.insert(*slot, handle);
    }
}

/// One connection's place under the limit. Dropping it frees the place.
pub(super) struct Slot {
    limit: Arc<ConnectionLimit>,
    number: Mutex<u64>,
    handle: Mutex<Option<AbortHandle>>,
}

impl Slot {
    fn idle(&self, handle: AbortHandle) {
        let mut number = self.number.lock();
        self.limit.lock().is_idle(&mut number, handle.clone());
        *self.handle.lock() = Some(handle);
    }

    /// A request is whole. Its connection is not closed for another one until the answer is ready.
    pub(super) fn busy(&self) {
        let number = self.number.lock();
        self.limit.lock().idle.remove(&number);
    }

    fn idle_again(&self) {
        let handle = self.handle.lock().clone();
        if let Some(handle) = handle {
            self.idle(handle);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let number = *self.number.lock();
        let mut limit = self.limit.lock();
        limit.idle.remove(&number);
        limit.count -= 1;
    }
}

/// Takes connections until told to stop. Requests that have begun are still answered.
pub(super) async fn serve(
    listener: Listener,
    router: Router,
    limit: Arc<ConnectionLimit>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) if limit.admit() => {
                begin(stream, peer, Arc::clone(&limit), router.clone(), stop.clone());
            }
            Ok(_) => tracing::warn!("all {MAX_CONNECTIONS} connections are busy; one more was refused"),
            Err(error) => {
                // For example, there is no free descriptor. Connections that end make room.
                tracing::warn!("cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn begin(
    stream: Box<dyn Stream>,
    peer: Peer,
    limit: Arc<ConnectionLimit>,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    let slot = Arc::new(Slot { limit, number: Mutex::default(), handle: Mutex::default() });
    let service = TowerToHyperService::new(router);
    let theirs = Arc::clone(&slot);
    let answer = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(Arc::clone(&theirs));
        let (answered, slot) = (service.call(request), Arc::clone(&theirs));
        async move {
            let answer = answered.await;
            slot.idle_again();
            answer
        }
    });
    let (held, (go, went)) = (Arc::clone(&slot), tokio::sync::oneshot::channel::<()>());
    let task = tokio::spawn(async move {
        let _held = held;
        // Waits until the connection is listed as idle.
        let _ = went.await;
        run(TokioIo::new(stream), answer, stop).await;
    });
    slot.idle(task.abort_handle());
    let _ = go.send(());
}

async fn run<S, B>(stream: TokioIo<Box<dyn Stream>>, service: S, mut stop: watch::Receiver<bool>)
where
    S: Service<hyper::Request<hyper::body::Incoming>, Response = hyper::Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(MAX_HEAD)
            .max_buf_size(64 << 10)
            .serve_connection(stream, service)
    );
    tokio::select! {
        // The connection has ended, also if the client hung up or sent no valid HTTP.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWERS, connection).await;
}
