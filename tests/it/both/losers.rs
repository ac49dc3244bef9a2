//! What is overwritten, or was once shown in a conflict, stays in a ref.

use super::Pair;

#[test]
fn the_loser_is_kept_in_a_partial_repository_and_whatever_its_size() {
    for (is_partial, options) in [(true, &[][..]), (false, &["max_rewritten_size=1KiB", "conflicts=ours"])] {
        let pair = Pair::local(options).with(&["main"]);
        let (_, theirs) = pair.conflicting(&["main"]);
        if is_partial {
            assert_eq!(pair.sync().status, 1);
            pair.sandbox.git(&pair.here, &["config", "remote.origin.promisor", "true"]);
            pair.sandbox.git(&pair.here, &["config", "remote.origin.url", "/nowhere"]);
            pair.sandbox.git(&pair.here, &["config", "extensions.partialClone", "origin"]);
        } else {
            // The mirror's value is larger than `max_rewritten_size`.
            let tree = pair.sandbox.git_with_input(&pair.there, &["mktree"], b"");
            let message: String =
                (0_u64..1000).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
            let large = pair.sandbox.git(&pair.there, &["commit-tree", "-m", &message, "-p", &theirs, tree.trim()]);
            pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/main", large.trim()]);
        }
        let theirs = pair.there("main");
        let words: &[&str] = if is_partial { &["resolve", "m", "main", "--ours"] } else { &["sync"] };
        let said = pair.run(words);
        assert!(said.status == 0 && pair.is_equal() && pair.here("main") != theirs, "{said:?}");
        assert!(pair.is_reachable(&theirs), "{said:?}");
        assert_eq!(pair.below("refs/rewritten").len(), 1, "{said:?}");
    }
}

/// Another conflict has a ref with the same value. That ref is deleted when that conflict is over,
/// so the loser needs its own ref.
#[test]
fn the_loser_is_kept_although_another_conflict_has_it() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:dev"]);
    let (_, theirs) = pair.conflicting(&["main", "dev"]);
    pair.sync();
    assert_eq!(
        pair.run(&["resolve", "m", "main", "--ours"]).status,
        0,
        "dev is in conflict too, but was not asked for"
    );
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/dev", &pair.there("main")]);
    pair.sync();
    assert!(pair.is_reachable(&theirs), "{:?}", pair.below("refs"));
}

#[test]
fn what_a_conflict_showed_stays_if_the_mirror_is_another_one() {
    let pair = Pair::local(&[]).with(&["main"]);
    let (_, theirs) = pair.conflicting(&["main"]);
    pair.sync();
    std::fs::rename(&pair.there, pair.sandbox.path("lost.git")).unwrap();
    let other = pair.sandbox.bare("other.git");
    pair.sandbox.mirror_push_ok(&pair.here, &["set", "m", "--url", other.to_str().unwrap()]);
    pair.sandbox.mirror_push_ok(&pair.here, &["sync"]);
    assert!(pair.below("refs/conflicts").is_empty());
    let kept = format!("refs/rewritten/m/{}/heads/main {theirs}", &theirs[..12]);
    assert_eq!(pair.below("refs/rewritten"), [kept]);
}

/// The mirror has a value that `git fsck` refuses. It is not overwritten, and the other refs are
/// still mirrored.
#[test]
fn a_malformed_value_of_the_mirror_is_not_overwritten_and_stops_nothing() {
    for policy in ["conflicts=keep", "conflicts=ours"] {
        let pair = Pair::local(&[policy]).with(&["main"]);
        let (_, theirs) = pair.conflicting(&["main"]);
        let body = pair.sandbox.git(&pair.there, &["cat-file", "commit", &theirs]).replace("author A", "author \u{0}A");
        let body = body.replace("author ", "author  <");
        let arguments = ["hash-object", "-t", "commit", "-w", "--stdin", "--literally"];
        let bad = pair.sandbox.git_with_input(&pair.there, &arguments, body.as_bytes());
        if crate::scene::sandbox::is_variant("reftable") {
            return;
        }
        // Written directly, so that no check of git can refuse it.
        std::fs::write(pair.there.join("refs/heads/main"), &bad).unwrap();
        pair.sandbox.git(&pair.here, &["config", "receive.fsckObjects", "true"]);
        pair.ours().push(&["main:other"]);
        let said = pair.sync();
        assert!(said.status == 1 && pair.here("other") == pair.there("other"), "{said:?}");
        assert_eq!(pair.there("main"), bad.trim(), "{said:?}");
        let outcome = pair.status()["refs"][0]["outcome"].clone();
        assert_eq!(outcome, if policy == "conflicts=keep" { "conflict" } else { "rejected" }, "{said:?}");
    }
}

/// The mirror is restored from a backup, or becomes another one, and the conflict is about another value.
#[test]
fn what_a_conflict_showed_before_is_kept() {
    let pair = Pair::local(&[]).with(&["main"]);
    let (_, first) = pair.conflicting(&["main"]);
    let second = pair.sandbox.theirs(&pair.there, "main").trim().to_owned();
    pair.sync();
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/main", &first]);
    pair.sync();
    assert_eq!(pair.status()["refs"][0]["outcome"], "conflict");
    let kept_as = pair.status()["refs"][0]["kept_as"].as_str().unwrap().to_owned();
    assert!(kept_as.starts_with("refs/conflicts/m/"), "{kept_as} is not the ref of the conflict");
    assert!(pair.is_reachable(&second), "{:?}", pair.below("refs"));
    // The ref below refs/conflicts stays if none can be made below refs/rewritten.
    pair.sandbox.git(&pair.here, &["update-ref", "-d", &format!("refs/rewritten/m/{}/heads/main", &second[..12])]);
    pair.sandbox.git(&pair.here, &["update-ref", "refs/rewritten/m", "main"]);
    let other = pair.sandbox.bare("other.git");
    pair.sandbox.mirror_push_ok(&pair.here, &["set", "m", "--url", other.to_str().unwrap()]);
    std::fs::rename(&pair.there, pair.sandbox.path("lost.git")).unwrap();
    pair.sandbox.bare("there.git");
    pair.sync();
    assert!(pair.is_reachable(&first), "{:?}", pair.below("refs"));
}

/// Our refs are restored from a backup, and `mirror-push/` is not. So our refs are older than the
/// base, although nobody moved them back.
#[test]
fn refs_that_were_rolled_back_lose_nothing() {
    let pair = Pair::local(&[]).with(&["main"]);
    let ours = pair.ours();
    let old = pair.here("main");
    let lost = ours.commit("lost").trim().to_owned();
    ours.push(&["main"]);
    pair.sync();
    pair.sandbox.git(&pair.here, &["update-ref", "refs/heads/main", &old]);
    pair.sync();
    assert!(pair.is_equal() && pair.is_reachable(&lost), "{:?}", pair.below("refs"));
}

/// A backup without a branch is restored, and `mirror-push/` is not. So the branch is gone here, although nobody deleted it.
#[test]
fn a_branch_that_a_backup_did_not_have_is_not_lost() {
    for prune in ["deleted", "merged"] {
        let pair = Pair::local(&["--prune", prune]).with(&["main", "main:x"]);
        pair.sync();
        let ours = pair.ours();
        let only = ours.commit("only").trim().to_owned();
        ours.push(&["HEAD:x"]);
        pair.sync();
        assert_eq!(pair.sandbox.oid(&pair.there, "x"), only);
        pair.sandbox.git(&pair.here, &["update-ref", "-d", "refs/heads/x"]);
        pair.sync();
        let is_there = pair.sandbox.refs(&pair.there).iter().any(|line| line.ends_with("refs/heads/x"));
        assert!(is_there || pair.is_reachable(&only), "{prune}: {:?}", pair.below("refs"));
    }
}

/// As before, and the objects of the branch are gone here too.
#[test]
fn a_branch_that_is_gone_with_its_objects_is_not_lost() {
    let pair = Pair::local(&["--prune", "deleted"]).with(&["main", "main:x"]);
    let ours = pair.ours();
    let only = ours.commit("only").trim().to_owned();
    ours.push(&["HEAD:x"]);
    pair.sync();
    pair.sandbox.git(&pair.here, &["update-ref", "-d", "refs/heads/x"]);
    pair.sandbox.git(&pair.here, &["reflog", "expire", "--expire=now", "--all"]);
    pair.sandbox.git(&pair.here, &["-c", "gc.pruneExpire=now", "gc", "-q", "--prune=now"]);
    pair.sync();
    let is_there = pair.sandbox.refs(&pair.there).iter().any(|line| line.ends_with("refs/heads/x"));
    assert!(!is_there && pair.is_reachable(&only), "{:?} {}", pair.below("refs"), pair.status());
}

#[test]
fn remove_says_what_stays() {
    let pair = Pair::local(&[]).with(&["main"]);
    let (_, theirs) = pair.conflicting(&["main"]);
    pair.sync();
    let said = pair.sandbox.mirror_push_ok(&pair.here, &["remove", "m"]);
    assert!(said.err.contains("what was in conflict on the mirror stays below refs/conflicts/m/"), "{said:?}");
    assert!(pair.is_reachable(&theirs));
}
