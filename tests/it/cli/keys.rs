//! Keys, pins and passwords: made, shown, detected, found wherever they are kept, and never leaked.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Completed, Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, PASSWORD, Server, USER};

fn pushed(sandbox: &Sandbox, source: &Path) {
    let work = sandbox.work(source);
    work.commit("one");
    work.push(&["main"]);
}

#[test]
fn a_key_is_made_authorised_and_used_and_the_host_is_pinned_after_a_yes() {
    for (kind, file) in [("ed25519", "id_ed25519"), ("rsa", "id_rsa")] {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Ssh);
        let options = ["--auth-method", "ssh_public_key", "--key-type", kind];
        let source = sandbox.source(&server.url("mirror.git"), &options);
        pushed(&sandbox, &source);
        let directory = source.join("mirror-push/remotes/m");
        let mode = |name: &str| std::fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file), 0o600);
        let key = sandbox.mirror_push_ok(&source, &["public-key", "m"]).out;
        assert!(key.starts_with(&format!("ssh-{kind} ")) && key.lines().count() == 1, "{key}");
        assert_eq!(sandbox.mirror_push_ok(&source, &["public-key", "m"]).out, key, "it is made once");
        // Neither the host nor we are known yet.
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert!(said.out.contains("host key") && said.json()[0]["update_status"] == "failed", "{said:?}");
        let said = sandbox.mirror_push(&source, &["host-keys", "m", "--detect"]);
        assert!(said.status == 1 && said.out.contains("SHA256:") && said.out.contains("MD5:"), "{said:?}");
        assert!(said.err.contains("nothing was pinned") && !directory.join("known_hosts").exists(), "{said:?}");
        let fingerprint = sandbox.command("ssh-keygen").args(["-lf", "ssh/host.pub"]).output().unwrap().stdout;
        let fingerprint = String::from_utf8(fingerprint).unwrap().split(' ').nth(1).unwrap().to_owned();
        assert!(said.out.contains(&fingerprint), "{fingerprint}: {said:?}");
        sandbox.mirror_push_ok(&source, &["host-keys", "m", "--detect", "--yes"]);
        let status = sandbox.status(&source);
        assert_eq!(status["host_keys"], serde_json::json!([{"fingerprint_sha256": fingerprint}]));
        let said = sandbox.mirror_push(&source, &["sync", "--json"]);
        assert!(said.status == 1 && said.out.contains("refused the credentials"), "{said:?}");
        std::fs::write(sandbox.path("ssh/authorized_keys"), key).unwrap();
        sandbox.mirror_push_ok(&source, &["sync"]);
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
        let said = sandbox.mirror_push_ok(&source, &["host-keys", "m", "--detect"]);
        assert!(said.err.contains("pinned already"), "{said:?}");
    }
}

/// A user of this machine with a password, gone when the test ends.
struct User(String);

impl User {
    /// The name contains the id of this process, so that two runs on one machine use different users.
    fn new(sandbox: &Sandbox, password: &str) -> Self {
        let name = format!("gmp-it-{}", std::process::id());
        let shell = ["-M", "-d", "/tmp", "-s", "/bin/sh", &name];
        assert!(sandbox.command("/usr/sbin/useradd").args(shell).status().unwrap().success());
        let said =
            run_with_input(&mut sandbox.command("/usr/sbin/chpasswd"), format!("{name}:{password}\n").as_bytes());
        assert_eq!(said.status, 0, "{said:?}");
        Self(name)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = std::process::Command::new("/usr/sbin/userdel").args(["-f", &self.0]).output();
    }
}

#[test]
fn a_password_over_ssh_goes_through_askpass_and_nowhere_else() {
    if !crate::scene::sandbox::is_root("a user with a password is needed") {
        return;
    }
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let user = User::new(&sandbox, PASSWORD);
    assert!(sandbox.command("chown").args(["-R", &*user.0]).arg(&mirror).status().unwrap().success());
    std::fs::set_permissions(sandbox.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.git(&sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    let server = Server::start(&sandbox, Kind::Ssh);
    let url = server.url("mirror.git").replace("ssh://", &format!("ssh://{}@", user.0));
    let source = sandbox.source(&url, &["--auth-method", "password"]);
    server.configure_access(&sandbox, &source, "m");
    std::fs::remove_file(source.join("mirror-push/remotes/m/id_ed25519")).unwrap();
    pushed(&sandbox, &source);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    assert!(said.status == 1 && said.out.contains("refused the credentials"), "{said:?}");
    let said = sandbox.mirror_push_with_input(&source, &["credential", "m"], &format!("{PASSWORD}\n"));
    assert_eq!(said.status, 0, "{said:?}");
    // strace shows the arguments and the environment of every program that is started.
    let strace = sandbox.path("strace");
    let mut command = sandbox.command("strace");
    command.args(["-f", "-qq", "-v", "-s", "4096", "-e", "trace=execve", "-o"]).arg(&strace);
    command.arg(env!("CARGO_BIN_EXE_git-mirror-push")).arg("--git-dir").arg(&source).arg("sync");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
    let calls = std::fs::read_to_string(strace).unwrap();
    assert!(calls.contains("SSH_ASKPASS") && !calls.contains(PASSWORD), "no argument or environment holds it");
    let said = sandbox.mirror_push_with_input(&source, &["credential", "m"], "wrong\n");
    assert_eq!(said.status, 0);
    let said = sandbox.mirror_push(&source, &["sync", "--json"]);
    assert_eq!((said.status, &said.json()[0]["update_status"]), (1, &"failed".into()), "{said:?}");
    // The password of a URL is stored in a file of its own.
    let with = server
        .url("mirror.git")
        .replace("ssh://", &format!("ssh://{}:{}@", user.0, crate::scene::servers::PASSWORD_IN_URL));
    sandbox.mirror_push_ok(&source, &["set", "m", "--url", &with]);
    let config = std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(!config.contains(crate::scene::servers::PASSWORD_IN_URL), "{config}");
    sandbox.mirror_push_ok(&source, &["sync"]);
}

#[test]
fn a_jump_host_that_asks_does_not_get_the_mirrors_password() {
    let plain = Sandbox::new();
    let (bin, heard) = (plain.path("bin"), plain.path("heard"));
    // A host on the way to the mirror may ask with the same words as ssh. The `ssh -G` of this test prints nothing, so the mirror's host
    // has no other name.
    let text = "#!/bin/sh\n[ $1 = -G ] && exit\necho \"WHO: $($SSH_ASKPASS \"bot@WHO's password: \" 2>&1)\" >> 'HEARD'\nexit 255\n";
    for (asked_first, expected) in
        [("jump.example.org", "not for the host that asks"), ("mirror.example.org", PASSWORD)]
    {
        let sandbox = Sandbox::with_git(Some(&bin));
        let source = sandbox.source("ssh://bot@mirror.example.org/x.git", &["--auth-method", "password"]);
        pushed(&sandbox, &source);
        sandbox.mirror_push_with_input(&source, &["credential", "m"], &format!("{PASSWORD}\n"));
        let ssh = text.replace("WHO", asked_first).replace("HEARD", heard.to_str().unwrap());
        script(&bin.join("ssh"), &ssh);
        let _ = std::fs::remove_file(&heard);
        assert_eq!(sandbox.mirror_push(&source, &["sync"]).status, 1);
        let said = std::fs::read_to_string(&heard).unwrap();
        assert!(said.contains(&format!("{asked_first}: ")) && said.contains(expected), "{said}");
        assert!(asked_first.starts_with("mirror") || !said.contains(PASSWORD), "{said}");
    }
}

struct Web {
    sandbox: Sandbox,
    mirror: PathBuf,
    source: PathBuf,
    server: Server,
}

impl Web {
    /// A mirror behind http that asks for a password which is not stored.
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let server = Server::start(&sandbox, Kind::Http);
        let url = format!("http://127.0.0.1:{}/mirror.git", server.port());
        let source = sandbox.source(&url, &["--auth-method", "password", "--username", USER]);
        server.configure_access(&sandbox, &source, "m");
        pushed(&sandbox, &source);
        Self { sandbox, mirror, source, server }
    }

    fn works(&self) {
        self.sandbox.mirror_push_ok(&self.source, &["sync"]);
        assert_eq!(self.sandbox.refs(&self.mirror), self.sandbox.refs(&self.source));
    }

    fn fails(&self, words: &str) {
        let said = self.sandbox.mirror_push(&self.source, &["sync", "--json"]);
        assert_eq!((said.status, &said.json()[0]["update_status"]), (1, &"failed".into()), "{said:?}");
        assert!(said.out.contains(words), "'{words}' is not in {said:?}");
        assert!(!said.out.contains(PASSWORD) && !said.err.contains(PASSWORD), "{said:?}");
    }

    fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.sandbox.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

#[test]
fn the_command_credential_stores_and_removes_a_password() {
    let web = Web::new();
    web.fails("refused the credentials (HTTP 401)");
    let feed = |text: &str| web.sandbox.mirror_push_with_input(&web.source, &["credential", "m"], text).status;
    assert_eq!(feed(&format!("{PASSWORD}\n")), 0);
    web.works();
    for nothing in ["", "\n"] {
        assert_eq!(feed(nothing), 129, "a command that failed gives an empty pipe");
        web.works();
    }
    web.sandbox.mirror_push_ok(&web.source, &["credential", "m", "--clear"]);
    assert!(!web.source.join("mirror-push/remotes/m/secret").exists());
    web.fails("HTTP 401");
}

#[test]
fn on_a_terminal_the_password_is_asked_for_and_not_shown() {
    let web = Web::new();
    let talk = "
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:-1])
seen = b''
while b'Password' not in seen:
    seen += os.read(terminal, 1024)
# The program prompts first and turns the echo off afterwards. A person types only then.
limit = time.monotonic() + 20
while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < limit:
    time.sleep(0.001)
os.write(terminal, sys.argv[-1].encode() + b'\\n')
try:
    while True:
        part = os.read(terminal, 1024)
        if not part: break
        seen += part
except OSError:
    pass
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let program = env!("CARGO_BIN_EXE_git-mirror-push");
    let mut python = web.sandbox.command("python3");
    python.args(["-c", talk, program, "--git-dir"]).arg(&web.source).args(["credential", "m", PASSWORD]);
    let output = python.output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && seen.contains("Password or token for http://127.0.0.1"), "{seen}");
    assert!(!seen.contains(PASSWORD), "{seen}");
    web.works();
    if !crate::scene::sandbox::is_root("a file of another owner is needed") {
        return;
    }
    std::os::unix::fs::chown(web.source.join("mirror-push/remotes/m/secret"), Some(65_534), None).unwrap();
    web.fails("must belong to you or root");
}

#[test]
fn a_password_from_a_file_and_from_a_command() {
    let web = Web::new();
    let file = web.private("token", &format!("{PASSWORD}\n"));
    web.sandbox.add_mirror_config(&web.source, &format!("password_file = \"{}\"", file.display()));
    web.works();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    web.fails("chmod 600");
    std::fs::remove_file(&file).unwrap();
    web.fails("it is missing or empty");
    let config = web.source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let command = format!("password_command = [\"/bin/echo\", \"{PASSWORD}\"]");
    std::fs::write(&config, text.replace(&format!("password_file = \"{}\"", file.display()), &command)).unwrap();
    web.works();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("/bin/echo", "/bin/false")).unwrap();
    web.fails("password_command: /bin/false failed with exit status 1");
}

#[test]
fn a_password_from_systemd_and_from_netrc() {
    let web = Web::new();
    web.private("m", "\n");
    let empty =
        || web.sandbox.program(&web.source).arg("sync").env("CREDENTIALS_DIRECTORY", web.sandbox.path("")).output();
    web.private("home/.netrc", &format!("machine 127.0.0.1 login {USER} password {PASSWORD}\n"));
    let said = Completed::of(&empty().unwrap());
    assert!(said.status == 1 && format!("{said:?}").contains("its first line is empty"), "{said:?}");
    std::fs::remove_file(web.sandbox.path("home/.netrc")).unwrap();
    web.private("m", &format!("{PASSWORD}\n"));
    let output = web
        .sandbox
        .program(&web.source)
        .arg("sync")
        .env("CREDENTIALS_DIRECTORY", web.sandbox.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    web.fails("HTTP 401");
    web.private("home/.netrc", &format!("machine 127.0.0.1 login {USER} password {PASSWORD}\n"));
    web.works();
}

#[test]
fn a_password_from_gits_credential_helper_which_is_told_whether_it_was_right() {
    let web = Web::new();
    let log = web.sandbox.path("helper.log");
    let helper = format!(
        "#!/bin/sh\necho $1 >> '{}'\ncat >> '{0}.in'\n[ $1 = get ] && echo username={USER} && echo \"password=$(cat '{1}')\"\nexit 0\n",
        log.display(),
        web.sandbox.path("word").display(),
    );
    let path = web.sandbox.path("helper");
    script(&path, &helper);
    web.sandbox.git(&web.source, &["config", "--global", "credential.helper", path.to_str().unwrap()]);
    std::fs::write(web.sandbox.path("word"), PASSWORD).unwrap();
    web.works();
    std::fs::write(web.sandbox.path("word"), "old").unwrap();
    web.fails("HTTP 401");
    let verbs: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(verbs, ["get", "store", "get", "erase"]);
    // 403 is about permissions, and 407 about the proxy: the password may be right.
    for status in ["403", "407"] {
        let url = format!("http://127.0.0.1:{}/status/{status}/x.git", web.server.port());
        web.sandbox.mirror_push_ok(&web.source, &["set", "m", "--url", &url]);
        std::fs::write(&log, "").unwrap();
        assert_eq!(web.sandbox.mirror_push(&web.source, &["sync"]).status, 1);
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "get\n", "{status}");
    }
    web.sandbox.mirror_push_ok(&web.source, &["set", "m", "--url", &web.server.url("mirror.git")]);
    let asked = std::fs::read_to_string(web.sandbox.path("helper.log.in")).unwrap();
    assert!(asked.contains(&format!("host=127.0.0.1:{}\n", web.server.port())), "{asked}");
}

#[test]
fn a_mirror_whose_key_cannot_be_made_is_not_added() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("mirror.git", &[]);
    let config = source.join("mirror-push/config.toml");
    let before = std::fs::read(&config).unwrap();
    // A PATH with git and without ssh-keygen.
    let bin = sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let git = sandbox.command("sh").args(["-c", "command -v git"]).output().unwrap();
    std::os::unix::fs::symlink(String::from_utf8(git.stdout).unwrap().trim(), bin.join("git")).unwrap();
    let mut add = sandbox.program(&source);
    add.env("PATH", &bin).args(["add", "s", "ssh://git@127.0.0.1:1/x.git", "--auth-method", "ssh_public_key"]);
    let said = Completed::of(&add.output().unwrap());
    assert!(said.status == 128 && said.err.contains("ssh-keygen"), "{said:?}");
    assert_eq!(std::fs::read(&config).unwrap(), before);
    sandbox.mirror_push_ok(&source, &["add", "s", "ssh://git@127.0.0.1:1/x.git", "--auth-method", "ssh_public_key"]);
    assert!(sandbox.mirror_push_ok(&source, &["public-key", "s"]).out.starts_with("ssh-ed25519 "));
}

/// What an earlier mirror of the same name left must not be sent to the address of the new one.
#[test]
fn a_mirror_that_is_added_again_has_no_old_password_key_or_base() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let source = sandbox.source(mirror.to_str().unwrap(), &["--auth-method", "ssh_public_key"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    let directory = source.join("mirror-push/remotes/m");
    std::fs::write(directory.join("secret"), "old\n").unwrap();
    for name in ["secret", "id_ed25519", "mirrored", "status.json"] {
        assert!(directory.join(name).exists(), "{name}");
    }
    // First with the mark `removed`, as a killed removal leaves the directory. Then without it, as after an edit of the file by hand.
    for mark in [true, false] {
        let config = source.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.split("[remotes.m]").next().unwrap()).unwrap();
        std::fs::write(directory.join("secret"), "old\n").unwrap();
        if mark {
            std::fs::write(directory.join("removed"), "").unwrap();
        }
        sandbox.mirror_push_ok(&source, &["add", "m", "https://bot@h.invalid/x.git", "--disabled"]);
        let left: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !matches!(&**name, "lock" | "queue"))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "with the mark: {mark}");
    }
}
