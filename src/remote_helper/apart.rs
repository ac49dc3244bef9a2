//! A git directory with the objects and the refs of a repository, and without its configuration.
//!
//! Guaranteed: git's helper for http, which works in it, reads no setting of the repository. Another user may have written these:
//! `core.askPass` runs a program, `http.cookieFile` and `http.saveCookies` read and write files, and `http.proxy` decides which server is
//! asked. What the helper writes, packs and `shallow`, goes into the repository. Absent: hooks, grafts and worktrees. After a crash
//! or a signal, the directory stays; it contains only links.

#![expect(clippy::disallowed_methods, reason = "makes a git directory of links")]

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::durable;
use crate::process::{self, CONFIG_VARIABLES};
use crate::repo::{Repository, Sharing};

/// What is linked. What is missing there is a link to nothing, which git takes as missing, and follows when it makes the file.
const LINKED: [&str; 5] = ["objects", "refs", "packed-refs", "reftable", "shallow"];

/// Such a directory. It is removed when the value is dropped.
pub(super) struct Apart(tempfile::TempDir);

impl Apart {
    /// Makes one for `repository`.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn from(repository: &Repository) -> io::Result<Self> {
        let directory = durable::private_directory(&std::env::temp_dir())?;
        let there = repository.git_dir();
        for name in LINKED {
            symlink(there.join(name), directory.path().join(name))?;
        }
        std::fs::write(directory.path().join("HEAD"), "ref: refs/heads/main\n")?;
        std::fs::write(directory.path().join("config"), config(repository))?;
        Ok(Self(directory))
    }

    /// A git command in it. If `is_confined`, the settings and the `.netrc` of the user do not count either, and no program asks for a
    /// password.
    pub(super) fn git(&self, is_confined: bool) -> Command {
        let mut command = process::git(self.path(), &[]);
        if is_confined {
            for name in CONFIG_VARIABLES.iter().chain(&["XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"]) {
                command.env_remove(name);
            }
            command.env("HOME", self.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_ASKPASS", "");
        }
        command
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The configuration of such a directory. Of the repository's own it has the formats, and what counts for files that are written and for
/// objects that are received; as values that are known, and not as the text that somebody wrote.
fn config(repository: &Repository) -> String {
    let format = repository.object_format();
    let is_reftable = repository.git_dir().join("reftable").is_dir();
    let version = u8::from(is_reftable || format != "sha1");
    let mut text = format!("[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n");
    text += &match repository.sharing() {
        Sharing::Umask => String::new(),
        Sharing::Add(0o660) => "\tsharedRepository = group\n".to_owned(),
        Sharing::Add(_) => "\tsharedRepository = all\n".to_owned(),
        Sharing::Exactly(mode) => format!("\tsharedRepository = 0{mode:o}\n"),
    };
    for key in ["fetch", "transfer"] {
        if repository.git_flag(&format!("{key}.fsckObjects")) {
            text += &format!("[{key}]\n\tfsckObjects = true\n");
        }
    }
    if version == 1 {
        // Earlier versions of git know no `refStorage`, and refuse what they do not know.
        let storage = if is_reftable { "\trefStorage = reftable\n" } else { "" };
        text += &format!("[extensions]\n\tobjectFormat = {format}\n{storage}");
    }
    text
}
