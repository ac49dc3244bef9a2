//! One command for a shell on a host, over ssh.

use std::time::Duration;

use super::ssh::{error_of, prepare};
use super::{Address, Error, Target};
use crate::credentials::Redactor;
use crate::process;

/// Runs `command` by the shell of the target's host. What it writes to its standard output is lost.
///
/// # Errors
/// [`Error`]: ssh's, or [`Error::Program`] with what the command wrote to its standard error.
pub fn shell(target: &Target, command: &str, limit: Duration) -> Result<(), Error> {
    let Address::Ssh { user, host, port, .. } = &target.address else {
        return Err(Error::Unable("a shell is reached by ssh only".into()));
    };
    if let Some(egress) = &target.egress {
        egress.check(&target.address)?;
    }
    let redactor = Redactor::new(&target.credentials);
    // The server that answers ssh's question must live until ssh has ended.
    let (mut ssh, _answers, _) = prepare(user.as_deref(), host, *port, command, target, None)?;
    match process::run("ssh", &mut ssh, b"", limit) {
        Ok(_) => Ok(()),
        Err(process::Error::Failed { program, status, message }) => {
            let message = redactor.clean(&message);
            Err(error_of(program, status, &message, target.ssh.known_hosts.as_deref()).cleaned(&redactor))
        }
        Err(error) => Err(error.into()),
    }
}
