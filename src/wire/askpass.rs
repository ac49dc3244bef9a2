//! The password for ssh and for git's http helper. Both take it only from a terminal or from a program (ssh(1), SSH_ASKPASS; git(1),
//! GIT_ASKPASS).
//!
//! That program is this one, started again by ssh or git. It gets the password over a socket in a temporary directory, so the password is
//! in no argument, no environment and no file. The owner of the socket decides which questions are
//! answered. For ssh it answers exactly one question: the one for the password of the mirror's own
//! host. A jump host on the way may ask too, and gets no answer. The socket is gone when the
//! connection ends, or earlier.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::credentials::Secret;
use crate::durable;
use crate::replies;

/// The variable that tells the program started by ssh or git where the socket is.
pub const VARIABLE: &str = "GIT_MIRROR_PUSH_ASKPASS";

/// Time limit for a question and its answer on the socket. It is longer than the limit of `ssh -G`, which may run in between.
const LIMIT: Duration = Duration::from_secs(10);

/// Answers password questions on a socket. Dropping it removes the socket.
pub struct AskpassServer {
    directory: tempfile::TempDir,
}

impl Drop for AskpassServer {
    fn drop(&mut self) {
        // The thread that waits for a question gets an empty one, and ends.
        let _ = UnixStream::connect(self.directory.path().join("askpass"));
    }
}

impl AskpassServer {
    /// Makes `ssh` (or git) start `program`, which is this program, to ask for a password. `answer` gets each question, and returns `None`
    /// if the question is not for us.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(
        ssh: &mut Command,
        program: &Path,
        mut answer: impl FnMut(&str) -> Option<Secret> + Send + 'static,
    ) -> io::Result<Self> {
        let directory = durable::private_directory(&std::env::temp_dir())?;
        let path = directory.path().join("askpass");
        let listener = UnixListener::bind(&path)?;
        ssh.env("SSH_ASKPASS", program).env("SSH_ASKPASS_REQUIRE", "force").env("GIT_ASKPASS", program);
        ssh.env(VARIABLE, &path);
        std::thread::spawn(move || {
            while let Ok((mut asker, _)) = listener.accept() {
                let mut question = String::new();
                let limited = asker.set_read_timeout(Some(LIMIT));
                let read = limited.and_then(|()| (&asker).take(4096).read_to_string(&mut question));
                if question.is_empty() {
                    // The server was dropped, or a client connected without a question.
                    return;
                }
                if let Some(text) = answer(&question).filter(|_| read.is_ok()) {
                    // A client that has hung up does not need the answer.
                    let _ = asker.write_all(text.expose().as_bytes());
                }
            }
        });
        Ok(Self { directory })
    }
}

/// Answers a question of ssh or git with the answer from the socket. Runs in the program that they start.
///
/// # Errors
/// The operating system's, or that the question asks for something else, or that the socket gives no answer.
pub fn answer(socket: &Path, question: &str, out: &mut dyn Write) -> io::Result<()> {
    if !replies::asks_for_credentials(question) {
        return Err(io::Error::other("this program answers only questions for user names and passwords"));
    }
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(question.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut secret = Vec::new();
    stream.read_to_end(&mut secret)?;
    if secret.is_empty() {
        return Err(io::Error::other("the mirror's password is not for the host that asks"));
    }
    out.write_all(&secret)?;
    out.write_all(b"\n")
}
