//! One conversation with upload-pack: any number of lists, then a pack.
//!
//! Over http with version 2, every request is complete in itself. So if upstream is known to speak version 2, no `GET` comes first.

use std::io::{self, Read};

use gix_transport::packetline::blocking_io::StreamingPeekableIter;

use super::greeting::{Commands, Greeting, greeting};
use super::list::{self, Listed};
use super::pack::{self, Ending, Sink, Wanted};
use crate::credentials::Redactor;
use crate::refs::{NameRef, Oid};
use crate::wire::{Connection, Error, Http, Pool, Service, Stage as ConnectionStage, Stream, Target, drain};

/// A conversation with upstream's upload-pack.
pub struct Session {
    conversation: Conversation,
    spoken: Spoken,
    redactor: Redactor,
}

enum Conversation {
    Stream(Box<Stream>),
    Http(Box<Http>),
}

/// What is known of the protocol that upstream speaks.
enum Spoken {
    /// Nothing was said yet.
    Nothing,
    /// Nothing was said yet, but last time it was version 2, so the first question goes out before upstream's greeting is read.
    Expected(Commands),
    /// Version 2.
    Two(Commands),
    /// An older version, and the capabilities of its advertisement.
    Older(Vec<String>),
    /// Not what was expected, so upstream cannot understand the request that was sent.
    Misjudged,
}

/// How many values the first round of the negotiation names. Each further round names twice as many
/// as the one before.
const FIRST_ROUND: usize = 32;
/// Maximum number of values that one round names.
const MAX_ROUND: usize = 1024;
/// When this many values are named, no further round begins: the pack is requested, even if it
/// contains objects that are here already.
const MAX_NAMED: usize = 16_384;

impl Session {
    /// Connects. `object_format` is what [`Session::speaks_two`] returned for an earlier session;
    /// `None` if nothing is known. Over http nothing is sent yet.
    ///
    /// # Errors
    /// [`Error`]; many errors of a connection appear only in [`Session::list`].
    pub fn connect(target: &Target, pool: &Pool, object_format: Option<&str>) -> Result<Self, Error> {
        let conversation = match Connection::open(Service::UploadPack, target, pool)? {
            Connection::Stream(stream) => Conversation::Stream(stream),
            Connection::Http(http) => Conversation::Http(http),
        };
        let known = |format: &str| {
            let object_format = Some(format.to_owned()).filter(|format| !format.is_empty());
            Commands { ls_refs: true, fetch: true, object_format, ..Commands::default() }
        };
        let spoken = match (object_format.map(known), &conversation) {
            (None, _) => Spoken::Nothing,
            (Some(commands), Conversation::Http(_)) => Spoken::Two(commands),
            // A stream begins with a greeting in any case.
            (Some(commands), Conversation::Stream(_)) => Spoken::Expected(commands),
        };
        Ok(Self { conversation, spoken, redactor: Redactor::new(&target.credentials) })
    }

    /// Reads what upload-pack says first, to see whether the repository is there. Only [`Session::end`] may follow.
    ///
    /// # Errors
    /// [`Error`].
    pub fn greet(&mut self) -> Result<(), Error> {
        let Self { conversation, redactor, .. } = self;
        match conversation {
            Conversation::Stream(stream) => match greeting(stream.lines()) {
                Ok(_) => {
                    stream.opened();
                    Ok(())
                }
                Err(error) => Err(stream.failure(error, ConnectionStage::Reading, redactor)),
            },
            Conversation::Http(http) => {
                let mut lines = http.info_refs(Service::UploadPack)?;
                greeting(&mut lines).map_err(|error| http.clean(error))?;
                drain(lines);
                Ok(())
            }
        }
    }

    /// Reads HEAD and the refs whose names begin with one of `prefixes`, and calls `each` with every ref that is not symbolic.
    ///
    /// # Errors
    /// [`Error`].
    pub fn list(&mut self, prefixes: &[Vec<u8>], each: &mut dyn FnMut(NameRef<'_>, Oid)) -> Result<Listed, Error> {
        let Self { conversation, spoken, redactor } = self;
        match conversation {
            Conversation::Stream(stream) => {
                let listed = list_over_stream(stream, spoken, prefixes, each);
                listed.map_err(|error| stream.failure(error, ConnectionStage::Reading, redactor))
            }
            Conversation::Http(http) => list_over_http(http, spoken, prefixes, each).map_err(|error| http.clean(error)),
        }
    }

    /// Asks for the objects of `wanted.wants` and gives the bytes of the pack to `sink`. `walk`
    /// yields values that are here, newest first. They are named to upstream to find out which of
    /// them it has too. `walk` is empty if that is known. Call this after [`Session::list`].
    ///
    /// # Errors
    /// [`Error`], also that of `sink`.
    pub fn fetch(
        &mut self,
        wanted: &Wanted<'_>,
        walk: &mut dyn Iterator<Item = Oid>,
        sink: Sink<'_>,
    ) -> Result<(), Error> {
        let Self { conversation, spoken, redactor } = self;
        match (conversation, spoken) {
            (Conversation::Stream(stream), Spoken::Two(commands)) => {
                let fetched = negotiate(&mut Ask::Stream(stream), commands, wanted, walk, redactor, sink);
                fetched.map_err(|error| stream.failure(error, ConnectionStage::Reading, redactor))
            }
            (Conversation::Http(http), Spoken::Two(commands)) => {
                let fetched = negotiate(&mut Ask::Http(http), commands, wanted, walk, redactor, sink);
                fetched.map_err(|error| http.clean(error))
            }
            (conversation, Spoken::Older(capabilities)) => {
                let haves: Vec<Oid> = wanted.haves.iter().copied().chain(walk.take(MAX_ROUND)).collect();
                let request = pack::older_request(capabilities, &Wanted { haves: &haves, ..*wanted });
                let has_bands = capabilities.iter().any(|word| word == "side-band-64k");
                match conversation {
                    Conversation::Stream(stream) => {
                        let fetched = say(stream, &request).and_then(|()| {
                            pack::read_older(stream.lines(), has_bands, wanted.progress, redactor, sink)
                        });
                        fetched.map_err(|error| stream.failure(error, ConnectionStage::Reading, redactor))
                    }
                    Conversation::Http(http) => {
                        let mut lines = post(http, &request)?;
                        pack::read_older(&mut lines, has_bands, wanted.progress, redactor, sink)
                            .map_err(|error| http.clean(error))
                    }
                }
            }
            (_, Spoken::Nothing | Spoken::Expected(_) | Spoken::Misjudged) => {
                Err(Error::Protocol("objects before a list".into()))
            }
        }
    }

    /// The object format that upstream named in version 2, empty if it named none; `None` if it speaks an older version.
    #[must_use]
    pub fn speaks_two(&self) -> Option<&str> {
        match &self.spoken {
            Spoken::Two(commands) => Some(commands.object_format.as_deref().unwrap_or_default()),
            _ => None,
        }
    }

    /// Whether upstream does not speak the protocol that this session expected. It must then be
    /// asked in a new session.
    #[must_use]
    pub fn is_misjudged(&self) -> bool {
        matches!(self.spoken, Spoken::Misjudged)
    }

    /// Ends the conversation.
    pub fn end(self) {
        if let Conversation::Stream(stream) = self.conversation {
            stream.end();
        }
    }
}

fn say(stream: &mut Stream, request: &[u8]) -> Result<(), Error> {
    stream.say(request).map_err(|source| Error::Broken { doing: "asking it", source })
}

fn post(http: &Http, request: &[u8]) -> Result<crate::wire::HttpLines, Error> {
    http.post(Service::UploadPack, &mut &*request, Some(request.len() as u64))
}

fn list_over_stream(
    stream: &mut Stream,
    spoken: &mut Spoken,
    prefixes: &[Vec<u8>],
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Listed, Error> {
    if let Spoken::Expected(expected) = spoken {
        let said = say(stream, &list::request(expected, prefixes));
        // If upstream hung up, what came instead of a greeting says why.
        let (expected, greeting) = (expected.clone(), greeting(stream.lines())?);
        said?;
        stream.opened();
        let Some(commands) = greeting.commands().filter(|now| now.understands(&expected)) else {
            *spoken = Spoken::Misjudged;
            return Err(Error::Protocol("it does not speak the same protocol as before".into()));
        };
        *spoken = Spoken::Two(commands);
        return list::answer(stream.lines(), &expected, each);
    }
    if let Spoken::Nothing = spoken {
        match greeting(stream.lines())? {
            Greeting::Commands(commands) => *spoken = Spoken::Two(usable(commands)?),
            Greeting::Refs(first) => {
                let (listed, capabilities) = list::advertisement(stream.lines(), &first, prefixes, each)?;
                stream.opened();
                *spoken = Spoken::Older(capabilities);
                return Ok(listed);
            }
        }
        stream.opened();
    }
    match spoken {
        Spoken::Two(commands) => {
            say(stream, &list::request(commands, prefixes))?;
            list::answer(stream.lines(), commands, each)
        }
        _ => Err(Error::Protocol("an older server lists its refs once".into())),
    }
}

fn list_over_http(
    http: &Http,
    spoken: &mut Spoken,
    prefixes: &[Vec<u8>],
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Listed, Error> {
    if let Spoken::Two(commands) = spoken {
        let mut has_begun = false;
        let begun = &mut |name: NameRef<'_>, oid| {
            has_begun = true;
            each(name, oid);
        };
        let listed = ls_refs(http, commands, prefixes, begun);
        match listed {
            // The server was replaced by another one, or a connection that was kept is gone. Ask again.
            Err(Error::Broken { .. } | Error::Status { .. } | Error::NotSmart(_) | Error::Protocol(_))
                if !has_begun => {}
            listed => return listed,
        }
    }
    let mut lines = http.info_refs(Service::UploadPack)?;
    match greeting(&mut lines)? {
        Greeting::Commands(commands) => {
            drain(lines);
            let commands = usable(commands)?;
            let listed = ls_refs(http, &commands, prefixes, each);
            *spoken = Spoken::Two(commands);
            listed
        }
        Greeting::Refs(first) => {
            let (listed, capabilities) = list::advertisement(&mut lines, &first, prefixes, each)?;
            drain(lines);
            *spoken = Spoken::Older(capabilities);
            Ok(listed)
        }
    }
}

fn ls_refs(
    http: &Http,
    commands: &Commands,
    prefixes: &[Vec<u8>],
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Listed, Error> {
    let mut lines = post(http, &list::request(commands, prefixes))?;
    let listed = list::answer(&mut lines, commands, each)?;
    drain(lines);
    Ok(listed)
}

fn usable(commands: Commands) -> Result<Commands, Error> {
    if commands.ls_refs && commands.fetch {
        return Ok(commands);
    }
    Err(Error::Unable("it speaks protocol version 2 without ls-refs and fetch".into()))
}

/// Where the requests of version 2 go.
enum Ask<'c> {
    Stream(&'c mut Stream),
    Http(&'c Http),
}

impl Ask<'_> {
    /// Sends a request and reads what comes.
    fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl FnOnce(&mut dyn PacketLines) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Self::Stream(stream) => {
                say(stream, request)?;
                read(stream.lines())
            }
            Self::Http(http) => {
                let mut lines = post(http, request)?;
                let said = read(&mut lines)?;
                drain(lines);
                Ok(said)
            }
        }
    }
}

/// The packet lines of either transport.
trait PacketLines {
    fn acknowledgments(&mut self, asked: &[Oid]) -> Result<pack::Acknowledged, Error>;
    fn pack(&mut self, wanted: &Wanted<'_>, redactor: &Redactor, sink: Sink<'_>) -> Result<(), Error>;
}

impl<R: Read> PacketLines for StreamingPeekableIter<R> {
    fn acknowledgments(&mut self, asked: &[Oid]) -> Result<pack::Acknowledged, Error> {
        pack::acknowledgments(self, asked)
    }

    fn pack(&mut self, wanted: &Wanted<'_>, redactor: &Redactor, sink: Sink<'_>) -> Result<(), Error> {
        pack::read(self, wanted.progress, redactor, sink)
    }
}

/// Names what is here, round by round, until upstream knows enough or nothing is left to name; then reads the pack.
fn negotiate(
    ask: &mut Ask<'_>,
    commands: &Commands,
    wanted: &Wanted<'_>,
    walk: &mut dyn Iterator<Item = Oid>,
    redactor: &Redactor,
    sink: Sink<'_>,
) -> Result<(), Error> {
    let (mut common, mut round, mut named) = (Vec::new(), FIRST_ROUND, 0);
    loop {
        let haves: Vec<Oid> = walk.take(round).collect();
        if haves.is_empty() || named >= MAX_NAMED {
            let known: Vec<Oid> = common.iter().chain(wanted.haves).copied().collect();
            let request = pack::request(commands, wanted, &[], &known, Ending::Done);
            return ask.ask(&request, |lines| lines.pack(wanted, redactor, sink));
        }
        named += haves.len();
        round = (round * 2).min(MAX_ROUND);
        let request = pack::request(commands, wanted, &common, &haves, Ending::Open);
        let said = ask.ask(&request, |lines| {
            let said = lines.acknowledgments(&haves)?;
            if said.is_ready {
                lines.pack(wanted, redactor, &mut *sink)?;
            }
            Ok(said)
        })?;
        if said.is_ready {
            return Ok(());
        }
        common.extend(said.common);
    }
}

/// The error of a sink whose reader is gone.
#[must_use]
pub fn sink_failed(source: io::Error) -> Error {
    Error::Broken { doing: "writing the objects", source }
}
