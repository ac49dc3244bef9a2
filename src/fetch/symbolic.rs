//! Which refs of a mirror are symbolic. receive-pack does not say it, so upload-pack is asked (gitprotocol-v2(5), `ls-refs`).
//!
//! Guaranteed: one additional contact that changes nothing; an answer that is too long is an error. Absent: mirrors on this machine, which
//! `mirror::LocalMirror` reads. A server without protocol version 2 reports HEAD alone.

use std::collections::BTreeSet;
use std::io::Read;

use gix_transport::packetline::blocking_io::{StreamingPeekableIter, encode};

use crate::credentials::Redactor;
use crate::refs::RefName;
use crate::wire::{
    Address, Connection, Error, Http, Pool, Service, Stage, Stream, Target, broken, drain, next_line, refused_by_server,
};

/// Largest answer that is read, in bytes. A prefix may match many more refs than the one asked for.
const MAX_BYTES: usize = 128 << 20;

/// What a mirror says of its symbolic refs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Symbolic {
    /// The ref that HEAD names, if the server reports it.
    pub head: Option<RefName>,
    /// The requested refs that are symbolic.
    pub symbolic: BTreeSet<RefName>,
    /// Those that are certainly not symbolic. Only git reports every symbolic ref, so only its answer proves this.
    pub plain: BTreeSet<RefName>,
}

/// Asks the mirror about its HEAD and `names`.
///
/// # Errors
/// [`Error`]; also when the credentials allow a push but no fetch.
pub fn symbolic(target: &Target, pool: &Pool, names: &[&RefName]) -> Result<Symbolic, Error> {
    if let Address::Local(_) = target.address {
        return Err(Error::Unable("a mirror on this machine is not asked".into()));
    }
    match Connection::open(Service::UploadPack, target, pool)? {
        Connection::Stream(stream) => over_stream(*stream, names, &Redactor::new(&target.credentials)),
        Connection::Http(http) => over_http(&http, names),
    }
}

fn over_stream(mut stream: Stream, names: &[&RefName], redactor: &Redactor) -> Result<Symbolic, Error> {
    match ask(&mut stream, names) {
        Ok((symbolic, is_all_read)) => {
            stream.opened();
            if !is_all_read {
                // An older server is still sending its refs. Nobody reads them.
                stream.abort();
            }
            stream.end();
            Ok(symbolic)
        }
        Err(error) => Err(stream.failure(error, Stage::Reading, redactor)),
    }
}

/// The answer, and whether it was read to its end.
fn ask(stream: &mut Stream, names: &[&RefName]) -> Result<(Symbolic, bool), Error> {
    match greeting(stream.lines())? {
        Greeting::Refs(symbolic) => Ok((symbolic, false)),
        Greeting::Commands { ls_refs: false, .. } => Ok((Symbolic::default(), true)),
        Greeting::Commands { object_format, is_git, .. } => {
            let sent = stream.say(&request(object_format.as_deref(), names));
            sent.map_err(|source| Error::Broken { doing: "asking for its refs", source })?;
            Ok((answer(stream.lines(), names, is_git)?, true))
        }
    }
}

fn over_http(http: &Http, names: &[&RefName]) -> Result<Symbolic, Error> {
    let mut lines = http.info_refs(Service::UploadPack)?;
    let (object_format, is_git) = match greeting(&mut lines)? {
        Greeting::Refs(symbolic) => return Ok(symbolic),
        Greeting::Commands { ls_refs: false, .. } => return Ok(Symbolic::default()),
        Greeting::Commands { object_format, is_git, .. } => (object_format, is_git),
    };
    drain(lines);
    let request = request(object_format.as_deref(), names);
    let mut lines = http.post(Service::UploadPack, &mut &*request, Some(request.len() as u64))?;
    let symbolic = answer(&mut lines, names, is_git)?;
    drain(lines);
    Ok(symbolic)
}

/// The first message of upload-pack.
pub(super) enum Greeting {
    /// Version 2: whether the server knows `ls-refs`, whether it is git, and its object format if it named one.
    Commands { ls_refs: bool, is_git: bool, object_format: Option<String> },
    /// An older version, which reports the branch of HEAD with the first ref.
    Refs(Symbolic),
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
        let words = first.split(|byte| matches!(byte, 0 | b' '));
        let head = words.filter_map(|word| word.strip_prefix(b"symref=HEAD:")).find_map(RefName::new);
        return Ok(Greeting::Refs(Symbolic { head, ..Symbolic::default() }));
    }
    let (mut ls_refs, mut is_git, mut object_format, mut length) = (false, false, None, 0);
    while let Some(capability) = line(lines)? {
        count(&mut length, &capability)?;
        is_git |= capability.starts_with(b"agent=git/");
        ls_refs |= capability == b"ls-refs" || capability.starts_with(b"ls-refs=");
        if let Some(format) = capability.strip_prefix(b"object-format=") {
            object_format = Some(String::from_utf8_lossy(format).into_owned());
        }
    }
    lines.reset();
    Ok(Greeting::Commands { ls_refs, is_git, object_format })
}

/// The command that asks about these refs. A prefix matches other refs too; [`answer`] skips them.
pub(super) fn request(object_format: Option<&str>, names: &[&RefName]) -> Vec<u8> {
    let mut request = Vec::new();
    let mut say = |line: &[u8]| encode::data_to_write(line, &mut request).map(|_| ()).expect("a short line");
    say(b"command=ls-refs\n");
    if let Some(format) = object_format {
        say(format!("object-format={format}\n").as_bytes());
    }
    encode::delim_to_write(&mut request).expect("memory takes it");
    let mut say = |line: &[u8]| encode::data_to_write(line, &mut request).map(|_| ()).expect("a short line");
    say(b"symrefs\n");
    say(b"ref-prefix HEAD\n");
    for name in names {
        say(&[b"ref-prefix ", name.as_bytes(), b"\n"].concat());
    }
    encode::flush_to_write(&mut request).expect("memory takes it");
    request
}

/// Reads the answer. A server other than git may not report every symbolic ref.
pub(super) fn answer<R: Read>(
    lines: &mut StreamingPeekableIter<R>,
    names: &[&RefName],
    is_git: bool,
) -> Result<Symbolic, Error> {
    let asked: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let (mut said, mut length) = (Symbolic::default(), 0);
    while let Some(line) = line(lines)? {
        count(&mut length, &line)?;
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        let name = words.next().unwrap_or_default();
        let leads_to = words.find_map(|word| word.strip_prefix(b"symref-target:"));
        match leads_to {
            Some(leads_to) if name == b"HEAD" => said.head = RefName::new(leads_to),
            Some(_) if asked.contains(name) => said.symbolic.extend(RefName::new(name)),
            None if is_git && asked.contains(name) => said.plain.extend(RefName::new(name)),
            _ => {}
        }
    }
    Ok(said)
}

/// Adds a line to the length of an answer.
fn count(length: &mut usize, line: &[u8]) -> Result<(), Error> {
    *length += line.len() + 4;
    if *length > MAX_BYTES {
        return Err(Error::Protocol("the list of refs is larger than 128 MiB".into()));
    }
    Ok(())
}

fn line<R: Read>(lines: &mut StreamingPeekableIter<R>) -> Result<Option<Vec<u8>>, Error> {
    let Some(line) = next_line(lines).map_err(broken)? else { return Ok(None) };
    if let Some(message) = line.strip_prefix(b"ERR ") {
        return Err(refused_by_server(&String::from_utf8_lossy(message)));
    }
    Ok(Some(line.strip_suffix(b"\n").unwrap_or(line).to_vec()))
}

#[cfg(test)]
mod tests {
    use gix_transport::packetline::PacketLineRef;

    use super::*;

    fn lines(parts: &[&str]) -> StreamingPeekableIter<std::io::Cursor<Vec<u8>>> {
        let mut bytes = Vec::new();
        for part in parts {
            match *part {
                "" => encode::flush_to_write(&mut bytes),
                part => encode::data_to_write(part.as_bytes(), &mut bytes),
            }
            .expect("memory takes it");
        }
        StreamingPeekableIter::new(std::io::Cursor::new(bytes), &[PacketLineRef::Flush], false)
    }

    #[test]
    fn older_versions_tell_of_head() {
        let oid = "1234567890123456789012345678901234567890";
        let first = format!("{oid} HEAD\0multi_ack symref=HEAD:refs/heads/main agent=git/2.1\n");
        for before in [&[][..], &["version 1\n"], &["# service=git-upload-pack\n", ""]] {
            let said = greeting(&mut lines(&[before, &[first.as_str(), ""]].concat())).expect("an advertisement");
            let Greeting::Refs(symbolic) = said else { panic!("version 2") };
            assert_eq!(symbolic, Symbolic { head: RefName::new(b"refs/heads/main"), ..Symbolic::default() });
        }
        assert!(greeting(&mut lines(&["ERR access denied\n"])).is_err());
        assert!(greeting(&mut lines(&["version 2\n"])).is_err(), "it was cut off");
    }

    #[test]
    fn names_that_were_not_asked_for_are_passed_over() {
        let name = |text: &str| RefName::new(text.as_bytes()).expect("a name");
        let [one, plain, hidden] = ["refs/heads/one", "refs/heads/plain", "refs/heads/hidden"].map(name);
        let said =
            ["1 refs/heads/one symref-target:refs/heads/x\n", "1 refs/heads/oneself symref-target:refs/heads/x\n"];
        let more = ["1 refs/heads/plain\n", "unborn HEAD symref-target:refs/heads/main\n", ""];
        let answer = |is_git| answer(&mut lines(&[&said[..], &more].concat()), &[&one, &plain, &hidden], is_git);
        let said = answer(true).expect("an answer");
        let head = Some(name("refs/heads/main"));
        let expected = Symbolic { head, symbolic: [one.clone()].into(), plain: [plain.clone()].into() };
        assert_eq!(said, expected, "a ref that the answer does not list is neither symbolic nor plain");
        let said = answer(false).expect("an answer");
        assert_eq!(
            said,
            Symbolic { plain: BTreeSet::new(), ..expected },
            "an answer of a server other than git does not prove that a ref is plain"
        );
    }
}
