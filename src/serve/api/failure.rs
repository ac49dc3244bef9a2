//! The error answers of the API, in GitLab's two shapes. `error` is for a parameter that is
//! missing, malformed, excluded by another one, or none of the allowed words. It is also for a body
//! that is malformed, too large or too slow, for a wrong route, and for a token that is expired or
//! whose scope does not allow the request. `message` is for everything else, also for a well-formed
//! value that a field refuses.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::credentials::Redactor;
use crate::fleet::Listed;
use crate::serve::access::Denied;
use crate::serve::mirrors::Error;

/// An answer that is no success.
#[derive(Debug)]
pub(in crate::serve) struct Failure {
    status: StatusCode,
    body: Value,
    /// In seconds.
    retry_after: Option<u64>,
}

impl Failure {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, retry_after: None }
    }

    /// `{"message": …}`
    pub(in crate::serve) fn message(status: StatusCode, text: &str) -> Self {
        Self::new(status, json!({ "message": text }))
    }

    /// `{"error": …}`, status 400.
    pub(in crate::serve) fn parameter(text: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, json!({ "error": text }))
    }

    /// `{"error": …}` with another status.
    pub(in crate::serve) fn error(status: StatusCode, text: &str) -> Self {
        Self::new(status, json!({ "error": text }))
    }

    /// A project that does not exist, or that the token does not reach. The answer does not show which.
    pub(in crate::serve) fn no_project() -> Self {
        Self::message(StatusCode::NOT_FOUND, "404 Project Not Found")
    }

    /// A project of another node. The client must ask that node.
    pub(in crate::serve) fn elsewhere(listed: &Listed) -> Self {
        let there = match &*listed.advertise {
            "" => String::new(),
            url => format!("; ask {url}"),
        };
        let text = format!("409 Conflict: project {} is on node {}{there}", listed.id, listed.node);
        // Whoever may write to the database could put anything there.
        let text = Redactor::default().clean(&text).on_one_line();
        Self::message(StatusCode::CONFLICT, &text)
    }

    /// A token with too many requests that are not answered yet.
    pub(in crate::serve) fn too_many() -> Self {
        let failure = Self::message(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests");
        Self { retry_after: Some(1), ..failure }
    }

    /// A request whose body is too large.
    pub(in crate::serve) fn too_large() -> Self {
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large")
    }

    /// A request whose body takes too long.
    pub(in crate::serve) fn too_slow() -> Self {
        Self::error(StatusCode::REQUEST_TIMEOUT, "408 Request Timeout")
    }

    /// A token whose scope does not allow the request.
    pub(in crate::serve) fn scope() -> Self {
        let text = "The request requires higher privileges than provided by the access token.";
        let body = json!({ "error": "insufficient_scope", "error_description": text, "scope": "api" });
        Self::new(StatusCode::FORBIDDEN, body)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Wrong => Self::message(StatusCode::UNAUTHORIZED, "401 Unauthorized"),
            Denied::Expired => {
                let text = "Token is expired. You can either do re-authorization or token refresh.";
                let body = json!({ "error": "invalid_token", "error_description": text });
                Self::new(StatusCode::UNAUTHORIZED, body)
            }
            Denied::Limited(seconds) => {
                let mut failure = Self::message(StatusCode::TOO_MANY_REQUESTS, "429 Too Many Requests");
                failure.retry_after = Some(seconds);
                failure
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { field, why } => Self::new(StatusCode::BAD_REQUEST, json!({ "message": { field: [why] } })),
            Error::Refused(text) => Self::message(StatusCode::BAD_REQUEST, &text),
            Error::Busy(_) => Self::message(StatusCode::CONFLICT, &format!("409 Conflict: {error}")),
            Error::Missing("Project") => Self::no_project(),
            Error::Missing(_) => Self::message(StatusCode::NOT_FOUND, "404 Not found"),
            Error::Failed(error) => Self::from(error),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // Details such as paths go only to the daemon's log.
        tracing::error!("api: {error:#}");
        Self::message(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let headers: HeaderMap =
            self.retry_after.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))).into_iter().collect();
        (self.status, headers, axum::Json(self.body)).into_response()
    }
}
