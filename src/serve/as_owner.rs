//! Changes to repositories that root serves in the place of their owners: a child process with the owner's rights makes them (see `owner`).

use std::fs::File;
use std::io::{Seek, SeekFrom};

use anyhow::Context;
use rustix::fs::{MemfdFlags, memfd_create};

use super::mirrors::{Error, OpenProject};
use crate::credentials::HostKey;
use crate::mirror::{Answer, Operation};
use crate::owner::{Hands, Owner};

/// Does it in a child process, and returns what that answers.
pub(super) fn run(owner: &Owner, opened: &OpenProject, operation: &Operation) -> Result<Vec<HostKey>, Error> {
    let ask = || -> anyhow::Result<Answer> {
        // The operation may hold a password. So it goes through memory.
        let mut asked = File::from(memfd_create("operation", MemfdFlags::CLOEXEC)?);
        operation.write(&asked)?;
        asked.seek(SeekFrom::Start(0))?;
        let mut child = owner.command(opened.repository.git_dir(), &opened.server, Hands::Nothing)?;
        child.command.arg("change").stdin(asked);
        let said = child.output()?;
        serde_json::from_slice(&said).context("the process of the owner gave no answer")
    };
    match ask()? {
        Answer::Done(lines) => Ok(lines.iter().filter_map(|line| HostKey::parse(line)).collect()),
        other => Err(other.into()),
    }
}
