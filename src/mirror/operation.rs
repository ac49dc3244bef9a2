//! One change to a mirror as a value. Root hands it to a process of the repository's owner, which makes the change and answers.
//!
//! Absent: the hook, which the caller installs, and waking drains.

use std::io::{self, Read};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Editor, Error, Extras, Keys, Seen, Wish, detect};
use crate::config::{self, Change};
use crate::credentials::{HostKey, Secret};

/// Time limit for a server to send its host keys.
const DETECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for a process that changes something. It waits up to ten seconds for the lock of the configuration.
const CHANGE: Duration = Duration::from_secs(20);
/// Time limit for a process that asks a server for its host keys, with the lookup of its name.
const DETECT: Duration = Duration::from_secs(40);

/// What is to be done with the mirror of a name.
#[derive(Debug, Serialize, Deserialize)]
pub enum Operation {
    /// See [`Editor::add`].
    Add(String, #[serde(with = "keys")] Keys, #[serde(with = "extras")] Extras),
    /// See [`Editor::set`].
    Set(Seen, #[serde(with = "keys")] Keys, #[serde(with = "extras")] Extras),
    /// Removes it. While a run works on it, its files stay; the next scan after the run removes them.
    Remove(String),
    /// See [`Editor::request`].
    Request(Seen, Wish),
    /// Asks the mirror's server for its host keys. Changes nothing.
    Detect(String),
}

/// The outcome of an operation in another process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done. For [`Operation::Detect`], these are the host keys, as lines of ssh-keyscan(1).
    Done(Vec<String>),
    /// It cannot be done.
    Refused(String),
    /// It cannot be done now.
    Busy(String),
    /// An error that only the administrator should see.
    Failed(String),
}

impl Operation {
    /// Does it. Returns the host keys of [`Operation::Detect`], and otherwise nothing.
    ///
    /// # Errors
    /// As the method of [`Editor`], or [`detect`].
    pub fn run(&self, editor: &Editor<'_>) -> Result<Vec<HostKey>, Error> {
        match self {
            Self::Add(name, keys, extras) => editor.add(name, keys.clone(), extras).map(drop)?,
            Self::Set(seen, keys, extras) => editor.set(seen, keys.clone(), extras).map(drop)?,
            Self::Remove(name) => {
                editor.unconfigure(name)?;
                match editor.delete_files(name) {
                    Ok(()) | Err(Error::Busy { .. }) => {}
                    Err(error) => tracing::warn!("'{}': {error}", editor.repository.git_dir().display()),
                }
            }
            Self::Request(seen, wish) => {
                editor.prepare()?;
                let config = config::load(editor.repository, editor.server)?;
                seen.in_config(&config)?;
                editor.request(&config, &seen.name, *wish)?;
            }
            Self::Detect(name) => {
                config::authorise(editor.repository, editor.server)?;
                let config = config::load(editor.repository, editor.server)?;
                let mirror = config.mirror(name).ok_or_else(|| Error::Moved { name: name.clone() })?;
                return detect(mirror, editor.server, DETECT_LIMIT);
            }
        }
        Ok(Vec::new())
    }

    /// How long a process may take for it.
    #[must_use]
    pub fn limit(&self) -> Duration {
        if matches!(self, Self::Detect(_)) { DETECT } else { CHANGE }
    }

    /// The operation as JSON, with its password in the clear: only for memory or a pipe.
    ///
    /// # Errors
    /// The operating system's.
    pub fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what [`Operation::to_json`] has given.
    ///
    /// # Errors
    /// The operating system's, or the text is something else.
    pub fn read(input: impl Read) -> io::Result<Self> {
        Ok(serde_json::from_reader(input)?)
    }
}

impl From<Result<Vec<HostKey>, Error>> for Answer {
    fn from(done: Result<Vec<HostKey>, Error>) -> Self {
        match done {
            Ok(keys) => Self::Done(keys.into_iter().map(|key| key.line).collect()),
            Err(error) => error.into(),
        }
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        use config::Error as Config;
        match error {
            Error::Refused(text) | Error::Config(Config::Change(text) | Config::Value(text)) => Self::Refused(text),
            Error::Config(Config::OnlyAsOwner { .. } | Config::ForeignRepository { .. }) => Self::Refused(
                "the repository belongs to another user of the server; only that user can change its mirrors".into(),
            ),
            Error::Busy { .. } | Error::Moved { .. } | Error::Config(Config::Busy { .. }) => {
                Self::Busy(error.to_string())
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

/// The names of keys are those of the configuration.
mod keys {
    use super::{Change, Deserialize, Deserializer, Keys, Serialize, Serializer, config};

    pub(super) fn serialize<S: Serializer>(keys: &Keys, to: S) -> Result<S::Ok, S::Error> {
        keys.serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Keys, D::Error> {
        let known = |name: &str| config::keys().find(|key| key.name == name).map(|key| key.name);
        let keys = Vec::<(String, Change)>::deserialize(from)?.into_iter();
        let keys = keys.map(|(name, change)| known(&name).map(|name| (name, change)));
        keys.collect::<Option<Keys>>().ok_or_else(|| serde::de::Error::custom("an unknown key"))
    }
}

/// What goes along: password, host keys, and whether first contact is confirmed. A new ssh key is never asked for.
mod extras {
    use super::{Deserialize, Deserializer, Extras, HostKey, Secret, Serialize, Serializer};

    type Sent = (Option<String>, Option<Vec<String>>, bool);

    pub(super) fn serialize<S: Serializer>(extras: &Extras, to: S) -> Result<S::Ok, S::Error> {
        let secret = extras.secret.as_ref().map(|secret| secret.expose().to_owned());
        let host_keys = extras.host_keys.as_ref().map(|keys| keys.iter().map(|key| key.line.clone()).collect());
        let sent: Sent = (secret, host_keys, extras.adopts);
        sent.serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Extras, D::Error> {
        let (secret, host_keys, adopts) = Sent::deserialize(from)?;
        let host_keys = host_keys.map(|lines| lines.iter().filter_map(|line| HostKey::parse(line)).collect());
        Ok(Extras { secret: secret.map(Secret::new), host_keys, adopts, key_type: None })
    }
}
