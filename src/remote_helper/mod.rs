//! `git fetch mirror::NAME`, `git ls-remote mirror::NAME`, `git push mirror::NAME`: a configured mirror as a git remote, with its stored
//! credentials and pinned host keys (gitremote-helpers(7)).
//!
//! git itself does the reading. Over ssh and git://, and at a path, it talks to the mirror's
//! upload-pack (`connect`). Over http it uses its own helper (see `web`). A push goes through lock,
//! plan, lease and status like any other. What the rules do not allow is refused with the reason. A
//! crash leaves what a crash of a drain, or of git's own fetch, leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::config::{self, Config, Direction, Environment, Mirror, Server};
use crate::credentials::Redactor;
use crate::drain::{self, Context, MassDelete, Mode, Report, Unchanged};
use crate::mirror;
use crate::plan::Restore;
use crate::process::{self, git};
use crate::refs::{Local, Oid, RefName};
use crate::repo::{self, Repository, Shared};
use crate::status::{Outcome, RefOutcome};
use crate::wire::Upload;
use crate::wire::{Pool, Target};

mod apart;
mod web;

use web::Web;

/// What the helper works on.
struct Helper {
    server: Server,
    shared: Shared,
    repository: Repository,
    config: Config,
    name: String,
    web: Option<Web>,
    /// Whether a push is only to be planned (`git push --dry-run`).
    is_dry_run: bool,
}

/// Runs the helper. git starts it as `git-remote-mirror REMOTE NAME` and writes commands to its standard input.
#[must_use]
pub fn main() -> ExitCode {
    process::forbid_core_files();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = Redactor::default().clean(&format!("{error:#}")).replace('\n', " ");
            // If standard error is closed, nobody wants the message.
            let _ = writeln!(io::stderr(), "fatal: {text}");
            ExitCode::from(128)
        }
    }
}

fn run() -> anyhow::Result<()> {
    let environment = Environment::read()?;
    if let Some(socket) = &environment.askpass {
        // git's http helper, or ssh, has started this program to ask for a password.
        let question = std::env::args().nth(1).unwrap_or_default();
        return Ok(crate::wire::answer_askpass(socket, &question, &mut io::stdout())?);
    }
    let arguments: Vec<String> = std::env::args().collect();
    let [_, _, name] = arguments.as_slice() else {
        anyhow::bail!(
            "git runs this program: git fetch mirror::NAME, where NAME is a mirror of the repository you are in"
        );
    };
    let mut helper = Helper::open(&environment, name)?;
    helper.serve(&mut io::stdin().lock(), &mut io::stdout().lock())
}

impl Helper {
    fn open(environment: &Environment, name: &str) -> anyhow::Result<Self> {
        let git_dir =
            environment.git_dir.as_ref().context("mirror::NAME works inside the repository whose mirror it is")?;
        let server = config::load_server(environment.server_config.as_deref(), &environment.credential_env)?;
        let shared = repo::open(&environment.current_dir.join(git_dir))?;
        let repository = shared.to_local();
        let config = config::load(&repository, &server)?;
        config::authorise(&repository, &server)?;
        anyhow::ensure!(
            !config.is_silent,
            "silent mode: nothing leaves this machine; to end it: git mirror-push silent off"
        );
        let name = name.trim_start_matches("//").to_owned();
        anyhow::ensure!(
            config.mirror(&name).is_some(),
            "no mirror '{}' in '{}'; mirror::NAME works inside the repository whose mirror it is; to clone a mirror, use its own URL",
            name.escape_debug(),
            repository.git_dir().display()
        );
        Ok(Self { server, shared, repository, config, name, web: None, is_dry_run: false })
    }

    fn mirror(&self) -> &Mirror {
        self.config.mirror(&self.name).expect("it was there when the helper began")
    }

    fn target(&self) -> anyhow::Result<Target> {
        mirror::target(&self.repository, self.mirror(), &self.server).map_err(|error| self.explained(&error.into()))
    }

    /// The error, cleaned of this mirror's password, and what to do about it.
    fn explained(&self, error: &drain::Error) -> anyhow::Error {
        let credentials = mirror::credentials(&self.repository.layout(), self.mirror()).unwrap_or_default();
        anyhow::Error::msg(drain::explained(error, self.mirror(), &credentials))
    }

    fn serve(&mut self, input: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
        let is_web = self.mirror().address.url_parts().is_some();
        loop {
            let mut line = String::new();
            if input.read_line(&mut line)? == 0 || line == "\n" {
                return Ok(());
            }
            let line = line.trim_end_matches('\n');
            match line.split_once(' ').unwrap_or((line, "")) {
                ("capabilities", _) if is_web => {
                    write!(out, "option\nobject-format\nstateless-connect\nfetch\npush\n\n")?;
                }
                ("capabilities", _) => write!(out, "option\nobject-format\nconnect\npush\n\n")?,
                ("option", option) if let Some(answer) = self.option_of_pushes(option) => writeln!(out, "{answer}")?,
                ("option", _) if is_web => self.web()?.relay_line(line, out)?,
                ("option", "object-format true") => writeln!(out, "ok")?,
                ("option", _) => writeln!(out, "unsupported")?,
                ("connect", "git-upload-pack") => return self.connect(out),
                ("stateless-connect", service) if is_web && service == "git-upload-pack" => {
                    if self.web()?.stateless(service, out)? {
                        return Ok(());
                    }
                }
                ("stateless-connect", _) => writeln!(out, "fallback")?,
                // A push goes through the rules, so it does not get a connection.
                ("connect", _) => writeln!(out, "fallback")?,
                ("list", "for-push") => self.list(out)?,
                ("list", _) => self.web()?.relay_block(&[line.to_owned()], out)?,
                ("fetch", _) => {
                    let lines = block(line, input)?;
                    self.web()?.relay_block(&lines, out)?;
                }
                ("push", _) => self.push(&block(line, input)?, out)?,
                (other, _) => anyhow::bail!("git asks for '{}', which this helper does not know", other.escape_debug()),
            }
            out.flush()?;
        }
    }

    fn web(&mut self) -> anyhow::Result<&mut Web> {
        if self.web.is_none() {
            let target = self.target()?;
            let pinned = web::judged(&target).map_err(|error| self.explained(&error.into()))?;
            let program = &self.server.credential_env.program;
            self.web = Some(Web::start(&self.repository, &target, pinned.as_deref(), program)?);
        }
        Ok(self.web.as_mut().expect("it was just started"))
    }

    /// The answer to an option that concerns pushes; `None` for any other option. The rules decide
    /// what a push does, so git's own helper for http must not answer such an option.
    fn option_of_pushes(&mut self, option: &str) -> Option<&'static str> {
        match option.split_once(' ').unwrap_or((option, "")) {
            ("dry-run", value) => {
                self.is_dry_run = value == "true";
                Some("ok")
            }
            ("cas" | "atomic" | "push-option" | "pushcert" | "force-if-includes", _) => Some("unsupported"),
            _ => None,
        }
    }

    /// Lets git talk to the mirror's upload-pack.
    fn connect(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let target = self.target()?;
        let reached = Upload::connect(&target).map_err(|error| self.explained(&error.into()))?;
        let mut upload = reached.context("git cannot use 'connect' with a mirror that is reached over http")?;
        let mut to_mirror = std::mem::replace(&mut upload.output, Box::new(io::sink()));
        writeln!(out)?;
        out.flush()?;
        // git sends nothing before it has that line, so our buffer holds none of what follows. The thread ends with the process.
        let mut stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        std::thread::spawn(move || io::copy(&mut stdin, &mut to_mirror));
        let mut chunk = vec![0; 64 << 10];
        let mut is_heard = false;
        loop {
            match upload.input.read(&mut chunk) {
                Ok(0) if is_heard => return Ok(()),
                // git only sees that the connection ended. The reason is in the program's last message.
                Ok(0) => {
                    let ended = upload.end(&Redactor::new(&target.credentials));
                    return ended.map_err(|error| self.explained(&error.into()));
                }
                Ok(count) => {
                    is_heard = true;
                    out.write_all(&chunk[..count])?;
                    out.flush()?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lists the object format, then the mirror's refs.
    fn list(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        let advertised = drain::reach(&self.repository, self.mirror(), &self.server, &mut |name, oid| {
            lines.push(format!("{oid} {}", name.to_owned().text()));
        });
        let advertised = advertised.map_err(|error| self.explained(&error))?;
        writeln!(out, ":object-format {}", advertised.capabilities.object_format)?;
        for line in lines {
            writeln!(out, "{line}")?;
        }
        Ok(writeln!(out)?)
    }

    /// Pushes what is asked for, as far as the rules allow it.
    fn push(&self, lines: &[String], out: &mut dyn Write) -> anyhow::Result<()> {
        let mut wanted = BTreeSet::new();
        let mut answers = Vec::new();
        let refspecs: Vec<(&str, &str)> = lines.iter().map(|line| refspec_of(line)).collect();
        let here = self.here(&refspecs)?;
        for (source, name) in refspecs {
            let value = self.value_of(source, &here);
            match checked(source, value, name, &here) {
                Ok(name) => {
                    wanted.insert(name);
                }
                Err(why) => answers.push(format!("error {name} {why}")),
            }
        }
        if !wanted.is_empty() {
            let report = self.drain(&wanted)?;
            answers.extend(wanted.iter().map(|name| answer(name, report.as_ref(), &self.name)));
        }
        for answer in answers {
            writeln!(out, "{}", answer.replace('\n', " "))?;
        }
        Ok(writeln!(out)?)
    }

    /// The value in this repository of every ref that the refspecs name.
    fn here(&self, refspecs: &[(&str, &str)]) -> anyhow::Result<BTreeMap<RefName, Local>> {
        let words = refspecs.iter().flat_map(|(source, name)| [source, name]);
        let names: BTreeSet<RefName> = words.filter_map(|word| RefName::new(word.as_bytes())).collect();
        let values = self.repository.find_each(&names.iter().collect::<Vec<_>>())?;
        Ok(names.into_iter().zip(values).collect())
    }

    /// The value that git is to push: of an empty source, nothing. Git passes a source on as the user has written it (`HEAD~1`).
    fn value_of(&self, source: &str, here: &BTreeMap<RefName, Local>) -> Local {
        if source.is_empty() {
            return Local::Absent;
        }
        if let Some(name) = RefName::new(source.as_bytes()) {
            return here.get(&name).copied().unwrap_or(Local::Absent);
        }
        let resolved = || {
            let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", source];
            let said =
                process::run("git rev-parse", &mut git(self.repository.git_dir(), &arguments), b"", LIMIT).ok()?;
            Oid::from_hex(said.trim_ascii_end())
        };
        Oid::from_hex(source.as_bytes()).or_else(resolved).map_or(Local::Absent, Local::At)
    }

    fn drain(&self, wanted: &BTreeSet<RefName>) -> anyhow::Result<Option<Report>> {
        #[expect(clippy::disallowed_methods, reason = "the clock of the helper")]
        let now = || Timestamp::now();
        let context = Context {
            config: &self.config,
            server: &self.server,
            mode: if self.is_dry_run { Mode::Plan } else { Mode::Sync(MassDelete::Guarded) },
            only: Some(wanted),
            adopts: false,
            creates: false,
            restore: Restore::Changed,
            resolve: None,
            pool: &Pool::default(),
            unchanged: Unchanged::Omitted,
            now,
            since: None,
            random: || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
            on_begin: &|_, _| {},
        };
        anyhow::ensure!(
            self.mirror().is_enabled,
            "mirror '{0}' is disabled; 'git mirror-push enable {0}' serves it again",
            self.name
        );
        match self.mirror().direction {
            Direction::Push => {}
            Direction::Pull => anyhow::bail!("mirror '{}' is a pull mirror, to which nothing is pushed", self.name),
            Direction::Both => anyhow::bail!(
                "mirror '{0}' is a two-way mirror, whose refs are not pushed one by one; push to this repository, or: git mirror-push sync {0}",
                self.name
            ),
        }
        Ok(drain::drain(&self.shared, &context, &[self.mirror()])?.pop())
    }
}

/// How long git may take to find a value.
const LIMIT: Duration = Duration::from_secs(60);

/// The two sides of `push [+]SOURCE:NAME`.
fn refspec_of(line: &str) -> (&str, &str) {
    let refspec = line.strip_prefix("push ").unwrap_or(line).trim_start_matches('+');
    refspec.split_once(':').unwrap_or((refspec, refspec))
}

/// Checks one refspec. A mirror has our refs under their own names, so the pushed value must be the value of the ref here. Only an empty source
/// is a deletion.
fn checked(source: &str, value: Local, name: &str, here: &BTreeMap<RefName, Local>) -> Result<RefName, &'static str> {
    let Some(wanted) = RefName::new(name.as_bytes()) else { return Err("not a ref name") };
    let is_deletion = value == Local::Absent;
    match here.get(&wanted).copied().unwrap_or(Local::Absent) {
        here if here == value && is_deletion == source.is_empty() => Ok(wanted),
        Local::Absent => Err("a mirror holds this repository's refs, and this one is not here"),
        _ => Err("a mirror holds this repository's refs, and this one has another value here"),
    }
}

/// The lines of a batch, up to the empty one.
fn block(first: &str, input: &mut dyn BufRead) -> io::Result<Vec<String>> {
    let mut lines = vec![first.to_owned()];
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 || line == "\n" {
            return Ok(lines);
        }
        lines.push(line.trim_end_matches('\n').to_owned());
    }
}

fn answer(asked: &RefName, report: Option<&Report>, mirror: &str) -> String {
    let of_ref = |outcome: &&RefOutcome| outcome.name == *asked;
    // git expects the name of the ref as it is, with nothing escaped.
    let name = asked.text();
    let Some(report) = report else {
        return format!("error {name} the mirror was disabled or removed meanwhile, or silent mode was switched on");
    };
    match (report.refs.iter().find(of_ref), &report.error) {
        (Some(found), _) => match (found.outcome, &found.reason) {
            (Outcome::UpToDate | Outcome::Created | Outcome::FastForwarded | Outcome::Forced | Outcome::Deleted, _) => {
                format!("ok {name}")
            }
            (outcome, Some(reason)) => format!("error {name} {}: {reason}", outcome.as_str().replace('_', " ")),
            (outcome, None) => format!("error {name} {}", outcome.as_str().replace('_', " ")),
        },
        (None, Some(error)) => format!("error {name} {error}"),
        (None, None) => {
            format!("error {name} the rules of mirror '{mirror}' do not select it, or it is on neither side")
        }
    }
}
