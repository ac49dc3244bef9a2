//! A script for a shell on a host, over ssh.

use std::time::Duration;

use super::ssh::{error_of, prepare};
use super::{Address, Error, Target};
use crate::credentials::Redactor;
use crate::process;

/// The command for the login shell of the account. Every shell understands it.
const COMMAND: &str = "exec sh -s";

/// Runs a script with sh(1) on the target's host, and returns its standard output. sh reads the
/// script from standard input, so the login shell of the account does not interpret it.
///
/// # Errors
/// [`Error`]: ssh's, or [`Error::Program`] with what the script wrote to its standard error.
pub fn shell(target: &Target, script: &str, limit: Duration) -> Result<Vec<u8>, Error> {
    let Address::Ssh { user, host, port, .. } = &target.address else {
        return Err(Error::Unable("a shell is reached by ssh only".into()));
    };
    if let Some(egress) = &target.egress {
        egress.check(&target.address)?;
    }
    let redactor = Redactor::new(&target.credentials);
    // The server that answers ssh's question must live until ssh has ended.
    let (mut ssh, _answers, _) = prepare(user.as_deref(), host, *port, COMMAND, target, None)?;
    match process::run("ssh", &mut ssh, script.as_bytes(), limit) {
        Ok(out) => Ok(out),
        Err(process::Error::Failed { program, status, message }) => {
            let message = redactor.clean(&message);
            Err(error_of(program, status, &message, target.ssh.known_hosts.as_deref()).cleaned(&redactor))
        }
        Err(error) => Err(error.into()),
    }
}
