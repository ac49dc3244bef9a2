//! `check`: an answer for monitoring systems, in the manner of the monitoring plugins: one line, then `|` and numbers;
//! 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use std::collections::BTreeMap;
use std::io::Write;

use super::args::{self, Global};
use super::{Base, Session, measure, now, render};
use crate::config::{Environment, HookSetting, Interval, Mirror};
use crate::install::{self, State};
use crate::metrics::Measure;
use crate::status::{self, UpdateStatus};

const UNKNOWN: u8 = 3;

/// Prints the answer. After an error, the answer is UNKNOWN.
pub(super) fn check(
    environment: Environment,
    global: Global,
    check: &args::Check,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    match Base::new(environment, global).and_then(|base| judged(&base, check)) {
        Ok(judged) => answer(&judged, check, out),
        Err(error) => {
            let text = crate::credentials::Redactor::default().clean(&format!("{error:#}")).replace(['\n', '|'], " ");
            writeln!(out, "MIRRORS UNKNOWN - {text}")?;
            Ok(UNKNOWN)
        }
    }
}

/// What is judged.
#[derive(Default)]
struct Judged {
    measures: Vec<Measure>,
    /// How many mirrors are configured, disabled ones too.
    configured: usize,
    /// How many repositories with an enabled mirror are silent.
    silent: usize,
    /// How many repositories have an enabled mirror and are to have our hook, but git does not run it.
    without_hook: usize,
    /// How many upstreams were not checked for twice the time that the configuration allows.
    unchecked: usize,
    /// How many repositories could not be read.
    unreadable: usize,
    /// How many roots of the server's file are not there.
    missing_roots: usize,
}

fn judged(base: &Base, check: &args::Check) -> anyhow::Result<Judged> {
    if check.scope.all {
        let (all, unreadable) = base.ask_every(&of_one)?;
        let mut sum = Judged { unreadable, missing_roots: base.server.missing_roots().count(), ..Judged::default() };
        for one in all {
            sum.measures.extend(one.measures);
            sum.configured += one.configured;
            sum.silent += one.silent;
            sum.without_hook += one.without_hook;
            sum.unchecked += one.unchecked;
        }
        return Ok(sum);
    }
    let session = base.session()?;
    super::chosen(&session.config()?, &check.scope.names)?;
    let mut one = of_one(&session)?;
    one.measures.retain(|measure| check.scope.names.is_empty() || check.scope.names.contains(&measure.mirror));
    Ok(one)
}

fn of_one(session: &Session<'_>) -> anyhow::Result<Judged> {
    let config = session.config()?;
    let measures = measure::measures(session)?;
    let needs_hook = config.hook != HookSetting::None && !measures.is_empty();
    Ok(Judged {
        configured: config.mirrors.len(),
        silent: usize::from(config.is_silent && !measures.is_empty()),
        without_hook: usize::from(needs_hook && !matches!(install::state(&session.repository), Ok(State::Live(_)))),
        unchecked: config.mirrors.iter().filter(|mirror| is_unchecked(session, mirror)).count(),
        unreadable: 0,
        missing_roots: 0,
        measures,
    })
}

/// Whether an upstream that is to be checked by the clock was not checked for twice the longest time between two checks.
fn is_unchecked(session: &Session<'_>, mirror: &Mirror) -> bool {
    let longest = match mirror.pull.interval {
        _ if !mirror.takes() || !mirror.is_enabled => return false,
        Interval::None => return false,
        Interval::Auto => mirror.pull.max_check_interval,
        Interval::Every(period) => period,
    };
    let layout = session.repository.layout();
    let directory = layout.remote(&mirror.name);
    let last = status::of(&layout, mirror).ok().and_then(|status| status::last_check(&directory, &status, now()));
    last.is_some_and(|last| now().duration_since(last).unsigned_abs() > 2 * longest)
}

/// Prints the line, and returns the exit status.
fn answer(judged: &Judged, check: &args::Check, out: &mut dyn Write) -> anyhow::Result<u8> {
    let Judged { measures, configured, silent, without_hook, unchecked, unreadable, missing_roots } = judged;
    let now = now();
    let is = |wanted: UpdateStatus| measures.iter().filter(move |measure| measure.status.update_status == wanted);
    let is_waiting = |measure: &&Measure| measure.status.attempts > 0;
    let (failed, never) = (is(UpdateStatus::Failed).count(), is(UpdateStatus::None).count());
    let waiting = is(UpdateStatus::Scheduled).filter(is_waiting).count();
    let pending: usize = measures.iter().map(|measure| measure.backlog.pushes).sum();
    // Each mirror repeats the number of its repository. So each repository is counted once.
    let corrupt: BTreeMap<_, usize> = measures.iter().map(|measure| (&measure.repository, measure.corrupt)).collect();
    let corrupt: usize = corrupt.values().sum();
    let oldest = measures.iter().map(|measure| measure.oldest_pending(now)).max().unwrap_or(0);
    let (warning, critical) = (check.warning.as_secs(), check.critical.as_secs());
    let level = match () {
        () if failed > 0 || oldest >= critical => 2,
        () if *unreadable + *missing_roots > 0 || *configured == 0 => UNKNOWN,
        () if waiting + never + corrupt + silent + without_hook + unchecked > 0 || oldest >= warning => 1,
        () => 0,
    };
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(level)];
    let right = is(UpdateStatus::Finished).filter(|measure| measure.backlog.pushes == 0).count();
    let mut said = vec![match (configured, measures.len()) {
        (0, _) if *unreadable == 0 => "no mirror is configured".to_owned(),
        (0, _) => "nothing could be read".to_owned(),
        (_, 0) => "every mirror is disabled".to_owned(),
        (_, all) => format!("{right} of {all} mirrors up to date"),
    }];
    if let Some(worst) = is(UpdateStatus::Failed).chain(is(UpdateStatus::Scheduled).filter(is_waiting)).next() {
        let error = worst.status.last_error.as_deref().unwrap_or_default().replace('|', " ");
        said.push(format!("{} of '{}': {error}", worst.mirror, worst.repository));
    } else if oldest >= warning {
        said.push(format!("a push waits for {oldest} seconds"));
    }
    for (count, one, many) in [
        (never, "mirror was never tried", "mirrors were never tried"),
        (*silent, "repository is silent: nothing is sent", "repositories are silent: nothing is sent"),
        (
            *without_hook,
            "repository has no hook: its pushes are not recorded",
            "repositories have no hook: their pushes are not recorded",
        ),
        (*unchecked, "upstream was not checked for long", "upstreams were not checked for long"),
        (corrupt, "spool record could not be read", "spool records could not be read"),
        (*unreadable, "repository could not be read", "repositories could not be read"),
        (*missing_roots, "root does not exist", "roots do not exist"),
    ] {
        if count > 0 {
            said.push(render::counted(count, one, many));
        }
    }
    writeln!(
        out,
        "MIRRORS {word} - {} | mirrors={} failed={failed};;0 waiting={waiting};0 pending={pending} \
         oldest={oldest}s;{warning};{critical} corrupt={corrupt};0",
        said.join("; "),
        measures.len(),
    )?;
    Ok(level)
}
