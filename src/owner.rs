//! Root in a repository of another user: a child process with that user's uid, gid and groups does everything there.
//!
//! Nothing in the repository is foreign to the child, and nothing that the repository names (a program, a file, a link) is run, read or
//! followed by root. The child starts as root, in a session of its own without a terminal. It reads the secrets that it is handed and drops
//! its rights before it has a second thread; it cannot take them back. The kernel then lets nobody but root trace it or read its memory. Of
//! root's environment it has only what it needs. It ends when root's process ends.
//!
//! Secrets of the server's files come over standard input, only to a child that contacts mirrors. They are used only for mirrors over https
//! and http that the repository's own file does not mention: its settings could send them elsewhere. Absent: the API and the page; they
//! leave such a repository to the command line.

#![expect(clippy::disallowed_methods, reason = "reads what root hands over, and starts this program as another user")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Gid, Signal, Uid, geteuid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::config::Server;
use crate::credentials::{Redactor, hand_over};
use crate::process;

/// The user that the child becomes, by number. After it, [`SECRETS`] says what standard input holds.
const VARIABLE: &str = "GIT_MIRROR_PUSH_OWNER";
const SECRETS: &str = ":secrets";
/// The program, in messages.
const NAME: &str = "git mirror-push";
/// The group of a user who has none.
const NOBODY: u32 = 65_534;

/// The owner of a repository, in whose place root does not act.
#[derive(Clone, Debug)]
pub struct Owner {
    uid: u32,
    name: String,
    home: PathBuf,
}

impl Owner {
    /// The owner of the repository at `git_dir`, if we are root, the owner is somebody else, and the server's file names that user.
    #[must_use]
    pub fn of(git_dir: &Path, server: &Server) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let uid = std::fs::metadata(git_dir).ok().map(|file| file.uid()).filter(|uid| *uid != 0)?;
        let user = uzers::get_user_by_uid(uid);
        let name = user.as_ref().and_then(|user| user.name().to_str()).map(str::to_owned);
        if !server.names_owner(git_dir, uid, name.as_deref()) {
            return None;
        }
        let home = user.map(|user| uzers::os::unix::UserExt::home_dir(&user).to_owned());
        Some(Self { uid, name: name.unwrap_or_else(|| uid.to_string()), home: home.unwrap_or_else(|| "/".into()) })
    }

    /// A command that runs this program as the owner, in the repository at `git_dir`.
    ///
    /// # Errors
    /// The operating system's, when the secrets cannot be put into memory.
    pub fn command(&self, git_dir: &Path, server: &Server, hands: Hands) -> io::Result<OwnerCommand> {
        let mut command = Command::new(&server.credential_env.program);
        command.env_clear().envs(std::env::vars_os().filter(|(name, value)| is_needed(name, value)));
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        command.env(VARIABLE, format!("{}{}", self.uid, if hands == Hands::Secrets { SECRETS } else { "" }));
        if hands == Hands::Secrets {
            let mut secrets = File::from(memfd_create("secrets", MemfdFlags::CLOEXEC)?);
            serde_json::to_writer(&secrets, &server.secrets_for(git_dir))?;
            secrets.seek(SeekFrom::Start(0))?;
            command.stdin(secrets);
        }
        if let Some(file) = &server.main_file {
            command.arg("--config").arg(file);
        }
        command.arg("--git-dir").arg(git_dir);
        Ok(OwnerCommand { command })
    }
}

/// What a child gets on its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// The secrets of the server's files.
    Secrets,
    /// What root's process has there.
    Input,
}

/// Whether the child needs a variable of root's environment. A proxy with a password in its URL is root's secret.
fn is_needed(name: &OsStr, value: &OsStr) -> bool {
    const NAMES: [&str; 15] = [
        "PATH",
        "LANG",
        "TZ",
        "TERM",
        "NO_COLOR",
        "GIT_MIRROR_PUSH_CONFIG",
        "MIRROR_PUSH_LOG",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_DEFAULT_HASH",
        "GIT_CONFIG_NOSYSTEM",
        "no_proxy",
        "NO_PROXY",
    ];
    const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let Some(name) = name.to_str() else { return false };
    let has_password = value.as_bytes().contains(&b'@');
    NAMES.contains(&name) || name.starts_with("LC_") || PROXIES.contains(&name) && !has_password
}

/// See [`Owner::command`].
pub struct OwnerCommand {
    /// The command, for its further arguments.
    pub command: Command,
}

impl OwnerCommand {
    /// Runs the command and returns its standard output, if it ends with status 0 or 1 (something is not up to date).
    ///
    /// # Errors
    /// The process's, with what the command said.
    pub fn output(mut self) -> Result<Vec<u8>, process::Error> {
        const MAX_OUTPUT: u64 = 256 << 20;
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::Child::start(NAME, &mut self.command)?;
        // The other end of its input is closed in this process.
        drop(self.command);
        let mut out = Vec::new();
        let read = child.stdout().take(MAX_OUTPUT).read_to_end(&mut out);
        let (status, message) = child.end(Duration::from_secs(5));
        match status.ok().and_then(|status| status.code()) {
            Some(0 | 1) if read.is_ok() => Ok(out),
            code => {
                let status = code.map(|code| format!(" with exit status {code}")).unwrap_or_default();
                let message = Redactor::default().clean(&said(&message)).to_string();
                Err(process::Error::Failed { program: NAME.into(), status, message })
            }
        }
    }

    /// Runs the command in the place of this one, and returns its exit status.
    ///
    /// # Errors
    /// [`process::Error::Start`]
    pub fn status(mut self) -> Result<u8, process::Error> {
        let failed = |source| process::Error::Start { program: NAME.into(), source };
        let status = self.command.status().map_err(failed)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}

/// The error in what a command with `--json` said.
fn said(message: &str) -> String {
    let error = message.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = error.and_then(|error| error["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| message.to_owned())
}

/// Becomes the user that root asks for in the environment, if it does. To be called before there is a second thread.
///
/// # Errors
/// Why this process cannot become that user. It must then end.
pub fn become_asked() -> io::Result<()> {
    let Some(asked) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let wrong = || io::Error::other(format!("{VARIABLE} is for root's own children"));
    let asked = asked.to_str().ok_or_else(wrong)?;
    let uid: u32 = asked.trim_end_matches(SECRETS).parse().map_err(|_| wrong())?;
    if uid == 0 {
        return Err(wrong());
    }
    if geteuid().as_raw() == uid {
        // A program that the child started: it is that user already, and has no secrets.
        return Ok(());
    }
    // Programs that the owner chose must not reach root's terminal.
    rustix::process::setsid()?;
    let mut secrets = HashMap::new();
    if asked.ends_with(SECRETS) {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        secrets = serde_json::from_slice(&text)?;
        dup2_stdin(File::open("/dev/null")?)?;
    }
    let user = uzers::get_user_by_uid(uid);
    let group = user.as_ref().map_or(NOBODY, uzers::User::primary_group_id);
    let groups = user.as_ref().and_then(|user| uzers::get_user_groups(user.name(), group)).unwrap_or_default();
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(group.gid())).collect();
    set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(group));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    if set_thread_res_uid(None, Uid::ROOT, None).is_ok() {
        return Err(io::Error::other("the rights of root could not be given up"));
    }
    set_parent_process_death_signal(Some(Signal::TERM))?;
    hand_over(secrets);
    Ok(())
}
