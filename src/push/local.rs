//! A mirror on this machine: its receive-pack, or its upload-pack, in a process of its own.

use std::path::Path;

use super::stream::Stream;
use super::{Error, Target};
use crate::process::{CONFIG_VARIABLES, Child, command};

/// Starts the receive-pack of a repository on this machine.
pub(super) fn receive_pack(path: &Path, target: &Target) -> Result<Stream, Error> {
    Ok(Stream::of_child(start(path, "receive-pack")?, target.timeouts))
}

/// Starts `git receive-pack` or `git upload-pack` of a repository on this machine.
pub(super) fn start(path: &Path, service: &str) -> Result<Child, Error> {
    if !path.is_dir() {
        return Err(Error::NotFound(format!("'{}' is not a directory on this machine", path.display())));
    }
    let mut command = command("git");
    for variable in CONFIG_VARIABLES {
        command.env_remove(variable);
    }
    Ok(Child::start(&format!("git {service}"), command.arg(service).arg(path))?)
}
