//! What a second look found: losers that were not kept, facts that were too old, and runs that repeated themselves.

use super::Pair;
use crate::scene::sandbox::script;
use crate::scene::servers::Kind;

impl Pair {
    /// Both sides commit to these branches, each for itself. Returns the commits: ours and theirs.
    fn conflicting(&self, branches: &[&str]) -> (String, String) {
        let (ours, theirs) = (self.ours(), self.theirs());
        let values = (ours.commit("ours").trim().to_owned(), theirs.commit("theirs").trim().to_owned());
        let refspecs: Vec<String> = branches.iter().map(|branch| format!("main:{branch}")).collect();
        let refspecs: Vec<&str> = refspecs.iter().map(String::as_str).collect();
        ours.push(&refspecs);
        theirs.push(&refspecs);
        values
    }

    /// Whether a commit is in a ref of this repository or of the mirror.
    fn is_reachable(&self, commit: &str) -> bool {
        [&self.here, &self.there].iter().any(|side| {
            let said = self.sandbox.try_git(side, &["for-each-ref", "--contains", commit]);
            said.status == 0 && !said.out.is_empty()
        })
    }

    fn run(&self, words: &[&str]) -> crate::scene::sandbox::Completed {
        self.sandbox.mirror_push(&self.here, words)
    }
}

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
            // It is too large to be fetched twice.
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

/// The ref of another conflict with the same value ends with that conflict.
#[test]
fn the_loser_is_kept_although_another_conflict_has_it() {
    let pair = Pair::local(&["prune=deleted"]).with(&["main", "main:dev"]);
    let (_, theirs) = pair.conflicting(&["main", "dev"]);
    pair.sync();
    assert_eq!(pair.run(&["resolve", "m", "main", "--ours"]).status, 1, "dev is still a conflict");
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

/// A push that arrives while upstream's value is taken is decided by what it is, and not by what was there before.
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
        // Somebody merges both, or commits on top of ours, just before our receive-pack sets the ref.
        pair.sandbox.git(&pair.here, &["fetch", "-q", pair.there.to_str().unwrap(), "main"]);
        let parents: &[&str] = if resolves { &[&ours] } else { &[&theirs] };
        let parents: Vec<&str> = parents.iter().flat_map(|parent| ["-p", *parent]).collect();
        let tree = pair.sandbox.git_with_input(&pair.here, &["mktree"], b"");
        let new = pair.sandbox.git(&pair.here, &[&["commit-tree", "-m", "new", tree.trim()], &parents[..]].concat());
        let lines = format!(
            "#!/bin/sh\ntest -e done && exit 0\ntouch done\nunset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/main {}\n",
            new.trim()
        );
        script(&pair.here.join("hooks/pre-receive"), &lines);
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

/// The mirror moves after it was looked at: what was decided for it does not count any more.
#[test]
fn a_push_there_between_the_halves_is_decided_anew() {
    let pair = Pair::local(&[]).with(&["main", "main:x"]);
    let ours = pair.ours();
    ours.commit("ours");
    ours.push(&["main:x"]);
    pair.sandbox.theirs(&pair.there, "main");
    let theirs = pair.sandbox.theirs(&pair.there, "x").trim().to_owned();
    pair.sandbox.git(&pair.there, &["update-ref", "refs/heads/x", &pair.here("main")]);
    let lines = format!(
        "#!/bin/sh\ntest -e done && exit 0\ntouch done\nunset GIT_QUARANTINE_PATH GIT_DIR GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n\
         git --git-dir {} update-ref refs/heads/x {theirs}\n",
        pair.there.display()
    );
    script(&pair.here.join("hooks/pre-receive"), &lines);
    let said = pair.sync();
    assert!(pair.here.join("done").exists() && said.status == 1, "{said:?}");
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

/// A ref that the mirror refused is not sent again with every check, but after a push to it.
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
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(1300));
        pair.run(&["pull", "--due"]);
    }
    ours.push(&["main:other"]);
    pair.run(&["drain"]);
    assert_eq!(asked(), "refs/heads/locked\nrefs/heads/other\n");
    assert_eq!(pair.status()["refs"][0]["outcome"], "remote_rejected");
    ours.commit("more");
    ours.push(&["main:locked"]);
    pair.run(&["drain"]);
    assert_eq!(asked().matches("locked").count(), 2);
}

/// A mirror that shows nothing any more is not followed, until a person says that it is to be filled again.
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
    std::thread::sleep(std::time::Duration::from_millis(1300));
    let said = pair.run(&["pull", "--due"]);
    assert!(pair.is_equal() && pair.here("main") == theirs, "{said:?}");
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

/// A value of the mirror that `git fsck` refuses stays there, and stops no other ref.
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
        // git update-ref would refuse it.
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

/// Many rewritten refs are noted in one pass.
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
