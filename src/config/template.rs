//! Templates that `import` writes: files `conf.d/import-SOURCE.toml` beside the server's file, and passwords in files of their own.
//!
//! Guaranteed: a file is replaced as a whole, after the server's configuration was checked with it. A password is on the disk before a
//! template names its file.

#![expect(clippy::disallowed_methods, reason = "reads and makes files beside the server's file")]

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table};

use super::edit::{remotes, set_all};
use super::server::expand;
use super::{Change, Error, Placed, Server, check, file};
use crate::credentials::Secret;
use crate::durable;

/// A template to write.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    /// Its name.
    pub name: String,
    /// Its keys, with a URL that has a placeholder.
    pub keys: Vec<(&'static str, Change)>,
    /// The password that all its mirrors have.
    pub secret: Option<Secret>,
}

/// A URL with one placeholder that becomes, for each of these repositories, the URL given with it.
/// `None` if there is no such URL.
#[must_use]
pub fn common_url(all: &[(Placed, &str)]) -> Option<String> {
    let (placed, url) = all.first()?;
    for placeholder in ["{path}", "{path_dash}", "{path_underscore}", "{name}"] {
        let (plain, escaped) = (expand(placeholder, placed), expand(&format!("x://{placeholder}"), placed));
        for value in [&*plain, escaped.trim_start_matches("x://")] {
            for (at, _) in url.match_indices(value) {
                let candidate = format!("{}{placeholder}{}", &url[..at], &url[at + value.len()..]);
                if all.iter().all(|(placed, url)| expand(&candidate, placed) == *url) {
                    return Some(candidate);
                }
            }
        }
    }
    None
}

/// Adds templates to the file of a source, and returns the file.
///
/// # Errors
/// [`Error::Change`], when there is no server's file, a template already has one of the names, or
/// the file is no regular file or cannot be parsed; [`Error::Io`]; the errors of the resulting
/// configuration.
pub fn add_templates(server: &Server, source: &str, templates: Vec<NewTemplate>) -> Result<PathBuf, Error> {
    let wrong = |what: &str| Error::Change(what.to_owned());
    let first = server.files.first().and_then(|path| path.parent());
    let directory = first.ok_or_else(|| wrong("a template needs a server's file; see git-mirror-push-config(5)"))?;
    let absolute = std::path::absolute(directory);
    let directory = &*absolute.map_err(|source| Error::Io { doing: "find", path: directory.to_owned(), source })?;
    let conf = directory.join("conf.d");
    let path = conf.join(format!("import-{source}.toml"));
    let failed = |path: &Path, source| Error::Io { doing: "write", path: path.to_owned(), source };
    make(&conf, 0o755).map_err(|source| failed(&conf, source))?;
    // If two imports of one source run at the same time, neither may lose the other's templates.
    let lock = durable::open_lock(&conf.join(".import.lock"), 0o600).map_err(|source| failed(&conf, source))?;
    fs2::FileExt::lock_exclusive(&lock).map_err(|source| failed(&conf, source))?;
    if std::fs::symlink_metadata(&path).is_ok_and(|file| !file.is_file()) {
        return Err(wrong(&format!("'{}' is no regular file, and is not replaced", path.display())));
    }
    let mode = std::fs::metadata(&path).map_or(0o644, |file| file.permissions().mode() & 0o777);
    let old = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read.map_err(|source| failed(&path, source))?),
    };
    let first_line = format!("# git-mirror-push: mirrors that 'import {source}' found in every repository\n\n");
    let head = if old.is_none() { &*first_line } else { "" };
    let mut document: DocumentMut =
        old.unwrap_or_default().parse().map_err(|error| Error::Change(format!("{}: {error}", path.display())))?;
    let mut secrets = Vec::new();
    for NewTemplate { name, mut keys, secret } in templates {
        let is_written = remotes(&mut document)?.get(&name).is_some();
        if is_written || server.templates.contains_key(&name) {
            return Err(wrong(&format!("the server's files have a template '{name}' already")));
        }
        if let Some(secret) = secret {
            let file = directory.join("secrets").join(format!("import-{name}"));
            keys.push(("password_file", Change::Text(file.display().to_string())));
            secrets.push((file, secret));
        }
        let mut table = Table::new();
        set_all(&mut table, &keys);
        remotes(&mut document)?.insert(&name, Item::Table(table));
    }
    let new = format!("{head}{document}");
    check::server(&path, &new, file::parse(&path, &new)?, server.clone())?;
    for (file, secret) in secrets {
        make(file.parent().unwrap_or(directory), 0o700).map_err(|source| failed(&file, source))?;
        let text = format!("{}\n", secret.expose());
        durable::replace(&file, text.as_bytes(), |_| Ok(())).map_err(|source| failed(&file, source))?;
    }
    let readable = |file: &std::fs::File| file.set_permissions(std::fs::Permissions::from_mode(mode));
    durable::replace(&path, new.as_bytes(), readable).map_err(|source| failed(&path, source))?;
    Ok(path)
}

fn make(directory: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_with_a_placeholder_stands_for_many() {
        let place = |path: &str| Placed { path: path.into(), name: path.rsplit('/').next().unwrap_or(path).into() };
        for (pairs, expected) in [
            (&[("a/b", "https://h/x/a/b.git"), ("c", "https://h/x/c.git")][..], Some("https://h/x/{path}.git")),
            (&[("a/b", "https://h/a-b.git"), ("c/d", "https://h/c-d.git")], Some("https://h/{path_dash}.git")),
            (&[("a/b", "git@h:a_b"), ("c/d", "git@h:c_d")], Some("git@h:{path_underscore}")),
            (&[("a/b", "/m/b.git"), ("c/d", "/m/d.git")], Some("/m/{name}.git")),
            (&[("a b", "https://h/a%20b.git"), ("c", "https://h/c.git")], Some("https://h/{path}.git")),
            (&[("a", "https://a/a.git"), ("b", "https://a/b.git")], Some("https://a/{path}.git")),
            (&[("a", "https://h/x.git"), ("b", "https://h/y.git")], None),
            (&[("a", "https://h/same.git"), ("b", "https://h/same.git")], None),
        ] {
            let all: Vec<(Placed, &str)> = pairs.iter().map(|(path, url)| (place(path), *url)).collect();
            assert_eq!(common_url(&all).as_deref(), expected, "{pairs:?}");
        }
    }
}
