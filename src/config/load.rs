//! The only reader of environment variables and configuration files.

#![expect(clippy::disallowed_methods, reason = "the one place that reads the environment and configuration files")]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Config, Error, Server, file, parse};
use crate::repo::Repository;

/// What the process was told besides its arguments.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `GIT_DIR`
    pub git_dir: Option<PathBuf>,
    /// `GIT_MIRROR_PUSH_CONFIG`
    pub server_config: Option<PathBuf>,
    /// `MIRROR_PUSH_LOG`, a level: error, warn, info, debug, trace.
    pub log: Option<String>,
    /// The working directory.
    pub current_dir: PathBuf,
    /// Whether `NO_COLOR` asks for no colour.
    pub is_colour_unwanted: bool,
    /// This program, for a drain that is woken.
    pub program: PathBuf,
}

impl Environment {
    /// Reads the environment.
    ///
    /// # Errors
    /// The operating system's, when there is no working directory.
    pub fn read() -> io::Result<Self> {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self {
            git_dir: path("GIT_DIR"),
            server_config: path("GIT_MIRROR_PUSH_CONFIG"),
            log: std::env::var("MIRROR_PUSH_LOG").ok(),
            current_dir: std::env::current_dir()?,
            is_colour_unwanted: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            program: std::env::current_exe()?,
        })
    }
}

/// Where the server's file is when nothing says otherwise.
const SERVER_FILE: &str = "/etc/git-mirror-push/config.toml";

/// Reads the server's file. One that was named must be there; the usual one may be missing.
///
/// # Errors
/// [`Error`].
pub fn load_server(named: Option<&Path>) -> Result<Server, Error> {
    let path = named.unwrap_or(Path::new(SERVER_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => file::parse_server(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Server::default()),
        Err(source) => Err(Error::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// Reads the file of a repository; a missing file is one without mirrors.
///
/// # Errors
/// [`Error`].
pub fn load(repository: &Repository, server: &Server) -> Result<Config, Error> {
    let path = repository.layout().config();
    parse(&path, &read_owned(&path, repository.git_dir())?.unwrap_or_default(), server)
}

/// Reads a file that must belong to us, to the owner of `git_dir`, or to root. `None` when it is missing.
///
/// # Errors
/// [`Error::Io`] or [`Error::OtherOwner`].
pub fn read_owned(path: &Path, git_dir: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Io { doing: "read", path: path.to_owned(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let repository_owner = std::fs::metadata(git_dir).map_err(failed)?.uid();
    if ![0, rustix::process::geteuid().as_raw(), repository_owner].contains(&metadata.uid()) {
        return Err(Error::OtherOwner { path: path.to_owned() });
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}
