//! `add`, `enable`, `disable`, `remove`, `reset`: the commands that change a mirror, and what they share with `set`. `mirror::Editor`
//! does the work.

use std::io::BufRead;
use std::path::{Component, Path};

use anyhow::Context;

use super::args::Add;
use super::options::Settings;
use super::set::{assignments, join};
use super::{DONE, Session, Usage, absolute, by_name, hook, now};
use crate::config::{Change, Config, Edit, HookSetting, Place, Wake, edit};
use crate::credentials::{self, Credentials, HostKey, Secret, identity};
use crate::import::unknown;
use crate::install::Done;
use crate::mirror::{self, Extras, Keys, clean_url, host_keys_of, token_as_password};
use crate::wire::{Address, parse};

impl Session<'_> {
    /// Names the mirrors in git's configuration that other tools keep there.
    pub(super) fn tell_of_others(&self, config: &Config) {
        for text in unknown(config, &self.repository.git_remotes()) {
            self.base.say(&format!("{text}: git mirror-push import --dry-run"));
        }
    }

    /// The editor that makes the changes. An addition or a removal waits until no drain works on the mirror.
    pub(super) fn editor(&self) -> mirror::Editor<'_> {
        mirror::Editor {
            repository: &self.repository,
            server: &self.base.server,
            now,
            while_busy: mirror::WhileBusy::Wait,
        }
    }
}

/// Makes a full sync of every enabled mirror due, because the rules have changed, and wakes a drain.
pub(super) fn compare_all(session: &Session<'_>, config: &Config) -> anyhow::Result<()> {
    for mirror in &config.mirrors {
        session.editor().request(config, &mirror.name, mirror::Wish::Compare)?;
    }
    session.wake(config);
    Ok(())
}

/// Adds a mirror.
pub(super) fn add(session: &Session<'_>, add: &Add) -> anyhow::Result<u8> {
    let before = session.config()?;
    if before.mirror(&add.name).is_some() {
        return Err(Usage(format!("mirror '{}' is there already; use 'set', or another name", add.name)).into());
    }
    let (url, address, credentials) = checked_url(session, &url_of(session, add)?)?;
    let given = password(&add.settings)?;
    let credentials = told_token(session, credentials, given.as_ref());
    let mut keys = vec![("url", Change::Text(url))];
    keys.extend(credentials.username.map(|user| ("username", Change::Text(user))));
    if add.from_git_remote.is_some() && add.settings.direction.is_none() {
        keys.push(("direction", Change::Text("pull".into())));
    }
    keys.extend(add.settings.keys());
    let typed = assignments(&add.keys, Place::Remote)?;
    if typed.iter().any(|(key, _)| *key == "url") {
        return Err(Usage("the URL is given twice".into()).into());
    }
    join(&mut keys, typed)?;
    if add.disabled {
        join(&mut keys, vec![("enabled", Change::Flag(false))])?;
    }
    refuse_token(&keys, || Ok(given.clone().or_else(|| credentials.secret.clone())))?;
    let secret = given.or(credentials.secret).filter(|secret| !secret.expose().is_empty());
    if secret.is_some() && !keys.iter().any(|(key, _)| *key == "auth_method") {
        keys.push(("auth_method", Change::Text("password".into())));
    }
    let has_secret = secret.is_some();
    let extras = Extras {
        secret,
        host_keys: host_keys(&add.settings, &address)?,
        key_type: add.settings.key_type(),
        adopts: add.adopt,
    };
    let config = session.editor().add(&add.name, keys, &extras)?;
    warn_of_insecure_http(session, &config, &add.name, has_secret)?;
    tell_of_key(session, &add.name, false);
    if config.hook != HookSetting::None
        && let Done::Installed(path) = hook::ensure(session)?
    {
        session.base.say(&format!("installed the hook '{}'", path.display()));
    }
    let is_enabled = config.mirror(&add.name).is_some_and(|mirror| mirror.is_enabled);
    wake_for(session, &config, &add.name);
    warn_of_working_tree(session, &add.name);
    session.tell_of_others(&config);
    if let Some(remote) = &add.from_git_remote {
        warn_of_fetch(session, remote);
    }
    let then = match config.wake {
        _ if !is_enabled => format!("it is disabled: git mirror-push enable {}", add.name),
        _ if config.is_silent => "its first sync waits because silent mode is on".to_owned(),
        Wake::None => "its first sync is due: git mirror-push drain".to_owned(),
        Wake::Auto => format!("its first sync begins in the background: git mirror-push status {}", add.name),
    };
    session.base.say(&format!("added mirror '{}'; {then}", add.name));
    Ok(DONE)
}

/// The URL that was given, or that of the remote in git's configuration.
fn url_of(session: &Session<'_>, add: &Add) -> anyhow::Result<String> {
    let Some(remote) = &add.from_git_remote else { return Ok(add.url.clone().unwrap_or_default()) };
    let url = session.repository.git_config(&format!("remote.{remote}.url"));
    let fix = "'git remote -v' shows the remotes";
    url.ok_or_else(|| {
        Usage(format!("git's configuration has no remote '{}' with a URL; {fix}", remote.escape_debug())).into()
    })
}

/// Warns of a remote of git's configuration that would delete what is kept: one that fetches into `refs/*`, as `git clone --mirror` makes it.
fn warn_of_fetch(session: &Session<'_>, remote: &str) {
    let specs = session.repository.git_config_all(&format!("remote.{remote}.fetch"));
    if specs.iter().any(|spec| spec.ends_with(":refs/*")) {
        session.base.warn(&format!(
            "'git remote update -p' would delete what is kept below refs/rewritten; turn it off: git config --unset-all remote.{remote}.fetch"
        ));
    }
}

/// If the repository has a working tree, warns that a commit made there runs no post-receive hook.
fn warn_of_working_tree(session: &Session<'_>, name: &str) {
    if session.repository.has_working_tree() {
        session.base.warn(&format!(
            "this repository has a working tree; a commit made in it runs no hook, and 'git mirror-push sync {name}' mirrors it"
        ));
    }
}

/// Serves a mirror again.
pub(super) fn enable(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    let seen = by_name(&session.config()?, name)?.into();
    let set = |change| session.editor().set(&seen, vec![("enabled", change)], &Extras::default());
    let mut config = set(Change::Unset)?;
    if config.mirror(name).is_some_and(|mirror| !mirror.is_enabled) {
        // Another table says that it is disabled: that of the server's file, or [defaults].
        config = set(Change::Flag(true))?;
    }
    wake_for(session, &config, name);
    Ok(DONE)
}

/// Stops serving a mirror. When it is enabled again, everything is compared, so no push is lost.
pub(super) fn disable(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    session.editor().prepare()?;
    let change = Edit::Set(name.to_owned(), vec![("enabled", Change::Flag(false))]);
    edit(&session.repository, &session.base.server, &change)?;
    Ok(DONE)
}

/// Removes a mirror and its files.
pub(super) fn remove(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    session.editor().remove(name)?;
    session.base.say(&format!("removed mirror '{name}'; its repository was not touched"));
    let (kept, conflicts) = (format!("refs/rewritten/{name}/"), format!("refs/conflicts/{name}/"));
    for (below, what) in [(kept, "what was replaced stays"), (conflicts, "what was in conflict on the mirror stays")] {
        let is_below = |found: &crate::refs::RefName| found.as_bytes().starts_with(below.as_bytes());
        if session.repository.list(is_below).is_ok_and(|listing| !listing.refs.is_empty()) {
            session.base.say(&format!("{what} below {below}"));
        }
    }
    Ok(DONE)
}

/// Removes what the repository's file says about a mirror that the server's file defines.
pub(super) fn reset(session: &Session<'_>, name: &str) -> anyhow::Result<u8> {
    by_name(&session.config()?, name)?;
    let config = session.editor().reset(name)?;
    wake_for(session, &config, name);
    session.base.say(&format!("mirror '{name}' has the settings of the server's file again"));
    Ok(DONE)
}

/// Makes a full sync of a mirror due, and wakes a drain. Does nothing for a disabled mirror.
pub(super) fn compare(session: &Session<'_>, config: &Config, name: &str) -> anyhow::Result<u8> {
    session.editor().request(config, name, mirror::Wish::Compare)?;
    wake_for(session, config, name);
    Ok(DONE)
}

pub(super) fn wake_for(session: &Session<'_>, config: &Config, name: &str) {
    if config.mirror(name).is_some_and(|mirror| mirror.is_enabled) {
        session.wake(config);
    }
}

/// If the URL has a token as its user name, uses it as the password, sets another user name, and tells the user.
pub(super) fn told_token(session: &Session<'_>, found: Credentials, known: Option<&Secret>) -> Credentials {
    let user = found.username.clone();
    let credentials = token_as_password(found, known);
    if credentials.username != user {
        session.base.say(
            "the user name in the URL is a token; it is stored as the password, with the user name 'x-access-token'",
        );
    }
    credentials
}

/// Refuses a token as a user name, because a token is a secret and the configuration file holds no secrets. `known` returns the password
/// that belongs to the user name.
pub(super) fn refuse_token(keys: &Keys, known: impl FnOnce() -> anyhow::Result<Option<Secret>>) -> anyhow::Result<()> {
    let Some((_, Change::Text(user))) = keys.iter().find(|(key, _)| *key == "username") else { return Ok(()) };
    if credentials::is_token(user, known()?.as_ref()) {
        let fix = "store it as the password: --password-stdin, or 'git mirror-push credential NAME'";
        return Err(Usage(format!("the user name looks like a token; {fix}")).into());
    }
    Ok(())
}

/// The URL as it is written into the file, its address, and the credentials that were in it.
pub(super) fn checked_url(session: &Session<'_>, text: &str) -> anyhow::Result<(String, Address, Credentials)> {
    let (address, _) = parse(text).map_err(|refused| Usage(refused.to_string()))?;
    let Address::Local(path) = &address else { return Ok(clean_url(text)?) };
    let typed = path;
    let path = absolute(session, path);
    if let Some(host) = host_of_path(typed).filter(|_| !path.exists()) {
        let fix = format!("for host '{host}' write https://{0}, for the path ./{0}", typed.display());
        return Err(Usage(format!("'{}' is read as a path, and there is none; {fix}", typed.display())).into());
    }
    if path.parent().is_none() {
        return Err(Usage("the URL names no repository".into()).into());
    }
    let path = path.canonicalize().unwrap_or(path);
    if path == session.repository.git_dir() || path.join(".git") == session.repository.git_dir() {
        return Err(Usage(format!("'{}' is this repository itself", path.display())).into());
    }
    let url = path.to_str().context("a path of a mirror must be UTF-8")?.to_owned();
    Ok((url, Address::Local(path), Credentials::default()))
}

/// The first part of a relative path if it looks like the name of a host.
fn host_of_path(path: &Path) -> Option<&str> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return None };
    let first = first.to_str().filter(|first| first.trim_matches('.').contains('.') && !first.ends_with(".git"))?;
    parts.next().map(|_| first)
}

pub(super) fn host_keys(settings: &Settings, address: &Address) -> anyhow::Result<Option<Vec<HostKey>>> {
    match settings.host_key.as_slice() {
        [] => Ok(None),
        lines => Ok(Some(host_keys_of(lines, address)?)),
    }
}

pub(super) fn tell_of_key(session: &Session<'_>, name: &str, had_key: bool) {
    if !had_key && identity(&session.repository.layout().remote(name)).is_some() {
        session.base.say(&format!("made a key; authorise it at the mirror: git mirror-push public-key {name}"));
    }
}

/// The first line of standard input, if the password is to be read from there.
pub(super) fn password(settings: &Settings) -> anyhow::Result<Option<Secret>> {
    if !settings.password_stdin {
        return Ok(None);
    }
    let secret = line_of_stdin()?;
    if secret.is_empty() {
        return Err(Usage("standard input holds no password".into()).into());
    }
    Ok(Some(Secret::new(secret)))
}

/// The first line of standard input.
pub(super) fn line_of_stdin() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the password from standard input")?;
    // A line of blanks is no password.
    Ok(if line.trim().is_empty() { String::new() } else { line.trim_end_matches(['\r', '\n']).to_owned() })
}

pub(super) fn warn_of_insecure_http(
    session: &Session<'_>,
    config: &Config,
    name: &str,
    has_secret: bool,
) -> anyhow::Result<()> {
    let mirror = by_name(config, name)?;
    if has_secret && mirror.address.is_plain_http() && !mirror.allow_insecure_http {
        let fix = format!("use https, or: git mirror-push set {name} allow_insecure_http=true");
        session.base.warn(&format!("a password over plain http is refused; {fix}"));
    }
    Ok(())
}
