//! Killed, or refused by the operating system, at every step that opens, writes, renames, links, unlinks or syncs.
//!
//! strace injects the fault into the n-th such call of the program's main thread, for every n until the program ends by
//! itself. Then a drain without faults must find everything, and the mirror must equal the source.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::sandbox::{Said, Sandbox, fed, wait_for};

const CALLS: [&str; 19] = [
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "ftruncate",
    "flock",
];

/// A point: the n-th call of this name.
#[derive(Clone, Copy, Debug)]
struct Point {
    call: &'static str,
    n: usize,
}

/// What is done at a point.
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Error(&'static str),
}

impl Fault {
    fn inject(self, Point { call, n }: Point) -> String {
        match self {
            Self::Kill => format!("inject={call}:signal=KILL:when={n}"),
            Self::Error(name) => format!("inject={call}:error={name}:when={n}"),
        }
    }
}

/// A source and a mirror as they are before each run.
struct Scene {
    sandbox: Sandbox,
    line: String,
}

impl Scene {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &["--divergent-refs", "keep", "--prune", "deleted"]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main", "main:topic", "main:gone"]);
        sandbox.ok(&source, &["drain"]);
        let old = work.git(&["rev-parse", "main"]);
        let new = work.commit("two");
        work.git(&["checkout", "-q", "--orphan", "other"]);
        work.commit("rewritten");
        // The first push is recorded, the second one's hook is what the hook's test runs.
        work.push(&["+other:topic", ":gone"]);
        std::fs::rename(source.join("hooks/post-receive"), source.join("hooks/kept")).unwrap();
        work.push(&["main"]);
        std::fs::rename(source.join("hooks/kept"), source.join("hooks/post-receive")).unwrap();
        Self { sandbox, line: format!("{old} {new} refs/heads/main\n") }
    }

    /// A fresh copy of both repositories; paths stay, for the configuration names the mirror's.
    fn reset(&self) -> (PathBuf, PathBuf) {
        let (source, mirror) = (self.sandbox.path("source.git"), self.sandbox.path("mirror.git"));
        let copy = |from: &Path, to: &Path| {
            let _ = std::fs::remove_dir_all(to);
            let status = self.sandbox.command("cp").args(["-a", "--"]).arg(from).arg(to).status().unwrap();
            assert!(status.success());
        };
        let saved = [self.sandbox.path("source.saved"), self.sandbox.path("mirror.saved")];
        if !saved[0].exists() {
            copy(&source, &saved[0]);
            copy(&mirror, &saved[1]);
        }
        copy(&saved[0], &source);
        copy(&saved[1], &mirror);
        (source, mirror)
    }

    fn hook(&self, source: &Path, fault: Option<(Fault, Point)>) -> Said {
        let program = env!("CARGO_BIN_EXE_git-mirror-post-receive");
        let mut command = self.under(fault, program);
        fed(command.current_dir(source).env("GIT_DIR", "."), self.line.as_bytes())
    }

    fn drain(&self, source: &Path, fault: Option<(Fault, Point)>) -> Said {
        let mut command = self.under(fault, env!("CARGO_BIN_EXE_git-mirror-push"));
        fed(command.arg("--git-dir").arg(source).arg("drain"), b"")
    }

    fn under(&self, fault: Option<(Fault, Point)>, program: &str) -> std::process::Command {
        let Some((fault, point)) = fault else { return self.sandbox.command(program) };
        let mut strace = self.sandbox.command("strace");
        strace.args(["-qq", "-o", self.sandbox.path("strace").to_str().unwrap()]);
        strace.args(["-e", &format!("trace={}", point.call), "-e", &fault.inject(point), "--", program]);
        strace
    }

    /// Whether the fault was reached: otherwise the program has fewer such calls.
    fn is_reached(&self) -> bool {
        let log = std::fs::read_to_string(self.sandbox.path("strace")).unwrap();
        log.contains("INJECTED") || log.contains("killed by SIGKILL")
    }

    fn count(&self, directory: PathBuf) -> usize {
        std::fs::read_dir(directory).map_or(0, Iterator::count)
    }

    /// After whatever happened: one drain, and nothing is missing, left over or damaged.
    fn heals(&self, source: &Path, mirror: &Path, at: &str) {
        // A changed configuration ends the wait of the back-off; what is drained are still only the records.
        let config = std::fs::File::options().append(true).open(source.join("mirror-push/config.toml")).unwrap();
        config.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
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
        // A run that never ended may have sent commands: its refs are to be looked at again, and until then it says so.
        let waits = self.count(source.join("mirror-push/remotes/m/queue")) > 0;
        let status = self.sandbox.mirror_push(source, &["status", "--json"]).json();
        let expected = if waits { "scheduled" } else { "finished" };
        assert_eq!(status[0]["update_status"], expected, "{at}: {status}");
    }
}

/// What is queued besides looks that are due later.
fn queued_pushes(source: &Path) -> usize {
    let entries = std::fs::read_dir(source.join("mirror-push/remotes/m/queue")).unwrap();
    let is_look = |path: &Path| std::fs::read_to_string(path).unwrap().contains("\nlook ");
    entries.filter(|entry| !is_look(&entry.as_ref().unwrap().path())).count()
}

/// Runs `each` for every point that it reaches, and returns how many there were.
fn at_every_point(mut each: impl FnMut(Point) -> bool) -> usize {
    let mut points = 0;
    for call in CALLS {
        points += (1..).take_while(|n| each(Point { call, n: *n })).count();
    }
    eprintln!("{points} points");
    points
}

fn hook_survives(fault: Fault) {
    let scene = Scene::new();
    let points = at_every_point(|point| {
        let (source, mirror) = scene.reset();
        let said = scene.hook(&source, Some((fault, point)));
        if !scene.is_reached() {
            return false;
        }
        let at = format!("hook, {point:?}");
        let spool = source.join("mirror-push/spool");
        // A hook that could not read `wake = "none"` has woken a drain, which may have taken the records already.
        let incoming = scene.count(spool.join("incoming"));
        let is_taken = incoming == 0 || scene.count(source.join("mirror-push/remotes/m/queue")) > 0;
        let recorded = incoming == 2 || is_taken;
        let is_known = recorded
            || scene.count(spool.join("tmp")) > 0
            || std::fs::read(spool.join("resync")).unwrap().first() == Some(&b'1');
        assert!(!said.err.contains("panicked"), "{at}: {said:?}");
        if let (Fault::Error(_), 0) = (fault, said.status) {
            assert!(recorded || said.err.contains("git-mirror-push: "), "{at}: neither recorded nor told: {said:?}");
        }
        if !is_known {
            // It died before it could leave anything: this is the push that only a comparison finds.
            scene.sandbox.ok(&source, &["sync"]);
        }
        if let Fault::Error(_) = fault {
            // Let a drain that was woken end before the next one begins.
            scene.drain(&source, None);
            wait_for("the woken drain", || scene.sandbox.refs(&mirror) == scene.sandbox.refs(&source));
            wait_for("its end", || scene.count(source.join("mirror-push/remotes/m/queue")) == 0);
        }
        scene.heals(&source, &mirror, &at);
        true
    });
    assert!(points > 8, "{points}");
}

fn drain_survives(fault: Fault) {
    let scene = Scene::new();
    let (source, _) = scene.reset();
    scene.hook(&source, None);
    for (from, to) in [("source.git", "source.saved"), ("mirror.git", "mirror.saved")] {
        std::fs::remove_dir_all(scene.sandbox.path(to)).unwrap();
        std::fs::rename(scene.sandbox.path(from), scene.sandbox.path(to)).unwrap();
    }
    let points = at_every_point(|point| {
        let (source, mirror) = scene.reset();
        let said = scene.drain(&source, Some((fault, point)));
        if !scene.is_reached() {
            return false;
        }
        let at = format!("drain, {point:?}");
        assert!(!said.err.contains("panicked"), "{at}: {said:?}");
        scene.heals(&source, &mirror, &at);
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
