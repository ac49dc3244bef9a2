//! What a repository lacks on purpose: history before a shallow boundary, and objects that a promisor remote keeps.

use super::{Error, Repository, from_gix};
use crate::refs::Oid;

impl Repository {
    /// The commits whose parents are left out (the file `shallow`, gitrepository-layout(5)). Empty if the repository is not shallow.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub fn shallow_commits(&self) -> Result<Vec<Oid>, Error> {
        let found = self.inner.shallow_commits().map_err(|error| self.unreadable("'shallow'", &error))?;
        Ok(found.iter().flat_map(|commits| commits.iter()).map(|oid| from_gix(oid)).collect())
    }

    /// Whether objects may be missing that a promisor remote has (git-clone(1), `--filter`).
    #[must_use]
    pub fn is_partial(&self) -> bool {
        let config = self.inner.config_snapshot();
        let has_promisor = config.sections_by_name("remote").into_iter().flatten().any(|section| {
            section.contains_value_name("promisor") || section.contains_value_name("partialclonefilter")
        });
        has_promisor || config.string("extensions.partialClone").is_some()
    }
}
