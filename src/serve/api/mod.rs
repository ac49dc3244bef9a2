//! GitLab's remote mirrors API and pull mirror API, version 4, and the parts of GitLab's other resources that its clients need.
//!
//! The token is checked before the body is parsed. A project that the token does not reach looks like one that does not exist.
//! `openapi.json` describes the parameters and answers of each route. The API serves it, and a test compares it with the routes.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::access::{given, may_read, may_write};
use super::client::Client;
use super::lanes;
use super::projects::Project;
use super::{App, now};
use crate::fleet::Listed;
use crate::tokens::Token;

mod failure;
mod mirrors;
mod pages;
mod parameters;
mod projects;
mod pull;

pub(super) use failure::Failure;
use parameters::Parameters;
pub(super) use pull::is_webhook;

/// Largest body, in bytes.
pub(super) const MAX_BODY: usize = 64 << 10;

/// The version that clients see: the version of GitLab whose remote mirrors API this is, and ours.
const VERSION: &str = concat!("18.4.0-git-mirror-push.", env!("CARGO_PKG_VERSION"));

type Ids = Result<Path<Vec<String>>, PathRejection>;
type Answer = Result<Response, Failure>;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v4/version", get(version))
        .route("/api/v4/user", get(user))
        .route("/api/v4/openapi.json", get(openapi))
        .route("/api/v4/projects", get(projects::list))
        .route("/api/v4/projects/{id}", get(projects::one))
        .route("/api/v4/projects/{id}/remote_mirrors", get(mirrors::list).post(mirrors::create))
        .route(
            "/api/v4/projects/{id}/remote_mirrors/{mirror_id}",
            get(mirrors::one).put(mirrors::update).delete(mirrors::delete),
        )
        .route("/api/v4/projects/{id}/remote_mirrors/{mirror_id}/sync", post(mirrors::sync))
        .route("/api/v4/projects/{id}/remote_mirrors/{mirror_id}/public_key", get(mirrors::public_key))
        .route("/api/v4/projects/{id}/mirror/pull", get(pull::show).put(pull::configure).post(pull::trigger))
        .route("/api/{*rest}", axum::routing::any(nothing))
        .method_not_allowed_fallback(not_allowed)
}

/// A request whose token was checked.
struct ApiRequest {
    app: Arc<App>,
    token: Token,
    parameters: Parameters,
    uri: Uri,
    client: Client,
    if_unmodified_since: Option<String>,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Checks the token, reads the parameters, and answers in a thread that may wait for the disk.
async fn answer(
    app: Arc<App>,
    request: Request,
    access: Access,
    act: impl FnOnce(&ApiRequest) -> Answer + Send + 'static,
) -> Response {
    let answered = async {
        let (parts, body) = request.into_parts();
        let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
        let asked = given(&parts.headers).map(str::to_owned);
        let (judge, name) = (Arc::clone(&app), client.name.clone());
        let token = app
            .lanes
            .judge(move || judge.access.judge(asked.as_deref(), &name, now()))
            .await
            .map_err(anyhow::Error::from)??;
        client.note(&token.name);
        let is_allowed = if access == Access::Write { may_write(&token) } else { may_read(&token) };
        if !is_allowed {
            return Err(Failure::scope());
        }
        let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| Failure::too_large())?;
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let parameters = Parameters::read(parts.uri.query(), text(header::CONTENT_TYPE), &body)?;
        let if_unmodified_since = text(header::IF_UNMODIFIED_SINCE).map(str::to_owned);
        let (lanes, name) = (Arc::clone(&app), token.name.clone());
        let ask = ApiRequest { app, token, parameters, uri: parts.uri, client, if_unmodified_since };
        let act = move || act(&ask);
        let done = match access {
            Access::Read => lanes.lanes.read(&name, act).await,
            Access::Write => lanes.lanes.write(&name, act).await,
        };
        done.unwrap_or_else(|lanes::TooMany| Err(Failure::too_many()))
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

/// Where a project is.
enum Place {
    /// On this machine.
    Here(Arc<Project>),
    /// On another node of the fleet.
    There(Listed),
}

impl ApiRequest {
    /// The project that the path of the URL names, if the token reaches it. Only the node of the
    /// project can change it, or show what is not in the copies.
    fn project(&self, ids: &[String]) -> Result<Arc<Project>, Failure> {
        match self.place(ids)? {
            Place::Here(project) => Ok(project),
            Place::There(listed) => Err(Failure::elsewhere(&listed)),
        }
    }

    /// The project that the path of the URL names, on whatever node, if the token reaches it.
    fn place(&self, ids: &[String]) -> Result<Place, Failure> {
        place(&self.app, &self.token, ids)
    }

    /// The number of the mirror in the path of the URL.
    fn mirror_id(ids: &[String]) -> Result<u32, Failure> {
        let missing = || Failure::message(StatusCode::NOT_FOUND, "404 Not found");
        ids.get(1).and_then(|id| id.parse().ok()).ok_or_else(missing)
    }
}

/// The project that the path of the URL names, on whatever node, if the token reaches it. Digits are the number of a project of any
/// node before they are a path.
fn place(app: &App, token: &Token, ids: &[String]) -> Result<Place, Failure> {
    let id = ids.first().ok_or_else(Failure::no_project)?;
    let number: Option<u32> = id.parse().ok();
    let of_here = |project: Arc<Project>| (project.path.clone(), Place::Here(project));
    let found = match app.find(id) {
        Some(project) if number.is_none_or(|number| number == project.id) => Some(of_here(project)),
        here => {
            let listed = app.fleet.ask(|look| look.project(id)).flatten();
            let has_number = listed.as_ref().is_some_and(|listed| number == Some(listed.id));
            let of_there = |listed: Listed| (listed.path.clone(), Place::There(listed));
            here.filter(|_| !has_number).map(of_here).or_else(|| listed.map(of_there))
        }
    };
    found.filter(|(path, _)| token.reaches(path)).map(|(_, place)| place).ok_or_else(Failure::no_project)
}

fn ids(ids: Ids) -> Vec<String> {
    // A path that is not UTF-8 names nothing.
    ids.map(|Path(ids)| ids).unwrap_or_default()
}

async fn version(State(app): State<Arc<App>>, request: Request) -> Response {
    let body = json!({ "version": VERSION, "revision": env!("CARGO_PKG_VERSION"), "enterprise": false });
    answer(app, request, Access::Read, move |_| Ok(axum::Json(body).into_response())).await
}

/// The token in the form of GitLab's current user, which clients ask for.
async fn user(State(app): State<Arc<App>>, request: Request) -> Response {
    let act = |ask: &ApiRequest| {
        let name = &ask.token.name;
        let user = json!({
            "id": 1, "username": name, "name": name, "state": "active", "bot": true, "is_admin": false,
            "created_at": crate::status::render_time(ask.token.created_at),
        });
        Ok(axum::Json(user).into_response())
    };
    answer(app, request, Access::Read, act).await
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn nothing() -> Failure {
    Failure::error(StatusCode::NOT_FOUND, "404 Not Found")
}

async fn not_allowed() -> Failure {
    Failure::error(StatusCode::METHOD_NOT_ALLOWED, "405 Not Allowed")
}
