//! Object formats and ref storages: the rules on every pair of them, and what mirrors of another kind get.

use std::path::Path;

use crate::scene::sandbox::{Formats, Sandbox, Work, gits};
use crate::scene::servers::{Kind, Server};

/// Every pair that the git in PATH can make.
fn pairs() -> impl Iterator<Item = Formats> {
    let said = std::process::Command::new("git").args(["init", "-h"]).output().unwrap();
    let knows_reftable = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains("--ref-format");
    if !knows_reftable {
        crate::scene::sandbox::skip("this git knows no reftable");
    }
    let pairs = [("sha1", "files"), ("sha1", "reftable"), ("sha256", "files"), ("sha256", "reftable")];
    pairs.into_iter().filter(move |(_, storage)| knows_reftable || *storage == "files")
}

const KINDS: [Kind; 5] = [Kind::Path, Kind::Git, Kind::Ssh, Kind::Http, Kind::Https];

/// Calls `test` with a source and a mirror, for each combination of formats with the same object format. `options` are those of the mirror.
fn each_pair(options: &[&str], mut test: impl FnMut(&Sandbox, &Path, &Path)) {
    for formats in pairs() {
        for (hash, storage) in pairs().filter(|(hash, _)| *hash == formats.0) {
            let sandbox = Sandbox::of(formats);
            let mirror = sandbox.bare_of("mirror.git", (hash, storage));
            let source = sandbox.source(mirror.to_str().unwrap(), options);
            let stub = std::fs::read_to_string(source.join("HEAD")).unwrap().contains(".invalid");
            assert_eq!(stub, formats.1 == "reftable", "this git made what was asked for");
            test(&sandbox, &source, &mirror);
            sandbox.git(&mirror, &["fsck", "--strict"]);
        }
    }
}

/// Makes a fast-forward (`main`), a rewrite here (`rewritten`) and a divergence (`divergent`). `outcomes` are those that a sync
/// must report for them, in this order. One more branch stays the same.
fn situations(sandbox: &Sandbox, source: &Path, mirror: &Path, outcomes: [&str; 3]) {
    let work = sandbox.work(source);
    work.commit("one");
    work.push(&["main", "main:rewritten", "main:divergent", "main:same"]);
    sandbox.mirror_push_ok(source, &["drain", "-q"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
    let theirs = sandbox.git(mirror, &["commit-tree", "-m", "theirs", "main^{tree}"]);
    sandbox.git(mirror, &["update-ref", "refs/heads/divergent", &theirs]);
    work.commit("two");
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("other");
    work.push(&["main", "+other:rewritten", "+other:divergent"]);
    let said = sandbox.mirror_push(source, &["sync", "--json"]);
    let expected =
        [("divergent", outcomes[2]), ("main", outcomes[0]), ("rewritten", outcomes[1]), ("same", "up_to_date")];
    let expected = expected.map(|(name, word)| (format!("refs/heads/{name}"), word.to_owned()));
    assert_eq!(sandbox.outcomes(&said), expected, "{:?}", sandbox.formats());
    let is_theirs_kept = sandbox.oid(mirror, "divergent") == theirs;
    assert_eq!(is_theirs_kept, outcomes[2] == "divergent", "{:?}", sandbox.formats());
}

#[test]
fn what_diverges_is_overwritten_by_default_in_every_format() {
    each_pair(&[], |sandbox, source, mirror| {
        situations(sandbox, source, mirror, ["fast_forwarded", "forced", "forced"]);
        assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
    });
}

#[test]
fn what_diverges_is_kept_under_keep_in_every_format() {
    each_pair(&["--divergent-refs", "keep"], |sandbox, source, mirror| {
        situations(sandbox, source, mirror, ["fast_forwarded", "forced", "divergent"]);
    });
}

#[test]
fn nothing_is_pushed_under_fail_in_every_format() {
    each_pair(&["--divergent-refs", "fail"], |sandbox, source, mirror| {
        situations(sandbox, source, mirror, ["rejected", "rejected", "divergent"]);
    });
}

#[test]
fn each_rule_of_deletion_in_every_format() {
    for (prune, outcomes) in [
        ("merged", ["deleted", "kept", "kept"]),
        ("deleted", ["deleted", "deleted", "kept"]),
        ("mirror", ["deleted", "deleted", "deleted"]),
        ("never", ["kept", "kept", "kept"]),
    ] {
        each_pair(&["--prune", prune], |sandbox, source, mirror| {
            let work = sandbox.work(source);
            work.commit("one");
            work.git(&["checkout", "-q", "-b", "alone"]);
            work.commit("alone");
            work.push(&["main", "main:merged", "alone"]);
            sandbox.mirror_push_ok(source, &["drain", "-q"]);
            sandbox.git(mirror, &["update-ref", "refs/heads/theirs", "main"]);
            work.push(&[":merged", ":alone"]);
            let said = sandbox.mirror_push_ok(source, &["sync", "--json"]);
            let names = ["refs/heads/merged", "refs/heads/alone", "refs/heads/theirs"];
            for (name, outcome) in names.into_iter().zip(outcomes) {
                let found = sandbox.outcomes(&said).into_iter().find(|(found, _)| found == name).unwrap();
                assert_eq!(found.1, outcome, "{prune}, {name}, {:?}: {said:?}", sandbox.formats());
                assert_eq!(sandbox.oid(mirror, name).is_empty(), outcome == "deleted", "{prune}, {name}");
            }
        });
    }
}

#[test]
fn every_transport_takes_every_format() {
    for formats in pairs() {
        for kind in KINDS {
            let sandbox = Sandbox::of(formats);
            let mirror = sandbox.bare("mirror.git");
            let server = Server::start(&sandbox, kind);
            let source = server.source(&sandbox, "mirror.git", &["--prune", "deleted"]);
            let work = sandbox.work(&source);
            work.commit("one");
            work.git(&["tag", "-a", "-m", "first", "v1"]);
            work.push(&["main", "v1", "main:gone"]);
            sandbox.mirror_push_ok(&source, &["drain", "-q"]);
            work.commit("two");
            work.push(&["main", ":gone"]);
            sandbox.mirror_push_ok(&source, &["drain", "-q"]);
            assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{kind:?}, {formats:?}");
            sandbox.git(&mirror, &["fsck", "--strict"]);
        }
    }
}

#[test]
fn a_mirror_of_the_other_object_format_gets_nothing_and_the_error_says_why() {
    for kind in KINDS {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare_of("mirror.git", (sandbox.other_hash(), "files"));
        let server = Server::start(&sandbox, kind);
        let source = server.source(&sandbox, "mirror.git", &[]);
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        let said = sandbox.mirror_push(&source, &["drain", "--json"]);
        assert_eq!(said.status, 1, "{kind:?}: {said:?}");
        let report = said.json()[0].clone();
        assert_eq!(report["update_status"], "failed", "a permanent failure: {report}");
        let words = format!("git init --bare --object-format={}", sandbox.formats().0);
        assert!(report["error"].as_str().unwrap().contains(&words), "{kind:?}: {report}");
        let objects = sandbox.git(&mirror, &["count-objects", "-v"]);
        assert!(objects.starts_with("count: 0\n") && objects.contains("in-pack: 0\n"), "{kind:?}: {objects}");
        if matches!(kind, Kind::Http | Kind::Https) {
            let requests = server.requests(&sandbox);
            assert!(requests.iter().all(|request| request.contains(" GET ")), "nothing was sent: {requests:?}");
        }
    }
}

/// The programs that a command starts, by strace.
fn programs(sandbox: &Sandbox, source: &Path, arguments: &[&str]) -> Vec<String> {
    let trace = sandbox.path("trace");
    let mut command = sandbox.command("strace");
    command.args(["-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("--git-dir").arg(source).args(arguments);
    assert!(command.status().unwrap().success());
    let text = std::fs::read_to_string(trace).unwrap();
    let started = text.lines().filter(|line| line.contains("execve(") && line.ends_with(" = 0"));
    started.map(|line| line.split_once('[').unwrap().1.to_owned()).collect()
}

/// Creates and moves 200 refs, and deletes 150 of them, with drains and a sync. The number of programs must not grow with that of the
/// refs.
#[test]
fn no_program_is_started_for_each_ref() {
    for formats in pairs().filter(|(hash, _)| *hash == "sha1") {
        let sandbox = Sandbox::of(formats);
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source(mirror.to_str().unwrap(), &["--prune", "deleted"]);
        let work = sandbox.work(&source);
        let point = |all: &Work<'_>, to: &str| {
            let lines: String = (0..200).map(|n| format!("update refs/heads/b{n} {to}\n")).collect();
            sandbox.git_with_input(&all.path, &["update-ref", "--stdin"], lines.as_bytes());
        };
        for n in 0..3 {
            let oid = work.commit(&format!("commit {n}"));
            point(&work, &oid);
            work.push(&["main", "refs/heads/b*"]);
            let started = programs(&sandbox, &source, &["drain", "-q"]);
            assert!(started.len() < 16, "{formats:?}: {started:#?}");
            assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
        }
        let gone: Vec<String> = (0..150).map(|n| format!(":b{n}")).collect();
        work.push(&gone.iter().map(String::as_str).collect::<Vec<_>>());
        sandbox.add_mirror_config(&source, "max_deletes = 1000");
        let started = programs(&sandbox, &source, &["sync", "-q"]);
        assert!(started.len() < 16, "{formats:?}: {started:#?}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    }
}

#[test]
fn symbolic_refs_are_left_alone_in_every_format() {
    each_pair(&["--prune", "mirror"], |sandbox, source, mirror| {
        let work = sandbox.work(source);
        work.commit("one");
        work.push(&["main", "main:plain"]);
        sandbox.mirror_push_ok(source, &["drain", "-q"]);
        sandbox.git(mirror, &["symbolic-ref", "refs/heads/theirs", "refs/heads/main"]);
        sandbox.git(source, &["symbolic-ref", "refs/heads/ours", "refs/heads/main"]);
        sandbox.git(source, &["symbolic-ref", "refs/heads/plain", "refs/heads/main"]);
        work.commit("two");
        work.push(&["main"]);
        sandbox.mirror_push_ok(source, &["sync", "-q"]);
        assert_eq!(sandbox.git(mirror, &["symbolic-ref", "refs/heads/theirs"]), "refs/heads/main");
        assert_eq!(sandbox.oid(mirror, "main"), sandbox.oid(source, "main"));
        assert_eq!(sandbox.oid(mirror, "refs/heads/ours"), "", "ours is not mirrored");
        assert_ne!(sandbox.oid(mirror, "refs/heads/plain"), "", "what became symbolic here was not deleted there");
    });
}

/// The program and the hook under one git, the mirror served by another.
#[test]
fn every_git_mirrors_to_every_git() {
    let gits = gits();
    for ours in &gits {
        for theirs in &gits {
            for kind in [Kind::Git, Kind::Ssh, Kind::Http] {
                // The storage that all of them know.
                let mut sandbox = Sandbox::of_files();
                sandbox.set_git(theirs);
                let mirror = sandbox.bare("mirror.git");
                let server = Server::start(&sandbox, kind);
                sandbox.set_git(ours);
                let source = server.source(&sandbox, "mirror.git", &["--prune", "deleted"]);
                let work = sandbox.work(&source);
                work.commit("one");
                work.push(&["main", "main:gone"]);
                sandbox.mirror_push_ok(&source, &["drain", "-q"]);
                work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
                work.push(&["+main", ":gone"]);
                let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
                let words: Vec<String> = sandbox.outcomes(&said).into_iter().map(|(_, word)| word).collect();
                assert_eq!(words, ["deleted", "forced"], "{ours:?} to {theirs:?} over {kind:?}: {said:?}");
                assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
            }
        }
    }
}

#[test]
fn a_git_that_is_too_old_for_reftable_is_reported() {
    let Some(old) = gits().into_iter().find(|git| {
        let said = std::process::Command::new(git.join("git")).arg("version").output().unwrap();
        String::from_utf8_lossy(&said.stdout).contains(" 2.39")
    }) else {
        return crate::scene::sandbox::skip("there is no git 2.39 here");
    };
    let mut sandbox = Sandbox::of(("sha1", "reftable"));
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source(mirror.to_str().unwrap(), &[]);
    sandbox.set_git(&old);
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert_ne!(said.status, 0);
    assert!(format!("{}{}", said.out, said.err).contains("reftable needs git 2.45 or later"), "{said:?}");
    let said = sandbox.mirror_push(&source, &["doctor"]);
    assert!(said.status == 1 && said.out.contains("install git 2.45 or later"), "{said:?}");
}

/// `git for-each-ref` may end at a damaged table without an error message. A ref that it then does not list does not count as deleted.
#[test]
fn a_damaged_table_deletes_nothing() {
    if pairs().count() < 4 {
        return;
    }
    for hash in ["sha1", "sha256"] {
        let sandbox = Sandbox::of((hash, "reftable"));
        let mirror = sandbox.bare_of("mirror.git", (hash, "files"));
        let source = sandbox.source(mirror.to_str().unwrap(), &["--prune", "mirror"]);
        sandbox.add_mirror_config(&source, "max_deletes = 10000");
        let work = sandbox.work(&source);
        let oid = work.commit("one");
        work.push(&["main"]);
        let lines: String = (0..400).map(|n| format!("create refs/heads/branch-{n} {oid}\n")).collect();
        sandbox.git_with_input(&source, &["update-ref", "--stdin"], lines.as_bytes());
        sandbox.git(&source, &["symbolic-ref", "refs/heads/dangling", "refs/heads/none"]);
        sandbox.git(&source, &["pack-refs", "--all"]);
        sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        sandbox.git(&mirror, &["update-ref", "refs/heads/dangling", "main"]);
        let all = sandbox.refs(&mirror).len();
        assert_eq!(all, 402, "what is symbolic here is not deleted there, even when it leads nowhere");
        let list = std::fs::read_to_string(source.join("reftable/tables.list")).unwrap();
        let table = source.join("reftable").join(list.trim());
        let whole = std::fs::read(&table).unwrap();
        std::fs::set_permissions(&table, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            bytes
        };
        let mut silent = 0;
        let cuts = [0, 1, 28, 100, 4096, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec());
        // The restart table at the end of the first block (git's `Documentation/technical/reftable`), which git uses to seek.
        let header = if hash == "sha1" { 24 } else { 28 };
        let length = usize::from(whole[header + 2]) << 8 | usize::from(whole[header + 3]);
        let places = (0..whole.len()).step_by(whole.len() / 60).chain(length - 20..length);
        let zeros = sandbox.digits('0');
        let pushed: String = (0..45).map(|n| format!("{zeros} {oid} refs/heads/branch-{}\n", n * 8)).collect();
        for damaged in cuts.into_iter().chain(places.map(flipped)) {
            std::fs::write(&table, &damaged).unwrap();
            let listed = sandbox.try_git(&source, &["for-each-ref", "refs/heads"]);
            let is_short = listed.status == 0 && listed.err.is_empty() && listed.out.lines().count() < 401;
            silent += usize::from(is_short);
            // A drain reads only the refs that the push names.
            let mut hook = sandbox.command(source.join("hooks/post-receive"));
            assert_eq!(
                crate::scene::sandbox::run_with_input(hook.current_dir(&source).env("GIT_DIR", "."), pushed.as_bytes())
                    .status,
                0
            );
            sandbox.mirror_push(&source, &["drain", "-q"]);
            let said = sandbox.mirror_push(&source, &["sync", "--json"]);
            // A changed byte in a name makes it another ref for git too. That can cost a ref or two, but not more.
            assert!(
                sandbox.refs(&mirror).len() >= all - 2,
                "{} of {all} refs are left: {said:?}",
                sandbox.refs(&mirror).len()
            );
            std::fs::write(&table, &whole).unwrap();
            sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        }
        assert!(silent > 5, "git was silent {silent} times");
        assert_eq!(sandbox.refs(&mirror).len(), all);
        // After the table is repaired, a deletion is mirrored again.
        sandbox.git(&source, &["update-ref", "-d", "refs/heads/branch-7"]);
        sandbox.mirror_push_ok(&source, &["sync", "-q"]);
        assert_eq!(sandbox.refs(&mirror).len(), all - 1);
    }
}

/// The index of a large table has several levels: with some 1,500 refs of long names, or 200,000 of short ones.
#[test]
fn deletions_from_a_large_table_are_mirrored() {
    if pairs().count() < 4 {
        return;
    }
    let sandbox = Sandbox::of(("sha1", "reftable"));
    let mirror = sandbox.bare_of("mirror.git", ("sha1", "files"));
    let keys = ["--prune", "mirror", "--mirror-branch-regex", "^(main|000[0-9]-x*)$"];
    let source = sandbox.source(mirror.to_str().unwrap(), &keys);
    let work = sandbox.work(&source);
    let oid = work.commit("one");
    work.push(&["main"]);
    let name = |n: usize| format!("refs/heads/{n:04}-{}", "x".repeat(150));
    let lines: String = (0..5000).map(|n| format!("create {} {oid}\n", name(n))).collect();
    sandbox.git_with_input(&source, &["update-ref", "--stdin"], lines.as_bytes());
    sandbox.git(&source, &["pack-refs", "--all"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.refs(&mirror).len(), 11);
    sandbox.git(&source, &["update-ref", "-d", &name(7)]);
    sandbox.git(&source, &["pack-refs", "--all"]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.refs(&mirror).len(), 10);
    // A block of the lower level, which lies right before the highest level, is damaged.
    let list = std::fs::read_to_string(source.join("reftable/tables.list")).unwrap();
    let table = source.join("reftable").join(list.trim());
    let mut bytes = std::fs::read(&table).unwrap();
    let footer = bytes.len() - 68;
    let highest = u64::from_be_bytes(bytes[footer + 24..footer + 32].try_into().unwrap()) as usize;
    assert_eq!((bytes[highest], bytes[highest - 4096]), (b'i', b'i'), "there are two levels");
    sandbox.git(&source, &["update-ref", "-d", &name(8)]);
    bytes[highest - 4096] = b'x';
    std::fs::set_permissions(&table, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&table, &bytes).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status != 0 && sandbox.refs(&mirror).len() == 10, "{said:?}");
}
