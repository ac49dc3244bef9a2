//! The repository and the machine: git, hook, configuration, spool, locks, refs, durability, file
//! system, working tree, clock, Git LFS.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Finding, Subject};
use crate::config::HookSetting;
use crate::durable;
use crate::install::{self, State};
use crate::mirror::Lock;
use crate::process;
use crate::refs::Local;
use crate::repo::Sharing;
use crate::spool;

/// The oldest git that the tests run with.
const OLDEST_GIT: (u32, u32) = (2, 39);
/// The oldest git that reads reftable.
const OLDEST_GIT_OF_REFTABLE: (u32, u32) = (2, 45);

pub(super) fn examine(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = vec![git(subject), hook(subject), configuration(subject)];
    findings.extend(spool(subject));
    findings.push(locks(subject));
    findings.extend(records(subject));
    findings.extend(refs(subject));
    findings.push(durability(subject));
    findings.extend(storage(subject));
    findings.extend(working_tree(subject));
    findings.push(clock(subject));
    findings.extend(large_files(subject));
    findings
}

fn git(subject: &Subject<'_>) -> Finding {
    let (oldest, what) = match subject.repository.is_reftable() {
        true => (OLDEST_GIT_OF_REFTABLE, " for a reftable repository"),
        false => (OLDEST_GIT, ""),
    };
    let mut command = process::command("git");
    let said = process::run("git", command.arg("version"), b"", Duration::from_secs(30));
    let fix = format!("install git {}.{} or later", oldest.0, oldest.1);
    let said = match said {
        Ok(said) => String::from_utf8_lossy(&said).trim().to_owned(),
        Err(error) => return Finding::error("git", error.to_string(), fix),
    };
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= oldest => Finding::ok("git", said),
        _ => Finding::error("git", format!("{said} is too old{what}"), fix),
    }
}

fn hook(subject: &Subject<'_>) -> Finding {
    const INSTALL: &str = "git mirror-push install-hook";
    if subject.config.is_ok_and(|config| config.hook == HookSetting::None) {
        return Finding::ok("hook", "none is wanted (hook = \"none\")");
    }
    match install::state(subject.repository) {
        Ok(State::Live(path)) => Finding::ok("hook", format!("'{}' is live", path.display())),
        Ok(State::Broken(path)) => {
            Finding::error("hook", format!("'{}' does not lead to an executable program", path.display()), INSTALL)
        }
        Ok(State::Foreign(path)) => Finding::error(
            "hook",
            format!("'{}' is another hook, and ours does not run after it", path.display()),
            format!("{INSTALL} (the other one keeps running first)"),
        ),
        Ok(State::Missing(path)) => {
            Finding::error("hook", format!("there is no '{}': pushes are not recorded", path.display()), INSTALL)
        }
        Err(error) => Finding::error("hook", error.to_string(), "git config core.hooksPath PATH"),
    }
}

fn configuration(subject: &Subject<'_>) -> Finding {
    match subject.config {
        Err(error) => {
            Finding::error("configuration", error.to_string(), "fix that line; until then nothing is mirrored")
        }
        Ok(config) if config.ignored.is_some() => {
            let ignored = config.ignored.iter().flatten().copied().collect::<Vec<_>>().join(", ");
            let ignored =
                if ignored.is_empty() { String::new() } else { format!(", and these keys are ignored: {ignored}") };
            let path = subject.repository.layout().config();
            let is_ours = durable::open_to_read(&path).is_ok_and(|(_, file)| durable::is_ours(&file));
            let (why, fix) = if is_ours {
                ("can be written by the group", "read it, then chmod go-w it")
            } else {
                ("belongs to another user", "chown it, if its mirrors are yours")
            };
            Finding::warning(
                "configuration",
                format!("'{}' {why}, so its mirrors are confined{ignored}", path.display()),
                fix,
            )
        }
        Ok(config) if config.is_silent => {
            Finding::warning("configuration", "silent mode: nothing leaves this machine", "git mirror-push silent off")
        }
        Ok(config) if config.mirrors.is_empty() => {
            Finding::warning("configuration", "there are no mirrors", "git mirror-push add NAME URL")
        }
        Ok(config) => Finding::ok("configuration", format!("{} mirrors", config.mirrors.len())),
    }
}

/// Whether everyone who pushes can write records: this user, and the group if the repository is shared. Also whether a push could not be
/// recorded.
fn spool(subject: &Subject<'_>) -> Vec<Finding> {
    let layout = subject.repository.layout();
    let mut findings = Vec::new();
    for directory in layout.spool_directories() {
        let Ok(metadata) = std::fs::metadata(&directory) else {
            let text = format!("'{}' is missing", directory.display());
            return vec![Finding::error("spool", text, "git mirror-push install-hook")];
        };
        let is_shared = subject.repository.sharing() != Sharing::Umask;
        if is_shared && metadata.mode() & 0o020 == 0 {
            let text = format!("the repository is shared, and the group cannot write '{}'", directory.display());
            findings.push(Finding::error(
                "spool",
                text,
                format!("chmod g+ws {}", process::shell_word(&directory.display().to_string())),
            ));
        }
    }
    let probe = layout.tmp().join(format!("{}.doctor", crate::mirror::new_id(subject.now).file_name()));
    // The probe is not empty, because an empty file fits on a full disk.
    let written = durable::write_synced(&probe, &[0; 4096], &layout.incoming());
    // The probe is removed even after an error. Otherwise a drain would treat it as the record of a
    // hook that was killed.
    let written = durable::remove_if_there(&probe).and(written);
    findings.push(match written {
        Ok(()) => Finding::ok("spool", "can be written"),
        Err(error) => Finding::error("spool", format!("cannot write '{}': {error}", layout.tmp().display()), {
            "free space, or chown the directory mirror-push to the user who pushes"
        }),
    });
    if spool::is_marked(&layout).unwrap_or(false) {
        let text = "a push could not be recorded: the next drain compares all refs of every mirror";
        findings.push(Finding::warning("spool", text, "git mirror-push drain"));
    }
    findings
}

/// Checks that a lock cannot be taken twice.
fn locks(subject: &Subject<'_>) -> Finding {
    let spool = subject.repository.layout().spool();
    if !spool.is_dir() {
        return Finding::ok("locks", "not checked: there is no spool yet");
    }
    let sharing = subject.repository.sharing();
    let first = match Lock::try_acquire(&spool, sharing) {
        Ok(Some(first)) => first,
        Ok(None) => return Finding::ok("locks", "work: a waiting drain holds a lock"),
        Err(error) => return Finding::error("locks", error.to_string(), "use a file system with working locks"),
    };
    let second = Lock::try_acquire(&spool, sharing);
    drop(first);
    match second {
        Ok(None) => Finding::ok("locks", "work on this file system"),
        _ => Finding::error(
            "locks",
            "locks do not work here: two processes can take the same lock",
            "move the repository to a local file system",
        ),
    }
}

fn records(subject: &Subject<'_>) -> Vec<Finding> {
    let layout = subject.repository.layout();
    let mut findings = Vec::new();
    if let Ok(count @ 1..) = spool::corrupt(&layout) {
        let text = format!("{count} spool records could not be read; every mirror was compared in full instead");
        let fix = format!("look at them, then remove them from '{}'", layout.corrupt().display());
        findings.push(Finding::warning("records", text, fix));
    }
    if spool::incoming(&layout).is_ok_and(|names| !names.is_empty()) {
        let text = "pushes are waiting for a drain";
        findings.push(Finding::warning("records", text, "git mirror-push drain; is 'wake' set to \"none\"?"));
    }
    findings
}

/// Refs that a power failure has left empty, or whose objects never reached the disk.
fn refs(subject: &Subject<'_>) -> Vec<Finding> {
    let listing = match subject.repository.list(|_| true) {
        Ok(listing) => listing,
        Err(error) => return vec![Finding::error("refs", error.to_string(), "fix the repository: git fsck")],
    };
    let mut findings = Vec::new();
    let restore = "push the ref again from a clone, or: git fetch MIRROR REF && git update-ref REF FETCH_HEAD";
    if let Some(reason) = listing.incomplete {
        let text = format!("a ref cannot be read, so nothing is deleted on any mirror: {reason}");
        findings.push(Finding::error("refs", text, restore));
    }
    let is_hollow = |oid| matches!(subject.repository.is_here(oid), Ok(false));
    let hollow = listing.refs.iter().filter(|(_, value)| matches!(value, Local::At(oid) if is_hollow(*oid)));
    let hollow: Vec<String> = hollow.map(|(name, _)| name.to_string()).collect();
    if !hollow.is_empty() {
        let text = format!("these refs name objects that are missing: {}", hollow.join(", "));
        findings.push(Finding::error("refs", text, restore));
    }
    findings
}

/// A commit in a working tree does not run the post-receive hook.
fn working_tree(subject: &Subject<'_>) -> Option<Finding> {
    let text = "this repository has a working tree, and a commit made in it runs no hook";
    let fix = "git mirror-push sync after such a commit, or push to a bare repository";
    subject.repository.has_working_tree().then(|| Finding::warning("working-tree", text, fix))
}

/// Two machines that serve one repository would not see each other's locks in time.
fn storage(subject: &Subject<'_>) -> Option<Finding> {
    const FIX: &str = "run the daemon, the timer and the hooks of this repository on one machine only";
    let path = subject.repository.git_dir();
    let kind = durable::network_file_system(path).ok()??;
    Some(Finding::warning("storage", format!("'{}' is on a network file system ({kind})", path.display()), FIX))
}

/// git by default syncs neither loose objects nor refs (git-config(1), core.fsync): a power failure may take back a push.
fn durability(subject: &Subject<'_>) -> Finding {
    let value = subject.repository.git_config("core.fsync").unwrap_or_default();
    let has = |word: &str| value.split(',').any(|part| part.trim() == word);
    let is_safe =
        has("all") || (has("added") || has("committed") || has("objects") || has("loose-object")) && has("reference");
    if is_safe {
        return Finding::ok("durability", format!("core.fsync = {value}"));
    }
    let text =
        "git does not sync small pushes, so a power failure may take back what a pusher and a mirror already have";
    Finding::warning("durability", text, "git config core.fsync all")
}

/// A wrong clock delays attempts or breaks TLS. Every time before 2026 is wrong.
fn clock(subject: &Subject<'_>) -> Finding {
    let layout = subject.repository.layout();
    let fix = "set the clock, and keep it right with NTP";
    if subject.now.as_second() < 1_767_225_600 {
        return Finding::error("clock", format!("the clock of this machine shows {}", subject.now), fix);
    }
    let now = Duration::try_from(subject.now.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or_default();
    let names = spool::mirrors(&layout).unwrap_or_default();
    let newest =
        names.iter().filter_map(|name| spool::peek(&layout, name).ok()).flatten().map(|record| record.time).max();
    match newest {
        Some(newest) if newest > now + Duration::from_secs(300) => {
            Finding::warning("clock", "a recorded push has a time in the future", fix)
        }
        _ => Finding::ok("clock", "plausible"),
    }
}

/// Git LFS stores file contents outside of git's objects, so mirroring refs does not copy them.
fn large_files(subject: &Subject<'_>) -> Option<Finding> {
    let branch = subject.repository.default_branch().ok().flatten()?;
    let Ok(Local::At(tip)) = subject.repository.find(&branch) else { return None };
    let attributes = subject.repository.file_of(tip, ".gitattributes")?;
    let is_lfs = attributes.windows(10).any(|part| part == b"filter=lfs");
    let text = "files are kept by Git LFS: the mirrors get the pointers and not the contents";
    is_lfs.then(|| Finding::warning("lfs", text, "git lfs push --all to the mirror, by a timer"))
}
