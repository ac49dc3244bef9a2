//! `/`: every repository that the token reaches, and the status of its mirrors.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};

use super::{Asked, Visitor, layout, mirror, shown};
use super::{fleet, overview};
use crate::serve::App;
use crate::serve::projects::Project;
use crate::status::View;

/// Repositories on one page.
const PER_PAGE: usize = 50;

/// Shows one page of the list.
pub(super) async fn show(State(app): State<Arc<App>>, visitor: Visitor, Query(asked): Asked) -> Response {
    shown(&app, visitor, move |app, visitor| {
        let text = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
        let search = text("q").to_owned();
        let only = Only { state: if text("only") == "failed" { "failing" } else { text("state") }.to_owned(), cause: text("cause").to_owned() };
        let page = text("page").parse::<usize>().unwrap_or(1).max(1);
        let table = app.table();
        let lower = search.to_lowercase();
        let is_meant = |project: &&Arc<Project>| visitor.token.reaches(&project.path) && project.is_found(&lower);
        let meant: Vec<&Arc<Project>> = table.projects.iter().filter(is_meant).collect();
        let views = |project: &Arc<Project>| {
            app.mirrors(project).inspect_err(|error| tracing::warn!("'{}': {error}", project.git_dir.display()))
        };
        let chosen = |project: &Arc<Project>| {
            let views = views(project).ok()?;
            Some(views.into_iter().filter(|view| only.is_it(view)).collect::<Vec<View>>())
        };
        let ids = if only.is_all() { Default::default() } else { overview::chosen(app, &visitor.token, &only.state, &only.cause) };
        let is_chosen = |project: &&Arc<Project>| only.is_all() || ids.contains(&project.id);
        let meant: Vec<&Arc<Project>> = meant.into_iter().filter(is_chosen).collect();
        let rows: Vec<_> = meant.iter().skip((page - 1).saturating_mul(PER_PAGE)).take(PER_PAGE).collect();
        let rows = rows.into_iter().map(|project| (*project, chosen(project)));
        // A summary may be older than the files, and then no mirror of the project is listed any
        // more.
        let is_shown = |views: &Option<Vec<View>>| only.is_all() || views.as_ref().is_none_or(|views| !views.is_empty());
        let rows: Vec<_> = rows.filter(|(_, views)| is_shown(views)).collect();
        let body = html! {
            (overview::show(app, visitor))
            form.search role="search" action="/" {
                label for="q" { "Find a repository" }
                input id="q" name="q" type="search" value=(search);
                label.check { input type="checkbox" name="only" value="failed" checked[only.state == "failing"]; " Failed only" }
                @if only.state != "failing" && !only.state.is_empty() { input type="hidden" name="state" value=(only.state); }
                @if !only.cause.is_empty() { input type="hidden" name="cause" value=(only.cause); }
                button { "Find" }
            }
            @if !only.is_all() { p { a href="/" { "Show all" } } }
            @if rows.is_empty() && search.is_empty() && only.is_all() {
                p { "No repositories yet. The server's file names the directories that contain them: root in [[repositories]]." }
            } @else if rows.is_empty() { p { "No matching repository." } }
            @else { (rows_table(&rows)) }
            (pages(page, meant.len(), &search, &only))
            @if only.is_all() { (fleet::section(app, visitor, &lower)) }
        };
        let said = app.sessions.take_said(&visitor.id);
        Ok(layout::page(visitor, "Mirrored repositories", said.as_deref(), &body))
    })
    .await
}

fn rows_table(rows: &[(&Arc<Project>, Option<Vec<View>>)]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Repository" } th scope="col" { "Mirror" } th scope="col" { "Direction" }
                th scope="col" { "Last update attempt" } th scope="col" { "Last successful update" } th scope="col" { "Status" }
            } }
            tbody {
                @for (project, views) in rows {
                    @let link = format!("/projects/{}", project.id);
                    @match views.as_deref() {
                        None => tr {
                            th scope="row" data-label="Repository" { a href=(link) { (project.path) } }
                            td colspan="5" data-label="Status" { span.badge.failed { "cannot be read" } }
                        },
                        Some([]) => tr {
                            th scope="row" data-label="Repository" { a href=(link) { (project.path) } }
                            td colspan="5" data-label="Mirror" { span.faint { "none" } }
                        },
                        Some(views) => @for view in views { tr {
                            th scope="row" data-label="Repository" { a href=(link) { (project.path) } }
                            td data-label="Mirror" { (view.url) }
                            td data-label="Direction" { (mirror::direction(view)) }
                            td data-label="Last attempt" { (mirror::time(view.last_update_at.as_deref())) }
                            td data-label="Last success" { (mirror::time(view.last_successful_update_at.as_deref())) }
                            td data-label="Status" { (mirror::badge(view)) }
                        } },
                    }
                }
            }
        }
    }
}

/// Which mirrors are listed. An empty text selects all states, or all causes.
struct Only {
    state: String,
    cause: String,
}

impl Only {
    fn is_all(&self) -> bool {
        self.state.is_empty() && self.cause.is_empty()
    }

    fn is_it(&self, view: &View) -> bool {
        let standing = overview::standing(view);
        (self.state.is_empty() || standing.word() == self.state)
            && (self.cause.is_empty() || overview::cause_of(standing, view.cause.as_deref()) == Some(&*self.cause))
    }
}

fn pages(page: usize, total: usize, search: &str, only: &Only) -> Markup {
    let last = total.div_ceil(PER_PAGE).max(1);
    let link = |page: usize| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("page", &page.to_string()).append_pair("q", search);
        for (name, value) in [("state", &only.state), ("cause", &only.cause)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        format!("/?{}", query.finish())
    };
    html! {
        @if last > 1 { nav.pages aria-label="Pages" {
            @if page > 1 { a rel="prev" href=(link(page - 1)) { "Previous" } }
            span { "Page " (page) " of " (last) }
            @if page < last { a rel="next" href=(link(page + 1)) { "Next" } }
        } }
    }
}
