//! The post-receive hook: standard input becomes one durable spool record, then a drain is woken.
//!
//! Guaranteed: no network connection. The hook waits only for its input, the disk and the previous hook. The drain that it starts holds
//! none of the pusher's descriptors. If the record cannot be written, the hook reports it on standard error and in the syslog, marks the
//! repository for a full sync, and still accepts the push. An existing hook (`post-receive.previous` beside this one) runs with the
//! same input before mirrors get the push, and its exit status becomes ours. Absent: mirrors, rules and gix. The hook does not parse the
//! configuration. It only searches the texts of the repository's file and of the server's file for `wake` and for strings that begin with
//! `refs/`. A crash while the record is written, or while the previous hook runs, leaves a file in `spool/tmp` that makes the next drain
//! compare all refs. A crash before that leaves nothing, and a later sync finds the push. Once the record is in `incoming`, the push is
//! recorded.

#![expect(clippy::disallowed_methods, reason = "the hook's environment, clock and child")]

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::durable;
use crate::layout::{Layout, runtime_directory};
use crate::refs::RefUpdate;
use crate::spool::{Entering, Id, Record, begin, mark};
use crate::terminal::escaped;
use crate::wake;

/// The result of the hook.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// A line for the pusher, if something went wrong.
    pub line: Option<String>,
    /// The exit status: that of the previous hook, else 0.
    pub status: u8,
}

/// Runs the hook that git invoked as `invoked_as` in `git_dir`, on the lines of `input`.
pub fn run(git_dir: PathBuf, invoked_as: &Path, mut input: impl Read) -> Ended {
    let (git_dir, unknown) = match common(&git_dir) {
        Ok(common) => (common, None),
        Err(error) => (git_dir, Some(error)),
    };
    let git_dir = &*git_dir;
    let layout = Layout::new(git_dir);
    let mut lines = Vec::new();
    let unknown = input.read_to_end(&mut lines).err().or(unknown);
    let previous = previous(invoked_as);
    if is_skipped_by_push_option() {
        return Ended { line: None, status: previous.map_or(0, |hook| run_previous(&hook, &lines)) };
    }
    // The previous hook may take long, and we may be killed meanwhile. So the record, or else the mark, is on the disk before it runs.
    let report = |error| report_unrecorded(&layout, git_dir, &error);
    let begun = unknown.map_or_else(|| begin_record(&layout, &lines), Err).map_err(report);
    if let (Some(_), Ok(Some(record))) = (&previous, &begun) {
        // If this fails, a power failure may lose the record, but a kill does not.
        let _ = record.keep();
    }
    let status = previous.map_or(0, |hook| run_previous(&hook, &lines));
    let line = match begun.and_then(|begun| finish_record(&layout, &lines, begun).map_err(report)) {
        Ok(Spooled::Nothing) => None,
        Ok(Spooled::Record) => wake_drain(git_dir, &layout),
        Err(line) => Some(line),
    };
    Ended { line, status }
}

/// The common directory of `git_dir` (gitrepository-layout(5), `commondir`): for a linked worktree
/// that of its repository, otherwise `git_dir`.
///
/// # Errors
/// The operating system's, if `commondir` cannot be read and the directory has no `objects`. No drain would find a record there.
fn common(git_dir: &Path) -> io::Result<PathBuf> {
    match std::fs::read(git_dir.join("commondir")) {
        Ok(path) => Ok(git_dir.join(OsStr::from_bytes(path.trim_ascii_end()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound || git_dir.join("objects").is_dir() => {
            Ok(git_dir.to_owned())
        }
        Err(error) => Err(error),
    }
}

/// The previous hook, if there is one that git would run.
fn previous(invoked_as: &Path) -> Option<PathBuf> {
    let mut path = invoked_as.as_os_str().to_owned();
    path.push(".previous");
    let file = std::fs::metadata(&path).ok()?;
    (file.is_file() && file.permissions().mode() & 0o111 != 0).then(|| path.into())
}

/// Runs the previous hook with the same input. Like git, it gives a script without `#!` to the shell.
fn run_previous(hook: &Path, lines: &[u8]) -> u8 {
    let started = match Command::new(hook).stdin(Stdio::piped()).spawn() {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            Command::new("/bin/sh").arg(hook).stdin(Stdio::piped()).spawn()
        }
        started => started,
    };
    let mut previous = match started {
        Ok(previous) => previous,
        Err(error) => {
            let hook = escaped(&hook.display().to_string());
            let text = format!("git-mirror-push: the previous hook '{hook}' cannot be started: {error}\n");
            // The pusher may be gone.
            let _ = io::stderr().write_all(text.as_bytes());
            return 1;
        }
    };
    if let Some(mut stdin) = previous.stdin.take() {
        // A hook may end without reading its input.
        let _ = stdin.write_all(lines);
    }
    match previous.wait() {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u8,
        Err(_) => 1,
    }
}

enum Spooled {
    Nothing,
    Record,
}

/// Moves a record that was begun into `incoming`. If a drain has removed its file, because it saw no process that writes it, the record is
/// written again.
fn finish_record(layout: &Layout, lines: &[u8], begun: Option<Entering>) -> io::Result<Spooled> {
    let Some(record) = begun else { return Ok(Spooled::Nothing) };
    match record.finish() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            begin_record(layout, lines)?.map_or(Ok(()), Entering::finish)?;
        }
        finished => finished?,
    }
    Ok(Spooled::Record)
}

/// Writes the record of a push to `spool/tmp`. `None` if the push changes nothing that could be mirrored.
fn begin_record(layout: &Layout, lines: &[u8]) -> io::Result<Option<Entering>> {
    let mut updates = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let update = RefUpdate::parse(line).ok_or_else(|| {
            let text =
                format!("standard input has a line that is not 'old new ref': {}", String::from_utf8_lossy(line));
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        updates.push(update);
    }
    if !touches_something_mirrored(layout, &updates) {
        return Ok(None);
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = Id { time, pid: std::process::id(), random: RandomState::new().hash_one(time) };
    begin(layout, id, &Record::of(time, updates)).map(Some)
}

/// Whether a push must be recorded. Branches and tags always count. Another ref counts if a configuration file names a namespace that may
/// contain it, or cannot be read. An unnecessary record costs one comparison; a missing one leaves the mirror out of date until the next sync.
fn touches_something_mirrored(layout: &Layout, updates: &[RefUpdate]) -> bool {
    if updates.iter().any(|update| update.name.branch().or_else(|| update.name.tag()).is_some()) {
        return true;
    }
    let names_namespace = |text: &[u8]| {
        namespaces_named_in(text).any(|prefix| updates.iter().any(|update| update.name.as_bytes().starts_with(prefix)))
    };
    !updates.is_empty() && all_texts(layout).is_none_or(|texts| texts.iter().any(|text| names_namespace(text)))
}

/// The quoted strings that begin with `refs/`, each up to its first `*`.
fn namespaces_named_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'"' | b'\'' | b'\n'))
        .filter(|quoted| quoted.starts_with(b"refs/"))
        .filter_map(|quoted| quoted.split(|byte| *byte == b'*').next())
}

/// The texts of all files that may name a namespace: those of [`configuration_texts`], and the files of `conf.d`. `None` if one cannot be read.
fn all_texts(layout: &Layout) -> Option<Vec<Vec<u8>>> {
    let server = server_configuration();
    let names = match std::fs::read_dir(server.with_file_name("conf.d")) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        names => names.ok()?.map(|name| Some(name.ok()?.path())).collect::<Option<Vec<_>>>()?,
    };
    // As the server's configuration is read. A pipe would block the hook.
    let is_read = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml") && path.is_file();
    let names = names.into_iter().filter(is_read);
    let mut texts = Vec::new();
    for text in std::iter::once(durable::read(&layout.config()).map(|(text, _)| text))
        .chain(std::iter::once(server).chain(names).map(std::fs::read))
    {
        match text {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => texts.push(text.ok()?),
        }
    }
    Some(texts)
}

/// The texts of the repository's file and of the server's file, without those of `conf.d`. A file
/// that cannot be read is skipped.
fn configuration_texts(layout: &Layout) -> Vec<Vec<u8>> {
    let own = durable::read(&layout.config()).map(|(text, _)| text);
    [own, std::fs::read(server_configuration())].into_iter().flatten().collect()
}

fn server_configuration() -> PathBuf {
    std::env::var_os("GIT_MIRROR_PUSH_CONFIG")
        .map_or_else(|| PathBuf::from("/etc/git-mirror-push/config.toml"), PathBuf::from)
}

/// `git push -o mirror.skip` (githooks(5): GIT_PUSH_OPTION_COUNT and GIT_PUSH_OPTION_n).
fn is_skipped_by_push_option() -> bool {
    let count = std::env::var("GIT_PUSH_OPTION_COUNT").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    (0..count).any(|n| std::env::var_os(format!("GIT_PUSH_OPTION_{n}")).is_some_and(|option| option == "mirror.skip"))
}

/// Whether the hook may wake a drain. The first file that sets `wake` before its first table decides; the repository's file comes first.
fn is_wake_wanted(layout: &Layout) -> bool {
    let word = |text: &[u8]| {
        text.split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .take_while(|line| !line.starts_with(b"["))
            .find_map(|line| line.strip_prefix(b"wake")?.trim_ascii().strip_prefix(b"=").map(<[u8]>::trim_ascii))
            .map(|value| !(value.starts_with(b"\"none\"") || value.starts_with(b"'none'")))
    };
    configuration_texts(layout).iter().find_map(|text| word(text)).unwrap_or(true)
}

/// Wakes the daemon. If no daemon serves this repository, starts `git-mirror-push drain` in the background. The drain inherits no
/// descriptor of the pusher: its standard streams are /dev/null, and the others are closed on exec.
fn wake_drain(git_dir: &Path, layout: &Layout) -> Option<String> {
    if !is_wake_wanted(layout) {
        return None;
    }
    if wake::hint(&runtime_directory(std::env::var_os("RUNTIME_DIRECTORY").as_deref()), git_dir) {
        return None;
    }
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let error = wake::start_drain(&program(), None, git_dir).err()?;
    let text =
        format!("the push is recorded, but the drain could not be started: {error}; run 'git mirror-push drain'");
    syslog(&text);
    Some(text)
}

/// The program of this installation: beside the hook, or in `bin` when the hook is in `libexec/git-mirror-push`.
fn program() -> PathBuf {
    const NAME: &str = "git-mirror-push";
    let Ok(hook) = std::env::current_exe() else {
        return NAME.into();
    };
    let beside = hook.with_file_name(NAME);
    let installed = hook.ancestors().nth(3).map(|prefix| prefix.join("bin").join(NAME));
    [Some(beside), installed].into_iter().flatten().find(|path| path.is_file()).unwrap_or_else(|| NAME.into())
}

fn report_unrecorded(layout: &Layout, git_dir: &Path, error: &io::Error) -> String {
    let path = git_dir.canonicalize().unwrap_or_else(|_| git_dir.to_owned());
    let what = format!("cannot record this push for the mirrors of '{}': {error}", path.display());
    let text = match mark(layout) {
        Ok(()) => format!("{what}; the push is accepted, and the next drain compares everything"),
        Err(_) => format!("{what}; the push is accepted; run 'git mirror-push sync' once that is fixed"),
    };
    syslog(&text);
    text
}

/// Sends one line to the system log, if there is one (syslog(3): facility daemon, severity error).
fn syslog(text: &str) {
    const DAEMON_ERROR: u8 = 3 << 3 | 3;
    let line = format!("<{DAEMON_ERROR}>git-mirror-post-receive[{}]: {text}", std::process::id());
    if let Ok(socket) = UnixDatagram::unbound() {
        // Without a system log there is still the line on stderr.
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(line.as_bytes(), "/dev/log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_namespaces_that_a_configuration_adds() {
        let text = b"[remotes.a]\nrefspecs = [\"refs/notes/*\", 'refs/changes/*']\n# refs/none\n";
        let found: Vec<_> = namespaces_named_in(text).collect();
        assert_eq!(found, [&b"refs/notes/"[..], b"refs/changes/"]);
    }
}
