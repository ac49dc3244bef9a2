//! An isolated home: its own HOME and git configuration, a fixed identity and fixed dates. Of the
//! machine, it uses only the programs.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    path: std::ffi::OsString,
    formats: Formats,
}

/// The object format and the ref storage that a repository is made with.
pub(crate) type Formats = (&'static str, &'static str);

/// The exit status and the output of a program.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Completed {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// The directories in PATH that contain a git, in the order of PATH. Each git is listed once.
pub(crate) fn gits() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let mut seen = Vec::new();
    std::env::split_paths(&path)
        .filter(|directory| directory.join("git").is_file())
        .filter(|directory| {
            let real = directory.join("git").canonicalize().unwrap();
            let is_new = !seen.contains(&real);
            seen.push(real);
            is_new
        })
        .collect()
}

/// Whether the tests run in this variant. `MIRROR_PUSH_TESTS` lists the variants, separated by commas: `looking` makes no optimistic push;
/// `sha256` and `reftable` are the default formats of the repositories that a test makes.
pub(crate) fn is_variant(way: &str) -> bool {
    std::env::var("MIRROR_PUSH_TESTS").is_ok_and(|ways| ways.split(',').any(|said| said == way))
}

/// PATH, with that directory before all others.
fn path_before(git: Option<&Path>) -> std::ffi::OsString {
    let usual = std::env::var_os("PATH").unwrap();
    std::env::join_paths(git.map(Path::to_owned).into_iter().chain(std::env::split_paths(&usual))).unwrap()
}

/// The formats of repositories in this variant.
pub(crate) fn default_formats() -> Formats {
    (if is_variant("sha256") { "sha256" } else { "sha1" }, if is_variant("reftable") { "reftable" } else { "files" })
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::with_git(None)
    }

    /// A sandbox whose repositories have these formats in every variant.
    pub(crate) fn of(formats: Formats) -> Self {
        Self { formats, ..Self::new() }
    }

    /// A sandbox whose refs are files in every variant, for tests that write ref files.
    pub(crate) fn of_files() -> Self {
        Self::of((default_formats().0, "files"))
    }

    /// A sandbox with the git of that directory, or with the first git in PATH.
    pub(crate) fn with_git(git: Option<&Path>) -> Self {
        let directory = tempfile::Builder::new().prefix("git-mirror-push-it.").tempdir().unwrap();
        let path = path_before(git);
        std::fs::create_dir(directory.path().join("home")).unwrap();
        let config = "[user]\nname = Test\nemail = test@example.org\n[init]\ndefaultBranch = main\n[protocol.file]\nallow = always\n\
                      [receive]\nadvertisePushOptions = true\n[gc]\nauto = 0\n[maintenance]\nauto = false\n";
        std::fs::write(directory.path().join("gitconfig"), config).unwrap();
        Self { directory, path, formats: default_formats() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that only its owner may read. Returns its path.
    pub(crate) fn secret_file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    /// Variables that every program in here gets, servers too.
    pub(crate) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        vec![
            ("GIT_DEFAULT_HASH", self.formats.0.into()),
            ("GIT_DEFAULT_REF_FORMAT", self.formats.1.into()),
            ("PATH", self.path.clone()),
            ("HOME", self.path("home").into()),
            ("GIT_CONFIG_GLOBAL", self.path("gitconfig").into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_AUTHOR_DATE", "1767720722 +0000".into()),
            ("GIT_COMMITTER_DATE", "1767720722 +0000".into()),
            ("LC_ALL", "C".into()),
            ("TMPDIR", self.directory.path().into()),
            ("RUNTIME_DIRECTORY", self.path("run").into()),
            ("STATE_DIRECTORY", self.path("state").into()),
        ]
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// Runs git, which must succeed.
    pub(crate) fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        let said = self.try_git(directory, arguments);
        assert_eq!(said.status, 0, "git {arguments:?}: {said:?}");
        said.out.trim_end().to_owned()
    }

    pub(crate) fn try_git(&self, directory: &Path, arguments: &[&str]) -> Completed {
        Completed::of(&self.command("git").current_dir(directory).args(arguments).output().unwrap())
    }

    pub(crate) fn git_with_input(&self, directory: &Path, arguments: &[&str], input: &[u8]) -> String {
        let mut command = self.command("git");
        command.current_dir(directory).args(arguments);
        let said = run_with_input(&mut command, input);
        assert_eq!(said.status, 0, "git {arguments:?}: {said:?}");
        said.out.trim_end().to_owned()
    }

    /// A new bare repository.
    pub(crate) fn bare(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.git(self.directory.path(), &["init", "-q", "--bare", path.to_str().unwrap()]);
        path
    }

    /// A bare repository `up.git` with a commit on main.
    pub(crate) fn upstream(&self) -> PathBuf {
        let up = self.bare("up.git");
        let work = self.work(&up);
        work.commit("one");
        work.push(&["main"]);
        up
    }

    /// A new bare repository of these formats, whatever those of the sandbox are.
    pub(crate) fn bare_of(&self, name: &str, formats: Formats) -> PathBuf {
        let path = self.path(name);
        let mut command = self.command("git");
        command.env("GIT_DEFAULT_HASH", formats.0).env("GIT_DEFAULT_REF_FORMAT", formats.1);
        assert!(command.args(["init", "-q", "--bare"]).arg(&path).status().unwrap().success());
        path
    }

    /// The object format that the repositories in here do not have.
    pub(crate) fn other_hash(&self) -> &'static str {
        if self.formats.0 == "sha1" { "sha256" } else { "sha1" }
    }

    pub(crate) fn formats(&self) -> Formats {
        self.formats
    }

    /// An object id that repeats one digit.
    pub(crate) fn digits(&self, digit: char) -> String {
        std::iter::repeat_n(digit, if self.formats.0 == "sha1" { 40 } else { 64 }).collect()
    }

    /// Runs another git from now on.
    pub(crate) fn set_git(&mut self, git: &Path) {
        self.path = path_before(Some(git));
    }

    /// The working tree whose `origin` is `bare`; it is made when it is first asked for.
    pub(crate) fn work(&self, bare: &Path) -> Work<'_> {
        let path = self.path(&format!("{}.work", bare.file_name().unwrap().to_str().unwrap()));
        if !path.exists() {
            self.git(self.directory.path(), &["init", "-q", path.to_str().unwrap()]);
            self.git(&path, &["remote", "add", "origin", bare.to_str().unwrap()]);
        }
        Work { sandbox: self, path }
    }

    /// The `git-mirror-push` binary, called for this repository.
    pub(crate) fn program(&self, repository: &Path) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        command.arg("--git-dir").arg(repository);
        command
    }

    pub(crate) fn mirror_push(&self, repository: &Path, arguments: &[&str]) -> Completed {
        Completed::of(&self.program(repository).args(arguments).output().unwrap())
    }

    pub(crate) fn mirror_push_with_input(&self, repository: &Path, arguments: &[&str], input: &str) -> Completed {
        run_with_input(self.program(repository).args(arguments), input.as_bytes())
    }

    /// Runs `git mirror-push` for this repository. Fails if its exit status is not 0.
    pub(crate) fn mirror_push_ok(&self, repository: &Path, arguments: &[&str]) -> Completed {
        let said = self.mirror_push(repository, arguments);
        assert_eq!(said.status, 0, "git mirror-push {arguments:?}: {said:?}");
        said
    }

    /// A source with the hook and one mirror, drained only when the test says so.
    pub(crate) fn source(&self, url: &str, options: &[&str]) -> PathBuf {
        self.source_named("source.git", url, options)
    }

    /// The same under another name.
    pub(crate) fn source_named(&self, name: &str, url: &str, options: &[&str]) -> PathBuf {
        let source = self.bare(name);
        std::fs::create_dir_all(source.join("mirror-push")).unwrap();
        std::fs::write(source.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
        let mut arguments = vec!["add", "m", url];
        arguments.extend(options);
        self.mirror_push_ok(&source, &arguments);
        if is_variant("looking") {
            self.add_mirror_config(&source, "optimistic = false");
        }
        source
    }

    /// Adds lines to the configuration of mirror `m`.
    pub(crate) fn add_mirror_config(&self, source: &Path, lines: &str) {
        let config = source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("[remotes.m]\n", &format!("[remotes.m]\n{lines}\n"))).unwrap();
    }

    /// All branches and tags with their values.
    pub(crate) fn refs(&self, repository: &Path) -> Vec<String> {
        let all =
            self.git(repository, &["for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags"]);
        all.lines().map(str::to_owned).collect()
    }

    /// The value of one ref. Empty if there is no such ref.
    pub(crate) fn oid(&self, repository: &Path, name: &str) -> String {
        self.try_git(repository, &["rev-parse", "--verify", "-q", name]).out.trim().to_owned()
    }

    /// What `status --json` says, for each mirror.
    pub(crate) fn statuses(&self, repository: &Path) -> serde_json::Value {
        self.mirror_push(repository, &["status", "--json"]).json()
    }

    /// What `status --json` says of the only mirror.
    pub(crate) fn status(&self, repository: &Path) -> serde_json::Value {
        self.statuses(repository)[0].clone()
    }

    /// Adds a commit to a branch of the mirror. Our repository does not have this commit.
    pub(crate) fn theirs(&self, mirror: &Path, branch: &str) -> String {
        let oid = self.git(mirror, &["commit-tree", "-m", "theirs", "-p", branch, &format!("{branch}^{{tree}}")]);
        self.git(mirror, &["update-ref", &format!("refs/heads/{branch}"), &oid]);
        oid
    }

    /// The outcome of every ref in the output of a command with `--json`: `drain`, `sync`, `pull`,
    /// `plan`.
    pub(crate) fn outcomes(&self, said: &Completed) -> Vec<(String, String)> {
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let reports = said.json();
        let refs = reports.as_array().unwrap().iter().flat_map(|report| report["refs"].as_array().unwrap().clone());
        refs.map(|entry| (word(&entry["ref"]), word(&entry["outcome"]))).collect()
    }
}

pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Completed {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // This fails if the program ends before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let said = Completed::of(&child.wait_with_output().unwrap());
    writer.join().unwrap();
    said
}

/// Waits for the end of one of our processes; returns its exit status and its peak memory in KiB.
pub(crate) fn peak_of(mut child: std::process::Child) -> (i32, u64) {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().unwrap_or(-1), peak);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Says why a test, or a part of it, did not run. `tests/run` shows these lines and counts them.
pub(crate) fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let line = format!("SKIPPED {name}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("MIRROR_PUSH_SKIPPED") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Whether this test runs as root. If it does not, it counts as skipped.
pub(crate) fn is_root(what_needs_it: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(&format!("not root: {what_needs_it}"));
    }
    is_root
}

/// Writes an executable script.
pub(crate) fn script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits until a program has opened the lock of mirror `m`.
pub(crate) fn wait_at_lock(program: &std::process::Child) {
    wait_for("the program at the lock", || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap();
        files.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).any(|file| file.ends_with("remotes/m/lock"))
    });
}

/// Waits until `is_there` returns true. Fails after 30 seconds.
pub(crate) fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_there() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited 30 seconds for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) struct Work<'s> {
    sandbox: &'s Sandbox,
    pub(crate) path: PathBuf,
}

impl Work<'_> {
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.sandbox.git(&self.path, arguments)
    }

    /// An empty commit on the current branch.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn push(&self, refspecs: &[&str]) -> Completed {
        let mut arguments = vec!["push", "-q", "origin"];
        arguments.extend(refspecs);
        let said = self.sandbox.try_git(&self.path, &arguments);
        assert_eq!(said.status, 0, "{said:?}");
        said
    }
}
