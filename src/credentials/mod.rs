//! Secrets: a type that cannot be printed, the file that stores one, and the redactor that cleans text before it is logged, stored or
//! shown. Also a mirror's own ssh key and its pinned host keys.
//!
//! Guaranteed: neither `Debug` nor `Display` shows a [`Secret`]. The file `secret` has mode 0600 from the moment it exists. It is replaced
//! atomically, so a crash leaves the old secret or the new one. Absent: encryption at rest; whoever can read the repository owner's files
//! can read the secret.

#![expect(clippy::disallowed_methods, reason = "reads password_file, systemd's credentials and .netrc")]

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

mod cleaned;
mod host_keys;
mod keys;
mod redact;
mod sources;
pub mod webhook;

pub use cleaned::Cleaned;
pub use host_keys::{HostKey, pins, read_host_keys, write_host_keys};
pub use keys::{KeyType, generate_key, identity, public_key};
pub use redact::Redactor;
pub use sources::{
    CredentialEnv, CredentialRequest, HandedOver, find, hand_over, judge, read_source, read_token, token_key,
};

use crate::durable;
use crate::process::shell_word;

/// A password or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. It must not reach a log or an error message.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("*****")
    }
}

/// The user name and password for a mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: Option<String>,
    /// The password or token.
    pub secret: Option<Secret>,
    /// The answer of git's credential helper, which is sent back to approve or reject it.
    pub approval: Option<Secret>,
}

/// Whether a user name is really a token. A name with the prefix of a GitHub or GitLab token is one, whatever the password `secret` is.
/// Without a password, a name of 20 or more ASCII letters and digits also counts as a token.
#[must_use]
pub fn is_token(user: &str, secret: Option<&Secret>) -> bool {
    let has_prefix = ["ghp_", "github_pat_", "glpat-"].iter().any(|prefix| user.starts_with(prefix));
    has_prefix || secret.is_none() && user.len() >= 20 && user.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Reads the file `secret`; its last line feed is not part of the secret. `None` when there is no such file, or it is empty.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::PermissionDenied`] when other users may access the file, it belongs to another user, or it
/// is a link.
pub fn read_secret(path: &Path) -> io::Result<Option<Secret>> {
    secret_in(path, durable::open_to_read(path), &durable::is_ours)
}

/// Reads a secret file that the administrator configured. It may be a symbolic link.
fn read_named_secret(path: &Path) -> io::Result<Option<Secret>> {
    let opened = std::fs::File::open(path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok((file, metadata))
    });
    secret_in(path, opened, &durable::is_ours)
}

/// Checks mode and owner on the open descriptor, then reads the secret from it.
fn secret_in(
    path: &Path,
    opened: io::Result<(std::fs::File, std::fs::Metadata)>,
    is_trusted: &dyn Fn(&std::fs::Metadata) -> bool,
) -> io::Result<Option<Secret>> {
    let (mut open, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let refused = |fix: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, fix));
    if file.mode() & 0o077 != 0 {
        let word = shell_word(&path.display().to_string());
        return refused(format!("other users can read '{}'; chmod 600 {word}", path.display()));
    }
    // The owner of the file could replace the password that we send.
    if !is_trusted(&file) {
        return refused(format!("'{}' must belong to you or root; chown it", path.display()));
    }
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok((!text.is_empty()).then(|| Secret::new(text.to_owned())))
}

/// Replaces the file `secret` with one of mode 0600.
///
/// # Errors
/// The operating system's. The old file is then still there, unless only the last sync of the directory failed.
pub fn write_secret(path: &Path, secret: &Secret) -> io::Result<()> {
    sweep(path.parent().unwrap_or(path))?;
    durable::replace(path, format!("{}\n", secret.expose()).as_bytes(), |_| Ok(()))
}

/// Removes the file `secret`, if there is one.
///
/// # Errors
/// The operating system's.
pub fn remove_secret(path: &Path) -> io::Result<()> {
    sweep(path.parent().unwrap_or(path))?;
    durable::remove_if_there(path)
}

/// Removes what a killed process may have left in a mirror's directory while it wrote a password or a key.
fn sweep(directory: &Path) -> io::Result<()> {
    let mut names = durable::list(directory)?;
    names.retain(|name| [".secret.", ".id_", durable::PRIVATE].iter().any(|prefix| name.starts_with(prefix)));
    names.iter().try_for_each(|name| durable::remove_all(&directory.join(name)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_beside_a_secret_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, secret) = (directory.path(), directory.path().join("secret"));
        let leave = || {
            let private = path.join(format!("{}x1", durable::PRIVATE));
            std::fs::create_dir(&private).expect("made");
            for file in [path.join(".secret.0123456789abcdef"), path.join(".id_rsa.01"), private.join("key")] {
                std::fs::write(file, "secret").expect("written");
            }
        };
        let names = || durable::list(path).expect("listed");
        std::fs::write(path.join(".status.json.01"), "{}").expect("written");
        leave();
        write_secret(&secret, &Secret::new("new".into())).expect("written");
        assert_eq!(names(), [".status.json.01", "secret"]);
        leave();
        remove_secret(&secret).expect("removed");
        assert_eq!(names(), [".status.json.01"]);
        leave();
        generate_key(path, KeyType::Ed25519, "test").expect("made");
        assert_eq!(names(), [".status.json.01", "id_ed25519", "id_ed25519.pub"]);
    }
}
