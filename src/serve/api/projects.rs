//! `/projects`: the repositories, as far as clients of the remote mirrors API look at them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::pages::Pages;
use super::{Access, Ids, answer, ids};
use crate::repo;
use crate::serve::App;
use crate::serve::projects::Project;

/// `GET /projects`, with `search`.
pub(super) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    answer(app, request, Access::Read, |ask| {
        let search = ask.parameters.text("search")?.unwrap_or_default().to_lowercase();
        let table = ask.app.table();
        let is_shown = |project: &&Arc<Project>| ask.token.reaches(&project.path) && project.is_found(&search);
        let found: Vec<&Arc<Project>> = table.projects.iter().filter(is_shown).collect();
        let pages = Pages::read(&ask.parameters)?;
        let headers = pages.headers(found.len(), &ask.client.base, &ask.uri);
        let shown: Vec<Value> = pages.cut(found).into_iter().map(|project| shown(project, &ask.client.base)).collect();
        Ok((headers, axum::Json(shown)).into_response())
    })
    .await
}

/// `GET /projects/:id`
pub(super) async fn one(State(app): State<Arc<App>>, path: Ids, request: Request) -> Response {
    let ids = ids(path);
    answer(app, request, Access::Read, move |ask| {
        let project = ask.project(&ids)?;
        Ok(axum::Json(shown(&project, &ask.client.base)).into_response())
    })
    .await
}

fn shown(project: &Project, base: &str) -> Value {
    let opened = || repo::open_listed(&project.git_dir).ok()?.to_local().default_branch().ok()?;
    let head = repo::Plain::at(&project.git_dir).and_then(|plain| plain.default_branch()).or_else(opened);
    let branch = head.as_ref().and_then(|name| name.branch()).map(|name| String::from_utf8_lossy(name).into_owned());
    let namespace = project.path.rsplit_once('/').map_or("", |(namespace, _)| namespace);
    json!({
        "id": project.id,
        "name": project.name,
        "name_with_namespace": project.path.replace('/', " / "),
        "path": project.name,
        "path_with_namespace": project.path,
        "description": null,
        "default_branch": branch,
        "visibility": "private",
        "archived": false,
        "web_url": format!("{base}/projects/{}", project.id),
        "namespace": { "name": namespace, "path": namespace, "full_path": namespace, "kind": "group" },
    })
}
