//! What the daemon spends on a check, and how soon a change of upstream has gone through.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, is_variant, skip, wait_for};
use crate::scene::servers::{Kind, Server};

const PULL: &str = "projects/here/mirror/pull";

/// A daemon that serves `here`, which takes from an upstream behind a web server. What is there has been taken.
fn scene<'s>(sandbox: &'s Sandbox, server: &Server) -> (Daemon<'s>, PathBuf, PathBuf) {
    let daemon = Daemon::start(sandbox, LOCAL);
    let (here, up) = (daemon.repository("here"), sandbox.upstream());
    let name = up.file_name().unwrap().to_str().unwrap();
    let add = ["add", "upstream", &server.url(name), "--direction", "pull", "-q", "allow_insecure_http=true"];
    sandbox.mirror_push_ok(&here, &add);
    wait_for("the first pull", || sandbox.refs(&here) == sandbox.refs(&up));
    (daemon, here, up)
}

/// Asks for a check through the API, and waits for its end.
fn check(daemon: &Daemon<'_>, here: &Path) {
    let file = here.join("mirror-push/remotes/upstream/checked");
    let checked = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
    let before = checked();
    assert_eq!(daemon.api("POST", PULL, "").status, 202);
    wait_for("the check", || checked() > before);
}

#[test]
fn an_unchanged_check_is_one_post_on_a_kept_connection_without_program_or_sync() {
    if is_variant("reftable") {
        skip("git lists the refs");
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, Kind::Http);
    let (daemon, here, up) = scene(&sandbox, &server);
    // The first check of this daemon that finds nothing may be one that still learns what upstream speaks.
    (0..2).for_each(|_| check(&daemon, &here));
    let trace = sandbox.path("trace");
    let mut strace = sandbox.command("strace");
    strace.args([
        "-f",
        "-qq",
        "-e",
        "trace=execve,connect,fsync,fdatasync,flock,rename,renameat2,unlink,unlinkat",
        "-o",
    ]);
    let mut strace = strace.arg(&trace).args(["-p", &daemon.pid().to_string()]).spawn().unwrap();
    let is_traced = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        !status.contains("TracerPid:\t0\n")
    };
    wait_for("strace", is_traced);
    let before = server.requests(&sandbox).len();
    (0..5).for_each(|_| check(&daemon, &here));
    let requests = server.requests(&sandbox).split_off(before);
    let traced = || std::fs::read_to_string(&trace).unwrap();
    assert_eq!(traced(), "");
    // The trace does show what a check does that finds something.
    let work = sandbox.work(&up);
    work.commit("more");
    work.push(&["HEAD:refs/heads/main"]);
    assert_eq!(daemon.api("POST", PULL, "").status, 202);
    wait_for("programs and syncs in the trace", || {
        let traced = traced();
        ["execve(", "fsync(", "flock("].iter().all(|call| traced.contains(call))
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&strace), Signal::TERM).unwrap();
    strace.wait().unwrap();
    let connections: Vec<&str> = requests.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(requests.iter().all(|line| line.contains(" POST ") && line.contains("git-upload-pack")), "{requests:?}");
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert!(connections.iter().all(|connection| *connection == connections[0]), "{requests:?}");
}

#[test]
fn a_change_of_upstream_goes_onward_within_a_second_and_not_back() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox, Kind::Http);
    let (daemon, here, up) = scene(&sandbox, &server);
    let onward = sandbox.bare("onward.git");
    sandbox.mirror_push_ok(&here, &["add", "onward", onward.to_str().unwrap(), "-q"]);
    wait_for("the first push", || sandbox.refs(&onward) == sandbox.refs(&up));
    let work = sandbox.work(&up);
    work.git(&["pull", "-q", "origin", "main"]);
    let mut times = Vec::new();
    for round in 0..9 {
        let new = work.commit(&format!("round {round}"));
        work.push(&["HEAD:refs/heads/main"]);
        let (before, begin) = (server.requests(&sandbox).len(), Instant::now());
        assert_eq!(daemon.api("POST", PULL, "").status, 202);
        wait_for("the onward mirror", || sandbox.oid(&onward, "main") == new);
        times.push(begin.elapsed());
        assert_eq!(sandbox.oid(&here, "main"), new);
        // An echo would come at once, by the hook or after the run.
        std::thread::park_timeout(Duration::from_millis(if round == 0 { 1500 } else { 0 }));
        let requests = server.requests(&sandbox).split_off(before);
        assert!(
            requests.len() <= 2 && requests.iter().all(|line| line.contains(" POST ")),
            "a list and a pack: {requests:?}"
        );
    }
    times.sort();
    assert!(times[4] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn a_push_goes_through_a_chain_of_three_within_two_seconds() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let [one, two, three] = ["one", "two", "three"].map(|name| daemon.repository(name));
    let last = sandbox.bare("last.git");
    for (from, to) in [(&one, &two), (&two, &three), (&three, &last)] {
        sandbox.mirror_push_ok(from, &["add", "next", to.to_str().unwrap(), "-q"]);
    }
    let work = sandbox.work(&one);
    let mut times = Vec::new();
    for round in 0..9 {
        let new = work.commit(&format!("round {round}"));
        work.push(&["HEAD:refs/heads/main"]);
        let begin = Instant::now();
        wait_for("the end of the chain", || {
            sandbox.try_git(&last, &["rev-parse", "-q", "--verify", "main"]).out.trim() == new
        });
        times.push(begin.elapsed());
    }
    times.sort();
    assert!(times[4] < Duration::from_secs(2), "{times:?}");
}
