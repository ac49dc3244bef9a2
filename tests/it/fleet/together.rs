//! What the nodes do together: silent mode, two mirrors with one URL, and many pushes while nodes
//! and the database fail.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{LOCAL, asked, copies, init, machine, repository, start, wait_for_copies};
use crate::scene::daemon::{self, Daemon, configure};
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::{Sandbox, is_root, wait_for};
use crate::scene::servers::{Kind, Server};

fn push(sandbox: &Sandbox, name: &str) {
    let work = sandbox.work(&sandbox.path(&format!("srv/{name}.git")));
    work.commit("more");
    work.push(&["HEAD:refs/heads/main"]);
}

/// Whether a mirror at the hub has what the repository of a machine has.
fn is_mirrored_at(hub: &Sandbox, mirror: &Path, machine: &Sandbox) -> bool {
    let refs = hub.refs(mirror);
    !refs.is_empty() && refs == machine.refs(&machine.path("srv/a.git"))
}

fn is_mirrored(sandbox: &Sandbox, name: &str) -> bool {
    let refs = |place: &str| sandbox.refs(&sandbox.path(&format!("{place}/{name}.git")));
    !refs("srv").is_empty() && refs("srv") == refs("there")
}

#[test]
fn silent_mode_of_the_fleet_holds_for_all_daemons_and_after_a_restart_without_the_database() {
    let mut postgres = Postgres::start();
    let [one, two] = ["git1", "git2"].map(|name| machine(&postgres, name, ""));
    init(&one);
    for sandbox in [&one, &two] {
        repository(sandbox, "a");
    }
    let mut daemons = [start(&one), start(&two)];
    for (sandbox, node) in [(&one, "git1"), (&two, "git2")] {
        push(sandbox, "a");
        wait_for("the mirror", || is_mirrored(sandbox, "a"));
        wait_for_copies(sandbox, node);
    }
    assert_eq!(asked(&two, &["silent", "--fleet", "on"]).status, 0);
    for daemon in &daemons {
        wait_for("silence", || daemon.log().contains("fleet: silent mode is on"));
    }
    assert!(asked(&one, &["fleet"]).out.contains("silent: the daemons send nothing"));
    push(&one, "a");
    push(&two, "a");
    // A daemon that starts again knows of silent mode without the database.
    postgres.kill();
    daemons[0].signal(Signal::TERM);
    assert_eq!(daemons[0].ended(), Some(0));
    let _again = start(&one);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!is_mirrored(&one, "a") && !is_mirrored(&two, "a"));
    postgres.start_again();
    assert_eq!(asked(&one, &["silent", "--fleet", "off"]).status, 0);
    wait_for("both mirrors", || is_mirrored(&one, "a") && is_mirrored(&two, "a"));
    assert!(!asked(&one, &["fleet"]).out.contains("silent"));
}

#[test]
fn of_two_mirrors_with_one_url_the_later_one_is_parked_while_the_database_answers() {
    let mut postgres = Postgres::start();
    let hub = Sandbox::new();
    let server = Server::start(&hub, Kind::Git);
    let machines: Vec<Sandbox> = (0..2).map(|_| Sandbox::new()).collect();
    for (node, machine) in machines.iter().enumerate() {
        let (url, there) = (postgres.url(), server.url("{path}.git"));
        configure(
            machine,
            &format!("{LOCAL}[fleet]\nurl = \"{url}\"\nnode = \"git{node}\"\n[remotes.hub]\nurl = \"{there}\"\n"),
        );
        daemon::repository(machine, "a");
    }
    let mirror = hub.bare("a.git");
    init(&machines[0]);
    let _first = start(&machines[0]);
    push(&machines[0], "a");
    let is_theirs = || hub.refs(&mirror) == machines[0].refs(&machines[0].path("srv/a.git"));
    wait_for("the first mirror", || !hub.refs(&mirror).is_empty() && is_theirs());
    wait_for_copies(&machines[0], "git0");
    // Both machines have the same commit, so the second mirror finds no other commits at first
    // contact.
    push(&machines[1], "a");
    let _second = start(&machines[1]);
    let reason = "on node git0 pushes to the same URL; remove one of the two";
    let error = |node: &str| copies(&machines[0], node).first().map(|copy| copy["last_error"].to_string());
    wait_for("the copy", || error("git1").as_deref() == Some("null"));
    push(&machines[1], "a");
    wait_for("the reason", || error("git1").is_some_and(|error| error.contains(reason)));
    assert!(is_theirs());
    let said = asked(&machines[1], &["fleet"]).out;
    let lines = format!("warning: more than one mirror pushes to git://127.0.0.1:{}/a.git:\n  git0  ", server.port());
    assert!(said.contains(&lines), "{said}");
    let source = machines[1].path("srv/a.git");
    let said = asked(&machines[1], &["-C", source.to_str().unwrap(), "doctor"]);
    let line = format!("hub: double-url: git://127.0.0.1:{}/a.git is also the URL of 'hub' of '", server.port());
    assert!(
        said.status == 1 && said.out.contains(&line) && said.out.contains("git mirror-push disable hub"),
        "{said:?}"
    );
    let said = asked(&machines[1], &["check", "--fleet"]);
    assert!(said.status > 0 && said.out.contains("1 URL has more than one mirror"), "{said:?}");
    assert!(!error("git0").is_some_and(|error| error.contains("same URL")), "the earlier one goes on");
    push(&machines[0], "a");
    wait_for("the first mirror", is_theirs);
    postgres.kill();
}

#[test]
fn a_second_mirror_with_one_url_is_parked_in_a_repository_that_root_leaves_to_its_owner() {
    if !is_root("files of another owner are needed") {
        return;
    }
    let postgres = Postgres::start();
    let hub = Sandbox::new();
    let server = Server::start(&hub, Kind::Git);
    let machines = [Sandbox::new(), Sandbox::new()];
    for (node, machine) in machines.iter().enumerate() {
        let (url, there) = (postgres.url(), server.url("{path}.git"));
        configure(
            machine,
            &format!("{LOCAL}[fleet]\nurl = \"{url}\"\nnode = \"git{node}\"\n[remotes.hub]\nurl = \"{there}\"\n"),
        );
        daemon::repository(machine, "a");
    }
    let (file, source) = (machines[1].path("server.toml"), machines[1].path("srv/a.git"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("root = ", "owners = [\"65534\"]\nroot = ", 1)).unwrap();
    machines[1].git(&source, &["config", "--global", "safe.directory", "*"]);
    std::fs::set_permissions(machines[1].path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mirror = hub.bare("a.git");
    init(&machines[0]);
    let _first = start(&machines[0]);
    push(&machines[0], "a");
    wait_for("the first mirror", || is_mirrored_at(&hub, &mirror, &machines[0]));
    wait_for_copies(&machines[0], "git0");
    push(&machines[1], "a");
    let give = || {
        let mut chown = machines[1].command("chown");
        assert!(chown.args(["-hR", "65534"]).arg(&source).status().unwrap().success());
    };
    give();
    let second = start(&machines[1]);
    wait_for("the warning", || asked(&machines[1], &["fleet"]).out.contains("more than one mirror pushes to"));
    // A beat or two later, the second daemon knows it too.
    let knows = || second.ask("GET", "/metrics", "").unwrap().text.contains("fleet_connected 1");
    wait_for("the second daemon", knows);
    wait_for_copies(&machines[1], "git1");
    // A pull mirror and another push mirror of the repository are served as usual.
    let (upstream, other) = (hub.bare("upstream.git"), hub.bare("other.git"));
    hub.git(&upstream, &["fetch", "-q", mirror.to_str().unwrap(), "+refs/heads/main:refs/heads/theirs"]);
    let setpriv = |arguments: &[&str]| {
        let mut command = machines[1].command("setpriv");
        command
            .args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_git-mirror-push"), "--git-dir"])
            .arg(&source);
        let said = command.env("GIT_MIRROR_PUSH_CONFIG", &file).args(arguments).output().unwrap();
        assert!(said.status.success(), "{said:?}");
    };
    std::fs::set_permissions(hub.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    setpriv(&["--no-wake", "add", "other", &server.url("other.git"), "-q"]);
    setpriv(&[
        "--no-wake",
        "add",
        "upstream",
        &server.url("upstream.git"),
        "--direction",
        "pull",
        "-q",
        "interval=1s",
        "min_check_interval=1s",
    ]);
    push(&machines[1], "a");
    give();
    wait_for("the other mirror", || is_mirrored_at(&hub, &other, &machines[1]));
    // A push that is not parked is mirrored within a second.
    std::thread::park_timeout(Duration::from_secs(4));
    assert!(is_mirrored_at(&hub, &mirror, &machines[0]), "{}", second.log());
    wait_for("the upstream", || {
        machines[1].try_git(&source, &["rev-parse", "-q", "--verify", "refs/heads/theirs"]).status == 0
    });
    assert!(is_mirrored_at(&hub, &mirror, &machines[0]), "{}", second.log());
}

#[test]
fn two_mirrors_of_one_repository_may_have_one_url() {
    let postgres = Postgres::start();
    let one = Sandbox::new();
    configure(&one, &format!("{LOCAL}[fleet]\nurl = \"{}\"\nnode = \"git1\"\n", postgres.url()));
    init(&one);
    let server = Server::start(&one, Kind::Git);
    let (source, mirror) = (daemon::repository(&one, "a"), one.bare("mirror.git"));
    let url = server.url("mirror.git");
    one.mirror_push_ok(&source, &["add", "heads", &url, "tags=none", "-q"]);
    one.mirror_push_ok(&source, &["add", "tags", &url, "mirror_branch_regex=^$", "-q"]);
    let _daemon = start(&one);
    let work = one.work(&source);
    work.commit("one");
    work.git(&["tag", "v1"]);
    work.push(&["HEAD:refs/heads/main", "v1"]);
    wait_for("both", || one.refs(&mirror).len() == 2);
    wait_for_copies(&one, "git1");
    work.git(&["tag", "v2"]);
    work.push(&["v2"]);
    wait_for("the tag", || one.refs(&mirror).len() == 3);
    assert!(!asked(&one, &["fleet"]).out.contains("more than one mirror"));
}

#[test]
fn in_a_storm_nothing_is_lost_and_all_copies_are_right_afterwards() {
    const REPOSITORIES: usize = 8;
    let mut postgres = Postgres::start();
    let machines: Vec<Sandbox> = (0..3).map(|node| machine(&postgres, &format!("git{node}"), "")).collect();
    init(&machines[0]);
    let names: Vec<String> = (0..REPOSITORIES).map(|n| format!("r{n}")).collect();
    for machine in &machines {
        names.iter().for_each(|name| drop(repository(machine, name)));
    }
    let mut daemons: Vec<Daemon<'_>> = machines.iter().map(start).collect();
    let each = |name: &str| machines.iter().for_each(|machine| push(machine, name));
    for (round, name) in names.iter().cycle().take(3 * REPOSITORIES).enumerate() {
        each(name);
        match round {
            // The first node and the database are killed. Each of the other two nodes is stopped
            // for some rounds.
            4 => daemons[0].signal(Signal::KILL),
            8 => postgres.kill(),
            10 => daemons[1].signal(Signal::STOP),
            13 => daemons[1].signal(Signal::CONT),
            15 => postgres.start_again(),
            17 => daemons[2].signal(Signal::STOP),
            20 => daemons[2].signal(Signal::CONT),
            _ => {}
        }
    }
    daemons[0].ended();
    daemons[0] = start(&machines[0]);
    // A killed daemon keeps its node name for fifteen seconds. The test does not wait for that.
    postgres.sql("update node set seen = seen - interval '20 s' where name = 'git0'");
    let begun = Instant::now();
    for (node, machine) in machines.iter().enumerate() {
        wait_for("every mirror", || names.iter().all(|name| is_mirrored(machine, name)));
        wait_for_copies(machine, &format!("git{node}"));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
