//! `mirrored/` as versions before 0.2 wrote it: a private ref store in git's format, loose refs and `packed-refs`.
//!
//! The first run reads it once and writes the new form (see `mirrored`). Then the run removes the old files and makes an empty directory in
//! place of `packed-refs`. An earlier version cannot read that, so it stops and does not trust old values. After a crash in between, the
//! next write removes the old files.

use std::io;
use std::path::Path;

use crate::durable;
use crate::refs::{Oid, RefName};
use crate::repo::{Repository, from_gix, is_refused, one_line};
use crate::wire;

/// The values in `directory`; none when an earlier version left nothing there. Damaged refs are left out.
pub(super) fn values(directory: &Path, repository: &Repository) -> io::Result<Vec<(RefName, Oid)>> {
    if !directory.join("refs").is_dir() && !directory.join("packed-refs").is_file() {
        return Ok(Vec::new());
    }
    let store = repository.private_refs(directory);
    let platform = match store.iter() {
        Err(error) if is_refused(&error) => return Err(io::Error::other(one_line(&error))),
        Err(_) => return Ok(Vec::new()),
        Ok(platform) => platform,
    };
    let mut found = Vec::new();
    for reference in platform.all()? {
        match reference {
            Ok(reference) => {
                let name = RefName::new(reference.name.as_bstr());
                found.extend(name.zip(reference.target.try_id().map(from_gix)));
            }
            Err(error) if is_refused(&error) => return Err(io::Error::other(one_line(&error))),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The address that the values of an earlier version belong to, which is the address of the last
/// contact. `None` if the status in a mirror's `directory` does not have it.
pub(super) fn address(directory: &Path) -> io::Result<Option<String>> {
    let greeting = super::read_as_is(directory)?.greeting;
    Ok(greeting.and_then(|greeting| Some(wire::parse(&greeting.url).ok()?.0.identity())))
}

/// Removes the files of an earlier version, and makes such a version stop here if it runs again.
pub(super) fn retire(directory: &Path) -> io::Result<()> {
    let packed = directory.join("packed-refs");
    if packed.is_dir() {
        return Ok(());
    }
    durable::remove_all(&directory.join("refs"))?;
    durable::remove_all(&packed)?;
    durable::make_directory(&packed, None).map(drop)
}
