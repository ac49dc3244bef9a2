//! Pushes that outlive their drain: the mirror carries out the commands of a drain that is dead, cut off, or has lost its lock.
//!
//! `MIRROR_PUSH_ROUNDS` sets how many rounds each transport gets (default 5). In each round the mirror's pre-receive hook holds a push
//! while other things happen.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::Scene;
use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, script, wait_for};
use crate::scene::servers::Kind;

/// What is done to a drain whose push is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    /// Its connection is cut.
    Cut,
    /// It is stopped, its lock is taken away, and it goes on when another has run.
    LockRevoked,
}

/// What the held push does to `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Create,
    Delete,
    Rewrite,
}

const LIMITS: &str = "stall_timeout = \"2s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"";

/// A mirror that was updated once. Its hook holds the next push after `arm` until the file `held` is removed, even if the client has
/// left.
fn scene(kind: Kind) -> Scene {
    let scene = Scene::behind(kind, &["--divergent-refs", "keep", "--prune", "deleted"]).with(&["main"]);
    scene.sandbox.add_mirror_config(&scene.source, LIMITS);
    let (armed, held) = (scene.sandbox.path("armed"), scene.sandbox.path("held"));
    let lines = format!(
        "mv '{a}' '{h}' 2>/dev/null || exit 0\nexec >/dev/null 2>&1\nwhile [ -e '{h}' ]; do sleep 0.02; done",
        a = armed.display(),
        h = held.display()
    );
    scene.hook("pre-receive", &lines);
    scene
}

impl Scene {
    fn arm(&self) {
        std::fs::write(self.sandbox.path("armed"), "").unwrap();
    }

    fn is_held(&self) -> bool {
        self.sandbox.path("held").exists()
    }

    fn release(&self) {
        std::fs::remove_file(self.sandbox.path("held")).unwrap();
    }

    fn drain(&self) -> Child {
        let mut command = self.sandbox.program(&self.source);
        command.args(["drain", "-q"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn update_status(&self) -> String {
        self.status()["update_status"].as_str().unwrap().to_owned()
    }

    fn queued(&self) -> usize {
        std::fs::read_dir(self.source.join("mirror-push/remotes/m/queue")).unwrap().count()
    }

    /// Drains until the queue is empty, also of the records that ask to read refs again later. Then the mirror must equal the source.
    fn settle(&self, at: &str) {
        let begin = Instant::now();
        while self.queued() > 0
            || self.sandbox.path("source.git/mirror-push/spool/incoming").read_dir().unwrap().count() > 0
        {
            let status = self.update_status();
            assert_ne!(status, "finished", "{at}: the refs must be read again first");
            assert!(begin.elapsed() < Duration::from_secs(20), "{at}: {status}, {} queued", self.queued());
            self.sandbox.mirror_push(&self.source, &["drain", "-q"]);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        assert!(
            self.is_mirrored(),
            "{at}: {:?} and {:?}",
            self.sandbox.refs(&self.mirror),
            self.sandbox.refs(&self.source)
        );
        assert_eq!(self.update_status(), "finished", "{at}");
    }

    /// One round. The mirror holds a push that does `held` to the branch, and the drain of that push ends as `end` says. The next run
    /// does the work. The branch changes again, and another drain runs. Then the mirror lets the first push go on.
    fn round(&self, n: usize, held: Held, end: End) {
        let at = format!("round {n}, {held:?}, {end:?}");
        let x = format!("x{n}");
        let new = |message: &str| {
            self.sandbox
                .git(&self.source, &["commit-tree", "-m", &format!("{message} {n}"), "-p", "main", "main^{tree}"])
        };
        let (first, second) = (new("first"), new("second"));
        let push = |value: &str| {
            self.work().git(&["fetch", "-q", self.source.to_str().unwrap(), "main"]);
            let value = if value.is_empty() { String::new() } else { value.to_owned() };
            let refspec = format!("+{value}:refs/heads/{x}");
            self.work().push(&[&refspec]);
        };
        for value in [&first, &second] {
            self.sandbox.git(&self.source, &["update-ref", "refs/keep/value", value]);
            self.work().git(&["fetch", "-q", self.source.to_str().unwrap(), "refs/keep/value"]);
        }
        if held != Held::Create {
            push(&first);
            self.settle(&at);
        }
        match held {
            Held::Create => push(&first),
            Held::Rewrite => push(&second),
            Held::Delete => push(""),
        }
        self.arm();
        let mut drain = self.drain();
        wait_for("the hook", || self.is_held());
        assert_eq!(self.update_status(), "started", "{at}");
        let pid = Pid::from_child(&drain);
        match end {
            End::Killed => {
                kill_process(pid, Signal::KILL).unwrap();
                drain.wait().unwrap();
            }
            End::Cut => {
                // The stall_timeout ends the connection.
                drain.wait().unwrap();
            }
            End::LockRevoked => {
                kill_process(pid, Signal::STOP).unwrap();
                std::fs::remove_file(self.source.join("mirror-push/remotes/m/lock")).unwrap();
            }
        }
        let ended = Instant::now();
        assert_eq!(self.update_status(), "scheduled", "{at}");
        // The next run does the work, unless a lock of the mirror's receive-pack is in the way. After a cut connection a drain would wait
        // for the next attempt, so this is a sync then. Then the branch changes again.
        let again = if end == End::Cut { "sync" } else { "drain" };
        self.sandbox.mirror_push(&self.source, &[again, "-q"]);
        match held {
            Held::Create | Held::Rewrite => push(""),
            Held::Delete => push(&first),
        }
        self.sandbox.mirror_push(&self.source, &["drain", "-q"]);
        // After `stall_timeout` the refs are read again, and nothing waits any more.
        if ended.elapsed() < Duration::from_secs(2) {
            assert_ne!(self.update_status(), "finished", "{at}");
        }
        self.release();
        if end == End::LockRevoked {
            kill_process(pid, Signal::CONT).unwrap();
            drain.wait().unwrap();
        }
        wait_for("the mirror's programs", || !self.has_programs());
        self.settle(&at);
    }

    /// Whether a receive-pack of the mirror is still running.
    fn has_programs(&self) -> bool {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut commands = all.filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok());
        let path = self.mirror.to_str().unwrap().as_bytes().to_owned();
        commands.any(|command| {
            let has = |part: &[u8]| command.windows(part.len()).any(|window| window == part);
            has(b"receive-pack") && has(&path)
        })
    }
}

/// Nine rounds would combine each kind of push with each way to end; five are the default. `first` is the index of the way in which the
/// first round ends.
fn rounds(kind: Kind, first: usize) {
    let count = std::env::var("MIRROR_PUSH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let scene = scene(kind);
    assert!(scene.server.is_some());
    let all = [Held::Create, Held::Delete, Held::Rewrite];
    let ends = [End::Killed, End::LockRevoked, End::Cut];
    for n in 0..count {
        scene.round(n, all[n % 3], ends[(first + n + n / 3) % 3]);
    }
}

#[test]
fn a_push_over_git_that_outlives_its_drain() {
    rounds(Kind::Git, 0);
}

#[test]
fn a_push_over_ssh_that_outlives_its_drain() {
    rounds(Kind::Ssh, 1);
}

#[test]
fn a_push_over_http_that_outlives_its_drain() {
    rounds(Kind::Http, 2);
}

/// The number of the last run of a mirror with this directory.
fn generation(directory: &Path) -> u64 {
    let status: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.join("status.json")).unwrap()).unwrap();
    status["generation"].as_u64().unwrap()
}

#[test]
fn a_run_that_lost_its_lock_does_not_overwrite_the_state_of_the_next_run() {
    let scene = scene(Kind::Git);
    let sandbox = &scene.sandbox;
    let remote = |name: &str| scene.source.join("mirror-push/remotes/m").join(name);
    let before = generation(&remote(""));
    scene.work().push(&["main:x"]);
    scene.arm();
    let mut first = scene.drain();
    wait_for("the hook", || scene.is_held());
    let at_work = generation(&remote(""));
    assert!(at_work > before, "each run has a larger number");
    kill_process(Pid::from_child(&first), Signal::STOP).unwrap();
    std::fs::remove_file(remote("lock")).unwrap();
    scene.work().commit("two");
    scene.work().push(&["main"]);
    sandbox.mirror_push(&scene.source, &["drain"]);
    let books = ["status.json", "history.jsonl"].map(|name| std::fs::read(remote(name)).unwrap());
    assert!(generation(&remote("")) > at_work);
    scene.release();
    kill_process(Pid::from_child(&first), Signal::CONT).unwrap();
    first.wait().unwrap();
    assert_eq!(books, ["status.json", "history.jsonl"].map(|name| std::fs::read(remote(name)).unwrap()));
    scene.settle("afterwards");
}

/// After a permanent failure a mirror waits six hours. It does not wait if its last run was killed during a push.
#[test]
fn a_run_that_dies_after_a_failure_is_done_again_at_once() {
    let scene = scene(Kind::Git);
    let sandbox = &scene.sandbox;
    let away = sandbox.path("away.git");
    std::fs::rename(&scene.mirror, &away).unwrap();
    assert_eq!(sandbox.mirror_push(&scene.source, &["sync"]).status, 1);
    assert_eq!(scene.update_status(), "failed");
    std::fs::rename(&away, &scene.mirror).unwrap();
    scene.work().push(&["main:y"]);
    scene.arm();
    let mut drain = scene.drain();
    wait_for("the hook", || scene.is_held());
    drain.kill().unwrap();
    drain.wait().unwrap();
    scene.release();
    wait_for("the mirror's programs", || !scene.has_programs());
    let said = sandbox.mirror_push(&scene.source, &["drain"]);
    assert!(scene.is_mirrored(), "{said:?}");
    scene.settle("afterwards");
}

/// An error message before the mirror hangs up does not prove that the push had no effect: anyone can write it, for example a hook.
#[test]
fn refs_are_read_again_whatever_the_mirror_says_as_it_hangs_up() {
    for (words, status) in [
        ("echo 'fatal: Repository not found' > /proc/$PPID/fd/2", "scheduled"),
        ("echo 'fatal: detected dubious ownership' > /proc/$PPID/fd/2", "scheduled"),
        // Side band 3: a fatal error (gitprotocol-pack(5)).
        (r"printf '000a\003gone\n' > /proc/$PPID/fd/1", "failed"),
    ] {
        let scene = Scene::local(&["--divergent-refs", "keep", "--prune", "deleted"]).with(&["main"]);
        let sandbox = &scene.sandbox;
        sandbox.add_mirror_config(&scene.source, LIMITS);
        // The hook starts `late` in a session of its own, prints the words and kills receive-pack. `late` creates the branch `x` when the
        // file `held` is removed.
        let (held, done, late) = (sandbox.path("held"), sandbox.path("done"), sandbox.path("late"));
        let text = format!(
            "#!/bin/sh\ntouch '{h}'\nwhile [ -e '{h}' ]; do sleep 0.02; done\ngit update-ref refs/heads/x main\ntouch '{d}'\n",
            h = held.display(),
            d = done.display()
        );
        script(&late, &text);
        let hook = format!(
            "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n\
             setsid '{l}' >/dev/null 2>&1 &\nuntil [ -e '{h}' ]; do sleep 0.02; done\n\
             {words}\nkill -9 $PPID",
            h = held.display(),
            l = late.display()
        );
        scene.hook("pre-receive", &hook);
        scene.work().push(&["main:x"]);
        let said = sandbox.mirror_push(&scene.source, &["drain"]);
        assert_eq!((said.status, &*scene.update_status()), (1, status), "{words}: {said:?}");
        scene.work().push(&[":x"]);
        std::fs::write(scene.mirror.join("hooks/pre-receive"), "#!/bin/sh\n").unwrap();
        sandbox.mirror_push(&scene.source, &["sync", "-q"]);
        std::fs::remove_file(held).unwrap();
        wait_for("what was begun", || done.exists());
        scene.settle(words);
    }
}

/// A daemon whose process is stopped while it updates a mirror, and whose lock another machine would take over on a shared file system. When
/// it goes on, it writes nothing of the run that is over, counts it, and the mirror ends equal.
#[test]
fn a_daemon_that_is_stopped_while_another_run_takes_its_lock() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let held = sandbox.path("held");
    let lines = format!("#!/bin/sh\nwhile [ -e '{}' ]; do sleep 0.02; done\n", held.display());
    script(&mirror.join("hooks/pre-receive"), &lines);
    sandbox.mirror_push_ok(&source, &["add", "m", mirror.to_str().unwrap(), "stall_timeout=2s"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    std::fs::write(&held, "").unwrap();
    work.commit("two");
    work.push(&["main"]);
    wait_for("the run", || sandbox.status(&source)["update_status"] == "started");
    let directory = source.join("mirror-push/remotes/m");
    let at_work = generation(&directory);
    daemon.signal(Signal::STOP);
    std::fs::remove_file(directory.join("lock")).unwrap();
    let other = sandbox.program(&source).arg("sync").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    wait_for("the other run", || generation(&directory) > at_work);
    daemon.signal(Signal::CONT);
    std::fs::remove_file(&held).unwrap();
    other.unwrap().wait().unwrap();
    let lost = || {
        let text = daemon.ask("GET", "/metrics", "").unwrap().text;
        let line = text.lines().find_map(|line| line.strip_prefix("git_mirror_push_fence_lost_total ")).unwrap();
        line.parse::<u64>().unwrap()
    };
    wait_for("the count", || lost() == 1);
    wait_for("the end", || {
        sandbox.refs(&mirror) == sandbox.refs(&source) && sandbox.status(&source)["update_status"] == "finished"
    });
}
