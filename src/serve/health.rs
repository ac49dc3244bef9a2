//! `/healthz` and `/metrics`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;

use super::{App, now};
use crate::config;
use crate::metrics;
use crate::repo;
use crate::serve::lanes::TooMany;

/// Whether the repositories can be listed. For load balancers and monitoring.
pub(super) async fn healthz(State(app): State<Arc<App>>) -> Response {
    match (app.is_ready.load(Ordering::Relaxed), app.is_whole.load(Ordering::Relaxed)) {
        (true, true) => (StatusCode::OK, "ok\n").into_response(),
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
        let mut kept = asked.metrics.lock();
        match &*kept {
            Some((at, text)) if now().duration_since(*at).abs() < KEPT => text.clone(),
            _ => kept.insert((now(), numbers(&asked))).1.clone(),
        }
    });
    match text.await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(TooMany) => StatusCode::TOO_MANY_REQUESTS.into_response(),
    }
}

fn numbers(app: &App) -> String {
    let server = app.workers.server();
    let mut measures = Vec::new();
    for project in &app.projects.table().projects {
        let measured = repo::open_listed(&project.git_dir).map_err(anyhow::Error::from).and_then(|shared| {
            let repository = shared.to_local();
            let config = config::load(&repository, &server)?;
            Ok(metrics::measures(&repository, &config, now())?)
        });
        match measured {
            Ok(found) => measures.extend(found),
            Err(error) => tracing::warn!("'{}': {error:#}", project.git_dir.display()),
        }
    }
    let mut text = metrics::render(&measures, now());
    let (running, waiting) = app.workers.counts();
    for (name, help, value) in [
        ("running_jobs", "Mirrors that are being served.", running),
        ("waiting_jobs", "Mirrors that wait to be served.", waiting),
    ] {
        let _ = writeln!(
            text,
            "# HELP git_mirror_push_{name} {help}\n# TYPE git_mirror_push_{name} gauge\ngit_mirror_push_{name} {value}"
        );
    }
    text
}
