//! The tables of the fleet, and how they change from one version of the program to the next.
//!
//! Each version has a file of statements. These add, and remove only what the version before left
//! unused. A program works with tables of its own version, and with later ones that allow it
//! (`oldest`). It refuses earlier ones: an upgraded node does not join until the tables are
//! upgraded too.

use serde::Deserialize;

use super::database::Database;
use super::{Access, Error, LIMIT};

/// The version of the tables that this program knows.
pub(super) const VERSION: u32 = 1;

/// The statements that lead to each version from the one before, from version 1 on.
const STEPS: [&str; VERSION as usize] = [include_str!("schema/1.sql")];

/// The lock of whoever makes the tables, so that two never do it at once. The number of the lock
/// has no meaning.
const LOCK: &str = "select pg_advisory_xact_lock(4283691722)";

#[derive(Deserialize)]
struct Meta {
    version: u32,
    oldest: u32,
}

fn meta(database: &mut Database) -> Result<Option<Meta>, Error> {
    const THERE: &str = "select (to_regclass('git_mirror_push.meta') is not null)::text";
    const READ: &str = "select json_build_object('version', version, 'oldest', oldest)::text from git_mirror_push.meta";
    if database.rows::<bool>(THERE, &[])?.first() != Some(&true) {
        return Ok(None);
    }
    Ok(database.rows(READ, &[])?.into_iter().next())
}

/// Whether this program may use the tables.
pub(super) fn check(database: &mut Database) -> Result<(), Error> {
    let Meta { version, oldest } = meta(database)?.ok_or(Error::NoTables)?;
    match () {
        () if version < VERSION => {
            Err(Error::Version { found: version, fix: "'git mirror-push fleet init' brings the tables up to date" })
        }
        () if oldest > VERSION => Err(Error::Version { found: version, fix: "install a later version of it" }),
        () => Ok(()),
    }
}

/// Makes the tables, or brings them up to date. Returns the version that they had before, 0 if they were not there.
///
/// # Errors
/// [`Error`].
pub fn init(access: &Access) -> Result<u32, Error> {
    let mut database = Database::connect(access, LIMIT)?;
    database.run("begin")?;
    database.run(LOCK)?;
    let before = meta(&mut database)?.map_or(0, |meta| meta.version);
    for step in STEPS.iter().skip(before as usize) {
        database.run(step)?;
    }
    database.run("commit")?;
    check(&mut database).map(|()| before)
}

/// The statements for an administrator who makes the tables by hand: all steps, and the rights of
/// the user of the daemons.
#[must_use]
pub fn print(access: &Access) -> String {
    let user = access.user();
    let grants = match user.is_empty() {
        true => "\n-- The url names no user: give the user of the daemons rights on these tables.\n".to_owned(),
        false => {
            let user = format!("\"{}\"", user.replace('"', "\"\""));
            format!(
                "\n-- The user of the daemons needs rights on rows only.\n\
                 grant usage on schema git_mirror_push to {user};\n\
                 grant select on git_mirror_push.meta to {user};\n\
                 grant select, insert, update, delete on git_mirror_push.node, git_mirror_push.repository, git_mirror_push.mirror,\n    \
                 git_mirror_push.tally, git_mirror_push.host, git_mirror_push.demand, git_mirror_push.setting to {user};\n\
                 grant select, usage, update on git_mirror_push.repository_id_seq to {user};\n"
            )
        }
    };
    format!("begin;\n{}{grants}commit;\n", STEPS.concat())
}
