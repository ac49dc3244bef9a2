//! The copies in the database: what the files of each mirror say. The files are the truth. A node sends what has changed, and everything
//! when the database may have lost something; sending twice changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use base64::Engine;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::database::Database;
use super::{Error, told};
use crate::config::{self, Config};
use crate::layout::Layout;
use crate::mirror;
use crate::status::{Standing, Summary, View, render_time, view};

/// Maximum number of refs of a mirror that are copied. The others are counted.
const MAX_REFS: usize = 20;

/// A repository, and a copy of what it says of its mirrors.
#[derive(Debug, Serialize)]
pub struct Repository {
    git_dir: String,
    path: String,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Serialize)]
struct Mirror {
    name: String,
    host: String,
    /// A digest of the address that it pushes to. `None` if it does not push, is disabled, or is a
    /// path on this machine.
    target: Option<String>,
    state: usize,
    failing_since: Option<String>,
    /// As `status --json` shows it.
    shown: serde_json::Value,
}

impl Repository {
    /// Its directory.
    pub(super) fn git_dir(&self) -> &str {
        &self.git_dir
    }

    /// Reads the files of a repository. `path` is its path below the root, without `.git`. `None` if it cannot have a copy, because its
    /// path is not UTF-8.
    ///
    /// # Errors
    /// The operating system's, when the files of its mirrors cannot be read.
    pub fn read(
        git_dir: &Path,
        path: &str,
        layout: &Layout,
        config: &Config,
        now: Timestamp,
    ) -> io::Result<Option<Self>> {
        let Some(text) = git_dir.to_str() else { return Ok(None) };
        let summaries = Summary::all(layout, config, now)?;
        let both = config.mirrors.iter().zip(summaries);
        let mirrors =
            both.map(|(mirror, summary)| Mirror::read(layout, mirror, summary, now)).collect::<io::Result<_>>()?;
        Ok(Some(Self { git_dir: text.to_owned(), path: path.to_owned(), mirrors }))
    }

    /// A repository that cannot be read.
    #[must_use]
    pub fn unreadable(git_dir: &Path, path: &str) -> Option<Self> {
        Some(Self { git_dir: git_dir.to_str()?.to_owned(), path: path.to_owned(), mirrors: Vec::new() })
    }
}

impl Mirror {
    fn read(layout: &Layout, mirror: &config::Mirror, summary: Summary, now: Timestamp) -> io::Result<Self> {
        // The secret only helps to mask a URL.
        let credentials = mirror::credentials(layout, mirror).unwrap_or_default();
        let is_sent = mirror.sends() && mirror.is_enabled && summary.host != "-";
        Ok(Self {
            name: summary.name,
            host: summary.host,
            // On another machine, the same path is another mirror.
            target: is_sent.then(|| digest(&mirror.address.identity())),
            state: summary.standing as usize,
            failing_since: summary.failing_since.map(render_time),
            shown: shown(view(layout, mirror, &credentials, now)?),
        })
    }
}

/// The SHA-256 digest of a text, in base64.
#[must_use]
pub fn digest(text: &str) -> String {
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(Sha256::digest(text))
}

/// A mirror as `status --json` shows it, with a masked URL, and not all of its refs.
fn shown(mut view: View) -> serde_json::Value {
    let left_out = view.refs.len().saturating_sub(MAX_REFS);
    view.refs.truncate(MAX_REFS);
    view.url = std::mem::take(&mut view.masked_url);
    let mut shown = serde_json::to_value(&view).unwrap_or_default();
    if left_out > 0 {
        shown["refs_left_out"] = left_out.into();
    }
    shown
}

const SEND_REPOSITORIES: &str = "
    with sent as (
        insert into repository as old (node, git_dir, path)
        select $1, git_dir, path from jsonb_to_recordset($2::jsonb) as given (git_dir text, path text)
        on conflict (node, git_dir) do update set path = excluded.path where old.path <> excluded.path
        returning 1
    )
    select count(*)::text from sent";

const SEND_MIRRORS: &str = "
    with given as (
        select repository.id, given.mirrors
        from jsonb_to_recordset($2::jsonb) as given (git_dir text, mirrors jsonb) join repository using (git_dir) where node = $1
    ), fresh as (
        select given.id, name, host, target, state, coalesce(failing_since, 'infinity') as failing_since, shown from given, jsonb_to_recordset(given.mirrors)
            as mirror (name text, host text, target text, state smallint, failing_since timestamptz, shown jsonb)
    ), sent as (
        insert into mirror as old (repository, name, node, host, target, state, failing_since, shown)
        select id, name, $1, host, target, state, failing_since, shown from fresh
        on conflict (repository, name) do update set host = excluded.host, target = excluded.target, state = excluded.state,
            failing_since = excluded.failing_since, shown = excluded.shown
        where (old.host, old.target, old.state, old.failing_since, old.shown)
            is distinct from (excluded.host, excluded.target, excluded.state, excluded.failing_since, excluded.shown)
        returning 1
    ), gone as (
        delete from mirror using given where mirror.repository = given.id
            and not exists (select from fresh where fresh.id = mirror.repository and fresh.name = mirror.name)
        returning 1
    )
    select count(*)::text from sent";

const REMOVE: &str = "
    with gone as (
        delete from repository where node = $1 and git_dir in (select jsonb_array_elements_text($2::jsonb)) returning 1
    )
    select count(*)::text from gone";

/// Changes the copies of a node.
pub(super) fn send(database: &mut Database, node: &str, changed: &[Repository]) -> Result<(), Error> {
    let text = json(&changed)?;
    database.rows::<u64>(SEND_REPOSITORIES, &[node, &text])?;
    database.rows::<u64>(SEND_MIRRORS, &[node, &text]).map(drop)
}

/// Removes copies of a node.
pub(super) fn remove(database: &mut Database, node: &str, gone: &HashSet<String>) -> Result<(), Error> {
    database.rows::<u64>(REMOVE, &[node, &json(&gone)?]).map(drop)
}

/// A mirror that pushes to a URL to which an earlier mirror of another repository pushes. Two mirrors of one repository may share a URL.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Later {
    /// The directory of its repository.
    pub git_dir: String,
    /// Its name.
    pub name: String,
    /// The node of the earlier one.
    pub node: String,
    /// The directory of the earlier one's repository.
    pub repository: String,
    /// The earlier one's name.
    pub mirror: String,
}

const LATER: &str = "
    select json_build_object('git_dir', own.git_dir, 'name', later.name, 'node', first.node, 'repository', theirs.git_dir,
        'mirror', first.name)::text
    from mirror later join repository own on own.id = later.repository
        join lateral (
            select * from mirror where mirror.target = later.target and mirror.repository < later.repository
            order by mirror.repository, mirror.name limit 1
        ) first on true
        join repository theirs on theirs.id = first.repository
    where later.node = $1 and later.target is not null
        and ($2 = '[]' or own.git_dir in (select jsonb_array_elements_text($2::jsonb)))";

/// The mirrors of a node that push to a URL to which an earlier mirror of the fleet pushes: those in these repositories, or, if none is named,
/// all.
pub(super) fn later(database: &mut Database, node: &str, git_dirs: &[&str]) -> Result<Vec<Later>, Error> {
    database.rows(LATER, &[node, &json(&git_dirs)?])
}

/// The repositories of a node that have copies.
pub(super) fn copied(database: &mut Database, node: &str) -> Result<Vec<String>, Error> {
    database.rows("select to_json(git_dir)::text from repository where node = $1", &[node])
}

/// The mirrors of a node that have one state at one host, and what waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    mirrors: usize,
    pushes: usize,
    oldest: Option<Timestamp>,
}

/// The tallies of a node, by host and [`Standing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(BTreeMap<(String, usize), Tally>);

impl Tallies {
    /// Counts a mirror.
    pub fn add(&mut self, mirror: &Summary) {
        let tally = match self.0.get_mut(&(mirror.host.clone(), mirror.standing as usize)) {
            Some(tally) => tally,
            None => self.0.entry((mirror.host.clone(), mirror.standing as usize)).or_default(),
        };
        tally.mirrors += 1;
        tally.pushes += mirror.backlog.pushes;
        let oldest = mirror.backlog.oldest.and_then(|oldest| Timestamp::from_duration(oldest.try_into().ok()?).ok());
        tally.oldest = [tally.oldest, oldest].into_iter().flatten().min();
    }

    /// Counts a repository that cannot be read.
    pub fn add_unreadable(&mut self) {
        self.0.entry(("-".into(), Standing::Unreadable as usize)).or_default().mirrors += 1;
    }
}

const SEND_TALLIES: &str = "
    with given as (
        select * from jsonb_to_recordset($2::jsonb) as given (host text, state smallint, mirrors integer, pushes bigint, oldest timestamptz)
    ), sent as (
        insert into tally as old (node, host, state, mirrors, pushes, oldest) select $1, given.* from given
        on conflict (node, host, state) do update set mirrors = excluded.mirrors, pushes = excluded.pushes, oldest = excluded.oldest
        where (old.mirrors, old.pushes, old.oldest) is distinct from (excluded.mirrors, excluded.pushes, excluded.oldest)
        returning 1
    ), gone as (
        delete from tally where node = $1
            and not exists (select from given where given.host = tally.host and given.state = tally.state)
        returning 1
    )
    select count(*)::text from sent";

/// Changes the tallies of a node.
pub(super) fn send_tallies(database: &mut Database, node: &str, tallies: &Tallies) -> Result<(), Error> {
    let row = |((host, state), tally): (&(String, usize), &Tally)| {
        serde_json::json!({
            "host": host, "state": state, "mirrors": tally.mirrors, "pushes": tally.pushes,
            "oldest": tally.oldest.map(render_time),
        })
    };
    let rows: Vec<serde_json::Value> = tallies.0.iter().map(row).collect();
    database.rows::<u64>(SEND_TALLIES, &[node, &json(&rows)?]).map(drop)
}

/// JSON that PostgreSQL takes: its texts have no null character (PostgreSQL, "JSON Types").
pub(super) fn json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|error| Error::Odd(told(&error)))?;
    Ok(text.replace("\\u0000", "\\ufffd"))
}
