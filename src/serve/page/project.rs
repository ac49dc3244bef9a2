//! `/projects/ID`: one repository, its mirrors, and the forms that change them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};

use super::fleet;
use super::forms::{MirrorForm, USUAL};
use super::{OfMirror, OfProject, Visitor, answer, layout, mirror, shown};
use crate::serve::App;
use crate::serve::mirrors::Error;
use crate::serve::projects::Project;

/// Shows the project.
pub(super) async fn show(State(app): State<Arc<App>>, visitor: Visitor, Path(id): OfProject) -> Response {
    shown(&app, visitor, move |app, visitor| match visitor.project(app, id) {
        Ok(project) => whole(app, visitor, &project, None),
        Err(missing) => elsewhere(app, visitor, id).ok_or(missing),
    })
    .await
}

/// The page of a project of another machine, if the token reaches it.
fn elsewhere(app: &App, visitor: &Visitor, id: u32) -> Option<Markup> {
    let found = app.fleet.ask(|look| Ok((look.project(&id.to_string())?, look.mirrors_of(id)?)))?;
    let listed = found.0.filter(|listed| listed.id == id && visitor.token.reaches(&listed.path))?;
    Some(fleet::project(visitor, &listed, &found.1))
}

/// The page of a project. `wrong` is a form that was refused, and the reason.
pub(super) fn whole(
    app: &App,
    visitor: &Visitor,
    project: &Project,
    wrong: Option<(&MirrorForm, &Error)>,
) -> Result<Markup, Error> {
    let opened = app.open(project)?;
    let table = mirror::table(visitor, project, &opened)?;
    let body = html! {
        section aria-labelledby="mirrors" {
            h2 id="mirrors" { "Mirrors" }
            p.sr role="status" id="news" {}
            div id="live" data-events={ "/projects/" (project.id) "/events" } { (table) }
            noscript { p.hint { "Without its script this page does not change by itself: " a href="" { "reload it" } "." } }
        }
        @if visitor.may_write() {
            section aria-labelledby="add" {
                h2 id="add" { "Add a mirror" }
                (form(visitor, &format!("/projects/{}/mirrors", project.id), wrong, "Add mirror"))
            }
        }
    };
    let said = app.sessions.take_said(&visitor.id);
    Ok(layout::page(visitor, &project.path, said.as_deref(), &body))
}

/// The form of a mirror that is to be changed.
pub(super) async fn edit(State(app): State<Arc<App>>, visitor: Visitor, Path((id, mirror)): OfMirror) -> Response {
    shown(&app, visitor, move |app, visitor| {
        let project = visitor.project(app, id)?;
        let opened = app.open(&project)?;
        let found = opened.changeable(mirror)?;
        let filled = MirrorForm::of(found);
        Ok(edit_page(visitor, &project, mirror, &filled, None))
    })
    .await
}

/// The page with the form of a mirror that is to be changed. `wrong` is why it was refused.
pub(super) fn edit_page(
    visitor: &Visitor,
    project: &Project,
    mirror: u32,
    filled: &MirrorForm,
    wrong: Option<&Error>,
) -> Markup {
    let action = format!("/projects/{}/mirrors/{mirror}/edit", project.id);
    let nothing = Error::Refused(String::new());
    let body = html! {
        (form(visitor, &action, Some((filled, wrong.unwrap_or(&nothing))), "Save changes"))
        p { a href={ "/projects/" (project.id) } { "Back without changes" } }
    };
    layout::page(visitor, &format!("Edit {}", filled.name), None, &body)
}

/// Asks whether a mirror is to be removed.
pub(super) async fn remove(State(app): State<Arc<App>>, visitor: Visitor, Path((id, mirror)): OfMirror) -> Response {
    shown(&app, visitor, move |app, visitor| {
        let project = visitor.project(app, id)?;
        let opened = app.open(&project)?;
        let view = opened.view(opened.mirror(mirror)?)?;
        let body = html! {
            p { "The mirror " strong { (view.name) } " (" (view.url) ") is removed from this server, with its password and key. "
                "The repository at that URL is not changed." }
            form.actions action={ "/projects/" (id) "/mirrors/" (mirror) "/remove" } method="post" {
                (layout::csrf(visitor))
                button.danger { "Remove mirror" }
                a.button href={ "/projects/" (id) } { "Keep it" }
            }
        };
        Ok(layout::page(visitor, &format!("Remove {}?", view.name), None, &body))
    })
    .await
}

/// Shows what host keys the server offers.
pub(super) async fn host_keys(State(app): State<Arc<App>>, visitor: Visitor, Path((id, mirror)): OfMirror) -> Response {
    // The server may be slow, so this uses one of the few threads that a token has for changes.
    let (lanes, name) = (Arc::clone(&app), visitor.token.name.clone());
    let made = lanes.lanes.write(&name, move || {
        let project = visitor.project(&app, id)?;
        if !visitor.may_write() {
            return Err(Error::Refused("This token is read-only.".into()));
        }
        let opened = app.open(&project)?;
        let found = opened.mirror(mirror)?;
        let offered = app.offered_keys(&opened, found)?;
        let body = html! {
            p { "These are the host keys that the mirror's server presents. Compare the fingerprints with those that its administrator publishes." }
            table {
                thead { tr { th scope="col" { "Type" } th scope="col" { "SHA256" } th scope="col" { "MD5" } } }
                tbody { @for key in &offered { tr {
                    th scope="row" data-label="Type" { (key.kind) }
                    td data-label="SHA256" { code { (key.sha256) } }
                    td data-label="MD5" { code { (key.md5) } }
                } } }
            }
            form.actions action={ "/projects/" (id) "/mirrors/" (mirror) "/host_keys" } method="post" {
                (layout::csrf(&visitor))
                @for key in &offered { input type="hidden" name="host_keys[]" value=(key.line); }
                button id="trust" { "Trust these keys" }
                a.button href={ "/projects/" (id) } { "Cancel" }
            }
        };
        Ok(layout::page(&visitor, &format!("Host keys of {}", found.name), None, &body))
    });
    answer(made.await)
}

fn form(visitor: &Visitor, action: &str, wrong: Option<(&MirrorForm, &Error)>, button: &str) -> Markup {
    let empty = MirrorForm::default();
    let (filled, why) = wrong.map_or((&empty, String::new()), |(filled, trouble)| (filled, trouble.to_string()));
    let option = |value: &str, chosen: &str, label: &str| {
        html! { option value=(value) selected[value == chosen] { (label) } }
    };
    let radio = |value: &str, label: &str| {
        html! { label.check { input type="radio" name="branches" value=(value) checked[filled.branches == value]; " " (label) } }
    };
    html! {
        form.fields action=(action) method="post" {
            (layout::csrf(visitor))
            @if !why.is_empty() { p.error role="alert" tabindex="-1" autofocus { (why) } }
            div { label for="url" { "Git repository URL" }
                input id="url" name="url" type="text" inputmode="url" spellcheck="false" required value=(filled.url)
                    aria-describedby="url-hint" placeholder="https://git.example.org/group/project.git";
                p.hint id="url-hint" { "https, http, ssh or git; over ssh write ssh://git@host/path" } }
            @if !filled.is_stored {
                div { label for="direction" { "Direction" }
                    select id="direction" name="direction" {
                        (option("push", &filled.direction, "Push: the mirror gets what is pushed here"))
                        (option("pull", &filled.direction, "Pull: this repository takes what changes there"))
                    } }
            }
            div { label for="auth_method" { "Authentication method" }
                select id="auth_method" name="auth_method" {
                    (option("password", &filled.auth_method, "User name and password or token"))
                    (option("ssh_public_key", &filled.auth_method, "SSH public key"))
                    (option("none", &filled.auth_method, "None"))
                } }
            div { label for="username" { "User name" }
                input id="username" name="username" autocomplete="off" value=(filled.username); }
            div { label for="password" { "Password or token" }
                input id="password" name="password" type="password" autocomplete="new-password" aria-describedby="password-hint";
                p.hint id="password-hint" { "Stored on the server and never shown again." @if filled.is_stored { " Leave empty to keep the stored one." } } }
            fieldset { legend { "Branches" }
                (radio("all", "All branches")) (radio("protected", "Protected branches only"))
                (radio("regex", "Branches that match a regular expression"))
                label for="regex" { "Regular expression (RE2)" }
                input id="regex" name="regex" spellcheck="false" maxlength="255" value=(filled.regex); }
            div { label for="divergent_refs" { "Refs that someone else changed on the side that is updated" }
                select id="divergent_refs" name="divergent_refs" {
                    @if !filled.is_stored { (option(USUAL, &filled.divergent_refs, "As usual: a push overwrites them, a pull keeps them")) }
                    (option("overwrite", &filled.divergent_refs, "Overwrite them"))
                    (option("keep", &filled.divergent_refs, "Keep them, and report"))
                    (option("fail", &filled.divergent_refs, "Update nothing at all, and report"))
                } }
            div { label for="prune" { "Refs that were deleted here (pull: there)" }
                select id="prune" name="prune" {
                    (option("merged", &filled.prune, "Delete when merged"))
                    (option("deleted", &filled.prune, "Delete when nobody changed them since"))
                    (option("mirror", &filled.prune, "Delete every ref that the other side lacks"))
                    (option("never", &filled.prune, "Never delete"))
                } }
            label.check { input type="checkbox" name="enabled" value="1" checked[filled.is_enabled]; " Enabled" }
            button { (button) }
        }
    }
}
