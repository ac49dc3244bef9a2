//! `public-key`, `host-keys`, `credential`: what ssh and passwords need.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::args::{Credential, HostKeys};
use super::{BEHIND, DONE, Session, Usage, by_name, mirrors, print_json};
use crate::config::{AuthMethod, Mirror};
use crate::credentials::{self, HostKey, KeyType, Secret};
use crate::process;
use crate::push::Address;

/// Makes the key of a mirror that is to have one, unless it has.
pub(super) fn ensure_key(session: &Session<'_>, name: &str, kind: Option<KeyType>) -> anyhow::Result<()> {
    let directory = session.repository.layout().remote(name);
    let is_there = credentials::identity(&directory).is_some();
    if is_there && kind.is_none() {
        return Ok(());
    }
    let comment = format!("git-mirror-push {name} {}", session.repository.git_dir().display());
    credentials::generate_key(&directory, kind.unwrap_or(KeyType::Ed25519), &comment)
        .with_context(|| format!("cannot make a key for mirror '{name}'"))?;
    session.base.say(&format!("made a key; authorise it at the mirror: git mirror-push public-key {name}"));
    Ok(())
}

/// Prints the public key.
pub(super) fn public_key(session: &Session<'_>, name: &str, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, name)?;
    if mirror.auth_method == AuthMethod::SshPublicKey {
        crate::drain::prepare(&session.repository, name)?;
        ensure_key(session, name, None)?;
    }
    let key = credentials::public_key(&session.repository.layout().remote(name))?;
    let mend = format!("mirror '{name}' has no key; git mirror-push set {name} --auth-method ssh_public_key");
    write!(out, "{}", key.context(mend)?)?;
    Ok(DONE)
}

/// A key as `host-keys --json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    fingerprint_sha256: &'a str,
    fingerprint_md5: &'a str,
    r#type: &'a str,
    hosts: &'a str,
}

/// Shows, detects, adds or clears pinned host keys.
pub(super) fn host_keys(session: &Session<'_>, asked: &HostKeys, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    let Address::Ssh { host, port, .. } = &mirror.address else {
        return Err(Usage(format!("mirror '{}' is not reached over ssh", asked.name)).into());
    };
    crate::drain::prepare(&session.repository, &asked.name)?;
    let directory = session.repository.layout().remote(&asked.name);
    let mut keys = credentials::read_host_keys(&directory)?;
    if asked.clear {
        credentials::write_host_keys(&directory, &[])?;
        return changed(session, mirror);
    }
    if !asked.add.is_empty() {
        keys.extend(mirrors::host_key_lines(&asked.add, &mirror.address)?);
        credentials::write_host_keys(&directory, &keys)?;
        return changed(session, mirror);
    }
    if !asked.detect {
        show(session, &keys, out)?;
        return Ok(DONE);
    }
    let offered = detect(host, *port, mirror.timeouts.connect)?;
    anyhow::ensure!(!offered.is_empty(), "'{host}' offered no host key; does an ssh server listen there?");
    show(session, &offered, out)?;
    out.flush()?;
    if keys.iter().map(|key| &key.sha256).eq(offered.iter().map(|key| &key.sha256)) {
        session.base.say("these keys are pinned already");
        return Ok(DONE);
    }
    if !asked.yes && !is_agreed()? {
        session.base.say("nothing was pinned; compare the fingerprints with those that the host's administrator tells, then use --yes");
        return Ok(BEHIND);
    }
    credentials::write_host_keys(&directory, &offered)?;
    session.base.say(&format!("pinned {} keys of '{host}'", offered.len()));
    changed(session, mirror)
}

fn changed(session: &Session<'_>, mirror: &Mirror) -> anyhow::Result<u8> {
    mirrors::compare(session, &session.config()?, &mirror.name)
}

fn show(session: &Session<'_>, keys: &[HostKey], out: &mut dyn Write) -> anyhow::Result<()> {
    if session.base.global.json {
        let json = keys.iter().map(|HostKey { hosts, kind, sha256, md5, .. }| Json {
            fingerprint_sha256: sha256,
            fingerprint_md5: md5,
            r#type: kind,
            hosts,
        });
        return print_json(out, &json.collect::<Vec<_>>());
    }
    for key in keys {
        writeln!(out, "{}  {}  {}  {}", key.sha256, key.md5, key.kind, key.hosts)?;
    }
    Ok(())
}

/// Asks on the terminal; without one the answer is no.
fn is_agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(std::io::stderr(), "Pin these keys? (yes/no) ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// What the server offers, under the name by which ssh will look it up: the user's ssh configuration may give the host
/// another name, port or alias.
fn detect(host: &str, port: Option<u16>, limit: Duration) -> anyhow::Result<Vec<HostKey>> {
    let mut resolve = process::command("ssh");
    resolve.arg("-G");
    if let Some(port) = port {
        resolve.arg("-p").arg(port.to_string());
    }
    let said = process::run("ssh", resolve.arg("--").arg(host), b"", Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let (real, port) = (value("hostname").unwrap_or(host), value("port").unwrap_or("22"));
    let name = value("hostkeyalias").filter(|alias| *alias != "none").unwrap_or(real);
    let name = if port == "22" { name.to_owned() } else { format!("[{name}]:{port}") };
    let scan = |scan: &mut Command| process::run("ssh-keyscan", scan, b"", limit + Duration::from_secs(30));
    let mut command = process::command("ssh-keyscan");
    let seconds = limit.as_secs().max(1).to_string();
    let said = scan(command.args(["-T", &seconds, "-p", port, "--"]).arg(real))?;
    let mut keys: Vec<HostKey> = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| HostKey::parse(&format!("{name} {}", line.split_once(' ')?.1)))
        .collect();
    keys.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(keys)
}

/// Stores a password or token, read from standard input or asked for on the terminal; an empty one takes it away.
pub(super) fn credential(session: &Session<'_>, asked: &Credential) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    let prompt = format!("Password or token for {}: ", mirror.address.shown(&credentials::Credentials::default()));
    let secret = if std::io::stdin().is_terminal() {
        rpassword::prompt_password(prompt).context("cannot read the password")?
    } else {
        mirrors::line_of_stdin()?
    };
    crate::drain::prepare(&session.repository, &asked.name)?;
    let path = session.repository.layout().remote(&asked.name).join("secret");
    store(&path, secret)?;
    if mirror.auth_method != AuthMethod::Password {
        session.base.warn(&format!(
            "auth_method is \"{}\"; git mirror-push set {} --auth-method password",
            mirror.auth_method.as_str(),
            asked.name
        ));
    }
    mirrors::compare(session, &config, &asked.name)
}

fn store(path: &Path, secret: String) -> anyhow::Result<()> {
    let stored = match secret.is_empty() {
        true => credentials::remove_secret(path),
        false => credentials::write_secret(path, &Secret::new(secret)),
    };
    stored.with_context(|| format!("cannot write '{}'", path.display()))
}
