//! `public-key`, `host-keys`, `credential`, `webhook`: keys, passwords and secrets.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::args::{Credential, HostKeys, Webhook};
use super::{BEHIND, DONE, Session, Usage, by_name, mirrors, print_json};
use crate::config::{AuthMethod, Mirror};
use crate::credentials::{self, HostKey, Secret};
use crate::mirror::{detect, host_keys_of};
use crate::wire::Address;

/// Prints the public key of a mirror. If `auth_method` needs a key and the mirror has none, makes one first.
pub(super) fn public_key(session: &Session<'_>, name: &str, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, name)?;
    if mirror.auth_method == AuthMethod::SshPublicKey {
        crate::mirror::prepare(&session.repository, name)?;
        if session.editor().ensure_key(name, None)? {
            session.base.say("made a key; authorise it at the mirror");
        }
    }
    let key = credentials::public_key(&session.repository.layout().remote(name))?;
    let fix =
        format!("mirror '{name}' has no key; to make one: git mirror-push set {name} --auth-method ssh_public_key");
    write!(out, "{}", key.context(fix)?)?;
    Ok(DONE)
}

/// Prints the URL and the secret of a pull mirror's webhook. Makes the secret if there is none.
pub(super) fn webhook(session: &Session<'_>, asked: &Webhook, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    if !mirror.takes() {
        return Err(Usage(format!("mirror '{}' is a push mirror, which needs no webhook", asked.name)).into());
    }
    let server = &session.base.server;
    let Some(placed) = server.place(session.repository.git_dir()) else {
        anyhow::bail!("this repository is below no root of the server's file, so the daemon's API does not serve it");
    };
    crate::mirror::prepare(&session.repository, &asked.name)?;
    let directory = session.repository.layout().remote(&asked.name);
    let stored = credentials::webhook::read(&directory)?.filter(|_| !asked.rotate);
    let secret = match stored {
        Some(secret) => secret,
        None => credentials::webhook::make(&directory)?,
    };
    let host = server.api.hosts.iter().flatten().next().map_or("SERVER", String::as_str);
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let project = utf8_percent_encode(&placed.path, UNRESERVED);
    let url = format!("https://{host}/api/v4/projects/{project}/mirror/pull");
    if session.base.global.json {
        print_json(out, &serde_json::json!({ "url": url, "secret": secret.expose() }))?;
        return Ok(DONE);
    }
    writeln!(out, "URL     {url}\nsecret  {}", secret.expose())?;
    if host == "SERVER" {
        session.base.say("put the name of this server in place of SERVER, or set 'hosts' in [api] of its file");
    }
    session.base.say(
        "enter the URL and the secret in the webhook settings of upstream's host: \
         content type application/json, event push",
    );
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

/// Those of `given` that are not pinned for the same host.
fn new_keys(pinned: &[HostKey], mut given: Vec<HostKey>) -> Vec<HostKey> {
    let named = |key: &HostKey| (key.hosts.clone(), key.sha256.clone());
    let mut known: BTreeSet<_> = pinned.iter().map(named).collect();
    given.retain(|key| known.insert(named(key)));
    given
}

/// Shows, detects, adds or clears pinned host keys.
pub(super) fn host_keys(session: &Session<'_>, asked: &HostKeys, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    let Address::Ssh { host, .. } = &mirror.address else {
        return Err(Usage(format!("mirror '{}' is not reached over ssh", asked.name)).into());
    };
    crate::mirror::prepare(&session.repository, &asked.name)?;
    let mut keys = credentials::read_host_keys(&session.repository.layout().remote(&asked.name))?;
    if asked.clear {
        session.editor().pin(&asked.name, &[])?;
        return changed(session, mirror);
    }
    if !asked.add.is_empty() {
        let added = new_keys(&keys, host_keys_of(&asked.add, &mirror.address)?);
        if added.is_empty() {
            session.base.say("these keys are pinned already");
            return Ok(DONE);
        }
        keys.extend(added);
        session.editor().pin(&asked.name, &keys)?;
        return changed(session, mirror);
    }
    if !asked.detect {
        if keys.is_empty() {
            let then = match mirror.is_confined {
                true => "the mirror cannot be reached before one is",
                false => "ssh's own known_hosts decides",
            };
            session.base.say(&format!(
                "no key of '{host}' is pinned; {then}; to pin its keys: git mirror-push host-keys {} --detect",
                asked.name
            ));
        }
        show(session, &keys, out)?;
        return Ok(DONE);
    }
    let offered = detect(mirror, &session.base.server, mirror.timeouts.connect)?;
    anyhow::ensure!(!offered.is_empty(), "'{host}' offered no host key; does an ssh server listen there?");
    show(session, &offered, out)?;
    out.flush()?;
    // The host names are compared too: ssh looks up a key by the name of the host.
    if new_keys(&keys, offered.clone()).is_empty() && new_keys(&offered, keys.clone()).is_empty() {
        session.base.say("these keys are pinned already");
        return Ok(DONE);
    }
    if !keys.is_empty() {
        let pinned: Vec<&str> = keys.iter().map(|key| &*key.sha256).collect();
        session.base.say(&format!("pinning them replaces the pinned keys: {}", pinned.join(", ")));
    }
    if !asked.yes && !is_agreed()? {
        session
            .base
            .say("nothing was pinned; compare the fingerprints with those of the host's administrator, then use --yes");
        return Ok(BEHIND);
    }
    session.editor().pin(&asked.name, &offered)?;
    let count = if offered.len() == 1 { "1 key".to_owned() } else { format!("{} keys", offered.len()) };
    session.base.say(&format!("pinned {count} of '{host}'"));
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
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Stores or removes a password or token. A new one is read from standard input, or the user types it on the terminal. Empty standard input
/// removes nothing: the command before the pipe may have failed.
pub(super) fn credential(session: &Session<'_>, asked: &Credential) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirror = by_name(&config, &asked.name)?;
    let prompt = format!("Password or token for {}: ", mirror.address.shown(&credentials::Credentials::default()));
    let secret = if asked.clear {
        String::new()
    } else if std::io::stdin().is_terminal() {
        rpassword::prompt_password(prompt)
            .context("there is no terminal to ask on; give the password on standard input")?
    } else {
        mirrors::line_of_stdin()?
    };
    if secret.is_empty() && !asked.clear {
        let name = &asked.name;
        let fix = format!("to remove it: git mirror-push credential {name} --clear");
        return Err(Usage(format!("no password was given, and what is stored stays; {fix}")).into());
    }
    session.editor().store_secret(mirror, &Secret::new(secret))?;
    if mirror.auth_method != AuthMethod::Password && !asked.clear {
        session.base.warn(&format!(
            "auth_method is not \"password\" but \"{}\"; to change it: git mirror-push set {} --auth-method password",
            mirror.auth_method.as_str(),
            asked.name
        ));
    }
    mirrors::compare(session, &config, &asked.name)
}
