//! The limits of `[hosts]`, divided among the nodes: what each of them uses, wants and may do. A node asks in a transaction that locks the
//! rows of its hosts, so two nodes never get the same place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::database::Database;
use super::divide::{Claim, grant};
use super::{Error, GONE, copies, digest};

/// The limits of a host; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Most jobs at once.
    pub jobs: Option<usize>,
    /// Most contacts in a minute.
    pub per_minute: Option<usize>,
}

/// Limits, or parts of them, by the name of the host.
pub type Limits = BTreeMap<String, Limit>;

/// What a node does at a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// Jobs that began in the last minute.
    pub begun: usize,
}

/// A row: what a node does, wants and may do at a host.
#[derive(Debug, Serialize, Deserialize)]
struct Demand {
    host: String,
    node: String,
    running: usize,
    waiting: usize,
    granted: usize,
    begun: usize,
    granted_per_minute: usize,
    max_jobs: Option<usize>,
    max_per_minute: Option<usize>,
}

/// Makes rows to lock, and locks them, in an order on which all agree.
const ADD: &str = "
    with added as (
        insert into host (name) select jsonb_array_elements_text($1::jsonb) on conflict do nothing returning 1
    )
    select count(*)::text from added";
const LOCK: &str = "
    select to_json(name)::text from host where name in (select jsonb_array_elements_text($1::jsonb)) order by name for update";

/// What the other nodes say that live. This is a statement of its own: it must see what was written before the locks were ours.
const READ: &str = "
    select row_to_json(demand)::text from demand join node on node.name = demand.node
    where host in (select jsonb_array_elements_text($1::jsonb)) and node.name <> $2
        and seen > clock_timestamp() - make_interval(secs => $3::integer)";

const WRITE: &str = "
    with given as (select * from jsonb_populate_recordset(null::demand, $2::jsonb)),
    written as (
        insert into demand select * from given
        on conflict (host, node) do update set running = excluded.running, waiting = excluded.waiting, granted = excluded.granted,
            begun = excluded.begun, granted_per_minute = excluded.granted_per_minute, max_jobs = excluded.max_jobs,
            max_per_minute = excluded.max_per_minute
        returning 1
    ), gone as (
        delete from demand where node = $1 and host not in (select host from given) returning 1
    )
    select count(*)::text from written";

/// What this node has, and how it takes less.
pub struct Own<'a> {
    /// `[hosts]` of its configuration.
    pub limits: &'a Limits,
    /// What it has been granted.
    pub granted: &'a Limits,
    /// What it uses.
    pub uses: &'a BTreeMap<String, Use>,
    /// Makes it begin nothing more than these parts allow, and says what it uses then.
    pub lower: &'a dyn Fn(&Limits) -> BTreeMap<String, Use>,
}

impl Own<'_> {
    /// A digest of the limits, to see whether they are the same on all nodes.
    pub(super) fn digest(&self) -> String {
        let line = |(name, limit): (&String, &Limit)| format!("{name} {:?} {:?}\n", limit.jobs, limit.per_minute);
        digest(&self.limits.iter().map(line).collect::<String>())
    }
}

/// Divides the limits anew. Returns the parts of this node. They hold once the transaction is done.
pub(super) fn divide(database: &mut Database, node: &str, own: &Own<'_>, turn: usize) -> Result<Limits, Error> {
    let names = copies::json(&own.limits.keys().collect::<Vec<_>>())?;
    let mut parts = Limits::new();
    if !own.limits.is_empty() {
        database.rows::<u64>(ADD, &[&names])?;
        database.rows::<String>(LOCK, &[&names])?;
        let others: Vec<Demand> = database.rows(READ, &[&names, node, &GONE.to_string()])?;
        for name in own.limits.keys() {
            let here = others.iter().filter(|demand| demand.host == *name).collect::<Vec<_>>();
            parts.insert(name.clone(), part(node, own, name, &here, turn));
        }
    }
    let uses = (own.lower)(&parts);
    let rows: Vec<Demand> = parts.iter().map(|(name, part)| row(node, own, name, *part, &uses)).collect();
    database.rows::<u64>(WRITE, &[node, &copies::json(&rows)?])?;
    Ok(parts)
}

/// The part of this node at a host, where `others` do something too.
fn part(node: &str, own: &Own<'_>, name: &str, others: &[&Demand], turn: usize) -> Limit {
    let used = own.uses.get(name).copied().unwrap_or_default();
    let granted = own.granted.get(name).copied().unwrap_or_default();
    // All nodes have the same order of names.
    let me = others.iter().filter(|other| *other.node < *node).count();
    let of = |mine: Claim, other: &dyn Fn(&Demand) -> Claim| -> Vec<Claim> {
        let mut claims: Vec<(&str, Claim)> = others.iter().map(|demand| (&*demand.node, other(demand))).collect();
        claims.push((node, mine));
        claims.sort_by_key(|(node, _)| *node);
        claims.into_iter().map(|(_, claim)| claim).collect()
    };
    let jobs = Claim { granted: granted.jobs.unwrap_or(0), used: used.running, wanted: used.running + used.waiting };
    let jobs = of(jobs, &|demand| Claim {
        granted: demand.granted,
        used: demand.running,
        wanted: demand.running + demand.waiting,
    });
    let contacts =
        Claim { granted: granted.per_minute.unwrap_or(0), used: used.begun, wanted: used.begun + used.waiting };
    let contacts = of(contacts, &|demand| Claim {
        granted: demand.granted_per_minute,
        used: demand.begun,
        wanted: demand.begun + demand.waiting,
    });
    let limit = own.limits.get(name).copied().unwrap_or_default();
    // The smallest limit that a node has holds for all.
    let max_jobs = others.iter().filter_map(|demand| demand.max_jobs).chain(limit.jobs).min();
    let per_minute = others.iter().filter_map(|demand| demand.max_per_minute).chain(limit.per_minute).min();
    Limit {
        jobs: max_jobs.map(|limit| grant(limit, &jobs, me, turn)),
        per_minute: per_minute.map(|limit| grant(limit, &contacts, me, turn)),
    }
}

fn row(node: &str, own: &Own<'_>, name: &str, part: Limit, uses: &BTreeMap<String, Use>) -> Demand {
    let Use { running, waiting, begun } = uses.get(name).copied().unwrap_or_default();
    let limit = own.limits.get(name).copied().unwrap_or_default();
    Demand {
        host: name.to_owned(),
        node: node.to_owned(),
        running,
        waiting,
        granted: part.jobs.unwrap_or(0),
        begun,
        granted_per_minute: part.per_minute.unwrap_or(0),
        max_jobs: limit.jobs,
        max_per_minute: limit.per_minute,
    }
}

/// A host that has asked somebody to wait.
#[derive(Clone, Debug, Deserialize)]
pub struct Asked {
    /// Its name, with a port if that is not the usual one.
    pub host: String,
    /// For how many milliseconds from now.
    pub milliseconds: i64,
    /// What it said, and to which node.
    pub said: String,
}

/// How long hosts ask to wait, from now. Times of one clock mean nothing to another one.
const ASKED: &str = "
    select json_build_object('host', name, 'milliseconds', (extract(epoch from wait_until - clock_timestamp()) * 1000)::bigint,
        'said', said || ' (said to ' || said_to || ')')::text
    from host where wait_until > clock_timestamp() and said_to <> $1";
const ASK: &str = "
    insert into host as old (name, wait_until, said, said_to)
    values ($1, clock_timestamp() + make_interval(secs => $2::double precision), $3, $4)
    on conflict (name) do update set wait_until = excluded.wait_until, said = excluded.said, said_to = excluded.said_to
        where old.wait_until is null or old.wait_until < excluded.wait_until
    returning 'true'";

/// The hosts that have asked other nodes to wait.
pub(super) fn asked(database: &mut Database, node: &str) -> Result<Vec<Asked>, Error> {
    database.rows(ASKED, &[node])
}

/// A host has asked this node to wait.
pub(super) fn ask(database: &mut Database, node: &str, asked: &Asked) -> Result<(), Error> {
    let seconds = (asked.milliseconds as f64 / 1000.0).to_string();
    database.rows::<bool>(ASK, &[&asked.host, &seconds, &asked.said, node]).map(drop)
}
