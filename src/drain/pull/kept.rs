//! Values that a pull replaces here: they stay reachable below `refs/rewritten/NAME/` until `keep_rewritten` has passed.
//!
//! Guaranteed: the ref exists, durably as far as git makes refs durable, before the value is replaced. A crash leaves the ref, and at worst
//! no line for it in `kept.jsonl`; then the ref stays for ever. Pushers can neither delete nor make such refs, because
//! `receive.hideRefs` names them.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::config::Keep;
use crate::drain::Error;
use crate::durable;
use crate::plan::Decision;
use crate::process::{self, git};
use crate::refs::{Local, Oid, RefName};
use crate::repo::Repository;
use crate::status::render_time;

/// How long one call of git may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The namespaces that pushers may not change.
const HIDDEN: [&str; 2] = ["refs/rewritten", "refs/conflicts"];

/// A value that is kept: a line of `kept.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// When it was replaced.
    pub at: String,
    /// The ref that had the value.
    #[serde(rename = "ref")]
    pub name: String,
    /// The value.
    pub value: String,
    /// The ref that has it now.
    pub kept_as: String,
    /// Why it was replaced.
    pub reason: String,
}

/// Keeps our values of `replaced`. Returns the ref that holds each of them now.
pub(super) fn keep(
    repository: &Repository,
    mirror: &str,
    replaced: &[&Decision],
    now: Timestamp,
) -> Result<HashMap<RefName, RefName>, Error> {
    let mut kept = HashMap::new();
    if replaced.is_empty() {
        return Ok(kept);
    }
    hide(repository)?;
    let (mut commands, mut lines) = (Vec::new(), Vec::new());
    for decision in replaced {
        let Some(value) = decision.local else { continue };
        let (name, is_there) = place(repository, mirror, &decision.name, value)?;
        if !is_there {
            commands.extend_from_slice(&[b"create ", name.as_bytes(), format!("\0{value}\0").as_bytes()].concat());
        }
        let reason = if decision.remote.is_some() { "replaced by upstream's value" } else { "deleted by upstream" };
        lines.push(Kept {
            at: render_time(now),
            name: decision.name.text().into_owned(),
            value: value.to_string(),
            kept_as: name.text().into_owned(),
            reason: reason.into(),
        });
        kept.insert(decision.name.clone(), name);
    }
    update_refs(repository, &commands).map_err(|error| Error::Keep(error.to_string()))?;
    let path = repository.layout().remote(mirror).join("kept.jsonl");
    append(&path, &lines).map_err(Error::files("note what was kept", path))?;
    Ok(kept)
}

/// The ref that is to hold a value, and whether it holds it already. It begins with 12 digits of the value, or with more if another value
/// has that name.
fn place(repository: &Repository, mirror: &str, name: &RefName, value: Oid) -> Result<(RefName, bool), Error> {
    let digits = value.to_string();
    let rest = name.as_bytes().strip_prefix(b"refs/").unwrap_or(name.as_bytes());
    for length in 12..=digits.len() {
        let text = [format!("refs/rewritten/{mirror}/{}/", &digits[..length]).as_bytes(), rest].concat();
        let found = RefName::new(&text).ok_or_else(|| Error::Keep(format!("'{}' is too long", name.text())))?;
        match repository.find_each(&[&found])?.first() {
            Some(Local::Absent) | None => return Ok((found, false)),
            Some(Local::At(there)) if *there == value => return Ok((found, true)),
            Some(_) => {}
        }
    }
    Err(Error::Keep(format!("no name is free for {digits}")))
}

/// Makes sure that pushers cannot change what is kept.
fn hide(repository: &Repository) -> Result<(), Error> {
    let hidden = repository.git_config_all("receive.hideRefs");
    for namespace in HIDDEN.iter().filter(|namespace| !hidden.iter().any(|value| value == **namespace)) {
        let command = &mut git(repository.git_dir(), &["config", "--add", "receive.hideRefs", namespace]);
        process::run("git config", command, b"", LIMIT).map_err(|error| Error::Keep(error.to_string()))?;
    }
    Ok(())
}

/// Changes refs in one transaction, without hooks.
fn update_refs(repository: &Repository, commands: &[u8]) -> Result<(), process::Error> {
    if commands.is_empty() {
        return Ok(());
    }
    let arguments = ["-c", "core.hooksPath=/dev/null", "update-ref", "--stdin", "-z"];
    let command = &mut git(repository.git_dir(), &arguments);
    process::run("git update-ref", command, commands, LIMIT).map(drop)
}

fn append(path: &Path, lines: &[Kept]) -> std::io::Result<()> {
    let (mut file, _) = durable::open_shared(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    file.write_all(&text)?;
    file.sync_all()
}

/// What is kept of a mirror, oldest first. A value that was kept twice is listed once, with the later date.
///
/// # Errors
/// [`Error`], when the list or the refs cannot be read.
pub fn kept(repository: &Repository, mirror: &str) -> Result<Vec<Kept>, Error> {
    let prefix = format!("refs/rewritten/{mirror}/");
    let listed = repository.list(|name| name.as_bytes().starts_with(prefix.as_bytes()))?;
    let there: HashSet<String> = listed.refs.into_iter().map(|(name, _)| name.text().into_owned()).collect();
    let mut lines = read(&repository.layout().remote(mirror).join("kept.jsonl"))?;
    let mut seen = HashSet::new();
    lines.reverse();
    lines.retain(|line| there.contains(&line.kept_as) && seen.insert(line.kept_as.clone()));
    lines.reverse();
    Ok(lines)
}

/// The lines of the file. Damaged ones are left out.
fn read(path: &Path) -> Result<Vec<Kept>, Error> {
    match durable::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::files("read what was kept", path.to_owned())(error)),
        Ok((text, _)) => {
            Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
        }
    }
}

/// Deletes the refs whose time has passed.
///
/// # Errors
/// [`Error`], when the list cannot be read or written.
pub fn expire(repository: &Repository, mirror: &str, keep: Keep, now: Timestamp) -> Result<(), Error> {
    let period = match keep {
        Keep::Forever => return Ok(()),
        Keep::Nothing => Duration::ZERO,
        Keep::For(period) => period,
    };
    let path = repository.layout().remote(mirror).join("kept.jsonl");
    let limit = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    let is_over = |line: &Kept| line.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) >= limit);
    let (over, rest): (Vec<Kept>, Vec<Kept>) = read(&path)?.into_iter().partition(is_over);
    if over.is_empty() {
        return Ok(());
    }
    // A value may have been kept again later, under the same ref.
    let is_needed = |line: &&Kept| !rest.iter().any(|later| later.kept_as == line.kept_as);
    let mut names: Vec<&Kept> = over.iter().filter(is_needed).collect();
    names.sort_unstable_by(|one, other| one.kept_as.cmp(&other.kept_as));
    names.dedup_by(|one, other| one.kept_as == other.kept_as);
    for line in names {
        // A ref that someone moved or deleted meanwhile stays as it is.
        let command = format!("delete {}\0{}\0", line.kept_as, line.value);
        if let Err(error) = update_refs(repository, command.as_bytes()) {
            tracing::debug!("'{}' is not deleted: {error}", line.kept_as);
        }
    }
    let mut left = Vec::new();
    for line in &rest {
        serde_json::to_writer(&mut left, line).expect("memory takes it");
        left.push(b'\n');
    }
    let sharing = repository.sharing();
    durable::replace(&path, &left, |file| sharing.publish(file)).map_err(Error::files("note what was kept", path))
}
