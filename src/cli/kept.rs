//! `kept`: the replaced values that are kept here.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::args::Kept as Asked;
use super::{DONE, Session, Usage, by_name, now, print_json};
use crate::drain::{self, Kept};
use crate::mirror::new_id;
use crate::process::{self, git};
use crate::refs::{Local, Oid, RefName, RefUpdate};
use crate::spool::{self, Record};

/// A kept value as `--json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    mirror: &'a str,
    #[serde(flatten)]
    kept: &'a Kept,
}

/// Lists, restores or deletes what is kept.
pub(super) fn kept(session: &Session<'_>, asked: &Asked, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let names: Vec<String> = match &asked.name {
        Some(name) => vec![by_name(&config, name)?.name.clone()],
        None => config.mirrors.iter().map(|mirror| mirror.name.clone()).collect(),
    };
    if asked.expire {
        for name in &names {
            drain::expire_all(&session.repository, name, now())?;
        }
        return Ok(DONE);
    }
    let mut all: Vec<(&str, Kept)> = Vec::new();
    for name in &names {
        all.extend(drain::kept(&session.repository, name)?.into_iter().map(|kept| (&**name, kept)));
    }
    if let Some(wanted) = &asked.restore {
        return restore(session, &all, wanted, asked.new_name.as_deref());
    }
    if session.base.global.json {
        print_json(out, &all.iter().map(|(mirror, kept)| Json { mirror, kept }).collect::<Vec<_>>())?;
        return Ok(DONE);
    }
    for (mirror, kept) in &all {
        let value = kept.value.get(..12).unwrap_or(&kept.value);
        writeln!(out, "{}  {mirror}  {value}  {}  {}  ({})", kept.at, kept.name, kept.kept_as, kept.reason)?;
    }
    Ok(DONE)
}

/// Makes a ref with the value that was kept last, and gives it to the push mirrors.
fn restore(session: &Session<'_>, all: &[(&str, Kept)], wanted: &str, new_name: Option<&str>) -> anyhow::Result<u8> {
    let is_it = |(_, kept): &&(&str, Kept)| {
        let short = [kept.name.strip_prefix("refs/heads/"), kept.name.strip_prefix("refs/tags/")];
        kept.name == wanted || kept.kept_as == wanted || short.contains(&Some(wanted))
    };
    // All times are UTC in one format, so the texts sort in the order of the times.
    let Some((_, found)) = all.iter().filter(is_it).max_by_key(|(_, kept)| &kept.at) else {
        return Err(Usage(format!(
            "nothing is kept of '{}'; 'git mirror-push kept' lists what is",
            wanted.escape_debug()
        ))
        .into());
    };
    let target = match new_name {
        None => found.name.clone(),
        Some(name) if name.starts_with("refs/") => name.to_owned(),
        Some(name) => {
            let namespace = if found.name.starts_with("refs/tags/") { "refs/tags/" } else { "refs/heads/" };
            format!("{namespace}{name}")
        }
    };
    let name = RefName::new(target.as_bytes())
        .ok_or_else(|| Usage(format!("'{}' is not a ref name", target.escape_debug())))?;
    if session.repository.find_each(&[&name])?.first() != Some(&Local::Absent) {
        let fix = "restore it under another name with --as NAME, or delete that one first";
        return Err(Usage(format!("'{target}' exists; {fix}")).into());
    }
    let value = Oid::from_hex(found.value.as_bytes()).expect("a kept value is an object id");
    // No hook runs for this, so the record for the push mirrors is written here. If we are killed
    // before it is finished, the file that was begun causes a full sync.
    let id = new_id(now());
    let update = RefUpdate { old: value.null(), new: value, name };
    let record = spool::begin(&session.repository.layout(), id, &Record::of(id.time, vec![update]))?;
    let command = format!("create {target}\0{value}\0");
    let program = &mut git(session.repository.git_dir(), &["update-ref", "--stdin", "-z"]);
    let made = process::run("git update-ref", program, command.as_bytes(), Duration::from_secs(60));
    record.finish()?;
    made?;
    session.wake(&session.config()?);
    session.base.say(&format!("made '{target}' with the value {}", found.value));
    Ok(DONE)
}
