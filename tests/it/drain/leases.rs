//! Someone pushes to the mirror after it advertised its refs to us and before it carries out our commands.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::scene::sandbox::Sandbox;

/// A mirror whose pre-receive hook moves `topic` at most `times` times, as somebody else would at that moment. The hook runs only after
/// `arm`. The second path is the file with the values to which the hook moved `topic`.
fn racing_mirror(sandbox: &Sandbox, times: u32) -> (PathBuf, PathBuf) {
    let mirror = sandbox.bare("mirror.git");
    let moves = sandbox.path("moves");
    let script = format!(
        "#!/bin/sh\nunset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n\
         done=$(cat '{m}' 2>/dev/null | wc -l)\n[ \"$done\" -lt {times} ] || exit 0\n\
         theirs=$(git commit-tree -m \"theirs $done\" -p refs/heads/topic 'refs/heads/topic^{{tree}}')\n\
         git update-ref refs/heads/topic \"$theirs\" && echo \"$theirs\" >> '{m}'\n",
        m = moves.display()
    );
    std::fs::write(mirror.join("hooks/pre-receive"), script).unwrap();
    (mirror, moves)
}

fn arm(mirror: &Path) {
    std::fs::set_permissions(mirror.join("hooks/pre-receive"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn race(policy: &str, times: u32) -> (Sandbox, PathBuf, PathBuf, Vec<String>, i32) {
    let sandbox = Sandbox::new();
    let (mirror, moves) = racing_mirror(&sandbox, times);
    let source = sandbox.source("mirror.git", &["--divergent-refs", policy]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:topic"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    arm(&mirror);
    work.commit("two");
    work.push(&["main", "main:topic"]);
    let said = sandbox.mirror_push(&source, &["drain", "--json"]);
    let theirs = std::fs::read_to_string(moves).unwrap().lines().map(str::to_owned).collect();
    (sandbox, source, mirror, theirs, said.status)
}

#[test]
fn their_commit_is_seen_and_kept_under_keep() {
    let (sandbox, source, mirror, theirs, status) = race("keep", 1);
    assert_eq!(status, 1);
    assert_eq!(sandbox.oid(&mirror, "topic"), theirs[0]);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "the other ref arrives");
    let status = sandbox.status(&source);
    assert_eq!(status["refs"][0]["outcome"], "divergent");
    assert_eq!(status["refs"][0]["remote"], theirs[0]);
}

#[test]
fn their_commit_is_seen_and_nothing_more_is_pushed_under_fail() {
    let (sandbox, source, mirror, theirs, status) = race("fail", 1);
    assert_eq!(status, 1);
    assert_eq!(sandbox.oid(&mirror, "topic"), theirs[0]);
    assert_eq!(sandbox.status(&source)["update_status"], "failed");
}

#[test]
fn their_commit_is_overwritten_only_after_it_has_been_seen() {
    let (sandbox, source, mirror, theirs, status) = race("overwrite", 2);
    assert_eq!(status, 0);
    assert_eq!(theirs.len(), 2, "two refused leases, then a decision about what was seen");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    for lost in theirs {
        sandbox.git(&mirror, &["cat-file", "-e", &lost]);
    }
}

#[test]
fn a_ref_that_moves_during_every_push_is_given_up_after_three_tries() {
    let (sandbox, source, mirror, theirs, status) = race("overwrite", 100);
    assert_eq!(status, 1);
    assert_eq!(theirs.len(), 3);
    assert_eq!(sandbox.oid(&mirror, "topic"), theirs[2]);
    let status = sandbox.status(&source);
    assert_eq!(status["refs"][0]["outcome"], "remote_rejected", "{status}");
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
}
