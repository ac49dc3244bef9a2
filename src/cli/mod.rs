//! The command line: one function for each command, data on stdout, messages on stderr, git's exit statuses.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;

use crate::config::{self, Config, Environment, Mirror, Server, Wake};
use crate::drain::Mode;
use crate::owner::{self, Hands, Owner};
use crate::repo::{self, Repository};
use crate::wake;

mod args;
mod change;
mod check;
mod completions;
mod conflicts;
mod daemon;
mod doctor;
mod each;
mod every;
mod examples;
mod export;
mod failure;
mod fleet;
mod hook;
mod import;
mod kept;
mod keys;
mod log;
mod logging;
mod man;
mod measure;
mod mirrors;
mod next;
mod notes;
mod options;
mod progress;
mod protect;
mod render;
mod screen;
mod set;
mod status;
mod status_all;
mod update;

pub use daemon::{Daemon, Run};

use args::{Cli, Command, Drain, When};
use failure::Usage;
use screen::Screen;

/// Done, or nothing to do.
const DONE: u8 = 0;
/// Not everything is in order: for example, a mirror or ref is not up to date, a repository could not be read, or `doctor` found an error.
const BEHIND: u8 = 1;

/// What every command has: the common options and the server's configuration.
struct Base {
    environment: Environment,
    global: args::Global,
    server: Server,
    is_coloured: bool,
}

/// What a command on one repository needs.
struct Session<'b> {
    base: &'b Base,
    shared: repo::Shared,
    repository: Repository,
}

impl Session<'_> {
    /// Wakes the daemon, or starts a detached drain of this repository. Does neither with `wake = "none"` or in silent mode.
    fn wake(&self, config: &Config) {
        let git_dir = self.repository.git_dir();
        let is_wanted = config.wake != Wake::None && !config.is_silent && !self.base.global.no_wake;
        if !is_wanted || wake::hint(&self.base.environment.runtime_directory, git_dir) {
            return;
        }
        // `--config` is relative to the working directory, also with `-C`.
        let server = self.base.global.config.as_ref().map(|file| self.base.environment.current_dir.join(file));
        let program = &self.base.environment.credential_env.program;
        if let Err(error) = wake::start_drain(program, server.as_deref(), git_dir) {
            self.base.warn(&format!("the drain could not be started: {error}; run 'git mirror-push drain'"));
        }
    }
}

/// Runs the program; `serve` runs the daemon.
#[must_use]
pub fn main(serve: Run<'_>) -> ExitCode {
    crate::process::forbid_core_files();
    if let Err(error) = owner::become_asked() {
        talk(&format!("fatal: {error}"));
        return ExitCode::from(failure::FATAL);
    }
    if let Ok(Environment { askpass: Some(socket), .. }) = Environment::read() {
        return askpass(&socket);
    }
    // Looks at the raw arguments, because an error of the command line is printed as JSON too.
    let is_json = std::env::args_os().any(|argument| argument == "--json");
    let status = match Cli::read() {
        Ok(cli) => run(cli, serve).unwrap_or_else(|error| failure::of_command(&error, is_json)),
        Err(error) => failure::of_arguments(error, is_json),
    };
    ExitCode::from(status)
}

/// Answers ssh, which has started this program to ask for a password.
fn askpass(socket: &Path) -> ExitCode {
    let question = std::env::args().nth(1).unwrap_or_default();
    match crate::wire::answer_askpass(socket, &question, &mut io::stdout()) {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => {
            talk(&format!("git-mirror-push: {error}"));
            ExitCode::from(BEHIND)
        }
    }
}

fn run(cli: Cli, serve: Run<'_>) -> anyhow::Result<u8> {
    let environment = Environment::read()?;
    let command = cli.command.unwrap_or(Command::Drain(Drain::default()));
    logging::start(&cli.global, &environment, matches!(command, Command::Serve(_)));
    let (mut exact, mut screen) = (io::stdout(), Screen(io::stdout()));
    let is_for_programs = cli.global.json
        || matches!(command, Command::Completions(_) | Command::Man(_) | Command::Export(_) | Command::PublicKey(_));
    let out: &mut (dyn Write + Send) = if is_for_programs { &mut exact } else { &mut screen };
    match &command {
        Command::Completions(completions) => return completions::completions(completions.shell, out),
        Command::Man(man) => return man::man(man.page, out),
        Command::Check(check) => return check::check(environment, cli.global, check, out),
        Command::Drain(drain) if drain.detach && !wake::leave_session() => return Ok(DONE),
        _ => {}
    }
    let base = Base::new(environment, cli.global)?;
    if let Command::Serve(asked) = &command {
        return daemon::serve(base, asked, serve);
    }
    if let Some(status) = without_repository(&base, &command, out) {
        return status;
    }
    if let Some(status) = base.leave_to_owner(&command) {
        return status;
    }
    let session = base.session()?;
    if !only_looks(&command) {
        config::authorise(&session.repository, &session.base.server)?;
    }
    in_repository(&session, command, out)
}

/// Runs a command on one repository.
fn in_repository(session: &Session<'_>, command: Command, out: &mut dyn Write) -> anyhow::Result<u8> {
    match command {
        Command::Add(add) => mirrors::add(session, &add),
        Command::Change => change::change(session, out),
        Command::Set(set) => set::set(session, set),
        Command::Enable(name) => mirrors::enable(session, &name.name),
        Command::Disable(name) => mirrors::disable(session, &name.name),
        Command::Remove(name) => mirrors::remove(session, &name.name),
        Command::Reset(name) => mirrors::reset(session, &name.name),
        Command::List => status::list(session, out),
        Command::Show(show) => status::show(session, &show, out),
        Command::Drain(drain) => update::drain(session, &drain, out),
        Command::Pull(pull) => update::pull(session, &pull, out),
        Command::Sync(sync) => update::sync(session, &sync, out),
        Command::Plan(names) => update::plan(session, &names.names, out),
        Command::Status(asked) => status::status(session, &asked.scope.names, out),
        Command::Protect(patterns) => protect::protect(session, &patterns.patterns),
        Command::Unprotect(patterns) => protect::unprotect(session, &patterns.patterns),
        Command::Protected => protect::protected(session, out),
        Command::InstallHook(asked) => hook::install(session, &asked),
        Command::UninstallHook => hook::uninstall(session),
        Command::PublicKey(name) => keys::public_key(session, &name.name, out),
        Command::HostKeys(asked) => keys::host_keys(session, &asked, out),
        Command::Credential(asked) => keys::credential(session, &asked),
        Command::Conflicts(asked) => conflicts::conflicts(session, &asked, out),
        Command::Resolve(asked) => conflicts::resolve(session, &asked, out),
        Command::Kept(asked) => kept::kept(session, &asked, out),
        Command::Webhook(asked) => keys::webhook(session, &asked, out),
        Command::Doctor(_) => doctor::doctor(session, out),
        Command::Export(_) => export::export(session, out),
        Command::Silent(silent) => protect::silent(session, silent.state),
        // These were answered above.
        Command::Check(_)
        | Command::Completions(_)
        | Command::Fleet(_)
        | Command::Import(_)
        | Command::Log(_)
        | Command::Man(_)
        | Command::Serve(_)
        | Command::Token(_) => Ok(DONE),
    }
}

/// Runs the commands that need no single repository, and `log`, which opens its repository itself. `None` for all other commands.
fn without_repository(base: &Base, command: &Command, out: &mut (dyn Write + Send)) -> Option<anyhow::Result<u8>> {
    Some(match command {
        Command::Token(token) => daemon::token(base, token, out),
        Command::Import(asked) => import::import(base, asked, out),
        Command::Export(asked) if asked.all => export::export_every(base, out),
        Command::Drain(drain) if drain.scope.all => every::drain(base, Mode::Drain.into(), out),
        Command::Pull(pull) if pull.scope.all => every::drain(base, Mode::Pull(update::check_of(pull)).into(), out),
        Command::Sync(sync) if sync.scope.all => every::drain(base, update::Asked::of(sync), out),
        Command::Plan(names) if names.all => every::drain(base, Mode::Plan.into(), out),
        Command::Fleet(asked) => fleet::fleet(base, asked, out),
        Command::Silent(asked) if asked.fleet => fleet::silent(base, asked.state),
        Command::Status(asked) if asked.fleet => fleet::status(base, asked, out),
        Command::Status(asked) if asked.scope.all => status_all::show(base, out),
        Command::Log(asked) => log::log(base, asked, out),
        Command::Doctor(asked) if asked.all => doctor::every(base, out),
        Command::InstallHook(hook) if hook.all => every::install_hook(base),
        _ => return None,
    })
}

/// Whether a command contacts mirrors with their credentials. `host-keys --detect` contacts a host, but needs no credentials.
fn contacts(command: &Command) -> bool {
    matches!(
        command,
        Command::Drain(_)
            | Command::Pull(_)
            | Command::Sync(_)
            | Command::Resolve(_)
            | Command::Plan(_)
            | Command::Doctor(_)
    )
}

/// The arguments without `--git-dir`, because `Owner::command` already passes this option with the
/// real path.
fn without_git_dir(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut kept, mut is_value) = (Vec::new(), false);
    for argument in arguments {
        let is_named = argument == "--git-dir";
        if !is_value && !is_named && !argument.as_encoded_bytes().starts_with(b"--git-dir=") {
            kept.push(argument);
        }
        is_value = is_named && !is_value;
    }
    kept
}

/// Whether a command only reads: it runs no program that the repository names, contacts no mirror and writes nothing.
fn only_looks(command: &Command) -> bool {
    matches!(command, Command::Status(_) | Command::List | Command::Show(_) | Command::Protected | Command::Export(_))
}

impl Base {
    fn new(environment: Environment, global: args::Global) -> anyhow::Result<Self> {
        let named = global.config.as_deref().or(environment.server_config.as_deref());
        let server = config::load_server(named, &environment.credential_env)?;
        let is_coloured = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stdout().is_terminal() && !environment.is_colour_unwanted,
        };
        Ok(Self { environment, global, server, is_coloured })
    }

    /// The same with the server's files as they are now.
    fn reloaded(&self) -> anyhow::Result<Self> {
        Self::new(self.environment.clone(), self.global.clone())
    }

    /// The repository that was named, or the one that the working directory is in.
    fn session(&self) -> anyhow::Result<Session<'_>> {
        let start = self.start();
        if let Some(error) = start.join(".").canonicalize().err().filter(|_| self.global.directory.is_some()) {
            anyhow::bail!("cannot change to '{}': {error}", start.display());
        }
        match self.global.git_dir.as_ref().or(self.environment.git_dir.as_ref()) {
            Some(path) => Ok(self.session_at(repo::open(&start.join(path))?)),
            None => Ok(self.session_at(discover(&start)?)),
        }
    }

    /// Runs the command in a child process with the rights of the repository's owner. `None` where no such child is needed.
    fn leave_to_owner(&self, command: &Command) -> Option<anyhow::Result<u8>> {
        let (owner, git_dir) = self.owner()?;
        let hands = if contacts(command) { Hands::Secrets } else { Hands::Input };
        let run = || {
            let mut child = owner.command(&git_dir, &self.server, hands)?;
            child.command.args(without_git_dir(std::env::args_os().skip(1)));
            Ok(child.status()?)
        };
        Some(run())
    }

    /// The owner of the repository that is meant, and its directory, if root must not act there itself.
    fn owner(&self) -> Option<(Owner, PathBuf)> {
        let start = self.start();
        let is_repository = |path: &PathBuf| path.join("HEAD").is_file() && path.join("objects").is_dir();
        let found = match self.global.git_dir.as_ref().or(self.environment.git_dir.as_ref()) {
            Some(path) => [start.join(path), start.join(path).join(".git")].into_iter().find(is_repository),
            None => start.ancestors().flat_map(|path| [path.to_owned(), path.join(".git")]).find(is_repository),
        };
        let git_dir = found?.canonicalize().ok()?;
        Some((Owner::of(&git_dir, &self.server)?, git_dir))
    }

    /// Whether a repository or a directory was named (`--git-dir`, `$GIT_DIR` or `-C`), or the
    /// working directory is in a repository. The repository may be one that cannot be opened.
    fn is_in_repository(&self) -> bool {
        let is_named = self.global.git_dir.is_some() || self.environment.git_dir.is_some();
        let start = self.start();
        let mut around = start.ancestors().flat_map(|path| [path.to_owned(), path.join(".git")]);
        is_named
            || self.global.directory.is_some()
            || around.any(|path| path.join("HEAD").is_file() && path.join("objects").is_dir())
    }

    /// The directory that relative paths begin at: that of `-C`, or the working directory.
    fn start(&self) -> PathBuf {
        match &self.global.directory {
            Some(directory) => self.environment.current_dir.join(directory),
            None => self.environment.current_dir.clone(),
        }
    }

    fn session_at(&self, shared: repo::Shared) -> Session<'_> {
        let repository = shared.to_local();
        Session { base: self, shared, repository }
    }

    /// Prints a message for the user, unless `-q` was given.
    fn say(&self, text: &str) {
        if !self.global.quiet {
            talk(text);
        }
    }

    /// Warns the user.
    fn warn(&self, text: &str) {
        talk(&format!("warning: {text}"));
    }
}

impl Session<'_> {
    /// The repository's configuration as it is now.
    fn config(&self) -> anyhow::Result<Config> {
        Ok(config::load(&self.repository, &self.base.server)?)
    }
}

/// The repository that a directory is in, as git finds it.
fn discover(start: &Path) -> anyhow::Result<repo::Shared> {
    for directory in start.ancestors() {
        match repo::open(directory) {
            Err(repo::Error::NotARepository { .. }) => {}
            found => return Ok(found?),
        }
    }
    anyhow::bail!(
        "not in a git repository (nor any parent of '{}'); change into one, or use --git-dir",
        start.display()
    )
}

/// The mirrors of these names, or all of them.
fn chosen<'c>(config: &'c Config, names: &[String]) -> anyhow::Result<Vec<&'c Mirror>> {
    if names.is_empty() {
        return Ok(config.mirrors.iter().collect());
    }
    names.iter().map(|name| by_name(config, name)).collect()
}

fn by_name<'c>(config: &'c Config, name: &str) -> anyhow::Result<&'c Mirror> {
    config.mirror(name).ok_or_else(|| anyhow::anyhow!(config.no_mirror(name)))
}

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the clock of the command line")]
    Timestamp::now()
}

/// Writes one line to standard error. A failed write is ignored.
fn talk(line: &str) {
    let _ = writeln!(Screen(io::stderr()), "{line}");
}

/// Prints JSON and a line feed.
fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// A path that the user typed, relative to `-C` or the working directory.
fn absolute(session: &Session<'_>, path: &Path) -> PathBuf {
    session.base.start().join(path)
}
