//! What a run changes besides the values of refs: HEAD, and the packing of refs.

use super::Taking;
use crate::scene::sandbox::{is_variant, script, skip};

#[test]
fn head_follows_upstream_as_long_as_nobody_sets_it_here() {
    let s = Taking::local(&[]).with(&["main", "main:next", "main:last"]);
    let head = |repository: &std::path::Path| s.sandbox.git(repository, &["symbolic-ref", "HEAD"]).trim().to_owned();
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    s.pull_ok();
    assert_eq!(head(&s.here), "refs/heads/next");
    s.sandbox.git(&s.here, &["symbolic-ref", "HEAD", "refs/heads/main"]);
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/last"]);
    s.pull_ok();
    assert_eq!(head(&s.here), "refs/heads/main");
    // status and doctor name the command that makes HEAD follow again.
    const FIX: &str =
        "git symbolic-ref HEAD refs/heads/last; to keep HEAD as it is: git mirror-push set m follow_head=false";
    let said = |command: &str| s.sandbox.mirror_push(&s.here, &[command]).out;
    for command in ["status", "doctor"] {
        let said = said(command);
        assert!(said.contains("HEAD names 'main' here and 'last' upstream") && said.contains(FIX), "{said}");
    }
    s.sandbox.git(&s.here, &["symbolic-ref", "HEAD", "refs/heads/last"]);
    assert!(!said("status").contains("HEAD") && !said("doctor").contains("symbolic-ref"));
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    s.pull_ok();
    assert_eq!(head(&s.here), "refs/heads/next", "it follows again");
    let off = Taking::local(&["follow_head=false"]);
    let work = off.work();
    work.commit("one");
    work.git(&["branch", "-m", "main", "trunk"]);
    work.push(&["trunk"]);
    off.sandbox.git(&off.up, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    off.pull_ok();
    assert_eq!(off.sandbox.git(&off.here, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/main");
}

#[test]
fn head_follows_once_the_branch_comes_and_names_branches_only() {
    let s = Taking::local(&["--refspec", "refs/odd/*"]).with(&["main"]);
    let head = || s.sandbox.git(&s.here, &["symbolic-ref", "HEAD"]).trim().to_owned();
    script(&s.here.join("hooks/update"), "#!/bin/sh\ntest \"$1\" != refs/heads/next\n");
    s.work().push(&["main:next"]);
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    assert_eq!(s.pull().status, 1);
    assert_eq!(head(), "refs/heads/main", "the branch was refused");
    std::fs::remove_file(s.here.join("hooks/update")).unwrap();
    s.pull_ok();
    assert_eq!(head(), "refs/heads/next");
    s.sandbox.git(&s.up, &["update-ref", "refs/odd/one", "refs/heads/main"]);
    std::fs::write(s.up.join("HEAD"), "ref: refs/odd/one\n").unwrap();
    s.pull_ok();
    assert_eq!((head(), s.here("refs/odd/one")), ("refs/heads/next".to_owned(), s.here("main")));
}

#[test]
fn head_that_is_locked_follows_with_the_next_pull() {
    if is_variant("reftable") {
        skip("reftable has one lock for all refs");
        return;
    }
    let s = Taking::local(&[]).with(&["main", "main:next"]);
    s.sandbox.git(&s.up, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    std::fs::write(s.here.join("HEAD.lock"), "").unwrap();
    s.pull_ok();
    assert_eq!(s.sandbox.git(&s.here, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/main");
    std::fs::remove_file(s.here.join("HEAD.lock")).unwrap();
    s.pull_ok();
    assert_eq!(s.sandbox.git(&s.here, &["symbolic-ref", "HEAD"]).trim(), "refs/heads/next");
}

#[test]
fn many_refs_are_packed_when_they_have_come() {
    if is_variant("reftable") {
        skip("git packs reftables itself");
        return;
    }
    let s = Taking::local(&[]);
    let work = s.work();
    let commit = work.commit("one");
    let create = |from: u32, to: u32| {
        let lines: String = (from..to).map(|n| format!("create refs/heads/b{n} {}\n", commit.trim())).collect();
        s.sandbox.git_with_input(&s.up, &["update-ref", "--stdin"], lines.as_bytes());
    };
    work.push(&["main"]);
    create(0, 1000);
    let loose = || std::fs::read_dir(s.here.join("refs/heads")).unwrap().count();
    s.pull_ok();
    assert!(s.is_taken() && loose() == 0, "{} loose refs", loose());
    create(1000, 1010);
    s.pull_ok();
    assert!(s.is_taken() && loose() == 10, "a few are not worth it: {} loose refs", loose());
}
