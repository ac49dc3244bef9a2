//! The report of a push (gitprotocol-pack(5), "Report Status"): what the mirror did with each command.
//!
//! No answer is made up: if the report is cut short, the answers that arrived count, and the other refs have none.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use gix_transport::packetline::blocking_io::StreamingPeekableIter;
use gix_transport::packetline::{BandRef, PacketLineRef, decode};

use super::{Capabilities, Request};
use crate::credentials::{Cleaned, Redactor};
use crate::refs::RefName;
use crate::wire::{Error, Messages, about, next_line};

/// Maximum number of bytes that are read over side bands after one push, packet headers included. More than this is a protocol error.
const MAX_READ: usize = 16 << 20;

/// What the mirror said to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `ok`
    Done,
    /// `ng`, with the mirror's message.
    Refused(Cleaned),
}

/// What the mirror said to a request.
#[derive(Debug, Default)]
pub struct Report {
    /// The answers by ref. Refs that were not in the request are left out.
    pub answers: HashMap<RefName, Answer>,
    /// Why answers may be missing: the end came early, or what came was nonsense.
    pub cut: Option<Error>,
    /// The mirror's messages, cleaned.
    pub messages: Vec<Cleaned>,
}

/// Reads the report that follows `request`.
pub(super) fn read<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    request: &Request<'_>,
    capabilities: &Capabilities,
    redactor: &Redactor,
) -> Report {
    if let Some(progress) = request.progress {
        progress.begin("waiting for the mirror");
    }
    let mut messages = Messages::default();
    // Each command has one line, with report-status-v2 up to four more.
    let bound = request.commands.iter().map(|command| 6 * command.name.as_bytes().len() + 2048).sum::<usize>() + 8192;
    let hear = |message: &[u8]| {
        if let Some(progress) = request.progress {
            progress.hear("remote: ", message, redactor);
        }
    };
    let (bytes, cut) =
        if capabilities.side_band_64k { demultiplex(lines, bound, &mut messages, hear) } else { collect(lines, bound) };
    let mut report = parse(&bytes, request, redactor);
    // The reason why the reading ended explains more than an incomplete report.
    report.cut = cut.or(report.cut);
    report.messages = messages.lines(redactor);
    for line in &report.messages {
        tracing::info!(target: "remote", "{line}");
    }
    explain(&mut report);
    report
}

/// Returns what band 1 carried. Bands 2 and 3 go to `messages`, and band 3, an error, ends the reading.
fn demultiplex<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    bound: usize,
    messages: &mut Messages,
    hear: impl Fn(&[u8]),
) -> (Vec<u8>, Option<Error>) {
    let (mut report, mut read) = (Vec::new(), 0);
    let cut = loop {
        let line = match next_line(lines) {
            Ok(Some(line)) => line,
            Ok(None) => break None,
            Err(error) => break Some(cut_short(error)),
        };
        read += line.len() + 4;
        match PacketLineRef::Data(line).decode_band() {
            _ if read > MAX_READ => break Some(Error::Protocol("too many messages (more than 16 MiB)".into())),
            Ok(BandRef::Data(data)) if report.len() + data.len() <= bound => report.extend_from_slice(data),
            Ok(BandRef::Data(_)) => {
                break Some(Error::Protocol("a report that is longer than any valid report".into()));
            }
            Ok(BandRef::Progress(message)) => {
                hear(message);
                messages.push(message);
            }
            Ok(BandRef::Error(message)) => {
                messages.push(message);
                break Some(Error::Remote(String::from_utf8_lossy(message).trim().to_owned()));
            }
            Err(_) => break Some(Error::Protocol("a packet outside the three side bands".into())),
        }
    };
    (report, cut)
}

/// Without a side band the packet lines of the report arrive directly. They are kept unchanged.
fn collect<R: Read>(lines: &mut StreamingPeekableIter<R>, bound: usize) -> (Vec<u8>, Option<Error>) {
    let mut report = Vec::new();
    loop {
        match next_line(lines) {
            Ok(Some(line)) if report.len() + line.len() <= bound => {
                report.extend_from_slice(format!("{:04x}", line.len() + 4).as_bytes());
                report.extend_from_slice(line);
            }
            Ok(Some(_)) => {
                return (report, Some(Error::Protocol("a report that is longer than any valid report".into())));
            }
            Ok(None) => return ([report, b"0000".to_vec()].concat(), None),
            Err(error) => return (report, Some(cut_short(error))),
        }
    }
}

fn cut_short(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::InvalidData => Error::Protocol(source.to_string()),
        _ => Error::Broken { doing: "waiting for its report", source },
    }
}

/// Reads the answers from the packet lines of a report. Pure.
fn parse(mut bytes: &[u8], request: &Request<'_>, redactor: &Redactor) -> Report {
    let mut report = Report::default();
    let mut unpack_failure = None;
    let mut last: Option<RefName> = None;
    let mut is_first = true;
    loop {
        let line = match decode::streaming(bytes) {
            Ok(decode::Stream::Complete { line: PacketLineRef::Data(line), bytes_consumed }) => {
                bytes = &bytes[bytes_consumed..];
                line.strip_suffix(b"\n").unwrap_or(line)
            }
            Ok(decode::Stream::Complete { line: PacketLineRef::Flush, .. }) if !is_first => break,
            _ => {
                report.cut = Some(Error::Protocol("a report that ends early".into()));
                break;
            }
        };
        if is_first {
            is_first = false;
            match line.strip_prefix(b"unpack ") {
                Some(b"ok") => {}
                Some(message) => unpack_failure = Some(String::from_utf8_lossy(message).into_owned()),
                None => {
                    report.cut = Some(Error::Protocol("a report that does not begin with 'unpack'".into()));
                    break;
                }
            }
            continue;
        }
        last = read_answer(line, last, &mut report.answers, redactor);
    }
    let asked: HashSet<&RefName> = request.commands.iter().map(|command| &command.name).collect();
    report.answers.retain(|name, _| asked.contains(name));
    if let Some(message) = unpack_failure {
        // Whatever the lines of the refs say, no object of this push arrived.
        for answer in report.answers.values_mut() {
            *answer =
                Answer::Refused(Cleaned::from("the objects could not be unpacked: ").and(&redactor.clean(&message)));
        }
    }
    report
}

/// Reads one line after the first. Returns the ref that the following option lines belong to.
fn read_answer(
    line: &[u8],
    last: Option<RefName>,
    answers: &mut HashMap<RefName, Answer>,
    redactor: &Redactor,
) -> Option<RefName> {
    if let Some(name) = line.strip_prefix(b"ok ") {
        let name = RefName::new(name)?;
        answers.insert(name.clone(), Answer::Done);
        return Some(name);
    }
    if let Some(rest) = line.strip_prefix(b"ng ") {
        let mut fields = rest.splitn(2, |byte| *byte == b' ');
        let name = RefName::new(fields.next()?)?;
        let message = redactor.clean_bytes(fields.next().unwrap_or(b"refused"));
        answers.insert(name.clone(), Answer::Refused(message));
        return Some(name);
    }
    // report-status-v2: the mirror did something else than was asked (a proc-receive hook).
    let name = last?;
    let option = line.strip_prefix(b"option ")?;
    let did_otherwise = option.starts_with(b"refname ") || option.starts_with(b"new-oid ");
    if did_otherwise && answers.get(&name) == Some(&Answer::Done) {
        let message = redactor.clean_bytes(&[b"the mirror did something else instead (", option, b")"].concat());
        answers.insert(name.clone(), Answer::Refused(message));
    }
    Some(name)
}

/// Gives every refusal the messages that belong to it.
fn explain(report: &mut Report) {
    let is_refused = |answer: &Answer| matches!(answer, Answer::Refused(_));
    let refused: Vec<RefName> =
        report.answers.iter().filter(|(_, answer)| is_refused(answer)).map(|(name, _)| name.clone()).collect();
    let about = about(&refused.iter().collect::<Vec<_>>(), &report.messages);
    for name in &refused {
        if let (Some(Answer::Refused(message)), Some(more)) = (report.answers.get_mut(name), about.get(name)) {
            *message = std::mem::take(message).and_ours(" (").and(more).and_ours(")");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;
    use crate::credentials::{Credentials, Secret};
    use crate::refs::Oid;

    fn name(text: &str) -> RefName {
        RefName::new(text.as_bytes()).expect("valid")
    }

    fn packet(text: &[u8]) -> Vec<u8> {
        [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
    }

    fn read_bytes(bytes: &[u8], side_band_64k: bool) -> Report {
        let oid = Oid::from_hex(&[b'1'; 40]).expect("valid");
        let commands = ["refs/heads/a", "refs/heads/b"].map(|n| Command { old: oid.null(), new: oid, name: name(n) });
        let request =
            Request { commands: &commands, shallow: &[], push_options: &[], is_atomic: false, progress: None };
        let mut lines = StreamingPeekableIter::new(bytes, &[PacketLineRef::Flush], false);
        let capabilities = Capabilities { side_band_64k, ..Default::default() };
        read(&mut lines, &request, &capabilities, &Redactor::default())
    }

    fn whole() -> Vec<u8> {
        let lines =
            [&b"unpack ok\n"[..], b"ok refs/heads/a\n", b"ng refs/heads/b hook declined\n", b"ok refs/heads/c\n"];
        [lines.map(packet).concat(), b"0000".to_vec()].concat()
    }

    #[test]
    fn reads_answers_with_and_without_a_side_band() {
        let banded = [
            packet(b"\x02refs/heads/b: go\x1b[31m away\r\n"),
            packet(&[b"\x01", &whole()[..20]].concat()),
            packet(&[b"\x01", &whole()[20..]].concat()),
            b"0000".to_vec(),
        ]
        .concat();
        let plain = read_bytes(&whole(), false);
        assert_eq!(plain.answers[&name("refs/heads/b")], Answer::Refused("hook declined".into()));
        let banded = read_bytes(&banded, true);
        assert_eq!(
            banded.answers[&name("refs/heads/b")],
            Answer::Refused("hook declined (refs/heads/b: go[31m away)".into())
        );
        for report in [plain, banded] {
            assert!(report.cut.is_none());
            assert_eq!(report.answers[&name("refs/heads/a")], Answer::Done);
            assert_eq!(report.answers.len(), 2, "a ref that was not asked about is not believed");
        }
    }

    #[test]
    fn no_answer_holds_the_password() {
        let secret = Some(Secret::new("hunter2secret".into()));
        let redactor = Redactor::new(&Credentials { username: Some("bot".into()), secret, approval: None });
        let oid = Oid::from_hex(&[b'1'; 40]).expect("valid");
        let commands = ["refs/heads/a", "refs/heads/b"].map(|n| Command { old: oid.null(), new: oid, name: name(n) });
        let request =
            Request { commands: &commands, shallow: &[], push_options: &[], is_atomic: false, progress: None };
        for lines in [
            [&b"unpack no space for hunter2secret\n"[..], b"ng refs/heads/a x\n", b"ok refs/heads/b\n"],
            [&b"unpack ok\n"[..], b"ng refs/heads/a hunter2secret is wrong\n", b"ng refs/heads/b hunter2secret\n"],
            [&b"unpack ok\n"[..], b"ok refs/heads/a\n", b"option refname refs/hunter2secret\n"],
        ] {
            let banded = [
                packet(b"\x02no, bot:hunter2secret is wrong\n"),
                packet(&[b"\x01", &lines.map(packet).concat()[..], b"0000"].concat()),
                b"0000".to_vec(),
            ];
            let banded = banded.concat();
            let mut lines = StreamingPeekableIter::new(&banded[..], &[PacketLineRef::Flush], false);
            let capabilities = Capabilities { side_band_64k: true, ..Default::default() };
            let report = read(&mut lines, &request, &capabilities, &redactor);
            assert!(report.answers.values().any(|answer| matches!(answer, Answer::Refused(_))), "{report:?}");
            assert!(!format!("{report:?}").contains("hunter2secret"), "{report:?}");
        }
    }

    #[test]
    fn silence_is_never_taken_for_success() {
        for cut in 0..whole().len() {
            let report = read_bytes(&whole()[..cut], false);
            assert!(report.cut.is_some(), "cut to {cut}");
        }
        for bad in [&b"0000"[..], b"000aunpack0000", b"zzzz", b"0014ok refs/heads/a\n0000"] {
            let report = read_bytes(bad, false);
            assert!(report.answers.is_empty() && report.cut.is_some());
        }
    }

    #[test]
    fn nothing_counts_as_done_when_unpacking_failed_or_the_mirror_did_otherwise() {
        let failed = [packet(b"unpack index-pack failed\n"), packet(b"ok refs/heads/a\n"), b"0000".to_vec()].concat();
        assert!(matches!(read_bytes(&failed, false).answers[&name("refs/heads/a")], Answer::Refused(_)));
        let other =
            [&b"unpack ok\n"[..], b"ok refs/heads/a\n", b"option refname refs/changes/1\n"].map(packet).concat();
        let other = [other, b"0000".to_vec()].concat();
        assert!(matches!(read_bytes(&other, false).answers[&name("refs/heads/a")], Answer::Refused(_)));
    }
}
