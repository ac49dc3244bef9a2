//! What the server's files say for many repositories: roots, templates, defaults. Not pure: it lists repositories, resolves links in roots,
//! looks up users, and reads the secrets of templates.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Error;
use super::file::{Api, HostKeys, TopKeys};
use super::fleet::FleetKeys;
use super::keys::Table;
use super::settings::Settings;
use super::urls::Urls;
use super::walk::{self, is_repository};
use crate::credentials::{CredentialEnv, HandedOver, read_source, read_token, token_key};
use crate::plan::Pattern;

/// What the server's files say for every repository.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// The keys at the top.
    pub top: TopKeys,
    /// What mirrors that were created through the API may reach.
    pub api: Api,
    /// Where repositories are.
    pub roots: Vec<Root>,
    /// Where to look for credentials.
    pub credential_env: CredentialEnv,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// `[hosts]`, by name in lower case.
    pub hosts: BTreeMap<String, HostKeys>,
    /// `[fleet]`
    pub fleet: FleetKeys,
    pub(super) defaults: Settings,
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) urls: Urls,
}

/// `[remotes.NAME]` of the server's files.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub(super) settings: Settings,
    /// The file that names it last.
    pub(super) file: PathBuf,
    /// The line of its name there.
    pub(super) line: usize,
}

/// `[[repositories]]`
#[derive(Clone, Debug)]
pub struct Root {
    /// The directory. Symbolic links in its path are resolved once it exists (see [`Server::resolve_roots`]).
    pub path: PathBuf,
    /// The file that names it, and the line there.
    pub(super) written: (PathBuf, usize),
    pub(super) include: Vec<Pattern>,
    pub(super) exclude: Vec<Pattern>,
    /// Users, by name or number, whose repositories are served below this root as well as our own.
    pub(super) owners: Vec<String>,
}

/// A repository below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its path below the root, without `.git`.
    pub path: String,
    /// The last component of that.
    pub name: String,
}

impl Root {
    /// A root with every repository below a directory.
    pub(super) fn at(path: &Path) -> Self {
        let (path, written) = (path.to_owned(), ("config.toml".into(), 1));
        Self { path, written, include: Vec::new(), exclude: Vec::new(), owners: Vec::new() }
    }

    /// Whether it does not exist. A root that we may not look at counts as existing.
    fn is_missing(&self) -> bool {
        matches!(self.path.try_exists(), Ok(false))
    }

    /// The error of a root that does not exist.
    fn missing(&self) -> Error {
        let (path, line) = self.written.clone();
        Error::Meaning {
            path,
            line,
            what: format!("root '{}' does not exist; create it, or remove its entry", self.path.display()),
        }
    }

    /// Where in this root the repository is, if the globs choose it.
    fn place(&self, git_dir: &Path) -> Option<Placed> {
        // `components` removes `//` and `/./`, at which patterns and comparisons of texts fail.
        let below: PathBuf = git_dir.strip_prefix(&self.path).ok()?.components().collect();
        let parent = below.parent()?;
        let below = if below.ends_with(".git") && parent != Path::new("") { parent } else { &below };
        let whole = below.to_str().filter(|whole| !whole.is_empty())?;
        let path = whole.strip_suffix(".git").unwrap_or(whole);
        let is_in = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| pattern.matches(whole.as_bytes()) || pattern.matches(path.as_bytes()))
        };
        if !self.include.is_empty() && !is_in(&self.include) || is_in(&self.exclude) {
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Some(Placed { path: path.to_owned(), name })
    }

    /// The repositories below this root that the globs choose, in no order.
    fn repositories(&self, threads: usize) -> std::io::Result<Vec<PathBuf>> {
        walk::repositories(&self.path, threads, &|git_dir| self.place(git_dir).is_some())
    }
}

impl Server {
    /// Where the repository is below the roots. `None` when no root chooses it: then no template applies to it.
    #[must_use]
    pub fn place(&self, git_dir: &Path) -> Option<Placed> {
        self.roots.iter().find_map(|root| root.place(git_dir))
    }

    /// Whether [`Server::repositories`] would list this directory.
    #[must_use]
    pub fn lists(&self, git_dir: &Path) -> bool {
        let is_listed = |root: &Root| {
            let is_real = |path: &Path| path.symlink_metadata().is_ok_and(|file| file.is_dir());
            let mut above = git_dir.ancestors().skip(1).take_while(|path| *path != root.path);
            root.place(git_dir).is_some()
                && is_real(git_dir)
                && is_repository(git_dir)
                && above.all(|path| is_real(path) && !is_repository(path))
        };
        self.roots.iter().any(is_listed)
    }

    /// Whether a root that holds the repository names the repository's owner in `owners`, by number (`uid`) or by name (`name`).
    #[must_use]
    pub fn names_owner(&self, git_dir: &Path, uid: u32, name: Option<&str>) -> bool {
        let roots = self.roots.iter().filter(|root| git_dir.starts_with(&root.path));
        roots.flat_map(|root| &root.owners).any(|owner| Some(&**owner) == name || *owner == uid.to_string())
    }

    /// The secrets that the server's files name for the templates of one repository that a root holds: passwords (http or https only) by the
    /// name of the mirror, and tokens that create repositories, by [`token_key`]. All are read with our rights.
    #[must_use]
    pub fn secrets_for(&self, git_dir: &Path) -> HashMap<String, HandedOver> {
        let is_placed = self.place(git_dir).is_some();
        let merged =
            |(name, template): (&String, &Template)| (name.clone(), template.settings.clone().over(&self.defaults));
        let templates: Vec<(String, Settings)> = self.templates.iter().filter(|_| is_placed).map(merged).collect();
        let token = |(name, settings): &(String, Settings)| {
            let found = read_token(settings.create_token_file.as_deref()?, None);
            let found = found.map(|token| token.expose().to_owned()).map_err(|error| error.to_string());
            Some((token_key(name), found))
        };
        let secret = |(name, settings): &(String, Settings)| {
            let url = settings.url.as_deref()?;
            let is_web = url.starts_with("http://") || url.starts_with("https://");
            let systemd = self.credential_env.directory.as_ref().map(|directory| directory.join(name));
            let (file, command) = (settings.password_file.as_deref(), settings.password_command.as_deref());
            let found = is_web.then(|| read_source(file, command, systemd.as_deref()))??;
            Some((name.clone(), found))
        };
        templates.iter().filter_map(secret).chain(templates.iter().filter_map(token)).collect()
    }

    /// Every repository below the roots, sorted.
    ///
    /// # Errors
    /// [`Error::Io`], when a directory cannot be read, and those of [`Server::existing_roots`].
    pub fn repositories(&self) -> Result<Vec<PathBuf>, Error> {
        self.repositories_on(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The same, with that many threads. With one, the daemon leaves the other processors to its work.
    ///
    /// # Errors
    /// As [`Server::repositories`].
    pub fn repositories_on(&self, threads: usize) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        for root in self.existing_roots()? {
            let failed = |source| Error::Io { doing: "list the repositories below", path: root.path.clone(), source };
            found.extend(root.repositories(threads).map_err(failed)?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Warnings for an administrator, one sentence each: roots that do not exist, owners that are
    /// not users, and a list of repositories that is empty.
    #[must_use]
    pub fn remarks(&self, repositories: &[PathBuf]) -> Vec<String> {
        let mut remarks: Vec<String> = self.missing_roots().map(|root| root.missing().to_string()).collect();
        for root in &self.roots {
            let (file, line) = &root.written;
            let file = file.display();
            let said = |owner| format!("{file}:{line}: owners names '{owner}', and there is no such user");
            remarks.extend(root.owners.iter().filter(|owner| !is_user(owner)).map(said));
        }
        if repositories.is_empty() {
            let roots: Vec<String> = self.roots.iter().map(|root| format!("'{}'", root.path.display())).collect();
            remarks.push(format!(
                "no repository is served: there is none below {}, or include and exclude of [[repositories]] leave out all",
                roots.join(", ")
            ));
        }
        remarks
    }

    /// Resolves symbolic links in the paths of roots. Returns whether a path changed. The path of a root that does not exist, or that we
    /// may not reach, stays as it is written.
    ///
    /// # Errors
    /// [`Error::Io`], when the operating system refuses for any other reason.
    pub fn resolve_roots(&mut self) -> Result<bool, Error> {
        let mut is_changed = false;
        for root in &mut self.roots {
            match root.path.canonicalize() {
                Ok(path) => {
                    is_changed |= path != root.path;
                    root.path = path;
                }
                // The code that lists the repositories reports such a root.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                Err(source) => return Err(Error::Io { doing: "look at", path: root.path.clone(), source }),
            }
        }
        Ok(is_changed)
    }

    /// The roots that exist.
    ///
    /// # Errors
    /// [`Error::NoRoots`], when none is configured; [`Error::Meaning`], when none of those configured exists.
    pub fn existing_roots(&self) -> Result<Vec<&Root>, Error> {
        let there: Vec<&Root> = self.roots.iter().filter(|root| !root.is_missing()).collect();
        match (there.is_empty(), self.roots.first()) {
            (false, _) => Ok(there),
            (true, Some(root)) => Err(root.missing()),
            (true, None) => Err(Error::NoRoots { files: self.files.clone() }),
        }
    }

    /// The roots that do not exist. The other ones are served.
    pub fn missing_roots(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(|root| root.is_missing())
    }

    /// Whether there is a template with a URL. It makes a mirror for every repository below the roots.
    #[must_use]
    pub fn has_templates(&self) -> bool {
        self.template_names().next().is_some()
    }

    /// The names of the templates that make mirrors.
    pub fn template_names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().filter(|(_, template)| template.settings.url.is_some()).map(|(name, _)| &**name)
    }

    /// The identity of the mirror that a template gives to a repository, as [`super::Mirror::identity`] has it.
    #[must_use]
    pub fn template_identity(&self, name: &str, git_dir: &Path) -> Option<String> {
        let settings = &self.templates.get(name)?.settings;
        let address = crate::wire::parse(&expand(settings.url.as_deref()?, &self.place(git_dir)?)).ok()?.0;
        Some(settings.direction.unwrap_or_default().identity(&address))
    }
}

/// Every repository below a directory, sorted.
///
/// # Errors
/// [`Error::Io`]
pub fn repositories_below(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { doing: "list the repositories below", path: directory.to_owned(), source };
    let root = Root::at(&directory.canonicalize().map_err(failed)?);
    let mut found = root.repositories(1).map_err(failed)?;
    found.sort_unstable();
    Ok(found)
}

/// Whether a user has this name, or the name is a number.
fn is_user(name: &str) -> bool {
    name.parse::<u32>().is_ok() || uzers::get_user_by_name(name).is_some()
}

/// What may stand in braces in a template's URL.
const PLACEHOLDERS: [&str; 4] = ["path", "path_dash", "path_underscore", "name"];

/// The first placeholder of a template's URL that nothing fills in.
pub(super) fn unknown_placeholder(url: &str) -> Option<&str> {
    let mut names = url.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name);
    names.find(|name| !PLACEHOLDERS.contains(name))
}

/// Fills in the placeholders of a template's URL. In a URL with a scheme, special characters of the values are escaped. In a path or
/// `user@host:path` they are not.
pub(super) fn expand(url: &str, placed: &Placed) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const SPECIAL: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b'\\');
    let escaped = |text: &str| match url.contains("://") {
        true => utf8_percent_encode(text, SPECIAL).to_string(),
        false => text.to_owned(),
    };
    // One pass, so that a repository with `{name}` in its name is not expanded again.
    let mut out = String::with_capacity(url.len() + placed.path.len());
    let mut rest = url;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known =
            PLACEHOLDERS.into_iter().find(|name| rest[1..].strip_prefix(name).is_some_and(|end| end.starts_with('}')));
        let value = match known {
            Some("path") => escaped(&placed.path),
            Some("path_dash") => escaped(&placed.path.replace('/', "-")),
            Some("path_underscore") => escaped(&placed.path.replace('/', "_")),
            Some(_) => escaped(&placed.name),
            None => "{".to_owned(),
        };
        out.push_str(&value);
        rest = &rest[known.map_or(1, |name| name.len() + 2)..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(include: &[&str], exclude: &[&str]) -> Root {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text.as_bytes())).collect();
        Root { include: patterns(include), exclude: patterns(exclude), ..Root::at(Path::new("/srv/git")) }
    }

    #[test]
    fn places_are_below_the_root_and_chosen_by_globs() {
        let all = root(&[], &[]);
        let place = |root: &Root, path: &str| root.place(Path::new(path)).map(|placed| (placed.path, placed.name));
        let found = |path: &str, name: &str| Some((path.to_owned(), name.to_owned()));
        assert_eq!(place(&all, "/srv/git/acme/widget.git"), found("acme/widget", "widget"));
        assert_eq!(place(&all, "/srv/git/plain"), found("plain", "plain"));
        assert_eq!(place(&all, "/srv/git/tree/.git"), found("tree", "tree"));
        assert_eq!(place(&all, "/srv/gitolite/x.git"), None);
        assert_eq!(place(&all, "/srv/git"), None);
        let some = root(&["acme/*"], &["acme/tmp/*", "*/old.git"]);
        assert_eq!(place(&some, "/srv/git/acme/widget.git"), found("acme/widget", "widget"));
        for path in ["/srv/git/other/x.git", "/srv/git/acme/tmp/x.git", "/srv/git/acme/old.git"] {
            assert_eq!(place(&some, path), None, "{path}");
        }
    }

    #[test]
    fn placeholders_are_filled_in_once_and_escaped_in_urls() {
        let placed = Placed { path: "a b/{name}%#".into(), name: "{name}%#".into() };
        assert_eq!(expand("https://h/x/{path}.git", &placed), "https://h/x/a%20b/%7Bname%7D%25%23.git");
        assert_eq!(expand("git@h:{name}.git", &placed), "git@h:{name}%#.git");
        assert_eq!(expand("/srv/{path}{", &placed), "/srv/a b/{name}%#{");
    }
}
