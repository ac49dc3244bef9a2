//! `conflicts` and `resolve`: the refs of two-way mirrors that both sides moved.

use std::io::Write;

use serde::Serialize;

use super::args::{Conflicts, Resolve as Wanted};
use super::update::{Asked, exit_status, run};
use super::{DONE, Session, Usage, by_name, print_json};
use crate::config::Direction;
use crate::drain::{MassDelete, Mode, Resolve};
use crate::plan::Side;
use crate::process::shell_word;
use crate::refs::RefName;
use crate::status::{self, Outcome, RefOutcome};

/// A conflict as `--json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    mirror: &'a str,
    #[serde(flatten)]
    outcome: &'a RefOutcome,
}

/// Lists the conflicts, each with its values and the commands that resolve it.
pub(super) fn conflicts(session: &Session<'_>, asked: &Conflicts, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirrors = match &asked.name {
        Some(name) => match by_name(&config, name)? {
            mirror if mirror.direction == Direction::Both => vec![mirror],
            _ => return Err(Usage(format!("mirror '{name}' goes one way only, so it has no conflicts; 'git mirror-push status {name}' shows its refs")).into()),
        },
        None => config.mirrors.iter().collect(),
    };
    let layout = session.repository.layout();
    let mut all: Vec<(&str, RefOutcome)> = Vec::new();
    for mirror in mirrors {
        let refs = status::of(&layout, mirror)?.refs.into_iter();
        let found = refs.filter(|outcome| outcome.outcome == Outcome::Conflict);
        all.extend(found.map(|outcome| (&*mirror.name, outcome)));
    }
    if session.base.global.json {
        print_json(out, &all.iter().map(|(mirror, outcome)| Json { mirror, outcome }).collect::<Vec<_>>())?;
        return Ok(DONE);
    }
    for (mirror, outcome) in &all {
        let text = |value: Option<crate::refs::Oid>| value.map_or("nothing".to_owned(), |value| value.to_string());
        let name = outcome.name.text();
        writeln!(out, "{mirror}  {name}")?;
        let (ours, theirs, base) = (text(outcome.local), text(outcome.remote), text(outcome.base));
        writeln!(out, "  here    {ours}\n  there   {theirs}\n  before  {base}")?;
        if let (Some(branch), Some(kept)) = (outcome.name.branch(), &outcome.kept_as) {
            let (branch, kept) = (shell_word(&String::from_utf8_lossy(branch)), shell_word(&kept.text()));
            writeln!(
                out,
                "  merge   git switch {branch} && git pull --ff-only && git fetch origin {kept} && git merge FETCH_HEAD && git push"
            )?;
        }
        let name = shell_word(&name);
        writeln!(
            out,
            "  or      git mirror-push resolve {mirror} {name} --ours (or --theirs); the other value is kept"
        )?;
    }
    Ok(DONE)
}

/// Lets one side of a conflict win. The other value is kept.
pub(super) fn resolve(session: &Session<'_>, asked: &Wanted, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    let refs = status::of(&session.repository.layout(), mirror)?.refs;
    let is_it = |name: &RefName| {
        let bytes = asked.reference.as_bytes();
        name.as_bytes() == bytes || name.branch() == Some(bytes) || name.tag() == Some(bytes)
    };
    let mut found = refs.iter().filter(|outcome| outcome.outcome == Outcome::Conflict && is_it(&outcome.name));
    let (Some(conflict), None) = (found.next(), found.next()) else {
        let (name, reference) = (&mirror.name, asked.reference.escape_debug());
        return Err(Usage(format!(
            "'{reference}' is not in conflict with mirror '{name}', or is a branch and a tag; 'git mirror-push conflicts {name}' lists the conflicts with their full names"
        ))
        .into());
    };
    let side = if asked.ours { Side::There } else { Side::Here };
    let (local, remote) = (conflict.local, conflict.remote);
    let resolve = Resolve { name: conflict.name.clone(), local, remote, side };
    let asks = Asked { resolve: Some(&resolve), ..Asked::from(Mode::Sync(MassDelete::Guarded)) };
    let reports = run(session, asks, std::slice::from_ref(&mirror.name), out)?;
    anyhow::ensure!(!reports.is_empty(), "mirror '{}' is disabled or silent, so nothing was resolved", mirror.name);
    let now = reports.iter().flat_map(|report| &report.refs).find(|outcome| outcome.name == conflict.name);
    if now.is_some_and(|now| now.outcome == Outcome::Conflict) {
        anyhow::bail!(
            "'{}' has moved since, so the conflict is another one; look at it: git mirror-push conflicts {}",
            conflict.name.text(),
            mirror.name
        );
    }
    let is_done = now.is_some_and(|now| now.outcome.is_done()) && reports.iter().all(|report| report.is_answered);
    // Other refs may still be in conflict.
    Ok(if is_done { DONE } else { exit_status(&reports) })
}
