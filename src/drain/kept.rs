//! Values that a run replaces, here or on a mirror: they stay reachable below `refs/rewritten/NAME/` until `keep_rewritten` has passed.
//!
//! Guaranteed: the ref exists, durably as far as git makes refs durable, before the value is replaced. A crash leaves the ref, and at worst
//! no line for it in `kept.jsonl`; then the ref stays for ever. Pushers can neither delete nor make such refs, because
//! `receive.hideRefs` names them.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Keep;
use crate::credentials::{Cleaned, Redactor};
use crate::drain::Error;
use crate::drain::update::UpdateResult;
use crate::durable;
use crate::mirror::Lock;
use crate::plan::{Decision, Side};
use crate::process::{self, git};
use crate::refs::{Local, Oid, RefName};
use crate::replies::Cause;
use crate::repo::Repository;
use crate::status::{Outcome, RefOutcome, render_time};

/// A value that is kept twice within this time has the date of the first time.
const RECENT: SignedDuration = SignedDuration::from_secs(60);
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
    /// How many bytes were fetched for it, and for the values that were kept with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub fetched: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// Keeps the values that the decisions in `replaced` replace, and notes in their outcomes where.
/// Returns the outcomes of those that cannot be kept.
pub(super) fn keep(
    repository: &Repository,
    mirror: &str,
    replaced: &[&Decision],
    now: Timestamp,
    result: &mut UpdateResult,
) -> Result<Vec<RefOutcome>, Error> {
    if replaced.is_empty() {
        return Ok(Vec::new());
    }
    let (mut commands, mut made, mut lines, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut placed: Vec<(RefName, &Decision)> = Vec::new();
    let mut names = Names::read(repository, mirror)?;
    let noted = read(&repository.layout().remote(mirror).join("kept.jsonl"))?;
    let noted: HashMap<&str, &Kept> = noted.iter().map(|line| (&*line.kept_as, line)).collect();
    for decision in replaced {
        let Some(value) = decision.old_value() else { continue };
        let Some(name) = names.place(mirror, &decision.name, value) else {
            let why = "what it replaces cannot be kept: no name below refs/rewritten is free";
            refused.push(RefOutcome::new(decision, Outcome::Rejected, Some(why.into())));
            continue;
        };
        if !names.values.contains_key(&name) {
            commands.push([b"create ", name.as_bytes(), format!("\0{value}\0").as_bytes()].concat());
            made.push(name.clone());
            names.add(name.clone(), Local::At(value));
        }
        // A value that was kept before gets a new time.
        let last = noted.get(&*name.text()).and_then(|line| line.at.parse::<Timestamp>().ok());
        if last.is_none_or(|last| now.duration_since(last) > RECENT) {
            lines.push(line(decision, &name, now));
        }
        if let Some(outcome) = result.outcomes.get_mut(&decision.name) {
            outcome.kept_as = Some(name.clone());
        }
        placed.push((name, *decision));
    }
    if let Err(error) = update_refs(repository, &commands.concat()) {
        // One name that cannot be made must stop no other.
        for (name, why) in make_each(repository, &commands, &made, &error)? {
            lines.retain(|line| line.kept_as != name.text());
            for (_, decision) in placed.iter().filter(|(kept_as, _)| *kept_as == name) {
                // A ref that is gone on both sides has no outcome.
                if let Some(outcome) = result.outcomes.get_mut(&decision.name) {
                    outcome.kept_as = None;
                }
                refused.push(RefOutcome::new(decision, Outcome::Rejected, Some(why.clone())));
            }
        }
    }
    if let Some(line) = lines.first_mut() {
        line.fetched = std::mem::take(&mut result.asked.unnoted);
    }
    note(repository, mirror, &lines)?;
    Ok(refused)
}

/// Makes the refs one by one, after all together failed with `error`. Returns those that cannot be made, with the reason.
///
/// # Errors
/// A failure that may pass.
fn make_each(
    repository: &Repository,
    commands: &[Vec<u8>],
    names: &[RefName],
    error: &process::Error,
) -> Result<Vec<(RefName, Cleaned)>, Error> {
    let passes = |error: &process::Error| {
        let text = error.to_string();
        [Cause::Locked, Cause::DiskFull, Cause::OurSide].iter().any(|cause| cause.is_in(&text))
    };
    if passes(error) {
        return Err(Error::Keep(error.to_string()));
    }
    let mut failed = Vec::new();
    for (command, name) in commands.iter().zip(names) {
        match update_refs(repository, command) {
            Ok(()) => {}
            Err(error) if passes(&error) => return Err(Error::Keep(error.to_string())),
            Err(error) => {
                let why = format!("what it replaces cannot be kept: {error}");
                failed.push((name.clone(), Redactor::default().clean(&why)));
            }
        }
    }
    Ok(failed)
}

/// Makes sure that git can write here without running what another user wrote: the directory must be ours, and in a shared repository git's
/// configuration too.
///
/// # Errors
/// [`Error::NotTaken`], or the files cannot be looked at.
pub(super) fn check_owner(repository: &Repository) -> Result<(), Error> {
    let git_dir = repository.git_dir();
    let owner = git_dir.metadata().map_err(Error::files("look at", git_dir.to_owned()))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        let text = format!(
            "'{}' belongs to another user; only its owner takes refs there, because git runs its hooks",
            git_dir.display()
        );
        return Err(Error::NotTaken(text));
    }
    match repository.is_shared() && !is_ours(&git_dir.join("config")) {
        true => written_by_others(&git_dir.join("config")),
        false => Ok(()),
    }
}

/// Whether nobody but us can have written a file, or it does not exist.
pub(super) fn is_ours(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(file) => durable::is_written_by_us_alone(&file) && !file.is_symlink(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// In a shared repository, git would run for us what a member of the group configured or put among the hooks.
///
/// # Errors
/// Always [`Error::NotTaken`].
pub(super) fn written_by_others(path: &Path) -> Result<(), Error> {
    let text = format!(
        "members of the group may have written '{0}', and git would run its programs as you; read it, then chown it and chmod go-w it",
        path.display()
    );
    Err(Error::NotTaken(text))
}

fn line(decision: &Decision, kept_as: &RefName, now: Timestamp) -> Kept {
    let reason = match (decision.side, decision.new_value()) {
        (Side::Here, Some(_)) => "replaced by upstream's value",
        (Side::Here, None) => "deleted by upstream",
        (Side::There, Some(_)) => "replaced on the mirror",
        (Side::There, None) => "deleted on the mirror",
    };
    Kept {
        at: render_time(now),
        name: decision.name.text().into_owned(),
        value: decision.old_value().map(|value| value.to_string()).unwrap_or_default(),
        kept_as: kept_as.text().into_owned(),
        reason: reason.into(),
        fetched: 0,
    }
}

fn note(repository: &Repository, mirror: &str, lines: &[Kept]) -> Result<(), Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = repository.layout().remote(mirror).join("kept.jsonl");
    append(&path, lines).map_err(Error::files("note what was kept", path))
}

/// The refs in which values of a mirror are kept.
struct Names {
    values: HashMap<RefName, Local>,
    /// The names above them, which no ref can have.
    directories: HashSet<Vec<u8>>,
}

impl Names {
    fn read(repository: &Repository, mirror: &str) -> Result<Self, Error> {
        let prefix = format!("refs/rewritten/{mirror}/");
        let mut names = Self { values: HashMap::new(), directories: HashSet::new() };
        let listed = repository.list(|name| name.as_bytes().starts_with(prefix.as_bytes()))?;
        listed.refs.into_iter().for_each(|(name, local)| names.add(name, local));
        Ok(names)
    }

    fn add(&mut self, name: RefName, local: Local) {
        self.directories.extend(above(&name).map(<[u8]>::to_vec));
        self.values.insert(name, local);
    }

    fn is_free(&self, name: &RefName) -> bool {
        let is_ref = |name: &[u8]| RefName::new(name).is_some_and(|name| self.values.contains_key(&name));
        !self.directories.contains(name.as_bytes()) && !above(name).any(is_ref)
    }

    /// The ref that is to hold a value, or holds it already. It begins with 12 digits of the value, or with more if another ref is in the
    /// way. `None` if all are taken.
    fn place(&self, mirror: &str, name: &RefName, value: Oid) -> Option<RefName> {
        let digits = value.to_string();
        let rest = name.as_bytes().strip_prefix(b"refs/").unwrap_or(name.as_bytes());
        (12..=digits.len()).find_map(|length| {
            let below = format!("refs/rewritten/{mirror}/{}/", &digits[..length]);
            let found = RefName::new(&[below.as_bytes(), rest].concat())?;
            match self.values.get(&found) {
                None => self.is_free(&found).then_some(found),
                Some(Local::At(held)) => (*held == value).then_some(found),
                Some(_) => None,
            }
        })
    }
}

/// The names above a ref: those of `refs/a/b` are `refs` and `refs/a`.
fn above(name: &RefName) -> impl Iterator<Item = &[u8]> {
    let bytes = name.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &bytes[..at])
}

/// Makes sure that pushers cannot change what is kept.
pub(super) fn hide(repository: &Repository) -> Result<(), Error> {
    let hidden = repository.git_config_all("receive.hideRefs");
    for namespace in HIDDEN.iter().filter(|namespace| !hidden.iter().any(|value| value == **namespace)) {
        let command = &mut git(repository.git_dir(), &["config", "--add", "receive.hideRefs", namespace]);
        process::run("git config", command, b"", LIMIT).map_err(|error| Error::Keep(error.to_string()))?;
    }
    Ok(())
}

/// Changes refs in one transaction, without hooks.
pub(super) fn update_refs(repository: &Repository, commands: &[u8]) -> Result<(), process::Error> {
    if commands.is_empty() {
        return Ok(());
    }
    let arguments = ["-c", "core.hooksPath=/dev/null", "update-ref", "--stdin", "-z"];
    let command = &mut git(repository.git_dir(), &arguments);
    process::run("git update-ref", command, commands, LIMIT).map(drop)
}

fn append(path: &Path, lines: &[Kept]) -> std::io::Result<()> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    durable::append_lines(path, &text)?.sync_all()
}

/// What is kept of a mirror, oldest first. A value that was kept twice is listed once, with the later date and all that was fetched for it.
///
/// # Errors
/// [`Error`], when the list or the refs cannot be read.
pub fn kept(repository: &Repository, mirror: &str) -> Result<Vec<Kept>, Error> {
    let prefix = format!("refs/rewritten/{mirror}/");
    let listed = repository.list(|name| name.as_bytes().starts_with(prefix.as_bytes()))?;
    let there: HashSet<String> = listed.refs.into_iter().map(|(name, _)| name.text().into_owned()).collect();
    let mut fetched: HashMap<String, u64> = HashMap::new();
    let mut lines = read(&repository.layout().remote(mirror).join("kept.jsonl"))?;
    for line in &lines {
        let sum = fetched.entry(line.kept_as.clone()).or_default();
        *sum = line.fetched.saturating_add(*sum);
    }
    lines.reverse();
    // The last line of a ref takes the sum of all of them.
    lines.retain_mut(|line| {
        let sum = fetched.remove(&line.kept_as).filter(|_| there.contains(&line.kept_as));
        sum.map(|sum| line.fetched = sum).is_some()
    });
    lines.reverse();
    Ok(lines)
}

/// The lines of the file. Damaged ones are left out.
fn read(path: &Path) -> Result<Vec<Kept>, Error> {
    Ok(read_text(path)?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Reads a line. `None` if it is damaged, or names something else than a kept value.
fn parse(line: &[u8]) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(line).ok()?;
    let is_kept = kept.kept_as.starts_with("refs/rewritten/") && RefName::new(kept.kept_as.as_bytes()).is_some();
    (is_kept && Oid::from_hex(kept.value.as_bytes()).is_some()).then_some(kept)
}

fn read_text(path: &Path) -> Result<Vec<u8>, Error> {
    match durable::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(read.map_err(Error::files("read what was kept", path.to_owned()))?.0),
    }
}

/// Deletes all refs that `kept.jsonl` names, whatever their time. It takes the mirror's lock, so no
/// run is at work.
///
/// # Errors
/// The list cannot be read or written, or the lock cannot be taken.
pub fn expire_all(repository: &Repository, mirror: &str, now: Timestamp) -> Result<(), Error> {
    let directory = repository.layout().remote(mirror);
    if !directory.join("kept.jsonl").exists() {
        return Ok(());
    }
    let _lock = Lock::acquire(&directory, repository.sharing())?;
    expire(repository, mirror, Keep::Nothing, now)
}

/// Deletes the refs whose time has passed. The caller has the lock of the mirror.
///
/// # Errors
/// [`Error`], when the list cannot be read or written.
pub(crate) fn expire(repository: &Repository, mirror: &str, keep: Keep, now: Timestamp) -> Result<(), Error> {
    let period = match keep {
        Keep::Forever => return Ok(()),
        Keep::Nothing => Duration::ZERO,
        Keep::For(period) => period,
    };
    let path = repository.layout().remote(mirror).join("kept.jsonl");
    let limit = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    let is_over = |line: &Kept| line.at.parse::<Timestamp>().is_ok_and(|at| now.duration_since(at) >= limit);
    let text = read_text(&path)?;
    let parsed = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parsed: Vec<(&[u8], Option<Kept>)> = parsed.map(|line| (line, parse(line))).collect();
    let (over, rest): (Vec<_>, Vec<_>) = parsed.into_iter().partition(|(_, line)| line.as_ref().is_some_and(is_over));
    if over.is_empty() {
        return Ok(());
    }
    // A value may have been kept again later, under the same ref.
    let later: HashSet<&str> = rest.iter().filter_map(|(_, line)| Some(&*line.as_ref()?.kept_as)).collect();
    let is_over = |line: &&Kept| !later.contains(&*line.kept_as);
    let mut names: Vec<&Kept> = over.iter().filter_map(|(_, line)| line.as_ref()).filter(is_over).collect();
    names.sort_unstable_by(|one, other| one.kept_as.cmp(&other.kept_as));
    names.dedup_by(|one, other| one.kept_as == other.kept_as);
    let mut failed = HashSet::new();
    for line in names {
        // A ref that someone moved or deleted meanwhile stays as it is.
        let command = format!("delete {}\0{}\0", line.kept_as, line.value);
        if let Err(error) = update_refs(repository, command.as_bytes()) {
            tracing::debug!("'{}' is not deleted: {error}", line.kept_as);
            failed.insert(line.kept_as.clone());
        }
    }
    // What could not be deleted is tried again.
    let held = Names::read(repository, mirror)?.values;
    let is_left = |line: &Kept| {
        failed.contains(&line.kept_as)
            && held.iter().any(|(name, local)| {
                name.text() == *line.kept_as && matches!(local, Local::At(value) if value.to_string() == line.value)
            })
    };
    let left = over.iter().filter(|(_, line)| line.as_ref().is_some_and(is_left));
    // Lines that this version cannot read stay.
    let left: Vec<u8> = left.chain(&rest).flat_map(|(line, _)| [line, &b"\n"[..]].concat()).collect();
    let sharing = repository.sharing();
    durable::replace(&path, &left, |file| sharing.publish(file)).map_err(Error::files("note what was kept", path))
}
