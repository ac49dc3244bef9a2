//! Installing the hook: `post-receive` becomes a link to the hook binary; an existing hook keeps running, before ours.
//!
//! The existing hook is renamed to `post-receive.previous`, where the hook binary finds and runs it. A rename keeps its bytes, mode and
//! time, and renaming it back restores it. Uninstalling is one step: the old hook is renamed back, or, if there is none, our link is
//! removed. Installing takes two steps: the old file is renamed (an old link of ours is removed), then the new link is made. A crash
//! between them leaves no `post-receive`, and pushes are not recorded. The next install repairs this. Uninstall puts
//! `post-receive.previous` back, if there is one.
//!
//! Hosts that own `post-receive` run the hooks of others from a directory: `hooks/post-receive.d` of Gitea and Forgejo, and
//! `custom_hooks/post-receive.d` of GitLab. There our link is one more file, and nothing is renamed.

#![expect(clippy::disallowed_methods, reason = "moves hooks")]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::process;
use crate::repo::{self, Repository};

const BINARY: &str = "git-mirror-post-receive";

/// Why the hook could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be moved or made.
    #[error("cannot {doing} '{}': {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another hook is at `post-receive`, and `post-receive.previous`, where it would be moved to,
    /// exists already. Or a file of others has the name of our link in the host's directory of
    /// hooks.
    #[error("'{}' is in the way; move it elsewhere and try again", .0.display())]
    InTheWay(PathBuf),
    /// The value of `core.hooksPath` is not a usable path.
    #[error("cannot find the directory of hooks: {0}")]
    Directory(#[from] repo::Error),
    /// Another user controls the repository's directory, its configuration, or a link at the hooks directory, and could make us write
    /// elsewhere.
    #[error("the hook is not changed, because others own or may write '{}'; run this command as its owner, or let only the owner write it", .0.display())]
    OtherOwner(PathBuf),
    /// The hook binary is missing from the installation.
    #[error("the hook binary {BINARY} is not beside '{}'; install with install.sh", .0.display())]
    NoBinary(PathBuf),
}

/// What installing or uninstalling did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The hook was put there.
    Installed(PathBuf),
    /// It was installed already, or another hook already runs it.
    WasThere(PathBuf),
    /// It was taken away, and there is no other.
    Removed(PathBuf),
    /// It was taken away, and the previous one is back.
    PutBack(PathBuf),
    /// There was nothing to take away.
    WasNot,
}

/// The scripts that git, or a dispatcher, runs for a push or a commit, with the beginnings of their
/// texts. Ours is not among them.
///
/// # Errors
/// [`Error::Directory`]
pub fn scripts(repository: &Repository) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let hooks = repository.hooks_directory()?;
    let mut found = Vec::new();
    for name in ["post-receive", "post-receive.previous", "post-update", "post-commit", "update"] {
        for hooks in [&hooks, &repository.git_dir().join("custom_hooks")] {
            let below = durable::list(&hooks.join(format!("{name}.d"))).unwrap_or_default();
            found.push(hooks.join(name));
            found.extend(below.into_iter().map(|part| hooks.join(format!("{name}.d")).join(part)));
        }
    }
    let texts = found.into_iter().filter(|hook| is_executable(hook) && !is_ours(hook));
    Ok(texts.map(|hook| (hook.clone(), text_of(&hook))).collect())
}

/// Where our link goes if the software that hosts the repository runs hooks from a directory.
/// `None` if only git runs hooks.
fn part(git_dir: &Path, hooks: &Path) -> Option<PathBuf> {
    const NAME: &str = "git-mirror-push";
    // GitLab keeps its repositories below `@hashed`. A copy of one elsewhere has custom_hooks too,
    // but nothing runs them.
    if git_dir.components().any(|part| part.as_os_str() == "@hashed") {
        return Some(git_dir.join("custom_hooks/post-receive.d").join(NAME));
    }
    let (hook, parts) = (hooks.join("post-receive"), hooks.join("post-receive.d"));
    let is_dispatcher = !is_ours(&hook) && is_executable(&hook) && runs_parts(&text_of(&hook));
    (is_dispatcher && parts.is_dir()).then(|| parts.join(NAME))
}

/// Whether a script runs what is in a directory named after it: `post-receive.d`, `${hookname}.d` or `$0.d`.
fn runs_parts(script: &[u8]) -> bool {
    ["post-receive.d", "}.d", "$0.d", "\".d", "hook.d", "name.d"].iter().any(|word| names(script, word))
}

/// Whether GitLab runs our hook, whatever its name is: `custom_hooks/post-receive`, or a file in `custom_hooks/post-receive.d`.
fn runs_in(part: &Path) -> bool {
    let Some(directory) = part.parent() else { return false };
    let others = durable::list(directory).unwrap_or_default();
    let all = others.into_iter().map(|name| directory.join(name)).chain([directory.with_extension("")]);
    all.into_iter().any(|hook| is_executable(&hook) && runs_ours(&hook))
}

/// Whether git runs our hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes: this file is our hook or runs it, or git's configuration names this command as a hook.
    Live(PathBuf),
    /// Our hook is a link to a program that is gone, or not executable.
    Broken(PathBuf),
    /// Another hook is there, and nothing shows that it runs ours.
    Foreign(PathBuf),
    /// There is none.
    Missing(PathBuf),
}

/// Finds out whether git runs our hook.
///
/// # Errors
/// [`Error::Directory`]
pub fn state(repository: &Repository) -> Result<State, Error> {
    if let Some(command) = repository.configured_hook(BINARY)
        && knows_configured_hooks(repository.git_dir())
    {
        return Ok(State::Live(command.into()));
    }
    let hooks = repository.hooks_directory()?;
    let hook = hooks.join("post-receive");
    let part = part(repository.git_dir(), &hooks);
    let custom = part.filter(|part| !part.starts_with(&hooks));
    Ok(match () {
        () if custom.as_ref().is_some_and(|part| runs_in(part)) => State::Live(custom.unwrap_or(hook)),
        () if custom.as_ref().is_some_and(|part| is_ours(part)) => State::Broken(custom.unwrap_or(hook)),
        () if custom.is_some() => State::Missing(custom.unwrap_or(hook)),
        () if is_ours(&hook) && is_executable(&hook) => State::Live(hook),
        () if is_ours(&hook) => State::Broken(hook),
        () if is_executable(&hook) && (runs_ours(&hook) || parts(&hook).iter().any(|part| runs_ours(part))) => {
            State::Live(hook)
        }
        () if hook.symlink_metadata().is_ok() => State::Foreign(hook),
        () => State::Missing(hook),
    })
}

/// Whether ours is the only hook that git would run.
///
/// # Errors
/// [`Error::Directory`], or the directory cannot be read.
pub fn is_alone(repository: &Repository) -> Result<bool, Error> {
    if repository.configured_hook("").is_some() {
        return Ok(false);
    }
    let hooks = repository.hooks_directory()?;
    let names = durable::list(&hooks).map_err(failed("list", &hooks))?;
    let mut run = names.iter().filter(|name| !name.ends_with(".sample") && is_executable(&hooks.join(name)));
    Ok(run.next().is_some_and(|name| name == "post-receive" && is_ours(&hooks.join(name))) && run.next().is_none())
}

fn is_executable(hook: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(hook).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Whether a hook is our binary (also through links), or a script that names it.
fn runs_ours(hook: &Path) -> bool {
    let is_binary = |path: PathBuf| path.file_name().is_some_and(|name| name == BINARY);
    hook.canonicalize().is_ok_and(is_binary) || names(&text_of(hook), BINARY)
}

/// Whether a script has the word in a line that is no comment. `false` for a text that does not
/// begin with `#!`.
fn names(script: &[u8], word: &str) -> bool {
    let is_comment = |line: &[u8]| line.trim_ascii_start().starts_with(b"#");
    let mut lines = script.split(|byte| *byte == b'\n').filter(|line| !is_comment(line));
    script.starts_with(b"#!") && lines.any(|line| line.windows(word.len()).any(|part| part == word.as_bytes()))
}

/// The beginning of a hook's text. Anything but a regular file counts as empty: the hook of another program may be a pipe.
fn text_of(hook: &Path) -> Vec<u8> {
    const MAX_SCRIPT: u64 = 64 * 1024;
    let mut text = Vec::new();
    let opened = hook.canonicalize().and_then(|path| durable::open_to_read(&path));
    // A hook that cannot be read counts as empty.
    let _ = opened.and_then(|(script, _)| script.take(MAX_SCRIPT).read_to_end(&mut text));
    text
}

/// The executable hooks that a dispatcher script runs: `post-receive.h…` beside it (gitolite), or those in `post-receive.d` (others).
fn parts(hook: &Path) -> Vec<PathBuf> {
    let text = text_of(hook);
    let listed = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_part =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"post-receive.h"));
    let beside = hook.parent().filter(|_| names(&text, ".h"));
    let beside = beside.map(|hooks| listed(hooks).filter(is_part).collect::<Vec<_>>()).unwrap_or_default();
    let below = hook.with_file_name("post-receive.d");
    let below = Some(below).filter(|_| runs_parts(&text)).map(|below| listed(&below).collect::<Vec<_>>());
    beside.into_iter().chain(below.unwrap_or_default()).filter(|part| is_executable(part)).collect()
}

/// Installs the hook that belongs to `program`, unless it is installed already.
///
/// # Errors
/// [`Error`]
pub fn ensure(repository: &Repository, program: &Path) -> Result<Done, Error> {
    let binary = binary(program)?;
    let hooks = repository.hooks_directory()?;
    let part = part(repository.git_dir(), &hooks);
    let hook = part.clone().unwrap_or_else(|| hooks.join("post-receive"));
    let previous = previous(&hook);
    if !is_ours(&hook) && matches!(state(repository)?, State::Live(_)) {
        // That hook runs ours already. If we installed ours as well, each push would be recorded twice.
        return Ok(Done::WasThere(hook));
    }
    let is_current = || hook.canonicalize().is_ok_and(|path| binary.canonicalize().is_ok_and(|binary| binary == path));
    if is_ours(&hook) && is_current() {
        return Ok(Done::WasThere(hook));
    }
    let hooks = hook.parent().unwrap_or(&hooks).to_owned();
    check_owner(repository, &hooks)?;
    if is_ours(&hook) {
        // In one step, so that no push comes while there is no hook.
        let new = hooks.join(format!(".post-receive.{}", std::process::id()));
        let _ = fs::remove_file(&new);
        std::os::unix::fs::symlink(&binary, &new).map_err(failed("make", &new))?;
        if let Err(error) = fs::rename(&new, &hook) {
            let _ = fs::remove_file(&new);
            return Err(failed("replace", &hook)(error));
        }
        return Ok(Done::Installed(hook));
    } else if part.is_some() && hook.symlink_metadata().is_ok() {
        return Err(Error::InTheWay(hook));
    } else if hook.symlink_metadata().is_ok() {
        if previous.symlink_metadata().is_ok() {
            return Err(Error::InTheWay(previous));
        }
        fs::rename(&hook, &previous).map_err(failed("rename", &hook))?;
    }
    fs::create_dir_all(&hooks).map_err(failed("make", &hooks))?;
    std::os::unix::fs::symlink(&binary, &hook).map_err(failed("make", &hook))?;
    Ok(Done::Installed(hook))
}

/// Takes the hook away.
///
/// # Errors
/// [`Error`]
pub fn uninstall(repository: &Repository) -> Result<Done, Error> {
    let hooks = repository.hooks_directory()?;
    if let Some(part) = part(repository.git_dir(), &hooks).filter(|part| is_ours(part)) {
        check_owner(repository, part.parent().unwrap_or(&hooks))?;
        fs::remove_file(&part).map_err(failed("remove", &part))?;
        return Ok(Done::Removed(part));
    }
    let hook = hooks.join("post-receive");
    let previous = previous(&hook);
    let is_previous_there = previous.symlink_metadata().is_ok();
    let is_half_done = is_previous_there && hook.symlink_metadata().is_err();
    if !is_ours(&hook) && !is_half_done {
        return Ok(Done::WasNot);
    }
    check_owner(repository, &hooks)?;
    if is_previous_there {
        fs::rename(&previous, &hook).map_err(failed("put back", &previous))?;
        return Ok(Done::PutBack(hook));
    }
    fs::remove_file(&hook).map_err(failed("remove", &hook))?;
    Ok(Done::Removed(hook))
}

/// Makes sure that only we or root chose where the hooks are. Others may choose it if they own the
/// repository's directory or a link at the hooks directory, or if they own or may write a
/// configuration with `core.hooksPath`.
fn check_owner(repository: &Repository, hooks: &Path) -> Result<(), Error> {
    let (git_dir, config) = (repository.git_dir(), repository.git_dir().join("config"));
    let is_elsewhere = hooks != git_dir.join("hooks");
    for path in [git_dir, &config, hooks] {
        let is_others = match fs::symlink_metadata(path) {
            Ok(file) if path == config => {
                is_elsewhere && (!durable::is_ours(&file) || file.permissions().mode() & 0o022 != 0)
            }
            Ok(file) if path == hooks => file.is_symlink() && !durable::is_ours(&file),
            Ok(file) => !durable::is_ours(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(failed("look at", path)(source)),
        };
        if is_others {
            return Err(Error::OtherOwner(path.to_owned()));
        }
    }
    Ok(())
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

fn previous(hook: &Path) -> PathBuf {
    hook.with_file_name("post-receive.previous")
}

/// Whether a hook is a link to our binary, even to one that is gone.
fn is_ours(hook: &Path) -> bool {
    fs::read_link(hook).is_ok_and(|target| target.file_name().is_some_and(|name| name == BINARY))
}

/// Whether this git runs hooks that are set in the configuration. Only such a git has `git hook list`.
fn knows_configured_hooks(git_dir: &Path) -> bool {
    let mut command = process::git(git_dir, &["hook", "list", "post-receive"]);
    process::run("git", &mut command, b"", std::time::Duration::from_secs(30)).is_ok()
}

/// The hook binary of this installation: in `libexec/git-mirror-push`, or else beside the program.
fn binary(program: &Path) -> Result<PathBuf, Error> {
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let installed = program.ancestors().nth(2).map(|prefix| prefix.join("libexec/git-mirror-push").join(BINARY));
    let found = [installed, Some(program.with_file_name(BINARY))].into_iter().flatten().find(|path| path.is_file());
    found.ok_or(Error::NoBinary(program))
}
