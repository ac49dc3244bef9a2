//! Mirrors that other tools configured, read as mirrors of ours. The callers read the sources, and write what is proposed.
//!
//! Guaranteed: a proposal does what the old tool did, unless that destroys more than the defaults
//! of `add` do. What has no counterpart is reported, with the reason, for a person to decide.
//! Absent: mirrors made from lines of cron and systemd, which `import` only reports.

mod gerrit;
mod git;
mod gitea;
mod gitlab;
mod gitolite;
mod hooks;
mod list;

pub use gerrit::{GerritSite, gerrit_base_path, read_gerrit};
pub use git::{Wish, as_whole, propose};
pub use gitea::{gitea_pull, gitea_push};
pub use gitlab::{gitlab_paths, gitlab_pull, gitlab_push};
pub use gitolite::{GitoliteHost, GitoliteOptions, read_gitolite, read_simple};
pub use hooks::{Pushed, Pushing, propose_push, pushing_lines};
pub use list::{Line, ListError, line_of, read_list};

use crate::config::{Change, Config};
use crate::mirror::Keys;
use crate::repo::GitRemote;
use crate::wire::{Address, parse};

/// What becomes of a mirror of another tool.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It can be a mirror of ours.
    Mirror(Proposed),
    /// A person has to decide.
    Person {
        /// Where it was found.
        from: String,
        /// Why.
        why: String,
    },
}

/// A mirror of ours, not yet written.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposed {
    /// Its name, if that is free.
    pub name: String,
    /// Its URL, which may hold a user and a password.
    pub url: String,
    /// The keys that differ from the defaults.
    pub keys: Keys,
    /// Where it was found.
    pub from: String,
    /// What differs from what the old tool did.
    pub notes: Vec<String>,
    /// Whether the source has a password for it and does not give it out.
    pub hides_password: bool,
}

impl Proposed {
    /// The direction in its keys; `push` if they have none.
    #[must_use]
    pub fn direction(&self) -> &str {
        let said = self.keys.iter().find_map(|(key, change)| match change {
            Change::Text(word) if *key == "direction" => Some(&**word),
            _ => None,
        });
        said.unwrap_or("push")
    }
}

/// A sentence for each git remote that mirrors to or from a URL that no mirror of ours has.
#[must_use]
pub fn unknown(config: &Config, remotes: &[GitRemote]) -> Vec<String> {
    let is_unknown = |remote: &&GitRemote| {
        propose(remote, &[], Wish::default()).iter().any(|found| match found {
            Found::Mirror(mirror) => mirror_at(config, &mirror.url).is_none(),
            Found::Person { .. } => !remote.push_urls.iter().any(|url| mirror_at(config, url).is_some()),
        })
    };
    let text = |remote: &GitRemote| {
        format!(
            "remote '{}' of git's configuration is a mirror, but git-mirror-push has no mirror for it",
            remote.name.escape_debug()
        )
    };
    remotes.iter().filter(is_unknown).map(text).collect()
}

/// The name of the mirror with this URL.
#[must_use]
pub fn mirror_at<'c>(config: &'c Config, url: &str) -> Option<&'c str> {
    let address = match parse(url).ok()?.0 {
        Address::Local(path) => Address::Local(path.canonicalize().unwrap_or(path)),
        address => address,
    };
    let identity = address.identity();
    config.mirrors.iter().find(|mirror| mirror.address.identity() == identity).map(|mirror| &*mirror.name)
}
