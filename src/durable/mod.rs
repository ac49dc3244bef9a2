//! The state files: opened without following links, written, renamed and synced, all in one way.
//!
//! Guaranteed: a file is opened once, and its type, owner and mode are checked on the open descriptor. A symbolic link in the last
//! component of the path is an error, and so is a link in any component below `mirror-push` (see `place`). Anything but a regular file is
//! an error, because a named pipe would block its reader. After a crash, a replaced file holds the old bytes or the new ones. Absent: rules
//! about ownership, which the callers apply.

use std::ffi::OsStr;
#[cfg(feature = "mirror")]
use std::ffi::OsString;
use std::fs::{File, Metadata, Permissions};
#[cfg(feature = "mirror")]
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

mod directory;
#[cfg(feature = "mirror")]
mod group;
#[cfg(feature = "mirror")]
mod lines;
mod place;
#[cfg(feature = "mirror")]
mod storage;
#[cfg(feature = "mirror")]
mod within;

use place::{Place, is_a_link, open_without_links};

#[cfg(feature = "mirror")]
pub use directory::{
    Made, PRIVATE, list, list_there, make_directories, make_directory, private_directory, private_directory_named,
    remove_all, remove_empty,
};
pub use directory::{make_all, sync_directory};
#[cfg(feature = "mirror")]
pub use group::Group;
#[cfg(feature = "mirror")]
pub use lines::append_lines;
#[cfg(feature = "mirror")]
pub use storage::network_file_system;
#[cfg(feature = "mirror")]
pub use within::{is_missing, stat, stat_directory, within};

/// Syncs a file or a directory (fsync(2)), together with other threads if this thread is a member of a [`Group`].
///
/// # Errors
/// The operating system's.
pub fn sync(file: &File) -> io::Result<()> {
    #[cfg(feature = "mirror")]
    return group::sync(file);
    #[cfg(not(feature = "mirror"))]
    file.sync_all()
}

/// Opens a regular file. Also returns the metadata of the open descriptor, so that the caller can check owner and mode. A new file gets
/// mode 0666 without the bits of the umask.
///
/// # Errors
/// The operating system's, or that the path is a symbolic link or no regular file.
pub fn open(path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
    if !flags.contains(OFlags::CREATE)
        && let Some(opened) = open_without_links(path, flags | SAFELY)?
    {
        return regular(opened);
    }
    let place = Place::of(path)?;
    open_in(&place.directory, place.name, flags, 0o666)
}

/// How every file is opened.
const SAFELY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

fn open_in(directory: &OwnedFd, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<(File, Metadata)> {
    let opened = rustix::fs::openat(directory, name, flags | SAFELY, Mode::from_bits_retain(mode));
    regular(opened.map_err(|error| if error == Errno::LOOP { is_a_link() } else { error.into() })?)
}

fn regular(opened: OwnedFd) -> io::Result<(File, Metadata)> {
    let file = File::from(opened);
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    let kind = if metadata.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::PermissionDenied };
    Err(io::Error::new(kind, "it is not a regular file"))
}

/// Opens a file as [`open`] does. If it is ours and the group may write its directory, the group may write the file too, unless the file has
/// something in it that the group may not read.
///
/// # Errors
/// As [`open`].
pub fn open_shared(path: &Path, flags: OFlags) -> io::Result<(File, Metadata)> {
    let place = Place::of(path)?;
    let (file, metadata) = open_in(&place.directory, place.name, flags, 0o666)?;
    let wanted = rustix::fs::fstat(&place.directory)?.st_mode & 0o060;
    let is_mine = metadata.uid() == rustix::process::geteuid().as_raw();
    // A member of the group could give a private file of ours this name.
    let is_private = metadata.len() > 0 && metadata.mode() & 0o040 == 0;
    if is_mine && !is_private && wanted & 0o020 != 0 && metadata.mode() & wanted != wanted {
        file.set_permissions(Permissions::from_mode(metadata.mode() & 0o777 | wanted))?;
    }
    Ok((file, metadata))
}

/// Opens a file to read it.
///
/// # Errors
/// As [`open`].
pub fn open_to_read(path: &Path) -> io::Result<(File, Metadata)> {
    open(path, OFlags::RDONLY)
}

/// The ctime of a file (stat(2)), in seconds and nanoseconds; `None` when the file is not there. It also changes when a file is
/// renamed to this name, and unlike the mtime it cannot be set back.
#[cfg(feature = "mirror")]
#[must_use]
pub fn changed(path: &Path) -> Option<(i64, i64)> {
    let found = within::from_there(path, |at, rest| rustix::fs::statat(at, rest, AtFlags::empty())).ok()?;
    Some((found.st_ctime, i64::try_from(found.st_ctime_nsec).ok()?))
}

/// Whether a file belongs to us or to root.
#[must_use]
pub fn is_ours(file: &Metadata) -> bool {
    [0, rustix::process::geteuid().as_raw()].contains(&file.uid())
}

/// Whether nobody but us and root chose the contents of a file: it is ours or root's, and no other
/// user may write it. In a shared repository, a file of ours that the group may write, for example
/// a lock, proves nothing: a member of the group may give it any other name.
#[cfg(feature = "mirror")]
#[must_use]
pub fn is_written_by_us_alone(file: &Metadata) -> bool {
    is_ours(file) && file.mode() & 0o022 == 0
}

/// Largest state file that is read as a whole. The state of a million refs is smaller.
const MAX_READ: u64 = 512 << 20;

/// Reads a whole file. Also returns the metadata of its descriptor.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let (mut file, metadata) = open_to_read(path)?;
    if metadata.len() > MAX_READ {
        return Err(too_large());
    }
    let expected = usize::try_from(metadata.len()).map_err(|_| too_large())?;
    let mut bytes = vec![0; expected + 1];
    let length = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(length);
    // One read is enough for a small file that does not grow meanwhile.
    if length != expected && (&mut file).take(MAX_READ + 1).read_to_end(&mut bytes)? as u64 > MAX_READ {
        return Err(too_large());
    }
    Ok((bytes, metadata))
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {} MiB", MAX_READ >> 20))
}

/// Reads a file of text as a whole.
///
/// # Errors
/// As [`open`], and [`io::ErrorKind::InvalidData`] for what is no UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    let (bytes, _) = read(path)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Creates `path` with `bytes` and the read and write permissions of `like`, and syncs it.
///
/// # Errors
/// The operating system's. A file that was created before the error stays.
pub fn write_synced(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let like = Place::of(like)?;
    let wanted = rustix::fs::statat(&like.directory, like.name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode & 0o666;
    let new = Place::of(path)?;
    let (mut file, _) = open_in(&new.directory, new.name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, wanted)?;
    give_permissions(&file, wanted)?;
    file.write_all(bytes)?;
    sync(&file)
}

/// Restores the permission bits of group and others that the umask removed from `wanted`.
fn give_permissions(file: &File, wanted: u32) -> io::Result<()> {
    if wanted & 0o066 != 0 && file.metadata()?.mode() & 0o666 != wanted {
        file.set_permissions(Permissions::from_mode(wanted))?;
    }
    Ok(())
}

/// Renames a file. A file that is already at the new path is replaced.
///
/// # Errors
/// The operating system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (Place::of(from)?, Place::of(to)?);
    Ok(rustix::fs::renameat(from.directory, from.name, to.directory, to.name)?)
}

/// Makes `to` a hard link to `from`.
///
/// # Errors
/// The operating system's. [`io::ErrorKind::AlreadyExists`] if the new path exists.
#[cfg(feature = "mirror")]
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (Place::of(from)?, Place::of(to)?);
    Ok(rustix::fs::linkat(from.directory, from.name, to.directory, to.name, AtFlags::empty())?)
}

/// Replaces a file durably: after a crash it holds the old bytes or the new ones. The new file has mode 0600 and belongs to us, unless
/// `access` changes that. A killed process may leave a temporary file beside it, named `.NAME.RANDOM`.
///
/// # Errors
/// The operating system's. The old file is then still there, unless only the sync of the directory failed.
#[cfg(feature = "mirror")]
pub fn replace(path: &Path, bytes: &[u8], access: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let (new, mut file) = Temporary::beside(path)?;
    file.write_all(bytes)?;
    access(&file)?;
    sync(&file)?;
    new.rename(path)?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Replaces a file as [`replace`] does, but without syncing it: a power failure may bring the old one back.
///
/// # Errors
/// As [`replace`].
#[cfg(feature = "mirror")]
pub fn replace_unsynced(path: &Path, bytes: &[u8], access: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let (new, mut file) = Temporary::beside(path)?;
    file.write_all(bytes)?;
    access(&file)?;
    new.rename(path)
}

/// A new file that is removed unless it gets its name.
#[cfg(feature = "mirror")]
struct Temporary {
    directory: OwnedFd,
    name: OsString,
}

#[cfg(feature = "mirror")]
impl Temporary {
    /// Makes a file of mode 0600 in the directory of `path`.
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        let Place { directory, name } = Place::of(path)?;
        // Cut short, to leave room for the random suffix.
        let stem: String = name.to_string_lossy().chars().take(40).collect();
        let random = RandomState::new().hash_one(std::process::id());
        let name = OsString::from(format!(".{stem}.{random:016x}"));
        let (file, _) = open_in(&directory, &name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600)?;
        Ok((Self { directory, name }, file))
    }

    /// Gives the file the name of `path`, in the same directory.
    fn rename(mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        rustix::fs::renameat(&self.directory, &self.name, &self.directory, name)?;
        self.name.clear();
        Ok(())
    }
}

#[cfg(feature = "mirror")]
impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Gives a file these permissions, whatever the umask. For [`replace`].
///
/// # Errors
/// The operating system's.
pub fn with_mode(mode: u32) -> impl FnOnce(&File) -> io::Result<()> {
    move |file| file.set_permissions(Permissions::from_mode(mode))
}

/// Opens a file that is only locked, and makes it with the permissions `mode` if it does not exist. A process that can open it can hold the
/// lock, so `mode` must not let other users do so. As root, in a directory of another user, the new file is given to that user.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "mirror")]
pub fn open_lock(path: &Path, mode: u32) -> io::Result<File> {
    let place = Place::of(path)?;
    let open = || open_in(&place.directory, place.name, OFlags::RDWR, 0).map(|(file, _)| file);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    // The file gets its name only when its owner and mode are right. The mode of an existing file
    // is never changed: it could be another file of ours that somebody gave this name.
    let (new, file) = Temporary::beside(path)?;
    let owner = rustix::fs::fstat(&place.directory)?;
    if rustix::process::geteuid().is_root() && owner.st_uid != 0 {
        std::os::unix::fs::fchown(&file, Some(owner.st_uid), Some(owner.st_gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    match rustix::fs::linkat(&new.directory, &new.name, &place.directory, place.name, AtFlags::empty()) {
        Ok(()) => Ok(file),
        // Another process was faster.
        Err(Errno::EXIST) => open(),
        Err(error) => Err(error.into()),
    }
}

/// Sets the times of an empty file to now. Makes it with the permissions `mode` if it does not exist. Syncs nothing.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "mirror")]
pub fn touch(path: &Path, mode: u32) -> io::Result<()> {
    let place = Place::of(path)?;
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    match rustix::fs::utimensat(&place.directory, place.name, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        touched => return Ok(touched?),
    }
    let (file, _) = open_in(&place.directory, place.name, OFlags::WRONLY | OFlags::CREATE, mode)?;
    give_permissions(&file, mode)
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// The operating system's.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    let removed =
        Place::of(path).and_then(|place| Ok(rustix::fs::unlinkat(&place.directory, place.name, AtFlags::empty())?));
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_its_mode_at_once_and_no_other_file_gets_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str| std::fs::metadata(path(name)).expect("there").mode() & 0o777;
        open_lock(&path("lock"), 0o660).expect("made");
        open_lock(&path("lock"), 0o660).expect("opened");
        assert_eq!(mode("lock"), 0o660);
        std::fs::write(path("secret"), "").expect("written");
        std::fs::set_permissions(path("secret"), Permissions::from_mode(0o600)).expect("ours alone");
        std::fs::hard_link(path("secret"), path("trap")).expect("linked");
        std::fs::rename(path("secret"), path("moved")).expect("renamed");
        for name in ["trap", "moved"] {
            open_lock(&path(name), 0o660).expect("opened");
            assert_eq!(mode(name), 0o600, "another file of ours that somebody gave this name");
        }
        std::os::unix::fs::symlink(path("moved"), path("link")).expect("linked");
        assert!(open_lock(&path("link"), 0o660).is_err());
        let names = std::fs::read_dir(directory.path()).expect("listed").count();
        assert_eq!(names, 4, "no temporary file is left");
    }

    #[test]
    fn links_pipes_and_directories_are_refused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "text").expect("written");
        std::os::unix::fs::symlink(path("file"), path("link")).expect("linked");
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert_eq!(read(&path("file")).expect("readable").0, b"text");
        for name in ["link", "pipe", "."] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        assert_eq!(read(&path("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
