//! `remote.*` sections of git's configuration, as mirrors of ours.
//!
//! | found | becomes |
//! |---|---|
//! | `mirror` without `fetch` | push, overwriting; `prune = "merged"`, with `--exact` `"mirror"` |
//! | `fetch = +refs/*:refs/*`, as `git clone --mirror` writes it | pull; with another `pushurl` also push there |
//! | `push` refspecs that keep names | push of these refs, `prune = "never"`; without `+`, `divergent_refs = "keep"` |
//! | anything else that pushes | left to a person |
//! | neither | nothing |

use super::list::valid_name;
use super::{Found, Proposed};
use crate::config::Change;
use crate::mirror::Keys;
use crate::repo::GitRemote;

/// What the user wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The direction, where the source does not say it.
    pub direction: Option<&'a str>,
    /// Delete on the mirror whatever is not here, as the old tool did, and mirror every namespace that it mirrored.
    pub is_exact: bool,
}

/// Reads one remote. `namespaces` are those of the refs here besides branches and tags, like `refs/notes/`, with their numbers.
#[must_use]
pub fn propose(remote: &GitRemote, namespaces: &[(String, usize)], wish: Wish<'_>) -> Vec<Found> {
    let from = source(remote);
    let takes_all = remote.fetch.iter().any(|spec| spec.ends_with(":refs/*"));
    if !remote.is_mirror && !takes_all && remote.push.is_empty() {
        return Vec::new();
    }
    let person = |why: String| vec![Found::Person { from: from.clone(), why }];
    if let Some(error) = &remote.error {
        return person(error.clone());
    }
    let found = |urls: &[String], direction: &str, keys: &Keys, notes: &[String]| -> Vec<Found> {
        let one = |(at, url): (usize, &String)| Found::Mirror(mirror(remote, at, url, direction, keys, notes));
        urls.iter().enumerate().map(one).collect()
    };
    let taken = &remote.urls[..remote.urls.len().min(1)];
    let pull = || found(taken, "pull", &Keys::new(), &[PULLED.to_owned()]);
    let push = |urls: &[String]| {
        let all = || Ok(all_refs(namespaces, wish));
        let pushed = if remote.push.is_empty() { all() } else { chosen_refs(&remote.push) };
        pushed.map_or_else(person, |(keys, mut notes)| {
            notes.push(PUSHED.into());
            found(urls, "push", &keys, &notes)
        })
    };
    if remote.urls.is_empty() && remote.push_urls.is_empty() {
        return person("it has no URL".into());
    }
    if !takes_all {
        return push(&remote.push_urls);
    }
    let is_clone = matches!(&*remote.name, "origin" | "_grokmirror") && remote.push.is_empty();
    match wish.direction {
        Some("push") => push(&remote.push_urls),
        Some("both") => found(taken, "both", &Keys::new(), &[]),
        Some(_) => pull(),
        None if remote.has_push_url && remote.push_urls != remote.urls => {
            let relay = push(&remote.push_urls).into_iter().map(|found| match found {
                Found::Mirror(mirror) => Found::Mirror(Proposed { name: format!("{}-push", mirror.name), ..mirror }),
                person => person,
            });
            pull().into_iter().chain(relay).collect()
        }
        None if is_clone || !remote.is_mirror => pull(),
        None => person("it fetches and pushes every ref; say which: --direction push, pull or both".into()),
    }
}

fn source(remote: &GitRemote) -> String {
    format!("remote.{} of git's configuration", remote.name)
}

/// The mirror for one of the URLs of a remote.
fn mirror(remote: &GitRemote, at: usize, url: &str, direction: &str, keys: &Keys, notes: &[String]) -> Proposed {
    let mut keys = keys.clone();
    if direction != "push" {
        keys.push(("direction", Change::Text(direction.into())));
    }
    keys.extend(remote.proxy.clone().map(|proxy| ("proxy", Change::Text(proxy))));
    let name = valid_name(&remote.name);
    let name = if at == 0 { name } else { format!("{name}-{}", at + 1) };
    Proposed { name, url: url.to_owned(), keys, from: source(remote), notes: notes.to_vec() }
}

const PULLED: &str = "git replaced and deleted whatever differed here; a pull mirror keeps what was changed here (divergent_refs) and what upstream rewrote (keep_rewritten). 'git remote update -p' would delete what is kept; turn it off: git config --unset-all remote.NAME.fetch";
const PUSHED: &str = "nothing was changed in git's configuration: whatever runs 'git push NAME' still pushes too. When nothing does: git config --remove-section remote.NAME";

/// Every ref, as `mirror` pushes it.
fn all_refs(namespaces: &[(String, usize)], wish: Wish<'_>) -> (Keys, Vec<String>) {
    let (mut keys, mut notes) = (Keys::new(), Vec::new());
    if wish.is_exact {
        keys.push(("prune", Change::Text("mirror".into())));
        if !namespaces.is_empty() {
            keys.push(("refspecs", Change::List(namespaces.iter().map(|(name, _)| format!("{name}*")).collect())));
        }
        return (keys, notes);
    }
    notes.push("git deleted everything there that is not here; prune = \"merged\" deletes what was deleted here and is merged; the old way: --exact".into());
    if !namespaces.is_empty() {
        let named: Vec<String> = namespaces.iter().map(|(name, count)| format!("{name}* ({count})")).collect();
        notes.push(format!("also mirrored until now, and not any more: {}; to keep it: --exact", named.join(", ")));
    }
    (keys, notes)
}

/// The refs of `push` refspecs.
fn chosen_refs(specs: &[String]) -> Result<(Keys, Vec<String>), String> {
    let (mut branches, mut tags, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let (mut has_all, mut is_forced) = (false, true);
    for spec in specs {
        let (force, pair) = spec.strip_prefix('+').map_or((false, &**spec), |rest| (true, rest));
        is_forced &= force;
        if pair.starts_with('^') {
            return Err(format!("'{spec}' leaves refs out, which has no counterpart here"));
        }
        let (source, target) = pair.split_once(':').unwrap_or((pair, pair));
        if source.is_empty() || target.is_empty() {
            return Err(format!("'{spec}' pushes matching branches, or deletes, which has no counterpart here"));
        }
        if source != target {
            return Err(format!("'{spec}' renames refs; a mirror keeps their names"));
        }
        match source.strip_prefix("refs/heads/") {
            _ if source == "refs/*" => has_all = true,
            Some(branch) => branches.push(branch),
            None if !source.starts_with("refs/") => branches.push(source),
            None => match source.strip_prefix("refs/tags/") {
                Some(tag) => tags.push(tag),
                None => others.push(source),
            },
        }
    }
    let mut keys = vec![("prune", Change::Text("never".into()))];
    if !is_forced {
        keys.push(("divergent_refs", Change::Text("keep".into())));
    }
    if !has_all {
        if branches.is_empty() {
            return Err("it pushes no branches, and a mirror of ours always has branches".into());
        }
        if !branches.contains(&"*") {
            let words: Vec<String> = branches.iter().map(|branch| regex_of(branch)).collect();
            let whole = if let [one] = &words[..] { one.clone() } else { format!("({})", words.join("|")) };
            keys.push(("mirror_branch_regex", Change::Text(format!("^{whole}$"))));
        }
        match &tags[..] {
            [] => keys.push(("tags", Change::Text("none".into()))),
            tags if tags.contains(&"*") => {}
            tags => keys.push(("tags", Change::List(tags.iter().map(|tag| (*tag).to_owned()).collect()))),
        }
        if !others.is_empty() {
            keys.push(("refspecs", Change::List(others.iter().map(|&other| other.to_owned()).collect())));
        }
    }
    Ok((keys, Vec::new()))
}

/// A branch of a refspec as a regular expression: `*` is any run of characters.
fn regex_of(branch: &str) -> String {
    let escaped = |letter: char| match letter {
        '*' => ".*".to_owned(),
        '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => format!("\\{letter}"),
        letter => letter.to_string(),
    };
    branch.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests;
