//! Which repository gets which URL from the templates of the server's file, remembered as long as
//! the configuration is in use.
//!
//! Guaranteed: if two repositories get the same URL, the check of the second one finds the first.
//! Absent: repositories that came after the list was made and that nobody has asked about.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::server::expand;
use super::{Error, Server};

/// What is remembered. A copy of the configuration remembers nothing, because its roots may differ.
#[derive(Debug, Default)]
pub(super) struct Urls(Mutex<Option<Table>>);

impl Clone for Urls {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct Table {
    git_dirs: Vec<PathBuf>,
    /// The places of the repositories in `git_dirs`, by a digest of a URL.
    by_url: HashMap<u64, Vec<u32>>,
}

impl Table {
    fn add(&mut self, server: &Server, git_dir: &Path) {
        let digests: Vec<u64> = server.urls_of(git_dir).map(|(_, url)| digest(&url)).collect();
        let Some(first) = digests.first() else { return };
        let is_at = |at: &u32| self.git_dirs[*at as usize] == git_dir;
        if self.by_url.get(first).is_some_and(|places| places.iter().any(is_at)) {
            return;
        }
        let at = u32::try_from(self.git_dirs.len()).expect("fewer than four billion repositories");
        self.git_dirs.push(git_dir.to_owned());
        digests.into_iter().for_each(|digest| self.by_url.entry(digest).or_default().push(at));
    }
}

impl Server {
    /// The templates' names and the URLs that they give to a repository.
    pub(super) fn urls_of(&self, git_dir: &Path) -> impl Iterator<Item = (&String, String)> {
        let url = move |placed| {
            move |(name, template): (_, &super::server::Template)| {
                Some((name, expand(template.settings.url.as_deref()?, &placed)))
            }
        };
        self.place(git_dir).into_iter().flat_map(move |placed| self.templates.iter().filter_map(url(placed)))
    }

    /// A template and another repository that gets the same URL as this one. The list of repositories is made once.
    ///
    /// # Errors
    /// As [`Server::repositories`].
    pub(super) fn twin(&self, git_dir: &Path) -> Result<Option<(&String, PathBuf)>, Error> {
        let mut known = self.urls.0.lock();
        if known.is_none() {
            let mut table = Table::default();
            self.repositories()?.iter().for_each(|listed| table.add(self, listed));
            *known = Some(table);
        }
        let Some(table) = known.as_mut() else { return Ok(None) };
        table.add(self, git_dir);
        for (name, url) in self.urls_of(git_dir) {
            let places = table.by_url.get(&digest(&url)).into_iter().flatten();
            let others = places.map(|at| &table.git_dirs[*at as usize]).filter(|other| *other != git_dir);
            let is_twin = |other: &&PathBuf| self.lists(other) && self.urls_of(other).any(|(_, theirs)| theirs == url);
            if let Some(other) = others.clone().find(is_twin) {
                return Ok(Some((name, other.clone())));
            }
        }
        Ok(None)
    }
}

fn digest(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the test")]
mod tests {
    use super::super::server::{Root, Template};
    use super::*;

    #[test]
    fn a_repository_that_comes_later_is_found_and_one_that_is_gone_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let make = |name: &str| {
            std::fs::create_dir_all(path(name).join("objects")).expect("made");
            std::fs::write(path(name).join("HEAD"), "ref: refs/heads/main\n").expect("written");
        };
        let mut template = Template::default();
        template.settings.url = Some("https://h/{path_dash}".into());
        let templates = [("m".to_owned(), template)].into_iter().collect();
        let server = Server { roots: vec![Root::at(directory.path())], templates, ..Server::default() };
        let twin = |name: &str| server.twin(&path(name)).expect("listed").map(|(_, other)| other);
        make("a/b");
        make("c");
        assert_eq!((twin("a/b"), twin("c")), (None, None));
        make("a-b");
        assert_eq!((twin("a-b"), twin("a/b"), twin("c")), (Some(path("a/b")), Some(path("a-b")), None));
        std::fs::remove_dir_all(path("a/b")).expect("removed");
        assert_eq!(twin("a-b"), None);
        assert_eq!(server.place(&path("a//./b")), server.place(&path("a/b")), "another text of one path");
        // It comes back, and was known before.
        make("a/b");
        assert_eq!((twin("a-b"), twin("a/b")), (Some(path("a/b")), Some(path("a-b"))));
    }
}
