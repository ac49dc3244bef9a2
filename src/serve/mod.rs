//! The daemon: workers that the hooks wake, GitLab's remote mirrors API, and a page for people.
//!
//! ```text
//! hook ─▶ wake ─┐                      ┌─▶ api
//! scan, times ──┼─▶ schedule::Workers ─▶ App ─▶ page
//! api, page ────┘                      └─▶ metrics
//! ```
//!
//! Guaranteed: a daemon that is stopped, killed or restarted at any moment loses no recorded push, because all state is in the spools and
//! the repositories. Mirrors that were created through the API or the page are confined (see `wire::Egress`). Work that may wait runs in
//! threads of its own (`lanes`), and no token can take all of them. The size and number of requests, connections and sessions are limited.
//! Absent: TLS, which a reverse proxy adds, and user accounts; there are tokens instead. Only this
//! module and the client of the fleet's database use tokio.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};

use crate::config::{self, Listen, Server};
use crate::credentials::CredentialEnv;
use crate::schedule::{Event, Scan, Workers};
use crate::tokens::Store;

mod access;
mod api;
mod as_owner;
mod beat;
mod client;
mod copies;
mod fleet;
mod health;
mod lanes;
mod listen;
mod log;
mod look;
mod mirrors;
mod numbers;
mod page;
mod params;
mod projects;
mod router;
mod summaries;
mod triggers;
mod wake;

use access::Access;
use lanes::Lanes;
use listen::{ConnectionLimit, Listener};
use look::{Look, Wanted};
use page::Sessions;
use projects::Projects;
use triggers::Allowances;
use wake::{Heard, WakeSocket};

/// The error if hooks cannot find out that this daemon serves their repository.
const NOT_ANNOUNCED: &str = "cannot write the file 'roots' in the runtime directory, from which hooks learn which repositories the daemon serves";
/// How long running updates may continue when the daemon is told to end.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// How the daemon is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. With `None`, the daemon has no API and no page.
    pub listen: Option<Listen>,
    /// Where its own state is.
    pub state_directory: PathBuf,
    /// Where its sockets are.
    pub runtime_directory: PathBuf,
    /// The server's file, if one is named.
    pub server_config: Option<PathBuf>,
    /// The environment in which credentials are looked up, and the path of this program.
    pub credential_env: CredentialEnv,
}

/// What every part of the daemon knows.
struct App {
    /// Where hooks wake us.
    socket: WakeSocket,
    workers: Workers,
    projects: Projects,
    access: Access,
    sessions: Sessions,
    /// The threads for requests.
    lanes: Lanes,
    /// What webhooks may still do.
    allowances: Allowances,
    /// The number of the configuration.
    generation: AtomicU64,
    /// When changes by other programs were last looked for.
    seen: Mutex<summaries::Seen>,
    /// The answer of `/metrics`, and when it was made.
    metrics: Mutex<Option<(Timestamp, String)>>,
    /// Repositories of which something has changed.
    events: broadcast::Sender<PathBuf>,
    /// Asks the thread of `look` to list the repositories, or to look through their spools too.
    scans: Mutex<Option<Sender<Wanted>>>,
    /// The configuration as it was read. The lock is held while a new one is taken, so that an
    /// older one does not replace a newer one.
    configured: Mutex<Arc<Server>>,
    /// What the last look for repositories showed.
    look: Look,
    fleet: fleet::Fleet,
    /// Runs that stopped because another run for the same mirror had begun.
    superseded: AtomicU64,
}

/// How the daemon scans a repository. Before the daemon is made, nothing is known of any.
fn scan_of(app: Weak<App>) -> impl Fn(&Path, Scan<'_>) + Send + Sync + 'static {
    move |git_dir, scan| match app.upgrade() {
        Some(app) => app.scan(git_dir, scan),
        None => drop(scan()),
    }
}

impl App {
    fn new(server: Server, socket: WakeSocket, options: &Options, app: &Weak<Self>) -> Self {
        let events = broadcast::channel(256).0;
        let failures = Mutex::new(HashMap::new());
        let on_scan = scan_of(Weak::clone(app));
        let app = Weak::clone(app);
        let on_event = move |event: Event<'_>| {
            // Nothing happens before the daemon is made.
            let Some(app) = app.upgrade() else { return };
            let git_dir = match event {
                Event::Begun { git_dir, mirror } => {
                    app.begun(git_dir, mirror);
                    return app.tell(git_dir);
                }
                Event::Ended(report) => {
                    log::log_report(report);
                    let git_dir = PathBuf::from(&report.repository);
                    failures.lock().remove(&git_dir);
                    git_dir
                }
                Event::Failed { git_dir, error } => {
                    let text = error.to_string();
                    let mut known = failures.lock();
                    // Every scan meets the same error. Log it only when it changes.
                    if known.get(git_dir) != Some(&text) {
                        tracing::error!("'{}': {text}", git_dir.display());
                        known.insert(git_dir.to_owned(), text);
                    }
                    git_dir.to_owned()
                }
            };
            app.changed(&git_dir);
            if let Event::Ended(report) = event {
                app.superseded.fetch_add(u64::from(report.is_superseded), Ordering::Relaxed);
                if report.host == crate::drain::Host::Busy {
                    app.host_asked(&git_dir, report);
                }
            }
        };
        let fleet = fleet::Fleet::new(&server, &options.state_directory);
        let server = Arc::new(server);
        let workers = fleet.as_silent(&server);
        Self {
            fleet,
            socket,
            workers: Workers::new(workers, now, random, Box::new(on_event), Box::new(on_scan)),
            projects: Projects::new(&options.state_directory),
            access: Access::new(Store::new(&options.state_directory)),
            sessions: Sessions::default(),
            lanes: Lanes::default(),
            allowances: Allowances::default(),
            generation: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            seen: Mutex::default(),
            metrics: Mutex::default(),
            events,
            scans: Mutex::default(),
            configured: Mutex::new(server),
            look: Look::default(),
        }
    }

    /// Something of a repository has changed.
    fn changed(&self, git_dir: &Path) {
        self.summarize(git_dir);
        self.tell(git_dir);
    }

    /// Tells the open pages that something of a repository has changed.
    fn tell(&self, git_dir: &Path) {
        // There may be no open page.
        let _ = self.events.send(git_dir.to_owned());
    }

    /// Takes a configuration, and tells hooks which directories are served.
    fn take(&self, server: &Arc<Server>) {
        if let Err(error) = self.socket.announce(server) {
            tracing::error!("{NOT_ANNOUNCED}: {error}");
        }
        self.workers.reload(self.fleet.as_silent(server));
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// The configuration. Resolves the symbolic links of roots that have appeared since it was read.
    fn server_with_roots(&self) -> Arc<Server> {
        let mut configured = self.configured.lock();
        let mut resolved = (**configured).clone();
        if matches!(resolved.resolve_roots(), Ok(true)) {
            *configured = Arc::new(resolved);
            self.take(&configured);
        }
        self.workers.server()
    }

    /// Turns silent mode on or off for this node, as it is set for the fleet.
    fn set_silent(&self, is_silent: bool) {
        let configured = self.configured.lock();
        if self.fleet.set_silent(is_silent) {
            self.take(&configured);
            tracing::info!("fleet: silent mode is {}", if is_silent { "on: nothing is sent" } else { "off" });
            self.ask(Wanted::Scan);
        }
    }

    fn heard(&self, heard: Heard) {
        match heard {
            Heard::TooMuch => self.ask(Wanted::Scan),
            Heard::Repository(git_dir) => {
                let server = self.workers.server();
                // Anyone can send a hint, so only a canonical path below a root is accepted.
                let is_below = server.roots.iter().any(|root| git_dir.starts_with(&root.path));
                if is_below
                    && git_dir.join("HEAD").is_file()
                    && git_dir.canonicalize().is_ok_and(|real| real.as_os_str() == git_dir.as_os_str())
                {
                    self.distrust(&git_dir);
                    self.workers.wake(git_dir.clone());
                    self.add(&server, &git_dir);
                }
            }
        }
    }
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// Why it cannot start, as a message for the user.
pub fn run(server: Server, options: &Options) -> anyhow::Result<()> {
    server.existing_roots()?;
    server.check_urls()?;
    crate::durable::make_directories(&options.state_directory, 0o700).with_context(|| {
        format!("cannot use the state directory '{}'; set STATE_DIRECTORY", options.state_directory.display())
    })?;
    raise_descriptor_limit();
    let socket = WakeSocket::new(&options.runtime_directory)?;
    socket.announce(&server).context(NOT_ANNOUNCED)?;
    let app = Arc::new_cyclic(|app| App::new(server, socket, options, app));
    app.hold_hosts();
    app.look_around();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(lanes::THREADS)
        .thread_name("serve")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let listeners = {
        let _entered = runtime.enter();
        if options.listen.is_some() { Listener::open(options.listen.as_ref())? } else { Vec::new() }
    };
    let (sender, asked) = channel();
    *app.scans.lock() = Some(sender);
    let app = &app;
    let workers = std::thread::scope(|scope| {
        let workers = scope.spawn(|| app.workers.run());
        scope.spawn(|| app.socket.listen(|heard| app.heard(heard)));
        scope.spawn(move || {
            crate::schedule::yield_to_others();
            app.look_for_ever(&asked);
        });
        scope.spawn(|| app.beat_for_ever());
        let told = runtime.block_on(attend(app, listeners, options));
        app.workers.halt();
        app.socket.close();
        app.scans.lock().take();
        let grace = app.workers.server().top.shutdown_timeout.unwrap_or(SHUTDOWN);
        wait(&|| workers.is_finished(), grace);
        if !workers.is_finished() {
            tracing::warn!(
                "some updates did not end within {} s and are abandoned; the next daemon starts them again (shutdown_timeout sets the limit)",
                grace.as_secs()
            );
            std::process::exit(i32::from(told.is_err()));
        }
        told
    });
    runtime.shutdown_background();
    workers
}

fn wait(is_over: &dyn Fn() -> bool, limit: Duration) {
    const STEP: Duration = Duration::from_millis(20);
    let mut left = limit;
    while !is_over() && !left.is_zero() {
        std::thread::park_timeout(STEP);
        left = left.saturating_sub(STEP);
    }
}

/// Answers requests and signals until told to end.
async fn attend(app: &Arc<App>, listeners: Vec<Listener>, options: &Options) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, stopped) = watch::channel(false);
    let limit = Arc::new(ConnectionLimit::default());
    let mut serving = tokio::task::JoinSet::new();
    for listener in listeners {
        tracing::info!("listening at {}", listener.shown());
        serving.spawn(listen::serve(listener, router::router(Arc::clone(app)), Arc::clone(&limit), stopped.clone()));
    }
    notify(&[sd_notify::NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(app, options),
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("stopping: running updates may continue for a while");
    let _ = stop.send(true);
    while serving.join_next().await.is_some() {}
    limit.emptied().await;
    Ok(())
}

/// Takes the configuration as it is now, or keeps the last good one.
fn reload(app: &App, options: &Options) {
    let loaded = config::load_server(options.server_config.as_deref(), &options.credential_env)
        .and_then(|server| server.existing_roots().and(server.check_urls()).map(|()| server));
    match loaded {
        Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        Ok(server) => {
            let mut configured = app.configured.lock();
            *configured = Arc::new(server);
            app.take(&configured);
            drop(configured);
            app.ask(Wanted::Scan);
            tracing::info!("the configuration was reloaded");
        }
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(state);
}

/// Raises the limit of open files to the hard limit. Every mirror, connection and repository needs descriptors. The usual limit of 1,024
/// exists for programs that use select(2), and this one does not.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the clock of the daemon")]
    Timestamp::now()
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}
