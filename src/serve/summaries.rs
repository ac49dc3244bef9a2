//! What the daemon knows of every mirror without reading a file: for the overview of the page and for `/metrics`.
//!
//! Guaranteed: it is as new as the last run of the mirror, the last change through API or page, or the last scan, whatever was last. Absent:
//! anything that would be lost; a restart reads everything again.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::projects::Project;
use super::{App, now};
use crate::layout::Layout;
use crate::mirror;
use crate::status::{Stamp, Standing, Summary};

/// For how many repositories a visitor waits. With more, changes by other programs are seen at the next scan.
const MAX_READ: usize = 1000;
/// How often that is done at most.
const FRESH: SignedDuration = SignedDuration::from_secs(2);

/// What is known of the mirrors of a project.
#[derive(Debug, Default)]
pub(super) struct Known {
    mirrors: Mirrors,
    /// What the files were like when they were read.
    stamp: Stamp,
}

/// The mirrors of a project.
#[derive(Debug, Default)]
pub(super) enum Mirrors {
    /// Nobody has read them yet.
    #[default]
    Unread,
    /// They cannot be read; the log says why.
    Unreadable,
    /// They are these.
    Read(Box<[Summary]>),
}

impl Known {
    /// What is known counts until the next scan.
    pub(super) fn expire(&mut self) {
        self.stamp = Stamp::default();
    }
}

impl Project {
    /// Looks at its mirrors.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Mirrors) -> T) -> T {
        look(&self.known.lock().mirrors)
    }
}

impl App {
    /// Reads the mirrors of a repository again, because something of it has changed.
    pub(super) fn summarize(&self, git_dir: &Path) {
        if let Some(project) = self.projects.at(git_dir) {
            self.read(&project);
        }
    }

    /// Reads the mirrors of a repository again if its files have changed.
    pub(super) fn summarize_if_changed(&self, git_dir: &Path) {
        if let Some(project) = self.projects.at(git_dir) {
            self.read_if_changed(&project);
        }
    }

    /// A mirror is being served.
    pub(super) fn begun(&self, git_dir: &Path, mirror: &str) {
        let Some(project) = self.projects.at(git_dir) else { return };
        let mut known = project.known.lock();
        if let Mirrors::Read(all) = &mut known.mirrors
            && let Some(one) = all.iter_mut().find(|one| one.name == mirror)
        {
            one.standing = Standing::Running;
        }
    }

    /// Sees what other programs have changed, unless that was just done or there are too many repositories.
    pub(super) fn see_changes(&self) {
        let table = self.table();
        let mut seen = self.seen.lock();
        let is_fresh = |at: Timestamp| now().duration_since(at).abs() < FRESH;
        if table.projects.len() <= MAX_READ && !seen.is_some_and(is_fresh) {
            table.projects.iter().for_each(|project| self.read_if_changed(project));
            *seen = Some(now());
        }
    }

    fn read_if_changed(&self, project: &Project) {
        let layout = Layout::new(&project.git_dir);
        let is_same = {
            let known = project.known.lock();
            match &known.mirrors {
                Mirrors::Unread | Mirrors::Unreadable => false,
                Mirrors::Read(all) => {
                    known.stamp == Stamp::begin(&layout).and(&layout, all.iter().map(|one| &*one.name))
                }
            }
        };
        if !is_same {
            self.read(project);
        }
    }

    fn read(&self, project: &Project) {
        let read = || -> anyhow::Result<Known> {
            // Before the files are read, so that a change meanwhile is seen later.
            let stamp = Stamp::begin(&Layout::new(&project.git_dir));
            let (layout, config) = mirror::to_show(&project.git_dir, &self.workers.server())?;
            let stamp = stamp.and(&layout, config.mirrors.iter().map(|mirror| &*mirror.name));
            let mirrors = Mirrors::Read(Summary::all(&layout, &config, now())?.into());
            Ok(Known { mirrors, stamp })
        };
        let known = read().unwrap_or_else(|error| {
            tracing::debug!("'{}': {error:#}", project.git_dir.display());
            Known { mirrors: Mirrors::Unreadable, stamp: Stamp::default() }
        });
        *project.known.lock() = known;
    }
}
