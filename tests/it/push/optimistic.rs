//! Optimistic pushes, which do not read the mirror's refs first: when they are made, their number of requests, and that nothing is lost.

use std::path::{Path, PathBuf};

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, script};
use crate::scene::servers::Kind;

/// A mirror that was updated once: `main` and `topic`.
fn scene(kind: Kind, options: &[&str]) -> Scene {
    Scene::behind(kind, options).with(&["main", "main:topic"])
}

impl Scene {
    /// The HTTP methods of the requests that a command makes.
    fn methods(&self, arguments: &[&str], status: i32) -> String {
        let before = self.server().requests(&self.sandbox).len();
        let said = self.sandbox.mirror_push(&self.source, arguments);
        assert_eq!(said.status, status, "{said:?}");
        let requests = self.server().requests(&self.sandbox);
        requests[before..].iter().map(|line| line.split(' ').nth(2).unwrap()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_small_push_is_one_request() {
    let scene = scene(Kind::Http, &["--prune", "deleted"]);
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST");
    scene.work().push(&["main:fresh"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST", "one more ref");
    scene.work().push(&[":topic"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET GET POST POST", "no branch is deleted before HEAD is read");
    scene.work().git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    scene.work().push(&["+main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST", "a rewrite of what we gave it");
    assert!(scene.is_mirrored());
}

#[test]
fn the_mirrors_refs_are_read_first_whenever_they_are_not_known() {
    let scene = scene(Kind::Http, &["--divergent-refs", "keep"]);
    let sandbox = &scene.sandbox;
    assert_eq!(scene.methods(&["sync"], 0), "GET", "a sync compares");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["sync"], 0), "GET POST");
    // A ref that was moved back to the mirror's value needs no command, but the value is read to confirm that.
    scene.push(&["main"]);
    scene.work().push(&["+main^:main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET");
    // After a contact that did not end well, the refs are read first.
    let hook = scene.mirror.join("hooks/update");
    script(&hook, "#!/bin/sh\nexit 1\n");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 1), "POST GET", "the refs are read once, and nothing is sent again");
    std::fs::remove_file(hook).unwrap();
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST", "after a good contact, the refs are known again");
    // Another URL is another mirror.
    sandbox.mirror_push_ok(&scene.source, &["set", "m", "--url", &scene.server().url("./mirror.git")]);
    scene.push(&["main"]);
    assert_eq!(
        scene.methods(&["drain"], 0),
        "GET GET POST",
        "at the first contact, upload-pack is asked whether it is there"
    );
    scene.push(&["main:a", "main:b", "main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST");
    sandbox.add_mirror_config(&scene.source, "max_refs_per_push = 2");
    scene.push(&["main:a", "main:b", "main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST GET POST", "more than fit in one push");
    sandbox.add_mirror_config(&scene.source, "optimistic = false");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST");
    sandbox.mirror_push_ok(&scene.source, &["set", "m", "--divergent-refs", "fail"]);
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST");
    assert!(scene.is_mirrored());
}

fn what_others_did_meanwhile_is_judged_by_the_rules(kind: Kind) {
    for policy in ["keep", "overwrite"] {
        let scene = scene(kind, &["--divergent-refs", policy]);
        let sandbox = &scene.sandbox;
        let theirs = scene.theirs("topic");
        scene.push(&["main", "main:topic"]);
        let said = sandbox.mirror_push(&scene.source, &["drain", "--json"]);
        let topic = &said.json()[0]["refs"][1];
        assert_eq!(topic["remote"], theirs, "{policy}: the ref was read");
        match policy {
            "keep" => assert_eq!((said.status, sandbox.oid(&scene.mirror, "topic")), (1, theirs), "{said:?}"),
            _ => assert!(scene.is_mirrored() && topic["outcome"] == "forced", "{said:?}"),
        }
        assert_eq!(sandbox.oid(&scene.mirror, "main"), sandbox.oid(&scene.source, "main"), "the other arrives");
    }
}

#[test]
fn what_others_did_meanwhile_is_judged_by_the_rules_over_a_path() {
    what_others_did_meanwhile_is_judged_by_the_rules(Kind::Path);
}

#[test]
fn what_others_did_meanwhile_is_judged_by_the_rules_over_git() {
    what_others_did_meanwhile_is_judged_by_the_rules(Kind::Git);
}

#[test]
fn what_others_did_meanwhile_is_judged_by_the_rules_over_ssh() {
    what_others_did_meanwhile_is_judged_by_the_rules(Kind::Ssh);
}

#[test]
fn what_others_did_meanwhile_is_judged_by_the_rules_over_http() {
    what_others_did_meanwhile_is_judged_by_the_rules(Kind::Http);
}

#[test]
fn a_mirror_that_was_made_anew_gets_the_objects_that_it_lacks() {
    for kind in [Kind::Path, Kind::Ssh, Kind::Http] {
        let scene = scene(kind, &[]);
        let sandbox = &scene.sandbox;
        std::fs::remove_dir_all(&scene.mirror).unwrap();
        sandbox.bare("mirror.git");
        // The old mirror had all objects of this new branch, so the optimistic push carries none.
        scene.work().push(&["main:fresh"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(sandbox.oid(&scene.mirror, "fresh"), sandbox.oid(&scene.source, "main"));
        // The push of one more commit carries only that commit, and the new mirror lacks its parent.
        std::fs::remove_dir_all(&scene.mirror).unwrap();
        sandbox.bare("mirror.git");
        scene.push(&["main", "main:topic"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(sandbox.oid(&scene.mirror, "topic"), sandbox.oid(&scene.source, "main"));
        sandbox.git(&scene.mirror, &["fsck", "--connectivity-only"]);
    }
}

#[test]
fn what_others_pushed_is_not_deleted_although_the_mirror_forgot_what_we_had_pushed() {
    for kind in [Kind::Path, Kind::Http] {
        let scene = scene(kind, &["--prune", "deleted"]);
        let sandbox = &scene.sandbox;
        scene.work().git(&["checkout", "-q", "-b", "topic"]);
        scene.push(&["topic"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        // Somebody replaces the branch there, and their garbage collection removes our commit.
        let theirs = sandbox.git(&scene.mirror, &["commit-tree", "-m", "theirs", "main^{tree}"]);
        sandbox.git(&scene.mirror, &["update-ref", "refs/heads/topic", &theirs]);
        let ours = sandbox.oid(&scene.source, "topic");
        sandbox.git(&scene.mirror, &["prune", "--expire=now"]);
        assert_ne!(sandbox.try_git(&scene.mirror, &["cat-file", "-e", &ours]).status, 0, "it is gone there");
        scene.work().push(&[":topic"]);
        let said = sandbox.mirror_push(&scene.source, &["drain", "--json"]);
        assert_eq!(sandbox.oid(&scene.mirror, "topic"), theirs, "{said:?}");
        assert_eq!(said.json()[0]["refs"][0]["outcome"], "kept");
        // The mirror refuses an update of our branch too, because it lacks the old object. The ref is then read and decided again.
        scene.work().push(&["topic:again"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        sandbox.git(&scene.mirror, &["update-ref", "refs/heads/again", &theirs]);
        sandbox.git(&scene.mirror, &["prune", "--expire=now"]);
        scene.push(&["topic:again"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(
            sandbox.oid(&scene.mirror, "again"),
            sandbox.oid(&scene.source, "again"),
            "divergent_refs = overwrite"
        );
    }
}

/// A `git` whose receive-pack says nothing until it was told something.
fn silent_until_told(sandbox: &Sandbox, directory: &Path) -> PathBuf {
    let real = sandbox.git(&sandbox.path(""), &["--exec-path"]);
    let text = format!(
        "#!/usr/bin/env python3\nimport os, subprocess, sys\n\
         if 'receive-pack' not in sys.argv or not os.path.exists('{flag}'): os.execv('{real}/git', sys.argv)\n\
         told = os.read(0, 1 << 20)\n\
         child = subprocess.Popen(['{real}/git'] + sys.argv[1:], stdin=subprocess.PIPE)\n\
         child.stdin.write(told)\n\
         while more := os.read(0, 1 << 20): child.stdin.write(more)\n\
         child.stdin.close()\n\
         sys.exit(child.wait())\n",
        flag = sandbox.path("silent").display()
    );
    script(&directory.join("git"), &text);
    directory.to_owned()
}

#[test]
fn an_optimistic_push_does_not_wait_for_the_advertisement() {
    let tools = tempfile::tempdir().unwrap();
    let plain = Sandbox::new();
    let scene = Scene::inside(Sandbox::with_git(Some(&silent_until_told(&plain, tools.path()))), &[])
        .with(&["main", "main:topic"]);
    let sandbox = &scene.sandbox;
    std::fs::write(plain.path("silent"), "").unwrap();
    sandbox.add_mirror_config(&scene.source, "stall_timeout = \"5s\"");
    scene.push(&["main"]);
    sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert!(scene.is_mirrored());
}

#[test]
fn after_a_push_whose_answer_is_lost_the_refs_are_read() {
    let tools = tempfile::tempdir().unwrap();
    let plain = Sandbox::new();
    let real = plain.git(&plain.path(""), &["--exec-path"]);
    let (kill, killed) = (plain.path("kill"), plain.path("killed"));
    // One time, receive-pack does its work, but only the first 300 bytes of its output arrive.
    let text = format!(
        "#!/bin/sh\ncase $* in *receive-pack*) if mv '{}' '{}' 2>/dev/null; then\n\
         '{real}/git' \"$@\" | head -c 300; exit 1\nfi;; esac\nexec '{real}/git' \"$@\"\n",
        kill.display(),
        killed.display()
    );
    script(&tools.path().join("git"), &text);
    let scene = Scene::inside(Sandbox::with_git(Some(tools.path())), &[]).with(&["main", "main:topic"]);
    let sandbox = &scene.sandbox;
    std::fs::write(&kill, "").unwrap();
    scene.push(&["main"]);
    let said = sandbox.mirror_push_ok(&scene.source, &["drain", "--json"]);
    assert!(killed.exists() && scene.is_mirrored());
    let outcome = &said.json()[0]["refs"][0]["outcome"];
    assert!(outcome == "up_to_date" || outcome == "fast_forwarded", "{said:?}");
}

#[test]
fn a_deletion_is_carried_out_even_if_the_base_lacks_the_ref() {
    let scene = scene(Kind::Git, &["--prune", "deleted"]);
    let sandbox = &scene.sandbox;
    scene.push(&["main"]);
    sandbox.mirror_push_ok(&scene.source, &["drain"]);
    sandbox.git(&scene.mirror, &["update-ref", "refs/heads/x", "refs/heads/main"]);
    scene.work().push(&["main:x"]);
    scene.work().push(&[":x"]);
    scene.push(&["main"]);
    sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert_eq!(sandbox.refs(&scene.mirror), sandbox.refs(&scene.source));
}
