//! All routes, and what holds for each of them: a limit of time, a line in the access log, headers that keep browsers safe.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::client::{Client, Peer};
use super::{App, api, health, page};

/// For a request and its answer; a stream of events is answered when it begins.
const LIMIT: Duration = Duration::from_secs(60);

/// Sent with every answer: nothing but our own style and script, no frames, nothing guessed, nothing kept.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The whole of it.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(health::metrics))
        .merge(api::router())
        .merge(page::router())
        .layer(from_fn(around))
        .with_state(app)
}

async fn around(mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.unwrap_or_else(|| Peer { name: "-".into(), is_local: false });
    let client = Client::new(&peer, request.headers());
    request.extensions_mut().insert(client.clone());
    // The query is left out: someone may put a secret there.
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = super::now();
    let answered = tokio::time::timeout(LIMIT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let took = super::now().duration_since(begin).as_millis();
    let (name, token, status) = (&client.name, client.token(), response.status().as_u16());
    tracing::info!(target: "access", "{name} {token} {method} {} {status} {took} ms", path.escape_debug());
    response
}
