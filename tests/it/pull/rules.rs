//! The rules of a pull, with real repositories: updates, deletions, first contact
//! (`docs/rules.md`).

use super::Taking;
use crate::scene::sandbox::Sandbox;

fn outcome(name: &str, outcome: &str) -> (String, String) {
    (format!("refs/heads/{name}"), outcome.to_owned())
}

#[test]
fn an_empty_repository_becomes_what_upstream_is() {
    let s = Taking::local(&[]);
    let work = s.work();
    work.commit("one");
    work.git(&["tag", "-a", "-m", "one", "v1"]);
    work.git(&["branch", "dev"]);
    work.git(&["branch", "trunk"]);
    work.push(&["main", "trunk", "dev", "v1"]);
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    s.sandbox.git(&s.up, &["update-ref", "refs/pull/1/head", "refs/heads/dev"]);
    let said = s.pull_ok();
    assert!(s.is_taken(), "{said:?}");
    assert!(said.out.starts_with("From ") && said.out.contains("[new tag]"), "{said:?}");
    assert_eq!(s.sandbox.git(&s.here, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/trunk");
    assert_eq!(s.here("refs/pull/1/head"), "", "only branches and tags are taken");
    s.sandbox.git(&s.here, &["fsck", "--strict", "--connectivity-only"]);
    let status = s.status();
    assert_eq!(status["direction"], "pull");
    assert_eq!(status["update_status"], "finished");
    assert!(status["last_check_at"].is_string() && status["last_change_at"].is_string(), "{status}");
    assert_eq!(s.leftovers(), Vec::<String>::new());
}

#[test]
fn a_ref_that_becomes_symbolic_upstream_is_neither_taken_nor_deleted() {
    let s = Taking::local(&["--prune", "mirror", "--divergent-refs", "overwrite"]).with(&["main", "main:link"]);
    let value = s.here("link");
    s.sandbox.git(&s.up, &["symbolic-ref", "refs/heads/link", "refs/heads/main"]);
    s.work().commit("two");
    s.work().push(&["main"]);
    assert_eq!(s.pulled(), [outcome("main", "fast_forwarded")]);
    assert_eq!(s.here("link"), value);
}

#[test]
fn forward_rewritten_and_moved_here() {
    let s = Taking::local(&[]).with(&["main", "main:rewritten", "main:moved", "main:ahead"]);
    let first = s.here("main");
    let work = s.work();
    let second = work.commit("two");
    work.push(&["main", "main:moved"]);
    // Upstream rewrites a branch that nobody moved here.
    work.git(&["checkout", "-q", "--orphan", "other"]);
    let other = work.commit("other");
    work.push(&["+other:rewritten"]);
    // Somebody moves two branches here; upstream moves only one of them.
    let moved = s.sandbox.theirs(&s.here, "moved");
    let ahead = s.sandbox.theirs(&s.here, "ahead");
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    assert_eq!(said.status, 1);
    assert_eq!(
        s.changed(&said),
        [
            outcome("ahead", "divergent"),
            outcome("main", "fast_forwarded"),
            outcome("moved", "divergent"),
            outcome("rewritten", "forced")
        ]
    );
    assert_eq!(s.here("main"), second.trim());
    assert_eq!(s.here("rewritten"), other.trim());
    assert_eq!((s.here("moved"), s.here("ahead")), (moved.trim().to_owned(), ahead.trim().to_owned()));
    assert_eq!(s.kept(), [format!("refs/rewritten/m/{}/heads/rewritten {first}", &first[..12])]);
    let status = s.status();
    assert_eq!(status["update_status"], "failed");
    let refs = status["refs"].as_array().unwrap();
    let moved_ref = refs.iter().find(|outcome| outcome["ref"] == "refs/heads/moved").unwrap();
    assert_eq!(moved_ref["side"], "here");
    assert_eq!(moved_ref["base"], serde_json::json!(first));
    assert!(moved_ref["reason"].as_str().unwrap().contains("someone moved the ref here"), "{moved_ref}");
    let log = s.sandbox.mirror_push_ok(&s.here, &["log", "--json"]).out;
    assert!(log.contains(&first), "the old value of the forced update is in the log: {log}");
    // The fix: set `moved` back to a value that upstream's contains, and `ahead` to upstream's.
    for branch in ["moved", "ahead"] {
        let upstream = s.sandbox.oid(&s.up, branch);
        if branch == "moved" {
            s.sandbox.git(&s.here, &["update-ref", &format!("refs/heads/{branch}"), &first]);
        } else {
            s.sandbox.git(&s.here, &["update-ref", &format!("refs/heads/{branch}"), &upstream]);
        }
    }
    s.pull_ok();
    assert!(s.is_taken() && s.status()["update_status"] == "finished");
}

#[test]
fn overwrite_replaces_what_was_moved_here_and_keeps_it() {
    let s = Taking::local(&["--divergent-refs", "overwrite"]).with(&["main"]);
    let moved = s.sandbox.theirs(&s.here, "main");
    s.work().commit("two");
    s.work().push(&["main"]);
    assert_eq!(s.pulled(), [outcome("main", "forced")]);
    assert!(s.is_taken());
    assert_eq!(s.kept().len(), 1);
    assert!(s.kept()[0].ends_with(moved.trim()));
    let kept = std::fs::read_to_string(s.here.join("mirror-push/remotes/m/kept.jsonl")).unwrap();
    assert!(kept.contains(moved.trim()) && kept.contains("refs/heads/main"), "{kept}");
    // Pushers can fetch such refs. They can neither delete nor create them.
    let name = s.kept()[0].split(' ').next().unwrap().to_owned();
    let work = s.sandbox.work(&s.here);
    let said = s.sandbox.try_git(&work.path, &["push", "origin", &format!(":{name}")]);
    assert!(said.status != 0 && said.err.contains("hidden"), "{said:?}");
    let said = s.sandbox.try_git(&work.path, &["push", "origin", "HEAD:refs/rewritten/m/forged"]);
    assert!(said.status != 0, "{said:?}");
    work.git(&["fetch", "-q", "origin", &format!("{name}:back")]);
    let listed = s.sandbox.mirror_push_ok(&s.here, &["kept", "--json"]).json();
    assert_eq!(
        (&listed[0]["ref"], &listed[0]["kept_as"]),
        (&"refs/heads/main".into(), &name.as_str().into()),
        "{listed}"
    );
    let said = s.sandbox.mirror_push(&s.here, &["kept", "--restore", "main"]);
    assert!(said.status == 129 && said.err.contains("exists"), "{said:?}");
    s.sandbox.mirror_push_ok(&s.here, &["kept", "m", "--restore", "main", "--as", "before"]);
    assert_eq!(s.here("refs/heads/before"), moved.trim());
    s.sandbox.mirror_push_ok(&s.here, &["kept", "--expire"]);
    assert!(s.kept().is_empty() && s.sandbox.mirror_push_ok(&s.here, &["kept"]).out.is_empty());
    // With `keep_rewritten = 0`, nothing is kept.
    let none = Taking::local(&["--divergent-refs", "overwrite", "keep_rewritten=0"]).with(&["main"]);
    none.sandbox.theirs(&none.here, "main");
    assert_eq!(none.pulled(), [outcome("main", "forced")]);
    assert!(none.is_taken() && none.kept().is_empty());
}

#[test]
fn fail_takes_nothing_at_all() {
    let s = Taking::local(&["--divergent-refs", "fail"]).with(&["main", "main:moved"]);
    s.sandbox.theirs(&s.here, "moved");
    let before = s.sandbox.refs(&s.here);
    s.work().commit("two");
    s.work().push(&["main"]);
    let said = s.pull();
    assert_eq!(said.status, 1);
    assert_eq!(s.sandbox.refs(&s.here), before);
}

#[test]
fn what_was_deleted_here_comes_back_only_if_asked_for_or_if_upstream_changes_it() {
    let s = Taking::local(&[]).with(&["main", "main:x", "main:y"]);
    s.sandbox.git(&s.here, &["update-ref", "-d", "refs/heads/x"]);
    s.sandbox.git(&s.here, &["update-ref", "-d", "refs/heads/y"]);
    assert_eq!(s.pulled(), [outcome("x", "kept"), outcome("y", "kept")]);
    assert_eq!(s.status()["update_status"], "finished", "that is no failure");
    s.work().commit("two");
    s.work().push(&["HEAD:y"]);
    assert_eq!(s.pulled(), [outcome("x", "kept"), outcome("y", "restored")]);
    let said = s.sandbox.mirror_push_ok(&s.here, &["sync", "--restore", "--json"]);
    assert!(s.changed(&said).contains(&outcome("x", "restored")), "{said:?}");
    assert!(s.is_taken());
}

#[test]
fn deletions_follow_prune() {
    for (prune, gone, kept) in [
        ("merged", &["merged"][..], &["unmerged", "moved"][..]),
        ("deleted", &["merged", "unmerged"], &["moved"]),
        ("never", &[], &["merged", "unmerged", "moved"]),
    ] {
        let s = Taking::local(&["--prune", prune]);
        let work = s.work();
        work.commit("one");
        work.push(&["main", "main:merged", "main:moved"]);
        work.git(&["checkout", "-q", "-b", "side"]);
        work.commit("side");
        work.push(&["side:unmerged"]);
        s.pull_ok();
        s.sandbox.theirs(&s.here, "moved");
        s.sandbox.git(&s.here, &["branch", "ours", "main"]);
        work.push(&[":merged", ":unmerged", ":moved"]);
        let unmerged = s.here("unmerged");
        let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
        let mut expected: Vec<_> = gone.iter().map(|name| outcome(name, "deleted")).collect();
        expected.extend(kept.iter().map(|name| outcome(name, "kept")));
        expected.sort();
        assert_eq!(s.changed(&said), expected, "{prune}");
        assert!(!s.here("ours").is_empty(), "a branch of ours alone is not reported and stays");
        let is_kept = s.kept().iter().any(|line| line.ends_with(&unmerged));
        assert_eq!(is_kept, prune == "deleted", "{prune}: what is in no other branch is kept under another name");
        // A second run keeps no further value.
        s.sandbox.mirror_push(&s.here, &["sync"]);
        assert_eq!(s.kept().len(), usize::from(prune == "deleted"));
    }
}

#[test]
fn a_branch_that_upstream_merged_and_deleted_needs_no_second_name() {
    let s = Taking::local(&[]).with(&["main"]);
    let work = s.work();
    work.git(&["checkout", "-q", "-b", "x"]);
    work.commit("side");
    work.push(&["x"]);
    s.pull_ok();
    work.push(&["x:main", ":x"]);
    assert_eq!(s.pulled(), [outcome("main", "fast_forwarded"), outcome("x", "deleted")]);
    assert!(s.is_taken() && s.kept().is_empty(), "{:?}", s.kept());
}

#[test]
fn the_branch_of_head_and_too_many_branches_are_not_deleted() {
    let s = Taking::local(&["--prune", "mirror", "max_deletes=1"]).with(&["main", "main:a", "main:b", "main:stays"]);
    s.sandbox.git(&s.here, &["symbolic-ref", "HEAD", "refs/heads/a"]);
    s.work().push(&[":a"]);
    assert_eq!(s.pulled(), [outcome("a", "kept")]);
    s.sandbox.git(&s.here, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    s.work().push(&[":b"]);
    assert_eq!(s.pulled(), [outcome("a", "kept"), outcome("b", "kept")]);
    let said = s.sandbox.mirror_push_ok(&s.here, &["sync", "--allow-mass-delete", "--json"]);
    assert_eq!(s.changed(&said).iter().filter(|(_, word)| word == "deleted").count(), 2, "{said:?}");
    assert!(s.is_taken());
}

#[test]
fn an_upstream_that_suddenly_shows_nothing_deletes_nothing() {
    let s = Taking::local(&["--prune", "mirror", "--divergent-refs", "overwrite"]).with(&["main", "main:x"]);
    let before = s.sandbox.refs(&s.here);
    std::fs::remove_dir_all(&s.up).unwrap();
    s.sandbox.bare("up.git");
    let said = s.pull();
    assert!(said.status == 1 && said.out.contains("upstream shows no refs"), "{said:?}");
    assert_eq!(s.sandbox.refs(&s.here), before);
    assert_eq!(s.status()["update_status"], "failed");
}

#[test]
fn a_name_that_becomes_a_directory_and_back() {
    let s = Taking::local(&["--prune", "deleted"]).with(&["main", "main:x"]);
    s.work().push(&[":x"]);
    s.work().push(&["main:x/y"]);
    assert_eq!(s.pulled(), [outcome("x", "deleted"), outcome("x/y", "created")]);
    s.work().push(&[":x/y"]);
    s.work().push(&["main:x"]);
    assert_eq!(s.pulled(), [outcome("x", "created"), outcome("x/y", "deleted")]);
    assert!(s.is_taken());
}

#[test]
fn every_change_of_a_tag_is_a_rewrite() {
    let s = Taking::local(&[]);
    let work = s.work();
    work.commit("one");
    work.git(&["tag", "v1"]);
    work.push(&["main", "v1"]);
    s.pull_ok();
    let first = s.here("refs/tags/v1");
    work.commit("two");
    work.git(&["tag", "-f", "v1"]);
    work.push(&["+v1"]);
    assert_eq!(s.pulled(), [("refs/tags/v1".to_owned(), "forced".to_owned())]);
    assert_eq!(s.kept(), [format!("refs/rewritten/m/{}/tags/v1 {first}", &first[..12])]);
    // The tag was moved here too, so it is not replaced.
    s.sandbox.git(&s.here, &["tag", "-f", "v1", &first]);
    work.commit("three");
    work.git(&["tag", "-f", "v1"]);
    work.push(&["+v1"]);
    assert_eq!(s.pulled(), [("refs/tags/v1".to_owned(), "divergent".to_owned())]);
}

#[test]
fn unrelated_histories_are_kept_apart_until_a_person_confirms() {
    let sandbox = Sandbox::new();
    let up = sandbox.bare("up.git");
    let theirs = sandbox.work(&up);
    theirs.commit("theirs");
    theirs.push(&["main", "main:theirs"]);
    let here = sandbox.source("up.git", &["--direction", "pull", "--divergent-refs", "overwrite", "--prune", "mirror"]);
    let ours = sandbox.work(&here);
    ours.commit("ours");
    ours.push(&["main", "main:ours"]);
    let before = sandbox.refs(&here);
    for command in [&["pull"][..], &["sync"], &["plan"]] {
        let said = sandbox.mirror_push(&here, command);
        let text = format!("{said:?}");
        assert!(said.status == 1 && text.contains("no commit in common") && text.contains("sync m --adopt"), "{text}");
        assert_eq!(sandbox.refs(&here), before, "{command:?}");
    }
    assert!(sandbox.git(&here, &["count-objects", "-v"]).contains("count: 2"), "nothing of upstream is here");
    // A person confirms. Nothing is deleted. A branch is replaced only if upstream's branch
    // contains its value.
    let said = sandbox.mirror_push(&here, &["sync", "--adopt", "--json"]);
    assert_eq!(sandbox.outcomes(&said), [outcome("main", "divergent"), outcome("theirs", "created")], "{said:?}");
    assert!(!sandbox.oid(&here, "ours").is_empty());
    // From now on, the policy holds.
    let said = sandbox.mirror_push(&here, &["sync", "--json"]);
    assert!(sandbox.outcomes(&said).contains(&outcome("main", "forced")), "{said:?}");
}

#[test]
fn a_repository_with_the_same_history_is_taken_over_without_asking() {
    let sandbox = Sandbox::new();
    let up = sandbox.upstream();
    let theirs = sandbox.work(&up);
    sandbox.git(&sandbox.path(""), &["clone", "-q", "--bare", "up.git", "clone.git"]);
    theirs.commit("two");
    theirs.push(&["main", "main:new"]);
    std::fs::rename(sandbox.path("clone.git"), sandbox.path("source.git")).unwrap();
    let here = sandbox.path("source.git");
    std::fs::create_dir_all(here.join("mirror-push")).unwrap();
    std::fs::write(here.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    sandbox.mirror_push_ok(&here, &["add", "m", "up.git", "--direction", "pull"]);
    sandbox.mirror_push_ok(&here, &["pull"]);
    assert_eq!(sandbox.refs(&here), sandbox.refs(&up));
}

#[test]
fn a_plan_says_what_a_pull_would_do_and_does_nothing() {
    let s = Taking::local(&[]).with(&["main", "main:x"]);
    let work = s.work();
    work.commit("two");
    work.push(&["main", "main:new"]);
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("other");
    work.push(&["+other:x"]);
    let before = s.sandbox.refs(&s.here);
    let said = s.sandbox.mirror_push_ok(&s.here, &["plan", "--json"]);
    let expected = [outcome("main", "fast_forwarded"), outcome("new", "created"), outcome("x", "forced")];
    assert_eq!(s.changed(&said), expected);
    assert_eq!(s.sandbox.refs(&s.here), before);
    assert!(s.kept().is_empty() && s.leftovers().is_empty());
    assert_eq!(s.pulled(), expected);
}

#[test]
fn selection_means_the_same_as_for_a_push() {
    let s = Taking::local(&["--mirror-branch-regex", "^release", "--tags", "v*", "--refspec", "refs/notes/*"]);
    let work = s.work();
    work.commit("one");
    work.git(&["tag", "v1"]);
    work.git(&["tag", "other"]);
    work.git(&["notes", "add", "-m", "note"]);
    work.push(&["main", "main:release/1", "v1", "other", "refs/notes/commits"]);
    s.pull_ok();
    let all = s.sandbox.git(&s.here, &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(all.lines().collect::<Vec<_>>(), ["refs/heads/release/1", "refs/notes/commits", "refs/tags/v1"]);
}

#[test]
fn what_is_kept_ends_with_its_time() {
    let s = Taking::local(&["--divergent-refs", "overwrite", "keep_rewritten=30d"]).with(&["main"]);
    s.work().commit("two");
    s.work().push(&["HEAD:x"]);
    s.pull_ok();
    let first = s.sandbox.theirs(&s.here, "main");
    s.pull_ok();
    assert_eq!(s.kept().len(), 1);
    // As if that were long ago. A second value is kept today.
    let noted = s.here.join("mirror-push/remotes/m/kept.jsonl");
    let text = std::fs::read_to_string(&noted).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
    line["at"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(&noted, format!("{line}\nnot a line of ours\n")).unwrap();
    let second = s.sandbox.theirs(&s.here, "x").trim().to_owned();
    s.pull_ok();
    assert_eq!(s.kept().len(), 2, "a pull does not expire it");
    s.sandbox.mirror_push_ok(&s.here, &["drain", "--reconcile"]);
    assert!(matches!(&s.kept()[..], [only] if only.ends_with(&second)), "{:?}", s.kept());
    let text = std::fs::read_to_string(&noted).unwrap();
    assert!(text.contains("not a line of ours") && text.contains(&second) && !text.contains(first.trim()), "{text}");
}
