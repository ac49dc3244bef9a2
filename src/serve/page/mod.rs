//! The page for people: what GitLab's table of mirrored repositories shows, and what can be done with it.
//!
//! Every page works without its script, which only keeps the table up to date and copies keys. Every visitor needs a session, which
//! stands for a token. Each request checks again what the token may do and which projects it reaches. Every form that changes something
//! contains the CSRF token of the session; without it, the form is refused. The form of the login has none, because there is no session
//! yet: it is refused if the browser says that another site sent it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::Markup;

use super::access::{Denied, may_read, may_write};
use super::client::Client;
use super::lanes::TooMany;
use super::mirrors::Error;
use super::projects::Project;
use super::{App, now};
use crate::tokens::Token;

mod events;
mod fleet;
mod forms;
mod layout;
mod list;
mod mirror;
mod overview;
mod plot;
mod project;
mod sessions;

pub(super) use sessions::Sessions;

use forms::Form;
use sessions::Session;

/// The routes.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(list::show))
        .route("/retry", post(overview::retry))
        .route("/login", get(login_form).post(login))
        .route("/logout", post(logout))
        .route("/projects/{id}", get(project::show))
        .route("/projects/{id}/events", get(events::stream))
        .route("/projects/{id}/mirrors", post(forms::add))
        .route("/projects/{id}/mirrors/{mirror}/edit", get(project::edit).post(forms::change))
        .route("/projects/{id}/mirrors/{mirror}/enable", post(forms::enable))
        .route("/projects/{id}/mirrors/{mirror}/disable", post(forms::disable))
        .route("/projects/{id}/mirrors/{mirror}/sync", post(forms::sync))
        .route("/projects/{id}/mirrors/{mirror}/adopt", post(forms::adopt))
        .route("/projects/{id}/mirrors/{mirror}/remove", get(project::remove).post(forms::remove))
        .route("/projects/{id}/mirrors/{mirror}/host_keys", get(project::host_keys).post(forms::pin))
        .route("/assets/page.css", get(|| asset("text/css; charset=utf-8", include_str!("page.css"))))
        .route("/assets/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("page.js"))))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("icon.svg"))))
        .fallback(nothing)
}

async fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text).into_response()
}

async fn nothing() -> Response {
    (StatusCode::NOT_FOUND, layout::plain("Not found", "There is no such page.")).into_response()
}

/// Who looks at a page.
#[derive(Clone)]
pub(super) struct Visitor {
    id: String,
    session: Session,
    token: Token,
}

impl Visitor {
    fn may_write(&self) -> bool {
        may_write(&self.token)
    }

    /// The project of that number, if the token reaches it.
    fn project(&self, app: &App, id: u32) -> Result<Arc<Project>, Error> {
        let found = app.projects.table().find(&id.to_string());
        found.filter(|project| project.id == id && self.token.reaches(&project.path)).ok_or(Error::Missing("Project"))
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
        let id = sessions::id_in(&parts.headers, &client).map(str::to_owned);
        let asked = Arc::clone(app);
        let found = app.lanes.judge(move || {
            let id = id?;
            let session = asked.sessions.find(&id, now())?;
            let token = asked.access.by_name(&session.token, session.token_created_at, now()).ok()??;
            Some(Self { id, session, token })
        });
        match found.await {
            Some(visitor) => {
                client.note(&visitor.token.name);
                Ok(visitor)
            }
            None => Err(Redirect::to("/login").into_response()),
        }
    }
}

async fn login_form() -> Response {
    layout::login(None).into_response()
}

async fn login(State(app): State<Arc<App>>, parts: Parts, body: Bytes) -> Response {
    if !is_same_site(&parts.headers) {
        return refused().into_response();
    }
    let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
    let asking = client.clone();
    let lanes = Arc::clone(&app);
    let begun = lanes.lanes.judge(move || {
        let form = Form::read(&body);
        let judged = app.access.judge(form.text("token").as_deref(), &client.name, now())?;
        let token = match judged {
            Ok(token) if may_read(&token) => token,
            Ok(_) => return Ok(Err(Denied::Wrong)),
            Err(denied) => return Ok(Err(denied)),
        };
        client.note(&token.name);
        anyhow::Ok(Ok(app.sessions.begin(&token, now())?))
    });
    match begun.await {
        Ok(Ok(id)) => ([(header::SET_COOKIE, sessions::cookie(Some(&id), &asking))], Redirect::to("/")).into_response(),
        Ok(Err(denied)) => {
            let (status, why) = match denied {
                Denied::Missing | Denied::Wrong => (StatusCode::UNAUTHORIZED, "Wrong or expired token."),
                Denied::Expired => (StatusCode::UNAUTHORIZED, "This token has expired."),
                Denied::Limited(_) => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens; wait a minute."),
            };
            (status, layout::login(Some(why))).into_response()
        }
        Err(error) => failed(&error.into()),
    }
}

async fn logout(State(app): State<Arc<App>>, visitor: Visitor, parts: Parts, body: Bytes) -> Response {
    if !visitor.session.is_own_form(&Form::read(&body).csrf()) {
        return refused().into_response();
    }
    app.sessions.end(&visitor.id);
    let client = parts.extensions.get::<Client>().cloned().unwrap_or_default();
    ([(header::SET_COOKIE, sessions::cookie(None, &client))], Redirect::to("/login")).into_response()
}

/// Whether a form was sent from a page of ours, as far as the browser says (Fetch Metadata, `Origin`).
fn is_same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_own = |site: &str| matches!(site, "same-origin" | "none");
    let host = text("host").unwrap_or_default();
    let is_here = |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| authority == host);
    text("sec-fetch-site").is_none_or(is_own) && text("origin").is_none_or(is_here)
}

fn refused() -> (StatusCode, Markup) {
    let text = "This form does not come from this page, or its session has ended. Go back, reload, and try again.";
    (StatusCode::FORBIDDEN, layout::plain("Refused", text))
}

fn failed(error: &Error) -> Response {
    match error {
        Error::Missing(what) => {
            let text = format!("{what} not found.");
            (StatusCode::NOT_FOUND, layout::plain("Not found", &text)).into_response()
        }
        Error::Busy(_) => (StatusCode::CONFLICT, layout::plain("Busy", &error.to_string())).into_response(),
        Error::Failed(error) => {
            tracing::error!("page: {error:#}");
            let text = "Something went wrong on the server; its log says what.";
            (StatusCode::INTERNAL_SERVER_ERROR, layout::plain("Failed", text)).into_response()
        }
        other => (StatusCode::BAD_REQUEST, layout::plain("Refused", &other.to_string())).into_response(),
    }
}

/// Makes a page for a visitor, in a thread that may wait for the disk.
async fn shown(
    app: &Arc<App>,
    visitor: Visitor,
    make: impl FnOnce(&App, &Visitor) -> Result<Markup, Error> + Send + 'static,
) -> Response {
    let (asked, name) = (Arc::clone(app), visitor.token.name.clone());
    answer(app.lanes.read(&name, move || make(&asked, &visitor)).await)
}

/// The answer with a page, or why there is none.
fn answer(made: Result<Result<Markup, Error>, TooMany>) -> Response {
    match made {
        Ok(Ok(page)) => page.into_response(),
        Ok(Err(error)) => failed(&error),
        Err(TooMany) => too_many(),
    }
}

fn too_many() -> Response {
    let text = "This token has too many requests that are not answered yet. Try again in a moment.";
    (StatusCode::TOO_MANY_REQUESTS, layout::plain("Too many requests", text)).into_response()
}

type OfProject = Path<u32>;
type OfMirror = Path<(u32, u32)>;
type Asked = Query<std::collections::HashMap<String, String>>;
