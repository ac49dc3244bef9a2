//! What the messages of git, ssh and servers mean. Most of them have no error codes, so this module, and no other, matches their English
//! text. Pure.
//!
//! The wordings are those of git 2.39 to 2.47 in the C locale, OpenSSH, JGit, dulwich, GitHub, GitLab, Gitea, Forgejo and gitolite. The
//! tests have messages of each of them. An unknown message has no cause, or is `Other`. That costs a retry or another scan, never a wrong
//! decision.

/// Why receive-pack refused a command. Several may apply: a hook that declines may also say that a disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The branch cannot be deleted because the mirror's HEAD names it.
    CurrentBranch,
    /// Another program holds the lock of the ref, or died while it held it.
    Locked,
    /// The disk of the mirror is full.
    DiskFull,
    /// The branch is checked out in the mirror, which has a working tree.
    CheckedOut,
    /// The user who pushes may not write to the mirror's repository.
    NotWritable,
    /// The pre-receive hook declined the whole push.
    HookDeclined,
    /// The pack is larger than `receive.maxInputSize`.
    TooLarge,
    /// The mirror does not accept a push from a shallow repository.
    ShallowRefused,
    /// The mirror lacks objects that we believed it had, or it could not unpack the pack.
    MissingObjects,
    /// The ref may have moved since it was advertised.
    Stale,
    /// A program of git on this machine lacks memory, rights or a working disk.
    OurSide,
}

impl Cause {
    /// Whether receive-pack refused for this cause. `message` is the reason in its `ng` line, and what it said about the ref.
    #[must_use]
    pub fn is_in(self, message: &str) -> bool {
        has(message, self.wordings())
    }

    fn wordings(self) -> &'static [&'static str] {
        match self {
            Self::CurrentBranch => &["deletion of the current branch prohibited"],
            // The first is for loose and packed refs, the others for reftable.
            Self::Locked => &[".lock': File exists", "cannot lock references", "data is locked"],
            Self::DiskFull => &["No space left on device", "Disk quota exceeded"],
            Self::CheckedOut => &["branch is currently checked out"],
            Self::NotWritable => {
                &["unable to create temporary object directory", "insufficient permission for adding an object"]
            }
            Self::HookDeclined => &["pre-receive hook declined"],
            Self::TooLarge => &["pack exceeds maximum allowed size"],
            Self::ShallowRefused => &["shallow update not allowed"],
            Self::MissingObjects => &[
                "missing necessary objects",
                "unpacker error",
                "could not unpack",
                "could not be unpacked",
                "bad pack",
                "bad ref",
                "missing object(s)",
            ],
            #[rustfmt::skip]
            Self::OurSide => &["Permission denied", "memory", "Too many open files", "Read-only file system", "Input/output error", "temporarily unavailable"],
            Self::Stale => &[
                "failed to update ref",
                "failed to lock",
                "cannot lock ref",
                "incorrect old value",
                "stale info",
                "reference already exists",
                "reference does not exist",
                "fetch first",
                "invalid old id sent",
            ],
        }
    }
}

/// Whether upload-pack refuses to send an object because no ref has it any more: a ref moved after it was listed.
#[must_use]
pub fn is_moved_want(message: &str) -> bool {
    // The first is git's message; the second is JGit's: "want ... not valid".
    has(message, &["not our ref"]) || message.contains("want ") && message.contains(" not valid")
}

/// Why ssh, or the program that it started on the mirror, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure<'m> {
    /// ssh does not accept the host key.
    HostKey(HostKeyProblem<'m>),
    /// Access or push permission is denied. Holds the line that says so.
    Denied(&'m str),
    /// The host name cannot be resolved. Holds the name.
    Unresolved(&'m str),
    /// The repository does not exist, or we may not see it.
    NotFound,
    /// The repository on the mirror belongs to another user there. Holds its path, if the message names it.
    OtherOwner(Option<&'m str>),
    /// ssh does not use a private key because others can read it. Holds its path.
    LooseKey(&'m str),
    /// Anything else.
    Other,
}

/// Why ssh does not accept a host key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostKeyProblem<'m> {
    /// The host as ssh names it.
    pub host: Option<&'m str>,
    /// The fingerprint that the host offered, if another key of the same type is known.
    pub offered: Option<&'m str>,
    /// The file and the line of that other key.
    pub known: Option<(&'m str, usize)>,
}

fn host_key_problem(message: &str) -> HostKeyProblem<'_> {
    let host =
        ["key is known for ", "host key for ", "Host key for "].iter().find_map(|before| between(message, before, " "));
    if !message.contains("HOST IDENTIFICATION HAS CHANGED") {
        return HostKeyProblem { host, ..HostKeyProblem::default() };
    }
    let offered = message.split_whitespace().find(|word| word.starts_with("SHA256:"));
    let place = message.lines().find_map(|line| line.trim().strip_prefix("Offending ")?.split_once(" key in "));
    let known =
        place.and_then(|(_, place)| place.rsplit_once(':')).and_then(|(file, line)| Some((file, line.parse().ok()?)));
    HostKeyProblem { host, offered: offered.map(|word| word.trim_end_matches('.')), known }
}

/// What the last message of `program` means. ssh has one exit status, 255, for all its failures.
#[must_use]
pub fn failure<'m>(program: &str, message: &'m str) -> Failure<'m> {
    if has(message, &["Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "No matching host key"]) {
        return Failure::HostKey(host_key_problem(message));
    }
    const DENIED: [&str; 4] =
        ["Permission denied", "Too many authentication failures", "ERROR: Permission to ", "marked as read only"];
    let denial = message.lines().rev().find(|line| has(line, &DENIED)).filter(|_| program == "ssh");
    if let Some(line) = denial {
        // ssh skips a key that others can read, and tries the next one. So the key is the cause only if ssh was denied in the end.
        let is_loose = has(message, &["UNPROTECTED PRIVATE KEY FILE"]) && line.contains("Permission denied");
        let key = between(message, "for '", "' are too open").filter(|_| is_loose);
        return key.map_or_else(|| Failure::Denied(line.trim()), Failure::LooseKey);
    }
    if let Some(host) = between(message, "Could not resolve hostname ", ":") {
        return Failure::Unresolved(host);
    }
    if has(message, &["dubious ownership", "safe.directory"]) {
        return Failure::OtherOwner(between(message, "repository at '", "'"));
    }
    if is_not_found(message) { Failure::NotFound } else { Failure::Other }
}

/// Whether a message says that there is no such repository. For a missing repository, git-daemon only says "not exported".
#[must_use]
pub fn is_not_found(message: &str) -> bool {
    const NOT_FOUND: [&str; 9] = [
        "not appear to be a git repository",
        "not a git repository",
        "repository not found",
        "no such repository",
        "not exported",
        "cannot find repository",
        "could not be found or you don't have permission",
        "denied by fallthru",
        "you mis-spelled the reponame",
    ];
    has(&message.to_lowercase(), &NOT_FOUND)
}

/// Whether an `ERR` packet says that there is no such repository. In such a packet, "not found" can only mean the repository.
#[must_use]
pub fn is_not_found_packet(message: &str) -> bool {
    is_not_found(message) || message.to_lowercase().contains("not found")
}

/// Whether git failed because the repository lacks objects, as a partial clone may.
#[must_use]
pub fn lacks_objects(message: &str) -> bool {
    has(message, &["bad tree object", "bad object", "could not fetch", "unable to read", "missing"])
}

/// Whether git does not know how the refs of the repository are stored.
#[must_use]
pub fn is_unknown_ref_storage(message: &str) -> bool {
    has(&message.to_lowercase(), &["refstorage"])
}

/// Whether a repository was not opened because it belongs to another user (git's and gix's messages).
#[must_use]
pub fn is_other_owner(message: &str) -> bool {
    has(&message.to_lowercase(), &["trust", "owned", "safe.directory"])
}

/// The host that asks, in a question of ssh: `user@host's password: `, or `(user@host) ` before the server's own question.
#[must_use]
pub fn asking_host(question: &str) -> Option<&str> {
    let who = match question.strip_prefix('(') {
        Some(rest) => rest.split_once(") ")?.0,
        None => question.split_once("'s password")?.0,
    };
    Some(who.rsplit_once('@')?.1)
}

/// Whether a question of ssh or git is one for a user name or a password.
#[must_use]
pub fn asks_for_credentials(question: &str) -> bool {
    let asked = question.to_ascii_lowercase();
    asked.contains("password") || asked.starts_with("username for ")
}

fn has(message: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| message.contains(part))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    text[start..].split(after).next()
}

/// Whether a line is only a progress message of git (progress.c, pack-objects, index-pack, unpack-objects).
#[must_use]
pub fn is_progress(line: &str) -> bool {
    const TITLES: [&str; 9] = [
        "Enumerating objects: ",
        "Counting objects: ",
        "Compressing objects: ",
        "Writing objects: ",
        "Receiving objects: ",
        "Unpacking objects: ",
        "Resolving deltas: ",
        "Checking connectivity: ",
        "Delta compression using ",
    ];
    let counts = |rest: &str| rest.ends_with(", done.") || rest.contains("% (") || rest.parse::<u64>().is_ok();
    let has_form =
        |title: &str| line.strip_prefix(title).is_some_and(|rest| counts(rest) || rest.starts_with("up to "));
    is_total(line) || TITLES.into_iter().any(has_form)
}

/// Whether a line is the `Total` line that ends git's progress.
#[must_use]
pub fn is_total(line: &str) -> bool {
    line.strip_prefix("Total ").is_some_and(|rest| rest.contains(" (delta ") && rest.contains(", reused "))
}

/// A message of git without its progress lines.
#[must_use]
pub fn without_progress(message: &str) -> String {
    let lines = message.split(['\r', '\n']).map(str::trim_end).filter(|line| !line.is_empty() && !is_progress(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// A message of ssh without its lines about a shared connection that it could not use. ssh then opens a connection of its own.
#[must_use]
pub fn without_multiplexing(message: &str) -> String {
    let is_of_it =
        |line: &&str| ["mux_client_", "ControlSocket ", "Control socket "].iter().any(|start| line.starts_with(start));
    message.lines().filter(|line| !is_of_it(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_connection_that_could_not_be_used_is_no_message() {
        let said = "mux_client_request_session: session request failed: Session open refused by peer\n\
            ControlSocket /tmp/x/1 already exists, disabling multiplexing\r\nPermission denied (publickey).\n";
        assert_eq!(without_multiplexing(said), "Permission denied (publickey).");
        assert_eq!(without_multiplexing("mux_client_hello_exchange: write packet: Broken pipe\n"), "");
    }

    #[test]
    fn progress_is_no_message() {
        // What git 2.39 and 2.47 write with --progress.
        let said = "Enumerating objects: 3, done.\nCounting objects:  33% (1/3)\rCounting objects: 100% (3/3), done.\n\
            Delta compression using up to 2 threads\nCompressing objects: 100% (2/2), done.\nfatal: unable to read 1234\n\
            Writing objects: 100% (3/3), 213 bytes | 213.00 KiB/s, done.\nTotal 3 (delta 0), reused 0 (delta 0), pack-reused 0\n";
        assert_eq!(without_progress(said), "fatal: unable to read 1234");
        assert!(
            !is_progress("Total 3 rejected (delta of policy)") && !is_progress("Checking connectivity: your ticket")
        );
        assert!(!is_progress("remote: Counting objects: 3"));
    }

    #[test]
    #[rustfmt::skip]
    fn reads_the_refusals_of_every_server() {
        use Cause::{CheckedOut, CurrentBranch, DiskFull, HookDeclined, Locked, MissingObjects, NotWritable, ShallowRefused, Stale, TooLarge};
        const ALL: [Cause; 10] = [CurrentBranch, CheckedOut, NotWritable, Locked, DiskFull, HookDeclined, TooLarge, ShallowRefused, MissingObjects, Stale];
        let table: [(&str, &[Cause]); 30] = [
            // git 2.39 and 2.47
            ("failed to update ref", &[Stale]),
            ("failed to update ref (error: cannot lock ref 'refs/heads/x': is at 1 but expected 2)", &[Stale]),
            ("failed to update ref (error: Unable to create '/r/refs/heads/x.lock': File exists.)", &[Locked, Stale]),
            ("cannot lock references", &[Locked, Stale]),
            ("failed to update ref: data is locked", &[Locked, Stale]),
            ("incorrect old value provided", &[Stale]),
            ("reference already exists", &[Stale]),
            ("reference does not exist", &[Stale]),
            ("non-fast-forward", &[]),
            ("hook declined", &[]),
            ("pre-receive hook declined", &[HookDeclined]),
            ("pre-receive hook declined (tee: /var/log/x: No space left on device)", &[DiskFull, HookDeclined]),
            ("deletion prohibited", &[]),
            ("branch is currently checked out", &[CheckedOut]),
            ("the objects could not be unpacked: unable to create temporary object directory", &[NotWritable, MissingObjects]),
            ("deletion of the current branch prohibited", &[CurrentBranch]),
            ("shallow update not allowed", &[ShallowRefused]),
            ("missing necessary objects", &[MissingObjects]),
            ("the objects could not be unpacked: index-pack abnormal exit", &[MissingObjects]),
            ("unpacker error (fatal: pack exceeds maximum allowed size (1.00 KiB))", &[TooLarge, MissingObjects]),
            ("unpacker error (error: file write error: No space left on device)", &[DiskFull, MissingObjects]),
            ("unable to write file: Disk quota exceeded", &[DiskFull]),
            // JGit
            ("invalid old id sent", &[Stale]),
            ("failed to lock", &[Stale]),
            ("missing object(s)", &[MissingObjects]),
            ("non-fast forward", &[]),
            // dulwich
            ("failed to write", &[]),
            // GitHub, GitLab
            ("fetch first", &[Stale]),
            ("protected branch hook declined", &[]),
            ("push declined due to repository rule violations", &[]),
        ];
        for (message, causes) in table {
            let found: Vec<Cause> = ALL.into_iter().filter(|cause| cause.is_in(message)).collect();
            assert_eq!(found, causes, "{message}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn reads_the_failures_of_ssh_and_of_every_server_behind_it() {
        let table = [
            ("ssh: Could not resolve hostname nowhere: Name or service not known", Failure::Unresolved("nowhere")),
            ("ssh: connect to host h port 22: Connection refused", Failure::Other),
            ("Connection closed by 127.0.0.1 port 22", Failure::Other),
            ("git@h: Permission denied (publickey).", Failure::Denied("git@h: Permission denied (publickey).")),
            ("Received disconnect from 10.0.0.1: Too many authentication failures", Failure::Denied("Received disconnect from 10.0.0.1: Too many authentication failures")),
            ("No ED25519 host key is known for [h]:22 and you have requested strict checking.\nHost key verification failed.", Failure::HostKey(HostKeyProblem { host: Some("[h]:22"), offered: None, known: None })),
            // OpenSSH 9.2
            ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nThe fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc.\nOffending ED25519 key in /home/x/known hosts:7\nHost key for [h]:2222 has changed and you have requested strict checking.\nHost key verification failed.", Failure::HostKey(HostKeyProblem { host: Some("[h]:2222"), offered: Some("SHA256:abc"), known: Some(("/home/x/known hosts", 7)) })),
            ("Host key verification failed.", Failure::HostKey(HostKeyProblem::default())),
            ("fatal: '/x.git' does not appear to be a git repository", Failure::NotFound),
            ("fatal: not a git repository: '/x.git'", Failure::NotFound),
            ("fatal: detected dubious ownership in repository at '/x.git'", Failure::OtherOwner(Some("/x.git"))),
            // OpenSSH 9.2
            ("@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\nPermissions 0644 for '/r/id_ed25519' are too open.\nLoad key \"/r/id_ed25519\": bad permissions\ngit@h: Permission denied (publickey).", Failure::LooseKey("/r/id_ed25519")),
            ("WARNING: UNPROTECTED PRIVATE KEY FILE!\nPermissions 0644 for '/r/id_rsa' are too open.\nConnection closed by remote host", Failure::Other),
            ("WARNING: UNPROTECTED PRIVATE KEY FILE!\nPermissions 0644 for '/r/id_rsa' are too open.\nERROR: Repository not found.", Failure::NotFound),
            ("UNPROTECTED PRIVATE KEY FILE!\nPermissions 0644 for '/r/k' are too open.\nERROR: Permission to a/b.git denied to bot.", Failure::Denied("ERROR: Permission to a/b.git denied to bot.")),
            // GitHub
            ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", Failure::NotFound),
            ("ERROR: Permission to a/b.git denied to bot.", Failure::Denied("ERROR: Permission to a/b.git denied to bot.")),
            ("ERROR: The key you are authenticating with has been marked as read only.", Failure::Denied("ERROR: The key you are authenticating with has been marked as read only.")),
            // GitLab
            ("remote: ERROR: The project you were looking for could not be found or you don't have permission to view it.", Failure::NotFound),
            // Gitea and Forgejo
            ("Gitea: Cannot find repository: a/b", Failure::NotFound),
            ("Forgejo: Cannot find repository: a/b", Failure::NotFound),
            // gitolite
            ("FATAL: W any a/b bot DENIED by fallthru\n(or you mis-spelled the reponame)", Failure::NotFound),
        ];
        for (message, expected) in table {
            assert_eq!(failure("ssh", message), expected, "{message}");
        }
        assert_eq!(failure("git receive-pack", "fatal: cannot open: Permission denied"), Failure::Other);
        let of_a_hook = "UNPROTECTED PRIVATE KEY FILE!\nPermissions 0644 for '/k' are too open.\nPermission denied";
        assert_eq!(failure("git receive-pack", of_a_hook), Failure::Other);
    }

    #[test]
    fn reads_what_a_server_says_in_place_of_its_refs() {
        assert!(is_not_found("access denied or repository not exported: /x.git"));
        assert!(is_not_found("Repository not found"));
        assert!(is_not_found_packet("ERR project not found") && !is_not_found_packet("too many connections"));
    }

    #[test]
    fn knows_which_host_asks() {
        for (question, host) in [
            ("bot@git.example.org's password: ", Some("git.example.org")),
            ("a@b@h's password: ", Some("h")),
            ("(bot@127.0.0.1) Password: ", Some("127.0.0.1")),
            ("Password: ", None),
            ("Enter passphrase for key 'x@y's password'", Some("y")),
            ("() password", None),
        ] {
            assert_eq!(asking_host(question), host, "{question}");
        }
        assert!(asks_for_credentials("Username for 'https://h': ") && !asks_for_credentials("Verification code: "));
    }
}
