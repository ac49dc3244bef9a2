//! The hook: durable records, no waiting, no descriptor of the pusher kept open.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use crate::scene::sandbox::{Sandbox, run_with_input, script, wait_for};
use crate::scene::servers::{Kind, Server};

const HOOK: &str = env!("CARGO_BIN_EXE_git-mirror-post-receive");

pub(super) fn incoming(source: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(source.join("mirror-push/spool/incoming")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_push_becomes_one_record_that_people_can_read() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    let oid = work.commit("one");
    assert_eq!(work.push(&["main", "main:topic"]).err, "", "the pusher sees nothing");
    let [record] = &incoming(&source)[..] else { panic!() };
    let text = std::fs::read_to_string(record).unwrap();
    let zeros = sandbox.digits('0');
    assert!(text.starts_with("git-mirror-push spool 1\ntime 1"), "{text}");
    assert!(
        text.contains(&format!("refs 2\n{zeros} {oid} refs/heads/main\n{zeros} {oid} refs/heads/topic\ncrc32 ")),
        "{text}"
    );
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(incoming(&source).is_empty());
}

#[test]
fn a_push_without_mirrored_refs_or_with_mirror_skip_writes_no_record() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.git(&source, &["config", "receive.advertisePushOptions", "true"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main:refs/notes/commits", "main:refs/pull/1/head"]);
    work.push(&["-o", "mirror.skip", "main:skipped"]);
    assert!(incoming(&source).is_empty());
    sandbox.mirror_push_ok(&source, &["set", "m", "--refspec", "refs/notes/*"]);
    work.commit("two");
    work.push(&["main:refs/notes/commits"]);
    assert_eq!(incoming(&source).len(), 1, "an added namespace counts");
}

/// Templates are often in files of their own. A file that the pusher cannot read may name anything.
#[test]
fn a_namespace_that_only_a_template_names_is_recorded() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    let server = sandbox.path("server/config.toml");
    std::fs::create_dir_all(sandbox.path("server/conf.d")).unwrap();
    let push = || {
        work.commit("more");
        let mut git = sandbox.command("git");
        git.current_dir(&work.path).env("GIT_MIRROR_PUSH_CONFIG", &server).args(["push", "-q", "origin"]);
        assert!(git.arg("HEAD:refs/notes/commits").status().unwrap().success());
        let count = incoming(&source).len();
        sandbox.mirror_push_ok(&source, &["drain"]);
        count
    };
    assert_eq!(push(), 0);
    let template = "[remotes.t]\nurl = \"/nowhere/{path}.git\"\nrefspecs = [\"refs/notes/*\"]\n";
    std::fs::write(sandbox.path("server/conf.d/notes.toml.bak"), template).unwrap();
    assert_eq!(push(), 0, "the server's configuration does not have this file either");
    std::fs::write(sandbox.path("server/conf.d/notes.toml"), template).unwrap();
    assert_eq!(push(), 1);
    std::fs::remove_file(sandbox.path("server/conf.d/notes.toml")).unwrap();
    assert_eq!(push(), 0);
    std::fs::create_dir(&server).unwrap();
    assert_eq!(push(), 1, "it cannot be read");
}

#[test]
fn a_hundred_thousand_refs_in_one_push_and_names_that_are_no_utf8() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let (zeros, ones) = ("0".repeat(40), "1".repeat(40));
    let mut lines = Vec::new();
    for n in 0..100_000 {
        lines.extend_from_slice(format!("{zeros} {ones} refs/heads/branch-{n:06}\n").as_bytes());
    }
    lines.extend_from_slice(format!("{zeros} {ones} refs/heads/").as_bytes());
    lines.extend_from_slice(b"\xff\xfe'\"%\n");
    let said = run_with_input(sandbox.command(HOOK).current_dir(&source).env("GIT_DIR", "."), &lines);
    assert_eq!((said.status, &*said.err), (0, ""));
    let text = std::fs::read(&incoming(&source)[0]).unwrap();
    let record = git_mirror_push::spool::decode(&text).unwrap();
    let updates = record.updates.unwrap();
    assert_eq!(updates.len(), 100_001);
    assert_eq!(updates[100_000].name.as_bytes(), b"refs/heads/\xff\xfe'\"%");
}

#[test]
fn pushes_at_the_same_moment_each_keep_their_record() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let line = format!("{} {} refs/heads/x\n", "0".repeat(40), "1".repeat(40));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(
                        run_with_input(sandbox.command(HOOK).current_dir(&source).env("GIT_DIR", "."), line.as_bytes())
                            .status,
                        0
                    );
                }
            });
        }
    });
    assert_eq!(incoming(&source).len(), 80);
    // Two records of one process in one nanosecond.
    let layout = git_mirror_push::layout::Layout::new(&source);
    let time = std::time::Duration::new(7, 7);
    let record = git_mirror_push::spool::Record::of(time, vec![]);
    for random in [1, 2] {
        let id = git_mirror_push::spool::Id { time, pid: 1, random };
        git_mirror_push::spool::begin(&layout, id, &record).unwrap().finish().unwrap();
    }
    assert_eq!(incoming(&source).len(), 82);
}

#[test]
fn a_record_that_cannot_be_written_marks_the_repository() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let work = sandbox.work(&source);
    work.commit("one");
    // A file in place of the directory makes the write fail, for root too.
    let tmp = source.join("mirror-push/spool/tmp");
    std::fs::remove_dir(&tmp).unwrap();
    std::fs::write(&tmp, "").unwrap();
    let said = work.push(&["main"]);
    assert!(said.err.contains("git-mirror-push: cannot record this push"), "{said:?}");
    assert_eq!(said.err.lines().filter(|line| line.contains("mirror-push")).count(), 1, "one line: {said:?}");
    assert_eq!(sandbox.oid(&source, "main"), work.git(&["rev-parse", "main"]), "the push is accepted");
    std::fs::remove_file(&tmp).unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source), "the next drain compares everything");
    assert_eq!(std::fs::read(source.join("mirror-push/spool/resync")).unwrap(), b"0");
}

#[test]
fn a_hook_that_died_while_writing_causes_a_full_sync() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let work = sandbox.work(&source);
    work.commit("one");
    std::fs::remove_file(source.join("hooks/post-receive")).unwrap();
    work.push(&["main"]);
    std::fs::write(source.join("mirror-push/spool/tmp/0000000001.000000001.1.0000000000000001"), "git-mirr").unwrap();
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    assert_eq!(std::fs::read_dir(source.join("mirror-push/spool/tmp")).unwrap().count(), 0);
}

/// A mirror that is slow because its update hook waits until a file goes away.
#[test]
fn the_pusher_waits_for_no_mirror() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let blocker = sandbox.path("blocker");
    std::fs::write(&blocker, "").unwrap();
    script(
        &mirror.join("hooks/update"),
        &format!(
            "#!/bin/sh\nn=0\nwhile [ -e '{}' ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done\n",
            blocker.display()
        ),
    );
    let server = Server::start(&sandbox, Kind::Ssh);
    let source = sandbox.bare("source.git");
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git"]);
    let bare_url = server.url("source.git");
    let plain = sandbox.bare("plain.git");
    let work = sandbox.work(&source);
    let ssh = format!(
        "ssh -F /dev/null -i {k} -o IdentitiesOnly=yes -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR",
        k = sandbox.path("ssh/client").display()
    );
    work.git(&["config", "core.sshCommand", &ssh]);
    let push = |url: &str| {
        work.commit("more");
        let begin = Instant::now();
        let mut child = sandbox
            .command("sh")
            .current_dir(&work.path)
            .args(["-c", &format!("exec git push -q '{url}' main")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert!(child.wait().unwrap().success());
        begin.elapsed()
    };
    let without = push(&server.url("plain.git"));
    let with = push(&bare_url);
    assert!(blocker.exists());
    let wait = with.saturating_sub(without);
    assert!(wait.as_millis() < 1000, "a push took {with:?} with the hook and {without:?} without");
    eprintln!("push over ssh without hook {without:?}, with hook and a stalled mirror {with:?}");
    std::fs::remove_file(&blocker).unwrap();
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    drop(plain);
}

#[test]
fn the_drain_holds_no_descriptor_of_the_pushers() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let (entered, blocker) = (sandbox.path("entered"), sandbox.path("blocker"));
    std::fs::write(&blocker, "").unwrap();
    let text = "n=0\nwhile [ -e \"$2\" ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done";
    let text = format!("#!/bin/sh\nset -- '{}' '{}'\ntouch \"$1\"\n{text}\n", entered.display(), blocker.display());
    script(&mirror.join("hooks/pre-receive"), &text);
    let source = sandbox.bare("source.git");
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git"]);
    let work = sandbox.work(&source);
    work.commit("one");
    // Whoever reads the pusher's output, or waits for a pipe that the pusher has open, sees its end at once.
    let push = format!("exec git push -q '{}' main 9>&1", source.display());
    let begin = Instant::now();
    let output = sandbox.command("sh").current_dir(&work.path).args(["-c", &push]).output().unwrap();
    assert!(output.status.success() && begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    wait_for("the drain at the mirror", || entered.exists());
    assert!(sandbox.refs(&mirror).is_empty());
    std::fs::remove_file(&blocker).unwrap();
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
}

#[test]
fn the_hook_wakes_a_drain() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.bare("source.git");
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    wait_for("the status", || sandbox.status(&source)["update_status"] == "finished");
}

#[test]
fn a_shared_repository_has_a_shared_spool() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.bare("source.git");
    sandbox.git(&source, &["config", "core.sharedRepository", "group"]);
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git", "--disabled"]);
    let mode = |name: &str| std::fs::metadata(source.join("mirror-push").join(name)).unwrap().mode() & 0o7777;
    for directory in ["", "spool/tmp", "spool/incoming", "spool/corrupt", "remotes/m", "remotes/m/queue"] {
        assert_eq!(mode(directory), 0o2770, "{directory}");
    }
    // Whoever could write this file could name programs that its owner runs.
    assert_eq!(mode("config.toml"), 0o644);
    let config = source.join("mirror-push/config.toml");
    std::fs::write(&config, format!("wake = \"none\"\n{}", std::fs::read_to_string(&config).unwrap())).unwrap();
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    assert_eq!(std::fs::metadata(&incoming(&source)[0]).unwrap().mode() & 0o777, 0o660);
}
