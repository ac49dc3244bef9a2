//! The API and the page of each node show the repositories of all nodes as projects. Every project
//! has one number in the whole fleet.

use rustix::process::Signal;
use serde_json::Value;

use super::{asked, init, machine, repository, set_up, start, wait_for_copies};
use crate::scene::daemon::{Daemon, LOCAL, configure};
use crate::scene::postgres::Postgres;
use crate::scene::sandbox::{Sandbox, wait_for};

/// The projects that a daemon lists: path and number.
fn listed(daemon: &Daemon<'_>) -> Vec<(String, u64)> {
    let all = daemon.api("GET", "projects", "").json();
    let one = |project: &Value| {
        (project["path_with_namespace"].as_str().unwrap().to_owned(), project["id"].as_u64().unwrap())
    };
    all.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_node_that_joins_keeps_its_numbers_as_far_as_they_are_free() {
    let mut postgres = Postgres::start();
    let machines = [Sandbox::new(), Sandbox::new()];
    // Before they join, both machines give numbers of their own.
    for (node, machine) in machines.iter().enumerate() {
        configure(machine, LOCAL);
        for name in ["a", "b"] {
            repository(machine, &format!("{name}{node}"));
        }
        let daemon = start(machine);
        let [one, two] = [format!("a{node}"), format!("b{node}")];
        assert_eq!(listed(&daemon), [(one, 1), (two, 2)]);
    }
    for (node, machine) in machines.iter().enumerate() {
        set_up(machine, &postgres, &format!("git{node}"), "");
    }
    init(&machines[0]);
    let first = start(&machines[0]);
    wait_for_copies(&machines[0], "git0");
    assert_eq!(listed(&first), [("a0".into(), 1), ("b0".into(), 2)]);
    let mut second = start(&machines[1]);
    wait_for_copies(&machines[1], "git1");
    let all = listed(&second);
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(all, listed(&first));
    let number = |name: &str| all.iter().find(|(path, _)| path == name).unwrap().1;
    assert_eq!((number("a0"), number("b0")), (1, 2));
    assert!(number("a1") > 1_000_000 && number("b1") > number("a1"), "{all:?}");
    assert!(second.log().contains("srv/a1.git' has the number "), "{}", second.log());
    // The numbers stay after a restart, even if the node has lost its file of numbers.
    second.signal(Signal::TERM);
    assert_eq!(second.ended(), Some(0));
    std::fs::remove_file(machines[1].path("state/projects.jsonl")).unwrap();
    let second = start(&machines[1]);
    wait_for_copies(&machines[1], "git1");
    wait_for("the numbers", || listed(&second) == all && listed(&first) == all);
    // Both machines get a repository while the database is down. The two numbers differ.
    postgres.kill();
    repository(&machines[0], "new0");
    repository(&machines[1], "new1");
    let own =
        |daemon: &Daemon<'_>, name: &str| daemon.api("GET", &format!("projects/{name}"), "").json()["id"].as_u64();
    let numbers = (own(&first, "new0"), own(&second, "new1"));
    assert!(numbers.0.is_some() && numbers.1.is_some() && numbers.0 != numbers.1, "{numbers:?}");
    postgres.start_again();
    wait_for("all projects", || listed(&first).len() == 6 && listed(&second).len() == 6);
    assert_eq!((own(&first, "new0"), own(&second, "new1")), numbers);
    assert_eq!((own(&second, "new0"), own(&first, "new1")), numbers, "by path, from the other node");
    // Digits are the number of a project of another node before they are a path.
    let named = number("a0").to_string();
    repository(&machines[1], &named);
    let at = |id: &str| second.api("GET", &format!("projects/{id}"), "").json()["path_with_namespace"].clone();
    assert_eq!((at(&named), at(&format!("{named}.git"))), ("a0".into(), named.as_str().into()));
    wait_for("the copy", || listed(&first).len() == 7);
    let at = |id: &str| first.api("GET", &format!("projects/{id}"), "").json()["path_with_namespace"].clone();
    assert_eq!((at(&named), at(&format!("{named}.git"))), ("a0".into(), named.as_str().into()));
}

#[test]
fn the_api_of_any_node_shows_all_and_changes_only_what_is_its_own() {
    const THERE: &str = "https://git2.example.org:8417";
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    let two = machine(&postgres, "git2", &format!("advertise = \"{THERE}\""));
    init(&one);
    repository(&one, "acme/a");
    repository(&two, "acme/b");
    repository(&two, "other/c");
    let (daemon, mut other) = (start(&one), start(&two));
    wait_for_copies(&one, "git1");
    wait_for_copies(&two, "git2");
    let all = daemon.api("GET", "projects?per_page=2", "");
    assert_eq!((all.header("x-total"), all.header("x-next-page")), (Some("3"), Some("2")), "{all:?}");
    let names = |path: &str| -> Vec<String> {
        let all = daemon.api("GET", path, "").json();
        all.as_array().unwrap().iter().map(|project| project["path_with_namespace"].as_str().unwrap().into()).collect()
    };
    assert_eq!(names("projects"), ["acme/a", "acme/b", "other/c"]);
    assert_eq!(names("projects?per_page=2&page=2"), ["other/c"]);
    assert_eq!(names("projects?search=ME%2FB"), ["acme/b"]);
    // PostgreSQL accepts no null character. A request with one must not disturb later requests.
    assert_eq!(daemon.api("GET", "projects?search=%00", "").text, "[]");
    assert_eq!(daemon.api("GET", "projects/a%00b", "").status, 404);
    assert_eq!(names("projects").len(), 3);
    // A token that is bound to some projects, whatever node they are on.
    let bound = daemon.new_token("bound", &["--project", "acme/*"]);
    let with = |method: &str, path: &str| {
        daemon.ask_with(method, &format!("/api/v4/{path}"), "", &[("PRIVATE-TOKEN", &bound)]).unwrap()
    };
    assert_eq!(with("GET", "projects").json().as_array().unwrap().len(), 2);
    assert_eq!(with("GET", "projects/other%2Fc").status, 404);
    let project = daemon.api("GET", "projects/acme%2Fb", "").json();
    assert_eq!((&project["node"], &project["reachable"]), (&"git2".into(), &true.into()), "{project}");
    let id = project["id"].as_u64().unwrap();
    assert_eq!(daemon.api("GET", &format!("projects/{id}"), "").json()["path_with_namespace"], "acme/b");
    let mirrors = daemon.api("GET", &format!("projects/{id}/remote_mirrors"), "").json();
    let own = other.api("GET", &format!("projects/{id}/remote_mirrors"), "").json();
    let mut copy = mirrors[0].clone();
    let fields = copy.as_object_mut().unwrap();
    assert!(["node", "reachable", "as_of"].iter().all(|field| fields.remove(*field).is_some()), "{mirrors}");
    assert_eq!(copy, own[0]);
    let mirror = own[0]["id"].as_u64().unwrap();
    let same = daemon.api("GET", &format!("projects/{id}/remote_mirrors/{mirror}"), "").json();
    assert_eq!(same["url"], own[0]["url"]);
    assert_eq!(daemon.api("GET", &format!("projects/{id}/remote_mirrors/7"), "").status, 404);
    // GitLab's pull mirror API shows the copy too.
    let pull = format!("projects/{id}/mirror/pull");
    assert_eq!(daemon.api("GET", &pull, "").status, 400, "there is none");
    let made = other.api("PUT", &pull, r#"{"url": "https://upstream.invalid/x.git", "enabled": false}"#);
    assert_eq!(made.status, 200, "{made:?}");
    wait_for("the copy", || daemon.api("GET", &pull, "").status == 200);
    let (copy, own_pull) = (daemon.api("GET", &pull, "").json(), other.api("GET", &pull, "").json());
    for (field, value) in own_pull.as_object().unwrap() {
        assert!(copy[field] == *value || field == "mirror_trigger_builds", "{field}: {copy} {own_pull}");
    }
    assert_eq!(copy["node"], "git2");
    for (method, path, body) in [
        ("POST", format!("projects/{id}/remote_mirrors"), r#"{"url": "https://example.org/x.git"}"#),
        ("PUT", format!("projects/{id}/remote_mirrors/{mirror}"), r#"{"enabled": false}"#),
        ("DELETE", format!("projects/{id}/remote_mirrors/{mirror}"), ""),
        ("POST", format!("projects/{id}/remote_mirrors/{mirror}/sync"), ""),
        ("PUT", format!("projects/{id}/mirror/pull"), r#"{"url": "https://example.org/x.git"}"#),
        ("POST", format!("projects/{id}/mirror/pull"), ""),
    ] {
        let answer = daemon.api(method, &path, body);
        let text = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 409, "{method} {path}: {answer:?}");
        assert!(text.contains("is on node git2") && text.contains(THERE), "{method} {path}: {text}");
    }
    assert_eq!(
        with("DELETE", "projects/other%2Fc/remote_mirrors/1").status,
        404,
        "a bound token does not learn the node"
    );
    assert_eq!(other.api("GET", &format!("projects/{id}/remote_mirrors"), "").json(), own, "nothing was changed");
    // When a node is gone, its last known state is shown.
    other.signal(Signal::KILL);
    other.ended();
    postgres.sql("update node set seen = seen - interval '20 s' where name = 'git2'");
    assert_eq!(daemon.api("GET", &format!("projects/{id}"), "").json()["reachable"], false);
    // Without the database, a node shows only its own repositories.
    postgres.pause();
    assert_eq!(names("projects"), ["acme/a"]);
    assert_eq!(daemon.api("GET", &format!("projects/{id}"), "").status, 404);
    assert_eq!(daemon.api("GET", "projects/acme%2Fa", "").status, 200);
    postgres.resume();
}

#[test]
fn the_page_of_any_node_shows_all_machines() {
    let postgres = Postgres::start();
    let one = machine(&postgres, "git1", "");
    let two = machine(&postgres, "git2", "advertise = \"http://git2.example.org:8417\"");
    init(&one);
    repository(&one, "acme/a");
    repository(&two, "other/<b>");
    let (daemon, _other) = (start(&one), start(&two));
    wait_for_copies(&one, "git1");
    wait_for_copies(&two, "git2");
    wait_for("the count", || asked(&one, &["fleet"]).out.matches("1 mirror: 1 up to date").count() == 2);
    let log_in = |token: &str| {
        let answer = daemon.ask_with("POST", "/login", &format!("token={token}"), &[]).unwrap();
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    };
    let page = |cookie: &str, path: &str| daemon.ask_with("GET", path, "", &[("cookie", cookie)]).unwrap();
    let cookie = log_in(&daemon.token);
    let list = page(&cookie, "/").text;
    for part in
        ["Other machines", "http://git2.example.org:8417", ">live<", "1 up to date", "other/&lt;b&gt;", "acme/a"]
    {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!page(&cookie, "/?q=acme").text.contains("other/"));
    let id = daemon.api("GET", "projects/other%2F%3Cb%3E", "").json()["id"].as_u64().unwrap();
    let shown = page(&cookie, &format!("/projects/{id}"));
    for part in ["This repository is on <strong>git2</strong>", "backup", "there/other", "up to date"] {
        assert!(shown.text.contains(part), "{part}: {shown:?}");
    }
    assert!(!shown.text.contains("Add a mirror"));
    // A token for `acme/*` shows nothing of the project `other/<b>`, not even in a count.
    let bound = log_in(&daemon.new_token("bound", &["--project", "acme/*"]));
    let list = page(&bound, "/").text;
    assert!(
        list.contains("Other machines") && !list.contains("other/") && !list.contains("1 up to date</span></li>"),
        "{list}"
    );
    assert_eq!(page(&bound, &format!("/projects/{id}")).status, 404);
}
