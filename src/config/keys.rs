//! The keys of the configuration. `table!` declares a key once: its type, its place, its default and its text. From that come the structure
//! that serde reads, the merging of two files, the list for git-mirror-push-config(5) and `docs/configuration.md`, the advice for a
//! mistyped key, and `set KEY=VALUE`.

use super::file::{Api, HostKeys, Repositories, TopKeys};
use super::fleet::FleetKeys;
use super::settings::Settings;

/// The table and the file in which a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of the repository's file or of the server's files.
    Top,
    /// At the top of the server's files.
    Server,
    /// In `[api]` of the server's files.
    Api,
    /// In `[[repositories]]` of the server's files.
    Repositories,
    /// In `[hosts.NAME]` of the server's files.
    Hosts,
    /// In `[fleet]` of the server's files.
    Fleet,
    /// In `[remotes.NAME]` or `[defaults]`.
    Remote,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The table and the file in which it may be.
    pub place: Place,
    /// The type of its value, and after a semicolon the default.
    pub value: &'static str,
    /// What it means.
    pub text: &'static str,
}

impl Key {
    /// The type of its value.
    pub(super) fn kind(&self) -> &'static str {
        self.value.split(';').next().unwrap_or_default()
    }
}

/// A table of the files.
pub(super) trait Table {
    /// Its keys, in the order of the manual page.
    const KEYS: &'static [Key];

    /// Merges two tables: for each key the value of `self`, or else that of `below`.
    fn over(self, below: &Self) -> Self;

    /// The keys that have a value.
    fn said(&self) -> impl Iterator<Item = &'static Key>;

    /// Removes the values of all keys that are not in `kept`, and returns the names of the keys whose value was removed.
    fn forget_others(&mut self, kept: &[&str]) -> Vec<&'static str>;
}

/// Declares a table of the files: `KEY: TYPE, PLACE, "VALUE; DEFAULT" [, via "READER"];`, with the key's text as its doc comment. It makes
/// a structure with an optional field for each key, and the list of the keys. The fields after `with` are not keys. They make a second
/// structure for a whole file, which also has the keys.
macro_rules! table {
    (
        $(#[$about:meta])* $visible:vis $name:ident:
        $($(#[doc = $text:literal])+ $key:ident: $kind:ty, $place:ident, $value:literal $(, via $reader:tt)?;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        $visible struct $name {
            $($(#[doc = $text])+ #[serde(default $(, deserialize_with = $reader)?)] pub $key: Option<$kind>,)*
        }

        impl crate::config::keys::Table for $name {
            const KEYS: &'static [crate::config::Key] = &[$(crate::config::Key {
                name: stringify!($key),
                place: crate::config::Place::$place,
                value: $value,
                text: concat!($($text),+).trim_ascii(),
            },)*];

            fn over(self, below: &Self) -> Self {
                Self { $($key: self.$key.or_else(|| below.$key.clone()),)* }
            }

            fn said(&self) -> impl Iterator<Item = &'static crate::config::Key> {
                let is_said = [$(self.$key.is_some(),)*];
                Self::KEYS.iter().zip(is_said).filter_map(|(key, is_said)| is_said.then_some(key))
            }

            fn forget_others(&mut self, kept: &[&str]) -> Vec<&'static str> {
                let mut forgotten = Vec::new();
                $(if !kept.contains(&stringify!($key)) && self.$key.take().is_some() {
                    forgotten.push(stringify!($key));
                })*
                forgotten
            }
        }
    };
    (
        $(#[$about:meta])* $visible:vis $name:ident:
        $($(#[doc = $text:literal])+ $key:ident: $kind:ty, $place:ident, $value:literal $(, via $reader:tt)?;)*
        with $(#[$whole_about:meta])* $whole:ident { $($(#[$attribute:meta])* $section:ident: $section_kind:ty,)* }
    ) => {
        table! {
            $(#[$about])* $visible $name:
            $($(#[doc = $text])+ $key: $kind, $place, $value $(, via $reader)?;)*
        }

        $(#[$whole_about])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $whole {
            $(#[serde(default $(, deserialize_with = $reader)?)] $key: Option<$kind>,)*
            $($(#[$attribute])* pub(super) $section: $section_kind,)*
        }

        impl $whole {
            /// The keys at the top.
            pub(super) fn keys(&self) -> $name {
                $name { $($key: self.$key.clone(),)* }
            }

            /// Changes the keys at the top.
            pub(super) fn set_keys(&mut self, keys: $name) {
                $(self.$key = keys.$key;)*
            }
        }
    };
}
pub(super) use table;

/// The places of keys in the order of the manual page, with their headings.
pub const SECTIONS: [(Place, &str); 7] = [
    (Place::Top, "Keys at the top of either file"),
    (Place::Server, "Keys at the top of the server's files"),
    (Place::Api, "Keys of [api]"),
    (Place::Repositories, "Keys of [[repositories]]"),
    (Place::Hosts, "Keys of [hosts.NAME]"),
    (Place::Fleet, "Keys of [fleet]"),
    (Place::Remote, "Keys of [remotes.NAME] and [defaults]"),
];

const fn section(name: &'static str, place: Place, value: &'static str, text: &'static str) -> Key {
    Key { name, place, value, text }
}

/// The tables themselves.
const TABLES: &[Key] = &[
    section(
        "[[repositories]]",
        Place::Server,
        "table, repeated",
        "Where repositories are, for --all, the daemon and templates.",
    ),
    section(
        "[hosts.NAME]",
        Place::Server,
        "table",
        "Limits for one host. NAME is the host of a URL, with a port if only that port is meant: [hosts.\"github.com\"].",
    ),
    section(
        "[fleet]",
        Place::Server,
        "table",
        "The database of several machines that show each other's mirrors; see docs/fleet.md.",
    ),
    section("[api]", Place::Server, "table", "Limits for mirrors that are created through the API or the page."),
    section(
        "[defaults]",
        Place::Top,
        "table",
        "Values for the keys of [remotes.NAME] that a mirror does not set itself.",
    ),
    section(
        "[remotes.NAME]",
        Place::Top,
        "table",
        "A mirror. In the server's files: a mirror of every repository below the roots. NAME is 1 to 64 ASCII letters, digits, '.', '_' and '-', and begins with a letter or digit.",
    ),
];

/// All keys. Those of one place are in the order of the manual page.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [TopKeys::KEYS, Api::KEYS, Repositories::KEYS, HostKeys::KEYS, FleetKeys::KEYS, Settings::KEYS, TABLES]
        .into_iter()
        .flatten()
}
