//! Which file set each value of a mirror.

#![expect(clippy::disallowed_methods, reason = "reads the files again, one by one")]

use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item};

use super::keys::{Place, keys};
use super::{Error, Server};
use crate::durable;
use crate::repo::Repository;

/// A key of a mirror, its value as it is written, and the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The key.
    pub key: &'static str,
    /// The value as TOML, before placeholders are filled in.
    pub value: String,
    /// The file.
    pub file: PathBuf,
}

/// For each key of mirror `name` that is set: its value and the file that set it.
///
/// # Errors
/// [`Error::Io`]
pub fn origins(repository: &Repository, server: &Server, name: &str) -> Result<Vec<Origin>, Error> {
    let own = repository.layout().config();
    let mut documents = Vec::new();
    documents.push((&own, document(durable::read_text(&own), &own)?));
    for file in server.files.iter().rev() {
        documents.push((file, document(std::fs::read_to_string(file), file)?));
    }
    let of_mirror = |document: &'_ DocumentMut| document.get("remotes").and_then(|all| all.get(name)).cloned();
    let of_defaults = |document: &DocumentMut| document.get("defaults").cloned();
    let mirrors = documents.iter().filter_map(|(file, document)| Some((*file, of_mirror(document)?)));
    let defaults = documents.iter().filter_map(|(file, document)| Some((*file, of_defaults(document)?)));
    let layers: Vec<(&PathBuf, Item)> = mirrors.chain(defaults).collect();
    let keys = keys().filter(|key| key.place == Place::Remote);
    let found = keys.filter_map(|key| {
        let said = |(file, table): &(&PathBuf, Item)| Some(((*file).clone(), table.get(key.name)?.as_value()?.clone()));
        let (file, value) = layers.iter().find_map(said)?;
        Some(Origin { key: key.name, value: value.decorated("", "").to_string(), file })
    });
    Ok(found.collect())
}

fn document(read: io::Result<String>, file: &Path) -> Result<DocumentMut, Error> {
    match read {
        // A file with an error was refused when the configuration was loaded.
        Ok(text) => Ok(text.parse().unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(DocumentMut::new()),
        Err(source) => Err(Error::Io { doing: "read", path: file.to_owned(), source }),
    }
}
