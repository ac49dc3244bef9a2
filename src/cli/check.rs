//! `check`: an answer for monitoring systems, in the manner of the monitoring plugins: one line, then `|` and numbers;
//! 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use std::io::Write;

use super::args::{self, Global};
use super::{Base, measure, now};
use crate::config::Environment;
use crate::metrics::Measure;
use crate::status::UpdateStatus;

const UNKNOWN: u8 = 3;

/// Answers. Whatever keeps the question from being answered is UNKNOWN.
pub(super) fn check(
    environment: Environment,
    global: Global,
    check: &args::Check,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    match Base::new(environment, global).and_then(|base| measured(&base, check)) {
        Ok((measures, unreadable)) => judge(&measures, unreadable, check, out),
        Err(error) => {
            let text = crate::credentials::Redactor::default().clean(&format!("{error:#}")).replace(['\n', '|'], " ");
            writeln!(out, "MIRRORS UNKNOWN - {text}")?;
            Ok(UNKNOWN)
        }
    }
}

fn measured(base: &Base, check: &args::Check) -> anyhow::Result<(Vec<Measure>, usize)> {
    if check.scope.all {
        let (measures, unreadable) = base.ask_every(&measure::measures)?;
        return Ok((measures.concat(), unreadable));
    }
    let session = base.session()?;
    let config = session.config()?;
    super::chosen(&config, &check.scope.names)?;
    let mut measures = measure::measures(&session)?;
    measures.retain(|measure| check.scope.names.is_empty() || check.scope.names.contains(&measure.mirror));
    Ok((measures, 0))
}

fn judge(measures: &[Measure], unreadable: usize, check: &args::Check, out: &mut dyn Write) -> anyhow::Result<u8> {
    let now = now();
    let is = |wanted: UpdateStatus| measures.iter().filter(move |measure| measure.status.update_status == wanted);
    let failed = is(UpdateStatus::Failed).count();
    let waiting = is(UpdateStatus::Scheduled).filter(|measure| measure.status.attempts > 0).count();
    let pending: usize = measures.iter().map(|measure| measure.backlog.pushes).sum();
    let corrupt: usize = measures.iter().map(|measure| measure.corrupt).max().unwrap_or(0);
    let oldest = measures.iter().map(|measure| measure.oldest_pending(now)).max().unwrap_or(0);
    let (warning, critical) = (check.warning.as_secs(), check.critical.as_secs());
    let level = match () {
        () if failed > 0 || oldest >= critical => 2,
        () if unreadable > 0 => UNKNOWN,
        () if waiting > 0 || corrupt > 0 || oldest >= warning => 1,
        () => 0,
    };
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(level)];
    let mut text = format!("{} of {} mirrors up to date", measures.len() - failed - waiting, measures.len());
    let worst = is(UpdateStatus::Failed).chain(is(UpdateStatus::Scheduled).filter(|m| m.status.attempts > 0)).next();
    if let Some(worst) = worst {
        let error = worst.status.last_error.as_deref().unwrap_or_default().replace('|', " ");
        text.push_str(&format!("; {} of '{}': {error}", worst.mirror, worst.repository));
    } else if oldest >= warning {
        text.push_str(&format!("; a push waits for {oldest} seconds"));
    }
    if corrupt > 0 {
        text.push_str(&format!("; {corrupt} spool records could not be read"));
    }
    if unreadable > 0 {
        text.push_str(&format!("; {unreadable} repositories could not be read"));
    }
    writeln!(
        out,
        "MIRRORS {word} - {text} | mirrors={} failed={failed};;0 waiting={waiting};0 pending={pending} \
         oldest={oldest}s;{warning};{critical} corrupt={corrupt};0",
        measures.len(),
    )?;
    Ok(level)
}
