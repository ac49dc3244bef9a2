//! The overview above the list: how many mirrors are in each state, and what is wrong, by host and
//! cause.
//!
//! It comes from the summaries in memory. Only what other programs changed is read: see
//! `summaries`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use super::forms::checked;
use super::{Visitor, layout, mirror};
use crate::mirror::Wish;
use crate::serve::App;
use crate::serve::projects::Project;
use crate::serve::summaries::Mirrors;
use crate::status::{Standing, Summary, View, render_time};
use crate::tokens::Token;

/// Maximum number of causes that are listed.
const MAX_CAUSES: usize = 20;
/// Maximum number of mirrors that one form asks to be updated.
const MAX_RETRIED: usize = 500;

/// The cause of a mirror that is failing or retrying. A status of an earlier version has no cause,
/// and the owner of a repository could write any text as the cause. Both count as `unknown`.
pub(super) fn cause_of(standing: Standing, said: Option<&str>) -> Option<&str> {
    let is_bad = matches!(standing, Standing::Failing | Standing::Retrying);
    is_bad.then(|| said.filter(|cause| parts(cause).is_some()).unwrap_or("v1:-:unknown:-"))
}

/// The state of a mirror that is shown.
pub(super) fn standing(view: &View) -> Standing {
    Standing::of(view.enabled, view.update_status, view.attempts)
}

/// Host, kind and code of a cause, if it has the known form.
fn parts(cause: &str) -> Option<(&str, &str, &str)> {
    let mut parts = cause.strip_prefix("v1:")?.rsplitn(3, ':');
    let (code, kind, host) = (parts.next()?, parts.next()?, parts.next()?);
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let is_host = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'));
    (cause.len() <= 300 && is_host && is_word(kind) && is_word(code)).then_some((host, kind, code))
}

/// Calls `look` with each mirror of the projects that a token reaches, and with each project that cannot be read.
fn each(app: &App, token: &Token, look: &mut dyn FnMut(&Arc<Project>, Option<&Summary>)) {
    let table = app.table();
    for project in table.projects.iter().filter(|project| token.reaches(&project.path)) {
        project.look(|mirrors| match mirrors {
            Mirrors::Unread => {}
            Mirrors::Unreadable => look(project, None),
            Mirrors::Read(mirrors) => mirrors.iter().for_each(|mirror| look(project, Some(mirror))),
        });
    }
}

/// The numbers of the projects that have a mirror in this state and with this cause. An empty text
/// selects all states, or all causes.
pub(super) fn chosen(app: &App, token: &Token, state: &str, cause: &str) -> BTreeSet<u32> {
    app.see_changes();
    let mut found = BTreeSet::new();
    each(app, token, &mut |project, mirror| {
        let standing = mirror.map_or(Standing::Unreadable, |mirror| mirror.standing);
        let own = mirror.and_then(|mirror| cause_of(standing, mirror.cause.as_deref()));
        if (state.is_empty() || standing.word() == state) && (cause.is_empty() || own == Some(cause)) {
            found.insert(project.id);
        }
    });
    found
}

/// All mirrors that have the same cause.
struct Trouble {
    cause: String,
    standing: Standing,
    count: usize,
    since: Option<Timestamp>,
    example: String,
}

/// The counts by state and the list of causes, of the projects that the visitor reaches.
pub(super) fn show(app: &App, visitor: &Visitor) -> Markup {
    app.see_changes();
    let mut counts = [0; Standing::ALL.len()];
    let mut troubles: BTreeMap<String, Trouble> = BTreeMap::new();
    each(app, &visitor.token, &mut |_, mirror| {
        let standing = mirror.map_or(Standing::Unreadable, |mirror| mirror.standing);
        counts[standing as usize] += 1;
        if let Some(mirror) = mirror
            && let Some(cause) = cause_of(standing, mirror.cause.as_deref())
        {
            match troubles.get_mut(cause) {
                Some(trouble) => trouble.add(mirror),
                None => drop(troubles.insert(cause.to_owned(), Trouble::of(cause, mirror))),
            }
        }
    });
    // Failing ones come before retrying ones. In each group, the most frequent cause comes first.
    let mut troubles: Vec<Trouble> = troubles.into_values().collect();
    troubles.sort_by_key(|trouble| (trouble.standing, std::cmp::Reverse(trouble.count)));
    let more = troubles.len().saturating_sub(MAX_CAUSES);
    html! {
        @if counts != [0; Standing::ALL.len()] { section.overview aria-label="Overview" {
            p.counts {
                @for (standing, count) in Standing::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
                    a.{ "count " (standing.word()) } href={ "/?state=" (standing.word()) } { strong { (count) } " " (shown(standing)) }
                }
                // `Unreadable` counts repositories, not mirrors.
                span.faint { "of " (plural(counts.iter().sum::<usize>() - counts[Standing::Unreadable as usize])) }
            }
            @if !troubles.is_empty() {
                h2 { "What is wrong" }
                ul.troubles {
                    @for trouble in troubles.iter().take(MAX_CAUSES) { (of(visitor, trouble)) }
                }
                @if more > 0 { p.faint { "and " (more) " more causes" } }
            }
        } }
    }
}

impl Trouble {
    fn of(cause: &str, mirror: &Summary) -> Self {
        let example = mirror.error.clone().unwrap_or_default();
        Self { cause: cause.to_owned(), standing: mirror.standing, count: 1, since: mirror.failing_since, example }
    }

    fn add(&mut self, mirror: &Summary) {
        self.count += 1;
        self.standing = self.standing.min(mirror.standing);
        self.since = [self.since, mirror.failing_since].into_iter().flatten().min();
    }
}

fn shown(standing: Standing) -> String {
    standing.word().replace('_', " ")
}

fn plural(count: usize) -> String {
    if count == 1 { "1 mirror".into() } else { format!("{count} mirrors") }
}

fn of(visitor: &Visitor, trouble: &Trouble) -> Markup {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("cause", &trouble.cause);
    let host = parts(&trouble.cause).map(|(host, ..)| host).filter(|host| *host != "-").unwrap_or("this machine");
    let class = if trouble.standing == Standing::Failing { "failed" } else { "scheduled" };
    html! {
        li {
            span.{ "badge " (class) } { (shown(trouble.standing)) }
            " " strong { (host) } " " (trouble.example)
            @if let Some(since) = trouble.since { " " span.faint { "since " (mirror::time(Some(&render_time(since)))) } }
            " " a href={ "/?" (query.finish()) } { "Show " (plural(trouble.count)) }
            @if visitor.may_write() {
                form action="/retry" method="post" {
                    (layout::csrf(visitor))
                    input type="hidden" name="cause" value=(trouble.cause);
                    @if trouble.count > MAX_RETRIED { button { "Retry " (MAX_RETRIED) " of " (trouble.count) } }
                    @else { button { "Retry " (trouble.count) } }
                }
            }
        }
    }
}

/// Requests an update of the mirrors with one cause, beginning with the oldest last attempt.
pub(super) async fn retry(State(app): State<Arc<App>>, visitor: Visitor, body: Bytes) -> Response {
    checked(app, visitor, body, "/", |app, visitor, form| {
        let cause = form.text("cause").unwrap_or_default();
        let said = ask_all(app, visitor, &cause);
        tracing::info!("page: token '{}' retries the cause {cause:?}: {said}", visitor.token.name);
        app.sessions.say(&visitor.id, &said);
        None
    })
    .await
}

/// Requests the updates. Returns a message for the visitor.
fn ask_all(app: &App, visitor: &Visitor, cause: &str) -> String {
    app.see_changes();
    let mut meant: Vec<(Option<Timestamp>, Arc<Project>, u32)> = Vec::new();
    each(app, &visitor.token, &mut |project, mirror| {
        if let Some(mirror) = mirror.filter(|mirror| cause_of(mirror.standing, mirror.cause.as_deref()) == Some(cause))
        {
            meant.push((mirror.tried, Arc::clone(project), mirror.id));
        }
    });
    meant.sort_by_key(|(tried, ..)| *tried);
    let (mut asked, mut first_error) = (0, None);
    for (_, project, id) in meant.iter().take(MAX_RETRIED) {
        match app.sync(project, *id, Wish::Compare) {
            Ok(()) => asked += 1,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match (meant.len(), asked, first_error) {
        (0, ..) => "No mirror has this cause any more.".into(),
        (all, 0, Some(error)) => format!("No update could be requested of {}: {error}", plural(all)),
        (all, asked, _) if asked == all => "The updates are under way.".into(),
        (all, asked, _) => format!("Updates of {asked} of {} were requested.", plural(all)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_causes_of_the_known_form_count() {
        for (cause, expected) in [
            ("v1:github.com:credentials:401", Some(("github.com", "credentials", "401"))),
            ("v1:[::1]:connect:-", Some(("[::1]", "connect", "-"))),
            ("v1:-:local:-", Some(("-", "local", "-"))),
            ("v1:<script>:x:y", None),
            ("v1:host", None),
            ("v2:host:kind:code", None),
        ] {
            assert_eq!(parts(cause), expected, "{cause}");
        }
        assert_eq!(parts(&format!("v1:{}:kind:code", "h".repeat(400))), None);
    }
}
