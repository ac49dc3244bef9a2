//! `change`: the daemon of root starts it as the owner of a repository, and gives it one operation on standard input.

use std::io::{self, Write};

use super::{DONE, Session, hook};
use crate::config::HookSetting;
use crate::mirror::{Answer, Editor, Operation, WhileBusy};

/// Does what standard input asks for, and prints the answer as JSON.
pub(super) fn change(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    let operation = Operation::read(io::stdin())?;
    if matches!(operation, Operation::Add(..)) && session.config()?.hook != HookSetting::None {
        hook::ensure(session)?;
    }
    let editor = Editor { while_busy: WhileBusy::Refuse, ..session.editor() };
    serde_json::to_writer(out, &Answer::from(operation.run(&editor)))?;
    Ok(DONE)
}
