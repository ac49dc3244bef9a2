//! Host keys as people enter them and as servers offer them.

use std::time::Duration;

use super::Error;
use crate::config;
use crate::credentials::HostKey;
use crate::process;
use crate::wire::{Address, known_as};

/// Reads host keys as a user gives them: lines of ssh-keyscan(1), or bare keys, which get the host of the address.
///
/// # Errors
/// [`Error::Refused`], which names the line.
pub fn host_keys_of(lines: &[String], address: &Address) -> Result<Vec<HostKey>, Error> {
    let Address::Ssh { host, port, .. } = address else {
        return Err(Error::Refused("a host key needs an ssh URL".into()));
    };
    let name = known_as(host, *port);
    let read = |line: &String| {
        let line = line.trim();
        let is_bare = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| line.starts_with(kind));
        let whole = if is_bare { format!("{name} {line}") } else { line.to_owned() };
        let key = if whole.contains('\n') { None } else { HostKey::parse(&whole) };
        key.ok_or_else(|| {
            Error::Refused(format!("'{}' is not a host key; give a line as ssh-keyscan prints it", line.escape_debug()))
        })
    };
    lines.iter().map(read).collect()
}

/// The host keys that the mirror's server offers, under the name by which ssh looks them up. The
/// user's ssh configuration and the mirror's ssh options may give the host another name, port or
/// alias. For a confined mirror neither counts, and only an address that the server's files allow
/// is asked. Empty when the server offers no key that we can read.
///
/// # Errors
/// [`Error::Refused`], when the mirror is not reached over ssh, or its host is blocked or not found; [`Error::Program`], when ssh or
/// ssh-keyscan cannot be run or fails, as when no ssh server answers.
pub fn detect(mirror: &config::Mirror, server: &config::Server, limit: Duration) -> Result<Vec<HostKey>, Error> {
    let Address::Ssh { host, port, .. } = &mirror.address else {
        return Err(Error::Refused(format!("mirror '{}' is not reached over ssh", mirror.name)));
    };
    let place =
        if mirror.is_confined { allowed(host, *port, server)? } else { configured(host, *port, &mirror.ssh_options)? };
    let seconds = limit.as_secs().max(1).to_string();
    let mut scan = process::command("ssh-keyscan");
    scan.args(["-T", &seconds, "-p", &place.port, "--", &place.address]);
    let said = match process::run("ssh-keyscan", &mut scan, b"", limit + Duration::from_secs(30)) {
        // ssh-keyscan found no key. It fails without a message then.
        Err(process::Error::Failed { message, .. }) if message.is_empty() => Vec::new(),
        Err(process::Error::Failed { message, .. }) if message.contains("getaddrinfo ") => {
            return Err(Error::Refused(format!("cannot resolve the host name '{}'", place.address.escape_debug())));
        }
        said => said?,
    };
    let mut keys: Vec<HostKey> = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| HostKey::parse(&format!("{} {}", place.name, line.split_once(' ')?.1)))
        .collect();
    keys.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(keys)
}

/// Where ssh connects to, and the name by which it knows the host.
struct Place {
    address: String,
    port: String,
    name: String,
}

/// The host at an address that a confined mirror may connect to.
fn allowed(host: &str, port: Option<u16>, server: &config::Server) -> Result<Place, Error> {
    let port = port.unwrap_or(22);
    let addresses = server.api.egress().resolve(host, port).map_err(|error| Error::Refused(error.to_string()))?;
    Ok(Place { address: addresses[0].ip().to_string(), port: port.to_string(), name: known_as(host, Some(port)) })
}

/// What the user's ssh configuration, and the options of the mirror, make of a host.
fn configured(host: &str, port: Option<u16>, options: &[String]) -> Result<Place, Error> {
    let mut ssh = process::command("ssh");
    ssh.arg("-G").args(options.iter().map(|option| format!("-o{option}")));
    if let Some(port) = port {
        ssh.arg("-p").arg(port.to_string());
    }
    let said = process::run("ssh", ssh.arg("--").arg(host), b"", Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let address = value("hostname").unwrap_or(host).to_owned();
    let port = value("port").unwrap_or("22").to_owned();
    // An alias is looked up as it stands, without the port.
    let alias = value("hostkeyalias").filter(|alias| *alias != "none").map(str::to_owned);
    let name = alias.unwrap_or_else(|| known_as(&address, port.parse().ok()));
    Ok(Place { address, port, name })
}
