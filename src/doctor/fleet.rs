//! What the database of the fleet says about a repository: whether another mirror of the fleet pushes to the URL of one of its mirrors.

use std::time::Duration;

use super::{Finding, Subject};
use crate::fleet::{Access, Error, Look, Twin};

/// How long to wait for an answer of the database.
const LIMIT: Duration = Duration::from_secs(2);

/// The findings. Without a fleet there are none.
pub(super) fn examine(subject: &Subject<'_>) -> Vec<Finding> {
    let Some(access) = Access::of(subject.server) else { return Vec::new() };
    let Some(git_dir) = subject.repository.git_dir().to_str() else { return Vec::new() };
    let found = Look::open_within(&access, LIMIT).and_then(|mut look| look.twins_of(access.node(), git_dir));
    match found {
        Err(error) => vec![unusable(&error)],
        Ok(twins) if twins.is_empty() => vec![Finding::ok("fleet", format!("node '{}'", access.node()))],
        Ok(twins) => twins.iter().flat_map(|twins| of_url(&access, git_dir, &twins.url, &twins.mirrors)).collect(),
    }
}

fn unusable(error: &Error) -> Finding {
    let fix = "pushes are mirrored all the same; docs/fleet.md shows how the database is set up";
    Finding::warning("fleet", error.to_string(), fix)
}

/// One finding for each mirror of this repository that has the URL. It names the others.
fn of_url(access: &Access, git_dir: &str, url: &str, all: &[Twin]) -> Vec<Finding> {
    let is_here = |twin: &&Twin| twin.node == access.node() && twin.repository == git_dir;
    let shown = |twin: &Twin| format!("'{}' of '{}' on node {}", twin.name, twin.repository, twin.node);
    let finding = |here: &Twin| {
        let others: Vec<String> = all.iter().filter(|twin| *twin != here).map(shown).collect();
        let text = format!("{url} is also the URL of {}", others.join(", "));
        let fix = format!("git mirror-push disable {}", here.name);
        Finding { remote: Some(here.name.clone()), ..Finding::error("double-url", text, fix) }
    };
    all.iter().filter(is_here).map(finding).collect()
}
