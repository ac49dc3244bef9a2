//! The cause of a run that did not end well, so that equal causes can be counted as one trouble: `v1:HOST:KIND:CODE`, with `-` for what does
//! not apply. It has no text of a server in it. Pure.

use super::Error;
use super::update::UpdateResult;
use crate::config::Mirror;
use crate::create;
use crate::mirror;
use crate::status::RefOutcome;
use crate::wire::{self, CertificateProblem, Limit};

/// The cause. `None` if nothing is wrong with the mirror.
pub(super) fn cause(result: &UpdateResult, refs: &[RefOutcome], mirror: &Mirror) -> Option<String> {
    let (kind, code) = match &result.error {
        Some(error) => of_error(error),
        None => (refs.iter().find(|outcome| outcome.outcome.is_failure())?.outcome.as_str(), "-".to_owned()),
    };
    let host = mirror.address.host().map_or_else(|| "-".to_owned(), wire::bracketed);
    Some(format!("v1:{host}:{kind}:{code}"))
}

/// A kind of error, and the code that belongs to it.
fn of_error(error: &Error) -> (&'static str, String) {
    let none = || "-".to_owned();
    match error {
        Error::Push(error) => of_wire(error),
        Error::Create(create::Error::Wire(error)) => of_wire(error),
        Error::Create(create::Error::Waits { .. } | create::Error::Limited { .. }) => ("create", "waits".into()),
        Error::Create(_) => ("create", none()),
        Error::Gone { .. } => ("not_found", "gone".into()),
        Error::FirstContact { .. } | Error::Unrelated { .. } => ("first_contact", none()),
        Error::NothingUpstream => ("nothing_upstream", none()),
        Error::Mirror(mirror::Error::InsecureHttp) => ("insecure_http", none()),
        Error::Mirror(mirror::Error::Credentials(_)) => ("credentials", "local".into()),
        Error::Mirror(_) | Error::Repository(_) | Error::Config(_) => ("local", none()),
        Error::NotTaken(_) | Error::Keep(_) | Error::Superseded | Error::Panicked(_) => ("local", none()),
    }
}

fn of_wire(error: &wire::Error) -> (&'static str, String) {
    use wire::Error as Wire;
    let code = match error {
        Wire::Credentials(text) | Wire::NotFound(text) => http_status(text),
        Wire::Status { status, .. } | Wire::Redirect { status, .. } => Some(status.to_string()),
        Wire::Timeout(Limit::Connect) => Some("connect".into()),
        Wire::Timeout(Limit::Stall) => Some("stall".into()),
        Wire::Timeout(Limit::Whole) => Some("whole".into()),
        Wire::HostKeyChanged { .. } => Some("changed".into()),
        Wire::Certificate { problem, .. } => Some(
            match problem {
                CertificateProblem::Trust => "trust",
                CertificateProblem::Name => "name",
                CertificateProblem::Dates => "dates",
                CertificateProblem::Other => "other",
            }
            .into(),
        ),
        _ => None,
    };
    let kind = match error {
        Wire::Resolve { .. } => "resolve",
        Wire::Blocked { .. } => "blocked",
        Wire::Connect { .. } => "connect",
        Wire::Timeout(_) => "timeout",
        Wire::Broken { .. } | Wire::Upload(_) => "broken",
        Wire::Credentials(_) => "credentials",
        Wire::NotFound(_) => "not_found",
        Wire::HostKey { .. } | Wire::HostKeyChanged { .. } => "host_key",
        Wire::LooseKey(_) => "key",
        Wire::Certificate { .. } | Wire::NoTls { .. } => "certificate",
        Wire::Redirect { .. } => "redirect",
        Wire::Status { .. } => "status",
        Wire::NotSmart(_) => "not_smart",
        Wire::Program { .. } | Wire::Start { .. } => "program",
        Wire::Protocol(_) => "protocol",
        Wire::Remote(_) => "remote",
        Wire::Unable(_) => "unable",
        Wire::Pack { .. } => "pack",
    };
    (kind, code.unwrap_or_else(|| "-".into()))
}

/// The status in a text that says `HTTP NNN`.
fn http_status(text: &str) -> Option<String> {
    let rest = text.split_once("HTTP ")?.1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() == 3).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_a_kind_and_a_code_and_no_words_of_others() {
        use wire::Error as Wire;
        for (error, expected) in [
            (Wire::Credentials(" (HTTP 401): token glpat-x is wrong".into()), ("credentials", "401")),
            (Wire::Credentials(": Permission denied (publickey)".into()), ("credentials", "-")),
            (Wire::NotFound("HTTP 404".into()), ("not_found", "404")),
            (Wire::Status { status: 503, message: ": x".into(), retry_after: None }, ("status", "503")),
            (Wire::Timeout(Limit::Stall), ("timeout", "stall")),
            (Wire::Resolve { host: "h".into() }, ("resolve", "-")),
            (Wire::Remote("words of the host".into()), ("remote", "-")),
        ] {
            let (kind, code) = of_error(&error.into());
            assert_eq!((kind, &*code), expected);
        }
        assert_eq!(of_error(&Error::NothingUpstream).0, "nothing_upstream");
    }
}
