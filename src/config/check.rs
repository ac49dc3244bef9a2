//! Makes a valid configuration from the files as written. `read` has checked each value. Here the tables are merged and the rest is
//! checked: names, ids, commands, required keys, and keys that exclude each other.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;

use super::file::File;
use super::keys::Table;
use super::server::{Placed, Root, Server, Template, expand, unknown_placeholder};
use super::settings::{Mistake, Settings};
use super::values::{check_command, is_name};
use super::{Config, Error, Mirror, Notify, Trust, line_of};
use crate::plan::Pattern;

/// Where an error is.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    /// The line of the first key or table `key` after line `after`.
    fn line_of_key(&self, after: usize, key: &str) -> Option<usize> {
        let begins = |line: &str| {
            let name = line.trim_start_matches(['[', ' ', '\t']).strip_prefix(key);
            name.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
        };
        self.text.lines().skip(after).position(begins).map(|before| after + before + 1)
    }

    /// An error at the line of a key in the table of mirror `name`, or at the table itself if the key comes from another table or file.
    fn at_key(&self, name: &Spanned<String>, wrong: Mistake) -> Error {
        let first = line_of(self.text, name.span().start);
        let next = self.text.lines().skip(first).position(|line| line.trim_start().starts_with('['));
        let last = next.map_or(usize::MAX, |lines| first + lines);
        let line = self.line_of_key(first, wrong.key).filter(|line| *line <= last).unwrap_or(first);
        self.on(line, wrong.what)
    }

    fn on(&self, line: usize, what: String) -> Error {
        Error::Meaning { path: self.path.to_owned(), line, what }
    }

    fn at<T>(&self, value: &Spanned<T>, what: String) -> Error {
        self.on(line_of(self.text, value.span().start), what)
    }
}

/// The configuration of a repository, from its own file and the server's files.
pub(super) fn config(
    path: &Path,
    text: &str,
    mut file: File,
    server: &Server,
    placed: Option<&Placed>,
    trust: Trust,
) -> Result<Config, Error> {
    let place = Place { path, text };
    only_on_the_server(&place, &file)?;
    let ignored = (trust == Trust::Foreign).then(|| file.confine());
    check_tables(&place, &file)?;
    let own = file.keys();
    let (is_silent, metrics_file) = (own.silent == Some(true), own.metrics_file.clone());
    let top = own.over(&server.top);
    let mut mirrors = mirrors(&place, file, server, placed)?;
    mirrors.iter_mut().for_each(|mirror| mirror.is_foreign = ignored.is_some() && !mirror.is_servers);
    Ok(Config {
        protected_branches: top.protected_branches,
        // Either file can switch silent mode on; the other cannot switch it off.
        is_silent: is_silent || server.top.silent == Some(true),
        wake: top.wake.unwrap_or_default(),
        hook: top.hook.unwrap_or_default(),
        notify: Notify { command: top.notify, after: top.notify_after, interval: top.notify_interval },
        metrics_file,
        mirrors,
        ignored,
    })
}

/// The mirrors of a repository: those in its file, and, below a root, those of templates that have a URL and that its file does not
/// mention. They are sorted by id.
fn mirrors(place: &Place<'_>, file: File, server: &Server, placed: Option<&Placed>) -> Result<Vec<Mirror>, Error> {
    let mut mirrors = Vec::new();
    let mut ids: BTreeSet<u32> = file.remotes.values().filter_map(|remote| remote.id).collect();
    if ids.len() < file.remotes.values().filter(|remote| remote.id.is_some()).count() {
        return Err(Error::Meaning {
            path: place.path.to_owned(),
            line: 1,
            what: "two remotes have the same id".into(),
        });
    }
    let has_defaults = file.defaults.said().next().is_some();
    let defaults = file.defaults.over(&server.defaults);
    let template = |name: &str| {
        let found = server.templates.get(name).map(|template| template.settings.clone()).unwrap_or_default();
        let filled = |url: &Option<String>| url.as_deref().zip(placed).map(|(url, placed)| expand(url, placed));
        Settings { url: filled(&found.url), create_url: filled(&found.create_url), ..found }
    };
    let mut own = BTreeSet::new();
    for (name, remote) in file.remotes {
        check_name(place, &name)?;
        let of_server = template(name.get_ref());
        // If this file has the URL, somebody else may have chosen it. The server's token that
        // creates repositories must not be sent there.
        let creates = if remote.url.is_some() { Settings::default() } else { of_server.clone() };
        let written = remote.over(&of_server);
        let says_create = written.says_create();
        let settings = confined_by(written.over(&defaults), creates);
        // A mirror that was written by hand has no id. It gets the largest id so far, plus one. Ids
        // of templates do not count.
        let id = match settings.id {
            Some(id) => id,
            None if server.templates.contains_key(name.get_ref()) => id_of_template(name.get_ref()),
            None => ids.range(..FIRST_OF_TEMPLATES).next_back().map_or(1, |last| last + 1),
        };
        ids.insert(id);
        let mirror = made(settings, name.get_ref(), id, says_create);
        mirrors.push(mirror.map_err(|wrong| place.at_key(&name, wrong))?);
        own.insert(name.into_inner());
    }
    for (name, from) in server.templates.iter().filter(|(name, _)| placed.is_some() && !own.contains(*name)) {
        let settings = template(name);
        if settings.url.is_none() {
            continue;
        }
        let says_create = settings.says_create();
        let settings = confined_by(settings.clone().over(&defaults), settings);
        let mirror = made(settings, name, id_of_template(name), says_create);
        let mirror =
            mirror.map_err(|wrong| Error::Meaning { path: from.file.clone(), line: from.line, what: wrong.what })?;
        mirrors.push(Mirror { is_servers: !has_defaults, ..mirror });
    }
    mirrors.sort_by_key(|mirror| mirror.id);
    match clash(&mirrors) {
        None => Ok(mirrors),
        Some((name, what)) => {
            let line = text_line(place.text, name);
            Err(Error::Meaning { path: place.path.to_owned(), line, what })
        }
    }
}

/// The mirror of these settings. If `create` comes from `[defaults]` and does not fit the mirror's
/// URL, it is ignored.
fn made(settings: Settings, name: &str, id: u32, says_create: bool) -> Result<Mirror, Mistake> {
    if says_create {
        return settings.into_mirror(name, id);
    }
    settings.clone().into_mirror(name, id).or_else(|wrong| match wrong.key.starts_with("create") {
        true => settings.with_create_of(Settings::default()).into_mirror(name, id),
        false => Err(wrong),
    })
}

/// The settings of a mirror. If it is confined, only `creates`, the template of the server's files, says who makes its repository.
fn confined_by(settings: Settings, creates: Settings) -> Settings {
    if settings.confined == Some(true) { settings.with_create_of(creates) } else { settings }
}

/// The line of the table of a mirror, from 1; 1 if another file has it.
fn text_line(text: &str, name: &str) -> usize {
    let is_header =
        |line: &str| line.trim().trim_start_matches("[remotes.").trim_end_matches(']').trim_matches('"') == name;
    text.lines().position(|line| line.trim().starts_with("[remotes.") && is_header(line)).map_or(1, |at| at + 1)
}

/// Finds two mirrors that would undo each other's work. Returns the name of one, and what is wrong.
fn clash(mirrors: &[Mirror]) -> Option<(&str, String)> {
    let selects_all = |mirror: &Mirror| mirror.mirror_branch_regex.is_none() && !mirror.only_protected_branches;
    for pull in mirrors.iter().filter(|mirror| mirror.is_pull() && mirror.is_enabled) {
        for other in mirrors.iter().filter(|other| other.is_enabled && other.name != pull.name) {
            if !other.is_pull() && other.address.identity() == pull.address.identity() {
                let what = format!(
                    "mirror '{}' pulls from the URL that mirror '{}' pushes to; remove one of the two",
                    pull.name, other.name
                );
                return Some((&pull.name, what));
            }
            if other.is_pull() && selects_all(pull) && selects_all(other) {
                let what = format!(
                    "pull mirrors '{}' and '{}' both select all branches; let only one of the two select each, with mirror_branch_regex or only_protected_branches",
                    pull.name, other.name
                );
                return Some((&pull.name, what));
            }
        }
    }
    None
}

/// The smallest id of a mirror that a template names, even if the repository's file has a table for it too. The ids that we give to other
/// mirrors stay below it.
pub(super) const FIRST_OF_TEMPLATES: u32 = 1 << 30;

/// The id depends only on the name, so other templates do not change it.
fn id_of_template(name: &str) -> u32 {
    FIRST_OF_TEMPLATES + (crc32fast::hash(name.as_bytes()) >> 2)
}

/// Merges one of the server's files into the configuration from the files before it.
pub(super) fn server(path: &Path, text: &str, file: File, mut server: Server) -> Result<Server, Error> {
    let place = Place { path, text };
    check_tables(&place, &file)?;
    server.top = file.keys().over(&server.top);
    server.api = file.api.unwrap_or_default().over(&server.api);
    for written in file.repositories {
        let no_root =
            place.at(&written, "[[repositories]] needs a root, the directory that holds the repositories".into());
        let patterns = |texts: Vec<String>| texts.iter().map(|text| Pattern::new(text.as_bytes())).collect::<Vec<_>>();
        let line = line_of(text, written.span().start);
        let line = place.line_of_key(line, "root").unwrap_or(line);
        let written = written.into_inner();
        server.roots.push(Root {
            path: written.root.ok_or(no_root)?,
            written: (path.to_owned(), line),
            include: patterns(written.include.unwrap_or_default()),
            exclude: patterns(written.exclude.unwrap_or_default()),
            owners: written.owners.unwrap_or_default(),
        });
    }
    for (name, host) in file.hosts {
        let text = name.get_ref().to_ascii_lowercase();
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@')) {
            let what = format!("'{}' is not the name of a host; write [hosts.\"github.com\"]", text.escape_debug());
            return Err(place.at(&name, what));
        }
        let before = server.hosts.remove(&text).unwrap_or_default();
        server.hosts.insert(text, host.over(&before));
    }
    server.fleet = file.fleet.unwrap_or_default().over(&server.fleet);
    server.defaults = file.defaults.over(&server.defaults);
    for (name, remote) in file.remotes {
        check_name(&place, &name)?;
        if remote.id.is_some() {
            return Err(place.at(&name, "an id belongs in a repository's file".into()));
        }
        let line = line_of(text, name.span().start);
        let template = server.templates.entry(name.into_inner()).or_default();
        let settings = remote.over(&template.settings);
        if let Some(unknown) = settings.url.as_deref().and_then(unknown_placeholder) {
            let what = format!(
                "the url has the placeholder '{{{unknown}}}'; only {{path}}, {{path_dash}}, {{path_underscore}} and {{name}} exist"
            );
            return Err(Error::Meaning { path: path.to_owned(), line, what });
        }
        *template = Template { settings, file: path.to_owned(), line };
    }
    server.files.push(path.to_owned());
    Ok(server)
}

/// Checks each table by itself: its commands, and keys that exclude each other.
fn check_tables(place: &Place<'_>, file: &File) -> Result<(), Error> {
    if let Some(what) = file.keys().notify.and_then(|command| check_command(&command, "notify").err()) {
        return Err(place.on(place.line_of_key(0, "notify").unwrap_or(1), what));
    }
    let command = file.fleet.as_ref().and_then(|fleet| fleet.password_command.as_ref());
    if let Some(what) = command.and_then(|command| check_command(command, "password_command").err()) {
        let header = place.line_of_key(0, "fleet").unwrap_or(1);
        return Err(place.on(place.line_of_key(header, "password_command").unwrap_or(header), what));
    }
    for (name, remote) in &file.remotes {
        remote.mistake().map_or(Ok(()), |mistake| Err(place.at_key(name, mistake)))?;
    }
    let Some(mistake) = file.defaults.mistake() else { return Ok(()) };
    let header = place.line_of_key(0, "defaults").unwrap_or(1);
    let line = place.line_of_key(header, mistake.key).unwrap_or(header);
    Err(place.on(line, mistake.what))
}

/// Refuses keys that belong only in the server's file.
fn only_on_the_server(place: &Place<'_>, file: &File) -> Result<(), Error> {
    let Some(key) = file.of_the_server() else { return Ok(()) };
    let line = place.line_of_key(0, key).unwrap_or(1);
    Err(place.on(line, format!("'{key}' belongs in the server's file, /etc/git-mirror-push/config.toml")))
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

#[cfg(test)]
mod tests {
    use super::super::{Config, Error, Server, Trust, parse};
    use crate::plan::Prune;
    use std::path::Path;

    fn read(text: &str, trust: Trust) -> Result<Config, Error> {
        parse(Path::new("config.toml"), text, &Server::default(), None, trust)
    }

    #[test]
    fn only_harmless_keys_of_another_owner_count_and_its_commands_are_not_even_checked() {
        for command in ["[\"/bin/x\"]", "[\"relative\"]", "[]"] {
            let text = format!(
                "notify = {command}\nsilent = true\n[defaults]\npassword_command = {command}\natomic = true\n\
                 [remotes.m]\nurl = \"/m\"\nconfined = false\n\
                 [remotes.n]\nurl = \"/n\"\npassword_command = {command}\nprune = \"mirror\"\nallow_insecure_http = true\n"
            );
            let config = read(&text, Trust::Foreign).expect("readable");
            assert_eq!(config.notify.command, None);
            assert!(config.is_silent);
            let [m, n] = &*config.mirrors else { panic!("{config:?}") };
            assert!(m.is_confined && n.is_confined && n.password_command.is_none() && !n.allow_insecure_http);
            assert!(n.prune == Prune::Mirror && !m.is_atomic);
            let ignored = ["allow_insecure_http", "atomic", "notify", "password_command"];
            assert_eq!(config.ignored.as_deref(), Some(&ignored[..]));
            let trusted = read(&text, Trust::Full);
            assert_eq!(trusted.is_ok(), command == "[\"/bin/x\"]", "{command}");
        }
    }

    #[test]
    fn mirrors_that_would_undo_each_other_are_refused() {
        let pull = "direction = \"pull\"\n";
        let table = |name: &str, url: &str, keys: &str| format!("[remotes.{name}]\nurl = \"{url}\"\n{keys}\n");
        for (text, expected) in [
            (
                table("a", "/x", "") + &table("b", "/x", pull),
                Some("config.toml:4: mirror 'b' pulls from the URL that mirror 'a' pushes to"),
            ),
            (
                table("a", "/x", pull) + &table("b", "/y", pull),
                Some("config.toml:1: pull mirrors 'a' and 'b' both select all branches"),
            ),
            (table("a", "/x", pull) + &table("b", "/y", &format!("{pull}mirror_branch_regex = \"^b\"\n")), None),
            (table("a", "/x", pull) + &table("b", "/y", &format!("{pull}enabled = false\n")), None),
            (table("a", "/x", pull) + &table("b", "/y", ""), None),
        ] {
            let found = read(&text, Trust::Full).err().map(|error| error.to_string());
            match expected {
                Some(expected) => {
                    assert!(found.as_deref().is_some_and(|found| found.starts_with(expected)), "{found:?}");
                }
                None => assert_eq!(found, None, "{text}"),
            }
        }
    }

    #[test]
    fn keys_that_exclude_each_other_are_found_across_tables() {
        let text =
            "[defaults]\nonly_protected_branches = true\n\n[remotes.m]\nurl = \"/m\"\n\nmirror_branch_regex = \"x\"\n";
        let error = read(text, Trust::Full).expect_err("refused").to_string();
        assert!(error.starts_with("config.toml:7: mirror_branch_regex and only_protected_branches"), "{error}");
        let text = text.replace("\"x\"", "\"\"");
        assert!(read(&text, Trust::Full).is_ok(), "an empty regex is none");
    }
}
