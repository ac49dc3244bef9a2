//! `import` from gitolite, Gerrit, GitLab and Gitea: what they mirror becomes ours, and nothing changes where it comes from.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, Sandbox, script, wait_for};
use crate::scene::web::{self, Answer, Request};

const NOBODY: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n";

/// What `--json` prints: `REPOSITORY NAME ACTION URL`.
fn actions(said: &Completed) -> Vec<String> {
    let all = said.json();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or("-").to_owned();
    let lines = all.as_array().unwrap().iter();
    let line = |one: &Value| {
        format!("{} {} {} {}", text(one, "repository"), text(one, "name"), text(one, "action"), text(one, "url"))
    };
    let mut lines: Vec<String> = lines.map(line).collect();
    lines.sort();
    lines
}

/// The configuration of a repository's mirrors, without the ids.
pub(super) fn config(repository: &Path) -> String {
    let text = std::fs::read_to_string(repository.join("mirror-push/config.toml")).unwrap();
    text.lines().filter(|line| !line.starts_with("id = ")).fold(String::new(), |all, line| all + line + "\n")
}

/// Every file below a directory, with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() => drop(found.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
                _ => {}
            }
        }
    }
    found
}

/// Real gitolite: two copies by different options, a repository that is a copy itself, an external URL, and the key of the widespread hook.
#[test]
fn gitolite_copies_become_push_mirrors() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let home = sandbox.path("home");
    let gitolite = |arguments: &[&str]| {
        let mut command = sandbox.command("gitolite");
        let output = command.args(arguments).env("USER", "root").env("LOGNAME", "root").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let key = home.join("admin");
    let made = sandbox.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    gitolite(&["setup", "-pk", home.join("admin.pub").to_str().unwrap()]);
    let rc = home.join(".gitolite.rc");
    let text = std::fs::read_to_string(&rc).unwrap();
    let text = text.replace("GIT_CONFIG_KEYS                 =>  ''", "GIT_CONFIG_KEYS => '.*'");
    let text = text.replace("HOSTNAME", "OTHER_NAME");
    let text = text.replace("%RC = (", "%RC = (\n    HOSTNAME => 'frodo',");
    std::fs::write(&rc, text).unwrap();
    let (copy, extern_copy, simple) =
        (sandbox.bare("copy.git"), sandbox.bare("extern.git"), sandbox.bare("simple.git"));
    let conf = home.join(".gitolite/conf/gitolite.conf");
    let lines = format!(
        "\nrepo team/widget\n    RW+ = admin\n    option mirror.master = frodo\n    option mirror.copies-1 = sam gollum\n    \
         option mirror.copies.nosync-1 = gollum\n    option mirror.extcopy-1 = file://{}\n    config gitolite.mirror.simple = \"{}\"\n\
         \nrepo taken\n    RW+ = admin\n    option mirror.master = sam\n    option mirror.copies = frodo\n",
        extern_copy.display(),
        simple.display()
    );
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + &lines).unwrap();
    gitolite(&["compile"]);
    gitolite(&["trigger", "POST_COMPILE"]);
    let repositories = home.join("repositories");
    let before = files(&home.join(".gitolite/conf"));

    let log = sandbox.path("started");
    let import = |more: &[&str]| {
        // The processes are counted: gitolite is perl, and whatever it starts is its own affair.
        let bin = sandbox.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let line = format!("#!/bin/sh\necho \"$1\" >>'{}'\nexec /usr/bin/gitolite \"$@\"\n", log.display());
        script(&bin.join("gitolite"), &line);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        let all = [&["import", "gitolite"], more].concat();
        Completed::of(&command.args(all).env("PATH", path).env("USER", "root").output().unwrap())
    };
    let said = import(&["--dry-run"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.err.contains("1 repository here is a copy of sam"), "{said:?}");
    assert!(said.out.contains("nosync-quiet-1") && said.out.contains("--exact"), "{said:?}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "query-rc\ngit-config\n", "two processes");
    let said = import(&["--yes", "--json"]);
    let widget = repositories.join("team/widget.git");
    let name = widget.display().to_string();
    let name = name.trim_end_matches(".git");
    let expected = [
        format!("{name} extcopy-1 added {}", extern_copy.display()),
        format!("{name} gollum added ssh://gollum/team/widget"),
        format!("{name} local added {}", simple.display()),
        format!("{name} sam added ssh://sam/team/widget"),
    ];
    assert_eq!(actions(&said), expected, "{said:?}");
    assert!(
        config(&widget).contains("[remotes.gollum]\nurl = \"gollum:team/widget\"\nenabled = false\n"),
        "{}",
        config(&widget)
    );
    assert_eq!(files(&home.join(".gitolite/conf")), before, "nothing changes at gitolite");
    let again = config(&widget);
    let said = import(&["--yes"]);
    assert!(said.out.contains("0 imported, 4 already here, 0 need you"), "{said:?}");
    assert_eq!(config(&widget), again, "a second import writes nothing");

    // Real pushes flow. The alias of ssh is a path here; git itself sends the same refs to another copy.
    sandbox.mirror_push_ok(&widget, &["set", "sam", "--url", copy.to_str().unwrap()]);
    let work = sandbox.work(&widget);
    work.commit("one");
    let mut push = sandbox.command("git");
    push.current_dir(sandbox.path("widget.git.work"))
        .env("GL_BYPASS_ACCESS_CHECKS", "1")
        .env("GL_LIBDIR", "/usr/share/gitolite3/lib");
    let pushed = Completed::of(
        &push.args(["push", "-q", "origin", "main", "main:topic", "main:refs/tags/v1"]).output().unwrap(),
    );
    assert_eq!(pushed.status, 0, "{pushed:?}");
    sandbox.mirror_push_ok(&widget, &["drain", "sam"]);
    let oracle = sandbox.bare("oracle.git");
    sandbox.git(&widget, &["push", "-q", "--mirror", oracle.to_str().unwrap()]);
    // A drain that the hook started may be at work.
    wait_for("the copy", || sandbox.refs(&copy) == sandbox.refs(&oracle));
}

#[test]
fn gerrit_remotes_become_mirrors_of_each_project() {
    let estate = Estate::new("wake = \"none\"\n");
    let sandbox = &estate.sandbox;
    let site = sandbox.path("site");
    std::fs::create_dir_all(site.join("etc/replication")).unwrap();
    let say = |name: &str, text: &str| std::fs::write(site.join("etc").join(name), text).unwrap();
    say("gerrit.config", &format!("[gerrit]\n\tbasePath = {}\n", sandbox.path("git").display()));
    let mirrors = sandbox.path("mirrors").display().to_string();
    say(
        "replication.config",
        &format!(
            "[gerrit]\n\tautoReload = true\n[remote \"host-one\"]\n\turl = {mirrors}/${{name}}.git\n\tpush = +refs/heads/*:refs/heads/*\n\
             \tpush = +refs/tags/*:refs/tags/*\n\tthreads = 3\n\tauthGroup = Public\n[remote \"pubmirror\"]\n\
             \turl = http://127.0.0.1:9/pub/${{name}}.git\n\tprojects = acme/*\n\tremoteNameStyle = dash\n"
        ),
    );
    say("secure.config", "[remote \"pubmirror\"]\n\tusername = bot\n\tpassword = c4nary%/x\n");
    for name in ["acme/widget.git", "other.git"] {
        estate.repository(name);
    }
    let before = files(&site);
    let run = |more: &[&str]| estate.run(&[&["import", "gerrit", site.to_str().unwrap()], more].concat());
    let said = run(&["--yes", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    let root = sandbox.path("git").display().to_string();
    let expected = [
        format!("{root}/acme/widget host-one added {mirrors}/acme/widget.git"),
        format!("{root}/acme/widget pubmirror added http://127.0.0.1:9/pub/acme-widget.git"),
        format!("{root}/other host-one added {mirrors}/other.git"),
    ];
    assert_eq!(actions(&said), expected, "{said:?}");
    assert!(!format!("{said:?}").contains("c4nary"), "{said:?}");
    let widget = sandbox.path("git/acme/widget.git");
    let secret = widget.join("mirror-push/remotes/pubmirror/secret");
    assert_eq!(std::fs::read_to_string(&secret).unwrap().trim_end(), "c4nary%/x");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let text = config(&widget);
    assert!(
        text.contains("enabled = false") && text.contains("prune = \"never\"") && !text.contains("c4nary"),
        "{text}"
    );
    assert_eq!(files(&site), before, "nothing changes at Gerrit");
    assert!(run(&["--yes"]).out.contains("0 imported, 3 already here, 0 need you"));

    // Files for each remote replace the remotes of the main file. A damaged one refuses all.
    say("replication/second.config", &format!("[remote \"any\"]\n\turl = {mirrors}/2/${{name}}.git\n"));
    let said = run(&["--dry-run", "--json"]);
    assert!(actions(&said).iter().all(|line| line.contains(" second add ")), "{said:?}");
    say("replication/second.config", "[remote \"any\n\turl = c4nary\n");
    let said = run(&["--yes"]);
    assert!(
        said.status == 129 && said.err.contains("replication/second.config") && !said.err.contains("c4nary"),
        "{said:?}"
    );
    let said = estate.run(&["import", "gerrit", root.as_str(), "--yes"]);
    assert!(said.status == 128 && said.err.contains("has no etc/replication.config"), "{said:?}");
}

/// A host whose answers a test makes, and what it was asked.
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

fn token_file(sandbox: &Sandbox, name: &str, text: &str) -> String {
    let path = sandbox.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
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
    // This one is where GitLab itself keeps it.
    estate.repository("@hashed/79/02/7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451.git");
    let token = token_file(sandbox, "token", "glpat-t0ken\n");
    let password = token_file(sandbox, "password", "s3cret\n");
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

/// A host that sends the token's owner elsewhere gets no request there.
#[test]
fn a_next_page_at_another_address_is_not_asked() {
    let estate = Estate::new(NOBODY);
    let token = token_file(&estate.sandbox, "token", "t\n");
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
                // The Link header of Gitea counts the page only.
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
    let token = token_file(sandbox, "token", "gitea-t0ken\n");
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
