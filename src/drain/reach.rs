//! Reads the advertisement of a mirror and sends nothing, for `doctor` and the remote helper.

use super::{Error, absent};
use crate::config;
use crate::mirror;
use crate::push::{Advertised, Session};
use crate::refs::{NameRef, Oid};
use crate::repo::Repository;
use crate::wire::Pool;

/// Connects to a mirror and reads its advertisement. Changes nothing there, and makes no repository that is not there.
///
/// # Errors
/// [`Error`]
pub fn reach(
    repository: &Repository,
    mirror: &config::Mirror,
    server: &config::Server,
    each: &mut dyn FnMut(NameRef<'_>, Oid),
) -> Result<Advertised, Error> {
    let (target, pool) = (mirror::target(repository, mirror, server)?, Pool::default());
    absent::look(&target, &pool)?;
    let mut session = Session::connect(&target, &pool)?;
    let advertised = session.advertisement(each)?;
    session.end();
    Ok(advertised)
}
