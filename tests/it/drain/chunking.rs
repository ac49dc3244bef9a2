//! An update that is too large for a mirror arrives in several pushes: first with fewer refs each, then with slices of a branch's history.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, wait_for};
use crate::scene::servers::{Kind, Server, free_port};

/// Makes a branch of `commits` commits with one `git fast-import`. Each commit adds `size` bytes that do not compress.
fn fill(sandbox: &Sandbox, repository: &Path, branch: &str, commits: usize, size: usize) {
    let mut random = 88_172_645_463_325_252_u64;
    let mut stream = Vec::new();
    for n in 0..commits {
        stream
            .extend(format!("commit refs/heads/{branch}\ncommitter T <t@example.org> {n} +0000\ndata 1\nx\n").bytes());
        stream.extend(format!("M 100644 inline f{n}\ndata {size}\n").bytes());
        stream.extend((0..size).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        }));
        stream.push(b'\n');
    }
    sandbox.git_with_input(repository, &["fast-import", "--quiet"], &stream);
}

/// Gives the mirror a pre-receive hook that runs `more` at the end. It adds the number of refs of each push to the returned file.
/// A push that receive-pack refuses because of its size does not reach the hook.
fn counting(sandbox: &Sandbox, mirror: &Path, more: &str) -> PathBuf {
    let log = sandbox.path("pushes");
    let hook = mirror.join("hooks/pre-receive");
    std::fs::write(&hook, format!("#!/bin/sh\ncat > '{0}.in'; wc -l < '{0}.in' >> '{0}'\n{more}\n", log.display()))
        .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    log
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_mirror_with_a_limit_on_packs_gets_the_history_in_slices() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "300k"]);
    let log = counting(&sandbox, &mirror, "");
    let source = sandbox.source("mirror.git", &[]);
    fill(&sandbox, &source, "main", 40, 30_000);
    for n in 0..5 {
        sandbox.git(&source, &["branch", &format!("b{n}"), &format!("main~{}", n * 3)]);
    }
    let said = sandbox.mirror_push_ok(&source, &["sync", "--json"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{said:?}");
    let pushes = lines(&log).len();
    assert!((5..16).contains(&pushes), "{pushes} pushes arrived: 1.2 MB in packs of at most 300 kB, then the branches");
    let status = sandbox.mirror_push_ok(&source, &["status", "--json"]).json();
    assert_eq!((&status[0]["update_status"], &status[0]["refs"]), (&"finished".into(), &serde_json::json!([])));
}

#[test]
fn a_single_commit_that_is_too_large_stops_only_its_own_ref() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "50k"]);
    let source = sandbox.source("mirror.git", &[]);
    fill(&sandbox, &source, "main", 3, 1000);
    sandbox.git(&source, &["branch", "small", "main"]);
    fill(&sandbox, &source, "large", 1, 90_000);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let report = said.json()[0].clone();
    assert_eq!((said.status, &report["update_status"]), (1, &"failed".into()), "{said:?}");
    for entry in report["refs"].as_array().unwrap() {
        let expected = if entry["ref"] == "refs/heads/large" { "remote_rejected" } else { "created" };
        assert_eq!(entry["outcome"], expected, "{said:?}");
    }
    assert!(report["refs"].to_string().contains("pack exceeds maximum allowed size"), "{said:?}");
}

#[test]
fn a_server_that_refuses_large_bodies_gets_smaller_ones() {
    for answer in ["", "error_page 413 =502 /dumb/;"] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let directives = format!("client_max_body_size 1200k; {answer}");
        let server = Server::start_with(&sandbox, Kind::Http, free_port(), &directives);
        let source = server.source(&sandbox, "mirror.git", &[]);
        // A pack of more than 1 MiB is sent in chunks, a smaller one with its length. The whole (4 MB) and its half are sent in
        // chunks and refused. The quarters are sent with their length and accepted.
        fill(&sandbox, &source, "main", 40, 100_000);
        let said = sandbox.mirror_push_ok(&source, &["sync", "--json"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "{answer}: {said:?}");
    }
}

#[test]
fn a_commit_over_the_limit_of_a_web_server_holds_up_no_other_ref() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start_with(&sandbox, Kind::Http, free_port(), "client_max_body_size 50k;");
    let source = server.source(&sandbox, "mirror.git", &[]);
    fill(&sandbox, &source, "main", 3, 1000);
    sandbox.git(&source, &["branch", "small", "main"]);
    fill(&sandbox, &source, "large", 1, 90_000);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let report = said.json()[0].clone();
    assert_eq!((said.status, &report["update_status"]), (1, &"failed".into()), "{said:?}");
    let outcome = |name: &str| if name == "refs/heads/large" { "remote_rejected" } else { "created" };
    for entry in report["refs"].as_array().unwrap() {
        assert_eq!(entry["outcome"], outcome(entry["ref"].as_str().unwrap()), "{said:?}");
    }
    assert!(report["refs"].to_string().contains("HTTP 413"), "{said:?}");
    assert_eq!(sandbox.refs(&mirror).len(), 2);
}

#[test]
fn a_mirror_that_times_out_gets_less_the_next_time() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let log = counting(
        &sandbox,
        &mirror,
        &format!("[ $(wc -l < '{}.in') -lt 4 ] || exec sleep 66", sandbox.path("pushes").display()),
    );
    let source = sandbox.source("mirror.git", &[]);
    sandbox.add_mirror_config(&source, "stall_timeout = \"1s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let many: Vec<String> = (0..6).map(|n| format!("main:b{n}")).collect();
    work.push(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(sandbox.mirror_push(&source, &["drain"]).status, 1);
    wait_for("a drain with less", || {
        sandbox.mirror_push(&source, &["drain"]);
        sandbox.refs(&mirror) == sandbox.refs(&source)
    });
    assert_eq!(lines(&log), ["1", "6", "3", "3"]);
}

#[test]
fn a_first_sync_that_is_killed_is_completed_by_the_next_one() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "200k"]);
    let log = counting(&sandbox, &mirror, "");
    let source = sandbox.source("mirror.git", &[]);
    fill(&sandbox, &source, "main", 60, 20_000);
    let mut drain = sandbox.program(&source).arg("sync").stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the first slices", || lines(&log).len() >= 3);
    drain.kill().unwrap();
    drain.wait().unwrap();
    wait_for("the end of the mirror's receive-pack", || !sandbox.oid(&mirror, "main").is_empty());
    let arrived = sandbox.git(&mirror, &["rev-list", "--count", "main"]).parse::<usize>().unwrap();
    assert!((1..60).contains(&arrived), "{arrived}");
    sandbox.mirror_push_ok(&source, &["sync"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn a_tag_goes_as_a_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "100k"]);
    sandbox.git(&mirror, &["config", "core.logAllRefUpdates", "always"]);
    let source = sandbox.source("mirror.git", &["--mirror-branch-regex", "^$"]);
    fill(&sandbox, &source, "main", 10, 30_000);
    sandbox.git(&source, &["tag", "large", "main"]);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    let report = said.json()[0].clone();
    assert_eq!((said.status, &report["refs"][0]["ref"]), (1, &"refs/tags/large".into()), "{said:?}");
    assert_eq!(report["refs"][0]["outcome"], "remote_rejected", "{said:?}");
    assert!(
        sandbox.refs(&mirror).is_empty() && !mirror.join("logs/refs/tags/large").exists(),
        "the mirror never had the tag, not even at an earlier commit"
    );
}

#[test]
fn a_slice_that_arrived_is_known_to_be_ours_although_the_next_one_broke() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "100k"]);
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    fill(&sandbox, &source, "main", 12, 30_000);
    // The third push that reaches the hook breaks: the hook kills receive-pack.
    let log = counting(&sandbox, &mirror, "[ $(wc -l < '../pushes') -lt 3 ] || kill -9 $PPID");
    sandbox.mirror_push(&source, &["sync"]);
    assert!(!lines(&log).is_empty());
    let part = sandbox.oid(&mirror, "main");
    assert!(!part.is_empty() && part != sandbox.oid(&source, "main"), "a part arrived");
    std::fs::remove_file(mirror.join("hooks/pre-receive")).unwrap();
    sandbox.git(&mirror, &["config", "receive.maxInputSize", "0"]);
    // The branch is rewritten here. The mirror's value counts as ours, so it is replaced although `keep` is set.
    let new = sandbox.git(&source, &["commit-tree", "-m", "rewritten", "main^{tree}"]);
    sandbox.git(&source, &["update-ref", "refs/heads/main", &new]);
    sandbox.mirror_push_ok(&source, &["sync", "-q"]);
    assert_eq!(sandbox.oid(&mirror, "main"), new);
}
