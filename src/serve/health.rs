//! `/healthz` and `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};

use super::lanes::TooMany;
use super::summaries::Mirrors;
use super::{App, now};
use crate::metrics::{Metrics, Series};

/// Whether the repositories can be listed. For load balancers and monitoring.
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Response {
    match (app.look.is_ready(), app.look.is_whole()) {
        (true, true) => match app.fleet.trouble() {
            Some(why) => (StatusCode::OK, format!("ok, but {why}; see the log\n")).into_response(),
            None => (StatusCode::OK, "ok\n").into_response(),
        },
        // The other roots are served.
        (true, false) => (StatusCode::OK, "ok, but a root is missing; see the log\n").into_response(),
        (false, _) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the repositories cannot be listed; see the log\n").into_response()
        }
    }
}

/// How long the numbers are kept: whoever asks more often gets the same ones.
const KEPT: SignedDuration = SignedDuration::from_secs(5);

/// The numbers of all mirrors, in Prometheus' text format.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let asked = Arc::clone(&app);
    let text = app.lanes.read("", move || {
        let is_fresh = |(at, _): &&(Timestamp, String)| now().duration_since(*at).abs() < KEPT;
        let kept = asked.metrics.lock().as_ref().filter(is_fresh).map(|(_, text)| text.clone());
        kept.unwrap_or_else(|| {
            // Without the lock: a file system may hang, and only this request waits for it then.
            let text = numbers(&asked);
            *asked.metrics.lock() = Some((now(), text.clone()));
            text
        })
    });
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(TooMany) => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

fn numbers(app: &App) -> String {
    app.see_changes();
    let mut metrics = Metrics::new(Series::OfWrong, now());
    let (mut unread, mut unreadable) = (0, 0);
    for project in &app.projects.table().projects {
        project.look(|mirrors| match mirrors {
            Mirrors::Unread => unread += 1,
            Mirrors::Unreadable => unreadable += 1,
            Mirrors::Read(mirrors) => mirrors.iter().for_each(|mirror| metrics.add(&project.git_dir, mirror)),
        });
    }
    let mut text = metrics.render();
    let (running, waiting) = app.workers.counts();
    for (name, help, value) in [
        ("running_jobs", "Mirrors that are being served.", running),
        ("waiting_jobs", "Mirrors that wait to be served.", waiting),
        ("unread_repositories", "Repositories that were not scanned yet since the daemon began.", unread),
        ("unreadable_repositories", "Repositories whose mirrors cannot be read.", unreadable),
    ] {
        let _ = writeln!(
            text,
            "# HELP git_mirror_push_{name} {help}\n# TYPE git_mirror_push_{name} gauge\ngit_mirror_push_{name} {value}"
        );
    }
    let name = "git_mirror_push_fence_lost_total";
    let help = "Runs that stopped because another run for the same mirror had begun.";
    let lost = app.superseded.load(Ordering::Relaxed);
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {lost}");
    text + &app.fleet.metrics()
}
