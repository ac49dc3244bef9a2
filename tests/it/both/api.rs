//! A two-way mirror under the daemon: both APIs, a run after a push here and after a request to the
//! API, and no change that is sent back to where it came from.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::scene::daemon::Daemon;
use crate::scene::sandbox::{Sandbox, wait_for};
use crate::scene::servers::{Kind, Server};

const PULL: &str = "projects/acme%2Fwidget/mirror/pull";
const PUSH: &str = "projects/acme%2Fwidget/remote_mirrors";
const LOCAL: &str = "scan_interval = \"1h\"\n[api]\nallow_local_network = true\n";

#[test]
fn a_push_on_either_side_is_on_the_other_within_a_second() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let here = daemon.repository("acme/widget");
    let there = sandbox.upstream();
    let server = Server::start(&sandbox, Kind::Http);
    let url = server.url("up.git");
    // The mirror is enabled when the access is configured, so that the first run succeeds.
    let add = ["--config", "server.toml", "add", "office", &url, "--direction", "both", "--disabled"];
    sandbox.mirror_push_ok(&here, &add);
    server.configure_access(&sandbox, &here, "office");
    sandbox.mirror_push_ok(&here, &["--config", "server.toml", "enable", "office"]);
    wait_for("the first run", || sandbox.refs(&here) == sandbox.refs(&there));
    wait_for("its end", || sandbox.status(&here)["update_status"] == "finished");
    let (ours, theirs) = (sandbox.work(&here), sandbox.work(&there));
    let before = server.requests(&sandbox).len();
    let rounds = std::env::var("MIRROR_PUSH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let mut times = Vec::new();
    for round in 0..rounds {
        let work = if round % 2 == 0 { &ours } else { &theirs };
        work.git(&["fetch", "-q", "origin"]);
        work.git(&["reset", "-q", "--hard", "origin/main"]);
        work.commit(&format!("{round}"));
        work.push(&["main"]);
        let begin = Instant::now();
        if round % 2 == 1 {
            assert_eq!(daemon.api("POST", PULL, "").status, 202);
        }
        wait_for("the other side", || sandbox.refs(&here) == sandbox.refs(&there));
        times.push(begin.elapsed());
        // The run is recorded a moment later.
        wait_for("the end", || sandbox.status(&here)["update_status"] == "finished");
    }
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    eprintln!("{rounds} rounds: median {:?}, 95 % below {:?}, at most {:?}", at(50), at(95), at(100));
    assert!(at(95) < Duration::from_secs(2), "{times:?}");
    let status = sandbox.status(&here);
    assert!(status["refs"].as_array().unwrap().is_empty(), "{status}");
    // A push here costs one request for the refs and one push. A push there costs one request for
    // the refs and one fetch. Nothing is sent back.
    let requests = server.requests(&sandbox);
    let count = |what: &str| requests[before..].iter().filter(|request| request.contains(what)).count();
    let (pushes, looks) = (count("POST /up.git/git-receive-pack"), count("POST /up.git/git-upload-pack"));
    assert_eq!(pushes, rounds / 2, "{requests:#?}");
    assert!(looks <= rounds / 2 * 3, "{looks}: {requests:#?}");
}

#[test]
fn both_apis_show_enable_and_sync_it_and_change_nothing_else() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let here = daemon.repository("acme/widget");
    let there = sandbox.upstream();
    let url = there.display().to_string();
    sandbox.mirror_push_ok(&here, &["--config", "server.toml", "add", "office", &url, "--direction", "both"]);
    wait_for("the first run", || sandbox.refs(&here) == sandbox.refs(&there));
    let shown = daemon.api("GET", PUSH, "").json();
    assert_eq!((&shown[0]["direction"], &shown[0]["name"]), (&json!("both"), &json!("office")));
    let id = daemon.api("GET", PULL, "").json()["id"].clone();
    assert_eq!(id, shown[0]["id"]);
    let one = format!("{PUSH}/{id}");
    for (method, path, body) in [
        ("PUT", PULL, "{\"url\":\"http://127.0.0.1:1/x.git\"}"),
        ("PUT", PULL, "{\"mirror_overwrites_diverged_branches\":true,\"enabled\":false}"),
        ("PUT", &one, "{\"keep_divergent_refs\":true}"),
        ("DELETE", &one, ""),
    ] {
        let answer = daemon.api(method, path, body);
        assert_eq!(answer.status, 400, "{method} {path}: {answer:?}");
        assert!(answer.text.contains("two-way mirror: use 'git mirror-push set'"), "{answer:?}");
    }
    for (path, enabled) in [(PULL, false), (PULL, true), (&*one, false), (&*one, true)] {
        let answer = daemon.api("PUT", path, &json!({ "enabled": enabled }).to_string());
        assert_eq!((answer.status, answer.json()["enabled"].clone()), (200, json!(enabled)), "{path}");
    }
    let work = sandbox.work(&there);
    work.commit("more");
    work.push(&["main"]);
    assert_eq!(daemon.api("POST", &format!("{one}/sync"), "").status, 204);
    wait_for("the sync", || sandbox.refs(&here) == sandbox.refs(&there));
}
