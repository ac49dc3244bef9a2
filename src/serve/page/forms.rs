//! The actions of the page's forms. Success ends in a redirect, so that reloading repeats nothing. A refused form of a mirror is shown
//! again, with the error.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;

use super::{OfMirror, OfProject, Visitor, failed, project, refused, too_many};
use crate::config::{AuthMethod, Change, Direction, Mirror};
use crate::credentials::Secret;
use crate::mirror;
use crate::plan::{Divergent, Prune};
use crate::serve::App;
use crate::serve::lanes::TooMany;
use crate::serve::mirrors::Error;
use crate::serve::params::MirrorParams;
use crate::serve::projects::Project;

/// The choice of `divergent_refs` in the form of a new mirror that means the default of its
/// direction.
pub(super) const USUAL: &str = "usual";

/// A form as it was sent.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// A field, without space around it; `None` when it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// A field as it was filled in; `None` when it is empty. A password may begin or end with a space.
    fn exact(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        found.filter(|value| !value.is_empty())
    }

    /// The CSRF token, which proves that the form belongs to the session.
    pub(super) fn csrf(&self) -> String {
        self.text("csrf").unwrap_or_default()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| value.clone()).collect()
    }
}

/// The fields of a mirror's form.
#[derive(Clone, Debug)]
pub(super) struct MirrorForm {
    pub(super) name: String,
    pub(super) url: String,
    /// Only of a new mirror.
    pub(super) direction: String,
    pub(super) auth_method: String,
    pub(super) username: String,
    pub(super) branches: String,
    pub(super) regex: String,
    pub(super) divergent_refs: String,
    pub(super) prune: String,
    pub(super) is_enabled: bool,
    /// Whether the mirror is there already, so that it may have a password.
    pub(super) is_stored: bool,
}

impl Default for MirrorForm {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            direction: Direction::Push.as_str().into(),
            auth_method: "password".into(),
            username: String::new(),
            branches: "all".into(),
            regex: String::new(),
            divergent_refs: USUAL.into(),
            prune: Prune::Merged.as_str().into(),
            is_enabled: true,
            is_stored: false,
        }
    }
}

impl MirrorForm {
    /// The form with the values of a mirror.
    pub(super) fn of(mirror: &Mirror) -> Self {
        let branches = match &mirror.mirror_branch_regex {
            _ if mirror.only_protected_branches => "protected",
            Some(_) => "regex",
            None => "all",
        };
        Self {
            name: mirror.name.clone(),
            url: mirror.address.plain(),
            direction: mirror.direction.as_str().into(),
            auth_method: mirror.auth_method.as_str().into(),
            username: mirror.username.clone().unwrap_or_default(),
            branches: branches.into(),
            regex: mirror.mirror_branch_regex.as_ref().map_or_else(String::new, |regex| regex.as_str().to_owned()),
            divergent_refs: mirror.divergent.as_str().into(),
            prune: mirror.prune.as_str().into(),
            is_enabled: mirror.is_enabled,
            is_stored: true,
        }
    }

    fn read(form: &Form, name: &str, is_stored: bool) -> Self {
        let text = |name: &str| form.text(name).unwrap_or_default();
        Self {
            name: name.to_owned(),
            url: text("url"),
            direction: form.text("direction").unwrap_or_else(|| Direction::Push.as_str().into()),
            auth_method: text("auth_method"),
            username: text("username"),
            branches: text("branches"),
            regex: text("regex"),
            divergent_refs: text("divergent_refs"),
            prune: text("prune"),
            is_enabled: form.text("enabled").is_some(),
            is_stored,
        }
    }

    /// The requested attributes. A URL that is the same as before is left out.
    fn wish(&self, password: Option<String>, before: Option<&str>) -> Result<MirrorParams, Error> {
        let word = |field: &'static str, value: &str, words: &[&'static str]| {
            let found = words.iter().find(|word| **word == value).copied();
            found.ok_or_else(|| Error::Invalid { field, why: "is not included in the list".into() })
        };
        let methods = [AuthMethod::Password, AuthMethod::SshPublicKey, AuthMethod::None];
        let method = word("auth_method", &self.auth_method, &methods.map(AuthMethod::as_str))?;
        let regex = match &*self.branches {
            "regex" if self.regex.is_empty() => {
                return Err(Error::Invalid { field: "mirror_branch_regex", why: "can't be blank".into() });
            }
            "regex" => self.regex.clone(),
            _ => String::new(),
        };
        crate::config::check_branch_regex(&regex)
            .map_err(|why| Error::Invalid { field: "mirror_branch_regex", why })?;
        let divergent_refs = match self.divergent_refs == USUAL && !self.is_stored {
            true => None,
            false => Some(word("divergent_refs", &self.divergent_refs, &Divergent::WORDS)?),
        };
        // The page makes no two-way mirrors.
        let one_way = [Direction::Push, Direction::Pull].map(Direction::as_str);
        let direction = word("direction", &self.direction, &one_way)?;
        let is_said = !self.is_stored && direction != Direction::default().as_str();
        let further = is_said.then(|| ("direction", Change::Text(direction.into())));
        Ok(MirrorParams {
            further: further.into_iter().collect(),
            url: Some(self.url.clone()).filter(|url| before != Some(url)),
            enabled: Some(self.is_enabled),
            only_protected_branches: (regex.is_empty()).then_some(self.branches == "protected"),
            mirror_branch_regex: Some(regex).filter(|_| self.branches != "protected"),
            divergent_refs,
            prune: Some(word("prune", &self.prune, &Prune::WORDS)?),
            auth_method: methods.into_iter().find(|known| known.as_str() == method),
            username: Some(self.username.clone()),
            password: password.map(Secret::new),
            ..MirrorParams::default()
        })
    }
}

/// Checks a form, and acts on it in a thread that may wait for the disk. Without an answer of `act`, redirects to `next`.
pub(super) async fn checked(
    app: Arc<App>,
    visitor: Visitor,
    body: Bytes,
    next: &str,
    act: impl FnOnce(&App, &Visitor, &Form) -> Option<Response> + Send + 'static,
) -> Response {
    let (lanes, name) = (Arc::clone(&app), visitor.token.name.clone());
    let done = lanes.lanes.write(&name, move || {
        let form = Form::read(&body);
        if !visitor.session.is_own_form(&form.csrf()) {
            return Some(refused().into_response());
        }
        if !visitor.may_write() {
            return Some(failed(&Error::Refused("This token is read-only.".into())));
        }
        act(&app, &visitor, &form)
    });
    match done.await {
        Ok(answer) => answer.unwrap_or_else(|| Redirect::to(next).into_response()),
        Err(TooMany) => too_many(),
    }
}

/// Acts on a form of a project. On success redirects to the project.
async fn act(
    app: Arc<App>,
    visitor: Visitor,
    id: u32,
    body: Bytes,
    act: impl FnOnce(&App, &Visitor, &Project, &Form) -> Result<Result<&'static str, Markup>, Error> + Send + 'static,
) -> Response {
    checked(app, visitor, body, &format!("/projects/{id}"), move |app, visitor, form| {
        let done = visitor.project(app, id).and_then(|project| act(app, visitor, &project, form));
        match done {
            Ok(Ok(said)) => {
                app.sessions.say(&visitor.id, said);
                None
            }
            Ok(Err(page)) => Some((StatusCode::UNPROCESSABLE_ENTITY, page).into_response()),
            Err(trouble) => Some(failed(&trouble)),
        }
    })
    .await
}

pub(super) async fn add(State(app): State<Arc<App>>, visitor: Visitor, Path(id): OfProject, body: Bytes) -> Response {
    act(app, visitor, id, body, |app, visitor, project, form| {
        let filled = MirrorForm::read(form, "", false);
        let added = filled.wish(form.exact("password"), None).and_then(|wish| app.create(project, &wish));
        match added {
            Ok(_) => Ok(Ok("The mirror was added.")),
            Err(Error::Failed(error)) => Err(Error::Failed(error)),
            Err(trouble) => Ok(Err(project::whole(app, visitor, project, Some((&filled, &trouble)))?)),
        }
    })
    .await
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path((id, mirror)): OfMirror,
    body: Bytes,
) -> Response {
    act(app, visitor, id, body, move |app, visitor, project, form| {
        let before = MirrorForm::of(app.open(project)?.changeable(mirror)?);
        let filled = MirrorForm::read(form, &before.name, true);
        let changed =
            filled.wish(form.exact("password"), Some(&before.url)).and_then(|wish| app.update(project, mirror, &wish));
        match changed {
            Ok(_) => Ok(Ok("The mirror was changed.")),
            Err(Error::Failed(error)) => Err(Error::Failed(error)),
            Err(trouble) => Ok(Err(project::edit_page(visitor, project, mirror, &filled, Some(&trouble)))),
        }
    })
    .await
}

async fn switch(app: Arc<App>, visitor: Visitor, (id, mirror): (u32, u32), body: Bytes, on: bool) -> Response {
    act(app, visitor, id, body, move |app, _, project, _| {
        app.update(project, mirror, &MirrorParams { enabled: Some(on), ..MirrorParams::default() })?;
        Ok(Ok(if on { "The mirror is enabled." } else { "The mirror is disabled." }))
    })
    .await
}

pub(super) async fn enable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(ids): OfMirror,
    body: Bytes,
) -> Response {
    switch(app, visitor, ids, body, true).await
}

pub(super) async fn disable(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(ids): OfMirror,
    body: Bytes,
) -> Response {
    switch(app, visitor, ids, body, false).await
}

async fn update_now(
    app: Arc<App>,
    visitor: Visitor,
    (id, mirror): (u32, u32),
    body: Bytes,
    wish: mirror::Wish,
    done: &'static str,
) -> Response {
    act(app, visitor, id, body, move |app, _, project, _| {
        app.sync(project, mirror, wish)?;
        Ok(Ok(done))
    })
    .await
}

/// Compares and mirrors everything now.
pub(super) async fn sync(State(app): State<Arc<App>>, visitor: Visitor, Path(ids): OfMirror, body: Bytes) -> Response {
    update_now(app, visitor, ids, body, mirror::Wish::Sync, "The update is under way.").await
}

/// Confirms first contact, and mirrors everything now.
pub(super) async fn adopt(State(app): State<Arc<App>>, visitor: Visitor, Path(ids): OfMirror, body: Bytes) -> Response {
    let done = "The mirror is confirmed; the update is under way.";
    update_now(app, visitor, ids, body, mirror::Wish::Adopt, done).await
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path((id, mirror)): OfMirror,
    body: Bytes,
) -> Response {
    act(app, visitor, id, body, move |app, _, project, _| {
        app.remove(project, mirror)?;
        Ok(Ok("The mirror was removed."))
    })
    .await
}

/// Pins the host keys that were shown.
pub(super) async fn pin(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path((id, mirror)): OfMirror,
    body: Bytes,
) -> Response {
    act(app, visitor, id, body, move |app, _, project, form| {
        let wish = MirrorParams { host_keys: Some(form.texts("host_keys[]")), ..MirrorParams::default() };
        app.update(project, mirror, &wish)?;
        Ok(Ok("The host keys are pinned."))
    })
    .await
}
