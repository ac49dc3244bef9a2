//! Text that may be logged, stored and shown: a redactor has cleaned it, or it is a constant of ours.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

use super::Redactor;

/// Cleaned text. What is read back from a file is cleaned again, because others may be able to write the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Cleaned(String);

impl Cleaned {
    /// For the redactor alone.
    pub(super) fn by_redactor(text: String) -> Self {
        Self(text)
    }

    /// This text, then `more`.
    #[must_use]
    pub fn and(mut self, more: &Self) -> Self {
        self.0.push_str(more);
        self
    }

    /// This text, then a text of ours. `ours` must not contain anything that a mirror sent.
    #[must_use]
    pub fn and_ours(self, ours: &str) -> Self {
        self.and(&Redactor::default().clean(ours))
    }

    /// This text on one line.
    #[must_use]
    pub fn on_one_line(self) -> Self {
        Self(self.0.replace('\n', " "))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Cleaned {
    fn from(ours: &'static str) -> Self {
        Self(ours.to_owned())
    }
}

impl Deref for Cleaned {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cleaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Cleaned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Redactor::default().clean(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_or_read_is_cleaned_too() {
        let text = Cleaned::from("no").and_ours("\u{1b}[31m https://u:p@h/x");
        assert_eq!(&*text, "no[31m https://*****:*****@h/x");
        let read: Cleaned = serde_json::from_str(r#""a\u0007b https://t@h/""#).expect("text");
        assert_eq!(&*read, "ab https://*****@h/");
        assert_eq!(serde_json::to_string(&read).expect("text"), r#""ab https://*****@h/""#);
    }
}
