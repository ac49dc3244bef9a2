//! The state files: opened without following links, written, listed and synced, all in one way.
//!
//! Guaranteed: a file is opened once, and its type, owner and mode are checked on the open descriptor. A symbolic link in the last component
//! of the path is an error. When a file is read, a link in any component below `mirror-push` is one too (openat2(2), Linux 5.6);
//! `mirror-push` itself may be a link of ours or of root's. Anything but a regular file is an error, because a named pipe would block its
//! reader. After a crash, a replaced file holds the old bytes or the new ones. Absent: rules about ownership, which the callers apply.

#![expect(clippy::disallowed_methods, reason = "the one place that opens, syncs and lists state files")]

#[cfg(feature = "mirror")]
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
#[cfg(feature = "mirror")]
use std::mem::MaybeUninit;
#[cfg(feature = "mirror")]
use std::os::fd::OwnedFd;
#[cfg(feature = "mirror")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
#[cfg(feature = "mirror")]
use rustix::fs::{FileType, Mode, RawDir, ResolveFlags};
use rustix::io::Errno;

/// Opens a regular file with `options`. Also returns the metadata of the open descriptor, so that the caller can check owner and mode.
///
/// # Errors
/// The operating system's, or that the path is a symbolic link or no regular file.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => is_a_link(),
        _ => error,
    })?;
    regular(file)
}

/// An open file, if it is a regular one, and its metadata.
fn regular(file: File) -> io::Result<(File, Metadata)> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    let kind = if metadata.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::PermissionDenied };
    Err(io::Error::new(kind, "it is not a regular file"))
}

/// Opens a file to read it.
///
/// # Errors
/// As [`open`].
pub fn open_to_read(path: &Path) -> io::Result<(File, Metadata)> {
    #[cfg(feature = "mirror")]
    if let Some((ours, below)) = split_at_ours(path) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat2(open_ours(ours)?, below, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(file) => return regular(File::from(file)),
            Err(Errno::LOOP) => return Err(is_a_link()),
            // An earlier kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    open(path, OpenOptions::new().read(true))
}

/// A path below a repository's `mirror-push`: that directory, and the rest.
#[cfg(feature = "mirror")]
fn split_at_ours(path: &Path) -> Option<(&Path, &Path)> {
    let ours = path.ancestors().skip(1).find(|part| part.file_name().is_some_and(|name| name == "mirror-push"))?;
    Some((ours, path.strip_prefix(ours).ok()?)).filter(|_| ours.has_root())
}

/// Opens a repository's `mirror-push`. It may be a link to another disk, if we or root made the link. The link is judged and read through
/// one descriptor, so nobody exchanges it in between.
#[cfg(feature = "mirror")]
fn open_ours(ours: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(ours, flags | OFlags::NOFOLLOW, Mode::empty())?;
    let file = rustix::fs::fstat(&opened)?;
    if !FileType::from_raw_mode(file.st_mode).is_symlink() {
        return Ok(opened);
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&file.st_uid) {
        return Err(is_a_link());
    }
    let target = rustix::fs::readlinkat(&opened, "", Vec::new())?;
    let target = ours.parent().unwrap_or(ours).join(OsStr::from_bytes(target.as_bytes()));
    Ok(rustix::fs::open(&target, flags, Mode::empty())?)
}

fn is_a_link() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it is a symbolic link, which is not followed here")
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
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {} MiB", MAX_READ >> 20)));
    }
    let mut bytes = Vec::with_capacity(4096);
    file.read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
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
pub fn write_synced(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let wanted = std::fs::metadata(like)?.mode() & 0o666;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(wanted).open(path)?;
    give_permissions(&file, wanted)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Restores the permission bits of group and others that the umask removed from `wanted`.
fn give_permissions(file: &File, wanted: u32) -> io::Result<()> {
    if wanted & 0o066 != 0 && file.metadata()?.mode() & 0o666 != wanted {
        file.set_permissions(Permissions::from_mode(wanted))?;
    }
    Ok(())
}

/// Replaces a file durably: after a crash it holds the old bytes or the new ones. The new file has mode 0600 and our owner, unless `access`
/// changes them. A killed process may leave a temporary file beside it, named `.NAME.RANDOM`.
///
/// # Errors
/// The operating system's; the old file is then still there.
#[cfg(feature = "mirror")]
pub fn replace(path: &Path, bytes: &[u8], access: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let (new, directory) = beside(path, bytes, access)?;
    new.as_file().sync_all()?;
    new.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Replaces a file as [`replace`] does, but without syncing it: a power failure may bring the old one back.
///
/// # Errors
/// As [`replace`].
#[cfg(feature = "mirror")]
pub fn replace_unsynced(path: &Path, bytes: &[u8], access: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let (new, _) = beside(path, bytes, access)?;
    new.persist(path).map(drop).map_err(|error| error.error)
}

/// A new file in the directory of `path`.
#[cfg(feature = "mirror")]
fn beside<'p>(
    path: &'p Path,
    bytes: &[u8],
    access: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<(tempfile::NamedTempFile, &'p Path)> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    // Cut short, to leave room for the random suffix.
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(40).collect();
    let mut new = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(directory)?;
    new.write_all(bytes)?;
    access(new.as_file())?;
    Ok((new, directory))
}

/// Gives a file these permissions, whatever the umask. For [`replace`].
///
/// # Errors
/// The operating system's.
pub fn with_mode(mode: u32) -> impl FnOnce(&File) -> io::Result<()> {
    move |file| file.set_permissions(Permissions::from_mode(mode))
}

/// Whether [`make_directory`] made the directory.
#[cfg(feature = "mirror")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It did not exist, and was made.
    Now,
    /// It existed already.
    Before,
}

/// Makes one directory with the permissions `mode`, or those that the umask leaves; does nothing if it exists.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn make_directory(path: &Path, mode: Option<u32>) -> io::Result<Made> {
    loop {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Made::Before),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let Some(mode) = mode else { return Ok(Made::Now) };
        match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
            // Another process removed it in between: a drain that forgets a removed mirror, say.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done.map(|()| Made::Now),
        }
    }
}

/// Makes a directory of ours with the permissions `mode`, whatever the umask. Directories above it are made as the umask has it.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    make_directory(path, Some(mode)).map(drop)
}

/// Opens a file that is only locked, and makes it with the permissions `mode` if it does not exist. A process that can open it can hold the
/// lock, so `mode` must not let other users do so. As root, in a directory of another user, the new file is given to that user.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "mirror")]
pub fn open_lock(path: &Path, mode: u32) -> io::Result<File> {
    match open(path, OpenOptions::new().read(true).write(true).create_new(true).mode(0o600)) {
        Ok((file, _)) => {
            let owner = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
            if rustix::process::geteuid().is_root() && owner.uid() != 0 {
                std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let (file, metadata) = open(path, OpenOptions::new().read(true).write(true))?;
            // Its maker was killed before it had its mode. A second name could be that of another file of ours.
            let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.nlink() == 1;
            if is_ours && metadata.mode() & 0o777 != mode {
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            Ok(file)
        }
        Err(error) => Err(error),
    }
}

/// Syncs the directory `path`, so that renames, links and removals in it are durable.
///
/// # Errors
/// The operating system's, when the directory cannot be opened or synced.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The names in a directory, sorted; none when it is not there.
#[cfg(feature = "mirror")]
pub fn list(directory: &Path) -> io::Result<Vec<String>> {
    match list_there(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// The names in a directory that should be there, sorted. An idle drain of many repositories spends most of its time here, so this reads
/// the directory with fewer system calls than the standard library.
#[cfg(feature = "mirror")]
pub fn list_there(directory: &Path) -> io::Result<Vec<String>> {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(opened, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// The operating system's.
#[cfg(feature = "mirror")]
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
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
            assert!(made.contains(&Made::Now), "it was removed at least once");
        });
    }

    #[test]
    fn a_lock_gets_its_mode_whoever_was_killed_and_another_file_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str| std::fs::metadata(path(name)).expect("there").mode() & 0o777;
        open_lock(&path("lock"), 0o660).expect("made");
        assert_eq!(mode("lock"), 0o660);
        std::fs::set_permissions(path("lock"), Permissions::from_mode(0o600)).expect("as after a kill");
        open_lock(&path("lock"), 0o660).expect("opened");
        assert_eq!(mode("lock"), 0o660);
        std::fs::write(path("secret"), "").expect("written");
        std::fs::set_permissions(path("secret"), Permissions::from_mode(0o600)).expect("ours alone");
        std::fs::hard_link(path("secret"), path("trap")).expect("linked");
        open_lock(&path("trap"), 0o660).expect("opened");
        assert_eq!(mode("secret"), 0o600, "a second name of a file is not a lock that somebody made");
        std::os::unix::fs::symlink(path("secret"), path("link")).expect("linked");
        assert!(open_lock(&path("link"), 0o660).is_err());
    }

    #[test]
    fn links_pipes_and_directories_are_refused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "text").expect("written");
        std::os::unix::fs::symlink(path("file"), path("link")).expect("linked");
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        assert_eq!(read(&path("file")).expect("readable").0, b"text");
        for name in ["link", "pipe", "."] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        assert_eq!(read(&path("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
