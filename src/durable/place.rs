//! Where a state file is: its directory, which is open, and its name there.
//!
//! Guaranteed: below a repository's `mirror-push`, no component of the path is a symbolic link. The directory is opened once, and
//! everything else happens in it, so nobody can put a link in the way between a check and its use. `mirror-push` itself may be a link to
//! another disk, if we or root made the link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

#[cfg(feature = "mirror")]
use super::within::from_there;

/// How a directory is opened when only names in it are used.
pub(super) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A name in an open directory.
pub(super) struct Place<'p> {
    /// The directory. Its descriptor has `O_PATH`.
    pub(super) directory: OwnedFd,
    /// The name.
    pub(super) name: &'p OsStr,
}

impl<'p> Place<'p> {
    /// Opens the directory of `path`.
    pub(super) fn of(path: &'p Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        Ok(Self { directory: open_directory(parent)?, name })
    }
}

/// Opens a directory with `O_PATH`.
///
/// # Errors
/// The operating system's, or that a component below `mirror-push` is a symbolic link.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    if let Some(directory) = open_without_links(path, DIRECTORY)? {
        return Ok(directory);
    }
    let Some(ours) = ours_in(path) else { return Ok(rustix::fs::open(path, DIRECTORY, Mode::empty())?) };
    let opened = open_ours(ours)?;
    match path.strip_prefix(ours) {
        Ok(below) if below != Path::new("") => open_below(&opened, below),
        _ => Ok(opened),
    }
}

/// Opens a path in one step with openat2(2) of Linux 5.6, if no component of it is a symbolic link.
/// `None` if one is, if the path contains `..`, or if the kernel or a sandbox does not know the
/// call. The caller then opens one component after the other.
pub(super) fn open_without_links(path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Ok(None);
    }
    let resolve = ResolveFlags::NO_SYMLINKS;
    #[cfg(feature = "mirror")]
    let opened = from_there(path, |at, rest| rustix::fs::openat2(at, rest, flags, Mode::empty(), resolve));
    #[cfg(not(feature = "mirror"))]
    let opened = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve);
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The repository's `mirror-push` that a path leads through or to. A mirror may have this name too.
fn ours_in(path: &Path) -> Option<&Path> {
    let is_named = |part: &Path, name: &str| part.file_name().is_some_and(|found| found == name);
    let last = path.ancestors().find(|part| is_named(part, "mirror-push"))?;
    let outer = last.parent().filter(|parent| is_named(parent, "remotes")).and_then(Path::parent);
    Some(outer.filter(|outer| is_named(outer, "mirror-push")).unwrap_or(last))
}

/// Opens a repository's `mirror-push`. If it is a link, the link is checked and read through one descriptor.
fn open_ours(ours: &Path) -> io::Result<OwnedFd> {
    let opened = rustix::fs::open(ours, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let file = rustix::fs::fstat(&opened)?;
    if !FileType::from_raw_mode(file.st_mode).is_symlink() {
        return Ok(opened);
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&file.st_uid) {
        return Err(is_a_link());
    }
    let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
    let target = ours.parent().unwrap_or(ours).join(OsStr::from_bytes(target.as_bytes()));
    Ok(rustix::fs::open(&target, DIRECTORY, Mode::empty())?)
}

/// Opens a directory below an open one: with openat2(2) of Linux 5.6, or else one component after the other.
fn open_below(ours: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(ours, below, DIRECTORY, Mode::empty(), resolve) {
        Ok(directory) => Ok(directory),
        Err(Errno::LOOP) => Err(is_a_link()),
        // An earlier kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => walk(ours, below),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory below an open one, one component after the other.
fn walk(ours: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    let mut at = ours.try_clone()?;
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
        at = match rustix::fs::openat(&at, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOTDIR | Errno::LOOP) if is_link(&at, name) => return Err(is_a_link()),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(at)
}

/// Whether a name in an open directory is a symbolic link.
fn is_link(directory: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|file| FileType::from_raw_mode(file.st_mode).is_symlink())
}

/// The error of a link that is not followed.
pub(super) fn is_a_link() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it is a symbolic link, which is not followed here")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_refused_below_mirror_push_and_nowhere_else() {
        let scene = tempfile::tempdir().expect("a directory");
        let path = |name: &str| scene.path().join(name);
        for name in
            ["real.git/mirror-push/remotes/m/queue", "real.git/mirror-push/remotes/mirror-push", "elsewhere/queue"]
        {
            super::super::make_all(&path(name)).expect("made");
        }
        for (target, link) in [
            ("real.git", "repo.git"),
            ("../../../elsewhere", "real.git/mirror-push/remotes/evil"),
            ("../../../../elsewhere", "real.git/mirror-push/remotes/mirror-push/evil"),
            ("queue", "real.git/mirror-push/remotes/m/inside"),
        ] {
            symlink(target, path(link)).expect("linked");
        }
        let table = [
            ("repo.git/mirror-push/remotes/m/queue", true),
            ("repo.git/mirror-push/remotes", true),
            ("repo.git/mirror-push", true),
            ("repo.git", true),
            ("repo.git/mirror-push/remotes/evil", false),
            ("repo.git/mirror-push/remotes/evil/queue", false),
            ("repo.git/mirror-push/remotes/mirror-push/evil", false),
            ("repo.git/mirror-push/remotes/m/inside", false),
            ("repo.git/mirror-push/../../elsewhere", false),
            ("real.git/mirror-push/../../elsewhere", false),
        ];
        for (name, is_opened) in table {
            assert_eq!(open_directory(&path(name)).is_ok(), is_opened, "{name}");
            let at_once = open_without_links(&path(name), DIRECTORY).is_ok_and(|opened| opened.is_some());
            assert!(is_opened || !at_once, "{name}, in one step");
            let ours = open_ours(&path("repo.git/mirror-push")).expect("opened");
            if let Ok(below) = Path::new(name).strip_prefix("repo.git/mirror-push") {
                assert_eq!(walk(&ours, below).is_ok(), is_opened, "{name}, on an earlier kernel");
            }
        }
        let error = open_directory(&path("repo.git/mirror-push/remotes/evil")).expect_err("a link");
        assert_eq!(error.to_string(), is_a_link().to_string());
    }
}
