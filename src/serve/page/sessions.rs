//! Sessions of the page: who has logged in with which token. They are kept in memory, so users log in again after a restart.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::serve::client::Client;
use crate::tokens::Token;

/// How long a session lasts.
const LENGTH: Duration = Duration::from_secs(12 * 3600);
/// Maximum number of sessions at once. One more ends the session that would expire first.
const MAX_SESSIONS: usize = 1000;
/// The name of the cookie over http.
const COOKIE: &str = "git_mirror_push_session";

type Key = [u8; 32];

/// What is known of one session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// The token's name and creation time: a later token may have the same name.
    pub(super) token: String,
    pub(super) token_created_at: Timestamp,
    /// The CSRF token that every form must contain.
    pub(super) csrf: String,
    expires_at: Timestamp,
}

/// All sessions.
#[derive(Debug, Default)]
pub(in crate::serve) struct Sessions {
    all: Mutex<HashMap<Key, (Session, Option<String>)>>,
}

impl Sessions {
    /// Begins a session; returns the text of its cookie.
    pub(super) fn begin(&self, token: &Token, now: Timestamp) -> anyhow::Result<String> {
        let (id, csrf) = (random()?, random()?);
        let expires_at = now.checked_add(LENGTH)?;
        let session = Session { token: token.name.clone(), token_created_at: token.created_at, csrf, expires_at };
        let mut all = self.all.lock();
        all.retain(|_, (session, _)| session.expires_at > now);
        if all.len() >= MAX_SESSIONS
            && let Some(first) = all.iter().min_by_key(|(_, (session, _))| session.expires_at).map(|(key, _)| *key)
        {
            all.remove(&first);
        }
        all.insert(key(&id), (session, None));
        Ok(id)
    }

    /// The session of a cookie.
    pub(super) fn find(&self, id: &str, now: Timestamp) -> Option<Session> {
        let all = self.all.lock();
        all.get(&key(id)).map(|(session, _)| session.clone()).filter(|session| session.expires_at > now)
    }

    /// Ends a session.
    pub(super) fn end(&self, id: &str) {
        self.all.lock().remove(&key(id));
    }

    /// Keeps a sentence for the next page of a session.
    pub(super) fn say(&self, id: &str, text: &str) {
        if let Some((_, said)) = self.all.lock().get_mut(&key(id)) {
            *said = Some(text.to_owned());
        }
    }

    /// Takes the sentence that was kept.
    pub(super) fn take_said(&self, id: &str) -> Option<String> {
        self.all.lock().get_mut(&key(id))?.1.take()
    }
}

impl Session {
    /// Whether a form with the CSRF token `csrf` comes from this login.
    pub(super) fn is_own_form(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

/// The name of the cookie. Over https no other host can set it, not even one of the same domain (RFC 6265bis, section 4.1.3.2).
fn name(client: &Client) -> String {
    if client.is_secure() { format!("__Host-{COOKIE}") } else { COOKIE.to_owned() }
}

/// The session's id in the cookies of a request.
pub(super) fn id_in<'h>(headers: &'h HeaderMap, client: &Client) -> Option<&'h str> {
    let name = name(client);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|all| all.split(';')).find_map(|one| one.trim().strip_prefix(&*name)?.strip_prefix('='))
}

/// The header that sets the cookie, or takes it away.
pub(super) fn cookie(id: Option<&str>, client: &Client) -> HeaderValue {
    let (value, age) = id.map_or(("", 0), |id| (id, LENGTH.as_secs()));
    let secure = if client.is_secure() { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}", name(client));
    HeaderValue::from_str(&text).expect("an id is base64")
}

fn key(id: &str) -> Key {
    Sha256::digest(id.as_bytes()).into()
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{NewToken, Scope, Store};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_767_720_000 + 3600 * hour).expect("in range")
    }

    fn token() -> Token {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::new(directory.path());
        let wanted = NewToken { name: "a".into(), scope: Scope::Api, projects: Vec::new(), expires_at: None };
        store.create(wanted, at(0)).expect("made");
        store.read().expect("read").remove(0)
    }

    #[test]
    fn a_session_ends_after_twelve_hours_and_the_number_of_sessions_is_limited() {
        let sessions = Sessions::default();
        let token = token();
        let id = sessions.begin(&token, at(0)).expect("begins");
        assert!(sessions.find(&id, at(11)).is_some() && sessions.find(&id, at(13)).is_none());
        assert!(sessions.find("", at(1)).is_none() && sessions.find("another", at(1)).is_none());
        let first = sessions.begin(&token, at(1)).expect("begins");
        let later: Vec<String> = (0..MAX_SESSIONS).map(|_| sessions.begin(&token, at(2)).expect("begins")).collect();
        assert!(sessions.find(&first, at(2)).is_none(), "the one that ends first goes");
        assert!(later.iter().skip(1).all(|id| sessions.find(id, at(2)).is_some()));
        sessions.end(&later[9]);
        assert!(sessions.find(&later[9], at(2)).is_none());
    }
}
