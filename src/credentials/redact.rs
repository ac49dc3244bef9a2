//! The redactor. Text that it has cleaned contains none of the secrets that it knows, no credentials in a URL, and no control characters
//! except line feeds.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Cleaned, Credentials, Secret, is_token};
use crate::terminal::is_obeyed;

/// Cleans text that comes from outside before it is logged, stored or shown.
#[derive(Clone, Default)]
pub struct Redactor {
    hidden: Vec<String>,
}

const MASK: &str = "*****";

impl Redactor {
    /// A redactor that also hides the secret of `credentials` in the forms in which servers repeat it, and a user name that is a token.
    #[must_use]
    pub fn new(credentials: &Credentials) -> Self {
        let user = credentials.username.as_deref().unwrap_or_default();
        let mut hidden = Vec::new();
        if let Some(secret) = credentials.secret.as_ref().map(Secret::expose).filter(|secret| !secret.is_empty()) {
            hidden = forms(user, secret);
        }
        if is_token(user, credentials.secret.as_ref()) {
            hidden.push(user.to_owned());
        }
        // `clean` removes control characters before it searches, so what it searches for must have none.
        hidden.iter_mut().for_each(|text| text.retain(is_kept));
        hidden.retain(|text| !text.is_empty());
        hidden.sort_unstable_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        hidden.dedup();
        Self { hidden }
    }

    /// The text with secrets masked. All control characters except line feeds are removed, and so are characters that change the direction
    /// of text.
    #[must_use]
    pub fn clean(&self, text: &str) -> Cleaned {
        let printable: String = text.chars().filter(|c| is_kept(*c)).collect();
        let known = self.hidden.iter().fold(printable, |text, secret| text.replace(secret.as_str(), MASK));
        Cleaned::by_redactor(mask_userinfo(&known))
    }

    /// [`Redactor::clean`] for bytes that need not be UTF-8.
    #[must_use]
    pub fn clean_bytes(&self, text: &[u8]) -> Cleaned {
        self.clean(&String::from_utf8_lossy(text))
    }
}

/// The forms in which a server may repeat a secret. Plain; percent-encoded (all but letters and digits, or all but the unreserved
/// characters of RFC 3986); escaped for HTML and for JSON; in base64, alone and with the user name as in Basic authentication (RFC 7617).
fn forms(user: &str, secret: &str) -> Vec<String> {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let mut forms = vec![secret.to_owned()];
    for set in [NON_ALPHANUMERIC, RESERVED] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        // Another server may write the hexadecimal digits in lower case.
        let small = |part: &str| match part.split_at_checked(2) {
            Some((digits, rest)) => digits.to_ascii_lowercase() + rest,
            None => part.to_owned(),
        };
        let mut parts = encoded.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        let small = parts.fold(first, |text, part| text + "%" + &small(part));
        forms.extend([encoded.replace("%20", "+"), small.replace("%20", "+"), encoded, small]);
    }
    for (quote, apostrophe) in
        [("&quot;", "&#39;"), ("&#34;", "&#39;"), ("&quot;", "&#x27;"), ("&quot;", "&apos;"), ("\"", "'")]
    {
        let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        forms.push(html.replace('"', quote).replace('\'', apostrophe));
    }
    let json = serde_json::Value::from(secret).to_string();
    let json = &json[1..json.len() - 1];
    forms.extend([json.to_owned(), json.replace('/', "\\/")]);
    // In JSON, Go writes some characters as \uXXXX, and Python all that are not ASCII.
    let numbered = |is_numbered: fn(char) -> bool| {
        let mut text = String::new();
        for c in json.chars() {
            match c {
                c if is_numbered(c) => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}"));
                }
                c => text.push(c),
            }
        }
        text
    };
    for text in [numbered(|c| "<>&".contains(c)), numbered(|c| "<>&'".contains(c)), numbered(|c| !c.is_ascii())] {
        forms.push(text);
    }
    for text in [secret.to_owned(), format!("{user}:{secret}")] {
        for engine in [&STANDARD, &URL_SAFE] {
            // The padding reveals nothing and may be missing.
            forms.push(engine.encode(&text).trim_end_matches('=').to_owned());
        }
    }
    forms
}

fn is_kept(c: char) -> bool {
    c == '\n' || !is_obeyed(c)
}

/// Masks what stands between `://` and the last `@` before the path, in every URL. The user name `git` alone is no secret.
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
        assert_eq!(&*named("ghp_abc").clean("no access for ghp_abc"), "no access for *****");
        assert_eq!(&*named("bot").clean("no access for bot"), "no access for bot");
    }

    #[test]
    fn hides_the_secret_in_every_form() {
        let secret = Some(Secret::new("p@ss/word %".into()));
        let redactor = Redactor::new(&Credentials { username: Some("bot".into()), secret, approval: None });
        let said = "bad password 'p@ss/word %' (p%40ss%2Fword%20%25) Ym90OnBAc3Mvd29yZCAl\u{1b}[31m\r\u{202e}\n";
        assert_eq!(&*redactor.clean(said), "bad password '*****' (*****) *****[31m\n");
    }

    #[test]
    fn hides_what_other_programs_make_of_the_secret() {
        let secret = "a\"b'<c>&d\\e/f.g h?~";
        let redactor = Redactor::new(&Credentials {
            username: Some("bot".into()),
            secret: Some(Secret::new(secret.into())),
            approval: None,
        });
        // Most are made by Python: urllib.parse.quote and quote_plus, html.escape, json.dumps, base64. Go writes `&#34;` and `\u003c`,
        // and PHP `\/`.
        for form in [
            "a%22b%27%3Cc%3E%26d%5Ce%2Ff.g%20h%3F~",
            "a%22b%27%3cc%3e%26d%5ce%2ff.g%20h%3f~",
            "a%22b%27%3Cc%3E%26d%5Ce%2Ff.g+h%3F~",
            "a&quot;b&#x27;&lt;c&gt;&amp;d\\e/f.g h?~",
            "a&#34;b&#39;&lt;c&gt;&amp;d\\e/f.g h?~",
            r#"a\"b'<c>&d\\e/f.g h?~"#,
            r#"a\"b'<c>&d\\e\/f.g h?~"#,
            r#"a\"b'\u003cc\u003e\u0026d\\e/f.g h?~"#,
            "a%22b%27%3cc%3e%26d%5ce%2ff.g+h%3f~",
            "YSJiJzxjPiZkXGUvZi5nIGg/fg==",
            "YSJiJzxjPiZkXGUvZi5nIGg_fg",
            "Ym90OmEiYic8Yz4mZFxlL2YuZyBoP34=",
        ] {
            let clean = redactor.clean(&format!("[{form}]"));
            assert!(clean.starts_with("[*****") && clean.len() < 10, "{form}: {clean}");
        }
    }

    #[test]
    fn a_secret_with_a_tab_or_a_letter_beyond_ascii_is_hidden_too() {
        let secret = Some(Secret::new("p\u{e9}ss\tword".into()));
        let redactor = Redactor::new(&Credentials { username: None, secret, approval: None });
        for said in ["p\u{e9}ss\tword", "p\\u00e9ss\\tword", "p%C3%A9ss%09word"] {
            assert_eq!(&*redactor.clean(said), "*****", "{said}");
        }
    }

    #[test]
    fn control_characters_within_the_secret_do_not_protect_it() {
        let secret = Some(Secret::new("password".into()));
        let redactor = Redactor::new(&Credentials { username: None, secret, approval: None });
        for said in ["pass\u{1b}word", "p\0assword", "pass\u{9b}word\r", "\u{7f}password"] {
            assert!(!redactor.clean(said).contains("password"), "{said:?}");
        }
    }

    #[test]
    fn masks_userinfo_of_every_url() {
        let clean = |text| Redactor::default().clean(text).to_string();
        assert_eq!(clean("at https://u:p@h/x and ssh://git@h/y"), "at https://*****:*****@h/x and ssh://git@h/y");
        assert_eq!(clean("https://token@h/x"), "https://*****@h/x");
        assert_eq!(clean("https://u:p@ss@h/x 'https://h/a@b'"), "https://*****:*****@h/x 'https://h/a@b'");
        assert_eq!(clean("nothing"), "nothing");
    }
}
