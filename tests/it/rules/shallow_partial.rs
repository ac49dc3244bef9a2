//! Shallow and partial sources, and a mirror whose HEAD names a branch that does not exist.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::Sandbox;
use crate::scene::servers::{Kind, Server};

/// A repository with three commits and a file that changes in each.
fn upstream(sandbox: &Sandbox) -> PathBuf {
    let upstream = sandbox.bare("upstream.git");
    sandbox.git(&upstream, &["config", "uploadpack.allowFilter", "true"]);
    let work = sandbox.work(&upstream);
    for n in 0..3 {
        std::fs::write(work.path.join("file"), format!("{n}\n").repeat(500)).unwrap();
        work.git(&["add", "file"]);
        work.commit(&format!("commit {n}"));
    }
    work.push(&["main"]);
    upstream
}

/// A shallow or partial clone of `upstream`, with a mirror at `url`.
fn lacking(sandbox: &Sandbox, upstream: &Path, how: &[&str], url: &str) -> PathBuf {
    let source = sandbox.path("source.git");
    let from = format!("file://{}", upstream.display());
    let mut arguments = vec!["clone", "-q", "--bare", "--no-tags"];
    arguments.extend(how);
    arguments.extend([from.as_str(), source.to_str().unwrap()]);
    sandbox.git(&sandbox.path(""), &arguments);
    std::fs::create_dir_all(source.join("mirror-push")).unwrap();
    std::fs::write(source.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    sandbox.mirror_push_ok(&source, &["add", "m", url, "--prune", "mirror"]);
    source
}

fn reason(said: &crate::scene::sandbox::Completed) -> String {
    said.json()[0]["refs"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_shallow_source_is_mirrored_as_far_as_the_mirror_takes_it() {
    for kind in [Kind::Path, Kind::Git, Kind::Ssh, Kind::Http] {
        let sandbox = Sandbox::new();
        let upstream = upstream(&sandbox);
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, kind);
        let source = lacking(&sandbox, &upstream, &["--depth", "1"], &server.url("mirror.git"));
        server.configure_access(&sandbox, &source, "m");
        // An empty mirror would have to become shallow itself, which it refuses by default.
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert_eq!(said.status, 1, "{kind:?}: {said:?}");
        assert!(reason(&said).contains("receive.shallowUpdate true"), "{kind:?}: {said:?}");
        assert_eq!(said.json()[0]["update_status"], "failed", "{kind:?}: {said:?}");
        assert!(sandbox.refs(&mirror).is_empty());
        // A mirror that has the history takes what is new.
        sandbox.git(&upstream, &["push", "-q", mirror.to_str().unwrap(), "main", "main~2:refs/tags/old"]);
        let work = sandbox.path("upstream.git.work");
        sandbox.git(&work, &["commit", "-q", "--allow-empty", "-m", "new"]);
        sandbox.git(&work, &["push", "-q", source.to_str().unwrap(), "main"]);
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "{kind:?}: {said:?}");
        assert_eq!(sandbox.git(&mirror, &["rev-list", "--count", "main"]), "4", "{kind:?}");
        assert_ne!(
            sandbox.oid(&mirror, "refs/tags/old"),
            "",
            "{kind:?}: the source does not have it and does not delete it"
        );
        sandbox.git(&mirror, &["fsck"]);
        // A mirror that may become shallow gets all that the source has.
        let shallow = sandbox.bare("shallow.git");
        sandbox.git(&shallow, &["config", "receive.shallowUpdate", "true"]);
        sandbox.mirror_push_ok(&source, &["set", "m", "--url", &server.url("shallow.git")]);
        sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        assert_eq!(sandbox.refs(&shallow), sandbox.refs(&source), "{kind:?}");
        assert_eq!(sandbox.git(&shallow, &["rev-list", "--count", "main"]), "2", "{kind:?}");
        sandbox.git(&shallow, &["fsck"]);
    }
}

#[test]
fn a_branch_whose_commit_is_behind_the_shallow_boundary_is_not_deleted() {
    let sandbox = Sandbox::new();
    let upstream = upstream(&sandbox);
    let mirror = sandbox.bare("mirror.git");
    let source = lacking(&sandbox, &upstream, &["--depth", "1"], mirror.to_str().unwrap());
    sandbox.mirror_push_ok(&source, &["set", "m", "--prune", "merged"]);
    sandbox.git(&upstream, &["push", "-q", mirror.to_str().unwrap(), "main", "main~1:refs/heads/old"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    // The branch is pushed here and deleted again. Its commit is behind the boundary, so nobody can tell whether main contains it.
    let old = sandbox.git(&upstream, &["rev-parse", "main~1"]);
    let zeros = sandbox.digits('0');
    let hook = source.join("hooks/post-receive");
    for line in [format!("{zeros} {old} refs/heads/old\n"), format!("{old} {zeros} refs/heads/old\n")] {
        let mut command = sandbox.command(&hook);
        assert_eq!(
            crate::scene::sandbox::run_with_input(command.current_dir(&source).env("GIT_DIR", "."), line.as_bytes())
                .status,
            0
        );
    }
    let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
    assert_eq!(sandbox.outcomes(&said), [("refs/heads/old".to_owned(), "kept".to_owned())], "{said:?}");
    assert_eq!(sandbox.oid(&mirror, "old"), old);
}

#[test]
fn a_partial_source_fetches_nothing_and_is_mirrored_as_far_as_the_mirror_takes_it() {
    for filter in ["--filter=blob:none", "--filter=tree:0"] {
        let sandbox = Sandbox::new();
        let upstream = upstream(&sandbox);
        let mirror = sandbox.bare("mirror.git");
        let source = lacking(&sandbox, &upstream, &[filter], mirror.to_str().unwrap());
        let missing = || sandbox.git(&source, &["rev-list", "--objects", "--all", "--missing=print"]);
        let before = missing();
        assert!(before.lines().any(|line| line.starts_with('?')), "it lacks something: {before}");
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        let report = said.json()[0].clone();
        let words = format!("{}{}", report["error"], report["refs"][0]["reason"]);
        assert_eq!((said.status, &report["update_status"]), (1, &"failed".into()), "it is permanent: {said:?}");
        assert!(words.contains("git fetch --refetch --no-filter"), "{filter}: {said:?}");
        assert!(sandbox.refs(&mirror).is_empty());
        assert_eq!(missing(), before, "nothing was fetched");
        // A mirror that has what is missing here takes what is new.
        sandbox.git(&upstream, &["push", "-q", mirror.to_str().unwrap(), "main"]);
        let blob = sandbox.git_with_input(&source, &["hash-object", "-w", "--stdin"], b"new\n");
        let tree = sandbox.git_with_input(&source, &["mktree"], format!("100644 blob {blob}\tnew\n").as_bytes());
        let new = sandbox.git(&source, &["commit-tree", "-m", "new", "-p", "main", &tree]);
        sandbox.git(&source, &["update-ref", "refs/heads/main", &new]);
        let said = sandbox.mirror_push_ok(&source, &["sync", "--json"]);
        assert_eq!(sandbox.oid(&mirror, "main"), new, "{filter}: {said:?}");
        sandbox.git(&mirror, &["fsck"]);
        // A revert brings an old tree back. With `blob:none` only its blobs are missing here, and the mirror has them. With `tree:0` the
        // tree itself is missing, so git cannot tell what the mirror needs.
        let old = sandbox.git(&upstream, &["rev-parse", "main~2^{tree}"]);
        let reverted = sandbox.git_with_input(
            &source,
            &["hash-object", "-t", "commit", "-w", "--stdin"],
            format!("tree {old}\nparent {new}\nauthor T <t@e> 1 +0000\ncommitter T <t@e> 1 +0000\n\nreverted\n")
                .as_bytes(),
        );
        sandbox.git(&source, &["update-ref", "refs/heads/main", &reverted]);
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        let is_told = said.status == 1 && said.out.contains("git fetch --refetch --no-filter");
        assert_eq!(is_told, filter == "--filter=tree:0", "{filter}: {said:?}");
        assert_eq!(sandbox.oid(&mirror, "main") == reverted, filter == "--filter=blob:none", "{filter}: {said:?}");
        sandbox.git(&mirror, &["fsck"]);
        // After the fetch that the advice names, an empty mirror gets everything too.
        let other = sandbox.bare("other.git");
        sandbox.mirror_push_ok(&source, &["set", "m", "--url", other.to_str().unwrap()]);
        sandbox.git(&source, &["fetch", "-q", "--refetch", "--no-filter", "origin"]);
        sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        assert_eq!(sandbox.oid(&other, "main"), sandbox.oid(&source, "main"), "{filter}");
        sandbox.git(&other, &["fsck"]);
    }
}

#[test]
fn a_head_that_names_no_branch_is_reported_and_is_set_if_configured() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["symbolic-ref", "HEAD", "refs/heads/master"]);
    let source = sandbox.source(mirror.to_str().unwrap(), &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain", "-q"]);
    let fix = format!("git --git-dir '{}' symbolic-ref HEAD refs/heads/main", mirror.display());
    for command in ["status", "doctor"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert!(said.out.contains(&fix) && said.out.contains("set_head = true"), "{command}: {said:?}");
    }
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "HEAD"]), "refs/heads/master", "set_head is off");
    sandbox.add_mirror_config(&source, "set_head = true");
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    for command in ["status", "doctor"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert!(!said.out.contains("symbolic-ref"), "{command}: {said:?}");
    }
    // HEAD may name any branch that exists here: the mirror's owner may want that.
    work.push(&["main:topic"]);
    sandbox.git(&mirror, &["symbolic-ref", "HEAD", "refs/heads/topic"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "HEAD"]), "refs/heads/topic");
    // The default branch here becomes trunk, and topic is deleted. The first sync moves HEAD to trunk, the second deletes topic.
    work.push(&["main:trunk", ":topic"]);
    sandbox.git(&source, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--prune", "deleted"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    // HEAD is not set to a default branch that is not mirrored.
    sandbox.git(&source, &["update-ref", "refs/heads/inner", "main"]);
    sandbox.git(&source, &["symbolic-ref", "HEAD", "refs/heads/inner"]);
    sandbox.git(&mirror, &["symbolic-ref", "HEAD", "refs/heads/none"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "--mirror-branch-regex", "^main$"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.git(&mirror, &["symbolic-ref", "HEAD"]), "refs/heads/none");
}

#[test]
fn a_head_of_a_working_tree_is_left_alone() {
    let sandbox = Sandbox::new();
    let tree = sandbox.path("tree");
    sandbox.git(&sandbox.path(""), &["init", "-q", tree.to_str().unwrap()]);
    sandbox.git(&tree, &["symbolic-ref", "HEAD", "refs/heads/none"]);
    let source = sandbox.source(tree.to_str().unwrap(), &[]);
    sandbox.add_mirror_config(&source, "set_head = true");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain", "-q"]);
    assert_eq!(sandbox.oid(&tree, "main"), sandbox.oid(&source, "main"));
    assert_eq!(sandbox.git(&tree, &["symbolic-ref", "HEAD"]), "refs/heads/none");
}
