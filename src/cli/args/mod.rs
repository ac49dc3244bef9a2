//! The command line as clap types. Their doc comments are the texts of `--help` and of the manual page.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::examples::after_help;

mod changing;
mod looking;
mod serving;

pub(super) use changing::{
    Add, Credential, Export, HostKeys, Import, InstallHook, Patterns, Resolve, Set, Silent, Source, Switch, Webhook,
};
pub(super) use looking::{Check, Conflicts, Doctor, Kept, Log, Show, Status};
pub(super) use serving::{
    Completions, CreateToken, Fleet, FleetAction, FleetInit, Man, Page, Serve, Token, TokenAction, TokenScope,
};

/// Mirror the branches and tags of a bare repository to other hosts, or from an upstream, and
/// report each ref that is not up to date, with the reason
#[derive(Debug, Parser)]
#[command(name = "git-mirror-push", bin_name = "git mirror-push", version, max_term_width = 100)]
#[command(subcommand_help_heading = "Commands", disable_help_subcommand = true)]
#[command(
    after_help = "Without a command, this is 'drain'.\n\nExit status: 0 done or nothing to do; 1 some mirror or ref is \
    not up to date; 128 bad repository or configuration; 129 usage."
)]
pub(super) struct Cli {
    /// The options of all commands
    #[command(flatten)]
    pub(super) global: Global,
    /// The command
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

impl Cli {
    /// The command line as clap knows it, with an example in the help of each command.
    pub(super) fn with_examples() -> clap::Command {
        let command = Self::command();
        let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        names
            .iter()
            .fold(command, |command, name| command.mut_subcommand(name, |command| command.after_help(after_help(name))))
    }

    /// Reads the arguments of this process.
    ///
    /// # Errors
    /// clap's error about the command line. clap also returns the texts of `--help` and `--version` as an error.
    pub(super) fn read() -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::with_examples().try_get_matches()?)
    }
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// The repository; default: $GIT_DIR, or the one that the working directory is in
    #[arg(long, global = true, value_name = "PATH", help_heading = "Common options", hide_short_help = true)]
    pub(super) git_dir: Option<PathBuf>,
    /// Run as if started in this directory
    #[arg(short = 'C', global = true, value_name = "PATH", help_heading = "Common options", hide_short_help = true)]
    pub(super) directory: Option<PathBuf>,
    /// The server's configuration file; default: $GIT_MIRROR_PUSH_CONFIG or /etc/git-mirror-push/config.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options", hide_short_help = true)]
    pub(super) config: Option<PathBuf>,
    /// Print JSON; an error is one object, the last line of standard error
    #[arg(long, global = true, help_heading = "Common options", hide_short_help = true)]
    pub(super) json: bool,
    /// Print more on standard error; -vv prints still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Common options", hide_short_help = true)]
    pub(super) verbose: u8,
    /// Print failures only
    #[arg(short, long, global = true, help_heading = "Common options", hide_short_help = true)]
    pub(super) quiet: bool,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Common options",
        hide_short_help = true
    )]
    pub(super) color: When,
    /// Start no drain for what this command leaves in the spool (the daemon passes this option for repositories of other users, and drains
    /// them itself)
    #[arg(long, global = true, hide = true)]
    pub(super) no_wake: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a mirror, install the hook if it is not there, and make a first sync due
    Add(Add),
    /// Change a mirror, or keys of the repository
    Set(Set),
    /// Do one thing that standard input asks for (the daemon of root runs this in repositories of other users)
    #[command(hide = true)]
    Change,
    /// Enable a mirror again, and compare all refs
    Enable(Name),
    /// Stop updating a mirror, but keep its configuration
    Disable(Name),
    /// Remove a mirror, its state and its secret; the mirror's repository is not touched
    Remove(Name),
    /// Forget what this repository changed in a mirror of the server's file; secret, host keys and queue stay
    Reset(Name),
    /// List the mirrors
    List,
    /// Show a mirror's configuration
    Show(Show),
    /// Mirror the pushes in the spool (the default command)
    Drain(Drain),
    /// Check the upstreams of pull mirrors, and take what changed
    Pull(Pull),
    /// Compare and mirror everything selected, now
    Sync(Sync),
    /// Show what 'sync' would do to each ref, without doing it
    Plan(Scope),
    /// Show the status of the mirrors
    Status(Status),
    /// Answer a monitoring system: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check(Check),
    /// List past attempts, one a line
    Log(Log),
    /// Protect branches by name or wildcard
    Protect(Patterns),
    /// Remove patterns of protected branches
    Unprotect(Patterns),
    /// List the patterns of protected branches
    Protected,
    /// Install the post-receive hook; an existing hook keeps running first
    InstallHook(InstallHook),
    /// Remove the hook, and restore the previous one
    UninstallHook,
    /// Switch silent mode: nothing leaves this machine, pushes are still spooled
    Silent(Silent),
    /// Print the public key of a mirror, to be authorised at its host
    PublicKey(Name),
    /// Show, detect, add or clear the host keys that are trusted
    HostKeys(HostKeys),
    /// Store a password or token, read from standard input or asked for
    Credential(Credential),
    /// List the refs of two-way mirrors that both sides moved
    Conflicts(Conflicts),
    /// Let one side of a conflict win; the other value is kept
    Resolve(Resolve),
    /// List the replaced values that are kept here, restore one, or delete them
    Kept(Kept),
    /// Print the URL and the secret of the webhook that makes a check of upstream due
    Webhook(Webhook),
    /// Take over mirrors that other tools configured; nothing changes at the source
    Import(Import),
    /// Print the mirrors as lines of JSON, which 'import list' reads; passwords and keys are left out
    Export(Export),
    /// Find problems in this setup and show how to fix them
    Doctor(Doctor),
    /// Run the daemon: drains when hooks wake it, the REST API and the web page
    Serve(Serve),
    /// Make, list or revoke tokens of the API
    Token(Token),
    /// Show the machines that share a database, or prepare that database
    Fleet(Fleet),
    /// Print a completion script
    Completions(Completions),
    /// Print a manual page
    Man(Man),
}

/// One mirror.
#[derive(Debug, Args)]
pub(super) struct Name {
    /// The mirror
    pub(super) name: String,
}

/// Any number of mirrors of one repository, or all of every repository.
#[derive(Debug, Default, Args)]
pub(super) struct Scope {
    /// The mirrors; default: all
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with_all = ["names", "git_dir"])]
    pub(super) all: bool,
}

/// `drain`
#[derive(Debug, Default, Args)]
pub(super) struct Drain {
    /// Which mirrors
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Compare everything (the daemon passes this option for repositories of other users)
    #[arg(long, hide = true)]
    pub(super) reconcile: bool,
    /// Run in the background: leave the session of the caller, and wait for the next attempts (hooks and other commands start a drain like
    /// this)
    #[arg(long, hide = true)]
    pub(super) detach: bool,
    /// Also check the upstreams that are due (the daemon passes this option for repositories of other users)
    #[arg(long, hide = true)]
    pub(super) due: bool,
}

/// `pull`
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Which mirrors
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Only those whose next check is due
    #[arg(long)]
    pub(super) due: bool,
}

/// `sync`
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// Which mirrors
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Delete more refs at once than max_deletes allows
    #[arg(long)]
    pub(super) allow_mass_delete: bool,
    /// Confirm first contact: the mirror at this URL is the intended one, whatever it has now
    #[arg(long)]
    pub(super) adopt: bool,
    /// Of pull mirrors: take refs again that were deleted here
    #[arg(long)]
    pub(super) restore: bool,
    /// Make the repositories that were there once and are gone, in the way of the key 'create'
    #[arg(long)]
    pub(super) create: bool,
}
