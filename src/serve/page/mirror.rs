//! One mirror as the page shows it: its settings and state, the refs that are not up to date, keys, and past attempts.

use maud::{Markup, html};

use super::{Visitor, layout, plot};
use crate::config::Direction;
use crate::credentials;
use crate::serve::mirrors::{Error, OpenProject};
use crate::serve::projects::Project;
use crate::status::{Attempt, UpdateStatus, View, read_history};

/// Maximum number of refs of one mirror that are listed.
const MAX_REFS: usize = 100;

/// What is shown of one mirror.
struct Shown {
    view: View,
    attempts: Vec<Attempt>,
    public_key: Option<String>,
}

/// All mirrors of a project: the part of the page that its script updates.
pub(super) fn table(visitor: &Visitor, project: &Project, opened: &OpenProject) -> Result<Markup, Error> {
    let gather = |mirror| {
        let view = opened.view(mirror)?;
        let directory = opened.repository.layout().remote(&view.name);
        let attempts = read_history(&directory).map_err(anyhow::Error::from)?;
        let public_key = credentials::public_key(&directory).map_err(anyhow::Error::from)?;
        let public_key = public_key.filter(|_| view.auth_method == "ssh_public_key");
        Ok(Shown { view, attempts, public_key })
    };
    let all = opened.config.mirrors.iter().map(gather).collect::<Result<Vec<Shown>, Error>>()?;
    Ok(html! {
        @if opened.config.is_silent { p.error { "Silent mode: nothing leaves this machine; pushes are still spooled." } }
        @if all.is_empty() { p { "This repository has no mirrors yet." } }
        @for shown in &all { (article(visitor, project, shown)) }
    })
}

fn article(visitor: &Visitor, project: &Project, shown: &Shown) -> Markup {
    let view = &shown.view;
    let id = format!("mirror-{}", view.id);
    html! {
        article.mirror aria-labelledby={ (id) "-name" } id=(id) {
            h3 id={ (id) "-name" } { (view.name) " " (badge(view)) }
            dl {
                div { dt { (place(view)) } dd.url { (view.url) } }
                div { dt { "Direction" } dd { (direction(view)) } }
                @if takes(view) {
                    div { dt { "Last check" } dd { (time(view.last_check_at.as_deref())) } }
                    div { dt { "Last change" } dd { (time(view.last_change_at.as_deref())) } }
                }
                div { dt { "Last update attempt" } dd { (time(view.last_update_at.as_deref())) } }
                div { dt { "Last successful update" } dd { (time(view.last_successful_update_at.as_deref())) } }
                div { dt { "Mirrors" } dd { (selection(view)) } }
                @if view.pending > 0 && !is(view, Direction::Pull) { div { dt { "Waiting pushes" } dd { (view.pending) } } }
                @if let Some(next) = &view.next_attempt_at {
                    div { dt { @if takes(view) { "Next check" } @else { "Next attempt" } } dd { (time(Some(next))) } }
                }
            }
            @if let Some(error) = &view.last_error { p.error { (error) } }
            @if visitor.may_write() { (buttons(visitor, project, view)) }
            @if !view.refs.is_empty() { (refs(view, &id)) }
            @if let Some(key) = &shown.public_key { (public_key(key.trim_end(), &id)) }
            @if view.url.starts_with("ssh:") { (host_keys(visitor, project, view)) }
            @if !shown.attempts.is_empty() {
                details id={ (id) "-attempts" } { summary { "Recent attempts" } (plot::plot(&shown.attempts)) }
            }
        }
    }
}

/// The direction in a word.
pub(super) fn direction(view: &View) -> &'static str {
    match is(view, Direction::Both) {
        true => "Both ways",
        false if is(view, Direction::Pull) => "Pull",
        false => "Push",
    }
}

/// What the mirror's URL is.
fn place(view: &View) -> &'static str {
    match is(view, Direction::Both) {
        true => "Mirrored with",
        false if is(view, Direction::Pull) => "Taken from",
        false => "Mirrored to",
    }
}

fn is(view: &View, direction: Direction) -> bool {
    view.direction == direction.as_str()
}

fn takes(view: &View) -> bool {
    !is(view, Direction::Push)
}

fn buttons(visitor: &Visitor, project: &Project, view: &View) -> Markup {
    let base = format!("/projects/{}/mirrors/{}", project.id, view.id);
    let button = |action: &str, label: &str| {
        html! {
            form action={ (base) "/" (action) } method="post" {
                (layout::csrf(visitor))
                button id={ "mirror-" (view.id) "-" (action) } aria-label={ (label) ": " (view.name) } { (label) }
            }
        }
    };
    html! {
        div.actions {
            @if view.enabled && view.needs_adoption { (button("adopt", "This is the right mirror")) }
            @if view.enabled { (button("sync", if is(view, Direction::Pull) { "Pull now" } else { "Update now" })) (button("disable", "Disable")) }
            @else { (button("enable", "Enable")) }
            @if !is(view, Direction::Both) { a.button id={ "mirror-" (view.id) "-edit" } href={ (base) "/edit" } aria-label={ "Edit: " (view.name) } { "Edit" } }
            a.button id={ "mirror-" (view.id) "-remove" } href={ (base) "/remove" } aria-label={ "Remove: " (view.name) } { "Remove" }
        }
    }
}

fn refs(view: &View, id: &str) -> Markup {
    html! {
        details open id={ (id) "-refs" } {
            summary { (listed(view.refs.len())) }
            table {
                thead { tr { th scope="col" { "Ref" } th scope="col" { "Outcome" } th scope="col" { "Reason" } } }
                tbody { @for entry in view.refs.iter().take(MAX_REFS) { tr {
                    th scope="row" data-label="Ref" { code { (entry.name.to_string()) } }
                    td data-label="Outcome" { (entry.outcome.as_str().replace('_', " ")) }
                    td data-label="Reason" { (entry.reason.as_deref().unwrap_or_default()) }
                } } }
            }
            @if view.refs.len() > MAX_REFS { p { "and " (view.refs.len() - MAX_REFS) " more; 'git mirror-push status -v' shows them all" } }
        }
    }
}

fn listed(count: usize) -> String {
    if count == 1 {
        "1 ref is not up to date or was kept".into()
    } else {
        format!("{count} refs are not up to date or were kept")
    }
}

fn public_key(key: &str, id: &str) -> Markup {
    html! {
        details open id={ (id) "-key" } {
            summary { "Public key, to be added to the account at the host" }
            code.key id={ (id) "-key-text" } { (key) }
            button.copy type="button" hidden id={ (id) "-copy" } data-copy={ (id) "-key-text" } { "Copy public key" }
        }
    }
}

fn host_keys(visitor: &Visitor, project: &Project, view: &View) -> Markup {
    let detect = format!("/projects/{}/mirrors/{}/host_keys", project.id, view.id);
    html! {
        details open[view.host_keys.is_empty()] id={ "mirror-" (view.id) "-pins" } {
            summary { "Host keys: " @if view.host_keys.is_empty() { "none pinned" } @else { (view.host_keys.len()) " pinned" } }
            ul { @for key in &view.host_keys { li { code { (key.fingerprint_sha256) } } } }
            @if visitor.may_write() {
                a.button id={ "mirror-" (view.id) "-detect" } href=(detect) aria-label={ "Detect host keys: " (view.name) } { "Detect host keys" }
            }
        }
    }
}

fn selection(view: &View) -> String {
    let branches = match &view.mirror_branch_regex {
        _ if view.only_protected_branches => "protected branches".to_owned(),
        Some(regex) => format!("branches that match {regex}"),
        None => "all branches".to_owned(),
    };
    let tags = match view.tags.as_str() {
        Some("none") => "no tags",
        Some(_) => "all tags",
        None => "some tags",
    };
    format!("{branches}, {tags}; divergent refs: {}; prune: {}", view.divergent_refs, view.prune)
}

/// How a mirror stands, in one word and one colour; the error is its title.
pub(super) fn badge(view: &View) -> Markup {
    let (class, word) = match view.update_status {
        _ if !view.enabled => ("disabled", "disabled"),
        UpdateStatus::None => ("none", "never tried"),
        status => (status.as_str(), status.as_str()),
    };
    html! { span.{ "badge " (class) } title=[view.last_error.as_deref()] { (word) } }
}

/// A time as the page shows it; `never` if there is none.
pub(super) fn time(time: Option<&str>) -> Markup {
    html! {
        @match time {
            None => span.faint { "never" },
            Some(text) => time datetime=(text) { (text.get(..19).unwrap_or(text).replace('T', " ")) " UTC" },
        }
    }
}
