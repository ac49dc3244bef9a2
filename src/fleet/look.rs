//! What the database knows of all nodes, for people: `fleet`, `status --fleet`, `check --fleet`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::database::Database;
use super::{Access, Error, GONE, LIMIT, schema};
use crate::status::Standing;

/// A connection that only reads.
pub struct Look {
    database: Database,
}

/// A node.
#[derive(Debug, Deserialize)]
pub struct SeenNode {
    /// Its name.
    pub node: String,
    /// Whether it lives.
    pub reachable: bool,
    /// When the database last heard of it, by the clock of the database.
    pub as_of: Timestamp,
    /// When it joined.
    pub since: Timestamp,
    /// The version of its program.
    pub program: String,
    /// Where its daemon is reached; empty if it does not say.
    pub advertise: String,
    /// By how many milliseconds its clock is ahead of that of the database.
    pub clock_ahead_ms: i64,
    /// How many mirrors it serves.
    pub running: usize,
    /// How many wait there to be served.
    pub waiting: usize,
    /// A digest of `[hosts]` of its configuration.
    pub limits: String,
    /// Its mirrors by state.
    #[serde(deserialize_with = "by_state")]
    pub mirrors: BTreeMap<Standing, usize>,
}

/// A host of `[hosts]`, or one that has asked a node to wait.
#[derive(Debug, Deserialize)]
pub struct SeenHost {
    /// Its name.
    pub host: String,
    /// Maximum number of jobs there at once, of all nodes that live.
    pub max_jobs: Option<usize>,
    /// Maximum number of contacts in a minute, of all nodes that live.
    pub max_per_minute: Option<usize>,
    /// For how many milliseconds from now it has asked for no contact.
    pub wait_ms: Option<i64>,
    /// What it said.
    pub said: Option<String>,
    /// To which node.
    pub said_to: Option<String>,
    /// What the nodes that live do there.
    pub nodes: Vec<HostNode>,
}

/// What a node does at a host.
#[derive(Debug, Deserialize, serde::Serialize)]
pub struct HostNode {
    /// Its name.
    pub node: String,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub waiting: usize,
    /// How many may run at once.
    pub granted: usize,
}

/// Which mirrors are meant; empty texts choose all.
#[derive(Clone, Debug, Default)]
pub struct Only {
    /// Those of this node.
    pub node: String,
    /// Those at this host, with a port if it is not the usual one; `-` for a path.
    pub host: String,
    /// Those in this state.
    pub state: Option<Standing>,
}

/// The copy of a mirror.
#[derive(Debug, Deserialize)]
pub struct Shown {
    place: Place,
    /// The node that has it.
    pub node: String,
    /// Whether that node lives.
    pub reachable: bool,
    /// When the database last heard of the node.
    pub as_of: Timestamp,
    /// As `status --json` of the node shows it.
    pub shown: serde_json::Map<String, serde_json::Value>,
}

/// A place in the order of the list: state, failing since, repository, name.
#[derive(Clone, Debug, Deserialize)]
struct Place(u8, String, i64, String);

/// The number of mirrors in each state, and what waits for them.
#[derive(Debug, Default)]
pub struct Counts {
    /// The mirrors by state.
    pub mirrors: BTreeMap<Standing, usize>,
    /// The pushes that wait.
    pub pushes: usize,
    /// When the oldest of them was made.
    pub oldest: Option<Timestamp>,
}

/// Mirrors that push to one URL.
#[derive(Debug, Deserialize)]
pub struct Twins {
    /// The URL, masked.
    pub url: String,
    /// Its mirrors, the earliest first.
    pub mirrors: Vec<Twin>,
}

/// A mirror that pushes to the same URL as another one.
#[derive(Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub struct Twin {
    /// Its node.
    pub node: String,
    /// The directory of its repository.
    pub repository: String,
    /// Its name.
    pub name: String,
}

/// How many URLs of [`Twins`] are listed at most.
const MAX_TWINS: usize = 100;

const NODES: &str = "
    select json_build_object(
        'node', name, 'reachable', seen > clock_timestamp() - make_interval(secs => $1::integer), 'as_of', seen, 'since', since,
        'program', program, 'advertise', advertise, 'clock_ahead_ms', clock_ahead_ms, 'running', running, 'waiting', waiting,
        'limits', limits, 'mirrors', (
            select coalesce(json_agg(json_build_array(state, mirrors)), '[]')
            from (select state, sum(mirrors) as mirrors from tally where tally.node = node.name group by state) as of_node
        )
    )::text from node order by name";

const HOSTS: &str = "
    select json_build_object(
        'host', host.name, 'max_jobs', min(max_jobs) filter (where node.name is not null),
        'max_per_minute', min(max_per_minute) filter (where node.name is not null),
        'wait_ms', min(greatest(0, extract(epoch from wait_until - clock_timestamp()) * 1000)) filter (where isfinite(wait_until))::bigint, 'said', said, 'said_to', said_to,
        'nodes', coalesce(json_agg(json_build_object(
            'node', demand.node, 'running', demand.running, 'waiting', demand.waiting, 'granted', granted
        ) order by demand.node) filter (where node.name is not null), '[]')
    )::text
    from host left join demand on demand.host = host.name
        left join node on node.name = demand.node and seen > clock_timestamp() - make_interval(secs => $1::integer)
    where node.name is not null or wait_until > clock_timestamp() group by host.name order by host.name";

const MIRRORS: &str = "
    select json_build_object(
        'place', json_build_array(state, failing_since::text, repository, mirror.name), 'node', mirror.node,
        'reachable', seen > clock_timestamp() - make_interval(secs => $1::integer), 'as_of', seen, 'shown', shown
    )::text
    from mirror join node on node.name = mirror.node
    where ($2 = '' or mirror.node = $2) and ($3 = '' or host = $3) and ($4 = '' or state = $4::smallint)
        and (state, failing_since, repository, mirror.name) > ($5::smallint, $6::timestamptz, $7::bigint, $8)
    order by state, failing_since, repository, mirror.name limit $9::integer";

const COUNTS: &str = "
    select json_build_object('state', state, 'mirrors', sum(mirrors), 'pushes', sum(pushes), 'oldest', min(oldest))::text
    from tally where ($1 = '' or node = $1) and ($2 = '' or host = $2) and ($3 = '' or state = $3::smallint) group by state";

const TWINS: &str = "
    select json_build_object('url', min(shown->>'url'), 'mirrors', json_agg(
        json_build_object('node', mirror.node, 'repository', git_dir, 'name', name) order by repository, name
    ))::text
    from mirror join repository on repository.id = mirror.repository
    where target in (select target from mirror where target is not null group by target having count(distinct repository) > 1 limit $1::integer)
    group by target order by 1";

const TWINS_OF: &str = "
    select json_build_object('url', min(shown->>'url'), 'mirrors', json_agg(
        json_build_object('node', mirror.node, 'repository', git_dir, 'name', name) order by repository, name
    ))::text
    from mirror join repository on repository.id = mirror.repository
    where target in (
        select target from mirror join repository on repository.id = mirror.repository
        where repository.node = $1 and git_dir = $2 and target is not null
    )
    group by target having count(distinct repository) > 1 order by 1";

const IS_LIVE: &str = "
    select (instance <> '' and seen > clock_timestamp() - make_interval(secs => $2::integer))::text from node where name = $1";

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

impl Shown {
    /// How it stands, if this program knows that state.
    #[must_use]
    pub fn state(&self) -> Option<Standing> {
        Standing::ALL.get(usize::from(self.place.0)).copied()
    }
}

impl Look {
    /// Connects.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(access: &Access) -> Result<Self, Error> {
        Self::open_within(access, LIMIT)
    }

    /// Connects, and waits no longer than this for any answer.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open_within(access: &Access, limit: Duration) -> Result<Self, Error> {
        let mut database = Database::connect(access, limit)?;
        schema::check(&mut database)?;
        Ok(Self { database })
    }

    /// All nodes, by name.
    ///
    /// # Errors
    /// [`Error`].
    pub fn nodes(&mut self) -> Result<Vec<SeenNode>, Error> {
        self.rows(NODES, &[&GONE.to_string()])
    }

    /// The hosts of `[hosts]`, and those that have asked a node to wait.
    ///
    /// # Errors
    /// [`Error`].
    pub fn hosts(&mut self) -> Result<Vec<SeenHost>, Error> {
        self.rows(HOSTS, &[&GONE.to_string()])
    }

    /// The next `most` mirrors after `last`. Failing mirrors come first, and of these the ones that
    /// have failed longest.
    ///
    /// # Errors
    /// [`Error`].
    pub fn mirrors(&mut self, only: &Only, last: Option<&Shown>, most: usize) -> Result<Vec<Shown>, Error> {
        let Place(state, since, repository, name) =
            last.map_or_else(|| Place(0, "-infinity".into(), 0, String::new()), |shown| shown.place.clone());
        let (gone, chosen, state) = (GONE.to_string(), chosen(only), state.to_string());
        let (repository, most) = (repository.to_string(), most.to_string());
        self.rows(MIRRORS, &[&gone, &only.node, &only.host, &chosen, &state, &since, &repository, &name, &most])
    }

    /// The number of mirrors in each state.
    ///
    /// # Errors
    /// [`Error`].
    pub fn counts(&mut self, only: &Only) -> Result<Counts, Error> {
        #[derive(Deserialize)]
        struct Row {
            state: usize,
            mirrors: usize,
            pushes: usize,
            oldest: Option<Timestamp>,
        }
        let mut counts = Counts::default();
        for row in self.rows::<Row>(COUNTS, &[&only.node, &only.host, &chosen(only)])? {
            if let Some(standing) = Standing::ALL.get(row.state) {
                counts.mirrors.insert(*standing, row.mirrors);
                counts.pushes += row.pushes;
                counts.oldest = [counts.oldest, row.oldest].into_iter().flatten().min();
            }
        }
        Ok(counts)
    }

    /// The URLs that mirrors of more than one repository of the fleet push to.
    ///
    /// # Errors
    /// [`Error`].
    pub fn twins(&mut self) -> Result<Vec<Twins>, Error> {
        self.rows(TWINS, &[&MAX_TWINS.to_string()])
    }

    /// The URLs that mirrors of this repository push to, and mirrors of other repositories too.
    ///
    /// # Errors
    /// [`Error`].
    pub fn twins_of(&mut self, node: &str, git_dir: &str) -> Result<Vec<Twins>, Error> {
        self.rows(TWINS_OF, &[node, git_dir])
    }

    /// Whether silent mode is on for the whole fleet: then nothing may leave any machine.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_silent(&mut self) -> Result<bool, Error> {
        let found = self.rows::<bool>("select (value = 'true')::text from setting where name = 'silent'", &[])?;
        Ok(found.first() == Some(&true))
    }

    /// Turns silent mode on or off for the whole fleet.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_silent(&mut self, is_silent: bool) -> Result<(), Error> {
        const SET: &str = "
            insert into setting values ('silent', $1::jsonb) on conflict (name) do update set value = excluded.value
            returning value::text";
        self.rows::<bool>(SET, &[&is_silent.to_string()]).map(drop)
    }

    /// Removes a node and its copies. A node that runs is refused.
    ///
    /// # Errors
    /// [`Error`].
    pub fn forget(&mut self, node: &str) -> Result<(), Error> {
        self.database.transaction(|database| {
            match database.rows::<bool>(IS_LIVE, &[node, &GONE.to_string()])?.first() {
                None => Err(Error::NoNode(node.to_owned())),
                Some(true) => Err(Error::StillThere(node.to_owned())),
                Some(false) => {
                    database.rows::<String>("delete from node where name = $1 returning to_json(name)::text", &[node])
                }
            }
        })?;
        Ok(())
    }

    pub(super) fn rows<T: serde::de::DeserializeOwned>(&mut self, sql: &str, values: &[&str]) -> Result<Vec<T>, Error> {
        self.database.transaction(|database| database.rows(sql, values))
    }
}

/// The state as a parameter of a statement.
fn chosen(only: &Only) -> String {
    only.state.map(|state| (state as usize).to_string()).unwrap_or_default()
}

fn by_state<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Standing, usize>, D::Error> {
    let pairs = Vec::<(usize, usize)>::deserialize(deserializer)?;
    Ok(pairs.into_iter().filter_map(|(state, count)| Some((*Standing::ALL.get(state)?, count))).collect())
}
