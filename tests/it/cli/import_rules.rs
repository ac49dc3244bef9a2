//! `import` of many repositories: one template for them, few processes and few syncs; pushes in
//! hooks and in cron; `--init` and `--check`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::import_sources::config;
use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, is_root, is_variant, script, skip, wait_for};

const NOBODY: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n";

/// Twelve repositories with one rule and one password: one template, one password file, and nothing in the repositories.
#[test]
fn one_rule_for_many_repositories_is_one_template() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let all: Vec<PathBuf> = (0..12).map(|n| estate.repository(&format!("team/r{n}.git"))).collect();
    let mirrors = sandbox.path("mirrors").display().to_string();
    for (n, repository) in all.iter().enumerate() {
        let remote = |name: &str, url: &str| {
            sandbox.git(repository, &["config", &format!("remote.{name}.url"), url]);
            sandbox.git(repository, &["config", &format!("remote.{name}.mirror"), "true"]);
        };
        remote("backup", &format!("{mirrors}/team-r{n}.git"));
        remote("web", &format!("https://bot:c4nary@127.0.0.1:9/team/r{n}.git"));
        estate.mirror(&format!("team-r{n}.git"));
    }
    sandbox.git(&all[3], &["config", "remote.only.url", "/srv/only.git"]);
    sandbox.git(&all[3], &["config", "remote.only.mirror", "true"]);
    let said = estate.run(&["import", "--dry-run"]);
    assert!(
        said.err.contains("mirror 'backup' is the same in all 12 repositories; --template writes it once"),
        "{said:?}"
    );
    let said = estate.run(&["import", "--template", "--yes"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("25 imported, 0 already here, 0 need you"), "{said:?}");
    let text = std::fs::read_to_string(sandbox.path("conf.d/import-git.toml")).unwrap();
    assert!(text.contains(&format!("[remotes.backup]\nurl = \"{mirrors}/{{path_dash}}.git\"\n")), "{text}");
    assert!(text.contains("[remotes.web]\nurl = \"https://127.0.0.1:9/{path}.git\"\nusername = \"bot\"\n"), "{text}");
    assert!(text.starts_with("# git-mirror-push: mirrors that 'import git' found"), "{text}");
    let secret = sandbox.path("secrets/import-web");
    assert!(text.contains(&format!("password_file = \"{}\"", secret.display())) && !text.contains("c4nary"), "{text}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "c4nary\n");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let own: Vec<bool> = all.iter().map(|repository| repository.join("mirror-push/config.toml").exists()).collect();
    assert_eq!(
        own.iter().filter(|is_there| **is_there).count(),
        1,
        "only what is different is written in its repository"
    );
    assert!(config(&all[3]).contains("[remotes.only]"));
    assert!(all.iter().all(|repository| repository.join("hooks/post-receive").is_symlink()));
    let said = estate.run(&["import", "--template", "--yes"]);
    assert!(said.out.contains("0 imported, 25 already here, 0 need you"), "{said:?}");
    estate.run(&["drain", "--all"]);
    for (n, repository) in all.iter().enumerate() {
        assert_eq!(sandbox.refs(&sandbox.path(&format!("mirrors/team-r{n}.git"))), sandbox.refs(repository), "r{n}");
    }

    // One repository has no such mirror. A template would give it one, so no template is written.
    let estate = Estate::new(NOBODY);
    for n in 0..12 {
        let repository = estate.repository(&format!("r{n}.git"));
        if n > 0 {
            estate.sandbox.git(&repository, &["config", "remote.gh.url", &format!("/srv/r{n}.git")]);
            estate.sandbox.git(&repository, &["config", "remote.gh.mirror", "true"]);
        }
    }
    let said = estate.run(&["import", "--template", "--yes"]);
    assert!(
        said.err.contains("no mirror is the same in all repositories") && said.out.contains("11 imported"),
        "{said:?}"
    );
    assert!(!estate.sandbox.path("conf.d").exists());
}

/// Lines of a hook that push to a literal URL become mirrors that get the same refs. The refs that
/// the hook itself pushes are the expected ones.
#[test]
fn a_push_in_a_hook_becomes_a_mirror_that_gets_the_same_refs() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let source = estate.repository("a.git");
    let lines = ["--mirror URL", "--force --all URL", "-q URL main +refs/tags/*:refs/tags/*", "--all --prune URL"];
    let places: Vec<(PathBuf, PathBuf)> = (0..lines.len())
        .map(|n| (estate.mirror(&format!("by-hook-{n}.git")), estate.mirror(&format!("ours-{n}.git"))))
        .collect();
    let text: String = lines
        .iter()
        .zip(&places)
        .map(|(line, (place, _))| {
            format!("git push {} >/dev/null 2>&1\n", line.replace("URL", place.to_str().unwrap()))
        })
        .collect();
    let hook = source.join("hooks/post-receive");
    script(&hook, &format!("#!/bin/sh\n{text}if true; then\n  git push --mirror /srv/other.git\nfi\n"));
    let said = estate.run(&["import", "git", "--exact", "--yes"]);
    assert!(said.status == 1 && said.out.contains("4 imported, 0 already here, 1 needs you"), "{said:?}");
    assert!(
        said.out.contains(
            "until you delete hooks/post-receive (post-receive.previous after the import), line 2, it pushes too"
        ),
        "{said:?}"
    );
    let names: Vec<String> = config(&source)
        .lines()
        .filter_map(|line| line.strip_prefix("[remotes."))
        .map(|name| name.trim_end_matches(']').to_owned())
        .collect();
    assert_eq!(names, ["local", "local-2", "local-3", "local-4"]);
    // Our mirrors get other URLs, so that both results can be compared.
    for (name, (_, ours)) in names.iter().zip(&places) {
        sandbox.mirror_push_ok(&source, &["set", name, "--url", ours.to_str().unwrap()]);
    }
    let work = sandbox.work(&source);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.push(&["main:dev", "main:refs/tags/v1", "main:refs/notes/n"]);
    work.commit("two");
    work.push(&["main", "+main:dev"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    for (line, (by_hook, ours)) in lines.iter().zip(&places) {
        // A drain that the hook started may still run.
        wait_for(line, || sandbox.refs(ours) == sandbox.refs(by_hook));
        assert!(!sandbox.refs(ours).is_empty(), "{line}");
    }
}

/// A remote that mirrors nothing by itself is not pushed to once the line of the hook is deleted.
#[test]
fn a_hook_that_pushes_to_a_plain_remote_becomes_a_mirror() {
    let estate = Estate::new(NOBODY);
    let (source, backup) = (estate.repository("a.git"), estate.mirror("backup.git"));
    estate.sandbox.git(&source, &["config", "remote.backup.url", backup.to_str().unwrap()]);
    let hook = source.join("hooks/post-receive");
    script(&hook, "#!/bin/sh\ngit push --mirror backup\n");
    // A question has no place in JSON.
    let said = estate.run(&["import", "git", "--json"]);
    assert!(said.status == 129 && said.err.contains("use it with --dry-run or --yes"), "{said:?}");
    let said = estate.run(&["import", "git", "--yes"]);
    assert!(said.status == 0 && said.out.contains("1 imported, 0 already here, 0 need you"), "{said:?}");
    assert!(config(&source).contains(&format!("url = \"{}\"", backup.display())), "{}", config(&source));
}

/// In a mount namespace, a directory of the test replaces /etc/cron.d.
#[test]
fn lines_of_cron_that_push_are_named() {
    if !is_root("a mount namespace with a directory of cron of its own") {
        return;
    }
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    estate.repository("a.git");
    let (cron, tool) = (sandbox.path("cron.d"), sandbox.path("mirror-all"));
    std::fs::create_dir(&cron).unwrap();
    // Opening a pipe waits for a writer. So the import must not open it.
    let pipe = sandbox.path("pipe");
    assert!(sandbox.command("mkfifo").arg(&pipe).status().unwrap().success());
    let lines = format!(
        "# git push never\n*/5 * * * * git cd /srv/git/a.git && git push --mirror ssh://bot:c4nary@127.0.0.1/a.git\n@daily git {}\n@hourly git {}\n",
        tool.display(),
        pipe.display()
    );
    std::fs::write(cron.join("mirror"), lines).unwrap();
    script(&tool, "#!/bin/sh\nfor x in *.git; do\n  cd $x; git push --mirror git@localhost:mirror/${x}; done\n");
    let import = |more: &str| {
        let run = format!("mkdir -p /etc/cron.d; mount --bind '{}' /etc/cron.d && exec \"$@\" {more}", cron.display());
        let mut command = sandbox.command("unshare");
        command.args(["--mount", "sh", "-c", &run, "sh", env!("CARGO_BIN_EXE_git-mirror-push"), "--config"]);
        Completed::of(&command.arg(&estate.file).args(["import", "--dry-run"]).output().unwrap())
    };
    let said = import("--cron");
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        said.out.contains("it pushes to ssh://*****@127.0.0.1/a.git by itself")
            && said.out.contains("/etc/cron.d/mirror, line 2"),
        "{said:?}"
    );
    assert!(
        said.out.contains(&format!("{}, line 3", tool.display())) && said.out.contains("names no target here"),
        "{said:?}"
    );
    assert!(!format!("{said:?}").contains("c4nary"), "{said:?}");
    assert!(!import("").out.contains("cron"));
}

#[test]
fn missing_repositories_of_pull_mirrors_are_made_if_asked() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let up = estate.repository("up.git");
    let list = sandbox.path("list");
    let line = |name: &str, direction: &str| {
        format!(
            "{{\"repository\":\"{name}\",\"name\":\"up\",\"url\":\"{}\",\"direction\":\"{direction}\"}}\n",
            up.display()
        )
    };
    std::fs::write(&list, line("new/one", "pull") + &line("../evil", "pull") + &line("pushed", "push")).unwrap();
    let run = |more: &[&str]| estate.run(&[&["import", "list", list.to_str().unwrap()], more].concat());
    assert!(run(&["--yes"]).out.contains("0 imported, 0 already here, 3 need you"));
    assert!(run(&["--init", "--dry-run"]).out.contains("3 need you") && !sandbox.path("git/new").exists());
    let said = run(&["--init"]);
    assert!(said.status == 129 && said.err.contains("nothing was made or imported"), "{said:?}");
    assert!(!sandbox.path("git/new").exists(), "nobody agreed to it");
    let said = run(&["--init", "--yes"]);
    assert!(said.out.contains("1 imported, 0 already here, 2 need you"), "{said:?}");
    assert!(!sandbox.path("git/pushed.git").exists() && !sandbox.path("evil.git").exists());
    let made = sandbox.path("git/new/one.git");
    sandbox.mirror_push(&made, &["pull"]);
    wait_for("the first pull", || sandbox.refs(&made) == sandbox.refs(&up));
}

/// `--check` looks at each new mirror before its first sync, sends nothing, and says which are ready and what is wrong with the others.
#[test]
fn check_says_which_of_the_imported_mirrors_are_ready() {
    let estate = Estate::new(NOBODY);
    let sandbox = &estate.sandbox;
    let mirrors = sandbox.path("mirrors").display().to_string();
    let [ready, stranger] = ["ready", "stranger"].map(|name| estate.mirror(&format!("{name}.git")));
    let theirs = sandbox.git(&stranger, &["commit-tree", "-m", "theirs", &sandbox.git(&stranger, &["mktree"])]);
    sandbox.git(&stranger, &["update-ref", "refs/heads/main", &theirs]);
    let repository = estate.repository("r.git");
    // This mirror has another commit on main, which this repository has too. The old tool did not
    // force its pushes.
    let diverged = estate.mirror("diverged.git");
    let other = sandbox.git(&repository, &["commit-tree", "-m", "other", "main^{tree}"]);
    sandbox.git(&repository, &["update-ref", "refs/heads/other", &other]);
    sandbox.git(&repository, &["push", "-q", diverged.to_str().unwrap(), "other:main"]);
    sandbox.git(&repository, &["config", "remote.diverged.url", diverged.to_str().unwrap()]);
    sandbox.git(&repository, &["config", "remote.diverged.push", "refs/heads/*:refs/heads/*"]);
    let closed = crate::scene::servers::free_port();
    for (name, url) in [
        ("ready", format!("{mirrors}/ready.git")),
        ("stranger", format!("{mirrors}/stranger.git")),
        ("missing", format!("{mirrors}/missing.git")),
        ("missing-too", format!("{mirrors}/missing-too.git")),
        ("closed", format!("git://127.0.0.1:{closed}/r.git")),
    ] {
        sandbox.git(&repository, &["config", &format!("remote.{name}.url"), &url]);
        sandbox.git(&repository, &["config", &format!("remote.{name}.mirror"), "true"]);
    }
    let said = estate.run(&["import", "--check", "--yes"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("6 imported (1 ready, 5 not ready), 0 already here, 0 need you"), "{said:?}");
    for (wrong, why) in [
        ("stranger", "whose object this repository does not have, so nothing was sent"),
        ("missing", "the mirror's repository was not found"),
        ("diverged", "1 ref is not up to date on the mirror: refs/heads/main (divergent)"),
        ("closed", "cannot connect to '127.0.0.1'"),
    ] {
        let at = said.out.find(&format!("  r: remote.{wrong} of")).unwrap_or_else(|| panic!("{wrong}: {said:?}"));
        let line = said.out[..at].lines().last().unwrap();
        assert!(line.starts_with("not ready: ") && line.contains(why), "{said:?}");
    }
    assert_eq!(said.out.matches("not ready: ").count(), 4, "one cause is one line: {said:?}");
    assert_eq!(sandbox.refs(&ready), [""; 0], "nothing was sent");
    assert!(!sandbox.path("mirrors/missing.git").exists());
    // `--check` covers the mirrors of a template too, and `--json` has its results.
    let other = Estate::new(NOBODY);
    let mirrors = other.sandbox.path("mirrors").display().to_string();
    for name in ["a", "b"] {
        let repository = other.repository(&format!("{name}.git"));
        other.sandbox.git(&repository, &["config", "remote.backup.url", &format!("{mirrors}/{name}.git")]);
        other.sandbox.git(&repository, &["config", "remote.backup.mirror", "true"]);
    }
    other.mirror("a.git");
    let said = other.run(&["import", "--template", "--check", "--yes", "--json"]);
    let said = (said.status, said.json());
    assert_eq!((said.0, said.1[0]["check"].as_str()), (1, Some("ready")), "{said:?}");
    assert!(said.1[1]["check"].as_str().is_some_and(|why| why.contains("b.git")), "{said:?}");
    let said = other.run(&["import", "--check", "--dry-run"]);
    assert!(said.status == 129 && said.err.contains("--dry-run"), "{said:?}");
}

/// The number of processes does not grow with the number of repositories.
#[test]
fn many_repositories_take_few_processes() {
    if is_variant("reftable") {
        return skip("git itself reads HEAD of each repository with reftable");
    }
    let estate = Estate::new(NOBODY);
    for number in 0..40 {
        let here = estate.repository(&format!("r{number}.git"));
        let url = format!("https://127.0.0.1:1/r{number}.git");
        let text = format!("[remote \"gh\"]\n\turl = {url}\n\tmirror = true\n");
        let config = std::fs::read_to_string(here.join("config")).unwrap() + &text;
        std::fs::write(here.join("config"), config).unwrap();
    }
    let log = estate.sandbox.path("strace");
    let mut strace = estate.sandbox.command("strace");
    let calls = "trace=execve,write,renameat,fsync,fdatasync,syncfs";
    strace.args(["-f", "-qq", "-e", calls, "-o", log.to_str().unwrap(), "--"]);
    strace.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("--config").arg(&estate.file).args(["import", "--yes"]);
    let said = Completed::of(&strace.output().unwrap());
    assert!(said.status == 0 && said.out.contains("40 imported"), "{said:?}");
    let started = std::fs::read_to_string(&log).unwrap();
    let started = started.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0")).count();
    assert!(started <= 5, "{started}");
    // One sync is for several repositories. Alone, each would take six or more.
    let calls = std::fs::read_to_string(&log).unwrap();
    let syncs = |name: &str| calls.lines().filter(|line| line.contains(&format!(" {name}("))).count();
    assert!(syncs("fsync") + syncs("fdatasync") <= 1 && (1..=80).contains(&syncs("syncfs")), "{calls}");
    assert_eq!(renames_after_a_sync(&calls), 40, "each configuration was on the disk before it got its name");
    assert!(said.out.contains("and 30 more; -v shows them all"), "{said:?}");
}

/// The number of configuration files that were renamed to their final names. Before each rename, a
/// syncfs(2) must have begun after the last write of the same thread, and must have ended.
/// Otherwise the test fails. strace prints a call on one line, unless another event comes in
/// between.
fn renames_after_a_sync(trace: &str) -> usize {
    let (mut written, mut begun) = (BTreeMap::new(), BTreeMap::new());
    let (mut synced, mut renamed) = (Vec::new(), 0);
    for (at, line) in trace.lines().enumerate() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let is_end = !call.contains("<unfinished ...>");
        match call {
            _ if call.starts_with("write(") || call.starts_with("<... write") => drop(written.insert(thread, at)),
            _ if call.starts_with("syncfs(") && !is_end => drop(begun.insert(thread, at)),
            _ if call.starts_with("syncfs(") => synced.push((at, at)),
            _ if call.starts_with("<... syncfs") => synced.push((begun.remove(thread).unwrap(), at)),
            _ if call.starts_with("renameat(") && call.contains("\"config.toml\"") => {
                let last = written[thread];
                assert!(synced.iter().any(|(begin, end)| last < *begin && *end < at), "line {at}: {line}\n{trace}");
                renamed += 1;
            }
            _ => {}
        }
    }
    renamed
}
