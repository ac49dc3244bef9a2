//! Runs that meet moving refs, hidden refs, refusals, and settings that change.

use super::Pair;
use crate::scene::sandbox::script;
use crate::scene::servers::Kind;

/// A push arrives while upstream's value is taken. The decision is about the pushed value, not
/// about the value before it.
#[test]
fn a_push_during_the_run_is_decided_anew() {
    for resolves in [true, false] {
        let pair = Pair::local(if resolves { &[] } else { &["conflicts=theirs"] }).with(&["main"]);
        let (ours, theirs) = if resolves {
            let values = pair.conflicting(&["main"]);
            pair.sync();
            values
        } else {
            let old = pair.here("main");
            (old, pair.sandbox.theirs(&pair.there, "main").trim().to_owned())
        };
        // Somebody commits on top of ours, or on top of theirs, just before our receive-pack sets
        // the ref.
        pair.sandbox.git(&pair.here, &["fetch", "-q", pair.there.to_str().unwrap(), "main"]);
        let parents: &[&str] = if resolves { &[&ours] } else { &[&theirs] };
        let parents: Vec<&str> = parents.iter().flat_map(|parent| ["-p", *parent]).collect();
        let tree = pair.sandbox.git_with_input(&pair.here, &["mktree"], b"");
        let new = pair.sandbox.git(&pair.here, &[&["commit-tree", "-m", "new", tree.trim()], &parents[..]].concat());
        pair.meanwhile(&format!("git --git-dir . update-ref refs/heads/main {}", new.trim()));
        let words: &[&str] = if resolves { &["resolve", "m", "main", "--theirs"] } else { &["sync"] };
        let said = pair.run(words);
        assert_eq!(pair.here("main"), new.trim(), "{said:?}");
        if resolves {
            assert!(said.status == 128 && said.err.contains("has moved since"), "{said:?}");
            assert_eq!(pair.there("main"), theirs);
        } else {
            assert!(said.status == 0 && pair.is_equal(), "{said:?}");
        }
    }
}

/// A ref of the mirror moves after the run has read it. The decision about it is not carried out.
#[test]
fn a_push_there_between_the_halves_is_decided_anew() {
    let pair = Pair::local(&[]).with(&["main", "main:x"]);
    let ours = pair.ours();
    ours.commit("ours");
    ours.push(&["main:x"]);
    pair.sandbox.theirs(&pair.there, "main");
    let theirs = pair.sandbox.theirs(&pair.there, "x").trim().to_owned();
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/x", &pair.here("main")]);
    let at_work = pair.meanwhile(&format!("git --git-dir {} update-ref refs/heads/x {theirs}", pair.there.display()));
    let said = pair.sync();
    assert!(at_work.exists() && said.status == 1, "{said:?}");
    assert_eq!(pair.there("x"), theirs, "{said:?}");
    assert_eq!(pair.status()["refs"][0]["outcome"], "conflict");
    assert!(pair.below("refs/conflicts")[0].ends_with(&theirs));
}

/// What upload-pack hides is not deleted here, and what receive-pack hides is explained.
#[test]
fn refs_that_the_mirror_hides() {
    let pair = Pair::behind(Kind::Http, &["prune=deleted"]).with(&["main"]);
    pair.sandbox.git(&pair.there, &["config", "uploadpack.hideRefs", "refs/heads/feature"]);
    let ours = pair.ours();
    ours.push(&["main:feature"]);
    pair.sync();
    assert!(!pair.there("feature").is_empty());
    for _ in 0..2 {
        let said = pair.run(&["sync"]);
        assert!(!pair.here("feature").is_empty() && said.out.contains("hides it from readers"), "{said:?}");
    }
    // The failure of a push to it is explained too.
    ours.commit("more");
    ours.push(&["main:feature"]);
    let said = pair.run(&["sync"]);
    assert!(said.status == 1 && said.out.contains("has it and hides it from readers"), "{said:?}");
    pair.sandbox.git(&pair.there, &["config", "receive.hideRefs", "refs/heads/odd"]);
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/odd", "main"]);
    pair.sync();
    ours.commit("odd");
    ours.push(&["main:odd"]);
    let said = pair.run(&["sync"]);
    assert!(said.status == 1 && said.out.contains("hides it from pushes"), "{said:?}");
}

#[test]
fn a_person_who_gives_in_ends_the_conflict() {
    let pair = Pair::local(&[]).with(&["main"]);
    let base = pair.here("main");
    let (_, theirs) = pair.conflicting(&["main"]);
    pair.sync();
    pair.ours().push(&[&format!("+{base}:refs/heads/main")]);
    let said = pair.run(&["drain"]);
    assert!(said.status == 0 && pair.is_equal() && pair.here("main") == theirs, "{said:?}");
    assert_eq!(pair.status()["update_status"], "finished");
}

/// A branch that stays on the mirror, because it is not merged, is made again here with the same value.
#[test]
fn a_kept_ref_that_comes_back_is_no_longer_listed() {
    let pair = Pair::local(&[]).with(&["main"]);
    let ours = pair.ours();
    ours.commit("unmerged");
    ours.push(&["main:x"]);
    pair.sync();
    ours.push(&[":x"]);
    pair.run(&["drain"]);
    pair.run(&["pull"]);
    assert_eq!(pair.status()["refs"][0]["outcome"], "kept");
    ours.push(&["main:x"]);
    pair.run(&["drain"]);
    assert!(pair.is_equal() && pair.status()["refs"].as_array().unwrap().is_empty(), "{}", pair.status());
}

/// A ref that the mirror refused is sent again after a push to it, and not at every check.
#[test]
fn a_refused_ref_waits_for_a_reason() {
    let pair = Pair::local(&["interval=1s"]).with(&["main"]);
    let lines = "#!/bin/sh\necho $1 >> asked\ncase $1 in *locked) exit 1;; esac\n";
    script(&pair.there.join("hooks/update"), lines);
    let ours = pair.ours();
    ours.push(&["main:locked"]);
    let asked = || std::fs::read_to_string(pair.there.join("asked")).unwrap_or_default();
    assert_eq!(pair.run(&["drain"]).status, 1);
    assert_eq!(asked(), "refs/heads/locked\n");
    pair.check_when_due();
    pair.check_when_due();
    ours.push(&["main:other"]);
    pair.run(&["drain"]);
    assert_eq!(asked(), "refs/heads/locked\nrefs/heads/other\n");
    assert_eq!(pair.status()["refs"][0]["outcome"], "remote_rejected");
    ours.commit("more");
    ours.push(&["main:locked"]);
    pair.run(&["drain"]);
    assert_eq!(asked().matches("locked").count(), 2);
}

/// If the mirror has no refs any more, nothing is deleted here. It is filled again only if a person
/// says so.
#[test]
fn an_emptied_mirror_is_filled_again_if_a_person_says_so() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:x"]);
    pair.sandbox.git(&pair.there, &["update-ref", "-d", "refs/heads/main"]);
    pair.sandbox.git(&pair.there, &["update-ref", "-d", "refs/heads/x"]);
    let said = pair.run(&["sync"]);
    assert!(said.status == 1 && said.out.contains("--adopt"), "{said:?}");
    assert!(!pair.here("x").is_empty());
    let said = pair.run(&["sync", "--adopt"]);
    assert!(said.status == 0 && pair.is_equal() && !pair.there("x").is_empty(), "{said:?}");
}

#[test]
fn a_policy_that_was_edited_counts_at_the_next_check() {
    let pair = Pair::local(&["interval=1s"]).with(&["main"]);
    let (_, theirs) = pair.conflicting(&["main"]);
    pair.sync();
    let path = pair.here.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&path).unwrap() + "conflicts = \"theirs\"\n";
    std::fs::write(&path, text).unwrap();
    pair.check_when_due();
    assert!(pair.is_equal() && pair.here("main") == theirs, "{}", pair.status());
}

/// Nothing is forced before both sides were compared once, whatever the policy says.
#[test]
fn a_policy_does_not_count_at_first_contact() {
    for policy in ["conflicts=ours", "conflicts=theirs"] {
        let pair = Pair::local(&[policy]);
        let theirs = pair.theirs();
        theirs.commit("one");
        theirs.push(&["main"]);
        pair.sandbox.git(&pair.here, &["fetch", "-q", pair.there.to_str().unwrap(), "main:main"]);
        let (left, right) = pair.conflicting(&["main"]);
        let said = pair.run(&["sync"]);
        assert!(said.status == 1 && said.out.contains("conflict"), "{said:?}");
        assert_eq!((pair.here("main"), pair.there("main")), (left, right));
        assert!(pair.run(&["sync"]).status == 0 && pair.is_equal());
    }
}

/// Each side has a default branch of its own.
#[test]
fn head_does_not_follow_and_a_dangling_symbolic_ref_stops_nothing() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:dev"]);
    pair.sandbox.git(&pair.there, &["symbolic-ref", "HEAD", "refs/heads/dev"]);
    pair.sandbox.git(&pair.there, &["symbolic-ref", "refs/heads/alias", "refs/heads/none"]);
    pair.ours().push(&["main:alias"]);
    let said = pair.sync();
    assert_eq!(pair.sandbox.git(&pair.here, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/main");
    assert!(said.status == 0 && pair.status()["update_status"] == "finished", "{said:?}");
}

/// The old values of many rewritten refs are recorded in one pass.
#[test]
fn thousands_of_rewritten_refs_take_seconds() {
    let pair = Pair::local(&[]).with(&["main"]);
    let (old, ours) = (pair.here("main"), pair.ours());
    let new = ours.commit("new").trim().to_owned();
    ours.push(&["main"]);
    let lines = |value: &str| (0..3000).map(|n| format!("create refs/heads/b{n} {value}\n")).collect::<String>();
    pair.sandbox.git_with_input(&pair.here, &["update-ref", "--stdin"], lines(&new).as_bytes());
    pair.sync();
    let update = lines(&old).replace("create", "update");
    pair.sandbox.git_with_input(&pair.here, &["update-ref", "--stdin"], update.as_bytes());
    let pushed: String = (0..3000).map(|n| format!("{new} {old} refs/heads/b{n}\n")).collect();
    let mut hook = pair.sandbox.command(pair.here.join("hooks/post-receive"));
    crate::scene::sandbox::run_with_input(hook.current_dir(&pair.here), pushed.as_bytes());
    let begin = std::time::Instant::now();
    assert_eq!(pair.run(&["drain"]).status, 0);
    assert!(pair.is_equal() && begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(std::fs::read_to_string(pair.here.join("mirror-push/past")).unwrap().lines().count(), 3000);
}

/// A value that this mirror itself replaced here does not count as late when it comes back on the
/// mirror.
#[test]
fn the_mirrors_own_value_is_not_late() {
    for has_hooks in [false, true] {
        let pair = Pair::local(&[]).with(&["main", "main:other"]);
        // With a conflict, each run looks at the whole record of what was pushed.
        pair.conflicting(&["other"]);
        if has_hooks {
            // With this hook, git also runs our hook, which records what was taken.
            script(&pair.here.join("hooks/post-update"), "#!/bin/sh\n");
        }
        let old = pair.sandbox.theirs(&pair.there, "main").trim().to_owned();
        pair.sync();
        let tree = pair.sandbox.git_with_input(&pair.there, &["mktree"], b"");
        let new = pair.sandbox.git(&pair.there, &["commit-tree", "-m", "rewritten", tree.trim()]);
        pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/main", new.trim()]);
        pair.sync();
        assert_eq!(pair.here("main"), new.trim());
        pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/main", &old]);
        let ours = pair.ours();
        ours.commit("more");
        ours.push(&["main"]);
        let said = pair.run(&["drain"]);
        assert!(said.out.contains("[conflict]        main") && pair.there("main") == old, "{said:?}");
    }
}

/// A run that begins as a first contact stays one to its end: in its later rounds, and for a value
/// that this repository had before.
#[test]
fn nothing_is_forced_in_any_round_of_a_first_contact() {
    let pair = Pair::local(&[]).with(&["main"]);
    let ours = pair.ours();
    ours.commit("old");
    ours.push(&["main"]);
    pair.sync();
    let old = pair.here("main");
    let copy = pair.sandbox.path("copy.git");
    pair.sandbox.git(&pair.sandbox.path(""), &["clone", "-q", "--bare", pair.there.to_str().unwrap(), "copy.git"]);
    ours.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    ours.push(&["+main"]);
    pair.sync();
    pair.sandbox.mirror_push_ok(&pair.here, &["set", "m", "--url", copy.to_str().unwrap()]);
    let said = pair.sync();
    assert!(said.status == 1 && pair.sandbox.oid(&copy, "main") == old, "{said:?}");
    // There is a second round, because another ref moves on the mirror meanwhile.
    let pair = Pair::local(&["conflicts=theirs"]);
    let theirs = pair.theirs();
    theirs.commit("one");
    theirs.push(&["main", "main:q", "main:new"]);
    pair.sandbox.git(&pair.here, &["fetch", "-q", pair.there.to_str().unwrap(), "main:main", "q:q"]);
    let ours = pair.ours();
    ours.commit("q");
    ours.push(&["main:q"]);
    let (left, _) = pair.conflicting(&["main"]);
    let moved = pair.sandbox.git(&pair.there, &["commit-tree", "-m", "q", "-p", "q", "q^{tree}"]);
    let at_work =
        pair.meanwhile(&format!("git --git-dir {} update-ref refs/heads/q {}", pair.there.display(), moved.trim()));
    let said = pair.sync();
    // The hook recorded what was taken, so another run followed, which is no first contact.
    let log = pair.run(&["log", "--json"]).json();
    assert!(at_work.exists() && log[0]["failed"] == 1, "{left} {log} {said:?}");
}

/// Receive-pack fails there: a deletion waits, and everything else is taken.
#[test]
fn a_deletion_that_cannot_be_confirmed_stops_nothing() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:x"]);
    pair.theirs().push(&["main:new", ":x"]);
    pair.sandbox.git(&pair.there, &["config", "receive.unpackLimit", "none"]);
    pair.sync();
    assert!(!pair.here("new").is_empty() && !pair.here("x").is_empty());
    pair.sandbox.git(&pair.there, &["config", "--unset", "receive.unpackLimit"]);
    pair.sync_ok();
    assert!(pair.here("x").is_empty());
}

/// Another run begins while the mirror carries out the commands of this one. A record says that the
/// refs of these commands must be read again.
#[test]
fn a_superseded_run_leaves_a_record_of_what_it_sent() {
    let pair = Pair::local(&[]).with(&["main"]);
    let status = pair.here.join("mirror-push/remotes/m/status.json");
    let change = "s/\"generation\": *[0-9]*/\"generation\": 99999999999999/";
    let lines = format!("#!/bin/sh\nsed -i '{change}' {}\n", status.display());
    script(&pair.there.join("hooks/post-receive"), &lines);
    let ours = pair.ours();
    ours.commit("two");
    ours.push(&["main"]);
    let said = pair.run(&["drain"]);
    assert!(said.out.contains("another run for this mirror has started"), "{said:?}");
    let queue = pair.here.join("mirror-push/remotes/m/queue");
    let names = std::fs::read_dir(queue).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().any(|name| name.ends_with(".look")), "{said:?}");
}

/// An object of one branch is missing on the mirror. All other refs are synced in both directions.
#[test]
fn a_value_that_the_mirror_cannot_give_stops_neither_half() {
    let pair = Pair::local(&[]).with(&["main"]);
    let (ours, theirs) = (pair.ours(), pair.theirs());
    theirs.commit("for a");
    theirs.push(&["main:a"]);
    std::fs::write(theirs.path.join("file"), "theirs").unwrap();
    theirs.git(&["add", "file"]);
    theirs.commit("with a file");
    theirs.push(&["main:bad"]);
    let blob = pair.there("bad:file");
    std::fs::remove_file(pair.there.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    ours.commit("ours");
    ours.push(&["main"]);
    let expected =
        ["refs/heads/a created here", "refs/heads/bad remote_failed here", "refs/heads/main fast_forwarded there"];
    assert_eq!(pair.synced(), expected);
}

/// Both sides changed two branches, and the mirror's value of one branch is malformed. The mirror's
/// value of the other branch is here, and can be merged or kept.
#[test]
fn a_malformed_value_costs_no_other_conflict_its_ref() {
    let pair = Pair::local(&[]).with(&["main", "main:bad"]);
    pair.conflicting(&["main", "bad"]);
    pair.sandbox.git(&pair.here, &["config", "receive.fsckObjects", "true"]);
    let (tree, parent) = (pair.there("main^{tree}"), pair.there("main"));
    let commit = format!("tree {tree}\nparent {parent}\nauthor a <a> 1 +0000\ncommitter nobody\n\nmalformed\n");
    let write = ["hash-object", "-t", "commit", "-w", "--stdin", "--literally"];
    let bad = pair.sandbox.git_with_input(&pair.there, &write, commit.as_bytes());
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/bad", bad.trim()]);
    let (left, right) = (pair.here("main"), pair.there("main"));
    let outcomes = pair.synced();
    assert_eq!(outcomes, ["refs/heads/bad conflict here", "refs/heads/main conflict here"]);
    let places = pair.below("refs/conflicts");
    assert!(places.len() == 1 && places[0].ends_with(&format!("/heads/main {right}")), "{places:?}");
    let said = pair.run(&["resolve", "m", "main", "--ours"]);
    assert_eq!((said.status, pair.there("main")), (0, left), "one conflict is over: {said:?}");
    let kept = pair.below("refs/rewritten");
    assert!(kept.iter().any(|line| line.ends_with(&format!("/heads/main {right}"))), "{kept:?}");
    // What cannot be kept is not overwritten.
    assert_eq!(pair.run(&["resolve", "m", "bad", "--ours"]).status, 1);
    assert_eq!(pair.there("bad"), bad.trim());
}
