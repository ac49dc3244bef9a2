//! Files of lines that only grow: histories and lists.
//!
//! Guaranteed: all new lines go to one `write`. An incomplete line at the end of the file damages
//! no line that is added after it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::open_shared;

/// Appends lines, which end in newlines, to a file, and makes it if it is missing. If a crash or a full disk has left an incomplete line at the
/// end of the file, the first new line does not continue it. Nothing is synced. Returns the file.
///
/// # Errors
/// The operating system's.
pub fn append_lines(path: &Path, lines: &[u8]) -> io::Result<File> {
    let (mut file, before) = open_shared(path, OFlags::RDWR | OFlags::APPEND | OFlags::CREATE)?;
    let mut last = *b"\n";
    if before.len() > 0 {
        // Somebody else may have cut the file meanwhile.
        let _ = file.read_at(&mut last, before.len() - 1)?;
    }
    if last == *b"\n" {
        file.write_all(lines)?;
    } else {
        file.write_all(&[b"\n", lines].concat())?;
    }
    Ok(file)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_line_never_continues_an_incomplete_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lines");
        for (before, after) in [(None, "new\n"), (Some("old\n"), "old\nnew\n"), (Some("ol"), "ol\nnew\n")] {
            if let Some(before) = before {
                std::fs::write(&path, before).expect("written");
            }
            append_lines(&path, b"new\n").expect("appended");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), after);
        }
    }

    #[test]
    fn in_a_shared_directory_the_group_may_write_the_file_unless_it_was_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
        set(directory.path(), 0o2770);
        for (before, after) in [(None, 0o660), (Some(0o644), 0o660), (Some(0o600), 0o600)] {
            let path = directory.path().join("history.jsonl");
            if let Some(mode) = before {
                std::fs::write(&path, "a password\n").expect("written");
                set(&path, mode);
            }
            append_lines(&path, b"new\n").expect("appended");
            let mode = path.metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o660, after, "{before:?}");
            std::fs::remove_file(&path).expect("removed");
        }
    }
}
