//! GitLab's pull mirror API, webhooks, and the daemon that takes what changed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, script, wait_for};

const PULL: &str = "projects/acme%2Fwidget/mirror/pull";

/// A daemon that serves an empty repository, and an upstream with one commit.
fn scene(sandbox: &Sandbox) -> (Daemon<'_>, PathBuf, PathBuf) {
    let daemon = Daemon::start(sandbox, LOCAL);
    let here = daemon.repository("acme/widget");
    let up = sandbox.upstream();
    (daemon, here, up)
}

/// Makes the pull mirror through the API, enabled, and waits for the first pull.
fn enable(sandbox: &Sandbox, daemon: &Daemon<'_>, here: &std::path::Path, up: &std::path::Path) {
    let answer = daemon.api("PUT", PULL, &json!({ "url": up, "enabled": true }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    wait_for("the first pull", || sandbox.refs(here) == sandbox.refs(up));
}

#[test]
fn the_pull_mirror_is_made_shown_and_changed_as_at_gitlab() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    let not_mirrored = json!({ "message": "The project is not mirrored" });
    for method in ["GET", "POST"] {
        let answer = daemon.api(method, PULL, "");
        assert_eq!((answer.status, answer.json()), (400, not_mirrored.clone()), "{method}");
    }
    assert_eq!(daemon.api("PUT", PULL, "{\"enabled\":true}").status, 400);
    let made = daemon.api("PUT", PULL, &json!({ "url": up }).to_string());
    assert_eq!((made.status, &made.json()["enabled"]), (200, &Value::Bool(false)), "{made:?}");
    assert_eq!(daemon.api("POST", PULL, "").json(), not_mirrored, "a disabled one is not mirrored");
    enable(&sandbox, &daemon, &here, &up);
    wait_for("the status", || daemon.api("GET", PULL, "").json()["update_status"] == "finished");
    let shown = daemon.api("GET", PULL, "").json();
    for (field, value) in [
        ("enabled", json!(true)),
        ("mirror_trigger_builds", json!(true)),
        ("only_mirror_protected_branches", json!(false)),
        ("mirror_overwrites_diverged_branches", json!(false)),
        ("mirror_branch_regex", Value::Null),
        ("last_error", Value::Null),
    ] {
        assert_eq!(shown[field], value, "{shown}");
    }
    let fields = shown.as_object().unwrap().len();
    assert_eq!(fields, 12, "{shown}");
    let settings = json!({ "mirror_trigger_builds": false, "mirror_overwrites_diverged_branches": true, "mirror_branch_regex": "^main$" });
    let changed = daemon.api("PUT", PULL, &settings.to_string()).json();
    for field in ["mirror_trigger_builds", "mirror_overwrites_diverged_branches", "mirror_branch_regex"] {
        assert_eq!(changed[field], settings[field], "{changed}");
    }
    let both = json!({ "only_mirror_protected_branches": true, "mirror_branch_regex": "x" });
    assert_eq!(daemon.api("PUT", PULL, &both.to_string()).status, 400);
    assert_eq!(daemon.api("PUT", PULL, "{\"mirror_branch_regex\":\"(\"}").status, 400);
    // The API of push mirrors does not show the pull mirror.
    assert_eq!(daemon.api("GET", "projects/acme%2Fwidget/remote_mirrors", "").json(), json!([]));
    let id = shown["id"].as_u64().unwrap();
    assert_eq!(daemon.api("DELETE", &format!("projects/acme%2Fwidget/remote_mirrors/{id}"), "").status, 404);
    // A URL that a confined mirror may not reach.
    drop(daemon);
    let daemon = Daemon::start(&sandbox, "[api]\n");
    let answer = daemon.api("PUT", PULL, "{\"url\":\"http://127.0.0.1:1/x.git\"}");
    assert!(answer.status == 400 && answer.text.contains("is blocked"), "{answer:?}");
}

#[test]
fn a_credential_in_the_url_is_stored_and_never_shown() {
    let sandbox = Sandbox::new();
    let (daemon, here, _up) = scene(&sandbox);
    let body = json!({ "url": "https://bot:hunter2@example.org/x.git", "auth_password": "hunter3" });
    let answer = daemon.api("PUT", PULL, &body.to_string());
    assert!(answer.status == 200 && !answer.text.contains("hunter"), "{answer:?}");
    let directory = here.join("mirror-push");
    assert!(!std::fs::read_to_string(directory.join("config.toml")).unwrap().contains("hunter"));
    assert_eq!(std::fs::read_to_string(directory.join("remotes/upstream/secret")).unwrap(), "hunter3\n");
}

#[test]
fn a_trigger_brings_a_change_here_and_onward_within_a_second() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    enable(&sandbox, &daemon, &here, &up);
    let onward = sandbox.bare("onward.git");
    daemon.add("acme/widget", onward.to_str().unwrap());
    wait_for("the onward mirror", || sandbox.refs(&onward) == sandbox.refs(&up));
    let work = sandbox.work(&up);
    for round in 0..6 {
        if round == 3 {
            // While our hook is the only one, the pull spools in its place. With a second hook, git
            // runs both.
            script(&here.join("hooks/post-update"), "#!/bin/sh\n");
        }
        work.commit(&format!("{round}"));
        work.push(&["main"]);
        let begin = Instant::now();
        assert_eq!(daemon.api("POST", PULL, "").status, 202);
        wait_for("here and onward", || sandbox.refs(&onward) == sandbox.refs(&up));
        assert!(begin.elapsed() < Duration::from_secs(2), "round {round}: {:?}", begin.elapsed());
    }
}

#[test]
fn a_token_of_scope_pull_can_trigger_and_nothing_else() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    enable(&sandbox, &daemon, &here, &up);
    let ask = |token: &str, method: &str, path: &str| {
        daemon.ask_with(method, &format!("/api/v4/{path}"), "", &[("PRIVATE-TOKEN", token)]).unwrap().status
    };
    let pull = daemon.new_token("pull", &["--scope", "pull"]);
    let other = daemon.new_token("other", &["--scope", "pull", "--project", "acme/other"]);
    let reader = daemon.new_token("reader", &["--scope", "read_api"]);
    assert_eq!(ask(&pull, "POST", PULL), 202);
    assert_eq!([ask(&pull, "GET", PULL), ask(&pull, "PUT", PULL), ask(&pull, "GET", "projects")], [403, 403, 403]);
    assert_eq!(ask(&other, "POST", PULL), 404);
    assert_eq!([ask(&reader, "POST", PULL), ask(&reader, "GET", PULL)], [403, 200]);
    let login = daemon.ask_with("POST", "/login", &format!("token={pull}"), &[]).unwrap();
    assert_eq!(login.status, 401, "a token of scope pull cannot log in");
}

#[test]
fn webhooks_of_three_kinds_are_believed_by_their_secret_alone() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    enable(&sandbox, &daemon, &here, &up);
    let said = sandbox.mirror_push_ok(&here, &["--config", "server.toml", "webhook", "upstream", "--json"]).json();
    assert!(said["url"].as_str().unwrap().ends_with("/api/v4/projects/acme%2Fwidget/mirror/pull"), "{said}");
    let secret = said["secret"].as_str().unwrap();
    let again = sandbox.mirror_push_ok(&here, &["--config", "server.toml", "webhook", "upstream"]).out;
    assert!(again.contains(secret), "{again}");
    let work = sandbox.work(&up);
    let hmac = |body: &str| {
        let arguments = ["dgst", "-sha256", "-hmac", secret];
        let mut openssl = sandbox.command("openssl");
        let said = crate::scene::sandbox::run_with_input(openssl.args(arguments), body.as_bytes()).out;
        said.trim().rsplit(' ').next().unwrap().to_owned()
    };
    let body = "{\"ref\":\"refs/heads/main\",\"pull_request\":null}";
    let post = |headers: &[(&str, &str)], path: &str| {
        daemon.ask_with("POST", &format!("/api/v4/{path}"), body, headers).unwrap()
    };
    let signature = hmac(body);
    for headers in [
        [("X-Hub-Signature-256", format!("sha256={signature}"))],
        [("X-Gitea-Signature", signature)],
        [("X-Gitlab-Token", secret.to_owned())],
    ] {
        work.commit("more");
        work.push(&["main"]);
        let headers = headers.each_ref().map(|(name, value)| (*name, &**value));
        assert_eq!(post(&headers, PULL).status, 202, "{headers:?}");
        wait_for("the pull", || sandbox.refs(&here) == sandbox.refs(&up));
    }
    let wrong = post(&[("X-Gitlab-Token", "wrong")], PULL);
    let unknown = post(&[("X-Gitlab-Token", secret)], "projects/acme%2Fother/mirror/pull");
    assert_eq!((wrong.status, &wrong.text), (404, &unknown.text));
    assert_eq!(unknown.status, 404);
    assert_eq!(post(&[], PULL).status, 401);
    // The body of a webhook lists every commit of the push, so it may be large.
    let large = "x".repeat(2 << 20);
    let send =
        |body: &str, headers: &[(&str, &str)]| daemon.ask_with("POST", &format!("/api/v4/{PULL}"), body, headers);
    let signature = format!("sha256={}", hmac(&large));
    assert_eq!(send(&large, &[("X-Hub-Signature-256", &signature)]).unwrap().status, 202);
    assert_eq!(send(&large[1..], &[("X-Hub-Signature-256", &signature)]).unwrap().status, 404);
    let token = daemon.new_token("large", &["--scope", "pull"]);
    assert_eq!(send(&large, &[("PRIVATE-TOKEN", &token)]).unwrap().status, 202);
    // The server may answer while the client still sends. Then the client may not see the answer.
    let answer = send(&"x".repeat(26 << 20), &[("X-Gitlab-Token", secret)]);
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 413), "{answer:?}");
    // A new secret ends the old one.
    sandbox.mirror_push_ok(&here, &["--config", "server.toml", "webhook", "upstream", "--rotate"]);
    assert_eq!(post(&[("X-Gitlab-Token", secret)], PULL).status, 404);
}

#[test]
fn a_flood_of_webhooks_makes_few_checks_and_drops_no_change() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    enable(&sandbox, &daemon, &here, &up);
    let said = sandbox.mirror_push_ok(&here, &["--config", "server.toml", "webhook", "upstream", "--json"]).json();
    let secret = said["secret"].as_str().unwrap();
    let checked =
        || std::fs::metadata(here.join("mirror-push/remotes/upstream/checked")).and_then(|file| file.modified()).ok();
    let (mut times, begin) = (std::collections::BTreeSet::new(), Instant::now());
    while begin.elapsed() < Duration::from_secs(4) {
        let answer = daemon.ask_with("POST", &format!("/api/v4/{PULL}"), "{}", &[("X-Gitlab-Token", secret)]).unwrap();
        assert!([202, 429].contains(&answer.status), "{answer:?}");
        times.extend(checked());
    }
    assert!(times.len() <= 3, "{} checks in four seconds", times.len());
    let work = sandbox.work(&up);
    work.commit("the last one counts");
    work.push(&["main"]);
    daemon.ask_with("POST", &format!("/api/v4/{PULL}"), "{}", &[("X-Gitlab-Token", secret)]).unwrap();
    wait_for("the change", || sandbox.refs(&here) == sandbox.refs(&up));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

/// A webhook comes too early and waits. Silent mode begins and ends. Then the check is made,
/// although `interval` is `none`.
#[test]
fn a_webhook_that_waits_is_not_lost_to_silent_mode() {
    let sandbox = Sandbox::new();
    let (daemon, here, up) = scene(&sandbox);
    enable(&sandbox, &daemon, &here, &up);
    sandbox.mirror_push_ok(&here, &["set", "upstream", "interval=none"]);
    wait_for("the run after the change", || sandbox.status(&here)["pending"] == 0);
    let said = sandbox.mirror_push_ok(&here, &["--config", "server.toml", "webhook", "upstream", "--json"]).json();
    let secret = said["secret"].as_str().unwrap();
    let deliver = || {
        daemon.ask_with("POST", &format!("/api/v4/{PULL}"), "{}", &[("X-Gitlab-Token", secret)]).unwrap();
        sandbox.status(&here)["pending"].as_u64().unwrap()
    };
    for _ in 0..3 {
        deliver();
    }
    sandbox.mirror_push_ok(&here, &["silent", "on"]);
    wait_for("the end of the runs before", || sandbox.status(&here)["update_status"] != "started");
    let work = sandbox.work(&up);
    work.commit("during silent mode");
    work.push(&["main"]);
    assert_ne!(sandbox.refs(&here), sandbox.refs(&up));
    wait_for("the note of the webhook", || sandbox.status(&here)["pending"] != 0);
    sandbox.mirror_push_ok(&here, &["silent", "off"]);
    wait_for("the change", || sandbox.refs(&here) == sandbox.refs(&up));
}

#[test]
fn the_daemon_checks_what_is_due_by_the_clock_also_after_a_restart() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "scan_interval = \"1s\"\n[api]\nallow_local_network = true\n");
    let here = daemon.repository("acme/widget");
    let up = sandbox.upstream();
    let work = sandbox.work(&up);
    enable(&sandbox, &daemon, &here, &up);
    sandbox.mirror_push_ok(&here, &["set", "upstream", "interval=1s"]);
    let follow = |what: &str| {
        work.commit(what);
        work.push(&["main"]);
        wait_for(what, || sandbox.refs(&here) == sandbox.refs(&up));
    };
    follow("by the clock");
    drop(daemon);
    let _daemon = Daemon::start_as_configured(&sandbox, crate::scene::servers::free_port());
    follow("after a restart");
}

#[test]
fn a_git_remote_is_taken_over_with_its_url() {
    let sandbox = Sandbox::new();
    let up = sandbox.upstream();
    let url = up.display().to_string();
    sandbox.git(&sandbox.path(""), &["clone", "-q", "--mirror", &url, "here.git"]);
    let here = sandbox.path("here.git");
    std::fs::create_dir_all(here.join("mirror-push")).unwrap();
    std::fs::write(here.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    let said = sandbox.mirror_push(&here, &["add", "up", "--from-git-remote", "other"]);
    assert!(said.status == 129 && said.err.contains("no remote 'other'"), "{said:?}");
    sandbox.mirror_push_ok(&here, &["add", "up", "--from-git-remote", "origin"]);
    let work = sandbox.work(&up);
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&here, &["pull"]);
    assert_eq!(sandbox.refs(&here), sandbox.refs(&up));
    assert_eq!(sandbox.status(&here)["direction"], "pull");
}
