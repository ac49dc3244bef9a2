//! The ref advertisement of receive-pack (gitprotocol-pack(5)), read as a stream: each ref is passed on and not kept.

use std::io::Read;

use gix_transport::packetline::blocking_io::StreamingPeekableIter;
use serde::{Deserialize, Serialize};

use crate::refs::{NameRef, Oid};
use crate::wire::{Error, broken, next_line, refused_by_server};

/// The size in bytes up to which an advertisement is read. A larger one is an error, because the values that we keep would fill the memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct MaxBytes(pub(super) usize);

impl MaxBytes {
    /// For a mirror that is not confined. Holds more than a million refs.
    pub(super) const USUAL: Self = Self(128 << 20);
    /// For a confined mirror. Holds about 300,000 refs. Users may create many such mirrors, which together must not fill the memory.
    pub(super) const CONFINED: Self = Self(32 << 20);
}

/// What a mirror said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it has no refs at all.
    pub is_empty: bool,
}

/// The capabilities that matter here (gitprotocol-capabilities(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// `report-status-v2`
    pub report_status_v2: bool,
    /// `report-status`
    pub report_status: bool,
    /// `side-band-64k`
    pub side_band_64k: bool,
    /// `ofs-delta`
    pub ofs_delta: bool,
    /// `delete-refs`
    pub delete_refs: bool,
    /// `atomic`
    pub atomic: bool,
    /// `push-options`
    pub push_options: bool,
    /// `quiet`
    pub quiet: bool,
    /// `agent`: the request may name ours too.
    pub agent: bool,
    /// `object-format`; `sha1` if the mirror does not announce one. `is_format_said` distinguishes the two cases.
    pub object_format: String,
    /// Whether the mirror announced `object-format`. If so, the request must name it too.
    pub is_format_said: bool,
}

impl Capabilities {
    /// Whether an id fits the announced object format. Every id fits a format that is not known here.
    fn may_hold(&self, oid: Oid) -> bool {
        match &*self.object_format {
            "sha1" => oid.as_bytes().len() == 20,
            "sha256" => oid.as_bytes().len() == 32,
            _ => true,
        }
    }

    fn read(first_line: &[u8]) -> Self {
        let mut found = Self { object_format: "sha1".into(), ..Self::default() };
        let Ok((all, _)) = gix_transport::client::Capabilities::from_bytes(first_line) else {
            return found;
        };
        for capability in all.iter() {
            match &**capability.name() {
                b"report-status-v2" => found.report_status_v2 = true,
                b"report-status" => found.report_status = true,
                b"side-band-64k" => found.side_band_64k = true,
                b"ofs-delta" => found.ofs_delta = true,
                b"delete-refs" => found.delete_refs = true,
                b"atomic" => found.atomic = true,
                b"push-options" => found.push_options = true,
                b"quiet" => found.quiet = true,
                b"agent" => found.agent = true,
                b"object-format" => {
                    found.is_format_said = true;
                    found.object_format =
                        capability.value().map(|value| value.to_string().trim_end().to_owned()).unwrap_or_default();
                }
                _ => {}
            }
        }
        found
    }
}

/// Reads up to the flush packet and calls `each` for every ref with a well-formed name. Skips `.have` lines,
/// `capabilities^{}`, `shallow` lines and names that git would not create.
pub(super) fn read<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    most: MaxBytes,
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Advertised, Error> {
    let mut advertised: Option<Advertised> = None;
    let mut length = 0;
    while length < most.0 {
        let Some(line) = next_line(lines).map_err(broken)? else {
            return advertised.ok_or_else(|| Error::Protocol("an empty advertisement".into()));
        };
        length += line.len() + 4;
        if let Some(message) = line.strip_prefix(b"ERR ") {
            return Err(refused_by_server(&String::from_utf8_lossy(message)));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if advertised.is_none() && line == b"version 1" {
            continue;
        }
        let said =
            advertised.get_or_insert_with(|| Advertised { capabilities: Capabilities::read(line), is_empty: true });
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        if line.starts_with(b"shallow ") {
            continue;
        }
        let (hex, name) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => return Err(nonsense(line)),
        };
        let oid = Oid::from_hex(hex).filter(|oid| said.capabilities.may_hold(*oid)).ok_or_else(|| nonsense(line))?;
        if let Some(name) = NameRef::new(name) {
            said.is_empty = false;
            each(name, oid);
        }
    }
    Err(Error::Unable(format!("its list of refs is larger than {} MiB", most.0 >> 20)))
}

/// Reads up to the flush packet without looking at the refs.
pub(super) fn pass_over<R: Read>(lines: &mut StreamingPeekableIter<R>, most: MaxBytes) -> Result<(), Error> {
    let mut length = 0;
    while length < most.0 {
        let Some(line) = next_line(lines).map_err(broken)? else { return Ok(()) };
        length += line.len() + 4;
        if let Some(message) = line.strip_prefix(b"ERR ") {
            return Err(refused_by_server(&String::from_utf8_lossy(message)));
        }
    }
    // Unlike in `read`, this is not `Error::Unable`: the commands were sent already, and the mirror may carry them out.
    Err(Error::Protocol(format!("an advertisement of more than {} MiB", most.0 >> 20)))
}

fn nonsense(line: &[u8]) -> Error {
    let start: String = String::from_utf8_lossy(line).chars().take(60).collect();
    Error::Protocol(format!("'{start}' where a ref was expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gix_transport::packetline::PacketLineRef;

    fn packet(text: &[u8]) -> Vec<u8> {
        [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
    }

    fn read_all(bytes: &[u8]) -> Result<(Advertised, Vec<String>), Error> {
        let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
        let mut names = Vec::new();
        let advertised = read(&mut lines, MaxBytes(1 << 20), &mut |name, oid| {
            names.push(format!("{} {}", oid.short(), name.to_owned()));
        })?;
        Ok((advertised, names))
    }

    #[test]
    fn an_advertisement_has_an_end() {
        let line = packet(format!("{} refs/heads/x\n", "1".repeat(40)).as_bytes());
        let endless = line.repeat((1 << 20) / line.len() + 2);
        let error = read_all(&endless).expect_err("too long").to_string();
        assert!(error.contains("its list of refs is larger than 1 MiB"), "{error}");
    }

    #[test]
    fn passes_over_what_is_no_ref() {
        let oid = "1".repeat(40);
        let bytes = [
            packet(format!("{oid} refs/heads/main\0report-status delete-refs object-format=sha1 agent=x\n").as_bytes()),
            packet(format!("{oid} .have\n").as_bytes()),
            packet(format!("{oid} refs/heads/../../etc\n").as_bytes()),
            packet(format!("shallow {oid}").as_bytes()),
            b"0000".to_vec(),
        ]
        .concat();
        let (advertised, names) = read_all(&bytes).expect("well-formed");
        assert_eq!(names, ["1111111 refs/heads/main"]);
        assert!(advertised.capabilities.delete_refs && !advertised.capabilities.atomic && !advertised.is_empty);
    }

    #[test]
    fn an_empty_mirror_has_capabilities_and_no_refs() {
        let line = format!("{} capabilities^{{}}\0report-status-v2 side-band-64k\n", "0".repeat(40));
        let (advertised, names) = read_all(&[packet(line.as_bytes()), b"0000".to_vec()].concat()).expect("well-formed");
        assert!(advertised.is_empty && names.is_empty() && advertised.capabilities.report_status_v2);
    }

    #[test]
    fn cut_or_senseless_advertisements_are_errors() {
        let line = packet(format!("{} refs/heads/main\0report-status\n", "1".repeat(40)).as_bytes());
        for cut in 0..line.len() {
            assert!(read_all(&line[..cut]).is_err(), "cut to {cut}");
        }
        for bad in [&b"0000"[..], b"HTTP/1.1 200 OK\r\n", b"0008oid\n0000", b"zzzz", b"0009ERR x", b"0006x\n0000"] {
            assert!(read_all(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
