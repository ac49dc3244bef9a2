//! Reading over http: git's own helper, `git remote-https`, asked in our stead. It speaks the same protocol, so its answers are
//! passed on as they are; the password reaches it through the socket of `push::Offer`.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};

use crate::process::{self, Child};
use crate::push::{Address, Offer, Target};
use crate::repo::Repository;

/// A running helper of git's.
pub(super) struct Web {
    input: BufReader<ChildStdout>,
    output: ChildStdin,
    child: Option<Child>,
    _offer: Option<Offer>,
}

impl Web {
    pub(super) fn start(repository: &Repository, target: &Target, program: &Path) -> anyhow::Result<Self> {
        let Address::Http { url, .. } = &target.address else { anyhow::bail!("this mirror is not reached over http") };
        let mut command = process::git(repository.git_dir(), &[]);
        // Nobody else is asked for the password, and it goes nowhere else.
        for setting in ["credential.helper=", "http.followRedirects=false"] {
            command.arg("-c").arg(setting);
        }
        if let Some(file) = &target.ca_file {
            command.arg("-c").arg(format!("http.sslCAInfo={}", file.display()));
        }
        if let Some(proxy) = &target.proxy {
            command.arg("-c").arg(format!("http.proxy={proxy}"));
        }
        let secret = target.credentials.secret.as_ref();
        // No redirect is followed and no proxy has a user: only the mirror asks.
        let offer = secret.map(|secret| Offer::new(&mut command, program, secret, |_| true)).transpose()?;
        let user = target.credentials.username.as_deref().or(secret.map(|_| "git"));
        let url = match (url.split_once("://"), user) {
            (Some((scheme, rest)), Some(user)) => {
                let user = percent_encoding::utf8_percent_encode(user, percent_encoding::NON_ALPHANUMERIC);
                format!("{scheme}://{user}@{rest}")
            }
            _ => url.clone(),
        };
        let mut child = Child::start("git remote-https", command.arg("remote-https").arg("mirror").arg(url))?;
        let (input, output) = (BufReader::new(child.stdout()), child.stdin());
        Ok(Self { input, output, child: Some(child), _offer: offer })
    }

    /// Asks one line, passes one line back.
    pub(super) fn relay_line(&mut self, line: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let asked = writeln!(self.output, "{line}").and_then(|()| self.output.flush());
        let answer = asked.and_then(|()| self.next_line()).map_err(|error| self.why(error))?;
        Ok(out.write_all(&answer)?)
    }

    /// Asks these lines, passes lines back up to the empty one.
    pub(super) fn relay_block(&mut self, lines: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
        let is_batch = lines.first().is_some_and(|line| line.starts_with("fetch"));
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + if is_batch { "\n" } else { "" };
        let asked = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        asked.map_err(|error| self.why(error))?;
        loop {
            let line = self.next_line().map_err(|error| self.why(error))?;
            out.write_all(&line)?;
            if line == b"\n" {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match self.input.read_until(b'\n', &mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// What git's helper said when it ended early.
    fn why(&mut self, error: io::Error) -> anyhow::Error {
        match self.child.take() {
            Some(child) => child.failure(std::time::Duration::from_secs(5)).into(),
            None => anyhow::Error::from(error).context("git's http helper ended"),
        }
    }
}
