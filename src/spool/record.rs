//! The text of a spool record, pure.
//!
//! ```text
//! git-mirror-push spool 1
//! time 1767720722.823000000
//! refs 2
//! <old oid> <new oid> refs/heads/main
//! <old oid> <new oid> refs/tags/v1
//! crc32 6f2a90c4
//! ```
//!
//! Lines end in LF, ref names are raw bytes, the checksum (CRC-32, IEEE) covers every byte before its own line. `full`
//! instead of `refs N` asks for a comparison of everything selected. Up to three more lines may stand before `refs N` or `full`,
//! in this order: `look TIME` (in the form of `time`), `release`, `adopt ADDRESS`. A text that is cut short, changed, or of a
//! version that this program does not know is [`Unreadable`], never a shorter record.

use std::time::Duration;

use crate::refs::RefUpdate;

const MAGIC: &[u8] = b"git-mirror-push spool ";
const VERSION: &[u8] = b"1";

/// What one push did, or a request: for a full sync, or to read some refs again later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the record was written, since the Unix epoch.
    pub time: Duration,
    /// The refs that the push moved. `None` asks for a comparison of everything selected.
    pub updates: Option<Vec<RefUpdate>>,
    /// When these refs are read again, since the Unix epoch. An earlier push with an incomplete report may still change them. The record is
    /// not due before this time. The run then reads the mirror's refs before it sends anything.
    pub look: Option<Duration>,
    /// Whether refs that go back and forth are sent again, because a person asked for it.
    pub release: bool,
    /// The address with which a person confirmed first contact.
    pub adopt: Option<String>,
}

impl Record {
    /// The record of a push.
    #[must_use]
    pub fn of(time: Duration, updates: Vec<RefUpdate>) -> Self {
        Self { time, updates: Some(updates), ..Self::default() }
    }

    /// The request for a full sync.
    #[must_use]
    pub fn full(time: Duration) -> Self {
        Self { time, ..Self::default() }
    }
}

/// Why a text is no record that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing was written.
    Empty,
    /// The first line is not that of a record.
    NotARecord,
    /// A later version of this program wrote it.
    FutureVersion,
    /// It ends early, or its checksum does not match.
    Damaged,
    /// The checksum matches but a line has no meaning.
    Malformed,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "the record is empty",
            Self::NotARecord => "the file is not a spool record",
            Self::FutureVersion => "a later version of git-mirror-push wrote the record",
            Self::Damaged => "the record is cut short or its checksum does not match",
            Self::Malformed => "the record has a line that this program does not understand",
        })
    }
}

/// Renders a record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let count = record.updates.as_ref().map_or(0, Vec::len);
    let mut text = Vec::with_capacity(80 + count * 128);
    text.extend_from_slice(MAGIC);
    text.extend_from_slice(VERSION);
    let time = |time: Duration| format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    text.extend_from_slice(format!("\ntime {}\n", time(record.time)).as_bytes());
    if let Some(look) = record.look {
        text.extend_from_slice(format!("look {}\n", time(look)).as_bytes());
    }
    if record.release {
        text.extend_from_slice(b"release\n");
    }
    if let Some(address) = &record.adopt {
        text.extend_from_slice(format!("adopt {address}\n").as_bytes());
    }
    match &record.updates {
        None => text.extend_from_slice(b"full\n"),
        Some(updates) => {
            text.extend_from_slice(format!("refs {count}\n").as_bytes());
            for update in updates {
                text.extend_from_slice(format!("{} {} ", update.old, update.new).as_bytes());
                text.extend_from_slice(update.name.as_bytes());
                text.push(b'\n');
            }
        }
    }
    let sum = crc32fast::hash(&text);
    text.extend_from_slice(format!("crc32 {sum:08x}\n").as_bytes());
    text
}

/// Reads a record.
///
/// # Errors
/// [`Unreadable`], which says in which way the text is no record.
pub fn decode(text: &[u8]) -> Result<Record, Unreadable> {
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    let after_magic = text.strip_prefix(MAGIC).ok_or(Unreadable::NotARecord)?;
    let version = after_magic.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if version != VERSION {
        let number = std::str::from_utf8(version).ok().and_then(|text| text.parse::<u32>().ok());
        return Err(if number.is_some() { Unreadable::FutureVersion } else { Unreadable::Damaged });
    }
    let body = checked_body(text)?;
    parse_body(body).ok_or(Unreadable::Malformed)
}

/// Checks the checksum in the last line, and returns the bytes that it covers.
fn checked_body(text: &[u8]) -> Result<&[u8], Unreadable> {
    const TRAILER: usize = b"crc32 00000000\n".len();
    let (body, trailer) = text.split_at_checked(text.len().wrapping_sub(TRAILER)).ok_or(Unreadable::Damaged)?;
    let expected = format!("crc32 {:08x}\n", crc32fast::hash(body));
    if trailer == expected.as_bytes() { Ok(body) } else { Err(Unreadable::Damaged) }
}

fn parse_body(body: &[u8]) -> Option<Record> {
    let mut lines = body.strip_suffix(b"\n")?.split(|byte| *byte == b'\n').skip(1).peekable();
    let mut record = Record::full(parse_time(lines.next()?.strip_prefix(b"time ")?)?);
    if let Some(look) = lines.next_if(|line| line.starts_with(b"look ")) {
        record.look = Some(parse_time(&look[b"look ".len()..])?);
    }
    record.release = lines.next_if_eq(&&b"release"[..]).is_some();
    if let Some(adopt) = lines.next_if(|line| line.starts_with(b"adopt ")) {
        record.adopt = Some(String::from_utf8(adopt[b"adopt ".len()..].to_vec()).ok()?);
    }
    let kind = lines.next()?;
    if kind == b"full" {
        return lines.next().is_none().then_some(record);
    }
    let count: usize = std::str::from_utf8(kind.strip_prefix(b"refs ")?).ok()?.parse().ok()?;
    let updates = lines.map(RefUpdate::parse).collect::<Option<Vec<_>>>()?;
    (updates.len() == count).then_some(Record { updates: Some(updates), ..record })
}

fn parse_time(text: &[u8]) -> Option<Duration> {
    let (seconds, nanos) = std::str::from_utf8(text).ok()?.split_once('.')?;
    let nanos: u32 = nanos.parse().ok()?;
    (nanos < 1_000_000_000).then_some(Duration::new(seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let line = |name: &[u8]| {
            let text = [format!("{} {} ", "1".repeat(40), "0".repeat(40)).as_bytes(), name].concat();
            RefUpdate::parse(&text).expect("well-formed")
        };
        let updates = vec![line(b"refs/heads/main"), line(b"refs/heads/\xff\xfe'\"%")];
        Record::of(Duration::new(1_767_720_722, 823), updates)
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded() {
        for record in [
            record(),
            Record::full(Duration::ZERO),
            Record::of(Duration::MAX, vec![]),
            Record { look: Some(Duration::new(7, 8)), ..record() },
            Record { release: true, adopt: Some("https://h:443/x y".into()), ..Record::full(Duration::ZERO) },
            Record { adopt: Some(String::new()), ..Record::full(Duration::ZERO) },
        ] {
            assert_eq!(decode(&encode(&record)), Ok(record));
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let text = encode(&record());
        for len in 0..text.len() {
            assert!(decode(&text[..len]).is_err(), "cut to {len} bytes");
        }
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "byte {at} changed");
        }
        assert!(decode(&[text, b"more\n".to_vec()].concat()).is_err());
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        assert_eq!(decode(b"git-mirror-push spool 2\nanything"), Err(Unreadable::FutureVersion));
        assert_eq!(decode(b"git-mirror-push spool \xff\n"), Err(Unreadable::Damaged));
        assert_eq!(decode(b""), Err(Unreadable::Empty));
        assert_eq!(decode(b"#!/bin/sh\n"), Err(Unreadable::NotARecord));
    }
}
