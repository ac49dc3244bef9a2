//! Which refs of a mirror are symbolic. receive-pack does not report that, so upload-pack is asked
//! (gitprotocol-v2(5), `ls-refs`).
//!
//! Guaranteed: one additional contact that changes nothing; an answer that is too long is an error. Absent: mirrors on this machine, which
//! `mirror::LocalMirror` reads. A server without protocol version 2 reports HEAD alone.

use std::collections::BTreeSet;
use std::io::Read;

use gix_transport::packetline::blocking_io::{StreamingPeekableIter, encode};

use super::greeting::{Greeting, count, greeting, head_of, line};
use crate::credentials::Redactor;
use crate::refs::RefName;
use crate::wire::{Address, Connection, Error, Http, Pool, Service, Stage, Stream, Target, drain};

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

impl Symbolic {
    /// What an older server says with the first line of its advertisement.
    pub(super) fn of_older(first: &[u8]) -> Self {
        Self { head: head_of(first), ..Self::default() }
    }
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
        Greeting::Refs(first) => Ok((Symbolic::of_older(&first), false)),
        Greeting::Commands(commands) if !commands.ls_refs => Ok((Symbolic::default(), true)),
        Greeting::Commands(commands) => {
            let sent = stream.say(&request(commands.object_format.as_deref(), names));
            sent.map_err(|source| Error::Broken { doing: "asking for its refs", source })?;
            Ok((answer(stream.lines(), names, commands.is_git)?, true))
        }
    }
}

fn over_http(http: &Http, names: &[&RefName]) -> Result<Symbolic, Error> {
    let mut lines = http.info_refs(Service::UploadPack)?;
    let commands = match greeting(&mut lines)? {
        Greeting::Refs(first) => return Ok(Symbolic::of_older(&first)),
        Greeting::Commands(commands) if !commands.ls_refs => return Ok(Symbolic::default()),
        Greeting::Commands(commands) => commands,
    };
    drain(lines);
    let request = request(commands.object_format.as_deref(), names);
    let mut lines = http.post(Service::UploadPack, &mut &*request, Some(request.len() as u64))?;
    let symbolic = answer(&mut lines, names, commands.is_git)?;
    drain(lines);
    Ok(symbolic)
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
            let Greeting::Refs(first) = said else { panic!("version 2") };
            assert_eq!(
                Symbolic::of_older(&first),
                Symbolic { head: RefName::new(b"refs/heads/main"), ..Symbolic::default() }
            );
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
