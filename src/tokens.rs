//! The tokens of the API: `token create` makes them, the daemon checks them.
//!
//! Guaranteed: a token is shown once. Only its SHA-256 is stored, which is enough for a secret of 160 random bits. The file `tokens.json`
//! has mode 0600 and is replaced atomically under a lock. If root writes it, it gets the owner of its directory. Absent: users. A token has
//! a name, and may be bound to projects. A crash leaves the old file or the new one.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use fs2::FileExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::Secret;
use crate::durable;

/// The prefix of every token, by which scanners recognise a leaked one.
pub const PREFIX: &str = "gmpat-";

/// The minimum time between two records of a token's last use.
const USE_INTERVAL: Duration = Duration::from_secs(60);

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Api,
    /// Read only.
    ReadApi,
    /// Only make a check of an upstream due (`POST …/mirror/pull`).
    Pull,
}

impl Scope {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::ReadApi => "read_api",
            Self::Pull => "pull",
        }
    }
}

/// What is stored about a token; not the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its name.
    pub name: String,
    /// SHA-256, in hexadecimal digits.
    sha256: String,
    /// What it may do.
    pub scope: Scope,
    /// The projects it is bound to, by their path or by a pattern with `*`; empty for all.
    pub projects: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl Token {
    /// Whether it has expired.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// Whether it reaches the project of that path.
    #[must_use]
    pub fn reaches(&self, path: &str) -> bool {
        let matches = |pattern: &String| crate::plan::Pattern::new(pattern.as_bytes()).matches(path.as_bytes());
        self.projects.is_empty() || self.projects.iter().any(matches)
    }
}

/// The properties of a new token.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// The projects it is bound to; empty for all.
    pub projects: Vec<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// The inode and the modification time of the file of tokens.
pub type Stamp = (u64, i64, i64);

/// The file of tokens.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The tokens in the daemon's state directory. The first change creates the directory.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { directory: state_directory.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("tokens.json")
    }

    /// A value that changes when the file changes. `None` if there is no file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn stamp(&self) -> io::Result<Option<Stamp>> {
        match std::fs::metadata(self.path()) {
            Ok(file) => Ok(Some((file.ino(), file.mtime(), file.mtime_nsec()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All tokens.
    ///
    /// # Errors
    /// The operating system's, or that the file is damaged or belongs to another user.
    pub fn read(&self) -> io::Result<Vec<Token>> {
        match durable::read(&self.path()) {
            Ok((text, file)) => {
                self.check_owner(&file)?;
                serde_json::from_slice(&text).map_err(io::Error::from)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Refuses a file of another user, because its tokens would let that user in.
    fn check_owner(&self, file: &Metadata) -> io::Result<()> {
        let ours = rustix::process::geteuid();
        // Root reads what the daemon's user owns.
        let is_daemons = || std::fs::metadata(&self.directory).is_ok_and(|directory| directory.uid() == file.uid());
        if file.uid() == 0 || file.uid() == ours.as_raw() || ours.is_root() && is_daemons() {
            return Ok(());
        }
        let text = format!("'{}' belongs to another user; remove it", self.path().display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    /// Makes a token.
    ///
    /// # Errors
    /// The operating system's, those of [`Self::read`], or [`io::ErrorKind::AlreadyExists`] when a token has that name.
    pub fn create(&self, wanted: NewToken, now: Timestamp) -> io::Result<Secret> {
        let mut random = [0; 20];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let text = format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random));
        let token = Token {
            name: wanted.name,
            sha256: digest(&text),
            scope: wanted.scope,
            projects: wanted.projects,
            created_at: now,
            expires_at: wanted.expires_at,
            last_used_at: None,
        };
        self.change(|tokens| {
            if tokens.iter().any(|known| known.name == token.name) {
                let text = format!("a token '{}' is there already; revoke it, or use another name", token.name);
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            tokens.push(token);
            Ok(())
        })?;
        Ok(Secret::new(text))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// The operating system's, those of [`Self::read`], or [`io::ErrorKind::NotFound`] when no token has that name.
    pub fn revoke(&self, name: &str) -> io::Result<()> {
        self.change(|tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.name != name);
            match tokens.len() < before {
                true => Ok(()),
                false => {
                    let text = format!("no token '{}'; 'git mirror-push token list' shows them", name.escape_debug());
                    Err(io::Error::new(io::ErrorKind::NotFound, text))
                }
            }
        })
    }

    /// Records that a token was used. Ask [`is_use_due`] first: once a minute is enough.
    ///
    /// # Errors
    /// The operating system's, those of [`Self::read`], or [`io::ErrorKind::WouldBlock`] while another thread or process changes it.
    pub fn note_use(&self, name: &str, now: Timestamp) -> io::Result<()> {
        let take = |lock: &std::fs::File| lock.try_lock_exclusive();
        self.change_under(take, |tokens| {
            if let Some(token) = tokens.iter_mut().find(|token| token.name == name) {
                token.last_used_at = Some(now);
            }
            Ok(())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Token>) -> io::Result<()>) -> io::Result<()> {
        self.change_under(|lock| lock.lock_exclusive(), change)
    }

    fn change_under(
        &self,
        take: impl FnOnce(&std::fs::File) -> io::Result<()>,
        change: impl FnOnce(&mut Vec<Token>) -> io::Result<()>,
    ) -> io::Result<()> {
        durable::make_directories(&self.directory, 0o700)?;
        let lock = durable::open_lock(&self.directory.join("tokens.lock"), 0o600)?;
        take(&lock)?;
        let mut tokens = self.read()?;
        change(&mut tokens)?;
        let mut text = serde_json::to_vec_pretty(&tokens)?;
        text.push(b'\n');
        let owner = std::fs::metadata(&self.directory)?;
        durable::replace(&self.path(), &text, |file| {
            if rustix::process::geteuid().is_root() && owner.uid() != 0 {
                // The daemon, which runs as another user, must be able to read what root has made for it.
                std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
            }
            Ok(())
        })
    }
}

/// The stored token that matches `given`, if there is one. Compares every stored token, each in constant time.
#[must_use]
pub fn find<'t>(tokens: &'t [Token], given: &str) -> Option<&'t Token> {
    let given = digest(given);
    let is_it = |token: &Token| bool::from(token.sha256.as_bytes().ct_eq(given.as_bytes()));
    tokens.iter().fold(None, |found, token| if is_it(token) { Some(token) } else { found })
}

/// Whether a use at `now` should be recorded: the last record is at least a minute old, or there is none.
#[must_use]
pub fn is_use_due(token: &Token, now: Timestamp) -> bool {
    let since = |last: Timestamp| Duration::try_from(now.duration_since(last)).unwrap_or_default();
    token.last_used_at.is_none_or(|last| since(last) >= USE_INTERVAL)
}

fn digest(text: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_changes_lose_no_token_and_bring_none_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::new(directory.path());
        let now = Timestamp::from_second(1_000).expect("small");
        let wanted = |name: String| NewToken { name, scope: Scope::Api, projects: Vec::new(), expires_at: None };
        for n in 0..20 {
            store.create(wanted(format!("old{n}")), now).expect("made");
        }
        std::thread::scope(|scope| {
            for n in 0..20 {
                let store = &store;
                scope.spawn(move || store.create(wanted(format!("new{n}")), now).expect("made"));
                scope.spawn(move || store.revoke(&format!("old{n}")).expect("revoked"));
                scope.spawn(move || {
                    // If the file is locked, this use is not recorded. The next use is.
                    let noted = store.note_use(&format!("new{}", (n + 1) % 20), now).map_err(|error| error.kind());
                    assert!(matches!(noted, Ok(()) | Err(io::ErrorKind::WouldBlock)), "{noted:?}");
                });
            }
        });
        let names: Vec<String> = store.read().expect("read").into_iter().map(|token| token.name).collect();
        assert!(names.len() == 20 && names.iter().all(|name| name.starts_with("new")), "{names:?}");
    }

    #[test]
    fn a_token_is_found_only_by_its_own_text_which_is_not_stored() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::new(&directory.path().join("state"));
        let now = Timestamp::from_second(1_000).expect("small");
        let wanted = |name: &str| NewToken {
            name: name.into(),
            scope: Scope::Api,
            projects: vec!["acme/*".into()],
            expires_at: Some(Timestamp::from_second(2_000).expect("small")),
        };
        let secret = store.create(wanted("a"), now).expect("made");
        let other = store.create(wanted("b"), now).expect("made");
        assert_eq!(store.create(wanted("a"), now).expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        let tokens = store.read().expect("read");
        assert_eq!(find(&tokens, secret.expose()).map(|token| &*token.name), Some("a"));
        assert_eq!(find(&tokens, other.expose()).map(|token| &*token.name), Some("b"));
        for wrong in ["", "gmpat-", &secret.expose()[1..], &tokens[0].sha256] {
            assert_eq!(find(&tokens, wrong), None);
        }
        let stored = durable::read_text(&store.path()).expect("read");
        assert!(!stored.contains(secret.expose()));
        assert_eq!(std::fs::metadata(store.path()).expect("there").mode() & 0o777, 0o600);
        let token = &tokens[0];
        assert!(token.reaches("acme/x") && !token.reaches("other/x"));
        assert!(!token.is_expired(now) && token.is_expired(Timestamp::from_second(2_000).expect("small")));
        store.note_use("a", now).expect("noted");
        assert!(!is_use_due(&store.read().expect("read")[0], now));
        store.revoke("a").expect("revoked");
        assert_eq!(find(&store.read().expect("read"), secret.expose()), None);
        assert_eq!(store.revoke("a").expect_err("gone").kind(), io::ErrorKind::NotFound);
    }
}
