//! Arguments of `serve`, `token`, `fleet`, `man` and `completions`.

use clap::{Args, Subcommand, ValueEnum};

use super::Name;

/// `man`
#[derive(Debug, Args)]
pub(in crate::cli) struct Man {
    /// The manual page
    #[arg(default_value = "git-mirror-push")]
    pub(in crate::cli) page: Page,
}

/// A manual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Page {
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

/// `serve`
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// Where to listen for HTTP: ADDRESS:PORT or unix:PATH; ignored if systemd passes sockets
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:8417")]
    pub(in crate::cli) listen: crate::config::Listen,
    /// Only drain: no API and no page
    #[arg(long, conflicts_with = "listen")]
    pub(in crate::cli) no_listen: bool,
}

/// `token`
#[derive(Debug, Args)]
pub(in crate::cli) struct Token {
    /// What to do
    #[command(subcommand)]
    pub(in crate::cli) action: TokenAction,
}

/// What `token` does.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenAction {
    /// Make a token and print it, once
    Create(CreateToken),
    /// List the tokens; the secrets are not shown
    List,
    /// Revoke a token
    Revoke(Name),
}

/// `token create`
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateToken {
    /// Its name
    #[arg(long)]
    pub(in crate::cli) name: String,
    /// What it may do
    #[arg(long, default_value = "api")]
    pub(in crate::cli) scope: TokenScope,
    /// Limit the token to a project: its path below the root, or a pattern with * (may be
    /// repeated); default: all projects
    #[arg(long = "project", value_name = "PATH")]
    pub(in crate::cli) projects: Vec<String>,
    /// Lifetime of the token; default: unlimited
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_period)]
    pub(in crate::cli) expires: Option<std::time::Duration>,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TokenScope {
    /// Everything
    #[value(name = "api")]
    Api,
    /// Read only
    #[value(name = "read_api")]
    ReadApi,
    /// Only make a check of an upstream due, as a webhook does
    #[value(name = "pull")]
    Pull,
}

/// `fleet`
#[derive(Debug, Args)]
pub(in crate::cli) struct Fleet {
    /// What to do; default: show the machines
    #[command(subcommand)]
    pub(in crate::cli) action: Option<FleetAction>,
}

/// What `fleet` does.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum FleetAction {
    /// Make the tables in the database, or bring them up to date
    Init(FleetInit),
    /// Remove a machine that is gone, with its copies
    Forget(Name),
}

/// `fleet init`
#[derive(Debug, Args)]
pub(in crate::cli) struct FleetInit {
    /// Print the statements for psql(1) instead; somebody who may create a schema runs them
    #[arg(long)]
    pub(in crate::cli) print: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub(in crate::cli) struct Completions {
    /// bash, zsh, fish, elvish or powershell
    pub(in crate::cli) shell: clap_complete::Shell,
}
