//! The mirror refuses one ref, or a whole push because of some refs. The other refs arrive, and each refused ref is reported with the
//! mirror's message.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, Work, script};

fn scene() -> Scene {
    Scene::local(&["--prune", "deleted"])
}

impl Scene {
    /// Pushes main, topic and gone, and mirrors them.
    fn begin(&self) -> Work<'_> {
        let work = self.sandbox.work(&self.source);
        work.commit("one");
        work.push(&["main", "main:topic", "main:gone"]);
        self.sandbox.mirror_push_ok(&self.source, &["drain"]);
        work
    }

    /// Drains, and expects that the mirror refuses `name` alone, with a reason that contains `words`.
    fn refuses(&self, name: &str, words: &str) {
        let said = self.sandbox.mirror_push(&self.source, &["drain", "--json"]);
        assert_eq!(said.status, 1, "{said:?}");
        let refs = said.json()[0]["refs"].as_array().unwrap().clone();
        for entry in refs {
            let outcome = entry["outcome"].as_str().unwrap();
            if entry["ref"] == name {
                assert_eq!(outcome, "remote_rejected", "{said:?}");
                assert!(entry["reason"].as_str().unwrap().contains(words), "{said:?}");
            } else {
                assert!(["created", "fast_forwarded", "forced", "deleted"].contains(&outcome), "{said:?}");
            }
        }
        let status = self.status();
        assert_eq!((&status["update_status"], &status["refs"][0]["ref"]), (&"failed".into(), &name.into()));
        // The status names the ref until it is mirrored, also after a drain of another ref.
        let work = self.sandbox.path("source.git.work");
        self.sandbox.git(&work, &["push", "-q", "origin", "HEAD:refs/heads/another"]);
        self.sandbox.mirror_push(&self.source, &["drain"]);
        let status = self.status();
        assert_eq!((&status["update_status"], &status["refs"][0]["ref"]), (&"failed".into(), &name.into()));
        assert_ne!(self.sandbox.oid(&self.mirror, "another"), "");
    }
}

#[test]
fn by_an_update_hook() {
    let scene = scene();
    let work = scene.begin();
    let hook = scene.mirror.join("hooks/update");
    std::fs::write(
        &hook,
        "#!/bin/sh\n[ \"$1\" != refs/heads/topic ] || { echo 'GH013: not \u{1b}[31mon my watch'; exit 1; }\n",
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    work.commit("two");
    work.push(&["main", "main:topic", ":gone", "main:fresh"]);
    scene.refuses("refs/heads/topic", "GH013: not [31mon my watch");
}

#[test]
fn by_deny_deletes() {
    let scene = scene();
    let work = scene.begin();
    scene.sandbox.git(&scene.mirror, &["config", "receive.denyDeletes", "true"]);
    work.commit("two");
    work.push(&["main", "main:topic", ":gone"]);
    scene.refuses("refs/heads/gone", "deletion prohibited");
}

#[test]
fn by_deny_non_fast_forwards() {
    let scene = scene();
    let work = scene.begin();
    scene.sandbox.git(&scene.mirror, &["config", "receive.denyNonFastForwards", "true"]);
    work.commit("two");
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("rewritten");
    work.push(&["main", "+other:topic", ":gone"]);
    scene.refuses("refs/heads/topic", "non-fast-forward");
}

#[test]
fn by_deny_current_branch() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.path("mirror");
    sandbox.git(&sandbox.path(""), &["init", "-q", mirror.to_str().unwrap()]);
    let source = sandbox.source("mirror", &["--prune", "deleted"]);
    let scene = Scene { sandbox, source, mirror, server: None };
    let work = scene.sandbox.work(&scene.source);
    work.commit("one");
    work.push(&["main:topic", "main"]);
    scene.refuses("refs/heads/main", "branch is currently checked out");
    assert_ne!(scene.sandbox.oid(&scene.mirror, "topic"), "");
}

#[test]
fn by_a_lock_of_a_ref_which_is_tried_again() {
    let sandbox = Sandbox::of_files();
    let scene = Scene::inside(sandbox, &["--prune", "deleted"]);
    let work = scene.begin();
    let lock = scene.mirror.join("refs/heads/topic.lock");
    std::fs::write(&lock, "").unwrap();
    work.commit("two");
    work.push(&["main", "main:topic", "main:fresh"]);
    let said = scene.sandbox.mirror_push(&scene.source, &["drain", "--json"]);
    let outcomes = scene.sandbox.outcomes(&said);
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome == "remote_failed").collect();
    assert_eq!(failed, [&("refs/heads/topic".to_owned(), "remote_failed".to_owned())], "{said:?}");
    assert_eq!(scene.sandbox.oid(&scene.mirror, "fresh"), scene.sandbox.oid(&scene.source, "fresh"));
    let status = scene.status();
    assert_eq!((&status["update_status"], &status["pending"]), (&"scheduled".into(), &1.into()), "{status}");
    std::fs::remove_file(&lock).unwrap();
    scene.sandbox.mirror_push_ok(&scene.source, &["sync"]);
    assert!(scene.is_mirrored());
}

#[test]
fn by_a_branch_in_the_way() {
    let scene = scene();
    let work = scene.begin();
    // The mirror's own branch `dir/own` conflicts with our branch `dir`.
    scene.sandbox.git(&scene.mirror, &["update-ref", "refs/heads/dir/own", "main"]);
    work.push(&["main:dir", "main:fresh"]);
    scene.refuses("refs/heads/dir", "failed to update ref");
}

#[test]
fn a_mirror_that_dies_during_a_push_fails_the_ref_and_keeps_the_push_queued() {
    let scene = scene();
    let work = scene.begin();
    let hook = scene.mirror.join("hooks/update");
    script(&hook, "#!/bin/sh\nkill -9 $PPID\n");
    work.commit("two");
    work.push(&["main"]);
    let said = scene.sandbox.mirror_push(&scene.source, &["drain", "--json"]);
    assert_eq!(said.status, 1);
    let report = said.json()[0].clone();
    assert_eq!(
        (&report["update_status"], &report["refs"][0]["outcome"]),
        (&"scheduled".into(), &"remote_failed".into())
    );
    let pending = scene.status()["pending"].clone();
    assert_eq!(pending, 1, "the push is still queued");
    std::fs::remove_file(hook).unwrap();
    scene.sandbox.mirror_push_ok(&scene.source, &["sync"]);
    assert_eq!(scene.sandbox.refs(&scene.mirror), scene.sandbox.refs(&scene.source));
}

/// Gives the mirror a pre-receive hook that declines every push with `bad` in a ref name. The hook writes one line for each push into the
/// file whose path is returned.
fn declining(scene: &Scene) -> PathBuf {
    let log = scene.sandbox.path("pushes");
    let hook = scene.mirror.join("hooks/pre-receive");
    let text =
        format!("#!/bin/sh\necho x >> '{}'\n! grep -q bad || {{ echo 'no bad names here'; exit 1; }}\n", log.display());
    script(&hook, &text);
    log
}

fn split_of(good: usize, bad: usize) -> (Scene, usize, Vec<(String, String)>) {
    let scene = scene();
    let work = scene.begin();
    let log = declining(&scene);
    let mut script: String = (0..good).map(|n| format!("create refs/heads/n{n:03} HEAD\n")).collect();
    // The bad names are spread among the good ones.
    script.extend((0..bad).map(|n| format!("create refs/heads/n{:03}x{n}bad HEAD\n", n * good / bad)));
    scene.sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], script.as_bytes());
    work.push(&["refs/heads/n*:refs/heads/n*"]);
    let said = scene.sandbox.mirror_push(&scene.source, &["drain", "--json"]);
    let outcomes = scene.sandbox.outcomes(&said);
    let pushes = std::fs::read_to_string(log).unwrap().lines().count();
    (scene, pushes, outcomes)
}

#[test]
fn a_whole_push_that_a_hook_declines_is_split_until_the_culprits_stand_alone() {
    for (good, bad) in [(97, 3), (99, 1), (1, 1), (30, 2)] {
        let (scene, pushes, outcomes) = split_of(good, bad);
        let (n, k) = ((good + bad) as f64, bad as f64);
        let most = (2.0 * k * n.log2().ceil() + 1.0) as usize;
        assert!(pushes <= most, "{pushes} pushes for {bad} culprits among {}, at most {most}", good + bad);
        for (name, outcome) in outcomes {
            assert_eq!(outcome, if name.contains("bad") { "remote_rejected" } else { "created" }, "{name}");
        }
        assert_eq!(scene.sandbox.oid(&scene.mirror, "n000"), scene.sandbox.oid(&scene.source, "n000"));
        let status = scene.status();
        assert_eq!(status["refs"].as_array().unwrap().len(), bad);
        assert!(status["refs"][0]["reason"].as_str().unwrap().contains("no bad names here"));
    }
}

#[test]
fn the_number_of_pushes_for_culprits_is_bounded() {
    let (_, pushes, outcomes) = split_of(0, 200);
    assert!(pushes <= 64, "{pushes}");
    assert!(outcomes.iter().all(|(_, outcome)| outcome == "remote_rejected"), "{outcomes:?}");
}

/// git allows C1 control characters, bidirectional controls and line separators in ref names. A terminal that obeyed them would show
/// something else.
#[test]
fn names_cannot_mislead_a_terminal() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    work.commit("one");
    let names = ["csi\u{9b}2J", "nel\u{85}line", "rtl\u{202e}gpj", "mark\u{2066}x", "sep\u{2028}y"];
    let refspecs: Vec<String> = names.iter().map(|name| format!("main:{name}")).collect();
    work.push(&[&["main"][..], &refspecs.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    script(
        &mirror.join("hooks/update"),
        "#!/bin/sh\n[ \"$1\" = refs/heads/main ] || { echo \"no $1\" >&2; exit 1; }\n",
    );
    let is_clean =
        |text: &str| text.chars().all(|c| c == '\n' || !(c.is_control() || "\u{202e}\u{2066}\u{2028}".contains(c)));
    for command in [&["sync", "-v"][..], &["status", "-v"], &["plan"], &["log"], &["doctor"], &["check"]] {
        let said = sandbox.mirror_push(&source, command);
        assert!(is_clean(&said.out) && is_clean(&said.err), "{command:?}: {said:?}");
    }
    let said = sandbox.mirror_push(&source, &["status", "-v"]);
    for escaped in ["csi\\u{9b}2J", "nel\\u{85}line", "rtl\\u{202e}gpj", "mark\\u{2066}x", "sep\\u{2028}y"] {
        assert!(said.out.contains(escaped), "{escaped}: {}", said.out);
    }
    // JSON has the unescaped name, and each ref has only the message about itself.
    let status = sandbox.status(&source);
    let refs = status["refs"].as_array().unwrap();
    assert_eq!(refs.len(), names.len());
    for name in names {
        let found = refs.iter().find(|entry| entry["ref"] == format!("refs/heads/{name}")).unwrap();
        let reason = found["reason"].as_str().unwrap();
        assert!(reason.matches("no refs/heads/").count() == 1 && reason.contains(&name[..3]), "{found}");
    }
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "main still arrives");
}
