//! The overview above the list: how many mirrors stand how, and what is wrong, by host and cause.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use parking_lot::Mutex;

use super::forms::Form;
use super::{Visitor, failed, layout, mirror, refused, too_many};
use crate::mirror::Wish;
use crate::serve::mirrors::Error;
use crate::serve::projects::Project;
use crate::serve::{App, now};
use crate::status::{UpdateStatus, View};

/// For how many seconds an overview counts.
const FRESH: i64 = 2;
/// Most causes that are listed.
const MAX_CAUSES: usize = 20;
/// Most mirrors that one form asks to be updated.
const MAX_RETRIED: usize = 500;

/// How a mirror stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stand {
    Failing,
    Retrying,
    Waiting,
    Running,
    UpToDate,
    NeverTried,
    Disabled,
}

impl Stand {
    const ALL: [Self; 7] =
        [Self::Failing, Self::Retrying, Self::Waiting, Self::Running, Self::UpToDate, Self::NeverTried, Self::Disabled];

    pub(super) fn of(view: &View) -> Self {
        match view.update_status {
            _ if !view.enabled => Self::Disabled,
            UpdateStatus::Failed => Self::Failing,
            UpdateStatus::Scheduled if view.attempts > 0 => Self::Retrying,
            UpdateStatus::Scheduled => Self::Waiting,
            UpdateStatus::Started => Self::Running,
            UpdateStatus::Finished => Self::UpToDate,
            UpdateStatus::None => Self::NeverTried,
        }
    }

    /// The word in addresses.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::UpToDate => "up_to_date",
            Self::NeverTried => "never_tried",
            Self::Disabled => "disabled",
        }
    }

    fn shown(self) -> String {
        self.word().replace('_', " ")
    }
}

/// One mirror in the overview.
struct Row {
    project: Arc<Project>,
    /// The mirror's id.
    id: u32,
    stand: Stand,
    cause: Option<String>,
    error: Option<String>,
    since: Option<String>,
}

/// The mirrors of all projects, as they were a moment ago.
#[derive(Default)]
pub(in crate::serve) struct Overview(Mutex<Option<(Timestamp, Arc<Vec<Row>>)>>);

impl Overview {
    /// Reads the status of every mirror, unless that was done a moment ago.
    fn rows(&self, app: &App) -> Arc<Vec<Row>> {
        let mut last = self.0.lock();
        let is_fresh = |at: &Timestamp| now().as_second() - at.as_second() < FRESH;
        if let Some((_, rows)) = last.as_ref().filter(|(at, _)| is_fresh(at)) {
            return Arc::clone(rows);
        }
        let mut rows = Vec::new();
        for project in &app.table().projects {
            for view in app.mirrors(project).unwrap_or_default() {
                rows.push(Row {
                    project: Arc::clone(project),
                    id: view.id,
                    stand: Stand::of(&view),
                    cause: view.cause.filter(|_| view.enabled),
                    error: view.last_error.map(|error| error.to_string()),
                    since: view.failing_since,
                });
            }
        }
        let rows = Arc::new(rows);
        *last = Some((now(), Arc::clone(&rows)));
        rows
    }

    /// Forgets what was read, because something was changed.
    fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// One trouble: everything with one cause.
struct Trouble<'r> {
    cause: &'r str,
    stand: Stand,
    count: usize,
    since: Option<&'r str>,
    example: &'r str,
}

/// The counts by state and the list of causes, of the projects that the visitor reaches.
pub(super) fn show(app: &App, visitor: &Visitor) -> Markup {
    let rows = app.overview.rows(app);
    let rows: Vec<&Row> = rows.iter().filter(|row| visitor.token.reaches(&row.project.path)).collect();
    let count = |stand: Stand| rows.iter().filter(|row| row.stand == stand).count();
    let troubles = troubles(&rows);
    let more = troubles.len().saturating_sub(MAX_CAUSES);
    html! {
        @if !rows.is_empty() { section.overview aria-label="Overview" {
            p.counts {
                @for stand in Stand::ALL.into_iter().filter(|stand| count(*stand) > 0) {
                    a.{ "count " (stand.word()) } href={ "/?state=" (stand.word()) } { strong { (count(stand)) } " " (stand.shown()) }
                }
                span.faint { "of " (plural(rows.len())) }
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

fn plural(count: usize) -> String {
    if count == 1 { "1 mirror".into() } else { format!("{count} mirrors") }
}

fn of(visitor: &Visitor, trouble: &Trouble<'_>) -> Markup {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("cause", trouble.cause);
    let host = trouble.cause.split(':').nth(1).filter(|host| *host != "-").unwrap_or("this machine");
    let class = if trouble.stand == Stand::Failing { "failed" } else { "scheduled" };
    html! {
        li {
            span.{ "badge " (class) } { (trouble.stand.shown()) }
            " " strong { (host) } " " (trouble.example.chars().take(200).collect::<String>())
            " " span.faint { "since " (mirror::time(trouble.since)) }
            " " a href={ "/?" (query.finish()) } { "Show " (plural(trouble.count)) }
            @if visitor.may_write() {
                form action="/retry" method="post" {
                    (layout::csrf(visitor))
                    input type="hidden" name="cause" value=(trouble.cause);
                    button { "Retry " (trouble.count) }
                }
            }
        }
    }
}

/// What is wrong, by cause: failing before retrying, and the most frequent first.
fn troubles<'r>(rows: &[&'r Row]) -> Vec<Trouble<'r>> {
    let mut found: BTreeMap<&str, Trouble<'r>> = BTreeMap::new();
    for row in rows {
        let Some(cause) = row.cause.as_deref() else { continue };
        let trouble = found.entry(cause).or_insert_with(|| Trouble {
            cause,
            stand: row.stand,
            count: 0,
            since: row.since.as_deref(),
            example: row.error.as_deref().unwrap_or_default(),
        });
        trouble.count += 1;
        trouble.stand = trouble.stand.min(row.stand);
        trouble.since = match (trouble.since, row.since.as_deref()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    let mut all: Vec<Trouble<'r>> = found.into_values().collect();
    all.sort_by_key(|trouble| (trouble.stand, std::cmp::Reverse(trouble.count)));
    all
}

/// Asks for an update of every mirror with one cause.
pub(super) async fn retry(State(app): State<Arc<App>>, visitor: Visitor, body: Bytes) -> Response {
    let (lanes, name) = (Arc::clone(&app), visitor.token.name.clone());
    let done = lanes.lanes.write(&name, move || {
        let form = Form::read(&body);
        if !visitor.session.is_own_form(&form.csrf()) {
            return Some(refused().into_response());
        }
        if !visitor.may_write() {
            return Some(failed(&Error::Refused("This token is read-only.".into())));
        }
        let cause = form.text("cause").unwrap_or_default();
        let rows = app.overview.rows(&app);
        let is_meant = |row: &&Row| row.cause.as_deref() == Some(&*cause) && visitor.token.reaches(&row.project.path);
        let meant = rows.iter().filter(is_meant).take(MAX_RETRIED);
        let asked = meant.filter(|row| app.sync(&row.project, row.id, Wish::Compare).is_ok()).count();
        app.overview.forget();
        tracing::info!("page: token '{}' retries {asked} mirrors with the cause {cause:?}", visitor.token.name);
        app.sessions.say(
            &visitor.id,
            if asked == 0 { "No mirror has this cause any more." } else { "The updates are under way." },
        );
        None
    });
    match done.await {
        Ok(answer) => answer.unwrap_or_else(|| Redirect::to("/").into_response()),
        Err(_) => too_many(),
    }
}
