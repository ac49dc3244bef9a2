//! Mirrors of Gitea and Forgejo: the answers of their API, version 1. Pure.

use serde_json::Value;

use super::git::Wish;
use super::gitlab::without_user;
use super::list::name_of;
use super::{Found, Proposed};
use crate::config::Change;
use crate::mirror::Keys;

/// Reads one of `GET /repos/:owner/:repo/push_mirrors`.
#[must_use]
pub fn gitea_push(mirror: &Value, wish: Wish<'_>) -> Found {
    let url = without_user(mirror["remote_address"].as_str().unwrap_or_default());
    let (mut keys, mut notes) = (Keys::new(), Vec::new());
    let filter = mirror["branch_filter"].as_str().unwrap_or_default();
    if let Some(regex) = regex_of(filter) {
        keys.push(("mirror_branch_regex", Change::Text(regex)));
    }
    if wish.is_exact {
        keys.push(("prune", Change::Text("mirror".into())));
    } else {
        notes.push("Gitea deleted every ref of the mirror that is not here; prune = \"merged\" deletes only refs that were deleted here and are merged; to delete as Gitea did: --exact".into());
    }
    match (mirror["interval"].as_str().and_then(period), mirror["sync_on_commit"] == false) {
        (Some(interval), true) => keys.push(("min_interval", Change::Text(interval))),
        (None, true) => {
            keys.push(("enabled", Change::Flag(false)));
            notes.push("it was pushed by hand only (no interval, not on commit), so it is disabled here".into());
        }
        (_, false) => {}
    }
    let is_by_key = mirror["public_key"].as_str().is_some_and(|key| !key.is_empty());
    if is_by_key {
        keys.push(("auth_method", Change::Text("ssh_public_key".into())));
        notes.push("its private key is not given out, so a new one is made; 'git mirror-push public-key NAME' prints the key that the host must accept".into());
    }
    notes.push(
        "the old server pushes to it too, until you delete the push mirror there (Settings, Mirror settings)".into(),
    );
    let (name, from) = (name_of(&url), "push mirrors of Gitea".into());
    Found::Mirror(Proposed { name, url, keys, from, notes, hides_password: !is_by_key })
}

/// Reads a repository of `GET /repos/search`. `None` if it is no pull mirror.
#[must_use]
pub fn gitea_pull(repository: &Value) -> Option<Found> {
    if repository["mirror"] != true {
        return None;
    }
    let from = "a mirror of Gitea".to_owned();
    let Some(url) = repository["original_url"].as_str().filter(|url| !url.is_empty()) else {
        let why = "it is a pull mirror, but the API does not give its upstream; add it by hand (git mirror-push add)";
        return Some(Found::Person { from, why: why.into() });
    };
    let mut keys = vec![("direction", Change::Text("pull".into()))];
    if let Some(interval) = repository["mirror_interval"].as_str() {
        // Without an interval, Gitea does not check by itself.
        keys.push(("interval", Change::Text(period(interval).unwrap_or_else(|| "none".into()))));
    }
    let notes = vec![
        "the old server also fetches from upstream, until you switch its mirror off".into(),
        "if upstream needs a password, store it: git mirror-push credential NAME".into(),
    ];
    let url = without_user(url);
    Some(Found::Mirror(Proposed { name: "upstream".into(), url, keys, from, notes, hides_password: false }))
}

/// The regex for a filter of branches, globs with commas between; `None` for all.
fn regex_of(filter: &str) -> Option<String> {
    let globs: Vec<&str> = filter.split(',').map(str::trim).filter(|glob| !glob.is_empty()).collect();
    if globs.is_empty() || globs.contains(&"*") {
        return None;
    }
    let words: Vec<String> =
        globs.iter().map(|glob| regex::escape(glob).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")).collect();
    Some(format!("^({})$", words.join("|")))
}

/// A duration as Go prints it (`8h0m0s`), as a duration of our files. `None` for zero, and for a
/// text that is no such duration.
fn period(text: &str) -> Option<String> {
    let (mut seconds, mut digits) = (0_u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    match seconds {
        0 => None,
        _ if seconds.is_multiple_of(3600) => Some(format!("{}h", seconds / 3600)),
        _ if seconds.is_multiple_of(60) => Some(format!("{}m", seconds / 60)),
        _ => Some(format!("{seconds}s")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_and_filters() {
        for (text, expected) in
            [("8h0m0s", Some("8h")), ("10m0s", Some("10m")), ("1h30m5s", Some("5405s")), ("0s", None), ("soon", None)]
        {
            assert_eq!(period(text).as_deref(), expected, "{text}");
        }
        for (text, expected) in
            [("", None), ("*", None), ("main,release/*", Some(r"^(main|release/[^/]*)$")), ("v1.x", Some(r"^(v1\.x)$"))]
        {
            assert_eq!(regex_of(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn push_and_pull_mirrors_keep_their_settings() {
        let said = json!({"remote_address": "https://github.com/acme/x.git", "interval": "8h0m0s", "sync_on_commit": false, "branch_filter": "main"});
        let Found::Mirror(push) = gitea_push(&said, Wish::default()) else { panic!("a mirror") };
        let keys =
            vec![("mirror_branch_regex", Change::Text("^(main)$".into())), ("min_interval", Change::Text("8h".into()))];
        assert_eq!((&*push.name, push.keys, push.hides_password), ("github", keys, true));
        let said = json!({"remote_address": "git@h:x.git", "interval": "8h0m0s", "sync_on_commit": true, "public_key": "ssh-ed25519 AAAA"});
        let Found::Mirror(push) = gitea_push(&said, Wish { direction: None, is_exact: true }) else {
            panic!("a mirror")
        };
        let keys =
            vec![("prune", Change::Text("mirror".into())), ("auth_method", Change::Text("ssh_public_key".into()))];
        assert_eq!((push.keys, push.hides_password), (keys, false));
        let said = json!({"mirror": true, "original_url": "https://h/x.git", "mirror_interval": "10m0s"});
        let Some(Found::Mirror(pull)) = gitea_pull(&said) else { panic!("a mirror") };
        let keys = vec![("direction", Change::Text("pull".into())), ("interval", Change::Text("10m".into()))];
        assert_eq!(pull.keys, keys);
        assert_eq!(gitea_pull(&json!({"mirror": false, "original_url": "https://h/x.git"})), None);
    }
}
