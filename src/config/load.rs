//! Reads the environment variables that users or systemd set, and the configuration files. The
//! hook does not contain this module; it reads some of the variables itself. `origin` reads the
//! files a second time.

#![expect(clippy::disallowed_methods, reason = "reads the environment and the configuration files")]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Config, Error, Server, Trust, check, file, parse};
use crate::credentials::CredentialEnv;
use crate::durable;
use crate::layout::Layout;
use crate::repo::{Plain, Repository};

/// What the process reads from its environment.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `GIT_DIR`
    pub git_dir: Option<PathBuf>,
    /// `GIT_MIRROR_PUSH_CONFIG`
    pub server_config: Option<PathBuf>,
    /// `MIRROR_PUSH_LOG`, a level: error, warn, info, debug, trace.
    pub log: Option<String>,
    /// The working directory.
    pub current_dir: PathBuf,
    /// Whether `NO_COLOR` asks for no colour.
    pub is_colour_unwanted: bool,
    /// Where to look for credentials. Its `program` is also used to start drains.
    pub credential_env: CredentialEnv,
    /// `$STATE_DIRECTORY` or `/var/lib/git-mirror-push`: where the daemon keeps its own state.
    pub state_directory: PathBuf,
    /// `$RUNTIME_DIRECTORY` or `/run/git-mirror-push`: where the daemon's sockets are.
    pub runtime_directory: PathBuf,
    /// `GIT_MIRROR_PUSH_ASKPASS`: ssh started this program to ask for a password, which comes from this socket.
    pub askpass: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment.
    ///
    /// # Errors
    /// The operating system's, when the working directory or the path of this program cannot be found.
    pub fn read() -> io::Result<Self> {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // systemd separates several directories with colons (systemd.exec(5)). We use the first.
        let first = |value: Option<std::ffi::OsString>| {
            let value = value?.into_string().ok()?;
            value.split(':').next().filter(|path| path.starts_with('/')).map(PathBuf::from)
        };
        Ok(Self {
            git_dir: path("GIT_DIR"),
            server_config: path("GIT_MIRROR_PUSH_CONFIG"),
            log: std::env::var("MIRROR_PUSH_LOG").ok(),
            state_directory: first(std::env::var_os("STATE_DIRECTORY"))
                .unwrap_or_else(|| PathBuf::from("/var/lib/git-mirror-push")),
            runtime_directory: crate::layout::runtime_directory(std::env::var_os("RUNTIME_DIRECTORY").as_deref()),
            current_dir: std::env::current_dir()?,
            is_colour_unwanted: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            credential_env: CredentialEnv {
                program: std::env::current_exe()?,
                directory: path("CREDENTIALS_DIRECTORY"),
                netrc: path("HOME").map(|home| home.join(".netrc")),
            },
            askpass: path(crate::wire::ASKPASS_VARIABLE),
        })
    }
}

/// The path of the server's file if neither the command line nor the environment names one.
pub(super) const SERVER_FILE: &str = "/etc/git-mirror-push/config.toml";

/// The texts of the server's files, in order, in a process that read them as root before it became another user. Empty in every other
/// process.
static PRELOADED: OnceLock<Vec<(PathBuf, String)>> = OnceLock::new();

/// Reads the server's files now, because this process is about to give up the right to read them. [`load_server`] uses them later.
///
/// # Errors
/// The operating system's.
pub fn preload(files: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    let read = |path: PathBuf| std::fs::read_to_string(&path).map(|text| (path, text));
    // This is called once, at the start of the process.
    let _ = PRELOADED.set(files.map(read).collect::<io::Result<_>>()?);
    Ok(())
}

/// Reads the server's files: the named one, which must exist, or the default one, which may be missing. Then reads the files `*.toml` of
/// `conf.d` beside it in the order of their names. A later file overrides the earlier ones.
///
/// # Errors
/// [`Error`].
pub fn load_server(named: Option<&Path>, credential_env: &CredentialEnv) -> Result<Server, Error> {
    if let Some(files) = PRELOADED.get() {
        let merge =
            |server, (path, text): &(PathBuf, String)| check::server(path, text, file::parse(path, text)?, server);
        let mut server = files.iter().try_fold(Server::default(), merge)?;
        server.credential_env = credential_env.clone();
        server.resolve_roots()?;
        return Ok(server);
    }
    let path = named.unwrap_or(Path::new(SERVER_FILE));
    let read = |path: &Path| std::fs::read_to_string(path);
    let failed = |path: &Path, source| Error::Io { doing: "read", path: path.to_owned(), source };
    let mut server = match read(path) {
        Ok(text) => check::server(path, &text, file::parse(path, &text)?, Server::default())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Server::default(),
        Err(source) => return Err(failed(path, source)),
    };
    let directory = path.with_file_name("conf.d");
    let mut parts = match std::fs::read_dir(&directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .map_err(|source| failed(&directory, source))?;
    parts.retain(|part| part.extension().is_some_and(|extension| extension == "toml"));
    parts.sort_unstable();
    for part in parts {
        let text = read(&part).map_err(|source| failed(&part, source))?;
        server = check::server(&part, &text, file::parse(&part, &text)?, server)?;
    }
    server.credential_env = credential_env.clone();
    server.resolve_roots()?;
    Ok(server)
}

/// Reads the file of a repository. If the file is missing, the repository has no mirrors of its
/// own.
///
/// # Errors
/// [`Error`].
pub fn load(repository: &Repository, server: &Server) -> Result<Config, Error> {
    let (text, trust) = read_trusted(repository)?.unwrap_or((String::new(), Trust::Full));
    let placed = server.place(repository.git_dir());
    if placed.is_some() && server.has_templates() {
        server.check_url_of(repository.git_dir())?;
    }
    parse(&repository.layout().config(), &text, server, placed.as_ref(), trust)
}

/// Reads the file of a plain repository to show what is in it. `None` if somebody else may write
/// the file: then the repository must be opened to find out how far the file is trusted.
///
/// # Errors
/// [`Error`].
pub fn load_plain(plain: &Plain, server: &Server) -> Result<Option<Config>, Error> {
    let path = Layout::new(plain.git_dir()).config();
    let failed = |source| Error::Io { doing: "read", path: path.clone(), source };
    let text = match durable::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(failed(source)),
        Ok((text, file)) if durable::is_written_by_us_alone(&file) => text,
        Ok(_) => return Ok(None),
    };
    let text = String::from_utf8(text).map_err(|_| failed(io::Error::other("it is not valid UTF-8")))?;
    parse(&path, &text, server, server.place(plain.git_dir()).as_ref(), Trust::Full).map(Some)
}

/// The names of the mirrors in the repository's file, read from the table headers alone. This is enough to notice a new mirror.
///
/// # Errors
/// The operating system's.
pub fn names_in(layout: &Layout) -> io::Result<Vec<String>> {
    let text = match durable::read_text(&layout.config()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let headers = text.lines().filter_map(|line| line.trim().strip_prefix("[remotes.")?.split(']').next());
    Ok(headers.map(|name| name.trim_matches('"').to_owned()).collect())
}

/// Makes sure that a repository may be served: that we may run programs, contact mirrors and write files for it. Its directory must be
/// ours, or the server's file must name its owner. In the second case we must not be root, and its objects must not lie elsewhere. Commands
/// that only read do not need this.
///
/// # Errors
/// [`Error::ForeignRepository`], [`Error::OnlyAsOwner`], [`Error::ForeignObjects`] or [`Error::Io`].
pub fn authorise(repository: &Repository, server: &Server) -> Result<(), Error> {
    let git_dir = repository.git_dir();
    let failed = |path: &Path, source| Error::Io { doing: "look at", path: path.to_owned(), source };
    let ours = rustix::process::geteuid().as_raw();
    let uid = durable::stat_directory(git_dir).map_err(|source| failed(git_dir, source))?.st_uid;
    if uid != ours {
        let name = uzers::get_user_by_uid(uid).and_then(|user| user.name().to_str().map(str::to_owned));
        if !server.names_owner(git_dir, uid, name.as_deref()) {
            let holds = |root: &&super::Root| git_dir.starts_with(&root.path);
            let root = server.roots.iter().find(holds).map(|root| &*root.path).or(git_dir.parent());
            return Err(Error::ForeignRepository {
                path: git_dir.to_owned(),
                root: root.unwrap_or(git_dir).to_owned(),
                owner: name.unwrap_or_else(|| uid.to_string()),
            });
        }
        if ours == 0 {
            return Err(Error::OnlyAsOwner {
                path: git_dir.to_owned(),
                owner: name.unwrap_or_else(|| uid.to_string()),
            });
        }
        let outside = leads_outside(git_dir).map_err(|source| failed(git_dir, source))?;
        let foreign = |path| Error::ForeignObjects { path, owner: name.unwrap_or_else(|| uid.to_string()) };
        return outside.map_or(Ok(()), |path| Err(foreign(path)));
    }
    Ok(())
}

/// The first path that shows that the contents of a repository may be files of somebody else:
/// `objects/info/alternates`, `commondir`, or a symbolic link in place of HEAD, refs, packs or
/// object directories. Symbolic links to single loose objects, and those deeper in `refs`, are not
/// looked for. The owner may still make such a link after this check.
fn leads_outside(git_dir: &Path) -> io::Result<Option<PathBuf>> {
    let objects = git_dir.join("objects");
    for (path, is_link_only) in [
        (objects.clone(), true),
        (objects.join("pack"), true),
        (objects.join("info"), true),
        (objects.join("info/alternates"), false),
        (git_dir.join("commondir"), false),
        (git_dir.join("HEAD"), true),
        (git_dir.join("packed-refs"), true),
        (git_dir.join("refs"), true),
        (git_dir.join("reftable"), true),
    ] {
        match std::fs::symlink_metadata(&path) {
            Ok(file) if file.is_symlink() || !is_link_only => return Ok(Some(path)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for directory in [&objects, &objects.join("pack"), &git_dir.join("refs")] {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

/// Reads the file of a repository, and says how far it is trusted. `None` when it is missing.
///
/// # Errors
/// [`Error::Io`] or [`Error::OtherOwner`].
pub(super) fn read_trusted(repository: &Repository) -> Result<Option<(String, Trust)>, Error> {
    let path = repository.layout().config();
    let failed = |source| Error::Io { doing: "read", path: path.clone(), source };
    let (text, file) = match durable::read(&path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let is_of_owner = || std::fs::metadata(repository.git_dir()).is_ok_and(|owner| owner.uid() == file.uid());
    let is_shared = repository.is_shared();
    let is_trusted = if is_shared { durable::is_written_by_us_alone } else { durable::is_ours };
    let trust = if is_trusted(&file) {
        Trust::Full
    } else if is_of_owner() || is_shared {
        Trust::Foreign
    } else {
        return Err(Error::OtherOwner { path });
    };
    let text = String::from_utf8(text).map_err(|_| failed(io::Error::other("it is not valid UTF-8")))?;
    Ok(Some((text, trust)))
}
