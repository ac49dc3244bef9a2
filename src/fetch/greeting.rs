//! What upload-pack says first: its capabilities in protocol version 2, or the first line of an advertisement in an older one
//! (gitprotocol-v2(5), gitprotocol-pack(5)).

use std::io::Read;

use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use crate::refs::RefName;
use crate::wire::{Error, broken, next_line, refused_by_server};

/// Largest list of refs that is read, in bytes.
pub(super) const MAX_BYTES: usize = 128 << 20;

/// The first message of upload-pack.
pub(super) enum Greeting {
    /// Version 2.
    Commands(Commands),
    /// An older version: the first line of its advertisement.
    Refs(Vec<u8>),
}

impl Greeting {
    /// The commands of version 2.
    pub(super) fn commands(self) -> Option<Commands> {
        match self {
            Self::Commands(commands) => Some(commands),
            Self::Refs(_) => None,
        }
    }
}

/// What a server can do in version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commands {
    /// It knows `ls-refs`.
    pub(super) ls_refs: bool,
    /// It also says what HEAD names if that branch does not exist (`unborn`).
    pub(super) unborn: bool,
    /// It knows `fetch`.
    pub(super) fetch: bool,
    /// It is git.
    pub(super) is_git: bool,
    /// Its object format, if it named one.
    pub(super) object_format: Option<String>,
}

impl Commands {
    /// Whether this server can answer a request that was made for the commands `expected`.
    pub(super) fn understands(&self, expected: &Self) -> bool {
        self.ls_refs && self.fetch && self.object_format == expected.object_format
    }
}

/// Reads what upload-pack says first.
pub(super) fn greeting<R: Read>(lines: &mut StreamingPeekableIter<R>) -> Result<Greeting, Error> {
    let mut first = line(lines)?;
    if first.as_deref().is_some_and(|line| line.starts_with(b"# service=")) {
        line(lines)?;
        lines.reset();
        first = line(lines)?;
    }
    if first.as_deref() == Some(b"version 1") {
        first = line(lines)?;
    }
    let Some(first) = first else { return Err(Error::Protocol("an empty advertisement".into())) };
    if first != b"version 2" {
        return Ok(Greeting::Refs(first));
    }
    let (mut commands, mut length) = (Commands::default(), 0);
    while let Some(capability) = line(lines)? {
        count(&mut length, &capability)?;
        let (name, value) = match capability.iter().position(|byte| *byte == b'=') {
            Some(at) => (&capability[..at], &capability[at + 1..]),
            None => (&*capability, &b""[..]),
        };
        match name {
            b"agent" => commands.is_git |= value.starts_with(b"git/"),
            b"ls-refs" => {
                commands.ls_refs = true;
                commands.unborn |= value.split(|byte| *byte == b' ').any(|word| word == b"unborn");
            }
            b"fetch" => commands.fetch = true,
            b"object-format" => commands.object_format = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    lines.reset();
    Ok(Greeting::Commands(commands))
}

/// The branch that HEAD names, as the first line of an older advertisement says it.
pub(super) fn head_of(first: &[u8]) -> Option<RefName> {
    let words = first.split(|byte| matches!(byte, 0 | b' '));
    words.filter_map(|word| word.strip_prefix(b"symref=HEAD:")).find_map(RefName::new)
}

/// Adds a line to the length of an answer.
pub(super) fn count(length: &mut usize, line: &[u8]) -> Result<(), Error> {
    *length += line.len() + 4;
    if *length > MAX_BYTES {
        return Err(Error::Protocol("the list of refs is larger than 128 MiB".into()));
    }
    Ok(())
}

/// The next line, without its line feed; `None` at a flush packet.
pub(super) fn line<R: Read>(lines: &mut StreamingPeekableIter<R>) -> Result<Option<Vec<u8>>, Error> {
    let Some(line) = next_line(lines).map_err(broken)? else { return Ok(None) };
    if let Some(message) = line.strip_prefix(b"ERR ") {
        return Err(refused_by_server(&String::from_utf8_lossy(message)));
    }
    Ok(Some(line.strip_suffix(b"\n").unwrap_or(line).to_vec()))
}
