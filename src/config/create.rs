//! What the configuration says of mirrors whose repository does not exist yet: who makes it, and how. Pure.

use std::path::PathBuf;

use serde::Deserialize;

use super::settings::Mistake;
use crate::wire::Address;

/// `create`
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `git init` on this machine.
    Path,
    /// `git init` by a shell over ssh.
    Ssh,
    /// The host makes it at the first push.
    Push,
    /// The API of GitHub or GitHub Enterprise.
    Github,
    /// The API of GitLab.
    Gitlab,
    /// The API of Gitea or Forgejo.
    Gitea,
}

impl Kind {
    /// The word of the files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Ssh => "ssh",
            Self::Push => "push",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Gitea => "gitea",
        }
    }
}

/// `create_visibility`
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// For those who are given access.
    #[default]
    Private,
    /// For everybody with an account at the host, or in the enterprise.
    Internal,
    /// For everybody.
    Public,
}

impl Visibility {
    /// The word in configuration files and in the APIs of the hosts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
}

/// Who makes the repository of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// `create`
    Kind(Kind),
    /// `create_command`: a program by its absolute path, and its arguments.
    Command(Vec<String>),
}

/// How the repository of a mirror is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Who makes it.
    pub maker: Maker,
    /// `create_visibility`
    pub visibility: Visibility,
    /// `create_token_file`; `None` means the mirror's own password.
    pub token_file: Option<PathBuf>,
    /// `create_url`: the address of the host's API, or another ssh URL; `None` means that it
    /// follows from the mirror's URL.
    pub url: Option<String>,
    /// `create_per_minute`: the largest number of repositories made at one host in a minute.
    pub per_minute: usize,
}

impl Create {
    /// The default of `create_per_minute`: 480 in an hour, below GitHub's limit of 500.
    pub(super) const PER_MINUTE: usize = 8;

    /// Why the repository of a mirror at `address` cannot be made in this way; `None` if it can.
    pub(super) fn mistake(&self, address: &Address) -> Option<Mistake> {
        let wrong = |key, what: &str| Some(Mistake { key, what: what.to_owned() });
        let is_web = matches!(address, Address::Http { .. });
        let is_ssh = matches!(address, Address::Ssh { .. });
        match &self.maker {
            maker if matches!(address, Address::Git { .. }) => wrong(
                if matches!(maker, Maker::Command(_)) { "create_command" } else { "create" },
                "create does not work with a git:// URL, which does not tell a missing repository from a forbidden one",
            ),
            Maker::Command(_) => None,
            Maker::Kind(Kind::Path) if !matches!(address, Address::Local(_)) => {
                wrong("create", "create = \"path\" needs a URL that is a path on this machine")
            }
            Maker::Kind(Kind::Path) => None,
            Maker::Kind(Kind::Ssh) if !is_ssh && self.url.is_none() => wrong(
                "create",
                "create = \"ssh\" needs an ssh URL; set create_url to one that reaches a shell of the host",
            ),
            Maker::Kind(Kind::Ssh) => self.ssh_mistake(),
            Maker::Kind(_) if !is_web && !is_ssh => wrong(
                "create",
                "this value of create needs an http, https or ssh URL; for a path use create = \"path\"",
            ),
            Maker::Kind(Kind::Push) if self.visibility != Visibility::Private => wrong(
                "create_visibility",
                "with create = \"push\" the host chooses the visibility; remove create_visibility",
            ),
            Maker::Kind(Kind::Gitea) if self.visibility == Visibility::Internal => wrong(
                "create_visibility",
                "Gitea and Forgejo have no internal repositories; use \"private\" or \"public\"",
            ),
            Maker::Kind(Kind::Github | Kind::Gitlab | Kind::Gitea) => self.api_mistake(),
            Maker::Kind(Kind::Push) => None,
        }
    }

    fn ssh_mistake(&self) -> Option<Mistake> {
        let parsed = self.url.as_deref().map(crate::wire::parse)?;
        if matches!(&parsed, Ok((_, user)) if user.secret.is_some()) {
            let what = "create_url must not have a password in it".into();
            return Some(Mistake { key: "create_url", what });
        }
        let is_ssh = matches!(&parsed, Ok((Address::Ssh { .. }, _)));
        (!is_ssh).then(|| Mistake {
            key: "create_url",
            what: "create_url must be an ssh URL here: ssh://user@host/path.git, or user@host:path.git".into(),
        })
    }

    fn api_mistake(&self) -> Option<Mistake> {
        let parsed = self.url.as_deref().map(crate::wire::parse)?;
        let is_web =
            matches!(&parsed, Ok((Address::Http { .. }, user)) if user.username.is_none() && user.secret.is_none());
        (!is_web).then(|| Mistake {
            key: "create_url",
            what: "create_url must be the http or https address of the host's API, without a user name: https://ghe.example.com/api/v3".into(),
        })
    }
}
