//! The commands as a user types them.

use std::os::unix::fs::PermissionsExt;

use crate::scene::Scene;
use crate::scene::sandbox::Sandbox;

#[test]
fn config_keeps_its_comments_and_keys() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let config = source.join("mirror-push/config.toml");
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.insert_str(0, "# ours, since 2019\n");
    text = text.replace("[remotes.m]", "# the one at the other office\n[remotes.m]") + "prune = \"never\" # for now\n";
    std::fs::write(&config, &text).unwrap();
    sandbox.mirror_push_ok(
        &source,
        &["set", "m", "--prune", "deleted", "--divergent-refs=keep", "--tags", "v*", "--tags", "r*"],
    );
    sandbox.mirror_push_ok(&source, &["add", "second", "git@example.org:x.git", "--disabled"]);
    sandbox.mirror_push_ok(&source, &["remove", "second"]);
    let expected = text.replace("\"never\"", "\"deleted\"") + "divergent_refs = \"keep\"\ntags = [\"v*\", \"r*\"]\n";
    assert_eq!(std::fs::read_to_string(&config).unwrap(), expected);
}

#[test]
fn add_show_list_and_the_fields_of_the_json() {
    let sandbox = Sandbox::new();
    let source = sandbox.source(
        "https://bot:pw@example.org/acme/widget.git",
        &["--disabled", "--keep-divergent-refs", "--only-protected-branches"],
    );
    let shown = sandbox.mirror_push_ok(&source, &["show", "m", "--json"]).json();
    let expected = serde_json::json!([{
        "id": 1, "name": "m", "repository": source.canonicalize().unwrap(), "enabled": false,
        "direction": "push", "last_check_at": null, "last_change_at": null,
        "url": "https://bot@example.org/acme/widget.git", "auth_method": "password", "host_keys": [],
        "only_protected_branches": true, "mirror_branch_regex": null, "keep_divergent_refs": true, "divergent_refs": "keep",
        "tags": "all", "prune": "merged", "update_status": "none", "last_error": null, "last_update_at": null,
        "last_update_started_at": null, "last_successful_update_at": null, "pending": 0, "attempts": 0, "next_attempt_at": null,
        "refs": []
    }]);
    assert_eq!(shown, expected);
    assert_eq!(
        sandbox.mirror_push_ok(&source, &["list"]).out,
        "m\thttps://bot@example.org/acme/widget.git (disabled)\n"
    );
    assert!(sandbox.mirror_push_ok(&source, &["show", "m"]).out.contains("divergent_refs           keep\n"));
    sandbox.mirror_push_ok(
        &source,
        &["add", "other", "git@example.org:x.git", "--disabled", "--mirror-branch-regex", "^main$"],
    );
    let all = sandbox.mirror_push_ok(&source, &["list", "--json"]).json();
    assert_eq!((&all[1]["id"], &all[1]["url"]), (&2.into(), &"ssh://git@example.org/x.git".into()));
    assert_eq!(all[1]["mirror_branch_regex"], "^main$");
    sandbox.mirror_push_ok(&source, &["set", "other", "--mirror-branch-regex", ""]);
    assert_eq!(
        sandbox.mirror_push_ok(&source, &["show", "other", "--json"]).json()[0]["mirror_branch_regex"],
        serde_json::Value::Null
    );
}

#[test]
fn plan_says_what_sync_does_and_does_nothing() {
    let scene = Scene::local(&["--prune", "deleted"]).with(&["main", "main:gone"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    work.commit("two");
    work.push(&["main", "main:fresh", ":gone"]);
    let planned = sandbox.mirror_push_ok(source, &["plan", "--json"]);
    assert_eq!(sandbox.oid(mirror, "fresh"), "", "nothing was pushed");
    assert_eq!(sandbox.status(source)["pending"], 1, "the record stays in the spool");
    let done = sandbox.mirror_push_ok(source, &["sync", "--json"]);
    assert_eq!(planned.json()[0]["refs"], done.json()[0]["refs"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
    let said = sandbox.mirror_push_ok(source, &["sync"]);
    assert_eq!(said.out, format!("To {} (m)\n   everything up to date\n", mirror.display()));
}

#[test]
fn drain_speaks_like_git_push() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "deleted"]);
    let work = sandbox.work(&source);
    let one = work.commit("one");
    work.git(&["tag", "v1"]);
    work.push(&["main", "v1", "main:gone"]);
    let to = format!("To {} (m)\n", mirror.display());
    let expected = format!("{to} * [new branch]      gone\n * [new branch]      main\n * [new tag]         v1\n");
    assert_eq!(sandbox.mirror_push_ok(&source, &["drain", "--color=never"]).out, expected);
    let two = work.commit("two");
    work.push(&["main", ":gone"]);
    let expected = format!("{to} - [deleted]         gone\n   {}..{}  main\n", &one[..7], &two[..7]);
    assert_eq!(sandbox.mirror_push_ok(&source, &["drain"]).out, expected);
    assert_eq!(sandbox.mirror_push_ok(&source, &["drain"]).out, "", "nothing to do");
    let log = sandbox.mirror_push_ok(&source, &["log"]).out;
    let last = log.lines().last().unwrap();
    assert!(last.contains("  m  finished  2 updated, 0 failed, "), "{log}");
    let log = sandbox.mirror_push_ok(&source, &["log", "m", "--json"]).json();
    assert_eq!(log.as_array().unwrap().last().unwrap()["updated"], 2);
}

#[test]
fn protected_branches_and_an_empty_selection() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--only-protected-branches", "--tags", "none"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.git(&["tag", "v1"]);
    work.push(&["main", "main:a-stable", "main:topic", "v1"]);
    let names = || {
        sandbox.git(&mirror, &["for-each-ref", "--format=%(refname)"]).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(sandbox.mirror_push_ok(&source, &["protected"]).out, "main\n", "unset: the branch that HEAD names");
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(names(), ["refs/heads/main"]);
    sandbox.mirror_push_ok(&source, &["protect", "*-stable"]);
    assert_eq!(
        sandbox.mirror_push_ok(&source, &["protected", "--json"]).json(),
        serde_json::json!(["main", "*-stable"])
    );
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(names(), ["refs/heads/a-stable", "refs/heads/main"]);
    sandbox.mirror_push_ok(&source, &["unprotect", "main", "*-stable"]);
    assert_eq!(sandbox.mirror_push_ok(&source, &["protected"]).out, "");
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_ne!(sandbox.oid(&mirror, "main"), sandbox.oid(&source, "main"), "an empty selection selects nothing");
    assert_eq!(names().len(), 2, "and deletes nothing");
    assert!(
        sandbox.mirror_push_ok(&source, &["status"]).out.contains("no branch is protected, so no branch is mirrored")
    );
}

#[test]
fn disable_enable_and_remove() {
    let scene = Scene::local(&[]).with(&["main"]);
    let Scene { sandbox, source, mirror, .. } = &scene;
    let work = scene.work();
    sandbox.mirror_push_ok(source, &["disable", "m"]);
    work.commit("two");
    work.push(&["main"]);
    let said = sandbox.mirror_push_ok(source, &["sync", "m"]);
    assert!(said.err.contains("mirror 'm' is disabled"), "{said:?}");
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_ne!(sandbox.refs(mirror), sandbox.refs(source));
    sandbox.mirror_push_ok(source, &["enable", "m"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source));
    sandbox.mirror_push_ok(source, &["remove", "m"]);
    let left: Vec<_> = std::fs::read_dir(source.join("mirror-push/remotes/m"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lock"], "the lock is never unlinked");
    assert_eq!(sandbox.mirror_push_ok(source, &["list"]).out, "");
    assert_eq!(sandbox.refs(mirror), sandbox.refs(source), "the mirror's repository is not touched");
}

#[test]
fn a_mass_deletion_waits_for_confirmation() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--prune", "deleted"]);
    let work = sandbox.work(&source);
    work.commit("one");
    let script: String = (0..60).map(|n| format!("create refs/heads/n{n} HEAD\n")).collect();
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], script.as_bytes());
    work.push(&["refs/heads/*:refs/heads/*"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let script: String = (0..60).map(|n| format!("delete refs/heads/n{n}\n")).collect();
    sandbox.git_with_input(&work.path, &["update-ref", "--stdin"], script.as_bytes());
    work.push(&["--prune", "refs/heads/*:refs/heads/*"]);
    let said = sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(said.out.contains("60 refs would be deleted at once and the limit is 50"), "{said:?}");
    assert_eq!(sandbox.refs(&mirror).len(), 61);
    sandbox.mirror_push_ok(&source, &["sync", "--allow-mass-delete"]);
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
}

#[test]
fn it_is_a_git_command() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_git-mirror-push"));
    let path = std::env::join_paths(
        [program.parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let git = |directory: &std::path::Path, arguments: &[&str]| {
        let output = sandbox.command("git").env("PATH", &path).current_dir(directory).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let list = format!("m\t{}\n", sandbox.path("mirror.git").display());
    assert_eq!(git(&source, &["mirror-push", "list"]), (0, list.clone()));
    assert_eq!(git(&source.join("hooks"), &["mirror-push", "list"]), (0, list.clone()));
    assert_eq!(git(&sandbox.path(""), &["--git-dir=source.git", "mirror-push", "list"]), (0, list.clone()));
    assert_eq!(git(&sandbox.path(""), &["-C", "source.git", "mirror-push", "list"]), (0, list.clone()));
    assert_eq!(git(&sandbox.path(""), &["mirror-push", "-C", "source.git", "list"]), (0, list));
    assert_eq!(git(&source, &["mirror-push"]).0, 0, "without a command it drains");
    assert_eq!(
        git(&source, &["mirror-push", "--version"]),
        (0, format!("git-mirror-push {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(git(&source, &["mirror-push", "-h"]).0, 0);
    assert_eq!(git(&source, &["mirror-push", "--nonsense"]).0, 129);
}

#[test]
fn completions_and_the_manual_know_the_commands() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        let output = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let manual = run(&["man"]);
    let completions = ["bash", "zsh", "fish"].map(|shell| run(&["completions", shell]));
    for command in [
        "add",
        "set",
        "enable",
        "disable",
        "remove",
        "list",
        "show",
        "drain",
        "sync",
        "plan",
        "status",
        "log",
        "protect",
        "unprotect",
        "protected",
        "install-hook",
        "uninstall-hook",
        "silent",
        "completions",
        "man",
    ] {
        let heading = format!("\n.SS \"{}\"\n", command.replace('-', "\\-"));
        assert!(manual.contains(&heading), "{command} is not in the manual");
        assert!(completions.iter().all(|script| script.contains(command)), "{command} is not completed");
    }
    // The sections have the order of git's own manual pages.
    let mut rest = &*manual;
    for heading in
        ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "FILES", "ENVIRONMENT", "EXIT STATUS", "SEE ALSO"]
    {
        rest = rest.split_once(&format!("\n.SH {heading}\n")).unwrap_or_else(|| panic!("no {heading} in its place")).1;
    }
    for page in ["git-mirror-push", "git-mirror-push-config", "git-remote-mirror"] {
        let said = crate::scene::sandbox::run_with_input(
            sandbox.command("mandoc").args(["-T", "lint", "-W", "warning"]),
            run(&["man", page]).as_bytes(),
        );
        assert_eq!((said.status, &*said.out), (0, ""), "{page}");
    }
    let help = run(&["set", "-h"]);
    assert!(
        help.contains("Common options: --git-dir PATH") && !help.contains("The server's configuration file"),
        "{help}"
    );
    assert!(help.contains("\n  git mirror-push set github --divergent-refs keep"), "{help}");
    assert!(run(&["set", "--help"]).contains("The server's configuration file"));
}

#[test]
fn two_mirrors_are_updated_at_the_same_time() {
    let sandbox = Sandbox::new();
    let mirrors = ["one.git", "two.git"].map(|name| sandbox.bare(name));
    // The hook of each mirror waits for that of the other. If the mirrors were updated one after the other, the first hook would give up.
    for (mine, other) in [(0, 1), (1, 0)] {
        let hook = mirrors[mine].join("hooks/pre-receive");
        let (mine, other) = (sandbox.path(&format!("here{mine}")), sandbox.path(&format!("here{other}")));
        std::fs::write(&hook, format!("#!/bin/sh\ntouch '{}'\nn=0\nwhile [ ! -e '{}' ]; do sleep 0.02; n=$((n+1)); [ $n -lt 500 ] || exit 1; done\n", mine.display(), other.display())).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let source = sandbox.source("one.git", &[]);
    sandbox.mirror_push_ok(&source, &["add", "two", "two.git"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    for mirror in mirrors {
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    }
}

#[test]
fn any_key_is_set_from_the_command_line_as_toml() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let config = source.join("mirror-push/config.toml");
    let text = || std::fs::read_to_string(&config).unwrap();
    let before = text();
    sandbox.mirror_push_ok(
        &source,
        &["set", "m", "prune=never", "max_deletes=7", "push_options=[\"ci.skip\"]", "settle=5s"],
    );
    let added = "prune = \"never\"\nmax_deletes = 7\npush_options = [\"ci.skip\"]\nsettle = \"5s\"\n";
    assert_eq!(text(), format!("{before}{added}"));
    sandbox.mirror_push_ok(&source, &["set", "m", "prune=", "max_deletes=", "push_options=", "settle="]);
    assert_eq!(text(), before);
    // Without the name of a mirror, `set` changes keys of the repository.
    sandbox.mirror_push_ok(&source, &["set", "silent=true", "protected_branches=[\"main\", \"release/*\"]"]);
    assert!(text().contains("silent = true\nprotected_branches = [\"main\", \"release/*\"]\n"), "{}", text());
    sandbox.mirror_push_ok(&source, &["set", "silent=", "wake=none"]);
    let other = sandbox.bare("other.git");
    let other = other.to_str().unwrap();
    sandbox.mirror_push_ok(
        &source,
        &["add", "second", other, "tags=none", "retry_delay=1m", "--prune", "never", "--disabled"],
    );
    assert!(text().contains("prune = \"never\"\ntags = \"none\"\nretry_delay = \"1m\"\n"), "{}", text());
    // The password is removed from a URL that is given as a key, too.
    sandbox.mirror_push_ok(&source, &["set", "second", "url=https://bot:hunter2@example.org/x.git"]);
    assert!(text().contains("url = \"https://example.org/x.git\"") && !text().contains("hunter2"), "{}", text());
    assert_eq!(std::fs::read_to_string(source.join("mirror-push/remotes/second/secret")).unwrap().trim(), "hunter2");
    // The messages about a mirror take the given keys into account.
    let said =
        sandbox.mirror_push_ok(&source, &["add", "off", sandbox.path("off.git").to_str().unwrap(), "enabled=false"]);
    assert!(said.err.contains("it is disabled: git mirror-push enable off"), "{said:?}");
    let said = sandbox.mirror_push_with_input(
        &source,
        &["add", "key", "ssh://git@host.invalid/x", "auth_method=none", "--disabled", "--password-stdin"],
        "pw\n",
    );
    assert!(said.status == 0 && text().contains("auth_method = \"none\""), "{said:?}");
    assert!(!text().contains("auth_method = \"password\""), "{}", text());
    // The hook reads this key without a TOML parser, so it is written as a plain string.
    sandbox.mirror_push_ok(&source, &["set", "wake=\"\"\"none\"\"\""]);
    assert!(text().contains("wake = \"none\"\n"), "{}", text());
    let stands = text();
    for (arguments, status, message) in [
        (
            &["set", "m", "prune=nevr"][..],
            129,
            "'nevr' is not a value of prune; use 'merged', 'deleted', 'mirror', 'never'",
        ),
        (&["set", "m", "max_deletes=many"], 129, "max_deletes is a number, 0 or more"),
        (&["set", "m", "settle=5"], 129, "settle is a string with a unit"),
        (&["set", "m", "prun=never"], 129, "unknown key 'prun'; did you mean 'prune'?"),
        (&["set", "m", "prune=never", "--prune", "merged"], 129, "'prune' is given twice"),
        (&["set", "m", "url=/x", "--url", "/y"], 129, "the URL is given twice"),
        (&["set", "m", "url="], 129, "remote 'm' has no url"),
        (&["set", "m", "prune"], 129, "'prune' is not KEY=VALUE"),
        (&["set", "prune=never"], 129, "'prune' is a key of a mirror"),
        (&["set", "--prune", "never"], 129, "these options belong to a mirror"),
        (&["set", "max_jobs=4"], 129, "'max_jobs' belongs in the server's file"),
        (&["set"], 129, "nothing to change"),
        (&["set", "secund", "prune=never"], 128, "no mirror 'secund' here; did you mean 'second'?"),
        (&["set", "m", "password=hunter2"], 129, "git mirror-push credential NAME"),
        (&["add", "third", other, "url=/y"], 129, "the URL is given twice"),
        (&["add", "third", other, "enabled=false", "--disabled"], 129, "'enabled' is given twice"),
        (&["set", "m", "username=ghp_hunter2"], 129, "looks like a token"),
        (&["set", "m", "--username", "glpat-hunter2"], 129, "looks like a token"),
        (&["add", "third", other, "username=ghp_hunter2"], 129, "looks like a token"),
        (&["set", "m", "username=a\nb"], 129, "control character"),
        (&["set", "m", "username=12345"], 129, "put quotes around"),
        (&["set", "m", "max_deletes=-1"], 129, "max_deletes is a number, 0 or more"),
        (&["set", "m", "stall_timeout=soon"], 129, "stall_timeout: 'soon' is not a duration"),
        (&["set", "default=x"], 129, "unknown key 'default'; see git-mirror-push-config(5)"),
        (&["set", "[defaults]=x"], 129, "unknown key '[defaults]'"),
    ] {
        let said = sandbox.mirror_push(&source, arguments);
        assert_eq!(said.status, status, "{arguments:?}: {said:?}");
        assert!(said.err.contains(message) && said.err.lines().count() == 1, "{arguments:?}: {said:?}");
        assert!(!said.err.contains("hunter2"), "{said:?}");
        assert_eq!(text(), stands, "{arguments:?}");
    }
}
