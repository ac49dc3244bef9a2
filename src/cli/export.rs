//! `export`: the mirrors as lines of JSON.

use std::io::Write;

use super::{BEHIND, Base, DONE, Session, render};
use crate::config::{Server, origins};
use crate::credentials::{identity, is_token};
use crate::import::line_of;
use crate::repo::Repository;

/// The mirrors of one repository.
pub(super) fn export(session: &Session<'_>, out: &mut dyn Write) -> anyhow::Result<u8> {
    print(session.base, &[lines(session)?], out)?;
    Ok(DONE)
}

/// The mirrors of every repository below the roots.
pub(super) fn export_every(base: &Base, out: &mut dyn Write) -> anyhow::Result<u8> {
    let (all, bad) = base.ask_every(&lines)?;
    print(base, &all, out)?;
    Ok(if bad > 0 || base.lacks_roots() { BEHIND } else { DONE })
}

/// The lines of one repository, and how many of its mirrors have a password or a key.
struct Lines {
    text: String,
    secrets: usize,
}

fn lines(session: &Session<'_>) -> anyhow::Result<Lines> {
    let (repository, server) = (&session.repository, &session.base.server);
    let place = place_of(repository, server);
    let (mut text, mut secrets) = (String::new(), 0);
    for mirror in &session.config()?.mirrors {
        let url = mirror.address.plain();
        let mut found = origins(repository, server, &mirror.name)?;
        // Somebody may have written a token into the file by hand.
        let is_token = mirror.username.as_deref().is_some_and(|user| is_token(user, None));
        found.retain(|origin| !(is_token && origin.key == "username"));
        let line = line_of(&place, &mirror.name, &url, &found);
        text += &line.ok_or_else(|| anyhow::anyhow!("mirror '{}' has a value that JSON cannot hold", mirror.name))?;
        text.push('\n');
        let directory = repository.layout().remote(&mirror.name);
        secrets += usize::from(is_token || directory.join("secret").exists() || identity(&directory).is_some());
    }
    Ok(Lines { text, secrets })
}

/// The path below the root, or the whole path where no root holds it.
fn place_of(repository: &Repository, server: &Server) -> String {
    match server.place(repository.git_dir()) {
        Some(placed) => placed.path,
        None => repository.git_dir().display().to_string(),
    }
}

fn print(base: &Base, all: &[Lines], out: &mut dyn Write) -> anyhow::Result<()> {
    all.iter().try_for_each(|lines| out.write_all(lines.text.as_bytes()))?;
    let secrets: usize = all.iter().map(|lines| lines.secrets).sum();
    if secrets > 0 {
        let mirrors = render::counted(secrets, "mirror", "mirrors");
        base.say(&format!("not exported: the passwords and ssh keys of {mirrors}"));
    }
    Ok(())
}
