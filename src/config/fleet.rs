//! `[fleet]` of the server's files: the database that the daemons of several machines share. Pure.

use std::path::PathBuf;

use super::keys::table;
use super::read;
use super::values::is_name;

table! {
    /// `[fleet]`: several machines that know of each other. Read when the daemon starts.
    pub FleetKeys:

    /// The URL of the PostgreSQL database (13 or later) that all nodes share. It must not contain a
    /// password. It may name several hosts, separated by commas; the one that accepts writes is
    /// used.
    url: String, Fleet, "postgres://USER@HOST/DATABASE; none: this machine is alone", via "read::database";

    /// A file with the password of the database. Only its owner may be able to read it.
    password_file: PathBuf, Fleet, "absolute path; $CREDENTIALS_DIRECTORY/fleet", via "read::absolute";

    /// A program (absolute path) and its arguments, which prints the password of the database.
    password_command: Vec<String>, Fleet, "array; none";

    /// Certificates of authorities (PEM) for the database.
    ca_file: PathBuf, Fleet, "absolute path; the system's", via "read::absolute";

    /// Connect to a database on another machine without TLS.
    allow_insecure: bool, Fleet, "boolean; false";

    /// The name of this machine in the fleet. A second running daemon with the same name does not join.
    node: String, Fleet, "1 to 64 ASCII letters, digits, '.', '_' and '-'; the host's name", via "read::node";

    /// Where people and other programs reach the daemon of this machine. The answer to a change of one of its repositories through another
    /// node names this address.
    advertise: String, Fleet, "http or https URL; none", via "read::advertise";
}

/// Checks the URL of a database.
pub(super) fn check_database(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or("the url of a fleet is that of a PostgreSQL database: postgres://USER@HOST/DATABASE")?;
    // The password ends at the first '@', even if it contains a slash. The client reads the URL in
    // the same way.
    let user = rest.split_once('@').map_or("", |(user, _)| user);
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    if user.contains(':') || query.split('&').any(|pair| pair.starts_with("password=")) {
        return Err("the url holds a password; put it into a file, and name that with password_file".into());
    }
    if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("the url has a space or a control character in it".into());
    }
    Ok(())
}

/// Checks the name of a node.
pub(super) fn check_node(name: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "'{}' is not a name for a node; use 1 to 64 letters, digits, '.', '_' and '-', and begin with a letter or digit",
            name.escape_debug()
        )
    };
    if is_name(name) { Ok(()) } else { Err(wrong()) }
}

/// Checks the address of a daemon.
pub(super) fn check_advertise(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let is_plain = rest.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '@' | '"' | '<' | '>' | '\\' | '#' | '?'));
    match is_plain && !rest.is_empty() && !rest.starts_with('/') {
        true => Ok(()),
        false => Err(format!("'{}' is not the URL of a daemon; write \"https://HOST:PORT\"", url.escape_debug())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_without_a_password_are_accepted() {
        for url in [
            "postgres://gmp@db1,db2:5433/mirrors?sslmode=require",
            "postgresql://gmp@%2Frun%2Fpostgresql/mirrors",
            "postgres://db/mirrors",
            "postgres://[::1]:5433/mirrors",
        ] {
            assert_eq!(check_database(url), Ok(()), "{url}");
        }
        for (url, why) in [
            ("mysql://gmp@db/mirrors", "PostgreSQL"),
            ("host=db", "PostgreSQL"),
            ("postgres://gmp:secret@db/mirrors", "password"),
            ("postgres://gmp:a/b@db/mirrors", "password"),
            ("postgres://db/mirrors?user=gmp&password=secret", "password"),
            ("postgres://gmp@db/mir rors", "space"),
        ] {
            let found = check_database(url);
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{url}: {found:?}");
        }
    }

    #[test]
    fn an_advertised_address_is_a_plain_url() {
        for url in ["https://git1.internal:8417", "http://127.0.0.1:8417/mirrors"] {
            assert_eq!(check_advertise(url), Ok(()), "{url}");
        }
        for url in ["git1:8417", "https://", "https://u:p@git1", "https://a b", "javascript:x", "https:///x"] {
            assert!(check_advertise(url).is_err(), "{url}");
        }
    }
}
