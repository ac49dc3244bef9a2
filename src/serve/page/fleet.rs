//! What the other machines of the fleet have: a part of the list, and the page of one of their projects. It comes from the copies in the
//! database, and nothing can be changed here.

use maud::{Markup, html};
use serde_json::Value;

use super::{Visitor, layout, mirror};
use crate::fleet::{Listed, SeenNode, Shown, expressions};
use crate::serve::App;
use crate::status::{Standing, render_time};

/// Projects of other machines on one page.
const MAX_LISTED: usize = 50;

/// The other machines and their projects. `search` is in lower case. Empty without a fleet. If its
/// database does not answer, a sentence says so.
pub(super) fn section(app: &App, visitor: &Visitor, search: &str) -> Markup {
    let Some(own) = app.fleet.node() else { return html! {} };
    let paths = expressions(&visitor.token.projects);
    let found = app.fleet.ask(|look| {
        let listed = look.projects(search, &paths, own, 0, MAX_LISTED)?;
        Ok((look.nodes()?, listed))
    });
    html! {
        section aria-labelledby="others" {
            h2 id="others" { "Other machines" }
            @match &found {
                None => p { "The database of the fleet does not answer." },
                Some((nodes, (listed, count))) => {
                    ul.nodes { @for node in nodes.iter().filter(|node| node.node != own) { (row(visitor, node)) } }
                    @if listed.is_empty() { p { "No matching repository." } } @else { (table(listed)) }
                    @if *count > listed.len() { p.faint { "and " (count - listed.len()) " more; search for the one you want" } }
                }
            }
        }
    }
}

fn row(visitor: &Visitor, node: &SeenNode) -> Markup {
    let sees_all = visitor.token.projects.is_empty();
    html! {
        li {
            strong { @match link(&node.advertise) { Some(url) => a href=(url) { (node.node) }, None => (node.node) } }
            " " (live(node.reachable))
            @if !node.reachable { " last heard from at " (mirror::time(Some(&render_time(node.as_of)))) }
            // A token for some projects does not learn of others.
            @if sees_all { @for (state, count) in &node.mirrors { " " span.faint { (count) " " (state.word().replace('_', " ")) } } }
        }
    }
}

/// The address of a daemon, if it is an http or https URL.
fn link(advertise: &str) -> Option<&str> {
    Some(advertise).filter(|url| url.starts_with("https://") || url.starts_with("http://"))
}

fn live(is_live: bool) -> Markup {
    html! { @if is_live { span.badge.finished { "live" } } @else { span.badge.failed { "gone" } } }
}

fn table(listed: &[Listed]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Repository" } th scope="col" { "Machine" } th scope="col" { "Status" } } }
            tbody {
                @for project in listed { tr {
                    th scope="row" data-label="Repository" { a href={ "/projects/" (project.id) } { (project.path) } }
                    td data-label="Machine" { (project.node) @if !project.reachable { " " (live(false)) } }
                    td data-label="Status" { @match project.worst.and_then(|worst| Standing::ALL.get(worst)) {
                        None => span.faint { "no mirror" },
                        Some(state) => (badge(*state)),
                    } }
                } }
            }
        }
    }
}

fn badge(state: Standing) -> Markup {
    let class = match state {
        Standing::Failing | Standing::Unreadable => "failed",
        Standing::UpToDate => "finished",
        Standing::Disabled => "disabled",
        Standing::NeverTried => "none",
        Standing::Retrying | Standing::Waiting | Standing::Running => "scheduled",
    };
    html! { span.{ "badge " (class) } { (state.word().replace('_', " ")) } }
}

/// The page of a project of another machine.
pub(super) fn project(visitor: &Visitor, listed: &Listed, mirrors: &[Shown]) -> Markup {
    let body = html! {
        p {
            "This repository is on " strong { (listed.node) } " " (live(listed.reachable))
            ". Its mirrors are shown as they were at " (mirror::time(Some(&render_time(listed.as_of)))) ". "
            @match link(&listed.advertise) {
                Some(url) => { "To change them, go " a href={ (url.trim_end_matches('/')) "/projects/" (listed.id) } { "there" } "." },
                None => "They can be changed only on that machine.",
            }
        }
        table {
            thead { tr {
                th scope="col" { "Mirror" } th scope="col" { "URL" } th scope="col" { "Last update attempt" }
                th scope="col" { "Last successful update" } th scope="col" { "Status" }
            } }
            tbody { @for mirror in mirrors { (mirror_row(mirror)) } }
        }
    };
    layout::page(visitor, &listed.path, None, &body)
}

fn mirror_row(copy: &Shown) -> Markup {
    let text = |key: &str| copy.shown.get(key).and_then(Value::as_str);
    let words = |key: &str| text(key).unwrap_or_default();
    html! {
        tr {
            th scope="row" data-label="Mirror" { (words("name")) }
            td data-label="URL" { (words("url")) }
            td data-label="Last attempt" { (mirror::time(text("last_update_at"))) }
            td data-label="Last success" { (mirror::time(text("last_successful_update_at"))) }
            td data-label="Status" {
                @if let Some(state) = copy.state() { (badge(state)) }
                @if let Some(error) = text("last_error") { " " (error) }
            }
        }
    }
}
