//! `/projects/:id/remote_mirrors`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pages::Pages;
use super::parameters::no_valid_value;
use super::{Access, ApiRequest, Failure, Ids, Place, answer, ids};
use crate::config::{AuthMethod, Direction, check_branch_regex};
use crate::credentials;
use crate::fleet::Listed;
use crate::mirror;
use crate::plan::{Divergent, Prune};
use crate::serve::App;
use crate::serve::mirrors::Error;
use crate::serve::params::{MirrorParams, Tags};
use crate::status::{View, render_time};
use crate::wire::Address;

/// `GET …`
pub(super) async fn list(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let mut shown: Vec<Value> = match ask.place(&ids)? {
            Place::Here(project) => ask.app.mirrors(&project)?.into_iter().map(shown).collect(),
            Place::There(listed) => copied(ask, &listed)?,
        };
        shown.retain(|mirror| mirror["direction"] != Direction::Pull.as_str());
        let pages = Pages::read(&ask.parameters)?;
        let headers = pages.headers(shown.len(), &ask.client.base, &ask.uri);
        Ok((headers, axum::Json(pages.cut(shown))).into_response())
    })
    .await
}

/// The mirrors of a project of another node, as the database knows them.
pub(super) fn copied(ask: &ApiRequest, listed: &Listed) -> Result<Vec<Value>, Failure> {
    let copies = ask.app.fleet.ask(|look| look.mirrors_of(listed.id)).ok_or_else(|| Failure::elsewhere(listed))?;
    let shown = copies.into_iter().map(|mut copy| {
        copy.shown.remove("repository");
        copy.shown.insert("node".into(), copy.node.into());
        copy.shown.insert("reachable".into(), copy.reachable.into());
        copy.shown.insert("as_of".into(), render_time(copy.as_of).into());
        Value::Object(copy.shown)
    });
    Ok(shown.collect())
}

/// A mirror as the API shows it: without the path of its repository, and with user name and password masked.
fn shown(view: View) -> Value {
    let mut value = serde_json::to_value(&view).unwrap_or_default();
    value["url"] = view.masked_url.into();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("repository");
    }
    value
}

/// `GET …/:mirror_id`
pub(super) async fn one(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let id = ApiRequest::mirror_id(&ids)?;
        let project = match ask.place(&ids)? {
            Place::Here(project) => project,
            Place::There(listed) => {
                let is_it = |mirror: &Value| mirror["id"] == id && mirror["direction"] != Direction::Pull.as_str();
                let found = copied(ask, &listed)?.into_iter().find(is_it).ok_or(Error::Missing("Mirror"))?;
                return Ok(axum::Json(found).into_response());
            }
        };
        let opened = ask.app.open(&project)?;
        Ok(axum::Json(shown(opened.view(opened.push_mirror(id)?)?)).into_response())
    })
    .await
}

/// `POST …`
pub(super) async fn create(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Write, move |ask| {
        let project = ask.project(&ids)?;
        if !ask.parameters.has("url") {
            return Err(Failure::parameter("url is missing"));
        }
        let mut wish = wish(ask)?;
        wish.name = ask.parameters.text("name")?;
        wish.auth_method = match ask.parameters.text("auth_method")? {
            None => None,
            Some(text) => Some(auth_method(&text).ok_or_else(|| no_valid_value("auth_method"))?),
        };
        wish.url = Some(wish.url.unwrap_or_default());
        let view = ask.app.create(&project, &wish)?;
        Ok((StatusCode::CREATED, axum::Json(shown(view))).into_response())
    })
    .await
}

/// `PUT …/:mirror_id`
pub(super) async fn update(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Write, move |ask| {
        let project = ask.project(&ids)?;
        let id = ApiRequest::mirror_id(&ids)?;
        let opened = ask.app.open(&project)?;
        opened.push_mirror(id)?;
        if !ask.parameters.has_only("enabled") {
            opened.changeable(id)?;
        }
        let mut wish = wish(ask)?;
        wish.auth_method =
            match ask.parameters.text("auth_method")? {
                None => None,
                Some(text) => Some(auth_method(&text).ok_or_else(|| Error::Invalid {
                    field: "auth_method",
                    why: "is not included in the list".into(),
                })?),
            };
        Ok(axum::Json(shown(ask.app.update(&project, id, &wish)?)).into_response())
    })
    .await
}

/// `DELETE …/:mirror_id`
pub(super) async fn delete(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Write, move |ask| {
        let project = ask.project(&ids)?;
        let id = ApiRequest::mirror_id(&ids)?;
        let opened = ask.app.open(&project)?;
        opened.push_mirror(id)?;
        opened.changeable(id)?;
        if let Some(since) = ask.if_unmodified_since.as_deref().and_then(http_date) {
            let changed = std::fs::metadata(opened.repository.layout().config()).and_then(|file| file.modified());
            let changed = changed.ok().and_then(|time| Timestamp::try_from(time).ok());
            if changed.is_some_and(|changed| changed.as_second() > since.as_second()) {
                return Err(Failure::message(StatusCode::PRECONDITION_FAILED, "412 Precondition Failed"));
            }
        }
        ask.app.remove(&project, id)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// `POST …/:mirror_id/sync`
pub(super) async fn sync(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Write, move |ask| {
        let project = ask.project(&ids)?;
        let wish = if ask.parameters.flag("adopt")? == Some(true) { mirror::Wish::Adopt } else { mirror::Wish::Sync };
        let id = ApiRequest::mirror_id(&ids)?;
        ask.app.open(&project)?.push_mirror(id)?;
        ask.app.sync(&project, id, wish)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

/// `GET …/:mirror_id/public_key`
pub(super) async fn public_key(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let project = ask.project(&ids)?;
        let opened = ask.app.open(&project)?;
        let mirror = opened.push_mirror(ApiRequest::mirror_id(&ids)?)?;
        let missing = || Failure::message(StatusCode::NOT_FOUND, "404 Not Found");
        if mirror.auth_method != AuthMethod::SshPublicKey || !matches!(mirror.address, Address::Ssh { .. }) {
            return Err(missing());
        }
        let directory = opened.repository.layout().remote(&mirror.name);
        let key = credentials::public_key(&directory).map_err(anyhow::Error::from)?.ok_or_else(missing)?;
        Ok(axum::Json(json!({ "public_key": key.trim_end() })).into_response())
    })
    .await
}

fn http_date(text: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp())
}

fn auth_method(text: &str) -> Option<AuthMethod> {
    [AuthMethod::Password, AuthMethod::SshPublicKey, AuthMethod::None]
        .into_iter()
        .find(|method| method.as_str() == text)
}

/// The attributes of a mirror in the parameters. `name` is left out, because only POST has it. `auth_method` is left out, because POST and
/// PUT refuse a wrong one with different messages.
fn wish(ask: &ApiRequest) -> Result<MirrorParams, Failure> {
    let given = &ask.parameters;
    if given.has("only_protected_branches") && given.has("mirror_branch_regex") {
        return Err(Failure::parameter("only_protected_branches, mirror_branch_regex are mutually exclusive"));
    }
    if given.is_null("only_protected_branches") {
        return Err(Error::Invalid { field: "only_protected_branches", why: "can't be blank".into() }.into());
    }
    let regex = match given.is_null("mirror_branch_regex") {
        true => Some(String::new()),
        false => given.text("mirror_branch_regex")?,
    };
    if let Some(Err(why)) = regex.as_deref().map(check_branch_regex) {
        return Err(Error::Invalid { field: "mirror_branch_regex", why }.into());
    }
    let tags = given.texts("tags")?.map(|words| match words.as_slice() {
        [] => Tags::Word("none"),
        [word] if word == "all" => Tags::Word("all"),
        [word] if word == "none" => Tags::Word("none"),
        _ => Tags::Patterns(words),
    });
    Ok(MirrorParams {
        name: None,
        url: if given.is_null("url") { Some(String::new()) } else { given.text("url")? },
        enabled: given.flag("enabled")?,
        adopt: given.flag("adopt")?,
        only_protected_branches: given.flag("only_protected_branches")?,
        mirror_branch_regex: regex,
        keep_divergent_refs: given.flag("keep_divergent_refs")?,
        divergent_refs: given.word("divergent_refs", &Divergent::WORDS)?,
        tags,
        prune: given.word("prune", &Prune::WORDS)?,
        auth_method: None,
        host_keys: given.texts("host_keys")?,
        username: None,
        password: None,
        further: Vec::new(),
    })
}
