//! Standard output and standard error for people.
//!
//! Guaranteed: of what is written, a terminal obeys line feeds, tabs and the colours of this program, and nothing else, whoever named the
//! repositories, mirrors and refs. Absent: JSON and other formats that programs read; they are written without this.

use std::io::{self, Write};

use super::render::COLOURS;
use crate::terminal::{escaped, escaped_lines};

/// A writer that escapes what a terminal would obey. Each write has whole characters, as those of `write!` and `format!` have.
pub(super) struct Screen<W>(pub(super) W);

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (mut out, mut rest) = (String::with_capacity(text.len()), &*text);
        while let Some(at) = rest.find('\x1b') {
            out.push_str(&escaped_lines(&rest[..at]));
            let escape = COLOURS.into_iter().find(|colour| rest[at..].starts_with(colour));
            out.push_str(escape.unwrap_or(&escaped("\x1b")));
            rest = &rest[at + escape.map_or(1, str::len)..];
        }
        out.push_str(&escaped_lines(rest));
        self.0.write_all(out.as_bytes()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_lines_are_kept_and_the_rest_is_escaped() {
        let mut out = Vec::new();
        let text = "\u{1b}[31mred\u{1b}[m\tplain\n\u{1b}[2J\u{1b}[8m\u{9b}2J\u{202e}\r\u{7}é";
        write!(Screen(&mut out), "{text}").expect("a vector takes everything");
        let shown = "\u{1b}[31mred\u{1b}[m\tplain\n\\u{1b}[2J\\u{1b}[8m\\u{9b}2J\\u{202e}\\u{d}\\u{7}é";
        assert_eq!(String::from_utf8(out).expect("text"), shown);
    }
}
