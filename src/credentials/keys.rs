//! A mirror's own ssh key, made by ssh-keygen(1): `id_ed25519` or `id_rsa` in its directory, mode 0600. The public half has the same name
//! with `.pub` at its end.
//!
//! ssh-keygen writes the key into a temporary directory. The public half is copied into place first, then the private half. A crash
//! therefore leaves no private key without a public half. The temporary directory that it may leave is removed with the next key or
//! password of the mirror. A crash between the two copies, while a key of the same type is replaced, leaves the old private key with the
//! new public half. A crash while a key of the other type is replaced may leave both keys; then the Ed25519 key is used. The next key that
//! is made is used, whatever its type.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable;
use crate::durable::sync_directory;
use crate::process;

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Ed25519
    Ed25519,
    /// RSA with 4096 bits, for servers that do not support Ed25519.
    Rsa,
}

impl KeyType {
    fn file(self) -> &'static str {
        match self {
            Self::Ed25519 => "id_ed25519",
            Self::Rsa => "id_rsa",
        }
    }
}

/// The private key in a mirror's directory, if it has one of its own. A key that another user put there does not count.
#[must_use]
pub fn identity(directory: &Path) -> Option<PathBuf> {
    let is_ours =
        |path: &PathBuf| durable::open_to_read(path).is_ok_and(|(_, file)| durable::is_written_by_us_alone(&file));
    [KeyType::Ed25519, KeyType::Rsa].map(|kind| directory.join(kind.file())).into_iter().find(is_ours)
}

/// The public key, as the line to authorise on the mirror's host. `None` when the mirror has no key.
///
/// # Errors
/// The operating system's.
pub fn public_key(directory: &Path) -> io::Result<Option<String>> {
    let Some(identity) = identity(directory) else { return Ok(None) };
    durable::read_text(&public(&identity)).map(Some)
}

fn public(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Makes a key of this type, without a passphrase. It replaces the previous key.
///
/// # Errors
/// The operating system's, or what ssh-keygen said.
pub fn generate_key(directory: &Path, kind: KeyType, comment: &str) -> io::Result<()> {
    super::sweep(directory)?;
    // The program follows links, so it works in a directory of its own.
    let made = durable::private_directory(directory)?;
    let tmp = made.path().join("key");
    let mut command = process::command("ssh-keygen");
    let words: &[&str] = match kind {
        KeyType::Ed25519 => &["-t", "ed25519"],
        KeyType::Rsa => &["-t", "rsa", "-b", "4096"],
    };
    command.args(["-q", "-N", "", "-C", comment]).args(words).arg("-f").arg(&tmp);
    process::run("ssh-keygen", &mut command, b"", Duration::from_secs(120)).map_err(io::Error::other)?;
    let old = identity(directory);
    let new = directory.join(kind.file());
    for (made, new, mode) in [(public(&tmp), public(&new), 0o644), (tmp, new.clone(), 0o600)] {
        durable::replace(&new, &durable::read(&made)?.0, durable::with_mode(mode))?;
    }
    if let Some(old) = old.filter(|old| *old != new) {
        durable::remove_if_there(&old)?;
        durable::remove_if_there(&public(&old))?;
    }
    sync_directory(directory)
}
