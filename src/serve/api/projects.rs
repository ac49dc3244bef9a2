//! `/projects`: the repositories, with the attributes that clients of the remote mirrors API need.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::pages::Pages;
use super::{Access, ApiRequest, Ids, Place, answer, ids};
use crate::fleet::{Listed, expressions};
use crate::repo;
use crate::serve::App;
use crate::serve::projects::Project;
use crate::status::render_time;

/// `GET /projects`, with or without `search`. Lists the projects of all nodes of the fleet, or
/// those of this machine if the database does not answer.
pub(super) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(app, request, Access::Read, |ask| {
        let search = ask.parameters.text("search")?.unwrap_or_default().to_lowercase();
        let pages = Pages::read(&ask.parameters)?;
        // This also finds new repositories here. The next beat sends them to the database.
        let table = ask.app.table();
        let of_all = ask.app.fleet.has_answered().then(|| of_all_nodes(ask, &search, pages)).flatten();
        if let Some((listed, count)) = of_all {
            let headers = pages.headers(count, &ask.client.base, &ask.uri);
            let shown: Vec<Value> = listed.iter().map(|listed| wherever(ask, listed)).collect();
            return Ok((headers, axum::Json(shown)).into_response());
        }
        let is_shown = |project: &&Arc<Project>| ask.token.reaches(&project.path) && project.is_found(&search);
        let found: Vec<&Arc<Project>> = table.projects.iter().filter(is_shown).collect();
        let headers = pages.headers(found.len(), &ask.client.base, &ask.uri);
        let shown: Vec<Value> = pages.cut(found).into_iter().map(|project| shown(project, &ask.client.base)).collect();
        Ok((headers, axum::Json(shown)).into_response())
    })
    .await
}

/// One page of the projects of all nodes that match, and how many match. `None` without a fleet, or
/// if its database does not answer.
fn of_all_nodes(ask: &ApiRequest, search: &str, pages: Pages) -> Option<(Vec<Listed>, usize)> {
    let paths = expressions(&ask.token.projects);
    ask.app.fleet.ask(|look| look.projects(search, &paths, "", pages.skip(), pages.per_page()))
}

/// A project of this machine as it is, one of another node as the database knows it.
fn wherever(ask: &ApiRequest, listed: &Listed) -> Value {
    let own = ask.app.projects.table().find(&listed.id.to_string());
    let own = own.filter(|project| project.id == listed.id && project.path == listed.path);
    own.map_or_else(|| copied(listed, &ask.client.base), |project| shown(&project, &ask.client.base))
}

/// `GET /projects/:id`
pub(super) async fn one(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let base = &ask.client.base;
        let shown = match ask.place(&ids)? {
            Place::Here(project) => shown(&project, base),
            Place::There(listed) => copied(&listed, base),
        };
        Ok(axum::Json(shown).into_response())
    })
    .await
}

/// A project of another node.
fn copied(listed: &Listed, base: &str) -> Value {
    let name = listed.path.rsplit('/').next().unwrap_or(&listed.path);
    let mut shown = of(listed.id, &listed.path, name, None, base);
    shown["node"] = listed.node.clone().into();
    shown["reachable"] = listed.reachable.into();
    shown["as_of"] = render_time(listed.as_of).into();
    shown
}

fn shown(project: &Project, base: &str) -> Value {
    let opened = || repo::open_listed(&project.git_dir).ok()?.to_local().default_branch().ok()?;
    let head = repo::Plain::at(&project.git_dir).and_then(|plain| plain.default_branch()).or_else(opened);
    let branch = head.as_ref().and_then(|name| name.branch()).map(|name| String::from_utf8_lossy(name).into_owned());
    of(project.id, &project.path, &project.name, branch.as_deref(), base)
}

fn of(id: u32, path: &str, name: &str, branch: Option<&str>, base: &str) -> Value {
    let namespace = path.rsplit_once('/').map_or("", |(namespace, _)| namespace);
    json!({
        "id": id,
        "name": name,
        "name_with_namespace": path.replace('/', " / "),
        "path": name,
        "path_with_namespace": path,
        "description": null,
        "default_branch": branch,
        "visibility": "private",
        "archived": false,
        "web_url": format!("{base}/projects/{id}"),
        "namespace": { "name": namespace, "path": namespace, "full_path": namespace, "kind": "group" },
    })
}
