//! The command line as clap types. Their texts are also those of the manual page.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::options::Settings;

/// Push every branch and tag of a bare repository to its mirrors, and say which ref is not there and why
#[derive(Debug, Parser)]
#[command(name = "git-mirror-push", bin_name = "git mirror-push", version, max_term_width = 100)]
#[command(subcommand_help_heading = "Commands", disable_help_subcommand = true)]
#[command(
    after_help = "Without a command, this is 'drain'.\n\nExit status: 0 done or nothing to do; 1 some mirror or ref is \
    not up to date; 128 bad repository or configuration; 129 usage."
)]
pub(super) struct Cli {
    /// What is shared by all commands
    #[command(flatten)]
    pub(super) global: Global,
    /// The command
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub(super) struct Global {
    /// The repository; default: $GIT_DIR, or the one that the working directory is in
    #[arg(long, global = true, value_name = "PATH", help_heading = "Common options")]
    pub(super) git_dir: Option<PathBuf>,
    /// Run as if started in this directory
    #[arg(short = 'C', global = true, value_name = "PATH", help_heading = "Common options")]
    pub(super) directory: Option<PathBuf>,
    /// The server's configuration file; default: $GIT_MIRROR_PUSH_CONFIG or /etc/git-mirror-push/config.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Common options")]
    pub(super) json: bool,
    /// Say more on standard error; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Common options")]
    pub(super) verbose: u8,
    /// Say only what failed
    #[arg(short, long, global = true, help_heading = "Common options")]
    pub(super) quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Common options")]
    pub(super) color: When,
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
    /// Serve a mirror again; everything is compared
    Enable(Name),
    /// Serve a mirror no longer, but keep its configuration
    Disable(Name),
    /// Remove a mirror, its state and its secret; the mirror's repository is not touched
    Remove(Name),
    /// Remove this repository's own settings of a mirror from the server's file; secret, host keys and queue stay
    Reset(Name),
    /// List the mirrors
    List,
    /// Show a mirror's configuration
    Show(Show),
    /// Mirror what is spooled (the default command)
    Drain(Drain),
    /// Compare and mirror everything selected, now
    Sync(Sync),
    /// Say what 'sync' would do to each ref, and do nothing
    Plan(Scope),
    /// Say how the mirrors stand
    Status(Scope),
    /// Answer a monitoring system: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN
    Check(Check),
    /// List past attempts, one a line
    Log(Names),
    /// Protect branches by name or wildcard
    Protect(Patterns),
    /// Take patterns of protected branches away
    Unprotect(Patterns),
    /// List the patterns of protected branches
    Protected,
    /// Install the post-receive hook; an existing hook keeps running first
    InstallHook(InstallHook),
    /// Take the hook away, and put back the one that was there before
    UninstallHook,
    /// Switch silent mode: nothing leaves this machine, pushes are still spooled
    Silent(Silent),
    /// Print the public key of a mirror, to be authorised at its host
    PublicKey(Name),
    /// Show, detect, add or clear the host keys that are trusted
    HostKeys(HostKeys),
    /// Store a password or token, read from standard input or asked for
    Credential(Credential),
    /// Say what is wrong with this set-up and how to fix it
    Doctor,
    /// Run the daemon: drains when hooks wake it, the REST API and the web page
    Serve(Serve),
    /// Make, list or revoke tokens of the API
    Token(Token),
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

/// Any number of mirrors.
#[derive(Debug, Args)]
pub(super) struct Names {
    /// The mirrors; default: all
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
}

/// Any number of mirrors of one repository, or all of every repository.
#[derive(Debug, Args)]
pub(super) struct Scope {
    /// The mirrors; default: all
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with_all = ["names", "git_dir"])]
    pub(super) all: bool,
}

/// `check`
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Which mirrors
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Age of the oldest push not mirrored that is a warning
    #[arg(short, long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::parse_period)]
    pub(super) warning: std::time::Duration,
    /// Age of the oldest push not mirrored that is critical
    #[arg(short, long, value_name = "DURATION", default_value = "24h", value_parser = crate::config::parse_period)]
    pub(super) critical: std::time::Duration,
}

/// `host-keys`
#[derive(Debug, Args)]
pub(super) struct HostKeys {
    /// The mirror
    pub(super) name: String,
    /// Ask the host what keys it offers
    #[arg(long, conflicts_with_all = ["add", "clear"])]
    pub(super) detect: bool,
    /// Pin what was detected without a question
    #[arg(long, requires = "detect")]
    pub(super) yes: bool,
    /// Pin a key, as ssh-keyscan(1) prints it, besides those that are pinned (may be repeated)
    #[arg(long, value_name = "LINE", conflicts_with = "clear")]
    pub(super) add: Vec<String>,
    /// Pin none: ssh's own known_hosts decides
    #[arg(long)]
    pub(super) clear: bool,
}

/// `credential`
#[derive(Debug, Args)]
pub(super) struct Credential {
    /// The mirror
    pub(super) name: String,
    /// Remove the stored password or token
    #[arg(long)]
    pub(super) clear: bool,
}

/// `install-hook`
#[derive(Debug, Args)]
pub(super) struct InstallHook {
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with = "git_dir")]
    pub(super) all: bool,
}

/// Patterns of branches.
#[derive(Debug, Args)]
pub(super) struct Patterns {
    /// Names; '*' stands for any run of characters, '/' included
    #[arg(value_name = "PATTERN", required = true)]
    pub(super) patterns: Vec<String>,
}

/// `add`
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The mirror's name: letters, digits, '.', '_' and '-'
    pub(super) name: String,
    /// Its URL: https, http, ssh, git, file, a path, or user@host:path
    #[arg(value_name = "URL", allow_hyphen_values = true)]
    pub(super) url: String,
    /// Further keys of git-mirror-push-config(5); VALUE is TOML, a bare word is a string
    #[arg(value_name = "KEY=VALUE")]
    pub(super) keys: Vec<String>,
    /// Everything else
    #[command(flatten)]
    pub(super) settings: Settings,
    /// Add it without serving it
    #[arg(long)]
    pub(super) disabled: bool,
    /// Confirm first contact: the mirror at this URL is the one that is meant, whatever it holds now
    #[arg(long)]
    pub(super) adopt: bool,
}

/// `set`
#[derive(Debug, Args)]
pub(super) struct Set {
    /// The mirror; without one, keys of the repository are changed
    pub(super) name: Option<String>,
    /// Keys of git-mirror-push-config(5); VALUE is TOML, a bare word is a string, and 'KEY=' removes the key
    #[arg(value_name = "KEY=VALUE")]
    pub(super) keys: Vec<String>,
    /// Its new URL; credentials in it replace the stored ones
    #[arg(long, value_name = "URL", allow_hyphen_values = true)]
    pub(super) url: Option<String>,
    /// Everything else
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// `drain`
#[derive(Debug, Default, Args)]
pub(super) struct Drain {
    /// The mirrors; default: all
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with_all = ["names", "git_dir"])]
    pub(super) all: bool,
    /// Leave the session of whoever started this (the hook does)
    #[arg(long, hide = true)]
    pub(super) detach: bool,
}

/// `sync`
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// The mirrors; default: all
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with_all = ["names", "git_dir"])]
    pub(super) all: bool,
    /// Delete more refs at once than max_deletes allows
    #[arg(long)]
    pub(super) allow_mass_delete: bool,
    /// Confirm first contact: the mirror at this URL is the one that is meant, whatever it holds now
    #[arg(long)]
    pub(super) adopt: bool,
}

/// `silent`
#[derive(Debug, Args)]
pub(super) struct Silent {
    /// on or off
    pub(super) state: Switch,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    /// Nothing leaves this machine
    On,
    /// As configured
    Off,
}

/// `man`
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Which one
    #[arg(default_value = "git-mirror-push")]
    pub(super) page: Page,
}

/// A manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Page {
    /// The commands, section 1
    #[value(name = "git-mirror-push")]
    Commands,
    /// The files, section 5
    #[value(name = "git-mirror-push-config")]
    Configuration,
    /// The remote helper, section 1
    #[value(name = "git-remote-mirror")]
    RemoteHelper,
}

/// `show`
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The mirror
    pub(super) name: String,
    /// Tell which file set each value
    #[arg(long)]
    pub(super) origin: bool,
}

/// `serve`
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen for HTTP: ADDRESS:PORT or unix:PATH; sockets that systemd hands over come first
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:8417")]
    pub(super) listen: crate::config::Listen,
    /// Only drain: no API and no page
    #[arg(long, conflicts_with = "listen")]
    pub(super) no_listen: bool,
}

/// `token`
#[derive(Debug, Args)]
pub(super) struct Token {
    /// What to do
    #[command(subcommand)]
    pub(super) action: TokenAction,
}

/// What `token` does.
#[derive(Debug, Subcommand)]
pub(super) enum TokenAction {
    /// Make a token and print it, once
    Create(CreateToken),
    /// List the tokens, without themselves
    List,
    /// Take a token away
    Revoke(Name),
}

/// `token create`
#[derive(Debug, Args)]
pub(super) struct CreateToken {
    /// Its name
    #[arg(long)]
    pub(super) name: String,
    /// What it may do
    #[arg(long, default_value = "api")]
    pub(super) scope: TokenScope,
    /// A project that it is bound to, by its path below the root or a pattern with *; default: all
    #[arg(long = "project", value_name = "PATH")]
    pub(super) projects: Vec<String>,
    /// When it ends; default: never
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_period)]
    pub(super) expires: Option<std::time::Duration>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TokenScope {
    /// Everything
    #[value(name = "api")]
    Api,
    /// Look
    #[value(name = "read_api")]
    ReadApi,
}

/// `completions`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    pub(super) shell: clap_complete::Shell,
}
