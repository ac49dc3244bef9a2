//! Git's nouns as plain values: [`Oid`], [`RefName`], [`RefUpdate`], [`Ancestry`].
//!
//! Guaranteed: a [`RefName`] obeys git-check-ref-format(1), so it is safe to use as a relative path. It is safe to print on
//! one line, because `Display` escapes what git allows and a terminal would obey. Names are bytes and need not be UTF-8.
//! Absent: objects, stores and gix, so that the hook can use this module.
//! Nothing here reads or writes, so a crash changes nothing.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::terminal::escaped;

/// An object id: 20 bytes (SHA-1) or 32 (SHA-256).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid {
    len: u8,
    bytes: [u8; 32],
}

impl Oid {
    /// Parses 40 or 64 lower-case or upper-case hexadecimal digits; anything else is `None`.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != 40 && hex.len() != 64 {
            return None;
        }
        let (mut bytes, mut seen) = ([0; 32], 0);
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
            seen |= high | low;
            *byte = high << 4 | low;
        }
        (seen != NO_DIGIT).then_some(Self { len: (hex.len() / 2) as u8, bytes })
    }

    /// Takes 20 or 32 raw bytes; any other length is `None`.
    #[must_use]
    pub fn from_bytes(raw: &[u8]) -> Option<Self> {
        if raw.len() != 20 && raw.len() != 32 {
            return None;
        }
        let mut bytes = [0; 32];
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Self { len: raw.len() as u8, bytes })
    }

    /// The id of all zeros and of the same length as `self`, git's word for "no object".
    #[must_use]
    pub fn null(self) -> Self {
        Self { len: self.len, bytes: [0; 32] }
    }

    /// Whether this is the id of all zeros.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// `self`, or `None` if it is the null id.
    #[must_use]
    pub fn non_null(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }

    /// The raw bytes, 20 or 32 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The first seven digits, as git abbreviates.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..7].to_owned()
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&hex[..usize::from(self.len) * 2]).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All bits are set: the bitwise OR of the digits has this value only if one of them was invalid.
const NO_DIGIT: u8 = 0xff;

/// The value of each hexadecimal digit.
const DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// A full ref name such as `refs/heads/main`, in bytes. Clones share the bytes, because many lists hold the same name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(Arc<[u8]>);

impl RefName {
    /// Takes a full name that starts with `refs/` and obeys git-check-ref-format(1); anything else is `None`.
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        NameRef::new(name).map(NameRef::to_owned)
    }

    /// The name, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> NameRef<'_> {
        NameRef(&self.0)
    }

    /// The whole name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What follows `refs/heads/`, if this is a branch.
    #[must_use]
    pub fn branch(&self) -> Option<&[u8]> {
        self.borrowed().branch()
    }

    /// What follows `refs/tags/`, if this is a tag.
    #[must_use]
    pub fn tag(&self) -> Option<&[u8]> {
        self.borrowed().tag()
    }

    /// Git's short form for people: `main` for `refs/heads/main`.
    #[must_use]
    pub fn short(&self) -> String {
        escaped(&String::from_utf8_lossy(self.branch().or_else(|| self.tag()).unwrap_or(&self.0)))
    }

    /// The whole name as text, for programs: nothing is escaped, and only bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Borrow<[u8]> for RefName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A borrowed, well-formed full ref name. Most names of an advertisement are only read, so they are not copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameRef<'a>(&'a [u8]);

impl<'a> NameRef<'a> {
    /// Accepts the same names as [`RefName::new`].
    #[must_use]
    pub fn new(name: &'a [u8]) -> Option<Self> {
        is_well_formed(name).then_some(Self(name))
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(self) -> RefName {
        RefName(self.0.into())
    }

    /// The whole name.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// What follows `refs/heads/`, if this is a branch.
    #[must_use]
    pub fn branch(self) -> Option<&'a [u8]> {
        self.0.strip_prefix(b"refs/heads/")
    }

    /// What follows `refs/tags/`, if this is a tag.
    #[must_use]
    pub fn tag(self) -> Option<&'a [u8]> {
        self.0.strip_prefix(b"refs/tags/")
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&String::from_utf8_lossy(&self.0)))
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a byte may be in a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Byte {
    Plain,
    /// Allowed or not, depending on the bytes before it.
    Special,
    Forbidden,
}

const BYTES: [Byte; 256] = {
    let mut table = [Byte::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0..=b' ' | 0x7f | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\' => Byte::Forbidden,
            b'/' | b'.' | b'{' => Byte::Special,
            _ => Byte::Plain,
        };
        byte += 1;
    }
    table
};

/// Checks each byte once, because a mirror may advertise a hundred thousand refs.
fn is_well_formed(name: &[u8]) -> bool {
    let Some(name) = name.strip_prefix(b"refs/") else { return false };
    let mut before = b'/';
    for (at, byte) in name.iter().copied().enumerate() {
        let is_good = match (BYTES[usize::from(byte)], byte) {
            (Byte::Plain, _) => true,
            (Byte::Forbidden, _) => false,
            (Byte::Special, b'/') => before != b'/' && !name[..at].ends_with(b".lock"),
            (Byte::Special, b'.') => before != b'/' && before != b'.',
            (Byte::Special, _) => before != b'@',
        };
        if !is_good {
            return false;
        }
        before = byte;
    }
    before != b'/' && before != b'.' && !name.ends_with(b".lock")
}

/// One line of post-receive's standard input (githooks(5)): `old new ref`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// The value before the push; null when the push created the ref.
    pub old: Oid,
    /// The value after the push; null when the push deleted the ref.
    pub new: Oid,
    /// The ref that moved.
    pub name: RefName,
}

impl RefUpdate {
    /// Parses `old SP new SP ref` without its line feed; a line of any other form is `None`.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b' ');
        let old = Oid::from_hex(fields.next()?)?;
        let new = Oid::from_hex(fields.next()?)?;
        let name = RefName::new(fields.next()?)?;
        (old.len == new.len).then_some(Self { old, new, name })
    }
}

/// What this repository has under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// No such ref.
    Absent,
    /// A ref with a value.
    At(Oid),
    /// A symbolic ref, which is not mirrored.
    Symbolic,
    /// A ref whose value cannot be read.
    Unreadable,
}

/// How the mirror's value of a ref relates to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    /// Both are the same value.
    Equal,
    /// The mirror's value is an ancestor of ours: a fast-forward.
    Behind,
    /// The mirror's value is not an ancestor of ours, or one of the two has no history (a tag of a blob or tree).
    Diverged,
    /// We do not have the mirror's object, or our history is not complete enough to compare.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_of_both_formats_survive_their_text() {
        for hex in ["0123456789abcdef0123456789abcdef01234567", &"fe".repeat(32)] {
            let oid = Oid::from_hex(hex.as_bytes()).expect("valid");
            assert_eq!(oid.to_string(), hex);
            assert_eq!(Oid::from_bytes(oid.as_bytes()), Some(oid));
            assert!(oid.null().is_null() && oid.null().non_null().is_none());
        }
        for bad in ["", "0", &"g".repeat(40), &"a".repeat(41)] {
            assert_eq!(Oid::from_hex(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn names_follow_check_ref_format() {
        for good in [
            &b"refs/heads/main"[..],
            b"refs/heads/HEAD",
            b"refs/heads/tag",
            b"refs/heads/a%20\"'b",
            b"refs/tags/\xff\xfe",
        ] {
            assert!(RefName::new(good).is_some(), "{}", String::from_utf8_lossy(good));
        }
        for bad in [
            &b"HEAD"[..],
            b"refs/heads/../../x",
            b"refs/heads/a b",
            b"refs/heads/a\nb",
            b"refs//x",
            b"refs/heads/",
            b"refs/heads/.a",
            b"refs/heads/a.lock",
            b"refs/heads/a.lock/b",
            b"refs/heads/a@{b",
            b"refs/heads/a.",
            b"refs/heads/a\0",
            b"heads/x",
            b"",
        ] {
            assert!(RefName::new(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
