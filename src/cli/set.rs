//! `set`: keys of a mirror, or of the repository; and `KEY=VALUE`, which `add` takes too.

use super::args::Set;
use super::mirrors::{
    checked_url, host_keys, password, refuse_token, tell_of_key, told_token, wake_for, warn_of_insecure_http,
};
use super::protect::set_keys;
use super::{DONE, Session, Usage, by_name};
use crate::config::{self, Change, Mirror, Place};
use crate::credentials::identity;
use crate::mirror::{self, Extras, Keys};
use crate::plan::Side;
use crate::refs::Oid;
use crate::status::{self, Outcome};

/// Changes a mirror, or the repository if no mirror is named.
pub(super) fn set(session: &Session<'_>, mut set: Set) -> anyhow::Result<u8> {
    if let Some(first) = set.name.take_if(|name| name.contains('=')) {
        set.keys.insert(0, first);
    }
    let Some(name) = &set.name else { return set_of_repository(session, &set) };
    let before = session.config()?;
    let mirror = by_name(&before, name)?;
    let mut typed = assignments(&set.keys, Place::Remote)?;
    take_url(&mut typed, &mut set.url)?;
    let mut keys = Keys::new();
    let mut secret = password(&set.settings)?;
    let mut address = mirror.address.clone();
    if let Some(url) = &set.url {
        let (url, new, credentials) = checked_url(session, url)?;
        let stored = mirror::credentials(&session.repository.layout(), mirror)?.secret;
        let credentials = told_token(session, credentials, secret.as_ref().or(stored.as_ref()));
        address = new;
        keys.push(("url", Change::Text(url)));
        keys.extend(credentials.username.map(|user| ("username", Change::Text(user))));
        secret = secret.or(credentials.secret);
    }
    keys.extend(set.settings.keys());
    join(&mut keys, typed)?;
    refuse_token(&keys, || Ok(secret.clone().or(mirror::credentials(&session.repository.layout(), mirror)?.secret)))?;
    let extras = Extras {
        secret,
        host_keys: host_keys(&set.settings, &address)?,
        key_type: set.settings.key_type(),
        adopts: false,
    };
    let is_nothing = extras.secret.is_none() && extras.host_keys.is_none() && extras.key_type.is_none();
    if keys.is_empty() && is_nothing {
        return Err(nothing_to_change());
    }
    let directory = session.repository.layout().remote(name);
    let had_key = extras.key_type.is_none() && identity(&directory).is_some();
    let config = session.editor().set(&mirror.into(), keys, &extras)?;
    tell_what_is_overwritten(session, mirror, by_name(&config, name)?)?;
    tell_of_key(session, name, had_key);
    let has_secret = directory.join("secret").is_file();
    warn_of_insecure_http(session, &config, name, has_secret)?;
    wake_for(session, &config, name);
    Ok(DONE)
}

/// Changes keys of the repository.
fn set_of_repository(session: &Session<'_>, set: &Set) -> anyhow::Result<u8> {
    let is_of_mirror = set.url.is_some()
        || set.settings.password_stdin
        || set.settings.key_type.is_some()
        || !set.settings.host_key.is_empty()
        || !set.settings.keys().is_empty();
    if is_of_mirror {
        return Err(Usage("these options belong to a mirror; name it: git mirror-push set NAME …".into()).into());
    }
    let keys = assignments(&set.keys, Place::Top)?;
    if keys.is_empty() { Err(nothing_to_change()) } else { set_keys(session, keys) }
}

fn nothing_to_change() -> anyhow::Error {
    Usage("nothing to change; 'git mirror-push set -h' lists the options".into()).into()
}

/// What was typed as KEY=VALUE.
pub(super) fn assignments(texts: &[String], place: Place) -> anyhow::Result<Keys> {
    let mut keys = Keys::new();
    for text in texts {
        join(&mut keys, vec![config::assignment(text, place).map_err(Usage)?])?;
    }
    Ok(keys)
}

/// Adds keys. A key that is given twice is an error.
pub(super) fn join(keys: &mut Keys, more: Keys) -> anyhow::Result<()> {
    for (key, change) in more {
        if keys.iter().any(|(other, _)| *other == key) {
            return Err(Usage(format!("'{key}' is given twice")).into());
        }
        keys.push((key, change));
    }
    Ok(())
}

/// Treats `url=URL` like `--url`, so that credentials in it are stored separately. `url=` is kept as it is: it removes the key, so that a
/// mirror from a template has the template's URL again.
fn take_url(keys: &mut Keys, url: &mut Option<String>) -> anyhow::Result<()> {
    let Some(at) = keys.iter().position(|(key, change)| *key == "url" && *change != Change::Unset) else {
        return Ok(());
    };
    let Change::Text(text) = keys.remove(at).1 else { return Err(Usage("a URL is a string".into()).into()) };
    match url.replace(text) {
        None => Ok(()),
        Some(_) => Err(Usage("the URL is given twice".into()).into()),
    }
}

/// If the policy was changed to `overwrite`, warns which refs the next run overwrites. These are
/// refs on the mirror, or refs here if we take the mirror's refs.
fn tell_what_is_overwritten(session: &Session<'_>, before: &Mirror, after: &Mirror) -> anyhow::Result<()> {
    use crate::plan::Divergent::Overwrite;
    if before.divergent == Overwrite || after.divergent != Overwrite || !after.is_enabled {
        return Ok(());
    }
    let status = status::of(&session.repository.layout(), after)?;
    for outcome in status.refs.iter().filter(|outcome| outcome.outcome == Outcome::Divergent) {
        let short = |oid: Option<Oid>| oid.map(|oid| oid.short()).unwrap_or_default();
        let (old, new) = (short(outcome.old_value()), short(outcome.new_value()));
        session.base.warn(&match outcome.side {
            Side::There => {
                format!(
                    "the next run overwrites {} on mirror '{}': {old} there becomes {new}",
                    outcome.name, after.name
                )
            }
            Side::Here => format!(
                "the next run overwrites {} here: {old} becomes {new}, which '{}' has",
                outcome.name, after.name
            ),
        });
    }
    Ok(())
}
