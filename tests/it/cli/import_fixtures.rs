//! Mirrors as other tools have them, and what `import` makes of each. For each tool the test prints
//! how many mirrors need no person.

use std::path::Path;

use git_mirror_push::config::Change;
use git_mirror_push::import::{
    Found, GerritSite, Wish, gitea_pull, gitea_push, gitlab_pull, gitlab_push, read_gerrit, read_gitolite, read_simple,
};
use serde_json::Value;

use crate::scene::estate::Estate;

/// The name of the fixture, its text, and the expected result: `NAME KEY=VALUE …` for each mirror
/// with ` | ` between, `? WORDS` for what needs a person, or nothing.
type Fixture = (&'static str, &'static str, &'static str);

/// Sections of git's configuration.
const GIT: &[Fixture] = &include!("import_fixtures/git.in");
/// `KEY VALUE` in each line, for the option `mirror.KEY` of `acme/widget`, read on the host frodo;
/// or `simple:` and the URLs, then perhaps ` ARGS ` and arguments.
const GITOLITE: &[Fixture] = &include!("import_fixtures/gitolite.in");
/// `replication.config`, for the project `acme/widget`.
const GERRIT: &[Fixture] = &include!("import_fixtures/gerrit.in");
/// One push mirror, or `pull:` and a project.
const GITLAB: &[Fixture] = &include!("import_fixtures/gitlab.in");
/// One push mirror, or `pull:` and a repository.
const GITEA: &[Fixture] = &include!("import_fixtures/gitea.in");

fn text_of(change: &Change) -> String {
    match change {
        Change::Text(text) | Change::Toml(text) => text.clone(),
        Change::Flag(flag) => flag.to_string(),
        Change::List(list) => list.join(","),
        Change::Number(number) => number.to_string(),
        Change::Unset => "-".into(),
    }
}

/// What was found, in the form of the fixtures.
fn said(found: &[Found]) -> String {
    let one = |found: &Found| match found {
        Found::Person { why, .. } => format!("? {why}"),
        Found::Mirror(mirror) => {
            let mut keys: Vec<String> =
                mirror.keys.iter().map(|(key, change)| format!("{key}={}", text_of(change))).collect();
            if mirror.hides_password {
                keys.push("(password is asked for)".into());
            }
            keys.sort();
            format!("{} url={} {}", mirror.name, mirror.url, keys.join(" ")).trim_end().to_owned()
        }
    };
    found.iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// Compares each fixture with what was found. Prints the number of mirrors, and of those that need
/// no person.
fn judge(source: &str, all: &[Fixture], found: impl Fn(usize, &str) -> String) {
    let (mut mirrors, mut alone, mut wrong) = (0, 0, Vec::new());
    for (at, (name, text, expected)) in all.iter().enumerate() {
        let said = found(at, text);
        let is_right = match expected.strip_prefix("? ") {
            Some(words) => said.starts_with("? ") && said.contains(words),
            None => said == *expected,
        };
        if !is_right {
            wrong.push(format!("{source} {at}, {name}:\n    expected {expected}\n    found    {said}"));
        }
        let parts = said.split(" | ").filter(|part| !part.is_empty());
        for part in parts {
            mirrors += 1;
            alone += usize::from(!part.starts_with('?'));
        }
    }
    eprintln!("{source}: {} fixtures, {mirrors} mirrors, {alone} need no person", all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The mirrors in a repository's file, in the form of the fixtures.
fn mirrors_of(repository: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(repository.join("mirror-push/config.toml")) else { return Vec::new() };
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("[remotes.") {
            found.push((name.trim_end_matches(']').to_owned(), Vec::new()));
        } else if let (Some((_, keys)), Some((key, value))) = (found.last_mut(), line.split_once(" = ")) {
            let value = value
                .trim_matches('"')
                .replace("[\"", "")
                .replace("\"]", "")
                .replace("\", \"", ",")
                .replace("\\\\", "\\");
            keys.push(format!("{key}={value}"));
        }
    }
    let shown = |(name, mut keys): (String, Vec<String>)| {
        keys.retain(|key| !key.starts_with("id="));
        keys.sort_by_key(|key| (!key.starts_with("url="), key.clone()));
        format!("{name} {}", keys.join(" "))
    };
    found.into_iter().map(shown).collect()
}

#[test]
fn remotes_of_git() {
    let estate = Estate::new("wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n");
    for (at, (_, text, _)) in GIT.iter().enumerate() {
        let repository = estate.repository(&format!("r{at}.git"));
        let config = repository.join("config");
        std::fs::write(&config, std::fs::read_to_string(&config).unwrap() + text).unwrap();
    }
    judge("git", GIT, |at, _| {
        let repository = estate.sandbox.path(&format!("git/r{at}.git"));
        // One by one: two repositories must not be imported with one URL.
        let out = estate.run(&["--git-dir", repository.to_str().unwrap(), "import", "git", "--yes", "--json"]).json();
        let people = out.as_array().unwrap().iter().filter(|one| one["action"] == "person");
        let people = people.map(|one| format!("? {}", one["reason"].as_str().unwrap()));
        mirrors_of(&repository).into_iter().chain(people).collect::<Vec<_>>().join(" | ")
    });
}

#[test]
fn options_of_gitolite() {
    judge("gitolite", GITOLITE, |_, text| {
        if let Some(urls) = text.strip_prefix("simple:") {
            let (urls, arguments) = urls.split_once(" ARGS ").unwrap_or((urls, ""));
            return said(&read_simple(urls, arguments, "acme/widget"));
        }
        let line = |line: &str| {
            let mut words = line.splitn(2, ' ');
            format!(
                "acme/widget\tgitolite-options.mirror.{}\t{}\n",
                words.next().unwrap(),
                words.next().unwrap_or_default()
            )
        };
        let text: String = text.lines().map(line).collect();
        read_gitolite(&text, "frodo").found.iter().map(|(_, found)| said(found)).collect()
    });
}

#[test]
fn remotes_of_gerrit() {
    judge("gerrit", GERRIT, |_, text| {
        let (main, secure) = text.split_once("SECURE").unwrap_or((text, ""));
        let site = GerritSite { main: main.into(), secure: secure.into(), parts: Vec::new() };
        let found = read_gerrit(&site, &["acme/widget".to_owned()], Wish::default()).unwrap();
        found.iter().map(|(_, found)| said(found)).collect()
    });
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn mirrors_of_gitlab() {
    judge("gitlab", GITLAB, |_, text| match text.strip_prefix("pull:") {
        Some(project) => gitlab_pull(&json(project), None).map(|found| said(&[found])).unwrap_or_default(),
        None => said(&[gitlab_push(&json(text))]),
    });
}

#[test]
fn mirrors_of_gitea() {
    judge("gitea", GITEA, |_, text| match text.strip_prefix("pull:") {
        Some(repository) => gitea_pull(&json(repository)).map(|found| said(&[found])).unwrap_or_default(),
        None => said(&[gitea_push(&json(text), Wish::default())]),
    });
}
