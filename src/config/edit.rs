//! Changes a repository's file. Comments and order are kept. A text that is not a valid
//! configuration is never written.
//!
//! A change holds the lock on the file `lock` in the same directory, so commands change the file
//! one after another. The new file is synced before it replaces the old one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;
use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Item, Table, Value, value};

use super::values::is_name;
use super::{Config, Error, Placed, Server, Trust, check, parse, read_trusted};
use crate::durable;
use crate::repo::Repository;

/// How a new file begins.
const FIRST_TEXT: &str = "# git-mirror-push: the mirrors of this repository; see git-mirror-push(1)\n\n";

/// A new value of a key; `Unset` removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A string.
    Text(String),
    /// A boolean.
    Flag(bool),
    /// A list of strings.
    List(Vec<String>),
    /// An integer.
    Number(u32),
    /// A value of another type, as TOML.
    Toml(String),
    /// No value: `[defaults]` of this file, the server's files or the built-in default decide.
    Unset,
}

/// What is to be changed.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Keys at the top.
    Top(Vec<(&'static str, Change)>),
    /// A new remote with these keys.
    Add(String, Vec<(&'static str, Change)>),
    /// Keys of an existing remote.
    Set(String, Vec<(&'static str, Change)>),
    /// A remote to remove.
    Remove(String),
    /// Removes what this file says about a mirror that the server's file defines. The mirror stays.
    Reset(String),
}

/// Makes the change in the file of `repository` and returns the new configuration.
///
/// # Errors
/// [`Error`]. The file is then as it was, unless only the last sync of the directory failed.
pub fn edit(repository: &Repository, server: &Server, change: &Edit) -> Result<Config, Error> {
    Locked::take(repository)?.edit(server, change)
}

/// The file of a repository, locked. No other command changes it until this is dropped.
pub struct Locked<'a> {
    repository: &'a Repository,
    _lock: std::fs::File,
}

impl<'a> Locked<'a> {
    /// Takes the lock. Waits up to ten seconds for it.
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::Io`]
    pub fn take(repository: &'a Repository) -> Result<Self, Error> {
        let path = repository.layout().config();
        let failed = |source| Error::Io { doing: "write", path: path.clone(), source };
        let lock = durable::open_lock(&repository.layout().config_lock(), repository.sharing().private_mode());
        let lock = lock.map_err(failed)?;
        take(&lock).map_err(failed)?.ok_or_else(|| Error::Busy { path: path.clone() })?;
        Ok(Self { repository, _lock: lock })
    }

    /// As [`edit`].
    ///
    /// # Errors
    /// As [`edit`].
    pub fn edit(&self, server: &Server, change: &Edit) -> Result<Config, Error> {
        let repository = self.repository;
        let path = repository.layout().config();
        let old = editable(repository)?;
        let placed = server.place(repository.git_dir());
        let (mut new, after) = checked(&path, old.as_deref().unwrap_or_default(), server, placed.as_ref(), change)?;
        if old.is_none() {
            new.insert_str(0, FIRST_TEXT);
        }
        replace(repository, &new).map_err(|source| Error::Io { doing: "write", path, source })?;
        Ok(after)
    }
}

/// Takes the lock of a file. `None` if the lock does not become free within ten seconds. A change
/// takes only milliseconds.
fn take(lock: &std::fs::File) -> io::Result<Option<()>> {
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..1000 {
        match lock.try_lock_exclusive() {
            Ok(()) => return Ok(Some(())),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {}
            Err(error) => return Err(error),
        }
        std::thread::park_timeout(PAUSE);
    }
    Ok(None)
}

/// Checks a change without making it. Returns the configuration that it would lead to.
///
/// # Errors
/// [`Error`]
pub fn check_edit(repository: &Repository, server: &Server, change: &Edit) -> Result<Config, Error> {
    let path = repository.layout().config();
    let old = editable(repository)?.unwrap_or_default();
    checked(&path, &old, server, server.place(repository.git_dir()).as_ref(), change).map(|(_, after)| after)
}

/// The text of the file. Refuses a file that another user may have written: if we replaced it, all its keys would count.
fn editable(repository: &Repository) -> Result<Option<String>, Error> {
    match read_trusted(repository)? {
        Some((_, Trust::Foreign)) => Err(not_ours(repository.layout().config())),
        read => Ok(read.map(|(text, _)| text)),
    }
}

/// The error for a file that another user may have written.
fn not_ours(path: PathBuf) -> Error {
    let is_ours = durable::open_to_read(&path).is_ok_and(|(_, file)| durable::is_ours(&file));
    if is_ours { Error::WritableByGroup { path } } else { Error::OtherOwner { path } }
}

/// The new text, and the configuration that it gives.
fn checked(
    path: &Path,
    old: &str,
    server: &Server,
    placed: Option<&Placed>,
    change: &Edit,
) -> Result<(String, Config), Error> {
    // Parses the old text first, so that an error in it is reported with its line and not as an error of the change.
    let before = parse(path, old, server, placed, Trust::Full)?;
    let is_template = |name: &str| placed.is_some() && server.template_names().any(|template| template == name);
    let new = applied(old, &before, change, &is_template)?;
    let after = parse(path, &new, server, placed, Trust::Full).map_err(|error| match error {
        Error::Meaning { what, .. } => Error::Value(what),
        other => other,
    })?;
    Ok((new, after))
}

fn applied(old: &str, before: &Config, change: &Edit, is_template: &dyn Fn(&str) -> bool) -> Result<String, Error> {
    let mut document: DocumentMut = old.parse().map_err(|error| Error::Change(format!("config.toml: {error}")))?;
    match change {
        Edit::Top(keys) => set_all(document.as_table_mut(), keys),
        Edit::Add(name, keys) => {
            if !is_name(name) {
                let rule = "use letters, digits, '.', '_' and '-', and begin with a letter or digit";
                return Err(Error::Value(format!("'{}' is not a name for a mirror; {rule}", name.escape_debug())));
            }
            if before.mirror(name).is_some() {
                return Err(Error::Change(format!("mirror '{name}' is there already; use 'set', or another name")));
            }
            let next = before.mirrors.iter().map(|mirror| mirror.id).filter(|id| *id < check::FIRST_OF_TEMPLATES).max();
            let mut table = Table::new();
            set(&mut table, "id", &Change::Number(next.unwrap_or(0) + 1));
            set_all(&mut table, keys);
            remotes(&mut document)?.insert(name, Item::Table(table));
        }
        Edit::Set(name, keys) => {
            if before.mirror(name).is_none() {
                return Err(Error::Change(before.no_mirror(name)));
            }
            // A mirror that a template of the server made gets a table for what differs here.
            let remotes = remotes(&mut document)?;
            if remotes.get(name).is_none() {
                remotes.insert(name, Item::Table(Table::new()));
            }
            let table = remotes
                .get_mut(name)
                .and_then(Item::as_table_like_mut)
                .ok_or_else(|| Error::Change(before.no_mirror(name)))?;
            set_all(table, keys);
        }
        Edit::Remove(name) => {
            if is_template(name) && before.mirror(name).is_some() {
                return Err(Error::Change(format!(
                    "mirror '{name}' comes from the server's file and cannot be removed here; \
                     to stop it here: git mirror-push disable {name}; \
                     to drop this repository's changes to it: git mirror-push reset {name}"
                )));
            }
            remotes(&mut document)?.remove(name).ok_or_else(|| Error::Change(before.no_mirror(name)))?;
        }
        Edit::Reset(name) => {
            if before.mirror(name).is_none() {
                return Err(Error::Change(before.no_mirror(name)));
            }
            if !is_template(name) {
                let fix = format!("'git mirror-push remove {name}' removes it");
                return Err(Error::Change(format!("mirror '{name}' is this repository's own; {fix}")));
            }
            remotes(&mut document)?.remove(name);
        }
    }
    Ok(document.to_string())
}

/// The table of all remotes, made if it is not there.
pub(super) fn remotes(document: &mut DocumentMut) -> Result<&mut dyn toml_edit::TableLike, Error> {
    let remotes = document.entry("remotes").or_insert_with(|| {
        let mut remotes = Table::new();
        remotes.set_implicit(true);
        Item::Table(remotes)
    });
    remotes.as_table_like_mut().ok_or_else(|| {
        Error::Change("config.toml: 'remotes' is not a table; write each mirror as [remotes.NAME]".into())
    })
}

pub(super) fn set_all(table: &mut dyn toml_edit::TableLike, keys: &[(&str, Change)]) {
    keys.iter().for_each(|(key, change)| set(table, key, change));
}

fn set(table: &mut dyn toml_edit::TableLike, key: &str, change: &Change) {
    let new = match change {
        Change::Unset => {
            table.remove(key);
            return;
        }
        Change::Text(text) => Value::from(text.as_str()),
        Change::Flag(flag) => Value::from(*flag),
        Change::Number(number) => Value::from(i64::from(*number)),
        Change::Toml(text) => text.parse().unwrap_or_else(|_| Value::from(text.as_str())),
        Change::List(texts) => Value::Array(texts.iter().map(String::as_str).collect::<Array>()),
    };
    // Keeps what surrounds the old value, for example a comment at the end of the line.
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(key, value(new));
        }
    }
}

fn replace(repository: &Repository, text: &str) -> io::Result<()> {
    durable::replace(&repository.layout().config(), text.as_bytes(), |file| {
        repository.sharing().publish_to_readers(file)
    })
}
