//! The keys of a mirror, and the mirror that they make. For each key, the first of these that sets it decides: the mirror's table in the
//! repository's file, the server's template, `[defaults]` of the repository's file, `[defaults]` of the server's files, the built-in
//! default. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::create::{Create, Kind, Maker, Visibility};
use super::keys::table;
use super::pull::{Direction, Hooks, Interval, Keep, Pull};
use super::values::{BranchRegex, check_command};
use super::{AuthMethod, DEFAULT_MAX_REFS, DEFAULT_TIMEOUTS, DEFAULT_WAITS, Mirror, TagsSetting, Waits, read};
use crate::plan::{Conflicts, Divergent, Prune};
use crate::wire::{Address, Timeouts};

table! {
    /// The keys of a mirror, checked one by one; `None` is a key that is not set.
    pub(super) Settings:

    /// The id of the mirror in the API. 'add' writes it; templates must not have one.
    id: u32, Remote, "integer";

    /// The URL of the mirror: https, http, ssh, git, file, an absolute path, or user@host:path. In the server's files {path} is the
    /// repository's path below root and {name} its last component, both without .git; {path_dash} and {path_underscore} are the path with
    /// '-' or '_' in place of '/'.
    url: String, Remote, "URL, required", via "read::url";

    /// "push": the mirror gets what is pushed here. "pull": this repository takes what changes in the mirror, its upstream. "both":
    /// whichever side changed a ref, the other side gets it.
    direction: Direction, Remote, "\"push\", \"pull\" or \"both\"; \"push\"";

    /// Whether the mirror is updated.
    enabled: bool, Remote, "boolean; true";

    /// Whether the mirror may connect only to addresses that [api] of the server's file allows, with its own credentials only. Set
    /// for mirrors that were created or moved through the API.
    confined: bool, Remote, "boolean; false";

    /// Whether only protected branches are mirrored.
    only_protected_branches: bool, Remote, "boolean; false";

    /// Mirror only branches that match (RE2 syntax, unanchored, at most 255 characters). Cannot be combined with
    /// only_protected_branches = true.
    mirror_branch_regex: BranchRegex, Remote, "regex; all", via "read::branch_regex";

    /// What to do with a ref that someone else changed on the mirror (of a pull mirror: that someone changed here): overwrite it, keep
    /// it and report it, or fail without updating anything. A two-way mirror has 'conflicts' instead.
    divergent_refs: Divergent, Remote, "\"overwrite\", \"keep\" or \"fail\"; \"overwrite\", of a pull mirror \"keep\"";

    /// Both: what to do with a ref that both sides moved, each to a value that does not contain the other's. "keep": neither side changes,
    /// and the ref is reported. "ours" and "theirs": this side's value wins, and the other one is kept.
    conflicts: Conflicts, Remote, "\"keep\", \"ours\" or \"theirs\"; \"keep\"";

    /// Which tags are mirrored.
    tags: TagsSetting, Remote, "\"all\", \"none\" or list of patterns; \"all\"";

    /// Which refs of the mirror are deleted when this repository does not have them. "merged": those that were deleted here and whose
    /// commits are in the default branch. "deleted": those that were deleted here and that nobody changed there. "mirror": all.
    /// "never": none. For a pull mirror, the sides are exchanged.
    prune: Prune, Remote, "\"merged\", \"deleted\", \"mirror\" or \"never\"; \"merged\"";

    /// How to authenticate. With "ssh_public_key", a key is generated for this mirror alone.
    auth_method: AuthMethod, Remote, "\"password\", \"ssh_public_key\" or \"none\"; \"password\" where a user name (http) or a source of a password is configured";

    /// The user name for http.
    username: String, Remote, "text; none";

    /// A file with the password or token, mode 0600. Used when the mirror has no stored password.
    password_file: PathBuf, Remote, "absolute path; none", via "read::absolute";

    /// A program (absolute path) and its arguments; the first line of its output is the password or token. Only files that you or
    /// root own may set it.
    password_command: Vec<String>, Remote, "array; none";

    /// Refs to mirror in addition to branches and tags, for example "refs/notes/*". "^refs/heads/private/*" leaves refs out, whatever else
    /// selects them.
    refspecs: Vec<String>, Remote, "list of patterns; none", via "read::refspecs";

    /// Options of ssh_config(5), for example "Compression=yes". Options that run programs or weaken host key checking are refused.
    ssh_options: Vec<String>, Remote, "list of texts; none", via "read::ssh_options";

    /// The proxy for http and https.
    proxy: String, Remote, "URL; the environment's", via "read::proxy";

    /// Certificates (PEM) to trust for https instead of the system's, or the server's own self-signed certificate.
    ca_file: PathBuf, Remote, "path; the system's";

    /// Whether a password may go over plain http.
    allow_insecure_http: bool, Remote, "boolean; false";

    /// Maximum time to establish a connection.
    connect_timeout: Duration, Remote, "duration; \"30s\"", via "read::period";

    /// Abort when nothing was sent or received for this long.
    stall_timeout: Duration, Remote, "duration; \"5m\"", via "read::period";

    /// Maximum time for one connection from beginning to end.
    timeout: Duration, Remote, "duration; \"3h\"", via "read::period";

    /// Shortest delay before a retry after a temporary failure. The delay is random, below a limit that doubles with each failure.
    retry_delay: Duration, Remote, "duration; \"10s\"", via "read::period";

    /// Upper limit of the delay before a retry.
    max_retry_delay: Duration, Remote, "duration; \"1h\"", via "read::period";

    /// Minimum time between the starts of two updates.
    min_interval: Duration, Remote, "duration; none", via "read::period";

    /// Wait until no push has arrived for this long.
    settle: Duration, Remote, "duration; none", via "read::period";

    /// Maximum number of refs in one push.
    max_refs_per_push: usize, Remote, "integer; 2000";

    /// Maximum number of refs that one run deletes, unless sync --allow-mass-delete is given.
    max_deletes: usize, Remote, "integer; the larger of 50 and half of the mirror's selected refs";

    /// Push options to send, if the mirror supports them.
    push_options: Vec<String>, Remote, "list of texts; none", via "read::push_options";

    /// Whether a push updates all refs or none.
    atomic: bool, Remote, "boolean; false";

    /// Whether a small change is pushed without reading the refs of the mirror first. The last known values are the expected old
    /// values; if a ref has another value, the mirror refuses the update, its refs are read, and the update is decided again.
    optimistic: bool, Remote, "boolean; true";

    /// Whether HEAD of a bare mirror on this machine is set. If that HEAD names a branch that this repository lacks, it is set to
    /// this repository's default branch. The push protocol cannot set HEAD.
    set_head: bool, Remote, "boolean; false";

    /// Who makes the mirror's repository if it is not there at the first contact. "path": 'git init' on this machine. "ssh": 'git init' by
    /// a shell of the host. "push": the host makes it at the first push. "github", "gitlab", "gitea": the host's API. Unset: nobody.
    create: Kind, Remote, "\"path\", \"ssh\", \"push\", \"github\", \"gitlab\" or \"gitea\"; none";

    /// Who may see a repository that is made.
    create_visibility: Visibility, Remote, "\"private\", \"internal\" or \"public\"; \"private\"";

    /// A file with the token that may create repositories, mode 0600. Unset: the mirror's own password.
    create_token_file: PathBuf, Remote, "absolute path; none", via "read::absolute";

    /// The address of the host's API, for example "https://ghe.example.com/api/v3". For "ssh": another ssh URL. Placeholders are those of url.
    create_url: String, Remote, "URL; from url";

    /// Maximum number of repositories that are created at one host in a minute.
    create_per_minute: usize, Remote, "integer; 8", via "read::at_least_one";

    /// In place of 'create': a program (absolute path) and its arguments. It reads one JSON object: repository, name, url, visibility,
    /// description, default_branch, object_format. Only files that you or root own may set it.
    create_command: Vec<String>, Remote, "array; none";

    /// Pull, both: how often the mirror is checked. "auto": after half the time since it last changed, between min_check_interval and
    /// max_check_interval. "none": only when asked.
    interval: Interval, Remote, "\"auto\", \"none\" or duration; \"auto\"", via "read::interval";

    /// Pull, both: the shortest time between two checks that nobody asked for.
    min_check_interval: Duration, Remote, "duration; \"1m\"", via "read::period";

    /// Pull, both: the longest time between two checks, with interval = "auto".
    max_check_interval: Duration, Remote, "duration; \"30m\"", via "read::period";

    /// How long a replaced value stays under refs/rewritten/NAME. A pull keeps a value of this repository before it sets the ref to one that
    /// does not contain it, or deletes the ref. A push keeps a value of the mirror that was never here. "0" keeps none.
    keep_rewritten: Keep, Remote, "duration, \"forever\" or \"0\"; \"90d\"", via "read::keep";

    /// Push: the most that one run fetches from the mirror to keep what is replaced there. For a confined mirror: the most that is kept of it.
    max_rewritten_size: u64, Remote, "size like \"100MiB\"; \"1GiB\"", via "read::size";

    /// Pull: whether HEAD follows upstream's HEAD. It is set if this repository is empty, or if it names the branch that upstream's HEAD
    /// named before. Both: only an empty repository takes over the mirror's HEAD.
    follow_head: bool, Remote, "boolean; true";

    /// Pull, both: which hooks of this repository run for taken refs. "policy": pre-receive, update and reference-transaction. What was taken
    /// goes to the push mirrors in any case.
    hooks: Hooks, Remote, "\"all\", \"policy\" or \"none\"; \"all\"";

    /// Pull, both: variables for the environment of these hooks, for example { GL_USER = "mirror" }. Only files that you or root own may set it.
    hook_environment: BTreeMap<String, String>, Remote, "table of texts; none", via "read::hook_environment";

    /// Pull, both: the largest pack that one run takes.
    max_input_size: u64, Remote, "size like \"4GiB\"; receive.maxInputSize of git", via "read::size";
}

impl Settings {
    /// What is wrong in one table, whatever other tables say.
    pub(super) fn mistake(&self) -> Option<Mistake> {
        let has_regex = self.mirror_branch_regex.as_ref().is_some_and(|regex| !regex.as_str().is_empty());
        if self.only_protected_branches == Some(true) && has_regex {
            return Some(Mistake::exclusion());
        }
        let commands =
            [("password_command", &self.password_command), ("create_command", &self.create_command)].into_iter();
        let wrong = |(key, command): (&'static str, &Option<Vec<String>>)| {
            let what = check_command(command.as_deref()?, key).err()?;
            Some(Mistake { key, what })
        };
        commands.filter_map(wrong).next()
    }
}

impl Settings {
    /// The settings of pulls, and of keeping the values that a run replaces.
    fn take_pull(&mut self) -> Pull {
        Pull {
            interval: self.interval.unwrap_or_default(),
            min_check_interval: self.min_check_interval.unwrap_or(Pull::MIN_CHECK_INTERVAL),
            max_check_interval: self.max_check_interval.unwrap_or(Pull::MAX_CHECK_INTERVAL),
            keep_rewritten: self.keep_rewritten.unwrap_or_default(),
            follows_head: self.follow_head.unwrap_or(true),
            hooks: self.hooks.unwrap_or_default(),
            hook_environment: self.hook_environment.take().unwrap_or_default(),
            max_rewritten_size: self.max_rewritten_size.unwrap_or(Pull::MAX_REWRITTEN_SIZE),
            max_input_size: self.max_input_size,
        }
    }

    /// How the repository of a mirror at `address` is made; `None` if nobody makes it.
    fn take_create(&mut self, direction: Direction, address: &Address) -> Result<Option<Create>, Mistake> {
        let maker = match (self.create, self.create_command.take()) {
            (Some(_), Some(_)) => {
                let what = "create and create_command exclude each other; choose one";
                return Err(Mistake { key: "create_command", what: what.into() });
            }
            (Some(kind), None) => Maker::Kind(kind),
            (None, Some(command)) => Maker::Command(command),
            (None, None) => return Ok(None),
        };
        let create = Create {
            maker,
            visibility: self.create_visibility.unwrap_or_default(),
            token_file: self.create_token_file.take(),
            url: self.create_url.take(),
            per_minute: self.create_per_minute.unwrap_or(Create::PER_MINUTE),
        };
        // An upstream is never made.
        if direction == Direction::Pull {
            return Ok(None);
        }
        if direction == Direction::Both && create.maker == Maker::Kind(Kind::Push) {
            let what = "a two-way mirror is read before it is pushed to, so create = \"push\" cannot create it; choose another 'create'";
            return Err(Mistake { key: "create", what: what.into() });
        }
        create.mistake(address).map_or(Ok(Some(create)), Err)
    }

    /// Whether `create` or `create_command` is set.
    pub(super) fn says_create(&self) -> bool {
        self.create.is_some() || self.create_command.is_some()
    }

    /// Takes over from `other` who makes the repository and how.
    pub(super) fn with_create_of(self, other: Self) -> Self {
        Self {
            create: other.create,
            create_visibility: other.create_visibility,
            create_token_file: other.create_token_file,
            create_url: other.create_url,
            create_per_minute: other.create_per_minute,
            create_command: other.create_command,
            ..self
        }
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            connect: self.connect_timeout.unwrap_or(DEFAULT_TIMEOUTS.connect),
            stall: self.stall_timeout.unwrap_or(DEFAULT_TIMEOUTS.stall),
            whole: self.timeout.unwrap_or(DEFAULT_TIMEOUTS.whole),
        }
    }

    /// The policy for refs that diverged. A two-way mirror has `conflicts` instead.
    fn divergent(&self, direction: Direction) -> Result<Divergent, Mistake> {
        match (direction, self.divergent_refs) {
            (Direction::Both, Some(_)) => {
                let what = "a two-way mirror has no divergent_refs; 'conflicts' says what happens to a ref that both sides moved";
                Err(Mistake { key: "divergent_refs", what: what.into() })
            }
            (_, Some(policy)) => Ok(policy),
            (Direction::Push, None) => Ok(Divergent::Overwrite),
            (_, None) => Ok(Divergent::Keep),
        }
    }

    /// The mirror that these settings make, or what is wrong with them together.
    pub(super) fn into_mirror(mut self, name: &str, id: u32) -> Result<Mirror, Mistake> {
        let pull = self.take_pull();
        let direction = self.direction.unwrap_or_default();
        let timeouts = self.timeouts();
        let (excluded, refspecs) = split_refspecs(self.refspecs.take().unwrap_or_default());
        let divergent = self.divergent(direction)?;
        let wrong_url = |what: String| Mistake { key: "url", what };
        let url = self.url.take().ok_or_else(|| wrong_url(format!("remote '{name}' has no url")))?;
        let (address, in_url) = crate::wire::parse(&url).map_err(|refused| wrong_url(refused.to_string()))?;
        let create = self.take_create(direction, &address)?;
        let only_protected_branches = self.only_protected_branches.unwrap_or(false);
        let mirror_branch_regex = self.mirror_branch_regex.filter(|regex| !regex.as_str().is_empty());
        if only_protected_branches && mirror_branch_regex.is_some() {
            return Err(Mistake::exclusion());
        }
        let username = self.username.or(in_url.username);
        let has_password = self.password_file.is_some() || self.password_command.is_some();
        let auth_method = self.auth_method.unwrap_or(usual_method(&address, username.is_some(), has_password));
        Ok(Mirror {
            id,
            name: name.to_owned(),
            address,
            username,
            is_enabled: self.enabled.unwrap_or(true),
            is_servers: false,
            is_foreign: false,
            is_confined: self.confined.unwrap_or(false),
            only_protected_branches,
            mirror_branch_regex,
            direction,
            divergent,
            conflicts: (direction == Direction::Both).then(|| self.conflicts.unwrap_or_default()),
            tags: self.tags.unwrap_or(TagsSetting::All),
            prune: self.prune.unwrap_or(Prune::Merged),
            auth_method,
            password_file: self.password_file,
            password_command: self.password_command,
            refspecs,
            excluded,
            ssh_options: self.ssh_options.unwrap_or_default(),
            proxy: self.proxy,
            ca_file: self.ca_file,
            allow_insecure_http: self.allow_insecure_http.unwrap_or(false),
            timeouts,
            waits: Waits {
                retry: self.retry_delay.unwrap_or(DEFAULT_WAITS.retry),
                max_retry: self.max_retry_delay.unwrap_or(DEFAULT_WAITS.max_retry),
                min_interval: self.min_interval.unwrap_or(DEFAULT_WAITS.min_interval),
                settle: self.settle.unwrap_or(DEFAULT_WAITS.settle),
            },
            max_refs_per_push: self.max_refs_per_push.unwrap_or(DEFAULT_MAX_REFS).max(1),
            max_deletes: self.max_deletes,
            push_options: self.push_options.unwrap_or_default(),
            is_atomic: self.atomic.unwrap_or(false),
            is_optimistic: self.optimistic.unwrap_or(true),
            sets_head: self.set_head.unwrap_or(false),
            create,
            pull,
        })
    }
}

/// The refs that are left out, without `^`, and those that are added.
fn split_refspecs(refspecs: Vec<String>) -> (Vec<String>, Vec<String>) {
    let (excluded, refspecs): (Vec<_>, Vec<_>) = refspecs.into_iter().partition(|one| one.starts_with('^'));
    (excluded.iter().map(|one| one[1..].to_owned()).collect(), refspecs)
}

/// The value of `auth_method` if no file sets it. `has_user`: a user name is configured.
/// `has_password`: a source of a password is configured.
fn usual_method(address: &Address, has_user: bool, has_password: bool) -> AuthMethod {
    match address {
        Address::Http { .. } if has_user || has_password => AuthMethod::Password,
        Address::Ssh { .. } if has_password => AuthMethod::Password,
        _ => AuthMethod::None,
    }
}

/// What is wrong with the keys of a mirror.
pub(super) struct Mistake {
    /// The key to look at, if it is there.
    pub(super) key: &'static str,
    /// What is wrong and how to fix it.
    pub(super) what: String,
}

impl Mistake {
    fn exclusion() -> Self {
        let what = "mirror_branch_regex and only_protected_branches = true exclude each other; choose one";
        Self { key: "mirror_branch_regex", what: what.into() }
    }
}
