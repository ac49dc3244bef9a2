//! GitLab's remote mirrors API over a real socket: permissions, refusals with their messages, answers.

use serde_json::{Value, json};

use crate::scene::daemon::{Answer, Daemon, LOCAL};
use crate::scene::sandbox::{Sandbox, wait_for};

fn error(answer: &Answer) -> (u16, Value) {
    let body = answer.json();
    let text = if body["error"].is_null() { &body["message"] } else { &body["error"] };
    (answer.status, text.clone())
}

#[test]
fn who_may_do_what() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    daemon.repository("other/thing");
    let id = daemon.add("acme/widget", sandbox.bare("mirror.git").to_str().unwrap());
    let list = "/api/v4/projects/acme%2Fwidget/remote_mirrors";
    let one = format!("{list}/{id}");
    let ask = |token: Option<&str>, method: &str, path: &str| {
        let header = token.map(|token| ("PRIVATE-TOKEN", token));
        daemon.ask_with(method, path, "", header.as_slice()).unwrap()
    };
    let unauthorized = (401, json!("401 Unauthorized"));
    assert_eq!(error(&ask(None, "GET", list)), unauthorized);
    assert_eq!(error(&ask(Some("gmpat-wrong"), "GET", list)), unauthorized);
    for (name, value) in
        [("Authorization", format!("Bearer {}", daemon.token)), ("private-token", daemon.token.clone())]
    {
        assert_eq!(daemon.ask_with("GET", list, "", &[(name, &value)]).unwrap().status, 200, "{name}");
    }
    let reader = daemon.new_token("reader", &["--scope", "read_api"]);
    assert_eq!(ask(Some(&reader), "GET", &one).status, 200);
    for (method, path) in
        [("POST", format!("{one}/sync")), ("DELETE", one.clone()), ("PUT", one.clone()), ("POST", list.to_owned())]
    {
        assert_eq!(error(&ask(Some(&reader), method, &path)), (403, json!("insufficient_scope")), "{method} {path}");
    }
    // A token sees no project that it is not bound to.
    let bound = daemon.new_token("bound", &["--project", "other/*"]);
    assert_eq!(error(&ask(Some(&bound), "GET", list)), (404, json!("404 Project Not Found")));
    assert_eq!(error(&ask(Some(&bound), "POST", &format!("{one}/sync"))), (404, json!("404 Project Not Found")));
    assert_eq!(ask(Some(&bound), "GET", "/api/v4/projects/other%2Fthing/remote_mirrors").status, 200);
    assert_eq!(ask(Some(&bound), "GET", "/api/v4/projects").json().as_array().unwrap().len(), 1);
    let short = daemon.new_token("short", &["--expires", "1s"]);
    wait_for("the expiry", || ask(Some(&short), "GET", list).status == 401);
    assert_eq!(error(&ask(Some(&short), "GET", list)), (401, json!("invalid_token")));
    sandbox.mirror_push_ok(&sandbox.path("srv/acme/widget.git"), &["token", "revoke", "reader"]);
    assert_eq!(error(&ask(Some(&reader), "GET", list)), unauthorized, "a revoked token is refused at once");
    let listed = sandbox.mirror_push_ok(&sandbox.path("srv/acme/widget.git"), &["token", "list", "--json"]);
    assert!(!listed.out.contains("gmpat-") && listed.json()[0]["last_used_at"].is_string(), "{listed:?}");
    let stored = std::fs::read_to_string(sandbox.path("state/tokens.json")).unwrap();
    assert!(!stored.contains(&daemon.token) && !daemon.log().contains(&daemon.token));
}

#[test]
fn guessing_is_slowed_down_and_a_right_token_passes() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    let guess = |from: &str| {
        let headers = [("PRIVATE-TOKEN", "gmpat-guess"), ("X-Forwarded-For", from)];
        daemon.ask_with("GET", "/api/v4/user", "", &headers).unwrap()
    };
    let statuses: Vec<u16> = (0..12).map(|_| guess("192.0.2.7").status).collect();
    assert_eq!(statuses, [[401; 10].as_slice(), &[429, 429]].concat());
    assert!(guess("192.0.2.7").header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(guess("192.0.2.8").status, 401, "others are not held up");
    let headers = [("PRIVATE-TOKEN", &*daemon.token), ("X-Forwarded-For", "192.0.2.7")];
    assert_eq!(daemon.ask_with("GET", "/api/v4/user", "", &headers).unwrap().status, 200);
}

#[test]
fn unknown_projects_mirrors_and_routes_are_refused() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    daemon.repository("acme/other");
    daemon.add("acme/widget", sandbox.bare("mirror.git").to_str().unwrap());
    let mirror = "projects/acme%2Fwidget/remote_mirrors";
    let project = (404, json!("404 Project Not Found"));
    let none = (404, json!("404 Not found"));
    for (path, expected) in [
        ("projects/acme%2Fnone", &project),
        ("projects/99", &project),
        ("projects/%2e%2e%2F%2e%2e%2Fetc", &project),
        ("projects/..%2F..%2Fmirror/remote_mirrors", &project),
        ("projects/%2Fetc%2Fpasswd/remote_mirrors", &project),
        ("projects/acme%2F..%2Facme%2Fwidget/remote_mirrors", &project),
        ("projects/acme%00/remote_mirrors", &project),
        ("projects/%ff%fe/remote_mirrors", &project),
        (&format!("{mirror}/99"), &none),
        (&format!("{mirror}/x"), &none),
        (&format!("{mirror}/-1"), &none),
        (&format!("{mirror}/99999999999999999999"), &none),
        ("projects/acme%2Fother/remote_mirrors/1", &none),
    ] {
        assert_eq!(error(&daemon.api("GET", path, "")), *expected, "{path}");
    }
    assert_eq!(error(&daemon.api("GET", "nothing", "")), (404, json!("404 Not Found")));
    assert_eq!(error(&daemon.api("PUT", "version", "")), (405, json!("405 Not Allowed")));
    assert_eq!(error(&daemon.api("GET", &format!("{mirror}/1/public_key"), "")), (404, json!("404 Not Found")));
    // By id, by path, and by path with `.git`.
    let id = daemon.api("GET", "projects/acme%2Fwidget", "").json()["id"].clone();
    for form in [id.to_string(), "acme%2Fwidget".into(), "acme%2Fwidget.git".into()] {
        assert_eq!(daemon.api("GET", &format!("projects/{form}/remote_mirrors/1"), "").status, 200, "{form}");
    }
}

#[test]
fn valid_mirrors_are_created_and_others_are_refused_with_their_messages() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    let source = daemon.repository("acme/widget");
    let create = |body: &str| daemon.api("POST", "projects/1/remote_mirrors", body);
    let blocked = |why: &str| (400, json!({ "url": [format!("is blocked: {why}")] }));
    let schemes = blocked("Only allowed schemes are http, https, ssh, git");
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    for (body, expected) in [
        ("enabled=true", (400, json!("url is missing"))),
        ("url=", (400, json!({ "url": ["can't be blank"] }))),
        (r#"{"url": null}"#, (400, json!({ "url": ["can't be blank"] }))),
        ("url=ftp://example.org/x.git", schemes.clone()),
        ("url=git@example.org:x.git", schemes.clone()),
        ("url=/srv/git/x.git", schemes.clone()),
        ("url=file:///srv/git/x.git", schemes.clone()),
        ("url=ext::sh%20-c%20id", schemes),
        ("url=https://-x:y@example.org/x.git", blocked("Username needs to start with an alphanumeric character")),
        ("url=https://*****:*****@example.org/x", blocked("Username needs to start with an alphanumeric character")),
        ("url=http://127.0.0.1/x.git", blocked("Requests to loopback addresses are not allowed")),
        ("url=http://localhost/x.git", blocked("Requests to loopback addresses are not allowed")),
        ("url=http://2130706433/x.git", blocked("Requests to loopback addresses are not allowed")),
        ("url=http://[::ffff:127.0.0.1]/x.git", blocked("Requests to loopback addresses are not allowed")),
        ("url=ssh://git@10.0.0.1/x.git", blocked("Requests to the local network are not allowed")),
        ("url=git://169.254.169.254/latest", blocked("Requests to the link local network are not allowed")),
        ("url=http://0.0.0.0/x", blocked("Requests to localhost are not allowed")),
        ("url=https://100.64.1.1/x", blocked("Requests to the shared address space are not allowed")),
        ("url=https://203.0.113.1/x.git&enabled=perhaps", (400, json!("enabled is invalid"))),
        ("url=https://203.0.113.1/x.git&auth_method=magic", (400, json!("auth_method does not have a valid value"))),
        ("url=https://203.0.113.1/x.git&prune=magic", (400, json!("prune does not have a valid value"))),
        (
            r#"{"url": "https://203.0.113.1/x.git", "only_protected_branches": null}"#,
            (400, json!({ "only_protected_branches": ["can't be blank"] })),
        ),
        (
            "url=https://203.0.113.1/x.git&only_protected_branches=false&mirror_branch_regex=x",
            (400, json!("only_protected_branches, mirror_branch_regex are mutually exclusive")),
        ),
        ("url=ssh://git@203.0.113.1/x.git&host_keys[]=nonsense", (400, json!("Invalid SSH host key(s): nonsense"))),
        ("{", (400, json!("message body does not match declared format"))),
        ("[1]", (400, json!("message body does not match declared format"))),
    ] {
        assert_eq!(error(&create(body)), expected, "{body}");
    }
    let many: Vec<String> = (0..11).map(|_| format!("ssh-ed25519 {key}")).collect();
    let body = json!({ "url": "ssh://git@203.0.113.1/x.git", "host_keys": many }).to_string();
    assert_eq!(error(&create(&body)), (400, json!("Invalid SSH host key(s): too many host keys (maximum is 10)")));
    let regex = create("url=https://203.0.113.1/x.git&mirror_branch_regex=(");
    assert!(regex.status == 400 && regex.json()["message"]["mirror_branch_regex"][0].is_string(), "{regex:?}");
    let kind = [("PRIVATE-TOKEN", &*daemon.token), ("Content-Type", "text/xml")];
    let other = daemon.ask_with("POST", "/api/v4/projects/1/remote_mirrors", "<x/>", &kind).unwrap();
    assert_eq!(error(&other), (415, json!("The provided content-type 'text/xml' is not supported.")));
    assert!(!source.join("mirror-push/config.toml").exists(), "nothing was made");
    let made = create("url=https://bot:gmp-canary@203.0.113.1/x.git");
    assert_eq!(made.status, 201, "{made:?}");
    let expected = json!({
        "id": 1, "enabled": false, "url": "https://*****:*****@203.0.113.1/x.git", "auth_method": "password",
        "update_status": "none", "last_error": null, "last_update_at": null, "last_update_started_at": null,
        "last_successful_update_at": null, "only_protected_branches": false, "keep_divergent_refs": false,
        "mirror_branch_regex": null, "host_keys": [], "name": "203.0.113.1",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(made.json()[field], *value, "{field}");
    }
    assert!(made.json().get("repository").is_none(), "no answer shows a path of the server");
    let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(config.contains("confined = true") && !config.contains("gmp-canary"), "{config}");
    assert!(!daemon.log().contains("gmp-canary"));
    let second = create("url=https://git@203.0.113.1/y.git&keep_divergent_refs=1&only_protected_branches=true").json();
    assert_eq!((&second["name"], &second["keep_divergent_refs"]), (&json!("203.0.113.1-2"), &json!(true)));
    assert_eq!(second["url"], "https://git@203.0.113.1/y.git", "the user git is shown");
}

#[test]
fn what_a_change_does() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    let source = daemon.repository("acme/widget");
    let made = daemon.api("POST", "projects/1/remote_mirrors", "url=https://bot:gmp-canary@203.0.113.1/x.git");
    assert_eq!(made.status, 201);
    let put = |body: &str| daemon.api("PUT", "projects/1/remote_mirrors/1", body);
    let fields = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.json()["only_protected_branches"].clone(), answer.json()["mirror_branch_regex"].clone())
    };
    // As in GitLab, `only_protected_branches` and `mirror_branch_regex` replace each other.
    assert_eq!(fields(&put(r#"{"mirror_branch_regex": "^v"}"#)), (json!(false), json!("^v")));
    assert_eq!(fields(&put("only_protected_branches=false")), (json!(false), json!("^v")));
    assert_eq!(fields(&put("only_protected_branches=true")), (json!(true), json!(null)));
    assert_eq!(fields(&put("mirror_branch_regex=^w")), (json!(false), json!("^w")));
    assert_eq!(fields(&put(r#"{"mirror_branch_regex": null}"#)), (json!(false), json!(null)));
    assert_eq!(error(&put("auth_method=magic")), (400, json!({ "auth_method": ["is not included in the list"] })));
    let answer = put("keep_divergent_refs=true&tags[]=v*&prune=never&unknown=1").json();
    assert_eq!(
        (&answer["divergent_refs"], &answer["tags"], &answer["prune"]),
        (&json!("keep"), &json!(["v*"]), &json!("never"))
    );
    assert_eq!(put("keep_divergent_refs=false").json()["divergent_refs"], "overwrite");
    assert_eq!(put(r#"{"divergent_refs": "fail", "tags": "none"}"#).json()["tags"], "none");
    // The stored password is kept for its own host only. A refused change leaves it as it is.
    let secret = source.join("mirror-push/remotes/203.0.113.1/secret");
    let stored = std::fs::read_to_string(&secret).unwrap();
    let refused = ["set", "203.0.113.1", "--url", "https://u:new@203.0.113.2/x", "--mirror-branch-regex", "("];
    assert_ne!(sandbox.mirror_push(&source, &refused).status, 0);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), stored);
    assert_eq!(put("url=https://203.0.113.1/moved.git").json()["url"], "https://*****:*****@203.0.113.1/moved.git");
    assert_eq!(put("url=https://203.0.113.9/moved.git").json()["url"], "https://203.0.113.9/moved.git");
    assert!(!secret.exists());
    assert_eq!(put("url=https://bot:other@203.0.113.9/x.git").json()["url"], "https://*****:*****@203.0.113.9/x.git");
    assert_eq!(error(&put("url=http://127.0.0.1/x")).0, 400);
    // Host keys are set, kept if the request does not name them, and removed with an empty list.
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let body = json!({ "url": "ssh://git@203.0.113.9:2222/x.git", "auth_method": "ssh_public_key", "host_keys": [format!("ssh-ed25519 {key}"), ""] });
    let keys = put(&body.to_string());
    assert_eq!(
        keys.json()["host_keys"],
        json!([{ "fingerprint_sha256": "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU" }])
    );
    let pins = std::fs::read_to_string(source.join("mirror-push/remotes/203.0.113.1/known_hosts")).unwrap();
    assert!(pins.starts_with("[203.0.113.9]:2222 ssh-ed25519 "), "{pins}");
    assert_eq!(put("enabled=false").json()["host_keys"].as_array().unwrap().len(), 1);
    assert_eq!(error(&put(r#"{"host_keys": ["x"]}"#)).0, 400);
    assert_eq!(put("enabled=0").json()["host_keys"].as_array().unwrap().len(), 1);
    assert_eq!(put(r#"{"host_keys": []}"#).json()["host_keys"], json!([]));
    let public = daemon.api("GET", "projects/1/remote_mirrors/1/public_key", "").json();
    assert!(public["public_key"].as_str().unwrap().starts_with("ssh-ed25519 "), "{public}");
}

#[test]
fn sync_and_delete() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let work = sandbox.work(&source);
    work.commit("one");
    let path = |end: &str| format!("projects/1/remote_mirrors/1{end}");
    daemon.api("POST", "projects/1/remote_mirrors", &format!("url={}", mirror.display()));
    let refused = "Cannot proceed with the push mirroring. Please verify your mirror configuration.";
    assert_eq!(error(&daemon.api("POST", &path("/sync"), "")), (400, json!(refused)), "it is disabled");
    assert_eq!(daemon.api("PUT", &path(""), "enabled=true").status, 200);
    work.push(&["main"]);
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    // Someone changes the mirror: nothing but a sync sees it.
    sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/main"]);
    let synced = daemon.api("POST", &path("/sync"), "");
    assert_eq!((synced.status, &*synced.text), (204, ""));
    wait_for("the sync", || sandbox.refs(&mirror) == sandbox.refs(&source));
    sandbox.mirror_push_ok(&source, &["silent", "on"]);
    assert_eq!(error(&daemon.api("POST", &path("/sync"), "")), (400, json!(refused)));
    let headers = [("PRIVATE-TOKEN", &*daemon.token), ("If-Unmodified-Since", "Tue, 06 Jan 2015 17:32:02 GMT")];
    let stale = daemon.ask_with("DELETE", &format!("/api/v4/{}", path("")), "", &headers).unwrap();
    assert_eq!(error(&stale), (412, json!("412 Precondition Failed")));
    assert_eq!(daemon.api("DELETE", &path(""), "").status, 204);
    assert_eq!(daemon.api("GET", &path(""), "").status, 404);
    assert_eq!(daemon.api("DELETE", &path(""), "").status, 404);
    let directory = source.join("mirror-push/remotes/local");
    wait_for("its files", || !directory.join("status.json").exists());
    assert_eq!(sandbox.refs(&mirror).len(), 1, "the repository there was not touched");
}

#[test]
fn a_sync_during_a_run_is_one_more_run() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let (gate, begun) = (sandbox.path("gate"), sandbox.path("begun"));
    let hook = format!(
        "#!/bin/sh\necho >> '{b}'\nwhile [ -e '{b}' ] && [ ! -e '{g}' ]; do sleep 0.05; done\n",
        b = begun.display(),
        g = gate.display()
    );
    crate::scene::sandbox::script(&mirror.join("hooks/pre-receive"), &hook);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    daemon.add("acme/widget", mirror.to_str().unwrap());
    wait_for("the run", || begun.exists());
    assert_eq!(daemon.api("GET", "projects/1/remote_mirrors/1", "").json()["update_status"], "started");
    // No hook reports this ref: only one more comparison finds it.
    sandbox.git(&source, &["update-ref", "refs/heads/late", "main"]);
    for _ in 0..3 {
        assert_eq!(daemon.api("POST", "projects/1/remote_mirrors/1/sync", "").status, 204);
    }
    std::fs::write(&gate, "").unwrap();
    wait_for("one more run", || sandbox.refs(&mirror).len() == 2);
    wait_for("the end", || daemon.api("GET", "projects/1/remote_mirrors/1", "").json()["update_status"] == "finished");
    let runs = std::fs::read_to_string(source.join("mirror-push/remotes/local/history.jsonl")).unwrap().lines().count();
    assert!((2..=3).contains(&runs), "{runs} runs for three requests during one run");
}

#[test]
fn lists_have_pages_and_projects_have_the_fields_that_clients_need() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    for n in 0..25 {
        sandbox.bare(&format!("srv/p{n:02}.git"));
    }
    daemon.repository("acme/widget");
    wait_for("the new repositories", || daemon.api("GET", "projects", "").header("x-total") == Some("26"));
    let first = daemon.api("GET", "projects", "");
    assert_eq!((first.json().as_array().unwrap().len(), first.header("x-next-page")), (20, Some("2")));
    let last = daemon.api("GET", "projects?per_page=10&page=3", "");
    assert_eq!((last.json().as_array().unwrap().len(), last.header("x-next-page")), (6, Some("")));
    assert!(last.header("link").unwrap().contains("page=2&per_page=10>; rel=\"prev\""), "{last:?}");
    let found = daemon.api("GET", "projects?search=WIDG", "").json();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["path_with_namespace"]), (1, &json!("acme/widget")));
    for (query, text) in [("page=0", "page does not have a valid value"), ("per_page=x", "per_page is invalid")] {
        assert_eq!(error(&daemon.api("GET", &format!("projects?{query}"), "")), (400, json!(text)));
    }
    let user = daemon.api("GET", "user", "").json();
    assert_eq!((&user["username"], &user["state"]), (&json!("test"), &json!("active")));
    assert!(daemon.api("GET", "version", "").json()["version"].as_str().unwrap().starts_with("18."));
    // A project keeps its id when the daemon restarts and other repositories appear.
    let id = daemon.api("GET", "projects/acme%2Fwidget", "").json()["id"].clone();
    let port = daemon.port;
    drop(daemon);
    sandbox.bare("srv/aaa.git");
    let again = Daemon::start_as_configured(&sandbox, port);
    assert_eq!(again.api("GET", "projects/acme%2Fwidget", "").json()["id"], id);
    assert_eq!(again.api("GET", "projects/aaa", "").status, 200);
}

#[test]
fn a_mirror_that_is_moved_keeps_no_password_and_is_confined() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "");
    let source = daemon.repository("acme/widget");
    let secret = source.join("mirror-push/remotes/m/secret");
    let config = || std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    sandbox.mirror_push_ok(
        &source,
        &["add", "m", "ssh://git@203.0.113.1/x.git", "--auth-method", "password", "--disabled"],
    );
    for url in ["ssh://git@203.0.113.2/x.git", "ssh://git@203.0.113.2:2222/x.git", "https://203.0.113.2/x.git"] {
        assert_eq!(sandbox.mirror_push_with_input(&source, &["credential", "m"], "word\n").status, 0);
        assert!(secret.exists());
        let id = daemon.api("GET", "projects/1/remote_mirrors", "").json()[0]["id"].clone();
        let put = daemon.api("PUT", &format!("projects/1/remote_mirrors/{id}"), &json!({ "url": url }).to_string());
        assert_eq!(put.status, 200, "{url}: {put:?}");
        assert!(!secret.exists(), "{url}");
        assert!(config().contains("confined = true"), "{url}: {}", config());
    }
}
