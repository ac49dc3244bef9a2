//! What becomes of the keys of Gerrit's replication plugin.

use super::*;

fn site(main: &str) -> GerritSite {
    GerritSite { main: main.into(), ..GerritSite::default() }
}

fn read(main: &str, project: &str, is_exact: bool) -> Vec<Found> {
    let wish = Wish { direction: None, is_exact };
    let found = read_gerrit(&site(main), &[project.to_owned()], wish).expect("readable");
    found.into_iter().flat_map(|(_, found)| found).collect()
}

fn mirror(main: &str, project: &str) -> Proposed {
    match read(main, project, false).pop() {
        Some(Found::Mirror(mirror)) => mirror,
        other => panic!("{other:?}"),
    }
}

/// The keys as `KEY=VALUE`, sorted.
fn keys(mirror: &Proposed) -> String {
    let text = |(key, change): &(&str, Change)| match change {
        Change::Text(text) | Change::Toml(text) => format!("{key}={text}"),
        Change::Flag(flag) => format!("{key}={flag}"),
        Change::List(list) => format!("{key}={}", list.join(",")),
        other => panic!("{other:?}"),
    };
    let mut all: Vec<String> = mirror.keys.iter().map(text).collect();
    all.sort();
    all.join(" ")
}

#[test]
fn each_key_becomes_its_counterpart() {
    const URL: &str = "[remote \"gh\"]\nurl = git@github.com:acme/${name}.git\n";
    for (lines, expected) in [
        ("", "divergent_refs=keep prune=never"),
        ("push = +refs/heads/*:refs/heads/*\npush = +refs/tags/*:refs/tags/*\n", "prune=never"),
        ("push = refs/heads/*:refs/heads/*\npush = refs/tags/*:refs/tags/*\n", "divergent_refs=keep prune=never"),
        ("push = +refs/heads/*:refs/heads/*\nmirror = true\n", "tags=none"),
        ("push = +refs/heads/*:refs/heads/*\npush = +refs/tags/*:refs/tags/*\nmirror\n", ""),
        (
            "timeout = 30\nreplicationRetry = 5\npushBatchSize = 100\n",
            "divergent_refs=keep max_refs_per_push=100 prune=never retry_delay=5m stall_timeout=30s",
        ),
        ("timeout = 0\n", "divergent_refs=keep prune=never"),
        ("authGroup = Public Mirror Group\n", "divergent_refs=keep enabled=false prune=never"),
        (
            "excludedRefsPattern = ^refs/heads/private/.*\n",
            "divergent_refs=keep prune=never refspecs=^refs/heads/private/*",
        ),
        ("excludedRefsPattern = refs/meta/*\n", "divergent_refs=keep prune=never refspecs=^refs/meta/*"),
        (
            "adminUrl = ssh://admin@host/srv/${name}.git\ncreateMissingRepositories = false\n",
            "divergent_refs=keep prune=never",
        ),
        (
            "adminUrl = ssh://admin@host/srv/${name}.git\n",
            "create=ssh create_url=ssh://admin@host/srv/a/b.git divergent_refs=keep prune=never",
        ),
    ] {
        assert_eq!(keys(&mirror(&format!("{URL}{lines}"), "a/b")), expected, "{lines}");
    }
    let forced = format!("[gerrit]\ndefaultForceUpdate = true\n{URL}mirror = true\n");
    assert_eq!(keys(&mirror(&forced, "a/b")), "");
    let Some(Found::Mirror(exact)) = read(&forced, "a/b", true).pop() else { panic!("a mirror") };
    assert_eq!(keys(&exact), "prune=mirror refspecs=refs/changes/*,refs/meta/*,refs/notes/*");
    let Some(Found::Mirror(exact)) = read(&format!("{forced}replicatePermissions = false\n"), "a/b", true).pop() else {
        panic!("a mirror")
    };
    assert_eq!(keys(&exact), "prune=mirror refspecs=refs/changes/*,refs/meta/*,refs/notes/*,^refs/meta/config");
}

#[test]
fn names_urls_and_projects() {
    for (style, url) in [
        ("", "ssh://h/a/b.git"),
        ("remoteNameStyle = dash\n", "ssh://h/a-b.git"),
        ("remoteNameStyle = underscore\n", "ssh://h/a_b.git"),
        ("remoteNameStyle = basenameOnly\n", "ssh://h/b.git"),
    ] {
        assert_eq!(mirror(&format!("[remote \"x\"]\nurl = ssh://h/${{name}}.git\n{style}"), "a/b").url, url);
    }
    let two = read("[remote \"Two\"]\r\nurl = ssh://one/${name}\r\nURL = ssh://two/${name}\r\n", "p", false);
    let names: Vec<&str> =
        two.iter().map(|found| if let Found::Mirror(mirror) = found { &*mirror.name } else { "?" }).collect();
    assert_eq!(names, ["Two", "Two-2"]);
    // Keys sort between the two spellings of one key.
    let two = "[remote \"Two\"]\nURL = ssh://one/${name}\npush = +refs/heads/*:refs/heads/*\nurl = ssh://two/${name}\n";
    assert_eq!(read(two, "p", false).len(), 2);
    for (pattern, project, is_chosen) in [
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("a/*", "a/b/c", true),
        ("^a/.*", "a/b", true),
        ("^a/.", "a/bc", false),
        ("^(?:(?!secret).)*$", "a/b", true),
        ("^(?:(?!secret).)*$", "a/secret/b", false),
    ] {
        let text = format!("[remote \"x\"]\nurl = ssh://h/${{name}}\nprojects = {pattern}\n");
        assert_eq!(!read(&text, project, false).is_empty(), is_chosen, "{pattern} {project}");
        let text = format!("[remote \"x\"]\nurl = ssh://h/${{name}}\nexcludeProjects = {pattern}\n");
        assert_eq!(read(&text, project, false).is_empty(), is_chosen, "not {pattern} {project}");
    }
}

#[test]
fn what_has_no_counterpart_needs_a_person() {
    for (lines, why) in [
        ("url = ssh://h/${name}\npush = refs/changes/*:refs/heads/review/*\n", "renames refs"),
        ("url = ssh://h/all.git\n", "no ${name}"),
        ("url = ssh://h/${name}\nprojects = ^a(?=b)\n", "has no counterpart"),
        ("url = ssh://h/${name}\nexcludedRefsPattern = ^refs/(heads|tags)/x\n", "has no counterpart"),
        ("push = +refs/heads/*:refs/heads/*\n", "it has no URL"),
    ] {
        match read(&format!("[remote \"x\"]\n{lines}"), "a/b", false).pop() {
            Some(Found::Person { why: said, .. }) => assert!(said.contains(why), "{lines}: {said}"),
            other => panic!("{lines}: {other:?}"),
        }
    }
    let alone = mirror("[remote \"x\"]\nurl = ssh://h/all.git\nprojects = a/b\n", "a/b");
    assert_eq!(alone.url, "ssh://h/all.git");
    for text in ["", "[remote]\nurl = a\n[remote \"x\"]\nurl = b\n"] {
        let site = GerritSite { parts: vec![("two".into(), text.into())], ..GerritSite::default() };
        assert!(read_gerrit(&site, &[], Wish::default()).expect_err(text).contains("not exactly one [remote]"));
    }
    let error = read_gerrit(&site("[remote \"x\nhunter2"), &[], Wish::default()).expect_err("damaged");
    assert!(error.contains("replication.config") && !error.contains("hunter2"), "{error}");
}

#[test]
fn files_for_each_remote_replace_those_of_the_main_file_and_passwords_are_joined() {
    let site = GerritSite {
        main: "[remote \"old\"]\nurl = ssh://old/${name}\n".into(),
        parts: vec![("new".into(), "[remote]\nurl = https://h/${name}.git\n".into())],
        secure: "[remote \"new\"]\nusername = bot\npassword = p@ss/w\n".into(),
    };
    let found = read_gerrit(&site, &["p".to_owned()], Wish::default()).expect("readable");
    let [(_, found)] = &found[..] else { panic!("{found:?}") };
    let [Found::Mirror(mirror)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*mirror.name, &*mirror.url), ("new", "https://bot:p%40ss%2Fw@h/p.git"));
}
