//! Whether this program may work on a repository, and how its refs are stored: git's rules for `extensions.*` (gitrepository-layout(5),
//! git-config(1)), and grafts.

#![expect(clippy::disallowed_methods, reason = "looks for info/grafts")]

use std::io::ErrorKind;
use std::path::Path;

use super::Error;

/// How refs are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefStorage {
    /// Loose files and `packed-refs`.
    Files,
    /// Tables (git's `Documentation/technical/reftable`).
    Reftable,
}

/// Extensions that do not matter here, whatever the version of the format.
const ANY_VERSION: [&str; 4] = ["noop", "preciousobjects", "partialclone", "worktreeconfig"];

/// Extensions that mean something in version 1 only; git refuses them in version 0.
const VERSION_1: [&str; 6] =
    ["noop-v1", "objectformat", "compatobjectformat", "refstorage", "relativeworktrees", "submodulepathconfig"];

/// Refuses a repository that git would refuse, and one with grafts, because git sees another
/// history there than the one that is stored.
pub(super) fn examine(repository: &gix::Repository, git_dir: &Path) -> Result<RefStorage, Error> {
    let refused = |name: &str, why| Error::Extension { path: git_dir.to_owned(), name: name.to_owned(), why };
    let config = repository.config_snapshot();
    let is_version_1 = config.integer("core.repositoryFormatVersion") == Some(1);
    let mut storage = RefStorage::Files;
    for section in config.sections_by_name("extensions").into_iter().flatten() {
        // Git reads them from the repository's own file only.
        if section.meta().source != gix::config::Source::Local {
            continue;
        }
        for name in section.value_names() {
            let name = name.to_lowercase();
            if ANY_VERSION.contains(&&*name) {
                continue;
            }
            match (VERSION_1.contains(&&*name), is_version_1) {
                (true, true) => {}
                (true, false) => return Err(refused(&name, ", which needs core.repositoryFormatVersion = 1")),
                (false, true) => return Err(refused(&name, ", which is not known here; a later version may know it")),
                (false, false) => continue,
            }
            if name == "refstorage" {
                storage = match section.value(&name).map(|value| value.to_string()).as_deref() {
                    Some("files") => RefStorage::Files,
                    Some("reftable") => RefStorage::Reftable,
                    _ => {
                        return Err(refused(
                            &name,
                            " of a kind that is not known here; the known ones are files and reftable",
                        ));
                    }
                };
            }
        }
    }
    refuse_grafts(git_dir)?;
    Ok(storage)
}

/// Refuses a repository with grafts. They change what git takes for the parents of a commit, so git would pack another history than the
/// one that is stored.
fn refuse_grafts(git_dir: &Path) -> Result<(), Error> {
    let path = git_dir.join("info/grafts");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => {
            let (what, path) = ("info/grafts".to_owned(), git_dir.to_owned());
            return Err(Error::Read { what, path, reason: error.to_string() });
        }
    };
    let is_graft = |line: &[u8]| !line.trim_ascii().is_empty() && !line.starts_with(b"#");
    match text.split(|byte| *byte == b'\n').any(is_graft) {
        true => Err(Error::Grafts { path: git_dir.to_owned() }),
        false => Ok(()),
    }
}
