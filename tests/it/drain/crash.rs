//! The hook, drains and other commands are killed, or get an error, at system calls that change
//! files. `scene::injected` chooses the calls. Then a drain or sync without faults must find
//! everything, and the mirror must equal the source.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::scene::injected::{self, Fault, Point, Threads, at_every_point};
use crate::scene::sandbox::{Completed, Sandbox, run_with_input, wait_for};

/// A source and a mirror as they are before each run.
struct Sample {
    sandbox: Sandbox,
    line: String,
}

impl Sample {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &["--divergent-refs", "keep", "--prune", "deleted"]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main", "main:topic", "main:gone"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        let old = work.git(&["rev-parse", "main"]);
        let new = work.commit("two");
        work.git(&["checkout", "-q", "--orphan", "other"]);
        work.commit("rewritten");
        // The hook records the next push. It does not run for the push after that: `Sample::hook`
        // runs it later, with the line of that push.
        work.push(&["+other:topic", ":gone"]);
        std::fs::rename(source.join("hooks/post-receive"), source.join("hooks/kept")).unwrap();
        work.push(&["main"]);
        std::fs::rename(source.join("hooks/kept"), source.join("hooks/post-receive")).unwrap();
        let sample = Self { sandbox, line: format!("{old} {new} refs/heads/main\n") };
        sample.save();
        sample
    }

    /// Keeps the repositories as they are now, for `reset`.
    fn save(&self) {
        for name in ["source.git", "mirror.git", "second.git"].map(|name| self.sandbox.path(name)) {
            if name.exists() {
                self.copy(&name, &name.with_extension("saved"));
            }
        }
    }

    /// Restores the saved repositories. Their paths stay the same, because the configuration names the paths of the mirrors.
    fn reset(&self) -> (PathBuf, PathBuf) {
        for saved in ["source.saved", "mirror.saved", "second.saved"].map(|name| self.sandbox.path(name)) {
            if saved.exists() {
                self.copy(&saved, &saved.with_extension("git"));
            }
        }
        (self.sandbox.path("source.git"), self.sandbox.path("mirror.git"))
    }

    fn copy(&self, from: &Path, to: &Path) {
        let _ = std::fs::remove_dir_all(to);
        let status = self.sandbox.command("cp").args(["-a", "--"]).arg(from).arg(to).status().unwrap();
        assert!(status.success());
    }

    fn hook(&self, source: &Path, fault: Option<(Fault, Point)>) -> Completed {
        let program = env!("CARGO_BIN_EXE_git-mirror-post-receive");
        let mut command = self.under(fault, program);
        run_with_input(command.current_dir(source).env("GIT_DIR", "."), self.line.as_bytes())
    }

    fn drain(&self, source: &Path, fault: Option<(Fault, Point)>) -> Completed {
        let mut command = self.under(fault, env!("CARGO_BIN_EXE_git-mirror-push"));
        run_with_input(command.arg("--git-dir").arg(source).arg("drain"), b"")
    }

    fn under(&self, fault: Option<(Fault, Point)>, program: &str) -> std::process::Command {
        // With two mirrors, each has a thread.
        let threads = if self.sandbox.path("second.git").exists() { Threads::All } else { Threads::Main };
        injected::under(&self.sandbox, fault, threads, program)
    }

    fn is_reached(&self) -> bool {
        injected::is_reached(&self.sandbox)
    }

    fn count(&self, directory: PathBuf) -> usize {
        std::fs::read_dir(directory).map_or(0, Iterator::count)
    }

    /// Runs one drain without faults. After it, nothing may be missing, left over or damaged.
    fn heals(&self, source: &Path, mirror: &Path, at: &str) {
        end_the_wait(source);
        let said = self.drain(source, None);
        assert_eq!(said.status, 0, "{at}: {said:?}");
        assert_eq!(self.sandbox.refs(mirror), self.sandbox.refs(source), "{at}: {said:?}");
        let spool = source.join("mirror-push/spool");
        for (what, count) in [
            ("incoming", self.count(spool.join("incoming"))),
            ("corrupt", self.count(spool.join("corrupt"))),
            ("tmp", self.count(spool.join("tmp"))),
            ("queue", queued_pushes(source)),
        ] {
            assert_eq!(count, 0, "{at}: {what}");
        }
        // A run that was killed may have sent commands. Its refs are read again later; until then the status is `scheduled`.
        let waits = self.count(source.join("mirror-push/remotes/m/queue")) > 0;
        let status = self.sandbox.status(source);
        let expected = if waits { "scheduled" } else { "finished" };
        assert_eq!(status["update_status"], expected, "{at}: {status}");
    }
}

/// Sets the time of the configuration file, which ends the wait of the back-off. It does not request a comparison of all refs.
fn end_the_wait(source: &Path) {
    let config = std::fs::File::options().append(true).open(source.join("mirror-push/config.toml")).unwrap();
    config.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
}

/// The number of queue entries that are pushes. The others (`look`) ask to read refs of the mirror again.
fn queued_pushes(source: &Path) -> usize {
    let entries = std::fs::read_dir(source.join("mirror-push/remotes/m/queue")).unwrap();
    let is_look = |path: &Path| std::fs::read_to_string(path).unwrap().contains("\nlook ");
    entries.filter(|entry| !is_look(&entry.as_ref().unwrap().path())).count()
}

fn hook_survives(fault: Fault) {
    let sample = Sample::new();
    let points = at_every_point(|point| {
        let (source, mirror) = sample.reset();
        let said = sample.hook(&source, Some((fault, point)));
        if !sample.is_reached() {
            return false;
        }
        let at = format!("hook, {point:?}");
        let spool = source.join("mirror-push/spool");
        // A hook that could not read `wake = "none"` has woken a drain, which may have taken the records already.
        let incoming = sample.count(spool.join("incoming"));
        let is_taken = incoming == 0 || sample.count(source.join("mirror-push/remotes/m/queue")) > 0;
        let recorded = incoming == 2 || is_taken;
        let is_known = recorded
            || sample.count(spool.join("tmp")) > 0
            || std::fs::read(spool.join("resync")).unwrap().first() != Some(&b'0');
        assert!(!said.err.contains("panicked"), "{at}: {said:?}");
        if let (Fault::Error(_), 0) = (fault, said.status) {
            assert!(recorded || said.err.contains("git-mirror-push: "), "{at}: neither recorded nor told: {said:?}");
        }
        if !is_known {
            // It died before it could leave anything: this is the push that only a comparison finds.
            sample.sandbox.mirror_push_ok(&source, &["sync"]);
        }
        if let Fault::Error(_) = fault {
            // Let a drain that was woken end before the next one begins.
            sample.drain(&source, None);
            wait_for("the woken drain", || sample.sandbox.refs(&mirror) == sample.sandbox.refs(&source));
            wait_for("its end", || sample.count(source.join("mirror-push/remotes/m/queue")) == 0);
        }
        sample.heals(&source, &mirror, &at);
        true
    });
    assert!(points > 8, "{points}");
}

fn drain_survives(fault: Fault) {
    let sample = Sample::new();
    sample.hook(&sample.sandbox.path("source.git"), None);
    sample.save();
    let points = at_every_point(|point| {
        let (source, mirror) = sample.reset();
        let said = sample.drain(&source, Some((fault, point)));
        if !sample.is_reached() {
            return false;
        }
        let at = format!("drain, {point:?}");
        assert!(!said.err.contains("panicked"), "{at}: {said:?}");
        sample.heals(&source, &mirror, &at);
        true
    });
    assert!(points > 50, "{points}");
}

#[test]
fn a_hook_that_is_killed_at_any_step() {
    hook_survives(Fault::Kill);
}

#[test]
fn a_hook_whose_calls_fail_at_any_step() {
    for error in ["ENOSPC", "EIO", "EACCES", "EMFILE"] {
        hook_survives(Fault::Error(error));
    }
}

#[test]
fn a_drain_that_is_killed_at_any_step() {
    drain_survives(Fault::Kill);
}

#[test]
fn a_drain_whose_disk_is_full_at_any_step() {
    drain_survives(Fault::Error("ENOSPC"));
}

#[test]
fn a_drain_whose_disk_fails_at_any_step() {
    drain_survives(Fault::Error("EIO"));
}

#[test]
fn a_drain_that_lacks_permission_at_any_step() {
    drain_survives(Fault::Error("EACCES"));
}

#[test]
fn a_drain_that_lacks_descriptors_at_any_step() {
    drain_survives(Fault::Error("EMFILE"));
}

/// In each round the spool also holds the mark of a push that could not be recorded, a file that a
/// killed hook left, or a damaged record. A second mirror is behind too. One ref (`unnamed`) is in
/// no record. After one more drain both mirrors equal the source.
#[test]
fn a_drain_that_finds_damage_and_is_killed_at_any_step() {
    const ID: &str = "0000000001.000000001.1.0000000000000001";
    for (file, text) in
        [("resync".to_owned(), "1"), (format!("tmp/{ID}"), "git-mirr"), (format!("incoming/{ID}"), "garbage")]
    {
        let sample = Sample::new();
        let source = sample.sandbox.path("source.git");
        let second = sample.sandbox.bare("second.git");
        sample.sandbox.mirror_push_ok(&source, &["add", "n", second.to_str().unwrap()]);
        sample.sandbox.mirror_push_ok(&source, &["sync", "n"]);
        sample.hook(&source, None);
        sample.sandbox.git(&source, &["update-ref", "refs/heads/unnamed", "main"]);
        std::fs::write(source.join("mirror-push/spool").join(&file), text).unwrap();
        sample.save();
        let points = at_every_point(|point| {
            let (source, mirror) = sample.reset();
            sample.drain(&source, Some((Fault::Kill, point)));
            if !sample.is_reached() {
                return false;
            }
            end_the_wait(&source);
            let said = sample.drain(&source, None);
            for mirror in [&mirror, &second] {
                assert_eq!(sample.sandbox.refs(mirror), sample.sandbox.refs(&source), "{file}, {point:?}: {said:?}");
            }
            true
        });
        assert!(points > 30, "{points}");
    }
}

/// Commands that write are killed at every step and then run again. After that the list of mirrors is as the command says, and a sync
/// works.
#[test]
fn a_command_that_is_killed_at_any_step_can_be_given_again() {
    let commands: [(&[&str], &str); 6] = [
        (&["add", "n", "second.git"], "n"),
        (&["set", "m", "--divergent-refs", "overwrite"], "m"),
        (&["disable", "m"], "m"),
        (&["remove", "m"], ""),
        (&["credential", "m"], "m"),
        (&["sync"], "m"),
    ];
    for (arguments, left) in commands {
        let sample = Sample::new();
        sample.sandbox.bare("second.git");
        sample.save();
        let run = |source: &Path, fault| {
            let mut command = sample.under(fault, env!("CARGO_BIN_EXE_git-mirror-push"));
            run_with_input(command.arg("--git-dir").arg(source).args(arguments), b"password\n")
        };
        let points = at_every_point(|point| {
            let (source, mirror) = sample.reset();
            run(&source, Some((Fault::Kill, point)));
            if !sample.is_reached() {
                return false;
            }
            let at = format!("{arguments:?}, {point:?}");
            // After the kill, the configuration is valid.
            sample.sandbox.mirror_push_ok(&source, &["list"]);
            let again = run(&source, None);
            // If the killed command had done its work, the second one says so.
            let is_done = again.err.contains("is there already") || again.err.contains("no mirror 'm'");
            assert!(again.status == 0 || is_done, "{at}: {again:?}");
            let list = sample.sandbox.mirror_push_ok(&source, &["list", "--json"]).json();
            let named = list.as_array().unwrap().iter().any(|mirror| mirror["name"] == left);
            assert!(named || left.is_empty() && list == serde_json::json!([]), "{at}: {list}");
            sample.sandbox.mirror_push(&source, &["enable", "m"]);
            sample.sandbox.mirror_push_ok(&source, &["sync"]);
            let is_removed = left.is_empty();
            assert_eq!(sample.sandbox.refs(&mirror) == sample.sandbox.refs(&source), !is_removed, "{at}");
            if arguments[0] == "credential" {
                let secret = std::fs::read_to_string(source.join("mirror-push/remotes/m/secret")).unwrap();
                assert_eq!(secret, "password\n", "{at}");
            }
            true
        });
        assert!(points > 10, "{arguments:?}: {points}");
    }
}
