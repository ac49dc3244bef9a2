//! Two-way mirrors: whichever side changed a ref, the other side gets it.

mod api;
mod crash;
mod faults;
mod losers;
mod rules;
mod several;
mod storm;

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Completed, Sandbox, Work, script, wait_for};
use crate::scene::servers::{Kind, Server};

/// A repository (`here`) with a two-way mirror `m` (`there`), and the server that the mirror is behind.
pub(crate) struct Pair {
    pub(crate) sandbox: Sandbox,
    pub(crate) here: PathBuf,
    pub(crate) there: PathBuf,
    /// Kept here because dropping it ends the server.
    pub(crate) _server: Option<Server>,
}

impl Pair {
    /// Both on this machine.
    pub(crate) fn local(options: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let there = sandbox.bare("there.git");
        let here = sandbox.source("there.git", &[&["--direction", "both"], options].concat());
        Self { sandbox, here, there, _server: None }
    }

    /// The mirror behind a server.
    pub(crate) fn behind(kind: Kind, options: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let there = sandbox.bare("there.git");
        let server = Server::start(&sandbox, kind);
        let here = server.source(&sandbox, "there.git", &[&["--direction", "both"], options].concat());
        Self { sandbox, here, there, _server: Some(server) }
    }

    /// Makes a commit, pushes `refspecs` to our repository, and syncs.
    pub(crate) fn with(self, refspecs: &[&str]) -> Self {
        let work = self.ours();
        work.commit("one");
        work.push(refspecs);
        self.sync_ok();
        self
    }

    /// A working tree whose `origin` is this repository.
    pub(crate) fn ours(&self) -> Work<'_> {
        self.work(&self.here)
    }

    /// A working tree whose `origin` is the mirror.
    pub(crate) fn theirs(&self) -> Work<'_> {
        self.work(&self.there)
    }

    /// A working tree of `bare`, with main checked out if `bare` has it.
    fn work(&self, bare: &Path) -> Work<'_> {
        let work = self.sandbox.work(bare);
        if !self.sandbox.oid(bare, "main").is_empty() {
            work.git(&["fetch", "-q", "origin"]);
            work.git(&["reset", "-q", "--hard", "origin/main"]);
        }
        work
    }

    pub(crate) fn sync(&self) -> Completed {
        self.sandbox.mirror_push(&self.here, &["sync", "--json"])
    }

    pub(crate) fn sync_ok(&self) -> Completed {
        let said = self.sync();
        assert!(said.status == 0 && self.is_equal(), "{said:?}");
        said
    }

    /// Syncs. Returns the refs that were not up to date, each with its outcome and its side.
    pub(crate) fn synced(&self) -> Vec<String> {
        let said = self.sync();
        let all = said.json();
        let refs = all.as_array().unwrap().iter().flat_map(|mirror| mirror["refs"].as_array().unwrap());
        let refs = refs.filter(|one| one["outcome"] != "up_to_date");
        let text = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap().to_owned();
        refs.map(|one| format!("{} {} {}", text(one, "ref"), text(one, "outcome"), text(one, "side"))).collect()
    }

    pub(crate) fn is_equal(&self) -> bool {
        self.sandbox.refs(&self.here) == self.sandbox.refs(&self.there)
    }

    pub(crate) fn here(&self, name: &str) -> String {
        self.sandbox.oid(&self.here, name)
    }

    pub(crate) fn there(&self, name: &str) -> String {
        self.sandbox.oid(&self.there, name)
    }

    /// The refs below `namespace` here, with their values.
    pub(crate) fn below(&self, namespace: &str) -> Vec<String> {
        let all = self.sandbox.git(&self.here, &["for-each-ref", "--format=%(refname) %(objectname)", namespace]);
        all.lines().map(str::to_owned).collect()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        self.sandbox.status(&self.here)
    }

    /// Both sides commit to these branches, each for itself. Returns the commits: ours and theirs.
    pub(crate) fn conflicting(&self, branches: &[&str]) -> (String, String) {
        let (ours, theirs) = (self.ours(), self.theirs());
        let values = (ours.commit("ours").trim().to_owned(), theirs.commit("theirs").trim().to_owned());
        let refspecs: Vec<String> = branches.iter().map(|branch| format!("main:{branch}")).collect();
        let refspecs: Vec<&str> = refspecs.iter().map(String::as_str).collect();
        ours.push(&refspecs);
        theirs.push(&refspecs);
        values
    }

    /// Whether a commit is in a ref of this repository or of the mirror.
    pub(crate) fn is_reachable(&self, commit: &str) -> bool {
        [&self.here, &self.there].iter().any(|side| {
            let said = self.sandbox.try_git(side, &["for-each-ref", "--contains", commit]);
            said.status == 0 && !said.out.is_empty()
        })
    }

    pub(crate) fn run(&self, words: &[&str]) -> Completed {
        self.sandbox.mirror_push(&self.here, words)
    }

    /// Makes `command` run once, while the next run sets refs here. Returns the path of a file that
    /// exists after that.
    pub(crate) fn meanwhile(&self, command: &str) -> PathBuf {
        let lines = format!(
            "#!/bin/sh\ntest -e meanwhile && exit 0\ntouch meanwhile\nunset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY \
             GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_DIR\n{command}\n"
        );
        script(&self.here.join("hooks/pre-receive"), &lines);
        self.here.join("meanwhile")
    }

    /// Waits until the interval of the mirror has passed, and checks it.
    pub(crate) fn check_when_due(&self) {
        let last = || self.status()["last_check_at"].clone();
        let before = last();
        wait_for("a check that is due", || {
            self.run(&["pull", "--due"]);
            last() != before
        });
    }
}
