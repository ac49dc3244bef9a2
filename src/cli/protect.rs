//! `protect`, `unprotect`, `protected`, `silent`, `set KEY=VALUE`: top-level keys of the repository's file.

use std::io::Write;

use super::args::Switch;
use super::{Base, DONE, Session, Usage, print_json};
use crate::config::{Change, Config, Edit, edit};
use crate::mirror::Keys;

/// The key of the patterns.
const PROTECTED: &str = "protected_branches";

/// The configured patterns, or the default branch if none are configured.
fn effective(session: &Session<'_>, config: &Config) -> anyhow::Result<Vec<String>> {
    if let Some(patterns) = &config.protected_branches {
        return Ok(patterns.clone());
    }
    Ok(session
        .repository
        .default_branch()?
        .map(|name| String::from_utf8_lossy(name.branch().unwrap_or(name.as_bytes())).into_owned())
        .into_iter()
        .collect())
}

fn change(session: &Session<'_>, patterns: Vec<String>) -> anyhow::Result<u8> {
    session.editor().prepare()?;
    let config =
        edit(&session.repository, &session.base.server, &Edit::Top(vec![(PROTECTED, Change::List(patterns))]))?;
    super::mirrors::compare_all(session, &config)?;
    Ok(DONE)
}

/// Adds patterns. If the key `protected_branches` was not set, the default branch was protected. It is then added to the patterns, so it
/// stays protected.
pub(super) fn protect(session: &Session<'_>, new: &[String]) -> anyhow::Result<u8> {
    if let Some(bad) = new.iter().find(|pattern| pattern.is_empty() || pattern.chars().any(char::is_control)) {
        return Err(Usage(format!("'{}' is not a pattern for branch names", bad.escape_debug())).into());
    }
    let mut patterns = effective(session, &session.config()?)?;
    patterns.extend(new.iter().filter(|pattern| !patterns.contains(pattern)).cloned().collect::<Vec<_>>());
    change(session, patterns)
}

/// Takes patterns away.
pub(super) fn unprotect(session: &Session<'_>, gone: &[String]) -> anyhow::Result<u8> {
    let mut patterns = effective(session, &session.config()?)?;
    if let Some(unknown) = gone.iter().find(|pattern| !patterns.contains(pattern)) {
        anyhow::bail!(
            "'{}' is not protected as a pattern; 'git mirror-push protected' lists the patterns",
            unknown.escape_debug()
        );
    }
    patterns.retain(|pattern| !gone.contains(pattern));
    change(session, patterns)
}

/// Lists the patterns.
pub(super) fn protected(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let patterns = effective(session, &session.config()?)?;
    if session.base.global.json {
        print_json(out, &patterns)?;
    } else {
        for pattern in patterns {
            writeln!(out, "{pattern}")?;
        }
    }
    Ok(DONE)
}

/// Changes keys of the repository.
pub(super) fn set_keys(session: &Session<'_>, keys: Keys) -> anyhow::Result<u8> {
    session.editor().prepare()?;
    let selects = keys.iter().any(|(key, _)| *key == PROTECTED);
    let config = edit(&session.repository, &session.base.server, &Edit::Top(keys))?;
    if selects {
        super::mirrors::compare_all(session, &config)?;
    } else {
        session.wake(&config);
    }
    Ok(DONE)
}

/// How silent mode ends.
pub(super) fn end_of_silence(base: &Base) -> &'static str {
    match base.server.top.silent {
        Some(true) => "to end it, remove 'silent = true' from the server's file",
        _ => "'git mirror-push silent off' ends it",
    }
}

/// Switches silent mode.
pub(super) fn silent(session: &Session<'_>, state: Switch) -> anyhow::Result<u8> {
    session.editor().prepare()?;
    let value = if state == Switch::On { Change::Flag(true) } else { Change::Unset };
    let config = edit(&session.repository, &session.base.server, &Edit::Top(vec![("silent", value)]))?;
    match (state, config.is_silent) {
        (Switch::On, _) => session.base.say("silent: nothing leaves this machine; pushes are still spooled"),
        (Switch::Off, true) => session.base.warn("still silent: the server's configuration says so"),
        (Switch::Off, false) => session.wake(&config),
    }
    Ok(DONE)
}
