//! Mirrors of gitolite: the options `mirror.*` as `gitolite git-config` prints them, and the key
//! `gitolite.mirror.simple`, which a widespread hook reads. The configuration of gitolite itself is
//! not read. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::list::valid_name;
use super::{Found, Proposed};
use crate::config::Change;
use crate::mirror::Keys;

/// This host, as gitolite knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitoliteHost {
    /// `HOSTNAME`: its name among the hosts that mirror each other.
    pub name: Option<String>,
    /// `GL_REPO_BASE`: the directory of the repositories.
    pub base: PathBuf,
}

impl GitoliteHost {
    /// Reads what `gitolite query-rc -a` prints. `None` if it names no directory of repositories.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let name = value("HOSTNAME").filter(|name| !name.is_empty()).map(str::to_owned);
        Some(Self { name, base: PathBuf::from(value("GL_REPO_BASE")?) })
    }
}

/// What the options say of all repositories.
#[derive(Debug, Default, PartialEq)]
pub struct GitoliteOptions {
    /// For each repository, its mirrors.
    pub found: Vec<(String, Vec<Found>)>,
    /// For each other host: of how many repositories it is the master.
    pub copies_of: BTreeMap<String, usize>,
}

/// How gitolite updates a copy. If several apply to one copy, the last in this list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Async,
    Sync,
    NoSync,
}

/// The options of one repository.
#[derive(Default)]
struct Options<'t> {
    master: &'t str,
    copies: BTreeMap<&'t str, Way>,
    others: Vec<(&'t str, &'t str)>,
}

const PREFIX: &str = "gitolite-options.mirror.";

/// Reads what `gitolite git-config -ev -r % ^gitolite-options\.mirror\.` prints: repository, key and value in each line, with tabs between.
#[must_use]
pub fn read_gitolite(text: &str, host: &str) -> GitoliteOptions {
    let mut repositories: BTreeMap<&str, Options<'_>> = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let (Some(repository), Some(key), Some(value)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let Some(key) = key.strip_prefix(PREFIX) else { continue };
        let options = repositories.entry(repository).or_default();
        // Before version 3.6.12, copies were called slaves.
        let copies = key.strip_prefix("copies").or_else(|| key.strip_prefix("slaves"));
        let way = match copies {
            Some(way) if way.starts_with(".nosync") => Way::NoSync,
            Some(way) if way.starts_with(".sync") => Way::Sync,
            Some(_) => Way::Async,
            None if key == "master" => {
                options.master = value.trim();
                continue;
            }
            None if key.starts_with("extcopy") => {
                options.others.push((key, value.trim()));
                continue;
            }
            None => continue,
        };
        for name in value.split_whitespace().filter(|name| *name != host) {
            let known = options.copies.entry(name).or_insert(way);
            *known = way.max(*known);
        }
    }
    let mut all = GitoliteOptions::default();
    for (repository, options) in repositories {
        let is_master = options.master == host && !host.is_empty();
        if !is_master && !options.master.is_empty() && !host.is_empty() {
            *all.copies_of.entry(options.master.to_owned()).or_default() += 1;
        }
        let copies = options.copies.iter().filter(|_| is_master).map(|(name, way)| copy(repository, name, *way));
        let others = options.others.iter().filter(|(_, url)| !url.is_empty());
        let others = others.map(|(key, url)| other(repository, key, url));
        let found: Vec<Found> = copies.chain(others).collect();
        if !found.is_empty() {
            all.found.push((repository.to_owned(), found));
        }
    }
    all
}

const TURN_OFF: &str = "gitolite pushes to it too: rename its option in gitolite.conf to mirror.copies.nosync-quiet-1, and keep the copy listed, because a copy that is not listed refuses the master";

fn copy(repository: &str, name: &str, way: Way) -> Found {
    let mut mirror = Proposed {
        name: valid_name(name),
        url: format!("{name}:{repository}"),
        keys: Keys::new(),
        from: format!("gitolite's option mirror.copies ({name})"),
        notes: vec![
            "the copy accepts only the key of the user who runs gitolite: mirror as that user, whose ~/.ssh/config knows the host".into(),
            TURN_OFF.into(),
        ],
        hides_password: false,
    };
    match way {
        Way::Async => {}
        Way::Sync => {
            mirror.notes.push(
                "gitolite made the pusher wait for this copy (sync); a mirror of ours never makes anybody wait".into(),
            );
        }
        Way::NoSync => {
            mirror.keys.push(("enabled", Change::Flag(false)));
            mirror.notes.push("it was pushed to by hand or by cron only (nosync), so it is disabled here".into());
        }
    }
    Found::Mirror(mirror)
}

/// A mirror at any URL: `option mirror.extcopy-1 = file:///backup/%`.
fn other(repository: &str, key: &str, url: &str) -> Found {
    Found::Mirror(Proposed {
        name: valid_name(key),
        url: url.replace('%', repository),
        keys: Keys::new(),
        from: format!("gitolite's option mirror.{key}"),
        notes: vec!["gitolite pushes to it too, until its option is removed from gitolite.conf".into()],
        hides_password: false,
    })
}

/// The mirrors of the key `gitolite.mirror.simple` of git's configuration, which a widespread post-receive hook reads. `arguments` is the key
/// `gitolite.mirror.simple.extra-args`.
#[must_use]
pub fn read_simple(urls: &str, arguments: &str, repository: &str) -> Vec<Found> {
    let is_kept = arguments.split_whitespace().any(|word| word == "--no-force");
    let found = urls.split_whitespace().map(|url| {
        let mut keys = Keys::new();
        if is_kept {
            keys.push(("divergent_refs", Change::Text("keep".into())));
        }
        Found::Mirror(Proposed {
            name: super::list::name_of(url),
            url: url.replace("REPO", repository),
            keys,
            from: "gitolite.mirror.simple of git's configuration".into(),
            notes: vec!["the hook that reads gitolite.mirror.simple pushes to it too, until the key is removed from gitolite.conf".into()],
            hides_password: false,
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> GitoliteOptions {
        let text: String = lines
            .iter()
            .map(|line| {
                let mut words = line.splitn(3, ' ');
                let mut next = || words.next().unwrap_or_default();
                format!("{}\t{PREFIX}{}\t{}\n", next(), next(), next())
            })
            .collect();
        read_gitolite(&text, "frodo")
    }

    fn mirrors(options: &GitoliteOptions) -> Vec<(String, String, Keys)> {
        let all = options.found.iter().flat_map(|(_, found)| found);
        let mirror = |found: &Found| match found {
            Found::Mirror(mirror) => (mirror.name.clone(), mirror.url.clone(), mirror.keys.clone()),
            Found::Person { why, .. } => panic!("{why}"),
        };
        all.map(mirror).collect()
    }

    fn plain(name: &str, url: &str) -> (String, String, Keys) {
        (name.to_owned(), url.to_owned(), Keys::new())
    }

    #[test]
    fn the_copies_of_the_master_become_push_mirrors() {
        let off = |name: &str| (name.to_owned(), format!("{name}:a/b"), vec![("enabled", Change::Flag(false))]);
        for (lines, expected) in [
            (
                &["a/b master frodo", "a/b copies-1 sam gollum"][..],
                vec![plain("gollum", "gollum:a/b"), plain("sam", "sam:a/b")],
            ),
            (&["a/b master frodo", "a/b slaves sam"], vec![plain("sam", "sam:a/b")]),
            (&["a/b master frodo", "a/b copies frodo sam"], vec![plain("sam", "sam:a/b")]),
            (&["a/b master frodo", "a/b copies.sync-2 sam"], vec![plain("sam", "sam:a/b")]),
            (&["a/b master frodo", "a/b copies.nosync sam"], vec![off("sam")]),
            (&["a/b master frodo", "a/b copies.nosync-quiet-1 sam", "a/b copies-1 sam"], vec![off("sam")]),
            (&["a/b master frodo", "a/b redirectOK sam", "a/b hostname sam"], vec![]),
            (&["a/b master gollum", "a/b copies frodo"], vec![]),
            (&["a/b extcopy-1 file:///backup/%"], vec![plain("extcopy-1", "file:///backup/a/b")]),
            (&["a/b extcopy-1 "], vec![]),
        ] {
            assert_eq!(mirrors(&read(lines)), expected, "{lines:?}");
        }
        let copies = read(&["a master gollum", "a copies frodo", "b master gollum", "b copies frodo"]).copies_of;
        assert_eq!(copies, BTreeMap::from([("gollum".to_owned(), 2)]));
    }

    #[test]
    fn the_host_is_read_from_the_rc_file_as_gitolite_prints_it() {
        let text = "COMMANDS=HASH(0x5)\nGL_REPO_BASE=/home/git/repositories\nHOSTNAME=frodo\n";
        let expected = GitoliteHost { name: Some("frodo".into()), base: "/home/git/repositories".into() };
        assert_eq!(GitoliteHost::read(text), Some(expected));
        assert_eq!(GitoliteHost::read("GL_REPO_BASE=/x\n").expect("a host").name, None);
        assert_eq!(GitoliteHost::read("HOSTNAME=frodo\n"), None);
    }

    #[test]
    fn a_simple_mirror_has_urls_and_perhaps_no_force() {
        let found = read_simple("git@h:acme/REPO.git git@b:acme/REPO.git", "--no-force", "team/widget");
        let urls: Vec<String> = found
            .into_iter()
            .map(|found| match found {
                Found::Mirror(mirror) => {
                    assert_eq!(mirror.keys, vec![("divergent_refs", Change::Text("keep".into()))]);
                    mirror.url
                }
                Found::Person { why, .. } => panic!("{why}"),
            })
            .collect();
        assert_eq!(urls, ["git@h:acme/team/widget.git", "git@b:acme/team/widget.git"]);
    }
}
