//! Repositories that need not be opened: a look at a few files shows that this program may read its
//! own files there.
//!
//! Guaranteed: a plain repository is ours, and no file in it leads to another directory. Absent:
//! whether git would open it; its configuration or HEAD may be damaged. A repository that is not
//! plain may be usable too; only opening it shows that.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::durable;
use crate::refs::RefName;

/// A repository of ours in its simplest form: no worktree, alternates, grafts or extensions, and shared with nobody by its own
/// configuration.
#[derive(Debug)]
pub struct Plain {
    git_dir: PathBuf,
}

/// Words of git's configuration for what a plain repository does not have: extensions, included
/// files, sharing and a working tree elsewhere.
const WORDS: [&[u8]; 4] = [b"extensions", b"include", b"sharedrepository", b"worktree"];

impl Plain {
    /// Looks at a directory. `None` if it has to be opened, or if its path has a symbolic link.
    #[must_use]
    pub fn at(git_dir: &Path) -> Option<Self> {
        let directory = durable::stat_directory(git_dir).ok()?;
        let is_directory = FileType::from_raw_mode(directory.st_mode) == FileType::Directory;
        let is_ours = is_directory && directory.st_uid == rustix::process::geteuid().as_raw();
        let lacks = |name: &str| durable::is_missing(&git_dir.join(name));
        let is_simple = is_ours && ["commondir", "info/grafts", "objects/info/alternates"].into_iter().all(lacks);
        let text = is_simple.then(|| durable::read(&git_dir.join("config")).ok())??.0.to_ascii_lowercase();
        let has = |word: &&[u8]| text.windows(word.len()).any(|part| part == *word);
        let is_plain = has(&(b"repositoryformatversion = 0" as &[u8])) && !WORDS.iter().any(has);
        is_plain.then(|| Self { git_dir: git_dir.to_owned() })
    }

    /// The branch that HEAD names, if it names one.
    #[must_use]
    pub fn default_branch(&self) -> Option<RefName> {
        let (head, _) = durable::read(&self.git_dir.join("HEAD")).ok()?;
        let name = head.strip_prefix(b"ref:")?.trim_ascii();
        RefName::new(name)
    }

    /// Its path.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of the test")]
mod tests {
    use super::*;

    #[test]
    fn only_the_simplest_form_is_plain() {
        const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n";
        let changes: [(&str, &str, bool); 9] = [
            ("description", "any", true),
            ("config", "[core]\n\trepositoryformatversion = 1\n", false),
            ("config", "[core]\n\trepositoryformatversion = 0\n[extensions]\n\tobjectFormat = sha256\n", false),
            ("config", "[core]\n\trepositoryformatversion = 0\n\tsharedRepository = group\n", false),
            ("config", "[core]\n\trepositoryformatversion = 0\n[INCLUDE]\n\tpath = x\n", false),
            ("config", "[core]\n\trepositoryformatversion = 0\n\tworktree = /elsewhere\n", false),
            ("commondir", "..\n", false),
            ("info/grafts", "", false),
            ("objects/info/alternates", "/elsewhere\n", false),
        ];
        for (name, text, is_plain) in changes {
            let scene = tempfile::tempdir().expect("a directory");
            let git_dir = scene.path().join("r.git");
            for directory in ["refs", "info", "objects/info"] {
                std::fs::create_dir_all(git_dir.join(directory)).expect("made");
            }
            std::fs::write(git_dir.join("config"), CONFIG).expect("written");
            assert!(Plain::at(&git_dir).is_some());
            std::fs::write(git_dir.join(name), text).expect("written");
            assert_eq!(Plain::at(&git_dir).is_some(), is_plain, "{name}: {text}");
            let link = scene.path().join("link.git");
            std::os::unix::fs::symlink(&git_dir, &link).expect("linked");
            assert!(Plain::at(&link).is_none(), "a link");
            assert!(durable::within(&link, || Plain::at(&link)).is_none(), "a link");
        }
    }
}
