//! The ref names in the tables of a reftable repository (git's `Documentation/technical/reftable`), to check what git lists.
//!
//! At a damaged table `git for-each-ref` ends with exit status 0 and lists only the refs before it.
//! If we took that for the whole list, we would delete all others on the mirror. So we read the
//! tables too. We check the header, the footer and its checksum, every record of every ref block,
//! and the order of the names. A table that fails a check is an error. Values are skipped.

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
    // The ref blocks end where the first of these sections begins: ref index, objects, logs.
    let sections = [position(0)?, position(1)? >> 5, position(3)?];
    let end = sections.into_iter().filter(|at| *at > 0).chain([footer_at]).min()?;
    let mut records = Records::new();
    if table[header] != b'r' {
        // A table of logs alone, or an empty one.
        return (table[header] == b'g' || footer_at == header).then_some(records);
    }
    let block_size = number(table, 5)?;
    let mut at = 0;
    while at < end {
        let length = block(&table[..end], at, if at == 0 { header } else { 0 }, hash, &mut records)?;
        // Blocks are padded with zeros to the block size, or follow at once.
        let is_padded = block_size > length && table[at + length..end].first().is_none_or(|byte| *byte == 0);
        at += if is_padded { block_size } else { length };
    }
    Some(records)
}

/// Reads the block at `at`, whose first `skipped` bytes are the file's header. Returns its length without padding. `None` when it is
/// damaged.
fn block(table: &[u8], at: usize, skipped: usize, hash: usize, records: &mut Records) -> Option<usize> {
    let block = &table[at..];
    if *block.get(skipped)? != b'r' {
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
        varint(&mut rest)?;
        let stored = match kind & 7 {
            0 => None,
            1 => take(&mut rest, hash).map(|_| Some(Stored::Value))?,
            2 => take(&mut rest, 2 * hash).map(|_| Some(Stored::Value))?,
            3 => {
                let length = varint(&mut rest)?;
                take(&mut rest, length).map(|_| Some(Stored::Symbolic))?
            }
            _ => return None,
        };
        if records.last().is_some_and(|(before, _)| *before >= name) {
            return None;
        }
        records.push((name.clone(), stored));
        last = name;
    }
    Some(length)
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
