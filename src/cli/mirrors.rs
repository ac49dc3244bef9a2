//! `add`, `set`, `enable`, `disable`, `remove`: the commands that change a mirror.
//!
//! What a mirror needs is made before the configuration names it, and goes after the configuration has forgotten it, so a
//! command that is killed leaves a mirror that works or none.

use std::io::BufRead;
use std::path::Path;

use anyhow::Context;

use super::args::{Add, Set};
use super::options::{self, AuthMethod, Divergent, Prune, Settings};
use super::{DONE, Session, Usage, absolute, by_name, hook, now, wake};
use crate::config::{self, Change, Config, Edit, edit};
use crate::credentials::{Credentials, HostKey, KeyType, Secret, remove_secret, write_host_keys, write_secret};
use crate::drain::{self, Lock, new_id};
use crate::install::Done;
use crate::push::{Address, parse};
use crate::spool;

type Keys = Vec<(&'static str, Change)>;

/// Makes the directories that every command which writes needs.
pub(super) fn prepare(session: &Session<'_>) -> anyhow::Result<()> {
    let layout = session.repository.layout();
    let mode = session.repository.sharing().directory_mode().unwrap_or(0o755);
    spool::prepare(&layout, mode).with_context(|| format!("cannot make '{}'", layout.root().display()))
}

/// Makes a comparison of every enabled mirror due: the rules have changed.
pub(super) fn compare_all(session: &Session<'_>, config: &Config) -> anyhow::Result<()> {
    for mirror in config.mirrors.iter().filter(|mirror| mirror.is_enabled) {
        drain::prepare(&session.repository, &mirror.name)?;
        spool::request_full_sync(&session.repository.layout(), &mirror.name, new_id(now()))?;
    }
    wake::wake(session, config);
    Ok(())
}

/// Adds a mirror.
pub(super) fn add(session: &Session<'_>, add: &Add) -> anyhow::Result<u8> {
    let before = session.config()?;
    if before.mirror(&add.name).is_some() {
        return Err(Usage(format!("mirror '{}' is there already; use 'set', or another name", add.name)).into());
    }
    let (url, credentials) = checked_url(session, &add.url)?;
    let (address, _) = parse(&url).map_err(|refused| Usage(refused.to_string()))?;
    let mut keys = vec![("url", Change::Text(url))];
    keys.extend(credentials.username.map(|user| ("username", Change::Text(user))));
    keys.extend(changes(&add.settings));
    if add.disabled {
        keys.push(("enabled", Change::Flag(false)));
    }
    let secret = password(&add.settings)?.or(credentials.secret);
    if secret.is_some() && add.settings.auth_method.is_none() {
        keys.push(("auth_method", Change::Text("password".into())));
    }
    prepare(session)?;
    // The name is checked before it becomes a directory.
    let change = Edit::Add(add.name.clone(), keys);
    config::check_edit(&session.repository, &session.base.server, &change)?;
    drain::prepare(&session.repository, &add.name)?;
    let directory = session.repository.layout().remote(&add.name);
    store_secret(&directory, secret.as_ref())?;
    pin(&directory, &add.settings.host_key, &address)?;
    spool::request_full_sync(&session.repository.layout(), &add.name, new_id(now()))?;
    let config = edit(&session.repository, &session.base.server, &change)?;
    warn_of_insecure_http(session, &config, &add.name, secret.is_some())?;
    make_key(session, &config, &add.name, &add.settings)?;
    if let Done::Installed(path) = hook::ensure(session)? {
        session.base.say(&format!("installed the hook '{}'", path.display()));
    }
    if !add.disabled {
        wake::wake(session, &config);
    }
    session.base.say(&format!("added mirror '{}'; 'git mirror-push status' says how it stands", add.name));
    Ok(DONE)
}

/// Changes a mirror.
pub(super) fn set(session: &Session<'_>, set: &Set) -> anyhow::Result<u8> {
    by_name(&session.config()?, &set.name)?;
    let mut keys = Keys::new();
    let mut secret = password(&set.settings)?;
    if let Some(url) = &set.url {
        let (url, credentials) = checked_url(session, url)?;
        keys.push(("url", Change::Text(url)));
        keys.extend(credentials.username.map(|user| ("username", Change::Text(user))));
        secret = secret.or(credentials.secret);
    }
    keys.extend(changes(&set.settings));
    let makes_key = set.settings.key_type.is_some();
    if keys.is_empty() && secret.is_none() && set.settings.host_key.is_empty() && !makes_key {
        return Err(Usage("nothing to change; 'git mirror-push set -h' lists the options".into()).into());
    }
    let directory = session.repository.layout().remote(&set.name);
    drain::prepare(&session.repository, &set.name)?;
    let config = edit(&session.repository, &session.base.server, &Edit::Set(set.name.clone(), keys))?;
    store_secret(&directory, secret.as_ref())?;
    pin(&directory, &set.settings.host_key, &by_name(&config, &set.name)?.address)?;
    make_key(session, &config, &set.name, &set.settings)?;
    let has_secret = directory.join("secret").is_file();
    warn_of_insecure_http(session, &config, &set.name, has_secret)?;
    compare(session, &config, &set.name)
}

/// Serves a mirror again.
pub(super) fn enable(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    drain::prepare(&session.repository, name)?;
    let change = Edit::Set(name.to_owned(), vec![("enabled", Change::Unset)]);
    let config = edit(&session.repository, &session.base.server, &change)?;
    compare(session, &config, name)
}

/// Serves a mirror no longer. What it was not given yet is compared when it is enabled.
pub(super) fn disable(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    let change = Edit::Set(name.to_owned(), vec![("enabled", Change::Flag(false))]);
    edit(&session.repository, &session.base.server, &change)?;
    Ok(DONE)
}

/// Removes a mirror: from the configuration first, then, once no drain is at it, its files. The lock file stays.
pub(super) fn remove(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    edit(&session.repository, &session.base.server, &Edit::Remove(name.to_owned()))?;
    let directory = session.repository.layout().remote(name);
    if !directory.is_dir() {
        return Ok(DONE);
    }
    let _lock = Lock::acquire(&directory, session.repository.sharing())?;
    drain::forget(&directory).with_context(|| format!("cannot remove the files in '{}'", directory.display()))?;
    session.base.say(&format!("removed mirror '{name}'; its repository was not touched"));
    Ok(DONE)
}

pub(super) fn compare(session: &Session<'_>, config: &Config, name: &str) -> anyhow::Result<u8> {
    if config.mirror(name).is_some_and(|mirror| mirror.is_enabled) {
        spool::request_full_sync(&session.repository.layout(), name, new_id(now()))?;
        wake::wake(session, config);
    }
    Ok(DONE)
}

/// The URL as it is written into the file, and the credentials that were in it.
fn checked_url(session: &Session<'_>, text: &str) -> anyhow::Result<(String, Credentials)> {
    let (address, credentials) = parse(text).map_err(|refused| Usage(refused.to_string()))?;
    let url = match &address {
        Address::Local(path) => {
            let path = absolute(session, path);
            let path = path.canonicalize().unwrap_or(path);
            if path == session.repository.git_dir() || path.join(".git") == session.repository.git_dir() {
                return Err(Usage(format!("'{}' is this repository itself", path.display())).into());
            }
            path.to_str().context("a path of a mirror must be UTF-8")?.to_owned()
        }
        Address::Http { url, .. } => url.clone(),
        // The password is stored apart; what is left names no more than the user.
        Address::Ssh { .. } => without_password(text),
        Address::Git { .. } => text.to_owned(),
    };
    Ok((url, credentials))
}

/// An ssh URL without the password after the user's name.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}{path}", user.split(':').next().unwrap_or(user)),
        None => text.to_owned(),
    }
}

/// Makes the key of a mirror that is to have one.
fn make_key(session: &Session<'_>, config: &Config, name: &str, settings: &Settings) -> anyhow::Result<()> {
    let kind = settings.key_type.map(|kind| match kind {
        options::KeyType::Ed25519 => KeyType::Ed25519,
        options::KeyType::Rsa => KeyType::Rsa,
    });
    if kind.is_some() || by_name(config, name)?.auth_method == config::AuthMethod::SshPublicKey {
        super::keys::ensure_key(session, name, kind)?;
    }
    Ok(())
}

/// The keys that the options change.
fn changes(settings: &Settings) -> Keys {
    let mut keys = Keys::new();
    if let Some(only) = settings.only_protected_branches {
        keys.push(("only_protected_branches", Change::Flag(only)));
    }
    match settings.mirror_branch_regex.as_deref() {
        None => {}
        Some("") => keys.push(("mirror_branch_regex", Change::Unset)),
        Some(regex) => keys.push(("mirror_branch_regex", Change::Text(regex.to_owned()))),
    }
    let keep = settings.keep_divergent_refs.map(|keep| if keep { Divergent::Keep } else { Divergent::Overwrite });
    if let Some(divergent) = settings.divergent_refs.or(keep) {
        let word = match divergent {
            Divergent::Overwrite => "overwrite",
            Divergent::Keep => "keep",
            Divergent::Fail => "fail",
        };
        keys.push(("divergent_refs", Change::Text(word.into())));
    }
    match settings.tags.as_slice() {
        [] => {}
        [word] if word == "all" || word == "none" => keys.push(("tags", Change::Text(word.clone()))),
        patterns => keys.push(("tags", Change::List(patterns.to_vec()))),
    }
    if let Some(prune) = settings.prune {
        let word = match prune {
            Prune::Merged => "merged",
            Prune::Deleted => "deleted",
            Prune::Mirror => "mirror",
            Prune::Never => "never",
        };
        keys.push(("prune", Change::Text(word.into())));
    }
    if let Some(method) = settings.auth_method {
        let word = match method {
            AuthMethod::Password => "password",
            AuthMethod::SshPublicKey => "ssh_public_key",
            AuthMethod::None => "none",
        };
        keys.push(("auth_method", Change::Text(word.into())));
    }
    keys.extend(settings.username.clone().map(|user| ("username", Change::Text(user))));
    if !settings.refspec.is_empty() {
        keys.push(("refspecs", Change::List(settings.refspec.clone())));
    }
    keys
}

/// The first line of standard input, if the password is to be read from there.
fn password(settings: &Settings) -> anyhow::Result<Option<Secret>> {
    if !settings.password_stdin {
        return Ok(None);
    }
    let secret = line_of_stdin()?;
    anyhow::ensure!(!secret.is_empty(), "standard input holds no password");
    Ok(Some(Secret::new(secret)))
}

/// The first line of standard input.
pub(super) fn line_of_stdin() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the password from standard input")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn store_secret(directory: &Path, secret: Option<&Secret>) -> anyhow::Result<()> {
    let path = directory.join("secret");
    let Some(secret) = secret else { return Ok(()) };
    if secret.expose().is_empty() { remove_secret(&path) } else { write_secret(&path, secret) }
        .with_context(|| format!("cannot write '{}'", path.display()))
}

/// Pins these keys in place of those that were pinned.
fn pin(directory: &Path, lines: &[String], address: &Address) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    Ok(write_host_keys(directory, &host_key_lines(lines, address)?)?)
}

/// Reads host keys as a user gives them. A key without a host gets that of the address.
pub(super) fn host_key_lines(lines: &[String], address: &Address) -> anyhow::Result<Vec<HostKey>> {
    let Address::Ssh { host, port, .. } = address else {
        return Err(Usage("a host key needs an ssh URL".into()).into());
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
            Usage(format!("'{}' is no host key; give a line as ssh-keyscan prints it", line.escape_debug())).into()
        })
    };
    lines.iter().map(read).collect()
}

fn warn_of_insecure_http(session: &Session<'_>, config: &Config, name: &str, has_secret: bool) -> anyhow::Result<()> {
    let mirror = by_name(config, name)?;
    if has_secret && mirror.address.is_plain_http() && !mirror.allow_insecure_http {
        session
            .base
            .warn("a password over plain http is refused; use https, or set allow_insecure_http = true in config.toml");
    }
    Ok(())
}
