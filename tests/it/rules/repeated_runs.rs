//! What a run remembers of earlier runs: what they kept stays kept, and what they stopped stays stopped, until something changes. A run
//! forgets nothing that a later run needs.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, Work, script, wait_for};

/// A source and its mirror, which both have `main` at the same commit.
fn scene<'s>(sandbox: &'s Sandbox, options: &[&str]) -> (PathBuf, PathBuf, Work<'s>) {
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", options);
    let work = sandbox.work(&source);
    work.commit("c1");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    (source, mirror, work)
}

#[test]
fn a_second_sync_does_not_delete_what_the_first_kept() {
    for second in [&["sync"][..], &["drain"]] {
        let sandbox = Sandbox::new();
        let (source, mirror, work) = scene(&sandbox, &[]);
        work.git(&["branch", "f"]);
        work.commit("c2");
        work.push(&["main", "f"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        // A commit on `f` is pushed, but not mirrored and not merged. Then `f` is deleted.
        work.git(&["checkout", "-q", "f"]);
        work.commit("work");
        work.push(&["f"]);
        work.push(&[":f"]);
        let first = sandbox.mirror_push_ok(&source, &["sync", "--json"]);
        assert!(sandbox.outcomes(&first).contains(&("refs/heads/f".to_owned(), "kept".to_owned())), "{first:?}");
        for _ in 0..2 {
            sandbox.mirror_push_ok(&source, second);
            assert!(!sandbox.oid(&mirror, "f").is_empty(), "{second:?}");
        }
        assert_eq!(sandbox.status(&source)["refs"][0]["outcome"], "kept");
        // After the merge, the deletion of `f` on the mirror loses nothing.
        work.git(&["checkout", "-q", "main"]);
        work.git(&["merge", "-q", "--no-edit", "f"]);
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    }
}

#[test]
fn one_unmerged_value_among_the_deleted_ones_keeps_the_ref() {
    for order in [["unmerged", "merged"], ["merged", "unmerged"]] {
        let sandbox = Sandbox::new();
        let (source, mirror, work) = scene(&sandbox, &[]);
        work.git(&["branch", "merged"]);
        work.git(&["checkout", "-q", "-b", "unmerged"]);
        work.commit("unmerged");
        work.push(&["merged:f"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        for value in order {
            work.push(&[&format!("+{value}:f")]);
            work.push(&[":f"]);
        }
        let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
        assert_eq!(sandbox.outcomes(&said), [("refs/heads/f".to_owned(), "kept".to_owned())], "{order:?}");
        assert!(!sandbox.oid(&mirror, "f").is_empty());
    }
}

#[test]
fn a_ref_that_neither_side_has_any_more_is_no_failure() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    script(&mirror.join("hooks/update"), "#!/bin/sh\ncase $1 in refs/heads/locked) exit 1;; esac\n");
    work.push(&["main:locked"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    work.push(&[":locked"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let shown = sandbox.status(&source);
    assert_eq!((&shown["update_status"], shown["refs"].as_array().unwrap().len()), (&"finished".into(), 0), "{shown}");
    // The same holds for a ref that failed and is then deselected.
    work.push(&["main:locked"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    sandbox.add_mirror_config(&source, "mirror_branch_regex = \"^main$\"");
    work.commit("c2");
    work.push(&["main", "main:locked"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.status(&source)["update_status"], "finished");
}

#[test]
fn an_atomic_push_is_all_or_nothing_even_if_a_ref_changed_on_the_mirror() {
    for policy in ["overwrite", "keep"] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &["--divergent-refs", policy]);
        sandbox.add_mirror_config(&source, "atomic = true");
        let work = sandbox.work(&source);
        work.commit("c1");
        work.push(&["main", "main:a"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        let theirs = sandbox.theirs(&mirror, "a");
        work.commit("c2");
        work.push(&["main:a", "main:new", "main"]);
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        if policy == "overwrite" {
            assert_eq!(said.status, 0, "{said:?}");
            assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
        } else {
            // A ref that the rules skip is not part of the atomic push.
            assert_eq!(said.status, 1, "{said:?}");
            assert_eq!(sandbox.oid(&mirror, "a"), theirs);
            assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
            assert_eq!(sandbox.oid(&mirror, "new"), sandbox.oid(&source, "new"));
        }
        // If the mirror refuses one ref, the whole push is refused.
        script(&mirror.join("hooks/update"), "#!/bin/sh\ncase $1 in refs/heads/locked) exit 1;; esac\n");
        let before = sandbox.refs(&mirror);
        work.commit("c3");
        work.push(&["main", "main:locked", "main:other"]);
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        assert_eq!(said.status, 1, "{said:?}");
        assert_eq!(sandbox.refs(&mirror), before);
        let refused = sandbox.outcomes(&said).iter().filter(|(_, outcome)| outcome == "remote_rejected").count();
        assert_eq!(refused, 3, "{said:?}");
    }
}

#[test]
fn an_atomic_push_leaves_out_the_deletion_of_the_branch_that_the_mirrors_head_names() {
    use crate::scene::servers::{Kind, Server};
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = server.source(&sandbox, "mirror.git", &["--prune", "mirror"]);
    sandbox.add_mirror_config(&source, "atomic = true");
    let work = sandbox.work(&source);
    work.commit("c1");
    work.push(&["main", "main:trunk"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.git(&source, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    work.commit("c2");
    work.push(&["main:trunk", "main:new", ":main"]);
    let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
    assert_eq!(sandbox.oid(&mirror, "trunk"), sandbox.oid(&source, "trunk"), "{said:?}");
    assert_eq!(sandbox.oid(&mirror, "new"), sandbox.oid(&source, "new"));
    assert!(sandbox.outcomes(&said).contains(&("refs/heads/main".into(), "kept".into())), "{said:?}");
}

#[test]
fn a_new_branch_a_slash_b_is_mirrored_although_the_base_still_has_a() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &["--divergent-refs", "keep"]);
    // `a` is mirrored and then deselected, so the base still has it. Then `a/b` is created: as files the two names would conflict.
    work.push(&["main:a"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--mirror-branch-regex", "^(main|a/|c)"]);
    sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/a"]);
    work.push(&[":a"]);
    work.push(&["main:a/b"]);
    work.commit("c3");
    work.push(&["main"]);
    let said = sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(said.err, "", "{said:?}");
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    sandbox.git(&source, &["fetch", "-q", work.path.to_str().unwrap(), "+main:main"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "the rewrite is known to be ours");
}

#[test]
fn a_very_long_ref_name_stops_no_other_ref() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    let long = vec!["c".repeat(200); 19].join("/");
    work.push(&[&format!("main:{long}")]);
    work.commit("c2");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["drain", "--json"]);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "{said:?}");
    sandbox.mirror_push(&source, &["sync", "--json"]);
    work.commit("c3");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["drain", "--json"]);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "{said:?}");
}

#[test]
fn what_is_not_selected_for_a_while_is_not_forgotten() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &["--divergent-refs", "keep"]);
    work.commit("c2");
    work.push(&["main", "main:x"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--mirror-branch-regex", "^x"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    work.commit("c3");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    work.git(&["reset", "-q", "--hard", "HEAD~2"]);
    work.commit("other");
    work.push(&["+main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--mirror-branch-regex", "."]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_sync_that_is_killed_stays_due_and_nothing_says_that_all_is_well() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &["--divergent-refs", "keep"]);
    sandbox.theirs(&mirror, "main");
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "r"]);
    work.push(&["+main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    let parked = sandbox.status(&source)["next_attempt_at"].clone();
    assert!(parked.is_string());
    // Only a sync finds this ref. The mirror's hook holds the sync up until the test kills it.
    sandbox.git(&source, &["update-ref", "refs/heads/unseen", "main"]);
    let hook = mirror.join("hooks/pre-receive");
    script(&hook, &format!("#!/bin/sh\ntouch '{}'\nexec sleep 30\n", sandbox.path("entered").display()));
    let mut sync = sandbox.program(&source).arg("sync").stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the hook", || sandbox.path("entered").exists());
    assert_eq!(sandbox.status(&source)["update_status"], "started");
    sync.kill().unwrap();
    // The killed process is a zombie, because the test has not waited for it yet.
    wait_for("the end of the sync", || sandbox.status(&source)["update_status"] != "started");
    assert_eq!(sandbox.status(&source)["update_status"], "scheduled");
    let check = sandbox.mirror_push(&source, &["check"]);
    assert!(check.status != 0, "{check:?}");
    sync.wait().unwrap();
    std::fs::remove_file(&hook).unwrap();
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert_eq!(said.status, 1, "main is still divergent: {said:?}");
    assert_eq!(sandbox.oid(&mirror, "unseen"), sandbox.oid(&source, "unseen"));
}

#[test]
fn a_symbolic_ref_of_the_mirror_that_leads_nowhere_is_not_written_through() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    sandbox.git(&mirror, &["symbolic-ref", "refs/heads/alias", "refs/heads/nowhere"]);
    work.push(&["main:alias"]);
    sandbox.mirror_push(&source, &["sync"]);
    assert_eq!(sandbox.oid(&mirror, "refs/heads/nowhere"), "");
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "refs/heads/alias"]), "refs/heads/nowhere");
}

#[test]
fn two_servers_that_mirror_each_other_settle_and_say_so() {
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.bare("one.git"), sandbox.bare("two.git"));
    let work = sandbox.work(&one);
    let base = work.commit("base");
    let commits: Vec<String> = ["s", "t"]
        .into_iter()
        .map(|name| {
            work.git(&["checkout", "-q", "-B", name, &base]);
            work.commit(name)
        })
        .collect();
    for (from, to) in [(&one, &two), (&two, &one)] {
        std::fs::create_dir_all(from.join("mirror-push")).unwrap();
        std::fs::write(from.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
        sandbox.mirror_push_ok(from, &["add", "m", to.to_str().unwrap()]);
        sandbox.git(&work.path, &["push", "-q", from.to_str().unwrap(), &format!("{base}:refs/heads/main")]);
        sandbox.mirror_push_ok(from, &["drain"]);
    }
    for (repository, commit) in [(&one, &commits[0]), (&two, &commits[1])] {
        sandbox.git(&work.path, &["push", "-q", repository.to_str().unwrap(), &format!("+{commit}:refs/heads/main")]);
    }
    // Both drain at once, again and again. The hook delays each push by 0.1 s, so that the two pushes overlap.
    for repository in [&one, &two] {
        script(&repository.join("hooks/pre-receive"), "#!/bin/sh\nexec sleep 0.1\n");
    }
    let is_at_rest = |repository: &Path| sandbox.status(repository)["pending"] == 0;
    for _ in 0..30 {
        let drains = [&one, &two].map(|repository| sandbox.program(repository).arg("drain").arg("-q").spawn().unwrap());
        for mut drain in drains {
            drain.wait().unwrap();
        }
        if is_at_rest(&one) && is_at_rest(&two) {
            break;
        }
    }
    let written = |repository: &Path| {
        let history = std::fs::read_to_string(repository.join("mirror-push/remotes/m/history.jsonl")).unwrap();
        history.matches("\"old\"").count()
    };
    assert!(written(&one) + written(&two) <= 8, "{} and {}", written(&one), written(&two));
    let outcomes = [&one, &two].map(|repository| sandbox.status(repository)["update_status"].clone());
    let is_equal = sandbox.oid(&one, "main") == sandbox.oid(&two, "main");
    assert!(is_equal || outcomes.iter().any(|word| word == "failed"), "{outcomes:?}");
}

/// Moves `main` until it is flapping; returns our value and the one that the mirror still has.
fn flap(sandbox: &Sandbox, source: &Path, mirror: &Path, work: &Work<'_>) -> (String, String) {
    let ours = work.git(&["rev-parse", "main"]);
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "other"]);
    let other = work.git(&["rev-parse", "main"]);
    let push = |value: &str| {
        work.push(&[&format!("+{value}:main")]);
        sandbox.mirror_push(source, &["drain", "--json"])
    };
    for value in [&other, &ours, &other] {
        assert_eq!(push(value).status, 0);
    }
    let said = push(&ours);
    assert_eq!(said.status, 1, "{said:?}");
    assert_eq!(sandbox.outcomes(&said), [("refs/heads/main".to_owned(), "flapping".to_owned())]);
    assert_eq!(sandbox.oid(mirror, "main"), other, "nothing was sent");
    (ours, other)
}

#[test]
fn a_ref_that_was_flapping_at_one_address_is_pushed_to_a_new_one() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    flap(&sandbox, &source, &mirror, &work);
    let second = sandbox.bare("second.git");
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", second.to_str().unwrap()]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&second), sandbox.refs(&source));
}

/// A sync that the page or the API asks for is a record in the queue, which any drain carries out.
#[test]
fn a_requested_sync_releases_a_flapping_ref_and_a_comparison_does_not() {
    use git_mirror_push::mirror::{Editor, WhileBusy, Wish};
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    flap(&sandbox, &source, &mirror, &work);
    let repository = git_mirror_push::repo::open(&source).unwrap().to_local();
    let server = git_mirror_push::config::Server::default();
    let config = git_mirror_push::config::load(&repository, &server).unwrap();
    let editor =
        Editor { repository: &repository, server: &server, now: jiff::Timestamp::now, while_busy: WhileBusy::Wait };
    for (wish, status) in [(Wish::Compare, 1), (Wish::Sync, 0)] {
        editor.request(&config, "m", wish).unwrap();
        assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, status, "{wish:?}");
    }
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_flapping_ref_is_stopped_shown_and_released() {
    let sandbox = Sandbox::new();
    let (source, mirror, work) = scene(&sandbox, &[]);
    let (ours, other) = flap(&sandbox, &source, &mirror, &work);
    let shown = sandbox.status(&source);
    assert_eq!((&shown["update_status"], &shown["refs"][0]["outcome"]), (&"failed".into(), &"flapping".into()));
    let reason = shown["refs"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(&ours[..7]) && reason.contains(&other[..7]), "both values are named: {reason}");
    // Other refs are still mirrored. A drain does not release main; a sync that a person starts does.
    work.push(&[&format!("{ours}:refs/heads/free")]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(sandbox.oid(&mirror, "free"), ours);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_mirror_that_reports_success_and_loses_the_ref_is_noticed() {
    let sandbox = Sandbox::of_files();
    let (source, mirror, work) = scene(&sandbox, &[]);
    // The hook deletes each ref as soon as it is committed, before receive-pack reports success.
    let liar = "#!/bin/sh\n[ \"$1\" = committed ] && [ -z \"$LIAR\" ] || exit 0\n\
                while read old new name; do LIAR=1 git update-ref -d \"$name\"; done\n";
    script(&mirror.join("hooks/reference-transaction"), liar);
    work.push(&["main:x"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    for _ in 0..2 {
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert_eq!(said.status, 1, "{said:?}");
        let found = sandbox.outcomes(&said);
        assert!(found.contains(&("refs/heads/x".into(), "remote_rejected".into())), "{said:?}");
        assert!(said.out.contains("it is not there"), "{said:?}");
    }
    std::fs::remove_file(mirror.join("hooks/reference-transaction")).unwrap();
    // If somebody deletes a ref on the mirror, by contrast, a sync creates it again.
    sandbox.mirror_push_ok(&source, &["sync"]);
    sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/x"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}
