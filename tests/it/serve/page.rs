//! The page: a browser uses it as a person would, and plain requests check what a browser hides.

use std::path::PathBuf;

use serde_json::json;

use crate::scene::browser::Browser;
use crate::scene::daemon::{Answer, Daemon, LOCAL, ask};
use crate::scene::sandbox::{Completed, Sandbox, wait_for};
use crate::scene::servers::{Kind, Server};

fn shots(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page").join(name);
    eprintln!("pictures are in {}", folder.display());
    folder
}

/// In every state of the page, each control has a name, ids are unique, nothing is wider than the screen, and the browser reports no
/// error.
fn check_page(browser: &Browser, what: &str) {
    let nameless = "return [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
        .filter((e) => !e.labels.length).concat([...document.querySelectorAll('button, a')].filter((e) => !e.textContent.trim()))
        .map((e) => e.outerHTML)";
    assert_eq!(browser.script(nameless), json!([]), "{what}: without a name");
    let ids = "const all = [...document.querySelectorAll('[id]')].map((e) => e.id); return all.filter((id, at) => all.indexOf(id) !== at)";
    assert_eq!(browser.script(ids), json!([]), "{what}: two elements with one id");
    let wide = "return document.documentElement.scrollWidth - innerWidth";
    assert!(browser.script(wide).as_i64().unwrap() <= 0, "{what}: wider than the screen");
    assert_eq!(browser.complaints(), Vec::<String>::new(), "{what}");
}

#[test]
fn a_person_adds_a_mirror_and_watches_it() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, "[api]\nallowed_hosts = [\"127.0.0.1\"]\n");
    let source = daemon.repository("acme/widget");
    let mirror = sandbox.bare("mirror.git");
    let server = Server::start(&sandbox, Kind::Ssh);
    std::fs::write(sandbox.path("ssh/authorized_keys"), "").unwrap();
    let browser = Browser::start(&sandbox, &shots("person"));
    browser.goto(&daemon.url("/"));
    assert_eq!(browser.url(), daemon.url("/login"));
    browser.shot("login");
    check_page(&browser, "login");
    // The Enter key sends the form, without a click.
    browser.type_into("#token", "gmpat-wrong");
    browser.press("\u{e007}");
    browser.wait_text("[role=alert]", "Wrong or expired token.");
    browser.shot("wrong-token");
    assert_eq!(browser.complaints().len(), 1, "the status of the refusal");
    // The list of repositories may be a second old.
    wait_for("the repository", || daemon.ask("GET", "/api/v4/projects", "").is_some_and(|said| said.text.len() > 2));
    browser.type_into("#token", &daemon.token);
    browser.press("\u{e007}");
    browser.wait_text("h1", "Mirrored repositories");
    browser.shot("repositories");
    check_page(&browser, "repositories");
    browser.press("\u{e004}");
    assert_eq!(browser.script("return document.activeElement.textContent"), "Skip to the content");
    browser.click("tbody a");
    browser.wait_text("h1", "acme/widget");
    browser.shot("no-mirrors");
    check_page(&browser, "no mirrors");
    // The form shows why it was refused, and keeps what was typed.
    browser.type_into("#url", "ssh://git@10.1.2.3/x.git");
    browser.click("form.fields button");
    browser.wait_text("[role=alert]", "url is blocked: Requests to the local network are not allowed");
    assert_eq!(browser.script("return document.getElementById('url').value"), "ssh://git@10.1.2.3/x.git");
    browser.shot("refused");
    assert_eq!(browser.complaints().len(), 1, "the status of the refusal");
    browser.type_into("#url", &server.url("mirror.git"));
    browser.script("document.getElementById('auth_method').value = 'ssh_public_key'");
    browser.click("input[name=enabled]");
    browser.click("form.fields button");
    browser.wait_text(".said", "The mirror was added.");
    browser.wait_text("article h3", "disabled");
    browser.shot("added");
    check_page(&browser, "added");
    browser.click("#mirror-1-detect");
    browser.wait_text("h1", "Host keys of 127.0.0.1");
    let fingerprint =
        sandbox.command("ssh-keygen").args(["-lf", "host.pub"]).current_dir(sandbox.path("ssh")).output().unwrap();
    let fingerprint = String::from_utf8(fingerprint.stdout).unwrap().split(' ').nth(1).unwrap().to_owned();
    browser.wait_text("td code", &fingerprint);
    browser.shot("host-keys");
    check_page(&browser, "host keys");
    browser.click("#trust");
    browser.wait_text("#mirror-1-pins", &fingerprint);
    browser.click("#mirror-1-copy");
    wait_for("the copy", || ["Copied", "Selected"].contains(&&*browser.text("#mirror-1-copy")));
    let key = browser.text("#mirror-1-key-text");
    std::fs::write(sandbox.path("ssh/authorized_keys"), format!("{key}\n")).unwrap();
    browser.shot("public-key");
    browser.click("#mirror-1-enable");
    browser.wait_text(".said", "The mirror is enabled.");
    // From here on the page changes by itself.
    browser.script("window.isTheSame = true; document.getElementById('mirror-1-edit').focus()");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    browser.wait_text("article h3", "finished");
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source) && !sandbox.refs(&mirror).is_empty());
    assert_eq!(browser.script("return [window.isTheSame, document.activeElement.id]"), json!([true, "mirror-1-edit"]));
    browser.wait_text("#news", "finished");
    browser.shot("finished");
    check_page(&browser, "finished");
    // The mirror is gone: the page shows the error.
    std::fs::rename(&mirror, sandbox.path("away.git")).unwrap();
    work.commit("two");
    work.push(&["main"]);
    browser.wait_text("article h3", "failed");
    browser.wait_text("article .error", "was not found");
    assert_eq!(browser.script("return window.isTheSame"), true);
    browser.shot("failed");
    check_page(&browser, "failed");
    std::fs::rename(sandbox.path("away.git"), &mirror).unwrap();
    browser.click("#mirror-1-sync");
    browser.wait_text(".said", "The update is under way.");
    browser.wait_text("article h3", "finished");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    // The mirror refuses one ref: the page names it.
    crate::scene::sandbox::script(
        &mirror.join("hooks/update"),
        "#!/bin/sh\ncase $1 in *no*) echo not here >&2; exit 1;; esac\n",
    );
    work.push(&["main:no", "main:yes"]);
    browser.wait_text("#mirror-1-refs th", "refs/heads/no");
    browser.wait_text("#mirror-1-refs summary", "1 ref is not up to date or was kept");
    browser.script("document.getElementById('mirror-1-attempts').open = true");
    assert!(browser.script("return document.querySelectorAll('svg rect').length").as_u64().unwrap() >= 3);
    browser.shot("one-ref-refused");
    check_page(&browser, "one ref refused");
    if std::env::var_os("MIRROR_PUSH_WRITE").is_some() {
        write_picture(&browser);
    }
    dark_and_narrow(&browser, &daemon);
    browser.click("#mirror-1-remove");
    browser.wait_text("h1", "Remove 127.0.0.1?");
    browser.shot("remove");
    browser.click(".danger");
    browser.wait_text(".said", "The mirror was removed.");
    wait_for("its files", || !source.join("mirror-push/remotes/127.0.0.1/id_ed25519").exists());
    browser.click(".top button");
    browser.wait_text("h1", "Mirrors");
    browser.goto(&daemon.url("/projects/1"));
    assert_eq!(browser.url(), daemon.url("/login"));
}

/// Writes `docs/page.png`, with example names instead of the names in this test.
fn write_picture(browser: &Browser) {
    browser.script(
        "document.querySelector('.said').remove();
        document.querySelector('article h3').firstChild.textContent = 'backup ';
        for (const code of document.querySelectorAll('article code.key'))
            code.textContent = code.textContent.replace(/127.0.0.1 .*/, 'backup /srv/git/acme/widget.git');
        for (const value of document.querySelectorAll('article dd'))
            if (value.textContent.includes('ssh://')) value.textContent = 'ssh://git@backup.example.org/acme/widget.git';",
    );
    let bottom = browser
        .script("return Math.ceil(document.querySelector('article').getBoundingClientRect().bottom + scrollY) + 12");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/page.png");
    std::fs::write(file, browser.picture(bottom.as_u64().unwrap())).unwrap();
}

/// The pages with dark colours, on a narrow screen, and without JavaScript.
fn dark_and_narrow(browser: &Browser, daemon: &Daemon<'_>) {
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    browser.cdp("Emulation.setEmulatedMedia", &dark);
    browser.shot("dark");
    let narrow = json!({ "width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true });
    browser.cdp("Emulation.setDeviceMetricsOverride", &narrow);
    for (path, name) in
        [("/projects/1", "narrow-project"), ("/", "narrow-list"), ("/projects/1/mirrors/1/edit", "narrow-edit")]
    {
        browser.goto(&daemon.url(path));
        browser.wait_text("h1", "");
        browser.shot(name);
        check_page(browser, name);
    }
    browser.cdp("Emulation.clearDeviceMetricsOverride", &json!({}));
    browser.cdp("Emulation.setEmulatedMedia", &json!({ "features": [] }));
    browser.cdp("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.goto(&daemon.url("/projects/1/mirrors/1/edit"));
    browser.click("form.fields button");
    browser.cdp("Emulation.setScriptExecutionDisabled", &json!({ "value": false }));
    browser.wait_text(".said", "The mirror was changed.");
}

struct Visit<'d> {
    daemon: &'d Daemon<'d>,
    cookie: String,
}

impl<'d> Visit<'d> {
    fn new(daemon: &'d Daemon<'d>, token: &str) -> Self {
        let answer = ask(&daemon.url("/login"), "POST", &format!("token={token}"), &[]).unwrap();
        assert_eq!(answer.status, 303, "{answer:?}");
        let cookie = answer.header("set-cookie").unwrap().to_owned();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict;") && !cookie.contains("Secure"), "{cookie}");
        Self { daemon, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    fn get(&self, path: &str) -> Answer {
        ask(&self.daemon.url(path), "GET", "", &[("Cookie", &self.cookie)]).unwrap()
    }

    fn csrf(&self) -> String {
        self.get("/").text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        ask(&self.daemon.url(path), "POST", body, &[("Cookie", &self.cookie)]).unwrap()
    }
}

#[test]
fn who_sees_and_does_what_on_the_page() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    daemon.repository("acme/widget");
    daemon.repository("other/thing");
    let id = daemon.add("acme/widget", sandbox.bare("mirror.git").to_str().unwrap());
    let other = daemon.api("GET", "projects/other%2Fthing", "").json()["id"].clone();
    let sync = format!("/projects/1/mirrors/{id}/sync");
    for (path, method) in [("/", "GET"), ("/projects/1", "GET"), ("/projects/1/events", "GET"), (&*sync, "POST")] {
        let answer = ask(&daemon.url(path), method, "", &[("Cookie", "git_mirror_push_session=x")]).unwrap();
        assert_eq!((answer.status, answer.header("location")), (303, Some("/login")), "{path}");
    }
    let admin = Visit::new(&daemon, &daemon.token);
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert!(admin.get("/projects/1").header(name).unwrap().contains(part), "{name}");
    }
    assert!(!admin.get("/projects/1").text.contains("style=") && !admin.get("/").text.contains("onclick"));
    // A form from elsewhere, or of another session, does nothing.
    for body in ["", "csrf=", "csrf=wrong"] {
        assert_eq!(admin.post(&sync, body).status, 403, "{body}");
    }
    assert_eq!(admin.post(&sync, &format!("csrf={}", Visit::new(&daemon, &daemon.token).csrf())).status, 403);
    assert_eq!(admin.post(&sync, &format!("csrf={}", admin.csrf())).status, 303);
    let foreign = [("Origin", "https://evil.example.org")];
    assert_eq!(ask(&daemon.url("/login"), "POST", &format!("token={}", daemon.token), &foreign).unwrap().status, 403);
    let cross = [("Sec-Fetch-Site", "cross-site")];
    assert_eq!(ask(&daemon.url("/login"), "POST", &format!("token={}", daemon.token), &cross).unwrap().status, 403);
    let secure = [("X-Forwarded-Proto", "https")];
    let answer = ask(&daemon.url("/login"), "POST", &format!("token={}", daemon.token), &secure).unwrap();
    let set = answer.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-") && set.ends_with("; Secure"), "{set}");
    let named = set.split(';').next().unwrap();
    for (cookie, status) in [(named, 200), (named.trim_start_matches("__Host-"), 303)] {
        let headers = [("X-Forwarded-Proto", "https"), ("Cookie", cookie)];
        assert_eq!(
            ask(&daemon.url("/"), "GET", "", &headers).unwrap().status,
            status,
            "{cookie}: without its prefix, another host may have set it"
        );
    }
    // A visitor with a token of scope `read_api` sees no form, and cannot send one.
    let reader = Visit::new(&daemon, &daemon.new_token("reader", &["--scope", "read_api"]));
    let page = reader.get("/projects/1").text;
    assert!(page.contains("read only") && !page.contains("Update now") && !page.contains("Add mirror"));
    assert_eq!(reader.post(&sync, &format!("csrf={}", reader.csrf())).status, 400);
    assert_eq!(reader.get(&format!("/projects/1/mirrors/{id}/host_keys")).status, 400);
    let bound = Visit::new(&daemon, &daemon.new_token("bound", &["--project", "other/*"]));
    assert!(!bound.get("/").text.contains("acme/widget"));
    for path in ["/projects/1", "/projects/1/events", "/projects/1/mirrors/1/edit", "/projects/77"] {
        assert_eq!(bound.get(path).status, 404, "{path}");
    }
    assert_eq!(bound.get(&format!("/projects/{other}")).status, 200);
    // A revoked token ends its sessions at once.
    sandbox.mirror_push_ok(&sandbox.path("srv/acme/widget.git"), &["token", "revoke", "bound"]);
    assert_eq!(bound.get("/").status, 303);
    daemon.new_token("bound", &["--project", "other/*"]);
    assert_eq!(bound.get("/").status, 303, "another token of the same name is another token");
    let csrf = admin.csrf();
    assert_eq!(admin.post("/logout", &format!("csrf={csrf}")).status, 303);
    assert_eq!(admin.get("/").header("location"), Some("/login"));
}

#[test]
fn what_others_have_written_is_shown_as_text() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/<img src=x>");
    let mirror = sandbox.bare("mirror.git");
    crate::scene::sandbox::script(
        &mirror.join("hooks/update"),
        "#!/bin/sh\necho '<script>alert(1)</script>' >&2; exit 1\n",
    );
    let answer = daemon.api("POST", "projects/1/remote_mirrors", &format!("url={}&enabled=1", mirror.display()));
    assert_eq!(answer.status, 201, "{answer:?}");
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main:refs/heads/<b>x</b>"]);
    let visit = Visit::new(&daemon, &daemon.token);
    wait_for("the refusal", || visit.get("/projects/1").text.contains("refs/heads/&lt;b&gt;x&lt;/b&gt;"));
    for page in [visit.get("/projects/1").text, visit.get("/?q=%22%3E%3Cscript%3E").text] {
        for raw in ["<b>", "<img", "alert(1)</script>", "\"><script>"] {
            assert!(!page.contains(raw), "{raw} in {page}");
        }
    }
}

/// Names of refs and repositories may have characters that a terminal or browser would obey, and a repository's name may have lines.
#[test]
fn names_cannot_mislead_who_reads_page_log_or_metrics() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let source = daemon.repository("acme/csi\u{9b}2J\u{202e}gpj\u{1b}[2J\rx");
    let other = daemon.repository("acme/two\nFAKE: all is well");
    let mirror = sandbox.bare("mirror.git");
    crate::scene::sandbox::script(&mirror.join("hooks/update"), "#!/bin/sh\necho \"no $1\" >&2; exit 1\n");
    let said = sandbox.mirror_push(&source, &["add", "m", &format!("{}\u{2066}", mirror.display())]);
    assert_eq!((said.status, &*said.err), (129, "fatal: the URL has a control character in it\n"));
    sandbox.mirror_push_ok(&source, &["add", "m", mirror.to_str().unwrap()]);
    sandbox.mirror_push_ok(&other, &["add", "m", "/nowhere.git"]);
    for repository in [&source, &other] {
        let work = sandbox.work(repository);
        work.commit("one");
        work.push(&["main:csi\u{9b}2J", "main:rtl\u{202e}gpj\u{2028}"]);
    }
    let visit = Visit::new(&daemon, &daemon.token);
    wait_for("the refusal", || visit.get("/projects/1").text.contains("refs/heads/rtl"));
    wait_for("the log", || daemon.log().contains("nowhere"));
    // A cron job mails what is printed.
    let every = |arguments: &[&str]| {
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        Completed::of(&command.arg("--config").arg(sandbox.path("server.toml")).args(arguments).output().unwrap())
    };
    let printed = [
        sandbox.mirror_push(&source, &["sync", "-q"]),
        every(&["sync", "--all"]),
        every(&["status", "--all"]),
        every(&["log", "--all"]),
        every(&["doctor", "--all"]),
        every(&["check", "--all"]),
    ];
    for said in &printed {
        assert!(matches!(said.status, 0..=2), "{said:?}");
    }
    let metrics = daemon.ask("GET", "/metrics", "").unwrap().text;
    assert!(metrics.contains("acme/csi") && metrics.contains("FAKE"), "{metrics}");
    let mut texts = vec![visit.get("/projects/1").text, visit.get("/").text, daemon.log(), metrics];
    texts.extend(printed.into_iter().flat_map(|said| [said.out, said.err]));
    assert!(texts.iter().filter(|text| text.contains("csi") || text.contains("FAKE")).count() >= 8, "{texts:#?}");
    for text in texts {
        let is_bad = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2066}\u{2028}".contains(c);
        // In HTML, a line feed is a space.
        let found = text.find(is_bad).or_else(|| text.find("\nFAKE").filter(|_| !text.starts_with("<!DOCTYPE")));
        assert_eq!(found.map(|at| &text[text[..at].rfind('\n').unwrap_or(0)..]), None);
    }
}
