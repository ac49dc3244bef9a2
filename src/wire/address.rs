//! The address of a mirror. The parser is pure. It refuses everything that another program could take for an option or a remote helper,
//! and removes credentials from the URL.

use std::path::PathBuf;

use crate::credentials::{Credentials, Secret};
use crate::terminal::is_obeyed;

/// The address of a mirror, without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A repository on this machine.
    Local(PathBuf),
    /// `git://`
    Git {
        /// Host name or IP address.
        host: String,
        /// The port, 9418 unless the URL says another.
        port: u16,
        /// The path that is sent.
        path: String,
    },
    /// `ssh://` or scp-style.
    Ssh {
        /// The user, if the URL names one. If not, ssh's own configuration decides.
        user: Option<String>,
        /// Host name, IP address, or an alias from ssh_config(5).
        host: String,
        /// The port, if the URL names one.
        port: Option<u16>,
        /// The path that is sent.
        path: String,
    },
    /// `http://` or `https://`
    Http {
        /// The URL without user information and without final slashes.
        url: String,
        /// The host without the port, and an IPv6 address without its brackets.
        host: String,
    },
}

/// Why a URL is refused. The text says what is wrong, and never shows the URL itself, which may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// Parses a URL, a local path or `[user@]host:path`. Returns the password of the URL, and the user name of an http URL, separately.
///
/// # Errors
/// [`Refused`].
pub fn parse(text: &str) -> Result<(Address, Credentials), Refused> {
    if text.is_empty() {
        return refuse("the URL is empty");
    }
    if text.starts_with('-') {
        return refuse("the URL begins with '-'; write './-name' for a path");
    }
    if text.chars().any(is_obeyed) {
        return refuse("the URL has a control character in it");
    }
    let helper = text.split_once("::").map(|(helper, _)| helper);
    if let Some(helper) =
        helper.filter(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    {
        return refuse(format!("'{helper}::' is a remote helper; use http, https, ssh, git, file or a path"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return scp_colon(text).map_or_else(|| local(text), |colon| scp_style(text, colon));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => http(text),
        "ssh" | "git+ssh" | "ssh+git" => ssh(rest),
        "git" => git(rest),
        "file" => match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => local(&percent_decoded(path)?),
            _ => refuse("a file:// URL needs an absolute path: file:///srv/git/mirror.git"),
        },
        _ => refuse(format!("the scheme '{scheme}' is not supported; use http, https, ssh, git, file or a path")),
    }
}

impl Address {
    /// Identifies the repository at this address: scheme, host, port and path. The case of the host, a default port and final slashes make
    /// no difference. User names and passwords are not part of it.
    #[must_use]
    pub fn identity(&self) -> String {
        let (scheme, path) = match self {
            Self::Local(path) => {
                let path: PathBuf = path.components().collect();
                return format!("file://{}", path.display());
            }
            Self::Git { path, .. } => ("git", path.clone()),
            Self::Ssh { user, path, .. } => ("ssh", identity_of_path(user.as_deref(), path)),
            Self::Http { url, .. } => {
                let (scheme, rest) = url.split_once("://").expect("an http address has a scheme");
                (scheme, rest.split_once('/').map_or_else(String::new, |(_, path)| format!("/{path}")))
            }
        };
        let (host, port) = self.host_and_port().expect("only a path has no host");
        format!("{scheme}://{}:{port}{}", bracketed(&host.to_ascii_lowercase()), path.trim_end_matches('/'))
    }

    /// The scheme, the host with the port of the URL if it has one, and the path. `None` unless the URL is http or https.
    #[must_use]
    pub fn url_parts(&self) -> Option<(&str, &str, &str)> {
        let Self::Http { url, .. } = self else { return None };
        let (scheme, rest) = url.split_once("://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        Some((scheme, host, path))
    }

    /// The host, for messages; `None` for this machine.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Git { host, .. } | Self::Ssh { host, .. } | Self::Http { host, .. } => Some(host),
        }
    }

    /// The host and the port that are connected to, unless ssh's configuration names others; `None` for this machine.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match self {
            Self::Local(_) => None,
            Self::Git { host, port, .. } => Some((host, *port)),
            Self::Ssh { host, port, .. } => Some((host, port.unwrap_or(22))),
            Self::Http { url, host } => {
                let (scheme, rest) = url.split_once("://").expect("an http address has a scheme");
                let authority = rest.split('/').next().unwrap_or(rest);
                let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                Some((host, port.unwrap_or(if scheme == "http" { 80 } else { 443 })))
            }
        }
    }

    /// The host and the port, by which attempts are grouped; `None` for this machine. For http the port is there only if the URL has it.
    #[must_use]
    pub fn endpoint(&self) -> Option<String> {
        match self {
            Self::Local(_) => None,
            Self::Git { host, port, .. } => Some(format!("{host}:{port}")),
            Self::Ssh { host, port, .. } => Some(format!("{host}:{}", port.unwrap_or(22))),
            Self::Http { url, host } => {
                let authority = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
                Some(authority.unwrap_or(host).to_owned())
            }
        }
    }

    /// Whether a password would cross the network in the clear.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        matches!(self, Self::Http { url, .. } if url.starts_with("http://"))
    }
}

/// The path of an ssh address, for the comparison of addresses. A path in the home directory of the
/// user names another repository for another user, so the result holds the user. `git` is not in
/// it, because all users of a forge connect as `git`: `git@host:path` is the same as `host:path`.
fn identity_of_path(user: Option<&str>, path: &str) -> String {
    let below_home = path.strip_prefix("~/").unwrap_or(path);
    match user {
        _ if path.starts_with('/') => path.to_owned(),
        _ if below_home.starts_with('~') => format!("/{below_home}"),
        Some(user) if user != "git" => format!("/~{user}/{below_home}"),
        _ => format!("/~/{below_home}"),
    }
}

pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Where `user@host` ends in an scp-style address: at the first colon outside of brackets, if no slash comes before it
/// (git-clone(1), "GIT URLS").
fn scp_colon(text: &str) -> Option<usize> {
    let end = text.find('/').unwrap_or(text.len());
    let bracket = text[..end].find(']').map_or(0, |at| at + 1);
    text[bracket..end].find(':').map(|at| bracket + at)
}

fn local(path: &str) -> Result<(Address, Credentials), Refused> {
    Ok((Address::Local(PathBuf::from(path)), Credentials::default()))
}

fn scp_style(text: &str, colon: usize) -> Result<(Address, Credentials), Refused> {
    let (authority, path) = (&text[..colon], &text[colon + 1..]);
    if path.is_empty() {
        return refuse("the URL has no path after the host");
    }
    if path.starts_with('-') {
        return refuse("the path begins with '-'; write 'host:./-name'");
    }
    let (user, host) = user_and_host(authority)?;
    Ok((Address::Ssh { user, host, port: None, path: path.to_owned() }, Credentials::default()))
}

fn ssh(rest: &str) -> Result<(Address, Credentials), Refused> {
    let (authority, path) = authority_and_path(rest)?;
    let (userinfo, hostport) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, port) = host_and_port(hostport)?;
    let (user, password) = match userinfo {
        None => (None, None),
        Some(info) => {
            let (user, password) = info.split_once(':').map_or((info, None), |(user, word)| (user, Some(word)));
            (Some(percent_decoded(user)?), password.map(percent_decoded).transpose()?)
        }
    };
    let path = percent_decoded(path)?;
    // `ssh://host/~user/x` means the home directory of user, as in git.
    let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
    let user = user.map(|user| checked(&user, "ssh user")).transpose()?;
    let credentials = Credentials { secret: password.map(Secret::new), ..Credentials::default() };
    Ok((Address::Ssh { user, host: checked(&host, "host")?, port, path }, credentials))
}

fn git(rest: &str) -> Result<(Address, Credentials), Refused> {
    let (authority, path) = authority_and_path(rest)?;
    if authority.contains('@') {
        return refuse("git:// has no users; remove what stands before '@'");
    }
    let (host, port) = host_and_port(authority)?;
    let path = percent_decoded(path)?;
    Ok((Address::Git { host: checked(&host, "host")?, port: port.unwrap_or(9418), path }, Credentials::default()))
}

fn http(text: &str) -> Result<(Address, Credentials), Refused> {
    let (scheme, rest) = text.split_once("://").expect("the caller found the scheme");
    if rest.contains(['?', '#', ' ']) {
        return refuse("the URL has a query, a fragment or a space; give the address of the repository alone");
    }
    let (authority, path) = authority_and_path(rest)?;
    let (userinfo, hostport) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, _) = host_and_port(hostport)?;
    let host = checked(&host, "host")?;
    let url = format!("{}://{hostport}{}", scheme.to_ascii_lowercase(), path.trim_end_matches('/'));
    let Some(info) = userinfo else {
        return Ok((Address::Http { url, host }, Credentials::default()));
    };
    let (user, password) = info.split_once(':').map_or((info, None), |(user, word)| (user, Some(word)));
    let user = checked(&percent_decoded(user)?, "user")?;
    let secret = password.map(percent_decoded).transpose()?.filter(|word| !word.is_empty()).map(Secret::new);
    Ok((Address::Http { url, host }, Credentials { username: Some(user), secret, approval: None }))
}

fn authority_and_path(rest: &str) -> Result<(&str, &str), Refused> {
    // To a browser a backslash is a slash, and ends the host.
    if rest.split('/').next().is_some_and(|authority| authority.contains('\\')) {
        return refuse("the URL has a backslash before its path; in a user name write %5C");
    }
    match rest.find('/') {
        Some(at) if rest.len() > at + 1 => Ok(rest.split_at(at)),
        _ => refuse("the URL has no path after the host"),
    }
}

fn user_and_host(authority: &str) -> Result<(Option<String>, String), Refused> {
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let user = user.map(|user| checked(user, "ssh user")).transpose()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((user, checked(host, "host")?))
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), Refused> {
    let (host, port) = if let Some((inner, after)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = after.strip_prefix(':');
        if port.is_none() && !after.is_empty() {
            return refuse("the URL has something other than a port after ']'");
        }
        (inner, port)
    } else {
        text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
    };
    // `parse` also takes a plus sign, which other parsers do not.
    let number = |port: &str| port.parse().ok().filter(|number| *number > 0 && !port.starts_with('+'));
    let port = match port.filter(|port| !port.is_empty()).map(number) {
        None => None,
        Some(Some(port)) => Some(port),
        Some(None) => return refuse("the port in the URL is not a number from 1 to 65535"),
    };
    Ok((host.to_owned(), port))
}

fn checked(text: &str, what: &str) -> Result<String, Refused> {
    match text {
        "" => refuse(format!("the URL has an empty {what}")),
        _ if text.starts_with('-') => refuse(format!("the {what} in the URL begins with '-'")),
        // ssh may pass the host and the user to a shell (ProxyCommand in the user's configuration).
        _ if what == "host"
            && !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':')) =>
        {
            refuse(
                "the host in the URL has a character that no host name has; write an international name in punycode (xn--…)",
            )
        }
        // The port is cut off already, so only an IPv6 address may have a colon.
        _ if what == "host" && text.contains(':') && text.parse::<core::net::Ipv6Addr>().is_err() => {
            refuse("the host in the URL is followed by more than a port")
        }
        _ if what == "ssh user" && text.contains(|c: char| c.is_whitespace() || "'`\";&<>|(){}$\\".contains(c)) => {
            refuse("the user in the URL has a character that no user name has")
        }
        _ => Ok(text.to_owned()),
    }
}

fn percent_decoded(text: &str) -> Result<String, Refused> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    match decoded {
        Ok(decoded) if !decoded.chars().any(char::is_control) => Ok(decoded.into_owned()),
        _ => refuse("the URL has percent-encoded bytes that are not text"),
    }
}

#[cfg(test)]
mod tests;
