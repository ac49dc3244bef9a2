//! Arguments of the commands that change the configuration, the stored keys and passwords, or the hook.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::options::{Direction, Settings};

/// `resolve`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("side").required(true))]
pub(in crate::cli) struct Resolve {
    /// The mirror
    pub(in crate::cli) name: String,
    /// The ref, as 'conflicts' shows it
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// The mirror gets our value
    #[arg(long, group = "side")]
    pub(in crate::cli) ours: bool,
    /// This repository takes the mirror's value
    #[arg(long, group = "side")]
    pub(in crate::cli) theirs: bool,
}

/// `host-keys`
#[derive(Debug, Args)]
pub(in crate::cli) struct HostKeys {
    /// The mirror
    pub(in crate::cli) name: String,
    /// Ask the host what keys it offers
    #[arg(long, conflicts_with_all = ["add", "clear"])]
    pub(in crate::cli) detect: bool,
    /// Pin the detected keys without asking
    #[arg(long, requires = "detect")]
    pub(in crate::cli) yes: bool,
    /// Pin one more key, in the format of ssh-keyscan(1) (may be repeated)
    #[arg(long, value_name = "LINE", conflicts_with = "clear")]
    pub(in crate::cli) add: Vec<String>,
    /// Remove all pinned keys; ssh's own known_hosts then decides, and a confined mirror is not contacted
    #[arg(long)]
    pub(in crate::cli) clear: bool,
}

/// `credential`
#[derive(Debug, Args)]
pub(in crate::cli) struct Credential {
    /// The mirror
    pub(in crate::cli) name: String,
    /// Remove the stored password or token
    #[arg(long)]
    pub(in crate::cli) clear: bool,
}

/// `webhook`
#[derive(Debug, Args)]
pub(in crate::cli) struct Webhook {
    /// The pull mirror
    pub(in crate::cli) name: String,
    /// Make a new secret; the old one is not accepted any more
    #[arg(long)]
    pub(in crate::cli) rotate: bool,
}

/// `install-hook`
#[derive(Debug, Args)]
pub(in crate::cli) struct InstallHook {
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with = "git_dir")]
    pub(in crate::cli) all: bool,
    /// Do nothing where hook = "none" (root passes this option for repositories of other users)
    #[arg(long, hide = true)]
    pub(in crate::cli) if_wanted: bool,
}

/// Patterns of branches.
#[derive(Debug, Args)]
pub(in crate::cli) struct Patterns {
    /// Names; '*' stands for any run of characters, '/' included
    #[arg(value_name = "PATTERN", required = true)]
    pub(in crate::cli) patterns: Vec<String>,
}

/// `add`
#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// The mirror's name: letters, digits, '.', '_' and '-'
    pub(in crate::cli) name: String,
    /// Its URL: https, http, ssh, git, file, a path, or user@host:path
    #[arg(value_name = "URL", allow_hyphen_values = true, required_unless_present = "from_git_remote")]
    pub(in crate::cli) url: Option<String>,
    /// Take the URL of this remote of git's configuration, as 'git clone --mirror' wrote it; the mirror is a pull mirror
    #[arg(long, value_name = "REMOTE", conflicts_with = "url")]
    pub(in crate::cli) from_git_remote: Option<String>,
    /// Further keys of git-mirror-push-config(5); VALUE is TOML, a bare word is a string
    #[arg(value_name = "KEY=VALUE")]
    pub(in crate::cli) keys: Vec<String>,
    /// The options that 'set' has too
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
    /// Add the mirror, but do not update it
    #[arg(long)]
    pub(in crate::cli) disabled: bool,
    /// Confirm first contact: the mirror at this URL is the intended one, whatever it has now
    #[arg(long)]
    pub(in crate::cli) adopt: bool,
}

/// `set`
#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// The mirror; without one, keys of the repository are changed
    pub(in crate::cli) name: Option<String>,
    /// Keys of git-mirror-push-config(5); VALUE is TOML, a bare word is a string, and 'KEY=' removes the key
    #[arg(value_name = "KEY=VALUE")]
    pub(in crate::cli) keys: Vec<String>,
    /// Its new URL; credentials in it replace the stored ones
    #[arg(long, value_name = "URL", allow_hyphen_values = true)]
    pub(in crate::cli) url: Option<String>,
    /// The options that 'add' has too
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
}

/// `silent`
#[derive(Debug, Args)]
pub(in crate::cli) struct Silent {
    /// on or off
    pub(in crate::cli) state: Switch,
    /// Switch it for the daemons of all machines of the fleet; it takes seconds
    #[arg(long, conflicts_with = "git_dir")]
    pub(in crate::cli) fleet: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Switch {
    /// Nothing leaves this machine
    On,
    /// Update mirrors again, unless the server's file sets silent
    Off,
}

/// `import`
#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// Where the mirrors are configured; default: git, and gitolite and Gerrit if this machine has
    /// them
    #[command(subcommand)]
    pub(in crate::cli) source: Option<Source>,
    /// The repositories below this directory; default: the one that you are in, or all below the roots of the server's file
    #[arg(long, value_name = "DIR", global = true)]
    pub(in crate::cli) root: Option<PathBuf>,
    /// Only repositories whose path matches; '*' stands for any run of characters, '/' included
    #[arg(long = "match", value_name = "PATTERN", global = true)]
    pub(in crate::cli) matches: Option<String>,
    /// The direction, where the source does not say it
    #[arg(long, value_name = "DIRECTION", global = true)]
    pub(in crate::cli) direction: Option<Direction>,
    /// Delete on the mirror whatever is not here, and mirror every namespace, if the old tool did
    #[arg(long, global = true)]
    pub(in crate::cli) exact: bool,
    /// Add the mirrors, but do not update them
    #[arg(long, global = true)]
    pub(in crate::cli) disabled: bool,
    /// User name and password file for a host, where the source has no password; FILE is an absolute path (may be repeated)
    #[arg(long, value_name = "HOST=USER:FILE", global = true)]
    pub(in crate::cli) credential: Vec<String>,
    /// Look at each mirror once before its first sync, and say which are ready; not with --dry-run, which adds no mirror
    #[arg(long, global = true, conflicts_with = "dry_run")]
    pub(in crate::cli) check: bool,
    /// Also name the lines that run 'git push' in files of cron and systemd and in scripts they
    /// start
    #[arg(long, global = true)]
    pub(in crate::cli) cron: bool,
    /// Make the repositories that are missing, for pull mirrors
    #[arg(long, global = true)]
    pub(in crate::cli) init: bool,
    /// If every repository below the roots (at least ten) has the same mirror, write one template
    /// for all of them into conf.d/import-SOURCE.toml beside the server's file
    #[arg(long, global = true)]
    pub(in crate::cli) template: bool,
    /// A file of mode 0600 with the token for the API of the source
    #[arg(long, value_name = "FILE", global = true)]
    pub(in crate::cli) token_file: Option<PathBuf>,
    /// Show what would be imported, and change nothing
    #[arg(long, global = true, conflicts_with = "yes")]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask
    #[arg(long, global = true)]
    pub(in crate::cli) yes: bool,
}

/// Where mirrors of other tools are configured.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Source {
    /// The remotes of git's configuration, as 'git remote add --mirror' and 'git clone --mirror' make them; Gitea and Forgejo have them too
    Git,
    /// The copies of gitolite (options mirror.*), as the user who runs it
    Gitolite,
    /// The remotes of Gerrit's replication plugin
    Gerrit(Site),
    /// The push and pull mirrors of a GitLab, by its API
    Gitlab(Host),
    /// The push and pull mirrors of a Gitea or Forgejo, by its API
    Gitea(Host),
    /// A list: a JSON object in each line, with repository, name, url and keys of git-mirror-push-config(5), as 'export' prints it
    List(ListFile),
}

impl Source {
    /// Its name.
    pub(in crate::cli) fn word(&self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Gitolite => "gitolite",
            Self::Gerrit(_) => "gerrit",
            Self::Gitlab(_) => "gitlab",
            Self::Gitea(_) => "gitea",
            Self::List(_) => "list",
        }
    }
}

/// A site of Gerrit.
#[derive(Debug, Args)]
pub(in crate::cli) struct Site {
    /// Its directory, which has etc/replication.config
    pub(in crate::cli) site: PathBuf,
}

/// A host with an API.
#[derive(Debug, Args)]
pub(in crate::cli) struct Host {
    /// Its address, for example https://gitlab.example.com
    pub(in crate::cli) url: String,
}

/// The file of a list.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListFile {
    /// The file; '-' for standard input
    pub(in crate::cli) file: PathBuf,
}

/// `export`
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with = "git_dir")]
    pub(in crate::cli) all: bool,
}
