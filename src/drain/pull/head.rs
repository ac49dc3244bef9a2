//! HEAD of this repository, which follows upstream's HEAD (`follow_head`). With a two-way mirror,
//! only the first pull may set it.

use std::time::Duration;

use super::Pull;
use crate::drain::Error;
use crate::drain::update::UpdateResult;
use crate::fetch::Listed;
use crate::process::{self, git};
use crate::refs::{Local, Oid, RefName};

impl Pull<'_> {
    /// For a pull mirror, sets HEAD if our HEAD names the branch that upstream's HEAD named before.
    /// The first pull of any mirror sets it if this repository had no selected refs, or if our HEAD
    /// names a branch that does not exist.
    /// Returns false if the next run is to try it again. `refs` are the selected refs of upstream.
    pub(super) fn follow_head(
        &self,
        listed: &Listed,
        refs: &[(RefName, Oid)],
        was_empty: bool,
        result: &mut UpdateResult,
    ) -> Result<bool, Error> {
        let Some(pull) = &mut result.pull else { return Ok(true) };
        // Git accepts any name there, but a clone can check out only a branch.
        let head = listed.head.as_ref().filter(|head| head.branch().is_some());
        let Some(head) = head.filter(|_| self.mirror.pull.follows_head) else { return Ok(true) };
        let before = pull.head.clone();
        let ours = self.repository.default_branch()?;
        let is_first = before.is_none() && (was_empty || self.is_head_unborn(ours.as_ref())?);
        // The two sides of a two-way mirror may have different default branches.
        let follows =
            self.mirror.is_pull() && ours.as_ref().is_some_and(|ours| before.as_deref() == Some(&*ours.text()));
        if ours.as_ref() != Some(head) && (is_first || follows) && !self.set_head(head)? {
            // HEAD is not set yet. The next run tries again, unless the branch is not selected and
            // so never comes.
            return Ok(refs.binary_search_by(|(name, _)| name.cmp(head)).is_err());
        }
        pull.head = Some(head.text().into_owned());
        Ok(true)
    }

    /// Sets HEAD. Returns false if that is not possible yet.
    fn set_head(&self, head: &RefName) -> Result<bool, Error> {
        // A HEAD that names a missing branch is of no use, unless this repository has no refs at
        // all.
        if self.repository.has_refs()? && matches!(self.repository.find_each(&[head])?.first(), Some(Local::Absent)) {
            return Ok(false);
        }
        let text = head.text().into_owned();
        let command =
            &mut git(self.repository.git_dir(), &["-c", "core.hooksPath=/dev/null", "symbolic-ref", "HEAD", &text]);
        let set = process::run("git symbolic-ref", command, b"", Duration::from_secs(30));
        Ok(set.inspect_err(|error| tracing::warn!("mirror '{}': cannot set HEAD: {error}", self.mirror.name)).is_ok())
    }

    /// Whether our HEAD names a branch that does not exist.
    fn is_head_unborn(&self, head: Option<&RefName>) -> Result<bool, Error> {
        let Some(head) = head else { return Ok(false) };
        Ok(matches!(self.repository.find_each(&[head])?.first(), Some(Local::Absent) | None))
    }
}
