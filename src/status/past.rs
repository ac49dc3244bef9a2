//! `past`: values that refs of this repository were moved away from by a rewrite or a deletion, whoever did it. One JSON object on a line;
//! at most 10,000 lines count, and none older than 90 days.
//!
//! Guaranteed: the newest line of a value counts. A crash, or two runs that cut the file at the
//! same time, may lose lines. Then an old value on the mirror may count as a conflict, although the
//! mirror is only late. A value that the mirror itself replaced earlier may count as late; a run
//! keeps such a value before it replaces it. Absent: values that were moved forward. The history of
//! the ref contains them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::render_time;
use crate::durable;
use crate::layout::Layout;
use crate::refs::{Oid, RefName};
use crate::repo::Repository;

const MAX_LINES: usize = 10_000;
const MAX_AGE: SignedDuration = SignedDuration::from_hours(90 * 24);

#[derive(Deserialize, Serialize)]
struct Line {
    at: String,
    #[serde(rename = "ref")]
    name: String,
    value: String,
    /// The mirror whose value replaced it; `None` if a push did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// The file, which is read when it is first asked.
#[derive(Debug)]
pub struct Past {
    path: PathBuf,
    now: Timestamp,
    values: OnceCell<HashMap<(String, String), Option<String>>>,
}

impl Past {
    /// The file of a repository.
    #[must_use]
    pub fn of(layout: &Layout, now: Timestamp) -> Self {
        Self { path: layout.past(), now, values: OnceCell::new() }
    }

    /// Who moved the ref away from this value: a mirror, or a push (`Some(None)`). `None` if that
    /// is not recorded, or if the file cannot be read.
    #[must_use]
    pub fn find(&self, name: &RefName, value: Oid) -> Option<Option<&str>> {
        let values = self.values.get_or_init(|| {
            self.read().unwrap_or_else(|error| {
                tracing::warn!("cannot read '{}': {error}", self.path.display());
                HashMap::new()
            })
        });
        values.get(&(name.text().into_owned(), value.to_string())).map(Option::as_deref)
    }

    fn read(&self) -> io::Result<HashMap<(String, String), Option<String>>> {
        let text = read(&self.path)?;
        let newest = text.rsplit(|byte| *byte == b'\n').take(MAX_LINES + 1);
        let lines = newest.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        let mut values = HashMap::new();
        for line in lines.filter(|line| is_recent(line, self.now)) {
            values.entry((line.name, line.value)).or_insert(line.by);
        }
        Ok(values)
    }
}

/// Adds values that refs were moved away from, by a mirror or by pushes. If the hook ran for a
/// change by a mirror, it recorded that change as a push too. So for pushes, this adds only values
/// that have no line yet.
///
/// # Errors
/// The operating system's.
pub fn note(repository: &Repository, left: &[(RefName, Oid)], by: Option<&str>, now: Timestamp) -> io::Result<()> {
    let layout = repository.layout();
    let before = Past::of(&layout, now);
    let mut text = Vec::new();
    let is_new = |(name, value): &&(RefName, Oid)| match before.find(name, *value) {
        None => true,
        Some(known) => by.is_some() && known != by,
    };
    for (name, value) in left.iter().filter(is_new) {
        let (at, by) = (render_time(now), by.map(str::to_owned));
        let line = Line { at, name: name.text().into_owned(), value: value.to_string(), by };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    if text.is_empty() {
        return Ok(());
    }
    let path = layout.past();
    durable::append_lines(&path, &text)?;
    cut(&path, repository, now)
}

/// Once the file has more than twice `MAX_LINES` lines, keeps only the recent ones of the last
/// `MAX_LINES`.
fn cut(path: &Path, repository: &Repository, now: Timestamp) -> io::Result<()> {
    let text = read(path)?;
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    if lines.len() <= 2 * MAX_LINES {
        return Ok(());
    }
    let is_left = |line: &&&[u8]| serde_json::from_slice(line).is_ok_and(|line| is_recent(&line, now));
    let left: Vec<u8> = lines[lines.len() - MAX_LINES..].iter().filter(is_left).copied().flatten().copied().collect();
    let sharing = repository.sharing();
    durable::replace(path, &left, |file| sharing.publish(file))
}

fn is_recent(line: &Line, now: Timestamp) -> bool {
    line.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) <= MAX_AGE)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match durable::read(path) {
        Ok((text, _)) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_line_that_is_whole_and_recent_counts() {
        let now: Timestamp = "2026-01-06T12:00:00Z".parse().expect("valid");
        let value = |digit: char| Oid::from_hex(digit.to_string().repeat(40).as_bytes()).expect("valid");
        let line = |at: &str, digit: char, by: &str| {
            format!("{{\"at\":\"{at}\",\"ref\":\"refs/heads/x\",\"value\":\"{}\"{by}}}\n", value(digit))
        };
        let text = [
            line("2025-10-01T00:00:00Z", '1', ""),
            line("2026-01-05T00:00:00Z", '2', ""),
            line("2026-01-06T00:00:00Z", '2', ",\"by\":\"m\""),
            "{\"at\":\"2026\n".into(),
            line("2026-01-06T00:00:00Z", '3', ""),
        ];
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("past");
        durable::replace_unsynced(&path, text.concat().as_bytes(), |_| Ok(())).expect("written");
        let past = Past { path, now, values: OnceCell::new() };
        let name = RefName::new(b"refs/heads/x").expect("valid");
        assert_eq!(past.find(&name, value('1')), None, "it is too old");
        assert_eq!(past.find(&name, value('2')), Some(Some("m")));
        assert_eq!(past.find(&name, value('3')), Some(None));
        assert_eq!(past.find(&name, value('4')), None);
    }
}
