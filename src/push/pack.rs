//! The pack of a push. It was made in this process before, or it is read from a file or pipe, or
//! `git pack-objects` makes it, which knows deltas, bitmaps and threads. We tell `git pack-objects`
//! what the mirror has, and pass on the bytes that it writes.
//!
//! When the program fails, the reader returns an error and no end of file, so half a pack is never taken for a whole one. Dropping the
//! reader ends the program and its threads.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Progress;
use crate::credentials::Redactor;
use crate::process::{Child, git};
use crate::refs::Oid;
use crate::replies;
use crate::wire::{Class, Error};

/// Where a pack comes from.
#[derive(Clone, Debug)]
pub enum PackSource {
    /// A pack that is made already, and the counters for its bytes.
    Made(Vec<u8>, Arc<Progress>),
    /// A pack that is read from an open file or pipe.
    File(Arc<File>),
    /// `git pack-objects` makes it.
    Program(PackObjects),
}

/// What `git pack-objects` is to make.
#[derive(Clone, Debug)]
pub struct PackObjects {
    /// The repository.
    pub git_dir: PathBuf,
    /// The new values: they and their history go in.
    pub tips: Vec<Oid>,
    /// Values that the mirror has and we have too: they and their history stay out.
    pub haves: Vec<Oid>,
    /// Whether deltas may name their base by its place in the pack (`ofs-delta`).
    pub ofs_delta: bool,
    /// What the repository lacks on purpose.
    pub incomplete: Incomplete,
    /// Whether deltas may be made against objects that the mirror has.
    pub base: DeltaBase,
    /// Counts what goes over the wire.
    pub progress: Arc<Progress>,
}

/// What a delta of the pack may be made against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaBase {
    /// Also what the mirror has (`--thin`): fewer bytes, and the mirror puts a copy of each such base into its pack.
    Anywhere,
    /// Only what is in the pack itself.
    Pack,
}

/// What the source repository lacks on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incomplete {
    /// History ends at the commits of the file `shallow`.
    pub is_shallow: bool,
    /// Objects that a promisor remote has may be missing here. They are not fetched for a push. A
    /// mirror that has them does not need them in the pack. A mirror that lacks them refuses the
    /// ref.
    pub is_partial: bool,
}

/// The bytes of a pack.
pub struct PackReader {
    bytes: Bytes,
    incomplete: Incomplete,
    header: Vec<u8>,
    progress: Arc<Progress>,
}

enum Bytes {
    Made(Cursor<Vec<u8>>),
    File(Arc<File>),
    Program { stdout: ChildStdout, child: Option<Child> },
}

impl PackSource {
    /// Begins to read.
    ///
    /// # Errors
    /// `git pack-objects` cannot be started, or ends before it has read its input.
    pub fn open(self) -> Result<PackReader, Error> {
        match self {
            Self::Made(pack, progress) => Ok(PackReader {
                bytes: Bytes::Made(Cursor::new(pack)),
                incomplete: Incomplete::default(),
                header: Vec::new(),
                progress,
            }),
            Self::File(file) => Ok(PackReader {
                bytes: Bytes::File(file),
                incomplete: Incomplete::default(),
                header: Vec::new(),
                progress: Arc::default(),
            }),
            Self::Program(program) => program.open(),
        }
    }
}

impl PackObjects {
    /// Starts the program and tells it what to pack.
    fn open(self) -> Result<PackReader, Error> {
        let is_watched = self.progress.is_watched();
        let mut arguments = vec!["pack-objects", "--revs", "--stdout", if is_watched { "--progress" } else { "-q" }];
        if self.base == DeltaBase::Anywhere {
            arguments.push("--thin");
        }
        if self.ofs_delta {
            arguments.push("--delta-base-offset");
        }
        if self.incomplete.is_partial {
            arguments.push("--missing=allow-promisor");
        }
        let progress = Arc::clone(&self.progress);
        let hear = move |written: &[u8]| progress.hear("", written, &Redactor::default());
        let mut command = git(&self.git_dir, &arguments);
        // git before 2.45 does not know GIT_NO_LAZY_FETCH. A name that no transport has forbids all of them.
        command.env("GIT_ALLOW_PROTOCOL", "none");
        let mut child = Child::start_heard("git pack-objects", &mut command, hear)?;
        let mut revisions = String::with_capacity((self.tips.len() + self.haves.len()) * 42 + 8);
        for tip in &self.tips {
            revisions.push_str(&format!("{tip}\n"));
        }
        for have in &self.haves {
            revisions.push_str(&format!("^{have}\n"));
        }
        // pack-objects reads all of its input before it writes, so this cannot block for ever. If it has died, its last message says why.
        let told = child.stdin().write_all(revisions.as_bytes());
        if told.is_err() {
            return Err(self.incomplete.failure(&child.failure(Duration::from_secs(5)).to_string()));
        }
        let stdout = child.stdout();
        let bytes = Bytes::Program { stdout, child: Some(child) };
        Ok(PackReader { bytes, incomplete: self.incomplete, header: Vec::new(), progress: self.progress })
    }
}

impl Incomplete {
    /// The advice when a mirror needs objects that a partial clone lacks.
    pub const FETCH: &str = "this repository is a partial clone and lacks objects that the mirror needs; fetch them: git fetch --refetch --no-filter";

    /// The error that the program's message means. If a partial clone lacks objects, another try gives the same error.
    fn failure(self, message: &str) -> Error {
        let message = replies::without_progress(message);
        if !self.is_partial || !replies::lacks_objects(&message) {
            return Error::Pack { message, class: Class::Temporary };
        }
        Error::Pack { message: format!("{message}; {}", Self::FETCH), class: Class::Permanent }
    }
}

impl PackReader {
    /// The error that a failed read of the pack means.
    pub(super) fn failure(&self, error: &io::Error) -> Error {
        self.incomplete.failure(&error.to_string())
    }

    /// Counts the bytes of `chunk`, and the objects once the header is complete: their number is in bytes 8 to 11 (gitformat-pack(5)).
    fn count(&mut self, chunk: &[u8]) {
        self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if self.header.len() < 12 {
            let missing = 12 - self.header.len();
            self.header.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            if let Some(number) = self.header.get(8..12).and_then(|bytes| bytes.try_into().ok()) {
                self.progress.objects.fetch_add(u32::from_be_bytes(number).into(), Ordering::Relaxed);
            }
        }
    }
}

impl Read for PackReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.bytes {
            Bytes::Made(pack) => pack.read(buf)?,
            Bytes::File(pack) => (&**pack).read(buf)?,
            Bytes::Program { stdout, .. } => {
                self.progress.begin_packing();
                let filled = fill(stdout, buf);
                self.progress.end_packing();
                filled?
            }
        };
        if count > 0 {
            self.count(&buf[..count]);
            return Ok(count);
        }
        let Bytes::Program { child, .. } = &mut self.bytes else { return Ok(0) };
        let Some(child) = child.take() else { return Ok(0) };
        let (status, message) = child.end(Duration::from_secs(30));
        if status?.success() { Ok(0) } else { Err(io::Error::other(message)) }
    }
}

/// Reads until `buf` is full. The program writes 8 KiB at a time; each of these pieces would otherwise become an HTTP chunk.
fn fill(stdout: &mut ChildStdout, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match stdout.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_whether_the_pack_is_being_made() {
        // A program that writes when it is told to.
        let mut child = Child::start_heard("cat", &mut crate::process::command("cat"), |_| ()).expect("started");
        let (mut told, stdout) = (child.stdin(), child.stdout());
        let progress = Arc::new(Progress::default());
        let mut reader = PackReader {
            bytes: Bytes::Program { stdout, child: Some(child) },
            incomplete: Incomplete::default(),
            header: Vec::new(),
            progress: Arc::clone(&progress),
        };
        assert!(!progress.is_packing());
        let reading = std::thread::spawn(move || reader.read(&mut [0; 8]).map(|count| (count, reader)));
        for _ in 0..5000 {
            if progress.is_packing() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert!(progress.is_packing());
        told.write_all(b"PACK0000").expect("written");
        let (count, _) = reading.join().expect("no panic").expect("read");
        assert!(count == 8 && !progress.is_packing(), "now we wait for the mirror");
    }
}
