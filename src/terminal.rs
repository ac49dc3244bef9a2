//! Text of others for a terminal, a log, a page or a label: names, paths, URLs and messages.
//!
//! Guaranteed: no terminal and no browser obeys the text that is returned, and it reads in the order in which it was written. Pure, so a
//! crash changes nothing. Absent: secrets (see `credentials`) and the escapes of a format, such as those of HTML.

/// Escapes control characters, line feeds included, and characters that change the direction of text or break a line, as `\u{9b}`.
#[must_use]
pub fn escaped(text: &str) -> String {
    escaped_but(text, &[])
}

/// The same for text of several lines: line feeds and tabs stay.
#[must_use]
pub fn escaped_lines(text: &str) -> String {
    escaped_but(text, &['\n', '\t'])
}

fn escaped_but(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !kept.contains(&c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Whether a terminal or a browser may obey a character instead of showing it: control characters, direction marks (Unicode annex 9) and
/// line separators.
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
