//! The limits of `[hosts]`, divided among the nodes: what each node uses, wants and may do. A node
//! claims its part in a transaction that locks the rows of its hosts, so two nodes never get the
//! same place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::database::Database;
use super::divide::{Claim, grant};
use super::{Error, GONE, copies, digest};

/// The limits of a host. `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Maximum number of jobs at once.
    pub jobs: Option<usize>,
    /// Maximum number of contacts in a minute.
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Demand {
    host: String,
    node: String,
    running: usize,
    waiting: usize,
    granted: usize,
    begun: usize,
    granted_per_minute: usize,
    /// When its grant of places last rose from 0. `since_per_minute`: the same for contacts.
    since: i64,
    since_per_minute: i64,
    max_jobs: Option<usize>,
    max_per_minute: Option<usize>,
    /// Whether the node lives. What it began in the last minute counts in any case.
    #[serde(default, skip_serializing)]
    live: bool,
}

impl Demand {
    /// Its claim to places for jobs.
    fn jobs(&self) -> Claim {
        let Self { granted, since, running, waiting, .. } = *self;
        Claim { granted, since, used: running, wanted: running + waiting }
    }

    /// Its claim to contacts in a minute.
    fn contacts(&self) -> Claim {
        let Self { granted_per_minute, since_per_minute, begun, waiting, .. } = *self;
        Claim { granted: granted_per_minute, since: since_per_minute, used: begun, wanted: begun + waiting }
    }

    fn note(&mut self, found: Use) {
        let Use { running, waiting, begun } = found;
        (self.running, self.waiting, self.begun) = (running, waiting, begun);
    }
}

/// The largest limit that the tables hold. Nobody has more connections.
const MAX: usize = 1_000_000;

/// Makes the rows of the hosts, and locks them in an order that is the same on all nodes.
const ADD: &str = "
    with added as (
        insert into host (name) select jsonb_array_elements_text($1::jsonb) on conflict do nothing returning 1
    )
    select count(*)::text from added";
const LOCK: &str = "
    select to_json(name)::text from host where name in (select jsonb_array_elements_text($1::jsonb)) order by name for update";

/// The rows of the nodes that lived in the last minute. This is a statement of its own: it must see
/// what others wrote before this transaction had the locks.
const READ: &str = "
    select (to_jsonb(demand) || jsonb_build_object('live', seen > clock_timestamp() - make_interval(secs => $2::integer)))::text
    from demand join node on node.name = demand.node
    where host in (select jsonb_array_elements_text($1::jsonb)) and seen > clock_timestamp() - interval '1 minute' order by node collate \"C\"";

const WRITE: &str = "
    with given as (select * from jsonb_populate_recordset(null::demand, $2::jsonb)),
    written as (
        insert into demand select * from given
        on conflict (host, node) do update set running = excluded.running, waiting = excluded.waiting, granted = excluded.granted,
            begun = excluded.begun, granted_per_minute = excluded.granted_per_minute,
            since = excluded.since, since_per_minute = excluded.since_per_minute, max_jobs = excluded.max_jobs,
            max_per_minute = excluded.max_per_minute
        returning 1
    ), gone as (
        delete from demand where node = $1 and host not in (select host from given) returning 1
    )
    select count(*)::text from written";

/// This node's limits, what it uses, and a function that lowers its use.
pub struct Own<'a> {
    /// `[hosts]` of its configuration.
    pub limits: &'a Limits,
    /// What it uses.
    pub uses: &'a BTreeMap<String, Use>,
    /// Makes the node begin no more jobs than these parts allow, and returns what it uses then.
    pub lower: &'a dyn Fn(&Limits) -> BTreeMap<String, Use>,
}

impl Own<'_> {
    /// A digest of the limits, to see whether they are the same on all nodes.
    pub(super) fn digest(&self) -> String {
        let line = |(name, limit): (&String, &Limit)| format!("{name} {:?} {:?}\n", limit.jobs, limit.per_minute);
        digest(&self.limits.iter().map(line).collect::<String>())
    }
}

/// How many jobs an earlier process with this node's name began at each host in its last minute. A
/// process that was killed may have begun as many as it had been granted.
pub(super) fn begun(database: &mut Database, node: &str) -> Result<BTreeMap<String, usize>, Error> {
    let sql = "
        select json_build_array(host, greatest(begun, granted_per_minute))::text from demand join node on node.name = demand.node
        where node = $1 and seen > clock_timestamp() - interval '1 minute'";
    Ok(database.rows::<(String, usize)>(sql, &[node])?.into_iter().collect())
}

/// Divides the limits again. `earlier` is what an earlier process began at each host in the last
/// minute. `now` is the time of the database, in seconds since the Unix epoch. Returns the parts of
/// this node. They are valid only after the transaction has been committed.
pub(super) fn divide(
    database: &mut Database,
    node: &str,
    own: &Own<'_>,
    earlier: &BTreeMap<String, usize>,
    now: i64,
) -> Result<Limits, Error> {
    let names = copies::json(&own.limits.keys().collect::<Vec<_>>())?;
    let mut known: Vec<Demand> = Vec::new();
    if !own.limits.is_empty() {
        database.rows::<u64>(ADD, &[&names])?;
        database.rows::<String>(LOCK, &[&names])?;
        known = database.rows(READ, &[&names, &GONE.to_string()])?;
    }
    let noted = |name: &str, uses: &BTreeMap<String, Use>| {
        let found = uses.get(name).copied().unwrap_or_default();
        Use { begun: found.begun + earlier.get(name).copied().unwrap_or(0), ..found }
    };
    let limits = own.limits.iter();
    let divided = limits.map(|(name, limit)| divided(&known, name, node, *limit, noted(name, own.uses), now));
    let divided: Vec<(Demand, Limit)> = divided.collect();
    let own_part = |(row, part): &(Demand, Limit)| {
        // What an earlier process began is used up, and the counts of this process do not contain
        // it.
        let before = earlier.get(&row.host).copied().unwrap_or(0);
        (row.host.clone(), Limit { per_minute: part.per_minute.map(|part| part.saturating_sub(before)), ..*part })
    };
    let parts: Limits = divided.iter().map(own_part).collect();
    let mut mine: Vec<Demand> = divided.into_iter().map(|(row, _)| row).collect();
    let uses = (own.lower)(&parts);
    for row in &mut mine {
        let found = noted(&row.host, &uses);
        row.note(found);
    }
    database.rows::<u64>(WRITE, &[node, &copies::json(&mine)?])?;
    Ok(parts)
}

/// The new row of this node at a host, and its part.
fn divided(known: &[Demand], name: &str, node: &str, limit: Limit, found: Use, now: i64) -> (Demand, Limit) {
    let (mut here, gone): (Vec<Demand>, Vec<Demand>) =
        known.iter().filter(|row| row.host == name).cloned().partition(|row| row.live || row.node == node);
    // `READ` sorts by bytes, as this does, whatever the collation of the database is. So all nodes have the same order.
    let me = here.partition_point(|row| *row.node < *node);
    if here.get(me).is_none_or(|row| row.node != node) {
        here.insert(me, Demand { host: name.to_owned(), node: node.to_owned(), ..Demand::default() });
    }
    here[me].note(found);
    let bounded = |limit: Option<usize>| limit.map(|limit| limit.min(MAX));
    (here[me].max_jobs, here[me].max_per_minute) = (bounded(limit.jobs), bounded(limit.per_minute));
    let (mut row, mut part) = (here[me].clone(), Limit::default());
    // If nodes have different limits, the smallest holds for all.
    if let Some(limit) = here.iter().filter_map(|row| row.max_jobs).min() {
        let claims: Vec<Claim> = here.iter().map(Demand::jobs).collect();
        (row.granted, row.since) = grant(limit, &claims, me, now);
        part.jobs = Some(row.granted);
    }
    if let Some(limit) = here.iter().filter_map(|row| row.max_per_minute).min() {
        let claims: Vec<Claim> = here.iter().map(Demand::contacts).collect();
        // The jobs that nodes began in the last minute still count after these nodes are gone. Such
        // a node may have begun as many as it had been granted.
        let limit = limit.saturating_sub(gone.iter().map(|row| row.begun.max(row.granted_per_minute)).sum());
        (row.granted_per_minute, row.since_per_minute) = grant(limit, &claims, me, now);
        part.per_minute = Some(row.granted_per_minute);
    }
    (row, part)
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

/// A longer wait is cut to this, in seconds: anybody who may write to the database can write any
/// value. For the same reason at most 1000 hosts are read.
const LONGEST: i64 = 24 * 3600;

/// How long hosts ask to wait, from now. A duration, because the clocks of two machines may differ.
const ASKED: &str = "
    select json_build_object('host', name, 'milliseconds', (extract(epoch from least(
            wait_until - clock_timestamp(), make_interval(secs => $2::integer))) * 1000)::bigint,
        'said', said || ' (said to ' || said_to || ')')::text
    from host where isfinite(wait_until) and wait_until > clock_timestamp() and said_to <> $1 order by wait_until limit 1000";
const ASK: &str = "
    insert into host as old (name, wait_until, said, said_to)
    values ($1, clock_timestamp() + make_interval(secs => $2::double precision), $3, $4)
    on conflict (name) do update set wait_until = excluded.wait_until, said = excluded.said, said_to = excluded.said_to
        where old.wait_until is null or old.wait_until < excluded.wait_until
    returning 'true'";

/// The hosts that have asked other nodes to wait.
pub(super) fn asked(database: &mut Database, node: &str) -> Result<Vec<Asked>, Error> {
    database.rows(ASKED, &[node, &LONGEST.to_string()])
}

/// A host has asked this node to wait.
pub(super) fn ask(database: &mut Database, node: &str, asked: &Asked) -> Result<(), Error> {
    let seconds = (asked.milliseconds as f64 / 1000.0).to_string();
    database.rows::<bool>(ASK, &[&asked.host, &seconds, &asked.said, node]).map(drop)
}
