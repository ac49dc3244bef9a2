//! `mirrored/`: for each ref the base, which is the last value that the mirror held and that was ours. For a ref that was deleted
//! here and that the mirror still has, also every value that the ref had here when it was deleted.
//!
//! ```text
//! mirrored/values       a header, then one line for each ref, sorted by name
//! mirrored/journal.N    what changed since `values` with the number N was written: batches of lines, each batch with a checksum
//! mirrored/packed-refs  an empty directory: versions before 0.2 stop at it
//! ```
//!
//! A line is `[BASE][+DELETED]… NAME`; `- NAME` forgets the ref. The header names the address that the values belong to. If the mirror
//! moves to another address, nothing is known of it there. `values` becomes `mirrored/aside` when a new `values` is written.
//!
//! Guaranteed: a value that this repository never had is not stored, because stored values may be overwritten. Every ref name of git
//! fits, since no name becomes a path. The cost of finding a ref or noting a change hardly grows with the number of refs. A change is
//! synced before [`Mirrored::set`] returns. Absent: decisions. A crash loses the last batch at most: then the values before it count, and
//! they were ours too. The writer holds the mirror's lock.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::earlier;
use super::sorted::{Sorted, split};
use crate::durable;
use crate::durable::sync_directory;
use crate::refs::{Oid, RefName};
use crate::repo::{Repository, Sharing};

const MAGIC: &str = "git-mirror-push mirrored 1";

/// A journal above this size, in bytes, is folded into the table, unless the table is much larger.
const MAX_JOURNAL: u64 = 64 << 10;

/// A large table is written anew only when the journal is larger than the table divided by this.
const PART: u64 = 32;

/// What is known of one ref.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The last value that the mirror held and that was ours.
    pub base: Option<Oid>,
    /// Every value that the ref had when it was deleted here, while the mirror still has the ref.
    pub deleted: BTreeSet<Oid>,
}

impl Held {
    /// A ref that the mirror holds at our value.
    #[must_use]
    pub fn at(base: Oid) -> Self {
        Self { base: Some(base), deleted: BTreeSet::new() }
    }

    fn is_nothing(&self) -> bool {
        self.base.is_none() && self.deleted.is_empty()
    }
}

/// What is known of one mirror at one address.
pub struct Mirrored {
    directory: PathBuf,
    address: String,
    sharing: Sharing,
    /// The number of the table, which names its journal.
    number: u64,
    table: Option<Sorted>,
    /// What differs from the table.
    recent: BTreeMap<RefName, Held>,
    /// How much of the journal is whole, in bytes.
    whole: u64,
    form: Form,
    all: OnceCell<Vec<(RefName, Oid)>>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nothing, or what belongs to another address.
    Absent,
    /// The files of an earlier version, which are still to be taken over. They do not name an address; the status may.
    Earlier,
    Present,
}

impl Mirrored {
    /// Reads what is known of the mirror with this `directory` at `address`.
    ///
    /// # Errors
    /// The operating system's: a base that cannot be read is not an empty one.
    pub fn open(directory: &Path, address: &str, repository: &Repository) -> io::Result<Self> {
        let mut opened = Self {
            address: one_line(address),
            sharing: repository.sharing(),
            number: 0,
            table: None,
            recent: BTreeMap::new(),
            whole: 0,
            form: Form::Absent,
            all: OnceCell::new(),
            directory: directory.join("mirrored"),
        };
        match durable::open_to_read(&opened.directory.join("values")) {
            Ok((file, _)) => opened.read_table(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let found = earlier::values(&opened.directory, repository)?;
                let told = earlier::address(directory)?.map(|told| one_line(&told));
                if !found.is_empty() && told.as_ref().is_none_or(|told| *told == opened.address) {
                    opened.recent.extend(found.into_iter().map(|(name, oid)| (name, Held::at(oid))));
                    opened.form = Form::Earlier;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(opened)
    }

    /// Reads the header of the table, and the journal if the table is of this address. A table whose header is damaged is no table.
    fn read_table(&mut self, mut file: File) -> io::Result<()> {
        let mut header = Vec::with_capacity(512);
        (&mut file).take(64 << 10).read_to_end(&mut header)?;
        let mut lines = header.splitn(4, |byte| *byte == b'\n');
        let (magic, number, address) = (lines.next(), lines.next(), lines.next());
        let number = number.and_then(|line| std::str::from_utf8(line.strip_prefix(b"number ")?).ok()?.parse().ok());
        let Some(number) = number.filter(|_| magic == Some(MAGIC.as_bytes())) else { return Ok(()) };
        self.number = number;
        let Some(address) = address.and_then(|line| line.strip_prefix(b"address ")) else { return Ok(()) };
        if address != self.address.as_bytes() {
            return Ok(());
        }
        let rest = lines.next().map_or(0, <[u8]>::len);
        self.form = Form::Present;
        self.table = Some(Sorted::new(file, (header.len() - rest) as u64)?);
        match durable::read(&self.journal()) {
            Ok((text, _)) => self.read_journal(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes every batch whose checksum is right, up to the first that is not whole.
    fn read_journal(&mut self, text: &[u8]) {
        let (mut begin, mut at) = (0, 0);
        while let Some(length) = text[at..].iter().position(|byte| *byte == b'\n') {
            let line = &text[at..at + length];
            if let Some(sum) = line.strip_prefix(b"crc32 ") {
                let batch = &text[begin..at];
                if sum != format!("{:08x}", crc32fast::hash(batch)).as_bytes() {
                    return;
                }
                self.recent.extend(batch.split(|byte| *byte == b'\n').filter_map(parse));
                begin = at + length + 1;
                self.whole = begin as u64;
            }
            at += length + 1;
        }
    }

    fn journal(&self) -> PathBuf {
        self.directory.join(format!("journal.{}", self.number))
    }

    /// Whether first contact with this address is over: something is known, or a table without refs was written.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.form != Form::Absent
    }

    /// Whether an earlier version wrote what was found, so that it is still to be written in this form.
    #[must_use]
    pub fn is_earlier(&self) -> bool {
        self.form == Form::Earlier
    }

    /// What is known of one ref. Nothing, if its line is damaged.
    ///
    /// # Errors
    /// The operating system's. A ref that cannot be looked up is not an unknown ref.
    pub fn find(&self, name: &RefName) -> io::Result<Held> {
        if let Some(held) = self.recent.get(name) {
            return Ok(held.clone());
        }
        let found = self.table.as_ref().map(|table| table.find(name.as_bytes())).transpose()?;
        Ok(found.flatten().as_deref().and_then(parse_held).unwrap_or_default())
    }

    /// What is known of each of these refs, which are sorted. Many are looked up in one pass over the file.
    ///
    /// # Errors
    /// As [`Mirrored::find`].
    pub fn find_sorted<'n>(&self, names: impl ExactSizeIterator<Item = &'n RefName>) -> io::Result<Vec<Held>> {
        /// From this number of names on, one pass is faster.
        const MANY: usize = 1000;
        if names.len() < MANY {
            return names.map(|name| self.find(name)).collect();
        }
        self.each(|held| {
            let mut held = held.peekable();
            let find = |name: &RefName| {
                while held.next_if(|(before, _)| before < name).is_some() {}
                held.next_if(|(found, _)| found == name).map(|(_, held)| held).unwrap_or_default()
            };
            names.map(find).collect()
        })
    }

    /// The base of every ref, sorted by name, read once.
    ///
    /// # Errors
    /// As [`Mirrored::find`].
    pub fn all(&self) -> io::Result<&[(RefName, Oid)]> {
        if self.all.get().is_none() {
            let all = self.each(|all| all.filter_map(|(name, held)| Some((name, held.base?))).collect())?;
            self.all.get_or_init(|| all);
        }
        Ok(self.all.get().expect("it was just loaded"))
    }

    /// About how many refs are known, from the size of the files alone.
    #[must_use]
    pub fn count(&self) -> u64 {
        const LINE: u64 = 60;
        self.table.as_ref().map_or(0, Sorted::size) / LINE + self.recent.len() as u64
    }

    /// Gives what is known of every ref to `with`, in the order of the names.
    ///
    /// # Errors
    /// As [`Mirrored::find`].
    pub fn each<T>(&self, with: impl FnOnce(&mut dyn Iterator<Item = (RefName, Held)>) -> T) -> io::Result<T> {
        let mut failed = None;
        let lines = self.table.as_ref().map(Sorted::lines).transpose()?;
        let table = lines.into_iter().flatten().map_while(|line| match line {
            Ok(line) => Some(parse(&line)),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let mut table = table.flatten().peekable();
        let mut recent = self.recent.iter().peekable();
        let mut merged = std::iter::from_fn(|| {
            loop {
                let is_recent = match (table.peek(), recent.peek()) {
                    (Some((stored, _)), Some((name, _))) => *name <= stored,
                    (None, Some(_)) => true,
                    (_, None) => false,
                };
                if !is_recent {
                    return table.next();
                }
                let (name, held) = recent.next()?;
                // The table's line of the same ref is out of date.
                table.next_if(|(stored, _)| stored == name);
                if !held.is_nothing() {
                    return Some((name.clone(), held.clone()));
                }
            }
        });
        let done = with(&mut merged);
        failed.map_or(Ok(done), Err)
    }

    /// Notes what is known of these refs now, durably, and that first contact with this address is over.
    ///
    /// # Errors
    /// The operating system's. Then the older values count: at worst a rewrite is reported as divergence.
    pub fn set(&self, changes: &[(RefName, Held)]) -> io::Result<()> {
        let mut batch = Vec::new();
        changes.iter().for_each(|(name, held)| write_line(&mut batch, name, held));
        let size = self.table.as_ref().map_or(0, Sorted::size);
        let room = MAX_JOURNAL.max(size / PART);
        if self.form != Form::Present || self.whole + batch.len() as u64 > room {
            return self.fold(changes);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // The process that folded last may have been killed before this step.
        earlier::retire(&self.directory)?;
        batch.extend(format!("crc32 {:08x}\n", crc32fast::hash(&batch)).into_bytes());
        self.append(&batch)
    }

    /// Appends a batch after the last whole one.
    fn append(&self, batch: &[u8]) -> io::Result<()> {
        let path = self.journal();
        let is_new = self.whole == 0;
        let (mut file, _) = durable::open(&path, OFlags::WRONLY | OFlags::CREATE)?;
        if is_new {
            self.sharing.publish(&file)?;
        }
        if file.metadata()?.len() != self.whole {
            // A process was killed while it wrote here.
            file.set_len(self.whole)?;
        }
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.whole))?;
        file.write_all(batch)?;
        file.sync_data()?;
        if is_new { sync_directory(&self.directory) } else { Ok(()) }
    }

    /// Writes the table anew, with what the journal and `changes` say, and begins an empty journal.
    fn fold(&self, changes: &[(RefName, Held)]) -> io::Result<()> {
        durable::make_directory(&self.directory, self.sharing.directory_mode())?;
        let values = self.directory.join("values");
        if self.form == Form::Absent && values.exists() {
            durable::rename(&values, &self.directory.join("aside"))?;
        }
        let changed: BTreeMap<&RefName, &Held> = changes.iter().map(|(name, held)| (name, held)).collect();
        let number = self.next_number()?;
        let mut text = format!("{MAGIC}\nnumber {number}\naddress {}\n", self.address).into_bytes();
        self.each(|stored| {
            let mut changed = changed.iter().peekable();
            for (name, held) in stored {
                while let Some((before, held)) = changed.next_if(|(other, _)| ***other < name) {
                    write_kept(&mut text, before, held);
                }
                match changed.next_if(|(other, _)| ***other == name) {
                    Some((_, now)) => write_kept(&mut text, &name, now),
                    None => write_kept(&mut text, &name, &held),
                }
            }
            changed.for_each(|(name, held)| write_kept(&mut text, name, held));
        })?;
        durable::replace(&values, &text, |file| self.sharing.publish(file))?;
        self.remove_what_was_before(number)
    }

    /// A number that no journal has. A journal that a crash or a damaged table left must not be read with the new table.
    fn next_number(&self) -> io::Result<u64> {
        let mut last = self.number;
        for name in durable::list_there(&self.directory)? {
            let number = name.strip_prefix("journal.").and_then(|number| number.parse().ok());
            last = last.max(number.unwrap_or_default());
        }
        Ok(last.saturating_add(1))
    }

    /// Removes old journals and the files of an earlier version. If a crash comes before, they stay, and nobody reads them.
    fn remove_what_was_before(&self, number: u64) -> io::Result<()> {
        let kept = format!("journal.{number}");
        for name in durable::list_there(&self.directory)? {
            if name.starts_with("journal.") && name != kept {
                durable::remove_if_there(&self.directory.join(name))?;
            }
        }
        earlier::retire(&self.directory)
    }
}

/// Makes an address fit into one line of the header.
fn one_line(address: &str) -> String {
    address.replace(|letter: char| letter.is_control(), "?")
}

fn write_kept(text: &mut Vec<u8>, name: &RefName, held: &Held) {
    if !held.is_nothing() {
        write_line(text, name, held);
    }
}

fn write_line(text: &mut Vec<u8>, name: &RefName, held: &Held) {
    match held.base {
        Some(base) => text.extend_from_slice(base.to_string().as_bytes()),
        None if held.deleted.is_empty() => text.push(b'-'),
        None => {}
    }
    for oid in &held.deleted {
        text.extend_from_slice(format!("+{oid}").as_bytes());
    }
    text.push(b' ');
    text.extend_from_slice(name.as_bytes());
    text.push(b'\n');
}

/// A line. `None` when it has another form.
fn parse(line: &[u8]) -> Option<(RefName, Held)> {
    let (value, name) = split(line)?;
    Some((RefName::new(name)?, parse_held(value)?))
}

fn parse_held(value: &[u8]) -> Option<Held> {
    if value == b"-" {
        return Some(Held::default());
    }
    let mut parts = value.split(|byte| *byte == b'+');
    let base = match parts.next()? {
        b"" => None,
        base => Some(Oid::from_hex(base)?),
    };
    Some(Held { base, deleted: parts.map(Oid::from_hex).collect::<Option<_>>()? })
}
