//! `check`: an answer for monitoring systems, in the manner of the monitoring plugins: one line, then `|` and numbers;
//! 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use std::io::Write;

use super::args::{self, Global};
use super::{Base, Session, measure, now, render};
use crate::config::{Environment, HookSetting, Interval, Mirror};
use crate::credentials::Redactor;
use crate::fleet::{Counts, Look, Only, Shown};
use crate::install::{self, State};
use crate::status::{self, Standing, Summary, UpdateStatus};

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
            let text = Redactor::default().clean(&format!("{error:#}")).replace(['\n', '|'], " ");
            writeln!(out, "MIRRORS UNKNOWN - {text}")?;
            Ok(UNKNOWN)
        }
    }
}

/// What the answer depends on: the sums over all mirrors and repositories.
#[derive(Default)]
struct Judged {
    /// How many mirrors are configured, disabled ones too.
    configured: usize,
    /// How many are enabled.
    enabled: usize,
    /// How many of the enabled mirrors are up to date and have no push waiting.
    right: usize,
    failed: usize,
    /// How many wait for another attempt.
    retrying: usize,
    never: usize,
    pending: usize,
    /// The age of the oldest push that is not mirrored yet, in seconds.
    oldest: u64,
    /// Spool records that could not be read.
    corrupt: usize,
    /// The worst mirror, and its error: the first failed one, or else (only with `--fleet`) the
    /// first unreadable one, or else the first that waits for another attempt.
    worst: Option<(Standing, String)>,
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
    /// How many nodes of the fleet are gone.
    gone: usize,
    /// How many URLs more than one mirror of the fleet pushes to.
    twins: usize,
}

impl Judged {
    /// Adds what is judged of another repository.
    fn add(&mut self, other: Self) {
        self.configured += other.configured;
        self.enabled += other.enabled;
        self.right += other.right;
        self.failed += other.failed;
        self.retrying += other.retrying;
        self.never += other.never;
        self.pending += other.pending;
        self.oldest = self.oldest.max(other.oldest);
        self.corrupt += other.corrupt;
        self.silent += other.silent;
        self.without_hook += other.without_hook;
        self.unchecked += other.unchecked;
        self.propose(other.worst);
    }

    fn propose(&mut self, new: Option<(Standing, String)>) {
        let is_worse = |(new, _): &(Standing, String)| self.worst.as_ref().is_none_or(|(old, _)| new < old);
        self.worst = new.filter(is_worse).or(self.worst.take());
    }

    fn add_mirror(&mut self, repository: &str, mirror: &Summary) {
        self.enabled += 1;
        self.right += usize::from(mirror.is_right());
        self.failed += usize::from(mirror.standing == Standing::Failing);
        self.retrying += usize::from(mirror.standing == Standing::Retrying);
        self.never += usize::from(mirror.update_status == UpdateStatus::None);
        self.pending += mirror.backlog.pushes;
        self.oldest = self.oldest.max(mirror.oldest_pending(now()));
        // All mirrors of a repository have the same number: that of the repository.
        self.corrupt = mirror.corrupt;
        if matches!(mirror.standing, Standing::Failing | Standing::Retrying) {
            let error = mirror.error.as_deref().unwrap_or_default().replace('|', " ");
            self.propose(Some((mirror.standing, format!("{} of '{repository}': {error}", mirror.name))));
        }
    }
}

fn judged(base: &Base, check: &args::Check) -> anyhow::Result<Judged> {
    if check.fleet {
        return of_fleet(base);
    }
    if check.scope.all {
        let mut sum = Judged { missing_roots: base.server.missing_roots().count(), ..Judged::default() };
        sum.unreadable =
            base.take_every(&|path| base.ask_in(path, &|session| of_one(session, &[])), &mut |_, one| {
                sum.add(one);
                Ok(())
            })?;
        return Ok(sum);
    }
    let session = base.session()?;
    super::chosen(&session.config()?, &check.scope.names)?;
    of_one(&session, &check.scope.names)
}

/// Judges the copies in the database of the fleet.
fn of_fleet(base: &Base) -> anyhow::Result<Judged> {
    let mut look = Look::open(&base.fleet()?)?;
    let Counts { mirrors, pushes, oldest } = look.counts(&Only::default())?;
    let of = |state| mirrors.get(&state).copied().unwrap_or(0);
    let (configured, unreadable) = (mirrors.values().sum(), of(Standing::Unreadable));
    let worst = look.mirrors(&Only::default(), None, 1)?.pop();
    let state = worst.as_ref().and_then(Shown::state).filter(|state| *state <= Standing::Retrying);
    let text = |shown: &Shown| {
        let text =
            |key: &str| shown.shown.get(key).and_then(|value| value.as_str()).unwrap_or_default().replace('|', " ");
        format!("{} of '{}' on {}: {}", text("name"), text("repository"), shown.node, text("last_error"))
    };
    Ok(Judged {
        configured,
        enabled: configured - of(Standing::Disabled) - unreadable,
        right: of(Standing::UpToDate),
        failed: of(Standing::Failing),
        retrying: of(Standing::Retrying),
        never: of(Standing::NeverTried),
        pending: pushes,
        oldest: oldest.map_or(0, |oldest| now().duration_since(oldest).unsigned_abs().as_secs()),
        worst: worst
            .as_ref()
            .zip(state)
            .map(|(worst, state)| (state, Redactor::default().clean(&text(worst)).on_one_line().to_string())),
        unreadable,
        gone: look.nodes()?.iter().filter(|node| !node.reachable).count(),
        twins: look.twins()?.len(),
        ..Judged::default()
    })
}

fn of_one(session: &Session<'_>, names: &[String]) -> anyhow::Result<Judged> {
    let config = session.config()?;
    let is_meant = |name: &String| names.is_empty() || names.contains(name);
    let mut mirrors = measure::summaries(session)?;
    mirrors.retain(|mirror| mirror.standing != Standing::Disabled);
    let sends = config.mirrors.iter().any(|mirror| mirror.is_enabled && mirror.sends());
    let needs_hook = config.hook != HookSetting::None && sends;
    let mut one = Judged {
        configured: config.mirrors.len(),
        silent: usize::from(config.is_silent && !mirrors.is_empty()),
        without_hook: usize::from(needs_hook && !matches!(install::state(&session.repository), Ok(State::Live(_)))),
        unchecked: config.mirrors.iter().filter(|one| is_meant(&one.name) && is_unchecked(session, one)).count(),
        ..Judged::default()
    };
    let repository = session.repository.git_dir().display().to_string();
    mirrors.iter().filter(|mirror| is_meant(&mirror.name)).for_each(|mirror| one.add_mirror(&repository, mirror));
    Ok(one)
}

/// Whether the last check of an upstream is longer ago than twice the longest time between checks.
/// `false` if it was never checked, or is checked only when asked.
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
    let Judged { configured, enabled, right, failed, retrying, never, pending, oldest, corrupt, .. } = *judged;
    let Judged { silent, without_hook, unchecked, unreadable, missing_roots, gone, twins, .. } = *judged;
    let (warning, critical) = (check.warning.as_secs(), check.critical.as_secs());
    let level = match () {
        () if failed + gone > 0 || oldest >= critical => 2,
        () if unreadable + missing_roots > 0 || configured == 0 => UNKNOWN,
        () if retrying + never + corrupt + silent + without_hook + unchecked + twins > 0 || oldest >= warning => 1,
        () => 0,
    };
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::from(level)];
    let mut said = vec![match (configured, enabled) {
        (0, _) if unreadable == 0 => "no mirror is configured".to_owned(),
        (0, _) => "nothing could be read".to_owned(),
        (_, 0) => "every mirror is disabled".to_owned(),
        (_, all) => format!("{right} of {all} mirrors up to date"),
    }];
    if let Some((_, text)) = &judged.worst {
        said.push(text.clone());
    } else if oldest >= warning {
        said.push(format!("a push waits for {oldest} seconds"));
    }
    for (count, one, many) in [
        (never, "mirror was never tried", "mirrors were never tried"),
        (silent, "repository is silent: nothing is sent", "repositories are silent: nothing is sent"),
        (
            without_hook,
            "repository has no hook: its pushes are not recorded",
            "repositories have no hook: their pushes are not recorded",
        ),
        (unchecked, "upstream was last checked too long ago", "upstreams were last checked too long ago"),
        (corrupt, "spool record could not be read", "spool records could not be read"),
        (unreadable, "repository could not be read", "repositories could not be read"),
        (missing_roots, "root does not exist", "roots do not exist"),
        (gone, "node is gone", "nodes are gone"),
        (twins, "URL has more than one mirror", "URLs have more than one mirror"),
    ] {
        if count > 0 {
            said.push(render::counted(count, one, many));
        }
    }
    writeln!(
        out,
        "MIRRORS {word} - {} | mirrors={} failed={failed};;0 waiting={retrying};0 pending={pending} \
         oldest={oldest}s;{warning};{critical} corrupt={corrupt};0",
        said.join("; "),
        enabled,
    )?;
    Ok(level)
}
