//! The recipes of the pages about pull and two-way mirrors, creation, import and services, run as they stand there.

use std::path::Path;

use super::documents::{block, ok, run};
use super::import_sources::config;
use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::estate::Estate;
use crate::scene::sandbox::{script, wait_for};

#[test]
fn a_pull_mirror() {
    let estate = Estate::new("[[repositories]]\nroot = \"ROOT\"\n[api]\nallow_local_network = true\n");
    let sandbox = &estate.sandbox;
    let upstream = estate.repository("upstream.git");
    let linux = sandbox.path("git/linux.git");
    let (place, url) = (linux.display().to_string(), upstream.display().to_string());
    let replaced = [("/srv/git/linux.git", &*place), ("https://git.example.org/linux.git", &*url)];
    let said = run(sandbox, &sandbox.path(""), &block("docs/pull.md", "sh", "--direction pull", &replaced), None);
    assert!([0, 1].contains(&said.status) && said.out.contains("upstream"), "{said:?}");
    wait_for("the first pull", || sandbox.refs(&linux) == sandbox.refs(&upstream));
    let said = run(sandbox, &linux, &block("docs/pull.md", "sh", "webhook upstream", &[]), Some(&estate.file));
    assert!(said.status == 0 && said.out.contains("/mirror/pull"), "{said:?}");

    // Somebody pushes here. The recipe for a divergent branch gives that up.
    let work = sandbox.work(&linux);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.commit("ours");
    work.push(&["main"]);
    sandbox.theirs(&upstream, "main");
    assert_eq!(run(sandbox, &linux, "git mirror-push pull", None).status, 1);
    let said = run(sandbox, &linux, &block("docs/pull.md", "sh", "--left-right", &[]), None);
    ok(&said);
    assert_eq!(sandbox.refs(&linux), sandbox.refs(&upstream), "{said:?}");

    // The hook refuses what people push, and no pull.
    script(&linux.join("hooks/pre-receive"), &block("docs/pull.md", "sh", "GIT_MIRROR_PUSH_PULL", &[]));
    work.commit("refused");
    let said = sandbox.try_git(&sandbox.path("linux.git.work"), &["push", "origin", "+main"]);
    assert!(said.status != 0 && said.err.contains("push to upstream"), "{said:?}");
    sandbox.theirs(&upstream, "main");
    ok(&run(sandbox, &linux, "git mirror-push pull", None));
    assert_eq!(sandbox.refs(&linux), sandbox.refs(&upstream));
}

#[test]
fn a_two_way_mirror_and_its_conflicts() {
    let estate = Estate::new("");
    let sandbox = &estate.sandbox;
    let (widget, office) = (estate.repository("widget.git"), estate.mirror("widget.git"));
    let (place, url) = (widget.display().to_string(), office.display().to_string());
    let replaced = [("/srv/git/widget.git", &*place), ("ssh://git@git.example.org/widget.git", &*url)];
    let said = run(sandbox, &sandbox.path(""), &block("docs/two-way.md", "sh", "--direction both", &replaced), None);
    assert!([0, 1].contains(&said.status) && said.out.contains("office"), "{said:?}");
    wait_for("the first run", || sandbox.refs(&office) == sandbox.refs(&widget));
    let clone = sandbox.work(&widget);
    clone.git(&["fetch", "-q", "origin"]);
    clone.git(&["reset", "-q", "--hard", "origin/main"]);
    let conflict = || {
        run(sandbox, &widget, "git mirror-push set wake=none", None);
        clone.commit("ours");
        clone.push(&["main"]);
        sandbox.theirs(&office, "main");
        assert_eq!(run(sandbox, &widget, "git mirror-push sync", None).status, 1);
    };
    conflict();
    let places = sandbox.git(&widget, &["for-each-ref", "--format=%(refname)", "refs/conflicts"]);
    let replaced = [("refs/conflicts/office/1a2b3c4d/heads/main", places.trim())];
    let commands = block("docs/two-way.md", "sh", "git merge FETCH_HEAD", &replaced);
    // `git merge` opens an editor where there is a terminal, and the two histories have no common part here.
    let commands = commands.replace("git merge", "git merge --no-edit --allow-unrelated-histories");
    clone.git(&["branch", "-q", "--set-upstream-to=origin/main", "main"]);
    ok(&run(sandbox, &sandbox.path("widget.git.work"), &commands, None));
    ok(&run(sandbox, &widget, "git mirror-push sync", None));
    assert_eq!(sandbox.refs(&office), sandbox.refs(&widget), "the merge ended the conflict");
    conflict();
    let ours = sandbox.oid(&widget, "main");
    ok(&run(sandbox, &widget, &block("docs/two-way.md", "sh", "--ours", &[]), None));
    ok(&run(sandbox, &widget, "git mirror-push sync", None));
    assert_eq!([sandbox.oid(&widget, "main"), sandbox.oid(&office, "main")], [ours.clone(), ours]);
}

#[test]
fn mirrors_that_do_not_exist_yet() {
    let estate = Estate::new("");
    let sandbox = &estate.sandbox;
    let widget = estate.repository("acme/widget.git");
    let backup = sandbox.path("backup/widget.git");
    let add = block("docs/create.md", "sh", "create=path", &[("/backup/widget.git", backup.to_str().unwrap())]);
    ok(&run(sandbox, &widget, &add, None));
    wait_for("the new mirror", || backup.exists() && sandbox.refs(&backup) == sandbox.refs(&widget));
    let secrets = ["github.token", "github-admin.token"].map(|name| sandbox.secret_file(name, "t0ken\n"));
    let replaced = [
        ("/etc/git-mirror-push/github.token", &*secrets[0]),
        ("/etc/git-mirror-push/github-admin.token", &*secrets[1]),
        ("/acme/{path_dash}.git", "/team/{path_dash}.git"),
    ];
    estate.configure(
        &("[[repositories]]\nroot = \"ROOT\"\n".to_owned()
            + &block("docs/create.md", "toml", "create_token_file", &replaced)),
    );
    let said = run(sandbox, &widget, "git mirror-push status github --json", Some(&estate.file));
    assert_eq!(said.json()[0]["url"], "https://acme-bot@github.com/team/acme-widget.git", "{said:?}");
}

#[test]
fn the_file_of_a_repository() {
    let estate = Estate::new("");
    let widget = estate.repository("acme/widget.git");
    let text = block("docs/configuration.md", "toml", "protected_branches", &[]);
    std::fs::create_dir(widget.join("mirror-push")).unwrap();
    std::fs::write(widget.join("mirror-push/config.toml"), text).unwrap();
    let said = run(&estate.sandbox, &widget, "git mirror-push show --origin; git mirror-push show github", None);
    ok(&said);
    for line in ["divergent_refs = \"keep\"", "username = \"acme-bot\""] {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
}

#[test]
fn an_import_of_remotes_and_of_a_list() {
    let estate = Estate::new("wake = \"none\"\n");
    let sandbox = &estate.sandbox;
    let root = sandbox.path("git").display().to_string();
    let (widget, lib) = (estate.repository("acme/widget.git"), estate.repository("acme/lib.git"));
    sandbox.git(&widget, &["remote", "add", "--mirror=push", "backup", "https://bot@backup.example.org/widget.git"]);
    let replaced = [("--root /srv/git   ", &*format!("--root {root} --yes   ")), ("/srv/git", &*root)];
    let commands = block("docs/import.md", "sh", "asks, and imports", &replaced);
    let said = run(sandbox, Path::new("/"), &commands, Some(&estate.file));
    assert!(said.out.contains("1 imported"), "{said:?}");
    assert!(config(&widget).contains("[remotes.backup]"));
    let token = sandbox.secret_file("github.token", "t0ken\n");
    let replaced = [("/etc/git-mirror-push/github.token", &*token)];
    std::fs::write(sandbox.path("mirrors.jsonl"), block("docs/import.md", "json", "acme-bot", &replaced)).unwrap();
    let replaced = [("--root /srv/git", &*format!("--root {root} --yes"))];
    let command = block("docs/import.md", "sh", "import list", &replaced);
    let said = run(sandbox, &sandbox.path(""), &command, Some(&estate.file));
    assert!(said.status == 0 && said.out.contains("2 imported"), "{said:?}");
    assert!(config(&widget).contains("[remotes.github]") && config(&lib).contains("direction = \"pull\""));
}

/// systemd does not run here. But the units that the pages name are those that `install.sh` installs.
#[test]
fn the_units_and_the_metrics_that_the_pages_name() {
    let commands = block("docs/server.md", "sh", "systemd-sysusers", &[]);
    let commands = commands + &block("docs/operating.md", "sh", "systemctl enable", &[]);
    // The instance of a template is `$(…)`.
    let commands = commands.replace("$(systemd-escape --path /srv/git/widget.git)", "");
    let units = commands.split_whitespace().map(|word| word.trim_matches(['"', ';']));
    let units: Vec<String> = units
        .filter(|word| word.starts_with("git-mirror-push") && (word.ends_with(".service") || word.ends_with(".timer")))
        .map(str::to_owned)
        .collect();
    assert_eq!(units.len(), 4, "{units:?}");
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    for unit in units {
        assert!(installed.join(&unit).is_file(), "{unit}");
    }
    let sandbox = crate::scene::sandbox::Sandbox::new();
    let daemon = Daemon::start(&sandbox, LOCAL);
    let widget = daemon.repository("acme/widget");
    sandbox.mirror_push_ok(&widget, &["add", "m", "/nonexistent.git", "-q"]);
    let rules = block("docs/operating.md", "yaml", "MirrorFailing", &[]);
    let metrics = || daemon.ask("GET", "/metrics", "").unwrap().text;
    for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let (name, labels) = expression.split(" > ").next().unwrap().split_once('{').unwrap_or((expression, "} "));
        let (name, labels) = (name.split(' ').next().unwrap(), labels.trim_end_matches(['}', ' ']));
        wait_for(name, || {
            metrics().lines().any(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels))
        });
    }
}
