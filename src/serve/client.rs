//! The address of the client: for limits, links and the access log.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::HOST;
use parking_lot::Mutex;

/// The client of one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Its address; behind a proxy on this machine, the address that the proxy names.
    pub(super) name: String,
    /// Scheme and host as it knows them: `https://mirror.example.org`.
    pub(super) base: String,
    /// The name of the token that it gave.
    token: Arc<Mutex<Option<String>>>,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address; `unix` for a socket of this machine.
    pub(super) name: String,
    /// Whether it is on this machine. Then it may be a proxy, and we believe its headers.
    pub(super) is_local: bool,
}

impl Client {
    /// The client that speaks over the connection of `peer`.
    pub(super) fn new(peer: &Peer, headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|_| peer.is_local);
        // A proxy may add a line of its own to those of the client.
        let forwarded = headers.get_all("x-forwarded-for").into_iter().next_back().filter(|_| peer.is_local);
        let forwarded = forwarded.and_then(|value| value.to_str().ok());
        let last = forwarded.and_then(|all| all.rsplit(',').next()).map(str::trim);
        let scheme = match header("x-forwarded-proto") {
            Some("https") => "https",
            _ => "http",
        };
        let is_host = |host: &&str| {
            !host.is_empty()
                && host.len() < 256
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]_".contains(c))
        };
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).filter(is_host).unwrap_or("localhost");
        let is_name = |name: &&str| {
            (1..64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':'))
        };
        Self {
            name: last.filter(is_name).unwrap_or(&peer.name).to_owned(),
            base: format!("{scheme}://{host}"),
            token: Arc::default(),
        }
    }

    /// Whether the client uses https, as far as we know.
    pub(super) fn is_secure(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The host by which the client reaches us, without its port, in lower case.
    pub(super) fn host(&self) -> String {
        let authority = self.base.split_once("://").map_or("", |(_, authority)| authority);
        let port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let host = port.map_or(authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
    }

    /// Notes the name of the token that let the client in.
    pub(super) fn note(&self, token: &str) {
        *self.token.lock() = Some(token.to_owned());
    }

    /// The name of the token that let the client in, or `-`.
    pub(super) fn token(&self) -> String {
        self.token.lock().clone().unwrap_or_else(|| "-".into())
    }
}
