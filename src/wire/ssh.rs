//! The ssh transport: the system's ssh with the user's configuration, without prompts, with strict host keys. For a confined mirror ssh
//! reads no configuration file.

#![expect(clippy::disallowed_methods, reason = "reads key and known_hosts files, to compare them")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::askpass::AskpassServer;
use super::ssh_control::{ControlSocket, ControlSockets, Kind};
use super::stream::Stream;
use super::{Contacts, Egress, Error, Pool, Service, Target, tcp};
use crate::credentials::{HostKey, read_host_keys};
use crate::durable;
use crate::process::{Child, command, run, shell_word};
use crate::replies::{self, Failure, HostKeyProblem};

/// Starts `ssh` with a service of git as its command.
pub(super) fn connect(
    service: Service,
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    path: &str,
    target: &Target,
    pool: &Pool,
) -> Result<Stream, Error> {
    let (mut ssh, offer, shared) = prepare(user, host, port, &remote_command(service, path), target, Some(&pool.ssh))?;
    match service.version() {
        Some(version) => ssh.env(PROTOCOL, version),
        None => ssh.env_remove(PROTOCOL),
    };
    let (child, input, output) = Child::start_on_sockets("ssh", &mut ssh)?;
    let stream = Stream::of_sockets(child, input, output, target.timeouts)
        .map_err(|source| Error::Start { program: "ssh".into(), source })?;
    Ok(stream.keeping(offer, shared, target.ssh.known_hosts.clone()))
}

/// The variable that names the version of the protocol (git(1)).
const PROTOCOL: &str = "GIT_PROTOCOL";

const SSH_PORT: u16 = 22;

/// The command for the shell on the other side.
fn remote_command(service: Service, path: &str) -> String {
    format!("{} {}", service.name(), shell_word(path))
}

/// Starts `ssh`. If the mirror has a password, also returns the server that answers the question for it.
pub(super) fn start(
    service: Service,
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    path: &str,
    target: &Target,
) -> Result<(Child, Option<AskpassServer>), Error> {
    let (mut ssh, offer, _) = prepare(user, host, port, &remote_command(service, path), target, None)?;
    Ok((Child::start("ssh", &mut ssh)?, offer))
}

/// Tells ssh how to authenticate. Without a password for the mirror, ssh asks nothing. Otherwise
/// ssh asks for the password once, and the returned server answers.
fn authenticate(
    ssh: &mut Command,
    host: &str,
    port: Option<u16>,
    target: &Target,
) -> Result<Option<AskpassServer>, Error> {
    let Some((secret, program)) = target.credentials.secret.as_ref().zip(target.ssh.askpass.as_ref()) else {
        option(ssh, "BatchMode=yes");
        return Ok(None);
    };
    // BatchMode would keep ssh from asking at all.
    option(ssh, "NumberOfPasswordPrompts=1");
    option(ssh, "PreferredAuthentications=password,keyboard-interactive");
    let (ours, alias, options) = (host.to_owned(), known_as(host, port), target.ssh.options.clone());
    let is_confined = target.egress.is_some();
    let mut secret = Some(secret.clone());
    let answer = move |question: &str| {
        let asking = replies::asking_host(question)?;
        let is_ours =
            if is_confined { asking == alias } else { asking == ours || is_alias_of(&ours, asking, &options) };
        is_ours.then(|| secret.take()).flatten()
    };
    let failed = |source| Error::Start { program: "ssh".into(), source };
    AskpassServer::new(ssh, program, answer).map(Some).map_err(failed)
}

/// Makes ssh connect to an address that `egress` allows, and to nothing else: no file of the user or of this machine may name another host,
/// a proxy, an agent or a key.
fn confine(ssh: &mut Command, host: &str, port: Option<u16>, egress: &Egress, limit: Duration) -> Result<(), Error> {
    let address = tcp::reachable(&egress.resolve(host, port.unwrap_or(SSH_PORT))?, limit).ip();
    ssh.arg("-F").arg("none");
    option(ssh, format!("HostName={address}"));
    option(ssh, format!("HostKeyAlias={}", known_as(host, port)));
    for text in
        ["ProxyCommand=none", "ProxyJump=none", "IdentityAgent=none", "ForwardAgent=no", "ClearAllForwardings=yes"]
    {
        option(ssh, text);
    }
    Ok(())
}

/// The host as known_hosts has it (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
pub(crate) fn known_as(host: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if port != SSH_PORT => format!("[{host}]:{port}"),
        _ => host.to_owned(),
    }
}

/// The ssh command, the server that answers its question for the password, if there is one, and the socket of the shared connection, if
/// there is one.
pub(super) fn prepare(
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    remote_command: &str,
    target: &Target,
    sockets: Option<&ControlSockets>,
) -> Result<(Command, Option<AskpassServer>, Option<ControlSocket>), Error> {
    let mut ssh = command("ssh");
    if target.egress.as_ref().is_some_and(|egress| !egress.allows_all()) && target.ssh.known_hosts.is_none() {
        let what = "its host keys must be pinned first: use 'git mirror-push host-keys' with --detect, or the page";
        return Err(Error::Unable(what.into()));
    }
    if let Some(egress) = &target.egress {
        confine(&mut ssh, host, port, egress, target.timeouts.connect)?;
    }
    let offer = authenticate(&mut ssh, host, port, target)?;
    option(&mut ssh, format!("ConnectTimeout={}", target.timeouts.connect.as_secs().max(1)));
    option(&mut ssh, "StrictHostKeyChecking=yes");
    option(&mut ssh, format!("SendEnv={PROTOCOL}"));
    if let Some(identity) = &target.ssh.identity {
        option(&mut ssh, "IdentitiesOnly=yes");
        option(&mut ssh, file_option("IdentityFile", identity));
    }
    if target.egress.is_some() && target.ssh.identity.is_none() {
        // Users of the API may add a confined mirror. It must not use the keys of the user who runs the daemon.
        option(&mut ssh, "PubkeyAuthentication=no");
    }
    if let Some(known_hosts) = &target.ssh.known_hosts {
        option(&mut ssh, file_option("UserKnownHostsFile", known_hosts));
        option(&mut ssh, "GlobalKnownHostsFile=/dev/null");
        option(&mut ssh, "CheckHostIP=no");
    }
    for text in target.ssh.options.iter().filter(|text| target.egress.is_none() || !is_of_a_key(text)) {
        option(&mut ssh, text);
    }
    let whom = user.map_or_else(|| host.to_owned(), |user| format!("{user}@{host}"));
    let kind = || kind(&ssh, &whom, port, target);
    // If the options configure connection sharing, the user's settings apply and not ours.
    let is_of_control = |text: &String| is_one_of(text, &["ControlMaster", "ControlPath"]);
    let is_shareable = offer.is_none() && !target.ssh.options.iter().any(is_of_control);
    let shared = sockets.filter(|_| is_shareable).and_then(|sockets| {
        let kind = kind();
        let is_first = || target.ssh.contacts == Contacts::More && !sockets.has_met(&kind);
        if is_first() && shares_itself(&ssh, &whom, port) {
            sockets.leave_to_user(kind);
            return None;
        }
        sockets.socket(kind, target.ssh.contacts)
    });
    shared.iter().flat_map(ControlSocket::options).for_each(|text| option(&mut ssh, text));
    if let Some(port) = port {
        ssh.arg("-p").arg(port.to_string());
    }
    ssh.arg("--").arg(whom).arg(remote_command);
    Ok((ssh, offer, shared))
}

/// Whether the configuration of ssh sets `ControlPath`, so that separate runs of ssh share a connection to the host.
fn shares_itself(ssh: &Command, whom: &str, port: Option<u16>) -> bool {
    let mut asked = command("ssh");
    asked.arg("-G").args(ssh.get_args());
    asked.args(port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
    let said = run("ssh", asked.arg("--").arg(whom), b"", Duration::from_secs(10)).unwrap_or_default();
    let is_path = |line: &str| line.strip_prefix("controlpath ").is_some_and(|path| path != "none");
    String::from_utf8_lossy(&said).lines().any(is_path)
}

/// Whether an option names a key or an agent. Such options are for the administrator's mirrors, and
/// not for a host that a user of the API chose.
fn is_of_a_key(option: &str) -> bool {
    is_one_of(option, &["IdentityFile", "CertificateFile", "IdentityAgent"])
}

fn is_one_of(option: &str, keywords: &[&str]) -> bool {
    let keyword = option.split(['=', ' ', '\t']).next().unwrap_or_default();
    keywords.iter().any(|known| keyword.eq_ignore_ascii_case(known))
}

/// Everything that ssh is told about a host. File contents replace file names, because each mirror has its own files.
fn kind(ssh: &Command, whom: &str, port: Option<u16>, target: &Target) -> Kind {
    let is_file = |word: &&OsStr| {
        let files = ["-oIdentityFile=", "-oUserKnownHostsFile="];
        !files.iter().any(|name| word.as_bytes().starts_with(name.as_bytes()))
    };
    let mut kind: Kind = ssh.get_args().filter(is_file).map(OsStr::to_owned).collect();
    kind.extend([whom.into(), port.unwrap_or_default().to_string().into()]);
    for file in [&target.ssh.identity, &target.ssh.known_hosts] {
        // A file that cannot be read is compared by its path, so no other mirror shares the connection.
        let text =
            file.as_ref().map(|path| std::fs::read(path).unwrap_or_else(|_| path.as_os_str().as_bytes().to_vec()));
        kind.push(OsString::from_vec(text.unwrap_or_default()));
    }
    kind
}

/// Whether ssh's configuration gives `host` this name. ssh uses that name when it asks for a password.
fn is_alias_of(host: &str, name: &str, options: &[String]) -> bool {
    let mut ssh = command("ssh");
    ssh.arg("-G");
    options.iter().for_each(|text| option(&mut ssh, text));
    let said = run("ssh", ssh.arg("--").arg(host), b"", Duration::from_secs(5)).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines()
        .filter_map(|line| line.split_once(' '))
        .any(|(key, value)| matches!(key, "hostname" | "hostkeyalias") && value == name)
}

/// Adds one option as a single argument, `-oKeyword=value`.
fn option(command: &mut Command, text: impl AsRef<OsStr>) {
    let mut argument = OsString::from("-o");
    argument.push(text);
    command.arg(argument);
}

/// The error of a host key that ssh does not accept. `pins` is the file of pinned keys.
fn host_key_error(problem: HostKeyProblem<'_>, pins: Option<&Path>) -> Error {
    let host = problem.host.unwrap_or("the mirror");
    let host = host.strip_suffix(":22").unwrap_or(host);
    // Brackets are there for the port: `[host]:port`.
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) if !name.contains(':') => format!("{name}{port}"),
        Some((name, "")) => name.to_owned(),
        _ => host.to_owned(),
    };
    let mut pinned =
        pins.and_then(Path::parent).and_then(|directory| read_host_keys(directory).ok()).unwrap_or_default();
    if problem.offered.is_none() {
        // Pins of another host, from before the URL changed, say nothing of this one.
        let is_named = |hosts: &str| hosts.split(',').any(|name| problem.host == Some(name));
        pinned.retain(|key| is_named(&key.hosts));
    }
    let mut expected: Vec<String> = pinned.into_iter().map(|key| key.sha256).collect();
    if let (true, Some((file, line))) = (expected.is_empty(), problem.known) {
        expected.extend(known_key(Path::new(file), line).map(|key| key.sha256));
    }
    match problem.offered {
        None if expected.is_empty() => Error::HostKey { host },
        offered => Error::HostKeyChanged { host, offered: offered.map(str::to_owned), expected },
    }
}

/// The key in a line of known_hosts. The file name may be a lie: a server too can write to ssh's standard error. So at most 4 MiB are read.
fn known_key(file: &Path, line: usize) -> Option<HostKey> {
    const MAX_READ: u64 = 4 << 20;
    let (opened, _) = durable::open_to_read(file).ok()?;
    let line = BufReader::new(opened.take(MAX_READ)).lines().nth(line.checked_sub(1)?)?.ok()?;
    HostKey::parse(&line)
}

/// A file name in the form of ssh_config(5): in double quotes, and with `%` doubled, because ssh expands `%`.
pub(super) fn file_option(keyword: &str, path: &Path) -> String {
    format!("{keyword}=\"{}\"", path.display().to_string().replace('%', "%%"))
}

/// The error that the last message of ssh or receive-pack means.
pub(super) fn error_of(program: String, status: String, message: &str, pins: Option<&Path>) -> Error {
    match replies::failure(&program, message) {
        Failure::HostKey(problem) => host_key_error(problem, pins),
        Failure::Denied(line) => Error::Credentials(format!(": {line}")),
        Failure::Unresolved(host) => Error::Resolve { host: host.to_owned() },
        Failure::NotFound => Error::NotFound(one_line(message)),
        Failure::OtherOwner(path) => Error::Unable(other_owner(path)),
        Failure::LooseKey(path) => Error::LooseKey(path.to_owned()),
        Failure::Other => Error::Program { program, status, message: one_line(message) },
    }
}

/// What to do when the mirror's repository belongs to another user than the one who pushes.
fn other_owner(path: Option<&str>) -> String {
    // The command is pasted into a shell, and the mirror chose the path.
    let is_harmless = |path: &&str| path.chars().all(|c| c.is_alphanumeric() || "/._-+ ".contains(c));
    let path = path.filter(is_harmless).unwrap_or("PATH");
    format!(
        "its repository belongs to another user than the one who pushes; the user who pushes must run on the mirror's machine: git config --global --add safe.directory '{path}'"
    )
}

pub(super) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
