//! A repository on this machine: its receive-pack, or its upload-pack, in a process of its own.

use std::path::Path;
use std::process::Command;

use super::stream::Stream;
use super::{Error, Service, Target, Timeouts};
use crate::process::{CONFIG_VARIABLES, Child, command};

/// Starts a service of a repository on this machine and connects to it.
pub(super) fn connect(service: Service, path: &Path, target: &Target) -> Result<Stream, Error> {
    let child = start_with(service, path, |command| {
        if let Some(version) = service.version() {
            command.env("GIT_PROTOCOL", version);
        }
    })?;
    Ok(Stream::of_child(child, target.timeouts))
}

/// Starts `git receive-pack` or `git upload-pack` of a repository on this machine. Asks for no protocol version.
pub(super) fn start(service: Service, path: &Path) -> Result<Child, Error> {
    start_with(service, path, |_| {})
}

/// How our own receive-pack is to run.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Settings of git, `name=value`. They override those of the repository.
    pub settings: Vec<String>,
    /// Variables for the environment of its hooks.
    pub environment: Vec<(String, String)>,
}

/// Starts the receive-pack of our own repository at `path`, and connects to it. Also returns its process id.
pub(super) fn connect_own(path: &Path, own: &Own, timeouts: Timeouts) -> Result<(Stream, u32), Error> {
    let child = start_with(Service::ReceivePack, path, |command| {
        own.settings.iter().for_each(|setting| {
            command.arg("-c").arg(setting);
        });
        command.envs(own.environment.iter().map(|(name, value)| (name, value)));
    })?;
    let pid = child.id();
    Ok((Stream::of_child(child, timeouts), pid))
}

/// Starts a service. `prepare` adds variables, and the arguments that come before the name of the
/// service.
fn start_with(service: Service, path: &Path, prepare: impl FnOnce(&mut Command)) -> Result<Child, Error> {
    if !path.is_dir() {
        return Err(Error::NotFound(format!("'{}' is not a directory on this machine", path.display())));
    }
    let mut command = command("git");
    for variable in CONFIG_VARIABLES {
        command.env_remove(variable);
    }
    prepare(&mut command);
    let service = service.name().trim_start_matches("git-");
    Ok(Child::start(&format!("git {service}"), command.arg(service).arg(path))?)
}
