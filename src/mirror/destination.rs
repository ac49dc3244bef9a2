//! Where a run connects to, and with which credentials: configuration and secrets become one
//! target.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::config::{self, AuthMethod, Config, Create, Mirror, Server};
use crate::credentials::{self, Credentials, Secret, identity, read_secret};
use crate::layout::Layout;
use crate::repo::Repository;
use crate::wire::{Contacts, Ssh, Target};

/// The stored credentials of a mirror, to show its URL and to clean texts.
///
/// # Errors
/// [`Error::Files`], when its secret cannot be read.
pub fn credentials(layout: &Layout, mirror: &Mirror) -> Result<Credentials, Error> {
    let path = layout.remote(&mirror.name).join("secret");
    let secret = read_secret(&path).map_err(Error::files("read the secret", path))?;
    Ok(Credentials { username: mirror.username.clone(), secret, approval: None })
}

/// A mirror with the address that somebody has seen. What is asked for it is not for a mirror of the same name with another address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its address ([`crate::wire::Address::identity`]).
    pub address: String,
}

impl From<&Mirror> for Seen {
    fn from(mirror: &Mirror) -> Self {
        Self { name: mirror.name.clone(), address: mirror.address.identity() }
    }
}

impl Seen {
    /// The mirror in `config`.
    ///
    /// # Errors
    /// [`Error::Moved`], if it is not there or has another address.
    pub(super) fn in_config<'c>(&self, config: &'c Config) -> Result<&'c Mirror, Error> {
        let found = config.mirror(&self.name).filter(|mirror| mirror.address.identity() == self.address);
        found.ok_or_else(|| Error::Moved { name: self.name.clone() })
    }
}

/// Makes sure that the configuration still gives the mirror the URL that was read before.
pub(super) fn unmoved(repository: &Repository, server: &Server, seen: &Seen) -> Result<(), Error> {
    seen.in_config(&config::load(repository, server)?).map(drop)
}

/// The credentials for `mirror`, from whichever source has them.
///
/// # Errors
/// [`Error::Credentials`], when a source of its credentials cannot be used.
pub fn found_credentials(repository: &Repository, mirror: &Mirror, server: &Server) -> Result<Credentials, Error> {
    if mirror.is_foreign {
        // Another user wrote the file and chose the address. Our password or key is not for that
        // address.
        return Ok(Credentials { username: mirror.username.clone(), ..Credentials::default() });
    }
    let wanted = credentials::CredentialRequest {
        directory: &repository.layout().remote(&mirror.name),
        name: &mirror.name,
        username: mirror.username.as_deref(),
        file: mirror.password_file.as_deref(),
        command: mirror.password_command.as_deref(),
        place: mirror.address.url_parts(),
        is_needed: mirror.auth_method == AuthMethod::Password,
        has_helper: repository.has_credential_helper(),
        is_servers: mirror.is_servers,
        is_confined: mirror.is_confined,
    };
    credentials::find(&wanted, &server.credential_env).map_err(Error::Credentials)
}

/// The token that creates the mirror's repository: that of `create_token_file`, or else the mirror's own password. `None` if it has none.
///
/// # Errors
/// [`Error::Credentials`], when the file cannot be used.
pub fn create_token(mirror: &Mirror, create: &Create, own: &Credentials) -> Result<Option<Secret>, Error> {
    let Some(file) = create.token_file.as_deref() else { return Ok(own.secret.clone()) };
    let name = mirror.is_servers.then_some(&*mirror.name);
    credentials::read_token(file, name).map(Some).map_err(Error::Credentials)
}

/// Everything that is needed to connect to a mirror.
///
/// # Errors
/// [`Error`], when its credentials cannot be obtained or must not be sent, when its URL has just been changed, or when its pinned host keys cannot be read.
pub fn target(repository: &Repository, mirror: &Mirror, server: &Server) -> Result<Target, Error> {
    let credentials = found_credentials(repository, mirror, server)?;
    if credentials.secret.is_some() {
        // It may have been stored together with a new URL, after this run had read the old one.
        unmoved(repository, server, &mirror.into())?;
    }
    if mirror.address.is_plain_http() && credentials.secret.is_some() && !mirror.allow_insecure_http {
        return Err(Error::InsecureHttp);
    }
    let directory = repository.layout().remote(&mirror.name);
    let ssh = Ssh {
        identity: identity(&directory).filter(|_| !mirror.is_foreign),
        known_hosts: credentials::pins(&directory).map_err(Error::files("read the pinned host keys", directory))?,
        options: mirror.ssh_options.clone(),
        contacts: Contacts::default(),
        askpass: Some(server.credential_env.program.clone()).filter(|_| mirror.auth_method == AuthMethod::Password),
    };
    Ok(Target {
        address: mirror.address.clone(),
        credentials,
        ssh,
        ca_file: mirror.ca_file.clone(),
        proxy: mirror.proxy.clone(),
        timeouts: mirror.timeouts,
        egress: mirror.is_confined.then(|| match mirror.is_foreign {
            true => server.api.egress().without_paths(),
            false => server.api.egress(),
        }),
    })
}
