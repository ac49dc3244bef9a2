//! The list of upstream's refs: `ls-refs` of version 2, or the advertisement of an older version. Each ref is passed on and not kept.

use std::io::Read;

use gix_transport::packetline::blocking_io::{StreamingPeekableIter, encode};

use super::greeting::{Commands, count, head_of, line};
use crate::refs::{NameRef, Oid, RefName};
use crate::wire::Error;

/// What upstream said besides its refs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The branch that its HEAD names. If that branch does not exist, it is known only if `unborn`
    /// was asked for, or from the first line of an older advertisement.
    pub head: Option<RefName>,
    /// The commit of HEAD, if HEAD names no branch or a branch that exists.
    pub head_value: Option<Oid>,
    /// Whether it shows no refs at all. With version 2, only HEAD and the refs that were asked for
    /// count.
    pub is_empty: bool,
    /// Its object format: `sha1` or `sha256`.
    pub object_format: String,
    /// Its symbolic refs other than HEAD, sorted. Only version 2 tells which they are.
    pub symbolic: Vec<RefName>,
    /// How many refs it shows whose names git would not create.
    pub malformed: usize,
}

/// The command that asks for HEAD and for the refs whose names begin with one of `prefixes`.
pub(super) fn request(commands: &Commands, prefixes: &[Vec<u8>]) -> Vec<u8> {
    let mut request = Vec::new();
    say(&mut request, b"command=ls-refs\n");
    if let Some(format) = &commands.object_format {
        say(&mut request, format!("object-format={format}\n").as_bytes());
    }
    encode::delim_to_write(&mut request).expect("memory takes it");
    say(&mut request, b"symrefs\n");
    if commands.unborn {
        say(&mut request, b"unborn\n");
    }
    say(&mut request, b"ref-prefix HEAD\n");
    for prefix in prefixes {
        say(&mut request, &[b"ref-prefix ", &prefix[..], b"\n"].concat());
    }
    encode::flush_to_write(&mut request).expect("memory takes it");
    request
}

pub(super) fn say(request: &mut Vec<u8>, line: &[u8]) {
    encode::data_to_write(line, request).map(|_| ()).expect("a short line");
}

/// Reads the answer to [`request`]. Symbolic refs are not passed on.
pub(super) fn answer<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    commands: &Commands,
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Listed, Error> {
    let object_format = commands.object_format.clone().unwrap_or_else(|| "sha1".into());
    let mut reading = Reading::new(object_format);
    while let Some(line) = line(lines)? {
        count(&mut reading.length, &line)?;
        let mut words = line.split(|byte| *byte == b' ');
        let (value, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let target = words.find_map(|word| word.strip_prefix(b"symref-target:"));
        if name == b"HEAD" {
            reading.listed.head = target.and_then(RefName::new);
        }
        if value == b"unborn" {
            continue;
        }
        let oid = reading.oid(value).ok_or_else(|| nonsense(&line))?;
        match name {
            b"HEAD" => reading.head_at(oid),
            name if target.is_some() => {
                reading.listed.is_empty = false;
                reading.listed.symbolic.extend(RefName::new(name));
            }
            name => reading.pass_on(name, oid, each),
        }
    }
    lines.reset();
    reading.listed.symbolic.sort_unstable();
    Ok(reading.listed)
}

/// Reads the advertisement of an older version. `first` is its first line, which was read already.
/// Also returns its capabilities.
pub(super) fn advertisement<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    first: &[u8],
    prefixes: &[Vec<u8>],
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<(Listed, Vec<String>), Error> {
    let at = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
    let words = String::from_utf8_lossy(first.get(at + 1..).unwrap_or_default()).into_owned();
    let capabilities: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    let format = capabilities.iter().find_map(|word| word.strip_prefix("object-format="));
    let mut reading = Reading::new(format.unwrap_or("sha1").to_owned());
    reading.listed.head = head_of(first);
    let mut next = Some(first[..at].to_vec());
    while let Some(said) = next {
        count(&mut reading.length, &said)?;
        if said.starts_with(b"shallow ") {
            return Err(shallow());
        }
        let (value, name) = match said.iter().position(|byte| *byte == b' ') {
            Some(at) => (&said[..at], &said[at + 1..]),
            None => return Err(nonsense(&said)),
        };
        let oid = reading.oid(value).ok_or_else(|| nonsense(&said))?;
        match name {
            b"HEAD" => reading.head_at(oid),
            b"capabilities^{}" => {}
            name if name.ends_with(b"^{}") => {}
            // The same refs as with the prefixes of version 2.
            name if prefixes.iter().any(|prefix| name.starts_with(prefix)) => reading.pass_on(name, oid, each),
            _ => reading.listed.is_empty = false,
        }
        next = line(lines)?;
    }
    lines.reset();
    Ok((reading.listed, capabilities))
}

/// The error for a shallow upstream.
pub(super) fn shallow() -> Error {
    Error::Unable("it is a shallow repository, so its history is not complete; there: git fetch --unshallow".into())
}

struct Reading {
    listed: Listed,
    length: usize,
}

impl Reading {
    fn new(object_format: String) -> Self {
        Self { listed: Listed { is_empty: true, object_format, ..Listed::default() }, length: 0 }
    }

    /// An id of upstream's object format.
    fn oid(&self, hex: &[u8]) -> Option<Oid> {
        let length = if self.listed.object_format == "sha256" { 32 } else { 20 };
        Oid::from_hex(hex).filter(|oid| oid.as_bytes().len() == length)
    }

    fn head_at(&mut self, oid: Oid) {
        self.listed.head_value = Some(oid);
        self.listed.is_empty = false;
    }

    fn pass_on(&mut self, name: &[u8], oid: Oid, each: &mut dyn FnMut(NameRef<'_>, Oid)) {
        self.listed.is_empty = false;
        match NameRef::new(name) {
            Some(name) => each(name, oid),
            None => self.listed.malformed += 1,
        }
    }
}

fn nonsense(line: &[u8]) -> Error {
    let start: String = String::from_utf8_lossy(line).chars().take(60).collect();
    Error::Protocol(format!("'{start}' where a ref was expected"))
}

#[cfg(test)]
mod tests {
    use gix_transport::packetline::PacketLineRef;

    use super::*;

    fn lines(parts: &[String]) -> StreamingPeekableIter<std::io::Cursor<Vec<u8>>> {
        let mut bytes = Vec::new();
        for part in parts {
            encode::data_to_write(part.as_bytes(), &mut bytes).expect("memory takes it");
        }
        encode::flush_to_write(&mut bytes).expect("memory takes it");
        StreamingPeekableIter::new(std::io::Cursor::new(bytes), &[PacketLineRef::Flush], false)
    }

    #[test]
    fn both_versions_give_the_same_list() {
        let one = "1".repeat(40);
        let two = [
            format!("{one} HEAD symref-target:refs/heads/main\n"),
            format!("{one} refs/heads/main\n"),
            format!("{one} refs/heads/link symref-target:refs/heads/main\n"),
            format!("{one} refs/heads/x..y\n"),
            format!("{one} refs/tags/v1\n"),
        ];
        let older = [
            format!("{one} refs/heads/main\n"),
            format!("{one} refs/heads/x..y\n"),
            format!("{one} refs/pull/1/head\n"),
            format!("{one} refs/tags/v1\n"),
            format!("{one} refs/tags/v1^{{}}\n"),
        ];
        let first = format!("{one} HEAD\0multi_ack symref=HEAD:refs/heads/main object-format=sha1");
        let prefixes = [b"refs/heads/".to_vec(), b"refs/tags/".to_vec()];
        let (mut names, mut older_names) = (Vec::new(), Vec::new());
        let listed = answer(&mut lines(&two), &Commands::default(), &mut |name, _| names.push(name.to_owned()));
        let listed = listed.expect("well-formed");
        let each = &mut |name: NameRef<'_>, _| older_names.push(name.to_owned());
        let (older, capabilities) =
            advertisement(&mut lines(&older), first.as_bytes(), &prefixes, each).expect("well-formed");
        let link = vec![RefName::new(b"refs/heads/link").expect("valid")];
        assert_eq!(listed, Listed { symbolic: link, ..older });
        assert!(listed.malformed == 1 && !listed.is_empty && listed.head == RefName::new(b"refs/heads/main"));
        assert_eq!(names, older_names);
        assert_eq!(names.len(), 2);
        assert!(capabilities.contains(&"multi_ack".to_owned()));
    }

    #[test]
    fn an_empty_upstream_has_a_head_and_no_refs() {
        let none = &mut |_: NameRef<'_>, _: Oid| panic!("no ref");
        let two = ["unborn HEAD symref-target:refs/heads/trunk\n".to_owned()];
        let listed = answer(&mut lines(&two), &Commands::default(), none).expect("well-formed");
        assert!(listed.is_empty && listed.head == RefName::new(b"refs/heads/trunk"));
        let first = format!("{} capabilities^{{}}\0symref=HEAD:refs/heads/trunk", "0".repeat(40));
        let (older, _) = advertisement(&mut lines(&[]), first.as_bytes(), &[], none).expect("well-formed");
        assert_eq!(listed, older);
    }

    #[test]
    fn senseless_and_shallow_lists_are_errors() {
        let none = &mut |_: NameRef<'_>, _: Oid| {};
        for bad in ["x refs/heads/main\n", "1111 refs/heads/main\n", "\n"] {
            assert!(answer(&mut lines(&[bad.to_owned()]), &Commands::default(), none).is_err(), "{bad:?}");
        }
        let sha256 = Commands { object_format: Some("sha256".into()), ..Commands::default() };
        let line = format!("{} refs/heads/main\n", "1".repeat(40));
        assert!(answer(&mut lines(&[line]), &sha256, none).is_err(), "an id of another format");
        let first = format!("{} refs/heads/main\0", "1".repeat(40));
        let said = advertisement(&mut lines(&[format!("shallow {}", "2".repeat(40))]), first.as_bytes(), &[], none);
        assert!(said.expect_err("shallow").to_string().contains("shallow"));
    }
}
