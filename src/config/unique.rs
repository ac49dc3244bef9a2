//! Two repositories must not be mirrored to one URL: what the templates of the server's file give to each repository is compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::server::expand;
use super::{Error, Server};

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
            let Some(placed) = self.place(git_dir) else { continue };
            for (name, template) in &self.templates {
                let Some(url) = template.settings.url.as_deref().map(|url| expand(url, &placed)) else { continue };
                if let Some(other) = seen.insert(url.clone(), git_dir) {
                    let what = format!(
                        "remote '{name}': '{}' and '{}' would both be mirrored to one URL; use {{path}} in it, or exclude one",
                        other.display(),
                        git_dir.display(),
                    );
                    return Err(Error::Meaning { path: template.file.clone(), line: template.line, what });
                }
            }
        }
        Ok(())
    }

    /// Whether the templates give every repository below these roots its own URL, whatever its name.
    fn is_surely_unique(&self) -> bool {
        let urls = self.templates.values().filter_map(|template| template.settings.url.as_deref());
        let parts: Option<Vec<&str>> = urls.map(|url| Some(url.split_once("{path}")?.0)).collect();
        // Two templates can only give the same URL if one of them begins as the other does.
        let is_apart = |parts: &[&str]| {
            let later = |at: usize| parts.iter().skip(at + 1);
            parts.iter().enumerate().all(|(at, one)| !later(at).any(|two| one.starts_with(two) || two.starts_with(one)))
        };
        self.roots.len() == 1 && parts.is_some_and(|parts| is_apart(&parts))
    }

    /// Checks, like [`Server::check_urls`], that no template gives this repository the URL of another one. If there is only one root and
    /// the URL of every template has `{path}`, it only looks for another repository with the same `{path}`. Otherwise it checks all.
    ///
    /// # Errors
    /// As [`Server::check_urls`].
    pub(super) fn check_url_of(&self, git_dir: &Path) -> Result<(), Error> {
        // `x`, `x.git` and the working tree `x/.git` have the same {path}.
        let text = git_dir.display().to_string();
        let path = text.strip_suffix("/.git").or_else(|| text.strip_suffix(".git")).unwrap_or(&text);
        let same = ["", ".git", "/.git"].map(|suffix| PathBuf::from(format!("{path}{suffix}")));
        let has_twin = same.iter().any(|twin| *twin != git_dir && twin.join("HEAD").exists());
        if self.is_surely_unique() && !has_twin { Ok(()) } else { self.check_urls() }
    }
}
