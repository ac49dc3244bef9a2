//! Many repositories in one run: what there is to do is collected first, then served by host (see `schedule`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::mirror;
use super::schedule::{self, Job, Limits, Said};
use super::wait::{self, Down};
use super::{Context, Error, Host, Mode, Report, fan_out};
use crate::config::{self, Config, Mirror, Server};
use crate::repo;
use crate::spool::{self, Layout};
use crate::status;

/// How many mirrors are served at once when the server's file does not say.
const MOST_JOBS: usize = 16;
/// How many of them at one host: sshd begins to turn connections away at ten that are not yet logged in.
const MOST_JOBS_PER_HOST: usize = 8;

/// What a run over many repositories needs.
pub struct Every<'a> {
    /// The server's files.
    pub server: &'a Server,
    /// What is asked for.
    pub mode: Mode,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Chance, for the jitter of the back-off.
    pub random: fn() -> u64,
    /// Told what became of each mirror, and which repository could not be served at all.
    pub on_report: &'a (dyn Fn(Result<Report, (PathBuf, Error)>) + Sync),
}

/// Serves every mirror of `repositories` for which there is something to do.
pub fn drain_every(repositories: &[PathBuf], every: &Every<'_>) {
    let limits = Limits {
        all: every.server.max_jobs.unwrap_or(MOST_JOBS),
        per_host: every.server.max_jobs_per_host.unwrap_or(MOST_JOBS_PER_HOST),
    };
    let jobs = jobs(repositories, every);
    let serve = |job: &Job| every.serve(job);
    let put_off = |job: &Job, down: &Down| every.put_off(job, down);
    schedule::run(jobs, limits, &serve, &put_off);
}

/// Looks through the repositories in a few threads: most have nothing to do, and each costs a handful of system calls.
fn jobs(repositories: &[PathBuf], every: &Every<'_>) -> Vec<Job> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(repositories.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(git_dir) = repositories.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match every.jobs_of(git_dir) {
                        Ok(jobs) => found.lock().unwrap_or_else(PoisonError::into_inner).extend(jobs),
                        Err(error) => (every.on_report)(Err((git_dir.clone(), error))),
                    }
                }
            });
        }
    });
    let mut jobs = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    jobs.sort_unstable_by(|a, b| (&a.git_dir, &a.mirror).cmp(&(&b.git_dir, &b.mirror)));
    jobs
}

impl Every<'_> {
    fn jobs_of(&self, git_dir: &Path) -> Result<Vec<Job>, Error> {
        let layout = Layout::new(git_dir);
        if self.mode == Mode::Drain && self.is_idle(&layout, git_dir)? {
            return Ok(Vec::new());
        }
        let repository = repo::open(git_dir)?.to_local();
        let config = config::load(&repository, self.server)?;
        if config.is_silent && self.mode != Mode::Plan {
            return Ok(Vec::new());
        }
        if self.mode != Mode::Plan {
            fan_out(&repository, &self.context(&config))?;
        }
        let enabled = config.mirrors.iter().filter(|mirror| mirror.is_enabled);
        let job = |mirror: &Mirror| Job {
            git_dir: repository.git_dir().to_owned(),
            mirror: mirror.name.clone(),
            host: mirror.address.endpoint().unwrap_or_default(),
        };
        Ok(enabled.map(job).collect())
    }

    /// Whether a drain of the repository would find nothing to do, from its files alone.
    fn is_idle(&self, layout: &Layout, git_dir: &Path) -> Result<bool, Error> {
        let files = |doing| Error::files(doing, layout.root().to_owned());
        if !spool::is_empty(layout).map_err(files("read the spool"))? {
            return Ok(false);
        }
        let mirrors = spool::mirrors(layout).map_err(files("list the mirrors"))?;
        for name in &mirrors {
            let status = status::read(&layout.remote(name)).map_err(files("read the status"))?;
            let queued = spool::queued(layout, name).map_err(files("read the queue"))?;
            if status.next_attempt_at.is_some() || queued > 0 || status.is_new() {
                return Ok(false);
            }
        }
        let is_known = |name: &str| mirrors.iter().any(|known| known == name);
        let own = config::names_in(layout).map_err(files("read the configuration"))?;
        let is_placed = || self.server.place(git_dir).is_some();
        Ok(own.iter().all(|name| is_known(name)) && (self.server.template_names().all(is_known) || !is_placed()))
    }

    fn context<'c>(&'c self, config: &'c Config) -> Context<'c> {
        let on_begin = &|_: &Mirror, _| {};
        Context {
            config,
            server: self.server,
            mode: self.mode,
            only: None,
            now: self.now,
            random: self.random,
            on_begin,
        }
    }

    fn with<T>(&self, job: &Job, act: impl FnOnce(&repo::Repository, &Context<'_>) -> T) -> Result<T, Error> {
        let repository = repo::open(&job.git_dir)?.to_local();
        let config = config::load(&repository, self.server)?;
        Ok(act(&repository, &self.context(&config)))
    }

    fn serve(&self, job: &Job) -> Said<Down> {
        let served = self.with(job, |repository, context| {
            let mirror = context.config.mirror(&job.mirror)?;
            mirror::serve(repository, context, mirror)
        });
        match served {
            Ok(None) => Said::Nothing,
            Ok(Some(report)) => {
                let said = match (report.host, Down::of(&report)) {
                    (_, Some(down)) => Said::Down(down),
                    (Host::Up, None) => Said::Up,
                    _ => Said::Nothing,
                };
                (self.on_report)(Ok(report));
                said
            }
            Err(error) => {
                (self.on_report)(Err((job.git_dir.clone(), error)));
                Said::Nothing
            }
        }
    }

    fn put_off(&self, job: &Job, down: &Down) {
        let held = self.with(job, |repository, context| match context.config.mirror(&job.mirror) {
            Some(mirror) => wait::put_off(repository, context, mirror, down),
            None => Ok(None),
        });
        match held.and_then(|held| held) {
            Ok(None) => {}
            Ok(Some(report)) => (self.on_report)(Ok(report)),
            Err(error) => (self.on_report)(Err((job.git_dir.clone(), error))),
        }
    }
}
