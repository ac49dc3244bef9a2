//! Root in a repository of another user: a child process with that user's uid, gid and groups does everything there.
//!
//! Nothing in the repository is foreign to the child, and nothing that the repository names (a program, a file, a link) is run, read or
//! followed by root. The child starts as root, reads the secrets that it is handed, and drops its rights before it has a second thread; it
//! cannot take them back. The kernel then lets nobody but root trace it or read its memory, until it runs another program.
//!
//! Secrets of the server's files are handed over in memory, and only for mirrors over https and http that the repository's own file does not
//! mention: its settings could send them elsewhere. Absent: the API and the page; they leave such a repository to the command line.

#![expect(clippy::disallowed_methods, reason = "reads what root hands over, and starts this program as another user")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::config::Server;
use crate::credentials::hand_over;
use crate::process;

/// `UID:DESCRIPTOR`: whom the child becomes, and where its secrets are.
const VARIABLE: &str = "GIT_MIRROR_PUSH_OWNER";

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
    /// As [`Owner::command`].
    pub fn command_in(&self, git_dir: &Path, server: &Server) -> io::Result<OwnerCommand> {
        let mut asked = self.command(git_dir, server)?;
        if let Some(file) = server.files.first() {
            asked.command.arg("--config").arg(file);
        }
        asked.command.arg("--git-dir").arg(git_dir);
        Ok(asked)
    }

    /// A command that runs this program as the owner. It hands over the server's secrets for the repository at `git_dir`.
    ///
    /// # Errors
    /// The operating system's, when the secrets cannot be put into memory.
    pub fn command(&self, git_dir: &Path, server: &Server) -> io::Result<OwnerCommand> {
        let program = &server.credential_env.program;
        let mut secrets = File::from(memfd_create("secrets", MemfdFlags::empty())?);
        serde_json::to_writer(&secrets, &server.secrets_for(git_dir))?;
        secrets.flush()?;
        secrets.seek(SeekFrom::Start(0))?;
        let mut command = Command::new(program);
        command.env(VARIABLE, format!("{}:{}", self.uid, secrets.as_raw_fd()));
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        // What belongs to root's own session.
        for name in
            ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "GIT_CONFIG_GLOBAL", "TMPDIR"]
        {
            command.env_remove(name);
        }
        Ok(OwnerCommand { command, _secrets: secrets })
    }
}

/// See [`Owner::command`].
pub struct OwnerCommand {
    /// The command.
    pub command: Command,
    /// Open until the child has inherited it.
    _secrets: File,
}

impl OwnerCommand {
    /// Runs the command and returns its standard output, if it ends with status 0 or 1 (something is not up to date).
    ///
    /// # Errors
    /// The process's, with what the command said.
    pub fn output(mut self) -> Result<Vec<u8>, process::Error> {
        const MAX_OUTPUT: u64 = 256 << 20;
        const NAME: &str = "git mirror-push";
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = process::Child::start(NAME, &mut self.command)?;
        let mut out = Vec::new();
        let read = child.stdout().take(MAX_OUTPUT).read_to_end(&mut out);
        let (status, message) = child.end(Duration::from_secs(5));
        match status.ok().and_then(|status| status.code()) {
            Some(0 | 1) if read.is_ok() => Ok(out),
            code => {
                let status = code.map(|code| format!(" with exit status {code}")).unwrap_or_default();
                Err(process::Error::Failed { program: NAME.into(), status, message })
            }
        }
    }

    /// Runs the command in place of this process. Returns only if that is not possible.
    #[must_use]
    pub fn replace_this_process(mut self) -> io::Error {
        self.command.exec()
    }
}

/// Becomes the user that root asks for in the environment, if it does. To be called before there is a second thread.
///
/// # Errors
/// Why this process cannot become that user. It must then end.
pub fn become_asked() -> io::Result<()> {
    let Some(asked) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let wrong = || io::Error::other(format!("{VARIABLE} is for root's own children"));
    let (uid, descriptor) = asked.to_str().and_then(|text| text.split_once(':')).ok_or_else(wrong)?;
    let uid: u32 = uid.parse().map_err(|_| wrong())?;
    let descriptor: u32 = descriptor.parse().map_err(|_| wrong())?;
    if uid == 0 {
        return Err(wrong());
    }
    if geteuid().as_raw() == uid {
        // A program that the child started: it is that user already, and has no secrets.
        return Ok(());
    }
    let mut text = Vec::new();
    File::open(format!("/proc/self/fd/{descriptor}"))?.read_to_end(&mut text)?;
    let secrets: HashMap<String, String> = serde_json::from_slice(&text)?;
    let user = uzers::get_user_by_uid(uid);
    let group = user.as_ref().map_or(uid, uzers::User::primary_group_id);
    let groups = user.as_ref().and_then(|user| uzers::get_user_groups(user.name(), group)).unwrap_or_default();
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(group.gid())).collect();
    set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(group));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    if set_thread_res_uid(None, Uid::ROOT, None).is_ok() {
        return Err(io::Error::other("the rights of root could not be given up"));
    }
    hand_over(secrets);
    Ok(())
}
