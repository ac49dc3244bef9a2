//! `log`: past attempts, one a line.

use std::io::Write;

use jiff::Timestamp;

use super::args::Log;
use super::{BEHIND, Base, DONE, Session, Usage, chosen, now, print_json};
use crate::status::{Attempt, read_history};
use crate::terminal::escaped;

/// An attempt, with its repository and mirror.
struct Entry {
    repository: String,
    mirror: String,
    attempt: Attempt,
}

/// Lists past attempts, oldest first; with `-n`, only the newest ones. With `--all`, the exit status is 1 if a repository could not be read
/// or a root does not exist.
pub(super) fn log(base: &Base, asked: &Log, out: &mut dyn Write) -> anyhow::Result<u8> {
    let since = asked.since.as_deref().map(|text| time(text, now())).transpose().map_err(Usage)?;
    let most = asked.number.unwrap_or(usize::MAX);
    let of_one = |session: &Session<'_>, names: &[String]| Ok(newest(entries(session, names, since)?, most));
    let (entries, unreadable) = match asked.scope.all {
        true => base
            .ask_every(&|session| of_one(session, &[]))
            .map(|(all, bad)| (all.into_iter().flatten().collect(), bad))?,
        false => (of_one(&base.session()?, &asked.scope.names)?, 0),
    };
    let shown = newest(entries, most);
    if base.global.json {
        let values: Result<Vec<_>, _> = shown.iter().map(|entry| json(entry, asked.scope.all)).collect();
        print_json(out, &values?)?;
    } else {
        for entry in &shown {
            print(entry, asked.scope.all, out)?;
        }
    }
    Ok(if unreadable > 0 || asked.scope.all && base.lacks_roots() { BEHIND } else { DONE })
}

/// At most `most` of the newest entries, oldest first.
fn newest(mut entries: Vec<Entry>, most: usize) -> Vec<Entry> {
    entries.sort_by(|a, b| a.attempt.started_at.cmp(&b.attempt.started_at));
    entries.drain(..entries.len().saturating_sub(most));
    entries
}

/// The attempts at these mirrors of a repository that began at `since` or later.
fn entries(session: &Session<'_>, names: &[String], since: Option<Timestamp>) -> anyhow::Result<Vec<Entry>> {
    let is_recent = |attempt: &Attempt| match (since, attempt.started_at.parse::<Timestamp>()) {
        (Some(since), Ok(started)) => started >= since,
        _ => true,
    };
    let config = session.config()?;
    let repository = session.repository.git_dir().display().to_string();
    let mut entries = Vec::new();
    for mirror in chosen(&config, names)? {
        let history = read_history(&session.repository.layout().remote(&mirror.name))?;
        for attempt in history.into_iter().filter(is_recent) {
            entries.push(Entry { repository: repository.clone(), mirror: mirror.name.clone(), attempt });
        }
    }
    Ok(entries)
}

/// A time as typed: a duration before now, or a date with or without a time. A date without an offset is in UTC.
fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(period) = crate::config::parse_period(text) {
        return now.checked_sub(period).map_err(|_| format!("'{text}' is too long ago"));
    }
    let at = text.parse::<Timestamp>().ok();
    let at = at.or_else(|| Some(text.parse::<jiff::civil::DateTime>().ok()?.in_tz("UTC").ok()?.timestamp()));
    at.ok_or_else(|| {
        format!("'{text}' is not a time; write a duration like \"2h\", or 2026-01-31, or 2026-01-31T17:00:00Z")
    })
}

fn json(entry: &Entry, is_of_many: bool) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(&entry.attempt)?;
    value["name"] = entry.mirror.as_str().into();
    value["remote"] = entry.mirror.as_str().into();
    if is_of_many {
        value["repository"] = entry.repository.as_str().into();
    }
    Ok(value)
}

fn print(entry: &Entry, is_of_many: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let Entry { repository, mirror, attempt } = entry;
    let repository = if is_of_many { format!("{}  ", escaped(repository)) } else { String::new() };
    let error = attempt.error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
    write!(
        out,
        "{}  {repository}{mirror}  {}  {} updated, {} failed, {} objects, {} bytes{error}",
        attempt.started_at,
        attempt.update_status.as_str(),
        attempt.updated,
        attempt.failed,
        attempt.objects,
        attempt.bytes,
    )?;
    for replaced in &attempt.replaced {
        let now = replaced.new.as_ref().map_or("deleted".to_owned(), |new| format!("now {new}"));
        write!(out, "; {} was {}, {now}", replaced.name, replaced.old)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_or_a_date() {
        let now: Timestamp = "2026-02-01T12:00:00Z".parse().expect("a time");
        for (text, expected) in [
            ("2h", "2026-02-01T10:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-01-31T17:00", "2026-01-31T17:00:00Z"),
            ("2026-01-31 17:00:05", "2026-01-31T17:00:05Z"),
            ("2026-01-31T17:00:00+02:00", "2026-01-31T15:00:00Z"),
        ] {
            assert_eq!(time(text, now).map(|time| time.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "99999999999999d", "5"] {
            assert!(time(text, now).is_err(), "{text}");
        }
    }
}
