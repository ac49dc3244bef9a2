//! Pull mirrors: changes of upstream are taken here.

mod after;
mod api;
mod crash;
mod daemon;
mod faults;
mod hooks;
mod network;
mod onward;
mod rules;
mod transports;
mod when;

use std::path::PathBuf;

use crate::scene::sandbox::{Completed, Sandbox, Work};
use crate::scene::servers::{Kind, Server};

/// An upstream, a repository that takes its refs (mirror `m`), and the server that upstream is behind, in a home of their own. Nothing is
/// taken unless a test says so.
pub(crate) struct Taking {
    pub(crate) sandbox: Sandbox,
    pub(crate) up: PathBuf,
    pub(crate) here: PathBuf,
    pub(crate) server: Option<Server>,
}

impl Taking {
    /// From an upstream on this machine.
    pub(crate) fn local(options: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let up = sandbox.bare("up.git");
        let here = sandbox.source("up.git", &[&["--direction", "pull"], options].concat());
        Self { sandbox, up, here, server: None }
    }

    /// From an upstream behind a server.
    pub(crate) fn behind(kind: Kind, options: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let up = sandbox.bare("up.git");
        let server = Server::start(&sandbox, kind);
        let here = server.source(&sandbox, "up.git", &[&["--direction", "pull"], options].concat());
        Self { sandbox, up, here, server: Some(server) }
    }

    /// Upstream gets a commit on main and more refs, which come here.
    pub(crate) fn with(self, refspecs: &[&str]) -> Self {
        let work = self.work();
        work.commit("one");
        work.push(refspecs);
        self.pull_ok();
        self
    }

    /// The URL of upstream.
    pub(crate) fn url(&self) -> String {
        self.server.as_ref().map_or_else(|| self.up.display().to_string(), |server| server.url("up.git"))
    }

    /// A working tree whose `origin` is upstream.
    pub(crate) fn work(&self) -> Work<'_> {
        self.sandbox.work(&self.up)
    }

    pub(crate) fn pull(&self) -> Completed {
        self.sandbox.mirror_push(&self.here, &["pull"])
    }

    pub(crate) fn pull_ok(&self) -> Completed {
        self.sandbox.mirror_push_ok(&self.here, &["pull"])
    }

    /// The outcome of each ref that `pull` does not find up to date.
    pub(crate) fn pulled(&self) -> Vec<(String, String)> {
        self.changed(&self.sandbox.mirror_push(&self.here, &["pull", "--json"]))
    }

    /// The refs in the output of a command that are not up to date, with their outcomes.
    pub(crate) fn changed(&self, said: &Completed) -> Vec<(String, String)> {
        self.sandbox.outcomes(said).into_iter().filter(|(_, word)| word != "up_to_date").collect()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        self.sandbox.status(&self.here)
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.sandbox.refs(&self.up) == self.sandbox.refs(&self.here)
    }

    /// The value of a ref here.
    pub(crate) fn here(&self, name: &str) -> String {
        self.sandbox.oid(&self.here, name)
    }

    /// The refs below `refs/rewritten`, with their values.
    pub(crate) fn kept(&self) -> Vec<String> {
        let all =
            self.sandbox.git(&self.here, &["for-each-ref", "--format=%(refname) %(objectname)", "refs/rewritten"]);
        all.lines().map(str::to_owned).collect()
    }

    /// The files in the mirror's directory that may exist only during a run.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let directory = self.here.join("mirror-push/remotes/m");
        let names =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("incoming") || name == "receive-pack").collect()
    }
}
