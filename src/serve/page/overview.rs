//! The overview above the list: how many mirrors stand how, and what is wrong, by host and cause.
//!
//! All statuses are read for it, whoever looks. So it is read anew at most a tenth of the time, by one visitor, and the others get the last
//! one meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use parking_lot::Mutex;

use super::forms::checked;
use super::{Visitor, layout, mirror};
use crate::mirror::Wish;
use crate::serve::projects::Project;
use crate::serve::{App, now};
use crate::status::{UpdateStatus, View};

/// For how many milliseconds an overview counts at least.
const FRESH: i128 = 2000;
/// How many milliseconds a reading may take before another visitor begins one.
const MAX_READING: i128 = 60_000;
/// Most causes that are listed.
const MAX_CAUSES: usize = 20;
/// Most mirrors that one form asks to be updated.
const MAX_RETRIED: usize = 500;

/// How a mirror stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stand {
    Failing,
    Unreadable,
    Retrying,
    Waiting,
    Running,
    UpToDate,
    NeverTried,
    Disabled,
}

impl Stand {
    const ALL: [Self; 8] = [
        Self::Failing,
        Self::Unreadable,
        Self::Retrying,
        Self::Waiting,
        Self::Running,
        Self::UpToDate,
        Self::NeverTried,
        Self::Disabled,
    ];

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
            Self::Unreadable => "unreadable",
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

/// One mirror in the overview, or a repository that cannot be read.
struct Row {
    project: Arc<Project>,
    /// The mirror's id.
    id: u32,
    stand: Stand,
    cause: Option<String>,
    error: Option<String>,
    since: Option<String>,
    tried: Option<String>,
}

impl Row {
    fn of(project: &Arc<Project>, view: View) -> Self {
        let stand = Stand::of(&view);
        Self {
            project: Arc::clone(project),
            id: view.id,
            stand,
            cause: cause_of(&view),
            error: view.last_error.map(|error| error.to_string()),
            since: view.failing_since,
            tried: view.last_update_at,
        }
    }

    fn unreadable(project: &Arc<Project>) -> Self {
        let (project, stand) = (Arc::clone(project), Stand::Unreadable);
        Self { project, id: 0, stand, cause: None, error: None, since: None, tried: None }
    }
}

/// The cause of a mirror that is not right. A status of an earlier version has none, and the owner of a repository could write anything there.
pub(super) fn cause_of(view: &View) -> Option<String> {
    let is_wrong = matches!(Stand::of(view), Stand::Failing | Stand::Retrying);
    let said = view.cause.as_deref().filter(|cause| parts(cause).is_some());
    is_wrong.then(|| said.unwrap_or("v1:-:unknown:-").to_owned())
}

/// Host, kind and code of a cause, if it is one.
fn parts(cause: &str) -> Option<(&str, &str, &str)> {
    let mut parts = cause.strip_prefix("v1:")?.rsplitn(3, ':');
    let (code, kind, host) = (parts.next()?, parts.next()?, parts.next()?);
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let is_host = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'));
    (cause.len() <= 300 && is_host && is_word(kind) && is_word(code)).then_some((host, kind, code))
}

/// The mirrors of all projects, as they were a moment ago.
#[derive(Default)]
pub(in crate::serve) struct Overview(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// When it was read, and for how many milliseconds it counts.
    read: Option<(Timestamp, i128)>,
    rows: Arc<Vec<Row>>,
    /// Since when somebody reads it.
    reading: Option<Timestamp>,
}

impl Overview {
    /// The rows. Reads the status of every mirror, unless that was done a moment ago or is being done.
    fn rows(&self, app: &App) -> Arc<Vec<Row>> {
        let begun = now();
        {
            let mut known = self.0.lock();
            let is_fresh = |(at, counts): &(Timestamp, i128)| (0..*counts).contains(&age(*at, begun));
            let is_being_read = known.reading.is_some_and(|since| (0..MAX_READING).contains(&age(since, begun)));
            if known.read.as_ref().is_some_and(is_fresh) || is_being_read && known.read.is_some() {
                return Arc::clone(&known.rows);
            }
            known.reading = Some(begun);
        }
        let mut rows = Vec::new();
        for project in &app.table().projects {
            match app.mirrors(project) {
                Ok(views) => rows.extend(views.into_iter().map(|view| Row::of(project, view))),
                Err(error) => {
                    tracing::debug!("'{}': {error}", project.git_dir.display());
                    rows.push(Row::unreadable(project));
                }
            }
        }
        let (rows, ended) = (Arc::new(rows), now());
        let counts = FRESH.max(10 * age(begun, ended));
        *self.0.lock() = Known { read: Some((ended, counts)), rows: Arc::clone(&rows), reading: None };
        rows
    }

    /// Forgets what was read, because something was changed.
    fn forget(&self) {
        self.0.lock().read = None;
    }

    /// The numbers of the projects that have a mirror in this state, with this cause; empty texts choose all.
    pub(super) fn chosen(&self, app: &App, state: &str, cause: &str) -> BTreeSet<u32> {
        let is_it = |row: &&Row| {
            (state.is_empty() || row.stand.word() == state) && (cause.is_empty() || row.cause.as_deref() == Some(cause))
        };
        self.rows(app).iter().filter(is_it).map(|row| row.project.id).collect()
    }
}

/// Milliseconds from one time to another.
fn age(from: Timestamp, to: Timestamp) -> i128 {
    to.duration_since(from).as_millis()
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
    let host = parts(trouble.cause).map(|(host, ..)| host).filter(|host| *host != "-").unwrap_or("this machine");
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
                    @if trouble.count > MAX_RETRIED { button { "Retry " (MAX_RETRIED) " of " (trouble.count) } }
                    @else { button { "Retry " (trouble.count) } }
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

/// Asks for an update of the mirrors with one cause, those first whose last attempt is longest ago.
pub(super) async fn retry(State(app): State<Arc<App>>, visitor: Visitor, body: Bytes) -> Response {
    checked(app, visitor, body, "/", |app, visitor, form| {
        let cause = form.text("cause").unwrap_or_default();
        let said = ask_all(app, visitor, &cause);
        app.overview.forget();
        tracing::info!("page: token '{}' retries the cause {cause:?}: {said}", visitor.token.name);
        app.sessions.say(&visitor.id, &said);
        None
    })
    .await
}

/// Returns what to say of it.
fn ask_all(app: &App, visitor: &Visitor, cause: &str) -> String {
    app.overview.forget();
    let rows = app.overview.rows(app);
    let is_meant = |row: &&Row| row.cause.as_deref() == Some(cause) && visitor.token.reaches(&row.project.path);
    let mut meant: Vec<&Row> = rows.iter().filter(is_meant).collect();
    meant.sort_by(|one, other| one.tried.cmp(&other.tried));
    let (mut asked, mut first_error) = (0, None);
    for row in meant.iter().take(MAX_RETRIED) {
        match app.sync(&row.project, row.id, Wish::Compare) {
            Ok(()) => asked += 1,
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match (meant.len(), asked, first_error) {
        (0, ..) => "No mirror has this cause any more.".into(),
        (all, 0, Some(error)) => format!("None of {} could be asked for: {error}", plural(all)),
        (all, asked, _) if asked == all => "The updates are under way.".into(),
        (all, asked, _) => format!("{asked} of {} are asked for.", plural(all)),
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
