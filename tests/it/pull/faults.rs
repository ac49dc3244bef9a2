//! Runs that are killed, packs that are too large, objects that upstream lacks, names that are
//! taken, and pushers who move refs during a pull.

use std::time::Duration;

use super::Taking;
use crate::scene::sandbox::{script, wait_for};
use crate::scene::servers::Kind;

#[test]
fn a_pack_that_is_too_large_is_not_taken() {
    let s = Taking::local(&["max_input_size=100KiB"]);
    let work = s.work();
    let noise: Vec<u8> =
        (0..400_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect();
    std::fs::write(work.path.join("noise"), noise).unwrap();
    work.git(&["add", "noise"]);
    work.commit("large");
    work.push(&["main"]);
    let said = s.pull();
    assert!(said.status == 1 && said.out.contains("max_input_size"), "{said:?}");
    assert!(s.sandbox.refs(&s.here).is_empty());
    assert!(s.sandbox.git(&s.here, &["count-objects", "-v"]).contains("count: 0\n"));
    assert_eq!(s.leftovers(), Vec::<String>::new());
    s.sandbox.mirror_push_ok(&s.here, &["set", "m", "max_input_size="]);
    s.pull_ok();
    assert!(s.is_taken());
}

/// The receive-pack of a killed run still waits in a hook. The next run ends this receive-pack
/// before it reads our refs.
#[test]
fn the_receive_pack_of_a_killed_run_does_not_outlive_it() {
    let s = Taking::local(&[]);
    let begun = s.sandbox.path("begun");
    let lines = format!(
        "#!/bin/sh\ncat > /dev/null\ntest -e '{0}' && exit 0\necho $$ > '{0}.new'\nmv '{0}.new' '{0}'\nexec sleep 60\n",
        begun.display()
    );
    script(&s.here.join("hooks/pre-receive"), &lines);
    s.work().commit("one");
    s.work().push(&["main"]);
    let mut run = s.sandbox.program(&s.here).arg("pull").stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the hook", || begun.exists());
    run.kill().unwrap();
    run.wait().unwrap();
    let start = std::time::Instant::now();
    s.pull_ok();
    assert!(start.elapsed() < Duration::from_secs(30) && s.is_taken());
    let hook = std::fs::read_to_string(&begun).unwrap();
    assert!(!std::path::Path::new("/proc").join(hook.trim()).exists(), "its hook {hook} still runs");
    assert_eq!(s.leftovers(), Vec::<String>::new());
}

#[test]
fn a_pusher_who_moves_a_ref_during_the_pull_keeps_his_commit() {
    let s = Taking::local(&[]).with(&["main", "main:x"]);
    // The pre-receive hook moves the ref, as a faster pusher would.
    let oid = s.sandbox.git(&s.here, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    let lines =
        format!("#!/bin/sh\ncat > /dev/null\nenv -u GIT_QUARANTINE_PATH git update-ref refs/heads/x {}\n", oid.trim());
    script(&s.here.join("hooks/pre-receive"), &lines);
    s.work().commit("two");
    s.work().push(&["main", "main:x"]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    assert_eq!(s.here("x"), oid.trim(), "{said:?}");
    assert_eq!(s.here("main"), s.sandbox.oid(&s.up, "main"));
    assert!(s.sandbox.outcomes(&said).contains(&("refs/heads/x".into(), "divergent".into())), "{said:?}");
}

/// Upstream deletes a branch that is merged there, and a pusher moves it here meanwhile.
#[test]
fn a_pusher_who_moves_a_branch_that_upstream_deletes_keeps_his_commit() {
    for (policy, prune, word) in [
        ("keep", "merged", "kept"),
        ("overwrite", "merged", "kept"),
        ("overwrite", "deleted", "kept"),
        ("overwrite", "mirror", "deleted"),
    ] {
        let s = Taking::local(&["--divergent-refs", policy, "--prune", prune]).with(&["main", "main:x"]);
        let oid = s.sandbox.git(&s.here, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
        let (oid, once) = (oid.trim().to_owned(), s.sandbox.path("once"));
        let lines = format!(
            "#!/bin/sh\ngrep -q refs/heads/x || exit 0\ntest -e '{0}' && exit 0\n: > '{0}'\nenv -u GIT_QUARANTINE_PATH git update-ref refs/heads/x {oid}\n",
            once.display()
        );
        script(&s.here.join("hooks/pre-receive"), &lines);
        s.work().push(&[":x"]);
        let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
        assert!(once.exists(), "{policy}, {prune}: {said:?}");
        let is_kept = s.kept().iter().any(|line| line.ends_with(&oid));
        assert!(s.here("x") == oid || is_kept, "{policy}, {prune}: nobody has his commit: {said:?}");
        assert!(s.changed(&said).contains(&("refs/heads/x".into(), word.into())), "{policy}, {prune}: {said:?}");
    }
}

/// A hook here refuses the branch that contains the deleted value. So the value is kept below
/// `refs/rewritten`.
#[test]
fn what_only_a_refused_branch_contains_is_kept() {
    let s = Taking::local(&["--prune", "merged"]).with(&["main", "main:x"]);
    let work = s.work();
    work.git(&["checkout", "-q", "-b", "x", "origin/x"]);
    let side = work.commit("side");
    work.push(&["x"]);
    s.pull_ok();
    script(&s.here.join("hooks/update"), "#!/bin/sh\ntest \"$1\" != refs/heads/main\n");
    work.push(&["x:main", ":x"]);
    s.pull();
    assert_eq!(s.here("x"), "");
    assert!(s.kept().iter().any(|line| line.ends_with(side.trim())), "{:?}", s.kept());
}

#[test]
fn a_kept_ref_finds_a_free_name() {
    let s = Taking::local(&[]).with(&["main", "main:x"]);
    let first = s.here("x");
    let taken = format!("refs/rewritten/m/{}/heads/x/below", &first[..12]);
    s.sandbox.git(&s.here, &["update-ref", &taken, &first]);
    let work = s.work();
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("other");
    work.push(&["+other:x"]);
    s.pull_ok();
    assert!(s.is_taken());
    let longer = format!("refs/rewritten/m/{}/heads/x {first}", &first[..13]);
    assert!(s.kept().contains(&longer), "{:?}", s.kept());
}

/// Every name for a kept value is taken, as a hostile upstream could arrange it. The ref is not
/// replaced, and the other refs are taken.
#[test]
fn a_value_that_cannot_be_kept_is_not_replaced() {
    let s = Taking::local(&["--prune", "deleted"]).with(&["main"]);
    let work = s.work();
    work.git(&["checkout", "-q", "-b", "side"]);
    let side = work.commit("side").trim().to_owned();
    work.push(&["side:gone", "side:rewritten"]);
    s.pull_ok();
    for name in ["gone", "rewritten"] {
        for length in 12..=side.len() {
            let taken = format!("refs/rewritten/m/{}/heads/{name}", &side[..length]);
            s.sandbox.git(&s.here, &["update-ref", &taken, "refs/heads/main"]);
        }
    }
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("other");
    work.push(&[":gone", "+other:rewritten", "other:new"]);
    for _ in 0..2 {
        let said = s.sandbox.mirror_push(&s.here, &["sync", "--json"]);
        assert_eq!(said.status, 1, "{said:?}");
        let outcomes = s.changed(&said);
        for name in ["gone", "rewritten"] {
            assert_eq!(s.here(name), side);
            assert!(outcomes.contains(&(format!("refs/heads/{name}"), "rejected".into())), "{outcomes:?}");
        }
        assert_eq!(s.here("new"), s.sandbox.oid(&s.up, "new"));
    }
}

#[test]
fn nothing_is_replaced_if_it_cannot_be_noted_what_is_kept() {
    let s = Taking::local(&[]).with(&["main", "main:x"]);
    let onward = s.sandbox.bare("onward.git");
    s.sandbox.mirror_push_ok(&s.here, &["add", "onward", &onward.display().to_string()]);
    let before = s.here("x");
    s.sandbox.mirror_push_ok(&s.here, &["kept", "--expire"]);
    let noted = s.here.join("mirror-push/remotes/m/kept.jsonl");
    std::fs::create_dir(&noted).unwrap();
    let work = s.work();
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("other");
    work.push(&["+other:x"]);
    let said = s.pull();
    assert!(said.status == 1 && said.out.contains("kept"), "{said:?}");
    assert_eq!(s.here("x"), before);
    std::fs::remove_dir(&noted).unwrap();
    s.pull_ok();
    s.sandbox.mirror_push_ok(&s.here, &["drain"]);
    assert!(s.is_taken());
    assert_eq!(s.sandbox.refs(&onward), s.sandbox.refs(&s.up));
}

/// A pusher moves a branch after its deletion is planned and before the deletion is sent: while the
/// updates are sent.
#[test]
fn a_branch_that_moves_between_two_pushes_of_a_run_is_not_deleted() {
    let s = Taking::local(&["--prune", "deleted"]).with(&["main", "main:x"]);
    let oid = s.sandbox.git(&s.here, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]).trim().to_owned();
    let moves = format!("test \"$1\" = refs/heads/main || exit 0\ngit update-ref refs/heads/x {oid}");
    script(&s.here.join("hooks/post-update"), &format!("#!/bin/sh\n{moves}\n"));
    s.work().commit("two");
    s.work().push(&["HEAD:main", ":x"]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    assert_eq!(s.here("main"), s.sandbox.oid(&s.up, "main"), "{said:?}");
    assert_eq!(s.here("x"), oid, "{said:?}");
    assert!(s.changed(&said).contains(&("refs/heads/x".into(), "kept".into())), "{said:?}");
}

/// An object of one branch is missing upstream. The other refs are taken at once, at first contact
/// and later. The branch is taken when its object is there again.
#[test]
fn a_value_that_upstream_cannot_give_stops_no_other() {
    for kind in [None, Some(Kind::Http), Some(Kind::Git), Some(Kind::Ssh)] {
        let s = kind.map_or_else(|| Taking::local(&[]), |kind| Taking::behind(kind, &[]));
        for round in ["first", "second"] {
            let work = s.work();
            work.commit(round);
            work.push(&[&format!("main:{round}-a"), &format!("main:refs/tags/{round}")]);
            std::fs::write(work.path.join("file"), round).unwrap();
            work.git(&["add", "file"]);
            work.commit("with a file");
            work.push(&[&format!("main:{round}-bad")]);
            work.git(&["reset", "-q", "--hard", "HEAD^"]);
            work.commit("another");
            work.push(&[&format!("main:{round}-z")]);
            let blob = s.sandbox.oid(&s.up, &format!("{round}-bad:file"));
            let file = s.up.join("objects").join(&blob[..2]).join(&blob[2..]);
            let object = std::fs::read(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            let said = s.pull();
            assert!(said.status == 1 && said.out.contains("cannot be fetched from upstream"), "{kind:?} {said:?}");
            for name in ["a", "z", "bad"] {
                let name = format!("refs/heads/{round}-{name}");
                let expected = if name.ends_with("bad") { String::new() } else { s.sandbox.oid(&s.up, &name) };
                assert_eq!(s.here(&name), expected, "{kind:?} {round}: {said:?}");
            }
            assert_eq!(s.leftovers(), Vec::<String>::new());
            std::fs::write(&file, object).unwrap();
            s.pull_ok();
            assert!(s.is_taken(), "{kind:?} {round}");
        }
    }
}
