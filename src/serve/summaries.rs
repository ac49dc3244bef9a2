//! What the daemon knows of every mirror without reading a file: for the overview of the page and for `/metrics`.
//!
//! Guaranteed: it is as new as the last run of the mirror, the last change through API or page, or
//! the last scan, whichever was last. Absent: state on the disk. A daemon that starts reads
//! everything again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::projects::Project;
use super::{App, now};
use crate::durable;
use crate::layout::Layout;
use crate::mirror;
use crate::status::{HalfStamp, Stamp, Standing, Summary};

/// With at most this many repositories, a request looks for changes by other programs. With more,
/// the next scan sees them.
const MAX_READ: usize = 1000;
/// The shortest time between two looks for changes by other programs.
const FRESH: SignedDuration = SignedDuration::from_secs(2);

/// A look that takes longer than this hangs. The next one does not wait for it.
const LONGEST: SignedDuration = SignedDuration::from_secs(60);

/// The last look for changes by other programs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    at: Option<Timestamp>,
    is_looking: bool,
}

/// One look. It ends however its thread ends.
struct Looking<'s>(&'s Mutex<Seen>);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Seen { at: Some(now()), is_looking: false };
    }
}

/// What is known of the mirrors of a project.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) mirrors: Mirrors,
    /// The stamp of the files when they were read. `None` if the next scan is to read them even if
    /// they have not changed.
    stamp: Option<Stamp>,
}

/// The mirrors of a project.
#[derive(Debug, Default)]
pub(super) enum Mirrors {
    /// Nobody has read them yet.
    #[default]
    Unread,
    /// They cannot be read; the log says why.
    Unreadable,
    /// They were read.
    Read(Box<[Summary]>),
}

impl Project {
    /// Looks at its mirrors.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Mirrors) -> T) -> T {
        look(&self.known.lock().mirrors)
    }

    /// Whether its mirrors were read, or could not be.
    pub(super) fn is_read(&self) -> bool {
        self.look(|mirrors| !matches!(mirrors, Mirrors::Unread))
    }
}

impl App {
    /// Reads the mirrors of a repository again, because something of it has changed.
    pub(super) fn summarize(&self, git_dir: &Path) {
        if let Some(project) = self.project_at(git_dir) {
            self.read(&project);
        }
    }

    /// Reads the mirrors of a repository again if its files have changed.
    pub(super) fn summarize_if_changed(&self, git_dir: &Path) {
        if let Some(project) = self.project_at(git_dir) {
            self.read_if_changed(&project);
        }
    }

    /// A mirror is being served.
    pub(super) fn begun(&self, git_dir: &Path, mirror: &str) {
        let Some(project) = self.project_at(git_dir) else { return };
        let mut known = project.known.lock();
        // The run may end without a report, so the next scan reads the files in any case.
        known.stamp = None;
        if let Mirrors::Read(all) = &mut known.mirrors
            && let Some(one) = all.iter_mut().find(|one| one.name == mirror)
        {
            one.standing = Standing::Running;
        }
        project.is_copied.store(false, Ordering::Relaxed);
    }

    /// Sees what other programs have changed, unless that was just done or there are too many repositories.
    pub(super) fn see_changes(&self) {
        let table = self.table();
        let is_fresh = |at: Timestamp| now().duration_since(at).abs() < FRESH;
        {
            let mut seen = self.seen.lock();
            // Only one visitor looks at a time: a file system that hangs must not take all threads.
            let is_looking = |at: Timestamp| seen.is_looking && now().duration_since(at).abs() < LONGEST;
            if table.projects.len() > MAX_READ || seen.at.is_some_and(|at| is_looking(at) || is_fresh(at)) {
                return;
            }
            *seen = Seen { at: Some(now()), is_looking: true };
        }
        // Without the lock: a file system may hang, and no other visitor waits for it then.
        let _looking = Looking(&self.seen);
        table.projects.iter().for_each(|project| self.read_if_changed(project));
    }

    pub(super) fn project_at(&self, git_dir: &Path) -> Option<Arc<Project>> {
        self.projects.table().at(&self.workers.server(), git_dir).cloned()
    }

    fn read_if_changed(&self, project: &Project) {
        // Files are looked at without the lock, because their file system may hang.
        let before = {
            let known = project.known.lock();
            match &known.mirrors {
                Mirrors::Unread | Mirrors::Unreadable => None,
                Mirrors::Read(all) => {
                    known.stamp.map(|stamp| (stamp, all.iter().map(|one| one.name.clone()).collect::<Vec<_>>()))
                }
            }
        };
        durable::within(&project.git_dir, || {
            let is_same = before.is_some_and(|(stamp, names)| {
                let layout = Layout::new(&project.git_dir);
                Some(stamp) == self.begin_stamp(&layout).and(&layout, names.iter().map(|name| &**name), now())
            });
            if !is_same {
                self.read(project);
            }
        });
    }

    fn begin_stamp(&self, layout: &Layout) -> HalfStamp {
        Stamp::begin(layout, self.generation.load(Ordering::Relaxed))
    }

    fn read(&self, project: &Project) {
        let read = || -> anyhow::Result<Known> {
            // Before the files are read, so that a change meanwhile is seen later.
            let stamp = self.begin_stamp(&Layout::new(&project.git_dir));
            let server = self.workers.server();
            server.check_url_of(&project.git_dir)?;
            let (layout, config) = mirror::to_show(&project.git_dir, &server)?;
            let stamp = stamp.and(&layout, config.mirrors.iter().map(|mirror| &*mirror.name), now());
            let mirrors = Summary::all(&layout, &config, now())?;
            // No file changes when a run is killed. So a running mirror is read again at the next
            // scan.
            let is_still = mirrors.iter().all(|mirror| mirror.standing != Standing::Running);
            Ok(Known { mirrors: Mirrors::Read(mirrors.into()), stamp: stamp.filter(|_| is_still) })
        };
        match read() {
            Ok(known) => *project.known.lock() = known,
            Err(error) => {
                let new = Known { mirrors: Mirrors::Unreadable, stamp: None };
                let old = std::mem::replace(&mut *project.known.lock(), new);
                if !matches!(old.mirrors, Mirrors::Unreadable) {
                    tracing::warn!("'{}': {error:#}", project.git_dir.display());
                }
            }
        }
        project.is_copied.store(false, Ordering::Relaxed);
    }
}
