//! Taking refs: commands to our own `git receive-pack`. So git itself does the leases, the
//! quarantine, fsck, the hooks and the connectivity check. The lease (old value) of each command is
//! our value that the plan saw.
//!
//! Settings that are meant for people (`receive.denyNonFastForwards`, `receive.denyDeletes`) do not stop an update that the rules decided.
//! Git hands our settings on to the hooks; our hook removes them before it starts a drain, and `wire` before it starts a receive-pack.
//!
//! If we are killed, the receive-pack and its hooks may go on. Its process is noted in the mirror's directory (`receive-pack`), and the
//! next run ends it before it reads our refs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tempfile::TempDir;

use super::Pull;
use crate::config::{HookSetting, Hooks, Mirror};
use crate::credentials::Redactor;
use crate::drain::refusal::Refusals;
use crate::drain::update::UpdateResult;
use crate::drain::{Error, kept};
use crate::durable;
use crate::install::{self, State};
use crate::mirror::new_id;
use crate::plan::{Action, Decision};
use crate::process::{self, git};
use crate::push::{Answer, Command, DeltaBase, Incomplete, PackObjects, PackSource, Report, Request, Session};
use crate::refs::{Oid, RefName, RefUpdate};
use crate::replies::Cause;
use crate::repo::Repository;
use crate::spool::{self, Record};
use crate::status::{Held, Outcome, RefOutcome, Runner};
use crate::wire::Own;

/// The file in a mirror's directory that names the receive-pack at work.
const RUNNER: &str = "receive-pack";
/// The hooks that may refuse an update.
const POLICY: [&str; 3] = ["pre-receive", "update", "reference-transaction"];
/// On average, one run in this many lets git collect garbage. The number of a run is a time in
/// milliseconds, so its remainder is as good as random.
const GC_EVERY: u64 = 16;
/// After how many refs in one run all refs are packed.
const MANY: usize = 1000;
/// How long git may take to pack them.
const LIMIT: Duration = Duration::from_secs(600);
/// How long the receive-pack of a killed run may take to end without a signal.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take after each signal.
const GRACE: Duration = Duration::from_secs(10);

/// What our receive-pack does with a branch whose new value does not contain the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forced {
    /// It sets the branch, because the plan decided so.
    Set,
    /// It refuses the update.
    Refused,
}

/// Where the objects of taken refs are.
pub(super) struct Objects<'s> {
    /// A repository that has all of them: the stage, or our own if nothing is missing.
    pub(super) repository: &'s Repository,
    /// The pack that holds exactly what is missing here, if there is one.
    pub(super) pack: Option<std::path::PathBuf>,
    /// The values of all our refs, whose objects need not be sent.
    pub(super) haves: &'s std::collections::HashMap<Oid, u32>,
}

impl Pull<'_> {
    /// Sends the commands of `sent` to our own receive-pack, and the pack if one of them needs it.
    pub(super) fn receive(&self, sent: &[&Decision], pack: PackSource, forced: Forced) -> Result<Report, Error> {
        let null = self.repository.null_oid();
        let command = |decision: &&Decision| Command {
            old: decision.old_value().unwrap_or(null),
            new: decision.new_value().unwrap_or(null),
            name: decision.name.clone(),
        };
        let commands: Vec<Command> = sent.iter().map(command).collect();
        let hooks = self.policy()?;
        let own = self.own(hooks.as_ref().map(TempDir::path), forced);
        self.progress.begin("updating refs");
        let (mut session, pid) = Session::own(self.repository.git_dir(), &own, self.mirror.timeouts)?;
        self.note_runner(pid)?;
        session.advertisement(&mut |_, _| {})?;
        let request = Request {
            commands: &commands,
            shallow: &[],
            push_options: &[],
            is_atomic: false,
            progress: Some(&self.progress),
        };
        let pack = request.needs_pack().then_some(pack);
        let report = session.push(&request, pack);
        durable::remove_if_there(&self.runner_file())
            .map_err(Error::files("remove the note of a process", self.runner_file()))?;
        Ok(report?)
    }

    /// The pack for `sent`.
    pub(super) fn pack(&self, sent: &[&Decision], objects: &Objects<'_>) -> Result<PackSource, Error> {
        let mut tips: Vec<Oid> = sent.iter().filter_map(|decision| decision.new_value()).collect();
        tips.sort_unstable();
        tips.dedup();
        if let Some(pack) = &objects.pack {
            let opened = durable::open_to_read(pack).map_err(Error::files("read the staged pack", pack.clone()))?;
            return Ok(PackSource::File(Arc::new(opened.0)));
        }
        if let Some(pack) = objects.repository.small_pack(&tips, objects.haves) {
            return Ok(PackSource::Made(pack, Arc::default()));
        }
        let haves = objects.repository.boundary(&tips, objects.haves);
        Ok(PackSource::Program(PackObjects {
            git_dir: objects.repository.git_dir().to_owned(),
            tips,
            haves,
            ofs_delta: true,
            incomplete: Incomplete::default(),
            base: DeltaBase::Anywhere,
            progress: Arc::default(),
        }))
    }

    /// How our receive-pack runs: which hooks it finds, and what they see.
    fn own(&self, policy: Option<&Path>, forced: Forced) -> Own {
        let pull = &self.mirror.pull;
        let forced = format!("receive.denyNonFastForwards={}", forced == Forced::Refused);
        let mut settings = vec![forced, "receive.denyDeletes=false".to_owned()];
        if let Some(size) = pull.max_input_size {
            settings.push(format!("receive.maxInputSize={size}"));
        }
        if let Some(policy) = policy {
            settings.push(format!("core.hooksPath={}", policy.display()));
        }
        if pull.hooks == Hooks::None || self.stands_for_hook() {
            settings.push("core.hooksPath=/dev/null".into());
        }
        // To check new objects, git runs a command that lists the refs of each alternate of its
        // quarantine. The only alternate is this repository, whose refs git has already, so the
        // command lists none.
        if !self.repository.git_dir().join("objects/info/alternates").exists() {
            settings.push("core.alternateRefsCommand=true".into());
        }
        // After every push, git looks whether there is garbage to collect. That can wait for a few
        // runs.
        if self.mirrored.exists() && !self.before.generation.is_multiple_of(GC_EVERY) {
            settings.push("receive.autogc=false".into());
        }
        let mut environment = vec![("GIT_MIRROR_PUSH_PULL".to_owned(), self.mirror.name.clone())];
        environment.extend(pull.hook_environment.iter().map(|(name, value)| (name.clone(), value.clone())));
        Own { settings, environment }
    }

    /// With `hooks = "policy"`, a directory that only we can enter, with links to the hooks that may refuse.
    fn policy(&self) -> Result<Option<TempDir>, Error> {
        if self.mirror.pull.hooks != Hooks::Policy {
            return Ok(None);
        }
        let parent = self.repository.layout().remote(&self.mirror.name);
        let from = self.repository.hooks_directory()?;
        let link = || {
            let made = durable::private_directory_named(&parent, "incoming.hooks.")?;
            for name in POLICY.iter().filter(|name| from.join(name).exists()) {
                std::os::unix::fs::symlink(from.join(name), made.path().join(name))?;
            }
            Ok(made)
        };
        link().map(Some).map_err(Error::files("link the hooks", parent.clone()))
    }

    /// Records every answer. Returns the refs that are to be decided again.
    pub(super) fn read_answers(
        &self,
        sent: &[&Decision],
        mut report: Report,
        refusals: &mut Refusals,
        result: &mut UpdateResult,
    ) -> Vec<RefName> {
        let mut again = Vec::new();
        let cut = report.cut.as_ref().map(|cut| Redactor::default().clean(&cut.to_string()));
        let is_split = report.cut.is_none() && refusals.bisect(sent, &report, false);
        for decision in sent {
            let outcome = match report.answers.remove(&decision.name) {
                Some(Answer::Done) => {
                    let now = decision.remote.map(Held::at).unwrap_or_default();
                    result.held.insert(decision.name.clone(), now);
                    RefOutcome::of(decision)
                }
                Some(Answer::Refused(message)) => {
                    let is_passing = Cause::Locked.is_in(&message) || Cause::DiskFull.is_in(&message);
                    let outcome = if is_passing { Outcome::RemoteFailed } else { Outcome::Rejected };
                    let outcome = RefOutcome::new(decision, outcome, Some(message));
                    if is_split || refusals.note(decision, &outcome) {
                        again.push(decision.name.clone());
                    }
                    outcome
                }
                None => {
                    let why = "git receive-pack's report does not mention it";
                    refusals.unanswered(decision, cut.as_ref(), why)
                }
            };
            // The outcome names the ref that keeps the value only if the value was replaced.
            let kept_as = result.outcomes.get(&decision.name).and_then(|before| before.kept_as.clone());
            let kept_as = kept_as.filter(|_| outcome.outcome.is_done());
            result.outcomes.insert(decision.name.clone(), RefOutcome { kept_as, ..outcome });
        }
        if let Some(cut) = report.cut {
            result.error = Some(cut.into());
        }
        again
    }

    /// Spools what was taken, so that every push mirror gets it, unless our hook spooled it. Also
    /// spools `moved`, which earlier runs may have taken. Returns whether it wrote a record.
    pub(super) fn spool(&self, taken: &[&Decision], moved: Vec<RefUpdate>) -> Result<bool, Error> {
        let is_onward = |other: &Mirror| other.is_enabled && other.sends() && other.name != self.mirror.name;
        let has_onward = self.context.config.mirrors.iter().any(is_onward);
        if !has_onward {
            return Ok(false);
        }
        let null = self.repository.null_oid();
        let mut updates: Vec<RefUpdate> = Vec::new();
        if !self.is_spooled_by_hook() {
            updates.extend(taken.iter().map(|decision| RefUpdate {
                old: decision.local.unwrap_or(null),
                new: decision.remote.unwrap_or(null),
                name: decision.name.clone(),
            }));
        }
        updates.extend(moved);
        if updates.is_empty() {
            return Ok(false);
        }
        const MANY: usize = 10_000;
        let id = new_id((self.context.now)());
        let record = if updates.len() > MANY { Record::full(id.time) } else { Record::of(id.time, updates) };
        let layout = self.repository.layout();
        spool::begin(&layout, id, &record)
            .and_then(spool::Entering::finish)
            .map(|()| true)
            .map_err(Error::files("spool what was taken", layout.spool()))
    }

    /// Whether git would run our hook and no other. Then git runs no hook, and this run does the
    /// work of the hook itself.
    fn stands_for_hook(&self) -> bool {
        let is_alone = || install::is_alone(self.repository).unwrap_or(false);
        self.mirror.pull.hooks == Hooks::All && *self.hook.get_or_init(is_alone)
    }

    /// Whether the post-receive hook that ran records what was taken.
    fn is_spooled_by_hook(&self) -> bool {
        self.mirror.pull.hooks == Hooks::All
            && !self.stands_for_hook()
            && self.context.config.hook == HookSetting::PostReceive
            && matches!(install::state(self.repository), Ok(State::Live(_)))
    }

    fn runner_file(&self) -> std::path::PathBuf {
        self.repository.layout().remote(&self.mirror.name).join(RUNNER)
    }

    fn note_runner(&self, pid: u32) -> Result<(), Error> {
        let path = self.runner_file();
        let text = serde_json::to_vec(&Runner::of(pid)).expect("memory takes it");
        let sharing = self.repository.sharing();
        durable::replace_unsynced(&path, &text, |file| sharing.publish(file))
            .map_err(Error::files("note a process", path))
    }

    /// Packs all refs after a run that took many: receive-pack leaves each in a file of its own, which every later check would open. An error
    /// is only logged, because the refs are there.
    pub(super) fn pack_refs(&self, taken: &[Decision]) {
        if taken.len() < MANY {
            return;
        }
        self.progress.begin("packing refs");
        let arguments = ["-c", "core.hooksPath=/dev/null", "pack-refs", "--all"];
        let packed = process::run("git pack-refs", &mut git(self.repository.git_dir(), &arguments), b"", LIMIT);
        if let Err(error) = packed {
            tracing::warn!("mirror '{}': {error}", self.mirror.name);
        }
    }

    /// Ends what a killed run left: its receive-pack, with the hooks that it runs.
    pub(super) fn end_left(&self) -> Result<(), Error> {
        let path = self.runner_file();
        let text = match durable::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(Error::files("read the note of a process", path.clone()))?.0,
        };
        if let Ok(runner) = serde_json::from_slice::<Runner>(&text)
            && runner.is_alive()
            && let Some(group) = Pid::from_raw(runner.pid.cast_signed())
        {
            // It may be setting refs, and a signal could then leave locks behind. If it takes
            // longer than this, it is waiting for a hook.
            if !has_ended(group, PATIENCE) {
                tracing::warn!("git receive-pack of a run that was killed still runs; it gets a signal");
                for signal in [Signal::TERM, Signal::KILL] {
                    let _ = kill_process_group(group, signal);
                    if has_ended(group, GRACE) {
                        break;
                    }
                }
            }
        }
        durable::remove_if_there(&path).map_err(Error::files("remove the note of a process", path))
    }
}

/// Waits until no process of a group is left. Returns false if that takes longer than `limit`.
fn has_ended(group: Pid, limit: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(20);
    (0..limit.as_millis() / STEP.as_millis()).any(|_| {
        let is_gone = test_kill_process_group(group).is_err();
        if !is_gone {
            std::thread::park_timeout(STEP);
        }
        is_gone
    })
}

/// Refuses to run hooks that another user wrote, and to take refs in another user's repository: git would run its hooks as us.
pub(super) fn check_hooks(repository: &Repository, mirror: &Mirror) -> Result<(), Error> {
    kept::check_owner(repository)?;
    if !repository.is_shared() {
        return Ok(());
    }
    if mirror.pull.hooks == Hooks::None {
        return Ok(());
    }
    let directory = repository.hooks_directory()?;
    if !kept::is_ours(&directory) {
        return kept::written_by_others(&directory);
    }
    for name in durable::list(&directory).map_err(Error::files("look at", directory.clone()))? {
        let hook = directory.join(&name);
        let file = hook.metadata().ok().filter(|file| file.is_file() && file.mode() & 0o111 != 0);
        if !name.ends_with(".sample") && file.is_some_and(|file| !durable::is_written_by_us_alone(&file)) {
            return kept::written_by_others(&hook);
        }
    }
    Ok(())
}

/// The decisions that were carried out.
pub(super) fn done<'d>(sent: &[&'d Decision], result: &UpdateResult) -> Vec<&'d Decision> {
    let is_done = |decision: &&&Decision| {
        result.outcomes.get(&decision.name).is_some_and(|outcome| outcome.outcome.is_done())
            && decision.action != Action::UpToDate
    };
    sent.iter().filter(is_done).copied().collect()
}
