//! `--all`: the commands that cover every repository below the server's roots.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::progress::Bars;
use super::update::Asked;
use super::{BEHIND, Base, DONE, hook, measure, now, print_json, render, status, talk, update};
use crate::config::HookSetting;
use crate::drain::{self, Mode, Report};
use crate::install::Done;
use crate::owner::{Hands, Owner};
use crate::push::Progress;
use crate::repo;
use crate::schedule::{self, Every};
use crate::status::{UpdateStatus, View};
use crate::wire::Pool;

impl Base {
    /// Every repository below the roots. Prints warnings about the roots. Refuses templates that give two repositories the same URL.
    pub(super) fn repositories(&self) -> anyhow::Result<Vec<PathBuf>> {
        let repositories = self.server.repositories()?;
        self.server.remarks(&repositories).iter().for_each(|remark| self.warn(remark));
        self.server.check_urls_of(&repositories)?;
        Ok(repositories)
    }

    /// Whether a root is not there, so that `--all` does not cover all.
    pub(super) fn lacks_roots(&self) -> bool {
        self.server.missing_roots().next().is_some()
    }

    /// Asks every repository, in a few threads. The answers are in the order of the repositories. Repositories that cannot be read are
    /// reported, counted and left out.
    pub(super) fn ask_every<T: Send>(
        &self,
        ask: &(dyn Fn(&super::Session<'_>) -> anyhow::Result<T> + Sync),
    ) -> anyhow::Result<(Vec<T>, usize)> {
        self.act_in_every(ask, &|_| None)
    }

    /// Does something in every repository, as [`Base::ask_every`]. Where root must not act itself, `as_owner` runs a child process with the
    /// owner's rights, and makes the answer from its output.
    pub(super) fn act_in_every<T: Send>(
        &self,
        ask: &(dyn Fn(&super::Session<'_>) -> anyhow::Result<T> + Sync),
        as_owner: AsOwner<'_, T>,
    ) -> anyhow::Result<(Vec<T>, usize)> {
        Ok(self.act_in(&self.repositories()?, ask, as_owner))
    }

    /// The same in these repositories.
    pub(super) fn act_in<T: Send>(
        &self,
        repositories: &[PathBuf],
        ask: &(dyn Fn(&super::Session<'_>) -> anyhow::Result<T> + Sync),
        as_owner: AsOwner<'_, T>,
    ) -> (Vec<T>, usize) {
        let (next, answers) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(repositories.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(path) = repositories.get(index) else { return };
                        let answer = match as_owner(path) {
                            Some(answer) => answer,
                            None => repo::open_listed(path)
                                .map_err(Into::into)
                                .and_then(|shared| ask(&self.session_at(shared))),
                        };
                        answers.lock().push((index, answer));
                    }
                });
            }
        });
        let mut answers = answers.into_inner();
        answers.sort_by_key(|(index, _)| *index);
        let (mut good, mut bad) = (Vec::new(), 0);
        for (index, answer) in answers {
            match answer {
                Ok(answer) => good.push(answer),
                Err(error) => {
                    bad += 1;
                    talk(&format!("error: '{}': {error:#}", repositories[index].display()));
                }
            }
        }
        (good, bad)
    }
}

/// Acts in a repository with its owner's rights. `None` where that is not needed.
pub(super) type AsOwner<'a, T> = &'a (dyn Fn(&Path) -> Option<anyhow::Result<T>> + Sync);

/// Runs a command of this program in a child process with the rights of the repository's owner. Returns what the command printed. `None`
/// where no such child is needed.
pub(super) fn said_as_owner(
    base: &Base,
    git_dir: &Path,
    hands: Hands,
    arguments: &[&str],
) -> Option<anyhow::Result<Vec<u8>>> {
    let owner = Owner::of(git_dir, &base.server)?;
    let run = || {
        let mut asked = owner.command(git_dir, &base.server, hands)?;
        asked.command.args(arguments);
        Ok(asked.output()?)
    };
    Some(run())
}

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

    /// The last line of a run; nothing when nothing was due.
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
        base.say("silent: nothing leaves this machine");
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
    let (out, mut result) = printed.into_inner();
    if base.global.json {
        print_sorted(reports.into_inner(), out)?;
    } else if !base.global.quiet && mode != Mode::Plan {
        result = result.and(sums.print(out));
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

/// How many mirrors that are not up to date are listed one by one.
const MAX_SHOWN: usize = 20;

/// Shows the status of all mirrors: a count of each state, then the mirrors that are not up to date. Failed mirrors come first, then those
/// that wait or run. In each group, the mirror whose last success is oldest comes first. With `-v`, all other mirrors follow.
pub(super) fn status(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (views, bad) = base.ask_every(&|session| status::views(session, &session.config()?, &[]))?;
    let mut views: Vec<View> = views.into_iter().flatten().collect();
    let is_behind = bad > 0 || base.lacks_roots() || views.iter().any(status::is_behind);
    if base.global.json {
        print_json(out, &views)?;
        return Ok(if is_behind { BEHIND } else { DONE });
    }
    let count = |wanted: fn(&View) -> bool| views.iter().filter(|view| wanted(view)).count();
    writeln!(
        out,
        "{} mirrors: {} finished, {} failed, {} scheduled, {} started, {} never tried, {} disabled",
        views.len(),
        count(|view| view.enabled && view.update_status == UpdateStatus::Finished),
        count(|view| view.enabled && view.update_status == UpdateStatus::Failed),
        count(|view| view.enabled && view.update_status == UpdateStatus::Scheduled),
        count(|view| view.enabled && view.update_status == UpdateStatus::Started),
        count(|view| view.enabled && view.update_status == UpdateStatus::None),
        count(|view| !view.enabled),
    )?;
    let is_shown = |view: &View| base.global.verbose > 0 || status::is_behind(view);
    views.retain(is_shown);
    let rank = |view: &View| match view.update_status {
        UpdateStatus::Failed => 0,
        UpdateStatus::Scheduled | UpdateStatus::Started => 1,
        UpdateStatus::None | UpdateStatus::Finished => 2,
    };
    views.sort_by(|a, b| (rank(a), &a.last_successful_update_at).cmp(&(rank(b), &b.last_successful_update_at)));
    let most = if base.global.verbose > 0 { usize::MAX } else { MAX_SHOWN };
    for view in views.iter().take(most) {
        render::row(base, view, out)?;
    }
    if views.len() > most {
        writeln!(out, "and {} more; -v shows them all", views.len() - most)?;
    }
    Ok(if is_behind { BEHIND } else { DONE })
}

/// What installing the hook in one repository did.
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
