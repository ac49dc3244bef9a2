//! The operations on the mirrors of a project, for the API and the page. Where GitLab's remote mirrors API has a
//! rule or a message, this module has the same one.

use crate::config::{self, AuthMethod, Change, Config, Direction, HookSetting, Mirror, Server};
use crate::credentials::{Credentials, HostKey, Secret};
use crate::layout::Layout;
use crate::mirror::{self, Answer, Editor, Extras, Keys, Operation, clean_url, token_as_password};
use crate::owner::Owner;
use crate::repo::{self, Repository};
use crate::status::{View, view};
use crate::wire::{Address, Egress};

use super::App;
use super::as_owner;
use super::params::MirrorParams;
use super::projects::Project;

/// How many mirrors a project may have that were made through the API or the page, when the
/// server's file does not set it.
const MAX_MIRRORS: usize = 20;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A value that the mirror cannot have.
    #[error("{field} {why}")]
    Invalid {
        /// The attribute.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be done.
    #[error("{0}")]
    Refused(String),
    /// It cannot be done now, because a run or another change holds a lock.
    #[error("{0}")]
    Busy(String),
    /// There is no such project or mirror.
    #[error("{0} not found")]
    Missing(&'static str),
    /// Any other error. The answer does not show it, the log does.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<mirror::Error> for Error {
    fn from(error: mirror::Error) -> Self {
        Answer::from(error).into()
    }
}

/// The error of an answer that is one.
impl From<Answer> for Error {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Refused(text) => Self::Refused(text),
            Answer::Busy(text) => Self::Busy(text),
            Answer::Failed(text) => Self::Failed(anyhow::Error::msg(text)),
            Answer::Done(_) => Self::Failed(anyhow::Error::msg("it is done")),
        }
    }
}

/// An open project.
pub(super) struct OpenProject {
    pub(super) repository: Repository,
    pub(super) config: Config,
    pub(super) server: std::sync::Arc<Server>,
}

impl App {
    /// Opens a project's repository.
    pub(super) fn open(&self, project: &Project) -> Result<OpenProject, Error> {
        let server = self.workers.server();
        let repository = match repo::open_listed(&project.git_dir) {
            Err(repo::Error::NotARepository { .. }) => return Err(Error::Missing("Project")),
            opened => opened.map_err(anyhow::Error::from)?.to_local(),
        };
        let config = config::load(&repository, &server).map_err(anyhow::Error::from)?;
        Ok(OpenProject { repository, config, server })
    }

    /// All mirrors of a project.
    pub(super) fn mirrors(&self, project: &Project) -> Result<Vec<View>, Error> {
        let (layout, config) = match mirror::to_show(&project.git_dir, &self.workers.server()) {
            Err(mirror::Error::Repository(repo::Error::NotARepository { .. })) => {
                return Err(Error::Missing("Project"));
            }
            found => found.map_err(anyhow::Error::from)?,
        };
        config.mirrors.iter().map(|mirror| shown(&layout, mirror)).collect()
    }

    /// Installs the hook and makes a mirror. If the mirror is enabled and silent mode is off, also requests the first sync.
    pub(super) fn create(&self, project: &Project, wish: &MirrorParams) -> Result<View, Error> {
        let opened = self.open(project)?;
        let most = opened.server.api.max_mirrors_per_project.unwrap_or(MAX_MIRRORS);
        if opened.config.mirrors.iter().filter(|mirror| mirror.is_confined).count() >= most {
            let fix = "max_mirrors_per_project in [api] of the server's file";
            return Err(Error::Refused(format!("the project has {most} mirrors and may have no more ({fix})")));
        }
        let url = wish.url.as_deref().unwrap_or_default();
        let (url, address, credentials) = allowed_url(url, &opened.server.api.egress())?;
        let credentials = token_as_password(credentials, wish.password.as_ref());
        let name = match &wish.name {
            Some(name) => name.clone(),
            None => free_name(&opened.config, &address),
        };
        let secret = wish.password.clone().or(credentials.secret);
        let mut keys: Keys = vec![
            ("url", Change::Text(url)),
            ("confined", Change::Flag(true)),
            ("enabled", Change::Flag(wish.enabled.unwrap_or(false))),
            ("auth_method", Change::Text(wish.auth_method.unwrap_or(AuthMethod::Password).as_str().into())),
        ];
        let username = wish.username.clone().filter(|user| !user.is_empty()).or(credentials.username);
        keys.extend(username.map(|user| ("username", Change::Text(user))));
        keys.extend(wish.keys(None));
        let host_keys = wish.host_keys(&address)?;
        let extras = Extras { secret, host_keys, key_type: None, adopts: wish.adopt == Some(true) };
        opened.run(&Operation::Add(name.clone(), keys, extras))?;
        self.after_change(project, opened, &name)
    }

    /// Changes a mirror. If it is enabled and silent mode is off, also requests a sync.
    pub(super) fn update(&self, project: &Project, id: u32, wish: &MirrorParams) -> Result<View, Error> {
        let opened = self.open(project)?;
        let mirror = opened.mirror(id)?;
        let mut keys = Keys::new();
        let mut secret = wish.password.clone();
        let mut address = mirror.address.clone();
        if let Some(url) = &wish.url {
            let (url, new, credentials) = allowed_url(url, &opened.server.api.egress())?;
            // Root may not read the secret of another owner's mirror (see `owner`).
            let stored = mirror::credentials(&opened.repository.layout(), mirror).unwrap_or_default().secret;
            let credentials = token_as_password(credentials, secret.as_ref().or(stored.as_ref()));
            // Stored credentials must be sent only to the host that they were given for.
            let is_moved = new.url_parts().map(|place| (place.0, place.1))
                != mirror.address.url_parts().map(|place| (place.0, place.1))
                || new.endpoint() != mirror.address.endpoint();
            secret = secret.or(credentials.secret).or_else(|| is_moved.then(|| Secret::new(String::new())));
            let username = credentials.username.map(Change::Text).or(is_moved.then_some(Change::Unset));
            keys.extend(username.map(|username| ("username", username)));
            keys.extend([("url", Change::Text(url)), ("confined", Change::Flag(true))]);
            address = new;
        }
        if let Some(user) = wish.username.as_deref() {
            keys.retain(|(key, _)| *key != "username" || user.is_empty());
            let change = if user.is_empty() { Change::Unset } else { Change::Text(user.to_owned()) };
            keys.extend((!keys.iter().any(|(key, _)| *key == "username")).then_some(("username", change)));
        }
        keys.extend(wish.auth_method.map(|method| ("auth_method", Change::Text(method.as_str().into()))));
        keys.extend(wish.enabled.map(|enabled| ("enabled", Change::Flag(enabled))));
        keys.extend(wish.keys(Some(mirror)));
        let host_keys = wish.host_keys(&address)?;
        let name = mirror.name.clone();
        let extras = Extras { secret, host_keys, key_type: None, adopts: wish.adopt == Some(true) };
        opened.run(&Operation::Set(mirror.into(), keys, extras))?;
        self.after_change(project, opened, &name)
    }

    /// Requests a comparison of all refs of a mirror, and does not wait for it. A worker does it soon.
    pub(super) fn sync(&self, project: &Project, id: u32, wish: mirror::Wish) -> Result<(), Error> {
        const DISABLED: &str = "Cannot proceed with the push mirroring. Please verify your mirror configuration.";
        let opened = self.open(project)?;
        let mirror = opened.mirror(id)?;
        if !mirror.is_enabled || opened.config.is_silent {
            return Err(Error::Refused(DISABLED.into()));
        }
        opened.run(&Operation::Request(mirror.into(), wish))?;
        self.workers.sync(&project.git_dir, mirror);
        self.changed(&project.git_dir);
        Ok(())
    }

    /// The host keys that a mirror's server offers now.
    pub(super) fn offered_keys(&self, opened: &OpenProject, mirror: &Mirror) -> Result<Vec<HostKey>, Error> {
        let offered = opened.run(&Operation::Detect(mirror.name.clone()))?;
        match offered.is_empty() {
            true => Err(Error::Refused(format!(
                "'{}' offered no host key; does an ssh server listen there?",
                mirror.address.host().unwrap_or_default()
            ))),
            false => Ok(offered),
        }
    }

    /// Removes a mirror. While a run works on it, its files stay; they are removed after the run, at the next scan of the repository.
    pub(super) fn remove(&self, project: &Project, id: u32) -> Result<(), Error> {
        let opened = self.open(project)?;
        let name = opened.mirror(id)?.name.clone();
        opened.run(&Operation::Remove(name))?;
        self.changed(&project.git_dir);
        Ok(())
    }

    fn after_change(&self, project: &Project, opened: OpenProject, name: &str) -> Result<View, Error> {
        let config = config::load(&opened.repository, &opened.server).map_err(anyhow::Error::from)?;
        let opened = OpenProject { config, ..opened };
        let mirror = opened.config.mirror(name).ok_or(Error::Missing("Mirror"))?;
        if mirror.is_enabled && !opened.config.is_silent {
            self.workers.sync(&project.git_dir, mirror);
        }
        self.changed(&project.git_dir);
        opened.view(mirror)
    }
}

impl OpenProject {
    /// Does it, or lets a process of the repository's owner do it where root must not act itself. Before a mirror is added, the hook is
    /// installed.
    pub(super) fn run(&self, operation: &Operation) -> Result<Vec<HostKey>, Error> {
        let (repository, server) = (&self.repository, &*self.server);
        if let Some(owner) = Owner::of(repository.git_dir(), server) {
            return as_owner::run(&owner, self, operation);
        }
        config::authorise(repository, server).map_err(mirror::Error::from)?;
        if matches!(operation, Operation::Add(..)) && self.config.hook != HookSetting::None {
            crate::install::ensure(repository, &server.credential_env.program).map_err(anyhow::Error::from)?;
        }
        let while_busy = mirror::WhileBusy::Refuse;
        Ok(operation.run(&Editor { repository, server, now: super::now, while_busy })?)
    }

    /// The mirror of that number.
    pub(super) fn mirror(&self, id: u32) -> Result<&Mirror, Error> {
        self.config.mirrors.iter().find(|mirror| mirror.id == id).ok_or(Error::Missing("Mirror"))
    }

    /// The mirror of that number, if all its settings may be changed through the API and the page.
    /// A two-way mirror may only be enabled and disabled, and the page may pin its host keys.
    pub(super) fn changeable(&self, id: u32) -> Result<&Mirror, Error> {
        let mirror = self.mirror(id)?;
        match mirror.direction {
            Direction::Both => Err(Error::Refused("two-way mirror: use 'git mirror-push set'".into())),
            _ => Ok(mirror),
        }
    }

    /// The mirror of that number, if it gets our refs.
    pub(super) fn push_mirror(&self, id: u32) -> Result<&Mirror, Error> {
        let mirror = self.mirror(id)?;
        if mirror.sends() { Ok(mirror) } else { Err(Error::Missing("Mirror")) }
    }

    /// A mirror as it is shown.
    pub(super) fn view(&self, mirror: &Mirror) -> Result<View, Error> {
        shown(&self.repository.layout(), mirror)
    }
}

fn shown(layout: &Layout, mirror: &Mirror) -> Result<View, Error> {
    let credentials = mirror::credentials(layout, mirror).unwrap_or_default();
    Ok(view(layout, mirror, &credentials, super::now()).map_err(anyhow::Error::from)?)
}

/// Checks a URL. Returns it as it may be stored, its address, and the credentials that were in it.
fn allowed_url(text: &str, egress: &Egress) -> Result<(String, Address, Credentials), Error> {
    let invalid = |why: String| Error::Invalid { field: "url", why };
    let blocked = |why: &str| invalid(format!("is blocked: {why}"));
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid("can't be blank".into()));
    }
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let is_usual = scheme.as_deref().is_some_and(|scheme| ["http", "https", "ssh", "git"].contains(&scheme));
    let is_local = text.starts_with('/') || scheme.as_deref() == Some("file");
    if !(is_usual || is_local && egress.allows_all()) {
        return Err(blocked("Only allowed schemes are http, https, ssh, git"));
    }
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    if user.is_some_and(|user| !user.starts_with(|c: char| c.is_ascii_alphanumeric())) {
        return Err(blocked("Username needs to start with an alphanumeric character"));
    }
    let (url, address, credentials) = clean_url(text).map_err(|error| blocked(&error.to_string()))?;
    match egress.check(&address) {
        Err(crate::wire::Error::Blocked { why, .. }) => Err(blocked(why)),
        Err(other) => Err(blocked(&other.to_string())),
        Ok(()) => Ok((url, address, credentials)),
    }
}

/// A free name for a mirror: its host, and a number if another mirror has that name.
fn free_name(config: &Config, address: &Address) -> String {
    let host = address.host().unwrap_or("local");
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    let stem: String = host.chars().map(plain).take(50).collect();
    let stem = stem.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let stem = if stem.is_empty() { "mirror" } else { stem };
    let numbered = |n: u32| if n == 1 { stem.to_owned() } else { format!("{stem}-{n}") };
    (1..).map(numbered).find(|name| config.mirror(name).is_none()).expect("some number is free")
}
