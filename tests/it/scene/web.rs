//! A web server that answers as a function of the test says. It runs until the test ends.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};

/// What a client asks.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The value of a header; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(crate) type Answer = Response<Body>;

/// Starts a server on loopback, and returns its port.
pub(crate) fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let handle = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let answer = Arc::clone(&answer);
            let request = Request { method, uri, headers, body };
            async move { tokio::task::spawn_blocking(move || answer(&request)).await.unwrap() }
        };
        let app = axum::Router::new().fallback(handle).layer(axum::extract::DefaultBodyLimit::disable());
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
    });
    port
}

pub(crate) fn json(status: u16, headers: &[(&str, &str)], body: &serde_json::Value) -> Answer {
    let mut answer = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Body::from(body.to_string())).unwrap()
}
