//! The commands that look at every repository of a server.

use crate::many::{Estate, TEMPLATE};

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
    // The time as the log itself has it; two attempts may have begun in one millisecond.
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
fn however_a_mirror_is_written_it_is_served() {
    let estate = Estate::new("wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n");
    for (n, table) in
        ["[remotes]\nm = { url = \"URL\" }\n", "[ remotes . m ]\nurl = \"URL\"\n", "remotes.m.url = \"URL\"\n"]
            .into_iter()
            .enumerate()
    {
        let (source, mirror) = (estate.repository(&format!("r{n}.git")), estate.mirror(&format!("r{n}.git")));
        estate.sandbox.ok(&source, &["install-hook"]);
        let config = source.join("mirror-push/config.toml");
        std::fs::write(&config, table.replace("URL", mirror.to_str().unwrap())).unwrap();
        estate.sandbox.ok(&source, &["sync"]);
        let refs = estate.sandbox.refs(&source);
        assert_eq!(estate.sandbox.refs(&mirror), refs, "{table}");
        // What its own commands make due is done by those that look at every repository.
        estate.sandbox.git(&mirror, &["update-ref", "-d", "refs/heads/main"]);
        estate.sandbox.ok(&source, &["set", "wake=none"]);
        estate.sandbox.ok(&source, &["set", "m", "prune=never"]);
        let said = estate.run(&["drain", "--all"]);
        assert_eq!((said.status, estate.sandbox.refs(&mirror)), (0, refs), "{table}: {said:?}");
    }
}
