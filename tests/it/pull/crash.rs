//! A pull is killed, or gets an error, at every system call that changes files (`scene::injected`). The next pull and drain must find
//! everything: upstream's refs here and on the push mirror, and the replaced values below
//! `refs/rewritten`.

use super::Taking;
use crate::scene::injected::{Fault, Point, Threads, at_every_point, is_reached, under};
use crate::scene::sandbox::{Completed, run_with_input, script};

/// Upstream moved one branch forward, rewrote one, deleted one and made one; here, somebody moved one, which the pull replaces.
struct Sample {
    s: Taking,
    /// The values that are replaced.
    replaced: Vec<String>,
}

impl Sample {
    fn new(hooks: &str) -> Self {
        let options = [&format!("hooks={hooks}"), "--divergent-refs", "overwrite", "--prune", "deleted"];
        let s = Taking::local(&options).with(&["main", "main:rewritten", "main:gone", "main:moved"]);
        let onward = s.sandbox.bare("onward.git");
        s.sandbox.mirror_push_ok(&s.here, &["add", "onward", onward.to_str().unwrap()]);
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        let work = s.work();
        let rewritten = work.commit("two").trim().to_owned();
        work.push(&["main:rewritten"]);
        s.pull_ok();
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        let moved = s.sandbox.theirs(&s.here, "moved").trim().to_owned();
        work.push(&["main"]);
        work.git(&["checkout", "-q", "--orphan", "other"]);
        work.commit("other");
        work.push(&["+other:rewritten", "other:new", ":gone"]);
        Self { s, replaced: vec![rewritten, moved] }.saved()
    }

    /// Upstream moved one branch forward and made one. The pack goes straight into receive-pack.
    fn forward() -> Self {
        let s = Taking::local(&[]).with(&["main"]);
        let onward = s.sandbox.bare("onward.git");
        s.sandbox.mirror_push_ok(&s.here, &["add", "onward", onward.to_str().unwrap()]);
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        let work = s.work();
        work.commit("two");
        work.push(&["main", "main:new"]);
        Self { s, replaced: Vec::new() }.saved()
    }

    fn saved(self) -> Self {
        for name in ["source", "onward"] {
            self.copy(&format!("{name}.git"), &format!("{name}.saved"));
        }
        self
    }

    fn copy(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.s.sandbox.path(to));
        let status = self.s.sandbox.command("cp").args(["-a", "--", from, to]).status().unwrap();
        assert!(status.success());
    }

    fn pull(&self, fault: Option<(Fault, Point)>) -> Completed {
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        let mut command = under(&self.s.sandbox, fault, Threads::All, program);
        run_with_input(command.arg("--git-dir").arg(&self.s.here).arg("pull"), b"")
    }

    /// Runs one pull and one drain without faults. After them, nothing may be missing or left over.
    fn heals(&self, at: &str) {
        let said = self.pull(None);
        assert_eq!(said.status, 0, "{at}: {said:?}");
        assert!(self.s.is_taken(), "{at}: {said:?}");
        assert_eq!(self.s.leftovers(), Vec::<String>::new(), "{at}");
        for value in &self.replaced {
            assert!(self.s.kept().iter().any(|line| line.ends_with(value)), "{at}: {value} is lost: {said:?}");
        }
        let said = self.s.sandbox.mirror_push(&self.s.here, &["drain"]);
        let onward = self.s.sandbox.path("onward.git");
        assert_eq!(self.s.sandbox.refs(&onward), self.s.sandbox.refs(&self.s.up), "{at}: {said:?}");
    }

    fn reset(&self) {
        self.copy("source.saved", "source.git");
        self.copy("onward.saved", "onward.git");
    }

    fn survives(&self, fault: Fault) {
        let points = at_every_point(|point| {
            self.reset();
            let said = self.pull(Some((fault, point)));
            if !is_reached(&self.s.sandbox) {
                return false;
            }
            let at = format!("{fault:?}, {point:?}");
            assert!(!said.err.contains("panicked"), "{at}: {said:?}");
            self.heals(&at);
            true
        });
        assert!(points > 50, "{points}");
        self.s.sandbox.git(&self.s.here, &["fsck", "--connectivity-only"]);
    }
}

#[test]
fn a_pull_that_is_killed_at_any_step() {
    Sample::new("none").survives(Fault::Kill);
}

#[test]
fn a_pull_of_new_commits_alone_that_is_killed_at_any_step() {
    Sample::forward().survives(Fault::Kill);
}

/// The hooks of our receive-pack kill the run that waits for it, and then go on.
#[test]
fn a_pull_that_is_killed_while_receive_pack_works() {
    let sample = Sample::new("all");
    let kill = "run=$(cut -d' ' -f4 /proc/$PPID/stat)\nkill -KILL \"$run\"\n";
    for (hook, when) in [
        ("pre-receive", ""),
        ("update", ""),
        ("reference-transaction", "test \"$1\" = prepared || exit 0"),
        ("reference-transaction", "test \"$1\" = committed || exit 0"),
        ("post-update", ""),
    ] {
        sample.reset();
        let (path, killed) = (sample.s.here.join("hooks").join(hook), sample.s.sandbox.path("killed"));
        let _ = std::fs::remove_file(&killed);
        let once = format!("test -e '{0}' && exit 0\n: > '{0}'\n", killed.display());
        script(&path, &format!("#!/bin/sh\n{when}\n{once}{kill}"));
        let said = sample.pull(None);
        assert!(said.status == -1 && killed.exists(), "{hook}, {when}: the run was not killed: {said:?}");
        std::fs::remove_file(&path).unwrap();
        sample.heals(&format!("{hook}, {when}"));
    }
}

#[test]
fn a_pull_whose_disk_is_full_at_any_step() {
    Sample::new("all").survives(Fault::Error("ENOSPC"));
}

/// `kept --restore` is killed at a step. If the branch is here then, the next drain sends it to the
/// push mirror.
#[test]
fn a_restoration_that_is_killed_at_any_step() {
    let sample = Sample::new("all");
    sample.heals("before");
    for name in ["source", "onward"] {
        sample.copy(&format!("{name}.git"), &format!("{name}.saved"));
    }
    let Taking { sandbox, here, .. } = &sample.s;
    let arguments = ["kept", "m", "--restore", "moved", "--as", "back"];
    let points = at_every_point(|point| {
        sample.reset();
        let fault = Some((Fault::Kill, point));
        let mut command = under(sandbox, fault, Threads::Main, env!("CARGO_BIN_EXE_git-mirror-push"));
        run_with_input(command.arg("--git-dir").arg(here).args(arguments), b"");
        if !is_reached(sandbox) {
            return false;
        }
        let drained = || {
            sandbox.mirror_push(here, &["drain"]);
            assert_eq!(sandbox.refs(&sandbox.path("onward.git")), sandbox.refs(here), "{point:?}");
        };
        drained();
        let again = sandbox.mirror_push(here, &arguments);
        assert!(again.status == 0 || again.err.contains("exists"), "{point:?}: {again:?}");
        drained();
        assert_eq!(sample.s.here("back"), sample.replaced[1], "{point:?}");
        true
    });
    assert!(points > 20, "{points}");
}
