//! The remotes of git's configuration, with which other programs mirror (git-config(1),
//! `remote.<name>`).

use std::path::Path;

use gix::remote::Direction;

use super::Repository;

/// A section `[remote "NAME"]` of the repository's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRemote {
    /// Its name.
    pub name: String,
    /// Where git fetches from, after `url.*.insteadOf`. Git uses the first.
    pub urls: Vec<String>,
    /// Where git pushes to, after `insteadOf` and `pushInsteadOf`: to all of them.
    pub push_urls: Vec<String>,
    /// Whether `pushurl` names them. Otherwise they are those of `url`.
    pub has_push_url: bool,
    /// The refspecs of `fetch`.
    pub fetch: Vec<String>,
    /// The refspecs of `push`.
    pub push: Vec<String>,
    /// Whether a push mirrors every ref (`mirror`).
    pub is_mirror: bool,
    /// `proxy`
    pub proxy: Option<String>,
    /// Why a URL cannot be read.
    pub error: Option<String>,
}

impl Repository {
    /// The remotes of the repository's own configuration and of the files that it includes, in the order of their names.
    #[must_use]
    pub fn git_remotes(&self) -> Vec<GitRemote> {
        let snapshot = self.inner.config_snapshot();
        let mut remotes: Vec<GitRemote> = Vec::new();
        let sections = snapshot.plumbing().sections_by_name("remote").into_iter().flatten();
        for section in sections.filter(|section| is_own(section.meta().source)) {
            let Some(name) = section.header().subsection_name().map(ToString::to_string) else { continue };
            let texts = |key: &str| section.values(key).iter().map(ToString::to_string).collect::<Vec<_>>();
            let at = remotes.iter().position(|remote| remote.name == name).unwrap_or_else(|| {
                remotes.push(GitRemote { name: name.clone(), ..GitRemote::default() });
                remotes.len() - 1
            });
            let remote = &mut remotes[at];
            remote.fetch.extend(texts("fetch"));
            remote.push.extend(texts("push"));
            remote.has_push_url |= section.value("pushurl").is_some();
            remote.proxy = section.value("proxy").map(|proxy| proxy.to_string()).or(remote.proxy.take());
            if let Some(value) = section.value_implicit("mirror") {
                let is_true = |text: String| {
                    matches!(&*text.to_ascii_lowercase(), "true" | "yes" | "on")
                        || text.parse::<i64>().is_ok_and(|number| number != 0)
                };
                remote.is_mirror = value.is_none_or(|text| is_true(text.to_string()));
            }
        }
        for remote in &mut remotes {
            match self.inner.find_remote(&*remote.name) {
                Ok(found) => {
                    let urls = |direction| {
                        let texts = found.urls(direction).map(|url| url.to_bstring().to_string());
                        texts.map(|url| self.absolute(url)).collect::<Vec<_>>()
                    };
                    (remote.urls, remote.push_urls) = (urls(Direction::Fetch), urls(Direction::Push));
                }
                // The error may hold the URL, and so a password.
                Err(_) => remote.error = Some("one of its URLs cannot be read".into()),
            }
        }
        remotes.sort_by(|one, other| one.name.cmp(&other.name));
        remotes
    }

    /// A relative path as git reads it: from the working tree, or from the directory of a bare repository.
    fn absolute(&self, url: String) -> String {
        let has_host = url.find(':').is_some_and(|colon| url.find('/').is_none_or(|slash| colon < slash));
        let is_word = !url.contains('/');
        if url.starts_with('/') || has_host || is_word && !self.base().join(&url).exists() {
            return url;
        }
        let path = self.base().join(&url);
        path.canonicalize().unwrap_or(path).to_str().map_or(url, str::to_owned)
    }

    fn base(&self) -> &Path {
        let git_dir = self.git_dir();
        git_dir.parent().filter(|_| self.has_working_tree()).unwrap_or(git_dir)
    }
}

/// Whether a section is in the repository's own configuration. A remote that the user or the system
/// configures is no mirror of this repository.
fn is_own(source: gix::config::Source) -> bool {
    matches!(source, gix::config::Source::Local | gix::config::Source::Worktree)
}
