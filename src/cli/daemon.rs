//! `serve` and `token`: the daemon, and who may use its API.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::args::{CreateToken, Serve, Token, TokenAction, TokenScope};
use super::{Base, DONE, Usage, now, print_json};
use crate::config::{Listen, Server};
use crate::credentials::CredentialEnv;
use crate::status::render_time;
use crate::tokens::{self, NewToken, Store};

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The server's files.
    pub server: Server,
    /// Where to listen; `None` only drains.
    pub listen: Option<Listen>,
    /// Where its own state is.
    pub state_directory: PathBuf,
    /// Where its sockets are.
    pub runtime_directory: PathBuf,
    /// The server's file, if one is named.
    pub server_config: Option<PathBuf>,
    /// Where to look for credentials.
    pub credential_env: CredentialEnv,
}

/// The function that runs the daemon. The caller passes it in, because `cli` does not import `serve`.
pub type Run<'a> = &'a dyn Fn(Daemon) -> anyhow::Result<()>;

/// Runs the daemon.
pub(super) fn serve(base: Base, asked: &Serve, run: Run<'_>) -> anyhow::Result<u8> {
    let Base { environment, global, server, .. } = base;
    let named = global.config.or(environment.server_config);
    run(Daemon {
        server,
        listen: Some(asked.listen.clone()).filter(|_| !asked.no_listen),
        state_directory: environment.state_directory,
        runtime_directory: environment.runtime_directory,
        server_config: named.map(|path| environment.current_dir.join(path)),
        credential_env: environment.credential_env,
    })?;
    Ok(DONE)
}

/// Makes, lists or revokes tokens.
pub(super) fn token(base: &Base, asked: &Token, out: &mut dyn Write) -> anyhow::Result<u8> {
    let directory = &base.environment.state_directory;
    let store = Store::new(directory);
    let named = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists if error.raw_os_error().is_none() => Usage(error.to_string()).into(),
        // An unknown token ends with the same exit status as an unknown mirror.
        io::ErrorKind::NotFound if error.raw_os_error().is_none() => anyhow::anyhow!("{error}"),
        _ => anyhow::Error::from(error).context(format!(
            "cannot use the tokens in '{}'; run as the daemon's user or set STATE_DIRECTORY",
            directory.display()
        )),
    };
    match &asked.action {
        TokenAction::Create(create) => {
            let secret = store.create(wanted(create)?, now()).map_err(named)?;
            writeln!(out, "{}", secret.expose())?;
        }
        TokenAction::Revoke(name) => store.revoke(&name.name).map_err(named)?,
        TokenAction::List => list(base, &store.read().map_err(named)?, out)?,
    }
    Ok(DONE)
}

fn wanted(create: &CreateToken) -> anyhow::Result<NewToken> {
    if create.name.trim().is_empty() || create.name.len() > 100 || create.name.chars().any(char::is_control) {
        return Err(Usage("a token's name is a line of at most 100 bytes".into()).into());
    }
    let expires_at = match create.expires {
        None => None,
        Some(after) => Some(now().checked_add(after).context("--expires is too long")?),
    };
    let scope = match create.scope {
        TokenScope::Api => tokens::Scope::Api,
        TokenScope::ReadApi => tokens::Scope::ReadApi,
        TokenScope::Pull => tokens::Scope::Pull,
    };
    Ok(NewToken { name: create.name.clone(), scope, projects: create.projects.clone(), expires_at })
}

/// A token as `token list --json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    name: &'a str,
    scope: &'a str,
    projects: &'a [String],
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

fn list(base: &Base, all: &[tokens::Token], out: &mut dyn Write) -> anyhow::Result<()> {
    if base.global.json {
        let json = all.iter().map(|token| Json {
            name: &token.name,
            scope: token.scope.as_str(),
            projects: &token.projects,
            created_at: render_time(token.created_at),
            expires_at: token.expires_at.map(render_time),
            last_used_at: token.last_used_at.map(render_time),
        });
        return print_json(out, &json.collect::<Vec<_>>());
    }
    for token in all {
        let projects = if token.projects.is_empty() { "all projects".to_owned() } else { token.projects.join(", ") };
        let end = match token.expires_at {
            Some(_) if token.is_expired(now()) => "expired".to_owned(),
            Some(end) => format!("expires {}", render_time(end)),
            None => "does not expire".to_owned(),
        };
        let used = token
            .last_used_at
            .map_or_else(|| "never used".to_owned(), |used| format!("last used {}", render_time(used)));
        writeln!(out, "{}  {}  {projects}  {end}  {used}", token.name, token.scope.as_str())?;
    }
    Ok(())
}
