//! What follows a run besides its status: the base, HEAD of a mirror on this machine, and notifications.

use std::path::Path;

use super::fence::Late;
use super::update::UpdateResult;
use super::{Context, Error};
use crate::config::Mirror;
use crate::mirror::{LocalMirror, credentials};
use crate::notify::{self, Event};
use crate::repo::Repository;
use crate::status::{self, Mirrored, Outcome, RefOutcome, Status, render_time};

/// Stores durably what is now known of the mirror, if first contact is over. A failure is only logged: it loses knowledge, not correctness.
/// Returns whether first contact is over.
pub(super) fn keep_held(mirrored: &Mirrored, result: &mut UpdateResult, is_confirmed: bool) -> bool {
    if !mirrored.exists() && !result.has_compared_all && !ends_first_contact(result, is_confirmed) {
        return false;
    }
    let mut changed: Vec<_> = result.held.iter().map(|(name, held)| (name.clone(), held.clone())).collect();
    if changed.is_empty() && mirrored.exists() && !mirrored.is_earlier() {
        return true;
    }
    changed.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    if let Err(error) = mirrored.set(&changed) {
        tracing::warn!("cannot store what the mirror has: {error}");
        // The next check must not find that nothing is left to do.
        if let Some(pull) = &mut result.pull {
            pull.seen = None;
        }
    }
    true
}

/// Whether this first run at an address showed that the mirror is the intended one: it holds a value of ours, it had no branches and tags,
/// or a person confirmed it. A confirmation counts only after a run without an error, or one that updated a ref. A run that did not scan
/// all refs, or that stopped at first contact, shows nothing.
fn ends_first_contact(result: &UpdateResult, is_confirmed: bool) -> bool {
    let has_seen_all = result.scanned.is_some() && !matches!(result.error, Some(Error::FirstContact { .. }));
    let is_ours = || result.held.values().any(|held| held.base.is_some());
    let is_done = || result.outcomes.values().any(|outcome| outcome.outcome.is_done());
    let is_confirmed = is_confirmed && (result.error.is_none() || is_done());
    has_seen_all && (result.was_blank || is_ours() || is_confirmed)
}

/// Sets the HEAD of a mirror on this machine to our default branch, if `set_head` asks for it, HEAD names a branch that is not here, and
/// the mirror has the default branch. A failure is logged; `status` still shows the fix.
pub(super) fn mend_head(repository: &Repository, mirror: &Mirror, result: &UpdateResult, mirrored: &Mirrored) {
    let Some(local) = mirror.sets_head.then(|| LocalMirror::of(&mirror.address)).flatten() else { return };
    let has = |name| match result.held.get(&name) {
        Some(held) => held.base.is_some(),
        None => mirrored.find(&name).is_ok_and(|held| held.base.is_some()),
    };
    let done = repository.default_branch().map_err(Error::from).and_then(|ours| match ours.is_some_and(has) {
        true => local.set_head(repository).map_err(Error::from),
        false => Ok(()),
    });
    if let Err(error) = done {
        tracing::warn!("mirror '{}': cannot set HEAD: {error}", mirror.name);
    }
}

/// Runs the notification command if there is an event. Records the notification only if the command succeeded, so the next attempt repeats
/// a failed one.
pub(super) fn tell(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    directory: &Path,
    after: &mut Status,
) -> Result<(), Error> {
    let settings = &context.config.notify;
    let (Some(command), Some(event)) = (&settings.command, notify::event(after, settings, (context.now)())) else {
        return Ok(());
    };
    let credentials = credentials(&repository.layout(), mirror).unwrap_or_default();
    let message = notify::Message {
        event,
        repository: &repository.git_dir().display().to_string(),
        remote: &mirror.name,
        url: &mirror.address.masked(&credentials),
        status: after,
    };
    match notify::tell(command, &message) {
        Ok(()) => {
            after.notified_at = (event != Event::Recovered).then(|| render_time((context.now)()));
            let files = Error::files("write the status", directory.to_owned());
            status::write(directory, after, repository.sharing()).map_err(files)
        }
        Err(error) => {
            tracing::warn!("notify: {error}");
            Ok(())
        }
    }
}

/// The refs that a superseded run updated or may have updated, with the values that it sent. The next run reads these refs again, and the
/// values count as ours.
pub(super) fn agreed(result: &UpdateResult) -> Late {
    let is_possible = |outcome: &&RefOutcome| outcome.outcome.is_done() || outcome.outcome == Outcome::RemoteFailed;
    let possible = result.outcomes.values().filter(is_possible);
    possible.map(|outcome| (outcome.name.clone(), outcome.local.into_iter().collect())).collect()
}
