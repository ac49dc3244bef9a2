//! What is kept between drains: status, history, and `mirrored/`.

use std::path::Path;

use crate::scene::Scene;
use crate::scene::sandbox::Sandbox;

fn remote(source: &Path, name: &str) -> std::path::PathBuf {
    source.join("mirror-push/remotes/m").join(name)
}

/// What `mirrored/` knows, as `git mirror-push` wrote it: its table and its journal.
fn known(source: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(remote(source, "mirrored")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files.reverse();
    files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn mirrored_holds_only_what_was_ours() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(known(&source).ends_with(&format!("\n{one} refs/heads/main\n")), "{}", known(&source));
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    assert!(!known(&source).contains(&theirs), "{}", known(&source));
}

#[test]
fn a_change_costs_a_line_and_the_files_do_not_grow_without_end() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    work.commit("one");
    let branches: Vec<String> = (0..1200).map(|n| format!("main:b{n:04}")).collect();
    let mut refspecs: Vec<&str> = branches.iter().map(String::as_str).collect();
    refspecs.push("main");
    work.push(&refspecs);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let mirrored = remote(&source, "mirrored");
    let size = |name: &str| std::fs::metadata(mirrored.join(name)).map_or(0, |file| file.len());
    let table = size("values");
    for n in 0..3 {
        work.commit("more");
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
        assert_eq!(size("values"), table, "the table is not written for one ref");
        assert!(size("journal.1") < 150 * (n + 1), "{}", size("journal.1"));
    }
    // If a sync would make the journal too large, it writes the table anew and removes the journal. It ignores the incomplete batch that
    // a killed process left.
    let two = sandbox.oid(&source, "main");
    let journal = std::fs::read_to_string(mirrored.join("journal.1")).unwrap();
    std::fs::write(mirrored.join("journal.1"), format!("{journal}{} refs/heads/main\ncrc3", "1".repeat(two.len())))
        .unwrap();
    let old = sandbox.oid(&source, "b0000");
    for n in 0..4 {
        let new = sandbox.git(&source, &["commit-tree", "-m", "rewritten", "main^{tree}"]);
        sandbox.git(&source, &["update-ref", &format!("refs/heads/b{n:04}"), &new]);
    }
    let rewrite: String = (4..1200).map(|n| format!("update refs/heads/b{n:04} {two} {old}\n")).collect();
    sandbox.git_with_input(&source, &["update-ref", "--stdin"], rewrite.as_bytes());
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(
        sandbox.refs(&mirror),
        sandbox.refs(&source),
        "every value on the mirror was recorded as ours, so all refs are updated"
    );
    assert!(size("values") > 0 && size("journal.1") == 0 && !mirrored.join("journal.1").exists());
    assert_eq!(std::fs::read_dir(&mirrored).unwrap().count(), 2, "the table and the mark for earlier programs");
}

#[test]
fn damaged_state_files_cost_no_more_than_a_comparison() {
    let scene = Scene::local(&["--divergent-refs", "keep"]).with(&["main", "main:topic"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    for garbage in [&b""[..], b"{", b"\0\0\0\0", b"{\"version\": 1}", b"[1,2]"] {
        for name in ["status.json", "history.jsonl", "mirrored/values", "mirrored/journal.1", "mirrored/journal.2"] {
            std::fs::write(remote(source, name), garbage).unwrap();
        }
        work.commit("more");
        work.push(&["main", "main:topic"]);
        let said = sandbox.mirror_push(source, &["drain"]);
        assert!(!said.err.contains("panicked"), "{said:?}");
        assert_eq!(said.status, 0, "{said:?}");
        assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
        assert_eq!(sandbox.mirror_push_ok(source, &["status", "--json"]).json()[0]["update_status"], "finished");
    }
}

#[test]
fn files_of_a_later_version_are_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let status = remote(&source, "status.json");
    let kept = std::fs::read_to_string(&status).unwrap();
    let later = kept.replace("\"version\": 1", "\"version\": 2");
    std::fs::write(&status, &later).unwrap();
    for command in ["sync", "status"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert!(
            said.status != 0 && format!("{said:?}").contains("version 2, but this program knows only version 1"),
            "{said:?}"
        );
        assert_eq!(std::fs::read_to_string(&status).unwrap(), later);
    }
    std::fs::write(&status, &kept).unwrap();
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("version = 2\n{text}")).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 128 && said.err.contains("config.toml:1: the file is of version 2"), "{said:?}");
    std::fs::write(&config, format!("version = 1\n{text}")).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
}

#[test]
fn a_broken_ref_stops_no_other_ref() {
    let sandbox = Sandbox::of_files();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:empty", "main:hollow"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let before = sandbox.oid(&mirror, "empty");
    // As after a power failure: one ref is an empty file, and one names an object that never reached the disk.
    work.commit("two");
    work.push(&["main"]);
    std::fs::write(source.join("refs/heads/empty"), "").unwrap();
    std::fs::write(source.join("refs/heads/hollow"), format!("{}\n", sandbox.digits('1'))).unwrap();
    for command in ["drain", "sync"] {
        let said = sandbox.mirror_push(&source, &[command, "--json"]);
        assert!(!said.out.contains("\"deleted\""), "{said:?}");
        assert_eq!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "{said:?}");
        assert_eq!((sandbox.oid(&mirror, "empty"), sandbox.oid(&mirror, "hollow")), (before.clone(), before.clone()));
    }
    let status = sandbox.status(&source);
    let named: Vec<_> =
        status["refs"].as_array().unwrap().iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(named, ["rejected", "rejected"], "{status}");
}

#[test]
fn the_history_is_bounded() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let history = remote(&source, "history.jsonl");
    let line = std::fs::read_to_string(&history).unwrap();
    std::fs::write(&history, line.repeat((1 << 20) / line.len() + 1)).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert!(std::fs::metadata(&history).unwrap().len() < 600 << 10);
    assert!(sandbox.mirror_push_ok(&source, &["log", "--json"]).json().as_array().unwrap().len() > 100);
}

/// A batch whose bytes have changed is ignored. It could name somebody else's value as ours, and the next run would overwrite that value.
#[test]
fn a_journal_with_a_changed_id_makes_no_foreign_value_ours() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    for message in ["one", "two"] {
        work.commit(message);
        work.push(&["main"]);
        sandbox.mirror_push_ok(&source, &["drain"]);
    }
    let two = sandbox.oid(&source, "main");
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    let journal = remote(&source, "mirrored/journal.1");
    let text = std::fs::read_to_string(&journal).unwrap();
    assert!(text.contains(&two), "{text}");
    std::fs::write(&journal, text.replace(&two, &theirs)).unwrap();
    work.commit("three");
    work.push(&["main"]);
    for command in ["drain", "sync"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert_eq!((said.status, sandbox.oid(&mirror, "main")), (1, theirs.clone()), "{command}: {said:?}");
    }
}

/// A crash may leave a journal without its table. The next table must not take that journal for its own.
#[test]
fn a_journal_without_its_table_is_not_believed() {
    let scene = Scene::local(&["--divergent-refs", "keep"]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    work.push(&["main:side"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    let side = sandbox.oid(mirror, "side");
    assert!(std::fs::read_to_string(remote(source, "mirrored/journal.1")).unwrap().contains(&side));
    // When a mirror gets a new URL, its old table is renamed to `aside`. This is the state if the process is killed just after that.
    std::fs::rename(remote(source, "mirrored/values"), remote(source, "mirrored/aside")).unwrap();
    let new = sandbox.git(source, &["commit-tree", "-m", "rewritten", "main^{tree}"]);
    sandbox.git(source, &["update-ref", "refs/heads/side", &new]);
    for _ in 0..2 {
        let said = sandbox.mirror_push(source, &["sync"]);
        assert!(said.status == 1 && said.out.contains("divergent"), "{said:?}");
        assert_eq!(sandbox.oid(mirror, "side"), side);
    }
}
