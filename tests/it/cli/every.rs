//! The commands with `--all`, and the configuration files that they read.

use std::path::Path;

use crate::scene::disk::Small;
use crate::scene::estate::{Estate, TEMPLATE};
use crate::scene::sandbox::Completed;

#[test]
fn log_and_doctor_cover_all_repositories() {
    let estate = Estate::new(TEMPLATE);
    for name in ["a.git", "b.git"] {
        estate.repository(name);
        estate.mirror(name);
    }
    assert_eq!(estate.run(&["install-hook", "--all"]).status, 0);
    for _ in 0..2 {
        assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    }
    let log = |arguments: &[&str]| {
        let said = estate.run(&[&["log", "--all"], arguments].concat());
        assert_eq!(said.status, 0, "{said:?}");
        said.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = log(&[]);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.is_sorted(), "by time: {all:?}");
    for name in ["a.git", "b.git"] {
        let path = estate.sandbox.path("git").join(name).canonicalize().unwrap().display().to_string();
        assert_eq!(all.iter().filter(|line| line.contains(&path) && line.contains("  backup  finished")).count(), 2);
    }
    assert_eq!(log(&["-n", "3"]), all[1..]);
    assert_eq!(log(&["--since", "1h"]).len(), 4);
    assert!(log(&["--since", "2099-01-01"]).is_empty());
    let last = all[3].split(' ').next().unwrap();
    // `--since` takes a time as the log prints it. Two attempts may have begun in the same millisecond.
    let since: Vec<&String> = all.iter().filter(|line| line.split(' ').next() >= Some(last)).collect();
    assert_eq!(log(&["--since", last]).iter().collect::<Vec<_>>(), since);
    let json = estate.run(&["log", "--all", "--json", "-n1"]).json();
    assert_eq!((json[0]["name"].as_str(), json.as_array().unwrap().len()), (Some("backup"), 1));
    assert!(json[0]["repository"].as_str().unwrap().ends_with(".git"), "{json}");
    let broken = estate.sandbox.path("git/a.git/mirror-push/config.toml");
    std::fs::write(&broken, "nonsense\n").unwrap();
    let said = estate.run(&["log", "--all"]);
    assert_eq!((said.status, said.out.lines().count()), (1, 2), "one repository cannot be read: {said:?}");
    let said = estate.run(&["check", "--all"]);
    assert!(said.status == 3 && said.out.contains("1 of 1 mirrors up to date; 1 repository could not"), "{said:?}");
    std::fs::remove_file(&broken).unwrap();
    // Each repository counts its own damaged records, and a mirror with a push that waits is not up to date.
    for name in ["a.git", "b.git"] {
        let corrupt = estate.sandbox.path("git").join(name).join("mirror-push/spool/corrupt");
        std::fs::create_dir_all(&corrupt).unwrap();
        std::fs::write(corrupt.join("x"), "").unwrap();
    }
    let work = estate.sandbox.work(&estate.sandbox.path("git/b.git"));
    work.git(&["pull", "-q", "origin", "main"]);
    work.commit("waits");
    work.push(&["main"]);
    let said = estate.run(&["check", "--all"]);
    assert!(said.out.contains("1 of 2 mirrors up to date; 2 spool records could not be read"), "{said:?}");
    estate.run(&["drain", "--all"]);
    for name in ["a.git", "b.git"] {
        std::fs::remove_file(estate.sandbox.path("git").join(name).join("mirror-push/spool/corrupt/x")).unwrap();
    }
    // An error when writing to standard output ends the command.
    for command in ["plan", "sync"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut run = estate.sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        let said = Completed::of(
            &run.arg("--config").arg(&estate.file).args([command, "--all", "-v"]).stdout(full).output().unwrap(),
        );
        assert!(said.status == 128 && said.err.contains("No space left"), "{command}: {said:?}");
    }
    let bad = estate.run(&["log", "--all", "--since", "yesterday"]);
    assert!(bad.status == 129 && bad.err.contains("'yesterday' is not a time"), "{bad:?}");
    // The doctor.
    estate.sandbox.git(&estate.sandbox.path("git"), &["config", "--global", "core.fsync", "all"]);
    let said = estate.run(&["doctor", "--all"]);
    assert_eq!((said.status, &*said.out), (0, "2 repositories, 2 without a fault, 0 unreadable\n"), "{said:?}");
    let hook = estate.sandbox.path("git/b.git/hooks/post-receive");
    std::fs::remove_file(&hook).unwrap();
    let said = estate.run(&["doctor", "--all"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!((said.status, lines.len()), (1, 4), "{said:?}");
    assert!(lines[0].ends_with("/b.git") && lines[1].contains("hook: there is no"), "{said:?}");
    assert_eq!(lines[3], "2 repositories, 1 without a fault, 0 unreadable");
    let json = estate.run(&["doctor", "--all", "--json"]).json();
    let faults: Vec<_> = json.as_array().unwrap().iter().filter(|found| found["severity"] != "ok").collect();
    assert_eq!(faults.len(), 1, "{json}");
    assert!(faults[0]["repository"].as_str().unwrap().ends_with("/b.git"), "{json}");
}

#[test]
fn a_mirror_is_updated_however_its_toml_is_written() {
    let estate = Estate::new("wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n");
    for (n, table) in
        ["[remotes]\nm = { url = \"URL\" }\n", "[ remotes . m ]\nurl = \"URL\"\n", "remotes.m.url = \"URL\"\n"]
            .into_iter()
            .enumerate()
    {
        let (source, mirror) = (estate.repository(&format!("r{n}.git")), estate.mirror(&format!("r{n}.git")));
        estate.sandbox.mirror_push_ok(&source, &["install-hook"]);
        let config = source.join("mirror-push/config.toml");
        std::fs::write(&config, table.replace("URL", mirror.to_str().unwrap())).unwrap();
        estate.sandbox.mirror_push_ok(&source, &["sync"]);
        let refs = estate.sandbox.refs(&source);
        assert_eq!(estate.sandbox.refs(&mirror), refs, "{table}");
        // `set` makes an update due, and `drain --all` carries it out.
        estate.sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/main"]);
        estate.sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
        estate.sandbox.mirror_push_ok(&source, &["set", "m", "prune=never"]);
        let said = estate.run(&["drain", "--all"]);
        assert_eq!((said.status, estate.sandbox.refs(&mirror)), (0, refs), "{table}: {said:?}");
    }
}

#[test]
fn a_record_stays_in_the_spool_while_the_disk_is_full() {
    let estate = Estate::new(TEMPLATE);
    let Some(disk) = Small::new(&estate.sandbox, &estate.sandbox.path("git/small")) else { return };
    let (source, mirror) = (estate.repository("small/x.git"), estate.mirror("small/x.git"));
    assert_eq!(estate.run(&["install-hook", "--all"]).status, 0);
    assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    estate.sandbox.mirror_push_ok(&source, &["set", "wake=none"]);
    let work = estate.sandbox.work(&source);
    work.commit("one");
    work.push(&["HEAD:refs/heads/next"]);
    disk.fill();
    // This drain does not know the template's mirror, and the full disk has no room for a full-sync record in its queue.
    let said = estate.sandbox.mirror_push(&source, &["drain"]);
    assert!(said.status == 128 && said.err.contains("No space left"), "{said:?}");
    let said = estate.sandbox.mirror_push(&source, &["doctor", "--json"]);
    assert!(said.out.contains("No space left"), "{said:?}");
    let spool = source.join("mirror-push/spool/tmp");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0, "the probe file of doctor is gone");
    disk.free();
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
}

#[test]
fn a_damaged_record_causes_a_full_sync_also_of_a_mirror_that_the_drain_does_not_know() {
    let estate = Estate::new(TEMPLATE);
    let (source, mirror) = (estate.repository("x.git"), estate.mirror("x.git"));
    assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    estate.sandbox.git(&source, &["branch", "next", "main"]);
    std::fs::write(source.join("mirror-push/spool/incoming/1.2.3.4"), "damaged").unwrap();
    let said = estate.sandbox.mirror_push_ok(&source, &["drain"]);
    assert!(said.err.contains("moved to spool/corrupt"), "{said:?}");
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
}

#[test]
fn hook_none_prevents_the_installation_of_the_hook() {
    let estate = Estate::new(TEMPLATE);
    let [with, without] = ["a.git", "b.git"].map(|name| estate.repository(name));
    estate.sandbox.mirror_push_ok(&without, &["set", "hook=none"]);
    let said = estate.run(&["install-hook", "--all"]);
    let expected = "installed the hook in 1 repository; 0 had it already; hook = \"none\" in 1\n";
    assert_eq!((said.status, &*said.err), (0, expected), "{said:?}");
    let has = |repository: &Path| repository.join("hooks/post-receive").exists();
    assert!(has(&with) && !has(&without));
    let mirror = estate.mirror("b.git");
    let said = estate.sandbox.mirror_push_ok(&without, &["add", "own", mirror.to_str().unwrap()]);
    assert!(!has(&without) && !said.err.contains("hook"), "{said:?}");
    // `install-hook` without --all installs it nevertheless.
    estate.sandbox.mirror_push_ok(&without, &["install-hook"]);
    assert!(has(&without));
}

#[test]
fn silent_mode_of_the_server_overrides_the_repository() {
    let estate = Estate::new(&format!("silent = true\n{TEMPLATE}"));
    let (source, mirror) = (estate.repository("x.git"), estate.mirror("x.git"));
    estate.sandbox.mirror_push_ok(&source, &["set", "silent=false"]);
    let at = ["--git-dir", source.to_str().unwrap()];
    for arguments in [&["sync"][..], &["drain"]] {
        assert_eq!(estate.run(&[&at[..], arguments].concat()).status, 0);
    }
    assert!(estate.sandbox.refs(&mirror).is_empty(), "the server's file says silent, whatever the repository's says");
    let status = estate.run(&[&at[..], &["status"]].concat());
    assert!(
        status.out.contains("silent mode: nothing is sent; to end it, remove 'silent = true' from the server's file"),
        "{status:?}"
    );
    estate.configure(TEMPLATE);
    assert_eq!(estate.run(&["sync", "--all"]).status, 0);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
}

#[test]
fn the_url_of_a_template_is_overridden_and_restored() {
    let estate = Estate::new(TEMPLATE);
    let (source, mirror, other) = (estate.repository("x.git"), estate.mirror("x.git"), estate.mirror("other.git"));
    let run = |arguments: &[&str]| {
        let said = estate.run(&[&["--git-dir", source.to_str().unwrap()], arguments].concat());
        assert_eq!(said.status, 0, "{arguments:?}: {said:?}");
    };
    run(&["set", "backup", &format!("url={}", other.display()), "prune=never"]);
    run(&["sync"]);
    assert!(estate.sandbox.refs(&mirror).is_empty());
    assert_eq!(estate.sandbox.refs(&other), estate.sandbox.refs(&source));
    run(&["set", "backup", "url="]);
    run(&["sync"]);
    assert_eq!(estate.sandbox.refs(&mirror), estate.sandbox.refs(&source));
    let text = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(!text.contains("url") && text.contains("prune = \"never\""), "{text}");
}

#[test]
fn an_include_that_matches_nothing_is_reported() {
    let estate = Estate::new(&TEMPLATE.replace("exclude", "include = [\"foo/*\"]\nexclude"));
    estate.repository("a.git");
    for command in [&["status", "--all"][..], &["sync", "--all"], &["drain", "--all"]] {
        let said = estate.run(command);
        assert!(said.err.contains("no repository is served: there is none below"), "{command:?}: {said:?}");
    }
}

/// An editor or a restore may give the file an old time.
#[test]
fn an_edited_url_is_noticed_whatever_time_the_file_has() {
    let estate = Estate::new("wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n");
    let source = estate.repository("a.git");
    let (first, second) = (estate.mirror("first.git"), estate.mirror("second.git"));
    let add = ["--git-dir", source.to_str().unwrap(), "add", "own", first.to_str().unwrap()];
    assert_eq!(estate.run(&add).status, 0);
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    let refs = |path: &Path| estate.sandbox.refs(path);
    assert_eq!((refs(&first), refs(&second)), (refs(&source), vec![]));
    let file = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("first.git", "second.git")).unwrap();
    std::fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(estate.run(&["drain", "--all"]).status, 0);
    assert_eq!(refs(&second), refs(&source));
}

#[test]
fn check_does_not_say_ok_while_a_root_is_missing() {
    let estate = Estate::new(&format!("{TEMPLATE}[[repositories]]\nroot = \"/nowhere/git\"\n"));
    estate.repository("a.git");
    estate.mirror("a.git");
    for command in [["install-hook", "--all"], ["sync", "--all"]] {
        assert_eq!(estate.run(&command).status, 1, "one root is missing");
    }
    let said = estate.run(&["check", "--all"]);
    assert!(said.status == 3 && said.out.contains("1 of 1 mirrors up to date; 1 root does not exist"), "{said:?}");
}

#[test]
fn status_of_all_prints_one_array_and_the_worst_first() {
    let estate = Estate::new(TEMPLATE);
    let said = estate.run(&["status", "--all", "--json"]);
    assert_eq!((said.status, &*said.out), (0, "[]\n"), "{said:?}");
    let names: Vec<String> = (0..30).map(|n| format!("r{n:02}.git")).collect();
    for name in &names {
        estate.repository(name);
        if name != "r07.git" {
            estate.mirror(name);
        }
    }
    assert_eq!(estate.run(&["install-hook", "--all"]).status, 0);
    assert_eq!(estate.run(&["sync", "--all", "-q"]).status, 1);
    let said = estate.run(&["status", "--all", "--json"]);
    let all = said.json();
    assert_eq!((said.status, all.as_array().unwrap().len()), (1, 30));
    // The text is what a serializer of the whole array prints, in the order of the repositories.
    let one = |name: &str| {
        let path = estate.sandbox.path("git").join(name).canonicalize().unwrap();
        all.as_array().unwrap().iter().position(|view| view["repository"] == path.to_str().unwrap())
    };
    assert!(names.iter().enumerate().all(|(at, name)| one(name) == Some(at)));
    assert!(said.out.starts_with("[\n  {\n    \"id\"") && said.out.ends_with("\n  }\n]\n"), "{}", said.out);
    let text = estate.run(&["status", "--all", "-v"]).out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (lines.len(), lines[0]),
        (31, "30 mirrors: 29 finished, 1 failed, 0 scheduled, 0 started, 0 never tried, 0 disabled")
    );
    assert!(lines[1].contains("r07.git") && lines[1].starts_with("failed"), "{text}");
    assert_eq!(estate.run(&["status", "--all"]).out.lines().count(), 2);
    names.iter().for_each(|name| drop(std::fs::remove_dir_all(estate.sandbox.path("mirrors").join(name))));
    estate.run(&["sync", "--all", "-q"]);
    let text = estate.run(&["status", "--all"]).out;
    assert_eq!(text.lines().filter(|line| line.starts_with("failed ")).count(), 20, "{text}");
    assert!(text.ends_with("and 10 more; -v shows them all\n"), "{text}");
    assert!(text.lines().nth(1).unwrap().contains("r07.git"), "the one that never succeeded is first: {text}");
}
