//! `doctor`: what is wrong with this set-up and how to fix it.

use std::io::Write;
use std::path::Path;

use super::each::said_as_owner;
use super::{BEHIND, Base, DONE, Session, now, print_json, render};
use crate::doctor::{Finding, Severity, Subject, examine};
use crate::owner::Hands;
use crate::process::shell_word;
use crate::terminal::escaped;

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
    let as_owner = |path: &Path| {
        let said = said_as_owner(base, path, Hands::Secrets, &["--json", "doctor"])?;
        Some(said.and_then(|said| Ok((path.display().to_string(), serde_json::from_slice(&said)?))))
    };
    let (repositories, unreadable) = base.act_in_every(&examined, &as_owner)?;
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
                writeln!(out, "{}", escaped(repository))?;
            }
            for finding in shown {
                let fix = finding.fix.as_deref().and_then(|fix| within(repository, fix));
                render::finding(base, &Finding { fix, ..finding.clone() }, out)?;
            }
        }
        if !base.global.quiet {
            let all = render::counted(repositories.len() + unreadable, "repository", "repositories");
            writeln!(out, "{all}, {well} without a fault, {unreadable} unreadable")?;
        }
    }
    let worst = repositories.iter().map(|(_, findings)| status(findings)).max().unwrap_or(DONE);
    Ok(if unreadable > 0 || base.lacks_roots() { BEHIND } else { worst })
}

/// Adds `-C REPOSITORY` to the git commands of a fix, because the user is in another directory. `None` if the path has a control character
/// in it.
fn within(repository: &str, fix: &str) -> Option<String> {
    const COMMANDS: [&str; 4] = ["mirror-push ", "config ", "fetch ", "update-ref "];
    let place = format!("-C {} ", shell_word(repository));
    let (mut out, mut rest) = (String::new(), fix);
    while let Some(at) = rest.find("git ") {
        let (before, after) = rest.split_at(at + "git ".len());
        out.push_str(before);
        if COMMANDS.iter().any(|command| after.starts_with(command)) {
            out.push_str(&place);
        }
        rest = after;
    }
    (!repository.chars().any(char::is_control)).then(|| out + rest)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_git_command_of_a_fix_gets_the_path_of_the_repository() {
        for (repository, fix, expected) in [
            (
                "/r.git",
                "git mirror-push sync m; git config a b",
                Some("git -C '/r.git' mirror-push sync m; git -C '/r.git' config a b"),
            ),
            (
                "/r.git",
                "or: git fetch MIRROR REF && git update-ref REF FETCH_HEAD",
                Some("or: git -C '/r.git' fetch MIRROR REF && git -C '/r.git' update-ref REF FETCH_HEAD"),
            ),
            ("/a git config ;id; .git", "git mirror-push x", Some("git -C '/a git config ;id; .git' mirror-push x")),
            ("/it's", "git fetch mirror::m", Some(r"git -C '/it'\''s' fetch mirror::m")),
            ("/a\nb", "git fetch x", None),
            ("/r", "install git 2.39", Some("install git 2.39")),
        ] {
            assert_eq!(within(repository, fix).as_deref(), expected);
        }
    }
}
