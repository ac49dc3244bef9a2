//! Many repositories below one root, and the server's file that configures their mirrors.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Completed, Sandbox};

/// A server's file, roots and repositories.
pub(crate) struct Estate {
    pub(crate) sandbox: Sandbox,
    pub(crate) file: PathBuf,
}

impl Estate {
    pub(crate) fn new(text: &str) -> Self {
        let sandbox = Sandbox::new();
        let file = sandbox.path("server.toml");
        for root in ["git", "mirrors"] {
            std::fs::create_dir(sandbox.path(root)).unwrap();
        }
        let estate = Self { sandbox, file };
        estate.configure(text);
        estate
    }

    /// Writes the server's file. In `text`, `ROOT` and `MIRRORS` stand for the directories `git` and `mirrors`.
    pub(crate) fn configure(&self, text: &str) {
        let path = |name| self.sandbox.path(name).display().to_string();
        std::fs::write(&self.file, text.replace("ROOT", &path("git")).replace("MIRRORS", &path("mirrors"))).unwrap();
    }

    /// A new repository with one commit, which is a copy of `sample.git`.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let sample = self.sandbox.path("sample.git");
        if !sample.exists() {
            let bare = self.sandbox.bare("sample.git");
            let work = self.sandbox.work(&bare);
            work.commit("one");
            work.push(&["main"]);
        }
        self.copy(&sample, &self.sandbox.path("git").join(name))
    }

    pub(crate) fn mirror(&self, name: &str) -> PathBuf {
        let empty = self.sandbox.path("empty.git");
        if !empty.exists() {
            self.sandbox.bare("empty.git");
        }
        self.copy(&empty, &self.sandbox.path("mirrors").join(name))
    }

    fn copy(&self, from: &Path, to: &Path) -> PathBuf {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        assert!(self.sandbox.command("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
        to.to_owned()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Completed {
        let output = self
            .sandbox
            .command(env!("CARGO_BIN_EXE_git-mirror-push"))
            .arg("--config")
            .arg(&self.file)
            .args(arguments)
            .output()
            .unwrap();
        Completed {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

pub(crate) const TEMPLATE: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\nexclude = [\"tmp/*\"]\n\
                        [remotes.backup]\nurl = \"MIRRORS/{path}.git\"\n";
