//! Every configuration key, with the texts of git-mirror-push-config(5) and `docs/configuration.md`. A test compares the list with the keys that
//! the files may hold.

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of either file.
    Top,
    /// At the top of the server's files.
    Server,
    /// In `[api]` of the server's files.
    Api,
    /// In `[[repositories]]` of the server's files.
    Repositories,
    /// In `[remotes.NAME]` or `[defaults]`.
    Remote,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// The type of its value, and after a semicolon the default.
    pub value: &'static str,
    /// What it means.
    pub text: &'static str,
}

const fn key(name: &'static str, place: Place, value: &'static str, text: &'static str) -> Key {
    Key { name, place, value, text }
}

use Place::{Api, Remote, Repositories, Server, Top};

/// The places of keys in the order of the manual page, with their headings.
pub const SECTIONS: [(Place, &str); 5] = [
    (Top, "Keys at the top of either file"),
    (Server, "Keys at the top of the server's files"),
    (Api, "Keys of [api]"),
    (Repositories, "Keys of [[repositories]]"),
    (Remote, "Keys of [remotes.NAME] and [defaults]"),
];

/// All keys, in the order of the manual page.
pub const KEYS: [Key; 55] = [
    key("version", Top, "integer; 1", "The version of the file format. A later version is refused."),
    key(
        "protected_branches",
        Top,
        "list of patterns; the branch that HEAD names",
        "The branches that only_protected_branches refers to. An empty list protects none.",
    ),
    key("silent", Top, "boolean; false", "Send nothing from this machine. Pushes are still recorded."),
    key(
        "wake",
        Top,
        "\"auto\" or \"none\"; \"auto\"",
        "Who updates the mirrors after a push. \"auto\": the daemon if one runs, otherwise a background drain. \"none\": cron, a timer, or you. The hook reads this key in the repository's file and in config.toml of the server, not in conf.d.",
    ),
    key(
        "notify",
        Top,
        "array; none",
        "A program (absolute path) and its arguments. It runs when a mirror begins to fail, still fails, or recovers; it reads the event as JSON from standard input and has ten seconds. No shell is involved. Only files that you or root own may set it.",
    ),
    key(
        "notify_after",
        Top,
        "duration; at once",
        "How long a mirror must have been failing before the first notification.",
    ),
    key(
        "notify_interval",
        Top,
        "duration; \"1d\"",
        "How often the notification is repeated while the mirror still fails.",
    ),
    key(
        "metrics_file",
        Top,
        "absolute path; none",
        "A file for the textfile collector of Prometheus. It is replaced after each drain: in a repository's file with that repository, in the server's file with all of them after each --all.",
    ),
    key("max_jobs", Server, "integer; 16", "How many mirrors --all and the daemon update at the same time."),
    key(
        "max_jobs_per_host",
        Server,
        "integer; 8, or 16 at a host whose first contact takes 100 ms or more",
        "How many of these at the same host.",
    ),
    key("max_jobs_per_repository", Server, "integer; 4", "How many of these in the same repository."),
    key(
        "scan_interval",
        Server,
        "duration; \"1m\"",
        "How often the daemon scans all repositories for work that no hook announced.",
    ),
    key("reconcile_interval", Server, "duration; \"24h\"", "How often the daemon compares all refs of every mirror."),
    key(
        "shutdown_timeout",
        Server,
        "duration; \"30s\"",
        "How long the daemon waits for running updates when it is stopped. Unfinished updates are repeated after the next start.",
    ),
    key(
        "allow_local_network",
        Api,
        "boolean; false",
        "Whether mirrors that were created through the API may connect to loopback, private and link-local addresses, and use local paths.",
    ),
    key(
        "allowed_hosts",
        Api,
        "list; none",
        "Host names, addresses and networks (10.0.0.0/8) that those mirrors may connect to, in addition to public addresses.",
    ),
    key(
        "root",
        Repositories,
        "absolute path",
        "A directory that contains repositories, at any depth. Symbolic links are not followed.",
    ),
    key(
        "include",
        Repositories,
        "list of patterns; all",
        "Which repositories are served: the path below root, with or without .git, must match one of these patterns.",
    ),
    key("exclude", Repositories, "list of patterns; none", "Which repositories are left out."),
    key(
        "owners",
        Repositories,
        "list of users; none",
        "Other users, by name or number, whose repositories are served as well. Without this key, only repositories of the user who runs the program are served.",
    ),
    key("id", Remote, "integer", "The id of the mirror in the API. 'add' writes it; templates must not have one."),
    key(
        "url",
        Remote,
        "URL, required",
        "The URL of the mirror: https, http, ssh, git, file, an absolute path, or user@host:path. In the server's files {path} is the repository's path below root and {name} its last component, both without .git.",
    ),
    key("enabled", Remote, "boolean; true", "Whether the mirror is updated."),
    key(
        "confined",
        Remote,
        "boolean; false",
        "Whether the mirror may connect only to addresses that [api] of the server's file allows, with its own credentials only. Set for mirrors that were created or moved through the API.",
    ),
    key("only_protected_branches", Remote, "boolean; false", "Whether only protected branches are mirrored."),
    key(
        "mirror_branch_regex",
        Remote,
        "regex; all",
        "Mirror only branches that match (RE2 syntax, unanchored, at most 255 characters). Cannot be combined with only_protected_branches = true.",
    ),
    key(
        "divergent_refs",
        Remote,
        "\"overwrite\", \"keep\" or \"fail\"; \"overwrite\"",
        "What to do with a ref that someone else changed on the mirror: overwrite it, keep it and report it, or fail without pushing anything.",
    ),
    key("tags", Remote, "\"all\", \"none\" or list of patterns; \"all\"", "Which tags are mirrored."),
    key(
        "prune",
        Remote,
        "\"merged\", \"deleted\", \"mirror\" or \"never\"; \"merged\"",
        "Which refs of the mirror are deleted when this repository does not have them. \"merged\": those that were deleted here and whose commits are in the default branch. \"deleted\": those that were deleted here and that nobody changed there. \"mirror\": all. \"never\": none.",
    ),
    key(
        "auth_method",
        Remote,
        "\"password\", \"ssh_public_key\" or \"none\"; \"password\" where a user name (http) or a source of a password is configured",
        "How to authenticate. With \"ssh_public_key\", a key is generated for this mirror alone.",
    ),
    key("username", Remote, "text; none", "The user name for http."),
    key(
        "password_file",
        Remote,
        "absolute path; none",
        "A file with the password or token, mode 0600. Used when the mirror has no stored password.",
    ),
    key(
        "password_command",
        Remote,
        "array; none",
        "A program (absolute path) and its arguments; the first line of its output is the password or token. Only files that you or root own may set it.",
    ),
    key(
        "refspecs",
        Remote,
        "list of patterns; none",
        "Refs to mirror in addition to branches and tags, for example \"refs/notes/*\".",
    ),
    key(
        "ssh_options",
        Remote,
        "list of texts; none",
        "Options of ssh_config(5), for example \"Compression=yes\". Options that run programs or weaken host key checking are refused.",
    ),
    key("proxy", Remote, "URL; the environment's", "The proxy for http and https."),
    key(
        "ca_file",
        Remote,
        "path; the system's",
        "Certificates (PEM) to trust for https instead of the system's, or the server's own self-signed certificate.",
    ),
    key("allow_insecure_http", Remote, "boolean; false", "Whether a password may go over plain http."),
    key("connect_timeout", Remote, "duration; \"30s\"", "Maximum time to establish a connection."),
    key("stall_timeout", Remote, "duration; \"5m\"", "Abort when nothing was sent or received for this long."),
    key("timeout", Remote, "duration; \"3h\"", "Maximum time for one connection from beginning to end."),
    key(
        "retry_delay",
        Remote,
        "duration; \"10s\"",
        "Shortest delay before a retry after a temporary failure. The delay is random, below a limit that doubles with each failure.",
    ),
    key("max_retry_delay", Remote, "duration; \"1h\"", "Where that limit ends."),
    key("min_interval", Remote, "duration; none", "Minimum time between the starts of two updates."),
    key("settle", Remote, "duration; none", "Wait until no push has arrived for this long."),
    key("max_refs_per_push", Remote, "integer; 2000", "Maximum number of refs in one push."),
    key(
        "max_deletes",
        Remote,
        "integer; the larger of 50 and half of the mirror's selected refs",
        "Maximum number of refs that one run deletes, unless sync --allow-mass-delete is given.",
    ),
    key("push_options", Remote, "list of texts; none", "Push options to send, if the mirror supports them."),
    key("atomic", Remote, "boolean; false", "Whether a push updates all refs or none."),
    key(
        "optimistic",
        Remote,
        "boolean; true",
        "Whether a small change is pushed without reading the refs of the mirror first. The last known values are the expected old values; if a ref has another value, the mirror refuses the update, its refs are read, and the update is decided again.",
    ),
    key(
        "set_head",
        Remote,
        "boolean; false",
        "Whether HEAD of a bare mirror on this machine is set. If that HEAD names a branch that this repository lacks, it is set to this repository's default branch. The push protocol cannot set HEAD.",
    ),
    key("[[repositories]]", Server, "table, repeated", "Where repositories are, for --all, the daemon and templates."),
    key("[api]", Server, "table", "Limits for mirrors that are created through the API or the page."),
    key("[defaults]", Top, "table", "Values for the keys of [remotes.NAME] that a mirror does not set itself."),
    key(
        "[remotes.NAME]",
        Top,
        "table",
        "A mirror. In the server's files: a mirror of every repository below the roots. NAME is 1 to 64 ASCII letters, digits, '.', '_' and '-', and begins with a letter or digit.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_files_is_documented() {
        let source = include_str!("file.rs");
        let fields = source.lines().filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split_once(": "));
        let fields = fields
            .map(|(name, _)| name)
            .filter(|name| !name.contains(' ') && !["repositories", "defaults", "remotes", "api"].contains(name));
        let documented: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|name| !name.starts_with('[')).collect();
        let mut expected: Vec<&str> = fields.collect();
        expected.sort_unstable();
        let mut found = documented.clone();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
