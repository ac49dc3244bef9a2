//! How root acts in a repository of another user: through a child process with that user's uid, gid and groups.
//!
//! The child does whatever runs a program, contacts a mirror or writes in the repository. Root
//! itself only reads there: to see whether something is due, and for `status --all`, `log`,
//! `export --all`, `check`, the metrics, the API and the page.
//!
//! The child starts as root, in a session of its own without a controlling terminal. It reads its
//! secrets and the server's files. Then it gives up root's rights, before it has a second thread,
//! and cannot get them back. After that, only root can trace the child or read its memory. The
//! child gets only the variables of root's environment that it needs. It gets SIGTERM when root's
//! process ends.
//!
//! To a child that may contact mirrors, root passes the secrets of the server's files over standard
//! input. These are passwords of mirrors over https or http, and tokens that create repositories.
//! The child uses a secret only for a mirror whose settings all come from the server's files,
//! because a setting in the repository's own file could send the secret elsewhere.

#![expect(clippy::disallowed_methods, reason = "reads what root hands over, and starts this program as another user")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Gid, Signal, Uid, geteuid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::config::{self, Server};
use crate::credentials::{Redactor, hand_over};
use crate::durable;
use crate::process;

/// The variable that tells the child which user to become: a uid. [`SECRETS`] follows the uid if standard input holds secrets.
const VARIABLE: &str = "GIT_MIRROR_PUSH_OWNER";
const SECRETS: &str = ":secrets";
/// The variable with the paths of the server's files, one a line. The child reads the files while it is still root, because the
/// repository's owner may have no right to read them.
const FILES: &str = "GIT_MIRROR_PUSH_FILES";
/// The program, in messages.
const NAME: &str = "git mirror-push";
/// The group for a uid that is not in the user database (`nogroup`).
const NOBODY: u32 = 65_534;

/// The user who owns a repository. Root does not act there itself, but through a child with this user's rights.
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
        let uid = durable::stat_directory(git_dir).ok().map(|directory| directory.st_uid).filter(|uid| *uid != 0)?;
        let user = uzers::get_user_by_uid(uid);
        let name = user.as_ref().and_then(|user| user.name().to_str()).map(str::to_owned);
        if !server.names_owner(git_dir, uid, name.as_deref()) {
            return None;
        }
        let home = user.map(|user| uzers::os::unix::UserExt::home_dir(&user).to_owned());
        Some(Self { uid, name: name.unwrap_or_else(|| uid.to_string()), home: home.unwrap_or_else(|| "/".into()) })
    }

    /// The owner's number.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
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
        if hands == Hands::Nothing {
            command.stdin(Stdio::null());
        }
        if hands == Hands::Secrets {
            let mut secrets = File::from(memfd_create("secrets", MemfdFlags::CLOEXEC)?);
            serde_json::to_writer(&secrets, &server.secrets_for(git_dir))?;
            secrets.seek(SeekFrom::Start(0))?;
            command.stdin(secrets);
        }
        let files: Vec<&OsStr> = server.files.iter().map(|file| file.as_os_str()).collect();
        command.env(FILES, files.join(OsStr::new("\n")));
        command.arg("--git-dir").arg(git_dir);
        Ok(OwnerCommand { command })
    }
}

/// What a child gets on its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// The secrets of the server's files.
    Secrets,
    /// The standard input of root's process.
    Input,
    /// Nothing. The caller may set another standard input.
    Nothing,
}

/// Whether the child needs this variable of root's environment. A proxy URL with an `@` may hold a password of root's, so it is withheld.
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
        // This closes our descriptor of the secrets, which `command` keeps open.
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

    /// Gives the command `input` on its standard input. Returns what it prints, 64 KiB at most. Its owner may stop the process, so it is
    /// killed when `limit` is over.
    ///
    /// # Errors
    /// The process's, with what the command said.
    pub fn ask(mut self, input: &[u8], limit: Duration) -> Result<Vec<u8>, process::Error> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::run(NAME, &mut self.command, input, limit)
    }

    /// Runs the command with this process's standard output and error, waits for it, and returns its exit status.
    ///
    /// # Errors
    /// [`process::Error::Start`]
    pub fn status(mut self) -> Result<u8, process::Error> {
        let failed = |source| process::Error::Start { program: NAME.into(), source };
        let status = self.command.status().map_err(failed)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}

/// The error message in the standard error of a command with `--json`. Without such a message, all of the text.
fn said(message: &str) -> String {
    let error = message.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let error = error.and_then(|error| error["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| message.to_owned())
}

/// Becomes the user that root has named in `VARIABLE`. Does nothing if the variable is not set. Call it before the process has a second
/// thread.
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
        // A program of the child started this process. So it runs as that user already, and gets no secrets.
        return Ok(());
    }
    let parent = rustix::process::getppid();
    // Programs that the owner chose must not reach root's terminal.
    rustix::process::setsid()?;
    let mut secrets = HashMap::new();
    if asked.ends_with(SECRETS) {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text)?;
        secrets = serde_json::from_slice(&text)?;
        dup2_stdin(File::open("/dev/null")?)?;
    }
    let files = std::env::var_os(FILES).unwrap_or_default();
    let files = files.as_bytes().split(|byte| *byte == b'\n').filter(|path| !path.is_empty());
    config::preload(files.map(|path| PathBuf::from(OsStr::from_bytes(path))))?;
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
    // The kernel forgets this when the user changes, so it comes last. Root's process may have ended before.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if rustix::process::getppid() != parent {
        return Err(io::Error::other("the process of root has ended"));
    }
    hand_over(secrets);
    Ok(())
}
