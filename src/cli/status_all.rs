//! `status --all`. Without `-v`, only a few mirrors are in memory at once, however many there are.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::{BEHIND, Base, DONE, render, status};
use crate::mirror;
use crate::status::{UpdateStatus, View};

/// How many mirrors that are not up to date are listed one by one.
const MAX_SHOWN: usize = 20;

/// A place in the list: the worst come first, and of these the mirror whose last success is oldest.
type Place = (u8, Option<String>, usize);

/// Shows the status of all mirrors: a count of each state, then the mirrors that are not up to date. Failed mirrors come first, then those
/// that wait or run. In each group, the mirror whose last success is oldest comes first. With `-v`, all other mirrors follow. As JSON, the
/// mirrors come in the order of their repositories.
pub(super) fn show(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    if base.global.json { as_json(base, out) } else { as_text(base, out) }
}

fn as_json(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (mut is_behind, mut before) = (base.lacks_roots(), "[");
    let views = |path: &Path| views_of(base, path, &|_| true);
    let bad = base.take_every(&views, &mut |_, views| {
        for view in &views {
            is_behind |= status::is_behind(view);
            // The layout is the same as when serde_json prints an array.
            write!(out, "{before}\n  {}", serde_json::to_string_pretty(view)?.replace('\n', "\n  "))?;
            before = ",";
        }
        Ok(())
    })?;
    writeln!(out, "{}", if before == "[" { "[]" } else { "\n]" })?;
    Ok(if is_behind || bad > 0 { BEHIND } else { DONE })
}

fn as_text(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    let is_verbose = base.global.verbose > 0;
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut rows: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
    let (mut all, mut left_out, mut is_behind) = (0, 0, base.lacks_roots());
    let is_shown = |view: &View| is_verbose || status::is_behind(view);
    let views = |path: &Path| views_of(base, path, &is_shown);
    let bad = base.take_every(&views, &mut |_, views| {
        for view in views {
            all += 1;
            *counts.entry(if view.enabled { view.update_status.as_str() } else { "disabled" }).or_default() += 1;
            is_behind |= status::is_behind(&view);
            if !is_shown(&view) {
                continue;
            }
            let mut row = Vec::new();
            render::row(base, &view, &mut row)?;
            rows.insert((rank(&view), view.last_successful_update_at, all), row);
            if !is_verbose && rows.len() > MAX_SHOWN {
                rows.pop_last();
                left_out += 1;
            }
        }
        Ok(())
    })?;
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    writeln!(
        out,
        "{all} mirrors: {} finished, {} failed, {} scheduled, {} started, {} never tried, {} disabled",
        count("finished"),
        count("failed"),
        count("scheduled"),
        count("started"),
        count("none"),
        count("disabled"),
    )?;
    for row in rows.values() {
        out.write_all(row)?;
    }
    if left_out > 0 {
        writeln!(out, "and {left_out} more; -v shows them all")?;
    }
    Ok(if is_behind || bad > 0 { BEHIND } else { DONE })
}

fn views_of(base: &Base, git_dir: &Path, is_shown: &dyn Fn(&View) -> bool) -> anyhow::Result<Vec<View>> {
    mirror::with_shown(git_dir, &base.server, |layout, config| status::views_for(layout, config, &[], is_shown))?
}

fn rank(view: &View) -> u8 {
    match view.update_status {
        _ if !view.enabled => 2,
        UpdateStatus::Failed => 0,
        UpdateStatus::Scheduled | UpdateStatus::Started => 1,
        UpdateStatus::None | UpdateStatus::Finished => 2,
    }
}
