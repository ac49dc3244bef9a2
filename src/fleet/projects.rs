//! The repositories of all nodes, as the projects that the API and the page show: their numbers,
//! lists of them, and the copies of the mirrors of one.
//!
//! A number is unique in the fleet. A node that joins keeps each of its numbers that no other node
//! has. New repositories get numbers from a block that the node has reserved, so that the node can
//! number them while the database does not answer.

use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::database::Database;
use super::look::{Look, Shown};
use super::{Error, GONE, copies};

/// How many numbers a node reserves at once.
const BLOCK: u32 = 1000;

/// Two nodes never give out numbers at once: the second one waits. The number of the lock has no
/// meaning.
const LOCK: &str = "with locked as (select pg_advisory_xact_lock(4283691723)) select '0' from locked";

/// Makes sure that the sequence gives only numbers above those that the node has given.
const ABOVE: &str = "
    select setval('repository_id_seq', greatest((select last_value from repository_id_seq), $1::bigint))::text";

const NUMBER: &str = "
    with given as (select * from jsonb_to_recordset($2::jsonb) as given (id bigint, git_dir text, path text)),
    kept as (
        insert into repository (id, node, git_dir, path) overriding system value
        select id, $1, git_dir, path from given
        where not exists (select from repository where node = $1 and repository.git_dir = given.git_dir)
            and not exists (select from node where name <> $1 and given.id between numbers_from and numbers_to)
        on conflict do nothing
        returning git_dir
    )
    select count(*)::text from kept";
const RENUMBER: &str = "
    with given as (select * from jsonb_to_recordset($2::jsonb) as given (id bigint, git_dir text, path text)),
    new as (
        insert into repository (node, git_dir, path) select $1, git_dir, path from given
        where not exists (select from repository where node = $1 and repository.git_dir = given.git_dir) order by id
        returning 1
    )
    select count(*)::text from new";
const CHANGED: &str = "
    select json_build_object('git_dir', git_dir, 'id', repository.id)::text
    from jsonb_to_recordset($2::jsonb) as given (id bigint, git_dir text) join repository using (git_dir)
    where node = $1 and repository.id <> given.id";

/// A repository and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Its number.
    pub id: u32,
    /// Its directory.
    pub git_dir: String,
    /// Its path below the root. Empty in an answer of the database.
    #[serde(default)]
    pub path: String,
}

/// Registers a node's repositories in the database, under their numbers where those are free.
/// `last` is the highest number that the node has ever given. Returns the repositories that have
/// another number in the database.
pub(super) fn number(database: &mut Database, node: &str, own: &[Numbered], last: u32) -> Result<Vec<Numbered>, Error> {
    database.rows::<u64>(LOCK, &[])?;
    database.rows::<u64>(ABOVE, &[&last.max(1).to_string()])?;
    let text = copies::json(&own)?;
    for statement in [NUMBER, RENUMBER] {
        database.rows::<u64>(statement, &[node, &text])?;
    }
    database.rows(CHANGED, &[node, &text])
}

const RESERVE: &str = "
    with next as (select setval('repository_id_seq', (select last_value from repository_id_seq) + $2::bigint) as last)
    update node set numbers_from = last + 1 - $2::bigint, numbers_to = last from next where name = $1 returning last::text";

/// Reserves numbers for repositories that are still to come.
pub(super) fn reserve(database: &mut Database, node: &str) -> Result<Range<u32>, Error> {
    database.rows::<u64>(LOCK, &[])?;
    let last = database.rows::<u32>(RESERVE, &[node, &BLOCK.to_string()])?.pop();
    let range = last.and_then(|last| Some(last.checked_add(1)?.checked_sub(BLOCK)?..last + 1));
    range.ok_or_else(|| Error::Odd("no number".into()))
}

/// A repository of a node, as the API and the page list it.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// Its number.
    pub id: u32,
    /// Its path below the root, without `.git`.
    pub path: String,
    /// Its node.
    pub node: String,
    /// Where the daemon of the node is reached; empty if it does not say.
    pub advertise: String,
    /// Whether the node lives.
    pub reachable: bool,
    /// When the database last heard of it.
    pub as_of: Timestamp,
    /// The worst state of its mirrors, as an index into [`crate::status::Standing::ALL`].
    pub worst: Option<usize>,
}

/// Regular expressions of PostgreSQL that match what patterns with `*` match.
#[must_use]
pub fn expressions(patterns: &[String]) -> Vec<String> {
    let part = |pattern: &String| pattern.split('*').map(regex::escape).collect::<Vec<_>>().join(".*");
    patterns.iter().map(|pattern| format!("^{}$", part(pattern))).collect()
}

const LISTED: &str = "
    json_build_object('id', id, 'path', path, 'node', node.name, 'advertise', advertise, 'as_of', seen,
        'reachable', seen > clock_timestamp() - make_interval(secs => $1::integer),
        'worst', (select min(state) from mirror where mirror.repository = repository.id))::text
    from repository join node on node.name = repository.node";

/// Maximum number of repositories that are counted, as in GitLab's API.
const MAX_COUNTED: usize = 10_001;

impl Look {
    /// Some of the repositories of all nodes, ordered by path, and how many match. The count ends
    /// at 10,001. `search` is in lower case. `paths` are [`expressions`]: one of them must match,
    /// and an empty list matches all. Repositories of the node `except` are skipped.
    ///
    /// # Errors
    /// [`Error`].
    pub fn projects(
        &mut self,
        search: &str,
        paths: &[String],
        except: &str,
        skip: usize,
        most: usize,
    ) -> Result<(Vec<Listed>, usize), Error> {
        if search.contains('\0') {
            return Ok((Vec::new(), 0));
        }
        const CHOSEN: &str = "
            repository.node <> $4 and ($2 = '' or position($2 in lower(path)) > 0)
                and ($3 = '[]' or path ~ any (array(select jsonb_array_elements_text($3::jsonb))))";
        let (gone, paths) = (GONE.to_string(), copies::json(&paths)?);
        let (skip, most, counted) = (skip.to_string(), most.to_string(), MAX_COUNTED.to_string());
        let sql = format!("select {LISTED} where {CHOSEN} order by path, id offset $5::bigint limit $6::bigint");
        let listed = self.rows(&sql, &[&gone, search, &paths, except, &skip, &most])?;
        let sql = format!(
            "select count(*)::text from (select from repository where $1 = $1 and {CHOSEN} limit $5::bigint) as counted"
        );
        let count: Vec<usize> = self.rows(&sql, &[&gone, search, &paths, except, &counted])?;
        Ok((listed, count.into_iter().next().unwrap_or(0)))
    }

    /// The repository with this number, or else with this path. If two have this path, it is the one
    /// with the lower number.
    ///
    /// # Errors
    /// [`Error`].
    pub fn project(&mut self, id_or_path: &str) -> Result<Option<Listed>, Error> {
        if id_or_path.contains('\0') {
            return Ok(None);
        }
        let path = id_or_path.strip_suffix(".git").unwrap_or(id_or_path);
        let number = id_or_path.parse::<u32>().map(|id| id.to_string()).unwrap_or_default();
        let sql = format!(
            "select {LISTED} where path = $2 or id = nullif($3, '')::bigint order by id is distinct from nullif($3, '')::bigint, id limit 1"
        );
        Ok(self.rows(&sql, &[&GONE.to_string(), path, &number])?.pop())
    }

    /// The copies of the mirrors of a repository.
    ///
    /// # Errors
    /// [`Error`].
    pub fn mirrors_of(&mut self, project: u32) -> Result<Vec<Shown>, Error> {
        const OF: &str = "
            select json_build_object(
                'place', json_build_array(state, failing_since::text, repository, mirror.name), 'node', mirror.node,
                'reachable', seen > clock_timestamp() - make_interval(secs => $1::integer), 'as_of', seen, 'shown', shown
            )::text
            from mirror join node on node.name = mirror.node where repository = $2::bigint order by (shown->>'id')::bigint";
        self.rows(OF, &[&GONE.to_string(), &project.to_string()])
    }
}
