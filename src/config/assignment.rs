//! `KEY=VALUE` of the command line. Pure.

use super::Change;
use super::explain::nearest;
use super::keys::{Place, keys};

/// Reads `KEY=VALUE` for a mirror ([`Place::Remote`]) or for the repository ([`Place::Top`]). The value is TOML; a bare word is a string, and
/// an empty value removes the key. Whether the value fits the key is found out when the file is changed.
///
/// # Errors
/// What is wrong and how to fix it. A value is never part of it.
pub fn assignment(text: &str, place: Place) -> Result<(&'static str, Change), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("'{}' is not KEY=VALUE", text.escape_debug()));
    };
    if matches!(key, "password" | "token" | "secret") {
        return Err(
            "a password does not belong on a command line; 'git mirror-push credential NAME' asks for it".into()
        );
    }
    if key == "id" {
        return Err("'id' cannot be changed: the API knows the mirror by it".into());
    }
    let is_it = |known: &&super::Key| known.name == key && known.place == place && !key.starts_with('[');
    let known = keys().find(is_it).ok_or_else(|| unknown(key, place))?;
    let value = value.trim();
    if value.chars().any(char::is_control) {
        return Err(format!("{key}: the value has a control character in it"));
    }
    if value.is_empty() {
        return Ok((known.name, Change::Unset));
    }
    let is_toml = value.parse::<toml_edit::Value>().is_ok();
    if !is_toml && value.starts_with(['[', '{', '"', '\'']) {
        return Err(format!("{key}: the value begins like TOML, but is none; it is: {}", known.kind()));
    }
    Ok((known.name, Change::Toml(value.to_owned())))
}

fn unknown(key: &str, place: Place) -> String {
    let shown = key.escape_debug();
    let elsewhere = keys().find(|known| known.name == key && !key.starts_with('[')).map(|known| known.place);
    match elsewhere {
        Some(Place::Remote) => format!("'{shown}' is a key of a mirror; name it: git mirror-push set NAME {shown}=…"),
        Some(Place::Top) => format!("'{shown}' is a key of the repository: git mirror-push set {shown}=…"),
        Some(_) => format!("'{shown}' belongs into the server's file, which is edited by hand"),
        None => {
            let names =
                keys().filter(|known| known.place == place && !known.name.starts_with('[')).map(|known| known.name);
            match nearest(key, names) {
                Some(name) => format!("unknown key '{shown}'; did you mean '{name}'?"),
                None => format!("unknown key '{shown}'; see git-mirror-push-config(5)"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_toml_and_a_bare_word_is_a_string() {
        let toml = |text: &str| Ok::<_, String>(Change::Toml(text.into()));
        for (text, key, change) in [
            ("prune=never", "prune", toml("never")),
            ("prune=\"never\"", "prune", toml("\"never\"")),
            ("stall_timeout=5m", "stall_timeout", toml("5m")),
            ("max_deletes=7", "max_deletes", toml("7")),
            ("mirror_branch_regex=^v=1$", "mirror_branch_regex", toml("^v=1$")),
            ("push_options= [\"ci.skip\"] ", "push_options", toml("[\"ci.skip\"]")),
            ("proxy=", "proxy", Ok(Change::Unset)),
        ] {
            assert_eq!(assignment(text, Place::Remote), change.map(|change| (key, change)), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_explained() {
        for (text, place, expected) in [
            ("prune", Place::Remote, "'prune' is not KEY=VALUE"),
            ("divergent_ref=keep", Place::Remote, "did you mean 'divergent_refs'?"),
            ("colour=blue", Place::Remote, "see git-mirror-push-config(5)"),
            ("prune=never", Place::Top, "git mirror-push set NAME prune=…"),
            ("silent=true", Place::Remote, "git mirror-push set silent=…"),
            ("max_jobs=3", Place::Top, "belongs into the server's file"),
            ("id=3", Place::Remote, "cannot be changed"),
            ("refspecs=[", Place::Remote, "list of patterns"),
        ] {
            let found = assignment(text, place).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        let found = assignment("password=hunter2", Place::Remote).expect_err("refused");
        assert!(found.contains("credential") && !found.contains("hunter2"), "{found}");
    }
}
