//! Lists the repositories below a directory, with several threads.

#![expect(clippy::disallowed_methods, reason = "looks for repositories below the roots")]

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

/// What the threads share.
#[derive(Default)]
struct Walk {
    /// Directories that nobody has read yet.
    open: Vec<PathBuf>,
    /// How many directories are being read. Each may add some to `open`.
    reading: usize,
    found: Vec<PathBuf>,
    error: Option<io::Error>,
}

/// The repositories below `root` for which `is_chosen` holds, in no order: directories with `HEAD` and `objects`, also a `.git` in a working
/// tree. Symbolic links are not followed. The inside of a repository is not searched. The rest of a working tree is searched. A directory
/// that we may not read is left out, and one whose path is too long for the system.
///
/// # Errors
/// The operating system's, for any other reason, or when `root` itself cannot be read.
pub(super) fn repositories(
    root: &Path,
    threads: usize,
    is_chosen: &(dyn Fn(&Path) -> bool + Sync),
) -> io::Result<Vec<PathBuf>> {
    let walk = Mutex::new(Walk { open: vec![root.to_owned()], ..Walk::default() });
    let changed = Condvar::new();
    let work = || {
        while let Some(directory) = next(&walk, &changed) {
            let read = read(&directory, root, is_chosen);
            let mut walk = walk.lock();
            walk.reading -= 1;
            match read {
                Ok((found, open)) => {
                    walk.found.extend(found);
                    walk.open.extend(open);
                }
                Err(error) => walk.error = Some(error),
            }
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread it takes longer.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let walk = walk.into_inner();
    walk.error.map_or(Ok(walk.found), Err)
}

/// A directory to read. Waits while others may still find one. `None` at the end, or after an error.
fn next(walk: &Mutex<Walk>, changed: &Condvar) -> Option<PathBuf> {
    let mut walk = walk.lock();
    while walk.open.is_empty() && walk.reading > 0 && walk.error.is_none() {
        changed.wait(&mut walk);
    }
    let directory = walk.open.pop().filter(|_| walk.error.is_none())?;
    walk.reading += 1;
    Some(directory)
}

/// Why a directory below the root is left out.
const SKIPPED: [ErrorKind; 4] =
    [ErrorKind::PermissionDenied, ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidFilename];

/// Reads a directory: the repositories in it, and the directories to be read.
fn read(
    directory: &Path,
    root: &Path,
    is_chosen: &(dyn Fn(&Path) -> bool + Sync),
) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(directory) {
        // One directory that its owner has closed, removed, replaced or nested too deeply must not keep us from the others.
        Err(error) if directory != root && SKIPPED.contains(&error.kind()) => {
            tracing::warn!("'{}' is skipped: {error}", directory.display());
            return Ok((found, open));
        }
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            continue;
        }
        match is_repository(&path) {
            true if is_chosen(&path) => found.push(path),
            true => {}
            false => open.push(path),
        }
    }
    Ok((found, open))
}

/// Whether a directory looks like one.
pub(super) fn is_repository(directory: &Path) -> bool {
    directory.join("HEAD").is_file() && directory.join("objects").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_threads_finds_the_same() {
        let scene = tempfile::tempdir().expect("a directory");
        let root = scene.path();
        let mut expected = Vec::new();
        for group in 0..20 {
            for name in ["a.git", "deep/er/b.git", "work/.git", "work/vendor/c.git", "left.git"] {
                let path = root.join(format!("g{group}/{name}"));
                std::fs::create_dir_all(path.join("objects")).expect("made");
                std::fs::write(path.join("HEAD"), "ref: refs/heads/main\n").expect("written");
                // What is inside a repository is none.
                std::fs::create_dir_all(path.join("inner.git/objects")).expect("made");
                std::fs::write(path.join("inner.git/HEAD"), "").expect("written");
                expected.extend(Some(path).filter(|_| name != "left.git"));
            }
            std::fs::create_dir_all(root.join(format!("g{group}/empty/objects"))).expect("made");
            std::os::unix::fs::symlink(root.join("g0/a.git"), root.join(format!("g{group}/link.git"))).expect("linked");
        }
        expected.sort();
        for threads in [1, 2, 7] {
            let mut found = repositories(root, threads, &|path| !path.ends_with("left.git")).expect("read");
            found.sort();
            assert_eq!(found, expected, "{threads}");
        }
        assert!(repositories(&root.join("none"), 3, &|_| true).is_err());
        // A path that is too long for the system: each directory is made from within the one above it.
        let mut at = std::fs::File::open(root).expect("opened");
        for _ in 0..20 {
            let (name, mode) = ("d".repeat(250), rustix::fs::Mode::from_raw_mode(0o755));
            rustix::fs::mkdirat(&at, &*name, mode).expect("made");
            at = rustix::fs::openat(&at, &*name, rustix::fs::OFlags::DIRECTORY, mode).expect("opened").into();
        }
        let mut found = repositories(root, 2, &|path| !path.ends_with("left.git")).expect("read");
        found.sort();
        assert_eq!(found, expected, "what is too deep is left out");
    }
}
