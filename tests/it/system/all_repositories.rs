//! Many repositories, configured once in the server's file.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scene::estate::{Estate, TEMPLATE};
use crate::scene::sandbox::{Completed, script, wait_for};
use crate::scene::servers::{Kind, Server, free_port};

#[test]
fn a_template_mirrors_every_repository_below_the_root() {
    let estate = Estate::new(TEMPLATE);
    let names = ["a.git", "team/b.git", "team/deep/c.git", "plain"];
    for name in names {
        estate.repository(name);
        estate.mirror(&format!("{}.git", name.trim_end_matches(".git")));
    }
    estate.repository("tmp/not.git");
    let said = estate.run(&["install-hook", "--all"]);
    assert!(said.status == 0 && said.err.contains("installed the hook in 4 repositories"), "{said:?}");
    let said = estate.run(&["plan", "--all", "--json"]);
    assert_eq!(estate.sandbox.outcomes(&said).len(), 4, "{said:?}");
    let said = estate.run(&["drain", "--all"]);
    assert_eq!(said.status, 0, "{said:?}");
    let same = |name: &str| {
        let mirror = estate.sandbox.path("mirrors").join(format!("{}.git", name.trim_end_matches(".git")));
        assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&estate.sandbox.path("git").join(name)), "{name}");
    };
    names.iter().for_each(|name| same(name));
    assert!(!estate.sandbox.path("git/tmp/not.git/mirror-push").exists());
    // State is in each repository, and the same commands work there.
    let one = estate.sandbox.path("git/team/b.git");
    let status = estate.run(&["--git-dir", one.to_str().unwrap(), "status", "--json"]).json();
    assert_eq!((&status[0]["name"], &status[0]["update_status"]), (&"backup".into(), &"finished".into()));
    assert!(status[0]["id"].as_u64().unwrap() >= 1 << 30);
    // A setting for one repository stands in the repository's own file.
    let set = estate.run(&["--git-dir", one.to_str().unwrap(), "set", "backup", "--divergent-refs", "keep"]);
    assert_eq!(set.status, 0, "{set:?}");
    let text = std::fs::read_to_string(one.join("mirror-push/config.toml")).unwrap();
    assert!(text.contains("[remotes.backup]\ndivergent_refs = \"keep\"\n") && !text.contains("url"), "{text}");
    let reset = estate.run(&["--git-dir", one.to_str().unwrap(), "reset", "backup"]);
    assert_eq!(reset.status, 0, "its own settings are removed: {reset:?}");
    assert!(!std::fs::read_to_string(one.join("mirror-push/config.toml")).unwrap().contains("[remotes.backup]"));
    let removed = estate.run(&["--git-dir", one.to_str().unwrap(), "remove", "backup"]);
    assert!(removed.status == 128 && removed.err.contains("comes from the server's file"), "{removed:?}");
    let off = estate.run(&["--git-dir", one.to_str().unwrap(), "disable", "backup"]);
    assert_eq!(off.status, 0, "{off:?}");
    let said = estate.run(&["status", "--all"]);
    assert!(
        said.out.starts_with("4 mirrors: 3 finished, 0 failed, 0 scheduled, 0 started, 0 never tried, 1 disabled"),
        "{said:?}"
    );
    // A drain with nothing to do prints nothing.
    let said = estate.run(&["drain", "--all"]);
    assert_eq!((said.status, &*said.out, &*said.err), (0, "", ""));
    let said = estate.run(&["sync", "--all", "--json"]);
    assert_eq!(said.json().as_array().unwrap().len(), 3, "{said:?}");
}

#[test]
fn two_repositories_with_one_url_are_refused_and_both_named() {
    let estate = Estate::new(&TEMPLATE.replace("{path}", "{name}"));
    let (one, two) = (estate.repository("a/x.git"), estate.repository("b/x.git"));
    estate.mirror("x.git");
    for arguments in [&["drain", "--all"][..], &["--git-dir", one.to_str().unwrap(), "drain"]] {
        let said = estate.run(arguments);
        assert_eq!(said.status, 128, "{said:?}");
        for part in [one.to_str().unwrap(), two.to_str().unwrap(), "server.toml:5"] {
            assert!(said.err.contains(part), "{part}: {said:?}");
        }
    }
    assert!(estate.sandbox.refs(&estate.sandbox.path("mirrors/x.git")).is_empty());
    // `x` and `x.git` side by side are the same to `{path}`.
    estate.configure(TEMPLATE);
    std::fs::rename(&two, estate.sandbox.path("git/a/x")).unwrap();
    assert_eq!(estate.run(&["--git-dir", one.to_str().unwrap(), "drain"]).status, 128);
    std::fs::rename(estate.sandbox.path("git/a/x"), estate.sandbox.path("git/a/y.git")).unwrap();
    assert_ne!(estate.run(&["--git-dir", one.to_str().unwrap(), "drain"]).status, 128);
}

#[test]
fn later_files_of_conf_d_override_earlier_ones_and_a_repositorys_file_overrides_all() {
    let estate =
        Estate::new(&format!("{TEMPLATE}prune = \"mirror\"\n[defaults]\ntags = \"none\"\ndivergent_refs = \"keep\"\n"));
    let parts = estate.sandbox.path("conf.d");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("20-later.toml"), "[remotes.backup]\nprune = \"deleted\"\n").unwrap();
    std::fs::write(parts.join("10-first.toml"), "[remotes.backup]\nprune = \"never\"\ndivergent_refs = \"fail\"\n")
        .unwrap();
    std::fs::write(parts.join("30-not.conf"), "nonsense").unwrap();
    let one = estate.repository("a.git");
    estate.mirror("a.git");
    let dir = ["--git-dir", one.to_str().unwrap()];
    let show = || estate.run(&[&dir[..], &["show", "backup", "--json"]].concat()).json()[0].clone();
    let shown = show();
    let keys = |shown: &serde_json::Value| {
        [&shown["prune"], &shown["divergent_refs"], &shown["tags"]].map(|v| v.as_str().unwrap().to_owned())
    };
    assert_eq!(keys(&shown), ["deleted", "fail", "none"]);
    estate.run(&[&dir[..], &["set", "backup", "--prune", "never"]].concat());
    assert_eq!(keys(&show()), ["never", "fail", "none"]);
    let origins = estate.run(&[&dir[..], &["show", "backup", "--origin", "--json"]].concat()).json();
    let file_of = |key: &str| {
        let found = origins.as_array().unwrap().iter().find(|origin| origin["key"] == key).unwrap();
        Path::new(found["file"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned()
    };
    let files = ["url", "prune", "divergent_refs", "tags"].map(file_of);
    assert_eq!(files, ["server.toml", "config.toml", "10-first.toml", "server.toml"], "{origins}");
    std::fs::write(parts.join("40-bad.toml"), "[remotes.backup]\n\nid = 3\n").unwrap();
    let said = estate.run(&["drain", "--all"]);
    assert!(said.status == 128 && said.err.contains("40-bad.toml:1"), "{said:?}");
    std::fs::remove_file(parts.join("40-bad.toml")).unwrap();
    for (text, words) in [
        ("[[repositories]]\nroot = \"git\"\n", "is not an absolute path"),
        ("[[repositories]]\nroot = \"/no/such/root\"\n", "/no/such/root"),
        ("[remotes.x]\nurl = \"ext::sh {path}\"\n", "remote helper"),
        ("[remotes.x]\nurl = \"https://u:p@h/{path}\"\n", "holds a password"),
        ("notify = \"mail root\"\n", "server.toml:1"),
        ("notify = [\"mail\", \"root\"]\n", "absolute path of a program"),
        ("max_jobs = 0\n", "server.toml:1: max_jobs: at least 1"),
        ("[hosts.h]\nmax_per_minute = 0\n", "server.toml:2: max_per_minute: at least 1"),
        ("[hosts.h]\nmax_jobs_per_host = 1\n", "'max_jobs_per_host' here; it belongs at the top of the server's file"),
        ("[hosts.\"https://h/\"]\nmax_jobs = 1\n", "server.toml:1: 'https://h/' is not the name of a host; write"),
        (
            "[remotes.t]\nurl = \"/m/{path}\"\nonly_protected_branches = true\nmirror_branch_regex = \"x\"\n",
            "server.toml:4: mirror_branch_regex and",
        ),
        ("[defaults]\nonly_protected_branches = true\n\nmirror_branch_regex = \"x\"\n", "server.toml:4: mirror"),
        ("", "[[repositories]]"),
    ] {
        estate.configure(text);
        let said = estate.run(&["drain", "--all"]);
        assert!(said.status == 128 && said.err.contains(words), "{text}: {said:?}");
    }
    // Keys of the server do not belong in a repository.
    std::fs::write(one.join("mirror-push/config.toml"), "[hosts.h]\nmax_jobs = 1\n").unwrap();
    let said = estate.run(&[&dir[..], &["drain"]].concat());
    assert!(said.status == 128 && said.err.contains("'hosts' belongs in the server's file"), "{said:?}");
    std::fs::write(one.join("mirror-push/config.toml"), "\n[[repositories]]\nroot = \"/srv\"\n").unwrap();
    let said = estate.run(&[&dir[..], &["drain"]].concat());
    assert!(
        said.status == 128 && said.err.contains("config.toml:2: 'repositories' belongs in the server's file"),
        "{said:?}"
    );
}

/// A server that accepts connections, closes them without an answer, and counts them. Returns its port and the count.
fn dead_host() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = client.read(&mut [0; 64]);
        }
    });
    (port, count)
}

#[test]
fn a_dead_host_of_five_hundred_repositories_is_tried_once_an_interval() {
    let (port, tried) = dead_host();
    let estate = Estate::new(TEMPLATE);
    let alive = Server::start(&estate.sandbox, Kind::Git);
    let text =
        TEMPLATE.replace("url = \"MIRRORS/{path}.git\"", &format!("url = \"git://127.0.0.1:{port}/{{path}}.git\""));
    let text = format!(
        "{text}retry_delay = \"600s\"\n[remotes.good]\nurl = \"git://127.0.0.1:{}/mirrors/{{path}}.git\"\n",
        alive.port()
    );
    estate.configure(&text);
    for n in 0..500 {
        estate.repository(&format!("r{n}.git"));
    }
    for n in 0..20 {
        estate.mirror(&format!("r{n}.git"));
    }
    let said = estate.run(&["drain", "--all", "--json"]);
    assert_eq!((said.status, tried.load(Ordering::SeqCst)), (1, 1));
    let waiting = |said: &Completed| {
        let all = said.json();
        let of_dead = all.as_array().unwrap().iter().filter(|report| report["remote"] == "backup");
        of_dead.filter(|report| report["update_status"] == "scheduled").count()
    };
    assert_eq!(waiting(&said), 500, "all of them are marked as waiting");
    for n in 0..20 {
        let mirror = estate.sandbox.path(&format!("mirrors/r{n}.git"));
        assert!(!estate.sandbox.refs(&mirror).is_empty(), "another host is not delayed");
    }
    let status = estate.run(&["status", "--all"]);
    assert!(status.out.contains("500 scheduled") && status.out.lines().count() < 24, "{status:?}");
    // A second drain at once tries nothing, because the interval has not passed.
    estate.run(&["drain", "--all"]);
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    // A configuration file that was written again ends the interval, even with the same text.
    estate.configure(&text);
    estate.run(&["drain", "--all"]);
    assert_eq!(tried.load(Ordering::SeqCst), 2, "once more");
}

#[test]
fn the_first_sync_of_a_template_stays_due_while_its_host_is_down() {
    let estate = Estate::new("");
    let port = free_port();
    let url = format!("url = \"git://127.0.0.1:{port}/mirrors/{{path}}.git\"\n");
    let text = TEMPLATE.replace("url = \"MIRRORS/{path}.git\"\n", &url);
    estate.configure(&text);
    let names = ["a.git", "b.git"];
    let (sources, mirrors) = (names.map(|name| estate.repository(name)), names.map(|name| estate.mirror(name)));
    // A plan writes nothing, even if the host is down.
    assert_eq!(estate.run(&["plan", "--all"]).status, 1);
    assert!(sources.iter().all(|source| !source.join("mirror-push").exists()));
    assert_eq!(estate.run(&["drain", "--all"]).status, 1);
    estate.configure(&format!("{text}# a change ends the wait\n"));
    assert_eq!(estate.run(&["drain", "--all"]).status, 1);
    // Nothing was pushed meanwhile: only the full-sync record in the queue shows that all refs are still to be sent.
    let _server = Server::start_at(&estate.sandbox, Kind::Git, port);
    estate.configure(&text);
    let said = estate.run(&["drain", "--all"]);
    assert_eq!(said.status, 0, "{said:?}");
    for (source, mirror) in sources.iter().zip(&mirrors) {
        assert_eq!(estate.sandbox.refs(mirror), estate.sandbox.refs(source));
    }
}

#[test]
fn a_drain_without_the_servers_file_loses_no_push_of_a_template() {
    let estate = Estate::new(TEMPLATE);
    let source = estate.repository("a.git");
    let mirror = estate.mirror("a.git");
    assert_eq!(estate.run(&["install-hook", "--all"]).status, 0);
    assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    estate.sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
    let work = estate.sandbox.work(&source);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    for n in 0..3 {
        work.commit(&format!("push {n}"));
        work.push(&["main"]);
        // The record leaves the spool, because this drain knows no mirror.
        estate.sandbox.mirror_push_ok(&source, &["drain"]);
    }
    assert_eq!(std::fs::read_dir(source.join("mirror-push/spool/incoming")).unwrap().count(), 0);
    let queued = || std::fs::read_dir(source.join("mirror-push/remotes/backup/queue")).unwrap().count();
    assert_eq!(queued(), 1, "one full-sync record for all pushes");
    assert_ne!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
    assert_eq!(queued(), 0);
    // The same holds while the mirror has other pushes in its queue.
    let away = estate.sandbox.path("away");
    std::fs::rename(&mirror, &away).unwrap();
    for (branch, is_known) in [("a", true), ("b", false)] {
        work.push(&[&format!("main:{branch}")]);
        if is_known {
            assert_eq!(estate.run(&["drain", "--all"]).status, 1);
        } else {
            estate.sandbox.mirror_push_ok(&source, &["drain"]);
        }
    }
    std::fs::rename(&away, &mirror).unwrap();
    work.push(&["main:c"]);
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
    // Bad files of a mirror that no configuration names stop no other mirror. The drain follows no link there.
    let own = estate.sandbox.bare("own.git");
    estate.sandbox.mirror_push_ok(&source, &["add", "own", own.to_str().unwrap()]);
    let strange = source.join("mirror-push/remotes/strange");
    let elsewhere = estate.sandbox.path("elsewhere");
    std::fs::create_dir_all(elsewhere.join("queue")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &strange).unwrap();
    work.push(&["main:d"]);
    let said = estate.sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(
        said.err.contains("mirror 'strange', which no file names") && said.err.contains("is a symbolic link"),
        "{said:?}"
    );
    assert_eq!(estate.sandbox.refs(&own), estate.sandbox.refs(&source));
    assert_eq!(std::fs::read_dir(elsewhere.join("queue")).unwrap().count(), 0);
    std::fs::remove_file(&strange).unwrap();
    estate.sandbox.mirror_push_ok(&source, &["remove", "own"]);
    // A removed mirror gets no full-sync record: its queue was removed with it.
    let other = estate.sandbox.bare("other.git");
    estate.sandbox.mirror_push_ok(&source, &["add", "own", other.to_str().unwrap()]);
    estate.sandbox.mirror_push_ok(&source, &["remove", "own"]);
    work.commit("after the removal");
    work.push(&["main"]);
    estate.sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(!source.join("mirror-push/remotes/own/queue").exists());
}

#[test]
fn one_bad_repository_stops_no_other() {
    let estate = Estate::new(TEMPLATE);
    for name in ["a.git", "bad.git", "c.git"] {
        estate.repository(name);
        estate.mirror(name);
    }
    std::fs::create_dir_all(estate.sandbox.path("git/bad.git/mirror-push")).unwrap();
    std::fs::write(estate.sandbox.path("git/bad.git/mirror-push/config.toml"), "nonsense\n").unwrap();
    let said = estate.run(&["drain", "--all"]);
    assert!(said.status == 1 && said.err.contains("bad.git/mirror-push/config.toml:1"), "{said:?}");
    for (name, is_there) in [("a.git", true), ("bad.git", false), ("c.git", true)] {
        assert_eq!(!estate.sandbox.refs(&estate.sandbox.path("mirrors").join(name)).is_empty(), is_there, "{name}");
    }
    assert_eq!(estate.run(&["status", "--all"]).status, 1);
    assert_eq!(estate.run(&["check", "--all"]).status, 3);
}

/// Both become `x` in the URL of a template.
#[test]
fn a_bare_repository_and_a_working_tree_of_one_name_are_refused() {
    let estate = Estate::new(TEMPLATE);
    let (bare, work) = (estate.repository("x.git"), estate.repository("x/.git"));
    let (mirror, run) =
        (estate.mirror("x.git"), |path: &Path| estate.run(&["--git-dir", path.to_str().unwrap(), "sync"]));
    for path in [&bare, &work] {
        let said = run(path);
        assert!(said.status == 128 && said.err.contains("x.git") && said.err.contains("x/.git"), "{said:?}");
    }
    std::fs::remove_dir_all(&work).unwrap();
    assert_eq!(run(&bare).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&bare));
}

#[test]
fn the_background_drain_reads_the_servers_file_that_the_command_read() {
    let estate = Estate::new(&TEMPLATE.replace("wake = \"none\"\n", ""));
    let (source, mirror) = (estate.repository("a.git"), estate.mirror("a.git"));
    let mut enable = estate.sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
    enable.arg("-C").arg(&source).args(["--config", "server.toml", "set", "backup", "prune=never"]);
    assert!(enable.status().unwrap().success());
    wait_for("the drain in the background", || estate.sandbox.refs(&mirror) == estate.sandbox.refs(&source));
}

#[test]
fn a_mirror_that_the_servers_file_disables_can_be_enabled_in_one_repository() {
    let text = "[[repositories]]\nroot = \"ROOT\"\n[remotes.b]\nurl = \"MIRRORS/{path}.git\"\nenabled = false\n";
    let estate = Estate::new(text);
    for name in ["one.git", "two.git"] {
        estate.repository(name);
        estate.mirror(name);
    }
    let one = estate.sandbox.path("git/one.git");
    let said = estate.run(&["-C", one.to_str().unwrap(), "enable", "b"]);
    assert_eq!(said.status, 0, "{said:?}");
    estate.run(&["sync", "--all"]);
    let refs = |path: &str| estate.sandbox.refs(&estate.sandbox.path(path));
    assert_eq!(refs("mirrors/one.git"), refs("git/one.git"));
    assert_eq!(refs("mirrors/two.git"), Vec::<String>::new());
    // `disable` and then `enable` in this repository work too.
    for (command, is_enabled) in [("disable", false), ("enable", true)] {
        assert_eq!(estate.run(&["-C", one.to_str().unwrap(), command, "b"]).status, 0);
        let shown = estate.run(&["-C", one.to_str().unwrap(), "status", "--json"]).json();
        assert_eq!(shown[0]["enabled"], is_enabled, "{shown}");
    }
}

#[test]
fn a_host_with_a_limit_of_its_own_never_gets_more_updates_at_once() {
    let estate = Estate::new(TEMPLATE);
    let server = Server::start(&estate.sandbox, Kind::Git);
    let url = format!("url = \"git://127.0.0.1:{}/mirrors/{{path}}.git\"", server.port());
    let text = TEMPLATE.replace("url = \"MIRRORS/{path}.git\"", &url);
    let (busy, overlap) = (estate.sandbox.path("busy"), estate.sandbox.path("overlap"));
    let enter = format!("mkdir '{}' 2>/dev/null || exec touch '{}'", busy.display(), overlap.display());
    let hook = format!("#!/bin/sh\n{enter}\nsleep 0.2\nrmdir '{}'\n", busy.display());
    let limit = "[hosts.\"127.0.0.1\"]\nmax_jobs = 1\n";
    for (first, text, overlaps) in [(0, format!("{text}{limit}"), false), (8, text, true)] {
        for n in first..first + 8 {
            estate.repository(&format!("r{n}.git"));
            script(&estate.mirror(&format!("r{n}.git")).join("hooks/update"), &hook);
        }
        estate.configure(&text);
        let said = estate.run(&["drain", "--all"]);
        assert_eq!((said.status, overlap.exists()), (0, overlaps), "{said:?}");
    }
}
