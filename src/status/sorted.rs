//! A sorted file of lines `VALUE NAME`, in which a name is found without reading the whole file: the table of `mirrored/`.
//!
//! Guaranteed: a search reads about 1 KiB in each of about `log2(size / 16 KiB)` steps, and 16 KiB at the end; lines of another form are
//! skipped. Absent: writing, and the meaning of VALUE. The file is only replaced as a whole, so a crash leaves the old one or the new one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A part of the file that is small enough to be read as a whole, in bytes.
const WINDOW: u64 = 16 << 10;

/// How much is read to find where a line begins, in bytes; most lines are shorter.
const STEP: usize = 512;

/// An open table.
#[derive(Debug)]
pub(super) struct Sorted {
    file: File,
    /// Where the first line begins, after the header.
    start: u64,
    end: u64,
}

impl Sorted {
    /// The lines of `file` from byte `start` on.
    pub(super) fn new(file: File, start: u64) -> io::Result<Self> {
        let end = file.metadata()?.len().max(start);
        Ok(Self { file, start, end })
    }

    /// The size of its lines, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.end - self.start
    }

    /// The value of `name`.
    pub(super) fn find(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // The line of `name` begins in `low..high`, if there is one.
        let (mut low, mut high) = (self.start, self.end);
        while high - low > WINDOW {
            let middle = low + (high - low) / 2;
            match self.line_after(middle, high)? {
                Some((begin, line)) if begin < high => match split(&line) {
                    Some((_, other)) if other <= name => low = begin,
                    // The line of `name` may begin at `middle` itself: `line_after` returns the first line that begins after it.
                    Some(_) => high = middle + 1,
                    None => return self.scan(low, high, name),
                },
                _ => high = middle + 1,
            }
        }
        self.scan(low, high, name)
    }

    /// The first line that begins after `offset` and before `high`, with the offset of its first byte.
    fn line_after(&self, offset: u64, high: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(feed) = self.feed_after(offset)? else { return Ok(None) };
        if feed + 1 >= high {
            return Ok(None);
        }
        let line_end = self.feed_after(feed + 1)?.unwrap_or(self.end);
        Ok(Some((feed + 1, self.read(feed + 1, line_end)?)))
    }

    /// Where the first line feed at or after `offset` is.
    fn feed_after(&self, mut offset: u64) -> io::Result<Option<u64>> {
        while offset < self.end {
            let block = self.read(offset, self.end.min(offset + STEP as u64))?;
            if let Some(at) = block.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(offset + at as u64));
            }
            offset += block.len().max(1) as u64;
        }
        Ok(None)
    }

    /// Looks for `name` in each line that begins in `low..high`.
    fn scan(&self, low: u64, high: u64, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let end = self.feed_after(high.max(low + 1) - 1)?.unwrap_or(self.end);
        let text = self.read(low, end)?;
        let found = text.split(|byte| *byte == b'\n').filter_map(split).find(|(_, other)| *other == name);
        Ok(found.map(|(value, _)| value.to_owned()))
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut block, from)?;
        Ok(block)
    }

    /// All lines, in their order.
    pub(super) fn lines(&self) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>> + use<>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.start))?;
        Ok(BufReader::with_capacity(1 << 16, file.take(self.size())).split(b'\n'))
    }
}

/// `VALUE NAME` of a line.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some((&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_of_one_length_are_all_found() {
        for count in [400, 401, 402, 1000, 5000] {
            let name = |n: usize| format!("refs/tags/b{n:05}");
            let mut file = tempfile::tempfile().expect("a file");
            for n in 0..count {
                writeln!(file, "{:040x} {}", n, name(n)).expect("written");
            }
            let table = Sorted::new(file, 0).expect("a table");
            for n in 0..count {
                let found = table.find(name(n).as_bytes()).expect("readable");
                assert_eq!(found, Some(format!("{n:040x}").into_bytes()), "{n} of {count}");
            }
        }
    }

    #[test]
    fn finds_the_names_of_a_large_file_and_no_others() {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(b"header\n").expect("writes");
        let name = |index: usize| format!("refs/heads/{index:06}/{}", "x".repeat(index % 300));
        for index in 0..5000 {
            file.write_all(format!("{index} {}\n", name(index)).as_bytes()).expect("writes");
        }
        let sorted = Sorted::new(file, 7).expect("opens");
        for index in (0..5000).step_by(7).chain([4998, 4999]) {
            assert_eq!(sorted.find(name(index).as_bytes()).expect("reads"), Some(index.to_string().into_bytes()));
            let missing = format!("refs/heads/{index:06}!");
            assert_eq!(sorted.find(missing.as_bytes()).expect("reads"), None, "{missing}");
        }
        for missing in ["a", "refs/heads/", "refs/heads/zzz", ""] {
            assert_eq!(sorted.find(missing.as_bytes()).expect("reads"), None, "{missing}");
        }
        assert_eq!(sorted.lines().expect("reads").count(), 5000);
    }

    #[test]
    fn a_file_that_is_empty_or_damaged_holds_nothing_and_does_not_panic() {
        for text in [&b""[..], b"\n\n\n", b"nonsense", &[b'a'; 70_000], &[b'\n'; 70_000], &[b' '; 70_000]] {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(text).expect("writes");
            let sorted = Sorted::new(file, 0).expect("opens");
            assert_eq!(sorted.find(b"refs/heads/main").expect("reads"), None);
        }
    }
}
