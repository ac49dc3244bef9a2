//! Arguments of `status`, `log`, `kept`, `conflicts`, `doctor`, `check` and `show`.

use clap::Args;

use super::Scope;
use crate::status::Standing;

/// `status`
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// Which mirrors
    #[command(flatten)]
    pub(in crate::cli) scope: Scope,
    /// Every mirror of all machines of the fleet, from the copies in its database, failing ones first
    #[arg(long, conflicts_with_all = ["names", "all", "git_dir"])]
    pub(in crate::cli) fleet: bool,
    /// Of the fleet: only the mirrors of this machine
    #[arg(long, value_name = "NODE", requires = "fleet")]
    pub(in crate::cli) node: Option<String>,
    /// Of the fleet: only the mirrors at this host, with its port if that is not the usual one
    #[arg(long, value_name = "HOST", requires = "fleet")]
    pub(in crate::cli) host: Option<String>,
    /// Of the fleet: only the mirrors in this state: failing, unreadable, retrying, waiting,
    /// running, up_to_date, never_tried or disabled
    #[arg(long, value_name = "STATE", requires = "fleet", value_parser = state)]
    pub(in crate::cli) state: Option<Standing>,
}

fn state(text: &str) -> Result<Standing, String> {
    let words = Standing::ALL.map(Standing::word).join(", ");
    Standing::ALL.into_iter().find(|state| state.word() == text).ok_or_else(|| format!("the states are {words}"))
}

/// `log`
#[derive(Debug, Args)]
pub(in crate::cli) struct Log {
    /// Which mirrors
    #[command(flatten)]
    pub(in crate::cli) scope: Scope,
    /// Show only the newest N attempts
    #[arg(short, value_name = "N", value_parser = number)]
    pub(in crate::cli) number: Option<usize>,
    /// Show only attempts that began at TIME or later: a duration before now, or a date
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a number".to_owned())
}

/// `kept`
#[derive(Debug, Args)]
pub(in crate::cli) struct Kept {
    /// The mirror; default: all
    pub(in crate::cli) name: Option<String>,
    /// Make this ref again with the value that was kept last; the ref must not exist
    #[arg(long, value_name = "REF", conflicts_with = "expire")]
    pub(in crate::cli) restore: Option<String>,
    /// With --restore: another name for the ref
    #[arg(long = "as", value_name = "NAME", requires = "restore")]
    pub(in crate::cli) new_name: Option<String>,
    /// Delete what is kept, now
    #[arg(long)]
    pub(in crate::cli) expire: bool,
}

/// `conflicts`
#[derive(Debug, Args)]
pub(in crate::cli) struct Conflicts {
    /// The mirror; default: all
    pub(in crate::cli) name: Option<String>,
}

/// `doctor`
#[derive(Debug, Args)]
pub(in crate::cli) struct Doctor {
    /// Every repository below the roots of the server's file
    #[arg(long, conflicts_with = "git_dir")]
    pub(in crate::cli) all: bool,
}

/// `check`
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// Which mirrors
    #[command(flatten)]
    pub(in crate::cli) scope: Scope,
    /// Every mirror of all machines of the fleet, from the copies in its database
    #[arg(long, conflicts_with_all = ["names", "all", "git_dir"])]
    pub(in crate::cli) fleet: bool,
    /// Report WARNING when the oldest push that is not mirrored is this old
    #[arg(short, long, value_name = "DURATION", default_value = "1h", value_parser = crate::config::parse_period)]
    pub(in crate::cli) warning: std::time::Duration,
    /// Report CRITICAL when the oldest push that is not mirrored is this old
    #[arg(short, long, value_name = "DURATION", default_value = "24h", value_parser = crate::config::parse_period)]
    pub(in crate::cli) critical: std::time::Duration,
}

/// `show`
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The mirror; by default all
    pub(in crate::cli) name: Option<String>,
    /// Show which file set each value
    #[arg(long)]
    pub(in crate::cli) origin: bool,
}
