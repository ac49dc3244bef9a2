//! Reading from a mirror: a connection to its upload-pack, for git to talk to (gitremote-helpers(7), `connect`).
//!
//! Not for http, where git's own helper does it. Dropping an [`Upload`] ends the program or connection.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::askpass::AskpassServer;
use super::{Address, Error, Service, Target, local, ssh, tcp};
use crate::credentials::Redactor;
use crate::process::{self, Child};

const SERVICE: Service = Service::UploadPack;

/// A connection to upload-pack. git holds the conversation.
pub struct Upload {
    /// What the mirror says.
    pub input: Box<dyn Read + Send>,
    /// What git sends to it.
    pub output: Box<dyn Write + Send>,
    child: Option<Child>,
    known_hosts: Option<PathBuf>,
    _offer: Option<AskpassServer>,
}

impl Upload {
    /// Reaches the mirror. `None` for http.
    ///
    /// # Errors
    /// [`Error`], when the connection or the program cannot be started. A later failure of the
    /// program is reported by [`Upload::end`].
    pub fn connect(target: &Target) -> Result<Option<Self>, Error> {
        if let (Some(egress), Address::Local(_)) = (&target.egress, &target.address) {
            egress.check(&target.address)?;
        }
        let (mut child, offer) = match &target.address {
            Address::Local(path) => (local::start(SERVICE, path)?, None),
            Address::Ssh { user, host, port, path } => ssh::start(SERVICE, user.as_deref(), host, *port, path, target)?,
            Address::Git { host, port, path } => {
                let socket = tcp::dial(host, *port, path, SERVICE, None, target)?;
                let failed = |source| Error::Connect { host: host.clone(), source };
                let (input, output) = (socket.try_clone().map_err(failed)?, socket);
                let (input, output) = (Box::new(input), Box::new(output));
                return Ok(Some(Self { input, output, child: None, known_hosts: None, _offer: None }));
            }
            Address::Http { .. } => return Ok(None),
        };
        let (input, output) = (Box::new(child.stdout()), Box::new(child.stdin()));
        let known_hosts = target.ssh.known_hosts.clone();
        Ok(Some(Self { input, output, child: Some(child), known_hosts, _offer: offer }))
    }

    /// Ends the program, if one was started.
    ///
    /// # Errors
    /// What its last message means, if it failed.
    pub fn end(self, redactor: &Redactor) -> Result<(), Error> {
        const GRACE: Duration = Duration::from_secs(2);
        drop((self.input, self.output));
        let Some(child) = self.child else { return Ok(()) };
        match child.failure(GRACE) {
            process::Error::Failed { status, .. } if status == " with exit status 0" => Ok(()),
            process::Error::Failed { program, status, message } => {
                let message = redactor.clean(&message);
                Err(ssh::error_of(program, status, &message, self.known_hosts.as_deref()).cleaned(redactor))
            }
            other => Err(other.into()),
        }
    }
}
