//! `/projects/:id/mirror/pull`: GitLab's pull mirror API, and the webhook that makes a check due.
//!
//! A webhook is a hint: its body is not used, except to check its signature. It is authorised by a
//! token, or by the webhook secret of the mirror: the signatures of GitHub, Gitea and Forgejo, or
//! GitLab's header.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::mirrors::copied;
use super::{Access, ApiRequest, Failure, Ids, Place, answer, ids, place};
use crate::config::{AuthMethod, Change, Direction, Hooks, Mirror, check_branch_regex};
use crate::credentials::Secret;
use crate::credentials::webhook::{self, Delivery};
use crate::plan::Divergent;
use crate::serve::App;
use crate::serve::access::{given, may_trigger};
use crate::serve::client::Client;
use crate::serve::mirrors::{Error, OpenProject};
use crate::serve::params::MirrorParams;
use crate::serve::projects::Project;
use crate::serve::router::read;
use crate::serve::{lanes, now};

/// Largest body of a webhook, in bytes: GitHub sends no larger one. It is never in memory as a whole.
const MAX_BODY: usize = 25 << 20;

/// A webhook that is refused gets its answer no earlier than this long after it came.
const REFUSAL: Duration = Duration::from_millis(500);

/// The name of the mirror that PUT makes.
const NAME: &str = "upstream";

/// `GET …`
pub(super) async fn show(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let shown = match ask.place(&ids)? {
            Place::Here(project) => {
                let opened = ask.app.open(&project)?;
                shown(&opened, upstream(&opened)?.ok_or_else(not_mirrored)?)?
            }
            Place::There(listed) => of_copy(&copied(ask, &listed)?)?,
        };
        Ok(axum::Json(shown).into_response())
    })
    .await
}

/// `PUT …`
pub(super) async fn configure(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Write, move |ask| {
        let project = ask.project(&ids)?;
        let wish = wish(ask)?;
        let opened = ask.app.open(&project)?;
        let found = upstream(&opened)?.map(|mirror| mirror.id);
        if let Some(id) = found.filter(|_| !ask.parameters.has_only("enabled")) {
            opened.changeable(id)?;
        }
        let view = match found {
            Some(id) => ask.app.update(&project, id, &wish)?,
            None if wish.url.is_none() => return Err(Failure::parameter("url is missing")),
            None => ask.app.create(&project, &created(wish))?,
        };
        let opened = ask.app.open(&project)?;
        Ok(axum::Json(shown(&opened, opened.mirror(view.id)?)?).into_response())
    })
    .await
}

/// `POST …`
pub(super) async fn trigger(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    triggered(app, ids, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn triggered(app: Arc<App>, ids: Vec<String>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
    let asked = given(&parts.headers).map(str::to_owned);
    let is_signed = webhook::is_signed(&|name| header(&parts.headers, name));
    if asked.is_none() && is_signed {
        let began = tokio::time::Instant::now();
        let done = by_webhook(app, &client, ids, &parts, body).await;
        if done.is_err() {
            // The time of the answer must not show whether there is such a project, mirror or
            // secret.
            tokio::time::sleep_until(began + REFUSAL).await;
        }
        return done;
    }
    read(&parts, body, MAX_BODY, &mut |_| {}).await?;
    let (judge, name) = (Arc::clone(&app), client.name.clone());
    let judged = app.lanes.judge(move || judge.access.judge(asked.as_deref(), &name, now())).await;
    let token = judged.map_err(anyhow::Error::from)??;
    client.note(&token.name);
    if !may_trigger(&token) {
        return Err(Failure::scope());
    }
    let name = token.name.clone();
    let act = move |app: &App| {
        let project = match place(app, &token, &ids)? {
            Place::Here(project) => project,
            Place::There(listed) => return Err(Failure::elsewhere(&listed)),
        };
        let opened = app.open(&project)?;
        let mirror = upstream(&opened)?.filter(|mirror| mirror.is_enabled).ok_or_else(not_mirrored)?;
        app.pull(&project, &opened, mirror)?;
        Ok(StatusCode::ACCEPTED.into_response())
    };
    let lanes = Arc::clone(&app);
    let done = lanes.lanes.write(&name, move || act(&app)).await;
    done.unwrap_or_else(|lanes::TooMany| Err(Failure::too_many()))
}

/// Whether a request is one that makes a check due.
pub(in crate::serve) fn is_webhook(method: &Method, path: &str) -> bool {
    method == Method::POST && path.starts_with("/api/v4/projects/") && path.ends_with("/mirror/pull")
}

/// A delivery that is authorised by the secret of a webhook. A wrong secret, a project without a
/// pull mirror, and an unknown project get the same answer.
async fn by_webhook(
    app: Arc<App>,
    client: &Client,
    ids: Vec<String>,
    parts: &Parts,
    body: Body,
) -> Result<Response, Failure> {
    // Deliveries of one client that are not authorised by a token share the threads of one token.
    let lane = format!("webhook {}", client.name);
    let look = {
        let app = Arc::clone(&app);
        move || addressee(&app, ids.first()?)
    };
    let found = app.lanes.read(&lane, look).await.map_err(|lanes::TooMany| Failure::too_many())?;
    let (found, secret) = found.map_or((None, None), |(project, name, secret)| (Some((project, name)), secret));
    let mut delivery = Delivery::to(secret);
    read(parts, body, MAX_BODY, &mut |piece| delivery.hear(piece)).await?;
    let is_right = delivery.is_right(&|name| header(&parts.headers, name));
    let Some((project, name)) = found.filter(|_| is_right) else { return Err(Failure::no_project()) };
    let act = {
        let app = Arc::clone(&app);
        move || {
            let opened = app.open(&project)?;
            let mirror = opened.config.mirror(&name).filter(|mirror| mirror.is_enabled).ok_or_else(not_mirrored)?;
            app.pull_by_webhook(&project, &opened, mirror)?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
    };
    app.lanes.write(&lane, act).await.unwrap_or_else(|lanes::TooMany| Err(Failure::too_many()))
}

/// The project and the pull mirror that a delivery is for, and the secret that it must prove to know.
fn addressee(app: &App, id: &str) -> Option<(Arc<Project>, String, Option<Secret>)> {
    let project = app.find(id)?;
    let opened = app.open(&project).ok()?;
    let name = upstream(&opened).ok()??.name.clone();
    let secret = webhook::read(&opened.repository.layout().remote(&name)).ok().flatten();
    Some((project, name, secret))
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The mirror that the project takes refs from: a pull mirror or a two-way mirror. If there are
/// several, the one named `upstream`.
fn upstream(opened: &OpenProject) -> Result<Option<&Mirror>, Failure> {
    let pulls: Vec<&Mirror> = opened.config.mirrors.iter().filter(|mirror| mirror.takes()).collect();
    match &*pulls {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        several => match several.iter().find(|mirror| mirror.name == NAME) {
            Some(mirror) => Ok(Some(mirror)),
            None => {
                let names: Vec<&str> = several.iter().map(|mirror| &*mirror.name).collect();
                let text =
                    format!("the project has several pull mirrors ({}), and none is named {NAME}", names.join(", "));
                Err(Failure::message(StatusCode::BAD_REQUEST, &text))
            }
        },
    }
}

fn not_mirrored() -> Failure {
    Failure::message(StatusCode::BAD_REQUEST, "The project is not mirrored")
}

/// A pull mirror as GitLab shows it.
fn shown(opened: &OpenProject, mirror: &Mirror) -> Result<Value, Failure> {
    let view = opened.view(mirror)?;
    Ok(json!({
        "id": view.id,
        "update_status": view.update_status,
        "url": view.masked_url,
        "last_error": view.last_error,
        "last_update_at": view.last_update_at,
        "last_update_started_at": view.last_update_started_at,
        "last_successful_update_at": view.last_successful_update_at,
        "enabled": mirror.is_enabled,
        "mirror_trigger_builds": mirror.pull.hooks == Hooks::All,
        "only_mirror_protected_branches": mirror.only_protected_branches,
        "mirror_overwrites_diverged_branches": mirror.divergent == Divergent::Overwrite,
        "mirror_branch_regex": view.mirror_branch_regex,
    }))
}

/// The mirror that takes from upstream, among the mirrors of a project of another node. Which hooks run there, the database does not know.
fn of_copy(copies: &[Value]) -> Result<Value, Failure> {
    let takes = |copy: &&Value| copy["direction"] != Direction::Push.as_str();
    let pulls: Vec<&Value> = copies.iter().filter(takes).collect();
    let is_named = |copy: &&&Value| pulls.len() == 1 || copy["name"] == NAME;
    let copy = pulls.iter().find(is_named).ok_or_else(not_mirrored)?;
    let mut shown = json!({
        "mirror_trigger_builds": null,
        "only_mirror_protected_branches": copy["only_protected_branches"],
        "mirror_overwrites_diverged_branches": copy["divergent_refs"] == "overwrite",
    });
    for field in [
        "id",
        "update_status",
        "url",
        "last_error",
        "last_update_at",
        "last_update_started_at",
        "last_successful_update_at",
        "enabled",
        "mirror_branch_regex",
        "node",
        "reachable",
        "as_of",
    ] {
        shown[field] = copy[field].clone();
    }
    Ok(shown)
}

/// The attributes that PUT gives.
fn wish(ask: &ApiRequest) -> Result<MirrorParams, Failure> {
    let given = &ask.parameters;
    let regex = match given.is_null("mirror_branch_regex") {
        true => Some(String::new()),
        false => given.text("mirror_branch_regex")?,
    };
    if let Some(Err(why)) = regex.as_deref().map(check_branch_regex) {
        return Err(Error::Invalid { field: "mirror_branch_regex", why }.into());
    }
    let only_protected_branches = given.flag("only_mirror_protected_branches")?;
    if only_protected_branches == Some(true) && regex.as_deref().is_some_and(|regex| !regex.is_empty()) {
        let text = "only_mirror_protected_branches, mirror_branch_regex are mutually exclusive";
        return Err(Failure::parameter(text));
    }
    let overwrites = given.flag("mirror_overwrites_diverged_branches")?;
    let hooks = given.flag("mirror_trigger_builds")?.map(|all| Change::Text(if all { "all" } else { "policy" }.into()));
    let password = given.text("auth_password")?;
    Ok(MirrorParams {
        url: if given.is_null("url") { Some(String::new()) } else { given.text("url")? },
        enabled: given.flag("enabled")?,
        only_protected_branches,
        mirror_branch_regex: regex,
        divergent_refs: overwrites.map(|overwrites| if overwrites { "overwrite" } else { "keep" }),
        username: given.text("auth_user")?,
        auth_method: password.as_ref().map(|_| AuthMethod::Password),
        password: password.map(Secret::new),
        further: hooks.map(|hooks| ("hooks", hooks)).into_iter().collect(),
        ..MirrorParams::default()
    })
}

/// The attributes of a new pull mirror.
fn created(mut wish: MirrorParams) -> MirrorParams {
    wish.name = Some(NAME.into());
    wish.further.push(("direction", Change::Text("pull".into())));
    let has_user = wish.url.as_deref().is_some_and(|url| url.contains('@')) || wish.username.is_some();
    let usual = if has_user { AuthMethod::Password } else { AuthMethod::None };
    wish.auth_method = Some(wish.auth_method.unwrap_or(usual));
    wish
}
