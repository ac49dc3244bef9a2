//! The refs in which the mirror's value of a conflict is here, so that people can merge it: `refs/conflicts/NAME/<8 digits>/heads/main`.
//!
//! Guaranteed: a conflict is reported only if its ref is here. A ref of a conflict that is over is deleted by the next run that compares all
//! refs. A crash leaves a ref too many, or an object that no ref needs.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::pull::Pull;
use super::update::UpdateResult;
use super::{Error, kept};
use crate::fetch::Stage;
use crate::refs::{Local, Oid, RefName};
use crate::status::Outcome;

impl Pull<'_> {
    /// Makes the refs of the conflicts in `result`, and deletes those of conflicts that are over. Objects come from `stage`.
    pub(super) fn note_conflicts(&self, stage: Option<&Stage>, result: &mut UpdateResult) -> Result<(), Error> {
        let prefix = format!("refs/conflicts/{}/", self.mirror.name);
        let there = self.repository.list(|name| name.as_bytes().starts_with(prefix.as_bytes()))?;
        let mut left: BTreeMap<RefName, Local> = there.refs.into_iter().collect();
        let (mut commands, mut missing) = (Vec::new(), Vec::new());
        for outcome in result.outcomes.values_mut().filter(|outcome| outcome.outcome == Outcome::Conflict) {
            let (Some(remote), Some(name)) = (outcome.remote, place(&prefix, &outcome.name)) else { continue };
            if left.remove(&name) != Some(Local::At(remote)) {
                commands.extend([b"update ", name.as_bytes(), format!("\0{remote}\0\0").as_bytes()].concat());
            }
            if !self.repository.is_here(remote)? {
                missing.push(remote);
            }
            outcome.kept_as = Some(name);
        }
        if let Some(stage) = stage.filter(|_| !missing.is_empty()) {
            let known: HashSet<Oid> = self.repository.list(|_| true)?.values().collect();
            stage.hand_over(self.repository, &missing, known.into_iter())?;
        }
        for name in left.keys() {
            commands.extend([b"delete ", name.as_bytes(), b"\0\0"].concat());
        }
        kept::update_refs(self.repository, &commands).map_err(|error| Error::Keep(error.to_string()))
    }
}

/// The ref for the conflict of `name`. The digits keep apart what git cannot store side by side, like `x` and `x/y`.
fn place(prefix: &str, name: &RefName) -> Option<RefName> {
    let digits: String = Sha256::digest(name.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let rest = name.as_bytes().strip_prefix(b"refs/").unwrap_or(name.as_bytes());
    RefName::new(&[prefix.as_bytes(), digits.as_bytes(), b"/", rest].concat())
}
