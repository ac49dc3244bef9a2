//! `import` and `export`: mirrors of other tools become mirrors of ours. The configuration of those
//! tools is not changed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, script};

const NOBODY: &str = "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n";

fn remote(estate: &Estate, repository: &Path, name: &str, keys: &[(&str, &str)]) {
    for (key, value) in keys {
        estate.sandbox.git(repository, &["config", "--add", &format!("remote.{name}.{key}"), value]);
    }
}

/// Every file below a directory, with its bytes and its mode.
fn files(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                let mode = entry.metadata().unwrap().permissions().mode();
                found.insert(entry.path(), (std::fs::read(entry.path()).unwrap(), mode));
            }
        }
    }
    found
}

/// The entries that `--json` printed, each as `REPOSITORY NAME ACTION`.
fn actions(said: &Completed) -> Vec<String> {
    let all = said.json();
    let text = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap_or("-").to_owned();
    let lines = all.as_array().unwrap().iter();
    lines.map(|one| format!("{} {} {}", text(one, "repository"), text(one, "name"), text(one, "action"))).collect()
}

/// From the next push on, an imported mirror gets the same refs that `git push` would send.
#[test]
fn imported_remotes_get_what_git_sent() {
    let estate = Estate::new(NOBODY);
    let (source, sandbox) = (estate.repository("a.git"), &estate.sandbox);
    let work = sandbox.work(&source);
    work.git(&["fetch", "-q", "origin"]);
    work.git(&["reset", "-q", "--hard", "origin/main"]);
    work.push(&["main:dev", "main:release/1", "main:refs/tags/v1", "main:refs/notes/n"]);
    let mirrors = [
        ("whole", vec![("mirror", "true")]),
        ("branches", vec![("push", "+refs/heads/*:refs/heads/*"), ("push", "+refs/tags/*:refs/tags/*")]),
        ("every", vec![("push", "+refs/*:refs/*")]),
        ("less", vec![("push", "+refs/heads/*:refs/heads/*"), ("push", "^refs/heads/release/*")]),
        ("chosen", vec![("push", "refs/heads/release/*:refs/heads/release/*"), ("push", "main")]),
        (
            "gitea",
            vec![("mirror", "true"), ("push", "+refs/heads/*:refs/heads/*"), ("push", "+refs/tags/*:refs/tags/*")],
        ),
    ];
    for (name, keys) in &mirrors {
        let url = estate.mirror(&format!("{name}.git")).display().to_string();
        let oracle = estate.mirror(&format!("{name}-by-git.git")).display().to_string();
        for (name, url) in [(name.to_string(), url), (format!("{name}-by-git"), oracle)] {
            remote(&estate, &source, &name, &[("url", &url)]);
            remote(&estate, &source, &name, keys);
        }
    }
    let said = estate.run(&["import", "git", "--exact", "--yes", "--match", "a"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("12 imported, 0 already here, 0 need you"), "{said:?}");
    // The hook does not know the server's file of this test.
    estate.run(&["--git-dir", source.to_str().unwrap(), "set", "wake=none"]);
    for (name, _) in &mirrors {
        estate.run(&["--git-dir", source.to_str().unwrap(), "disable", &format!("{name}-by-git")]);
    }
    for round in ["one", "two"] {
        work.commit(round);
        work.push(&["main", "main:release/2", &format!("main:refs/tags/{round}")]);
        let said = estate.run(&["--git-dir", source.to_str().unwrap(), "drain"]);
        assert_eq!(said.status, 0, "{said:?}");
        for (name, _) in &mirrors {
            sandbox.git(&source, &["push", "-q", &format!("{name}-by-git")]);
            let all = |mirror: String| {
                let there = sandbox.path("mirrors").join(mirror);
                sandbox.git(&there, &["for-each-ref", "--format=%(refname) %(objectname)"])
            };
            assert_eq!(all(format!("{name}.git")), all(format!("{name}-by-git.git")), "{name} {round}");
        }
    }
}

#[test]
fn a_second_import_writes_nothing_and_the_source_stays() {
    let estate = Estate::new(NOBODY);
    let (one, two) = (estate.repository("acme/one.git"), estate.repository("two.git"));
    remote(&estate, &one, "gh", &[("url", "http://bot:canary%2Fword@127.0.0.1:1/one.git"), ("mirror", "true")]);
    remote(&estate, &one, "ren", &[("url", "/srv/x.git"), ("push", "main:master")]);
    remote(
        &estate,
        &two,
        "origin",
        &[("url", "ssh://git@127.0.0.1:1/up.git"), ("fetch", "+refs/*:refs/*"), ("mirror", "true")],
    );
    let root = estate.sandbox.path("git");
    let before = files(&root);
    let dry = estate.run(&["import", "--dry-run", "--json"]);
    let expected = ["acme/one gh add", "acme/one - person", "two origin add"];
    assert_eq!((dry.status, actions(&dry)), (1, expected.map(str::to_owned).to_vec()), "{dry:?}");
    let refused = estate.run(&["import"]);
    assert!(refused.status == 129 && refused.err.contains("--yes"), "{refused:?}");
    assert_eq!(files(&root), before);
    let said = estate.run(&["import", "--yes"]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("2 imported, 0 already here, 1 needs you"), "{said:?}");
    assert!(said.out.contains("git config --remove-section remote.NAME"), "{said:?}");
    let after = files(&root);
    assert!(before.iter().all(|(path, file)| after.get(path) == Some(file)), "the source is as it was");
    let again = estate.run(&["import", "--yes"]);
    assert!(again.out.contains("0 imported, 2 already here, 1 needs you"), "{again:?}");
    assert_eq!(files(&root), after);
    let is_canary = |bytes: &[u8]| {
        [&b"canary/word"[..], b"canary%2Fword"]
            .iter()
            .any(|canary| bytes.windows(canary.len()).any(|part| part == *canary))
    };
    for said in [dry, said, again, estate.run(&["export", "--all"])] {
        assert!(!is_canary(said.out.as_bytes()) && !is_canary(said.err.as_bytes()), "{said:?}");
    }
    let holding: Vec<_> = after.iter().filter(|(_, (bytes, _))| is_canary(bytes)).collect();
    let [(git, _), (secret, (_, mode))] = &holding[..] else { panic!("{holding:?}") };
    assert!(git.ends_with("one.git/config") && secret.ends_with("remotes/gh/secret"), "{holding:?}");
    assert_eq!(mode & 0o777, 0o600);
    let show = estate.run(&["--git-dir", two.to_str().unwrap(), "show", "origin", "--json"]).json();
    let show = show.get(0).unwrap_or(&show);
    assert_eq!((&show["direction"], &show["name"]), (&"pull".into(), &"origin".into()));
}

#[test]
fn an_export_is_a_list_for_another_server() {
    let estate = Estate::new(NOBODY);
    let (one, two) = (estate.repository("acme/one.git"), estate.repository("two.git"));
    let at = |repository: &Path, words: &[&str]| {
        let said = estate.run(&[&["--git-dir", repository.to_str().unwrap()], words].concat());
        assert_eq!(said.status, 0, "{said:?}");
    };
    at(&one, &["add", "gh", "https://bot@127.0.0.1:1/one.git", "--prune", "never", "tags=[\"v*\"]", "max_deletes=3"]);
    at(
        &one,
        &["add", "up", "ssh://git@127.0.0.1:1/up.git", "--direction", "pull", "hook_environment={ GL_USER = \"m\" }"],
    );
    at(&two, &["add", "off", "/srv/off.git", "--disabled"]);
    let exported = estate.run(&["export", "--all"]);
    assert_eq!((exported.status, exported.out.lines().count()), (0, 3), "{exported:?}");
    let list = estate.sandbox.path("list");
    std::fs::write(&list, &exported.out).unwrap();
    let other = Estate::new(NOBODY);
    other.repository("acme/one.git");
    let words = ["import", "list", list.to_str().unwrap(), "--yes", "--json"];
    let said = other.run(&words);
    assert_eq!(actions(&said), ["two - person", "acme/one gh added", "acme/one up added"], "{said:?}");
    other.repository("two.git");
    assert_eq!(actions(&other.run(&words)), ["acme/one gh present", "acme/one up present", "two off added"]);
    assert_eq!(other.run(&["export", "--all"]).out, exported.out);
    let only = other.run(&["import", "list", list.to_str().unwrap(), "--match", "acme/*", "--dry-run", "--json"]);
    assert_eq!(actions(&only).len(), 2);
}

/// A list with one wrong line is refused. A mirror that cannot be added does not stop the others.
#[test]
fn a_list_is_read_as_a_whole_and_written_one_by_one() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    let import = |text: &str| {
        let list = estate.sandbox.path("list");
        std::fs::write(&list, text).unwrap();
        estate.run(&["import", "list", list.to_str().unwrap(), "--yes"])
    };
    let good = "{\"repository\":\"a\",\"name\":\"x\",\"url\":\"http://127.0.0.1:1/a.git\"}\n";
    let said = import(&format!("{good}{{\"repository\":\"a\"}}\n"));
    assert!(said.status == 129 && said.err.contains("line 2: 'url' is missing"), "{said:?}");
    assert!(!here.join("mirror-push/config.toml").exists());
    let bad = "{\"repository\":\"a\",\"name\":\"y\",\"url\":\"/y.git\",\"prune\":\"sometimes\"}\n";
    let outside = "{\"repository\":\"../git/a\",\"url\":\"/z.git\"}\n";
    let own = format!("{{\"repository\":\"{}\",\"name\":\"self\",\"url\":\"{0}\"}}\n", here.display());
    let same_name = "{\"repository\":\"a.git\",\"name\":\"x\",\"url\":\"http://127.0.0.1:1/b.git\"}\n";
    let said = import(&[bad, good, outside, &own, same_name, good].concat());
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("2 imported, 1 already here, 3 need you"), "{said:?}");
    for why in ["sometimes", "no repository here", "this repository itself"] {
        assert!(said.out.contains(why), "{why}: {said:?}");
    }
    let names = estate.run(&["--git-dir", here.to_str().unwrap(), "list"]).out;
    assert!(names.contains("x-2"), "{names}");
}

#[test]
fn a_login_is_given_once_for_a_host() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    let file = estate.sandbox.path("token").display().to_string();
    remote(&estate, &here, "gh", &[("url", "https://127.0.0.1:1/a.git"), ("mirror", "true")]);
    let said = estate.run(&["import", "--yes", "--disabled", "--credential", &format!("127.0.0.1=bot:{file}")]);
    assert_eq!(said.status, 0, "{said:?}");
    let config = std::fs::read_to_string(here.join("mirror-push/config.toml")).unwrap();
    let is_there = |line: String| config.lines().any(|other| other == line);
    assert!(is_there("username = \"bot\"".into()) && is_there(format!("password_file = \"{file}\"")), "{config}");
    assert!(is_there("enabled = false".into()), "{config}");
    for wrong in ["x", "h=u", "h=u:relative", "=u:/f", "h=:/f"] {
        let said = estate.run(&["import", "--yes", "--credential", wrong]);
        assert!(said.status == 129 && said.err.contains("HOST=USER:FILE"), "{said:?}");
    }
}

/// Forms that git accepts: includes, `insteadOf`, upper case, CRLF, a section in two parts.
#[test]
fn git_decides_what_its_configuration_says() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    std::fs::write(here.join("more"), "[Remote \"inc\"]\n\tURL = short:inc.git\n\tPush = main\n").unwrap();
    let text = "[include]\n\tpath = more\n[url \"/srv/long/\"]\n\tinsteadOf = short:\n[url \"/srv/pushed/\"]\n\tpushInsteadOf = short:push/\n\
                [remote \"bare\"]\r\n\turl = short:a.git\r\n\tmirror\r\n[REMOTE \"twice\"]\n\turl = /srv/t.git\n\
                [remote \"twice\"]\n\tmirror = yes\n[remote \"pushed\"]\n\turl = short:push/p.git\n\tmirror = 1\n\
                [remote \"off\"]\n\turl = /srv/off.git\n\tmirror = false\n[remote \"odd\"]\n\turl = ext::sh -c x\n\tmirror = true\n";
    let config = std::fs::read_to_string(here.join("config")).unwrap() + text;
    std::fs::write(here.join("config"), config).unwrap();
    let global = std::fs::read_to_string(estate.sandbox.path("gitconfig")).unwrap();
    let users = format!("{global}[remote \"users\"]\n\turl = /srv/users.git\n\tmirror = true\n");
    std::fs::write(estate.sandbox.path("gitconfig"), users).unwrap();
    let said = estate.run(&["import", "--dry-run", "--json"]);
    let urls: Vec<String> =
        said.json().as_array().unwrap().iter().map(|one| format!("{} {}", one["name"], one["url"])).collect();
    let expected = [
        "\"bare\" \"/srv/long/a.git\"",
        "\"inc\" \"/srv/long/inc.git\"",
        "null null",
        "\"pushed\" \"/srv/pushed/p.git\"",
        "\"twice\" \"/srv/t.git\"",
    ];
    assert_eq!(urls, expected, "{said:?}");
    for name in ["bare", "pushed", "inc"] {
        let git = estate.sandbox.git(&here, &["remote", "get-url", "--push", name]);
        assert!(urls.contains(&format!("\"{name}\" \"{git}\"")), "{git}");
    }
}

#[test]
fn hooks_that_push_are_named_by_import_and_doctor() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    let mirror = estate.mirror("m.git").display().to_string();
    remote(&estate, &here, "gh", &[("url", &mirror), ("mirror", "true")]);
    let hook = here.join("hooks/post-receive");
    script(&hook, "#!/bin/sh\n# git push gh\ngit push --mirror gh\ngit push -q ssh://u:canary@127.0.0.1:1/y.git\n");
    let before = std::fs::read(&hook).unwrap();
    let doctor = || {
        let said = estate.run(&["--git-dir", here.to_str().unwrap(), "doctor", "--json"]);
        let all = said.json();
        let texts = all.as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>().join("\n")
    };
    assert!(
        doctor().contains("remote 'gh' of git's configuration is a mirror, but git-mirror-push has no mirror for it"),
        "{}",
        doctor()
    );
    let status = || estate.run(&["--git-dir", here.to_str().unwrap(), "status"]).err;
    assert!(status().contains("remote 'gh'") && status().contains("git mirror-push import"), "{}", status());
    let said = estate.run(&["import", "--yes"]);
    assert_eq!((said.status, status()), (1, String::new()), "{said:?}");
    for text in ["line 3", "line 4", "both push until you delete the line", "1 imported, 0 already here, 2 need you"] {
        assert!(said.out.contains(text), "{text}: {said:?}");
    }
    assert!(!said.out.contains("canary") && !said.out.contains("line 2"), "{said:?}");
    assert_eq!(std::fs::read(here.join("hooks/post-receive.previous")).unwrap(), before);
    let text = doctor();
    assert!(text.contains("also pushes to mirror 'gh'") && !text.contains("no mirror of ours"), "{text}");
    script(&here.join("hooks/post-receive.previous"), "#!/bin/sh\necho done\n");
    assert!(!doctor().contains("also pushes"), "{}", doctor());
}

/// If the hook cannot be installed, a person is needed. The next import installs the missing hook.
#[test]
fn a_mirror_without_the_hook_gets_it_with_the_next_import() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    remote(&estate, &here, "gh", &[("url", "https://127.0.0.1:1/a.git"), ("mirror", "true")]);
    let hooks = here.join("hooks");
    std::fs::rename(&hooks, here.join("aside")).unwrap();
    std::fs::write(&hooks, "").unwrap();
    let said = estate.run(&["import", "--yes"]);
    assert!(said.status == 1 && said.out.contains("the hook cannot be installed"), "{said:?}");
    std::fs::remove_file(&hooks).unwrap();
    std::fs::rename(here.join("aside"), &hooks).unwrap();
    let said = estate.run(&["import", "--yes"]);
    assert!(said.status == 0 && said.out.contains("0 imported, 1 already here, 0 need you"), "{said:?}");
    assert!(here.join("hooks/post-receive").exists());
}

/// A wrong path is an error. It does not import all repositories.
#[test]
fn only_who_names_no_repository_imports_all() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("a.git");
    remote(&estate, &here, "gh", &[("url", "https://127.0.0.1:1/a.git"), ("mirror", "true")]);
    for words in [["--git-dir", "/nonexistent/x.git"], ["-C", "/nonexistent"]] {
        let said = estate.run(&[&words[..], &["import", "--yes"]].concat());
        assert!(said.status == 128 && !here.join("mirror-push").exists(), "{said:?}");
    }
}

#[test]
fn relative_paths_are_read_as_git_reads_them() {
    let estate = Estate::new(NOBODY);
    let here = estate.repository("deep/a.git");
    let mirror = estate.mirror("m.git");
    remote(&estate, &here, "m", &[("url", "../../../mirrors/m.git"), ("mirror", "true")]);
    estate.sandbox.git(&here, &["push", "-q", "m"]);
    let said = estate.run(&["import", "--yes"]);
    assert!(said.status == 0 && said.out.contains(&format!("m (push) {}", mirror.display())), "{said:?}");
    let again = estate.run(&["-C", "/", "import", "--root", estate.sandbox.path("git").to_str().unwrap(), "--yes"]);
    assert!(again.out.contains("0 imported, 1 already here"), "{again:?}");
    assert_eq!(estate.run(&["import", "--yes", "-q"]).out, "");
    let status = estate.run(&["--git-dir", here.to_str().unwrap(), "status"]);
    assert!(!status.err.contains("no mirror of ours"), "{status:?}");
}

#[test]
fn hostile_text_is_cleaned_and_tokens_are_no_user_names() {
    let estate = Estate::new(NOBODY);
    estate.repository("a.git");
    let list = estate.sandbox.path("list");
    let token = format!("ghp_{}", "c4n4ry0123".repeat(4).split_at(36).0);
    let lines = format!(
        "\u{feff}{{\"repository\":\"nope\\u001b]0;x\\u0007\\u202e\",\"url\":\"/q\",\"name\":\"q\\nFAKE: 1 imported\"}}\n\
         {{\"repository\":\"a\",\"url\":\"https://127.0.0.1:1/a\",\"username\":\"{token}\"}}\n\
         {{\"repository\":\"a\",\"name\":\"x\",\"url\":\"https://127.0.0.1:1/b\"}}\n\
         {{\"repository\":\"a\",\"name\":\"y\",\"url\":\"https://127.0.0.1:1/b\",\"prune\":\"never\"}}\n"
    );
    std::fs::write(&list, lines).unwrap();
    let said = estate.run(&["import", "list", list.to_str().unwrap(), "--yes"]);
    assert!(said.status == 1 && said.out.contains("1 imported, 0 already here, 3 need you"), "{said:?}");
    assert!(
        said.out.contains("looks like a token") && said.out.contains("with this URL and different keys"),
        "{said:?}"
    );
    // A token that somebody wrote into the file by hand is not exported either.
    let file = estate.sandbox.path("git/a.git/mirror-push/config.toml");
    let text = std::fs::read_to_string(&file).unwrap() + &format!("username = \"{token}\"\n");
    std::fs::write(&file, text).unwrap();
    let exported = estate.run(&["export", "--all"]);
    assert!(exported.status == 0 && exported.err.contains("of 1 mirror"), "{exported:?}");
    let all = said.out + &said.err + &exported.out;
    assert!(
        !all.contains(['\u{1b}', '\u{7}', '\u{202e}']) && !all.contains("\nFAKE") && !all.contains(&token),
        "{all}"
    );
}
