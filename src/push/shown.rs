//! How an address is shown: with its user name to people here, masked to clients of the API, plain in the configuration. Pure.

use super::Address;
use super::address::bracketed;
use crate::credentials::Credentials;

/// What stands for a user name or a password that is not shown.
const MASK: &str = "*****";

/// An http URL with this before its host.
fn with_userinfo(url: &str, userinfo: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("an http address has a scheme");
    format!("{scheme}://{userinfo}@{rest}")
}

/// Whether a user name looks like a token: GitHub's and GitLab's prefixes, or 20 and more letters and digits.
#[must_use]
pub fn is_like_token(user: &str) -> bool {
    let has_prefix = ["ghp_", "github_pat_", "glpat-"].iter().any(|prefix| user.starts_with(prefix));
    has_prefix || user.len() >= 20 && user.chars().all(|c| c.is_ascii_alphanumeric())
}

impl Address {
    /// The URL as commands and the page show it: with the user name and without the password. A user name that looks like a token is
    /// masked.
    #[must_use]
    pub fn shown(&self, credentials: &Credentials) -> String {
        let has_secret = credentials.secret.is_some();
        let mask = |user: &str| if is_like_token(user) && !has_secret { MASK.into() } else { user.to_owned() };
        match self {
            Self::Http { url, .. } => match &credentials.username {
                None => url.clone(),
                Some(user) => with_userinfo(url, &mask(user)),
            },
            _ => self.with_user(mask),
        }
    }

    /// The URL as the API and notifications show it: user name and password masked, the user name `git` excepted (GitLab does the same).
    #[must_use]
    pub fn masked(&self, credentials: &Credentials) -> String {
        let mask = |user: &str| if user == "git" { "git" } else { MASK }.to_owned();
        match self {
            Self::Http { url, .. } => match (&credentials.username, &credentials.secret) {
                (None, None) => url.clone(),
                (Some(user), None) => with_userinfo(url, &mask(user)),
                (_, Some(_)) => with_userinfo(url, "*****:*****"),
            },
            _ => self.with_user(mask),
        }
    }

    /// The URL of what is not http, with its user name as `user` gives it.
    fn with_user(&self, user_name: impl Fn(&str) -> String) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Git { host, port: 9418, path } => format!("git://{}{path}", bracketed(host)),
            Self::Git { host, port, path } => format!("git://{}:{port}{path}", bracketed(host)),
            Self::Ssh { user, host, port, path } => {
                let user = user.as_deref().map(|user| user_name(user) + "@").unwrap_or_default();
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("ssh://{user}{}{port}{slash}{path}", bracketed(host))
            }
            Self::Http { url, .. } => url.clone(),
        }
    }

    /// The URL as it is configured, without credentials but for the user of ssh.
    #[must_use]
    pub fn plain(&self) -> String {
        self.with_user(str::to_owned)
    }
}
