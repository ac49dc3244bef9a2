//! The attributes of a mirror that a request gives, and the keys of the configuration that they become.

use std::collections::BTreeMap;

use super::mirrors::Error;
use crate::config::{AuthMethod, Change, Mirror};
use crate::credentials::{HostKey, Secret};
use crate::mirror::{Keys, host_keys_of};
use crate::plan::Divergent;
use crate::wire::Address;

/// Maximum number of pinned host keys (GitLab's limit).
const MAX_HOST_KEYS: usize = 10;

/// The requested attributes of a mirror; `None` is one that is not given.
#[derive(Clone, Debug, Default)]
pub(super) struct MirrorParams {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) enabled: Option<bool>,
    /// Whether first contact with the mirror's address is confirmed.
    pub(super) adopt: Option<bool>,
    pub(super) only_protected_branches: Option<bool>,
    /// The regular expression. An empty text removes the stored one.
    pub(super) mirror_branch_regex: Option<String>,
    pub(super) keep_divergent_refs: Option<bool>,
    pub(super) divergent_refs: Option<&'static str>,
    pub(super) tags: Option<Tags>,
    pub(super) prune: Option<&'static str>,
    pub(super) auth_method: Option<AuthMethod>,
    /// Lines of ssh-keyscan(1) or bare keys. An empty list removes the pinned keys.
    pub(super) host_keys: Option<Vec<String>>,
    /// The user name. It wins over the one in the URL. An empty text removes the stored one.
    pub(super) username: Option<String>,
    /// A password in place of that in the URL.
    pub(super) password: Option<Secret>,
    /// Further keys of the configuration.
    pub(super) further: Keys,
}

/// `tags`
#[derive(Clone, Debug)]
pub(super) enum Tags {
    Word(&'static str),
    Patterns(Vec<String>),
}

impl MirrorParams {
    /// The attributes that map directly to keys. `only_protected_branches` and `mirror_branch_regex` replace each other.
    pub(super) fn keys(&self, before: Option<&Mirror>) -> Keys {
        let mut keys: BTreeMap<&'static str, Change> = BTreeMap::new();
        if let Some(only) = self.only_protected_branches {
            keys.insert("only_protected_branches", Change::Flag(only));
            if only {
                keys.insert("mirror_branch_regex", Change::Unset);
            }
        }
        match self.mirror_branch_regex.as_deref() {
            None => {}
            Some("") => {
                keys.insert("mirror_branch_regex", Change::Unset);
            }
            Some(regex) => {
                keys.insert("mirror_branch_regex", Change::Text(regex.to_owned()));
                keys.insert("only_protected_branches", Change::Flag(false));
            }
        }
        let is_kept = before.is_some_and(|mirror| mirror.divergent == Divergent::Keep);
        let divergent = match self.keep_divergent_refs {
            Some(true) => Some("keep"),
            Some(false) if is_kept => Some("overwrite"),
            _ => None,
        };
        if let Some(word) = self.divergent_refs.or(divergent) {
            keys.insert("divergent_refs", Change::Text(word.into()));
        }
        match &self.tags {
            None => {}
            Some(Tags::Word(word)) => {
                keys.insert("tags", Change::Text((*word).into()));
            }
            Some(Tags::Patterns(patterns)) => {
                keys.insert("tags", Change::List(patterns.clone()));
            }
        }
        if let Some(word) = self.prune {
            keys.insert("prune", Change::Text(word.into()));
        }
        keys.extend(self.further.iter().cloned());
        keys.into_iter().collect()
    }

    pub(super) fn host_keys(&self, address: &Address) -> Result<Option<Vec<HostKey>>, Error> {
        let refused = |why: &str| Error::Refused(format!("Invalid SSH host key(s): {why}"));
        let Some(lines) = &self.host_keys else { return Ok(None) };
        let lines: Vec<String> = lines.iter().filter_map(|line| restored(line)).collect();
        if lines.len() > MAX_HOST_KEYS {
            return Err(refused(&format!("too many host keys (maximum is {MAX_HOST_KEYS})")));
        }
        if lines.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if address.host().is_none() {
            return Err(refused("cannot determine hostname from URL for bare key"));
        }
        let bad: Vec<&str> = lines
            .iter()
            .filter(|line| host_keys_of(std::slice::from_ref(*line), address).is_err())
            .map(String::as_str)
            .collect();
        if bad.is_empty() { Ok(Some(host_keys_of(&lines, address)?)) } else { Err(refused(&bad.join(", "))) }
    }
}

/// Undoes what form decoding did to a host key line: spaces in the base64 become plus signs again. Drops the comment. `None` if blank.
fn restored(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("AAAA"));
    let Some(at) = at else { return (!words.is_empty()).then(|| words.join(" ")) };
    // The key is complete when its length is divisible by four and it parses. What follows is a comment.
    let mut key = words[at].to_owned();
    for part in &words[at + 1..] {
        if key.len().is_multiple_of(4) && HostKey::parse(&format!("h {} {key}", words[at.saturating_sub(1)])).is_some()
        {
            break;
        }
        key = format!("{key}+{part}");
    }
    Some([&words[..at], &[key.as_str()]].concat().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_signs_that_a_form_lost_are_restored() {
        let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        assert_eq!(restored(&format!("ssh-ed25519 {key} comment")), Some(format!("ssh-ed25519 {key}")));
        let with_plus = "AAAAC3NzaC1lZDI1NTE5AAAAICPTA+pqQmTWQYLwZDjmy9Gma9RuI3rnILhm0aW+UXk/";
        let lost = with_plus.replace('+', " ");
        assert_eq!(restored(&format!("h ssh-ed25519 {lost}")), Some(format!("h ssh-ed25519 {with_plus}")));
        assert_eq!(restored("  "), None);
        assert_eq!(restored("nonsense here"), Some("nonsense here".into()));
    }
}
