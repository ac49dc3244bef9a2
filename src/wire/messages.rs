//! The messages of a mirror for people (side bands 2 and 3): bounded, cleaned, and assigned to refs.

use std::collections::HashMap;

use crate::credentials::{Cleaned, Redactor};
use crate::refs::RefName;
use crate::replies;

/// Maximum number of bytes that are kept of one push.
const MAX_KEPT: usize = 16 << 10;
/// Maximum number of bytes that are kept in the reason of one ref.
const MAX_IN_REASON: usize = 1 << 10;

/// The messages of one mirror in one push.
#[derive(Default)]
pub(crate) struct Messages {
    raw: Vec<u8>,
    /// Where the last line begins.
    line: usize,
}

impl Messages {
    /// Adds a message, as far as there is room.
    pub(crate) fn push(&mut self, message: &[u8]) {
        let room = MAX_KEPT.saturating_sub(self.raw.len());
        let added = &message[..message.len().min(room)];
        if added.is_empty() {
            return;
        }
        let begun = self.raw.len();
        self.raw.extend_from_slice(added);
        if let Some(end) = added.iter().rposition(|byte| *byte == b'\n') {
            self.line = begun + end + 1;
        }
        // Progress overwrites its line: only the last state of a line is kept. The search covers the new bytes and the byte before them,
        // which may be a carriage return.
        let new = self.line.max(begun.saturating_sub(1));
        let before_last = self.raw.len().saturating_sub(1).max(new);
        if let Some(at) = self.raw[new..before_last].iter().rposition(|byte| *byte == b'\r') {
            self.raw.drain(self.line..=new + at);
        }
    }

    /// The lines, cleaned. Of a line that was overwritten with carriage returns the last state counts.
    pub(crate) fn lines(&self, redactor: &Redactor) -> Vec<Cleaned> {
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

/// Which lines belong to which of the refused refs. A line that names a ref belongs to it, and so do the lines before it that
/// name none: a hook's own message comes before git's message that the hook declined. The remaining lines belong to every ref.
pub(crate) fn about<'n>(refused: &[&'n RefName], lines: &[Cleaned]) -> HashMap<&'n RefName, Cleaned> {
    // The lines have been cleaned, so the names in them have been, too.
    let cleaned = |name: &RefName| Redactor::default().clean(&name.text()).as_str().to_owned();
    let full: Vec<(String, &RefName)> = refused.iter().map(|name| (cleaned(name), *name)).collect();
    let mut found: HashMap<&RefName, Cleaned> = HashMap::new();
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

fn append(text: &mut Cleaned, line: &Cleaned) {
    if text.len() + line.len() <= MAX_IN_REASON {
        let before = std::mem::take(text);
        *text = if before.is_empty() { line.clone() } else { before.and_ours("; ").and(line) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(packets: &[&str]) -> Vec<String> {
        let mut messages = Messages::default();
        packets.iter().for_each(|packet| messages.push(packet.as_bytes()));
        messages.lines(&Redactor::default()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_state_of_a_line_that_overwrites_itself_is_kept() {
        for packets in [
            &["one\r\ntwo 1%\rtwo 2%\r", "two 3%\nthree\r\n"][..],
            &["one\n", "two 1%", "\rtwo 2%\r", "two 3%", "\n", "three"],
            &["one\r", "\ntwo 1%\r", "two 3%\r\n", "three\r"],
        ] {
            assert_eq!(lines(packets), ["one", "two 3%", "three"], "{packets:?}");
        }
    }

    #[test]
    fn progress_leaves_room_for_what_is_said_after_it() {
        let mut packets = vec!["first\n"];
        packets.extend(["Resolving deltas:  50% (1/2)\r"; 5000]);
        packets.extend(["Resolving deltas: 100% (2/2), done.\n", "the hook says no\n"]);
        assert_eq!(lines(&packets), ["first", "the hook says no"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut messages = Messages::default();
        (0..2_000_000).for_each(|_| messages.push(b"x"));
        assert_eq!(messages.raw.len(), MAX_KEPT);
    }
}
