//! Past attempts, one JSON object on each line. When the file is larger than 1 MiB, its older half
//! is removed.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::UpdateStatus;
use crate::credentials::Cleaned;
use crate::durable;

/// The size at which the file is cut, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began.
    pub started_at: String,
    /// Its end.
    pub finished_at: String,
    /// The status of the mirror after it.
    pub update_status: UpdateStatus,
    /// Refs that were created, moved or deleted.
    pub updated: usize,
    /// Refs that are not up to date.
    pub failed: usize,
    /// Objects that were sent.
    pub objects: u64,
    /// Bytes of the packs that were sent.
    pub bytes: u64,
    /// The error, cleaned.
    pub error: Option<Cleaned>,
    /// The values that forced updates and deletions replaced, and those that were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replaced>,
}

/// A value of a ref that was replaced, or that was kept under another ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The ref; bytes that are no UTF-8 are replaced.
    #[serde(rename = "ref")]
    pub name: String,
    /// The value that it had.
    pub old: String,
    /// The value that it has now; `None` when it was deleted.
    pub new: Option<String>,
}

/// Adds an attempt to the history in a mirror's directory.
///
/// # Errors
/// The operating system's.
pub fn append(directory: &Path, attempt: &Attempt) -> io::Result<()> {
    let path = directory.join("history.jsonl");
    let mut line = serde_json::to_vec(attempt)?;
    line.push(b'\n');
    let file = durable::append_lines(&path, &line)?;
    if file.metadata()?.len() > MAX_SIZE {
        cut(&path)?;
    }
    Ok(())
}

/// Past attempts, oldest first. Lines that are damaged are left out.
///
/// # Errors
/// The operating system's. A missing file is an empty history.
pub fn read_history(directory: &Path) -> io::Result<Vec<Attempt>> {
    match durable::read(&directory.join("history.jsonl")) {
        Ok((text, _)) => {
            Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn cut(path: &Path) -> io::Result<()> {
    let (text, file) = durable::read(path)?;
    let middle = text.len() / 2;
    let after = |place: usize| text[place..].iter().position(|byte| *byte == b'\n').map(|at| place + at + 1);
    // The last line stays, however long it is: it may name values that were overwritten.
    let last = text[..text.len().saturating_sub(1)].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let start = after(middle).unwrap_or(last).min(last);
    durable::replace_unsynced(path, &text[start..], |new| new.set_permissions(file.permissions()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the test")]
mod tests {
    use super::*;

    #[test]
    fn the_newer_half_is_kept_and_always_the_last_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.jsonl");
        let long = "x".repeat(100);
        for (before, after) in [
            ("a\nb\nc\nd\ne\n".to_owned(), "d\ne\n".to_owned()),
            (format!("a\nb\n{long}\n"), format!("{long}\n")),
            (format!("{long}\n"), format!("{long}\n")),
            (format!("{long}\na\nb\n"), "a\nb\n".to_owned()),
        ] {
            std::fs::write(&path, before).expect("written");
            cut(&path).expect("cut");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), after);
        }
    }
}
