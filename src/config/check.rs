//! From the files as written to a valid configuration: every value is checked here, so that later code can rely on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::file::{DivergentSetting, File, Period, PruneSetting, Remote};
use super::server::{Placed, Root, Server, Template, expand, unknown_placeholder};
use super::settings::{EXCLUDE_EACH_OTHER, Settings};
use super::values::{
    check_branch_regex, check_command, check_proxy, check_push_option, check_refspec, check_ssh_option, check_url,
    is_name,
};
use super::{Config, Error, Notify, Trust, line_of};
use crate::plan::{Divergent, Pattern, Prune};
use crate::push::Allowed;

/// Where an error is.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn error(&self, offset: usize, what: String) -> Error {
        Error::Meaning { path: self.path.to_owned(), line: line_of(self.text, offset), what }
    }

    fn at<T>(&self, value: &Spanned<T>, what: String) -> Error {
        self.error(value.span().start, what)
    }
}

/// The configuration of a repository: its own file, and what the server's say for it.
pub(super) fn config(
    path: &Path,
    text: &str,
    mut file: File,
    server: &Server,
    placed: Option<&Placed>,
    trust: Trust,
) -> Result<Config, Error> {
    let place = Place { path, text };
    if trust == Trust::NoCommands {
        file.take_commands();
    }
    check_version(&place, file.version.as_ref())?;
    only_on_the_server(&place, &file)?;
    let mut mirrors = Vec::new();
    let mut ids: BTreeSet<u32> = file.remotes.values().filter_map(|remote| remote.id).collect();
    if ids.len() < file.remotes.values().filter(|remote| remote.id.is_some()).count() {
        return Err(place.error(0, "two remotes have the same id".into()));
    }
    let defaults = settings(&place, file.defaults.unwrap_or_default())?.over(&server.defaults);
    let template = |name: &str| {
        let found = server.templates.get(name).map(|template| template.settings.clone()).unwrap_or_default();
        let url = found.url.as_deref().zip(placed).map(|(url, placed)| expand(url, placed));
        Settings { url, ..found }
    };
    let mut own = BTreeSet::new();
    for (name, remote) in file.remotes {
        check_name(&place, &name)?;
        let settings = settings(&place, remote)?.over(&template(name.get_ref())).over(&defaults);
        // A mirror that was written by hand has no id: it gets the next one that is free.
        let id = match settings.id {
            Some(id) => id,
            None if server.templates.contains_key(name.get_ref()) => id_of_template(name.get_ref()),
            None => ids.range(..FIRST_OF_TEMPLATES).next_back().map_or(1, |last| last + 1),
        };
        ids.insert(id);
        mirrors.push(settings.into_mirror(name.get_ref(), id).map_err(|what| place.at(&name, what))?);
        own.insert(name.into_inner());
    }
    for (name, from) in server.templates.iter().filter(|(name, _)| placed.is_some() && !own.contains(*name)) {
        let settings = template(name);
        if settings.url.is_none() {
            continue;
        }
        let mirror = settings.over(&defaults).into_mirror(name, id_of_template(name));
        mirrors.push(mirror.map_err(|what| Error::Meaning { path: from.file.clone(), line: from.line, what })?);
    }
    mirrors.sort_by_key(|mirror| mirror.id);
    Ok(Config {
        protected_branches: file.protected_branches.or_else(|| server.protected_branches.clone()),
        is_silent: file.silent == Some(true) || server.silent == Some(true),
        wake: file.wake.or(server.wake).unwrap_or_default(),
        notify: notify(&place, file.notify, file.notify_after, file.notify_interval)?.over(&server.notify),
        metrics_file: file.metrics_file.map(|file| absolute(&place, &file)).transpose()?,
        mirrors,
    })
}

/// Mirrors of templates have ids apart from those that a repository's file counts up.
pub(super) const FIRST_OF_TEMPLATES: u32 = 1 << 30;

/// Stable whatever other templates come and go.
fn id_of_template(name: &str) -> u32 {
    FIRST_OF_TEMPLATES + (crc32fast::hash(name.as_bytes()) >> 2)
}

/// What one of the server's files adds to what the files before it said.
pub(super) fn server(path: &Path, text: &str, file: File, mut server: Server) -> Result<Server, Error> {
    let place = Place { path, text };
    check_version(&place, file.version.as_ref())?;
    server.protected_branches = file.protected_branches.or(server.protected_branches);
    server.silent = file.silent.or(server.silent);
    server.wake = file.wake.or(server.wake);
    server.notify = notify(&place, file.notify, file.notify_after, file.notify_interval)?.over(&server.notify);
    server.metrics_file = file.metrics_file.map(|file| absolute(&place, &file)).transpose()?.or(server.metrics_file);
    server.max_jobs = at_least_one(&place, file.max_jobs.as_ref())?.or(server.max_jobs);
    server.max_jobs_per_host = at_least_one(&place, file.max_jobs_per_host.as_ref())?.or(server.max_jobs_per_host);
    server.max_jobs_per_repository =
        at_least_one(&place, file.max_jobs_per_repository.as_ref())?.or(server.max_jobs_per_repository);
    server.scan_interval = interval(&place, file.scan_interval.as_ref())?.or(server.scan_interval);
    server.reconcile_interval = interval(&place, file.reconcile_interval.as_ref())?.or(server.reconcile_interval);
    server.shutdown_timeout = file.shutdown_timeout.map(|period| period.get_ref().0).or(server.shutdown_timeout);
    if let Some(api) = file.api {
        let api = api.into_inner();
        server.api.allow_local_network = api.allow_local_network.unwrap_or(server.api.allow_local_network);
        let hosts = api.allowed_hosts.map(|hosts| hosts.iter().map(|host| allowed(&place, host)).collect());
        server.api.allowed_hosts = hosts.transpose()?.unwrap_or(server.api.allowed_hosts);
    }
    for written in file.repositories {
        let root = absolute(&place, &written.root)?;
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::new(text.as_bytes())).collect::<Vec<_>>();
        server.roots.push(Root {
            path: root,
            include: patterns(written.include.unwrap_or_default()),
            exclude: patterns(written.exclude),
            owners: written.owners,
        });
    }
    if let Some(defaults) = file.defaults {
        server.defaults = settings(&place, defaults)?.over(&server.defaults);
    }
    for (name, remote) in file.remotes {
        check_name(&place, &name)?;
        if remote.id.is_some() {
            return Err(place.at(&name, "an id belongs into a repository's file".into()));
        }
        let line = line_of(text, name.span().start);
        let template = server.templates.entry(name.into_inner()).or_default();
        let settings = settings(&place, remote)?.over(&template.settings);
        if let Some(unknown) = settings.url.as_deref().and_then(unknown_placeholder) {
            let what = format!("the url has the placeholder '{{{unknown}}}'; only {{path}} and {{name}} exist");
            return Err(Error::Meaning { path: path.to_owned(), line, what });
        }
        *template = Template { settings, file: path.to_owned(), line };
    }
    server.files.push(path.to_owned());
    Ok(server)
}

/// A file of a later form is not guessed at.
fn check_version(place: &Place<'_>, version: Option<&Spanned<u32>>) -> Result<(), Error> {
    const KNOWN: u32 = 1;
    match version {
        Some(later) if *later.get_ref() > KNOWN => {
            let what =
                format!("the file is of version {}, this program knows {KNOWN}; install a later one", later.get_ref());
            Err(place.at(later, what))
        }
        _ => Ok(()),
    }
}

/// Keys that mean nothing in the file of one repository.
fn only_on_the_server(place: &Place<'_>, file: &File) -> Result<(), Error> {
    let wrong = |key: &str| format!("'{key}' belongs into the server's file, /etc/git-mirror-push/config.toml");
    if let Some(first) = file.repositories.first() {
        return Err(place.at(&first.root, wrong("repositories")));
    }
    let start = |span: std::ops::Range<usize>| span.start;
    let found = [
        ("max_jobs", file.max_jobs.as_ref().map(|value| start(value.span()))),
        ("max_jobs_per_host", file.max_jobs_per_host.as_ref().map(|value| start(value.span()))),
        ("max_jobs_per_repository", file.max_jobs_per_repository.as_ref().map(|value| start(value.span()))),
        ("scan_interval", file.scan_interval.as_ref().map(|value| start(value.span()))),
        ("reconcile_interval", file.reconcile_interval.as_ref().map(|value| start(value.span()))),
        ("shutdown_timeout", file.shutdown_timeout.as_ref().map(|value| start(value.span()))),
        ("api", file.api.as_ref().map(|value| start(value.span()))),
    ];
    match found.iter().find_map(|(key, at)| Some((key, (*at)?))) {
        Some((key, at)) => Err(place.error(at, wrong(key))),
        None => Ok(()),
    }
}

/// An interval of the daemon's: one without length would never let it rest.
fn interval(place: &Place<'_>, written: Option<&Spanned<Period>>) -> Result<Option<Duration>, Error> {
    match written {
        Some(period) if period.get_ref().0 < Duration::from_secs(1) => {
            Err(place.at(period, "at least \"1s\" is needed".into()))
        }
        written => Ok(written.map(|period| period.get_ref().0)),
    }
}

fn allowed(place: &Place<'_>, host: &Spanned<String>) -> Result<Allowed, Error> {
    let wrong = || format!("'{}' is not a host name, address or network (10.0.0.0/8)", host.get_ref().escape_debug());
    Allowed::parse(host.get_ref()).ok_or_else(|| place.at(host, wrong()))
}

fn notify(
    place: &Place<'_>,
    command: Option<Spanned<Vec<String>>>,
    after: Option<Period>,
    interval: Option<Period>,
) -> Result<Notify, Error> {
    if let Some(command) = &command {
        check_command(command.get_ref(), "notify").map_err(|what| place.at(command, what))?;
    }
    Ok(Notify {
        command: command.map(Spanned::into_inner),
        after: after.map(|period| period.0),
        interval: interval.map(|period| period.0),
    })
}

fn absolute(place: &Place<'_>, path: &Spanned<String>) -> Result<PathBuf, Error> {
    match Path::new(path.get_ref()) {
        found if found.is_absolute() => Ok(found.to_owned()),
        found => Err(place.at(path, format!("'{}' is not an absolute path", found.display()))),
    }
}

fn at_least_one(place: &Place<'_>, number: Option<&Spanned<usize>>) -> Result<Option<usize>, Error> {
    match number {
        Some(number) if *number.get_ref() == 0 => Err(place.at(number, "at least 1 is needed".into())),
        number => Ok(number.map(|number| *number.get_ref())),
    }
}

fn check_name(place: &Place<'_>, name: &Spanned<String>) -> Result<(), Error> {
    if is_name(name.get_ref()) {
        return Ok(());
    }
    let what = format!(
        "'{}' is not a name for a mirror; use letters, digits, '.', '_' and '-', and begin with a letter or digit",
        name.get_ref().escape_debug()
    );
    Err(place.at(name, what))
}

/// Checks single values of a mirror.
fn check_each(place: &Place<'_>, remote: &Remote) -> Result<(), Error> {
    if let Some(url) = &remote.url {
        check_url(url.get_ref()).map_err(|what| place.at(url, what))?;
    }
    if let Some(regex) = &remote.mirror_branch_regex {
        if remote.only_protected_branches == Some(true) && !regex.get_ref().is_empty() {
            return Err(place.at(regex, EXCLUDE_EACH_OTHER.into()));
        }
        check_branch_regex(regex.get_ref()).map_err(|what| place.at(regex, what))?;
    }
    if let Some(command) = &remote.password_command {
        check_command(command.get_ref(), "password_command").map_err(|what| place.at(command, what))?;
    }
    if let Some(proxy) = &remote.proxy {
        check_proxy(proxy.get_ref()).map_err(|what| place.at(proxy, what))?;
    }
    Ok(())
}

/// Checks the keys one by one.
fn settings(place: &Place<'_>, remote: Remote) -> Result<Settings, Error> {
    check_each(place, &remote)?;
    let each = |values: Option<Vec<Spanned<String>>>, check: fn(&str) -> Result<(), String>| {
        let Some(values) = values else { return Ok(None) };
        let plain = values.into_iter().map(|value| match check(value.get_ref()) {
            Ok(()) => Ok(value.into_inner()),
            Err(what) => Err(place.at(&value, what)),
        });
        plain.collect::<Result<Vec<_>, _>>().map(Some)
    };
    let period = |written: Option<Period>| written.map(|period| period.0);
    Ok(Settings {
        id: remote.id,
        url: remote.url.map(Spanned::into_inner),
        enabled: remote.enabled,
        confined: remote.confined,
        only_protected_branches: remote.only_protected_branches,
        mirror_branch_regex: remote.mirror_branch_regex.map(Spanned::into_inner),
        divergent_refs: remote.divergent_refs.map(|setting| match setting {
            DivergentSetting::Overwrite => Divergent::Overwrite,
            DivergentSetting::Keep => Divergent::Keep,
            DivergentSetting::Fail => Divergent::Fail,
        }),
        tags: remote.tags,
        prune: remote.prune.map(|setting| match setting {
            PruneSetting::Merged => Prune::Merged,
            PruneSetting::Deleted => Prune::Deleted,
            PruneSetting::Mirror => Prune::Mirror,
            PruneSetting::Never => Prune::Never,
        }),
        auth_method: remote.auth_method,
        username: remote.username,
        password_file: remote.password_file.map(|file| absolute(place, &file)).transpose()?,
        password_command: remote.password_command.map(Spanned::into_inner),
        refspecs: each(remote.refspecs, check_refspec)?,
        ssh_options: each(remote.ssh_options, check_ssh_option)?,
        proxy: remote.proxy.map(Spanned::into_inner),
        ca_file: remote.ca_file.map(PathBuf::from),
        allow_insecure_http: remote.allow_insecure_http,
        connect_timeout: period(remote.connect_timeout),
        stall_timeout: period(remote.stall_timeout),
        timeout: period(remote.timeout),
        retry_delay: period(remote.retry_delay),
        max_retry_delay: period(remote.max_retry_delay),
        min_interval: period(remote.min_interval),
        settle: period(remote.settle),
        max_refs_per_push: remote.max_refs_per_push,
        max_deletes: remote.max_deletes,
        push_options: each(remote.push_options, check_push_option)?,
        atomic: remote.atomic,
        optimistic: remote.optimistic,
        set_head: remote.set_head,
    })
}
