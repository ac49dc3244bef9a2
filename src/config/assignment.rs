//! `KEY=VALUE` of the command line. Pure.

use super::Change;
use super::explain::nearest;
use super::keys::{Place, keys};

/// Reads `KEY=VALUE` for a mirror ([`Place::Remote`]) or for the repository ([`Place::Top`]). The value is TOML; a bare word is a string,
/// and an empty value removes the key. The value is checked when the file is changed.
///
/// # Errors
/// What is wrong and how to fix it. The text never contains the value.
pub fn assignment(text: &str, place: Place) -> Result<(&'static str, Change), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(format!("'{}' is not KEY=VALUE", text.escape_debug()));
    };
    let known = settable(key, place)?;
    let value = value.trim();
    if value.is_empty() {
        return Ok((known.name, Change::Unset));
    }
    let string = match value.parse::<toml_edit::Value>() {
        Ok(toml_edit::Value::String(string)) => string.into_value(),
        Ok(_) => return Ok((known.name, Change::Toml(value.to_owned()))),
        Err(_) if value.starts_with(['[', '{', '"', '\'']) => {
            return Err(format!("{key}: a bracket or a quotation mark is not closed; write {}", known.kind()));
        }
        Err(_) => value.to_owned(),
    };
    if string.chars().any(char::is_control) {
        return Err(format!("{key}: the value has a control character in it"));
    }
    Ok((known.name, Change::Text(string)))
}

/// The name of a key that may be set at `place`.
///
/// # Errors
/// Why the key cannot be set there, and which key was probably meant.
pub fn known_key(key: &str, place: Place) -> Result<&'static str, String> {
    settable(key, place).map(|known| known.name)
}

fn settable(key: &str, place: Place) -> Result<&'static super::Key, String> {
    if matches!(key, "password" | "token" | "secret") {
        return Err("a password does not belong here; 'git mirror-push credential NAME' asks for it".into());
    }
    if key == "id" {
        return Err("'id' cannot be changed: the API knows the mirror by it".into());
    }
    let is_it = |known: &&super::Key| known.name == key && known.place == place && !key.starts_with('[');
    keys().find(is_it).ok_or_else(|| unknown(key, place))
}

fn unknown(key: &str, place: Place) -> String {
    let shown = key.escape_debug();
    let elsewhere = keys().find(|known| known.name == key && !key.starts_with('[')).map(|known| known.place);
    match elsewhere {
        Some(Place::Remote) => format!("'{shown}' is a key of a mirror; name it: git mirror-push set NAME {shown}=…"),
        Some(Place::Top) => format!("'{shown}' is a key of the repository: git mirror-push set {shown}=…"),
        Some(_) => format!("'{shown}' belongs in the server's file, which is edited by hand"),
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
        let text = |text: &str| Change::Text(text.into());
        let toml = |text: &str| Change::Toml(text.into());
        for (typed, key, change) in [
            ("prune=never", "prune", text("never")),
            ("prune=\"never\"", "prune", text("never")),
            ("prune=\"\"\"never\"\"\"", "prune", text("never")),
            ("stall_timeout=5m", "stall_timeout", text("5m")),
            ("max_deletes=7", "max_deletes", toml("7")),
            ("mirror_branch_regex=^v=1$", "mirror_branch_regex", text("^v=1$")),
            ("push_options= [\"ci.skip\"] ", "push_options", toml("[\"ci.skip\"]")),
            ("proxy=", "proxy", Change::Unset),
        ] {
            assert_eq!(assignment(typed, Place::Remote), Ok((key, change)), "{typed}");
        }
    }

    #[test]
    fn a_refused_assignment_is_explained() {
        for (text, place, expected) in [
            ("prune", Place::Remote, "'prune' is not KEY=VALUE"),
            ("divergent_ref=keep", Place::Remote, "did you mean 'divergent_refs'?"),
            ("colour=blue", Place::Remote, "see git-mirror-push-config(5)"),
            ("prune=never", Place::Top, "git mirror-push set NAME prune=…"),
            ("silent=true", Place::Remote, "git mirror-push set silent=…"),
            ("max_jobs=3", Place::Top, "belongs in the server's file"),
            ("id=3", Place::Remote, "cannot be changed"),
            ("refspecs=[", Place::Remote, "is not closed; write list of patterns"),
            ("username=a\nb", Place::Remote, "control character"),
            ("username=\"a\\nb\"", Place::Remote, "control character"),
        ] {
            let found = assignment(text, place).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        let found = assignment("password=hunter2", Place::Remote).expect_err("refused");
        assert!(found.contains("credential") && !found.contains("hunter2"), "{found}");
    }
}
