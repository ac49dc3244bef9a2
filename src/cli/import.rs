//! `import`: mirrors that other tools configured become mirrors of ours. First everything is read and judged, then it is shown, and then,
//! if the user agrees, written. Nothing changes at the source.
//!
//! If we are killed while we write, the next import finds what was written, and adds the rest.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::args::{Import, Source};
use super::{BEHIND, Base, DONE, Session, Usage, hook};
use crate::config::{self, HookSetting};
use crate::credentials::Secret;
use crate::import::{Found, Wish};
use crate::mirror::{Extras, Keys};
use crate::plan::Pattern;
use crate::wake;

mod ask;
mod cron;
mod found;
mod judge;
mod look;
mod shown;
mod source;
mod template;

use ask::{Asker, is_agreed};
use found::{in_git, of_gitolite};
use judge::judged_all;
use shown::Shown;

/// What becomes of one mirror of another tool.
struct Judged {
    repository: String,
    from: String,
    verdict: Verdict,
}

enum Verdict {
    /// It is to be added.
    Add(Addition),
    /// A mirror with this name has its URL and direction.
    Present(String),
    /// A person has to decide.
    Person(String),
}

impl Judged {
    fn needs_person(&self) -> bool {
        match &self.verdict {
            Verdict::Add(addition) => addition.looked.as_ref().is_some_and(Result::is_err),
            Verdict::Present(_) => false,
            Verdict::Person(_) => true,
        }
    }
}

/// What the user says about logins.
struct Logins {
    /// User names and password files by host.
    given: BTreeMap<String, (String, String)>,
    asker: Asker,
}

struct Addition {
    name: String,
    direction: String,
    /// As it is shown.
    url: String,
    keys: Keys,
    secret: Option<Secret>,
    notes: Vec<String>,
    /// Whether a template makes it, so that its repository's file gets no table for it.
    is_of_template: bool,
    /// With `--check`: `Ok` if the first sync can run, otherwise why not.
    looked: Option<Result<(), Unready>>,
}

/// Why a first sync cannot run.
struct Unready {
    why: String,
    /// The same text for all mirrors with the same problem, which are listed together.
    cause: String,
}

/// Imports.
pub(super) fn import(base: &Base, asked: &Import, out: &mut dyn Write) -> anyhow::Result<u8> {
    if base.global.json && !asked.yes && !asked.dry_run {
        return Err(Usage("--json asks no question; use it with --dry-run or --yes".into()).into());
    }
    let logins = Logins { given: logins(&asked.credential)?, asker: Asker::new(asked) };
    let (sources, mut judged) = source::read(base, asked)?;
    if asked.cron {
        judged.extend(cron::lines());
    }
    let paths: Vec<PathBuf> = sources.keys().cloned().collect();
    let judge = |session: &Session<'_>| {
        let git_dir = session.repository.git_dir();
        let about = sources.get(git_dir).cloned().unwrap_or_default();
        let mut found = about.elsewhere;
        if about.is_of_gitolite {
            found.extend(of_gitolite(session, asked, about.of_gitolite));
        }
        if about.reads_git {
            found.extend(match config::authorise(&session.repository, &base.server) {
                Err(error) => vec![Found::Person { from: "git's configuration".into(), why: error.to_string() }],
                Ok(()) => in_git(&session.repository, asked),
            });
        }
        Ok((git_dir.to_owned(), judged_all(session, asked, &logins, found)))
    };
    let (answers, bad) = base.act_in(&paths, &judge, &|_| None);
    let mut additions: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (git_dir, found) in answers {
        for one in found {
            // Present mirrors too: a run that was killed may have left them without the hook.
            if matches!(one.verdict, Verdict::Add(_) | Verdict::Present(_)) {
                additions.entry(git_dir.clone()).or_default().push(judged.len());
            }
            judged.push(one);
        }
    }
    refuse_shared(&mut judged);
    let has_additions = judged.iter().any(|one| matches!(one.verdict, Verdict::Add(_)));
    let is_wanted = asked.dry_run || !has_additions || asked.yes;
    let shown = Shown { base, is_dry: true, unread: bad };
    if !asked.yes {
        shown.print(&judged, out)?;
    }
    if !asked.template {
        template::propose(base, &additions, &judged);
    }
    if !asked.dry_run && (is_wanted || is_import_agreed(&judged)?) && (asked.yes || has_additions) {
        carry_out(base, asked, &additions, &mut judged)?;
        let shown = Shown { is_dry: false, ..shown };
        if asked.yes { shown.print(&judged, out)? } else { shown.sum(&judged, out)? }
    }
    let needs_person = judged.iter().any(Judged::needs_person);
    Ok(if needs_person || bad > 0 { BEHIND } else { DONE })
}

/// Writes what was agreed on, and wakes the daemon for it.
fn carry_out(
    base: &Base,
    asked: &Import,
    additions: &BTreeMap<PathBuf, Vec<usize>>,
    judged: &mut [Judged],
) -> anyhow::Result<()> {
    if asked.template {
        write_templates(base, asked, additions, judged)?;
    }
    let base = &base.reloaded()?;
    let changed = write(base, additions, judged);
    if asked.check {
        look::look(base, additions, judged);
    }
    tell(base, &changed);
    Ok(())
}

/// Two repositories that push to one URL would undo each other's work.
fn refuse_shared(judged: &mut [Judged]) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for one in judged {
        let Verdict::Add(addition) = &one.verdict else { continue };
        if addition.direction == "pull" {
            continue;
        }
        let other = seen.entry(addition.url.clone()).or_insert_with(|| one.repository.clone());
        if *other != one.repository {
            let why = format!("'{other}' is imported with the same URL; two repositories must not push to one mirror");
            one.verdict = Verdict::Person(why);
        }
    }
}

/// Reads `HOST=USER:FILE`.
fn logins(given: &[String]) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let read = |text: &String| {
        let (host, rest) = text.split_once('=')?;
        let (user, file) = rest.split_once(':')?;
        let is_good = !host.is_empty() && !user.is_empty() && Path::new(file).is_absolute();
        is_good.then(|| (host.to_ascii_lowercase(), (user.to_owned(), file.to_owned())))
    };
    let wrong = || Usage("--credential is HOST=USER:FILE, with the absolute path of a file".into());
    given.iter().map(|text| read(text).ok_or_else(|| wrong().into())).collect()
}

/// The repositories whose git configuration is read.
fn places(base: &Base, asked: &Import) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = match &asked.root {
        Some(root) => config::repositories_below(&base.start().join(root))?,
        None => match base.session() {
            Ok(session) => vec![session.repository.git_dir().to_owned()],
            Err(error) if base.server.roots.is_empty() => {
                return Err(error.context("give --root DIR, or change into a repository"));
            }
            Err(error) if base.is_in_repository() => return Err(error),
            Err(_) => base.repositories()?,
        },
    };
    if let Some(pattern) = &asked.matches {
        let pattern = Pattern::new(pattern.as_bytes());
        found.retain(|path| pattern.matches(below(base, asked, path).as_bytes()));
    }
    Ok(found)
}

/// The path below the root, without `.git`.
fn below(base: &Base, asked: &Import, git_dir: &Path) -> String {
    let root = asked.root.as_ref().and_then(|root| base.start().join(root).canonicalize().ok());
    let path = match root.and_then(|root| Some(git_dir.strip_prefix(root).ok()?.display().to_string())) {
        Some(below) => below,
        None => match base.server.place(git_dir) {
            Some(placed) => placed.path,
            None => git_dir.display().to_string(),
        },
    };
    path.strip_suffix("/.git").or_else(|| path.strip_suffix(".git")).unwrap_or(&path).to_owned()
}

/// What the user decided for all mirrors.
fn wish(asked: &Import) -> Wish<'_> {
    Wish { direction: asked.direction.map(super::options::Direction::word), is_exact: asked.exact }
}

/// Writes the templates: one for each mirror that all repositories have in the same way.
fn write_templates(
    base: &Base,
    asked: &Import,
    additions: &BTreeMap<PathBuf, Vec<usize>>,
    judged: &mut [Judged],
) -> anyhow::Result<()> {
    let groups = template::groups(base, additions, judged);
    if groups.is_empty() {
        if !judged.iter().any(|one| matches!(one.verdict, Verdict::Add(_))) {
            return Ok(());
        }
        base.say("no mirror is the same in all repositories, or there are fewer than ten; no template is written");
        return Ok(());
    }
    let source = asked.source.as_ref().map_or("git", Source::word);
    let (templates, members): (Vec<_>, Vec<_>) =
        groups.into_iter().map(|group| (group.template, group.members)).unzip();
    let names: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
    let file = config::add_templates(&base.server, source, templates)?;
    base.say(&format!("wrote the template {} to '{}'", names.join(", "), file.display()));
    for at in members.into_iter().flatten() {
        if let Verdict::Add(addition) = &mut judged[at].verdict {
            addition.is_of_template = true;
        }
    }
    Ok(())
}

/// Adds the mirrors. What cannot be added gets the verdict `Person`. Returns the repositories with
/// new mirrors.
fn write(base: &Base, additions: &BTreeMap<PathBuf, Vec<usize>>, judged: &mut [Judged]) -> Vec<PathBuf> {
    let paths: Vec<PathBuf> = additions.keys().cloned().collect();
    let all = &*judged;
    let add = |session: &Session<'_>| {
        let mut failed: Vec<(usize, String)> = Vec::new();
        let mut config = None;
        for at in additions.get(session.repository.git_dir()).into_iter().flatten() {
            let Verdict::Add(addition) = &all[*at].verdict else { continue };
            if addition.is_of_template {
                session.editor().prepare()?;
                continue;
            }
            let extras = Extras { secret: addition.secret.clone(), ..Extras::default() };
            match session.editor().add(&addition.name, addition.keys.clone(), &extras) {
                Ok(after) => config = Some(after),
                Err(error) => failed.push((*at, error.to_string())),
            }
        }
        let is_of_template =
            |at: &usize| matches!(&all[*at].verdict, Verdict::Add(addition) if addition.is_of_template);
        let members = additions.get(session.repository.git_dir()).into_iter().flatten();
        let is_changed = config.is_some() || members.clone().any(is_of_template);
        // One whose mirror was there may lack the hook, if the run that added it was killed.
        let was_there = members.into_iter().any(|at| matches!(&all[*at].verdict, Verdict::Present(_)));
        let git_dir = session.repository.git_dir();
        let config = config.map_or_else(|| session.config(), Ok)?;
        let needs_hook = config.hook != HookSetting::None && (is_changed || was_there);
        let hooked = if needs_hook { hook::ensure(session).map(drop) } else { Ok(()) };
        if let (Err(error), Some(first)) = (hooked, additions.get(git_dir).and_then(|all| all.first())) {
            failed.push((*first, format!("the mirror is there, and the hook cannot be installed: {error:#}")));
        }
        Ok((git_dir.to_owned(), failed, is_changed))
    };
    let (answers, _) = base.write_in(&paths, &add);
    let changed = answers.iter().filter(|(.., is_changed)| *is_changed).map(|(path, ..)| path.clone()).collect();
    for (path, all) in additions {
        if !answers.iter().any(|(answered, ..)| answered == path) {
            let why =
                || Verdict::Person("the repository could not be read any more; the message above says why".into());
            all.iter().for_each(|at| judged[*at].verdict = why());
        }
    }
    for (at, why) in answers.into_iter().flat_map(|(_, failed, _)| failed) {
        judged[at].verdict = Verdict::Person(why);
    }
    changed
}

/// Wakes the daemon for the first syncs. For a single repository, its key `wake` is respected, and
/// a drain may be started.
fn tell(base: &Base, changed: &[PathBuf]) {
    if changed.len() == 1 {
        let wake = |session: &Session<'_>| {
            session.wake(&session.config()?);
            Ok(())
        };
        base.act_in(changed, &wake, &|_| None);
        return;
    }
    // A drain for each of many repositories would be too many processes.
    // All get their hint, also after one that the daemon does not serve.
    let is_unserved = |git_dir: &&PathBuf| !wake::hint(&base.environment.runtime_directory, git_dir);
    if changed.iter().filter(is_unserved).count() > 0 {
        base.say("the first syncs are due; no daemon runs for all of them: git mirror-push drain --all");
    }
}

fn is_import_agreed(judged: &[Judged]) -> anyhow::Result<bool> {
    let what = match judged.iter().filter(|one| matches!(one.verdict, Verdict::Add(_))).count() {
        1 => "this mirror".to_owned(),
        count => format!("these {count} mirrors"),
    };
    is_agreed(&format!("Import {what}"), "nothing was imported")
}
