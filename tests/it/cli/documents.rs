//! The commands and snippets of README and docs, run as they stand there. Hosts, paths and a few values are replaced.

use std::path::{Path, PathBuf};

use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, Sandbox, is_variant, script, skip};
use crate::scene::servers::{Kind, Server};

/// The blocks of a document that are fenced as `kind`.
fn blocks(document: &str, kind: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut fence: Option<bool> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(begun), None) => {
                fence = Some(begun == kind);
                if begun == kind {
                    found.push(String::new());
                }
            }
            (Some(_), Some(_)) => fence = None,
            (None, Some(true)) => found.last_mut().unwrap().extend([line, "\n"]),
            _ => {}
        }
    }
    found
}

/// The block of a document that has these words in it, with replacements, each of which must apply.
pub(crate) fn block(document: &str, kind: &str, words: &str, replaced: &[(&str, &str)]) -> String {
    let mut found = blocks(document, kind).into_iter().filter(|block| block.contains(words));
    let mut text = found.next().unwrap_or_else(|| panic!("{document} has no block with '{words}'"));
    for (from, to) in replaced {
        assert!(text.contains(from), "'{from}' is not in {text}");
        text = text.replace(from, to);
    }
    text
}

/// Runs commands by a shell that finds the programs on PATH, with the server's file if there is one.
pub(crate) fn run(sandbox: &Sandbox, directory: &Path, commands: &str, server: Option<&Path>) -> Completed {
    let bin = Path::new(env!("CARGO_BIN_EXE_git-mirror-push")).parent().unwrap();
    let mut shell = sandbox.command("sh");
    let usual = std::env::var("PATH").unwrap();
    shell.args(["-e", "-c", commands]).current_dir(directory).env("PATH", format!("{}:{usual}", bin.display()));
    if let Some(server) = server {
        shell.env("GIT_MIRROR_PUSH_CONFIG", server);
    }
    Completed::of(&shell.output().unwrap())
}

pub(crate) fn ok(said: &Completed) {
    assert_eq!(said.status, 0, "{said:?}");
}

/// An estate with one repository, `acme/widget.git`, and an empty mirror for it.
fn scene() -> (Estate, PathBuf, PathBuf) {
    let estate = Estate::new("");
    let widget = estate.repository("acme/widget.git");
    let mirror = estate.mirror("acme/widget.git");
    (estate, widget, mirror)
}

#[test]
fn the_recipe_with_a_token() {
    let (estate, widget, mirror) = scene();
    let sandbox = &estate.sandbox;
    std::fs::write(widget.join("token.txt"), "t0ken\n").unwrap();
    let url = mirror.display().to_string();
    let replaced = [
        ("/srv/git/widget.git", &*widget.display().to_string()),
        ("https://acme-bot@github.com/acme/widget.git", &url),
    ];
    let commands = block("README.md", "sh", "--password-stdin", &replaced);
    let said = run(sandbox, sandbox.path("").as_path(), &commands, None);
    assert!([0, 1].contains(&said.status) && said.out.contains("github"), "{said:?}");
    assert_eq!(std::fs::read_to_string(widget.join("mirror-push/remotes/github/secret")).unwrap().trim(), "t0ken");
    crate::scene::sandbox::wait_for("the first sync", || sandbox.refs(&mirror) == sandbox.refs(&widget));
    // Then the snippet that sets keys of that mirror, and the one that fetches what someone pushed there.
    ok(&run(sandbox, &widget, &block("docs/configuration.md", "sh", "set github prune", &[]), None));
    let config = std::fs::read_to_string(widget.join("mirror-push/config.toml")).unwrap();
    assert!(config.contains("push_options = [\"ci.skip\"]") && config.contains("\"*-stable\""), "{config}");
    assert!(!config.contains("prune"), "the third line takes back what the first one said: {config}");
    sandbox.git(&mirror, &["branch", "develop", "main"]);
    ok(&run(sandbox, &widget, &block("docs/operating.md", "sh", "git fetch mirror::github", &[]), None));
}

#[test]
fn the_recipe_with_a_key_and_a_question() {
    let (estate, widget, mirror) = scene();
    let sandbox = &estate.sandbox;
    let server = Server::start(sandbox, Kind::Ssh);
    let url = server.url("mirrors/acme/widget.git");
    let commands =
        block("README.md", "sh", "--auth-method", &[("ssh://git@backup.example.org/srv/git/widget.git", &url)]);
    let (first, detect) = commands.split_at(commands.find("git mirror-push host-keys").unwrap());
    let said = run(sandbox, &widget, first, None);
    assert!(said.status == 0 && said.out.starts_with("ssh-ed25519 "), "{said:?}");
    let keys = sandbox.path("ssh/authorized_keys");
    let known = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("{known}{}", said.out)).unwrap();
    // The command asks on a terminal. The answer 'n' pins nothing.
    for (answer, is_pinned) in [("n", false), ("y", true)] {
        let typed = format!("script -qec '{}' /dev/null", detect.split('#').next().unwrap().trim());
        let said = run(sandbox, &widget, &format!("(sleep 1; echo {answer}) | {typed} || true"), None);
        let pins = widget.join("mirror-push/remotes/backup/known_hosts");
        let has_pins = std::fs::read_to_string(pins).is_ok_and(|pins| !pins.is_empty());
        assert_eq!(has_pins, is_pinned, "{answer}: {said:?}");
    }
    ok(&run(sandbox, &widget, "git mirror-push sync", None));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&widget));
}

#[test]
fn the_recipes_for_many_repositories() {
    if is_variant("reftable") {
        return skip("the PATH of cron may have a git that is too old for reftable");
    }
    let (estate, widget, mirror) = scene();
    let sandbox = &estate.sandbox;
    let root = sandbox.path("git").display().to_string();
    let url = format!("{}/{{path}}.git", sandbox.path("mirrors").display());
    let token = sandbox.path("github.token");
    std::fs::write(&token, "t0ken\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let replaced = [
        ("\"/srv/git\"", &*format!("\"{root}\"")),
        ("https://github.com/{path}.git", &url),
        ("/etc/git-mirror-push/github.token", token.to_str().unwrap()),
    ];
    let api = block("docs/server.md", "toml", "[api]", &[]);
    let readme = block("README.md", "toml", "password_file", &replaced);
    let server = block("docs/server.md", "toml", "password_file", &replaced);
    for (file, commands) in [
        (readme, block("README.md", "sh", "install-hook --all", &[])),
        (server, block("docs/server.md", "sh", "drain --all", &[])),
    ] {
        estate.configure(&(file + &api));
        ok(&run(sandbox, &widget, &commands, Some(&estate.file)));
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&widget), "{commands}");
    }
    let token = run(sandbox, &widget, &block("docs/server.md", "sh", "token create", &[]), Some(&estate.file));
    ok(&token);
    assert!(token.out.starts_with("gmpat-"), "{token:?}");
    // From now on the hook starts no drain, so what reaches the mirror comes from the jobs of cron.
    ok(&run(sandbox, &widget, "git mirror-push set wake=none", Some(&estate.file)));
    // The commands run with the environment of cron. They are the lines of the crontab without their times.
    let bin = sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_git-mirror-push"), bin.join("git-mirror-push")).unwrap();
    let table = block("docs/operating.md", "", "17 3 * * *", &[("/usr/local/bin", bin.to_str().unwrap())]);
    let (path, jobs) = table.split_once('\n').unwrap();
    let work = sandbox.work(&widget);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.commit("for cron");
    for job in jobs.lines() {
        let command = job.split_whitespace().skip(5).collect::<Vec<_>>().join(" ");
        let command = command.replace("/srv/git/widget.git", widget.to_str().unwrap());
        work.push(&["main"]);
        let mut cron = sandbox.command("/bin/sh");
        cron.env_clear().env("HOME", sandbox.path("home")).env("SHELL", "/bin/sh");
        cron.env("GIT_MIRROR_PUSH_CONFIG", &estate.file).env("GIT_CONFIG_GLOBAL", sandbox.path("gitconfig"));
        let said = Completed::of(&cron.args(["-c", &format!("export {path}; {command}")]).output().unwrap());
        assert_eq!((said.status, &*said.out, &*said.err), (0, "", ""), "cron mails what is printed: {command}");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&widget), "{command}");
        work.commit("for the next one");
    }
}

#[test]
fn the_recipe_for_a_restore_and_that_for_notifications() {
    let (estate, widget, mirror) = scene();
    let sandbox = &estate.sandbox;
    let url = mirror.display().to_string();
    ok(&run(sandbox, &widget, &format!("git mirror-push add github '{url}'; git mirror-push sync"), None));
    let work = sandbox.work(&widget);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.commit("two");
    work.push(&["main"]);
    crate::scene::sandbox::wait_for("the push", || sandbox.refs(&mirror) == sandbox.refs(&widget));
    // The comment in the second line is replaced by the restore of an old backup.
    let old = sandbox.git(&widget, &["rev-parse", "main~1"]);
    let restore = format!("git update-ref refs/heads/main {old}");
    let commands = block("docs/operating.md", "sh", "silent on", &[("# restore the repository", &restore)]);
    let said = run(sandbox, &widget, &commands, None);
    ok(&said);
    assert!(said.out.contains("(forced update)"), "the plan shows what the restore would take away: {said:?}");
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&widget));
    // Notifications.
    let news = sandbox.path("mirror-news");
    script(&news, "#!/bin/sh\ncat > \"$0.seen\"\n");
    let numbers = sandbox.path("mirrors.prom");
    let replaced = [
        ("/usr/local/bin/mirror-news", news.to_str().unwrap()),
        ("/var/lib/prometheus/node-exporter/mirrors.prom", numbers.to_str().unwrap()),
        ("notify_after = \"30m\"", "notify_after = \"1s\""),
    ];
    let snippet = block("docs/operating.md", "toml", "notify = ", &replaced);
    let config = widget.join("mirror-push/config.toml");
    std::fs::write(&config, snippet + &std::fs::read_to_string(&config).unwrap()).unwrap();
    std::fs::rename(&mirror, sandbox.path("gone")).unwrap();
    let seen = sandbox.path("mirror-news.seen");
    crate::scene::sandbox::wait_for("the notification", || {
        run(sandbox, &widget, "git mirror-push sync -q || true", None);
        seen.exists()
    });
    assert!(std::fs::read_to_string(&seen).unwrap().contains("\"failing\""));
    assert!(std::fs::read_to_string(&numbers).unwrap().contains("git_mirror_push_up_to_date"));
}

#[test]
fn the_request_to_the_api() {
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let widget = daemon.repository("acme/widget");
    let replaced = [
        ("http://127.0.0.1:8417", &*format!("http://127.0.0.1:{}", daemon.port)),
        ("git.example.org", "127.0.0.1:1"),
        ("-d enabled=true", "-d enabled=false"),
        ("curl ", "curl -sf "),
    ];
    let command = block("docs/server.md", "sh", "PRIVATE-TOKEN", &replaced);
    let said = run(&sandbox, &widget, &format!("TOKEN={}; {command}", daemon.token.trim()), None);
    ok(&said);
    let url = "https://*****:*****@127.0.0.1:1/acme/widget.git";
    assert_eq!((&said.json()["enabled"], &said.json()["url"]), (&false.into(), &url.into()));
    let config = std::fs::read_to_string(widget.join("mirror-push/config.toml")).unwrap();
    assert!(config.contains("https://127.0.0.1:1/acme/widget.git") && !config.contains("secret"), "{config}");
}
