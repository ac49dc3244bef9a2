//! Each outcome except `restored`, `conflict`, `flapping` and `remote_failed`, end to end, over
//! each transport.

use std::path::Path;

use crate::scene::sandbox::{Sandbox, gits};
use crate::scene::servers::{Kind, Server};

fn outcome_of(sandbox: &Sandbox, source: &Path, name: &str, arguments: &[&str], status: i32) -> String {
    let said = sandbox.mirror_push(source, arguments);
    assert_eq!(said.status, status, "{arguments:?}: {said:?}");
    let found = sandbox.outcomes(&said).into_iter().find(|(found, _)| found == name);
    found.unwrap_or_else(|| panic!("{name} is not in {said:?}")).1
}

fn every_outcome(kind: Kind, git: Option<&Path>) {
    let sandbox = Sandbox::with_git(git);
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, kind);
    let source = server.source(&sandbox, "mirror.git", &["--prune", "deleted"]);
    let work = sandbox.work(&source);
    let outcome = |name: &str, arguments: &[&str]| outcome_of(&sandbox, &source, name, arguments, 0);

    // created
    let one = work.commit("one");
    work.git(&["tag", "-a", "-m", "first", "v1"]);
    work.push(&["main", "v1", "main:topic", "main:gone"]);
    assert_eq!(outcome("refs/heads/main", &["drain", "--json"]), "created");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    // up to date
    assert_eq!(outcome("refs/tags/v1", &["sync", "--json"]), "up_to_date");
    // fast-forwarded, forced, deleted in one drain
    work.commit("two");
    work.git(&["checkout", "-q", "--orphan", "other"]);
    work.commit("rewritten");
    work.push(&["main", "+other:topic", ":gone"]);
    let said = sandbox.mirror_push_ok(&source, &["drain", "--json"]);
    let expected =
        [("refs/heads/gone", "deleted"), ("refs/heads/main", "fast_forwarded"), ("refs/heads/topic", "forced")];
    assert_eq!(sandbox.outcomes(&said), expected.map(|(name, word)| (name.to_owned(), word.to_owned())));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    // kept: it is only on the mirror
    sandbox.git(&mirror, &["branch", "theirs", "main"]);
    assert_eq!(outcome("refs/heads/theirs", &["sync", "--json"]), "kept");
    // divergent
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "keep"]);
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", &one, "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    work.git(&["checkout", "-q", "main"]);
    work.commit("three");
    work.push(&["main", "main:fresh"]);
    assert_eq!(outcome_of(&sandbox, &source, "refs/heads/main", &["drain", "--json"], 1), "divergent");
    assert_eq!(sandbox.oid(&mirror, "main"), theirs);
    assert_eq!(sandbox.oid(&mirror, "fresh"), sandbox.oid(&source, "main"), "the others are updated");
    // rejected here: nothing is pushed while a ref diverges
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "fail"]);
    work.commit("four");
    work.push(&["main:fresh"]);
    assert_eq!(outcome_of(&sandbox, &source, "refs/heads/fresh", &["drain", "--json"], 1), "rejected");
    // remote_rejected
    sandbox.mirror_push_ok(&source, &["set", "m", "--divergent-refs", "overwrite"]);
    let hook = mirror.join("hooks/update");
    std::fs::write(&hook, "#!/bin/sh\n[ \"$1\" != refs/heads/fresh ] || { echo 'frozen until Monday'; exit 1; }\n")
        .unwrap();
    sandbox.git(&mirror, &["config", "core.hooksPath", "hooks"]);
    run_bit(&hook);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    assert_eq!(said.status, 1);
    let outcomes = sandbox.outcomes(&said);
    assert!(outcomes.contains(&("refs/heads/fresh".into(), "remote_rejected".into())), "{said:?}");
    assert!(outcomes.contains(&("refs/heads/main".into(), "forced".into())), "{said:?}");
    assert!(said.out.contains("frozen until Monday"), "the mirror's own message: {said:?}");
    // without the hook, everything is pushed
    std::fs::remove_file(hook).unwrap();
    sandbox.mirror_push_ok(&source, &["sync"]);
    sandbox.git(&mirror, &["branch", "-D", "theirs"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    sandbox.git(&mirror, &["fsck", "--strict"]);
    assert_eq!(sandbox.mirror_push_ok(&source, &["status", "--json"]).json()[0]["update_status"], "finished");
}

fn run_bit(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_outcome_to_a_path() {
    every_outcome(Kind::Path, None);
}

#[test]
fn every_outcome_over_git() {
    every_outcome(Kind::Git, None);
}

#[test]
fn every_outcome_over_ssh() {
    every_outcome(Kind::Ssh, None);
}

#[test]
fn every_outcome_over_http() {
    every_outcome(Kind::Http, None);
}

#[test]
fn every_outcome_over_https() {
    every_outcome(Kind::Https, None);
}

#[test]
fn scp_style_with_an_option_for_ssh() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("it's a mirror.git");
    let server = Server::start(&sandbox, Kind::Ssh);
    let source = sandbox.source(&format!("127.0.0.1:{}", mirror.display()), &[]);
    server.configure_access(&sandbox, &source, "m");
    sandbox.add_mirror_config(&source, &format!("ssh_options = [\"Port={}\"]", server.port()));
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn every_outcome_with_every_git_on_this_machine() {
    for git in gits() {
        every_outcome(Kind::Path, Some(&git));
        every_outcome(Kind::Http, Some(&git));
    }
}

#[test]
fn one_get_and_one_post_on_one_connection() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = server.source(&sandbox, "mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let requests = server.requests(&sandbox);
    // The first contact asks upload-pack first, because a request to receive-pack makes the
    // repository at some hosts.
    let [look, get, post] = requests.as_slice() else { panic!("{requests:?}") };
    let connection = look.split(' ').next().unwrap();
    for (number, request) in [(1, look), (2, get)] {
        assert_eq!(
            request,
            &format!("{connection} {number} GET /mirror.git/info/refs 200 - -"),
            "credentials go with the first request"
        );
    }
    assert!(post.starts_with(&format!("{connection} 3 POST /mirror.git/git-receive-pack 200 ")), "{post}");
    assert!(!post.contains("chunked"), "a small pack is sent with its length: {post}");
}

#[test]
fn a_large_pack_is_streamed_in_chunks() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Http);
    let source = server.source(&sandbox, "mirror.git", &[]);
    let work = sandbox.work(&source);
    // Bytes that do not compress.
    run_python(
        &sandbox,
        "import random; random.seed(1); open('noise', 'wb').write(random.randbytes(3 << 20))",
        &work.path,
    );
    work.git(&["add", "noise"]);
    work.commit("noise");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(server.requests(&sandbox)[2].ends_with(" - chunked"), "{:?}", server.requests(&sandbox));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    sandbox.git(&mirror, &["fsck"]);
}

fn run_python(sandbox: &Sandbox, program: &str, directory: &Path) {
    let status = sandbox.command("python3").current_dir(directory).args(["-c", program]).status().unwrap();
    assert!(status.success());
}
