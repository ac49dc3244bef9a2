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
    /// The requests that a command makes, by their methods.
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
    assert_eq!(scene.methods(&["drain"], 0), "POST", "a ref more");
    scene.work().push(&[":topic"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET GET POST POST", "no branch is deleted without a look at HEAD");
    scene.work().git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    scene.work().push(&["+main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST", "a rewrite of what we gave it");
    assert!(scene.is_mirrored());
}

#[test]
fn it_is_looked_at_whenever_what_it_holds_is_not_known() {
    let scene = scene(Kind::Http, &["--divergent-refs", "keep"]);
    let sandbox = &scene.sandbox;
    assert_eq!(scene.methods(&["sync"], 0), "GET", "a sync compares");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["sync"], 0), "GET POST");
    // A ref that was moved back to what the mirror has needs no command, but it is not taken for granted either.
    scene.push(&["main"]);
    scene.work().push(&["+main^:main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET");
    // The last contact did not end well.
    let hook = scene.mirror.join("hooks/update");
    script(&hook, "#!/bin/sh\nexit 1\n");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 1), "POST GET", "a refusal is worth one look, and is not sent again");
    std::fs::remove_file(hook).unwrap();
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST");
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "POST", "and then it is known again");
    // Another URL is another mirror.
    sandbox.mirror_push_ok(&scene.source, &["set", "m", "--url", &scene.server().url("./mirror.git")]);
    scene.push(&["main"]);
    assert_eq!(scene.methods(&["drain"], 0), "GET POST");
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
        assert_eq!(topic["remote"], theirs, "{policy}: it was looked at");
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
        // A branch more asks for no object at all that the old mirror did not have.
        scene.work().push(&["main:fresh"]);
        sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(sandbox.oid(&scene.mirror, "fresh"), sandbox.oid(&scene.source, "main"));
        // Everything but what the commands name may be gone.
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
        // They replace it, and their housekeeping throws away what it was.
        let theirs = sandbox.git(&scene.mirror, &["commit-tree", "-m", "theirs", "main^{tree}"]);
        sandbox.git(&scene.mirror, &["update-ref", "refs/heads/topic", &theirs]);
        let ours = sandbox.oid(&scene.source, "topic");
        sandbox.git(&scene.mirror, &["prune", "--expire=now"]);
        assert_ne!(sandbox.try_git(&scene.mirror, &["cat-file", "-e", &ours]).status, 0, "it is gone there");
        scene.work().push(&[":topic"]);
        let said = sandbox.mirror_push(&scene.source, &["drain", "--json"]);
        assert_eq!(sandbox.oid(&scene.mirror, "topic"), theirs, "{said:?}");
        assert_eq!(said.json()[0]["refs"][0]["outcome"], "kept");
        // A branch of ours that goes on is refused there for want of the old object, and looked after too.
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
fn nothing_is_waited_for_before_the_commands() {
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
fn an_answer_that_is_none_is_looked_after() {
    let tools = tempfile::tempdir().unwrap();
    let plain = Sandbox::new();
    let real = plain.git(&plain.path(""), &["--exec-path"]);
    let (kill, killed) = (plain.path("kill"), plain.path("killed"));
    // Once, receive-pack does its work, and what it says of it is lost.
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

/// What the spool knows as deleted is looked for, also where the books know nothing of it.
#[test]
fn a_deletion_of_which_the_books_know_nothing_is_not_passed_over() {
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
