//! What the APIs of GitHub, GitLab and Gitea have in common: where the API and the repository are, and what the usual answers mean.

use serde_json::Value;

use super::{Error, Made, Wanted};
use crate::config::CreateKind;
use crate::wire::{self, Address, Api, Reply, Scheme, bracketed, parse, path_segment};

/// The host where a repository is made, and the place of the repository there.
pub(super) struct Host {
    pub(super) api: Api,
    /// The host's name, for messages.
    pub(super) name: String,
    /// The organisation, group or user: everything before the last `/` of the path.
    pub(super) group: String,
    /// The name of the repository, without `.git`.
    pub(super) repository: String,
}

impl Host {
    /// The host of the mirror. `kind` is one with an API.
    pub(super) fn of(wanted: &Wanted<'_>, kind: CreateKind) -> Result<Self, Error> {
        let refused = |why: String| Error::Refused(why);
        let (base, name, path) = place(wanted, kind).ok_or_else(|| refused("its URL names no host".into()))?;
        let (group, repository) = path
            .rsplit_once('/')
            .filter(|(group, name)| !group.is_empty() && !name.is_empty())
            .filter(|(group, _)| kind == CreateKind::Gitlab || !group.contains('/'))
            .ok_or_else(|| refused(format!("'{path}' is not OWNER/NAME, the form that {} needs", kind.as_str())))?;
        let mirror = wanted.mirror;
        let is_plain = parse(&base).is_ok_and(|(address, _)| address.is_plain_http());
        if is_plain && !mirror.allow_insecure_http {
            let what = "a token would go over plain http; use https in create_url, or set allow_insecure_http = true for this mirror";
            return Err(refused(what.into()));
        }
        let name_of_mirror = &mirror.name;
        let token = wanted.token.ok_or_else(|| {
            refused(format!(
                "there is no token for the API of '{name}'; store it in a file of mode 0600: git mirror-push set {name_of_mirror} create_token_file=FILE"
            ))
        })?;
        let scheme = match kind {
            CreateKind::Gitlab => Scheme::PrivateToken,
            CreateKind::Gitea => Scheme::Token,
            _ => Scheme::Bearer,
        };
        let api = Api::new(&base, scheme, token, wanted.target, wanted.pool)?;
        Ok(Self { api, name, group: group.to_owned(), repository: repository.to_owned() })
    }

    /// Makes the repository below `/orgs/GROUP`. If there is no such organisation and the group is
    /// the user whose token it is, makes it below `/user`.
    pub(super) fn create_for_group_or_user(&self, body: &Value, rights: &Rights<'_>) -> Result<Made, Error> {
        let reply = self.api.post(&format!("/orgs/{}/repos", path_segment(&self.group)), body)?;
        if reply.status != 404 {
            return self.judge(&reply, rights);
        }
        let user = self.api.get("/user")?;
        if user.status != 200 {
            return self.judge(&user, rights);
        }
        let login = user.text("login").unwrap_or_default().to_owned();
        if login.eq_ignore_ascii_case(&self.group) {
            return self.judge(&self.api.post("/user/repos", body)?, rights);
        }
        Err(Error::Refused(format!(
            "'{}' has no organisation '{}' that the token of user '{}' can see; create it first, or give the user access",
            self.name,
            self.group,
            login.escape_debug()
        )))
    }

    /// What an answer to a request for a new repository means.
    pub(super) fn judge(&self, reply: &Reply, rights: &Rights<'_>) -> Result<Made, Error> {
        let Self { name, group, repository, .. } = self;
        let said = Some(reply.message()).filter(|said| !said.is_empty());
        let says = said.as_ref().map(|said| format!(" ({name} says: {said})")).unwrap_or_default();
        if let Some(wait) = reply.wait() {
            return Err(Error::Limited { host: name.clone(), wait });
        }
        let is_there = said.as_ref().is_some_and(|said| rights.exists.iter().any(|words| said.contains(words)));
        match reply.status {
            200..300 => Ok(Made::Now),
            409 => Ok(Made::Before),
            400 | 422 if is_there => Ok(Made::Before),
            401 => Err(Error::Refused(format!("'{name}' does not accept the token that creates repositories{says}"))),
            403 => {
                let accepted = reply.header("x-accepted-github-permissions");
                let accepted = accepted.map(|words| format!(" ({name} wants: {})", words.escape_debug()));
                Err(Error::Refused(format!(
                    "the token may not create repositories in '{group}' at '{name}': it needs {}{}",
                    rights.needed,
                    accepted.unwrap_or(says)
                )))
            }
            status @ (408 | 425 | 500..) => {
                let message = said.map(|said| format!(": {said}")).unwrap_or_default();
                Err(wire::Error::Status { status, message, retry_after: None }.into())
            }
            404 => Err(Error::Refused(format!(
                "no API answers there (HTTP 404){says}; if the API of '{name}' has another address, set create_url"
            ))),
            status => Err(Error::Refused(format!("'{name}' refused '{group}/{repository}' (HTTP {status}){says}"))),
        }
    }
}

/// What a host calls the rights that are needed, and what it says of a name that is taken.
pub(super) struct Rights<'r> {
    pub(super) needed: &'r str,
    pub(super) exists: &'r [&'r str],
}

/// The address of the API, the host's name, and the path of the repository there, without slashes at its ends and without `.git`.
fn place(wanted: &Wanted<'_>, kind: CreateKind) -> Option<(String, String, String)> {
    let address = &wanted.target.address;
    let (origin, name, path) = match address {
        Address::Http { .. } => {
            let (scheme, host, path) = address.url_parts()?;
            let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
            (format!("{scheme}://{host}"), address.host()?.to_owned(), path.into_owned())
        }
        Address::Ssh { host, path, .. } => (format!("https://{}", bracketed(host)), host.clone(), path.clone()),
        _ => return None,
    };
    let below = match kind {
        CreateKind::Github => "/api/v3",
        CreateKind::Gitlab => "/api/v4",
        _ => "/api/v1",
    };
    let base = match wanted.create.url.as_deref() {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None if kind == CreateKind::Github && matches!(&*name, "github.com" | "ssh.github.com" | "www.github.com") => {
            "https://api.github.com".into()
        }
        None => format!("{origin}{below}"),
    };
    // If the host's site is below a path, the URLs of the API and the repository begin with this
    // path.
    let root =
        base.strip_suffix(below).and_then(|root| root.split_once("://")).and_then(|(_, rest)| rest.split_once('/'));
    let path = path.trim_matches('/');
    let path = root.and_then(|(_, root)| path.strip_prefix(root)?.strip_prefix('/')).unwrap_or(path);
    Some((base, name, path.strip_suffix(".git").unwrap_or(path).to_owned()))
}
