//! What the nodes of a fleet know of each other, and what people see of it.

use std::collections::BTreeMap;

use git_mirror_push::config;
use git_mirror_push::credentials::CredentialEnv;
use git_mirror_push::fleet::{Access, Limit, Limits, Node, Own, Pulse, Use};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;

use super::{asked, copies, files, init, machine, node_of, repository, set_up, start, wait_for_copies};
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::{Sandbox, script, wait_for};

#[test]
fn any_node_shows_the_mirrors_of_all_nodes_as_their_files_say() {
    let postgres = Postgres::start();
    let [one, two] = ["git1", "git2"].map(|name| machine(&postgres, name, ""));
    init(&one);
    for sandbox in [&one, &two] {
        for name in ["a", "group/b"] {
            repository(sandbox, name);
        }
    }
    let (_daemon, other) = (start(&one), start(&two));
    let status = other.ask("GET", "/healthz", "").unwrap();
    assert_eq!(status.text, "ok\n");
    for (sandbox, name) in [(&one, "git1"), (&two, "git2")] {
        let work = sandbox.work(&sandbox.path("srv/a.git"));
        work.commit("one");
        work.push(&["HEAD:refs/heads/main"]);
        wait_for_copies(sandbox, name);
    }
    wait_for("both nodes", || asked(&one, &["fleet"]).out.matches("2 mirrors: 2 up to date").count() == 2);
    let said = asked(&one, &["fleet"]);
    assert_eq!(said.status, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].starts_with("git1  live  ") && lines[1].starts_with("git2  live  "), "{said:?}");
    let said = asked(&two, &["status", "--fleet"]);
    assert_eq!((said.status, &*said.out), (0, "4 mirrors: 4 up to date\n"), "{said:?}");
    let said = asked(&two, &["check", "--fleet"]);
    assert!(said.status == 0 && said.out.starts_with("MIRRORS OK - 4 of 4 mirrors up to date | mirrors=4"), "{said:?}");

    // A mirror of git2 refuses a push. `status --fleet` on git1 lists this mirror first.
    script(&two.path("there/a.git/hooks/pre-receive"), "#!/bin/sh\necho no thanks >&2\nexit 1\n");
    let work = two.work(&two.path("srv/a.git"));
    work.commit("two");
    work.push(&["HEAD:refs/heads/main"]);
    wait_for("the failure", || asked(&one, &["status", "--fleet"]).status == 1);
    wait_for_copies(&two, "git2");
    let said = asked(&one, &["status", "--fleet"]);
    assert!(said.out.starts_with("4 mirrors: 1 "), "{said:?}");
    let row = format!("git2  {}  backup  ", two.path("srv/a.git").canonicalize().unwrap().display());
    assert!(said.out.lines().nth(1).is_some_and(|line| line.contains(&row)), "{said:?}");
    assert_eq!(said.out.lines().count(), 2, "{said:?}");
    let all = asked(&one, &["status", "--fleet", "--json"]).json();
    assert_eq!((&all[0]["node"], &all[0]["repository"]), (&"git2".into(), &files(&two)[0]["repository"]), "{all}");
    let state = if all[0]["update_status"] == "failed" { "failing" } else { "retrying" };
    let chosen = asked(&one, &["status", "--fleet", "--state", state, "--json"]).json();
    assert_eq!(chosen.as_array().unwrap().len(), 1, "{chosen}");
    let check = asked(&one, &["check", "--fleet"]);
    assert!(check.status > 0 && check.out.contains("backup of '") && check.out.contains("on git2"), "{check:?}");
    assert_eq!(asked(&one, &["status", "--fleet", "--host", "nowhere", "--json"]).out, "[]\n");
    let said = asked(&one, &["status", "--fleet", "--node", "git3"]);
    assert!(said.status == 128 && said.err.contains("the fleet has no node 'git3'"), "{said:?}");
    let metrics = other.ask("GET", "/metrics", "").unwrap().text;
    for line in
        ["git_mirror_push_fleet_connected 1\n", "git_mirror_push_fleet_books_behind 0\n", "_fleet_beat_seconds 0."]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn copies_of_what_is_removed_are_removed() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    let [(a, _), _] = ["a", "b"].map(|name| repository(&one, name));
    let daemon = start(&one);
    one.mirror_push_ok(&a, &["add", "second", one.bare("second.git").to_str().unwrap(), "-q"]);
    wait_for("three mirrors", || copies(&one, "git1").len() == 3);
    one.mirror_push_ok(&a, &["remove", "second"]);
    std::fs::remove_dir_all(one.path("srv/b.git")).unwrap();
    daemon.signal(Signal::HUP);
    wait_for("one mirror", || copies(&one, "git1").len() == 1);
    wait_for_copies(&one, "git1");
    wait_for("the count", || node_of(&one, "git1")["mirrors"] == serde_json::json!({ "up_to_date": 1 }));
}

#[test]
fn a_node_that_is_gone_is_shown_as_it_was_and_can_be_forgotten() {
    let postgres = Postgres::start();
    let [one, two] = ["git1", "git2"].map(|name| machine(&postgres, name, ""));
    init(&one);
    repository(&one, "a");
    repository(&two, "b");
    let (_daemon, mut other) = (start(&one), start(&two));
    wait_for_copies(&two, "git2");
    wait_for_copies(&one, "git1");
    let said = asked(&one, &["fleet", "forget", "git2"]);
    assert!(said.status == 128 && said.err.contains("node 'git2' is running"), "{said:?}");
    other.signal(Signal::KILL);
    other.ended();
    // A node is gone after fifteen seconds without a beat. The test does not wait for that.
    postgres.sql("update node set seen = seen - interval '20 s' where name = 'git2'");
    let node = node_of(&one, "git2");
    assert_eq!(node["reachable"], false, "{node}");
    let said = asked(&one, &["fleet"]);
    assert!(said.status == 1 && said.out.contains("git2  gone  "), "{said:?}");
    let said = asked(&one, &["status", "--fleet"]);
    assert!(said.status == 1 && said.out.contains("node git2 is gone since 20"), "{said:?}");
    let all = asked(&one, &["status", "--fleet", "--json", "--node", "git2"]).json();
    assert_eq!((&all[0]["reachable"], &all[0]["as_of"]), (&false.into(), &node["as_of"]), "{all}");
    assert_eq!(copies(&one, "git2"), files(&two));
    let said = asked(&one, &["check", "--fleet"]);
    assert!(said.status == 2 && said.out.contains("1 node is gone"), "{said:?}");
    assert_eq!(asked(&one, &["fleet", "forget", "git2"]).status, 0);
    assert_eq!(asked(&one, &["fleet"]).out.lines().count(), 1);
    assert_eq!(copies(&one, "git2").len(), 0);
    let said = asked(&one, &["fleet", "forget", "git2"]);
    assert!(said.status == 128 && said.err.contains("the fleet has no node 'git2'"), "{said:?}");
    // The node comes back and sends all its copies again.
    let _other = start(&two);
    wait_for("the node", || node_of(&one, "git2")["reachable"] == true);
    wait_for_copies(&two, "git2");
}

#[test]
fn of_two_daemons_with_one_name_the_second_does_not_join_until_the_first_ends() {
    let postgres = Postgres::start();
    let [one, two] = ["git1", "git1"].map(|name| machine(&postgres, name, ""));
    init(&one);
    repository(&one, "a");
    let (source, mirror) = repository(&two, "b");
    let mut first = start(&one);
    wait_for_copies(&one, "git1");
    let second = start(&two);
    const TAKEN: &str = "another running daemon is node 'git1' of the fleet";
    wait_for("the refusal", || second.log().contains(TAKEN));
    let health = || second.ask("GET", "/healthz", "").unwrap().text;
    wait_for("the refusal in /healthz", || health().contains(TAKEN));
    // The second daemon mirrors although it has not joined.
    let work = two.work(&source);
    work.commit("one");
    work.push(&["HEAD:refs/heads/main"]);
    wait_for("the mirror", || !two.refs(&mirror).is_empty() && two.refs(&mirror) == two.refs(&source));
    assert_eq!(copies(&one, "git1"), files(&one));
    first.signal(Signal::TERM);
    assert_eq!(first.ended(), Some(0));
    wait_for_copies(&two, "git1");
    assert!(second.log().contains("fleet: the database answers"), "{}", second.log());
}

#[test]
fn a_database_that_somebody_else_prepares_gives_a_daemon_rights_on_rows_only() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    let said = asked(&one, &["fleet"]);
    assert!(said.status == 128 && said.err.contains("has no tables of ours; 'git mirror-push fleet init'"), "{said:?}");
    postgres.sql("create role owner; grant create on database mirrors to owner; alter database mirrors owner to owner");
    let denied = asked(&one, &["fleet", "init"]);
    assert!(denied.status == 128 && denied.err.contains("permission denied"), "{denied:?}");
    let printed = asked(&one, &["fleet", "init", "--print"]);
    assert_eq!(printed.status, 0, "{printed:?}");
    postgres.sql(&format!("set role owner; {}", printed.out));
    repository(&one, "a");
    let daemon = start(&one);
    wait_for_copies(&one, "git1");
    drop(daemon);
    postgres.sql("update node set seen = seen - interval '20 s'");
    assert_eq!(asked(&one, &["fleet", "forget", "git1"]).status, 0);
}

#[test]
fn without_a_fleet_or_a_database_the_commands_say_what_is_missing() {
    let sandbox = Sandbox::new();
    crate::scene::daemon::configure(&sandbox, "");
    for arguments in [&["fleet"][..], &["fleet", "init"], &["status", "--fleet"]] {
        let said = asked(&sandbox, arguments);
        assert!(said.status == 128 && said.err.contains("the server's file has no url in [fleet]"), "{said:?}");
    }
    let said = asked(&sandbox, &["check", "--fleet"]);
    assert!(said.status == 3 && said.out.starts_with("MIRRORS UNKNOWN - this machine is in no fleet"), "{said:?}");
    for (lines, expected) in [
        ("url = \"postgres://gmp:x@db/m\"", "the url holds a password"),
        ("url = \"postgres://gmp@127.0.0.1:1/m\"", "cannot reach the database of the fleet: "),
        ("url = \"postgres://gmp@db.example.org/m?sslmode=disable\"", "allow_insecure in [fleet] permits that"),
        ("url = \"postgres://gmp@127.0.0.1:1/m\"\nnode = \"a b\"", "'a b' is not a name for a node"),
        ("url = \"postgres://gmp@127.0.0.1:1/m\"\nadvertise = \"git1:80\"", "is not the URL of a daemon"),
        ("url = \"postgres://gmp@127.0.0.1:1/m\"\npassword_command = [\"x\"]", "server.toml:6: a command is an array"),
        ("url = \"postgres://gmp@127.0.0.1:1/m\"\npassword_file = \"/nonexistent\"", "password_file '/nonexistent'"),
    ] {
        crate::scene::daemon::configure(&sandbox, &format!("[fleet]\n{lines}\n"));
        let said = asked(&sandbox, &["fleet"]);
        assert!(said.status == 128 && said.err.contains(expected), "{lines}: {said:?}");
    }
    let postgres = Postgres::start();
    set_up(&sandbox, &postgres, "git1", "");
    postgres.sql("alter role gmp nologin");
    let said = asked(&sandbox, &["fleet"]);
    assert!(
        said.err.contains("the database of the fleet refuses: role \"gmp\" is not permitted to log in"),
        "{said:?}"
    );
}

#[test]
fn a_clock_that_is_wrong_is_shown_and_nothing_depends_on_it() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    let server = config::load_server(Some(&one.path("server.toml")), &CredentialEnv::default()).unwrap();
    for (milliseconds, side) in [(-600_500, "behind"), (600_500, "ahead of")] {
        let mut node = Node::new(Access::of(&server).unwrap(), "a process".into());
        let (limits, uses) = (Limits::new(), BTreeMap::new());
        let own = Own { limits: &limits, uses: &uses, lower: &|_| BTreeMap::new() };
        let now = Timestamp::now() + SignedDuration::from_millis(milliseconds);
        assert!(node.beat(&Pulse { running: 1, waiting: 2, now }, &own).unwrap().has_lost);
        assert_eq!(node.beat(&Pulse { running: 1, waiting: 2, now }, &own).unwrap().live, 1);
        let said = asked(&one, &["fleet"]);
        let expected = format!("its clock is 600 seconds {side} that of the database");
        assert!(said.status == 0 && said.out.contains("git1  live  ") && said.out.contains(&expected), "{said:?}");
        let as_of: Timestamp = node_of(&one, "git1")["as_of"].as_str().unwrap().parse().unwrap();
        assert!(
            Timestamp::now().duration_since(as_of).abs() < SignedDuration::from_secs(60),
            "by the database's clock"
        );
        node.leave();
    }
}

#[test]
fn a_database_that_loses_transactions_between_two_beats_is_noticed() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    init(&one);
    let server = config::load_server(Some(&one.path("server.toml")), &CredentialEnv::default()).unwrap();
    let mut node = Node::new(Access::of(&server).unwrap(), "a process".into());
    let (limits, uses) = (Limits::new(), BTreeMap::new());
    let own = Own { limits: &limits, uses: &uses, lower: &|_| BTreeMap::new() };
    let pulse = Pulse { running: 0, waiting: 0, now: Timestamp::now() };
    let has_lost = |node: &mut Node| node.beat(&pulse, &own).unwrap().has_lost;
    assert!(has_lost(&mut node), "it has just joined");
    (0..3).for_each(|_| drop(node.send(&[]).unwrap()));
    assert!(!has_lost(&mut node));
    // As after a crash with synchronous_commit = off, behind a pooler that keeps the connection. The next transaction is no beat.
    postgres.sql("update node set beat = beat - 2");
    node.send(&[]).unwrap();
    assert!(has_lost(&mut node));
    assert!(!has_lost(&mut node));
}

#[test]
fn nodes_have_one_order_whatever_the_collation_of_the_database_is() {
    let postgres = Postgres::start();
    let machines = ["b", "Z", "a"].map(|name| machine(&postgres, name, ""));
    init(&machines[0]);
    // In this collation, as in those of most languages, `b` comes before `Z`.
    postgres.sql("alter table demand alter column node type text collate \"en-x-icu\"");
    let limits = Limits::from([("host".to_owned(), Limit { jobs: Some(3), per_minute: None })]);
    let mut nodes = machines.each_ref().map(|machine| {
        let server = config::load_server(Some(&machine.path("server.toml")), &CredentialEnv::default()).unwrap();
        Node::new(Access::of(&server).unwrap(), "a process".into())
    });
    let uses = BTreeMap::from([("host".to_owned(), Use { running: 0, waiting: 9, begun: 0 })]);
    let own = Own { limits: &limits, uses: &uses, lower: &|_| uses.clone() };
    let pulse = Pulse { running: 0, waiting: 9, now: Timestamp::now() };
    for round in 0..4 {
        let parts = nodes.each_mut().map(|node| node.beat(&pulse, &own).unwrap().parts["host"].jobs);
        assert!(round < 2 || parts == [Some(1); 3], "{parts:?}");
    }
}
