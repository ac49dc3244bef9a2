//! Pinned host keys: the file `known_hosts` of a mirror, in the format of sshd(8), and the fingerprints of its keys.
//!
//! A line may be hashed, or be that of a certificate authority (`@cert-authority`). ssh reads such lines, and so does this module. The file
//! is replaced as a whole: a crash leaves the old one or the new one.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::Digest;

use crate::durable;

/// A line of the file that holds a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The line as it stands there.
    pub line: String,
    /// The hosts of the key as written: names, patterns, or a hash.
    pub hosts: String,
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa` …
    pub kind: String,
    /// `SHA256:` and base64, as ssh-keygen(1) prints it.
    pub sha256: String,
    /// `MD5:` and hexadecimal, as older servers show it.
    pub md5: String,
}

impl HostKey {
    /// Reads one line. `None` for comments, empty lines, revoked keys, and lines without a valid key.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("@revoked") {
            return None;
        }
        let mut fields = line.split_whitespace().skip(usize::from(line.starts_with('@')));
        let (hosts, kind, key) = (fields.next()?, fields.next()?, fields.next()?);
        let blob = STANDARD.decode(key).ok()?;
        // The key begins with its own type (RFC 4253, section 6.6).
        let length = u32::from_be_bytes(blob.get(..4)?.try_into().ok()?) as usize;
        if blob.get(4..4 + length)? != kind.as_bytes() {
            return None;
        }
        let md5 = md5::Md5::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        Some(Self {
            line: line.to_owned(),
            hosts: hosts.to_owned(),
            kind: kind.to_owned(),
            sha256: format!("SHA256:{}", STANDARD_NO_PAD.encode(sha2::Sha256::digest(&blob))),
            md5: format!("MD5:{md5}"),
        })
    }
}

/// The keys that are pinned in a mirror's directory.
///
/// # Errors
/// The operating system's, or [`io::ErrorKind::PermissionDenied`] when the file belongs to another
/// user or another user can write it. A missing file pins nothing.
pub fn read_host_keys(directory: &Path) -> io::Result<Vec<HostKey>> {
    let text = pins(directory)?.map(|path| durable::read_text(&path)).transpose()?;
    Ok(text.unwrap_or_default().lines().filter_map(HostKey::parse).collect())
}

/// The file of pinned host keys, if there is one.
///
/// # Errors
/// As [`read_host_keys`].
pub fn pins(directory: &Path) -> io::Result<Option<PathBuf>> {
    let path = directory.join("known_hosts");
    match durable::open_to_read(&path) {
        Ok((_, file)) if durable::is_written_by_us_alone(&file) => Ok(Some(path)),
        Ok((_, file)) if durable::is_ours(&file) => {
            let text = format!("other users can write '{0}'; read it, then run: chmod go-w '{0}'", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        Ok(_) => {
            let text = format!("'{}' must belong to you or root; chown it", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pins exactly these keys. If there are none, the file is removed. Then ssh's own known_hosts
/// decides again; a confined mirror is not contacted without a pinned key, unless it may reach all
/// addresses.
///
/// # Errors
/// The operating system's. What was pinned is then still pinned, unless only the last sync of the directory failed.
pub fn write_host_keys(directory: &Path, keys: &[HostKey]) -> io::Result<()> {
    let path = directory.join("known_hosts");
    if keys.is_empty() {
        return durable::remove_if_there(&path);
    }
    let lines: String = keys.iter().map(|key| format!("{}\n", key.line)).collect();
    durable::replace(&path, lines.as_bytes(), |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn reads_lines_as_ssh_does() {
        let key = HostKey::parse(&format!("github.com ssh-ed25519 {KEY}")).expect("a key");
        assert_eq!(key.sha256, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        assert_eq!(key.md5, "MD5:65:96:2d:fc:e8:d5:a9:11:64:0c:0f:ea:00:6e:5b:bd");
        for good in [
            format!("@cert-authority *.example.org ssh-ed25519 {KEY} comment"),
            format!("|1|c2FsdA==|aGFzaA== ssh-ed25519 {KEY}"),
            format!("[host]:2222,10.0.0.1 ssh-ed25519 {KEY}"),
        ] {
            assert_eq!(HostKey::parse(&good).map(|found| found.sha256), Some(key.sha256.clone()), "{good}");
        }
        for bad in [
            "# github.com".to_owned(),
            String::new(),
            format!("@revoked * ssh-ed25519 {KEY}"),
            format!("host ssh-rsa {KEY}"),
            "host ssh-ed25519 AAAA".to_owned(),
            "host ssh-ed25519 %%%%".to_owned(),
            format!("ssh-ed25519 {KEY}"),
        ] {
            assert_eq!(HostKey::parse(&bad), None, "{bad}");
        }
    }
}
