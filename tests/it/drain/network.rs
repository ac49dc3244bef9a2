//! Networks and disks that fail: connections that are cut or stall after any number of bytes, servers that are killed or
//! stopped in the middle, a file system that is full. Nothing is lost, and nothing of ours is left running.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::scene::Scene;
use crate::scene::disk::Small;
use crate::scene::sandbox::wait_for;
use crate::scene::servers::Kind;
use crate::scene::wire::{Then, Way, Wire};

/// A mirror that was updated once, with short limits.
fn scene(kind: Kind) -> Scene {
    let scene = Scene::behind(kind, &[]).with(&["main"]);
    scene
        .sandbox
        .add_mirror_config(&scene.source, "stall_timeout = \"1s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    scene
}

impl Scene {
    /// Runs a sync that must fail temporarily, unless everything was transferred before the failure. No process of ours may be left.
    fn fails(&self, what: &str) {
        let begin = Instant::now();
        let said = self.sandbox.mirror_push(&self.source, &["sync", "--json"]);
        let is_done = said.status == 0 && self.sandbox.refs(&self.mirror) == self.sandbox.refs(&self.source);
        assert!(is_done || said.json()[0]["update_status"] == "scheduled", "{what}: {said:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{what}: {:?}", begin.elapsed());
        self.nothing_runs(what);
    }

    fn nothing_runs(&self, what: &str) {
        let ours =
            format!("--git-dir {}|ssh .*127.0.0.1|receive-pack {}$", self.source.display(), self.mirror.display());
        let running = || {
            let found = self.sandbox.command("pgrep").args(["-a", "-f", &ours]).output().unwrap();
            let mine = |line: &&str| line.contains(self.sandbox.path("").to_str().unwrap()) && !line.contains("pgrep");
            String::from_utf8_lossy(&found.stdout).lines().filter(mine).map(str::to_owned).collect::<Vec<_>>()
        };
        wait_for(&format!("the end of our programs, {what}"), || running().is_empty());
    }

    fn heals(&self, what: &str) {
        // A process of the server that belongs to the broken connection may hold a lock for a moment.
        let begin = Instant::now();
        loop {
            let said = self.sandbox.mirror_push(&self.source, &["sync"]);
            if said.status == 0 {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {said:?}");
        }
        assert_eq!(self.sandbox.refs(&self.mirror), self.sandbox.refs(&self.source), "{what}");
        assert_eq!(self.sandbox.git(&self.mirror, &["fsck", "--strict"]), "", "{what}");
    }
}

fn fails_after(kind: Kind, way: Way, then: Then, points: &[i64]) {
    let scene = scene(kind);
    let wire = Wire::to(scene.server().port(), way, then);
    wire.lead(&scene.source, scene.server().port());
    for bytes in points {
        scene.push(&["main", "main:topic"]);
        wire.budget.store(*bytes, Ordering::SeqCst);
        let what = format!("{kind:?}, {way:?}, after {bytes} bytes");
        scene.fails(&what);
        wire.budget.store(-1, Ordering::SeqCst);
        scene.heals(&what);
    }
}

#[test]
fn connections_that_are_cut_after_any_number_of_bytes() {
    for kind in [Kind::Git, Kind::Http, Kind::Ssh] {
        fails_after(kind, Way::ToMirror, Then::Cut, &[0, 1, 30, 60, 100, 200, 300]);
        fails_after(kind, Way::FromMirror, Then::Cut, &[0, 1, 4, 30, 100, 200, 300, 400]);
    }
}

#[test]
fn connections_that_stall_after_any_number_of_bytes() {
    for kind in [Kind::Git, Kind::Http, Kind::Ssh] {
        fails_after(kind, Way::ToMirror, Then::Stall, &[0, 200]);
        fails_after(kind, Way::FromMirror, Then::Stall, &[0, 200]);
    }
}

#[test]
fn a_session_of_sshd_that_is_killed_in_the_middle() {
    let scene = scene(Kind::Ssh);
    scene.hook("pre-receive", "pid=$$\nwhile [ \"$(ps -o comm= -p $pid)\" != sshd ]; do pid=$(ps -o ppid= -p $pid | tr -d ' '); done\nkill -9 $pid\nsleep 1");
    scene.push(&["main", "main:topic"]);
    scene.fails("sshd was killed");
    std::fs::remove_file(scene.mirror.join("hooks/pre-receive")).unwrap();
    scene.heals("sshd was killed");
}

#[test]
fn a_backend_that_is_stopped_in_the_middle() {
    for kind in [Kind::Http, Kind::Ssh, Kind::Git, Kind::Path] {
        let scene = scene(kind);
        let stopped = scene.sandbox.path("stopped");
        scene.hook("pre-receive", &format!("echo $PPID > '{}'\nkill -STOP $PPID", stopped.display()));
        scene.push(&["main", "main:topic"]);
        scene.fails(&format!("{kind:?} was stopped"));
        std::fs::remove_file(scene.mirror.join("hooks/pre-receive")).unwrap();
        // With a path, the stopped process was our child and has ended. With a server, nothing of ours can end it, so the test does.
        let pid = std::fs::read_to_string(&stopped).unwrap();
        let _ = scene.sandbox.command("kill").args(["-9", pid.trim()]).stderr(std::process::Stdio::null()).status();
        scene.heals(&format!("{kind:?} was stopped"));
    }
}

#[test]
fn a_file_system_that_is_full() {
    let scene = Scene::local(&[]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    // Everything of ours is on the file system that fills; the repository's own files are not.
    let Some(small) = Small::new(sandbox, &sandbox.path("small")) else { return };
    let ours = sandbox.path("small/mirror-push");
    assert!(sandbox.command("mv").arg(source.join("mirror-push")).arg(&ours).status().unwrap().success());
    std::os::unix::fs::symlink(&ours, source.join("mirror-push")).unwrap();
    small.fill();
    work.commit("two");
    let said = work.push(&["main", "main:topic"]);
    assert!(said.err.contains("cannot record this push") && said.err.contains("the push is accepted"), "{said:?}");
    let said = sandbox.mirror_push(source, &["drain"]);
    assert!(!said.err.contains("panicked"), "{said:?}");
    small.free();
    let said = sandbox.mirror_push(source, &["drain"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "the mark made on the full disk was seen");
    // Now the disk fills up between the push and the drain.
    work.commit("three");
    work.push(&["main"]);
    small.fill();
    let said = sandbox.mirror_push(source, &["drain"]);
    assert!([1, 128].contains(&said.status) && !said.err.contains("panicked"), "{said:?}");
    small.free();
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}
