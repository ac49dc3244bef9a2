//! What tests are made of: a home of their own, repositories, real servers, the daemon, a browser.

pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod estate;
pub(crate) mod forge;
pub(crate) mod injected;
pub(crate) mod postgres;
pub(crate) mod random;
pub(crate) mod sandbox;
pub(crate) mod servers;
pub(crate) mod web;
pub(crate) mod wire;

use std::path::PathBuf;

use sandbox::{Sandbox, Work};
use servers::{Kind, Server};

/// A source with the hook, its mirror `m`, and the server that the mirror is behind, in a home of their own. Nothing is drained unless a
/// test says so.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) source: PathBuf,
    pub(crate) mirror: PathBuf,
    pub(crate) server: Option<Server>,
}

impl Scene {
    /// A mirror on this machine.
    pub(crate) fn local(options: &[&str]) -> Self {
        Self::inside(Sandbox::new(), options)
    }

    /// A mirror on this machine, in that home.
    pub(crate) fn inside(sandbox: Sandbox, options: &[&str]) -> Self {
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", options);
        Self { sandbox, source, mirror, server: None }
    }

    /// A mirror behind a server.
    pub(crate) fn behind(kind: Kind, options: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, kind);
        let source = server.source(&sandbox, "mirror.git", options);
        Self { sandbox, source, mirror, server: Some(server) }
    }

    /// Makes a commit, pushes `refspecs` to the source, and drains.
    pub(crate) fn with(self, refspecs: &[&str]) -> Self {
        let work = self.work();
        work.commit("one");
        work.push(refspecs);
        self.sandbox.mirror_push_ok(&self.source, &["drain"]);
        self
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The working tree whose `origin` is the source.
    pub(crate) fn work(&self) -> Work<'_> {
        self.sandbox.work(&self.source)
    }

    /// One more commit, pushed to the source.
    pub(crate) fn push(&self, refspecs: &[&str]) {
        let work = self.work();
        work.commit("more");
        work.push(refspecs);
    }

    /// What `status --json` says of the mirror.
    pub(crate) fn status(&self) -> serde_json::Value {
        self.sandbox.status(&self.source)
    }

    pub(crate) fn is_mirrored(&self) -> bool {
        self.sandbox.refs(&self.mirror) == self.sandbox.refs(&self.source)
    }

    /// Somebody commits to a branch of the mirror.
    pub(crate) fn theirs(&self, branch: &str) -> String {
        self.sandbox.theirs(&self.mirror, branch)
    }

    /// Gives the mirror a hook: the lines of a shell script.
    pub(crate) fn hook(&self, name: &str, lines: &str) {
        sandbox::script(&self.mirror.join("hooks").join(name), &format!("#!/bin/sh\n{lines}\n"));
    }
}
