//! `--all`: the commands that cover every repository below the server's roots.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::each::said_as_owner;
use super::progress::Bars;
use super::protect::end_of_silence;
use super::update::Asked;
use super::{BEHIND, Base, DONE, hook, measure, now, print_json, render, talk, update};
use crate::config::HookSetting;
use crate::drain::{self, Mode, Report};
use crate::install::Done;
use crate::owner::Hands;
use crate::push::Progress;
use crate::schedule::{self, Every};
use crate::wire::Pool;

/// The number of mirrors for each result of a run. A repository that could not be served counts as one mirror that is behind.
#[derive(Default)]
struct Sums {
    well: AtomicUsize,
    behind: AtomicUsize,
    waiting: AtomicUsize,
}

impl Sums {
    fn count(&self, report: &Report) {
        let sum = match (report.is_behind(), report.is_attempted) {
            (true, _) => &self.behind,
            (false, true) => &self.well,
            (false, false) => &self.waiting,
        };
        sum.fetch_add(1, Ordering::Relaxed);
    }

    /// Prints the last line of a run. Prints nothing if nothing was due.
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let [well, behind, waiting] = [&self.well, &self.behind, &self.waiting].map(|sum| sum.load(Ordering::Relaxed));
        if well + behind + waiting == 0 {
            return Ok(());
        }
        writeln!(out, "{well} up to date, {behind} not up to date, {waiting} waiting")
    }
}

/// Drains, syncs or plans.
pub(super) fn drain(base: &Base, asked: Asked<'_>, out: &mut (dyn Write + Send)) -> anyhow::Result<u8> {
    let (mode, repositories) = (asked.mode, base.repositories()?);
    if base.server.top.silent == Some(true) && mode != Mode::Plan {
        base.say(&format!("silent: nothing leaves this machine; {}", end_of_silence(base)));
    }
    let (sums, reports) = (Sums::default(), Mutex::new(Vec::new()));
    let printed = Mutex::new((out, std::io::Result::Ok(())));
    let bars = Bars::start_for_many(base).filter(|_| mode != Mode::Plan);
    let on_begin = |git_dir: &Path, mirror: &str, progress: Arc<Progress>| {
        let name = git_dir.file_name().unwrap_or_default().to_string_lossy();
        bars.iter().for_each(|bars| bars.add(&format!("{name} to {mirror}"), Arc::clone(&progress)));
    };
    let on_report = |report: Result<Report, (PathBuf, drain::Error)>| match report {
        Ok(report) => {
            sums.count(&report);
            bars.iter().for_each(Bars::count);
            if base.global.json {
                reports.lock().push(report);
                return;
            }
            let (out, result) = &mut *printed.lock();
            let mut print = || render::report_of_many(base, &report, mode, *out);
            let shown = if let Some(bars) = &bars { bars.suspend(print) } else { print() };
            // If standard output is closed or full, the mirroring goes on, and the first error is reported at the end.
            *result = std::mem::replace(result, Ok(())).and(shown);
        }
        Err((path, error)) => {
            sums.behind.fetch_add(1, Ordering::Relaxed);
            let say = || talk(&format!("error: '{}': {error}", path.display()));
            if let Some(bars) = &bars { bars.suspend(say) } else { say() }
        }
    };
    run(base, &asked, repositories, &on_begin, &on_report);
    drop(bars);
    let (out, result) = printed.into_inner();
    let mut result = result.map_err(anyhow::Error::from);
    if base.global.json {
        result = result.and(print_sorted(reports.into_inner(), out));
    } else if !base.global.quiet && mode != Mode::Plan {
        result = result.and(sums.print(out).map_err(anyhow::Error::from));
    }
    write_metrics(base, mode);
    result?;
    Ok(if sums.behind.load(Ordering::Relaxed) > 0 || base.lacks_roots() { BEHIND } else { DONE })
}

/// Plans the syncs of all mirrors of these repositories.
pub(super) fn plan(base: &Base, repositories: Vec<PathBuf>, on_report: schedule::OnReport<'_>) {
    run(base, &Mode::Plan.into(), repositories, &|_, _, _| {}, on_report);
}

fn run(
    base: &Base,
    asked: &Asked<'_>,
    repositories: Vec<PathBuf>,
    on_begin: schedule::OnRun<'_>,
    on_report: schedule::OnReport<'_>,
) {
    let every = Every {
        server: &base.server,
        mode: asked.mode,
        adopts: asked.adopts,
        creates: asked.creates,
        restore: asked.restore,
        pool: &Pool::default(),
        unchanged: update::unchanged(base),
        now,
        since: None,
        random: update::random,
        reconcile: None,
        parked: &|_, _| None,
        on_nothing: &|_, _| {},
        on_scan: &|_, scan| {
            scan();
        },
        on_begin,
        on_report,
    };
    schedule::drain_every(repositories, &every);
}

fn print_sorted(mut reports: Vec<Report>, out: &mut dyn Write) -> anyhow::Result<()> {
    reports.sort_by(|a, b| (&a.repository, &a.remote).cmp(&(&b.repository, &b.remote)));
    print_json(out, &reports.iter().map(update::Json::from).collect::<Vec<_>>())
}

fn write_metrics(base: &Base, mode: Mode) {
    let written = base
        .server
        .top
        .metrics_file
        .as_ref()
        .filter(|_| mode != Mode::Plan)
        .map(|file| measure::write_every(base, file));
    if let Some(Err(error)) = written {
        base.warn(&format!("{error:#}"));
    }
}

/// The result of installing the hook in one repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Installed {
    Now,
    Before,
    /// `hook = "none"`
    Unwanted,
    /// A child with the owner's rights did what was wanted.
    ByOwner,
}

/// Installs the hook in every repository, except where `hook = "none"`.
pub(super) fn install_hook(base: &Base) -> anyhow::Result<u8> {
    let install = |session: &super::Session<'_>| {
        crate::config::authorise(&session.repository, &base.server)?;
        if session.config()?.hook == HookSetting::None {
            return Ok(Installed::Unwanted);
        }
        session.editor().prepare()?;
        let is_new = matches!(hook::ensure(session)?, Done::Installed(_));
        Ok(if is_new { Installed::Now } else { Installed::Before })
    };
    let as_owner = |path: &Path| {
        let said = said_as_owner(base, path, Hands::Nothing, &["-q", "install-hook", "--if-wanted"])?;
        Some(said.map(|_| Installed::ByOwner))
    };
    let (installed, bad) = base.act_in_every(&install, &as_owner)?;
    let count = |wanted: Installed| installed.iter().filter(|found| **found == wanted).count();
    let new = render::counted(count(Installed::Now), "repository", "repositories");
    let mut said = format!("installed the hook in {new}; {} had it already", count(Installed::Before));
    for (kind, words) in [(Installed::Unwanted, "hook = \"none\" in"), (Installed::ByOwner, "left to their owners:")] {
        if count(kind) > 0 {
            said.push_str(&format!("; {words} {}", count(kind)));
        }
    }
    base.say(&said);
    Ok(if bad > 0 || base.lacks_roots() { BEHIND } else { DONE })
}
