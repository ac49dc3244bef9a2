//! The check of an upstream without the mirror's lock. A run, which takes the lock, begins only if
//! there is something to do.

use std::cell::OnceCell;
use std::sync::Arc;

use jiff::Timestamp;

use super::both::Left;
use super::observe::unreadable;
use super::pull::Pull;
use super::report::unchanged;
use super::run::{Recent, Turn, serve_once};
use super::{Check, Context, Error};
use crate::config::Mirror;
use crate::durable;
use crate::mirror::target;
use crate::push::Progress;
use crate::repo::Repository;
use crate::status::{self, CHECKED, Mirrored, Status, UpdateStatus, next_check};

/// Checks upstream without the lock, and takes what changed if anything did. A mirror for which something is queued, or whose last run left
/// something to do, is served at once.
pub(super) fn check_upstream(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    check: Check,
) -> Result<Turn, Error> {
    let layout = repository.layout();
    let directory = layout.remote(&mirror.name);
    let files = |doing| Error::files(doing, directory.clone());
    let status = status::of(&layout, mirror).map_err(files("read the status"))?;
    let generation = status.generation;
    let pending = status::waiting(&layout, mirror).map_err(files("read the queue"))?.pushes;
    let now = (context.now)();
    let is_due = || next_check(&directory, &status, now, context.since).is_some_and(|next| next <= now);
    if check == Check::Due && pending == 0 && !is_due() {
        return Ok(Turn::Idle);
    }
    let seen = status.pull.as_ref().and_then(|pull| pull.seen.as_ref());
    let (Some(seen), true) = (seen, pending == 0 && is_settled(&status, check, (context.now)())) else {
        return serve_once(repository, context, mirror, context.mode, None);
    };
    let mirrored = Mirrored::open(&directory, &mirror.identity(), repository).map_err(unreadable)?;
    // An error of the configuration is recorded like one of the run.
    let Ok(target) = target(repository, mirror, context.server) else {
        return serve_once(repository, context, mirror, context.mode, None);
    };
    let progress = Arc::new(Progress::default());
    (context.on_begin)(mirror, Arc::clone(&progress));
    let (target, mirrored, left, moves) = (&target, &mirrored, &Left::default(), &status.moves[..]);
    let (is_confirmed, fence, before, hook) = (false, None, &status, OnceCell::new());
    let run = Pull {
        repository,
        mirror,
        target,
        context,
        mirrored,
        left,
        before,
        is_first: !mirrored.exists(),
        moves,
        is_confirmed,
        fence,
        progress,
        hook,
    };
    match run.look_for_news(seen) {
        Ok(None) => {
            durable::touch(&directory.join(CHECKED), repository.sharing().private_mode() | 0o044)
                .map_err(files("note the check"))?;
            Ok(unchanged(repository, mirror, &target.credentials, status, (context.now)()).into())
        }
        news => {
            let heard = news.transpose().map(|heard| Recent { generation, identity: mirror.identity(), heard });
            serve_once(repository, context, mirror, context.mode, heard)
        }
    }
}

/// Whether the last run left nothing to do. After a failed run, a check that a person asks for
/// always begins a run.
fn is_settled(status: &Status, check: Check, now: Timestamp) -> bool {
    let is_retry_due = status.next_attempt().is_some_and(|next| next <= now);
    match status.update_status {
        UpdateStatus::Finished => !is_retry_due,
        UpdateStatus::Failed => check == Check::Due && !is_retry_due,
        _ => false,
    }
}
