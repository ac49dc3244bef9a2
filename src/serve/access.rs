//! Authentication: tokens in headers, and a limit for clients that guess.
//!
//! A valid token always passes, whatever other clients do from the same address; only failures are counted.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::tokens::{self, Scope, Store, Token};

/// After this many failures within [`WINDOW`], a client must wait.
const MAX_FAILURES: u32 = 10;
/// See [`MAX_FAILURES`].
const WINDOW: Duration = Duration::from_secs(60);
/// Clients whose failures are remembered.
const MAX_CLIENTS: usize = 10_000;

/// Why someone is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No token.
    Missing,
    /// A token that does not exist.
    Wrong,
    /// A token that has expired.
    Expired,
    /// The client failed too often; it may try again after this number of seconds.
    Limited(u64),
}

/// The tokens, and the failures of each client.
pub(super) struct Access {
    pub(super) store: Store,
    cached: Mutex<Cached>,
    failures: Mutex<HashMap<String, (u32, SystemTime)>>,
}

#[derive(Default)]
struct Cached {
    stamp: Option<tokens::Stamp>,
    tokens: Arc<Vec<Token>>,
}

impl Access {
    pub(super) fn new(store: Store) -> Self {
        Self { store, cached: Mutex::default(), failures: Mutex::default() }
    }

    /// All tokens; the file is read again when it has changed.
    pub(super) fn tokens(&self) -> io::Result<Arc<Vec<Token>>> {
        let mut cached = self.cached.lock();
        let stamp = self.store.stamp()?;
        if cached.stamp != stamp || stamp.is_none() {
            cached.tokens = Arc::new(self.store.read()?);
            cached.stamp = stamp;
        }
        Ok(Arc::clone(&cached.tokens))
    }

    /// The token with that name and creation time, if it is still valid. Every request of a session checks this.
    pub(super) fn by_name(&self, name: &str, created_at: Timestamp, now: Timestamp) -> io::Result<Option<Token>> {
        let tokens = self.tokens()?;
        let is_it = |token: &&Token| token.name == name && token.created_at == created_at && !token.is_expired(now);
        Ok(tokens.iter().find(is_it).cloned())
    }

    /// Finds the token that a client gave. An unknown or expired token counts as a failure of the client, a missing one does not.
    pub(super) fn judge(&self, given: Option<&str>, client: &str, now: Timestamp) -> io::Result<Result<Token, Denied>> {
        let Some(given) = given else { return Ok(Err(Denied::Missing)) };
        let tokens = self.tokens()?;
        let denied = match tokens::find(&tokens, given) {
            Some(token) if !token.is_expired(now) => {
                // The token is valid even if its use cannot be noted, for example on a full disk.
                if tokens::is_use_due(token, now)
                    && let Err(error) = self.store.note_use(&token.name, now)
                    // Another process is changing the file. This use is not recorded, but a later one is.
                    && error.kind() != io::ErrorKind::WouldBlock
                {
                    tracing::warn!("cannot record the last use of a token: {error}");
                }
                return Ok(Ok(token.clone()));
            }
            Some(_) => Denied::Expired,
            None => Denied::Wrong,
        };
        Ok(Err(self.count(client).map_or(denied, Denied::Limited)))
    }

    /// Counts a failure; returns for how many seconds the client has to wait, if it failed too often.
    fn count(&self, client: &str) -> Option<u64> {
        #[expect(clippy::disallowed_methods, reason = "the clock of the limit")]
        let now = SystemTime::now();
        let age = |since: &SystemTime| now.duration_since(*since).unwrap_or_default();
        let mut failures = self.failures.lock();
        if failures.len() >= MAX_CLIENTS {
            failures.retain(|_, (_, since)| age(since) < WINDOW);
            if failures.len() >= MAX_CLIENTS {
                failures.clear();
            }
        }
        let (count, since) = failures.entry(client.to_owned()).or_insert((0, now));
        if age(since) >= WINDOW {
            (*count, *since) = (0, now);
        }
        *count += 1;
        (*count > MAX_FAILURES).then(|| WINDOW.saturating_sub(age(since)).as_secs().max(1))
    }
}

/// The token in `PRIVATE-TOKEN` or `Authorization: Bearer`.
pub(super) fn given(headers: &HeaderMap) -> Option<&str> {
    let private = headers.get("private-token").and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    private.or_else(bearer).filter(|token| !token.is_empty())
}

/// Whether a token may make a check of an upstream due.
pub(super) fn may_trigger(token: &Token) -> bool {
    matches!(token.scope, Scope::Api | Scope::Pull)
}

/// Whether a token may read.
pub(super) fn may_read(token: &Token) -> bool {
    matches!(token.scope, Scope::Api | Scope::ReadApi)
}

/// Whether a token may change things.
pub(super) fn may_write(token: &Token) -> bool {
    token.scope == Scope::Api
}
