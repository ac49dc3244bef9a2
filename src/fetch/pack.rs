//! The request for objects, and the pack that answers it: the command `fetch` of version 2, or the request of an older version.

use std::collections::HashSet;
use std::io::Read;

use gix_transport::packetline::blocking_io::{StreamingPeekableIter, encode};
use gix_transport::packetline::{BandRef, PacketLineRef};

use super::greeting::{Commands, count};
use super::list::{say, shallow};
use crate::credentials::Redactor;
use crate::push::Progress;
use crate::refs::Oid;
use crate::wire::{Error, Messages, next_line, refused_by_server};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Values of upstream's refs that are not here.
    pub wants: &'a [Oid],
    /// Values that are here with their whole history.
    pub haves: &'a [Oid],
    /// Counts what comes.
    pub progress: &'a Progress,
}

/// Where the bytes of the pack go.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> Result<(), Error>;

/// Whether a request ends the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The pack is to come, whatever both sides have in common.
    Done,
    /// Upstream says first which of the values it has.
    Open,
}

/// The request of version 2. `common` are values of which upstream said before that it has them
/// too. `haves` are the other values to name.
pub(super) fn request(
    commands: &Commands,
    wanted: &Wanted<'_>,
    common: &[Oid],
    haves: &[Oid],
    ending: Ending,
) -> Vec<u8> {
    let mut request = Vec::with_capacity(50 * (wanted.wants.len() + common.len() + haves.len()) + 200);
    say(&mut request, b"command=fetch\n");
    say(&mut request, concat!("agent=git-mirror-push/", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
    if let Some(format) = &commands.object_format {
        say(&mut request, format!("object-format={format}\n").as_bytes());
    }
    encode::delim_to_write(&mut request).expect("memory takes it");
    say(&mut request, b"thin-pack\n");
    say(&mut request, b"ofs-delta\n");
    if !wanted.progress.is_watched() {
        say(&mut request, b"no-progress\n");
    }
    wanted.wants.iter().for_each(|oid| say(&mut request, format!("want {oid}\n").as_bytes()));
    common.iter().chain(haves).for_each(|oid| say(&mut request, format!("have {oid}\n").as_bytes()));
    if ending == Ending::Done {
        say(&mut request, b"done\n");
    }
    encode::flush_to_write(&mut request).expect("memory takes it");
    request
}

/// The request of an older version. It ends the negotiation at once.
pub(super) fn older_request(capabilities: &[String], wanted: &Wanted<'_>) -> Vec<u8> {
    let offered = |name: &str| capabilities.iter().any(|word| word == name || word.starts_with(&format!("{name}=")));
    let mut words: Vec<String> = ["thin-pack", "ofs-delta", "side-band-64k"]
        .into_iter()
        .filter(|word| offered(word))
        .map(str::to_owned)
        .collect();
    if offered("no-progress") && !wanted.progress.is_watched() {
        words.push("no-progress".into());
    }
    words.extend(capabilities.iter().find(|word| word.starts_with("object-format=")).cloned());
    if offered("agent") {
        words.push(concat!("agent=git-mirror-push/", env!("CARGO_PKG_VERSION")).into());
    }
    let mut request = Vec::new();
    for (index, oid) in wanted.wants.iter().enumerate() {
        let words = if index == 0 { format!(" {}", words.join(" ")) } else { String::new() };
        say(&mut request, format!("want {oid}{words}\n").as_bytes());
    }
    encode::flush_to_write(&mut request).expect("memory takes it");
    wanted.haves.iter().for_each(|oid| say(&mut request, format!("have {oid}\n").as_bytes()));
    say(&mut request, b"done\n");
    request
}

/// What upstream says to a request of version 2 that leaves the negotiation open.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// The values that it has too.
    pub(super) common: Vec<Oid>,
    /// Whether it knows enough, so that the pack follows.
    pub(super) is_ready: bool,
}

/// Reads the section `acknowledgments` of an answer. Only values of `asked` count, each once.
pub(super) fn acknowledgments<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    asked: &[Oid],
) -> Result<Acknowledged, Error> {
    let (mut said, mut open) = (Acknowledged::default(), asked.iter().copied().collect::<HashSet<Oid>>());
    let mut length = 0;
    match line(lines)? {
        Some(line) if line == b"acknowledgments" => {}
        _ => return Err(Error::Protocol("no acknowledgments".into())),
    }
    // If another section follows, a delimiter ends this one, and it reads as an empty line.
    // Otherwise a flush packet ends it.
    while let Some(line) = line(lines)?.filter(|line| !line.is_empty()) {
        count(&mut length, &line)?;
        if line == b"ready" {
            said.is_ready = true;
        } else if let Some(oid) = line.strip_prefix(b"ACK ").and_then(Oid::from_hex)
            && open.remove(&oid)
        {
            said.common.push(oid);
        }
    }
    if !said.is_ready {
        lines.reset();
    }
    Ok(said)
}

/// Reads the sections before the pack, and then the pack.
pub(super) fn read<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    progress: &Progress,
    redactor: &Redactor,
    sink: Sink<'_>,
) -> Result<(), Error> {
    loop {
        match line(lines)? {
            Some(line) if line == b"packfile" => break,
            Some(line) if line == b"shallow-info" => return Err(shallow()),
            Some(_) => {}
            None => return Err(Error::Protocol("no pack".into())),
        }
    }
    bands(lines, progress, redactor, sink)?;
    lines.reset();
    Ok(())
}

/// Reads the acknowledgments of an older version, and then the pack.
pub(super) fn read_older<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    has_bands: bool,
    progress: &Progress,
    redactor: &Redactor,
    sink: Sink<'_>,
) -> Result<(), Error> {
    if !has_bands {
        return Err(Error::Unable("it does not support side-band-64k".into()));
    }
    let (mut length, mut is_answered) = (0, false);
    // Git answers each value with ACK until it has found two of which neither is a parent of the
    // other. A side-band packet begins with the byte 1, 2 or 3.
    while !is_answered || matches!(lines.peek_line(), Some(Ok(Ok(PacketLineRef::Data([b'A', ..]))))) {
        match line(lines)? {
            Some(line) if line == b"NAK" || line.starts_with(b"ACK ") => count(&mut length, &line)?,
            Some(line) if line.starts_with(b"shallow ") => return Err(shallow()),
            _ => return Err(Error::Protocol("neither ACK nor NAK".into())),
        }
        is_answered = true;
    }
    bands(lines, progress, redactor, sink)
}

/// Passes on what band 1 carries.
fn bands<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    progress: &Progress,
    redactor: &Redactor,
    sink: Sink<'_>,
) -> Result<(), Error> {
    let mut messages = Messages::default();
    while let Some(line) = next_line(lines).map_err(cut_short)? {
        match PacketLineRef::Data(line).decode_band() {
            Ok(BandRef::Data(data)) => {
                progress.count(data.len());
                sink(data)?;
            }
            Ok(BandRef::Progress(message)) => {
                progress.hear("remote: ", message, redactor);
                messages.push(message);
            }
            Ok(BandRef::Error(message)) => return Err(refused_by_server(&String::from_utf8_lossy(message))),
            Err(_) => return Err(Error::Protocol("a packet outside the three side bands".into())),
        }
    }
    for line in &messages.lines(redactor) {
        tracing::info!(target: "remote", "{line}");
    }
    Ok(())
}

fn cut_short(source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::InvalidData => Error::Protocol(source.to_string()),
        _ => Error::Broken { doing: "receiving the objects", source },
    }
}

/// The next line, without its line feed; `None` at a flush packet.
fn line<R: Read>(lines: &mut StreamingPeekableIter<R>) -> Result<Option<Vec<u8>>, Error> {
    let Some(line) = next_line(lines).map_err(cut_short)? else { return Ok(None) };
    if let Some(message) = line.strip_prefix(b"ERR ") {
        return Err(refused_by_server(&String::from_utf8_lossy(message)));
    }
    Ok(Some(line.strip_suffix(b"\n").unwrap_or(line).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(parts: &[&str]) -> StreamingPeekableIter<std::io::Cursor<Vec<u8>>> {
        let mut bytes = Vec::new();
        for part in parts {
            match *part {
                "flush" => encode::flush_to_write(&mut bytes),
                "delimiter" => encode::delim_to_write(&mut bytes),
                part => encode::data_to_write(part.as_bytes(), &mut bytes),
            }
            .expect("memory takes it");
        }
        StreamingPeekableIter::new(std::io::Cursor::new(bytes), &[PacketLineRef::Flush], false)
    }

    fn pack_of(parts: &[&str]) -> Result<Vec<u8>, Error> {
        let (mut pack, progress) = (Vec::new(), Progress::default());
        let sink = &mut |bytes: &[u8]| {
            pack.extend_from_slice(bytes);
            Ok(())
        };
        read(&mut packets(parts), &progress, &Redactor::default(), sink).map(|()| pack)
    }

    #[test]
    fn a_pack_comes_over_band_1_and_has_an_end() {
        let whole = ["packfile\n", "\u{1}PA", "\u{2}counting\r", "\u{1}CK", "flush"];
        assert_eq!(pack_of(&whole).expect("a pack"), b"PACK");
        for bad in [
            &whole[..4],
            &["packfile\n", "\u{1}PA", "\u{3}it died", "flush"],
            &["shallow-info\n", "shallow 1\n", "delimiter", "packfile\n", "flush"],
            &["ERR not our ref\n"],
            &["packfile\n", "\u{7}x", "flush"],
            &["flush"],
        ] {
            assert!(pack_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn acknowledgments_say_what_is_common_and_whether_it_is_enough() {
        let oid = "1".repeat(40);
        let ack = format!("ACK {oid}\n");
        let mut lines = packets(&["acknowledgments\n", &ack, "flush"]);
        let common = vec![Oid::from_hex(oid.as_bytes()).expect("valid")];
        let said = acknowledgments(&mut lines, &common).expect("well-formed");
        assert_eq!(said, Acknowledged { common: common.clone(), is_ready: false });
        let said = acknowledgments(&mut packets(&["acknowledgments\n", &ack, "flush"]), &[]).expect("well-formed");
        assert_eq!(said, Acknowledged::default(), "a value that nobody asked about");
        let parts = ["acknowledgments\n", &ack, "ready\n", "delimiter", "packfile\n", "\u{1}PACK", "flush"];
        let mut lines = packets(&parts);
        let said = acknowledgments(&mut lines, &common).expect("well-formed");
        assert_eq!(said, Acknowledged { common, is_ready: true });
        let mut pack = Vec::new();
        let sink = &mut |bytes: &[u8]| {
            pack.extend_from_slice(bytes);
            Ok(())
        };
        read(&mut lines, &Progress::default(), &Redactor::default(), sink).expect("the pack follows");
        assert_eq!(pack, b"PACK");
        assert_eq!(
            acknowledgments(&mut packets(&["acknowledgments\n", "NAK\n", "flush"]), &[]).expect("well-formed"),
            Acknowledged::default()
        );
    }
}
