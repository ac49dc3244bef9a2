//! Refs that are easily mirrored wrongly: unusual names, tags of trees and blobs, symbolic refs, divergent refs, and many refs at once.

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, run_with_input};
use crate::scene::servers::{Kind, Server, free_port};

#[test]
fn unusual_names_and_tag_targets_arrive_unchanged() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--refspec", "refs/extra/*"]);
    let work = sandbox.work(&source);
    let oid = work.commit("one");
    let tag = |name: &str, target: &str| work.git(&["tag", "-a", "-m", name, name, target]);
    work.git(&["branch", "same"]);
    tag("same", "main");
    tag("outer", "same");
    let blob = sandbox.git_with_input(&work.path, &["hash-object", "-w", "--stdin"], b"text");
    work.git(&["update-ref", "refs/tags/blob", &blob]);
    work.git(&["update-ref", "refs/tags/tree", "main^{tree}"]);
    work.push(&["refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"]);
    let names: [&[u8]; 6] = [
        b"refs/heads/HEAD",
        b"refs/heads/tag",
        b"refs/heads/100%",
        b"refs/heads/it's\"so\"",
        b"refs/heads/\xff\xfe",
        b"refs/extra/one",
    ];
    let mut script = Vec::new();
    for name in names {
        script.extend_from_slice(&[b"create ", name, b" ", oid.as_bytes(), b"\n"].concat());
    }
    sandbox.git_with_input(&source, &["update-ref", "--stdin"], &script);
    sandbox.git(&source, &["update-ref", "refs/notes/commits", &oid]);
    sandbox.git(&source, &["update-ref", "refs/pull/1/head", &oid]);
    sandbox.git(&source, &["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let all = |repository: &std::path::Path| {
        let list = ["for-each-ref", "--format=%(refname) %(objectname)"];
        let output = sandbox.command("git").current_dir(repository).args(list).output().unwrap();
        let invisible = |line: &[u8]| {
            line.starts_with(b"refs/notes/") || line.starts_with(b"refs/pull/") || line.starts_with(b"refs/heads/alias")
        };
        let lines: Vec<Vec<u8>> =
            output.stdout.split(|byte| *byte == b'\n').filter(|line| !invisible(line)).map(<[u8]>::to_vec).collect();
        lines
    };
    assert_eq!(all(&mirror), all(&source));
    assert!(all(&mirror).iter().any(|line| line.starts_with(b"refs/heads/\xff\xfe ")));
    for invisible in ["refs/notes/commits", "refs/pull/1/head", "refs/heads/alias"] {
        assert_eq!(sandbox.oid(&mirror, invisible), "", "{invisible}");
    }
    // A sync ignores the mirror's own refs outside the selection. It leaves the mirror's own symbolic ref alone too.
    sandbox.git(&mirror, &["update-ref", "refs/notes/theirs", "main"]);
    sandbox.git(&mirror, &["symbolic-ref", "refs/heads/link", "refs/heads/main"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--prune", "mirror"]);
    let said = sandbox.mirror_push_ok(&source, &["sync", "--json", "--allow-mass-delete"]);
    assert!(!said.out.contains("refs/notes"), "{said:?}");
    assert_ne!(sandbox.oid(&mirror, "refs/notes/theirs"), "");
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "refs/heads/link"]), "refs/heads/main");
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "deleting the link would have deleted main");
}

#[test]
fn a_directory_of_refs_gives_way_to_a_ref_and_back() {
    let scene = Scene::local(&["--prune", "deleted"]).with(&["main", "main:a/b", "main:c"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    work.push(&[":a/b", ":c"]);
    work.push(&["main:a", "main:c/d"]);
    let said = sandbox.mirror_push_ok(source, &["drain", "--json"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "{said:?}");
    assert_eq!(sandbox.oid(mirror, "refs/heads/a"), sandbox.oid(source, "main"));
    // Now the reverse: the base in `mirrored/` must have followed the first drain.
    work.push(&[":a", ":c/d"]);
    work.push(&["main:a/b", "main:c"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}

#[test]
fn five_thousand_refs_created_moved_and_deleted_in_one_push() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "deleted"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    let two = work.commit("two");
    work.push(&["main"]);
    let script = |line: &dyn Fn(usize) -> String, range: std::ops::Range<usize>| range.map(line).collect::<String>();
    let first = script(&|n| format!("create refs/heads/n{n:04} {one}\n"), 0..5000);
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], first.as_bytes());
    work.push(&["refs/heads/*:refs/heads/*"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let second = [
        script(&|n| format!("delete refs/heads/n{n:04}\n"), 0..2000),
        script(&|n| format!("update refs/heads/n{n:04} {two}\n"), 2000..4000),
        script(&|n| format!("create refs/heads/m{n:04} {two}\n"), 0..1000),
    ];
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], second.concat().as_bytes());
    work.push(&["--prune", "refs/heads/*:refs/heads/*"]);
    let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
    let mut counts = std::collections::BTreeMap::new();
    for (_, outcome) in sandbox.outcomes(&said) {
        *counts.entry(outcome).or_insert(0) += 1;
    }
    let expected = [("created", 1000), ("deleted", 2000), ("fast_forwarded", 2000)];
    assert_eq!(counts, expected.map(|(word, count)| (word.to_owned(), count)).into());
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn the_base_of_many_refs_is_used_without_any_spool_record() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep", "--prune", "deleted"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main"]);
    let all = |line: &dyn Fn(usize) -> String, range: std::ops::Range<usize>| range.map(line).collect::<String>();
    let update = |text: String| sandbox.git_with_input(&source, &["update-ref", "--stdin"], text.as_bytes());
    update(all(&|n| format!("create refs/heads/n{n:04} {one}\n"), 0..2400));
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    // Rewrite half of them and delete the other half. No hook sees this.
    let new = sandbox.git(&source, &["commit-tree", "-m", "rewritten", "main^{tree}"]);
    update(all(&|n| format!("update refs/heads/n{n:04} {new}\n"), 0..1200));
    update(all(&|n| format!("delete refs/heads/n{n:04}\n"), 1200..2400));
    let said = sandbox.mirror_push_ok(&source, &["sync", "--json", "--allow-mass-delete"]);
    let of = |word: &str| sandbox.outcomes(&said).iter().filter(|(_, outcome)| outcome == word).count();
    assert_eq!((of("forced"), of("deleted")), (1200, 1200));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn an_empty_source_deletes_nothing_and_an_empty_mirror_gets_its_default_branch_first() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let log = sandbox.path("pushes");
    let hook = mirror.join("hooks/post-receive");
    std::fs::write(&hook, format!("#!/bin/sh\nwc -l >> '{}'\n", log.display())).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    sandbox.git(&work.path, &["push", "-q", mirror.to_str().unwrap(), "main:theirs"]);
    let said = sandbox.mirror_push_ok(&source, &["sync", "--json", "--allow-mass-delete", "--adopt"]);
    assert_eq!(sandbox.outcomes(&said), [("refs/heads/theirs".to_owned(), "kept".to_owned())]);
    sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/theirs"]);
    std::fs::remove_file(&log).unwrap();
    work.push(&["main", "main:a", "main:b"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(std::fs::read_to_string(log).unwrap().split_whitespace().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn an_orphan_rewrite_here_is_forced_and_a_commit_there_is_kept_in_one_sync() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main", "main:develop"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    // They commit to develop on the mirror; we rewrite main here, twice, while no drain runs.
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", &one, "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/develop", &theirs]);
    for branch in ["first", "second"] {
        work.git(&["checkout", "-q", "--orphan", branch]);
        work.commit(branch);
        work.push(&[&format!("+{branch}:main")]);
    }
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    assert_eq!(said.status, 1);
    let expected = [("refs/heads/develop", "divergent"), ("refs/heads/main", "forced")];
    assert_eq!(sandbox.outcomes(&said), expected.map(|(name, word)| (name.to_owned(), word.to_owned())));
    assert_eq!(
        (sandbox.oid(&mirror, "main"), sandbox.oid(&mirror, "develop")),
        (sandbox.oid(&source, "main"), theirs.clone())
    );
    // develop stays divergent: reading a value on the mirror does not make it ours.
    for command in ["sync", "sync"] {
        assert_eq!(sandbox.mirror_push(&source, &[command]).status, 1);
        assert_eq!(sandbox.oid(&mirror, "develop"), theirs);
    }
    work.push(&["+second:develop"]);
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    assert_eq!(sandbox.oid(&mirror, "develop"), theirs, "a push here does not make their work ours");
    let status = sandbox.status(&source);
    assert_eq!(status["refs"][0]["ref"], "refs/heads/develop");
    assert_eq!(status["refs"][0]["remote"], theirs);
}

#[test]
fn a_mirror_that_is_ahead_is_divergent_and_its_default_branch_is_never_deleted() {
    let scene = Scene::local(&["--divergent-refs", "keep", "--prune", "deleted"]).with(&["main", "main:next"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    let ahead = work.commit("two");
    sandbox.git(&work.path, &["push", "-q", mirror.to_str().unwrap(), "main"]);
    let said = sandbox.mirror_push(source, &["sync", "--json"]);
    assert!(sandbox.outcomes(&said).contains(&("refs/heads/main".into(), "divergent".into())), "{said:?}");
    assert_eq!(sandbox.oid(mirror, "main"), ahead);
    // `next` becomes the default branch here, and `main` is deleted. The mirror's HEAD still names `main`.
    sandbox.git(mirror, &["update-ref", "refs/heads/main", &sandbox.oid(source, "main")]);
    sandbox.git(source, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    work.push(&[":main"]);
    let said = sandbox.mirror_push_ok(source, &["drain", "--json"]);
    assert!(sandbox.outcomes(&said).contains(&("refs/heads/main".into(), "kept".into())), "{said:?}");
    assert!(said.out.contains("git symbolic-ref HEAD refs/heads/next"), "the fix is shown: {said:?}");
    sandbox.git(mirror, &["symbolic-ref", "HEAD", "refs/heads/next"]);
    sandbox.mirror_push_ok(source, &["sync"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}

#[test]
fn a_branch_that_got_an_unmerged_commit_and_was_deleted_between_two_drains_is_kept() {
    let scene = Scene::local(&[]).with(&["main", "main:topic", "main:done"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    // topic gets a commit that is in no other branch, and is deleted before the next drain.
    work.git(&["checkout", "-q", "-b", "topic"]);
    work.commit("unmerged");
    work.push(&["topic"]);
    work.push(&[":topic", ":done"]);
    let said = sandbox.mirror_push_ok(source, &["drain", "--json"]);
    let expected = [("refs/heads/done", "deleted"), ("refs/heads/topic", "kept")];
    assert_eq!(sandbox.outcomes(&said), expected.map(|(name, word)| (name.to_owned(), word.to_owned())));
    assert_ne!(sandbox.oid(mirror, "topic"), "");
}

#[test]
fn packing_refs_never_looks_like_a_deletion() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    let script: String = (0..300).map(|n| format!("create refs/heads/n{n} HEAD\n")).collect();
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], script.as_bytes());
    work.push(&["refs/heads/*:refs/heads/*"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                sandbox.git(&source, &["pack-refs", "--all"]);
                let names: String = (0..300).map(|n| format!("update refs/heads/n{n} main\n")).collect();
                sandbox.git_with_input(&source, &["update-ref", "--no-deref", "--stdin"], names.as_bytes());
            }
        });
        for _ in 0..15 {
            let said = sandbox.mirror_push_ok(&source, &["sync", "--json", "--allow-mass-delete"]);
            assert!(!said.out.contains("\"deleted\""), "{said:?}");
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

/// A listing may miss loose refs that `git pack-refs` moves meanwhile. Here it misses all loose branches, because strace makes the listing
/// of `refs/heads` empty. A lookup of each name finds them.
#[test]
fn a_ref_that_the_listing_missed_is_not_deleted() {
    let sandbox = Sandbox::of_files();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.git(&source, &["pack-refs", "--all"]);
    work.push(&["main:a", "main:b"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let log = sandbox.path("strace");
    let mut strace = sandbox.command("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg("-P").arg(source.join("refs/heads"));
    strace.args(["-e", "trace=getdents64", "-e", "inject=getdents64:retval=0"]);
    strace.args(["--", env!("CARGO_BIN_EXE_git-mirror-push"), "--git-dir"]).arg(&source).args(["sync", "--json"]);
    let said = run_with_input(&mut strace, b"");
    assert!(std::fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "the listing was not disturbed: {said:?}");
    assert_eq!((said.status, sandbox.refs(&mirror)), (0, sandbox.refs(&source)), "{said:?}");
}

#[test]
fn a_mirror_over_the_wire_is_asked_for_symbolic_refs_before_a_branch_is_deleted() {
    for kind in [Kind::Git, Kind::Ssh, Kind::Http] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        // Without this line sshd drops GIT_PROTOCOL. Then git speaks protocol version 0, which reports the target of HEAD alone.
        let directives = if kind == Kind::Ssh { "AcceptEnv GIT_PROTOCOL" } else { "" };
        let server = Server::start_with(&sandbox, kind, free_port(), directives);
        let source = server.source(&sandbox, "mirror.git", &["--prune", "deleted"]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main", "main:alias", "main:dev", "main:head", "main:gone"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        sandbox.git(&mirror, &["symbolic-ref", "refs/heads/alias", "refs/heads/dev"]);
        sandbox.git(&mirror, &["symbolic-ref", "HEAD", "refs/heads/head"]);
        work.push(&[":alias", ":head", ":gone"]);
        let plan = sandbox.mirror_push_ok(&source, &["plan", "--json"]);
        let drain = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
        for said in [plan, drain] {
            let outcomes = sandbox.outcomes(&said);
            let of = |name: &str| outcomes.iter().find(|(other, _)| other == name).map(|(_, outcome)| &**outcome);
            assert_eq!(of("refs/heads/gone"), Some("deleted"), "{kind:?}: {said:?}");
            assert_eq!(of("refs/heads/head"), Some("kept"), "{kind:?}: {said:?}");
            assert!(said.out.contains("the mirror's HEAD names it"), "{kind:?}: {said:?}");
            assert_ne!(of("refs/heads/alias"), Some("deleted"), "{kind:?}: {said:?}");
        }
        let left = sandbox.git(&mirror, &["for-each-ref", "--format=%(refname:short)"]);
        assert_eq!(left.lines().collect::<Vec<_>>(), ["alias", "dev", "head", "main"], "{kind:?}");
    }
}

/// For example, the mirror may allow a key to push but not to fetch.
#[test]
fn a_symbolic_ref_is_not_deleted_if_the_mirror_cannot_be_read() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = server.source(&sandbox, "mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.git(&mirror, &["config", "http.uploadpack", "false"]);
    sandbox.git(&mirror, &["symbolic-ref", "refs/heads/link", "refs/heads/main"]);
    let other = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/theirs", &other]);
    let said = sandbox.mirror_push_ok(&source, &["sync", "--json"]);
    let outcomes = sandbox.outcomes(&said);
    assert!(outcomes.contains(&("refs/heads/link".into(), "kept".into())), "{said:?}");
    assert!(outcomes.contains(&("refs/heads/theirs".into(), "deleted".into())), "{said:?}");
    assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"));
}

/// A ref that upload-pack does not list may be symbolic.
#[test]
fn a_symbolic_ref_that_the_mirror_hides_from_readers_is_not_deleted() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Git);
    let source = server.source(&sandbox, "mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:release"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    sandbox.git(&mirror, &["symbolic-ref", "refs/heads/stable", "refs/heads/release"]);
    sandbox.git(&mirror, &["config", "uploadpack.hideRefs", "refs/heads/stable"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/theirs", "refs/heads/main"]);
    sandbox.mirror_push(&source, &["sync"]);
    let left = sandbox.git(&mirror, &["for-each-ref", "--format=%(refname:short)"]);
    assert_eq!(left.lines().collect::<Vec<_>>(), ["main", "release", "stable"]);
}

/// A mirror with reftable may have ref names that are too long for a file. A source whose refs are files can hold such a name only in
/// `packed-refs`, as after a clone.
#[test]
fn a_name_that_is_too_long_for_a_file_stops_nothing() {
    let sandbox = Sandbox::of_files();
    let mirror = sandbox.bare_of("mirror.git", (sandbox.formats().0, "reftable"));
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    let commit = work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let (ours, theirs) = (format!("refs/heads/{}", "o".repeat(300)), format!("refs/heads/{}", "t".repeat(300)));
    sandbox.git(&mirror, &["update-ref", &theirs, &commit]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert_eq!((said.status, sandbox.refs(&mirror)), (0, sandbox.refs(&source)), "theirs is pruned: {said:?}");
    sandbox.git(&source, &["pack-refs", "--all"]);
    let packed = source.join("packed-refs");
    let text = std::fs::read_to_string(&packed).unwrap();
    std::fs::write(&packed, format!("{text}{commit} {ours}\n")).unwrap();
    let mut hook = sandbox.command(source.join("hooks/post-receive"));
    let line = format!("{} {commit} {ours}\n", sandbox.digits('0'));
    assert_eq!(run_with_input(hook.current_dir(&source).env("GIT_DIR", "."), line.as_bytes()).status, 0);
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert_eq!(said.status, 0, "{said:?}");
    let refs = sandbox.refs(&mirror);
    assert!(refs.iter().any(|line| line.contains(&ours)), "{refs:?}");
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 0);
    assert_eq!(sandbox.refs(&mirror), refs, "nothing of ours is pruned");
}
