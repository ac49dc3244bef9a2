//! `doctor`: what is wrong with this set-up and how to fix it.

use std::io::Write;

use super::{BEHIND, Base, DONE, Session, now, print_json, render};
use crate::doctor::{Finding, Severity, Subject, examine};

/// Examines the repository. Exit status 1 when something does not work.
pub(super) fn doctor(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let base = session.base;
    let findings = findings(session);
    if base.global.json {
        print_json(out, &findings.iter().map(json).collect::<serde_json::Result<Vec<_>>>()?)?;
    } else {
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Ok || !base.global.quiet) {
            render::finding(base, finding, out)?;
        }
    }
    Ok(status(&findings))
}

/// Examines every repository below the server's roots. Those without a fault are counted, and shown only with `-v`.
pub(super) fn every(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    let examined = |session: &Session<'_>| {
        crate::config::authorise(&session.repository, &base.server)?;
        Ok((session.repository.git_dir().display().to_string(), findings(session)))
    };
    let (repositories, unreadable) = base.ask_every(&examined)?;
    if base.global.json {
        let of_one = |(repository, findings): &(String, Vec<Finding>)| {
            let with_repository = |finding: &Finding| {
                let mut value = json(finding)?;
                value["repository"] = repository.as_str().into();
                Ok(value)
            };
            findings.iter().map(with_repository).collect::<Vec<_>>()
        };
        print_json(out, &repositories.iter().flat_map(of_one).collect::<serde_json::Result<Vec<_>>>()?)?;
    } else {
        let least = if base.global.verbose > 0 { Severity::Ok } else { Severity::Warning };
        let mut well = 0;
        for (repository, findings) in &repositories {
            well += usize::from(findings.iter().all(|finding| finding.severity == Severity::Ok));
            let shown: Vec<_> = findings.iter().filter(|finding| finding.severity >= least).collect();
            if !shown.is_empty() {
                writeln!(out, "{repository}")?;
            }
            for finding in shown {
                let fix = finding.fix.as_deref().map(|fix| within(repository, fix));
                render::finding(base, &Finding { fix, ..finding.clone() }, out)?;
            }
        }
        if !base.global.quiet {
            let all = render::counted(repositories.len() + unreadable, "repository", "repositories");
            writeln!(out, "{all}, {well} without a fault, {unreadable} unreadable")?;
        }
    }
    let worst = repositories.iter().map(|(_, findings)| status(findings)).max().unwrap_or(DONE);
    Ok(if unreadable > 0 { BEHIND } else { worst })
}

/// A fix whose commands name the repository: nobody is in its directory.
fn within(repository: &str, fix: &str) -> String {
    let git = format!("git -C '{}'", repository.replace('\'', r"'\''"));
    ["mirror-push", "config", "fetch"]
        .iter()
        .fold(fix.to_owned(), |fix, command| fix.replace(&format!("git {command} "), &format!("{git} {command} ")))
}

fn findings(session: &Session<'_>) -> Vec<Finding> {
    let (repository, server) = (&session.repository, &session.base.server);
    let config = crate::config::load(repository, server);
    examine(&Subject { repository, server, config: config.as_ref(), now: now() }, &session.shared)
}

fn status(findings: &[Finding]) -> u8 {
    let is_broken = findings.iter().any(|finding| finding.severity == Severity::Error);
    if is_broken { BEHIND } else { DONE }
}

fn json(finding: &Finding) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(finding)?;
    value["name"] = value["remote"].clone();
    // The old name of `fix`, for programs that read it.
    value["mend"] = value["fix"].clone();
    Ok(value)
}
