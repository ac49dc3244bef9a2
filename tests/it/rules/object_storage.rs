//! How objects are stored: shared, packed, left out, replaced (git-replace(1)); and repositories that are not bare.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Completed, Sandbox, script};
use crate::scene::servers::{Kind, Server};

/// An empty source and its empty mirror.
fn scene(options: &[&str]) -> (Sandbox, PathBuf, PathBuf) {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source(mirror.to_str().unwrap(), options);
    (sandbox, mirror, source)
}

/// Asserts that the mirror has the branches and tags of the source, and that none of their objects is missing.
fn assert_whole(sandbox: &Sandbox, mirror: &Path, source: &Path, what: &str) {
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "{what}");
    sandbox.git(mirror, &["fsck", "--connectivity-only"]);
}

/// A commit with a file in a bare repository, without a working tree.
fn commit(sandbox: &Sandbox, repository: &Path, branch: &str, text: &str) {
    let blob = sandbox.git_with_input(repository, &["hash-object", "-w", "--stdin"], text.as_bytes());
    let tree = sandbox.git_with_input(repository, &["mktree"], format!("100644 blob {blob}\tfile\n").as_bytes());
    let parent = sandbox.oid(repository, branch);
    let mut arguments = vec!["commit-tree", "-m", text, &tree];
    if !parent.is_empty() {
        arguments.extend(["-p", &parent]);
    }
    let new = sandbox.git(repository, &arguments);
    sandbox.git(repository, &["update-ref", &format!("refs/heads/{branch}"), &new]);
}

/// Twenty forks that share the objects of one repository and begin with one commit of their own. Every other mirror shares objects too.
#[test]
fn a_network_of_forks() {
    let sandbox = Sandbox::new();
    let root = sandbox.path("root.git");
    sandbox.bare("root.git");
    for n in 0..30 {
        commit(&sandbox, &root, "main", &format!("root {n}\n"));
    }
    sandbox.bare("pool.git");
    let pool = sandbox.path("pool.git");
    sandbox.git(&root, &["push", "-q", pool.to_str().unwrap(), "main"]);
    let server = Server::start(&sandbox, Kind::Http);
    for n in 0..20 {
        let (fork, mirror) = (sandbox.bare(&format!("fork{n}.git")), sandbox.bare(&format!("mirror{n}.git")));
        std::fs::write(fork.join("objects/info/alternates"), format!("{}/objects\n", root.display())).unwrap();
        // Every other mirror borrows objects, so it advertises `.have` lines.
        if n % 2 == 0 {
            std::fs::write(mirror.join("objects/info/alternates"), "../../pool.git/objects\n").unwrap();
        }
        let tip = sandbox.oid(&root, "main");
        sandbox.git(&fork, &["update-ref", "refs/heads/main", &tip]);
        commit(&sandbox, &fork, "main", &format!("fork {n}\n"));
        let url = if n % 3 == 0 { server.url(&format!("mirror{n}.git")) } else { mirror.display().to_string() };
        std::fs::create_dir_all(fork.join("mirror-push")).unwrap();
        std::fs::write(fork.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
        sandbox.mirror_push_ok(&fork, &["add", "m", &url]);
        if n % 3 == 0 {
            server.configure_access(&sandbox, &fork, "m");
        }
        sandbox.mirror_push_ok(&fork, &["drain", "-q"]);
        assert_whole(&sandbox, &mirror, &fork, &format!("fork {n}"));
        commit(&sandbox, &fork, "main", &format!("fork {n} again\n"));
        commit(&sandbox, &fork, "topic", &format!("topic {n}\n"));
        sandbox.mirror_push_ok(&fork, &["sync", "-q"]);
        assert_whole(&sandbox, &mirror, &fork, &format!("fork {n}, later"));
    }
}

#[test]
fn objects_that_only_the_environment_names() {
    let (sandbox, mirror, source) = scene(&[]);
    let other = sandbox.bare("other.git");
    for n in 0..100 {
        commit(&sandbox, &other, "main", &format!("{n}\n"));
    }
    let tip = sandbox.oid(&other, "main");
    std::fs::remove_dir_all(source.join("objects/pack")).unwrap();
    std::fs::create_dir(source.join("objects/pack")).unwrap();
    let named = |directory: &str, program: &str, arguments: &[&str]| -> Completed {
        let mut command = if program == "git" { sandbox.command("git") } else { sandbox.program(&source) };
        let command = command.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", directory).current_dir(&source).args(arguments);
        crate::scene::sandbox::run_with_input(command, b"")
    };
    let objects = format!("/nowhere:{}", other.join("objects").display());
    for (n, directory) in [objects.as_str(), "../other.git/objects"].into_iter().enumerate() {
        let name = format!("refs/heads/b{n}");
        let value = sandbox.git(&other, &["rev-parse", &format!("main~{}", 1 - n)]);
        assert_eq!(named(directory, "git", &["update-ref", &name, &value]).status, 0);
        assert_eq!(named(directory, "mirror-push", &["sync", "-q"]).status, 0);
        assert_eq!(sandbox.oid(&mirror, &name), value);
    }
    assert_eq!(sandbox.oid(&mirror, "b1"), tip);
    sandbox.git(&mirror, &["fsck"]);
    let left = std::fs::read_dir(sandbox.path("")).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with("git-mirror-push-")).collect();
    assert!(left.is_empty(), "{left:?}");
    // Without the variable, the object of the ref is missing here. The sync reports the ref, and the mirror keeps its value.
    assert_eq!(named(&objects, "git", &["update-ref", "refs/heads/b1", "refs/heads/b0"]).status, 0);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    assert_eq!(sandbox.oid(&mirror, "b1"), tip, "{said:?}");
    assert!(said.status == 1 && said.out.contains("refs/heads/b1"), "{said:?}");
}

/// Ten thousand commits on a thousand branches and tags.
fn fill(sandbox: &Sandbox, source: &Path) {
    let mut text = String::new();
    for n in 1..=10_000 {
        let message = format!("commit {n}\n");
        text.push_str(&format!("commit refs/heads/b{}\nmark :{n}\n", n % 700));
        text.push_str(&format!(
            "committer T <t@example.org> {} +0000\ndata {}\n{message}",
            1_700_000_000 + n,
            message.len()
        ));
        if n > 1 {
            text.push_str(&format!("from :{}\n", if n % 50 == 0 { n / 2 } else { n - 1 }));
        }
        if n % 97 == 0 {
            text.push_str(&format!("merge :{}\n", n - 60));
        }
        text.push_str(&format!("M 100644 inline dir{}/file{}\ndata {}\n{message}\n", n % 20, n % 500, message.len()));
        if n % 30 == 0 {
            let tag = format!("tag {n}\n");
            text.push_str(&format!(
                "tag v{n}\nfrom :{n}\ntagger T <t@example.org> {n} +0000\ndata {}\n{tag}\n",
                tag.len()
            ));
        }
    }
    text.push_str("reset refs/heads/main\nfrom :10000\n\ndone\n");
    sandbox.git_with_input(source, &["fast-import", "--quiet", "--done"], text.as_bytes());
}

/// Fifteen git commands store objects or refs in another way. After each, refs move, are rewritten and are deleted.
#[test]
fn packed_in_every_way_git_offers() {
    let (sandbox, mirror, source) = scene(&["--prune", "deleted"]);
    fill(&sandbox, &source);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_whole(&sandbox, &mirror, &source, "imported");
    assert!(sandbox.refs(&source).len() > 1000);
    let ways: [&[&str]; 15] = [
        &["repack", "-q"],
        &["multi-pack-index", "write"],
        &["gc", "-q"],
        &["commit-graph", "write", "--reachable", "--no-progress"],
        &["-c", "commitGraph.generationVersion=1", "commit-graph", "write", "--reachable", "--no-progress"],
        &["commit-graph", "write", "--reachable", "--split", "--changed-paths", "--no-progress"],
        &["repack", "-q", "-a", "-d", "--write-bitmap-index"],
        &["repack", "-q", "--geometric=2", "-d", "--write-midx", "--write-bitmap-index"],
        &["multi-pack-index", "write", "--bitmap"],
        &["multi-pack-index", "write", "--incremental"],
        &["repack", "-q", "-A", "-d", "-f", "--depth=250", "--window=5"],
        &["repack", "-q", "--cruft", "-d"],
        &["-c", "pack.indexVersion=1", "repack", "-q", "-a", "-d", "-F"],
        &["-c", "pack.packSizeLimit=300k", "repack", "-q", "-a", "-d", "--no-write-bitmap-index"],
        &["pack-refs", "--all", "--prune"],
    ];
    for (n, way) in ways.iter().enumerate() {
        sandbox.git(&source, way);
        commit(&sandbox, &source, "main", &format!("after {way:?}\n"));
        let branch = |at: usize| format!("refs/heads/b{}", n * 10 + at);
        for at in 0..5 {
            sandbox.git(&source, &["update-ref", &branch(at), "main"]);
        }
        sandbox.git(&source, &["update-ref", &branch(5), "main~3"]);
        sandbox.git(&source, &["update-ref", "-d", &branch(6)]);
        sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{way:?}");
    }
    assert_whole(&sandbox, &mirror, &source, "in the end");
    let fresh = sandbox.bare("fresh.git");
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", fresh.to_str().unwrap()]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_whole(&sandbox, &fresh, &source, "a mirror that is new");
}

#[test]
fn replaced_commits_are_mirrored_as_they_are_stored() {
    let (sandbox, mirror, source) = scene(&[]);
    for n in 0..3 {
        commit(&sandbox, &source, "main", &format!("{n}\n"));
    }
    let [tip, before] = ["main", "main~1"].map(|name| sandbox.git(&source, &["rev-parse", name]));
    // For git, the parent of main has no parent from now on.
    let orphan = sandbox.git(&source, &["commit-tree", "-m", "orphan", "main^{tree}"]);
    sandbox.git(&source, &["replace", &before, &orphan]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.oid(&mirror, "main"), tip);
    assert_eq!(sandbox.git(&mirror, &["rev-list", "--count", "main"]), "3");
    commit(&sandbox, &source, "main", "more\n");
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.git(&mirror, &["rev-list", "--count", "main"]), "4");
    assert_eq!(sandbox.git(&mirror, &["for-each-ref", "refs/replace"]), "");
}

#[test]
fn repositories_that_git_refuses_or_reads_differently_are_refused() {
    type Change<'a> = &'a dyn Fn(&Sandbox, &Path);
    let set = |s: &Sandbox, source: &Path, key: &str, value: &str| {
        s.git(source, &["config", key, value]);
    };
    let refusals: [(&str, Change<'_>); 4] = [
        ("extensions.frobnicate, which is not known here", &|s, source| {
            set(s, source, "extensions.frobnicate", "true");
            set(s, source, "core.repositoryFormatVersion", "1");
        }),
        ("extensions.refstorage, which needs core.repositoryFormatVersion = 1", &|s, source| {
            std::fs::write(
                source.join("config"),
                "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[extensions]\n\trefstorage = files\n",
            )
            .unwrap();
            assert!(s.try_git(source, &["rev-parse", "HEAD"]).status != 0, "git refuses it too");
        }),
        ("extensions.refstorage of a kind that is not known here", &|_, source| {
            let config = std::fs::read_to_string(source.join("config")).unwrap();
            let text = config.replace("repositoryformatversion = 0", "repositoryformatversion = 1");
            std::fs::write(source.join("config"), text + "[extensions]\n\trefstorage = punchcards\n").unwrap();
        }),
        ("has grafts", &|s, source| {
            let graft = format!("# they were never here\n{}\n", s.oid(source, "main"));
            std::fs::create_dir_all(source.join("info")).unwrap();
            std::fs::write(source.join("info/grafts"), graft).unwrap();
        }),
    ];
    for (words, change) in refusals {
        // SHA-1 and files, because these need no extension: the cases write the configuration anew.
        let sandbox = Sandbox::of(("sha1", "files"));
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source("mirror.git", &[]);
        commit(&sandbox, &source, "main", "one\n");
        change(&sandbox, &source);
        let said = sandbox.mirror_push(&source, &["sync"]);
        assert_eq!(said.status, 128, "{words}: {said:?}");
        assert!(said.err.contains(words) && said.err.lines().count() == 1, "'{words}' is not in {said:?}");
        assert_eq!(sandbox.refs(&mirror), Vec::<String>::new());
    }
    // A comment in `info/grafts` is no graft, and `extensions.preciousObjects` is accepted.
    let (sandbox, mirror, source) = scene(&[]);
    commit(&sandbox, &source, "main", "one\n");
    std::fs::create_dir_all(source.join("info")).unwrap();
    std::fs::write(source.join("info/grafts"), "# none\n\n").unwrap();
    set(&sandbox, &source, "extensions.preciousObjects", "true");
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

/// A hook that runs in a linked worktree writes into the repository of that worktree.
#[test]
fn a_push_into_a_working_tree_or_a_linked_one() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let tree = sandbox.path("tree");
    sandbox.git(&sandbox.path(""), &["init", "-q", tree.to_str().unwrap()]);
    sandbox.git(&tree, &["commit", "-q", "--allow-empty", "-m", "one"]);
    sandbox.git(&tree, &["config", "receive.denyCurrentBranch", "updateInstead"]);
    sandbox.git(&tree, &["worktree", "add", "-q", "-b", "linked", "../linked"]);
    let linked = sandbox.path("linked");
    std::fs::create_dir_all(tree.join(".git/mirror-push")).unwrap();
    std::fs::write(tree.join(".git/mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    // In the linked worktree, without `--git-dir`.
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
    let said = crate::scene::sandbox::run_with_input(
        command.current_dir(&linked).args(["add", "m", mirror.to_str().unwrap()]),
        b"",
    );
    assert_eq!(said.status, 0, "{said:?}");
    assert!(tree.join(".git/mirror-push/remotes/m").is_dir());
    sandbox.mirror_push_ok(&linked, &["drain", "-q"]);
    let work = sandbox.work(&tree);
    for (n, there) in [&tree, &linked].into_iter().enumerate() {
        work.git(&["fetch", "-q", "origin"]);
        work.git(&["checkout", "-q", "--detach", "origin/main"]);
        work.commit(&format!("to the tree {n}"));
        let to = format!("HEAD:refs/heads/pushed{n}");
        work.git(&["push", "-q", there.to_str().unwrap(), &to]);
        assert!(!there.join("mirror-push").exists() && !tree.join(".git/worktrees/linked/mirror-push").exists());
        assert_eq!(std::fs::read_dir(tree.join(".git/mirror-push/spool/incoming")).unwrap().count(), 1);
        sandbox.mirror_push_ok(there, &["drain", "-q"]);
        assert_whole(&sandbox, &mirror, &tree, "pushed");
    }
    // The HEAD of the linked worktree names `linked`. The default branch is still the one that the repository's HEAD names.
    let other = sandbox.bare("other.git");
    sandbox.mirror_push_ok(
        &linked,
        &["add", "other", other.to_str().unwrap(), "--only-protected-branches", "--tags", "none"],
    );
    sandbox.mirror_push_ok(&linked, &["sync", "-q", "other"]);
    assert_eq!(sandbox.git(&other, &["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    // If the hook cannot find the repository of the worktree, it does not record the push where no drain would find it.
    let own = tree.join(".git/worktrees/linked");
    std::fs::rename(own.join("commondir"), own.join("commondir.kept")).unwrap();
    std::fs::create_dir(own.join("commondir")).unwrap();
    let mut hook = sandbox.command(tree.join(".git/hooks/post-receive"));
    let line = format!("{} {} refs/heads/x\n", sandbox.digits('0'), sandbox.oid(&tree, "main"));
    let said = crate::scene::sandbox::run_with_input(hook.env("GIT_DIR", &own), line.as_bytes());
    assert!(said.status == 0 && said.err.contains("cannot record this push"), "{said:?}");
    assert!(!own.join("mirror-push").exists());
    std::fs::remove_dir(own.join("commondir")).unwrap();
    std::fs::rename(own.join("commondir.kept"), own.join("commondir")).unwrap();
    let status = sandbox.mirror_push_ok(&linked, &["status", "--json"]).json();
    assert_eq!(status[0]["repository"], tree.join(".git").to_str().unwrap());
}

/// Settings of a mirror that concern a push to it: hidden refs and signed pushes.
#[test]
fn a_mirror_that_hides_refs_or_wants_signed_pushes() {
    for kind in [Kind::Path, Kind::Git, Kind::Http] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, kind);
        let source = server.source(&sandbox, "mirror.git", &["--prune", "mirror"]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain", "-q"]);
        // The mirror has a hidden ref, which we can neither see nor delete. It also offers a nonce for signed pushes, which we do not use.
        sandbox.git(&mirror, &["update-ref", "refs/heads/secret/theirs", "main"]);
        for (key, value) in [("transfer.hideRefs", "refs/heads/secret"), ("receive.certNonceSeed", "seed")] {
            sandbox.git(&mirror, &["config", key, value]);
        }
        work.commit("two");
        work.push(&["main", "main:secret/ours"]);
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        let outcomes = sandbox.outcomes(&said);
        let expected = [("refs/heads/main", "fast_forwarded"), ("refs/heads/secret/ours", "remote_rejected")];
        assert_eq!(outcomes, expected.map(|(name, word)| (name.to_owned(), word.to_owned())), "{kind:?}: {said:?}");
        assert!(said.out.contains("deny updating a hidden ref"), "{kind:?}: {said:?}");
        assert_ne!(sandbox.oid(&mirror, "refs/heads/secret/theirs"), "", "{kind:?}");
        // What the source hides from its own users is mirrored none the less.
        sandbox.git(&source, &["config", "uploadpack.hideRefs", "refs/heads/inner"]);
        work.push(&["main:inner/x", ":secret/ours"]);
        sandbox.mirror_push(&source, &["sync", "-q"]);
        assert_eq!(sandbox.oid(&mirror, "refs/heads/inner/x"), sandbox.oid(&source, "main"), "{kind:?}");
        // A hook that requires a push certificate gets none. Its message is in the report.
        script(
            &mirror.join("hooks/pre-receive"),
            "#!/bin/sh\n[ -n \"$GIT_PUSH_CERT\" ] || { echo 'sign it'; exit 1; }\n",
        );
        sandbox.git(&mirror, &["config", "core.hooksPath", "hooks"]);
        work.commit("three");
        work.push(&["main"]);
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        assert!(said.status == 1 && said.out.contains("sign it"), "{kind:?}: {said:?}");
    }
}
