//! What is kept between drains: status, history, and `mirrored/`.

use std::path::Path;

use crate::sandbox::Sandbox;

fn remote(source: &Path, name: &str) -> std::path::PathBuf {
    source.join("mirror-push/remotes/m").join(name)
}

#[test]
fn mirrored_is_in_gits_own_format_and_holds_only_what_was_ours() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main"]);
    sandbox.ok(&source, &["drain"]);
    assert_eq!(std::fs::read_to_string(remote(&source, "mirrored/refs/heads/main")).unwrap(), format!("{one}\n"));
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    assert_eq!(std::fs::read_to_string(remote(&source, "mirrored/refs/heads/main")).unwrap(), format!("{one}\n"));
}

#[test]
fn damaged_books_never_cost_more_than_a_look() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:topic"]);
    sandbox.ok(&source, &["drain"]);
    for garbage in [&b""[..], b"{", b"\0\0\0\0", b"{\"version\": 1}", b"[1,2]"] {
        for name in ["status.json", "history.jsonl", "mirrored/refs/heads/main", "mirrored/packed-refs"] {
            std::fs::write(remote(&source, name), garbage).unwrap();
        }
        std::fs::write(remote(&source, "mirrored/refs/heads/topic.lock"), "").unwrap();
        work.commit("more");
        work.push(&["main", "main:topic"]);
        let said = sandbox.mirror_push(&source, &["drain"]);
        assert!(!said.err.contains("panicked"), "{said:?}");
        assert_eq!(said.status, 0, "{said:?}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
        assert_eq!(sandbox.ok(&source, &["status", "--json"]).json()[0]["update_status"], "finished");
    }
}

#[test]
fn files_of_a_later_version_are_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.ok(&source, &["drain"]);
    let status = remote(&source, "status.json");
    let kept = std::fs::read_to_string(&status).unwrap();
    let later = kept.replace("\"version\": 1", "\"version\": 2");
    std::fs::write(&status, &later).unwrap();
    for command in ["sync", "status"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert!(said.status != 0 && format!("{said:?}").contains("is of version 2, this program knows 1"), "{said:?}");
        assert_eq!(std::fs::read_to_string(&status).unwrap(), later);
    }
    std::fs::write(&status, &kept).unwrap();
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("version = 2\n{text}")).unwrap();
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 128 && said.err.contains("config.toml:1: the file is of version 2"), "{said:?}");
    std::fs::write(&config, format!("version = 1\n{text}")).unwrap();
    sandbox.ok(&source, &["sync"]);
}

#[test]
fn a_record_that_names_what_is_gone_stops_no_other_ref() {
    let sandbox = Sandbox::of_files();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "mirror"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:empty", "main:hollow"]);
    sandbox.ok(&source, &["drain"]);
    let before = sandbox.oid(&mirror, "empty");
    // A power failure: one ref is an empty file, one names an object that never reached the disk.
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
    let status = sandbox.mirror_push(&source, &["status", "--json"]).json();
    let named: Vec<_> =
        status[0]["refs"].as_array().unwrap().iter().map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(named, ["rejected", "rejected"], "{status}");
}

#[test]
fn the_history_is_bounded() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.ok(&source, &["drain"]);
    let history = remote(&source, "history.jsonl");
    let line = std::fs::read_to_string(&history).unwrap();
    std::fs::write(&history, line.repeat((1 << 20) / line.len() + 1)).unwrap();
    sandbox.ok(&source, &["sync"]);
    assert!(std::fs::metadata(&history).unwrap().len() < 600 << 10);
    assert!(sandbox.ok(&source, &["log", "--json"]).json().as_array().unwrap().len() > 100);
}
