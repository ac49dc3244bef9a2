//! A node: one daemon's row in the database, and what it tells and learns at each beat.
//!
//! The row has a count of the node's beats and of its transactions that change copies or numbers.
//! If the count is lower than the one that this node knows, the database has lost some of them, for
//! example in a crash or because it was restored. Everything is then sent again.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::database::Database;
use super::hosts::{self, Asked, Limits, Own};
use super::{Access, Error, GONE, LIMIT, Later, Numbered, Repository, Tallies, copies, projects, schema};

/// This machine's daemon as a node.
pub struct Node {
    access: Access,
    /// Distinguishes this process from another one with the same name.
    instance: String,
    database: Option<Database>,
    /// How many transactions the database has answered as done.
    done: i64,
    /// Whether it has lost some since the last beat.
    has_lost: bool,
    /// What an earlier process with this name began at each host, and until when that counts, by the clock of the database.
    earlier: (BTreeMap<String, usize>, i64),
    /// When it was last seen that the tables have a version that this program knows, by this machine's clock.
    checked: Option<Timestamp>,
}

/// How long a node may go on with tables that were changed to a version that it does not know.
const CHECKED: SignedDuration = SignedDuration::from_secs(10);

/// What a node tells at a beat.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// How many mirrors are being served.
    pub running: usize,
    /// How many wait to be served.
    pub waiting: usize,
    /// This machine's clock.
    pub now: Timestamp,
}

/// What a node learns at a beat.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether the database may lack copies that this node has sent, so that all are to be sent again.
    pub has_lost: bool,
    /// How many nodes live, this one too.
    pub live: usize,
    /// Whether nothing may leave any machine.
    pub is_silent: bool,
    /// The parts of the limits of `[hosts]` that this node may use.
    pub parts: Limits,
    /// The hosts that have asked other nodes to wait.
    pub asked: Vec<Asked>,
}

#[derive(Deserialize)]
struct Row {
    beat: Option<i64>,
    live: usize,
    now: i64,
    silent: bool,
}

/// Says that the node lives. Without a row of this process there is no beat.
const BEAT: &str = "
    with mine as (
        update node set beat = beat + 1, seen = clock_timestamp(), running = $3::integer, waiting = $4::integer, limits = $5,
            clock_ahead_ms = $6::bigint - (extract(epoch from clock_timestamp()) * 1000)::bigint
        where name = $1 and instance = $2 returning beat
    )
    select json_build_object(
        'beat', (select beat from mine),
        'live', (select count(*) from node where name = $1 or seen > clock_timestamp() - make_interval(secs => $7::integer)),
        'now', extract(epoch from clock_timestamp())::bigint,
        'silent', exists (select from setting where setting.name = 'silent' and value = 'true')
    )::text";

/// Takes the name, unless another process with this name lives.
const JOIN: &str = "
    insert into node as old (name, advertise, program, limits, instance, beat, since, seen, clock_ahead_ms, running, waiting)
    values ($1, $3, $4, '', $2, 1, clock_timestamp(), clock_timestamp(), 0, 0, 0)
    on conflict (name) do update set advertise = excluded.advertise, program = excluded.program, instance = excluded.instance,
        beat = old.beat + 1, since = excluded.since, seen = excluded.seen, running = 0, waiting = 0
    where old.instance in ('', excluded.instance) or old.seen < clock_timestamp() - make_interval(secs => $5::integer)
    returning beat::text";

/// Gives the name back, and everything that was granted. What began in the last minute still
/// counts.
const LEAVE: &str = "
    with gone as (update node set instance = '' where name = $1 and instance = $2 returning name),
    free as (
        update demand set running = 0, waiting = 0, granted = 0, granted_per_minute = 0 from gone where demand.node = gone.name
        returning 1
    )
    select 'true' from gone";

/// Counts a transaction of this process.
const COUNT: &str = "update node set beat = beat + 1 where name = $1 and instance = $2 returning beat::text";

impl Node {
    /// A node that has not joined yet. `instance` distinguishes this process from every other one.
    #[must_use]
    pub fn new(access: Access, instance: String) -> Self {
        Self {
            access,
            instance,
            database: None,
            done: 0,
            has_lost: false,
            earlier: (BTreeMap::new(), 0),
            checked: None,
        }
    }

    /// Says that this node lives, and joins first if need be. Then divides the limits of `[hosts]` anew.
    ///
    /// # Errors
    /// [`Error`]. The next beat connects again.
    pub fn beat(&mut self, pulse: &Pulse, own: &Own<'_>) -> Result<Answer, Error> {
        let numbers = [pulse.running.to_string(), pulse.waiting.to_string(), pulse.now.as_millisecond().to_string()];
        let (gone, advertise) = (GONE.to_string(), self.access.keys.advertise.clone().unwrap_or_default());
        let limits = own.digest();
        let mut earlier = self.earlier.clone();
        let is_checked = self.checked.is_some_and(|at| pulse.now.duration_since(at).abs() < CHECKED);
        let (beat, answer) = self.transaction(|database, name, instance| {
            if !is_checked {
                schema::check(database)?;
            }
            let [running, waiting, now] = numbers.each_ref().map(|number| &**number);
            let values = [name, instance, running, waiting, &*limits, now, &*gone];
            let row = database.rows::<Row>(BEAT, &values)?.into_iter().next();
            let Row { beat, live, now, silent } = row.ok_or_else(|| Error::Odd("no row".into()))?;
            let has_joined = beat.is_none();
            // Before joining, which says that the node lives now.
            let begun = if has_joined { hosts::begun(database, name)? } else { BTreeMap::new() };
            let beat = match beat {
                Some(beat) => beat,
                None => {
                    let values = [name, instance, &*advertise, env!("CARGO_PKG_VERSION"), &*gone];
                    let joined = database.rows::<i64>(JOIN, &values)?.into_iter().next();
                    joined.ok_or_else(|| Error::NameTaken(name.to_owned()))?
                }
            };
            if has_joined {
                earlier = (begun, now + 60);
            } else if now >= earlier.1 {
                earlier.0.clear();
            }
            let parts = hosts::divide(database, name, own, &earlier.0, now)?;
            let asked = hosts::asked(database, name)?;
            Ok((beat, Answer { has_lost: has_joined, live: live.max(1), is_silent: silent, parts, asked }))
        })?;
        self.earlier = earlier;
        self.checked = if is_checked { self.checked } else { Some(pulse.now) };
        self.has_lost |= answer.has_lost;
        self.count(beat);
        Ok(Answer { has_lost: std::mem::take(&mut self.has_lost), ..answer })
    }

    /// Notes the count after a transaction of this node. If the count has not grown, the database
    /// has lost transactions.
    fn count(&mut self, beat: i64) {
        self.has_lost |= beat <= self.done;
        self.done = beat;
    }

    /// Makes the numbers of this node's repositories those of the fleet. `last` is the highest that it has ever given. Returns the
    /// repositories that have another number there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn number(&mut self, own: &[Numbered], last: u32) -> Result<Vec<Numbered>, Error> {
        self.counted(|database, name| projects::number(database, name, own, last))
    }

    /// Reserves numbers for repositories that are still to come.
    ///
    /// # Errors
    /// [`Error`].
    pub fn reserve(&mut self) -> Result<Range<u32>, Error> {
        self.counted(projects::reserve)
    }

    /// Sends copies of what the files of these repositories say. Returns the mirrors in them that push to a URL to which an earlier mirror of
    /// the fleet pushes.
    ///
    /// # Errors
    /// [`Error`]. Then the database has none of it.
    pub fn send(&mut self, changed: &[Repository]) -> Result<Vec<Later>, Error> {
        self.counted(|database, name| {
            copies::send(database, name, changed)?;
            let git_dirs: Vec<&str> = changed.iter().map(Repository::git_dir).collect();
            if git_dirs.is_empty() { Ok(Vec::new()) } else { copies::later(database, name, &git_dirs) }
        })
    }

    /// Removes the copies of these repositories.
    ///
    /// # Errors
    /// [`Error`]. Then the database has them still.
    pub fn remove(&mut self, gone: &HashSet<String>) -> Result<(), Error> {
        self.counted(|database, name| copies::remove(database, name, gone))
    }

    /// Sends the number of mirrors in each state.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send_tallies(&mut self, tallies: &Tallies) -> Result<(), Error> {
        self.counted(|database, name| copies::send_tallies(database, name, tallies))
    }

    /// Tells the other nodes that a host has asked this one to wait.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ask(&mut self, asked: &Asked) -> Result<(), Error> {
        self.transaction(|database, name, _| hosts::ask(database, name, asked))
    }

    /// The repositories of which the database has copies of this node, by their directories.
    ///
    /// # Errors
    /// [`Error`].
    pub fn copied(&mut self) -> Result<Vec<String>, Error> {
        self.transaction(|database, name, _| copies::copied(database, name))
    }

    /// The mirrors of this node that push to a URL to which an earlier mirror of the fleet pushes.
    ///
    /// # Errors
    /// [`Error`].
    pub fn later(&mut self) -> Result<Vec<Later>, Error> {
        self.transaction(|database, name, _| copies::later(database, name, &[]))
    }

    /// Gives the name back, so that the next daemon of this machine joins at once. If that fails, the name is free after a while.
    pub fn leave(mut self) {
        if self.database.is_some()
            && let Err(error) =
                self.transaction(|database, name, instance| database.rows::<bool>(LEAVE, &[name, instance]))
        {
            tracing::warn!("fleet: {error}");
        }
    }

    /// A transaction that is counted in the row of this node.
    fn counted<T>(&mut self, act: impl FnOnce(&mut Database, &str) -> Result<T, Error>) -> Result<T, Error> {
        let (beat, done) = self.transaction(|database, name, instance| {
            let beat = database.rows::<i64>(COUNT, &[name, instance])?.into_iter().next();
            let beat = beat.ok_or_else(|| Error::NameTaken(name.to_owned()))?;
            act(database, name).map(|done| (beat, done))
        })?;
        self.count(beat);
        Ok(done)
    }

    /// A transaction. Connects if there is no connection, and gives up the connection after an
    /// error.
    fn transaction<T>(&mut self, act: impl FnOnce(&mut Database, &str, &str) -> Result<T, Error>) -> Result<T, Error> {
        let mut database = match self.database.take() {
            Some(database) => database,
            None => {
                let mut database = Database::connect(&self.access, LIMIT)?;
                schema::check(&mut database)?;
                database
            }
        };
        let done = database.transaction(|database| act(database, self.access.node(), &self.instance))?;
        self.database = Some(database);
        Ok(done)
    }
}
