//! Small packs are made in process, others by git; what arrives is whole in either way.

use std::path::Path;

use crate::scene::sandbox::{Sandbox, Work};
use crate::scene::servers::{Kind, Server};

/// The programs that one drain starts, by strace.
fn programs(sandbox: &Sandbox, source: &Path) -> Vec<String> {
    let trace = sandbox.path("trace");
    let mut command = sandbox.command("strace");
    command.args(["-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o"]).arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("--git-dir").arg(source).args(["drain", "-q"]);
    assert!(command.status().unwrap().success());
    let text = std::fs::read_to_string(trace).unwrap();
    let calls = text.lines().filter(|line| line.contains("execve(") && line.contains(") = 0"));
    calls
        .map(|line| {
            line.split('"').nth(1).unwrap().rsplit('/').next().unwrap().to_owned()
                + if line.contains("\"pack-objects\"") { " pack-objects" } else { "" }
        })
        .collect()
}

fn write(work: &Work<'_>, name: &str, text: &str) {
    let path = work.path.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    work.git(&["add", "-A"]);
}

/// Pushes many shapes of history, one after the other. After each push, the mirror has every object.
#[test]
fn every_small_push_arrives_whole_and_without_pack_objects() {
    for kind in [Kind::Path, Kind::Http, Kind::Git] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, kind);
        let source = server.source(&sandbox, "mirror.git", &[]);
        let work = sandbox.work(&source);
        let arrived = |what: &str, refspecs: &[&str]| {
            work.push(refspecs);
            let started = programs(&sandbox, &source);
            assert!(!started.iter().any(|program| program.contains("pack-objects")), "{kind:?}, {what}: {started:?}");
            assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{kind:?}, {what}");
            sandbox.git(&mirror, &["fsck", "--full", "--strict", "--connectivity-only"]);
            let missing = sandbox.git(&mirror, &["rev-list", "--objects", "--all", "--missing=print"]);
            assert!(!missing.lines().any(|line| line.starts_with('?')), "{kind:?}, {what}: {missing}");
        };
        write(&work, "a/b/c.txt", "one\n");
        write(&work, "top", "top\n");
        work.commit("first");
        arrived("everything", &["main"]);
        write(&work, "a/b/c.txt", "two\n");
        work.commit("change below");
        arrived("a change", &["main"]);
        work.git(&["mv", "a", "z"]);
        work.commit("rename a tree");
        arrived("a rename", &["main"]);
        work.commit("empty");
        arrived("an empty commit", &["main"]);
        work.git(&["rm", "-rq", "."]);
        work.commit("nothing left");
        arrived("the empty tree", &["main"]);
        work.git(&["checkout", "-q", "-b", "side", "HEAD~2"]);
        write(&work, "side/x", "x\n");
        work.commit("side");
        work.git(&["checkout", "-q", "main"]);
        write(&work, "main-only", "m\n");
        work.commit("main");
        work.git(&["merge", "-q", "-m", "merge", "side"]);
        arrived("a merge of what was never pushed", &["main"]);
        work.git(&["tag", "-a", "-m", "t", "v1"]);
        work.git(&["tag", "-a", "-m", "tt", "v1-of-tag", "v1"]);
        arrived("tags of tags", &["v1", "v1-of-tag"]);
        std::fs::write(work.path.join("main-only"), "m\n").unwrap();
        work.git(&["update-index", "--chmod=+x", "main-only"]);
        work.git(&["commit", "-q", "-m", "mode"]);
        arrived("a mode", &["main"]);
        let commit = work.git(&["rev-parse", "HEAD"]);
        work.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
        work.git(&["commit", "-q", "-m", "submodule"]);
        arrived("a submodule", &["main"]);
        work.git(&["checkout", "-q", "--orphan", "other"]);
        write(&work, "else", "else\n");
        work.commit("another root");
        arrived("another root", &["other", "+HEAD~0:main"]);
    }
}

#[test]
fn what_is_large_is_left_to_git() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    let arrived = |what: &str, refspecs: &[&str]| {
        work.push(refspecs);
        let started = programs(&sandbox, &source);
        assert!(started.iter().any(|program| program.contains("pack-objects")), "{what}: {started:?}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{what}");
        sandbox.git(&mirror, &["fsck", "--full"]);
    };
    write(&work, "large", &"x".repeat(300 << 10));
    work.commit("one large file");
    arrived("a large file", &["main"]);
    for n in 0..70 {
        work.commit(&n.to_string());
    }
    arrived("many commits", &["main"]);
    for n in 0..300 {
        std::fs::write(work.path.join(format!("f{n}")), n.to_string()).unwrap();
    }
    work.git(&["add", "-A"]);
    work.commit("many files");
    arrived("many files", &["main"]);
    std::fs::create_dir_all(work.path.join("d/".repeat(80))).unwrap();
    write(&work, &format!("{}deep", "d/".repeat(80)), "deep\n");
    work.commit("deep");
    arrived("deep trees", &["main"]);
    let blob = sandbox.git_with_input(&source, &["hash-object", "-w", "--stdin"], b"a blob");
    sandbox.git(&source, &["tag", "blob", &blob]);
    sandbox.git(&source, &["tag", "tree", "main^{tree}"]);
    work.commit("with them");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}
