//! Mirrors of Gerrit's replication plugin: `replication.config`, or a file for each remote, and `secure.config`. The syntax is that of git's
//! configuration. Pure.

use std::collections::BTreeMap;

use gix::config::File;

use super::git::{Wish, propose};
use super::{Found, Proposed};
use crate::config::Change;
use crate::mirror::Keys;
use crate::repo::GitRemote;

/// The files of a site.
#[derive(Clone, Debug, Default)]
pub struct GerritSite {
    /// `replication.config`
    pub main: String,
    /// The files of the directory `replication`: name without `.config`, and text. If there are any, the remotes of `main` do not count.
    pub parts: Vec<(String, String)>,
    /// `secure.config`
    pub secure: String,
}

/// The keys of `[remote]` that the note "not taken over" does not name: another function here reads
/// them, or they need no counterpart.
const READ: [&str; 24] = [
    "url",
    "push",
    "mirror",
    "projects",
    "excludeprojects",
    "excludedrefspattern",
    "authgroup",
    "timeout",
    "threads",
    "replicationdelay",
    "replicationretry",
    "pushbatchsize",
    "createmissingrepositories",
    "adminurl",
    "remotenamestyle",
    "replicateprojectdeletions",
    "replicatepermissions",
    "replicatehiddenprojects",
    "replicationmaxretries",
    "rescheduledelay",
    "lockerrormaxretries",
    "drainqueueattempts",
    "receivepack",
    "uploadpack",
];

/// One `[remote "NAME"]`, all keys in lower case.
struct Remote {
    name: String,
    values: BTreeMap<String, Vec<String>>,
}

impl Remote {
    fn all(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    fn last(&self, key: &str) -> Option<&str> {
        self.all(key).last().map(String::as_str)
    }

    fn is(&self, key: &str) -> bool {
        self.last(key).is_some_and(|word| matches!(&*word.to_ascii_lowercase(), "true" | "yes" | "on" | "1" | ""))
    }
}

/// Reads the files for the repositories `projects`, which are paths without `.git`.
///
/// # Errors
/// What is wrong. Never a part of a file, which may hold a password.
pub fn read_gerrit(
    site: &GerritSite,
    projects: &[String],
    wish: Wish<'_>,
) -> Result<Vec<(String, Vec<Found>)>, String> {
    let (main, secure) = (parsed("replication.config", &site.main)?, parsed("secure.config", &site.secure)?);
    let mut remotes = Vec::new();
    for (name, text) in &site.parts {
        let file = parsed(&format!("replication/{name}.config"), text)?;
        // A file has one remote, which has the name of the file. Gerrit ignores other files.
        let mut of_file = remotes_of(&file, Unnamed::Counts);
        match (of_file.pop(), of_file.is_empty()) {
            (Some(remote), true) => remotes.push(Remote { name: name.clone(), ..remote }),
            _ => {
                return Err(format!(
                    "'replication/{name}.config' has not exactly one [remote], so Gerrit ignores it; remove it or split it"
                ));
            }
        }
    }
    if site.parts.is_empty() {
        remotes = remotes_of(&main, Unnamed::Ignored);
    }
    let is_forced = flag(&main, "gerrit", "defaultForceUpdate");
    let secrets = remotes_of(&secure, Unnamed::Ignored);
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for remote in &remotes {
        let secret = secrets.iter().find(|secret| secret.name == remote.name);
        let reader = Reader { remote, secret, is_forced, wish };
        for project in projects {
            let one = reader.project(project);
            if !one.is_empty() {
                found.entry(project.clone()).or_default().extend(one);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Where the site keeps its repositories, as `gerrit.config` says: absolute, or below the site.
///
/// # Errors
/// What is wrong with the file.
pub fn gerrit_base_path(text: &str) -> Result<String, String> {
    let file = parsed("gerrit.config", text)?;
    Ok(file.string("gerrit.basePath").map_or_else(|| "git".into(), |path| path.to_string()))
}

fn parsed(name: &str, text: &str) -> Result<File, String> {
    let metadata = gix::config::file::Metadata::default();
    let options = gix::config::file::init::Options::default();
    let file = File::from_bytes_no_includes(text.as_bytes(), metadata, options);
    file.map_err(|_| format!("'{name}' is not a configuration that git could read"))
}

fn flag(file: &File, section: &str, key: &str) -> bool {
    file.boolean(format!("{section}.{key}").as_str()).is_ok_and(|value| value == Some(true))
}

/// What a `[remote]` section without a name means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unnamed {
    Counts,
    Ignored,
}

fn remotes_of(file: &File, unnamed: Unnamed) -> Vec<Remote> {
    let mut remotes: Vec<Remote> = Vec::new();
    for section in file.sections_by_name("remote").into_iter().flatten() {
        let name = match section.header().subsection_name() {
            Some(name) => name.to_string(),
            None if unnamed == Unnamed::Counts => String::new(),
            None => continue,
        };
        let at = remotes.iter().position(|remote| remote.name == name).unwrap_or_else(|| {
            remotes.push(Remote { name, values: BTreeMap::new() });
            remotes.len() - 1
        });
        let mut names: Vec<String> = section.value_names().collect();
        // The names of keys differ in case, and `values` ignores it.
        names.iter_mut().for_each(|name| name.make_ascii_lowercase());
        names.sort_unstable();
        names.dedup();
        for name in names {
            let mut texts: Vec<String> = section.values(&name).iter().map(ToString::to_string).collect();
            if texts.is_empty() {
                // A key without a value is true.
                texts.push(String::new());
            }
            remotes[at].values.entry(name).or_default().extend(texts);
        }
    }
    remotes
}

struct Reader<'r> {
    remote: &'r Remote,
    secret: Option<&'r Remote>,
    is_forced: bool,
    wish: Wish<'r>,
}

impl Reader<'_> {
    /// The mirrors of one project.
    fn project(&self, project: &str) -> Vec<Found> {
        let from = format!("remote \"{}\" of replication.config", self.remote.name);
        let person = |why: String| vec![Found::Person { from: from.clone(), why }];
        let is_chosen = match self.is_chosen(project) {
            Ok(is_chosen) => is_chosen,
            Err(why) => return person(why),
        };
        if !is_chosen {
            return Vec::new();
        }
        let name = match self.remote.last("remotenamestyle").unwrap_or("slash") {
            "dash" => project.replace('/', "-"),
            "underscore" => project.replace('/', "_"),
            "basenameOnly" => project.rsplit('/').next().unwrap_or(project).to_owned(),
            _ => project.to_owned(),
        };
        let urls: Vec<String> = self.remote.all("url").iter().map(|url| url.replace("${name}", &name)).collect();
        if self.remote.all("url").iter().any(|url| !url.contains("${name}")) && self.remote.all("projects") != [project]
        {
            return person("its URL has no ${name}, so that all projects would share one mirror".into());
        }
        let (keys, mut notes) = match self.keys(&name) {
            Ok(read) => read,
            Err(why) => return person(why),
        };
        notes.push(HOOKS.into());
        notes.push(TURN_OFF.into());
        let remote = GitRemote {
            name: self.remote.name.clone(),
            urls: urls.iter().map(|url| self.with_password(url)).collect(),
            push_urls: urls.iter().map(|url| self.with_password(url)).collect(),
            push: self.remote.all("push").to_vec(),
            is_mirror: self.remote.all("push").is_empty(),
            ..GitRemote::default()
        };
        let is_mirror = self.remote.is("mirror");
        let others = if self.wish.is_exact { OTHERS } else { &[] };
        let others: Vec<(String, usize)> = others.iter().map(|name| ((*name).to_owned(), 0)).collect();
        let found = propose(&remote, &others, Wish { direction: None, ..self.wish }).into_iter();
        let found = found.map(|found| match found {
            Found::Person { why, .. } => Found::Person { from: from.clone(), why },
            Found::Mirror(mirror) => {
                let mut own = mirror.keys;
                own.retain(|(key, _)| *key != "prune");
                if !is_mirror {
                    own.push(("prune", Change::Text("never".into())));
                } else if self.wish.is_exact {
                    own.push(("prune", Change::Text("mirror".into())));
                }
                if remote.push.is_empty() && !self.is_forced {
                    own.push(("divergent_refs", Change::Text("keep".into())));
                }
                add(&mut own, keys.clone());
                Found::Mirror(Proposed { keys: own, from: from.clone(), notes: notes.clone(), ..mirror })
            }
        });
        found.collect()
    }

    /// Whether the remote is for this project.
    fn is_chosen(&self, project: &str) -> Result<bool, String> {
        let matches = |patterns: &[String]| {
            patterns
                .iter()
                .try_fold(false, |is_chosen, pattern| Ok::<_, String>(is_chosen || is_match(pattern, project)?))
        };
        let (chosen, excluded) = (self.remote.all("projects"), self.remote.all("excludeprojects"));
        Ok((chosen.is_empty() || matches(chosen)?) && !matches(excluded)?)
    }

    /// The keys that do not depend on what is pushed, and the notes.
    fn keys(&self, name: &str) -> Result<(Keys, Vec<String>), String> {
        let remote = self.remote;
        let (mut keys, mut notes) = (Keys::new(), Vec::new());
        let number =
            |key: &str| remote.last(key).and_then(|text| text.parse::<u64>().ok()).filter(|number| *number > 0);
        if let Some(seconds) = number("timeout") {
            keys.push(("stall_timeout", Change::Text(format!("{seconds}s"))));
        }
        if let Some(minutes) = number("replicationretry") {
            keys.push(("retry_delay", Change::Text(format!("{minutes}m"))));
        }
        if let Some(count) = number("pushbatchsize") {
            keys.push(("max_refs_per_push", Change::Toml(count.to_string())));
        }
        if let Some(threads) = number("threads").filter(|threads| *threads > 1) {
            notes.push(format!("threads = {threads} is not taken over; set max_jobs_per_host in the server's file"));
        }
        let mut left_out = excluded_refs(remote.all("excludedrefspattern"))?;
        if remote.last("replicatepermissions").is_some() && !remote.is("replicatepermissions") && self.wish.is_exact {
            left_out.push("^refs/meta/config".into());
        }
        if !left_out.is_empty() {
            keys.push(("refspecs", Change::List(left_out)));
        }
        if !remote.all("authgroup").is_empty() {
            keys.push(("enabled", Change::Flag(false)));
            notes.push(
                "authGroup limited which projects were sent; these groups are not known here; the mirror is disabled"
                    .into(),
            );
        }
        match remote.last("adminurl") {
            _ if remote.last("createmissingrepositories").is_some() && !remote.is("createmissingrepositories") => {}
            Some(url) if url.starts_with("ssh://") => {
                keys.push(("create", Change::Text("ssh".into())));
                keys.push(("create_url", Change::Text(url.replace("${name}", name))));
            }
            Some(_) => notes.push("adminUrl is not taken over: choose create or create_command".into()),
            None => notes.push("Gerrit created missing repositories; here 'create' must be set for that".into()),
        }
        notes.extend(self.differences());
        Ok((keys, notes))
    }

    /// What Gerrit did and we do not.
    fn differences(&self) -> Vec<String> {
        let (remote, mut notes) = (self.remote, Vec::new());
        let has_all = remote.all("push").is_empty() || remote.all("push").iter().any(|spec| spec.contains("refs/*"));
        if has_all && !self.wish.is_exact {
            notes.push("Gerrit also sent refs/changes, refs/notes and refs/meta, which are not mirrored any more; to keep them: --exact".into());
        }
        if remote.is("mirror") && !self.wish.is_exact {
            notes.push("Gerrit deleted every ref of the mirror that is not here; prune = \"merged\" deletes only refs that were deleted here and are merged; to delete as Gerrit did: --exact".into());
        }
        for (key, what) in [
            ("replicateprojectdeletions", "deleted projects are not deleted at the mirror"),
            ("replicatepermissions", "refs/meta/config is mirrored with --exact only"),
        ] {
            if remote.is(key) {
                notes.push(format!("{what} ({key})"));
            }
        }
        let unknown: Vec<&str> = remote.values.keys().map(String::as_str).filter(|key| !READ.contains(key)).collect();
        if !unknown.is_empty() {
            notes.push(format!("not taken over: {}", unknown.join(", ")));
        }
        notes
    }

    /// The URL with the user name and the password of `secure.config`.
    fn with_password(&self, url: &str) -> String {
        let escaped =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let value = |key: &str| self.secret.and_then(|secret| secret.last(key)).or(self.remote.last(key));
        let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("http")) else {
            return url.to_owned();
        };
        let rest = rest.split_once('@').filter(|(user, _)| !user.contains('/')).map_or(rest, |(_, rest)| rest);
        match (value("username"), value("password")) {
            (Some(user), Some(password)) => format!("{scheme}://{}:{}@{rest}", escaped(user), escaped(password)),
            (Some(user), None) => format!("{scheme}://{}@{rest}", escaped(user)),
            _ => url.to_owned(),
        }
    }
}

const HOOKS: &str = "Gerrit runs no git hooks: its 'hooks' plugin must call git-mirror-push's gerrit-ref-updated, or each mirror waits for reconcile_interval";
const TURN_OFF: &str = "Gerrit pushes to it too: remove the remote from replication.config and reload the plugin";

/// What Gerrit sends besides branches and tags.
const OTHERS: &[&str] = &["refs/changes/", "refs/meta/", "refs/notes/"];

/// Adds keys. A key that `into` has already keeps its value, but a list is extended.
fn add(into: &mut Keys, added: Keys) {
    for (key, change) in added {
        let there = into.iter_mut().find(|(known, _)| *known == key);
        match (there, change) {
            (Some((_, Change::List(there))), Change::List(more)) => there.extend(more),
            (Some(_), _) => {}
            (None, change) => into.push((key, change)),
        }
    }
}

/// Whether a pattern of Gerrit matches this project. A pattern is a name, a prefix before `*`, or,
/// if it begins with `^`, a regular expression for the whole name.
fn is_match(pattern: &str, project: &str) -> Result<bool, String> {
    if !pattern.starts_with('^') {
        return Ok(match pattern.strip_suffix('*') {
            Some(prefix) => project.starts_with(prefix),
            None => project == pattern,
        });
    }
    // Gerrit's documentation excludes projects with this form, which needs look-ahead, and the
    // regex crate has none.
    if let Some(inner) = pattern.strip_prefix("^(?:(?!").and_then(|rest| rest.strip_suffix(").)*$")) {
        return is_match(&format!("^.*(?:{inner}).*"), project).map(|is_in| !is_in);
    }
    let whole = format!("^(?:{})$", pattern.trim_start_matches('^').trim_end_matches('$'));
    let compiled = regex::RegexBuilder::new(&whole).size_limit(1 << 20).build();
    let compiled = compiled.map_err(|_| format!("the pattern '{pattern}' has no counterpart here"))?;
    Ok(compiled.is_match(project))
}

/// The refs that are left out, as negative `refspecs`.
fn excluded_refs(patterns: &[String]) -> Result<Vec<String>, String> {
    let one = |pattern: &String| {
        let stem = pattern.strip_prefix('^').map_or(&**pattern, |regex| regex.trim_end_matches('$'));
        let stem = stem.strip_suffix(".*").map_or_else(|| stem.to_owned(), |prefix| format!("{prefix}*"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-');
        match stem.strip_suffix('*').unwrap_or(&stem) {
            prefix if prefix.starts_with("refs/") && prefix.chars().all(is_plain) => Ok(format!("^{stem}")),
            _ => Err(format!("excludedRefsPattern '{pattern}' has no counterpart here")),
        }
    };
    patterns.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
