//! Configuration: makes a [`Config`] from the bytes of files, and from that the rules of `plan`.
//! Pure, except `load`, `edit`, `origin`, `server`, `template`, `urls` and `unique`.
//!
//! Guaranteed: an unknown key, a value of the wrong kind, a bad URL or regex is an error that names the file and the line;
//! a file with an error in it configures nothing. A crash while a command changes a file leaves the
//! old file or the new one. Absent: secrets, which are in files of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::plan::{Branches, Conflicts, Divergent, MaxDeletes, Pattern, Prune, Rules, Tags};
use crate::refs::RefName;
use crate::wire::{Address, Timeouts};

mod assignment;
mod check;
mod create;
mod edit;
mod explain;
mod file;
mod fleet;
mod keys;
mod listen;
mod load;
mod origin;
mod pull;
mod read;
mod server;
mod settings;
mod template;
mod unique;
mod urls;
mod values;
mod walk;
mod warnings;

pub use assignment::{assignment, known_key};
pub use create::{Create, Kind as CreateKind, Maker, Visibility};
pub use edit::{Change, Edit, Locked, check_edit, edit};
pub use file::{Api, AuthMethod, HookSetting, HostKeys, TagsSetting, TopKeys, Wake};
pub use fleet::FleetKeys;
pub use keys::{Key, Place, SECTIONS, keys};
pub use listen::Listen;
pub use load::{Environment, authorise, load, load_plain, load_server, names_in, preload};
use load::{SERVER_FILE, read_trusted};
pub use origin::{Origin, origins};
pub use pull::{Direction, Hooks, Interval, Keep, Pull};
pub use read::parse_period;
pub use server::{Placed, Root, Server, repositories_below};
pub use template::{NewTemplate, add_templates, common_url};
pub use values::{BranchRegex, check_branch_regex};
pub use warnings::{misread_url, twin, warnings};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file has an entry that is not valid.
    #[error("{}:{line}: {what}", path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and how to fix it.
        what: String,
    },
    /// A file or directory cannot be read or written.
    #[error("cannot {doing} '{}': {source}", path.display())]
    Io {
        /// What was being done: `read`, `write`, `find`, `look at` or
        /// `list the repositories below`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file belongs to a user whose files we do not use or do not change. We read files of root, of ourselves, of the repository's owner,
    /// and in a shared repository of everybody. We change files of root and our own.
    #[error("'{0}' belongs to another user; chown it, or run as that user", path.display())]
    OtherOwner {
        /// The file.
        path: PathBuf,
    },
    /// The repository is shared, and members of its group may write its file.
    #[error("the group may write '{0}', so its keys do not all count; read it, then run: chmod go-w '{0}'", path.display())]
    WritableByGroup {
        /// The file.
        path: PathBuf,
    },
    /// A repository belongs to another user, and the server's file does not say that it is to be served.
    #[error(
        "repository '{}' belongs to user {owner}; run as that user, or let the server's file say that it is served: \
         [[repositories]] with root = \"{}\" and owners = [{owner:?}]", path.display(), root.display()
    )]
    ForeignRepository {
        /// The repository.
        path: PathBuf,
        /// The directory that it is in, or the root that holds it.
        root: PathBuf,
        /// Its owner, by name or number.
        owner: String,
    },
    /// The objects of another user's repository may be files of somebody else, which a push would publish.
    #[error("'{}' leads out of a repository of user {owner}, and a push could publish objects of somebody else; run as that user", path.display())]
    ForeignObjects {
        /// The alternates or the link.
        path: PathBuf,
        /// The owner of the repository.
        owner: String,
    },
    /// Root does not act in another user's repository itself.
    #[error(
        "repository '{}' belongs to user {owner}, and root does not act in it itself; use the command line, or run this as {owner}",
        path.display()
    )]
    OnlyAsOwner {
        /// The repository.
        path: PathBuf,
        /// Its owner.
        owner: String,
    },
    /// `--all` was asked for, and no file says where repositories are.
    #[error(
        "no file says where repositories are; put [[repositories]] with a root into {}",
        files.first().map_or(Path::new(SERVER_FILE), |file| file).display()
    )]
    NoRoots {
        /// The files that were read.
        files: Vec<PathBuf>,
    },
    /// Another command has held the lock of the repository's file for more than ten seconds.
    #[error("another command is changing '{}'; try again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A change would give a key a value that is not valid, or a mirror a name that is not valid.
    #[error("{0}")]
    Value(String),
    /// A change cannot be made.
    #[error("{0}")]
    Change(String),
}

/// The configuration of one repository, from its own file and the server's files.
#[derive(Clone, Debug)]
pub struct Config {
    /// Patterns of protected branches. `None` means that only the branch that HEAD names is protected.
    pub protected_branches: Option<Vec<String>>,
    /// Whether nothing may leave the machine.
    pub is_silent: bool,
    /// Who drains after a push.
    pub wake: Wake,
    /// Whether our hook is wanted.
    pub hook: HookSetting,
    /// The settings for notifications.
    pub notify: Notify,
    /// Where the repository's numbers are written for Prometheus.
    pub metrics_file: Option<PathBuf>,
    /// In the order of their ids.
    pub mirrors: Vec<Mirror>,
    /// The keys of the repository's file that do not count, because another user may have chosen them. `None` if nobody
    /// else may have.
    pub ignored: Option<Vec<&'static str>>,
}

/// The settings for notifications; `None` is a key that is not set.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    /// `notify`: a program by its absolute path, and its arguments. It gets the event as JSON on standard input.
    pub command: Option<Vec<String>>,
    /// `notify_after`: how long a mirror must fail before the first notification; by default it is sent at once.
    pub after: Option<Duration>,
    /// `notify_interval`: how often the notification is repeated while the mirror still fails; by default every day.
    pub interval: Option<Duration>,
}

/// One remote mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Unique within the repository. It is stable if a file says it or a template makes the mirror. Otherwise it depends on the other
    /// mirrors.
    pub id: u32,
    /// Its name within the repository, fit for a path.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// The user name for http.
    pub username: Option<String>,
    /// Whether it is updated.
    pub is_enabled: bool,
    /// Whether the repository's own file says nothing about this mirror, so that all its settings come from the server's files.
    pub is_servers: bool,
    /// `confined`: someone other than the administrator may have created it.
    pub is_confined: bool,
    /// Whether a file that another user may have written configures it.
    pub is_foreign: bool,
    /// `only_protected_branches`
    pub only_protected_branches: bool,
    /// `mirror_branch_regex`, valid.
    pub mirror_branch_regex: Option<BranchRegex>,
    /// `direction`
    pub direction: Direction,
    /// `divergent_refs`
    pub divergent: Divergent,
    /// `conflicts`; `None` unless the mirror is two-way.
    pub conflicts: Option<Conflicts>,
    /// `tags`
    pub tags: TagsSetting,
    /// `prune`
    pub prune: Prune,
    /// `auth_method`
    pub auth_method: AuthMethod,
    /// `password_file`
    pub password_file: Option<PathBuf>,
    /// `password_command`: a program by its absolute path, and its arguments. The first line of its output is the password.
    pub password_command: Option<Vec<String>>,
    /// Patterns of namespaces that are mirrored besides branches and tags.
    pub refspecs: Vec<String>,
    /// Those of them that begin with `^`, without it: refs that are left out.
    pub excluded: Vec<String>,
    /// Further options for ssh, `Keyword=value`.
    pub ssh_options: Vec<String>,
    /// The proxy's URL for http and https.
    pub proxy: Option<String>,
    /// PEM certificates trusted for https.
    pub ca_file: Option<PathBuf>,
    /// Whether a password may go over plain http.
    pub allow_insecure_http: bool,
    /// The time limits of a connection.
    pub timeouts: Timeouts,
    /// What delays its updates.
    pub waits: Waits,
    /// The largest number of refs in one push.
    pub max_refs_per_push: usize,
    /// The largest number of refs that one run deletes. `None` means the default of `plan`.
    pub max_deletes: Option<usize>,
    /// Push options, which git passes to the mirror's hooks.
    pub push_options: Vec<String>,
    /// Whether a push updates all refs or none.
    pub is_atomic: bool,
    /// Whether small changes are pushed without reading the refs of the mirror first.
    pub is_optimistic: bool,
    /// Whether we set HEAD of a mirror on this machine to our default branch, when that HEAD names a branch that we do not have.
    pub sets_head: bool,
    /// Who makes its repository if it is not there; `None` if nobody does.
    pub create: Option<Create>,
    /// The settings for taking refs from it, and for keeping values that are replaced.
    pub pull: Pull,
}

/// What delays the updates of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// `retry_delay`: the least wait after a temporary failure.
    pub retry: Duration,
    /// `max_retry_delay`: the longest wait of the back-off.
    pub max_retry: Duration,
    /// `min_interval`: the least time between the beginnings of two attempts.
    pub min_interval: Duration,
    /// `settle`: how long an update waits after the newest push.
    pub settle: Duration,
}

/// The default delays.
pub const DEFAULT_WAITS: Waits = Waits {
    retry: Duration::from_secs(10),
    max_retry: Duration::from_secs(3600),
    min_interval: Duration::ZERO,
    settle: Duration::ZERO,
};

/// The default time limits.
pub const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(30),
    stall: Duration::from_secs(300),
    whole: Duration::from_secs(3 * 3600),
};

/// The default of `max_refs_per_push`.
pub const DEFAULT_MAX_REFS: usize = 2000;

impl Mirror {
    /// Whether refs are taken from it, and nothing is sent to it.
    #[must_use]
    pub fn is_pull(&self) -> bool {
        self.direction == Direction::Pull
    }

    /// Whether refs are taken from it.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.direction != Direction::Push
    }

    /// Whether it gets our refs.
    #[must_use]
    pub fn sends(&self) -> bool {
        self.direction != Direction::Pull
    }

    /// Its address (see [`Address::identity`]) and its direction. If this changes, what was stored
    /// about the mirror does not count any more.
    #[must_use]
    pub fn identity(&self) -> String {
        self.direction.identity(&self.address)
    }
}

impl Config {
    /// The mirror `name`.
    #[must_use]
    pub fn mirror(&self, name: &str) -> Option<&Mirror> {
        self.mirrors.iter().find(|mirror| mirror.name == name)
    }

    /// The error text for a name that no mirror has.
    #[must_use]
    pub fn no_mirror(&self, name: &str) -> String {
        let fix = match explain::nearest(name, self.mirrors.iter().map(|mirror| &*mirror.name)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => "'git mirror-push list' shows them".to_owned(),
        };
        format!("no mirror '{}' here; {fix}", name.escape_debug())
    }

    /// The rules of `mirror` in a repository whose HEAD names `default_branch`.
    #[must_use]
    pub fn rules(&self, mirror: &Mirror, default_branch: Option<&RefName>) -> Rules {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text.as_bytes())).collect::<Vec<_>>();
        let protected = || match &self.protected_branches {
            Some(texts) => patterns(texts),
            None => default_branch.and_then(RefName::branch).map(Pattern::new).into_iter().collect(),
        };
        Rules {
            branches: match &mirror.mirror_branch_regex {
                _ if mirror.only_protected_branches => Branches::Protected(protected()),
                Some(regex) => Branches::Matching(regex.compiled()),
                None => Branches::All,
            },
            tags: match &mirror.tags {
                TagsSetting::All => Tags::All,
                TagsSetting::None => Tags::None,
                TagsSetting::Matching(texts) => Tags::Matching(patterns(texts)),
            },
            namespaces: patterns(&mirror.refspecs),
            excluded: patterns(&mirror.excluded),
            divergent: mirror.divergent,
            conflicts: mirror.conflicts,
            prune: mirror.prune,
            max_deletes: mirror.max_deletes.map_or(MaxDeletes::Default, MaxDeletes::Limit),
            is_atomic: mirror.is_atomic,
        }
    }
}

/// The line of byte `offset`, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Reads the text of a repository's file and adds the server's settings. `placed` is the place of the repository below a root.
///
/// # Errors
/// [`Error::Meaning`].
pub fn parse(path: &Path, text: &str, server: &Server, placed: Option<&Placed>, trust: Trust) -> Result<Config, Error> {
    check::config(path, text, file::parse(path, text)?, server, placed, trust)
}

/// How far a repository's file is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Everything: it is ours or root's, and nobody else may write it.
    Full,
    /// A user who may not act in our name owns it or may write it. Only harmless keys count, and its mirrors are confined.
    Foreign,
}
