//! The first contact with an address: a mistyped URL overwrites no other repository, and a copy of this repository needs no confirmation.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, Work};

/// Somebody else's repository: `main`, `develop` and a tag, and nothing of ours.
fn stranger(sandbox: &Sandbox, name: &str) -> PathBuf {
    let bare = sandbox.bare(name);
    let work = sandbox.work(&bare);
    work.commit("theirs");
    work.push(&["main", "main:develop", "main:refs/tags/v1"]);
    bare
}

/// A source with `main`, whose mirror `m` is at `url`.
fn source<'s>(sandbox: &'s Sandbox, url: &str, options: &[&str]) -> (PathBuf, Work<'s>) {
    let source = sandbox.source(url, options);
    let work = sandbox.work(&source);
    work.commit("ours");
    work.push(&["main"]);
    (source, work)
}

/// How the mirror stands: its status, its error, and each listed ref with its outcome.
fn stands(sandbox: &Sandbox, source: &Path) -> (String, String, Vec<(String, String)>) {
    let said = sandbox.mirror_push(source, &["status", "--json"]);
    let shown = said.json()[0].clone();
    let refs = shown["refs"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&shown["update_status"]),
        text(&shown["last_error"]),
        refs.iter().map(|entry| (text(&entry["ref"]), text(&entry["outcome"]))).collect(),
    )
}

#[test]
fn a_strangers_repository_is_not_touched_under_any_policy() {
    for policy in ["overwrite", "keep", "fail"] {
        for prune in ["merged", "mirror"] {
            let sandbox = Sandbox::new();
            let mirror = stranger(&sandbox, "mirror.git");
            let before = sandbox.refs(&mirror);
            let (source, _) = source(&sandbox, "mirror.git", &["--divergent-refs", policy, "--prune", prune]);
            let plan = sandbox.mirror_push(&source, &["plan", "--json"]);
            assert_eq!(plan.status, 1, "{policy} {prune}: {plan:?}");
            assert!(plan.json()[0]["error"].as_str().unwrap().contains("--adopt"), "{plan:?}");
            for command in ["drain", "drain", "sync"] {
                let said = sandbox.mirror_push(&source, &[command]);
                assert_eq!(sandbox.refs(&mirror), before, "{policy} {prune} {command}: {said:?}");
            }
            let (status, error, refs) = stands(&sandbox, &source);
            assert_eq!(status, "failed", "{policy} {prune}");
            assert!(error.contains("check the URL") && error.contains("git mirror-push sync m --adopt"), "{error}");
            let divergent: Vec<&str> =
                refs.iter().filter(|(_, outcome)| outcome == "divergent").map(|(name, _)| &**name).collect();
            assert_eq!(divergent, ["refs/heads/develop", "refs/heads/main", "refs/tags/v1"], "{policy} {prune}");
            let shown = sandbox.status(&source);
            let main = shown["refs"].as_array().unwrap().iter().find(|entry| entry["ref"] == "refs/heads/main");
            assert_eq!(main.unwrap()["remote"], sandbox.oid(&mirror, "main"), "{policy} {prune}");
            assert_eq!(sandbox.git(&mirror, &["count-objects"]), "2 objects, 8 kilobytes", "nothing was sent");
        }
    }
}

#[test]
fn one_unknown_value_among_known_ones_stops_a_run_that_would_overwrite_it() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let (source, work) = source(&sandbox, "mirror.git", &[]);
    work.push(&["main:a", "main:b"]);
    // The mirror is a fork: most of its values are ours, but `b` has a new commit there.
    sandbox.git(&work.path, &["push", "-q", mirror.to_str().unwrap(), "main", "main:a", "main:b"]);
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "b", "b^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/b", &theirs]);
    work.commit("more");
    work.push(&["main", "main:b"]);
    let before = sandbox.refs(&mirror);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1, "the address is still not confirmed");
    assert_eq!(sandbox.refs(&mirror), before);
    let (_, _, refs) = stands(&sandbox, &source);
    let pairs: Vec<(&str, &str)> = refs.iter().map(|(name, outcome)| (&**name, &**outcome)).collect();
    assert_eq!(pairs, [("refs/heads/b", "divergent"), ("refs/heads/main", "rejected")]);
    // `keep` overwrites nothing on the mirror, so the other refs are sent.
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "keep"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
    assert_eq!(sandbox.oid(&mirror, "b"), theirs);
}

#[test]
fn a_copy_of_this_repository_behind_or_equal_needs_no_confirmation() {
    for (policy, is_behind) in [("overwrite", false), ("overwrite", true), ("keep", true), ("fail", true)] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let (source, work) = source(&sandbox, "mirror.git", &["--divergent-refs", policy]);
        sandbox.git(&work.path, &["push", "-q", mirror.to_str().unwrap(), "main", "main:refs/tags/v1"]);
        work.push(&["main:refs/tags/v1"]);
        if is_behind {
            work.commit("more");
            work.push(&["main", "main:new"]);
        }
        sandbox.mirror_push_ok(&source, &["plan"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{policy}");
        assert_eq!(stands(&sandbox, &source).0, "finished", "{policy}");
        // First contact is over. From now on the policy decides about a change that someone makes there.
        let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
        sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
        let said = sandbox.mirror_push(&source, &["sync"]);
        assert_eq!(said.status, i32::from(policy != "overwrite"), "{said:?}");
        let log = sandbox.mirror_push_ok(&source, &["log"]).out;
        assert_eq!(log.contains(&theirs), policy == "overwrite", "the old value is in the log: {log}");
    }
}

#[test]
fn a_confirmation_stays_in_the_queue_until_its_sync_succeeds() {
    let sandbox = Sandbox::new();
    let mirror = stranger(&sandbox, "mirror.git");
    let theirs = sandbox.oid(&mirror, "main");
    let (source, _) = source(&sandbox, "mirror.git", &["--prune", "mirror"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    // The mirror is away when a person confirms the address.
    let away = sandbox.path("away.git");
    std::fs::rename(&mirror, &away).unwrap();
    assert_eq!(sandbox.mirror_push(&source, &["sync", "m", "--adopt"]).status, 1);
    std::fs::rename(&away, &mirror).unwrap();
    sandbox.mirror_push_ok(&source, &["set", "m", "--prune", "mirror"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "overwritten and pruned, as configured");
    let history = std::fs::read_to_string(source.join("mirror-push/remotes/m/history.jsonl")).unwrap();
    for gone in ["refs/heads/main", "refs/heads/develop", "refs/tags/v1"] {
        let old = format!("\"ref\":\"{gone}\",\"old\":\"{theirs}\"");
        assert!(history.contains(&old), "{gone}: {history}");
    }
    // The confirmation is used up, so it does not hold for another stranger at this address.
    assert_eq!(std::fs::read_dir(source.join("mirror-push/remotes/m/queue")).unwrap().count(), 0);
}

#[test]
fn first_contact_belongs_to_the_address() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let other = stranger(&sandbox, "other.git");
    let (source, work) = source(&sandbox, "mirror.git", &["--divergent-refs", "keep"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let before = sandbox.refs(&other);
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "overwrite", "--url", other.to_str().unwrap()]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    // The same after an edit of the file, with another spelling of the address.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("/other.git", "//./other.git")).unwrap();
    work.commit("more");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(sandbox.refs(&other), before);
    // Back at the right address, the base is still known, so a rewrite here is no divergence there.
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "again"]);
    sandbox.git(&source, &["fetch", "-q", work.path.to_str().unwrap(), "+main:main"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "keep", "--url", mirror.to_str().unwrap()]);
    std::fs::remove_dir_all(source.join("mirror-push/remotes/m/queue")).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_plan_is_made_for_a_mirror_that_is_disabled() {
    let sandbox = Sandbox::new();
    let mirror = stranger(&sandbox, "mirror.git");
    let before = sandbox.refs(&mirror);
    let (source, _) = source(&sandbox, "mirror.git", &["--disabled"]);
    for arguments in [&["plan"][..], &["plan", "m"], &["plan", "m", "--json"]] {
        let said = sandbox.mirror_push(&source, arguments);
        assert!(said.status == 1 && said.out.contains("--adopt"), "{said:?}");
    }
    assert_eq!(sandbox.refs(&mirror), before);
    // `add --adopt` confirms the first contact in advance.
    sandbox.mirror_push_ok(&source, &["remove", "m"]);
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git", "--adopt"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
}

#[test]
fn two_repositories_with_one_url_do_not_overwrite_each_other() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let (source, _) = source(&sandbox, "mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let second = stranger(&sandbox, "second.git");
    std::fs::create_dir_all(second.join("mirror-push")).unwrap();
    std::fs::write(second.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    sandbox.mirror_push_ok(&second, &["add", "m", mirror.to_str().unwrap()]);
    assert_eq!(sandbox.mirror_push(&second, &["sync"]).status, 1);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_base_of_an_earlier_version_is_taken_over_and_ends_first_contact() {
    let sandbox = Sandbox::of_files();
    let mirror = sandbox.bare("mirror.git");
    let (source, work) = source(&sandbox, "mirror.git", &["--divergent-refs", "keep"]);
    work.push(&["main:packed"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let one = sandbox.oid(&source, "main");
    let mirrored = source.join("mirror-push/remotes/m/mirrored");
    std::fs::remove_dir_all(&mirrored).unwrap();
    std::fs::create_dir_all(mirrored.join("refs/heads")).unwrap();
    std::fs::write(mirrored.join("refs/heads/main"), format!("{one}\n")).unwrap();
    let packed = format!("# pack-refs with: sorted \n{one} refs/heads/packed\n");
    std::fs::write(mirrored.join("packed-refs"), packed).unwrap();
    // Both branches are rewritten without a spool record, so only the base shows that the mirror's values were ours.
    for branch in ["main", "packed"] {
        let new = sandbox.git(&source, &["commit-tree", "-m", branch, "main^{tree}"]);
        sandbox.git(&source, &["update-ref", &format!("refs/heads/{branch}"), &new]);
    }
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert!(!mirrored.join("refs").exists() && mirrored.join("packed-refs").is_dir(), "earlier versions find no base");
    // An earlier version opens `packed-refs` as a file. That fails now.
    assert!(std::fs::read(mirrored.join("packed-refs")).is_err());
    // A run that is killed before it removes the old files leaves them. The next change of the base removes them.
    std::fs::remove_dir(mirrored.join("packed-refs")).unwrap();
    std::fs::create_dir_all(mirrored.join("refs/heads")).unwrap();
    std::fs::write(mirrored.join("refs/heads/main"), format!("{one}\n")).unwrap();
    work.push(&["main:more"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(!mirrored.join("refs").exists() && mirrored.join("packed-refs").is_dir());
}

/// The base of an earlier version names no address. The status has the URL of the last contact (`greeting`).
#[test]
fn a_base_of_an_earlier_version_is_not_believed_of_another_address() {
    let sandbox = Sandbox::of_files();
    sandbox.bare("mirror.git");
    let theirs = stranger(&sandbox, "stranger.git");
    let before = sandbox.refs(&theirs);
    let (source, _) = source(&sandbox, "mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let one = sandbox.oid(&source, "main");
    let remote = source.join("mirror-push/remotes/m");
    std::fs::remove_dir_all(remote.join("mirrored")).unwrap();
    std::fs::create_dir_all(remote.join("mirrored/refs/heads")).unwrap();
    std::fs::write(remote.join("mirrored/refs/heads/main"), format!("{one}\n")).unwrap();
    let mut status: serde_json::Value =
        serde_json::from_slice(&std::fs::read(remote.join("status.json")).unwrap()).unwrap();
    status.as_object_mut().unwrap().remove("address");
    std::fs::write(remote.join("status.json"), status.to_string()).unwrap();
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", theirs.to_str().unwrap()]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && said.out.contains("first contact"), "{said:?}");
    assert_eq!(sandbox.refs(&theirs), before);
}

/// A ref that is neither branch nor tag says nothing of whose repository it is.
#[test]
fn a_stranger_with_a_note_of_ours_is_a_stranger() {
    let sandbox = Sandbox::new();
    let mirror = stranger(&sandbox, "mirror.git");
    let (source, work) = source(&sandbox, "mirror.git", &["--divergent-refs", "keep"]);
    work.push(&["main:topic"]);
    sandbox.git(&source, &["push", "-q", mirror.to_str().unwrap(), "main:refs/notes/x"]);
    let before = sandbox.refs(&mirror);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    assert_eq!(sandbox.refs(&mirror), before);
}

#[test]
fn what_is_known_of_the_old_address_is_not_shown_for_the_new_one() {
    let sandbox = Sandbox::new();
    stranger(&sandbox, "theirs.git");
    let fresh = sandbox.bare("fresh.git");
    for by_file in [false, true] {
        let name = format!("of-{by_file}.git");
        let bare = sandbox.bare(&name);
        let work = sandbox.work(&bare);
        work.commit("ours");
        work.push(&["main"]);
        let url = sandbox.path("theirs.git");
        sandbox.mirror_push_ok(&bare, &["set", "wake=none"]);
        sandbox.mirror_push_ok(&bare, &["add", "m", url.to_str().unwrap()]);
        sandbox.mirror_push(&bare, &["sync"]);
        let before = sandbox.status(&bare);
        assert_eq!((&before["update_status"], &before["attempts"]), (&"failed".into(), &1.into()), "{before}");
        if by_file {
            let config = bare.join("mirror-push/config.toml");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, text.replace("theirs.git", "fresh.git")).unwrap();
        } else {
            sandbox.mirror_push_ok(&bare, &["set", "m", "--url", fresh.to_str().unwrap()]);
        }
        let after = sandbox.status(&bare);
        assert_eq!(after["update_status"], "scheduled", "{after}");
        for key in ["last_error", "last_update_at", "last_update_started_at", "next_attempt_at"] {
            assert_eq!(after[key], serde_json::Value::Null, "{key}: {after}");
        }
        assert_eq!((&after["attempts"], &after["refs"]), (&0.into(), &serde_json::json!([])), "{after}");
        sandbox.mirror_push_ok(&bare, &["sync"]);
        assert_eq!(sandbox.status(&bare)["update_status"], "finished");
        sandbox.git(&fresh, &["update-ref", "-d", "refs/heads/main"]);
    }
}
