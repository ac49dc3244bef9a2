//! Changes to repositories that root serves in the place of their owners: a child process with the owner's rights makes them (see `owner`).
//!
//! Guaranteed: a child that its owner stops is killed after [`Operation::limit`], so it does not hold up a request for longer. The change
//! may have been made nevertheless; the next scan of the repository finds it.

use anyhow::Context;

use super::mirrors::{Error, OpenProject};
use crate::credentials::HostKey;
use crate::mirror::{Answer, Operation};
use crate::owner::{Hands, Owner};
use crate::process;

/// Does it in a child process, and returns what that answers.
pub(super) fn run(owner: &Owner, opened: &OpenProject, operation: &Operation) -> Result<Vec<HostKey>, Error> {
    let ask = || -> anyhow::Result<Answer> {
        let mut child = owner.command(opened.repository.git_dir(), &opened.server, Hands::Nothing)?;
        child.command.arg("change");
        // The operation may hold a password. So it goes through a pipe.
        let said = match child.ask(&operation.to_json()?, operation.limit()) {
            Err(error @ process::Error::TooSlow { .. }) => {
                return Ok(Answer::Busy(format!("{error}; look what has changed")));
            }
            said => said?,
        };
        serde_json::from_slice(&said).context("the process of the owner gave no answer")
    };
    match ask()? {
        Answer::Done(lines) => Ok(lines.iter().filter_map(|line| HostKey::parse(line)).collect()),
        other => Err(other.into()),
    }
}
