//! Two repositories must not be mirrored to one URL: what the templates of the server's file give to each repository is compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::server::{Template, expand};
use super::{Error, Placed, Server};

impl Server {
    /// Checks that no template gives two repositories the same URL.
    ///
    /// # Errors
    /// [`Error::Meaning`], which names both repositories, or the errors of [`Server::repositories`].
    pub fn check_urls(&self) -> Result<(), Error> {
        if self.has_templates() { self.check_urls_of(&self.repositories()?) } else { Ok(()) }
    }

    /// The same check for repositories that are listed already.
    ///
    /// # Errors
    /// [`Error::Meaning`], which names both.
    pub fn check_urls_of(&self, repositories: &[PathBuf]) -> Result<(), Error> {
        let mut seen: BTreeMap<String, &Path> = BTreeMap::new();
        for git_dir in repositories {
            for (name, url) in self.urls_of(git_dir) {
                // Two mirrors of one repository may have one URL if they share no refs.
                if let Some(other) = seen.insert(url, git_dir).filter(|other| *other != git_dir) {
                    return Err(self.one_url(name, other, git_dir));
                }
            }
        }
        Ok(())
    }

    fn one_url(&self, name: &str, one: &Path, other: &Path) -> Error {
        let Template { file, line, .. } = &self.templates[name];
        let what = format!(
            "remote '{name}': '{}' and '{}' would both be mirrored to one URL; use {{path}} in it, or exclude one",
            one.display(),
            other.display(),
        );
        Error::Meaning { path: file.clone(), line: *line, what }
    }

    /// Checks that no template gives this repository the URL of another one. It looks only for repositories that could have one of its
    /// URLs. If the templates do not tell which these are, it lists all, once for this configuration.
    ///
    /// # Errors
    /// As [`Server::check_urls`].
    pub fn check_url_of(&self, git_dir: &Path) -> Result<(), Error> {
        let placed = self.place(git_dir).filter(|_| self.has_templates());
        if !placed.is_some_and(|placed| self.may_collide(git_dir, &placed)) {
            return Ok(());
        }
        match self.twin(git_dir)? {
            Some((name, other)) => Err(self.one_url(name, &other, git_dir)),
            None => Ok(()),
        }
    }

    /// Whether another repository may have one of the URLs of this one.
    fn may_collide(&self, git_dir: &Path, placed: &Placed) -> bool {
        let urls: Vec<&str> = self.templates.values().filter_map(|found| found.settings.url.as_deref()).collect();
        // `x`, `x.git` and the working trees `x` and `x.git` have the same {path}.
        let is_there = |path: &str| {
            let same = ["", ".git", "/.git", ".git/.git"].map(|suffix| format!("{path}{suffix}"));
            let mut twins = self.roots.iter().flat_map(|root| same.iter().map(|twin| root.path.join(twin)));
            twins.any(|twin| twin != git_dir && twin.join("HEAD").exists())
        };
        // Whether `two` may give another repository the URL that `one` gives to this one.
        let collides = |one: &str, two: &str| {
            let parts =
                two.split_once("{path}").filter(|(before, after)| !before.contains('{') && !after.contains('{'));
            let Some((before, after)) = parts else { return true };
            let url = expand(one, placed);
            let Some(path) = url.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)) else { return false };
            let path = if two.contains("://") { percent_decode_str(path).decode_utf8_lossy() } else { path.into() };
            is_there(&path)
        };
        urls.iter().any(|url| !url.contains("{path}"))
            || is_there(&placed.path)
            || urls.iter().any(|one| urls.iter().any(|two| one != two && collides(one, two)))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use super::super::server::{Root, Template};
    use super::*;

    const URLS: [&str; 11] = [
        "https://h/{path}",
        "https://h/{path}.git",
        "https://h/b/{path}",
        "https://h/b/{path}.git",
        "https://h/{name}",
        "https://h/{path}/{name}",
        "https://h/fixed",
        "https://h/{path_dash}",
        "git@h:{path_underscore}.git",
        "git@h:{path}",
        "git@h:b/{path}.git",
    ];
    const PATHS: [&str; 11] =
        ["b-a", "a", "a.git", "b/b.git", "b.git/.git", "b/.git", "b/a", "b/b/a.git", "c d.git", "b/c d", "fixed.git"];

    fn repository(git_dir: &Path) {
        std::fs::create_dir_all(git_dir.join("objects")).expect("made");
        std::fs::write(git_dir.join("HEAD"), "ref: refs/heads/main\n").expect("written");
    }

    fn server(root: &Path, urls: &[&str]) -> Server {
        let template = |url: &&str| {
            let mut template = Template::default();
            template.settings.url = Some((*url).to_owned());
            template
        };
        let templates = urls.iter().map(template).enumerate().map(|(at, template)| (format!("m{at}"), template));
        Server { roots: vec![Root::at(root)], templates: templates.collect(), ..Server::default() }
    }

    /// Compares the quick check with the URLs of all pairs of repositories.
    #[test]
    fn the_check_of_one_repository_finds_every_other_one_with_its_url() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut found = [0; 2];
        for (one, two) in
            PATHS.iter().enumerate().flat_map(|(at, one)| PATHS[at + 1..].iter().map(move |two| (one, two)))
        {
            let root = directory.path().join(format!("{one} {two}").replace('/', "_"));
            let pair = [one, two].map(|path| root.join(path));
            pair.iter().for_each(|git_dir| repository(git_dir));
            for (url, other) in URLS.iter().flat_map(|url| URLS.iter().map(move |other| (url, other))) {
                let urls: &[&str] = &[*url, *other][usize::from(url == other)..];
                let server = server(&root, urls);
                let urls = pair.each_ref().map(|git_dir| {
                    let placed = server.place(git_dir).expect("a place");
                    [expand(url, &placed), expand(other, &placed)]
                });
                let is_one = urls[0].iter().any(|url| urls[1].contains(url));
                found[usize::from(is_one)] += 1;
                for git_dir in &pair {
                    let checked = server.check_url_of(git_dir);
                    assert_eq!(checked.is_err(), is_one, "{one}, {two}: {urls:?}: {checked:?}");
                }
            }
        }
        assert!(found.iter().all(|&count| count > 100), "{found:?}");
    }

    #[test]
    fn a_repository_below_another_root_is_found_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let roots = ["one", "two"].map(|root| directory.path().join(root));
        let pair = roots.each_ref().map(|root| root.join("a.git"));
        pair.iter().for_each(|git_dir| repository(git_dir));
        let mut server = server(&roots[0], &["https://h/{path}"]);
        server.roots.push(Root::at(&roots[1]));
        let told = server.check_url_of(&pair[0]).expect_err("one URL").to_string();
        assert!(pair.iter().all(|git_dir| told.contains(git_dir.to_str().expect("UTF-8"))), "{told}");
    }
}
