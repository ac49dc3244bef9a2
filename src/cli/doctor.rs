//! `doctor`: what is wrong with this set-up and how to fix it.

use std::io::Write;

use super::{BEHIND, DONE, Session, now, print_json, render};
use crate::doctor::{Severity, Subject, examine};

/// Examines the repository. Exit status 1 when something does not work.
pub(super) fn doctor(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = crate::config::load(&session.repository, &session.base.server);
    let subject =
        Subject { repository: &session.repository, server: &session.base.server, config: config.as_ref(), now: now() };
    let findings = examine(&subject, &session.shared);
    if session.base.global.json {
        let values: Result<Vec<_>, _> = findings.iter().map(serde_json::to_value).collect();
        let mut values = values?;
        for value in &mut values {
            value["name"] = value["remote"].clone();
            // For those who read what earlier versions printed.
            value["mend"] = value["fix"].clone();
        }
        print_json(out, &values)?;
    } else {
        let is_shown = |severity: Severity| severity > Severity::Ok || !session.base.global.quiet;
        for finding in findings.iter().filter(|finding| is_shown(finding.severity)) {
            render::finding(session.base, finding, out)?;
        }
    }
    let worst = findings.iter().map(|finding| finding.severity).max();
    Ok(if worst == Some(Severity::Error) { BEHIND } else { DONE })
}
