//! Keeps a project's table on the page up to date: sends the table again whenever it has changed
//! (server-sent events, HTML Living Standard section 9.2).

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::layout::unobeyed;
use super::{OfProject, Visitor, mirror};
use crate::serve::App;
use crate::serve::projects::Project;

/// Streams at once.
const MAX_STREAMS: usize = 100;
/// How often the table is read again, because drains outside the daemon send no event.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Changes within this time are sent together.
const GATHER: Duration = Duration::from_millis(50);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Counts a stream while it is open.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let before = OPEN.fetch_add(1, Ordering::Relaxed);
        let place = Self;
        (before < MAX_STREAMS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open stream.
struct Watch {
    app: Arc<App>,
    visitor: Visitor,
    project: Arc<Project>,
    changes: broadcast::Receiver<PathBuf>,
    sent: String,
    _place: Place,
}

/// Streams the table.
pub(super) async fn stream(State(app): State<Arc<App>>, visitor: Visitor, Path(id): OfProject) -> Response {
    let Ok(project) = visitor.project(&app, id) else { return StatusCode::NOT_FOUND.into_response() };
    let Some(place) = Place::take() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let changes = app.events.subscribe();
    let watch = Watch { app, visitor, project, changes, sent: String::new(), _place: place };
    let events = stream::unfold(watch, |mut watch| async move {
        let table = watch.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(table)), watch))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

impl Watch {
    /// The table, once it differs from the one that was sent. `None` ends the stream: the session or its token is no longer valid, the
    /// project cannot be read, or the token has too many requests.
    async fn next(&mut self) -> Option<String> {
        loop {
            let (app, visitor, project) = (Arc::clone(&self.app), self.visitor.clone(), Arc::clone(&self.project));
            let (lanes, name) = (Arc::clone(&app), visitor.token.name.clone());
            let read = lanes.lanes.read(&name, move || {
                let session = app.sessions.find(&visitor.id, crate::serve::now())?;
                app.access.by_name(&session.token, session.token_created_at, crate::serve::now()).ok()??;
                let opened = app.open(&project).ok()?;
                Some(unobeyed(mirror::table(&visitor, &project, &opened).ok()?).into_string())
            });
            let table = read.await.ok()??;
            if table != self.sent {
                self.sent.clone_from(&table);
                return Some(table);
            }
            self.wait().await?;
        }
    }

    /// Waits until something may have changed.
    async fn wait(&mut self) -> Option<()> {
        let mine = async {
            loop {
                match self.changes.recv().await {
                    Ok(git_dir) if git_dir == self.project.git_dir => return Some(()),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return Some(()),
                    Err(RecvError::Closed) => return None,
                }
            }
        };
        if let Ok(change) = tokio::time::timeout(POLL_INTERVAL, mine).await {
            tokio::time::sleep(GATHER).await;
            return change;
        }
        Some(())
    }
}
