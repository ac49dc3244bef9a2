//! The permanent numbers of projects, in the file `projects.jsonl` of the daemon's state directory.
//!
//! Guaranteed: a number is never reused, and it is on the disk before it is shown. A later line of
//! a repository replaces an earlier one. A crash may leave an incomplete line. Its number was never
//! shown, and the next line overwrites it.

#![expect(clippy::disallowed_methods, reason = "appends to projects.jsonl")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;

/// A line of the file of numbers. With an empty path, the number was given once and is nobody's now.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: u32,
    git_dir: PathBuf,
}

/// The file of numbers, and what is in it.
#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    pub(super) ids: HashMap<PathBuf, u32>,
    pub(super) last: u32,
    /// The length of the file up to its last complete line. `None` before the file was read.
    length: Option<u64>,
    /// Numbers that the fleet has reserved for this machine.
    pub(super) reserved: Range<u32>,
}

impl Numbers {
    /// The numbers in the file of this directory. The file is read when it is first needed.
    pub(super) fn new(state_directory: &Path) -> Self {
        let path = state_directory.join("projects.jsonl");
        Self { path, ids: HashMap::new(), last: 0, length: None, reserved: 0..0 }
    }

    /// Gives repositories other numbers.
    pub(super) fn change(&mut self, given: Vec<(u32, PathBuf)>) -> io::Result<()> {
        let length = match self.length {
            Some(length) => length,
            None => self.read()?,
        };
        self.append(given.into_iter().map(|(id, git_dir)| Line { id, git_dir }).collect(), length)
    }

    /// Gives a number to each of these that has none.
    pub(super) fn add<'g>(&mut self, git_dirs: impl Iterator<Item = &'g PathBuf>) -> io::Result<()> {
        let length = match self.length {
            Some(length) => length,
            None => self.read()?,
        };
        let new = git_dirs.filter(|git_dir| !self.ids.contains_key(*git_dir));
        // Without reserved numbers, this may take a number that another machine has. The fleet
        // replaces it later.
        let ids = self.reserved.clone().chain(self.last.max(self.reserved.end.saturating_sub(1)) + 1..);
        let lines: Vec<Line> = new.zip(ids).map(|(git_dir, id)| Line { id, git_dir: git_dir.clone() }).collect();
        self.append(lines, length)
    }

    /// Adds lines to the file, whose complete lines have this length.
    fn append(&mut self, lines: Vec<Line>, length: u64) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = text_of(&lines)?;
        let mut file = std::fs::File::options().create(true).append(true).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() < length {
            // Somebody has cut it, or put an older one in its place.
            tracing::warn!("'{}' is shorter than it was, and is written again", self.path.display());
            return self.write_all(lines);
        }
        // An incomplete line would make the next one unreadable.
        file.set_len(length)?;
        file.write_all(&text)?;
        file.sync_all()?;
        if length == 0 {
            durable::sync_directory(self.path.parent().unwrap_or(&self.path))?;
        }
        self.length = Some(length + text.len() as u64);
        self.take(lines);
        Ok(())
    }

    /// Replaces the file by all numbers that are known, and these new ones.
    fn write_all(&mut self, mut lines: Vec<Line>) -> io::Result<()> {
        let line = |(git_dir, id): (&PathBuf, &u32)| Line { id: *id, git_dir: git_dir.clone() };
        let known: HashSet<PathBuf> = lines.iter().map(|line| line.git_dir.clone()).collect();
        lines.extend(self.ids.iter().filter(|(git_dir, _)| !known.contains(*git_dir)).map(line));
        if self.last > 0 && lines.iter().all(|line| line.id < self.last) {
            // The repository that had the highest number has another one now. That number must not
            // be given again.
            lines.push(Line { id: self.last, git_dir: PathBuf::new() });
        }
        lines.sort_by_key(|line| line.id);
        let text = text_of(&lines)?;
        durable::replace(&self.path, &text, |_| Ok(()))?;
        self.length = Some(text.len() as u64);
        self.take(lines);
        Ok(())
    }

    fn take(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.last = self.last.max(line.id);
            if self.reserved.contains(&line.id) {
                self.reserved.start = line.id + 1;
            }
            if !line.git_dir.as_os_str().is_empty() {
                self.ids.insert(line.git_dir, line.id);
            }
        }
    }

    /// Reads the file. Returns the length of its complete lines.
    fn read(&mut self) -> io::Result<u64> {
        let text = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.read_old(),
            text => text?,
        };
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = text[..complete].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let line = |(at, line)| {
            serde_json::from_slice(line)
                .map_err(|error| io::Error::other(format!("line {} of '{}': {error}", at + 1, self.path.display())))
        };
        let lines: io::Result<Vec<Line>> = lines.enumerate().map(line).collect();
        self.take(lines?);
        self.length = Some(complete as u64);
        Ok(complete as u64)
    }

    /// Takes the numbers of the file that an earlier version rewrote for each new repository.
    fn read_old(&mut self) -> io::Result<u64> {
        #[derive(Deserialize)]
        struct Old {
            last: u32,
            ids: BTreeMap<PathBuf, u32>,
        }
        let old = match std::fs::read(self.path.with_extension("json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            text => serde_json::from_slice::<Old>(&text?)?,
        };
        self.ids.extend(old.ids);
        self.last = old.last;
        self.write_all(Vec::new())?;
        durable::remove_if_there(&self.path.with_extension("json"))?;
        Ok(self.length.unwrap_or_default())
    }
}

fn text_of(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    Ok(text)
}
