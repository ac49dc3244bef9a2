//! Several daemons that share a real PostgreSQL database. Each machine is a sandbox of its own.

mod debian;
mod faults;
mod limits;
mod nodes;
mod projects;
mod protected;
mod together;

use std::path::PathBuf;

use serde_json::Value;

use crate::scene::daemon::{self, Daemon, LOCAL, configure};
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::{Completed, Sandbox, wait_for};
use crate::scene::servers::free_port;

/// A machine of the fleet, with the name `node`, that mirrors all its repositories. `lines` are
/// added to `[fleet]`.
fn machine(postgres: &Postgres, node: &str, lines: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    set_up(&sandbox, postgres, node, lines);
    sandbox
}

fn set_up(sandbox: &Sandbox, postgres: &Postgres, node: &str, lines: &str) {
    let there = sandbox.path("there");
    std::fs::create_dir_all(&there).unwrap();
    let url = postgres.url();
    configure(
        sandbox,
        &format!(
            "{LOCAL}[fleet]\nurl = \"{url}\"\nnode = \"{node}\"\n{lines}\n[remotes.backup]\nurl = \"{}/{{path}}.git\"\n",
            there.display()
        ),
    );
}

/// A repository of a machine and its mirror.
fn repository(sandbox: &Sandbox, name: &str) -> (PathBuf, PathBuf) {
    let mirror = sandbox.bare(&format!("there/{name}.git"));
    (daemon::repository(sandbox, name), mirror)
}

/// `git mirror-push`, with the configuration of the machine.
fn asked(sandbox: &Sandbox, arguments: &[&str]) -> Completed {
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
    command.env("GIT_MIRROR_PUSH_CONFIG", sandbox.path("server.toml"));
    Completed::of(&command.args(arguments).output().unwrap())
}

fn init(sandbox: &Sandbox) {
    let said = asked(sandbox, &["fleet", "init"]);
    assert_eq!(said.status, 0, "{said:?}");
}

fn start(sandbox: &Sandbox) -> Daemon<'_> {
    Daemon::start_as_configured(sandbox, free_port())
}

/// What `fleet --json` says of a node.
fn node_of(sandbox: &Sandbox, name: &str) -> Value {
    let said = asked(sandbox, &["fleet", "--json"]).json();
    let nodes = said["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["node"] == name).cloned().unwrap_or_default()
}

/// The copies of the mirrors of a node, without the fields `node`, `reachable` and `as_of`, which
/// only copies have. In the order of `status --all`.
fn copies(sandbox: &Sandbox, node: &str) -> Vec<Value> {
    let said = asked(sandbox, &["status", "--fleet", "--json", "--node", node]);
    if said.err.contains("the fleet has no node") {
        return Vec::new();
    }
    let mut copies = said.json().as_array().unwrap().clone();
    for copy in &mut copies {
        let fields = copy.as_object_mut().unwrap();
        assert_eq!(fields.remove("node").as_ref().and_then(Value::as_str), Some(node));
        assert!(fields.remove("reachable").is_some_and(|is| is.is_boolean()) && fields.remove("as_of").is_some());
    }
    copies.sort_by_key(|copy| format!("{} {}", copy["repository"], copy["name"]));
    copies
}

/// The status of all mirrors, from the files of the machine.
fn files(sandbox: &Sandbox) -> Vec<Value> {
    asked(sandbox, &["status", "--all", "--json"]).json().as_array().unwrap().clone()
}

/// Waits until the copies of a node are what its files say.
fn wait_for_copies(sandbox: &Sandbox, node: &str) {
    wait_for("copies like the files", || copies(sandbox, node) == files(sandbox));
}
