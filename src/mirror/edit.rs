//! Adding, changing and removing a mirror, for the command line and the API.
//!
//! Guaranteed: the files of a new mirror, its ssh key included, are made before the configuration
//! names it. When a mirror is removed, its entry in the configuration is deleted first, then its
//! files. So a crash during either leaves a mirror that works, or no mirror. A crash during a
//! change may leave a mirror without its new password or key. If URL and password change together,
//! the new URL never gets the old password, and the old URL never the new one. A change or a password
//! is stored only if the mirror still has the address that its author has seen, and a confirmation
//! names that address. Absent: waking drains, installing the hook, what an API
//! token may do, and whether a stored password may be sent to another host. The callers do that.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, Lock, Seen, forget, mark_removed, new_id, prepare, unmoved};
use crate::config::{self, AuthMethod, Change, Config, Edit, Mirror, Server, edit};
use crate::credentials::{self, Credentials, HostKey, KeyType, Secret, remove_secret, write_host_keys, write_secret};
use crate::repo::Repository;
use crate::spool;
use crate::wire::{Address, parse};

/// Keys of a mirror with their new values.
pub type Keys = Vec<(&'static str, Change)>;

/// What a change may bring along besides keys of the configuration.
#[derive(Debug, Default)]
pub struct Extras {
    /// A new password or token. An empty one removes the stored one.
    pub secret: Option<Secret>,
    /// Host keys that replace the pinned ones.
    pub host_keys: Option<Vec<HostKey>>,
    /// Whether first contact with the mirror's new address is confirmed.
    pub adopts: bool,
    /// Makes a new key of this type. `None` makes one only if `auth_method` needs a key and the mirror has none.
    pub key_type: Option<KeyType>,
}

/// Why a full sync is made due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// The configuration has changed.
    Compare,
    /// A person asked for it: refs that go back and forth are sent again.
    Sync,
    /// The same, and first contact with the address that is configured now is confirmed.
    Adopt,
}

/// Where a change is made.
#[derive(Clone, Copy)]
pub struct Editor<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The server's files.
    pub server: &'a Server,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// What to do while a drain works on the mirror.
    pub while_busy: WhileBusy,
}

/// What to do while another process or thread holds the lock of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileBusy {
    /// Wait. A run may take hours.
    Wait,
    /// Refuse, with [`Error::Busy`].
    Refuse,
}

impl Editor<'_> {
    fn directory(&self, name: &str) -> PathBuf {
        self.repository.layout().remote(name)
    }

    fn lock(&self, name: &str) -> Result<Lock, Error> {
        let (directory, sharing) = (self.directory(name), self.repository.sharing());
        match self.while_busy {
            WhileBusy::Wait => Lock::acquire(&directory, sharing),
            WhileBusy::Refuse => {
                Lock::try_acquire(&directory, sharing)?.ok_or_else(|| Error::Busy { name: name.to_owned() })
            }
        }
    }

    fn files(&self, doing: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> Error {
        let path = self.directory(name);
        Error::files(doing, path)
    }

    /// Makes sure that this process may change the repository, and makes the directory that holds everything of ours.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Files`]
    pub fn prepare(&self) -> Result<(), Error> {
        config::authorise(self.repository, self.server)?;
        let layout = self.repository.layout();
        let mode = self.repository.sharing().directory_mode().unwrap_or(0o755);
        spool::prepare(&layout, mode).map_err(Error::files("make directories", layout.root().to_owned()))
    }

    /// Adds a mirror and makes its first sync due.
    ///
    /// # Errors
    /// [`Error`]. The mirror is then not added. One exception: if only the fsync of the configuration's directory failed, it may be there.
    pub fn add(&self, name: &str, keys: Keys, extras: &Extras) -> Result<Config, Error> {
        self.prepare()?;
        // The name is checked before it becomes a directory.
        let change = Edit::Add(name.to_owned(), keys);
        self.refuse_doubtful(&config::check_edit(self.repository, self.server, &change)?, name)?;
        prepare(self.repository, name)?;
        // A mirror of this name may just have been removed. A drain that still cleans up after it must not delete the new files.
        let _lock = self.lock(name)?;
        // This fails if somebody has added the mirror meanwhile. Otherwise the files here belong to an earlier mirror of this name, and its
        // password is not for the new URL.
        config::check_edit(self.repository, self.server, &change)?;
        forget(&self.directory(name)).map_err(self.files("remove the files of an earlier mirror", name))?;
        prepare(self.repository, name)?;
        self.store(name, extras)?;
        let id = new_id((self.now)());
        let due = spool::request_full_sync(&self.repository.layout(), name, id);
        due.map_err(self.files("make the first sync due", name))?;
        // The last step is the configuration: until then, nothing of the mirror counts.
        let config = config::check_edit(self.repository, self.server, &change)?;
        self.make_key(&config, name, extras.key_type)?;
        if extras.adopts {
            self.request(&config, name, Wish::Adopt)?;
        }
        Ok(edit(self.repository, self.server, &change)?)
    }

    /// Changes the mirror that was seen, and makes a comparison due.
    ///
    /// # Errors
    /// [`Error`]. With [`Error::Moved`], nothing was changed.
    pub fn set(&self, seen: &Seen, keys: Keys, extras: &Extras) -> Result<Config, Error> {
        let name = &*seen.name;
        self.prepare()?;
        prepare(self.repository, name)?;
        let change = Edit::Set(name.to_owned(), keys);
        let after = config::check_edit(self.repository, self.server, &change)?;
        let changes =
            |wanted: &[&str]| matches!(&change, Edit::Set(_, keys) if keys.iter().any(|(key, _)| wanted.contains(key)));
        if changes(&["url"]) {
            self.refuse_doubtful(&after, name)?;
        } else if changes(&["enabled", "only_protected_branches", "mirror_branch_regex", "tags", "refspecs"]) {
            // The URL does not change, so a doubt about it must not prevent another change.
            let of_url = after.mirror(name).and_then(|mirror| config::misread_url(&mirror.address));
            let doubts = after.mirror(name).map(|mirror| self.warnings(&after, mirror)).unwrap_or_default();
            doubts
                .into_iter()
                .find(|doubt| Some(doubt) != of_url.as_ref())
                .map_or(Ok(()), |doubt| Err(Error::Refused(doubt)))?;
        }
        let path = self.directory(name).join("secret");
        // This lock is held until the password and the pins are stored too. Otherwise, of two changes at once, one could store the URL and
        // the other the password.
        let file = config::Locked::take(self.repository)?;
        unmoved(self.repository, self.server, seen)?;
        let mut old = None;
        if extras.secret.is_some() && seen.in_config(&after).is_err() {
            old = credentials::read_secret(&path).ok().flatten();
            // If we are killed before `store` below, the mirror has no password. A password for another host would be worse.
            remove_secret(&path).map_err(self.files("remove the secret", name))?;
        }
        let edited = file.edit(self.server, &change);
        if let (Err(_), Some(old)) = (&edited, &old)
            && self.is_not_yet(&after, name)
        {
            // If the password cannot be put back, the error of the change matters more.
            let _ = write_secret(&path, old);
        }
        let config = edited?;
        self.store(name, extras)?;
        drop(file);
        self.make_key(&config, name, extras.key_type)?;
        self.request(&config, name, if extras.adopts { Wish::Adopt } else { Wish::Compare })?;
        Ok(config)
    }

    /// Whether the configuration file is sure to have the mirror's old URL, although writing the new configuration failed. If only the fsync
    /// of its directory failed, the file may have the new URL already.
    fn is_not_yet(&self, after: &Config, name: &str) -> bool {
        let url = |config: &Config| config.mirror(name).map(Mirror::identity);
        let in_file = config::load(self.repository, self.server).ok().and_then(|config| url(&config));
        in_file.is_some() && in_file != url(after)
    }

    /// Refuses likely mistakes, for example a port that is read as a path, or a second mirror with the same URL and refs.
    fn refuse_doubtful(&self, after: &Config, name: &str) -> Result<(), Error> {
        let Some(mirror) = after.mirror(name) else { return Ok(()) };
        match self.warnings(after, mirror).into_iter().next() {
            Some(doubt) => Err(Error::Refused(doubt)),
            None => Ok(()),
        }
    }

    /// The likely mistakes in a mirror's configuration, one sentence each. Refs that cannot be listed cause no warning.
    #[must_use]
    pub fn warnings(&self, config: &Config, mirror: &Mirror) -> Vec<String> {
        let is_alone =
            config.mirrors.iter().filter(|other| other.address.identity() == mirror.address.identity()).count() < 2;
        let listed = if is_alone { None } else { self.repository.list(|_| true).ok() };
        let refs: Vec<_> =
            listed.map(|listing| listing.refs).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        let default_branch = self.repository.default_branch().ok().flatten();
        config::warnings(config, mirror, default_branch.as_ref(), &refs)
    }

    /// Removes this repository's own settings of a mirror that the server's file defines. Secret, pins, base and queue stay.
    ///
    /// # Errors
    /// [`Error`]
    pub fn reset(&self, name: &str) -> Result<Config, Error> {
        self.prepare()?;
        let config = edit(self.repository, self.server, &Edit::Reset(name.to_owned()))?;
        self.request(&config, name, Wish::Compare)?;
        Ok(config)
    }

    /// Makes a full sync of a mirror due. Does nothing for a disabled mirror. But a request that
    /// confirms first contact is stored for a disabled mirror too.
    ///
    /// # Errors
    /// [`Error`]
    pub fn request(&self, config: &Config, name: &str, wish: Wish) -> Result<(), Error> {
        let Some(mirror) = config.mirror(name).filter(|mirror| mirror.is_enabled || wish == Wish::Adopt) else {
            return Ok(());
        };
        prepare(self.repository, name)?;
        let id = new_id((self.now)());
        let record = spool::Record {
            release: wish != Wish::Compare,
            adopt: (wish == Wish::Adopt).then(|| mirror.identity()),
            ..spool::Record::full(id.time)
        };
        let due = spool::request(&self.repository.layout(), name, id, &record);
        due.map_err(self.files("make a sync due", name))
    }

    /// Removes a mirror: first its entry in the configuration, then, once no drain works on it, its files. The lock file stays.
    ///
    /// # Errors
    /// [`Error`]
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.unconfigure(name)?;
        self.delete_files(name)
    }

    /// Takes a mirror out of the configuration, so that no drain begins to work on it.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Files`]
    pub fn unconfigure(&self, name: &str) -> Result<(), Error> {
        self.prepare()?;
        let change = Edit::Remove(name.to_owned());
        config::check_edit(self.repository, self.server, &change)?;
        let directory = self.directory(name);
        if directory.is_dir() {
            // If we are killed after the next step, the next drain removes the files.
            mark_removed(&directory).map_err(self.files("begin the removal", name))?;
        }
        edit(self.repository, self.server, &change)?;
        Ok(())
    }

    /// Removes the files of a mirror that is not configured, once no drain works on it.
    ///
    /// # Errors
    /// [`Error`]
    pub fn delete_files(&self, name: &str) -> Result<(), Error> {
        let directory = self.directory(name);
        if !directory.is_dir() {
            return Ok(());
        }
        let _lock = self.lock(name)?;
        // Another process may have added a mirror of this name meanwhile.
        if config::load(self.repository, self.server)?.mirror(name).is_some() {
            return Ok(());
        }
        forget(&directory).map_err(self.files("remove the files", name))
    }

    /// Replaces the pinned host keys. An empty list removes them.
    ///
    /// # Errors
    /// [`Error::Files`]
    pub fn pin(&self, name: &str, keys: &[HostKey]) -> Result<(), Error> {
        write_host_keys(&self.directory(name), keys).map_err(self.files("write the host keys", name))
    }

    /// Stores a password or token for `mirror`. An empty one removes the stored one.
    ///
    /// # Errors
    /// [`Error::Moved`], [`Error::Config`] or [`Error::Files`]. The stored one is then as it was.
    pub fn store_secret(&self, mirror: &Mirror, secret: &Secret) -> Result<(), Error> {
        prepare(self.repository, &mirror.name)?;
        let _file = config::Locked::take(self.repository)?;
        unmoved(self.repository, self.server, &mirror.into())?;
        self.replace_secret(&mirror.name, secret)
    }

    fn replace_secret(&self, name: &str, secret: &Secret) -> Result<(), Error> {
        let path = self.directory(name).join("secret");
        let stored = if secret.expose().is_empty() { remove_secret(&path) } else { write_secret(&path, secret) };
        stored.map_err(self.files("write the secret", name))
    }

    fn store(&self, name: &str, extras: &Extras) -> Result<(), Error> {
        if let Some(secret) = &extras.secret {
            self.replace_secret(name, secret)?;
        }
        if let Some(keys) = &extras.host_keys {
            self.pin(name, keys)?;
        }
        Ok(())
    }

    fn make_key(&self, config: &Config, name: &str, kind: Option<KeyType>) -> Result<(), Error> {
        let is_wanted = |mirror: &Mirror| mirror.auth_method == AuthMethod::SshPublicKey;
        if kind.is_some() || config.mirror(name).is_some_and(is_wanted) {
            self.ensure_key(name, kind)?;
        }
        Ok(())
    }

    /// Makes the ssh key of a mirror, unless it has one and no kind is asked for. Returns whether one was made.
    ///
    /// # Errors
    /// [`Error::Files`]
    pub fn ensure_key(&self, name: &str, kind: Option<KeyType>) -> Result<bool, Error> {
        let directory = self.directory(name);
        if kind.is_none() && credentials::identity(&directory).is_some() {
            return Ok(false);
        }
        let comment = format!("git-mirror-push {name} {}", self.repository.git_dir().display());
        credentials::generate_key(&directory, kind.unwrap_or(KeyType::Ed25519), &comment)
            .map_err(self.files("make a key", name))?;
        Ok(true)
    }
}

/// The credentials of a URL. If the user name is a token, the token becomes the password, and the
/// user name becomes `x-access-token`: hosts with such tokens accept any user name. `known` is the
/// password that was given separately or is stored.
#[must_use]
pub fn token_as_password(found: Credentials, known: Option<&Secret>) -> Credentials {
    match found.username {
        Some(token) if credentials::is_token(&token, found.secret.as_ref().or(known)) => {
            Credentials { username: Some("x-access-token".into()), secret: Some(Secret::new(token)), ..found }
        }
        username => Credentials { username, ..found },
    }
}

/// The URL as it is written into the file, and the credentials that were in it.
///
/// # Errors
/// [`Error::Refused`]
pub fn clean_url(text: &str) -> Result<(String, Address, Credentials), Error> {
    let (address, credentials) = parse(text).map_err(|refused| Error::Refused(refused.to_string()))?;
    let url = match &address {
        Address::Http { url, .. } => url.clone(),
        // The password is stored separately. The URL keeps only the user name.
        Address::Ssh { .. } => without_password(text),
        Address::Git { .. } => text.to_owned(),
        Address::Local(path) => {
            path.to_str().ok_or_else(|| Error::Refused("a path of a mirror must be UTF-8".into()))?.to_owned()
        }
    };
    Ok((url, address, credentials))
}

/// An ssh URL without the password after the user's name.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}{path}", user.split(':').next().unwrap_or(user)),
        None => text.to_owned(),
    }
}
