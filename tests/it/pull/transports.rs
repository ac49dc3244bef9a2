//! The same upstream over every transport, and upstreams that cannot be taken from.

use super::Taking;
use crate::scene::sandbox::{Sandbox, is_variant};
use crate::scene::servers::Kind;

#[test]
fn first_second_and_unchanged_over_every_transport() {
    for kind in [Kind::Git, Kind::Ssh, Kind::Http, Kind::Https] {
        let s = Taking::behind(kind, &[]);
        let work = s.work();
        for number in 0..3 {
            work.commit(&format!("{number}"));
        }
        work.push(&["main", "main:dev"]);
        s.pull_ok();
        assert!(s.is_taken(), "{kind:?}: first");
        work.commit("more");
        work.push(&["main"]);
        s.pull_ok();
        assert!(s.is_taken(), "{kind:?}: second");
        let status = std::fs::read(s.here.join("mirror-push/remotes/m/status.json")).unwrap();
        s.pull_ok();
        let after = std::fs::read(s.here.join("mirror-push/remotes/m/status.json")).unwrap();
        assert_eq!(status, after, "{kind:?}: a pull without changes writes no status");
        assert!(s.here.join("mirror-push/remotes/m/checked").exists());
    }
}

#[test]
fn an_unchanged_upstream_costs_one_request() {
    let s = Taking::behind(Kind::Http, &[]).with(&["main"]);
    let before = s.server.as_ref().unwrap().requests(&s.sandbox).len();
    s.pull_ok();
    let requests = s.server.as_ref().unwrap().requests(&s.sandbox);
    assert_eq!(requests[before..].len(), 1, "{:?}", &requests[before..]);
    assert!(requests[before].contains("POST"), "{:?}", &requests[before..]);
    let work = s.work();
    work.commit("two");
    work.push(&["main"]);
    let before = s.server.as_ref().unwrap().requests(&s.sandbox).len();
    s.pull_ok();
    let requests = s.server.as_ref().unwrap().requests(&s.sandbox);
    assert_eq!(requests[before..].len(), 2, "a list and a pack: {:?}", &requests[before..]);
}

/// A pull sends its first request before it has read the server's greeting. If upstream now speaks
/// an older version, or another object format, the pull asks again.
#[test]
fn an_upstream_that_speaks_otherwise_than_before_is_asked_again() {
    // Over ssh, the server here drops GIT_PROTOCOL and speaks version 0.
    let right = if is_variant("sha256") { "sha256" } else { "sha1" };
    let wrong = if right == "sha1" { "sha256" } else { "sha1" };
    for (kind, known) in [(Kind::Ssh, right), (Kind::Git, wrong), (Kind::Git, ""), (Kind::Http, wrong)] {
        let s = Taking::behind(kind, &[]).with(&["main"]);
        let path = s.here.join("mirror-push/remotes/m/status.json");
        let mut status: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(status["pull"]["speaks_two"].as_str(), (kind != Kind::Ssh).then_some(right), "{kind:?}");
        status["pull"]["speaks_two"] = known.into();
        std::fs::write(&path, status.to_string()).unwrap();
        let work = s.work();
        work.commit("more");
        work.push(&["main"]);
        s.pull_ok();
        assert!(s.is_taken(), "{kind:?}");
    }
}

#[test]
fn only_what_is_missing_comes() {
    for kind in [Kind::Git, Kind::Http, Kind::Ssh] {
        let s = Taking::behind(kind, &[]);
        let work = s.work();
        for number in 0..50 {
            work.commit(&format!("{number}"));
        }
        work.push(&["main"]);
        s.pull_ok();
        // Somebody commits here on top, so the tip here is unknown upstream.
        s.sandbox.theirs(&s.here, "main");
        let other = s.sandbox.source_named("again.git", &s.url(), &["--direction", "pull"]);
        s.server.as_ref().unwrap().configure_access(&s.sandbox, &other, "m");
        s.sandbox.git(&other, &["fetch", "-q", &s.here.display().to_string(), "main:main"]);
        work.commit("more");
        work.push(&["main:new"]);
        s.sandbox.mirror_push(&other, &["pull"]);
        let said = s.sandbox.mirror_push_ok(&other, &["log", "--json"]).json();
        let last = said.as_array().unwrap().last().unwrap().clone();
        assert!(!s.sandbox.oid(&other, "new").is_empty(), "{last}");
        assert!(last["bytes"].as_u64().unwrap() < 1000, "fifty commits are here already: {last}");
    }
}

#[test]
fn an_upstream_that_cannot_be_taken_from_is_explained_in_one_line() {
    let sandbox = Sandbox::new();
    let up = sandbox.upstream();
    let work = sandbox.work(&up);
    work.commit("two");
    work.push(&["main"]);
    let here = sandbox.source("up.git", &["--direction", "pull"]);
    let said = |url: &str| {
        sandbox.mirror_push_ok(&here, &["set", "m", "--url", url]);
        let said = sandbox.mirror_push(&here, &["pull"]);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(sandbox.refs(&here).is_empty());
        said.out
    };
    sandbox.git(
        &sandbox.path(""),
        &["clone", "-q", "--bare", "--depth=1", &format!("file://{}", up.display()), "shallow.git"],
    );
    assert!(said(&sandbox.path("shallow.git").display().to_string()).contains("shallow repository"));
    let other = sandbox.path("other.git");
    let format = format!("--object-format={}", sandbox.other_hash());
    sandbox.git(&sandbox.path(""), &["init", "-q", "--bare", &format, "other.git"]);
    let commit =
        sandbox.git_with_input(&other, &["commit-tree", sandbox.git_with_input(&other, &["mktree"], b"").trim()], b"x");
    sandbox.git(&other, &["update-ref", "refs/heads/main", commit.trim()]);
    assert!(said(&other.display().to_string()).contains("object format"));
    let refused = sandbox.mirror_push(&here, &["set", "m", "--url", &here.display().to_string()]);
    assert!(refused.status == 129 && refused.err.contains("this repository itself"), "{refused:?}");
    // The link is made after `set`, so only the run can see that it leads here.
    let link = sandbox.path("link.git").display().to_string();
    sandbox.mirror_push_ok(&here, &["set", "m", "--url", &link]);
    std::os::unix::fs::symlink(&here, &link).unwrap();
    assert!(sandbox.mirror_push(&here, &["pull"]).out.contains("this very repository"));
    assert!(said(&sandbox.path("missing.git").display().to_string()).contains("not found"));
}

#[test]
fn a_file_url_is_an_upstream_like_a_path() {
    let s = Taking::local(&[]).with(&["main"]);
    s.sandbox.mirror_push_ok(&s.here, &["set", "m", "--url", &format!("file://{}", s.up.display())]);
    let work = s.work();
    work.commit("more");
    work.push(&["main", "main:new"]);
    s.pull_ok();
    assert!(s.is_taken());
}

/// What an alternate of this repository has is not taken again, and a pull does not write into the alternate.
#[test]
fn a_repository_with_alternates_takes_what_neither_has() {
    let s = Taking::local(&[]).with(&["main"]);
    let other = s.sandbox.bare("other.git");
    s.sandbox.git(&other, &["fetch", "-q", s.up.to_str().unwrap(), "main:main"]);
    let here = s.sandbox.source_named("here2.git", s.up.to_str().unwrap(), &["--direction", "pull"]);
    std::fs::write(here.join("objects/info/alternates"), format!("{}\n", other.join("objects").display())).unwrap();
    s.sandbox.git(&here, &["update-ref", "refs/heads/old", &s.sandbox.oid(&other, "main")]);
    let files = |directory: &std::path::Path| s.sandbox.git(directory, &["count-objects", "-v"]);
    let before = files(&other);
    let work = s.work();
    work.commit("more");
    work.push(&["main"]);
    s.sandbox.mirror_push_ok(&here, &["pull"]);
    assert_eq!(s.sandbox.oid(&here, "main"), s.sandbox.oid(&s.up, "main"));
    assert_eq!(files(&other), before);
    let commits = s.sandbox.git(&here, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
    assert_eq!(
        commits.lines().filter(|kind| *kind == "commit").count(),
        2,
        "both commits, one of them in the alternate"
    );
    std::fs::remove_file(here.join("objects/info/alternates")).unwrap();
    let own = s.sandbox.git(&here, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
    assert_eq!(own.lines().filter(|kind| *kind == "commit").count(), 1, "{own}");
}
