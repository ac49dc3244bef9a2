//! Reading from a mirror: a connection to its upload-pack, for git to talk to (gitremote-helpers(7), `connect`).
//!
//! Not for http, where git's own helper does it. The program or connection ends with its owner.

use std::io::{Read, Write};

use super::askpass::AskpassServer;
use super::{Address, Error, Service, Target, local, ssh, tcp};
use crate::process::Child;

const SERVICE: Service = Service::UploadPack;

/// A connection to upload-pack. git holds the conversation.
pub struct Upload {
    /// What the mirror says.
    pub input: Box<dyn Read + Send>,
    /// What git sends to it.
    pub output: Box<dyn Write + Send>,
    _child: Option<Child>,
    _offer: Option<AskpassServer>,
}

impl Upload {
    /// Reaches the mirror. `None` for http.
    ///
    /// # Errors
    /// [`Error`]. What the program writes to standard error is not shown.
    pub fn connect(target: &Target) -> Result<Option<Self>, Error> {
        let (mut child, offer) = match &target.address {
            Address::Local(path) => (local::start(SERVICE, path)?, None),
            Address::Ssh { user, host, port, path } => ssh::start(SERVICE, user.as_deref(), host, *port, path, target)?,
            Address::Git { host, port, path } => {
                let socket = tcp::dial(host, *port, path, SERVICE, None, target)?;
                let failed = |source| Error::Connect { host: host.clone(), source };
                let (input, output) = (socket.try_clone().map_err(failed)?, socket);
                let (input, output) = (Box::new(input), Box::new(output));
                return Ok(Some(Self { input, output, _child: None, _offer: None }));
            }
            Address::Http { .. } => return Ok(None),
        };
        let (input, output) = (Box::new(child.stdout()), Box::new(child.stdin()));
        Ok(Some(Self { input, output, _child: Some(child), _offer: offer }))
    }
}
