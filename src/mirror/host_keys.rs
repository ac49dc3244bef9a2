//! Host keys as people enter them and as servers offer them.

use std::net::IpAddr;
use std::time::Duration;

use super::Error;
use crate::credentials::HostKey;
use crate::process;
use crate::wire::Address;

/// Reads host keys as a user gives them: lines of ssh-keyscan(1), or bare keys, which get the host of the address.
///
/// # Errors
/// [`Error::Refused`], which names the line.
pub fn host_keys_of(lines: &[String], address: &Address) -> Result<Vec<HostKey>, Error> {
    let Address::Ssh { host, port, .. } = address else {
        return Err(Error::Refused("a host key needs an ssh URL".into()));
    };
    let name = match port {
        Some(port) if *port != 22 => format!("[{host}]:{port}"),
        _ => host.clone(),
    };
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

/// The host keys that the server offers, under the name by which ssh looks them up: the user's ssh configuration may give the
/// host another name, port or alias. If `address` is given, the mirror is confined: the scan connects to that address, and no
/// configuration counts. Empty when no ssh server answers.
///
/// # Errors
/// [`Error::Program`], when ssh or ssh-keyscan cannot be run.
pub fn detect(host: &str, port: Option<u16>, address: Option<IpAddr>, limit: Duration) -> Result<Vec<HostKey>, Error> {
    let place = match address {
        Some(address) => {
            Place { address: address.to_string(), port: port.unwrap_or(22).to_string(), name: host.to_owned() }
        }
        None => configured(host, port)?,
    };
    let name = if place.port == "22" { place.name } else { format!("[{}]:{}", place.name, place.port) };
    let seconds = limit.as_secs().max(1).to_string();
    let mut scan = process::command("ssh-keyscan");
    scan.args(["-T", &seconds, "-p", &place.port, "--", &place.address]);
    let said = process::run("ssh-keyscan", &mut scan, b"", limit + Duration::from_secs(30))?;
    let mut keys: Vec<HostKey> = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| HostKey::parse(&format!("{name} {}", line.split_once(' ')?.1)))
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

/// What the user's ssh configuration makes of a host.
fn configured(host: &str, port: Option<u16>) -> Result<Place, Error> {
    let mut ssh = process::command("ssh");
    ssh.arg("-G");
    if let Some(port) = port {
        ssh.arg("-p").arg(port.to_string());
    }
    let said = process::run("ssh", ssh.arg("--").arg(host), b"", Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let address = value("hostname").unwrap_or(host).to_owned();
    let name = value("hostkeyalias").filter(|alias| *alias != "none").unwrap_or(&address).to_owned();
    Ok(Place { port: value("port").unwrap_or("22").to_owned(), name, address })
}
