//! Installing the hook: `post-receive` becomes a link to the hook binary; an existing hook keeps running, before ours.
//!
//! The existing hook is renamed to `post-receive.previous`, where the hook binary finds and runs it. A rename keeps its bytes, mode and time,
//! and renaming it back restores it. Each step is one rename. A crash between them leaves the existing hook under its new name and no
//! hook; the next install or uninstall completes what was begun.

#![expect(clippy::disallowed_methods, reason = "moves hooks")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process;
use crate::repo::Repository;

const BINARY: &str = "git-mirror-post-receive";

/// Why the hook could not be installed or taken away.
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
    /// Two previous hooks.
    #[error("'{}' is in the way; move it elsewhere and try again", .0.display())]
    InTheWay(PathBuf),
    /// The installation is not whole.
    #[error("the hook binary {BINARY} is not beside '{}'; install with install.sh", .0.display())]
    NoBinary(PathBuf),
    /// git did not say where hooks are.
    #[error("cannot find the directory of hooks: {0}")]
    Directory(#[from] process::Error),
}

/// What installing or uninstalling did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The hook was put there.
    Installed(PathBuf),
    /// It had been there before.
    WasThere(PathBuf),
    /// It was taken away, and there is no other.
    Removed(PathBuf),
    /// It was taken away, and the previous one is back.
    PutBack(PathBuf),
    /// There was nothing to take away.
    WasNot,
}

/// Whether git runs our hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, as this file.
    Live(PathBuf),
    /// Our hook is a link to a program that is gone, or not executable.
    Broken(PathBuf),
    /// A hook of someone else's stands there alone; it may be one that runs ours.
    Foreign(PathBuf),
    /// There is none.
    Missing(PathBuf),
}

/// Finds out whether git runs our hook.
///
/// # Errors
/// [`Error::Directory`]
pub fn state(repository: &Repository) -> Result<State, Error> {
    let hook = directory(repository)?.join("post-receive");
    if let Some(command) = repository.configured_hook(BINARY)
        && knows_configured_hooks(repository.git_dir())
    {
        return Ok(State::Live(command.into()));
    }
    if !is_ours(&hook) {
        return Ok(if hook.symlink_metadata().is_ok() { State::Foreign(hook) } else { State::Missing(hook) });
    }
    use std::os::unix::fs::PermissionsExt;
    let is_live = fs::metadata(&hook).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    Ok(if is_live { State::Live(hook) } else { State::Broken(hook) })
}

/// Installs the hook of the installation that `program` belongs to, if it is not there.
///
/// # Errors
/// [`Error`]
pub fn ensure(repository: &Repository, program: &Path) -> Result<Done, Error> {
    let binary = binary(program)?;
    let hooks = directory(repository)?;
    fs::create_dir_all(&hooks).map_err(failed("make", &hooks))?;
    let hook = hooks.join("post-receive");
    let previous = previous(&hook);
    if is_ours(&hook) {
        if hook.canonicalize().is_ok_and(|path| binary.canonicalize().is_ok_and(|binary| binary == path)) {
            return Ok(Done::WasThere(hook));
        }
        fs::remove_file(&hook).map_err(failed("replace", &hook))?;
    } else if hook.symlink_metadata().is_ok() {
        if previous.symlink_metadata().is_ok() {
            return Err(Error::InTheWay(previous));
        }
        fs::rename(&hook, &previous).map_err(failed("rename", &hook))?;
    }
    std::os::unix::fs::symlink(&binary, &hook).map_err(failed("make", &hook))?;
    Ok(Done::Installed(hook))
}

/// Takes the hook away.
///
/// # Errors
/// [`Error`]
pub fn uninstall(repository: &Repository) -> Result<Done, Error> {
    let hook = directory(repository)?.join("post-receive");
    let previous = previous(&hook);
    let is_previous_there = previous.symlink_metadata().is_ok();
    let is_half_done = is_previous_there && hook.symlink_metadata().is_err();
    if !is_ours(&hook) && !is_half_done {
        return Ok(Done::WasNot);
    }
    if is_previous_there {
        fs::rename(&previous, &hook).map_err(failed("put back", &previous))?;
        return Ok(Done::PutBack(hook));
    }
    fs::remove_file(&hook).map_err(failed("remove", &hook))?;
    Ok(Done::Removed(hook))
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

/// Whether this git runs hooks of the configuration: only such a one can list them.
fn knows_configured_hooks(git_dir: &Path) -> bool {
    let mut command = process::git(git_dir, &["hook", "list", "post-receive"]);
    process::run("git", &mut command, b"", std::time::Duration::from_secs(30)).is_ok()
}

/// Where git looks for hooks: `core.hooksPath` of any of its files, or `hooks` in the repository (githooks(5)).
fn directory(repository: &Repository) -> Result<PathBuf, Error> {
    let git_dir = repository.git_dir();
    let mut command = process::git(git_dir, &["rev-parse", "--git-path", "hooks"]);
    let out = process::run("git", command.current_dir(git_dir), b"", std::time::Duration::from_secs(30))?;
    use std::os::unix::ffi::OsStrExt;
    Ok(git_dir.join(Path::new(std::ffi::OsStr::from_bytes(out.strip_suffix(b"\n").unwrap_or(&out)))))
}

/// The hook binary of this installation: beside the program, or in `libexec`.
fn binary(program: &Path) -> Result<PathBuf, Error> {
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let installed = program.ancestors().nth(2).map(|prefix| prefix.join("libexec/git-mirror-push").join(BINARY));
    let found = [installed, Some(program.with_file_name(BINARY))].into_iter().flatten().find(|path| path.is_file());
    found.ok_or(Error::NoBinary(program))
}
