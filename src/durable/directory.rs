//! Directories: made, listed, synced and removed, without following a link below `mirror-push`.
//! Only a private directory is made by the path of its parent, and follows links in that path.

#[cfg(feature = "mirror")]
use std::ffi::OsStr;
use std::fs::File;
#[cfg(feature = "mirror")]
use std::fs::Permissions;
use std::io;
#[cfg(feature = "mirror")]
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
#[cfg(feature = "mirror")]
use std::os::unix::ffi::OsStrExt;
#[cfg(feature = "mirror")]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[cfg(feature = "mirror")]
use rustix::fs::{AtFlags, RawDir};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::place::{Place, open_directory, open_without_links};

/// Whether [`make_directory`] made the directory.
#[cfg_attr(
    not(feature = "mirror"),
    expect(unreachable_pub, reason = "in the hook alone, no public function returns it")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It did not exist, and was made.
    Now,
    /// It existed already.
    Before,
}

/// Makes one directory with the permissions that the umask leaves.
fn make(path: &Path) -> io::Result<Made> {
    let place = Place::of(path)?;
    match rustix::fs::mkdirat(&place.directory, place.name, Mode::from_bits_retain(0o777)) {
        Err(Errno::EXIST) => Ok(Made::Before),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Made::Now),
    }
}

/// Makes a directory and those above it that are missing, with the permissions that the umask leaves.
///
/// # Errors
/// The operating system's.
pub fn make_all(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_all(path.parent().ok_or(error)?)?;
            make(path).map(drop)
        }
        made => made.map(drop),
    }
}

/// Makes one directory with the permissions `mode`, or those that the umask leaves; does nothing if it exists.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn make_directory(path: &Path, mode: Option<u32>) -> io::Result<Made> {
    loop {
        let made = make(path)?;
        let (Made::Now, Some(mode)) = (made, mode) else { return Ok(made) };
        match open_to_list(path).and_then(|new| File::from(new).set_permissions(Permissions::from_mode(mode))) {
            // Another process removed it in between: a drain that forgets a removed mirror, say.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done.map(|()| Made::Now),
        }
    }
}

/// Makes a directory of ours with the permissions `mode`, whatever the umask. Directories above it get the permissions that the umask
/// leaves.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    make_all(path.parent().unwrap_or(Path::new("/")))?;
    make_directory(path, Some(mode)).map(drop)
}

/// How the name of a private directory begins.
#[cfg(feature = "mirror")]
pub const PRIVATE: &str = ".git-mirror-push.";

/// Makes a directory in `parent` that only we can enter, whatever the umask. It is removed when the value is dropped. After a crash it
/// stays.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn private_directory(parent: &Path) -> io::Result<tempfile::TempDir> {
    private_directory_named(parent, PRIVATE)
}

/// Makes such a directory whose name begins with `prefix`.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn private_directory_named(parent: &Path, prefix: &str) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o700)).tempdir_in(parent)
}

/// Syncs the directory `path`, so that renames, links and removals in it are durable.
///
/// # Errors
/// The operating system's, when the directory cannot be opened or synced.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    super::sync(&File::from(open_to_list(path)?))
}

fn open_to_list(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Some(opened) = open_without_links(path, flags)? {
        return Ok(opened);
    }
    Ok(rustix::fs::openat(open_directory(path)?, ".", flags, Mode::empty())?)
}

/// The names in a directory, sorted; none when it is not there.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    match list_there(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// The names in a directory that should be there, sorted. An idle drain of many repositories spends most of its time here, so this reads
/// the directory with fewer system calls than the standard library.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn list_there(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for_each(directory, |name| names.push(String::from_utf8_lossy(name).into_owned()))?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(feature = "mirror")]
fn for_each(directory: &Path, mut act: impl FnMut(&[u8])) -> io::Result<()> {
    let opened = open_to_list(directory)?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(opened, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            act(name);
        }
    }
    Ok(())
}

/// Removes a file, or a directory with everything in it. A missing `path` in an existing directory is no error. A link is removed, and not
/// followed.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn remove_all(path: &Path) -> io::Result<()> {
    let place = Place::of(path)?;
    match rustix::fs::unlinkat(&place.directory, place.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // A name need not be UTF-8.
    let mut names = Vec::new();
    for_each(path, |name| names.push(OsStr::from_bytes(name).to_owned()))?;
    for name in names {
        remove_all(&path.join(name))?;
    }
    match rustix::fs::unlinkat(&place.directory, place.name, AtFlags::REMOVEDIR) {
        Err(error) if error != Errno::NOENT => Err(error.into()),
        _ => Ok(()),
    }
}

/// Removes a directory if nothing is in it.
///
/// # Errors
/// The operating system's; so it is an error that something is in it.
#[cfg(feature = "mirror")]
pub fn remove_empty(path: &Path) -> io::Result<()> {
    let place = Place::of(path)?;
    Ok(rustix::fs::unlinkat(&place.directory, place.name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_while_another_removes_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("queue");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = std::fs::remove_dir(&path);
                }
            });
            let made: Vec<_> = (0..20_000).map(|_| make_directory(&path, Some(0o755))).collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            let made = made.into_iter().collect::<io::Result<Vec<_>>>().expect("made each time");
            assert!(made.contains(&Made::Now), "it was made at least once");
        });
    }

    #[test]
    fn a_private_directory_is_private_under_any_umask() {
        let before = rustix::process::umask(Mode::empty());
        let made = private_directory(&std::env::temp_dir()).expect("made");
        rustix::process::umask(before);
        assert_eq!(made.path().metadata().expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn everything_in_a_directory_is_removed_and_nothing_behind_a_link() {
        let scene = tempfile::tempdir().expect("a directory");
        let path = |name: &str| scene.path().join(name);
        make_all(&path("mirror-push/remotes/m/queue/deep")).expect("made");
        make_all(&path("elsewhere")).expect("made");
        for file in ["elsewhere/kept", "mirror-push/remotes/m/file", "mirror-push/remotes/m/queue/deep/file"] {
            std::fs::write(path(file), "").expect("written");
        }
        std::os::unix::fs::symlink(path("elsewhere"), path("mirror-push/remotes/m/queue/link")).expect("linked");
        let odd = path("mirror-push/remotes/m/queue").join(OsStr::from_bytes(b"\xff"));
        std::fs::write(odd, "").expect("written");
        remove_all(&path("mirror-push/remotes/m")).expect("removed");
        remove_all(&path("mirror-push/remotes/m")).expect("nothing is there");
        assert_eq!(list(&path("mirror-push/remotes")).expect("listed"), Vec::<String>::new());
        assert!(path("elsewhere/kept").exists());
        std::os::unix::fs::symlink(path("elsewhere"), path("mirror-push/remotes/m")).expect("linked");
        assert!(
            list(&path("mirror-push/remotes/m")).is_err() && make_all(&path("mirror-push/remotes/m/queue")).is_err()
        );
        assert!(remove_all(&path("mirror-push/remotes/m/kept")).is_err(), "the directory is behind a link");
        std::fs::create_dir(path("elsewhere/queue")).expect("made");
        assert!(remove_empty(&path("mirror-push/remotes/m/queue")).is_err(), "this one too");
        assert!(remove_empty(&path("elsewhere")).is_err() && path("elsewhere/queue").exists(), "it is not empty");
        remove_empty(&path("elsewhere/queue")).expect("removed");
        assert!(path("elsewhere/kept").exists() && !path("elsewhere/queue").exists());
    }
}
