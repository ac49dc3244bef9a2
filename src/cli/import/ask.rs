//! Questions on the terminal. One is whether the user agrees. The other asks, once for each host,
//! for the user name and password that the source does not give out.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use anyhow::Context;
use parking_lot::Mutex;

use crate::cli::Usage;
use crate::cli::args::Import;
use crate::credentials::{Cleaned, Redactor, Secret};

/// Asks, and remembers the answers.
pub(super) struct Asker {
    may_ask: bool,
    /// By host in lower case. `None`: the user gave no answer.
    answers: Mutex<HashMap<String, Option<(String, Secret)>>>,
}

impl Asker {
    /// Asks only on a terminal, and not with `--yes` or `--dry-run`.
    pub(super) fn new(asked: &Import) -> Self {
        let may_ask = !asked.yes && !asked.dry_run && std::io::stdin().is_terminal();
        Self { may_ask, answers: Mutex::default() }
    }

    /// The user name and the password for a host. `None` if there is no answer.
    pub(super) fn login(&self, host: &str) -> anyhow::Result<Option<(String, Secret)>> {
        if !self.may_ask {
            return Ok(None);
        }
        // The lock is held while the user types, so that the other threads do not ask too.
        let mut answers = self.answers.lock();
        if let Some(known) = answers.get(&host.to_ascii_lowercase()) {
            return Ok(known.clone());
        }
        let answer = asked(&Redactor::default().clean(host));
        // After an error the user is not asked again.
        answers.insert(host.to_ascii_lowercase(), answer.as_ref().ok().cloned().flatten());
        answer
    }
}

fn asked(host: &Cleaned) -> anyhow::Result<Option<(String, Secret)>> {
    write!(
        std::io::stderr(),
        "The source does not give out the logins at {host}. User name (empty: leave those mirrors disabled): "
    )?;
    let mut user = String::new();
    std::io::stdin().read_line(&mut user)?;
    let user = user.trim();
    if user.is_empty() {
        return Ok(None);
    }
    let password = rpassword::prompt_password(format!("Password or token of {user} at {host}: "))
        .context("cannot read the password from the terminal")?;
    Ok(Some((user.to_owned(), Secret::new(password))).filter(|(_, secret)| !secret.expose().trim().is_empty()))
}

/// Asks on the terminal. Without one, this is an error, whose text begins with `otherwise`.
pub(super) fn is_agreed(question: &str, otherwise: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let text =
            format!("{otherwise}, because nobody can be asked; --yes agrees to everything, --dry-run only shows it");
        return Err(Usage(text).into());
    }
    write!(std::io::stderr(), "{question}? (yes/no) ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
