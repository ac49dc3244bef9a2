//! Root in the repositories of other users: a child process with the owner's rights does everything there, and root does nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, Sandbox, is_root, script, wait_for};
use crate::scene::servers::{Kind, PASSWORD, Server, USER};

mod api;

/// Who owns the repositories.
const OWNER: u32 = 65_534;

const TEMPLATE: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\nowners = [\"65534\"]\n\
                        [remotes.backup]\nurl = \"MIRRORS/{path}.git\"\n";

/// Gives everything below a path to the owner.
fn give(sandbox: &Sandbox, path: &Path) {
    assert!(sandbox.command("chown").args(["-hR", &OWNER.to_string()]).arg(path).status().unwrap().success());
}

/// The paths that do not belong to the owner: of a directory and everything below it.
fn foreign(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let file = std::fs::symlink_metadata(&path).unwrap();
        if file.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if file.uid() != OWNER {
            found.push(path);
        }
    }
    found
}

/// An estate with a repository and a mirror of the owner.
fn estate(text: &str) -> (Estate, PathBuf, PathBuf) {
    let estate = Estate::new(text);
    let (source, mirror) = (estate.repository("acme/widget.git"), estate.mirror("acme/widget.git"));
    std::fs::set_permissions(estate.sandbox.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    [&source, &mirror].into_iter().for_each(|path| give(&estate.sandbox, path));
    (estate, source, mirror)
}

/// A program that writes the user who runs it into a file.
fn who(sandbox: &Sandbox, name: &str) -> (PathBuf, PathBuf) {
    let marks = sandbox.path("marks");
    std::fs::create_dir_all(&marks).unwrap();
    std::fs::set_permissions(&marks, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (program, mark) = (sandbox.path(name), marks.join(name));
    // The program also writes what it might have inherited from root: descriptors, environment, session.
    let seen = "ls -l /proc/self/fd; env; echo session $(cut -d' ' -f6 /proc/self/stat)";
    let text = format!("#!/bin/sh\nid -u >> '{0}'\n{{ {seen}; }} >> '{0}.seen'\necho password\n", mark.display());
    script(&program, &text);
    (program, mark)
}

/// The number of our session, or 0 if its leader is outside our pid namespace: field 6 of proc_pid_stat(5).
fn session() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn commands_of_root_run_in_a_child_with_the_rights_of_the_owner() {
    if !is_root("files of another owner are needed") {
        return;
    }
    let (estate, source, mirror) = estate(TEMPLATE);
    let sandbox = &estate.sandbox;
    let run = |arguments: &[&str]| {
        let mut command = sandbox.program(&source);
        command
            .env("GIT_MIRROR_PUSH_CONFIG", &estate.file)
            .env("ROOTSECRET", "abc")
            .env("http_proxy", "http://u:p@h:1/");
        Completed::of(&command.args(arguments).output().unwrap())
    };
    let ok = |said: Completed| assert!(said.status < 2, "{said:?}");
    // The owner need not be able to read the server's file.
    std::fs::set_permissions(&estate.file, std::fs::Permissions::from_mode(0o600)).unwrap();
    // Programs that the owner configures do run, but with the owner's rights.
    let (notify, notified) = who(sandbox, "notify");
    let (password, asked) = who(sandbox, "password");
    let (hook, hooked) = who(sandbox, "hook");
    std::fs::create_dir_all(source.join("mirror-push")).unwrap();
    let own = format!(
        "notify = [\"{}\"]\n[remotes.own]\nid = 1\nurl = \"http://127.0.0.1:1/x.git\"\nusername = \"u\"\nallow_insecure_http = true\npassword_command = [\"{}\"]\n[remotes.bad]\nid = 2\nurl = \"/nowhere.git\"\n",
        notify.display(),
        password.display()
    );
    std::fs::write(source.join("mirror-push/config.toml"), own).unwrap();
    std::fs::copy(&hook, mirror.join("hooks/pre-receive")).unwrap();
    [&source, &mirror].into_iter().for_each(|path| give(sandbox, path));
    for command in [
        &["sync"][..],
        &["drain"],
        &["plan"],
        &["doctor"],
        &["install-hook"],
        &["protect", "x"],
        &["set", "own", "atomic=true"],
    ] {
        ok(run(command));
        assert_eq!(foreign(&source), Vec::<PathBuf>::new(), "{command:?}");
    }
    for command in [
        &["sync", "--all"][..],
        &["drain", "--all"],
        &["plan", "--all"],
        &["doctor", "--all"],
        &["install-hook", "--all"],
    ] {
        ok(estate.run(command));
        assert_eq!(foreign(&source), Vec::<PathBuf>::new(), "{command:?}");
    }
    assert_eq!(sandbox.try_git(&mirror, &["-c", "safe.directory=*", "rev-parse", "main"]).status, 0);
    assert_eq!(foreign(&mirror), Vec::<PathBuf>::new());
    for mark in [&notified, &asked, &hooked] {
        let users = std::fs::read_to_string(mark).unwrap();
        assert!(users.lines().all(|user| user == OWNER.to_string()), "{}: {users}", mark.display());
        let seen = std::fs::read_to_string(mark.with_extension("seen")).unwrap();
        let ours = format!("session {}\n", session());
        for secret in ["memfd", "ROOTSECRET", "u:p@", &ours] {
            assert!(!seen.contains(secret), "{secret}: {seen}");
        }
    }
    // A push by root leaves a record that the owner may not hard-link (proc(5), protected_hardlinks).
    sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    let work = sandbox.work(&source);
    work.git(&["pull", "-q", "origin", "main"]);
    work.commit("by root");
    work.push(&["main"]);
    assert!(foreign(&source.join("mirror-push/spool")).iter().any(|path| path.is_file()), "a record of root's");
    ok(run(&["drain", "backup"]));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let shown = estate.run(&["sync", "--all", "--json"]).json();
    let names: Vec<&str> = shown.as_array().unwrap().iter().map(|report| report["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["backup", "bad", "own"], "{shown}");
    // git's remote helper refuses: it does not act for root in the owner's repository.
    let mut helper = sandbox.command(env!("CARGO_BIN_EXE_git-remote-mirror"));
    helper.env("GIT_MIRROR_PUSH_CONFIG", &estate.file).env("GIT_DIR", &source);
    let said = crate::scene::sandbox::run_with_input(helper.args(["backup", "backup"]), b"capabilities\nlist\n");
    assert!(said.status == 128 && said.err.contains("and root does not act in it itself"), "{said:?}");
}

#[test]
fn an_owner_who_wants_no_hook_gets_none_from_root() {
    if !is_root("files of another owner are needed") {
        return;
    }
    let (estate, source, _) = estate(TEMPLATE);
    let hook = source.join("hooks/post-receive");
    std::fs::create_dir_all(source.join("mirror-push")).unwrap();
    let config = source.join("mirror-push/config.toml");
    let install = || {
        give(&estate.sandbox, &source);
        let said = estate.run(&["install-hook", "--all"]);
        assert_eq!(said.status, 0, "{said:?}");
        said.out + &said.err
    };
    std::fs::write(&config, "hook = \"none\"\n").unwrap();
    install();
    assert!(!hook.exists());
    std::fs::write(&config, "").unwrap();
    let said = install();
    assert!(said.contains("left to their owners: 1"), "{said}");
    assert!(hook.exists());
    assert_eq!(foreign(&source), Vec::<PathBuf>::new());
}

#[test]
fn the_daemon_of_root_leaves_the_repository_to_a_child_too() {
    if !is_root("files of another owner are needed") {
        return;
    }
    let (estate, source, mirror) = estate(&TEMPLATE.replace("wake = \"none\"", "scan_interval = \"1s\""));
    let sandbox = &estate.sandbox;
    let mut daemon = crate::scene::daemon::command(sandbox, &["--no-listen"]).spawn().unwrap();
    let there = |path: &Path| {
        sandbox.try_git(path, &["-c", "safe.directory=*", "for-each-ref", "--format=%(refname) %(objectname)"]).out
    };
    wait_for("the mirror", || !there(&mirror).is_empty() && there(&mirror) == there(&source));
    assert_eq!(foreign(&source), Vec::<PathBuf>::new());
    assert_eq!(foreign(&mirror), Vec::<PathBuf>::new());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn the_servers_secret_goes_only_where_the_servers_file_sends_it() {
    if !is_root("files of another owner are needed") {
        return;
    }
    let (estate, source, _) = estate(TEMPLATE);
    let sandbox = &estate.sandbox;
    let server = Server::start(sandbox, Kind::Http);
    let file = sandbox.path("token");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let behind = sandbox.bare("behind.git");
    give(sandbox, &behind);
    let port = server.port();
    sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    let web = format!(
        "[remotes.web]\nurl = \"http://127.0.0.1:{port}/behind.git\"\nusername = \"{USER}\"\npassword_file = \"{}\"\nallow_insecure_http = true\n",
        file.display()
    );
    estate.configure(&TEMPLATE.replace("[remotes.backup]\nurl = \"MIRRORS/{path}.git\"\n", &web));
    let sync = || estate.run(&["--git-dir", source.to_str().unwrap(), "sync", "--json"]);
    let said = sync();
    assert_eq!(said.status, 0, "{said:?}");
    // If the owner's file has settings for this mirror or for all mirrors, the child does not use root's secret. It reads `password_file`
    // with the owner's rights.
    let config = source.join("mirror-push/config.toml");
    for own in ["[remotes.web]\nproxy = \"http://127.0.0.1:1\"\n", "[defaults]\nca_file = \"/tmp/mine.pem\"\n"] {
        std::fs::write(&config, own).unwrap();
        give(sandbox, &config);
        let said = sync();
        assert_eq!(said.status, 1, "{own}: {said:?}");
        assert!(said.out.contains("Permission denied"), "{own}: {said:?}");
        assert!(!format!("{said:?}").contains(PASSWORD));
    }
}
