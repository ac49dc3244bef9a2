//! A mirror on this machine: its receive-pack, or its upload-pack, in a process of its own.

use std::path::Path;

use super::stream::Stream;
use super::{Error, Service, Target};
use crate::process::{CONFIG_VARIABLES, Child, command};

/// Starts a service of a repository on this machine and connects to it.
pub(super) fn connect(service: Service, path: &Path, target: &Target) -> Result<Stream, Error> {
    Ok(Stream::of_child(start(service, path)?, target.timeouts))
}

/// Starts `git receive-pack` or `git upload-pack` of a repository on this machine.
pub(super) fn start(service: Service, path: &Path) -> Result<Child, Error> {
    if !path.is_dir() {
        return Err(Error::NotFound(format!("'{}' is not a directory on this machine", path.display())));
    }
    let mut command = command("git");
    for variable in CONFIG_VARIABLES {
        command.env_remove(variable);
    }
    let service = service.name().trim_start_matches("git-");
    Ok(Child::start(&format!("git {service}"), command.arg(service).arg(path))?)
}
