//! The repositories below the roots as projects, each with a permanent number.
//!
//! Guaranteed: a number is never reused; `projects.json` in the state directory is replaced before a new number is shown. Absent:
//! repositories that `include` and `exclude` leave out. A crash leaves the old file or the new one.

#![expect(clippy::disallowed_methods, reason = "reads and replaces projects.json")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::Server;
use crate::durable;

/// A repository as the API knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    /// Stable.
    pub(super) id: u32,
    /// Its path below the root, without `.git`.
    pub(super) path: String,
    /// The last component of that.
    pub(super) name: String,
    /// Where it is.
    pub(super) git_dir: PathBuf,
}

/// The file of numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Numbers {
    last: u32,
    ids: BTreeMap<PathBuf, u32>,
}

/// The projects that are known now, sorted by path.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) projects: Vec<Arc<Project>>,
    /// The repositories that the table was made from, to see whether the list has changed.
    git_dirs: Vec<PathBuf>,
    by_id: HashMap<u32, usize>,
    by_path: HashMap<String, usize>,
}

/// All projects.
#[derive(Debug)]
pub(super) struct Projects {
    directory: PathBuf,
    table: Mutex<Arc<Table>>,
}

impl Projects {
    /// No projects yet; [`Projects::refresh`] adds them. The numbers are stored in the daemon's state directory.
    pub(super) fn new(state_directory: &Path) -> Self {
        Self { directory: state_directory.to_owned(), table: Mutex::default() }
    }

    /// What is known now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.lock())
    }

    /// Forgets the table, so that the next refresh computes every path anew. The roots may have changed. The numbers stay.
    pub(super) fn forget(&self) {
        *self.table.lock() = Arc::default();
    }

    /// Makes the table from these repositories. Gives new ones a number, and stores it first.
    pub(super) fn refresh(&self, server: &Server, git_dirs: &[PathBuf]) -> io::Result<()> {
        let mut table = self.table.lock();
        if table.git_dirs == git_dirs {
            return Ok(());
        }
        let mut numbers = self.read()?;
        let before = numbers.last;
        let mut projects = Vec::new();
        for git_dir in git_dirs {
            let Some(placed) = server.place(git_dir) else { continue };
            let id = *numbers.ids.entry(git_dir.clone()).or_insert_with(|| {
                numbers.last += 1;
                numbers.last
            });
            let project = Project { id, path: placed.path, name: placed.name, git_dir: git_dir.clone() };
            projects.push(Arc::new(project));
        }
        if numbers.last != before {
            self.write(&numbers)?;
        }
        projects.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
        let by_id = projects.iter().enumerate().map(|(at, project)| (project.id, at)).collect();
        // If two roots contain the same path, the project with the lower number gets it.
        let by_path = projects.iter().enumerate().rev().map(|(at, project)| (project.path.clone(), at)).collect();
        *table = Arc::new(Table { projects, git_dirs: git_dirs.to_vec(), by_id, by_path });
        Ok(())
    }

    fn read(&self) -> io::Result<Numbers> {
        match std::fs::read(self.directory.join("projects.json")) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Numbers::default()),
            Err(error) => Err(error),
        }
    }

    fn write(&self, numbers: &Numbers) -> io::Result<()> {
        durable::replace(&self.directory.join("projects.json"), &serde_json::to_vec(numbers)?, |_| Ok(()))
    }
}

impl Table {
    /// The project of that number, or of that path below its root.
    pub(super) fn find(&self, id_or_path: &str) -> Option<Arc<Project>> {
        let by_id = || id_or_path.parse().ok().and_then(|id: u32| self.by_id.get(&id));
        let path = id_or_path.strip_suffix(".git").unwrap_or(id_or_path);
        let at = self.by_path.get(path).or_else(by_id)?;
        self.projects.get(*at).cloned()
    }
}

/// Whether a repository that is not listed yet may be at that path below a root, so that listing again is worthwhile.
pub(super) fn may_be_new(server: &Server, path: &str) -> bool {
    let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let stands = |git_dir: PathBuf| git_dir.join("HEAD").is_file() && server.place(&git_dir).is_some();
    is_plain
        && server
            .roots
            .iter()
            .any(|root| ["", ".git", "/.git"].iter().any(|end| stands(root.path.join(format!("{path}{end}")))))
}
