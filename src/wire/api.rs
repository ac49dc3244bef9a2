//! Requests to the JSON API of a host: GitHub, GitLab, Gitea.
//!
//! Guaranteed: the token goes only to the host of the configured address, because redirects are refused; an answer is read up to a limit; an
//! error and a message of the host do not contain the token. Absent: what the answers mean.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};
use ureq::{Body, RequestBuilder};

use super::headers::{seconds, target_of_redirect};
use super::http::Http;
use super::{Address, Error, Limit, Pool, Target, Timeouts, parse};
use crate::credentials::{Credentials, Redactor, Secret};

/// How a host wants its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer TOKEN`
    Bearer,
    /// `Authorization: token TOKEN`
    Token,
    /// `PRIVATE-TOKEN: TOKEN`
    PrivateToken,
}

/// The API of one host.
pub struct Api {
    http: Http,
    base: String,
    header: (&'static str, String),
    redactor: Redactor,
}

/// An answer.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The JSON; null if there is none.
    pub body: Value,
    headers: HeaderMap,
    redactor: Redactor,
}

/// Longest time for one request and its answer.
const MAX_TIME: Duration = Duration::from_secs(60);

/// At most this many bytes of an answer are read. A page of a hundred projects of GitLab has about
/// 500 KiB.
const MAX_ANSWER: u64 = 16 << 20;

impl Api {
    /// Prepares requests to the API at `base`, an http or https address. Everything else, such as
    /// proxy and trusted certificates, is that of `target`. So are the time limits, but a request
    /// takes at most `MAX_TIME`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unable`], when `base` is no such address; [`Error::Blocked`], when the target's egress policy forbids it.
    pub fn new(base: &str, scheme: Scheme, token: &Secret, target: &Target, pool: &Pool) -> Result<Self, Error> {
        let unusable = || Error::Unable(format!("'{base}' is not the http or https address of an API"));
        let (address, _) = parse(base).map_err(|_| unusable())?;
        if let Some(egress) = &target.egress {
            egress.check(&address)?;
        }
        let Address::Http { url, host } = &address else { return Err(unusable()) };
        let credentials = Credentials { username: None, secret: Some(token.clone()), approval: None };
        let header = match scheme {
            Scheme::Bearer => ("Authorization", format!("Bearer {}", token.expose())),
            Scheme::Token => ("Authorization", format!("token {}", token.expose())),
            Scheme::PrivateToken => ("PRIVATE-TOKEN", token.expose().to_owned()),
        };
        let redactor = Redactor::new(&credentials);
        let base = url.trim_end_matches('/').to_owned();
        let whole = target.timeouts.whole.min(MAX_TIME);
        let timeouts = Timeouts { stall: target.timeouts.stall.min(whole), whole, ..target.timeouts };
        let http = Http::new(&base, host, &Target { credentials, timeouts, ..target.clone() }, pool)?;
        Ok(Self { http, base, header, redactor })
    }

    /// `GET` of a path below the address of the API, or of a whole address that begins with it.
    ///
    /// # Errors
    /// [`Error`], when there is no answer, or a redirect.
    pub fn get(&self, path: &str) -> Result<Reply, Error> {
        let url = self.url(path);
        self.read(self.headed(self.http.agent.get(&url)).call(), &url)
    }

    /// `POST` of a JSON object to a path below the address of the API.
    ///
    /// # Errors
    /// [`Error`], when there is no answer, or a redirect.
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply, Error> {
        let url = self.url(path);
        let post = self.headed(self.http.agent.post(&url)).header("Content-Type", "application/json");
        self.read(post.send(body.to_string()), &url)
    }

    /// Whether a URL is below the base URL of the API.
    #[must_use]
    pub fn holds(&self, url: &str) -> bool {
        url.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with(['/', '?']))
    }

    fn url(&self, path: &str) -> String {
        if self.holds(path) { path.to_owned() } else { format!("{}/{}", self.base, path.trim_start_matches('/')) }
    }

    fn headed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        request.header("Accept", "application/json").header(self.header.0, &self.header.1)
    }

    fn read(&self, answered: Result<Response<Body>, ureq::Error>, url: &str) -> Result<Reply, Error> {
        let response = answered.map_err(|error| self.http.clean(self.http.read_error(error)))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if (300..400).contains(&status) {
            let location = headers.get("location").and_then(|value| value.to_str().ok());
            let location = location.and_then(|location| target_of_redirect(location, url));
            return Err(self.http.clean(Error::Redirect { status, location }));
        }
        let mut text = Vec::new();
        let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader().take(MAX_ANSWER);
        let read = reader.read_to_end(&mut text);
        read.map_err(|source| match source.kind() {
            std::io::ErrorKind::TimedOut => Error::Timeout(Limit::Whole),
            _ => Error::Broken { doing: "reading the answer of its API", source },
        })?;
        let body = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if status < 300 && body.is_null() && !text.is_empty() {
            return Err(Error::Unable(format!("what answers at {} is not an API: it sends no JSON", self.base)));
        }
        Ok(Reply { status, body, headers, redactor: self.redactor.clone() })
    }
}

/// A text as one part of the path of a URL.
#[must_use]
pub fn path_segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// How long to wait if a host limits requests and does not say how long.
const USUAL_WAIT: Duration = Duration::from_secs(60);

impl Reply {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// How long the host asks us to wait before the next request, if it refused this one because there were too many.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        let asked = self.header("retry-after").and_then(|text| seconds(text, self.header("date")));
        let is_spent = self.header("x-ratelimit-remaining") == Some("0");
        let is_limited = self.status == 429 || self.status == 403 && (asked.is_some() || is_spent);
        let until_reset = || {
            let reset = self.header("x-ratelimit-reset").or(self.header("ratelimit-reset"))?.parse::<i64>().ok()?;
            let date = jiff::fmt::rfc2822::parse(self.header("date")?).ok()?.timestamp().as_second();
            u64::try_from(reset - date).ok()
        };
        is_limited.then(|| asked.or_else(until_reset).map_or(USUAL_WAIT, Duration::from_secs))
    }

    /// What the host says, on one line; empty if it says nothing.
    #[must_use]
    pub fn message(&self) -> String {
        let mut said = Vec::new();
        for key in ["message", "error", "error_description", "errors"] {
            texts(&self.body[key], &mut said);
        }
        said.dedup();
        let text: String = said.join(", ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.redactor.clean(&text).chars().take(300).collect()
    }

    /// A text of the JSON object.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.body.get(key)?.as_str()
    }
}

/// The texts in a value, about ten at most. The key of a text stands before it, unless the key is
/// `message`, `resource`, `field` or `code`.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) if into.len() < 10 => into.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, into)),
        Value::Object(fields) => {
            for (key, value) in fields {
                if into.len() >= 10 {
                    return;
                }
                let mut below = Vec::new();
                texts(value, &mut below);
                let is_plain = matches!(&**key, "message" | "resource" | "field" | "code");
                into.extend(below.into_iter().map(|text| if is_plain { text } else { format!("{key} {text}") }));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut all = HeaderMap::new();
        headers.iter().for_each(|(name, value)| {
            all.insert(*name, value.parse().expect("a value"));
        });
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        Reply { status, body, headers: all, redactor: Redactor::default() }
    }

    #[test]
    fn a_host_that_limits_requests_says_how_long() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (status, headers, wait) in [
            (429, vec![("retry-after", "30")], Some(30)),
            (429, vec![], Some(60)),
            (403, vec![("retry-after", "7")], Some(7)),
            (403, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111807"), date], Some(30)),
            (403, vec![("x-ratelimit-remaining", "12")], None),
            (401, vec![], None),
            (201, vec![("x-ratelimit-remaining", "0")], None),
        ] {
            let found = reply(status, &headers, "").wait();
            assert_eq!(found, wait.map(Duration::from_secs), "{status} {headers:?}");
        }
    }

    #[test]
    fn what_the_hosts_say_is_one_line() {
        for (body, said) in [
            (r#"{"message":"Not Found"}"#, "Not Found"),
            (
                r#"{"message":"Repository creation failed.","errors":[{"resource":"Repository","code":"custom","field":"name","message":"name already exists on this account"}]}"#,
                "Repository creation failed., custom, name, name already exists on this account, Repository",
            ),
            (r#"{"message":{"name":["has already been taken"]}}"#, "name has already been taken"),
            (r#"{"error":"insufficient_scope"}"#, "insufficient_scope"),
            (r#"{"message":"two\nlines"}"#, "two lines"),
            ("not json", ""),
        ] {
            assert_eq!(reply(400, &[], body).message(), said);
        }
    }
}
