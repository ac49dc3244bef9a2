//! Every key of the files, in the words of git-mirror-push-config(5). A test compares the list with what the files may hold.

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
    /// What it may hold, and after a semicolon what counts when it is not said.
    pub value: &'static str,
    /// What it means.
    pub text: &'static str,
}

const fn key(name: &'static str, place: Place, value: &'static str, text: &'static str) -> Key {
    Key { name, place, value, text }
}

use Place::{Api, Remote, Repositories, Server, Top};

/// All keys, in the order of the manual page.
pub const KEYS: [Key; 55] = [
    key("version", Top, "integer; 1", "The version of the file's form. A later one is refused."),
    key(
        "protected_branches",
        Top,
        "list of patterns; the branch that HEAD names",
        "Branches that only_protected_branches means. An empty list protects none.",
    ),
    key("silent", Top, "boolean; false", "Nothing leaves this machine; pushes are still spooled."),
    key(
        "wake",
        Top,
        "\"auto\" or \"none\"; \"auto\"",
        "Who drains after a push: the daemon if one listens, else a detached drain; or cron, a timer or you.",
    ),
    key(
        "notify",
        Top,
        "array; none",
        "A program by its absolute path, and its arguments, run when a mirror begins to fail, still fails, or is well again. It gets the event as JSON on standard input and ten seconds; no shell reads it. Taken only from files of yours or root's.",
    ),
    key("notify_after", Top, "duration; at once", "How long a mirror must have failed before it is told."),
    key("notify_interval", Top, "duration; \"1d\"", "After which time a mirror that still fails is told again."),
    key(
        "metrics_file",
        Top,
        "absolute path; none",
        "A file for Prometheus' textfile collector, replaced after each drain: of this repository, or, in the server's file, of all after each --all.",
    ),
    key("max_jobs", Server, "integer; 16", "How many mirrors are served at once, by --all and by the daemon."),
    key("max_jobs_per_host", Server, "integer; 8, or 16 at one that is far away", "How many of them at one host."),
    key("max_jobs_per_repository", Server, "integer; 4", "How many of them of one repository."),
    key(
        "scan_interval",
        Server,
        "duration; \"1m\"",
        "How often the daemon looks through all spools, whatever the hooks told it.",
    ),
    key("reconcile_interval", Server, "duration; \"24h\"", "How often the daemon compares every mirror in full."),
    key(
        "shutdown_timeout",
        Server,
        "duration; \"30s\"",
        "How long the daemon lets run what runs when it is told to end. What it leaves is done by the next one.",
    ),
    key(
        "allow_local_network",
        Api,
        "boolean; false",
        "Whether mirrors that are made through the API may reach loopback, private and link-local addresses, and local paths.",
    ),
    key(
        "allowed_hosts",
        Api,
        "list; none",
        "Host names, addresses and networks (10.0.0.0/8) that they may reach besides public addresses.",
    ),
    key(
        "root",
        Repositories,
        "absolute path",
        "A directory with repositories, at any depth. Symbolic links are not followed.",
    ),
    key(
        "include",
        Repositories,
        "list of patterns; all",
        "Which repositories: the path below root, with or without .git, must match one of them.",
    ),
    key("exclude", Repositories, "list of patterns; none", "Which repositories not."),
    key(
        "owners",
        Repositories,
        "list of users; none",
        "Other users, by name or number, whose repositories are served too. Without it only repositories of the user who runs the program are.",
    ),
    key("id", Remote, "integer", "The number of the mirror in the API. Written by 'add'; not for templates."),
    key(
        "url",
        Remote,
        "URL, required",
        "Where the mirror is: https, http, ssh, git, file, an absolute path, or user@host:path. In the server's files {path} is the repository's path below root and {name} its last component, both without .git.",
    ),
    key("enabled", Remote, "boolean; true", "Whether it is served."),
    key(
        "confined",
        Remote,
        "boolean; false",
        "The mirror reaches only what [api] of the server's file allows, with its own credentials alone. Written for mirrors that are made or moved through the API.",
    ),
    key("only_protected_branches", Remote, "boolean; false", "Mirror protected branches only."),
    key(
        "mirror_branch_regex",
        Remote,
        "regex; all",
        "Mirror branches that match: RE2 syntax, unanchored, 255 characters at most. Not together with only_protected_branches = true.",
    ),
    key(
        "divergent_refs",
        Remote,
        "\"overwrite\", \"keep\" or \"fail\"; \"overwrite\"",
        "What happens to a ref that someone changed on the mirror: ours replaces it, it stays and is reported, or nothing at all is pushed.",
    ),
    key("tags", Remote, "\"all\", \"none\" or list of patterns; \"all\"", "Which tags are mirrored."),
    key(
        "prune",
        Remote,
        "\"merged\", \"deleted\", \"mirror\" or \"never\"; \"merged\"",
        "Which refs are deleted on the mirror that are not here: those deleted here and contained in the default branch, those deleted here that nobody changed there, all, none.",
    ),
    key(
        "auth_method",
        Remote,
        "\"password\", \"ssh_public_key\" or \"none\"",
        "How we show who we are. With \"ssh_public_key\" a key of the mirror's own is made.",
    ),
    key("username", Remote, "text; none", "The user name for http."),
    key(
        "password_file",
        Remote,
        "absolute path; none",
        "A file of mode 0600 whose text is the password or token, for a mirror that has none stored of its own.",
    ),
    key(
        "password_command",
        Remote,
        "array; none",
        "A program by its absolute path, and its arguments, whose first line is the password or token. Taken only from files of yours or root's.",
    ),
    key("refspecs", Remote, "list of patterns; none", "Namespaces besides branches and tags, like \"refs/notes/*\"."),
    key(
        "ssh_options",
        Remote,
        "list of texts; none",
        "Options of ssh_config(5), like \"Compression=yes\". Those that run programs or weaken the check of host keys are refused.",
    ),
    key("proxy", Remote, "URL; the environment's", "The proxy for http and https."),
    key(
        "ca_file",
        Remote,
        "path; the system's",
        "Certificates in PEM that are trusted for https instead of the system's.",
    ),
    key("allow_insecure_http", Remote, "boolean; false", "Whether a password may go over plain http."),
    key("connect_timeout", Remote, "duration; \"30s\"", "For a connection to come about."),
    key("stall_timeout", Remote, "duration; \"5m\"", "Without a byte."),
    key("timeout", Remote, "duration; \"3h\"", "For one connection in whole."),
    key("retry_delay", Remote, "duration; \"10s\"", "The wait after a temporary failure, doubling with jitter."),
    key("max_retry_delay", Remote, "duration; \"1h\"", "The longest such wait."),
    key("min_interval", Remote, "duration; none", "Between the beginnings of two attempts."),
    key("settle", Remote, "duration; none", "After the newest push."),
    key("max_refs_per_push", Remote, "integer; 2000", "Most refs in one push."),
    key(
        "max_deletes",
        Remote,
        "integer; 50, or half of the mirror's refs",
        "Most deletions in one run, unless sync --allow-mass-delete.",
    ),
    key("push_options", Remote, "list of texts; none", "Sent to the mirror's hooks, when it offers push options."),
    key("atomic", Remote, "boolean; false", "All refs or none."),
    key(
        "optimistic",
        Remote,
        "boolean; true",
        "Whether small changes are sent at once, on what the mirror held after the last contact; if it holds anything else, it refuses them, and is looked at before they are sent again.",
    ),
    key(
        "set_head",
        Remote,
        "boolean; false",
        "Whether HEAD of a mirror on this machine is made to name our default branch, when it names a branch that we do not have. Over the wire HEAD cannot be set.",
    ),
    key("[[repositories]]", Server, "table, repeated", "Where repositories are, for --all and for templates."),
    key("[api]", Server, "table", "What the API and the page may do."),
    key("[defaults]", Top, "table", "Keys of a mirror that count for every mirror which does not say them."),
    key(
        "[remotes.NAME]",
        Top,
        "table",
        "A mirror; in the server's files one of every repository below the roots. NAME: letters, digits, '.', '_', '-'.",
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
