//! A mirror on this machine: its receive-pack, and what it lets us see beside its advertisement: its HEAD and its symbolic refs. Over the wire
//! receive-pack tells neither.

#![expect(clippy::disallowed_methods, reason = "reads HEAD and loose refs of a mirror on this machine")]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::stream::Stream;
use super::{Address, Error, Target};
use crate::process::{CONFIG_VARIABLES, Child, command};
use crate::refs::RefName;

/// Starts the receive-pack of a repository on this machine.
pub(super) fn receive_pack(path: &Path, target: &Target) -> Result<Stream, Error> {
    Ok(Stream::of_child(start(path, "receive-pack")?, target.timeouts))
}

/// Starts `git receive-pack` or `git upload-pack` of a repository on this machine.
pub(super) fn start(path: &Path, service: &str) -> Result<Child, Error> {
    if !path.is_dir() {
        return Err(Error::NotFound(format!("'{}' is no directory on this machine", path.display())));
    }
    let mut command = command("git");
    for variable in CONFIG_VARIABLES {
        command.env_remove(variable);
    }
    Ok(Child::start(&format!("git {service}"), command.arg(service).arg(path))?)
}

/// A mirror on this machine.
pub struct LocalMirror {
    git_dir: PathBuf,
}

impl LocalMirror {
    /// The mirror at `address`, if it is on this machine.
    #[must_use]
    pub fn of(address: &Address) -> Option<Self> {
        let Address::Local(path) = address else { return None };
        let inner = path.join(".git");
        Some(Self { git_dir: if inner.is_dir() { inner } else { path.clone() } })
    }

    /// The branch that its HEAD names. `None` when that cannot be told.
    #[must_use]
    pub fn head(&self) -> Option<RefName> {
        let head = std::fs::read(self.git_dir.join("HEAD")).ok()?;
        RefName::new(head.strip_prefix(b"ref:")?.trim_ascii())
    }

    /// Where it is.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Whether its ref `name` is a symbolic ref; these are never packed.
    #[must_use]
    pub fn is_symbolic(&self, name: &RefName) -> bool {
        let path = self.git_dir.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        std::fs::read(path).is_ok_and(|text| text.starts_with(b"ref:"))
    }
}
