//! A HEAD of this repository that does not follow upstream's, because somebody has set it here.

use std::fmt;

use crate::config::Mirror;
use crate::process::shell_word;
use crate::refs::{Local, RefName};
use crate::repo::Repository;

/// Two HEADs that name different branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherHead {
    mirror: String,
    ours: RefName,
    theirs: RefName,
}

impl OtherHead {
    /// `None` if HEAD names the branch `theirs` of upstream's HEAD, if it need not (`follow_head`), or if that branch is not here.
    #[must_use]
    pub fn of(repository: &Repository, mirror: &Mirror, theirs: Option<&RefName>) -> Option<Self> {
        let theirs = theirs.filter(|_| mirror.is_pull() && mirror.pull.follows_head)?;
        let ours = repository.default_branch().ok().flatten().filter(|ours| ours != theirs)?;
        let is_here = matches!(repository.find_each(&[theirs]).ok()?.first(), Some(Local::At(_)));
        is_here.then(|| Self { mirror: mirror.name.clone(), ours, theirs: theirs.clone() })
    }

    /// The command that fixes it, and the one that keeps it.
    #[must_use]
    pub fn fix(&self) -> String {
        format!(
            "git symbolic-ref HEAD {}; to keep HEAD as it is: git mirror-push set {} follow_head=false",
            word(&self.theirs),
            self.mirror
        )
    }
}

impl fmt::Display for OtherHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HEAD names '{}' here and '{}' upstream", self.ours.short(), self.theirs.short())
    }
}

/// The name of a ref as a word of a shell command.
pub(super) fn word(name: &RefName) -> String {
    let name = name.text();
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if is_plain { name.into_owned() } else { shell_word(&name) }
}
