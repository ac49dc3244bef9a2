//! `status`, `list` and `show`, which only read.

use std::io::Write;

use super::args::Show;
use super::{BEHIND, DONE, Session, Usage, by_name, chosen, next, notes, now, print_json, render};
use crate::config::{self, Config, HookSetting, Mirror};
use crate::credentials::Credentials;
use crate::install::{self, State};
use crate::layout::Layout;
use crate::mirror;
use crate::status::{UpdateStatus, View, view};

pub(super) fn views(layout: &Layout, config: &Config, names: &[String]) -> anyhow::Result<Vec<View>> {
    views_for(layout, config, names, &|_| true)
}

/// As [`views`]. The URLs are fit to be shown only where `is_shown` holds.
pub(super) fn views_for(
    layout: &Layout,
    config: &Config,
    names: &[String],
    is_shown: &dyn Fn(&View) -> bool,
) -> anyhow::Result<Vec<View>> {
    chosen(config, names)?
        .into_iter()
        .map(|mirror| {
            let mut shown = view(layout, mirror, &Credentials::default(), now())?;
            if is_shown(&shown) {
                // The secret only helps to mask a URL, and a stored URL holds none, so an error is ignored. `status` shows it as a note.
                shown.mask(mirror, &mirror::credentials(layout, mirror).unwrap_or_default());
            }
            Ok(shown)
        })
        .collect()
}

/// Shows the status of the mirrors.
pub(super) fn status(session: &Session<'_>, names: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let views = views(&session.repository.layout(), &config, names)?;
    if session.base.global.json {
        print_json(out, &views)?;
    } else if views.is_empty() {
        session.base.say("no mirrors; 'git mirror-push add NAME URL' adds one");
    } else {
        for shown in &views {
            let next = next::attempt(session, &config, shown, now());
            render::view(session.base, shown, next.as_deref(), out)?;
            for note in notes::of(session, &config, by_name(&config, &shown.name)?, shown)? {
                writeln!(out, "  {note}")?;
            }
        }
    }
    if !session.base.global.json && names.is_empty() {
        session.tell_of_others(&config);
        let needs_hook =
            config.hook != HookSetting::None && config.mirrors.iter().any(|one| one.is_enabled && one.sends());
        if needs_hook && install::state(&session.repository).is_ok_and(|state| !matches!(state, State::Live(_))) {
            session.base.warn(
                "git does not run our hook, so pushes are not recorded; to install it: git mirror-push install-hook",
            );
        }
    }
    Ok(if views.iter().any(is_behind) { BEHIND } else { DONE })
}

/// Whether an enabled mirror is not up to date. A mirror that was never tried counts only if something is queued for it.
pub(super) fn is_behind(view: &View) -> bool {
    view.enabled && !matches!(view.update_status, UpdateStatus::Finished | UpdateStatus::None)
}

/// Lists the mirrors as `git remote -v` does.
pub(super) fn list(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let views = views(&session.repository.layout(), &config, &[])?;
    if session.base.global.json {
        print_json(out, &views)?;
        return Ok(DONE);
    }
    for view in &views {
        let state = if view.enabled { "" } else { " (disabled)" };
        writeln!(out, "{}\t{}{state}", view.name, view.url)?;
    }
    Ok(DONE)
}

/// Shows the configuration of one mirror, or of all.
pub(super) fn show(session: &Session<'_>, asked: &Show, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    if asked.origin {
        return origin(session, only(&config, asked.name.as_deref())?, out);
    }
    let names: Vec<String> = asked.name.iter().cloned().collect();
    let views = views(&session.repository.layout(), &config, &names)?;
    if session.base.global.json {
        print_json(out, &views)?;
        return Ok(DONE);
    }
    for (at, view) in views.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        let regex = view.mirror_branch_regex.as_deref().unwrap_or("-");
        for (key, value) in [
            ("name", view.name.as_str()),
            ("id", &view.id.to_string()),
            ("url", &view.url),
            ("direction", view.direction),
            ("enabled", &view.enabled.to_string()),
            ("auth_method", view.auth_method),
            ("only_protected_branches", &view.only_protected_branches.to_string()),
            ("mirror_branch_regex", regex),
            ("divergent_refs", view.divergent_refs),
            ("tags", &view.tags.to_string()),
            ("prune", view.prune),
        ] {
            writeln!(out, "{key:<24} {value}")?;
        }
    }
    Ok(DONE)
}

/// The mirror of this name; without a name, the only one.
fn only<'c>(config: &'c Config, name: Option<&str>) -> anyhow::Result<&'c Mirror> {
    match (name, &*config.mirrors) {
        (Some(name), _) => by_name(config, name),
        (None, [only]) => Ok(only),
        (None, _) => Err(Usage("name one mirror; 'git mirror-push list' shows them".into()).into()),
    }
}

/// Shows which file set each value of a mirror.
fn origin(session: &Session<'_>, mirror: &Mirror, out: &mut dyn Write) -> anyhow::Result<u8> {
    let origins = config::origins(&session.repository, &session.base.server, &mirror.name)?;
    if session.base.global.json {
        let json = origins.iter().map(|origin| {
            serde_json::json!({"key": origin.key, "value": origin.value, "file": origin.file.display().to_string()})
        });
        print_json(out, &json.collect::<Vec<_>>())?;
        return Ok(DONE);
    }
    for origin in &origins {
        writeln!(out, "{}\t{} = {}", origin.file.display(), origin.key, origin.value)?;
    }
    Ok(DONE)
}
