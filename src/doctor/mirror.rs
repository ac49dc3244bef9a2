//! One mirror: whether it can be reached, whether it accepts our credentials, and whether it takes what the rules send.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Finding, two_way};
use crate::config::{AuthMethod, Config, Direction, Interval, Keep, Mirror, Server};
use crate::credentials::identity;
use crate::credentials::{Credentials, Redactor};
use crate::drain;
use crate::mirror::{self, LocalMirror, OtherHead};
use crate::plan::Prune;
use crate::process::shell_word;
use crate::push::Advertised;
use crate::refs::{NameRef, Oid, RefName};
use crate::repo::{self, Repository};
use crate::spool;
use crate::status::{self, Outcome};
use crate::wire::{self, Address};

/// The age in seconds from which a push that is not mirrored is reported.
const LONG: u64 = 3600;

pub(super) fn examine(
    repository: &Repository,
    server: &Server,
    config: &Config,
    mirror: &Mirror,
    now: Timestamp,
) -> Vec<Finding> {
    if !mirror.is_enabled {
        let fix = format!("git mirror-push enable {}", mirror.name);
        return named(mirror, vec![Finding::warning("enabled", "the mirror is disabled", fix)]);
    }
    let mut findings = match mirror::found_credentials(repository, mirror, server) {
        Ok(found) => {
            let mut findings = credentials(repository, mirror, &found);
            findings.extend(contact(repository, mirror, server));
            findings
        }
        // Contacting the mirror would fail with the same error.
        Err(error) => vec![unusable_credentials(mirror, &error)],
    };
    findings.extend(kept_back(repository, config, mirror, now));
    findings.extend(doubtful(repository, config, mirror));
    named(mirror, findings)
}

/// What the mirror says of itself, or why it cannot be reached.
fn contact(repository: &Repository, mirror: &Mirror, server: &Server) -> Vec<Finding> {
    let mut refs = HashMap::new();
    let each = &mut |name: NameRef<'_>, oid| {
        refs.insert(name.to_owned(), oid);
    };
    let found = match mirror.direction {
        Direction::Push => drain::reach(repository, mirror, server, each).map(|there| (Some(there), None)),
        Direction::Pull => drain::reach_upstream(repository, mirror, server, each).map(|head| (None, head)),
        Direction::Both => drain::reach(repository, mirror, server, each).and_then(|there| {
            let head = drain::reach_upstream(repository, mirror, server, &mut |_, _| {})?;
            Ok((Some(there), head))
        }),
    };
    match found {
        Ok((Some(advertised), head)) => {
            let mut findings = met(repository, mirror, &advertised, &refs);
            if mirror.direction == Direction::Both {
                findings.extend(two_way::settings(repository, mirror, head.as_ref()));
            }
            findings
        }
        Ok((None, head)) => {
            let mut findings = upstream(mirror, refs.len());
            let other = OtherHead::of(repository, mirror, head.as_ref());
            findings.extend(other.map(|other| Finding::warning("head", other.to_string(), other.fix())));
            findings
        }
        Err(drain::Error::Push(wire::Error::NotFound(_))) if drain::will_be_made(repository, mirror) => {
            let text = "there is no repository there yet; the next run creates it";
            vec![Finding::warning("reachable", text, format!("git mirror-push sync {}", mirror.name))]
        }
        Err(error) => {
            let credentials = mirror::credentials(&repository.layout(), mirror).unwrap_or_default();
            let text = Redactor::new(&credentials).clean(&error.to_string()).replace('\n', " ");
            vec![Finding::error("reachable", text, fix(&error, mirror, &credentials))]
        }
    }
}

/// What there is to say of an upstream that can be reached.
fn upstream(mirror: &Mirror, refs: usize) -> Vec<Finding> {
    let mut findings = vec![Finding::ok("reachable", format!("{refs} refs"))];
    if mirror.pull.keep_rewritten == Keep::Nothing {
        let text = "keep_rewritten is \"0\": what upstream rewrites or deletes is gone here too";
        findings.push(Finding::warning(
            "keep_rewritten",
            text,
            format!("git mirror-push set {} keep_rewritten=", mirror.name),
        ));
    }
    if mirror.pull.interval == Interval::None {
        let text = "upstream is checked only when asked (interval = \"none\")";
        findings.push(Finding::ok("interval", text));
    }
    findings
}

/// Likely mistakes in the mirror's configuration: in its URL, or a second mirror with the same URL and refs.
fn doubtful(repository: &Repository, config: &Config, mirror: &Mirror) -> Vec<Finding> {
    let refs = repository.list(|_| true).map(|listing| listing.refs).unwrap_or_default();
    let refs: Vec<RefName> = refs.into_iter().map(|(name, _)| name).collect();
    let default_branch = repository.default_branch().ok().flatten();
    let name = &mirror.name;
    let misread = crate::config::misread_url(&mirror.address);
    let found = crate::config::warnings(config, mirror, default_branch.as_ref(), &refs);
    let fix = |what: &String| match misread.as_ref() == Some(what) {
        true => format!("git mirror-push set {name} --url URL"),
        false => format!("git mirror-push remove {name}, or git mirror-push set {name} KEY=VALUE"),
    };
    found.into_iter().map(|what| Finding::warning("url", what.clone(), fix(&what))).collect()
}

fn named(mirror: &Mirror, findings: Vec<Finding>) -> Vec<Finding> {
    findings.into_iter().map(|finding| Finding { remote: Some(mirror.name.clone()), ..finding }).collect()
}

fn fix(error: &drain::Error, mirror: &Mirror, credentials: &Credentials) -> String {
    use wire::Error as Push;
    let advice = drain::advice(error, mirror, credentials);
    // The advice may contain text of the server, for example the target of a redirect.
    let advice = advice.map(|advice| Redactor::new(credentials).clean(&advice).to_string());
    advice.unwrap_or_else(|| match error {
        drain::Error::Push(Push::Resolve { .. } | Push::Connect { .. } | Push::Timeout(_) | Push::Broken { .. }) => {
            "check that the host is up and that no firewall or proxy blocks the connection".into()
        }
        _ => format!("past attempts: git mirror-push log {}", mirror.name),
    })
}

/// The finding for a source of credentials that cannot be used. If the error's text has a `; `, what follows the last one is the fix.
fn unusable_credentials(mirror: &Mirror, error: &mirror::Error) -> Finding {
    let text = error.to_string();
    match text.rsplit_once("; ") {
        Some((text, fix)) => Finding::error("credentials", text, fix),
        None => Finding::error("credentials", text, format!("git mirror-push credential {}", mirror.name)),
    }
}

fn credentials(repository: &Repository, mirror: &Mirror, found: &Credentials) -> Vec<Finding> {
    let mut findings = Vec::new();
    match mirror.auth_method {
        AuthMethod::Password if found.secret.is_none() => {
            let fix = format!("git mirror-push credential {}", mirror.name);
            findings.push(Finding::error("credentials", "no password or token is stored", fix));
        }
        AuthMethod::Password => findings.push(Finding::ok("credentials", "a password or token is there")),
        AuthMethod::SshPublicKey | AuthMethod::None => {}
    }
    let directory = repository.layout().remote(&mirror.name);
    if mirror.auth_method == AuthMethod::SshPublicKey && identity(&directory).is_none() {
        let fix = format!("git mirror-push set {} --auth-method ssh_public_key", mirror.name);
        findings.push(Finding::error("credentials", "the mirror has no key of its own", fix));
    }
    if matches!(mirror.address, Address::Ssh { .. }) {
        findings.push(match directory.join("known_hosts").is_file() {
            true => Finding::ok("host-key", "pinned"),
            false => Finding::warning(
                "host-key",
                match mirror.is_confined {
                    true => "no key of the host is pinned, and this confined mirror is not contacted before one is",
                    false => "no key of the host is pinned; ssh's own known_hosts decides",
                },
                format!("git mirror-push host-keys {} --detect", mirror.name),
            ),
        });
    }
    findings
}

/// What the advertisement shows. For a mirror on this machine, also its HEAD and its settings.
fn met(repository: &Repository, mirror: &Mirror, there: &Advertised, refs: &HashMap<RefName, Oid>) -> Vec<Finding> {
    let capabilities = &there.capabilities;
    let mut findings = vec![Finding::ok("reachable", format!("{} refs", refs.len()))];
    if capabilities.object_format != repository.object_format() {
        let text = format!("its object format is {}, ours {}", capabilities.object_format, repository.object_format());
        let fix = format!("make a new mirror: git init --bare --object-format={}", repository.object_format());
        findings.push(Finding::error("object-format", text, fix));
    }
    if !capabilities.report_status && !capabilities.report_status_v2 {
        findings.push(Finding::error("capabilities", "it does not report the results of a push", "use another server"));
    }
    if !capabilities.delete_refs && mirror.prune != Prune::Never {
        findings.push(Finding::warning(
            "capabilities",
            "it refuses deletions",
            "receive.denyDeletes = false there, or prune = \"never\"",
        ));
    }
    if mirror.is_atomic && !capabilities.atomic {
        findings.push(Finding::error("capabilities", "it does not support atomic pushes", "set atomic = false"));
    }
    if let Some(local) = LocalMirror::of(&mirror.address) {
        findings.extend(settings_there(repository, mirror, &local));
    }
    findings
}

/// What HEAD and the settings of a mirror on this machine show.
fn settings_there(repository: &Repository, mirror: &Mirror, local: &LocalMirror) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Ok(Some(lost)) = local.lost_head(repository) {
        findings.push(Finding::warning("head", lost.to_string(), lost.fix()));
    }
    let Ok(there) = repo::open(local.git_dir()) else { return findings };
    let there = there.to_local();
    let is_set = |key: &str| there.git_flag(key);
    for (key, matters, what) in [
        ("receive.denyDeletes", mirror.prune != Prune::Never, "deletions will be refused"),
        ("receive.denyNonFastForwards", true, "rewritten branches will be refused"),
    ] {
        if matters && is_set(key) {
            let there = shell_word(&local.git_dir().display().to_string());
            let fix = format!("git --git-dir {there} config {key} false");
            findings.push(Finding::warning("settings", format!("{key} is set in the mirror: {what}"), fix));
        }
    }
    for key in ["transfer.hideRefs", "receive.hideRefs"] {
        // What we hide in every repository is not mirrored.
        let is_ours = |hidden: &String| hidden.starts_with("refs/rewritten") || hidden.starts_with("refs/conflicts");
        for hidden in there.git_config_all(key).iter().filter(|hidden| !is_ours(hidden)) {
            let text = format!("{key} = {hidden} there: we neither see nor update those refs");
            findings.push(Finding::warning("settings", text, "leave branches and tags visible to pushes"));
        }
    }
    findings
}

/// What the last status shows: a copied repository, first contact, refs that are not up to date.
fn of_status(repository: &Repository, mirror: &Mirror) -> Vec<Finding> {
    let layout = repository.layout();
    let mut findings = Vec::new();
    let status = status::of(&layout, mirror).unwrap_or_default();
    if let Some(original) = status::original(&status, repository.git_dir(), mirror) {
        let text = format!(
            "this repository is a copy of '{}', which has the same mirror, so each undoes what the other does",
            original.display()
        );
        let fix = format!("git mirror-push disable {} in one of them", mirror.name);
        findings.push(Finding::error("copy", text, fix));
    }
    if status.needs_adoption {
        let text = match mirror.direction {
            Direction::Push => "first contact: the mirror has what this repository does not have, so nothing was sent",
            Direction::Pull | Direction::Both => {
                "first contact: this repository and upstream have no commit in common, so nothing was taken"
            }
        };
        let fix = format!(
            "check the URL; if it is right: git mirror-push sync {0} --adopt; if not: git mirror-push set {0} --url URL",
            mirror.name
        );
        findings.push(Finding::error("first-contact", text, fix));
    }
    let refs = if status.needs_adoption { Vec::new() } else { status.refs };
    if mirror.direction == Direction::Both {
        findings.extend(two_way::protection(mirror, &refs));
    }
    let failed = refs.iter().filter(|outcome| outcome.outcome.is_failure()).count();
    let is_unknown = |oid: Oid| matches!(repository.is_here(oid), Ok(false));
    let divergent = refs.iter().filter(|outcome| outcome.outcome == Outcome::Divergent);
    let unknown = divergent.filter(|outcome| outcome.remote.is_some_and(is_unknown)).count();
    if unknown > 0 && mirror.direction == Direction::Push {
        let text = format!(
            "{unknown} refs of the mirror have commits that are not here: someone pushed to it, or this repository was restored from an older backup"
        );
        let fix = format!(
            "take them over: git fetch mirror::{} '+refs/heads/*:refs/restored/*'; or let ours win: git mirror-push set {} --divergent-refs overwrite",
            mirror.name, mirror.name
        );
        findings.push(Finding::error("divergence", text, fix));
    } else if failed > 0 {
        let text = match failed {
            1 => "1 ref is not up to date".to_owned(),
            count => format!("{count} refs are not up to date"),
        };
        findings.push(Finding::warning("refs", text, format!("git mirror-push status {}", mirror.name)));
    }
    findings
}

/// What the state files show: pushes that have waited for more than an hour, a status that cannot be read, and what the last status says.
/// Also rules that select no branch.
fn kept_back(repository: &Repository, config: &Config, mirror: &Mirror, now: Timestamp) -> Vec<Finding> {
    let layout = repository.layout();
    let mut findings = Vec::new();
    let log = format!("git mirror-push log {}; git mirror-push sync {}", mirror.name, mirror.name);
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    match spool::backlog(&layout, &mirror.name) {
        Ok(backlog) => {
            let age = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.as_secs()));
            if age > LONG {
                let text =
                    format!("{} pushes or requested syncs wait, the oldest for {} hours", backlog.pushes, age / 3600);
                findings.push(Finding::warning("pending", text, log));
            }
        }
        Err(error) => findings.push(Finding::error("pending", error.to_string(), "fix the permissions")),
    }
    let directory = layout.remote(&mirror.name);
    if let Err(error) = status::examine(&directory) {
        let fix = format!("git mirror-push sync {} compares everything and writes a new status", mirror.name);
        findings.push(Finding::warning("status", error, fix));
    }
    findings.extend(of_status(repository, mirror));
    let rules = config.rules(mirror, repository.default_branch().ok().flatten().as_ref());
    if rules.selects_no_branch() {
        findings.push(Finding::warning(
            "selection",
            "no branch is selected, so none is mirrored",
            "git mirror-push protect PATTERN",
        ));
    }
    findings
}
