//! Installing the hook: `post-receive` becomes a link to the hook binary; a hook that was there keeps running first.
//!
//! The previous hook is renamed to `post-receive.previous`, where the hook binary finds and runs it; a rename keeps its bytes,
//! mode and time, and renaming it back restores it. Both steps are single renames: a crash between them leaves the
//! previous hook under its new name and no hook, and the next install or uninstall ends what was begun.

#![expect(clippy::disallowed_methods, reason = "moves hooks")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{DONE, Session};

const BINARY: &str = "git-mirror-post-receive";

/// Installs the hook.
pub(super) fn install(session: &Session<'_>) -> anyhow::Result<u8> {
    super::mirrors::prepare(session)?;
    match ensure(session)? {
        Installed::Now(path) => session.base.say(&format!("installed the hook '{}'", path.display())),
        Installed::Before(path) => session.base.say(&format!("the hook '{}' is installed already", path.display())),
    }
    Ok(DONE)
}

/// What installing did.
pub(super) enum Installed {
    Now(PathBuf),
    Before(PathBuf),
}

/// Installs the hook if it is not there.
pub(super) fn ensure(session: &Session<'_>) -> anyhow::Result<Installed> {
    let binary = binary(&session.base.environment.program)?;
    let hook = hooks_directory(session)?.join("post-receive");
    let previous = previous(&hook);
    if is_ours(&hook) {
        if hook.canonicalize().is_ok_and(|path| binary.canonicalize().is_ok_and(|binary| binary == path)) {
            return Ok(Installed::Before(hook));
        }
        fs::remove_file(&hook).with_context(|| format!("cannot replace '{}'", hook.display()))?;
    } else if hook.symlink_metadata().is_ok() {
        if previous.symlink_metadata().is_ok() {
            anyhow::bail!("'{}' is in the way; move it elsewhere and try again", previous.display());
        }
        fs::rename(&hook, &previous).with_context(|| format!("cannot rename '{}'", hook.display()))?;
    }
    std::os::unix::fs::symlink(&binary, &hook).with_context(|| format!("cannot make '{}'", hook.display()))?;
    Ok(Installed::Now(hook))
}

/// Takes the hook away.
pub(super) fn uninstall(session: &Session<'_>) -> anyhow::Result<u8> {
    let hook = hooks_directory(session)?.join("post-receive");
    let previous = previous(&hook);
    let is_previous_there = previous.symlink_metadata().is_ok();
    let is_half_done = is_previous_there && hook.symlink_metadata().is_err();
    if !is_ours(&hook) && !is_half_done {
        session.base.say("the hook is not installed");
        return Ok(DONE);
    }
    if is_previous_there {
        fs::rename(&previous, &hook).with_context(|| format!("cannot put back '{}'", previous.display()))?;
        session.base.say(&format!("put back the previous hook '{}'", hook.display()));
    } else {
        fs::remove_file(&hook).with_context(|| format!("cannot remove '{}'", hook.display()))?;
        session.base.say(&format!("removed the hook '{}'", hook.display()));
    }
    Ok(DONE)
}

fn previous(hook: &Path) -> PathBuf {
    hook.with_file_name("post-receive.previous")
}

/// Whether a hook is a link to our binary, even to one that is gone.
fn is_ours(hook: &Path) -> bool {
    fs::read_link(hook).is_ok_and(|target| target.file_name().is_some_and(|name| name == BINARY))
}

/// `core.hooksPath`, or `hooks` in the repository (githooks(5)).
fn hooks_directory(session: &Session<'_>) -> io::Result<PathBuf> {
    let git_dir = session.repository.git_dir();
    let directory = match session.repository.git_config("core.hooksPath") {
        Some(path) if !path.is_empty() => git_dir.join(path),
        _ => git_dir.join("hooks"),
    };
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The hook binary of this installation: beside the program, or in `libexec`.
fn binary(program: &Path) -> anyhow::Result<PathBuf> {
    let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let installed = program.ancestors().nth(2).map(|prefix| prefix.join("libexec/git-mirror-push").join(BINARY));
    [installed, Some(program.with_file_name(BINARY))].into_iter().flatten().find(|path| path.is_file()).with_context(
        || format!("the hook binary {BINARY} is not beside '{}'; install with install.sh", program.display()),
    )
}
