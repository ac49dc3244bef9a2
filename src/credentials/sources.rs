//! Where the password or token of a mirror comes from, in this order: the file `secret` in its directory, `password_file`,
//! `password_command`, systemd's credentials, `.netrc`, git's credential helpers. Many mirrors can share each source but the first, so that
//! an administrator changes a password in one place. In a child process of root (see `owner`), a secret that root has handed over comes
//! second.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::{Credentials, Secret, read_named_secret, read_secret};
use crate::process;

/// How long a command or helper may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where to look for credentials.
#[derive(Clone, Debug, Default)]
pub struct CredentialEnv {
    /// The path of this program. ssh runs it to ask for a password.
    pub program: PathBuf,
    /// `$CREDENTIALS_DIRECTORY` (systemd.exec(5), LoadCredential=).
    pub directory: Option<PathBuf>,
    /// `~/.netrc`
    pub netrc: Option<PathBuf>,
}

/// The mirror whose credentials are wanted, and where to look for them.
#[derive(Clone, Copy, Debug)]
pub struct CredentialRequest<'a> {
    /// The mirror's directory.
    pub directory: &'a Path,
    /// The mirror's name.
    pub name: &'a str,
    /// Its user name, if one is configured.
    pub username: Option<&'a str>,
    /// `password_file`
    pub file: Option<&'a Path>,
    /// `password_command`
    pub command: Option<&'a [String]>,
    /// `(protocol, host with port, path)` as git's helpers know them. For `.netrc` only the host counts, without the port.
    pub place: Option<(&'a str, &'a str, &'a str)>,
    /// Whether `auth_method` is `password`. Only then are `.netrc` and helpers read.
    pub is_needed: bool,
    /// Whether git is configured with credential helpers.
    pub has_helper: bool,
    /// Whether all settings of the mirror come from the server's files. Only for such a mirror is a
    /// secret used that root handed over to a process of the repository's owner.
    pub is_servers: bool,
    /// Whether only the mirror's own secret may be used, because someone other than the administrator may have created the mirror.
    pub is_confined: bool,
}

/// Finds the credentials. It is no error if there are none: the mirror may need none, or ssh may have a key.
///
/// # Errors
/// When a source cannot be used: for example a file that other users can read, or a command that fails. If git's credential helpers fail,
/// that is no error.
pub fn find(wanted: &CredentialRequest<'_>, around: &CredentialEnv) -> io::Result<Credentials> {
    let with =
        |secret| Credentials { username: wanted.username.map(str::to_owned), secret: Some(secret), approval: None };
    if let Some(secret) = read_secret(&wanted.directory.join("secret"))? {
        return Ok(with(secret));
    }
    if wanted.is_confined {
        return Ok(Credentials { username: wanted.username.map(str::to_owned), ..Credentials::default() });
    }
    if let Some(handed) = HANDED.get().and_then(|handed| handed.get(wanted.name)).filter(|_| wanted.is_servers) {
        return handed.clone().map(with).map_err(io::Error::other);
    }
    if let Some(file) = wanted.file {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("password_file '{}': {error}", file.display()));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "it is missing or empty");
        return read_named_secret(file).and_then(|secret| secret.ok_or_else(missing)).map(with).map_err(named);
    }
    if let Some(command) = wanted.command {
        return command_output(command).map(with);
    }
    // The mode is not checked: systemd lets only the unit read these files, whatever their mode says.
    if let Some(path) = around.directory.as_ref().map(|directory| directory.join(wanted.name)) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let empty =
                    || io::Error::other(format!("systemd credential '{}': its first line is empty", path.display()));
                return first_line(&text).ok_or_else(empty).map(with);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Another password must not be sent in its place.
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("systemd credential '{}': {error}", path.display())));
            }
        }
    }
    let (Some(place), true) = (wanted.place, wanted.is_needed) else {
        return Ok(Credentials { username: wanted.username.map(str::to_owned), ..Credentials::default() });
    };
    if let Some(found) = around.netrc.as_deref().and_then(|path| from_netrc(path, place.1, wanted.username).transpose())
    {
        return found;
    }
    if wanted.has_helper
        && let Some(found) = from_helper(place, wanted.username)
    {
        return Ok(found);
    }
    Ok(Credentials { username: wanted.username.map(str::to_owned), ..Credentials::default() })
}

/// What root hands over for one mirror: a secret, or why there is none.
pub type HandedOver = Result<String, String>;

/// The secrets that root has handed over to this process, by the name of the mirror. Empty if root did not start this process for the
/// owner of a repository.
static HANDED: OnceLock<HashMap<String, Result<Secret, String>>> = OnceLock::new();

/// Keeps secrets that root hands over to this process, by the name of the mirror.
pub fn hand_over(secrets: HashMap<String, HandedOver>) {
    let secrets = secrets.into_iter().map(|(name, secret)| (name, secret.map(Secret::new))).collect();
    // It is called once, at the start of the process, so `set` cannot fail.
    let _ = HANDED.set(secrets);
}

/// The name under which root hands over the token of `create_token_file`. No mirror can have this name.
#[must_use]
pub fn token_key(mirror: &str) -> String {
    format!("create:{mirror}")
}

/// The token in a file. If root handed over a token for `mirror`, returns that one and reads no
/// file.
///
/// # Errors
/// When the file cannot be read, is empty, or other users can read it.
pub fn read_token(file: &Path, mirror: Option<&str>) -> io::Result<Secret> {
    let handed = mirror.and_then(|mirror| HANDED.get()?.get(&token_key(mirror)));
    if let Some(handed) = handed {
        return handed.clone().map_err(io::Error::other);
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("token file '{}': {error}", file.display()));
    let missing = || io::Error::new(io::ErrorKind::NotFound, "it is missing or empty");
    read_named_secret(file).and_then(|secret| secret.ok_or_else(missing)).map_err(named)
}

/// The secret from the first of these sources that is configured or exists, in the order of [`find`]. `None` if there is no such source.
#[must_use]
pub fn read_source(file: Option<&Path>, command: Option<&[String]>, systemd: Option<&Path>) -> Option<HandedOver> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "it is missing or empty");
    let found = match (file, command, systemd) {
        (Some(file), _, _) => read_named_secret(file)
            .and_then(|secret| secret.ok_or_else(missing))
            .map_err(|error| format!("password_file '{}': {error}", file.display())),
        (None, Some(command), _) => command_output(command).map_err(|error| error.to_string()),
        (None, None, Some(path)) if path.exists() => std::fs::read_to_string(path)
            .and_then(|text| first_line(&text).ok_or_else(|| io::Error::other("its first line is empty")))
            .map_err(|error| format!("systemd credential '{}': {error}", path.display())),
        _ => return None,
    };
    Some(found.map(|secret| secret.expose().to_owned()))
}

fn first_line(text: &str) -> Option<Secret> {
    text.lines().next().filter(|line| !line.is_empty()).map(|line| Secret::new(line.to_owned()))
}

fn command_output(command: &[String]) -> io::Result<Secret> {
    let failed = |what: String| io::Error::other(format!("password_command: {what}"));
    let out = process::run(&command[0], &mut process::configured(command), b"", LIMIT);
    let out = out.map_err(|error| failed(error.to_string()))?;
    first_line(&String::from_utf8_lossy(&out)).ok_or_else(|| failed("the first line of its output is empty".into()))
}

/// The entry of a host in `.netrc` (curl's format: machine, login, password, default).
fn from_netrc(path: &Path, host: &str, username: Option<&str>) -> io::Result<Option<Credentials>> {
    let Some(text) = read_named_secret(path)? else { return Ok(None) };
    // An IPv6 address has colons of its own, in brackets.
    let host = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host);
    let text = text.expose().lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut words = text.split_whitespace();
    let (mut is_ours, mut login, mut password) = (false, None, None);
    let is_found = |is_ours: bool, login: &Option<String>, password: &Option<String>| {
        is_ours && password.is_some() && (username.is_none() || login.as_deref() == username)
    };
    while let Some(word) = words.next() {
        if matches!(word, "machine" | "default") {
            if is_found(is_ours, &login, &password) {
                break;
            }
            is_ours = word == "default" || words.next() == Some(host);
            (login, password) = (None, None);
        } else if word == "login" {
            login = words.next().map(str::to_owned);
        } else if word == "password" {
            password = words.next().map(str::to_owned);
        }
    }
    if !is_found(is_ours, &login, &password) {
        return Ok(None);
    }
    Ok(Some(Credentials { username: login, secret: password.map(Secret::new), approval: None }))
}

/// The credentials that git's helpers have (git-credential(1)). git must not prompt anyone.
fn from_helper((protocol, host, path): (&str, &str, &str), username: Option<&str>) -> Option<Credentials> {
    let user = username.map(|user| format!("username={user}\n")).unwrap_or_default();
    let input = format!("protocol={protocol}\nhost={host}\npath={path}\n{user}\n");
    let mut command = credential("fill");
    command.env("GIT_ASKPASS", "/bin/false").env_remove("SSH_ASKPASS");
    let out = process::run("git credential", &mut command, input.as_bytes(), LIMIT).ok()?;
    let text = String::from_utf8(out).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    Some(Credentials {
        username: value("username"),
        secret: Some(Secret::new(value("password")?)),
        approval: Some(Secret::new(text)),
    })
}

/// `git credential`, outside of every repository: the helpers are those of the user and the system, never a repository's.
fn credential(verb: &str) -> std::process::Command {
    let mut command = process::command("git");
    command.args(["-C", "/", "credential", verb]).env_remove("GIT_DIR").env("GIT_CEILING_DIRECTORIES", "/");
    command
}

/// Tells git's helpers whether what they gave was right, so that they keep or forget it.
pub fn judge(credentials: &Credentials, is_right: bool) {
    let Some(approval) = &credentials.approval else { return };
    let verb = if is_right { "approve" } else { "reject" };
    let mut command = credential(verb);
    if let Err(error) = process::run("git credential", &mut command, approval.expose().as_bytes(), LIMIT) {
        tracing::warn!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_netrc_as_curl_does() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("netrc");
        let text = "# comment\nmachine a.example login x password p1\nmachine a.example\n  login y\n  password p2\ndefault login z password p3\n";
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let find = |host, user| {
            let found = from_netrc(&path, host, user).expect("readable")?;
            Some((found.username?, found.secret?.expose().to_owned()))
        };
        let pair = |user: &str, word: &str| Some((user.to_owned(), word.to_owned()));
        let of_v6 = "machine [::1] login v6 password p6\n".to_owned() + text;
        std::fs::write(&path, of_v6).expect("written");
        assert_eq!(find("[::1]", None), pair("v6", "p6"));
        assert_eq!(find("[::1]:8443", None), pair("v6", "p6"));
        assert_eq!(find("a.example", None), pair("x", "p1"));
        assert_eq!(find("a.example:8443", Some("y")), pair("y", "p2"));
        assert_eq!(find("b.example", None), pair("z", "p3"));
        assert_eq!(find("a.example", Some("nobody")), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(from_netrc(&path, "a.example", None).is_err());
    }
}
