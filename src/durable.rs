//! Files of ours that others might own or change: opened once, without following a link, and judged on the open descriptor.
//!
//! Guaranteed: what is judged is what is read. A symbolic link in the last part of the path is an error, and so is anything but a
//! regular file, a named pipe for one, which would keep its reader waiting. Absent: links further up in the path, and who may own what,
//! which the callers know. Nothing is written here but what callers write through what was opened.

#![expect(clippy::disallowed_methods, reason = "the one place that opens files so")]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens a file as `options` say, which must be a regular one; its owner and mode can then be read from the descriptor.
///
/// # Errors
/// The operating system's, or that the path is a symbolic link or no regular file.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = options.custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::LOOP.raw_os_error() => {
            io::Error::new(io::ErrorKind::PermissionDenied, "it is a symbolic link, which is not followed here")
        }
        _ => error,
    })?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    let kind = if metadata.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::PermissionDenied };
    Err(io::Error::new(kind, "it is no regular file"))
}

/// Opens a file to read it.
///
/// # Errors
/// As [`open`].
pub fn open_to_read(path: &Path) -> io::Result<(File, Metadata)> {
    open(path, OpenOptions::new().read(true))
}

/// Reads a file as a whole, with what its descriptor says of it.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let (mut file, metadata) = open_to_read(path)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_pipes_and_directories_are_refused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "text").expect("written");
        std::os::unix::fs::symlink(path("file"), path("link")).expect("linked");
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("a pipe");
        assert_eq!(read(&path("file")).expect("readable").0, b"text");
        for name in ["link", "pipe", "."] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        assert_eq!(read(&path("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
