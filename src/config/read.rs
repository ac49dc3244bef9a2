//! Readers of single values for serde: each reads a value and checks it, so that an error has the line of the value. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::fleet::{check_advertise, check_database, check_node};
use super::pull::{Interval, Keep};
use super::values::{BranchRegex, check_proxy, check_push_option, check_refspec, check_ssh_option, check_url};
use crate::wire::Allowed;

/// What a reader gives to serde.
type Read<T, E> = Result<Option<T>, E>;

fn made<'de, D, W, T>(deserializer: D, make: impl FnOnce(W) -> Result<T, String>) -> Read<T, D::Error>
where
    D: Deserializer<'de>,
    W: Deserialize<'de>,
{
    make(W::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn text<'de, D: Deserializer<'de>>(d: D, check: fn(&str) -> Result<(), String>) -> Read<String, D::Error> {
    made(d, |text: String| check(&text).map(|()| text))
}

fn texts<'de, D: Deserializer<'de>>(d: D, check: fn(&str) -> Result<(), String>) -> Read<Vec<String>, D::Error> {
    made(d, |texts: Vec<String>| texts.iter().try_for_each(|text| check(text)).map(|()| texts))
}

pub(super) fn url<'de, D: Deserializer<'de>>(d: D) -> Read<String, D::Error> {
    text(d, check_url)
}

pub(super) fn branch_regex<'de, D: Deserializer<'de>>(d: D) -> Read<BranchRegex, D::Error> {
    made(d, |text: String| BranchRegex::new(&text))
}

pub(super) fn proxy<'de, D: Deserializer<'de>>(d: D) -> Read<String, D::Error> {
    text(d, check_proxy)
}

pub(super) fn database<'de, D: Deserializer<'de>>(d: D) -> Read<String, D::Error> {
    text(d, check_database)
}

pub(super) fn node<'de, D: Deserializer<'de>>(d: D) -> Read<String, D::Error> {
    text(d, check_node)
}

pub(super) fn advertise<'de, D: Deserializer<'de>>(d: D) -> Read<String, D::Error> {
    text(d, check_advertise)
}

pub(super) fn refspecs<'de, D: Deserializer<'de>>(d: D) -> Read<Vec<String>, D::Error> {
    texts(d, check_refspec)
}

pub(super) fn ssh_options<'de, D: Deserializer<'de>>(d: D) -> Read<Vec<String>, D::Error> {
    texts(d, check_ssh_option)
}

pub(super) fn push_options<'de, D: Deserializer<'de>>(d: D) -> Read<Vec<String>, D::Error> {
    texts(d, check_push_option)
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(d: D) -> Read<PathBuf, D::Error> {
    made(d, |path: String| match Path::new(&path) {
        absolute if absolute.is_absolute() => Ok(absolute.to_owned()),
        _ => Err(format!("'{path}' is not an absolute path")),
    })
}

pub(super) fn at_least_one<'de, D: Deserializer<'de>>(d: D) -> Read<usize, D::Error> {
    made(d, |number| if number == 0 { Err("at least 1 is needed".to_owned()) } else { Ok(number) })
}

pub(super) fn hosts<'de, D: Deserializer<'de>>(d: D) -> Read<Vec<Allowed>, D::Error> {
    let host = |text: &String| {
        let wrong = || format!("'{}' is not a host name, address or network (10.0.0.0/8)", text.escape_debug());
        Allowed::parse(text).ok_or_else(wrong)
    };
    made(d, |hosts: Vec<String>| hosts.iter().map(host).collect())
}

pub(super) fn names_of_hosts<'de, D: Deserializer<'de>>(d: D) -> Read<Vec<String>, D::Error> {
    let name = |text: &String| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_address = text.parse::<core::net::IpAddr>().is_ok();
        match is_address || !text.is_empty() && text.chars().all(is_plain) {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(format!("'{}' is not the name of a host, without its port", text.escape_debug())),
        }
    };
    made(d, |names: Vec<String>| names.iter().map(name).collect())
}

/// The version of the file. A file of a later version is refused.
pub(super) fn version<'de, D: Deserializer<'de>>(d: D) -> Read<u32, D::Error> {
    const KNOWN: u32 = 1;
    made(d, |version| match version {
        ..=KNOWN => Ok(version),
        _ => Err(format!(
            "the file is of version {version}, but this program knows only version {KNOWN}; install a newer git-mirror-push"
        )),
    })
}

pub(super) fn interval<'de, D: Deserializer<'de>>(d: D) -> Read<Interval, D::Error> {
    made(d, |text: String| match &*text {
        "auto" => Ok(Interval::Auto),
        "none" => Ok(Interval::None),
        _ => parse_period(&text).map(Interval::Every).map_err(|why| format!("{why}, \"auto\" or \"none\"")),
    })
}

pub(super) fn keep<'de, D: Deserializer<'de>>(d: D) -> Read<Keep, D::Error> {
    /// A number without quotation marks is read too: `set NAME keep_rewritten=0`.
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "keep_rewritten is a duration like \"90d\", \"forever\" or \"0\"")]
    enum Written {
        Number(u64),
        Text(String),
    }
    made(d, |written| match written {
        Written::Number(0) => Ok(Keep::Nothing),
        Written::Number(number) => Err(format!("'{number}' has no unit; write \"90d\", \"forever\" or \"0\"")),
        Written::Text(text) => match &*text {
            "forever" => Ok(Keep::Forever),
            "0" => Ok(Keep::Nothing),
            _ => parse_period(&text).map(Keep::For).map_err(|why| format!("{why}, \"forever\" or \"0\"")),
        },
    })
}

/// Names and values for the environment of hooks. `PATH` and names that begin with `GIT_` or `LD_`
/// are refused, because they would change what git does or which programs and libraries run.
pub(super) fn hook_environment<'de, D: Deserializer<'de>>(d: D) -> Read<BTreeMap<String, String>, D::Error> {
    made(d, |table: BTreeMap<String, String>| {
        for (name, value) in &table {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_word) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(format!("'{}' is not the name of a variable", name.escape_debug()));
            }
            if name.starts_with("GIT_") || name.starts_with("LD_") || name == "PATH" {
                return Err(format!("hook_environment must not set {name}"));
            }
            if value.contains('\0') {
                return Err(format!("the value of {name} has a null byte in it"));
            }
        }
        Ok(table)
    })
}

/// A number of bytes, like `4GiB`.
pub(super) fn size<'de, D: Deserializer<'de>>(d: D) -> Read<u64, D::Error> {
    made(d, |text: String| {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit {
            "KiB" => Some(10),
            "MiB" => Some(20),
            "GiB" => Some(30),
            "TiB" => Some(40),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
        bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("'{text}' is not a size; write \"500MiB\" or \"4GiB\""))
    })
}

pub(super) fn period<'de, D: Deserializer<'de>>(d: D) -> Read<Duration, D::Error> {
    made(d, |text: String| parse_period(&text))
}

/// Reads a length of time: a number with `s`, `m`, `h` or `d`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_period(text: &str) -> Result<Duration, String> {
    let seconds = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<u64>().ok());
    let period = number.and_then(|number| number.checked_mul(seconds)).filter(|seconds| *seconds > 0);
    period
        .map(Duration::from_secs)
        .ok_or_else(|| format!("'{text}' is not a duration; write \"10s\", \"5m\", \"3h\" or \"2d\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_text_with_a_unit() {
        assert_eq!(parse_period("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_period("3h"), Ok(Duration::from_secs(10800)));
        for bad in ["", "s", "10", "1.5h", "-1s", "0s", "5 m", "99999999999999999999s", "18446744073709551615d", "é"] {
            assert!(parse_period(bad).is_err(), "{bad}");
        }
    }
}
