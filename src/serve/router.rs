//! All routes, and what applies to each: the time limit, the access log, and security headers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{FutureExt, StreamExt};

use super::client::{Client, Peer};
use super::listen::Slot;
use super::{App, api, health, page};

/// Time limit from the end of a request to the start of its answer. An event stream may last longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Time limit for the body of a request.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// Sent with every answer that does not set them itself: only our own style and script, no frames, no guessed content type, no caching.
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

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(health::metrics))
        .merge(api::router())
        .merge(page::router())
        .layer(from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Answers a request within the time limit. A panic ends this request alone and is answered with status 500. The panic hook has logged
/// where.
async fn answered(run: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(LIMIT, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// The request with its whole body, except for a webhook: its body may be large, and its handler
/// reads it piece by piece.
async fn whole(request: Request) -> Result<Request, api::Failure> {
    if api::is_webhook(request.method(), request.uri().path()) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let mut all = Vec::new();
    read(&parts, body, api::MAX_BODY, &mut |piece| all.extend_from_slice(piece)).await?;
    Ok(Request::from_parts(parts, all.into()))
}

/// Reads a body of at most `limit` bytes, piece by piece. After the last piece, its connection is
/// busy and is not closed for another one.
///
/// # Errors
/// The answer, if the body is too large or takes too long.
pub(super) async fn read(
    parts: &Parts,
    body: Body,
    limit: usize,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), api::Failure> {
    let reading = async {
        let (mut pieces, mut length) = (body.into_data_stream(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| api::Failure::too_large())?;
            length += piece.len();
            if length > limit {
                return Err(api::Failure::too_large());
            }
            each(&piece);
        }
        Ok(())
    };
    tokio::time::timeout(BODY_LIMIT, reading).await.map_err(|_| api::Failure::too_slow())??;
    if let Some(slot) = parts.extensions.get::<Arc<Slot>>() {
        slot.busy();
    }
    Ok(())
}

/// Whether the client asks for this server by one of its names. `/healthz` needs none, because a health check may know only the address.
fn is_for_us(app: &App, client: &Client, path: &str) -> bool {
    let server = app.workers.server();
    server
        .api
        .hosts
        .as_ref()
        .is_none_or(|hosts| hosts.is_empty() || path == "/healthz" || hosts.contains(&client.host()))
}

async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.unwrap_or_else(|| Peer { name: "-".into(), is_local: false });
    let client = Client::new(&peer, request.headers());
    request.extensions_mut().insert(client.clone());
    // The log leaves out the query, because someone may put a secret there.
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = super::now();
    let mut response = match whole(request).await {
        Ok(request) if is_for_us(&app, &client, &path) => answered(next.run(request)).await,
        Ok(_) => (StatusCode::MISDIRECTED_REQUEST, "this server is not known by that name (hosts in [api])\n")
            .into_response(),
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let took = super::now().duration_since(begin).as_millis();
    let (name, token, status) = (&client.name, client.token(), response.status().as_u16());
    tracing::info!(target: "access", "{name} {token} {method} {} {status} {took} ms", path.escape_debug());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_panics_is_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let unforeseen = async { StatusCode::from_u16(99).map(IntoResponse::into_response).expect("no such status") };
        assert_eq!(runtime.block_on(answered(unforeseen)).status(), StatusCode::INTERNAL_SERVER_ERROR);
        let blocking = async {
            let act = || StatusCode::from_u16(98).map(IntoResponse::into_response).expect("nothing");
            super::super::lanes::Lanes::default().judge(act).await
        };
        assert_eq!(runtime.block_on(answered(blocking)).status(), StatusCode::INTERNAL_SERVER_ERROR);
        let usual = async { StatusCode::OK.into_response() };
        assert_eq!(runtime.block_on(answered(usual)).status(), StatusCode::OK);
    }
}
