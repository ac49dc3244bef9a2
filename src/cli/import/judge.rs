//! What becomes of a mirror that was found: it is added, it is here already, or a person has to decide.

use std::collections::{HashMap, HashSet};

use super::{Addition, Judged, Logins, Verdict, below};
use crate::cli::Session;
use crate::cli::args::Import;
use crate::cli::mirrors::{checked_url, refuse_token};
use crate::config::{self, Change, Config, Edit, check_edit};
use crate::credentials::Credentials;
use crate::import::{Found, Proposed};
use crate::mirror::{Keys, token_as_password};
use crate::wire::Address;

/// Judges what was found for one repository.
pub(super) fn judged_all(session: &Session<'_>, asked: &Import, logins: &Logins, found: Vec<Found>) -> Vec<Judged> {
    let repository = below(session.base, asked, session.repository.git_dir());
    let config = config::authorise(&session.repository, &session.base.server).map_err(Into::into);
    let config = config.and_then(|()| session.config());
    let (mut names, mut urls) = (HashSet::new(), HashMap::new());
    let mut judge = |one| match one {
        Found::Person { from, why } => (from, Verdict::Person(why)),
        Found::Mirror(mirror) => {
            let from = mirror.from.clone();
            let judging = Judging { session, asked, logins, names: &mut names, urls: &mut urls };
            let verdict = match &config {
                Ok(config) => judging.verdict(config, mirror),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            (from, verdict.unwrap_or_else(|error| Verdict::Person(format!("{error:#}"))))
        }
    };
    let judged = found.into_iter().map(|one| {
        let (from, verdict) = judge(one);
        Judged { repository: repository.clone(), from, verdict }
    });
    judged.collect()
}

/// What a verdict needs. `names` and `urls` are those that this import already uses in the
/// repository.
struct Judging<'j> {
    session: &'j Session<'j>,
    asked: &'j Import,
    logins: &'j Logins,
    names: &'j mut HashSet<String>,
    urls: &'j mut HashMap<(String, String), Keys>,
}

impl Judging<'_> {
    fn verdict(self, config: &Config, mirror: Proposed) -> anyhow::Result<Verdict> {
        let (url, address, credentials) = checked_url(self.session, &mirror.url)?;
        let credentials = token_as_password(credentials, None);
        let direction = mirror.direction().to_owned();
        let identity = address.identity();
        let is_it =
            |other: &&config::Mirror| other.address.identity() == identity && other.direction.as_str() == direction;
        if let Some(present) = config.mirrors.iter().find(is_it) {
            return Ok(Verdict::Present(present.name.clone()));
        }
        match self.urls.insert((identity, direction.clone()), mirror.keys.clone()) {
            Some(keys) if keys == mirror.keys => return Ok(Verdict::Present(mirror.name)),
            Some(_) => {
                anyhow::bail!("the source has two mirrors with this URL and different keys; make one mirror of both")
            }
            None => {}
        }
        let name = free_name(&mirror.name, |name| config.mirror(name).is_some() || self.names.contains(name));
        self.names.insert(name.clone());
        let mut keys: Keys = vec![("url", Change::Text(url))];
        keys.extend(mirror.keys);
        let credentials = self.log_in(credentials, &mut keys, &address, mirror.hides_password)?;
        refuse_token(&keys, || Ok(credentials.secret.clone()))?;
        let secret = credentials.secret.filter(|secret| !secret.expose().is_empty());
        if secret.is_some() && !has(&keys, "auth_method") {
            keys.push(("auth_method", Change::Text("password".into())));
        }
        if self.asked.disabled {
            keys.retain(|(key, _)| *key != "enabled");
            keys.push(("enabled", Change::Flag(false)));
        }
        check_edit(&self.session.repository, &self.session.base.server, &Edit::Add(name.clone(), keys.clone()))?;
        let mut notes = mirror.notes;
        let has_password = secret.is_some() || has(&keys, "password_file");
        if let (true, false, Some(host)) = (mirror.hides_password, has_password, address.host()) {
            keys.retain(|(key, _)| *key != "enabled");
            keys.push(("enabled", Change::Flag(false)));
            notes.push(format!(
                "the source does not give out the user or password for {host}, so the mirror is disabled: import with --credential {host}=USER:FILE, or store one (git mirror-push set NAME --username USER, git mirror-push credential NAME) and enable it"
            ));
        }
        if secret.is_some() && address.is_plain_http() {
            notes.push(
                "its password would go over plain http, which is refused; use https, or set allow_insecure_http=true"
                    .into(),
            );
        }
        let url = address.shown(&Credentials::default());
        Ok(Verdict::Add(Addition { name, direction, url, keys, secret, notes, is_of_template: false, looked: None }))
    }

    /// Sets the user name and the password file of `--credential`, or what the user types, if the source has no password.
    fn log_in(
        &self,
        mut credentials: Credentials,
        keys: &mut Keys,
        address: &Address,
        is_hidden: bool,
    ) -> anyhow::Result<Credentials> {
        let login = address.host().and_then(|host| self.logins.given.get(&host.to_ascii_lowercase()));
        let is_bare = credentials.secret.is_none() && !has(keys, "password_file") && !has(keys, "password_command");
        if let (Some((user, file)), true, Address::Http { .. }) = (login, is_bare, address) {
            keys.retain(|(key, _)| *key != "username");
            keys.push(("username", Change::Text(user.clone())));
            keys.push(("password_file", Change::Text(file.clone())));
        } else if let (true, true, Address::Http { host, .. }) = (is_hidden, is_bare, address)
            && let Some((user, secret)) = self.logins.asker.login(host)?
        {
            keys.retain(|(key, _)| *key != "username");
            keys.push(("username", Change::Text(user)));
            credentials.secret = Some(secret);
        } else if let Some(user) = credentials.username.take().filter(|_| !has(keys, "username")) {
            keys.push(("username", Change::Text(user)));
        }
        Ok(credentials)
    }
}

fn has(keys: &Keys, wanted: &str) -> bool {
    keys.iter().any(|(key, _)| *key == wanted)
}

/// The name. If it is taken, the name with a number after it.
fn free_name(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !is_taken(name)).expect("numbers do not end")
}
