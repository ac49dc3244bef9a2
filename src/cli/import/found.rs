//! What a repository itself says of mirrors: git's configuration, its hooks, and the lines of gitolite.

use std::collections::BTreeMap;

use super::{Session, source, wish};
use crate::cli::args::Import;
use crate::credentials::Credentials;
use crate::import::{Found, as_whole, propose, propose_push, pushing_lines, read_simple};
use crate::install;
use crate::repo::{GitRemote, Repository};
use crate::wire::parse;

/// What git's configuration and the hooks of a repository say.
pub(super) fn in_git(repository: &Repository, asked: &Import) -> Vec<Found> {
    let remotes = repository.git_remotes();
    let others = if remotes.iter().any(|remote| remote.is_mirror || !remote.push.is_empty()) {
        namespaces(repository)
    } else {
        Vec::new()
    };
    let proposed: Vec<Vec<Found>> = remotes.iter().map(|remote| propose(remote, &others, wish(asked))).collect();
    let is_of =
        |remote: &GitRemote, target: &str| remote.name == target || remote.push_urls.iter().any(|url| url == target);
    // If a remote becomes only a pull mirror, or no mirror, then only the script pushes to it.
    // Several remotes may have the same URL.
    let both = || remotes.iter().zip(&proposed);
    let is_pushed_to = |target: &str| both().any(|(remote, found)| is_of(remote, target) && found.iter().any(is_push));
    let urls_of = |target: &str| match remotes.iter().find(|remote| remote.name == target) {
        Some(remote) => remote.push_urls.clone(),
        None => vec![target.to_owned()],
    };
    let are_urls = |urls: &[String]| !urls.is_empty() && urls.iter().all(|url| parse(url).is_ok());
    let mut scripts = Vec::new();
    for (script, text) in install::scripts(repository).unwrap_or_default() {
        for pushing in pushing_lines(&text) {
            let script = script.strip_prefix(repository.git_dir()).unwrap_or(&script);
            // Our hook takes the place of this script, which is renamed.
            let moved = if script.ends_with("post-receive") { " (post-receive.previous after the import)" } else { "" };
            let from = format!("{}{moved}, line {}", script.display(), pushing.line);
            let why = match &pushing.target {
                Some(target) if is_pushed_to(target) => {
                    let why = "it pushes by itself, so both push until you delete the line".into();
                    scripts.push(Found::Person { from, why });
                    continue;
                }
                Some(target) if pushing.pushed.is_some() && are_urls(&urls_of(target)) => {
                    let pushed = pushing.pushed.unwrap_or_default();
                    for url in urls_of(target) {
                        scripts.extend(propose_push(&url, &pushed, &namespaces(repository), wish(asked), &from));
                    }
                    continue;
                }
                Some(target) if remotes.iter().any(|remote| is_of(remote, target)) => {
                    format!("it pushes to remote '{target}' by itself")
                }
                Some(target) => match parse(target) {
                    Ok((address, _)) => format!("it pushes to {} by itself", address.shown(&Credentials::default())),
                    Err(_) => "it pushes by itself, and its target is not a URL".to_owned(),
                },
                None => "it pushes by itself, and this line does not name the target".to_owned(),
            };
            let why = format!("{why}; add that mirror (git mirror-push add), and delete the line");
            scripts.push(Found::Person { from, why });
        }
    }
    proposed.into_iter().flatten().chain(scripts).collect()
}

fn is_push(found: &Found) -> bool {
    matches!(found, Found::Mirror(mirror) if mirror.direction() != "pull")
}

/// The mirrors of gitolite, and those of `gitolite.mirror.simple`, the key of a widespread hook.
pub(super) fn of_gitolite(session: &Session<'_>, asked: &Import, mut found: Vec<Found>) -> Vec<Found> {
    let value = |key: &str| session.repository.git_config(key).unwrap_or_default();
    let repository = source::gitolite_name(session.repository.git_dir());
    found.extend(read_simple(
        &value("gitolite.mirror.simple"),
        &value("gitolite.mirror.simple.extra-args"),
        &repository,
    ));
    if found.is_empty() {
        return found;
    }
    // gitolite and that hook run 'git push --mirror'.
    let namespaces = namespaces(&session.repository);
    found.into_iter().map(|found| as_whole(found, &namespaces, wish(asked))).collect()
}

/// The namespaces of refs, with the number of refs in each. Branches, tags and the refs that we
/// keep (`refs/rewritten/`, `refs/conflicts/`) are left out.
fn namespaces(repository: &Repository) -> Vec<(String, usize)> {
    const OURS: [&str; 4] = ["refs/heads/", "refs/tags/", "refs/rewritten/", "refs/conflicts/"];
    let listed = repository.list(|_| true).map(|listing| listing.refs).unwrap_or_default();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in listed {
        let text = name.text();
        // A ref like refs/stash is in no namespace.
        let end = text.match_indices('/').nth(1).map_or(text.len(), |(at, _)| at + 1);
        if !OURS.contains(&&text[..end]) {
            *counts.entry(text[..end].to_owned()).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}
