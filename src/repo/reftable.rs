//! The ref names in the tables of a reftable repository (git's `Documentation/technical/reftable`), to check what git lists.
//!
//! At a damaged table `git for-each-ref` ends with exit status 0 and lists only the refs before it.
//! If we took that for the whole list, we would delete all others on the mirror. So we read the
//! tables too. We check the header, the footer and its checksum, every record of every ref block,
//! and the order of the names. If the index of a large table has several levels, we also check that
//! the lowest one names all ref blocks. A table that fails a check is an error. Values are skipped.

#![expect(clippy::disallowed_methods, reason = "reads the tables")]

use std::collections::BTreeMap;
use std::io::{self, Error, ErrorKind};
use std::path::Path;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// A value.
    Value,
    /// Another ref's name, whether or not that exists.
    Symbolic,
}

/// The content of `tables.list`. If it is the same later, no ref has changed in between.
pub(super) fn stack(git_dir: &Path) -> io::Result<String> {
    let named = |error| named("tables.list", &error);
    std::fs::read_to_string(git_dir.join("reftable/tables.list")).map_err(named)
}

/// The names in the tables of `stack`, without those that were deleted.
pub(super) fn names(git_dir: &Path, stack: &str) -> io::Result<BTreeMap<Vec<u8>, Stored>> {
    let mut names = BTreeMap::new();
    for name in stack.lines() {
        let table = std::fs::read(git_dir.join("reftable").join(name)).map_err(|error| named(name, &error))?;
        let damaged = || Error::new(ErrorKind::InvalidData, format!("'reftable/{name}' is damaged"));
        let records = refs_of(&table).ok_or_else(damaged)?;
        for (name, stored) in records {
            match stored {
                Some(stored) => names.insert(name, stored),
                None => names.remove(&name),
            };
        }
    }
    Ok(names)
}

fn named(file: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("'reftable/{file}': {error}"))
}

/// Names of one table in their order; `None` is a deletion.
type Records = Vec<(Vec<u8>, Option<Stored>)>;

/// The ref records of one table. `None` when it is not whole.
fn refs_of(table: &[u8]) -> Option<Records> {
    let (header, hash) = match (table.get(..4)?, table.get(4)?) {
        (b"REFT", 1) => (24, 20),
        (b"REFT", 2) => (28, if table.get(24..28)? == b"s256" { 32 } else { 20 }),
        _ => return None,
    };
    let footer_at = table.len().checked_sub(header + 44).filter(|at| *at >= header)?;
    let footer = &table[footer_at..];
    let (said, checksum) = footer.split_at(footer.len() - 4);
    let is_whole = footer[..header] == table[..header] && crc32fast::hash(said).to_be_bytes() == checksum;
    if !is_whole {
        return None;
    }
    let position = |n: usize| -> Option<usize> {
        let at = header + n * 8;
        usize::try_from(u64::from_be_bytes(footer.get(at..at + 8)?.try_into().ok()?)).ok()
    };
    // The ref blocks, and all levels of their index but the highest, end where the first of these
    // sections begins: the highest level of the ref index, objects, logs.
    let sections = [position(0)?, position(1)? >> 5, position(3)?];
    let end = sections.into_iter().filter(|at| *at > 0).chain([footer_at]).min()?;
    let mut records = Records::new();
    if table[header] != b'r' {
        // A table of logs alone, or an empty one.
        return (table[header] == b'g' || footer_at == header).then_some(records);
    }
    let blocks = &table[..end];
    let (mut at, mut starts) = (0, Vec::new());
    while at == 0 || blocks.get(at) == Some(&b'r') {
        starts.push(at);
        let skipped = if at == 0 { header } else { 0 };
        at = block(blocks, at, skipped, b'r', &mut |name, kind, rest| {
            varint(rest)?;
            let stored = stored(kind, hash, rest)?;
            let is_next = records.last().is_none_or(|(before, _)| *before < name);
            is_next.then(|| records.push((name, stored)))
        })?;
    }
    // Levels of the index. The lowest one comes first and has the position of each ref block.
    let (mut starts, is_large) = (starts.into_iter(), at < end);
    while at < end {
        at = block(blocks, at, 0, b'i', &mut |_, _, rest| {
            let position = varint(rest)?;
            starts.next().is_none_or(|start| start == position).then_some(())
        })?;
    }
    (!is_large || starts.next().is_none()).then_some(records)
}

/// Reads what a ref record stands for; `None` inside when it is a deletion.
fn stored(kind: usize, hash: usize, rest: &mut &[u8]) -> Option<Option<Stored>> {
    match kind {
        0 => Some(None),
        1 => take(rest, hash).map(|_| Some(Stored::Value)),
        2 => take(rest, 2 * hash).map(|_| Some(Stored::Value)),
        3 => {
            let length = varint(rest)?;
            take(rest, length).map(|_| Some(Stored::Symbolic))
        }
        _ => None,
    }
}

/// Gets the name of a record and its kind, and reads the rest of the record. `None` when it is damaged.
type EachRecord<'e> = dyn FnMut(Vec<u8>, usize, &mut &[u8]) -> Option<()> + 'e;

/// Reads the block of type `wanted` at `at`, whose first `skipped` bytes are the file's header. Calls `each` with each record. Returns where the next block begins. `None` when the block is damaged.
fn block(blocks: &[u8], at: usize, skipped: usize, wanted: u8, each: &mut EachRecord<'_>) -> Option<usize> {
    let block = &blocks[at..];
    if *block.get(skipped)? != wanted {
        return None;
    }
    let length = number(block, skipped + 1)?;
    let block = block.get(..length)?;
    let restarts = usize::from(u16::from_be_bytes(block.get(length.checked_sub(2)?..)?.try_into().ok()?));
    let records_end = length.checked_sub(2 + restarts * 3).filter(|end| restarts > 0 && *end > skipped + 4)?;
    let mut rest = block.get(skipped + 4..records_end)?;
    let mut last: Vec<u8> = Vec::new();
    while !rest.is_empty() {
        let (prefix, kind) = (varint(&mut rest)?, varint(&mut rest)?);
        let mut name = last.get(..prefix)?.to_vec();
        name.extend_from_slice(take(&mut rest, kind >> 3)?);
        last.clone_from(&name);
        each(name, kind & 7, &mut rest)?;
    }
    // Blocks are padded with zeros to the block size, or follow at once.
    let block_size = number(blocks, 5)?;
    let is_padded = block_size > length && blocks[at + length..].first().is_none_or(|byte| *byte == 0);
    Some(at + if is_padded { block_size } else { length })
}

/// Three bytes, the highest first.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 3)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Reads a number in the encoding of delta offsets in pack files: seven bits in each byte, with one added for each further byte.
fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0_usize;
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number = number.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        number = number.checked_add(1)?;
    }
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}
