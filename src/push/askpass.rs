//! The password for ssh and for git's http helper, which take it only from a terminal or a program (ssh(1), SSH_ASKPASS;
//! git(1), GIT_ASKPASS).
//!
//! That program is this one, started again by ssh. It fetches the password over a socket that stands in a directory of
//! mode 0700, so it is in no argument, no environment and no file. One question is answered, and only one that asks for
//! a password; the socket is gone with the connection.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::credentials::Secret;

/// Names the socket to the program that ssh starts.
pub const VARIABLE: &str = "GIT_MIRROR_PUSH_ASKPASS";

/// A password that waits to be asked for. Dropping it takes the socket away.
pub struct Offer {
    directory: tempfile::TempDir,
}

impl Drop for Offer {
    fn drop(&mut self) {
        // The thread that waits for a question gets one, and ends.
        let _ = UnixStream::connect(self.directory.path().join("askpass"));
    }
}

impl Offer {
    /// Offers `secret` to the program that the command will start, through `program`, which is this one.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(ssh: &mut Command, program: &Path, secret: &Secret) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("git-mirror-push.").tempdir()?;
        let path = directory.path().join("askpass");
        let listener = UnixListener::bind(&path)?;
        ssh.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env("GIT_ASKPASS", program);
        ssh.env(VARIABLE, &path);
        let secret = secret.clone();
        std::thread::spawn(move || {
            if let Ok((mut asker, _)) = listener.accept() {
                let _ = asker.write_all(secret.expose().as_bytes());
            }
        });
        Ok(Self { directory })
    }
}

/// Answers ssh's question from the socket; the part of the program that ssh starts.
///
/// # Errors
/// The operating system's, or that the question is another one.
pub fn answer(socket: &Path, question: &str, out: &mut dyn Write) -> io::Result<()> {
    if !question.to_ascii_lowercase().contains("password") {
        return Err(io::Error::other("only passwords are answered"));
    }
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut secret = Vec::new();
    stream.read_to_end(&mut secret)?;
    out.write_all(&secret)?;
    out.write_all(b"\n")
}
