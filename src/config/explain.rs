//! What the TOML reader found wrong, in words that name the key and the fix. Pure.

use super::keys::{Place, keys};

/// Explains a message of the TOML reader about line `line` (from 1) of `text`.
pub(super) fn explain(message: &str, text: &str, line: usize) -> String {
    let message = message.lines().collect::<Vec<_>>().join("; ").replace('`', "'");
    let lines: Vec<&str> = text.lines().collect();
    let written = lines.get(line.saturating_sub(1)).copied().unwrap_or_default().trim();
    let key = written.split_once('=').map_or("", |(key, _)| key.trim());
    let quoted = message.split('\'').nth(1).unwrap_or_default();
    if message.starts_with("unknown field") {
        return unknown_key(quoted, section(&lines, line));
    }
    if message.starts_with("unknown variant") && !key.is_empty() {
        let known = message.split_once("expected ").map_or("", |(_, known)| known.trim_start_matches("one of "));
        return format!("'{quoted}' is not a value of {key}; use {known}");
    }
    if header(&lines, line).is_some_and(|header| header == "[remotes]") {
        return "write [remotes.NAME]: a mirror has a name".into();
    }
    let value = written.split_once('=').map_or("", |(_, value)| value.trim());
    let known = keys().find(|known| known.name == key);
    if let Some(text) = misspelt(&message, &lines, line, key, value) {
        return text;
    }
    let is_of_other_kind =
        ["invalid type", "invalid value", "wanted string or table"].iter().any(|start| message.starts_with(start));
    if is_of_other_kind {
        if written == "[repositories]" {
            return "write [[repositories]], with two brackets: there may be several".into();
        }
        if let Some(known) = known.filter(|known| known.value.starts_with("duration")) {
            return format!("{} is a string with a unit: \"10s\", \"5m\", \"3h\" or \"2d\"", known.name);
        }
        if let Some(known) = known {
            match known.kind() {
                "boolean" => return format!("write {key} = true or {key} = false"),
                "integer" => return format!("{key} is a number, 0 or more"),
                _ => {}
            }
            let quoted =
                if known.kind() == "text" { "; put quotes around a text that looks like a number" } else { "" };
            return format!("{key} needs another kind of value, namely {}{quoted}", known.kind());
        }
    }
    match known {
        Some(known) if !message.contains(known.name) => format!("{}: {message}", known.name),
        _ => message,
    }
}

/// What is wrong with a line that is no TOML, or that is there twice.
fn misspelt(message: &str, lines: &[&str], line: usize, key: &str, value: &str) -> Option<String> {
    if message.starts_with("duplicate key") {
        let is_header = key.is_empty();
        let same = |earlier: &&str| match is_header {
            true => Some(earlier.replace(' ', "")) == header(lines, line),
            false => earlier.split_once('=').is_some_and(|(earlier, _)| earlier.trim() == key),
        };
        let before = lines.iter().take(line.saturating_sub(1)).rposition(same)? + 1;
        let what = if is_header { header(lines, line)? } else { key.to_owned() };
        return Some(format!("{what} is there already, at line {before}"));
    }
    let is_word = value.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && !matches!(value, "true" | "false" | "inf" | "nan")
        && !value.contains(['"', '\'']);
    if is_word && message.starts_with("invalid") {
        // Without the value, which may be a password.
        return Some(match keys().find(|known| known.name == key).map_or("", |known| known.kind()) {
            "boolean" => format!("write {key} = true or {key} = false"),
            "integer" => format!("{key} is a number, 0 or more"),
            _ => format!("{key}: a text needs quotation marks: {key} = \"…\""),
        });
    }
    let is_open = value.starts_with('"') && !value[1..].contains('"');
    (is_open && !value.starts_with("\"\"\"")).then(|| "a quotation mark is not closed".into())
}

/// The last table header up to and including a line, without its spaces.
fn header(lines: &[&str], line: usize) -> Option<String> {
    lines.iter().take(line).rev().map(|line| line.replace(' ', "")).find(|line| line.starts_with('['))
}

/// The place to which the keys at a line belong. The last table header before them decides.
fn section(lines: &[&str], line: usize) -> Option<Place> {
    Some(match &*header(lines, line)? {
        header if header.starts_with("[[repositories") => Place::Repositories,
        header if header.starts_with("[api") => Place::Api,
        header if header.starts_with("[hosts") => Place::Hosts,
        header if header.starts_with("[fleet") => Place::Fleet,
        header if header.starts_with("[remotes") || header.starts_with("[defaults") => Place::Remote,
        _ => return None,
    })
}

fn unknown_key(key: &str, section: Option<Place>) -> String {
    let is_here = |place: Place| match section {
        Some(section) => place == section,
        None => matches!(place, Place::Top | Place::Server),
    };
    if let Some(known) = keys().find(|known| known.name == key && !is_here(known.place)) {
        let home = match known.place {
            Place::Top => "at the top of the file, before the first [section]",
            Place::Server => "at the top of the server's file, before the first [section]",
            Place::Api => "below [api] of the server's file",
            Place::Repositories => "below [[repositories]] of the server's file",
            Place::Hosts => "below [hosts.NAME] of the server's file",
            Place::Fleet => "below [fleet] of the server's file",
            Place::Remote => "below [remotes.NAME] or [defaults]",
        };
        return format!("unknown key '{key}' here; it belongs {home}");
    }
    // The list of keys has headers too. Of `[remotes.NAME]` only `remotes` is compared, as the TOML reader names it.
    let plain = |name: &'static str| name.trim_matches(['[', ']']).split('.').next().unwrap_or(name);
    let near = keys().filter(|known| is_here(known.place) && known.name != key).map(|known| plain(known.name));
    match nearest(key, near) {
        Some(name) => format!("unknown key '{key}'; did you mean '{name}'?"),
        None => format!("unknown key '{key}'; see git-mirror-push-config(5)"),
    }
}

/// The word that was probably meant.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = known.map(|known| (strsim::jaro_winkler(word, known), known));
    near.max_by(|one, other| one.0.total_cmp(&other.0)).filter(|(likeness, _)| *likeness > 0.8).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_explained_with_its_fix() {
        let remote = "[remotes.m]\nurl = \"/m\"\n";
        for (message, text, line, expected) in [
            (
                "unknown field `divergent`, expected one of `id`",
                format!("{remote}divergent = 1"),
                3,
                "did you mean 'divergent_refs'?",
            ),
            (
                "unknown field `colour`, expected one of `id`",
                format!("{remote}colour = 1"),
                3,
                "see git-mirror-push-config(5)",
            ),
            (
                "unknown field `divergent_refs`, expected `x`",
                "divergent_refs = 1".into(),
                1,
                "below [remotes.NAME] or [defaults]",
            ),
            (
                "unknown field `metrics_file`, expected `x`",
                format!("{remote}metrics_file = 1"),
                3,
                "at the top of the file",
            ),
            (
                "unknown variant `kep`, expected one of `overwrite`, `keep`, `fail`",
                format!("{remote}divergent_refs = \"kep\""),
                3,
                "'kep' is not a value of divergent_refs; use 'overwrite', 'keep', 'fail'",
            ),
            (
                "invalid type: integer `30`, expected a string",
                format!("{remote}timeout = 30"),
                3,
                "timeout is a string with a unit",
            ),
            (
                "invalid type: map, expected a sequence",
                "[repositories]\nroot = \"/x\"".into(),
                1,
                "[[repositories]], with two brackets",
            ),
            (
                "invalid type: integer `3`, expected a boolean",
                format!("{remote}atomic = 3"),
                3,
                "write atomic = true or atomic = false",
            ),
            (
                "wanted string or table",
                format!("{remote}divergent_refs = true"),
                3,
                "divergent_refs needs another kind of value, namely \"overwrite\"",
            ),
            (
                "invalid type: string \"/m\", expected struct Settings",
                "[remotes]\nurl = \"/m\"".into(),
                2,
                "write [remotes.NAME]",
            ),
            ("something else", String::new(), 1, "something else"),
            (
                "invalid float, expected `nan`",
                format!("{remote}prune = never"),
                3,
                "prune: a text needs quotation marks: prune = \"…\"",
            ),
            (
                "invalid basic string, expected `\"`",
                format!("{remote}prune = \"never"),
                3,
                "a quotation mark is not closed",
            ),
            (
                "duplicate key",
                format!("{remote}[remotes.m]\nurl = \"/m\""),
                3,
                "[remotes.m] is there already, at line 1",
            ),
            (
                "duplicate key",
                format!("{remote}tags = \"all\"\ntags = \"none\""),
                4,
                "tags is there already, at line 3",
            ),
            (
                "invalid type: string \"yes\", expected a boolean",
                format!("{remote}enabled = \"yes\""),
                3,
                "write enabled = true",
            ),
            (
                "invalid value: integer `-1`, expected usize",
                format!("{remote}max_deletes = -1"),
                3,
                "max_deletes is a number, 0 or more",
            ),
        ] {
            let found = explain(message, &text, line);
            assert!(found.contains(expected), "{message}: {found}");
        }
    }
}
