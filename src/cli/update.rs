//! `drain`, `sync`, `plan`: the commands that reach out.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use serde::Serialize;

use super::args::Sync;
use super::progress::Bars;
use super::{BEHIND, DONE, Session, chosen, now, print_json, render};
use crate::config::Mirror;
use crate::drain::{self, Context, MassDelete, Mode, Report};
use crate::push;
use crate::status::{RefOutcome, UpdateStatus};

/// Mirrors what is spooled.
pub(super) fn drain(session: &Session, names: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    run(session, Mode::Drain, names, out)
}

/// Compares and mirrors everything.
pub(super) fn sync(session: &Session, sync: &Sync, out: &mut dyn Write) -> anyhow::Result<u8> {
    let guard = if sync.allow_mass_delete { MassDelete::Allowed } else { MassDelete::Guarded };
    run(session, Mode::Sync(guard), &sync.names, out)
}

/// Says what `sync` would do.
pub(super) fn plan(session: &Session, names: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    run(session, Mode::Plan, names, out)
}

fn run(session: &Session, mode: Mode, names: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = session.config()?;
    let mirrors: Vec<&Mirror> = chosen(&config, names)?.into_iter().filter(|mirror| mirror.is_enabled).collect();
    for name in names.iter().filter(|name| config.mirror(name).is_some_and(|mirror| !mirror.is_enabled)) {
        session.warn(&format!("mirror '{name}' is disabled; 'git mirror-push enable {name}' serves it again"));
    }
    if config.is_silent && mode != Mode::Plan {
        session.say("silent: nothing leaves this machine");
    }
    let is_watched = mode != Mode::Plan && !session.global.quiet && std::io::stderr().is_terminal();
    let bars = is_watched.then(Bars::new);
    let on_begin = |mirror: &Mirror, counted: Arc<push::Progress>| {
        if let Some(bars) = &bars {
            bars.add(mirror, counted);
        }
    };
    let context = Context { config: &config, mode, now, on_begin: &on_begin };
    let reports = drain::drain(&session.shared, &context, &mirrors)?;
    drop(bars);
    if session.global.json {
        print_json(out, &reports.iter().map(Json::from).collect::<Vec<_>>())?;
    } else {
        for report in &reports {
            render::report(session, report, mode, out)?;
        }
    }
    Ok(if reports.iter().all(|report| report.update_status == UpdateStatus::Finished) { DONE } else { BEHIND })
}

/// A report as `--json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    repository: &'a str,
    remote: &'a str,
    update_status: UpdateStatus,
    error: Option<&'a str>,
    refs: &'a [RefOutcome],
}

impl<'a> From<&'a Report> for Json<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            repository: &report.repository,
            remote: &report.remote,
            update_status: report.update_status,
            error: report.error.as_deref(),
            refs: &report.refs,
        }
    }
}
