//! The repositories below the roots as projects, each with a permanent number.
//!
//! Guaranteed: a number is on the disk before it is shown (see `numbers`). Absent: repositories that `include` and `exclude` leave out.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::numbers::Numbers;
use super::summaries::Known;
use crate::config::{Placed, Server};

/// A repository as the API knows it.
#[derive(Clone, Debug)]
pub(super) struct Project {
    /// Its permanent number. Only the fleet may replace it.
    pub(super) id: u32,
    /// Its path below the root, without `.git`.
    pub(super) path: String,
    /// The last component of that.
    pub(super) name: String,
    /// Where it is.
    pub(super) git_dir: PathBuf,
    /// What its files said when they were last read. A project that replaces this one shares this,
    /// because a thread may still read for this one. It also shares the marks below, unless the
    /// path has changed.
    pub(super) known: Arc<Mutex<Known>>,
    /// Whether its number is that of the fleet.
    pub(super) is_numbered: Arc<AtomicBool>,
    /// Whether the copy in the database of the fleet is as new as `known`.
    pub(super) is_copied: Arc<AtomicBool>,
}

/// The projects that are known now, sorted by path.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) projects: Vec<Arc<Project>>,
    by_id: HashMap<u32, usize>,
    /// The number of the configuration from which the paths were made.
    generation: u64,
}

#[derive(Debug)]
pub(super) struct Projects {
    table: Mutex<Arc<Table>>,
    numbers: Mutex<Numbers>,
}

impl Projects {
    /// No projects yet; [`Projects::refresh`] adds them. The numbers are stored in the daemon's state directory.
    pub(super) fn new(state_directory: &Path) -> Self {
        Self { table: Mutex::default(), numbers: Mutex::new(Numbers::new(state_directory)) }
    }

    /// What is known now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.lock())
    }

    /// Makes the table from these repositories. Gives new ones a number, and stores it first. `generation` is the number of the configuration,
    /// or an earlier one.
    pub(super) fn refresh(&self, server: &Server, generation: u64, git_dirs: &[PathBuf]) -> io::Result<()> {
        let mut numbers = self.numbers.lock();
        let old = self.table();
        let is_known = |git_dir| numbers.ids.get(git_dir).is_some_and(|id| old.by_id.contains_key(id));
        let is_same = generation == old.generation && git_dirs.len() == old.projects.len();
        if is_same && git_dirs.iter().all(is_known) {
            return Ok(());
        }
        // What was added while the list was made may not be in it.
        let listed: HashSet<&PathBuf> = git_dirs.iter().collect();
        let missed = old.projects.iter().map(|project| &project.git_dir).filter(|git_dir| !listed.contains(git_dir));
        let missed = missed.filter(|git_dir| server.lists(git_dir));
        let placed = git_dirs.iter().chain(missed).filter_map(|git_dir| Some((git_dir, server.place(git_dir)?)));
        let placed: Vec<_> = placed.collect();
        numbers.add(placed.iter().map(|(git_dir, _)| *git_dir))?;
        let project = |(git_dir, placed): (&PathBuf, Placed)| {
            let id = numbers.ids[git_dir];
            let before = old.by_id.get(&id).map(|at| &old.projects[*at]);
            match before.filter(|before| before.git_dir == *git_dir) {
                None => Arc::new(Project::new(id, placed, git_dir)),
                Some(before) if before.path == placed.path => Arc::clone(before),
                // The copy has the old path.
                Some(before) => {
                    let known = Arc::clone(&before.known);
                    Arc::new(Project { known, ..Project::new(id, placed, git_dir) })
                }
            }
        };
        let projects = placed.into_iter().map(project).collect();
        *self.table.lock() = Arc::new(Table::of(projects, generation));
        Ok(())
    }

    /// Adds one repository, if it is new and below a root.
    pub(super) fn add(&self, server: &Server, git_dir: &Path) -> io::Result<()> {
        if self.table().at(server, git_dir).is_some() {
            return Ok(());
        }
        let Some(placed) = server.place(git_dir).filter(|_| server.lists(git_dir)) else { return Ok(()) };
        let mut numbers = self.numbers.lock();
        let old = self.table();
        if old.at(server, git_dir).is_some() {
            return Ok(());
        }
        numbers.add(std::iter::once(&git_dir.to_owned()))?;
        let mut projects = old.projects.clone();
        projects.push(Arc::new(Project::new(numbers.ids[git_dir], placed, git_dir)));
        *self.table.lock() = Arc::new(Table::of(projects, old.generation));
        Ok(())
    }
}

/// How many numbers are to be reserved at least.
const MIN_RESERVED: usize = 100;

impl Projects {
    /// Whether more numbers should be reserved.
    pub(super) fn is_short_of_numbers(&self) -> bool {
        self.numbers.lock().reserved.len() < MIN_RESERVED
    }

    /// The highest number that was ever given.
    pub(super) fn last_number(&self) -> u32 {
        self.numbers.lock().last
    }

    /// Takes numbers that the fleet has reserved for this machine.
    pub(super) fn reserve(&self, numbers: Range<u32>) {
        self.numbers.lock().reserved = numbers;
    }

    /// Gives repositories the numbers that the fleet has for them. Returns those that keep theirs,
    /// because another project has the number.
    pub(super) fn renumber(&self, given: Vec<(u32, PathBuf)>) -> io::Result<HashSet<PathBuf>> {
        if given.is_empty() {
            return Ok(HashSet::new());
        }
        let mut refused: HashSet<PathBuf> = given.iter().map(|(_, git_dir)| git_dir.clone()).collect();
        let mut numbers = self.numbers.lock();
        let given = sound(given, &numbers.ids);
        for (id, git_dir) in &given {
            refused.remove(git_dir);
            let path = git_dir.display();
            tracing::warn!("fleet: the project of '{path}' has the number {id} now, as the fleet knows it");
        }
        numbers.change(given)?;
        let old = self.table();
        let project = |project: &Arc<Project>| match numbers.ids.get(&project.git_dir) {
            Some(id) if *id != project.id => {
                project.is_numbered.store(true, Ordering::Relaxed);
                Arc::new(Project { id: *id, ..Project::clone(project) })
            }
            _ => Arc::clone(project),
        };
        let projects = old.projects.iter().map(project).collect();
        *self.table.lock() = Arc::new(Table::of(projects, old.generation));
        Ok(refused)
    }
}

/// Keeps only the numbers that may be given. Anyone who may write to the database could give one
/// number to two of our projects, or a number so large that no larger one is left. Projects may
/// take each other's numbers.
fn sound(mut given: Vec<(u32, PathBuf)>, ids: &HashMap<PathBuf, u32>) -> Vec<(u32, PathBuf)> {
    given.retain(|(id, git_dir)| *id > 0 && *id < u32::MAX / 2 && ids.contains_key(git_dir));
    loop {
        let moved: HashSet<&PathBuf> = given.iter().map(|(_, git_dir)| git_dir).collect();
        let kept = ids.iter().filter(|(git_dir, _)| !moved.contains(git_dir)).map(|(_, id)| *id);
        let mut taken: HashSet<u32> = kept.collect();
        let before = given.len();
        // A project that keeps its number may need one that was given to another project, so all are judged again.
        given.retain(|(id, _)| taken.insert(*id));
        if given.len() == before {
            return given;
        }
        tracing::warn!(
            "fleet: {} numbers of projects cannot be those of the fleet, because other projects have them",
            before - given.len()
        );
    }
}

impl Project {
    /// Whether its path contains `search`, which is in lower case. The case of the path does not
    /// matter.
    pub(super) fn is_found(&self, search: &str) -> bool {
        let (path, search) = (self.path.as_bytes(), search.as_bytes());
        match self.path.is_ascii() {
            _ if search.is_empty() => true,
            true => path.windows(search.len()).any(|part| part.eq_ignore_ascii_case(search)),
            false => self.path.to_lowercase().as_bytes().windows(search.len()).any(|part| part == search),
        }
    }

    fn new(id: u32, placed: Placed, git_dir: &Path) -> Self {
        let Placed { path, name } = placed;
        Self {
            id,
            path,
            name,
            git_dir: git_dir.to_owned(),
            known: Arc::default(),
            is_numbered: Arc::default(),
            is_copied: Arc::default(),
        }
    }
}

impl Table {
    fn of(mut projects: Vec<Arc<Project>>, generation: u64) -> Self {
        projects.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
        let by_id = projects.iter().enumerate().map(|(at, project)| (project.id, at)).collect();
        Self { projects, by_id, generation }
    }

    /// The project of a repository.
    pub(super) fn at(&self, server: &Server, git_dir: &Path) -> Option<&Arc<Project>> {
        let path = server.place(git_dir)?.path;
        let first = self.projects.partition_point(|project| *project.path < *path);
        let same = self.projects[first..].iter().take_while(|project| project.path == path);
        same.into_iter().find(|project| project.git_dir == git_dir)
    }

    /// The project of that number, or of that path below its root.
    pub(super) fn find(&self, id_or_path: &str) -> Option<Arc<Project>> {
        let path = id_or_path.strip_suffix(".git").unwrap_or(id_or_path);
        // If two roots contain the same path, the project with the lower number gets it.
        let at = self.projects.partition_point(|project| *project.path < *path);
        let by_path = self.projects.get(at).filter(|project| project.path == path);
        let by_id = || self.projects.get(*self.by_id.get(&id_or_path.parse().ok()?)?);
        // GitLab does the same: digits are a number. Otherwise a new repository with such a name would take the place of another one.
        by_id().or(by_path).cloned()
    }
}

/// The repositories that exist at that path below a root, whether they are listed yet or not.
pub(super) fn at_path(server: &Server, path: &str) -> Vec<PathBuf> {
    let is_plain = |part: &str| Path::new(part).components().eq([Component::Normal(part.as_ref())]);
    if !path.split('/').all(is_plain) {
        return Vec::new();
    }
    let ends = ["", ".git", "/.git"];
    let all = server.roots.iter().flat_map(|root| ends.map(|end| root.path.join(format!("{path}{end}"))));
    all.filter(|git_dir| server.lists(git_dir)).collect()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make and remove repositories")]
mod tests {
    use super::*;
    use crate::serve::summaries::Mirrors;

    /// The daemon's state and two repositories.
    fn scene() -> (tempfile::TempDir, Server, [PathBuf; 2]) {
        let scene = tempfile::tempdir().expect("a directory");
        let roots = scene.path().join("all/srv");
        let git_dirs = ["a.git", "b.git"].map(|name| roots.join(name));
        for git_dir in &git_dirs {
            std::fs::create_dir_all(git_dir.join("objects")).expect("made");
            std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n").expect("written");
        }
        let server = server_of(&roots);
        (scene, server, git_dirs)
    }

    fn server_of(root: &Path) -> Server {
        let file = root.with_file_name("server.toml");
        let text = format!("[[repositories]]\nroot = \"{}\"\n", root.display());
        std::fs::write(&file, text).expect("written");
        crate::config::load_server(Some(&file), &Default::default()).expect("a configuration")
    }

    fn paths(projects: &Projects) -> Vec<(u32, String)> {
        projects.table().projects.iter().map(|project| (project.id, project.path.clone())).collect()
    }

    #[test]
    fn what_is_added_during_a_look_stays_and_what_is_gone_goes() {
        let (scene, server, [a, b]) = scene();
        let projects = Projects::new(scene.path());
        projects.add(&server, &b).expect("added");
        projects.refresh(&server, 0, std::slice::from_ref(&a)).expect("stored");
        assert_eq!(paths(&projects), [(2, "a".into()), (1, "b".into())]);
        std::fs::remove_dir_all(&b).expect("removed");
        projects.refresh(&server, 0, std::slice::from_ref(&a)).expect("stored");
        assert_eq!(paths(&projects), [(2, "a".into())]);
    }

    #[test]
    fn another_configuration_gives_other_paths_and_the_same_numbers() {
        let (scene, server, git_dirs) = scene();
        let projects = Projects::new(scene.path());
        projects.refresh(&server, 0, &git_dirs).expect("stored");
        let above = server_of(&scene.path().join("all"));
        projects.refresh(&above, 0, &git_dirs).expect("stored");
        assert_eq!(paths(&projects), [(1, "a".into()), (2, "b".into())], "the list is the same");
        projects.refresh(&above, 1, &git_dirs).expect("stored");
        assert_eq!(paths(&projects), [(1, "srv/a".into()), (2, "srv/b".into())]);
    }

    #[test]
    fn digits_are_a_number_before_they_are_a_path() {
        let (scene, server, [a, b]) = scene();
        let named = b.with_file_name("1.git");
        std::fs::rename(&b, &named).expect("renamed");
        let projects = Projects::new(scene.path());
        projects.refresh(&server, 0, &[a, named]).expect("stored");
        let found = |text: &str| projects.table().find(text).map(|project| (project.id, project.path.clone()));
        let ids: Vec<u32> = ["a", "1.git"].into_iter().filter_map(|path| Some(found(path)?.0)).collect();
        assert_eq!(ids.len(), 2);
        for id in ids {
            assert_eq!(found(&id.to_string()).map(|(id, _)| id), Some(id));
        }
        assert_eq!(found("1.git").map(|(_, path)| path).as_deref(), Some("1"));
        assert_eq!(found("3"), None);
    }

    #[test]
    fn the_fleet_may_exchange_numbers_and_what_is_read_meanwhile_counts() {
        let (scene, server, git_dirs) = scene();
        let projects = Projects::new(scene.path());
        projects.refresh(&server, 0, &git_dirs).expect("stored");
        let before = projects.table();
        projects.renumber(vec![(2, git_dirs[0].clone()), (1, git_dirs[1].clone())]).expect("stored");
        assert_eq!(paths(&projects), [(2, "a".into()), (1, "b".into())]);
        // A scan that began before reads for the project that it knows.
        before.projects[0].known.lock().mirrors = Mirrors::Unreadable;
        assert!(projects.table().projects[0].is_read());
        // Numbers that two projects would share are refused.
        projects.renumber(vec![(7, git_dirs[0].clone()), (7, git_dirs[1].clone())]).expect("stored");
        assert_eq!(paths(&projects), [(7, "a".into()), (1, "b".into())]);
        projects.renumber(vec![(1, git_dirs[0].clone()), (0, git_dirs[1].clone())]).expect("stored");
        assert_eq!(paths(&projects), [(7, "a".into()), (1, "b".into())]);
        // A number that was given once is never given again.
        let file = scene.path().join("projects.jsonl");
        projects.renumber(vec![(3, git_dirs[0].clone())]).expect("stored");
        std::fs::write(&file, "").expect("cut");
        projects.renumber(vec![(4, git_dirs[0].clone())]).expect("stored");
        let read = Projects::new(scene.path());
        read.refresh(&server, 0, &git_dirs).expect("read");
        assert_eq!(read.last_number(), 7);
    }

    #[test]
    fn a_file_that_was_cut_is_written_again_with_every_number() {
        let (scene, server, git_dirs) = scene();
        let file = scene.path().join("projects.jsonl");
        let projects = Projects::new(scene.path());
        projects.refresh(&server, 0, &git_dirs[..1]).expect("stored");
        std::fs::write(&file, "").expect("cut");
        projects.refresh(&server, 0, &git_dirs).expect("stored");
        let read = Projects::new(scene.path());
        // In the other order, so that the numbers can only come from the file.
        read.refresh(&server, 0, &[git_dirs[1].clone(), git_dirs[0].clone()]).expect("read");
        assert_eq!(paths(&read), [(1, "a".into()), (2, "b".into())]);
    }
}
