//! How an address is shown. Commands and the page show its user name. The API and notifications
//! mask it. The configuration has the address without the user name of http. Pure.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Address;
use super::address::bracketed;
use crate::credentials::{Credentials, is_token};

/// What stands for a user name or a password that is not shown.
const MASK: &str = "*****";

/// A user name as a URL has it (RFC 3986, section 3.2.1), so that nothing in it can be taken for the host.
fn encoded(user: &str) -> String {
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');
    utf8_percent_encode(user, UNRESERVED).to_string()
}

/// An http URL with `userinfo` before its host.
fn with_userinfo(url: &str, userinfo: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("an http address has a scheme");
    format!("{scheme}://{userinfo}@{rest}")
}

impl Address {
    /// The URL as commands and the page show it: with the user name and without the password. A user name that looks like a token is
    /// masked.
    #[must_use]
    pub fn shown(&self, credentials: &Credentials) -> String {
        let secret = credentials.secret.as_ref();
        let mask = |user: &str| if is_token(user, secret) { MASK.into() } else { encoded(user) };
        match self {
            Self::Http { url, .. } => match &credentials.username {
                None => url.clone(),
                Some(user) => with_userinfo(url, &mask(user)),
            },
            _ => self.with_user(mask),
        }
    }

    /// The URL as the API and notifications show it: user name and password are masked. The user name `git` is shown, except in an http URL
    /// with a password (GitLab does the same).
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

    /// The URL with the user name of ssh as `user_name` returns it. An http URL has no user name here.
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

    /// The URL for the configuration: a path as it is, `ssh://` also for an scp-style address. Its
    /// only credential is the user name of ssh.
    #[must_use]
    pub fn plain(&self) -> String {
        self.with_user(encoded)
    }
}
