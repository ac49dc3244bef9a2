//! The sources of `import`: what each says about which repository.

#![expect(clippy::disallowed_methods, reason = "reads the files that the user names")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::ask::is_agreed;
use super::shown::MAX_SHOWN;
use super::{Judged, Verdict, wish};
use crate::cli::args::{Import, Source};
use crate::cli::{Base, Usage, talk};
use crate::config;
use crate::import::{Found, GerritSite, GitoliteHost, Line, gerrit_base_path, read_gerrit, read_gitolite, read_list};
use crate::plan::Pattern;
use crate::process;

mod api;

/// For each repository, what is said about it.
pub(super) type Sources = BTreeMap<PathBuf, About>;

/// What the sources say about one repository.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// Whether its own configuration and hooks are read.
    pub(super) reads_git: bool,
    /// Whether gitolite serves it.
    pub(super) is_of_gitolite: bool,
    /// What gitolite says.
    pub(super) of_gitolite: Vec<Found>,
    /// What any other source says.
    pub(super) elsewhere: Vec<Found>,
}

/// What a source says, by repository: an absolute path, or one below a root, with or without `.git`.
type Named = Vec<(String, Vec<Found>)>;

/// How long a program of the source may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Reads the source. Mirrors of repositories that are not here are returned with their verdict.
pub(super) fn read(base: &Base, asked: &Import) -> anyhow::Result<(Sources, Vec<Judged>)> {
    let (named, roots) = match &asked.source {
        Some(Source::Git) => return Ok((in_place(base, asked)?, Vec::new())),
        None => return Ok((every_local(base, asked)?, Vec::new())),
        Some(Source::List(list)) => (listed(base, &list.file)?, roots(base, asked)),
        Some(Source::Gitolite) => gitolite(base, asked)?,
        Some(Source::Gerrit(site)) => gerrit(base, asked, &site.site)?,
        Some(Source::Gitlab(host)) => {
            let roots = roots(base, asked);
            (api::gitlab(base, asked, &host.url, &roots)?, roots)
        }
        Some(Source::Gitea(host)) => (api::gitea(base, asked, &host.url)?, roots(base, asked)),
    };
    let may_be_absolute = matches!(asked.source, Some(Source::List(_)));
    let named = if may_be_absolute { named } else { below_roots(named, &roots) };
    placed(asked, named, &roots)
}

/// The repositories whose own configuration is read.
fn in_place(base: &Base, asked: &Import) -> anyhow::Result<Sources> {
    let about = About { reads_git: true, ..About::default() };
    Ok(super::places(base, asked)?.into_iter().map(|path| (path, about.clone())).collect())
}

/// Every source on this machine that says something of these repositories: their own configuration, gitolite, Gerrit.
fn every_local(base: &Base, asked: &Import) -> anyhow::Result<Sources> {
    let mut sources = in_place(base, asked)?;
    let home = base.environment.credential_env.netrc.as_deref().and_then(Path::parent);
    if home.is_some_and(|home| home.join(".gitolite.rc").is_file()) {
        let (named, roots) = gitolite(base, asked)?;
        for (name, found) in named {
            let about = there(&name, &roots).and_then(|path| sources.get_mut(&path));
            if let Some(about) = about {
                about.is_of_gitolite = true;
                about.of_gitolite.extend(found);
            }
        }
    }
    for site in sites(base, asked, &sources) {
        let (named, roots) = gerrit(base, asked, &site)?;
        for (name, found) in named {
            if let Some(about) = there(&name, &roots).and_then(|path| sources.get_mut(&path)) {
                about.elsewhere.extend(found);
            }
        }
    }
    Ok(sources)
}

/// The sites of Gerrit whose repositories are among these: a directory above them has `etc/gerrit.config` and what the replication plugin reads.
fn sites(base: &Base, asked: &Import, sources: &Sources) -> BTreeSet<PathBuf> {
    let root = asked.root.as_ref().map(|root| base.start().join(root));
    let below = sources.keys().chain(&root);
    let above = below.flat_map(|path| path.ancestors().skip(1).take(8)).collect::<BTreeSet<&Path>>();
    let is_site = |path: &&Path| {
        let etc = path.join("etc");
        etc.join("gerrit.config").is_file()
            && (etc.join("replication.config").is_file() || etc.join("replication").is_dir())
    };
    above.into_iter().filter(is_site).map(Path::to_owned).collect()
}

/// A name from another program must be that of a repository below the roots. For any other name, a
/// person has to decide.
fn below_roots(named: Named, roots: &[PathBuf]) -> Named {
    let is_below = |name: &str| {
        let there = there(name, roots);
        let is_in =
            |path: PathBuf| roots.iter().any(|root| root.canonicalize().is_ok_and(|root| path.starts_with(root)));
        !name.starts_with('/') && there.is_none_or(is_in)
    };
    let judged = |(name, found): (String, Vec<Found>)| {
        if is_below(&name) {
            return (name, found);
        }
        let why = || "the source names a repository that is not below the root".to_owned();
        let from = name.clone();
        (
            format!("./{}", name.trim_start_matches('/')),
            found.iter().map(|_| Found::Person { from: from.clone(), why: why() }).collect(),
        )
    };
    named.into_iter().map(judged).collect()
}

/// The name of a repository of gitolite: its path below the directory of its repositories, which is the last `repositories` in it.
pub(super) fn gitolite_name(git_dir: &Path) -> String {
    let text = git_dir.display().to_string();
    let below = text.rsplit_once("/repositories/").map_or(&*text, |(_, below)| below);
    below.strip_suffix(".git").unwrap_or(below).to_owned()
}

/// Reads the files of a site of Gerrit.
fn gerrit(base: &Base, asked: &Import, site: &Path) -> anyhow::Result<(Named, Vec<PathBuf>)> {
    let site = base.start().join(site);
    let read = |name: &str| match std::fs::read_to_string(site.join("etc").join(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read '{}'", site.join("etc").join(name).display())),
    };
    let mut files = GerritSite { main: read("replication.config")?, secure: read("secure.config")?, parts: Vec::new() };
    for entry in std::fs::read_dir(site.join("etc/replication")).into_iter().flatten() {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".config")) {
            files.parts.push((name.to_owned(), read(&format!("replication/{name}.config"))?));
        }
    }
    files.parts.sort_unstable();
    if files.main.is_empty() && files.parts.is_empty() {
        bail!("'{}' has no etc/replication.config; give the directory of a Gerrit site", site.display());
    }
    let root = match &asked.root {
        Some(root) => base.start().join(root),
        None => site.join(gerrit_base_path(&read("gerrit.config")?).map_err(Usage)?),
    };
    let named = read_gerrit(&files, &projects(&root)?, wish(asked)).map_err(Usage)?;
    Ok((named, vec![root]))
}

/// The paths of the repositories below a directory, without `.git`.
fn projects(root: &Path) -> anyhow::Result<Vec<String>> {
    let repositories = config::repositories_below(root)?;
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = |path: &PathBuf| path.strip_prefix(&root).ok()?.to_str()?.strip_suffix(".git").map(str::to_owned);
    Ok(repositories.iter().filter_map(name).collect())
}

/// Where repositories are looked for by their path.
fn roots(base: &Base, asked: &Import) -> Vec<PathBuf> {
    match &asked.root {
        Some(root) => vec![base.start().join(root)],
        None => base.server.roots.iter().map(|root| root.path.clone()).collect(),
    }
}

/// Finds the repositories.
fn placed(asked: &Import, named: Named, roots: &[PathBuf]) -> anyhow::Result<(Sources, Vec<Judged>)> {
    let pattern = asked.matches.as_ref().map(|pattern| Pattern::new(pattern.as_bytes()));
    let (mut sources, mut judged) = (Sources::new(), Vec::new());
    let is_wanted =
        |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name.trim_end_matches(".git").as_bytes()));
    let named: Named = named.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if asked.init && !asked.dry_run {
        make_missing(asked, &named, roots)?;
    }
    for (repository, found) in named {
        if let Some(path) = there(&repository, roots) {
            let about = sources.entry(path).or_default();
            about.is_of_gitolite = matches!(asked.source, Some(Source::Gitolite));
            if about.is_of_gitolite { &mut about.of_gitolite } else { &mut about.elsewhere }.extend(found);
            continue;
        }
        judged.extend(found.into_iter().map(|found| Judged {
            from: match found {
                Found::Mirror(mirror) => mirror.name,
                Found::Person { from, .. } => from,
            },
            verdict: Verdict::Person("there is no repository here; make it, or give --root DIR".into()),
            repository: repository.clone(),
        }));
    }
    Ok((sources, judged))
}

/// Makes the missing repositories whose mirrors are all pull mirrors, if the user agrees.
fn make_missing(asked: &Import, named: &Named, roots: &[PathBuf]) -> anyhow::Result<()> {
    let mut pulls: BTreeMap<&String, bool> = BTreeMap::new();
    for (name, found) in named.iter().filter(|(_, found)| !found.is_empty()) {
        // A list has a line for each mirror, and a project may have no mirror at all.
        *pulls.entry(name).or_insert(true) &= found.iter().all(is_pull);
    }
    let missing = pulls.into_iter().filter(|(name, all)| *all && is_missing(name, roots));
    let missing: BTreeSet<&String> = missing.map(|(name, _)| name).collect();
    let what = match missing.len() {
        0 => return Ok(()),
        1 => "this repository".to_owned(),
        count => format!("these {count} repositories"),
    };
    if !asked.yes {
        missing.iter().take(MAX_SHOWN).for_each(|name| talk(&name.escape_debug().to_string()));
        if missing.len() > MAX_SHOWN {
            talk(&format!("and {} more", missing.len() - MAX_SHOWN));
        }
        if !is_agreed(&format!("Make {what}"), "nothing was made or imported")? {
            return Ok(());
        }
    }
    missing.into_iter().try_for_each(|name| make(name, roots))
}

fn is_pull(found: &Found) -> bool {
    matches!(found, Found::Mirror(mirror) if mirror.direction() == "pull")
}

/// Whether there is no repository of this name, and it is clear where to make it: below the only root.
fn is_missing(name: &str, roots: &[PathBuf]) -> bool {
    let is_plain = !name.starts_with('/') && !Path::new(name).components().any(|part| part.as_os_str() == "..");
    is_plain && roots.len() == 1 && there(name, roots).is_none()
}

/// Makes a bare repository below the root. The first pull decides where its HEAD points.
fn make(name: &str, roots: &[PathBuf]) -> anyhow::Result<()> {
    let path = roots[0].join(format!("{}.git", name.trim_end_matches(".git")));
    let mut git = process::command("git");
    let made = process::run("git init", git.args(["init", "--quiet", "--bare", "--"]).arg(&path), b"", LIMIT);
    made.map(drop).with_context(|| format!("cannot make '{}'", path.display()))
}

/// The repository of this name.
fn there(name: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let is_plain = |name: &str| !Path::new(name).components().any(|part| part.as_os_str() == "..");
    let bases = if name.starts_with('/') { vec![PathBuf::from("/")] } else { roots.to_vec() };
    let plain = name.trim_start_matches('/');
    let names = [plain.to_owned(), format!("{plain}.git"), format!("{plain}/.git")];
    let all = bases.iter().flat_map(|base| names.iter().map(move |name| base.join(name)));
    let found =
        all.filter(|_| is_plain(name)).find(|path| path.join("HEAD").is_file() && path.join("objects").is_dir());
    found?.canonicalize().ok()
}

/// Reads a list. A wrong line refuses all of it.
fn listed(base: &Base, file: &Path) -> anyhow::Result<Named> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?,
        _ => {
            let path = base.start().join(file);
            let read = std::fs::File::open(&path).and_then(std::io::read_to_string);
            read.with_context(|| format!("cannot read '{}'", path.display()))?
        }
    };
    let lines = read_list(&text).map_err(|error| Usage(format!("{}: {error}", file.display())))?;
    Ok(lines.into_iter().map(|Line { repository, mirror }| (repository, vec![Found::Mirror(mirror)])).collect())
}

/// Asks gitolite, as the user who runs it: two processes, however many repositories there are.
fn gitolite(base: &Base, asked: &Import) -> anyhow::Result<(Named, Vec<PathBuf>)> {
    let run = |arguments: &[&str], input: &[u8]| {
        let mut gitolite = process::command("gitolite");
        let out = process::run_long("gitolite", gitolite.args(arguments), input, LIMIT);
        out.map(|out| String::from_utf8_lossy(&out).into_owned())
    };
    let said =
        run(&["query-rc", "-a"], b"").context("run import as the user who runs gitolite, with gitolite in PATH")?;
    let Some(host) = GitoliteHost::read(&said) else { bail!("gitolite does not say where its repositories are") };
    let root = asked.root.as_ref().map_or_else(|| host.base.clone(), |root| base.start().join(root));
    let names = projects(&root)?;
    // Every repository is looked at: its git configuration may have gitolite.mirror.simple.
    let mut named: Named = names.iter().map(|name| (name.clone(), Vec::new())).collect();
    let name = host.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        base.say("gitolite has no HOSTNAME in ~/.gitolite.rc, so it has no copies");
    }
    let input: String = names.iter().map(|name| format!("{name}\n")).collect();
    let text = run(&["git-config", "-ev", "-r", "%", r"^gitolite-options\.mirror\."], input.as_bytes())?;
    let options = read_gitolite(&text, name);
    for (master, count) in options.copies_of {
        let are = if count == 1 {
            "1 repository here is a copy".to_owned()
        } else {
            format!("{count} repositories here are copies")
        };
        base.say(&format!("{are} of {}: set the mirrors up there", master.escape_debug()));
    }
    named.extend(options.found);
    Ok((named, vec![root]))
}
