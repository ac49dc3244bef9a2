//! The list: one JSON object in each line, as `export` writes it. Its keys are `repository`,
//! `name`, `url`, and the configuration keys of a mirror.

use serde_json::{Map, Value};

use super::Proposed;
use crate::config::{Change, Origin, Place, known_key};
use crate::mirror::Keys;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The repository: an absolute path, or one below a root, with or without `.git`.
    pub repository: String,
    /// Its mirror.
    pub mirror: Proposed,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {number}: {what}")]
pub struct ListError {
    /// Which line, from 1 on.
    pub number: usize,
    /// What is wrong. Never a value, which may be a secret.
    pub what: String,
}

/// Reads a list. Empty lines are skipped.
///
/// # Errors
/// The first line that is wrong.
pub fn read_list(text: &str) -> Result<Vec<Line>, ListError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| read_line(line).map_err(|what| ListError { number: at + 1, what })).collect()
}

fn read_line(line: &str) -> Result<Line, String> {
    let mut map: Map<String, Value> = match serde_json::from_str(line) {
        Ok(Value::Object(map)) => map,
        Ok(_) => return Err("it is not a JSON object".into()),
        // The parser's text has no part of the line in it.
        Err(error) => return Err(format!("it is not JSON: {error}")),
    };
    let mut text = |key: &str| match map.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(format!("'{key}' is not a text")),
        None => Err(format!("'{key}' is missing")),
    };
    let (repository, url) = (text("repository")?, text("url")?);
    let name = match text("name") {
        Err(what) if what.ends_with("missing") => name_of(&url),
        name => name?,
    };
    let mut keys = Keys::new();
    for (key, value) in map {
        if !value.is_null() {
            keys.push((known_key(&key, Place::Remote)?, change(&key, value)?));
        }
    }
    let mirror = Proposed { name, url, keys, from: "the list".into(), notes: Vec::new(), hides_password: false };
    Ok(Line { repository, mirror })
}

/// A JSON value as a value of the configuration.
fn change(key: &str, value: Value) -> Result<Change, String> {
    if let Value::String(text) = value {
        return Ok(Change::Text(text));
    }
    let value = toml_of(value).ok_or_else(|| format!("'{key}' is no value of the configuration"))?;
    Ok(Change::Toml(value.to_string()))
}

/// A JSON value as TOML, which has no null.
fn toml_of(value: Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => number.as_i64()?.into(),
        Value::String(text) => text.into(),
        Value::Array(values) => toml_edit::Value::Array(values.into_iter().map(toml_of).collect::<Option<_>>()?),
        Value::Object(map) => {
            let pairs = map.into_iter().map(|(key, value)| Some((key, toml_of(value)?)));
            toml_edit::Value::InlineTable(pairs.collect::<Option<_>>()?)
        }
    })
}

/// The name for a mirror that has none: the last part but one of the name of its host, `github` of
/// `github.com`. A name without dots or an address is taken whole.
pub(super) fn name_of(url: &str) -> String {
    let host = match crate::wire::parse(url) {
        Ok((address, _)) => address.host().unwrap_or("local").to_owned(),
        Err(_) => "mirror".into(),
    };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return valid_name(&host);
    }
    let words: Vec<&str> = host.split('.').collect();
    let name = if words.len() > 1 { words[words.len() - 2] } else { words[0] };
    valid_name(name)
}

/// Turns a text into a name for a mirror. A character that a name cannot have becomes `-`.
pub(super) fn valid_name(text: &str) -> String {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let name: String = text.chars().map(|letter| if is_good(letter) { letter } else { '-' }).take(60).collect();
    let name = name.trim_start_matches(|first: char| !first.is_ascii_alphanumeric());
    if name.is_empty() { "mirror".into() } else { name.to_owned() }
}

/// The line for a mirror. `origins` are its keys. `url` is the URL of this mirror, not the text of
/// a template.
///
/// `None` if a value cannot be written as JSON.
#[must_use]
pub fn line_of(repository: &str, name: &str, url: &str, origins: &[Origin]) -> Option<String> {
    let mut map = Map::new();
    for (key, text) in [("repository", repository), ("name", name), ("url", url)] {
        map.insert(key.into(), text.into());
    }
    for origin in origins.iter().filter(|origin| !matches!(origin.key, "id" | "url")) {
        let table: toml::Table = toml::from_str(&format!("value = {}", origin.value)).ok()?;
        map.insert(origin.key.into(), serde_json::to_value(table.get("value")?).ok()?);
    }
    serde_json::to_string(&map).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_mirror() {
        let text = "\n{\"repository\":\"acme/widget\",\"name\":\"gh\",\"url\":\"https://github.com/acme/widget.git\",\
                    \"prune\":\"never\",\"max_deletes\":7,\"tags\":[\"v*\"],\"atomic\":true,\"proxy\":null}\n\
                    {\"repository\":\"/srv/x.git\",\"url\":\"git@git.example.org:x.git\"}\n";
        let lines = read_list(text).expect("a list");
        assert_eq!((&*lines[0].repository, &*lines[0].mirror.name), ("acme/widget", "gh"));
        let mut keys = lines[0].mirror.keys.clone();
        keys.sort_by_key(|(key, _)| *key);
        let expected = vec![
            ("atomic", Change::Toml("true".into())),
            ("max_deletes", Change::Toml("7".into())),
            ("prune", Change::Text("never".into())),
            ("tags", Change::Toml("[\"v*\"]".into())),
        ];
        assert_eq!(keys, expected);
        assert_eq!((&*lines[1].mirror.name, lines[1].mirror.direction()), ("example", "push"));
    }

    #[test]
    fn a_wrong_line_is_named_and_never_shown() {
        for (line, expected) in [
            ("[]", "it is not a JSON object"),
            ("{\"repository\":\"a\"}", "'url' is missing"),
            ("{\"repository\":\"a\",\"url\":\"\"}", "'url' is not a text"),
            ("{\"repository\":\"a\",\"url\":\"/x\",\"prune_\":\"never\"}", "did you mean 'prune'?"),
            ("{\"repository\":\"a\",\"url\":\"/x\",\"id\":3}", "'id' cannot be changed"),
            ("{\"repository\":\"a\",\"url\":\"/x\",\"password\":\"hunter2\"}", "a password"),
            ("{\"repository\":\"a\",\"url\":\"/hunter2\",", "it is not JSON"),
        ] {
            let error = read_list(&format!("\n{line}")).expect_err(line).to_string();
            assert!(error.starts_with("line 2: ") && error.contains(expected), "{line}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_name_is_made_of_the_host() {
        for (url, name) in [
            ("https://github.com/a/b.git", "github"),
            ("ssh://git@office/x.git", "office"),
            ("/srv/x.git", "local"),
            ("http://127.0.0.1:80/x", "127.0.0.1"),
            ("https://git.sr.ht/~a/b", "sr"),
        ] {
            assert_eq!(name_of(url), name);
        }
        assert_eq!(valid_name("-my remote/ü"), "my-remote--");
    }
}
