//! The messages of a mirror for people (side bands 2 and 3): bounded, cleaned, and assigned to refs.

use std::collections::HashMap;

use crate::credentials::{Cleaned, Redactor};
use crate::refs::RefName;
use crate::replies;

/// Kept of one push.
const MAX_KEPT: usize = 16 << 10;
/// Kept in the reason of one ref.
const MAX_IN_REASON: usize = 1 << 10;

/// The words of one mirror in one push.
#[derive(Default)]
pub(super) struct Messages {
    raw: Vec<u8>,
}

impl Messages {
    /// Takes more words, as far as there is room.
    pub(super) fn push(&mut self, message: &[u8]) {
        let room = MAX_KEPT.saturating_sub(self.raw.len());
        self.raw.extend_from_slice(&message[..message.len().min(room)]);
        // A line that overwrites itself, as progress does, takes no more room than its last state.
        let line = self.raw.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let before_last = self.raw[line..].len().saturating_sub(1);
        if let Some(at) = self.raw[line..line + before_last].iter().rposition(|byte| *byte == b'\r') {
            self.raw.drain(line..=line + at);
        }
    }

    /// The lines, cleaned. Of a line that was overwritten with carriage returns the last state counts.
    pub(super) fn lines(&self, redactor: &Redactor) -> Vec<Cleaned> {
        let last_state = |line: &[u8]| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            redactor.clean_bytes(line.rsplit(|byte| *byte == b'\r').next().unwrap_or_default().trim_ascii_end())
        };
        self.raw
            .split(|byte| *byte == b'\n')
            .map(last_state)
            .filter(|line| !line.is_empty() && !replies::is_progress(line))
            .collect()
    }
}

/// Which lines belong to which of the refused refs. A line that names a ref is about that ref, and so are the lines before it
/// that name none: a hook's own words come before git's word that the hook declined. What is left is about every ref.
pub(super) fn about<'n>(refused: &[&'n RefName], lines: &[Cleaned]) -> HashMap<&'n RefName, String> {
    let full: Vec<(String, &RefName)> = refused.iter().map(|name| (name.to_string(), *name)).collect();
    let mut found: HashMap<&RefName, String> = HashMap::new();
    let mut open: Vec<&Cleaned> = Vec::new();
    for line in lines {
        open.push(line);
        // Of `refs/heads/a` and `refs/heads/a/b` the longer one is meant.
        let named = full.iter().filter(|(text, _)| line.contains(text)).max_by_key(|(text, _)| text.len());
        if let Some((_, name)) = named {
            open.drain(..).for_each(|line| append(found.entry(name).or_default(), line));
        }
    }
    for name in refused {
        open.iter().for_each(|line| append(found.entry(name).or_default(), line));
    }
    found
}

fn append(text: &mut String, line: &str) {
    if text.len() + line.len() <= MAX_IN_REASON {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(line);
    }
}
