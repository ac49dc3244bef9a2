//! The types of the configuration files, as serde reads them. The doc comments of the keys become the manual page. The repository's and the
//! server's file have the same types, in which all keys are optional. `check` refuses a file that lacks a required key, and a repository's
//! file with a key that only the server's file may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::explain::explain;
use super::fleet::FleetKeys;
use super::keys::{Place, Table, table};
use super::settings::Settings;
use super::{Error, line_of, read};
use crate::wire::{Allowed, Egress};

table! {
    /// The keys at the top of the files.
    pub TopKeys:

    /// The version of the file format. A later version is refused.
    version: u32, Top, "integer; 1", via "read::version";

    /// The branches that only_protected_branches refers to. An empty list protects none.
    protected_branches: Vec<String>, Top, "list of patterns; the branch that HEAD names";

    /// Send nothing from this machine. Pushes are still recorded.
    silent: bool, Top, "boolean; false";

    /// Who updates the mirrors after a push. "auto": the daemon if one runs, otherwise a background drain. "none": cron, a timer, or
    /// you. The hook reads this key in the repository's file and in config.toml of the server, not in conf.d.
    wake: Wake, Top, "\"auto\" or \"none\"; \"auto\"";

    /// Whether the repository is to have our hook. "none": something else records the pushes; then 'add' installs no hook, and 'doctor' and
    /// 'check' do not report that it is missing.
    hook: HookSetting, Top, "\"post-receive\" or \"none\"; \"post-receive\"";

    /// A program (absolute path) and its arguments. It runs when a mirror begins to fail, still fails, or recovers; it reads the
    /// event as JSON from standard input and has ten seconds. No shell is involved. Only files that you or root own may set it.
    notify: Vec<String>, Top, "array; none";

    /// How long a mirror must have been failing before the first notification.
    notify_after: Duration, Top, "duration; at once", via "read::period";

    /// How often the notification is repeated while the mirror still fails.
    notify_interval: Duration, Top, "duration; \"1d\"", via "read::period";

    /// A file for the textfile collector of Prometheus. If the repository's file sets this key,
    /// each drain writes the metrics of that repository. If the server's file sets it, each --all
    /// writes those of all repositories.
    metrics_file: PathBuf, Top, "absolute path; none", via "read::absolute";

    /// How many mirrors --all and the daemon update at the same time. In the daemon, updates that
    /// only wait for a mirror are not counted; at most twice this number of them run.
    max_jobs: usize, Server, "integer; 16", via "read::at_least_one";

    /// How many of these updates may go to the same host. In the daemon, the same number of
    /// additional updates may wait for an answer from that host.
    max_jobs_per_host: usize, Server, "integer; 8, or 16 for a host whose first answered update takes 100 ms or more and does not use ssh", via "read::at_least_one";

    /// How many of these updates may be for the same repository.
    max_jobs_per_repository: usize, Server, "integer; 4", via "read::at_least_one";

    /// How often the daemon scans all repositories for work that no hook announced. If this is not set and a scan takes more than 0.6 s, the
    /// daemon waits for 100 times as long as the scan took, and an hour at most.
    scan_interval: Duration, Server, "duration; \"1m\"", via "read::period";

    /// How often the daemon compares all refs of every mirror.
    reconcile_interval: Duration, Server, "duration; \"24h\"", via "read::period";

    /// How long the daemon waits for running updates when it is stopped. Unfinished updates are repeated after the next start.
    shutdown_timeout: Duration, Server, "duration; \"30s\"", via "read::period";

    with
    /// `mirror-push/config.toml` in a repository, `/etc/git-mirror-push/config.toml`, or a file of `conf.d`.
    File {
        #[serde(default)]
        api: Option<Api>,
        #[serde(default)]
        repositories: Vec<Spanned<Repositories>>,
        #[serde(default)]
        hosts: BTreeMap<Spanned<String>, HostKeys>,
        #[serde(default)]
        fleet: Option<FleetKeys>,
        #[serde(default)]
        defaults: Settings,
        #[serde(default)]
        remotes: BTreeMap<Spanned<String>, Settings>,
    }
}

table! {
    /// `[api]`: limits for mirrors that were created through the API or the page, and the host names of this server.
    pub Api:

    /// Whether mirrors that were created through the API may connect to loopback, private and link-local addresses, and use local
    /// paths.
    allow_local_network: bool, Api, "boolean; false";

    /// Host names, addresses and networks (10.0.0.0/8) that those mirrors may connect to, in addition to public addresses.
    allowed_hosts: Vec<Allowed>, Api, "list; none", via "read::hosts";

    /// Names of this server by which the API and the page are reached, without ports. A request for another name is refused, so that a
    /// web page cannot reach them through a name of its own that resolves to this machine.
    hosts: Vec<String>, Api, "list of host names; any", via "read::names_of_hosts";

    /// How many mirrors of one repository may be created through the API and the page.
    max_mirrors_per_project: usize, Api, "integer; 20", via "read::at_least_one";
}

table! {
    /// `[hosts.NAME]`: limits for one host.
    pub HostKeys:

    /// How many updates may run at this host at once, in place of max_jobs_per_host. In a fleet: of all machines together.
    max_jobs: usize, Hosts, "integer; max_jobs_per_host", via "read::at_least_one";

    /// How many updates may begin at this host in a minute. In a fleet: of all machines together.
    max_per_minute: usize, Hosts, "integer; no limit", via "read::at_least_one";
}

table! {
    /// `[[repositories]]`
    pub(super) Repositories:

    /// A directory that contains repositories, at any depth. Symbolic links are not followed.
    root: PathBuf, Repositories, "absolute path", via "read::absolute";

    /// Which repositories are served: the path below root, with or without .git, must match one of these patterns.
    include: Vec<String>, Repositories, "list of patterns; all";

    /// Which repositories are left out.
    exclude: Vec<String>, Repositories, "list of patterns; none";

    /// Other users, by name or number, whose repositories are served as well. Without this key, only repositories of the user who
    /// runs the program are served. root serves theirs in a child process with their rights.
    owners: Vec<String>, Repositories, "list of users; none";
}

/// The keys that count in the file of a user whom we do not trust. They name no program, no file and no host but the mirror itself.
const HARMLESS: [&str; 31] = [
    "version",
    "protected_branches",
    "silent",
    "wake",
    "hook",
    "id",
    "url",
    "direction",
    "enabled",
    "only_protected_branches",
    "mirror_branch_regex",
    "divergent_refs",
    "tags",
    "prune",
    "auth_method",
    "username",
    "refspecs",
    "retry_delay",
    "max_retry_delay",
    "min_interval",
    "settle",
    "max_refs_per_push",
    "max_deletes",
    "push_options",
    "atomic",
    "optimistic",
    "interval",
    "min_check_interval",
    "max_check_interval",
    "keep_rewritten",
    "follow_head",
];

impl File {
    /// Removes the keys that do not count in the file of a user whom we do not trust, and makes every mirror confined. Returns the names of
    /// the removed keys, except `confined`.
    pub(super) fn confine(&mut self) -> Vec<&'static str> {
        let mut top = self.keys();
        let mut forgotten = top.forget_others(&HARMLESS);
        self.set_keys(top);
        for settings in self.remotes.values_mut() {
            forgotten.extend(settings.forget_others(&HARMLESS));
            settings.confined = Some(true);
        }
        // All its [defaults] are removed: they would also apply to mirrors from the server's file, and those are not confined.
        forgotten.extend(self.defaults.forget_others(&[]));
        forgotten.retain(|key| *key != "confined");
        forgotten.sort_unstable();
        forgotten.dedup();
        forgotten
    }

    /// The first table or key that belongs only in the server's file.
    pub(super) fn of_the_server(&self) -> Option<&'static str> {
        let tables = [
            ("repositories", !self.repositories.is_empty()),
            ("api", self.api.is_some()),
            ("hosts", !self.hosts.is_empty()),
            ("fleet", self.fleet.is_some()),
        ];
        let tables = tables.into_iter().find_map(|(name, is_there)| is_there.then_some(name));
        tables.or_else(|| self.keys().said().find(|key| key.place == Place::Server).map(|key| key.name))
    }
}

impl Api {
    /// What a confined mirror may reach.
    #[must_use]
    pub fn egress(&self) -> Egress {
        match self.allow_local_network {
            Some(true) => Egress::everything(),
            _ => Egress::new(self.allowed_hosts.clone().unwrap_or_default()),
        }
    }
}

/// `wake`: who drains after a push.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Wake {
    /// The daemon if one listens, else a detached drain.
    #[default]
    Auto,
    /// cron, a timer or you.
    None,
}

/// `hook`: whether the repository is to have our hook.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum HookSetting {
    /// The repository is to have it, as `post-receive`.
    #[default]
    PostReceive,
    /// No hook of ours: something else records the pushes, or nothing does.
    None,
}

/// `auth_method`, in GitLab's words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// User name and password or token.
    Password,
    /// A key of the mirror's own.
    SshPublicKey,
    /// No credentials of ours: ssh uses its own keys, or the server needs none.
    None,
}

impl AuthMethod {
    /// The word in files and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::SshPublicKey => "ssh_public_key",
            Self::None => "none",
        }
    }
}

/// `tags`: `"all"`, `"none"`, or patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagsSetting {
    /// Every tag.
    All,
    /// No tag.
    None,
    /// Those that one of the patterns matches.
    Matching(Vec<String>),
}

impl<'de> Deserialize<'de> for TagsSetting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "tags is \"all\", \"none\" or a list of patterns like [\"v*\"]")]
        enum Written {
            Word(String),
            Patterns(Vec<String>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(word) if word == "all" => Ok(Self::All),
            Written::Word(word) if word == "none" => Ok(Self::None),
            Written::Word(_) => {
                Err(serde::de::Error::custom("tags is \"all\", \"none\" or a list of patterns like [\"v*\"]"))
            }
            Written::Patterns(patterns) => Ok(Self::Matching(patterns)),
        }
    }
}

/// Parses the text of a file. `path` is for the error message.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| meaning(path, text, &error))
}

fn meaning(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = line_of(text, error.span().map_or(0, |span| span.start));
    let what = explain(error.message(), text, line);
    Error::Meaning { path: path.to_owned(), line, what }
}
