//! `import` from GitLab and Gitea through their APIs. A server of the test stands in for them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::documents::{block, run};
use super::import_sources::{actions, config};
use crate::scene::estate::Estate;
use crate::scene::web::{self, Answer, Request};

const NOBODY: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n";

/// A host whose answers a test makes, the requests that it got, and the most requests at once.
struct Host {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    most: Arc<AtomicUsize>,
}

fn host(token: &'static str, answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Host {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (log, peak) = (Arc::clone(&asked), Arc::clone(&most));
    let port = web::serve(move |request| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let nth = {
            let mut log = log.lock().unwrap();
            log.push(request.uri.to_string());
            log.iter().filter(|uri| **uri == request.uri.to_string()).count()
        };
        let is_known =
            request.header("private-token") == token || request.header("authorization") == format!("token {token}");
        let said =
            if is_known { answer(request, nth) } else { web::json(401, &[], &json!({"message": "401 Unauthorized"})) };
        now.fetch_sub(1, Ordering::SeqCst);
        said
    });
    Host { url: format!("http://127.0.0.1:{port}"), asked, most }
}

/// 250 projects on three pages; one whose mirrors are hidden, one answer that the host delays, and one pull mirror.
#[test]
fn gitlab_mirrors_are_read_page_by_page() {
    const COUNT: u64 = 250;
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let push = |id: u64| {
        json!([{
            "id": id, "enabled": id != 5, "url": format!("https://*****:*****@mirror.example/p{id}.git"), "only_protected_branches": false,
            "keep_divergent_refs": id == 4, "mirror_branch_regex": null, "auth_method": "password", "host_keys": [],
        }])
    };
    let gitlab = host("glpat-t0ken", move |request, nth| {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let origin = format!("http://{}", request.header("host"));
        match path.strip_prefix("/api/v4/projects").map(|rest| rest.split('/').collect::<Vec<_>>()).as_deref() {
            Some([""]) => {
                let after = query.split("id_after=").nth(1).and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
                assert!(query.contains("pagination=keyset") && query.contains("order_by=id"), "{query}");
                let last = (after + 100).min(COUNT);
                let projects: Vec<Value> = (after + 1..=last)
                    .map(|id| json!({"id": id, "path_with_namespace": format!("acme/p{id}"), "mirror": id == 3}))
                    .collect();
                let link = format!("<{origin}{path}?pagination=keyset&order_by=id&id_after={last}>; rel=\"next\"");
                let link: &[(&str, &str)] = if last < COUNT { &[("link", &*link)] } else { &[] };
                web::json(200, link, &json!(projects))
            }
            Some(["", "2", "remote_mirrors"]) => web::json(403, &[], &json!({"message": "403 Forbidden"})),
            Some(["", "7", "remote_mirrors"]) if nth == 1 => web::json(429, &[("retry-after", "1")], &json!({})),
            Some(["", id @ ("1" | "3" | "4" | "5" | "7"), "remote_mirrors"]) => {
                web::json(200, &[], &push(id.parse().unwrap()))
            }
            Some(["", _, "remote_mirrors"]) => web::json(200, &[], &json!([])),
            Some(["", "3", "mirror", "pull"]) => web::json(
                200,
                &[],
                &json!({"enabled": true, "url": "https://*****@up.example/p3.git", "mirror_overwrites_diverged_branches": true}),
            ),
            other => panic!("{other:?}"),
        }
    });
    for id in 1..=6 {
        estate.repository(&format!("acme/p{id}.git"));
    }
    // The repository of project 7 is where GitLab itself keeps it.
    estate.repository("@hashed/79/02/7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451.git");
    let token = sandbox.secret_file("token", "glpat-t0ken\n");
    let password = sandbox.secret_file("password", "s3cret\n");
    let credential = format!("mirror.example=bot:{password}");
    let run = |more: &[&str]| estate.run(&[&["import", "gitlab", &gitlab.url], more].concat());
    let said = run(&["--token-file", &token, "--credential", &credential, "--yes", "--json"]);
    assert_eq!(said.status, 1, "one needs a person: {said:?}");
    let of = |id: u64| format!("https://mirror.example/p{id}.git");
    let hashed = "@hashed/79/02/7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451";
    let expected = [
        format!("{hashed} mirror added {}", of(7)),
        format!("acme/p1 mirror added {}", of(1)),
        "acme/p2 - person -".to_owned(),
        format!("acme/p3 mirror added {}", of(3)),
        "acme/p3 upstream added https://up.example/p3.git".to_owned(),
        format!("acme/p4 mirror added {}", of(4)),
        format!("acme/p5 mirror added {}", of(5)),
    ];
    assert_eq!(actions(&said), expected, "{said:?}");
    let text = |id: u64| config(&sandbox.path(&format!("git/acme/p{id}.git")));
    assert!(text(1).contains("username = \"bot\"\npassword_file = ") && !text(1).contains("enabled"), "{}", text(1));
    assert!(
        text(4).contains("divergent_refs = \"keep\"") && text(5).contains("enabled = false"),
        "{} {}",
        text(4),
        text(5)
    );
    let upstream = text(3);
    let upstream = &upstream[upstream.find("[remotes.upstream]").unwrap()..];
    assert!(
        upstream.contains("direction = \"pull\"") && upstream.contains("enabled = false"),
        "no password for it: {upstream}"
    );
    let asked = gitlab.asked.lock().unwrap().len();
    assert_eq!(asked, 3 + 250 + 1 + 1, "three pages, each project, one pull mirror, one repetition");
    assert!(gitlab.most.load(Ordering::SeqCst) <= 4, "{} at once", gitlab.most.load(Ordering::SeqCst));
    assert!(!format!("{said:?}").contains("glpat-t0ken"), "{said:?}");
    let said = run(&["--token-file", &token, "--credential", &credential, "--yes"]);
    assert!(said.out.contains("0 imported, 6 already here, 1 needs you"), "{said:?}");

    for (arguments, expected) in
        [(&["--yes"][..], "needs --token-file FILE"), (&["--token-file", &password, "--yes"], "HTTP 401")]
    {
        let said = run(arguments);
        assert!(said.status >= 128 && said.err.contains(expected), "{arguments:?}: {said:?}");
    }
    let said = estate.run(&["import", "gitlab", "http://gitlab.example", "--token-file", &token, "--yes"]);
    assert!(said.status == 129 && said.err.contains("the token would go over plain http"), "{said:?}");
}

/// If a host refers to another address, by its next page or by a redirect, nothing is sent there.
#[test]
fn a_next_page_at_another_address_is_not_asked() {
    let estate = Estate::new(NOBODY);
    let token = estate.sandbox.secret_file("token", "t\n");
    let other = host("t", |_, _| web::json(200, &[], &json!([])));
    let link = format!("<{}/api/v4/projects?id_after=1>; rel=\"next\"", other.url);
    let gitlab = host("t", move |_, _| web::json(200, &[("link", &link)], &json!([])));
    let said = estate.run(&["import", "gitlab", &gitlab.url, "--token-file", &token, "--yes"]);
    assert!(said.status == 128 && said.err.contains("next page at another address"), "{said:?}");
    let moved = format!("{}/api/v4/projects", other.url);
    let gitlab = host("t", move |_, _| web::json(302, &[("location", &moved)], &json!({})));
    let said = estate.run(&["import", "gitlab", &gitlab.url, "--token-file", &token, "--yes"]);
    assert!(said.status == 128 && said.err.contains("redirects to"), "{said:?}");
    assert!(other.asked.lock().unwrap().is_empty());
}

#[test]
fn gitea_mirrors_are_read_by_their_count() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let gitea = host("gitea-t0ken", |request, _| {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let page: u64 = query.split("page=").nth(1).and_then(|page| page.parse().ok()).unwrap();
        match path.strip_prefix("/api/v1/repos/").map(|rest| rest.split('/').collect::<Vec<_>>()).as_deref() {
            Some(["search"]) => {
                let all: Vec<Value> = (1 + (page - 1) * 50..=(page * 50).min(60))
                    .map(|id| {
                        json!({"id": id, "full_name": format!("Acme/R{id}"), "mirror": id == 2, "original_url": "https://up.example/r2.git", "mirror_interval": "8h0m0s"})
                    })
                    .collect();
                web::json(200, &[("x-total-count", "60")], &json!({"ok": true, "data": all}))
            }
            Some(["Acme", "R1", "push_mirrors"]) => {
                // Gitea makes the Link header of this list from the current page alone, so it
                // never names a next page. Only `x-total-count` says that there are more.
                let one = |n: u64| json!({"remote_name": format!("remote_mirror_{n}"), "remote_address": format!("https://m{n}.example.org/r1.git"), "interval": "10m0s", "sync_on_commit": true});
                let all: Vec<Value> = if page == 1 { (1..=50).map(one).collect() } else { vec![one(51)] };
                web::json(200, &[("x-total-count", "51")], &json!(all))
            }
            Some(["Acme", "R3", "push_mirrors"]) => {
                web::json(400, &[], &json!({"message": "Mirror feature is disabled"}))
            }
            Some(["Acme", _, "push_mirrors"]) => web::json(200, &[("x-total-count", "0")], &json!([])),
            other => panic!("{other:?}"),
        }
    });
    for id in 1..=3 {
        estate.repository(&format!("acme/r{id}.git"));
    }
    let token = sandbox.secret_file("token", "gitea-t0ken\n");
    let root = sandbox.path("git").display().to_string();
    let replaced =
        [("https://gitea.example.com", &*gitea.url), ("/root/gitea.token", &token), ("/srv/git ", &format!("{root} "))];
    let commands = block("docs/import.md", "sh", "import gitlab", &replaced);
    let said = run(sandbox, Path::new("/"), commands.lines().last().unwrap(), Some(&estate.file));
    assert!(said.status == 0 && said.out.contains("52 to import"), "{said:?}");
    assert!(
        said.out.contains("\nand 45 more notes; -v shows them all\n") && said.out.lines().count() == 23,
        "{said:?}"
    );
    gitea.asked.lock().unwrap().clear();
    let said = estate.run(&["import", "gitea", &gitea.url, "--token-file", &token, "--yes", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    let lines = actions(&said);
    assert_eq!(lines.len(), 52, "{lines:?}");
    assert!(lines.contains(&"acme/r2 upstream added https://up.example/r2.git".to_owned()), "{lines:?}");
    let text = config(&sandbox.path("git/acme/r2.git"));
    assert!(
        text.contains("interval = \"8h\"") && text.contains("direction = \"pull\"") && !text.contains("enabled"),
        "{text}"
    );
    assert_eq!(gitea.asked.lock().unwrap().len(), 2 + 60 + 1);
    assert!(gitea.most.load(Ordering::SeqCst) <= 4);
}

/// Types the answers on a terminal: each as soon as the program asks for it, and a password only when the terminal no longer echoes.
const TYPIST: &str = "
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
answers, seen = sys.argv[1].split(','), b''
while True:
    try:
        read = os.read(terminal, 4096)
    except OSError:
        break
    seen += read
    sys.stdout.write(read.decode())
    if seen.endswith((b': ', b'(yes/no) ')):
        if not answers:
            sys.exit('one question too many')
        # The question may be there a moment before the echo is off.
        while b'Password' in seen and termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.01)
        os.write(terminal, answers.pop(0).encode() + b'\\n')
        seen = b''
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_password_that_the_source_hides_is_asked_for_once_per_host() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let gitlab = host("glpat-t0ken", |request, _| match request.uri.path() {
        "/api/v4/projects" => {
            let projects: Vec<Value> =
                (1..=3).map(|id| json!({"id": id, "path_with_namespace": format!("acme/p{id}")})).collect();
            web::json(200, &[], &json!(projects))
        }
        path => {
            let id = path.split('/').nth(4).unwrap();
            let host = if id == "3" { "other" } else { "mirror" };
            let url = format!("https://*****:*****@{host}.example/p{id}.git");
            web::json(
                200,
                &[],
                &json!([{"id": 1, "enabled": true, "url": url, "auth_method": "password", "host_keys": []}]),
            )
        }
    });
    let all: Vec<_> = (1..=3).map(|id| estate.repository(&format!("acme/p{id}.git"))).collect();
    let token = sandbox.secret_file("token", "glpat-t0ken\n");
    let program = env!("CARGO_BIN_EXE_git-mirror-push");
    let mut run = sandbox.command("python3");
    run.args(["-c", TYPIST, "bot,c4nary,,yes", program, "--config"]).arg(&estate.file);
    let said =
        run.args(["import", "gitlab", &gitlab.url, "--token-file", &token, "--match", "acme/*"]).output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}");
    assert_eq!(text.matches("User name").count(), 2, "once for each host: {text}");
    assert!(!text.contains("c4nary"), "{text}");
    for (at, repository) in all.iter().enumerate() {
        let config = config(repository);
        let is_other = at == 2;
        assert_eq!(config.contains("enabled = false"), is_other, "{config}");
        assert_eq!(config.contains("username = \"bot\""), !is_other, "{config}");
        assert!(!config.contains("c4nary"), "{config}");
        let holds = sandbox.command("grep").args(["-rl", "c4nary"]).arg(repository).output().unwrap().stdout;
        let holds = String::from_utf8(holds).unwrap();
        assert_eq!(holds.lines().count(), usize::from(!is_other), "{holds}");
        for file in holds.lines() {
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }
}
