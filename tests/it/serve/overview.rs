//! The overview of the page: counts by state, one entry for each cause of failures, and one form
//! that retries all mirrors with the same cause.

use std::path::PathBuf;

use crate::scene::browser::Browser;
use crate::scene::daemon::{Answer, Daemon, LOCAL, ask};
use crate::scene::forge::{Brand, Forge};
use crate::scene::sandbox::{Sandbox, wait_for};

/// A visitor with a session.
struct Person<'d> {
    daemon: &'d Daemon<'d>,
    cookie: String,
}

impl<'d> Person<'d> {
    fn new(daemon: &'d Daemon<'d>, token: &str) -> Self {
        let answer = ask(&daemon.url("/login"), "POST", &format!("token={token}"), &[]).unwrap();
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        Self { daemon, cookie }
    }

    fn get(&self, path: &str) -> Answer {
        ask(&self.daemon.url(path), "GET", "", &[("cookie", &self.cookie)]).unwrap()
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let page = self.get("/").text;
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        ask(&self.daemon.url(path), "POST", &format!("csrf={csrf}&{body}"), &[("cookie", &self.cookie)]).unwrap()
    }
}

#[test]
fn equal_causes_are_one_trouble_and_are_retried_together() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let forge = Forge::start(&sandbox, Brand::Github);
    let daemon = Daemon::start(&sandbox, LOCAL);
    let mut sources: Vec<PathBuf> = Vec::new();
    for n in 0..4 {
        let source = daemon.repository(&format!("team/r{n}"));
        let work = sandbox.work(&source);
        work.commit("one");
        work.push(&["main"]);
        sources.push(source);
    }
    let right = sandbox.bare("right.git");
    // Two mirrors are not found at one host, one is up to date, and one is disabled.
    for n in 0..2 {
        daemon.add(&format!("team/r{n}"), &forge.url(&format!("acme/r{n}.git")));
    }
    daemon.add("team/r2", right.to_str().unwrap());
    sandbox.mirror_push_ok(&sources[3], &["add", "off", "/srv/off.git", "--disabled"]);
    let of_api = |n: usize| daemon.api("GET", &format!("projects/team%2Fr{n}/remote_mirrors"), "").json()[0].clone();
    wait_for("the runs", || {
        (0..2).all(|n| of_api(n)["update_status"] == "failed") && of_api(2)["update_status"] == "finished"
    });
    let cause = "v1:127.0.0.1:not_found:404";
    assert!(of_api(0)["cause"] == cause && of_api(0)["failing_since"].is_string(), "{}", of_api(0));
    assert!(of_api(2).get("cause").is_none(), "{}", of_api(2));

    let person = Person::new(&daemon, &daemon.token);
    let page = person.get("/").text;
    for text in [
        "<strong>2</strong> failing",
        "<strong>1</strong> up to date",
        "<strong>1</strong> disabled",
        "of 4 mirrors",
        "Show 2 mirrors",
        "Retry 2",
    ] {
        assert!(page.contains(text), "'{text}' is not in {page}");
    }
    let link = "/?cause=v1%3A127.0.0.1%3Anot_found%3A404";
    assert!(page.contains(link), "{page}");
    let (chosen, failing) = (person.get(link).text, person.get("/?state=failing").text);
    for page in [&chosen, &failing] {
        assert!(page.contains("team/r0") && page.contains("team/r1"), "{page}");
        assert!(!page.contains("team/r2") && !page.contains("team/r3"), "{page}");
    }
    assert!(person.get("/?state=disabled").text.contains("team/r3"));

    // A browser shows the overview without errors and without horizontal scrolling.
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page/overview");
    let browser = Browser::start(&sandbox, &shots);
    browser.goto(&daemon.url("/"));
    browser.type_into("#token", &daemon.token);
    browser.press("\u{e007}");
    browser.wait_text("h2", "What is wrong");
    browser.shot("overview");
    let wide = "return document.documentElement.scrollWidth - innerWidth";
    assert!(browser.script(wide).as_i64().unwrap() <= 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // A token for one project sees only that project. A token that may only read cannot retry.
    let narrow = daemon.new_token("narrow", &["--project", "team/r0"]);
    let narrow = Person::new(&daemon, &narrow);
    let page = narrow.get("/").text;
    assert!(
        page.contains("<strong>1</strong> failing") && page.contains("of 1 mirror<") && !page.contains("team/r1"),
        "{page}"
    );
    let reader = Person::new(&daemon, &daemon.new_token("reader", &["--scope", "read_api"]));
    assert!(!reader.get("/").text.contains("Retry 2"));
    let before = forge.requests().len();
    assert_eq!(reader.post("/retry", &format!("cause={cause}")).status, 400);
    let refused = ask(&daemon.url("/retry"), "POST", &format!("cause={cause}"), &[("cookie", &person.cookie)]).unwrap();
    assert_eq!(refused.status, 403, "a form of another site");
    assert_eq!(forge.requests().len(), 0, "{before}");

    // The host has both repositories now. One form retries both mirrors.
    for n in 0..2 {
        let made = sandbox.bare(&format!("hosted/acme/r{n}.git"));
        sandbox.git(&made, &["config", "http.receivepack", "true"]);
    }
    assert_eq!(person.post("/retry", &format!("cause={cause}")).status, 303);
    wait_for("both", || (0..2).all(|n| of_api(n)["update_status"] == "finished"));
    wait_for("the page", || !person.get("/").text.contains("What is wrong"));
}
