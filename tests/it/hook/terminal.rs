//! The drain that a push starts, and the terminal of the pusher.

use crate::scene::sandbox::{Completed, Sandbox, script, skip, wait_for};

/// Runs the arguments as the leader of a session on a terminal of its own, which closes when they end, and prints what they wrote there.
const ON_A_TERMINAL: &str = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
try:
    while text := os.read(terminal, 4096):
        sys.stdout.buffer.write(text)
except OSError:
    pass
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_terminal_that_closes_at_once_does_not_end_the_drain() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["set", "wake=auto"]);
    let work = sandbox.work(&source);
    for round in 0..10 {
        work.commit(&format!("round {round}"));
        let mut python = sandbox.command("python3");
        python.args(["-c", ON_A_TERMINAL, "git", "-C"]).arg(&work.path).args(["push", "-q"]).arg(&source);
        let said = Completed::of(&python.arg("HEAD:refs/heads/main").output().unwrap());
        assert_eq!(said.status, 0, "{said:?}");
        wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    }
}

/// The terminal stays open, and no program of the drain may ask there. In a PID namespace of its own, the hook does not see the leader of the
/// session.
#[test]
fn a_drain_leaves_the_terminal_of_the_pusher() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["set", "wake=auto"]);
    let work = sandbox.work(&source);
    // proc_pid_stat(5), field 7: the controlling terminal. The hook of the mirror runs in the session of the drain.
    script(&mirror.join("hooks/post-receive"), "#!/bin/sh\ncut -d ' ' -f 7 /proc/self/stat >>terminals\n");
    let seen = mirror.join("terminals");
    for around in ["", "unshare --user --map-root-user --pid --fork --mount-proc"] {
        if !around.is_empty() && !sandbox.command("unshare").args(["-U", "-r", "true"]).status().unwrap().success() {
            skip("namespaces of users are not allowed here");
            continue;
        }
        work.commit("more");
        let push = format!(
            "#!/bin/sh\ngit -C '{}' push -q '{}' HEAD:refs/heads/main\nfor n in $(seq 100); do test -s '{}' && exit; sleep 0.1; done\n",
            work.path.display(),
            source.display(),
            seen.display()
        );
        let file = sandbox.path("push");
        script(&file, &push);
        let mut python = sandbox.command("python3");
        let said = Completed::of(
            &python
                .args(["-c", ON_A_TERMINAL, "sh", "-c", &format!("{around} '{}'; true", file.display())])
                .output()
                .unwrap(),
        );
        assert_eq!(std::fs::read_to_string(&seen).unwrap_or_default(), "0\n", "{around}: {said:?}");
        std::fs::remove_file(&seen).unwrap();
    }
}
