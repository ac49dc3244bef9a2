//! What a person can do about a failed run, with the name of the mirror in the commands. Pure.

use std::io::ErrorKind;

use super::Error;
use crate::config::{AuthMethod, Mirror};
use crate::credentials::{Cleaned, Credentials, Redactor};
use crate::mirror;
use crate::wire::{Address, CertificateProblem, Error as PushError};

/// The error and what to do about it, cleaned, on one line.
#[must_use]
pub fn explained(error: &Error, mirror: &Mirror, credentials: &Credentials) -> Cleaned {
    let redactor = Redactor::new(credentials);
    let text = redactor.clean(&error.to_string()).on_one_line();
    match advice(error, mirror, credentials) {
        // The target of a redirect is text of the server. Our own words must not be masked, even if the password is one of them.
        Some(advice) if matches!(error, Error::Push(PushError::Redirect { .. })) => {
            text.and(&redactor.clean(&format!("; {advice}")))
        }
        Some(advice) => text.and_ours(&format!("; {advice}")),
        None => text,
    }
}

/// What to do about an error. `None` if the error's text already says it, or if there is nothing to do.
#[must_use]
pub fn advice(error: &Error, mirror: &Mirror, credentials: &Credentials) -> Option<String> {
    let (name, address) = (&mirror.name, &mirror.address);
    let is_https = matches!(address, Address::Http { .. }) && !address.is_plain_http();
    Some(match error {
        Error::Push(PushError::Credentials(text)) if text.starts_with(" (HTTP 407)") => {
            "the proxy wants a user name and a password: put its URL with both into http_proxy or https_proxy of the environment".into()
        }
        Error::Push(PushError::Credentials(_)) => about_credentials(mirror, credentials),
        Error::Push(PushError::NotFound(_)) if mirror.is_pull() => format!(
            "is the URL right, and may the account read it? To change it: git mirror-push set {name} --url URL"
        ),
        Error::Push(PushError::NotFound(_)) if mirror.create.is_some() => {
            format!("the next update creates it: git mirror-push sync {name}")
        }
        Error::Push(PushError::NotFound(_)) => match address {
            Address::Http { .. } => format!(
                "create it there, or give the token access to it (many hosts answer 'not found' to both), or fix the URL: git mirror-push set {name} --url URL"
            ),
            _ => format!("create it there, give access to it, or fix the URL: git mirror-push set {name} --url URL"),
        },
        Error::Gone { .. } if mirror.create.is_some() => format!(
            "it was renamed or deleted, or the account lost access (many hosts answer 'not found' to all three); to create it again: git mirror-push sync {name} --create"
        ),
        Error::Gone { .. } => {
            "it was renamed or deleted, or the account lost access (many hosts answer 'not found' to all three)".into()
        }
        Error::NothingUpstream if mirror.sends() => {
            format!("if it is right that the mirror is empty, this gives it everything again: git mirror-push sync {name} --adopt")
        }
        Error::Push(PushError::HostKey { .. }) => {
            format!(
                "compare its fingerprint with the one that its administrator publishes, then pin the key: git mirror-push host-keys {name} --detect"
            )
        }
        Error::Push(PushError::HostKeyChanged { .. }) => format!(
            "somebody may be intercepting the connection: ask the administrator of the host for its fingerprint before you pin it: git mirror-push host-keys {name} --detect"
        ),
        Error::Push(PushError::Redirect { location, .. }) => about_redirect(location.as_deref(), name),
        Error::Push(PushError::Connect { source, host }) => return about_connection(source.kind(), host, address),
        Error::Push(PushError::Certificate { problem, .. }) => return about_certificate(*problem, name),
        Error::Push(PushError::NotSmart(_)) if address.plain().ends_with(".git") => {
            format!("no git repository answers at this URL; give the one that 'git clone' takes: git mirror-push set {name} --url URL")
        }
        Error::Push(PushError::NotSmart(_)) => {
            format!("it may be a web page; try the URL with .git at its end: git mirror-push set {name} --url URL.git")
        }
        Error::Push(PushError::Status { status, .. }) => return about_status(*status, mirror),
        Error::Push(PushError::Protocol(_)) => {
            format!("if no git server answers at this URL, change it: git mirror-push set {name} --url URL")
        }
        Error::Push(PushError::Broken { source, .. }) if is_https && source.kind() == ErrorKind::UnexpectedEof => {
            format!("if this happens again, the port may not speak TLS; to change the URL: git mirror-push set {name} --url URL")
        }
        Error::Mirror(mirror::Error::InsecureHttp) => format!(
            "git mirror-push set {name} --url https://…, or git mirror-push set {name} allow_insecure_http=true"
        ),
        _ => return None,
    })
}

/// What to do about credentials that the mirror refused.
fn about_credentials(mirror: &Mirror, credentials: &Credentials) -> String {
    let (name, address) = (&mirror.name, &mirror.address);
    let has_password =
        credentials.secret.is_some() || mirror.password_file.is_some() || mirror.password_command.is_some();
    match (address, mirror.auth_method) {
        (Address::Http { .. }, _) | (_, AuthMethod::Password) if !has_password => match &mirror.username {
            None if matches!(address, Address::Http { .. }) => format!(
                "no password is stored for it: git mirror-push set {name} --username USER, then git mirror-push credential {name}"
            ),
            _ => format!("no password is stored for it: git mirror-push credential {name}"),
        },
        (Address::Http { .. }, _) | (_, AuthMethod::Password) => {
            format!(
                "the password or token may have expired, or may lack write access; store a new one: git mirror-push credential {name}"
            )
        }
        (_, AuthMethod::SshPublicKey) => {
            format!("git mirror-push public-key {name} prints the key to authorise there")
        }
        _ if mirror.is_confined => {
            format!("give the mirror a key of its own: git mirror-push set {name} --auth-method ssh_public_key")
        }
        _ => format!(
            "authorise a key of this user there, or give the mirror its own: git mirror-push set {name} --auth-method ssh_public_key"
        ),
    }
}

/// `host` is where the connection was to go: the host of the address, or a proxy.
fn about_connection(kind: ErrorKind, host: &str, address: &Address) -> Option<String> {
    let is_refused = |(own, _): &(&str, u16)| kind == ErrorKind::ConnectionRefused && *own == host;
    let (_, port) = address.host_and_port().filter(is_refused)?;
    Some(format!("nothing listens at port {port} there, or a firewall refuses the connection"))
}

fn about_redirect(location: Option<&str>, name: &str) -> String {
    match is_login(location) {
        true => format!(
            "that is a page to sign in: check the URL and the credentials: git mirror-push set {name} --url URL, git mirror-push credential {name}"
        ),
        false => format!("git mirror-push set {name} --url {}", repository_at(location)),
    }
}

/// Whether a redirect leads to a page for signing in. Its last component says so at GitLab, GitHub, Gitea and most others.
fn is_login(location: Option<&str>) -> bool {
    let last = location.unwrap_or_default().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = last.to_ascii_lowercase();
    ["login", "signin", "sign_in", "sign-in", "sso"].iter().any(|word| last.starts_with(word))
}

/// The URL of the repository to which a redirect leads. `URL` if the target is not known, or has characters that a shell may interpret.
fn repository_at(location: Option<&str>) -> &str {
    let target = location.unwrap_or("URL");
    let target = target.strip_suffix("/info/refs").unwrap_or(target);
    let target = target.strip_suffix("/git-receive-pack").unwrap_or(target);
    // The command is pasted into a shell, and the server chose the target.
    let is_harmless = target.chars().all(|c| c.is_ascii_alphanumeric() || "/:.-_~+%".contains(c));
    if is_harmless { target } else { "URL" }
}

/// What to do about an HTTP status. `None` if a later attempt may succeed without a change.
fn about_status(status: u16, mirror: &Mirror) -> Option<String> {
    let name = &mirror.name;
    match status {
        400 if mirror.address.is_plain_http() => {
            Some(format!("this port may expect https: git mirror-push set {name} --url https://…"))
        }
        411 => {
            Some("the server refuses a body of unknown length; ask its administrator to allow chunked requests".into())
        }
        413 => Some("ask its administrator to raise the limit for one request (nginx: client_max_body_size)".into()),
        408 | 425 | 429 => None,
        400..=499 => {
            Some(format!("ask the administrator of the host, or fix the URL: git mirror-push set {name} --url URL"))
        }
        _ => None,
    }
}

fn about_certificate(problem: CertificateProblem, name: &str) -> Option<String> {
    Some(match problem {
        CertificateProblem::Trust => format!(
            "if you trust it, name the file with the certificate of its authority: git mirror-push set {name} ca_file=FILE"
        ),
        CertificateProblem::Name => {
            format!("use the name that the certificate has: git mirror-push set {name} --url URL")
        }
        CertificateProblem::Dates => "the server needs a new certificate, or the clock of this machine is wrong".into(),
        CertificateProblem::Other => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_after_a_redirect_has_nothing_that_a_shell_would_interpret() {
        for (location, url) in [
            (None, "URL"),
            (Some("https://h:8443/a/b.git/info/refs"), "https://h:8443/a/b.git"),
            (Some("https://h/b.git/git-receive-pack"), "https://h/b.git"),
            (Some("https://h/$(id)/info/refs"), "URL"),
            (Some("https://h/a;id"), "URL"),
        ] {
            assert_eq!(repository_at(location), url, "{location:?}");
        }
    }

    #[test]
    fn a_page_to_sign_in_is_no_repository() {
        for (location, is_page) in [
            ("https://h/users/sign_in", true),
            ("https://h/login", true),
            ("https://h/user/login/", true),
            ("https://h/a/login.git/info/refs", false),
            ("https://h/a/b.git/info/refs", false),
        ] {
            assert_eq!(is_login(Some(location)), is_page, "{location}");
        }
    }
}
