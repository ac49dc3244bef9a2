//! Reading over http: git's own helper, `git remote-https`, does it, and we pass its answers on unchanged. It gets the password over
//! the socket of `wire::AskpassServer`. It reads no setting of the repository (see `apart`). For a confined mirror it connects only to
//! addresses that we have judged.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};

use anyhow::Context as _;

use super::apart::Apart;
use crate::credentials::Secret;
use crate::process::Child;
use crate::repo::Repository;
use crate::wire::{self, Address, AskpassServer, Target};

/// A running helper of git's.
pub(super) struct Web {
    input: BufReader<ChildStdout>,
    /// `None` once a thread copies git's input to it.
    output: Option<ChildStdin>,
    child: Option<Child>,
    _offer: Option<AskpassServer>,
    /// Where it works. Dropped after the helper has ended.
    _apart: Apart,
}

impl Web {
    /// Starts it. `pinned` comes from [`judged`].
    pub(super) fn start(
        repository: &Repository,
        target: &Target,
        pinned: Option<&str>,
        program: &Path,
    ) -> anyhow::Result<Self> {
        let Address::Http { url, .. } = &target.address else { anyhow::bail!("this mirror is not reached over http") };
        let apart = Apart::from(repository).context("cannot make a directory for git's http helper")?;
        let mut command = apart.git(target.egress.is_some());
        // No credential helper is asked for the password, and no redirect takes it to another server.
        for setting in ["credential.helper=", "http.followRedirects=false"] {
            command.arg("-c").arg(setting);
        }
        if target.credentials.secret.is_some() {
            // git 2.46 and later know this. An earlier git sends the password only when the server asks for it.
            command.args(["-c", "http.proactiveAuth=basic"]);
        }
        if let Some(file) = &target.ca_file {
            command.arg("-c").arg(format!("http.sslCAInfo={}", file.display()));
        }
        if let Some(proxy) = &target.proxy {
            command.arg("-c").arg(format!("http.proxy={proxy}"));
        }
        if let Some(pinned) = pinned {
            command.arg("-c").arg(format!("http.curloptResolve={pinned}"));
        }
        let (secret, user) = (target.credentials.secret.clone(), target.credentials.username.clone());
        // The URL has no user name: with one, curl would try an empty password before git asks for the password.
        let offered = secret.map(|secret| {
            let (mirror, user) = (url.clone(), Secret::new(user.unwrap_or_else(|| "git".into())));
            AskpassServer::new(&mut command, program, move |question| {
                let answer = if question.starts_with("Username") { &user } else { &secret };
                is_asked_for(question, &mirror).then(|| answer.clone())
            })
        });
        let offer = offered.transpose()?;
        let mut child = Child::start("git remote-https", command.arg("remote-https").arg("mirror").arg(url))?;
        let (input, output) = (BufReader::new(child.stdout()), child.stdin());
        Ok(Self { input, output: Some(output), child: Some(child), _offer: offer, _apart: apart })
    }

    /// Lets git talk to the mirror's upload-pack in protocol version 2, and returns `true` at the end. Returns `false` if the mirror does
    /// not speak that version; git then goes on with `list` and `fetch`.
    pub(super) fn stateless(&mut self, service: &str, out: &mut dyn Write) -> anyhow::Result<bool> {
        let answer = self
            .ask(&format!("stateless-connect {service}\n"))
            .and_then(|()| self.next_line())
            .map_err(|error| self.why(error))?;
        out.write_all(&answer)?;
        out.flush()?;
        if answer != b"\n" {
            return Ok(false);
        }
        // git waited for that line, so nothing of what follows has been read. The thread ends with the process.
        let mut from_git = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let to_helper = self.output.take();
        std::thread::spawn(move || to_helper.map(|mut to_helper| io::copy(&mut from_git, &mut to_helper)));
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Ok(true);
            }
            out.write_all(chunk)?;
            out.flush()?;
            let length = chunk.len();
            self.input.consume(length);
        }
    }

    /// Sends one line to git's helper, and passes one line of its answer to git.
    pub(super) fn relay_line(&mut self, line: &str, out: &mut dyn Write) -> anyhow::Result<()> {
        let answer = self.ask(&format!("{line}\n")).and_then(|()| self.next_line()).map_err(|error| self.why(error))?;
        Ok(out.write_all(&answer)?)
    }

    /// Sends these lines to git's helper, and passes the lines of its answer to git, up to the empty one.
    pub(super) fn relay_block(&mut self, lines: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
        let is_batch = lines.first().is_some_and(|line| line.starts_with("fetch"));
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + if is_batch { "\n" } else { "" };
        self.ask(&text).map_err(|error| self.why(error))?;
        loop {
            let line = self.next_line().map_err(|error| self.why(error))?;
            out.write_all(&line)?;
            if line == b"\n" {
                return Ok(());
            }
        }
    }

    fn ask(&mut self, text: &str) -> io::Result<()> {
        let output = self.output.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    fn next_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        match self.input.read_until(b'\n', &mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// The error for a helper of git's that ended early: what it said, or else `error`.
    fn why(&mut self, error: io::Error) -> anyhow::Error {
        match self.child.take() {
            Some(child) => child.failure(std::time::Duration::from_secs(5)).into(),
            None => anyhow::Error::from(error).context("git's http helper ended"),
        }
    }
}

/// The addresses that a confined mirror's name has now and that may be reached, for curl's option `CURLOPT_RESOLVE`. git's helper then asks
/// no name server, which could give it another address. `None` if the mirror is not confined, or its URL has an address in place of a name.
///
/// # Errors
/// [`wire::Error::Blocked`] or [`wire::Error::Resolve`]
pub(super) fn judged(target: &Target) -> Result<Option<String>, wire::Error> {
    let (Some(egress), Some((host, port))) = (&target.egress, target.address.host_and_port()) else { return Ok(None) };
    let addresses = egress.resolve(host, port)?;
    if host.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let bare = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let addresses: Vec<String> = addresses.iter().map(bare).collect();
    Ok(Some(format!("{host}:{port}:{}", addresses.join(","))))
}

/// Whether git's question, `Password for 'https://user@host:port': `, is about the mirror. git asks in the same way for the password of a
/// proxy that the environment names.
fn is_asked_for(question: &str, mirror: &str) -> bool {
    let asked = question.split('\'').nth(1).and_then(server_of);
    asked.is_some() && asked == server_of(mirror)
}

/// The scheme, and the host with its port, of a URL.
fn server_of(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    Some((scheme, authority.rsplit_once('@').map_or(authority, |(_, host)| host)))
}

#[cfg(test)]
mod tests {
    use super::is_asked_for;

    #[test]
    fn only_questions_about_the_mirror_are_answered() {
        let mirror = "https://git.example.org:8443/acme/x.git";
        for question in
            ["Username for 'https://git.example.org:8443': ", "Password for 'https://a%40b@git.example.org:8443': "]
        {
            assert!(is_asked_for(question, mirror), "{question}");
        }
        for question in [
            "Password for 'http://proxy@proxy.example.org:3128': ",
            "Password for 'http://git.example.org:8443': ",
            "Password for 'https://git.example.org': ",
            "Password for 'https://git.example.org:8443@evil.example': ",
            "Password: ",
            "",
        ] {
            assert!(!is_asked_for(question, mirror), "{question}");
        }
    }
}
