//! Mirrors that other tools keep beside ours: remotes of git's configuration, and hooks that push by themselves.

use super::{Finding, Subject};
use crate::config::Config;
use crate::import::{mirror_at, pushing_lines, unknown};
use crate::install;

pub(super) fn examine(subject: &Subject<'_>, config: &Config) -> Vec<Finding> {
    let remotes = subject.repository.git_remotes();
    let warning = |text| Finding::warning("import", text, "git mirror-push import git --dry-run");
    let mut findings: Vec<Finding> = unknown(config, &remotes).into_iter().map(warning).collect();
    for (script, text) in install::scripts(subject.repository).unwrap_or_default() {
        for pushing in pushing_lines(&text) {
            let Some(target) = pushing.target else { continue };
            let urls: Vec<&String> = match remotes.iter().find(|remote| remote.name == target) {
                Some(remote) => remote.push_urls.iter().collect(),
                None => vec![&target],
            };
            let Some(ours) = urls.iter().find_map(|url| mirror_at(config, url)) else { continue };
            let (path, line) = (script.display(), pushing.line);
            let text = format!("line {line} of '{path}' also pushes to mirror '{ours}', without its rules");
            findings.push(Finding::error("hook", text, format!("delete line {line} of '{path}'")));
        }
    }
    findings
}
