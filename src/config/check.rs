//! From what is written to what is meant: every value is checked here, so that nothing later can find it wanting.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::file::{DivergentSetting, File, Period, PruneSetting, Remote};
use super::{
    AuthMethod, Config, DEFAULT_MAX_REFS, DEFAULT_TIMEOUTS, DEFAULT_WAITS, Error, Mirror, Server, TagsSetting, Waits,
    line_of,
};
use crate::plan::{Divergent, Prune};
use crate::push::{Address, Timeouts};

/// Longest `mirror_branch_regex`, in characters (GitLab's limit).
const LONGEST_REGEX: usize = 255;

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

pub(super) fn config(path: &Path, text: &str, file: File, server: &Server) -> Result<Config, Error> {
    let place = Place { path, text };
    let mut mirrors = Vec::new();
    let mut ids: BTreeSet<u32> = file.remotes.values().filter_map(|remote| remote.id).collect();
    if ids.len() < file.remotes.values().filter(|remote| remote.id.is_some()).count() {
        return Err(place.error(0, "two remotes have the same id".into()));
    }
    for (name, remote) in file.remotes {
        if !is_name(name.get_ref()) {
            let what = format!(
                "'{}' is no name for a mirror; use letters, digits, '.', '_' and '-', and begin with a letter or digit",
                name.get_ref().escape_debug()
            );
            return Err(place.at(&name, what));
        }
        // A mirror that was written by hand has no id: it gets the next one that is free.
        let id = remote.id.unwrap_or_else(|| ids.last().map_or(1, |last| last + 1));
        ids.insert(id);
        mirrors.push(mirror(&place, &name, id, remote)?);
    }
    mirrors.sort_by_key(|mirror| mirror.id);
    Ok(Config {
        protected_branches: file.protected_branches.or_else(|| server.protected_branches.clone()),
        is_silent: file.silent == Some(true) || server.silent == Some(true),
        wake: file.wake.or(server.wake).unwrap_or_default(),
        mirrors,
    })
}

/// Whether `name` can name a mirror: it is also a directory.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn mirror(place: &Place<'_>, name: &Spanned<String>, id: u32, remote: Remote) -> Result<Mirror, Error> {
    let url = remote.url.ok_or_else(|| place.at(name, format!("remote '{}' has no url", name.get_ref())))?;
    let (address, in_url) = crate::push::parse(url.get_ref()).map_err(|refused| place.at(&url, refused.to_string()))?;
    if in_url.secret.is_some() {
        let what = "the URL holds a password, which does not belong in this file; remove it and use \
                    'git mirror-push set NAME --url URL', which stores it apart";
        return Err(place.at(&url, what.into()));
    }
    if matches!(&address, Address::Local(path) if !path.is_absolute()) {
        return Err(place.at(&url, "a path must be absolute here".into()));
    }
    let only_protected_branches = remote.only_protected_branches.unwrap_or(false);
    let regex = remote.mirror_branch_regex.filter(|regex| !regex.get_ref().is_empty());
    if let Some(regex) = &regex {
        if only_protected_branches {
            let what = "mirror_branch_regex and only_protected_branches = true exclude each other; choose one";
            return Err(place.at(regex, what.into()));
        }
        check_regex(regex.get_ref()).map_err(|what| place.at(regex, what))?;
    }
    for refspec in &remote.refspecs {
        check_refspec(refspec.get_ref()).map_err(|what| place.at(refspec, what))?;
    }
    for option in &remote.ssh_options {
        check_ssh_option(option.get_ref()).map_err(|what| place.at(option, what))?;
    }
    for option in &remote.push_options {
        if option.get_ref().len() > 1024 || option.get_ref().contains(['\n', '\0']) {
            return Err(place.at(option, "a push option is one line of at most 1024 bytes".into()));
        }
    }
    let username = remote.username.or(in_url.username);
    let auth_method = remote.auth_method.unwrap_or(match &address {
        Address::Http { .. } if username.is_some() => AuthMethod::Password,
        _ => AuthMethod::None,
    });
    let plain = |values: Vec<Spanned<String>>| values.into_iter().map(Spanned::into_inner).collect();
    let period = |written: Option<Period>, default| written.map_or(default, |period| period.0);
    Ok(Mirror {
        id,
        name: name.get_ref().clone(),
        address,
        username,
        is_enabled: remote.enabled.unwrap_or(true),
        only_protected_branches,
        mirror_branch_regex: regex.map(Spanned::into_inner),
        divergent: match remote.divergent_refs.unwrap_or(DivergentSetting::Overwrite) {
            DivergentSetting::Overwrite => Divergent::Overwrite,
            DivergentSetting::Keep => Divergent::Keep,
            DivergentSetting::Fail => Divergent::Fail,
        },
        tags: remote.tags.unwrap_or(TagsSetting::All),
        prune: match remote.prune.unwrap_or(PruneSetting::Merged) {
            PruneSetting::Merged => Prune::Merged,
            PruneSetting::Deleted => Prune::Deleted,
            PruneSetting::Mirror => Prune::Mirror,
            PruneSetting::Never => Prune::Never,
        },
        auth_method,
        refspecs: plain(remote.refspecs),
        ssh_options: plain(remote.ssh_options),
        proxy: remote.proxy,
        ca_file: remote.ca_file.map(PathBuf::from),
        allow_insecure_http: remote.allow_insecure_http.unwrap_or(false),
        timeouts: Timeouts {
            connect: period(remote.connect_timeout, DEFAULT_TIMEOUTS.connect),
            stall: period(remote.stall_timeout, DEFAULT_TIMEOUTS.stall),
            whole: period(remote.timeout, DEFAULT_TIMEOUTS.whole),
        },
        waits: Waits {
            retry: period(remote.retry_delay, DEFAULT_WAITS.retry),
            max_retry: period(remote.max_retry_delay, DEFAULT_WAITS.max_retry),
            min_interval: period(remote.min_interval, DEFAULT_WAITS.min_interval),
            settle: period(remote.settle, DEFAULT_WAITS.settle),
        },
        max_refs_per_push: remote.max_refs_per_push.unwrap_or(DEFAULT_MAX_REFS).max(1),
        max_deletes: remote.max_deletes,
        push_options: plain(remote.push_options),
        is_atomic: remote.atomic.unwrap_or(false),
    })
}

fn check_regex(regex: &str) -> Result<(), String> {
    if regex.chars().count() > LONGEST_REGEX {
        return Err(format!("mirror_branch_regex is longer than {LONGEST_REGEX} characters"));
    }
    regex::bytes::Regex::new(regex).map(|_| ()).map_err(|error| {
        let why = error.to_string();
        format!(
            "mirror_branch_regex is no valid regex (RE2 syntax): {}",
            why.lines().next_back().unwrap_or_default().trim()
        )
    })
}

fn check_refspec(pattern: &str) -> Result<(), String> {
    let stem = pattern.replace('*', "x");
    match crate::refs::RefName::new(stem.as_bytes()) {
        None => Err(format!("'{pattern}' is no namespace; write it like \"refs/notes/*\"")),
        Some(name) if name.branch().is_some() || name.tag().is_some() => {
            Err(format!("'{pattern}' is among the branches or tags, which have keys of their own"))
        }
        Some(_) => Ok(()),
    }
}

/// Options that would run a program, or undo what keeps the connection safe, are refused.
fn check_ssh_option(option: &str) -> Result<(), String> {
    const REFUSED: [&str; 11] = [
        "proxycommand",
        "localcommand",
        "permitlocalcommand",
        "knownhostscommand",
        "remotecommand",
        "pkcs11provider",
        "securitykeyprovider",
        "xauthlocation",
        "include",
        "stricthostkeychecking",
        "batchmode",
    ];
    let keyword = option.split(['=', ' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    if !option.contains('=') || !keyword.bytes().all(|byte| byte.is_ascii_alphanumeric()) || keyword.is_empty() {
        return Err(format!("'{}' is no ssh option; write it like \"Compression=yes\"", option.escape_debug()));
    }
    if REFUSED.contains(&&*keyword) || option.contains('\n') {
        return Err(format!(
            "the ssh option '{keyword}' is not allowed here; put it into the user's ssh configuration"
        ));
    }
    Ok(())
}
