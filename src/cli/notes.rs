//! The notes that `status` adds to the outcome of a mirror: likely mistakes, other problems, and what to do about them.

use super::Session;
use crate::config::{Config, Direction, Mirror, TagsSetting};
use crate::mirror::{self, LocalMirror, OtherHead};
use crate::plan::Divergent;
use crate::refs::RefName;
use crate::status::{self, Outcome, View};

/// The notes on a mirror that is shown, a line each.
pub(super) fn of(session: &Session<'_>, config: &Config, mirror: &Mirror, shown: &View) -> anyhow::Result<Vec<String>> {
    let mut notes = session.editor().warnings(config, mirror);
    notes.extend(mirror::credentials(&session.repository.layout(), mirror).err().map(|error| error.to_string()));
    notes.extend(empty_selection(session, config, mirror)?);
    let status = status::of(&session.repository.layout(), mirror)?;
    let original = status::original(&status, session.repository.git_dir(), mirror);
    if let Some(original) = original.filter(|_| mirror.is_enabled) {
        notes.push(format!(
            "this repository is a copy of '{}', which has the same mirror, so each undoes what the other does; git mirror-push disable {} in one of them",
            original.display(),
            mirror.name
        ));
    }
    let local = LocalMirror::of(&mirror.address);
    if let Some(lost) = local.map(|local| local.lost_head(&session.repository)).transpose()?.flatten() {
        notes.push(format!("{lost}; {}", lost.fix()));
    }
    let head = status.pull.as_ref().and_then(|pull| RefName::new(pull.head.as_deref()?.as_bytes()));
    if let Some(other) = OtherHead::of(&session.repository, mirror, head.as_ref()) {
        notes.push(format!("{other}; to follow it: {}", other.fix()));
    }
    notes.extend(divergence(mirror, shown));
    Ok(notes)
}

/// The note on a mirror whose rules select no branch at all, or none of the branches and tags here.
/// Such rules are probably a mistake.
fn empty_selection(session: &Session<'_>, config: &Config, mirror: &Mirror) -> anyhow::Result<Option<String>> {
    let rules = config.rules(mirror, session.repository.default_branch()?.as_ref());
    if rules.selects_no_branch() {
        let fix = "see 'git mirror-push protect'";
        return Ok(Some(format!("no branch is protected, so no branch is mirrored; {fix}")));
    }
    let is_limited = mirror.only_protected_branches
        || mirror.mirror_branch_regex.is_some()
        || !mirror.excluded.is_empty()
        || !matches!(mirror.tags, TagsSetting::All);
    if !is_limited || !mirror.refspecs.is_empty() {
        return Ok(None);
    }
    let is_ref = |name: &RefName| name.branch().is_some() || name.tag().is_some();
    // A run and `doctor` report refs that cannot be listed.
    let Ok(listing) = session.repository.list(|_| true) else { return Ok(None) };
    let mut names = listing.refs.iter().map(|(name, _)| name).filter(|name| is_ref(name)).peekable();
    if names.peek().is_none() || names.any(|name| rules.selects(name.borrowed())) {
        return Ok(None);
    }
    let keys = [
        ("only_protected_branches", "false (or git mirror-push protect BRANCH)", mirror.only_protected_branches),
        ("mirror_branch_regex", "REGEX", mirror.mirror_branch_regex.is_some()),
        ("tags", "all", !matches!(mirror.tags, TagsSetting::All)),
        ("refspecs", "REFSPECS", !mirror.excluded.is_empty()),
    ];
    let set = || keys.iter().filter(|(.., is_set)| *is_set);
    let (keys, fixes): (Vec<&str>, Vec<String>) = set().map(|(key, value, _)| (*key, format!("{key}={value}"))).unzip();
    Ok(Some(format!(
        "nothing is mirrored: no branch or tag of this repository matches {}; to change that: git mirror-push set {} {}",
        keys.join(" and "),
        mirror.name,
        fixes.join(" ")
    )))
}

/// What to do about refs that someone else moved.
fn divergence(mirror: &Mirror, shown: &View) -> Option<String> {
    let is_divergent =
        shown.refs.iter().any(|outcome| matches!(outcome.outcome, Outcome::Divergent | Outcome::Conflict));
    let is_kept = is_divergent && !shown.needs_adoption && mirror.divergent != Divergent::Overwrite;
    let name = &mirror.name;
    is_kept.then(|| match mirror.direction {
        Direction::Pull => format!(
            "someone moved the divergent refs here; to see upstream's commits: git fetch mirror::{name}; to take them: set the refs to them (git fetch mirror::{name} BRANCH && git update-ref refs/heads/BRANCH FETCH_HEAD), or git mirror-push set {name} --divergent-refs overwrite, which keeps what is here below refs/rewritten/{name}"
        ),
        Direction::Both => format!(
            "both sides moved the refs in conflict; for the commands that resolve it: git mirror-push conflicts {name}"
        ),
        Direction::Push => format!(
            "someone else pushed to the divergent refs of the mirror; to fetch their commits: git fetch mirror::{name}; to overwrite them: git mirror-push set {name} --divergent-refs overwrite"
        ),
    })
}
