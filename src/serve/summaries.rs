//! What the daemon knows of every mirror without reading a file: for the overview of the page and for `/metrics`.
//!
//! Guaranteed: it is as new as the last run of the mirror, the last change through API or page, or
//! the last scan, whichever was last. Absent: state on the disk. A daemon that starts reads
//! everything again.

use std::ops::Range;
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
use crate::schedule::Scan;
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
    /// From when until when nothing is due while the files have this stamp.
    quiet: Option<Range<Timestamp>>,
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

    /// Somebody says that there is work in a repository: the next scan does not trust what an earlier one found.
    pub(super) fn distrust(&self, git_dir: &Path) {
        if let Some(project) = self.project_at(git_dir) {
            project.known.lock().quiet = None;
        }
    }

    /// Scans a repository, unless nothing is due there and no file has changed since it was scanned. Then reads its mirrors again if its files
    /// have changed.
    pub(super) fn scan(&self, git_dir: &Path, scan: Scan<'_>) {
        let Some(project) = self.project_at(git_dir) else {
            scan();
            return;
        };
        let before = self.unchanged(&project);
        let begin = now();
        if before.is_some() && project.known.lock().quiet.as_ref().is_some_and(|quiet| quiet.contains(&begin)) {
            return;
        }
        let until = scan();
        // The run may end without a report, so the files are looked at also if there are jobs.
        let after = self.read_if_changed(&project);
        let mut known = project.known.lock();
        // What was found is of the files with this stamp, because they were the same before and after the scan. One input has no file: a run
        // that is killed gives up its lock. But while a mirror counts as running, there is no stamp.
        let is_same = before == after && known.stamp == after && before.is_some_and(|stamp| stamp.is_settled(begin));
        known.quiet = until.filter(|_| is_same).map(|until| begin..until);
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
        for project in table.projects.iter() {
            self.read_if_changed(project);
        }
    }

    pub(super) fn project_at(&self, git_dir: &Path) -> Option<Arc<Project>> {
        self.projects.table().at(&self.workers.server(), git_dir).cloned()
    }

    /// Reads the mirrors again if their files have changed. Otherwise returns the stamp of the files.
    fn read_if_changed(&self, project: &Project) -> Option<Stamp> {
        let stamp = self.unchanged(project);
        if stamp.is_none() {
            durable::within(&project.git_dir, || self.read(project));
        }
        stamp
    }

    /// The stamp of the files that were read, if they have not changed since.
    fn unchanged(&self, project: &Project) -> Option<Stamp> {
        // Files are looked at without the lock, because their file system may hang.
        let (stamp, names) = {
            let known = project.known.lock();
            let Mirrors::Read(all) = &known.mirrors else { return None };
            (known.stamp?, all.iter().map(|one| one.name.clone()).collect::<Vec<_>>())
        };
        durable::within(&project.git_dir, || {
            let layout = Layout::new(&project.git_dir);
            let is_now = self.begin_stamp(&layout).and(&layout, names.iter().map(|name| &**name), now());
            is_now.filter(|is_now| *is_now == stamp)
        })
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
            Ok(Known { mirrors: Mirrors::Read(mirrors.into()), stamp: stamp.filter(|_| is_still), quiet: None })
        };
        match read() {
            Ok(known) => *project.known.lock() = known,
            Err(error) => {
                let new = Known { mirrors: Mirrors::Unreadable, ..Known::default() };
                let old = std::mem::replace(&mut *project.known.lock(), new);
                if !matches!(old.mirrors, Mirrors::Unreadable) {
                    tracing::warn!("'{}': {error:#}", project.git_dir.display());
                }
            }
        }
        project.is_copied.store(false, Ordering::Relaxed);
    }
}
