//! What the headers of an HTTP response say: `Retry-After` and `Location`. Pure.

/// The seconds of a `Retry-After` (RFC 9110, section 10.2.3): a number, or a date minus the `Date` of the answer.
pub(super) fn seconds(text: &str, answered: Option<&str>) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let time = |text| jiff::fmt::rfc2822::parse(text).ok();
        u64::try_from(time(text)?.timestamp().as_second() - time(answered?)?.timestamp().as_second()).ok()
    })
}

/// The scheme, host and path of a redirect's target. The other parts may be secret. `asked` is the requested URL. If `location` is only a
/// path, scheme and host come from `asked`. `None` if the target has another form or is too long to be shown.
pub(super) fn target_of_redirect(location: &str, asked: &str) -> Option<String> {
    let is_path = location.starts_with('/') && !location.starts_with("//");
    let (scheme, host) = asked.split_once("://")?;
    let host = host.split('/').next()?;
    let whole = if is_path { format!("{scheme}://{host}{location}") } else { location.to_owned() };
    without_secrets(&whole)
}

fn without_secrets(location: &str) -> Option<String> {
    let (scheme, rest) = location.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))?;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next()?;
    let target = format!("{scheme}://{host}{path}");
    // A remaining `@` may belong to a password that contains a `/`. So such a target is not shown.
    (target.len() <= 200 && !target.contains(|c: char| c == '@' || c.is_control())).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_its_target_without_what_may_be_secret() {
        let asked = "https://asked:8443/x.git";
        for (location, target) in [
            ("https://h/x.git/info/refs?service=git-receive-pack", Some("https://h/x.git/info/refs")),
            ("/y.git/info/refs?service=git-receive-pack", Some("https://asked:8443/y.git/info/refs")),
            ("https://h/x.git/git-receive-pack", Some("https://h/x.git/git-receive-pack")),
            ("https://user:pw@h:8443/x#token", Some("https://h:8443/x")),
            ("http://a@b@h?private_token=secret", Some("http://h")),
            ("https://user:p/w@h/x", None),
            ("//user:pw@h/x", None),
            ("/login?from=x", Some("https://asked:8443/login")),
            ("ftp://h/x", None),
            ("https://h/\u{1b}[31m", None),
        ] {
            assert_eq!(target_of_redirect(location, asked).as_deref(), target, "{location}");
        }
        assert_eq!(
            target_of_redirect(&format!("https://{}@h/", "t".repeat(500)), asked).as_deref(),
            Some("https://h/")
        );
        assert_eq!(target_of_redirect(&format!("https://h/{}", "t".repeat(500)), asked), None);
    }

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let answered = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(seconds("77", None), Some(77));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:51:07 GMT", answered), Some(90));
        for (text, answered) in [("Sun, 06 Nov 1994 08:49:36 GMT", answered), ("later", answered), ("-5", answered)] {
            assert_eq!(seconds(text, answered), None, "{text}");
        }
        assert_eq!(seconds("Sun, 06 Nov 1994 08:51:07 GMT", None), None);
    }
}
