//! A database that is killed, hangs, loses rows or has tables of another version. No push waits for
//! it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{asked, copies, files, init, machine, node_of, repository, start, wait_for_copies};
use crate::scene::daemon::Daemon;
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::{Sandbox, script, wait_for};

/// Pushes to a repository, and waits until its mirror has it. Returns how long that took.
fn push(sandbox: &Sandbox, name: &str) -> Duration {
    let (source, mirror) = (sandbox.path(&format!("srv/{name}.git")), sandbox.path(&format!("there/{name}.git")));
    let work = sandbox.work(&source);
    work.commit("more");
    let begun = Instant::now();
    work.push(&["HEAD:refs/heads/main"]);
    wait_for("the mirror", || !sandbox.refs(&mirror).is_empty() && sandbox.refs(&mirror) == sandbox.refs(&source));
    begun.elapsed()
}

#[test]
fn pushes_are_mirrored_while_the_database_is_killed_or_hangs_and_copies_follow() {
    let mut postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    repository(&one, "a");
    let daemon = start(&one);
    push(&one, "a");
    wait_for_copies(&one, "git1");
    postgres.kill();
    assert!(push(&one, "a") < Duration::from_secs(2));
    wait_for("the warning", || daemon.log().contains("fleet: cannot reach the database of the fleet: "));
    let said = asked(&one, &["status", "--fleet"]);
    assert!(said.status == 128 && said.err.contains("cannot reach the database of the fleet"), "{said:?}");
    wait_for("a message in /healthz", || {
        let answer = daemon.ask("GET", "/healthz", "").unwrap();
        answer.status == 200 && answer.text.contains("the database of the fleet does not answer")
    });
    assert!(daemon.ask("GET", "/metrics", "").unwrap().text.contains("git_mirror_push_fleet_connected 0\n"));
    postgres.start_again();
    let back = Instant::now();
    wait_for_copies(&one, "git1");
    assert!(back.elapsed() < Duration::from_secs(10));
    assert_eq!(daemon.ask("GET", "/healthz", "").unwrap().text, "ok\n");
    // One warning, not one for each beat.
    assert_eq!(daemon.log().matches("WARN fleet:").count(), 1, "{}", daemon.log());
    postgres.pause();
    assert!(push(&one, "a") < Duration::from_secs(2));
    wait_for("the time limit", || daemon.log().contains("it does not answer within 5 s"));
    assert!(push(&one, "a") < Duration::from_secs(2));
    postgres.resume();
    wait_for_copies(&one, "git1");
}

#[test]
fn a_daemon_starts_and_ends_while_the_database_hangs() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    repository(&one, "a");
    postgres.pause();
    let mut daemon = start(&one);
    assert!(push(&one, "a") < Duration::from_secs(2));
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn copies_that_the_database_has_lost_are_sent_again() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    for name in ["a", "b", "c"] {
        repository(&one, name);
    }
    let _daemon = start(&one);
    wait_for_copies(&one, "git1");
    // As after the restore of an older backup: later changes of the rows are missing.
    postgres.sql(
        "update node set beat = beat - 1; update mirror set shown = '{}' where name = 'backup'; delete from tally",
    );
    wait_for_copies(&one, "git1");
    wait_for("the count", || node_of(&one, "git1")["mirrors"] == serde_json::json!({ "up_to_date": 3 }));
    // Rows of a repository that does not exist any more.
    postgres.sql("insert into repository (node, git_dir, path) values ('git1', '/gone', 'gone'); update node set beat = beat - 1");
    wait_for("the end of what is gone", || postgres.sql("select count(*) from repository") == "3");
    // Somebody deleted the node, or the whole schema.
    postgres.sql("delete from node");
    wait_for_copies(&one, "git1");
    postgres.sql("drop schema git_mirror_push cascade");
    init(&one);
    let begun = Instant::now();
    wait_for_copies(&one, "git1");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn after_a_restart_the_copies_of_mirrors_that_wait_are_sent_too() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    for name in ["refused", "unreachable"] {
        repository(&one, name);
    }
    script(&one.path("there/refused.git/hooks/pre-receive"), "#!/bin/sh\nexit 1\n");
    std::fs::rename(one.path("there/unreachable.git"), one.path("gone")).unwrap();
    let mut daemon = start(&one);
    for name in ["refused", "unreachable"] {
        let work = one.work(&one.path(&format!("srv/{name}.git")));
        work.commit("one");
        work.push(&["HEAD:refs/heads/main"]);
        wait_for("the failure", || {
            files(&one)
                .iter()
                .any(|it| it["repository"].as_str().unwrap().contains(name) && !it["last_error"].is_null())
        });
    }
    daemon.signal(Signal::KILL);
    daemon.ended();
    postgres.sql("delete from node");
    let _daemon = start(&one);
    wait_for_copies(&one, "git1");
}

#[test]
fn a_node_of_another_version_joins_where_the_tables_allow_it() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    repository(&one, "a");
    // Tables of a later version, which this version may still use.
    postgres.sql("update meta set version = 2; alter table node add column later text; alter table mirror add column later integer");
    let daemon = start(&one);
    wait_for_copies(&one, "git1");
    assert_eq!(asked(&one, &["fleet", "init"]).status, 0, "they stay as they are");
    assert_eq!(postgres.sql("select version from meta"), "2");
    // Tables that this version must not use. A daemon that runs notices it. It still mirrors, and its log and /healthz say what to do.
    const REFUSAL: &str = "have version 2, but this program knows only version 1: install a later version of it";
    let health = |daemon: &Daemon<'_>| daemon.ask("GET", "/healthz", "").unwrap().text;
    postgres.sql("update meta set oldest = 2");
    wait_for("the refusal", || daemon.log().contains(REFUSAL) && health(&daemon).contains(REFUSAL));
    push(&one, "a");
    drop(daemon);
    let daemon = start(&one);
    push(&one, "a");
    wait_for("the refusal", || daemon.log().contains(REFUSAL) && health(&daemon).contains(REFUSAL));
    let said = asked(&one, &["fleet"]);
    assert!(said.status == 128 && said.err.contains("install a later version of it"), "{said:?}");
    // Back to the version before.
    postgres.sql("update meta set version = 1, oldest = 1");
    wait_for_copies(&one, "git1");
    wait_for("the end of the refusal", || health(&daemon) == "ok\n");
    postgres.sql("update meta set version = 0, oldest = 0");
    let said = asked(&one, &["fleet"]);
    assert!(said.err.contains("'git mirror-push fleet init' brings the tables up to date"), "{said:?}");
}

#[test]
fn a_node_that_stood_still_goes_on_as_if_nothing_had_been() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    repository(&one, "a");
    let daemon = start(&one);
    wait_for_copies(&one, "git1");
    daemon.signal(Signal::STOP);
    postgres.sql("update node set seen = seen - interval '60 s'");
    assert_eq!(node_of(&one, "git1")["reachable"], false);
    let before = copies(&one, "git1");
    daemon.signal(Signal::CONT);
    wait_for("the node", || node_of(&one, "git1")["reachable"] == true);
    push(&one, "a");
    wait_for_copies(&one, "git1");
    assert_ne!(copies(&one, "git1"), before);
}
