//! Object directories that the environment adds (`GIT_ALTERNATE_OBJECT_DIRECTORIES`, git(1)), which gix does not know.
//!
//! gix itself reads those that a repository names (`objects/info/alternates`). For the others we open the object store on a temporary
//! directory, whose alternates are the repository's object directory and the added ones. The directory is removed when
//! the last `Added` is dropped. If the program is killed, the directory stays; it contains only that list.

#![expect(clippy::disallowed_methods, reason = "reads the variable, and writes the list for gix")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use gix::odb::store::init::Options;

use crate::durable;

/// The variable.
const ADDED: &str = "GIT_ALTERNATE_OBJECT_DIRECTORIES";

/// The temporary directory that lists them, if there are any.
pub(super) type Added = Option<Arc<tempfile::TempDir>>;

/// Makes `repository` read the directories that the environment adds. The caller must keep the returned value as long as `repository`.
pub(super) fn add(repository: &mut gix::ThreadSafeRepository) -> io::Result<Added> {
    let Some(added) = std::env::var_os(ADDED).filter(|added| !added.is_empty()) else { return Ok(None) };
    let local = repository.to_thread_local();
    let directory = durable::private_directory(&std::env::temp_dir())?;
    let here = std::env::current_dir()?;
    let own = absolute(&here, local.objects.store_ref().path());
    std::fs::create_dir(directory.path().join("info"))?;
    std::fs::create_dir(directory.path().join("pack"))?;
    std::fs::write(directory.path().join("info/alternates"), listed(&own, &here, &added))?;
    let options = Options { current_dir: Some(here), ..Options::default() };
    let none = &mut std::iter::empty();
    let store = gix::odb::Store::at_opts(directory.path().to_owned(), local.object_hash(), none, options)?;
    repository.objects = gix::parallel::OwnShared::new(store);
    Ok(Some(Arc::new(directory)))
}

/// The content of `info/alternates`: one path a line. A quoted path stays as it is.
fn listed(own: &[u8], here: &Path, added: &OsStr) -> Vec<u8> {
    let mut is_quoted = false;
    let paths = added.as_bytes().split(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b':' && !is_quoted
    });
    let paths = paths.filter(|path| !path.is_empty()).map(|path| match path.first() {
        Some(b'"') => path.to_vec(),
        _ => absolute(here, Path::new(OsStr::from_bytes(path))),
    });
    std::iter::once(own.to_vec()).chain(paths).flat_map(|path| [path, b"\n".to_vec()].concat()).collect()
}

fn absolute(here: &Path, path: &Path) -> Vec<u8> {
    here.join(path).into_os_string().into_encoded_bytes()
}
