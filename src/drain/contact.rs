//! One contact with a mirror: configuration, credentials and what is known become a [`Run`].

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::absent::{self, Presence, gone, presence};
use super::both::{Left, both};
use super::coalesce::Touched;
use super::fence::Fence;
use super::observe::{KnownValues, Scope};
use super::optimistic::expected;
use super::pull::Pull;
use super::pull::check::Heard;
use super::update::{Run, UpdateResult};
use super::{Context, Error};
use crate::config::{Direction, Mirror};
use crate::credentials::{Credentials, Redactor, judge};
use crate::mirror::target;
use crate::plan::{Decided, FirstContact};
use crate::push::Progress;
use crate::refs::RefName;
use crate::repo::Repository;
use crate::status::{Mirrored, Status};
use crate::wire::{Contacts, Ssh, Target};

/// What is known before the mirror is contacted.
pub(super) struct PriorState<'a> {
    pub(super) touched: &'a Touched,
    pub(super) mirrored: &'a Mirrored,
    pub(super) before: &'a Status,
    /// Whether this run is the first contact. It stays true after this run has noted a base.
    pub(super) is_first: bool,
}

/// What the halves of a run have in common.
pub(super) struct Contact<'c> {
    pub(super) repository: &'c Repository,
    pub(super) context: &'c Context<'c>,
    pub(super) mirror: &'c Mirror,
    pub(super) fence: Option<&'c Fence>,
    pub(super) target: &'c Target,
    progress: Arc<Progress>,
}

/// Contacts the mirror and updates it, takes from it, or both. `heard` is what upstream said a moment ago, if it was asked. Also returns the
/// credentials that were used.
pub(super) fn run_once(
    repository: &Repository,
    context: &Context<'_>,
    mirror: &Mirror,
    scope: Scope,
    known: &PriorState<'_>,
    fence: Option<&Fence>,
    heard: Option<Result<Heard, Error>>,
) -> (UpdateResult, Credentials) {
    let run = || -> Result<_, Error> {
        let target = target(repository, mirror, context.server)?;
        let progress = Arc::new(Progress::default());
        (context.on_begin)(mirror, Arc::clone(&progress));
        let contact = &Contact { repository, context, mirror, fence, target: &target, progress };
        let presence = if mirror.sends() { presence(contact, known)? } else { Presence::There };
        // What a mirror said before it was made counts no more.
        let heard = heard.filter(|_| presence == Presence::There);
        let mut result = match mirror.direction {
            Direction::Pull => pull(contact, known, heard),
            Direction::Both if presence != Presence::Missing => both(contact, &scope, known, heard),
            _ => push(contact, scope, known, BTreeMap::new(), presence)?,
        };
        result.error = result.error.map(|error| absent::not_made(error, presence));
        result.creation = match (presence, &result.error) {
            (Presence::ByPush, None) => Presence::Created,
            (Presence::ByPush, Some(_)) | (_, Some(Error::Create(_))) => Presence::There,
            (presence, _) => presence,
        };
        if mirror.sends() {
            result.error = result.error.map(|error| gone(error, known));
        }
        judge_by(&result, &target.credentials);
        Ok((result, target.credentials))
    };
    run().unwrap_or_else(|error| {
        (UpdateResult { error: Some(error), ..UpdateResult::default() }, Credentials::default())
    })
}

/// Updates the mirror. For a two-way mirror, `decided` says what happens to the refs of `scope`.
/// For a mirror that is missing, the run only plans.
pub(super) fn push(
    contact: &Contact<'_>,
    scope: Scope,
    known: &PriorState<'_>,
    decided: BTreeMap<RefName, Decided>,
    presence: Presence,
) -> Result<UpdateResult, Error> {
    let Contact { repository, context, mirror, fence, target, .. } = *contact;
    let PriorState { touched, mirrored, before, is_first } = *known;
    // The default branch goes first, alone, so the first update of an empty mirror takes two pushes.
    let contacts = if mirrored.exists() { target.ssh.contacts } else { Contacts::More };
    let target = &Target { ssh: Ssh { contacts, ..target.ssh.clone() }, ..target.clone() };
    let shallow = repository.shallow_commits()?;
    let redactor = Redactor::new(&target.credentials);
    let progress = Arc::clone(&contact.progress);
    let moves = if touched.is_released { &[][..] } else { &before.moves };
    let past = KnownValues { touched, mirrored, moves };
    let is_over = !is_first || context.adopts || is_adopted(mirror, touched);
    // The pull of a two-way mirror has judged the first contact already.
    let is_over = is_over || !decided.is_empty();
    let first_contact = if is_over { FirstContact::Over } else { FirstContact::Unconfirmed };
    let portion = before.portion;
    let expected = expected(context, mirror, before, &mirror.address.shown(&target.credentials));
    let expected = expected.filter(|_| !touched.needs_look && decided.is_empty());
    let run = Run {
        repository,
        mirror,
        target,
        context,
        past,
        first_contact,
        fence,
        redactor,
        progress,
        portion,
        shallow,
        expected,
        decided,
        presence,
    };
    Ok(run.run(scope))
}

/// Takes from the mirror.
pub(super) fn pull(contact: &Contact<'_>, known: &PriorState<'_>, heard: Option<Result<Heard, Error>>) -> UpdateResult {
    let Contact { repository, context, mirror, fence, target, .. } = *contact;
    let PriorState { touched, mirrored, before, is_first } = *known;
    let progress = Arc::clone(&contact.progress);
    let moves = if touched.is_released { &[][..] } else { &before.moves };
    let (is_confirmed, hook) = (context.adopts || is_adopted(mirror, touched), OnceCell::new());
    let left = &Left::of(repository, &mirror.name, touched, (context.now)());
    Pull {
        repository,
        mirror,
        target,
        context,
        mirrored,
        left,
        before,
        is_first,
        moves,
        is_confirmed,
        fence,
        progress,
        hook,
    }
    .run(heard)
}

/// Tells git's credential helper whether the credentials were good. As in git, only status 401 shows that they are wrong: 403 is about
/// permissions, and 407 about the proxy.
fn judge_by(result: &UpdateResult, credentials: &Credentials) {
    let is_refused = matches!(&result.error, Some(Error::Push(crate::wire::Error::Credentials(text))) if text.starts_with(" (HTTP 401)"));
    if is_refused || result.error.is_none() {
        judge(credentials, !is_refused);
    }
}

/// Whether a person confirmed first contact with the address that is configured now.
pub(super) fn is_adopted(mirror: &Mirror, touched: &Touched) -> bool {
    touched.adopted.contains(&mirror.identity())
}
