//! A mirror whose repository may not be there: the look before the first contact, and its creation.
//!
//! The look asks upload-pack. A request to receive-pack would make the repository at some hosts
//! (GitLab, Gitea with push-to-create), even if the URL is wrong. On this machine, the look reads
//! the directory. Over git:// a request makes nothing, so there is no look.
//!
//! Guaranteed: a repository is made once. One that a run updated once and that is gone now is made
//! again only if a person asks for it (`sync --create`).
//! A crash between the creation and the push leaves an empty repository, which the next run finds and fills.

use std::time::Duration;

use super::contact::{Contact, PriorState};
use super::{Error, Mode};
use crate::config::{Create, CreateKind, Maker, Mirror};
use crate::create::{self, Made, Turn, Wanted, pace};
use crate::fetch;
use crate::mirror::create_token;
use crate::repo::Repository;
use crate::status::{self, Mirrored};
use crate::wire::{self, Address, Contacts, Pool, Ssh, Target};

/// Whether the repository of the mirror is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is there, or the answer of receive-pack will show whether it is.
    #[default]
    There,
    /// This run made it.
    Created,
    /// The host makes it when this run pushes.
    ByPush,
    /// It is not there. A run that does more than plan would make it.
    Missing,
}

/// Finds out whether the repository is there, and makes it if it may be made.
pub(super) fn presence(contact: &Contact<'_>, known: &PriorState<'_>) -> Result<Presence, Error> {
    let (mirror, context) = (contact.mirror, contact.context);
    let is_first = !was_there(known);
    if !is_first && !context.creates && context.mode != Mode::Plan {
        return Ok(Presence::There);
    }
    let Err(absent) = look(contact.target, context.pool) else { return Ok(Presence::There) };
    if !matches!(absent, wire::Error::NotFound(_)) {
        return Err(absent.into());
    }
    let Some(create) = mirror.create.as_ref().filter(|_| is_first || context.creates) else {
        return Err(gone(absent.into(), known));
    };
    if context.mode == Mode::Plan {
        return Ok(Presence::Missing);
    }
    if create.maker == Maker::Kind(CreateKind::Push) {
        return made_by_push(contact);
    }
    make(contact, create)
}

/// Whether a run with the mirror at this address ended well, or left values there.
fn was_there(known: &PriorState<'_>) -> bool {
    known.mirrored.exists() || known.before.last_successful_update_at.is_some()
}

/// Whether the next run makes the repository of the mirror, if it is not there.
#[must_use]
pub fn will_be_made(repository: &Repository, mirror: &Mirror) -> bool {
    let layout = repository.layout();
    let was_right = status::of(&layout, mirror).is_ok_and(|status| status.last_successful_update_at.is_some());
    let mirrored = Mirrored::open(&layout.remote(&mirror.name), &mirror.identity(), repository);
    mirror.create.is_some() && !was_right && mirrored.is_ok_and(|mirrored| !mirrored.exists())
}

/// The error of a run. If the repository is not found and was there once, it says when.
pub(super) fn gone(error: Error, known: &PriorState<'_>) -> Error {
    match error {
        Error::Push(source @ wire::Error::NotFound(_)) if was_there(known) => Error::Gone {
            source: Box::new(source),
            seen: known.before.last_successful_update_at.as_deref().and_then(|time| time.get(..10)).map(str::to_owned),
        },
        other => other,
    }
}

/// The error of a run that does not find the repository although it should have been made.
pub(super) fn not_made(error: Error, presence: Presence) -> Error {
    match (error, presence) {
        (Error::Push(source @ wire::Error::NotFound(_)), Presence::ByPush) => {
            create::Error::Refused(format!("the host did not create it when this account pushed ({source})")).into()
        }
        (Error::Push(source @ wire::Error::NotFound(_)), Presence::Created) => {
            create::Error::Program(format!("it was reported as created, but is not found ({source})")).into()
        }
        (error, _) => error,
    }
}

/// Looks whether the repository is there, in a way that makes none.
///
/// # Errors
/// [`wire::Error::NotFound`], when it is not there; an error of the host, when it cannot be reached. No error if upload-pack refuses us for
/// another reason: receive-pack may still be open.
pub(super) fn look(target: &Target, pool: &Pool) -> Result<(), wire::Error> {
    match &target.address {
        Address::Git { .. } => Ok(()),
        Address::Local(path) if create::is_free(path) => {
            let what = if path.is_dir() { "is an empty directory" } else { "is not a directory on this machine" };
            Err(wire::Error::NotFound(format!("'{}' {what}", path.display())))
        }
        Address::Local(_) => Ok(()),
        Address::Ssh { .. } | Address::Http { .. } => {
            // Receive-pack is asked next, over the same connection.
            let target = &Target { ssh: Ssh { contacts: Contacts::More, ..target.ssh.clone() }, ..target.clone() };
            let mut session = fetch::Session::connect(target, pool, None)?;
            match session.greet() {
                Ok(()) => {
                    session.end();
                    Ok(())
                }
                Err(error @ wire::Error::NotFound(_)) => Err(error),
                Err(error) if error.is_host_failure() => Err(error),
                Err(_) => Ok(()),
            }
        }
    }
}

/// The host makes the repository when something is pushed.
fn made_by_push(contact: &Contact<'_>) -> Result<Presence, Error> {
    match contact.repository.object_format() {
        "sha1" => Ok(Presence::ByPush),
        format => Err(create::Error::Refused(format!(
            "hosts make SHA-1 repositories at the first push, and this repository's object format is {format}; choose another 'create'"
        ))
        .into()),
    }
}

/// How long a creation waits for another one at the same host. After that, the run ends and another
/// run can use its thread.
const AT_WORK: Duration = Duration::from_secs(30);

/// The longest time for which a host can stop all creations there.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// Makes the repository, at the pace of its host.
fn make(contact: &Contact<'_>, create: &Create) -> Result<Presence, Error> {
    let (mirror, context) = (contact.mirror, contact.context);
    let fenced = || contact.fence.map_or(Ok(()), super::fence::Fence::check);
    let token = create_token(mirror, create, &contact.target.credentials)?;
    let wanted = Wanted {
        repository: contact.repository,
        mirror,
        create,
        target: contact.target,
        token: token.as_ref(),
        pool: context.pool,
    };
    let Some(host) = contact.target.address.host() else {
        fenced()?;
        return create::create(&wanted).map(|_| Presence::Created).map_err(Error::from);
    };
    let who = format!("{} {}", contact.repository.git_dir().display(), mirror.name);
    let now = (context.now)();
    let wait = |at: jiff::Timestamp| at.duration_since(now).try_into().unwrap_or_default();
    let made = match pace().ask(host, &who, create.per_minute, now) {
        Turn::Later { at, place } => {
            return Err(create::Error::Waits { host: host.to_owned(), place, wait: wait(at) }.into());
        }
        Turn::Now(at_work) => {
            let Some(_alone) = at_work.try_lock_for(AT_WORK) else {
                return Err(create::Error::Waits { host: host.to_owned(), place: 1, wait: AT_WORK }.into());
            };
            // The creation that ran until now may have heard that the host asks for a pause.
            let now = (context.now)();
            if let Some(until) = pace().paused(host, now) {
                let wait = until.duration_since(now).try_into().unwrap_or_default();
                return Err(create::Error::Waits { host: host.to_owned(), place: 1, wait }.into());
            }
            fenced()?;
            let made = create::create(&wanted);
            // Under the lock, so that the next creation hears of it.
            if let Err(create::Error::Limited { wait, .. }) = &made {
                let now = (context.now)();
                pace().wait(host, now.checked_add((*wait).min(MAX_WAIT)).unwrap_or(now), now);
            }
            made
        }
    };
    match made {
        Ok(Made::Now) => {
            tracing::info!("mirror '{}': its repository was created", mirror.name);
            Ok(Presence::Created)
        }
        Ok(Made::Before) => look(contact.target, context.pool).map(|()| Presence::There).map_err(|error| match error {
            wire::Error::NotFound(_) => create::Error::Refused(format!(
                "'{host}' says that it exists, but the account that pushes cannot see it; give the account or key of the mirror access to it"
            ))
            .into(),
            other => other.into(),
        }),
        Err(error) => Err(error.into()),
    }
}
