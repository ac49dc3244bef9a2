//! `remote.*` sections of git's configuration, as mirrors of ours.
//!
//! | found | becomes |
//! |---|---|
//! | `mirror` without `fetch` | push, overwriting; `prune = "merged"`, with `--exact` `"mirror"` |
//! | `fetch = +refs/*:refs/*`, as `git clone --mirror` writes it, or branches and tags of it | pull; if it also pushes to a `pushurl`, a second mirror that pushes there |
//! | `push` refspecs that keep names | push of these refs, `prune = "never"`; without `+`, `divergent_refs = "keep"` |
//! | anything else that pushes | left to a person |
//! | any other remote | nothing |

use super::list::{name_of, valid_name};
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

/// Reads one remote. `namespaces` are those of the refs here that are no branches or tags, like
/// `refs/notes/`, each with the number of its refs.
#[must_use]
pub fn propose(remote: &GitRemote, namespaces: &[(String, usize)], wish: Wish<'_>) -> Vec<Found> {
    let from = source(remote);
    let takes = remote.fetch.iter().any(|spec| sets_own_refs(spec));
    if !remote.is_mirror && !takes && remote.push.is_empty() {
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
    let pull = |direction: &str| match taken_refs(&remote.fetch) {
        Ok(keys) => found(taken, direction, &keys, &[PULLED.to_owned()]),
        Err(why) => person(why),
    };
    let push = |urls: &[String]| {
        let all = || Ok(all_refs(namespaces, wish));
        let pushed = match (remote.push.is_empty(), remote.is_mirror) {
            (true, _) => all(),
            (false, false) => chosen_refs(&remote.push, namespaces, wish),
            (false, true) => chosen_refs(&remote.push, namespaces, wish).map(|chosen| as_mirror(chosen, wish)),
        };
        pushed.map_or_else(person, |(keys, mut notes)| {
            notes.push(PUSHED.into());
            found(urls, "push", &keys, &notes)
        })
    };
    if remote.urls.is_empty() && remote.push_urls.is_empty() {
        return person("it has no URL".into());
    }
    let targets: Vec<String> =
        remote.push_urls.iter().filter(|url| !remote.has_push_url || !is_no_push(url)).cloned().collect();
    if !takes {
        return push(&targets);
    }
    let is_relay = remote.has_push_url && !targets.is_empty() && (remote.is_mirror || !remote.push.is_empty());
    let is_clone = matches!(&*remote.name, "origin" | "_grokmirror") && remote.push.is_empty();
    match wish.direction {
        Some("push") => push(&targets),
        Some(direction) => pull(direction),
        None if is_relay && targets.iter().any(|url| remote.urls.iter().any(|other| is_same_place(url, other))) => {
            person("it fetches from and pushes to one repository; say which: --direction push, pull or both".into())
        }
        None if is_relay => {
            let relay = push(&targets).into_iter().map(|found| match found {
                Found::Mirror(mirror) => Found::Mirror(Proposed { name: format!("{}-push", mirror.name), ..mirror }),
                person => person,
            });
            pull("pull").into_iter().chain(relay).collect()
        }
        None if is_clone || remote.has_push_url || !remote.is_mirror => pull("pull"),
        None => person("it fetches and pushes every ref; say which: --direction push, pull or both".into()),
    }
}

/// Whether a refspec of `fetch` sets branches or tags here, and not refs below `refs/remotes`.
fn sets_own_refs(spec: &str) -> bool {
    let target = spec.split_once(':').map_or("", |(_, target)| target);
    ["refs/*", "refs/heads/", "refs/tags/"].iter().any(|own| target.starts_with(own))
}

/// Whether a `pushurl` is no URL, but a word such as `DISABLED` that forbids pushes.
fn is_no_push(url: &str) -> bool {
    !url.contains(['/', ':'])
}

/// Whether two URLs name one repository, whatever their schemes and users are.
fn is_same_place(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        let identity = crate::wire::parse(url).ok()?.0.identity();
        let rest = identity.split_once("://").map_or(&*identity, |(_, rest)| rest).to_owned();
        let rest = rest.rsplit_once('@').map_or(&*rest, |(_, rest)| rest);
        let (host, path) = rest.split_once('/')?;
        let host = host.split(':').next().unwrap_or(host);
        // For a forge, a path below the home directory (`~`) and one from the root are the same.
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != "." && !part.starts_with('~'));
        let path = parts.collect::<Vec<_>>().join("/");
        Some(format!("{host}/{}", path.trim_end_matches(".git")))
    };
    one == other || place(one).is_some() && place(one) == place(other)
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
    // Gitea and Forgejo give their remotes random names.
    let name = match remote.name.starts_with("remote_mirror_") {
        true => name_of(url),
        false => valid_name(&remote.name),
    };
    let name = if at == 0 { name } else { format!("{name}-{}", at + 1) };
    Proposed { name, url: url.to_owned(), keys, from: source(remote), notes: notes.to_vec(), hides_password: false }
}

const PULLED: &str = "git replaced and deleted whatever differed here; a pull mirror keeps what was changed here (divergent_refs) and what upstream rewrote (keep_rewritten). 'git remote update -p' would delete what is kept; turn it off: git config --unset-all remote.NAME.fetch";
pub(super) const PUSHED: &str = "git's configuration is unchanged: a script with 'git push NAME' still pushes. When none does: git config --remove-section remote.NAME";

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
    notes.push("git deleted every ref of the mirror that is not here; prune = \"merged\" deletes only refs that were deleted here and are merged; to delete as git did: --exact".into());
    notes.extend(left_behind(namespaces));
    (keys, notes)
}

/// Refspecs of a remote with `mirror`: git pushes them by force, and deletes what is not among them.
fn as_mirror((mut keys, mut notes): (Keys, Vec<String>), wish: Wish<'_>) -> (Keys, Vec<String>) {
    keys.retain(|(key, _)| !matches!(*key, "prune" | "divergent_refs"));
    let (pruned, more) = all_refs(&[], wish);
    keys.extend(pruned);
    notes.extend(more);
    (keys, notes)
}

/// Adds to a mirror of another tool what `git push --mirror`, which that tool ran, means here.
#[must_use]
pub fn as_whole(found: Found, namespaces: &[(String, usize)], wish: Wish<'_>) -> Found {
    match found {
        Found::Mirror(mut mirror) => {
            let (keys, notes) = all_refs(namespaces, wish);
            mirror.keys.extend(keys);
            mirror.notes.extend(notes);
            Found::Mirror(mirror)
        }
        person => person,
    }
}

/// The note on what was mirrored and is no branch or tag.
fn left_behind(namespaces: &[(String, usize)]) -> Option<String> {
    let named: Vec<String> = namespaces.iter().map(|(name, count)| format!("{name}* ({count})")).collect();
    let text = format!("also mirrored until now, and not any more: {}; to keep it: --exact", named.join(", "));
    (!named.is_empty()).then_some(text)
}

/// What `push` refspecs name.
struct Chosen<'s> {
    /// `refs/*` is among them.
    has_all: bool,
    /// Each begins with `+`.
    is_forced: bool,
    branches: Vec<&'s str>,
    tags: Vec<&'s str>,
    /// Refs of other namespaces, and those that are left out.
    others: Vec<&'s str>,
}

impl<'s> Chosen<'s> {
    fn read(specs: &'s [String]) -> Result<Self, String> {
        let (branches, tags, others) = (Vec::new(), Vec::new(), Vec::new());
        let mut chosen = Self { has_all: false, is_forced: true, branches, tags, others };
        for spec in specs {
            if let Some(left_out) = spec.strip_prefix('^') {
                if !left_out.starts_with("refs/") {
                    return Err(format!("'{spec}' excludes refs, but does not name them in full (refs/...)"));
                }
                chosen.others.push(spec);
                continue;
            }
            let (is_forced, pair) = spec.strip_prefix('+').map_or((false, &**spec), |rest| (true, rest));
            chosen.is_forced &= is_forced;
            let (source, target) = pair.split_once(':').unwrap_or((pair, pair));
            if source.is_empty() || target.is_empty() {
                return Err(format!("'{spec}' pushes matching branches, or deletes, which has no counterpart here"));
            }
            let is_short = |name: &str| !name.starts_with("refs/");
            let target = target.strip_prefix("refs/heads/").filter(|_| is_short(source)).unwrap_or(target);
            let is_revision =
                source == "HEAD" || source.contains('@') || source.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_short(source)
                && (is_revision || ["heads/", "tags/", "remotes/"].iter().any(|part| source.starts_with(part)))
            {
                return Err(format!("'{spec}' does not name a branch in full"));
            }
            if source != target {
                return Err(format!("'{spec}' renames refs; a mirror keeps their names"));
            }
            match (source.strip_prefix("refs/heads/"), source.strip_prefix("refs/tags/")) {
                _ if source == "refs/*" => chosen.has_all = true,
                (Some(branch), _) => chosen.branches.push(branch),
                (_, Some(tag)) => chosen.tags.push(tag),
                _ if source.starts_with("refs/") => chosen.others.push(source),
                _ => chosen.branches.push(source),
            }
        }
        match chosen.branches.is_empty() && !chosen.has_all {
            true => Err("it pushes no branches, and a mirror of ours always has branches".into()),
            false => Ok(chosen),
        }
    }
}

/// The refs of `fetch` refspecs.
fn taken_refs(specs: &[String]) -> Result<Keys, String> {
    // A refspec that sets refs below refs/remotes mirrors nothing: these refs are only for people.
    let counts = |spec: &&String| spec.starts_with('^') || sets_own_refs(spec);
    let chosen: Vec<String> = specs.iter().filter(counts).cloned().collect();
    let (keys, _) = chosen_refs(&chosen, &[], Wish::default())?;
    Ok(keys.into_iter().filter(|(key, _)| !matches!(*key, "prune" | "divergent_refs")).collect())
}

/// The refs of `push` refspecs.
fn chosen_refs(
    specs: &[String],
    namespaces: &[(String, usize)],
    wish: Wish<'_>,
) -> Result<(Keys, Vec<String>), String> {
    let Chosen { has_all, is_forced, branches, tags, others } = Chosen::read(specs)?;
    let (mut keys, mut notes) = (vec![("prune", Change::Text("never".into()))], Vec::new());
    if !is_forced {
        keys.push(("divergent_refs", Change::Text("keep".into())));
    }
    let mut refspecs: Vec<String> = others.iter().map(|&other| other.to_owned()).collect();
    if has_all && wish.is_exact {
        refspecs.extend(namespaces.iter().map(|(name, _)| format!("{name}*")));
    } else if has_all {
        refspecs.retain(|spec| spec.starts_with('^'));
        notes.extend(left_behind(namespaces));
    } else {
        if !branches.contains(&"*") {
            let words: Vec<String> = branches.iter().map(|branch| regex_of(branch)).collect();
            let whole = if let [one] = &words[..] { one.clone() } else { format!("({})", words.join("|")) };
            keys.push(("mirror_branch_regex", Change::Text(format!("^{whole}$"))));
        }
        match &tags[..] {
            [] => keys.push(("tags", Change::Text("none".into()))),
            tags if tags.contains(&"*") => {}
            tags => keys.push(("tags", Change::List(tags.iter().map(|&tag| tag.to_owned()).collect()))),
        }
    }
    if !refspecs.is_empty() {
        keys.push(("refspecs", Change::List(refspecs)));
    }
    Ok((keys, notes))
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
