//! `doctor`: each problem is created, found, and reported with its fix.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::scene::sandbox::{Completed, Sandbox};
use crate::scene::servers::{Kind, Server};

fn scene() -> (Sandbox, PathBuf, PathBuf) {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--divergent-refs", "keep"]);
    sandbox.git(&source, &["config", "core.fsync", "all"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    (sandbox, mirror, source)
}

/// The findings that are not `ok`: the check and the severity of each, and their JSON as one text.
fn ailments(said: &Completed) -> (Vec<(String, String)>, String) {
    let findings = said.json();
    let word = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let bad: Vec<_> = findings.as_array().unwrap().iter().filter(|finding| finding["severity"] != "ok").collect();
    for finding in &bad {
        assert!(finding["fix"].is_string() && finding["mend"] == finding["fix"], "{finding} has no fix");
    }
    let list = bad.iter().map(|finding| (word(finding, "check"), word(finding, "severity"))).collect();
    (list, bad.iter().map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_healthy_repository_has_no_problems() {
    let (sandbox, _, source) = scene();
    let said = sandbox.mirror_push_ok(&source, &["doctor", "--json"]);
    assert_eq!(ailments(&said).0, [], "{said:?}");
    let text = sandbox.mirror_push_ok(&source, &["doctor"]).out;
    assert!(text.contains("hook: ") && text.contains("m: reachable: 1 refs"), "{text}");
    assert_eq!(sandbox.mirror_push_ok(&source, &["doctor", "-q"]).out, "");
    assert_eq!(std::fs::read_dir(source.join("mirror-push/spool/tmp")).unwrap().count(), 0, "the probe is gone");
}

#[test]
fn problems_of_the_repository_are_reported_with_their_fixes() {
    type Ail<'a> = &'a dyn Fn(&Sandbox, &PathBuf, &PathBuf);
    let ails: [(&str, &str, &str, Ail<'_>); 13] = [
        ("hook", "error", "install-hook", &|s, _, source| {
            s.mirror_push_ok(source, &["uninstall-hook"]);
        }),
        ("hook", "error", "another hook", &|_, _, source| {
            std::fs::remove_file(source.join("hooks/post-receive")).unwrap();
            std::fs::write(source.join("hooks/post-receive"), "#!/bin/sh\n").unwrap();
        }),
        ("hook", "error", "no '", &|s, _, source| {
            // core.hooksPath makes git look for all hooks of this user in another directory.
            s.git(source, &["config", "--global", "core.hooksPath", s.path("elsewhere").to_str().unwrap()]);
        }),
        ("hook", "error", "does not lead to an executable program", &|_, _, source| {
            let hook = source.join("hooks/post-receive");
            std::fs::remove_file(&hook).unwrap();
            std::os::unix::fs::symlink("/gone/git-mirror-post-receive", &hook).unwrap();
        }),
        ("configuration", "error", "config.toml:1", &|_, _, source| {
            std::fs::write(source.join("mirror-push/config.toml"), "nonsense\n").unwrap();
        }),
        ("configuration", "warning", "silent", &|s, _, source| {
            s.mirror_push_ok(source, &["silent", "on"]);
        }),
        ("spool", "error", "is missing", &|_, _, source| {
            std::fs::remove_dir_all(source.join("mirror-push/spool/incoming")).unwrap();
        }),
        ("spool", "error", "the group cannot write", &|s, _, source| {
            s.git(source, &["config", "core.sharedRepository", "group"]);
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(source.join("mirror-push/spool/tmp"), mode).unwrap();
        }),
        ("records", "warning", "could not be read", &|_, _, source| {
            std::fs::write(source.join("mirror-push/spool/corrupt/x"), "").unwrap();
        }),
        ("records", "warning", "pushes are waiting for a drain", &|s, _, source| {
            s.git(&s.path("source.git.work"), &["push", "-q", "origin", "main:more"]);
            assert!(source.exists());
        }),
        ("refs", "error", "refs/heads/hollow", &|s, _, source| {
            let lost = s.git(source, &["commit-tree", "-m", "lost", "main^{tree}"]);
            s.git(source, &["update-ref", "refs/heads/hollow", &lost]);
            std::fs::remove_file(source.join("objects").join(&lost[..2]).join(&lost[2..])).unwrap();
        }),
        ("durability", "warning", "core.fsync all", &|s, _, source| {
            s.git(source, &["config", "--unset", "core.fsync"]);
        }),
        ("lfs", "warning", "Git LFS", &|s, _, _| {
            let work = s.path("source.git.work");
            std::fs::write(work.join(".gitattributes"), "*.bin filter=lfs diff=lfs\n").unwrap();
            s.git(&work, &["add", ".gitattributes"]);
            s.git(&work, &["commit", "-q", "-m", "lfs"]);
            s.git(&work, &["push", "-q", "origin", "main"]);
        }),
    ];
    for (check, severity, words, ail) in ails {
        let (sandbox, mirror, source) = scene();
        ail(&sandbox, &mirror, &source);
        let said = sandbox.mirror_push(&source, &["doctor", "--json"]);
        let (found, text) = ailments(&said);
        assert!(found.contains(&(check.to_owned(), severity.to_owned())), "{check}: {said:?}");
        assert!(text.contains(words), "'{words}' is not in {text}");
        let is_bad = found.iter().any(|(_, severity)| severity == "error");
        assert_eq!(said.status, i32::from(is_bad), "{said:?}");
    }
}

#[test]
fn problems_of_a_mirror_are_reported_with_their_fixes() {
    type Ail<'a> = &'a dyn Fn(&Sandbox, &PathBuf, &PathBuf);
    let set = |sandbox: &Sandbox, source: &PathBuf, url: &str| {
        sandbox.mirror_push_ok(source, &["set", "m", "--url", url]);
    };
    let ails: [(&str, &str, Ail<'_>); 11] = [
        ("enabled", "enable m", &|s, _, source| {
            s.mirror_push_ok(source, &["disable", "m"]);
        }),
        ("reachable", "nothing listens at port 1 there", &|s, _, source| set(s, source, "git://127.0.0.1:1/x.git")),
        ("reachable", "create it there", &|s, _, source| set(s, source, "/nowhere.git")),
        ("credentials", "credential m", &|s, _, source| {
            set(s, source, "https://bot@127.0.0.1:1/x.git");
            s.mirror_push_ok(source, &["set", "m", "--auth-method", "password"]);
        }),
        ("credentials", "chmod 600", &|s, _, source| {
            set(s, source, "https://bot:pw@127.0.0.1:1/x.git");
            let secret = source.join("mirror-push/remotes/m/secret");
            std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("host-key", "host-keys m --detect", &|s, _, source| set(s, source, "ssh://127.0.0.1:1/x.git")),
        ("object-format", "git init --bare --object-format=", &|s, mirror, _| {
            std::fs::remove_dir_all(mirror).unwrap();
            s.bare_of(mirror.file_name().unwrap().to_str().unwrap(), (s.other_hash(), s.formats().1));
        }),
        ("settings", "denyDeletes", &|s, mirror, _| {
            s.git(mirror, &["config", "receive.denyDeletes", "true"]);
        }),
        ("settings", "hideRefs", &|s, mirror, _| {
            s.git(mirror, &["config", "receive.hideRefs", "refs/heads/secret"]);
        }),
        ("head", "symbolic-ref HEAD refs/heads/main", &|s, mirror, _| {
            s.git(mirror, &["symbolic-ref", "HEAD", "refs/heads/none"]);
        }),
        ("status", "compares everything", &|_, _, source| {
            std::fs::write(source.join("mirror-push/remotes/m/status.json"), "{").unwrap();
        }),
    ];
    for (check, words, ail) in ails {
        let (sandbox, mirror, source) = scene();
        ail(&sandbox, &mirror, &source);
        let said = sandbox.mirror_push(&source, &["doctor", "--json"]);
        let (found, text) = ailments(&said);
        assert!(found.iter().any(|(found, _)| found == check), "{check}: {said:?}");
        assert!(text.contains(words), "'{words}' is not in {text}");
    }
}

#[test]
fn a_source_that_is_older_than_its_mirror_is_reported_with_the_fix() {
    let (sandbox, mirror, source) = scene();
    let theirs = sandbox.git(&mirror, &["commit-tree", "-m", "theirs", "-p", "main", "main^{tree}"]);
    sandbox.git(&mirror, &["update-ref", "refs/heads/main", &theirs]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    let (found, text) = ailments(&sandbox.mirror_push(&source, &["doctor", "--json"]));
    assert_eq!(found, [("divergence".to_owned(), "error".to_owned())]);
    assert!(text.contains("was restored from an older backup") && text.contains("git fetch mirror::m"), "{text}");
}

#[test]
fn doctor_contacts_a_mirror_over_the_network() {
    let (sandbox, _, source) = scene();
    let server = Server::start(&sandbox, Kind::Ssh);
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", &server.url("mirror.git")]);
    let (found, text) = ailments(&sandbox.mirror_push(&source, &["doctor", "--json"]));
    assert!(found.contains(&("reachable".into(), "error".into())) && text.contains("host key"), "{text}");
    server.configure_access(&sandbox, &source, "m");
    let said = sandbox.mirror_push_ok(&source, &["doctor", "--json"]);
    assert_eq!(ailments(&said).0, [], "{said:?}");
}

#[test]
fn at_first_contact_doctor_says_how_to_confirm_it() {
    let sandbox = Sandbox::new();
    let stranger = sandbox.bare("mirror.git");
    let theirs = sandbox.work(&stranger);
    theirs.commit("somebody else's");
    theirs.push(&["main"]);
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    work.commit("ours");
    work.push(&["main"]);
    assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
    let said = sandbox.mirror_push(&source, &["doctor", "--json"]);
    let (found, text) = ailments(&said);
    assert!(found.contains(&("first-contact".into(), "error".into())), "{text}");
    assert!(text.contains("git mirror-push sync m --adopt"), "{text}");
    // `git fetch` would get the stranger's commits, `--divergent-refs overwrite` would overwrite
    // them.
    assert!(!text.contains("git fetch") && !text.contains("--divergent-refs overwrite"), "{text}");
}

#[test]
fn a_push_that_could_not_be_recorded_waits_and_is_reported() {
    let (sandbox, _, source) = scene();
    std::fs::write(source.join("mirror-push/spool/resync"), "1").unwrap();
    assert_eq!(sandbox.status(&source)["pending"], 1);
    let (found, text) = ailments(&sandbox.mirror_push(&source, &["doctor", "--json"]));
    assert!(found.contains(&("spool".into(), "warning".into())) && text.contains("could not be recorded"), "{text}");
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.status(&source)["pending"], 0);
    assert_eq!(ailments(&sandbox.mirror_push(&source, &["doctor", "--json"])).0, []);
}

#[test]
fn a_repository_on_a_network_file_system_is_reported() {
    let (sandbox, _, source) = scene();
    let said = |inject: &str| {
        let mut command = sandbox.command("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=statfs", "-e", inject, "--"]);
        let output = command.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("doctor").current_dir(&source).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    // The kernel's answer, with the number of NFS in its first field.
    let nfs = said("inject=statfs:poke_exit=@arg2=6969000000000000");
    assert!(nfs.contains("storage: '") && nfs.contains("' is on a network file system (NFS)"), "{nfs}");
    assert!(nfs.contains("on one machine only"), "{nfs}");
    for local in ["inject=statfs:poke_exit=@arg2=53ef000000000000", "inject=statfs:error=EIO"] {
        assert!(!said(local).contains("storage"), "{local}");
    }
}
