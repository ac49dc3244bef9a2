//! The mirrors of a repository, only to show them. The repository is opened only if its files do
//! not suffice (see [`Plain`]).

use std::path::Path;

use super::Error;
use crate::config::{self, Config, Server};
use crate::durable;
use crate::layout::Layout;
use crate::repo::{self, Plain};

/// The files and the configuration of a repository that a list of repositories names. The
/// caller checks that no other repository gets the same URL ([`Server::check_url_of`]).
///
/// # Errors
/// [`Error::Repository`] and [`Error::Config`].
pub fn to_show(git_dir: &Path, server: &Server) -> Result<(Layout, Config), Error> {
    let config = Plain::at(git_dir).map(|plain| config::load_plain(&plain, server));
    if let Some(config) = config.transpose()?.flatten() {
        return Ok((Layout::new(git_dir), config));
    }
    let repository = repo::open_listed(git_dir)?.to_local();
    let config = config::load(&repository, server)?;
    Ok((repository.layout(), config))
}

/// Looks at the mirrors of a repository as [`to_show`] does, and opens its directory only once.
///
/// # Errors
/// As [`to_show`].
pub fn with_shown<T>(git_dir: &Path, server: &Server, look: impl FnOnce(&Layout, &Config) -> T) -> Result<T, Error> {
    durable::within(git_dir, || to_show(git_dir, server).map(|(layout, config)| look(&layout, &config)))
}
