//! The redactor: what it has cleaned holds no secret it knows, no credentials in a URL, and no control characters.

use base64::Engine;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Credentials, Secret, is_token};

/// Cleans text that comes from outside before it is logged, stored or shown.
#[derive(Clone, Default)]
pub struct Redactor {
    hidden: Vec<String>,
}

const MASK: &str = "*****";

impl Redactor {
    /// A redactor that also hides the secret of `credentials`, as it is, percent-encoded, and in basic authentication, and a user name that is
    /// a token.
    #[must_use]
    pub fn new(credentials: &Credentials) -> Self {
        let user = credentials.username.as_deref().unwrap_or_default();
        let mut hidden = Vec::new();
        if let Some(secret) = credentials.secret.as_ref().map(Secret::expose).filter(|secret| !secret.is_empty()) {
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{secret}"));
            hidden = vec![secret.to_owned(), utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(), basic];
        }
        if is_token(user, credentials.secret.as_ref()) {
            hidden.push(user.to_owned());
        }
        hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
        hidden.dedup();
        Self { hidden }
    }

    /// The text with secrets masked and every control character but the line feed removed.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let printable: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        let known = self.hidden.iter().fold(printable, |text, secret| text.replace(secret.as_str(), MASK));
        mask_userinfo(&known)
    }

    /// [`Redactor::clean`] for bytes that need not be UTF-8.
    #[must_use]
    pub fn clean_bytes(&self, text: &[u8]) -> String {
        self.clean(&String::from_utf8_lossy(text))
    }
}

/// Masks what stands between `://` and `@` of one URL; the user name `git` alone is no secret.
fn mask_userinfo(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let authority = after.split(|c: char| c.is_whitespace() || matches!(c, '/' | '\'' | '"' | '<' | '>')).next();
        rest = after;
        if let Some((userinfo, _)) = authority.unwrap_or_default().rsplit_once('@') {
            masked.push_str(match userinfo {
                "git" => "git",
                info if info.contains(':') => "*****:*****",
                _ => MASK,
            });
            rest = &after[userinfo.len()..];
        }
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_a_token_that_is_the_user_name() {
        let named = |user: &str| Redactor::new(&Credentials { username: Some(user.into()), ..Credentials::default() });
        assert_eq!(named("ghp_abc").clean("no access for ghp_abc"), "no access for *****");
        assert_eq!(named("bot").clean("no access for bot"), "no access for bot");
    }

    #[test]
    fn hides_the_secret_in_every_form() {
        let secret = Some(Secret::new("p@ss/word %".into()));
        let redactor = Redactor::new(&Credentials { username: Some("bot".into()), secret, approval: None });
        let said = "bad password 'p@ss/word %' (p%40ss%2Fword%20%25) Ym90OnBAc3Mvd29yZCAl\u{1b}[31m\r\n";
        assert_eq!(redactor.clean(said), "bad password '*****' (*****) *****[31m\n");
    }

    #[test]
    fn control_characters_within_the_secret_do_not_hide_it() {
        let secret = Some(Secret::new("password".into()));
        let redactor = Redactor::new(&Credentials { username: None, secret, approval: None });
        for said in ["pass\u{1b}word", "p\0assword", "pass\u{9b}word\r", "\u{7f}password"] {
            assert!(!redactor.clean(said).contains("password"), "{said:?}");
        }
    }

    #[test]
    fn masks_userinfo_of_every_url() {
        let clean = |text| Redactor::default().clean(text);
        assert_eq!(clean("at https://u:p@h/x and ssh://git@h/y"), "at https://*****:*****@h/x and ssh://git@h/y");
        assert_eq!(clean("https://token@h/x"), "https://*****@h/x");
        assert_eq!(clean("https://u:p@ss@h/x 'https://h/a@b'"), "https://*****:*****@h/x 'https://h/a@b'");
        assert_eq!(clean("nothing"), "nothing");
    }
}
