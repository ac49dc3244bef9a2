//! The order of writes, syncs, renames, links and unlinks, as strace shows it. A wrong order loses data in a power failure, but not when a
//! program is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, run_with_input};

/// A system call, with the paths that it concerns.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Write(String),
    Sync(String),
    Rename(String, String),
    Link(String, String),
    Unlink(String),
}

/// Runs a program under strace, and tells what its main thread did below `below`.
fn calls(sandbox: &Sandbox, program: &str, arguments: &[&str], input: &str, below: &Path) -> Vec<Call> {
    let trace = sandbox.path("order");
    let mut command: Command = sandbox.command("strace");
    let traced = "trace=write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";
    command.args(["-qq", "-y", "-s", "1", "-e", traced, "-e", "signal=none", "-o"]).arg(&trace);
    command.current_dir(below).env("GIT_DIR", below).arg(program).args(arguments);
    let said = run_with_input(&mut command, input.as_bytes());
    assert_eq!(said.status, 0, "{arguments:?}: {said:?}");
    let text = std::fs::read_to_string(trace).unwrap();
    let below = below.to_str().unwrap();
    text.lines()
        .filter(|line| !line.contains(" = -1 "))
        .filter_map(call)
        .filter(|call| {
            let (Call::Write(path)
            | Call::Sync(path)
            | Call::Rename(_, path)
            | Call::Link(_, path)
            | Call::Unlink(path)) = call;
            path.starts_with(below)
        })
        .collect()
}

/// Reads a line of strace: `fsync(5</path>) = 0`, `renameat(5</path>, "a", 6</other>, "b") = 0` or `rename("/a", "/b") = 0`.
fn call(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let open = || Some(rest.split_once('<')?.1.split_once('>')?.0.to_owned());
    // The text before a quoted path ends with the directory that it is relative to, if there is one.
    let parts: Vec<&str> = rest.split('"').collect();
    let mut quoted = parts.chunks_exact(2).map(|pair| {
        let directory = pair[0].strip_suffix(">, ").and_then(|before| Some(before.rsplit_once('<')?.1));
        directory
            .map_or_else(|| pair[1].to_owned(), |directory| Path::new(directory).join(pair[1]).display().to_string())
    });
    Some(match name.rsplit(' ').next()? {
        "write" | "pwrite64" | "writev" => Call::Write(open()?),
        "fsync" | "fdatasync" => Call::Sync(open()?),
        name if name.starts_with("rename") => Call::Rename(quoted.next()?, quoted.next()?),
        name if name.starts_with("link") => Call::Link(quoted.next()?, quoted.next()?),
        _ => Call::Unlink(quoted.next()?),
    })
}

fn parent(path: &str) -> String {
    path.rsplit_once('/').unwrap().0.to_owned()
}

/// Asserts that every renamed file was synced after its last write, and that its new directory is synced after the rename. Exactly
/// `passing` files are renamed without a sync: their contents need not survive a power failure. Returns the file names of the targets.
fn renames_are_durable(calls: &[Call], passing: usize) -> BTreeSet<String> {
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    let mut synced: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut targets, mut unsynced) = (BTreeSet::new(), 0);
    for (n, call) in calls.iter().enumerate() {
        match call {
            Call::Write(path) => {
                written.insert(path, n);
            }
            Call::Sync(path) => {
                synced.insert(path, n);
            }
            Call::Rename(from, to) => {
                let is_synced =
                    synced.get(&**from).is_some_and(|sync| written.get(&**from).is_none_or(|write| write < sync));
                let directory = parent(to);
                let is_entered = calls[n..].iter().any(|later| *later == Call::Sync(directory.clone()));
                if is_synced {
                    assert!(is_entered, "{to}: its directory is not synced: {calls:#?}");
                } else {
                    unsynced += 1;
                }
                targets.insert(to.rsplit('/').next().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(unsynced, passing, "renamed without a sync: {calls:#?}");
    targets
}

/// Asserts that both calls were made, and that the first one comes before the other.
fn comes_before(calls: &[Call], what: &str, first: impl Fn(&Call) -> bool, then: impl Fn(&Call) -> bool) {
    let (first, then) = (calls.iter().position(first), calls.iter().position(then));
    assert!(first.is_some() && then.is_some() && first < then, "{what}: {first:?} {then:?} {calls:#?}");
}

fn is_sync(part: &str) -> impl Fn(&Call) -> bool + '_ {
    move |call| matches!(call, Call::Sync(path) if path.ends_with(part))
}

#[test]
fn a_push_is_on_the_disk_before_the_hook_ends() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.push(&["main"]);
    let line = format!("{} {one} refs/heads/x\n", sandbox.digits('0'));
    let calls = calls(&sandbox, env!("CARGO_BIN_EXE_git-mirror-post-receive"), &[], &line, &source);
    assert_eq!(renames_are_durable(&calls, 0).len(), 1, "{calls:#?}");
    comes_before(
        &calls,
        "the record, then its directory",
        |call| matches!(call, Call::Rename(..)),
        is_sync("spool/incoming"),
    );
    assert!(is_sync("spool/incoming")(calls.last().unwrap()), "{calls:#?}");
}

#[test]
fn a_drain_removes_a_record_only_after_its_result_is_on_the_disk() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    for (n, base) in ["mirrored/values", "mirrored/journal.1"].into_iter().enumerate() {
        work.commit("more");
        work.push(&["main"]);
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        let calls = calls(&sandbox, program, &["--git-dir", source.to_str().unwrap(), "drain"], "", &source);
        // The status `started` is not synced: it need not survive a power failure.
        let renamed = renames_are_durable(&calls, 1);
        assert!(renamed.contains("status.json"), "{renamed:?}");
        let is_unlink =
            |part: &'static str| move |call: &Call| matches!(call, Call::Unlink(path) if path.contains(part));
        let is_link = |call: &Call| matches!(call, Call::Link(..));
        comes_before(&calls, "entries", is_link, is_sync("remotes/m/queue"));
        comes_before(&calls, "the queue", is_sync("remotes/m/queue"), is_unlink("spool/incoming"));
        let last_link = calls.iter().rposition(is_link).unwrap();
        comes_before(&calls[last_link..], "every entry", is_sync("remotes/m/queue"), is_unlink("spool/incoming"));
        // First the base is written, then the outcome. Then the queue entries are removed.
        if n == 0 {
            comes_before(
                &calls,
                "the base",
                |call| matches!(call, Call::Rename(_, to) if to.ends_with(base)),
                is_unlink("/queue/"),
            );
        } else {
            comes_before(&calls, "the base", is_sync(base), is_unlink("/queue/"));
        }
        let outcome = calls.iter().rposition(|call| matches!(call, Call::Rename(_, to) if to.ends_with("status.json")));
        comes_before(&calls[outcome.unwrap()..], "the outcome", is_sync("remotes/m"), is_unlink("/queue/"));
        let base_synced = calls.iter().position(is_sync(if n == 0 { "mirrored" } else { base })).unwrap();
        assert!(base_synced < outcome.unwrap(), "the base before the outcome: {calls:#?}");
    }
}

#[test]
fn what_commands_write_is_on_the_disk_when_they_end() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let key = "127.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let git_dir = source.to_str().unwrap().to_owned();
    let run = |arguments: &[&str], input: &str| {
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        calls(&sandbox, program, &[&["--git-dir", &*git_dir], arguments].concat(), input, &source)
    };
    for (arguments, input, renamed) in [
        (&["add", "s", "ssh://git@127.0.0.1:1/x.git", "--disabled"][..], "", vec!["config.toml"]),
        (&["set", "m", "--prune", "never"], "", vec!["config.toml"]),
        (&["credential", "m"], "word\n", vec!["secret"]),
        (&["host-keys", "s", "--add", key], "", vec!["known_hosts"]),
        (&["protect", "release/*"], "", vec!["config.toml"]),
    ] {
        let calls = run(arguments, input);
        let found = renames_are_durable(&calls, 0);
        for name in renamed {
            assert!(found.contains(name), "{arguments:?}: {found:?}");
        }
        assert!(
            arguments[0] == "host-keys"
                || arguments[0] == "protect"
                || found.iter().any(|name| name.ends_with(".full")),
            "{found:?}"
        );
    }
    // The mark of the removal is synced before the configuration without the mirror replaces the old one.
    let calls = run(&["remove", "m"], "");
    comes_before(
        &calls,
        "the mark",
        is_sync("m/removed"),
        |call| matches!(call, Call::Rename(_, to) if to.ends_with("config.toml")),
    );
    comes_before(
        &calls,
        "the queue, the mark",
        |call| matches!(call, Call::Unlink(path) if path.ends_with("m/queue")),
        |call| matches!(call, Call::Unlink(path) if path.ends_with("m/removed")),
    );
    let state = sandbox.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let program = env!("CARGO_BIN_EXE_git-mirror-push");
    let calls = self::calls(&sandbox, program, &["token", "create", "--name", "a"], "", &state);
    assert!(renames_are_durable(&calls, 0).contains("tokens.json"), "{calls:#?}");
}

#[test]
fn a_damaged_queue_entry_is_replaced_by_a_request_for_a_full_sync() {
    let scene = Scene::local(&[]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    // The mirror is away when the damage is found. After it is back, a ref that no record names arrives.
    let away = sandbox.path("away.git");
    std::fs::rename(mirror, &away).unwrap();
    sandbox.git(source, &["update-ref", "refs/heads/unnamed", "main"]);
    let queue = source.join("mirror-push/remotes/m/queue");
    std::fs::write(queue.join("0000000001.000000001.1.1"), "garbage").unwrap();
    assert_eq!(sandbox.mirror_push(source, &["drain"]).status, 1);
    assert!(!queue.join("0000000001.000000001.1.1").exists());
    std::fs::rename(&away, mirror).unwrap();
    sandbox.mirror_push_ok(source, &["set", "m", "--prune", "never"]);
    let kept: Vec<_> = std::fs::read_dir(&queue).unwrap().map(|entry| entry.unwrap().path()).collect();
    // `set` added a request for a full sync too, the newest entry. Without it, the request that replaced the damaged entry is enough.
    let newest = kept.iter().max().unwrap();
    std::fs::remove_file(newest).unwrap();
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
}
