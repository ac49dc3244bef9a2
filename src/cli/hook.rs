//! `install-hook` and `uninstall-hook`.

use super::args::InstallHook;
use super::{DONE, Session};
use crate::config::HookSetting;
use crate::install::{self, Done};

/// Installs the hook.
pub(super) fn install(session: &Session<'_>, asked: &InstallHook) -> anyhow::Result<u8> {
    if asked.if_wanted && session.config()?.hook == HookSetting::None {
        return Ok(DONE);
    }
    session.editor().prepare()?;
    tell(session, &ensure(session)?);
    Ok(DONE)
}

/// Installs the hook if it is not there.
pub(super) fn ensure(session: &Session<'_>) -> anyhow::Result<Done> {
    Ok(install::ensure(&session.repository, &session.base.environment.credential_env.program)?)
}

/// Takes the hook away.
pub(super) fn uninstall(session: &Session<'_>) -> anyhow::Result<u8> {
    tell(session, &install::uninstall(&session.repository)?);
    Ok(DONE)
}

fn tell(session: &Session<'_>, done: &Done) {
    session.base.say(&match done {
        Done::Installed(path) => format!("installed the hook '{}'", path.display()),
        Done::WasThere(path) => format!("the hook '{}' is installed already", path.display()),
        Done::Removed(path) => format!("removed the hook '{}'", path.display()),
        Done::PutBack(path) => format!("put back the previous hook '{}'", path.display()),
        Done::WasNot => "the hook is not installed".to_owned(),
    });
}
