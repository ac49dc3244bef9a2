//! The installed program, as a new user meets it: install.sh installs it below an empty prefix, and the tests call it as the README does.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::scene::sandbox::{Completed, Sandbox, script, skip, wait_for};

/// A sandbox in which the program is installed below a prefix of its own. The `bin` of the prefix is first on PATH.
pub(crate) struct Installed {
    pub(crate) sandbox: Sandbox,
    pub(crate) prefix: PathBuf,
    path: OsString,
}

fn said(command: &mut Command) -> Completed {
    let output = command.output().unwrap();
    Completed {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A script of this project, with the developer's environment, because it runs the developer's cargo. The variables that cargo sets for
/// a test are removed: a shell does not have them, and because of them build scripts would build everything again.
fn developers(name: &str) -> Command {
    let mut script = Command::new(root().join(name));
    let is_told = |name: &str| name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&name);
    std::env::vars().filter(|(name, _)| is_told(name)).for_each(|(name, _)| {
        script.env_remove(name);
    });
    script
}

fn install(arguments: &[&str]) {
    let said = said(developers("install.sh").args(arguments));
    assert_eq!(said.status, 0, "{said:?}");
}

impl Installed {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new();
        let prefix = sandbox.path("prefix");
        install(&["--prefix", prefix.to_str().unwrap()]);
        let usual = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([prefix.join("bin")].into_iter().chain(std::env::split_paths(&usual))).unwrap();
        Self { sandbox, prefix, path }
    }

    fn run(&self, directory: &Path, words: &[&str]) -> Completed {
        said(self.command(words[0]).current_dir(directory).args(&words[1..]))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.sandbox.command(program);
        command.env("PATH", &self.path);
        command
    }

    pub(crate) fn ok(&self, directory: &Path, words: &[&str]) -> Completed {
        let said = self.run(directory, words);
        assert_eq!(said.status, 0, "{words:?}: {said:?}");
        said
    }
}

/// Under `sudo`, the user's cargo is not on PATH. install.sh then installs what the user has built, or says that nothing is built.
#[test]
fn without_cargo_what_is_built_is_installed() {
    let here = Installed::new();
    let without = |prefix: &Path, target: Option<&Path>| {
        let mut script = developers("install.sh");
        script.env("PATH", "/usr/bin:/bin").arg("--prefix").arg(prefix);
        target.into_iter().for_each(|target| {
            script.env("CARGO_TARGET_DIR", target);
        });
        said(&mut script)
    };
    if ["/usr/bin/cargo", "/bin/cargo"].iter().any(|cargo| Path::new(cargo).exists()) {
        return skip("cargo is where every user has it");
    }
    let (second, empty) = (here.sandbox.path("second"), here.sandbox.path("empty"));
    let done = without(&second, None);
    assert_eq!(done.status, 0, "{done:?}");
    for name in ["bin/git-mirror-push", "libexec/git-mirror-push/git-mirror-post-receive"] {
        assert!(std::fs::read(second.join(name)).unwrap() == std::fs::read(here.prefix.join(name)).unwrap(), "{name}");
    }
    let third = here.sandbox.path("third");
    let done = without(&third, Some(&empty));
    assert!(done.status == 1 && done.err.contains("install the Rust toolchain"), "{done:?}");
    // The programs are older than the sources.
    let release = empty.join("release");
    std::fs::create_dir_all(&release).unwrap();
    for name in ["git-mirror-push", "git-remote-mirror", "git-mirror-post-receive"] {
        script(&release.join(name), "exit 0");
        std::fs::File::options().append(true).open(release.join(name)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    let done = without(&third, Some(&empty));
    assert!(done.status == 1 && done.err.contains("the sources have changed since"), "{done:?}");
    assert!(!third.exists());
}

#[test]
fn five_minutes_of_a_new_user() {
    let here = Installed::new();
    let (source, mirror) = (here.sandbox.bare("widget.git"), here.sandbox.bare("mirror.git"));
    here.ok(&source, &["git", "mirror-push", "add", "backup", mirror.to_str().unwrap()]);
    let work = here.sandbox.work(&source);
    work.commit("one");
    here.ok(&work.path, &["git", "push", "-q", "origin", "main"]);
    wait_for("the woken drain", || here.sandbox.refs(&mirror) == here.sandbox.refs(&source));
    wait_for("the status", || here.run(&source, &["git", "mirror-push", "status"]).status == 0);
    here.ok(&source, &["git", "mirror-push", "doctor", "-q"]);
    assert!(here.ok(&source, &["git", "ls-remote", "mirror::backup"]).out.contains("refs/heads/main"));
    assert!(here.ok(&source, &["git", "help", "-a"]).out.contains("mirror-push"));
    for page in ["man1/git-mirror-push.1", "man1/git-remote-mirror.1", "man5/git-mirror-push-config.5"] {
        let text = std::fs::read_to_string(here.prefix.join("share/man").join(page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(".SH NAME") && text.lines().count() > 15, "{page}");
    }
    let listed = here.prefix.to_str().unwrap().to_owned();
    install(&["--uninstall", "--prefix", &listed]);
    let left = said(here.sandbox.command("find").args([&listed, "-type", "f"])).out;
    assert_eq!(left, "", "uninstall leaves no file");
}

/// Checks a repository that has a hook already, which `make` writes. If that hook is executable, it must get the same input as ours.
/// Uninstalling our hook must restore it unchanged.
fn chained(here: &Installed, name: &str, make: &dyn Fn(&Path, &str)) {
    let source = here.sandbox.bare(&format!("{name}.git"));
    let mirror = here.sandbox.bare(&format!("{name}-mirror.git"));
    let seen = here.sandbox.path(&format!("{name}.seen"));
    let hook = source.join("hooks/post-receive");
    make(&hook, &format!("cat > '{}'", seen.display()));
    let look = |path: &Path| {
        let data = std::fs::symlink_metadata(path).unwrap();
        (data.mode(), data.mtime(), data.mtime_nsec(), std::fs::read_link(path).ok(), std::fs::read(path).unwrap())
    };
    let before = look(&hook);
    for _ in 0..2 {
        here.ok(&source, &["git", "mirror-push", "add", "m", mirror.to_str().unwrap()]);
        here.ok(&source, &["git", "mirror-push", "install-hook"]);
        let work = here.sandbox.path(&format!("{name}.work"));
        here.ok(&here.sandbox.path(""), &["git", "clone", "-q", source.to_str().unwrap(), work.to_str().unwrap()]);
        here.ok(&work, &["git", "commit", "-q", "--allow-empty", "-m", name]);
        here.ok(&work, &["git", "push", "-q", "origin", "HEAD:refs/heads/main"]);
        let line = std::fs::read_to_string(&seen).unwrap_or_default();
        let is_run = before.0 & 0o111 != 0;
        assert_eq!(line.trim_end().ends_with("refs/heads/main"), is_run, "{name}: {line}");
        wait_for("the mirror", || here.sandbox.refs(&mirror) == here.sandbox.refs(&source));
        here.ok(&source, &["git", "mirror-push", "uninstall-hook"]);
        assert_eq!(look(&hook), before, "{name}: byte for byte, mode and time included");
        here.ok(&source, &["git", "mirror-push", "remove", "m"]);
        std::fs::remove_dir_all(work).unwrap();
        let _ = std::fs::remove_file(&seen);
    }
}

#[test]
fn six_kinds_of_previous_hooks_work_as_before() {
    let here = Installed::new();
    chained(&here, "script", &|hook, act| script(hook, &format!("#!/bin/sh\n{act}\n")));
    chained(&here, "python", &|hook, act| {
        script(hook, &format!("#!/usr/bin/env python3\nimport os\nos.system(\"\"\"{act}\"\"\")\n"));
    });
    chained(&here, "binary", &|hook, act| {
        let source = hook.with_file_name("hook.c");
        let text = format!("#include <stdlib.h>\nint main(void) {{ return system(\"{act}\"); }}\n");
        std::fs::write(&source, text).unwrap();
        let built = here.command("gcc").arg("-o").arg(hook).arg(&source).status().unwrap();
        assert!(built.success());
    });
    chained(&here, "symlink", &|hook, act| {
        let common = here.sandbox.path("common/post-receive");
        script(&common, &format!("#!/bin/sh\n{act}\n"));
        std::os::unix::fs::symlink(&common, hook).unwrap();
    });
    chained(&here, "silent", &|hook, act| {
        script(hook, &format!("#!/bin/sh\n{act}\n"));
        std::fs::set_permissions(hook, std::fs::Permissions::from_mode(0o644)).unwrap();
    });
    chained(&here, "dispatcher", &|hook, act| {
        script(&hook.with_file_name("post-receive.d/10-act"), &format!("#!/bin/sh\n{act}\n"));
        let run = "#!/bin/sh\ninput=$(cat)\nfor hook in \"$0\".d/* hooks/post-receive.d/*; do\n[ -x \"$hook\" ] && printf '%s\\n' \"$input\" | \"$hook\"\ndone\nexit 0\n";
        script(hook, run);
    });
}

#[test]
fn repositories_made_from_a_template_have_the_hook() {
    let here = Installed::new();
    let sample = here.sandbox.bare("sample.git");
    here.ok(&sample, &["git", "mirror-push", "install-hook"]);
    let template = here.sandbox.path("template");
    std::fs::create_dir(&template).unwrap();
    assert!(here.command("cp").arg("-a").arg(sample.join("hooks")).arg(&template).status().unwrap().success());
    here.ok(&template, &["git", "config", "--global", "init.templateDir", template.to_str().unwrap()]);
    let (source, mirror) = (here.sandbox.bare("new.git"), here.sandbox.bare("mirror.git"));
    assert!(std::fs::read_link(source.join("hooks/post-receive")).is_ok());
    here.ok(&source, &["git", "mirror-push", "add", "m", mirror.to_str().unwrap()]);
    let work = here.sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the mirror", || here.sandbox.refs(&mirror) == here.sandbox.refs(&source));
}

#[test]
fn a_repository_of_gitolite() {
    let here = Installed::new();
    let home = here.sandbox.path("home");
    let mirror = here.sandbox.bare("mirror.git");
    let key = here.sandbox.path("admin");
    here.ok(&home, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    let gitolite =
        |words: &[&str]| said(here.command("gitolite").args(words).env("USER", "git").env("GL_USER", "admin"));
    let set_up = gitolite(&["setup", "-pk", &format!("{}.pub", key.display())]);
    assert_eq!(set_up.status, 0, "{set_up:?}");
    let source = home.join("repositories/testing.git");
    here.ok(&source, &["git", "mirror-push", "add", "m", mirror.to_str().unwrap()]);
    let update = std::fs::read_link(source.join("hooks/update")).unwrap();
    let work = here.sandbox.work(&source);
    work.commit("one");
    let push = |refspec: &str| {
        let mut push = here.command("git");
        push.current_dir(&work.path).args(["push", "-q", "origin", refspec]);
        push.env("GL_BYPASS_ACCESS_CHECKS", "1").env("GL_USER", "admin").env("GL_REPO", "testing");
        said(push.env("GL_LIBDIR", "/usr/share/gitolite3/lib").env("GL_BINDIR", "/usr/share/gitolite3"))
    };
    let pushed = push("main");
    assert_eq!(pushed.status, 0, "{pushed:?}");
    wait_for("the mirror", || here.sandbox.oid(&mirror, "main") == here.sandbox.oid(&source, "main"));
    // `gitolite setup` makes its links again. Our hook still works, and gitolite's `update` hook is unchanged.
    assert_eq!(gitolite(&["setup"]).status, 0);
    assert_eq!(std::fs::read_link(source.join("hooks/update")).unwrap(), update);
    work.commit("two");
    assert_eq!(push("main").status, 0);
    wait_for("the mirror", || here.sandbox.oid(&mirror, "main") == here.sandbox.oid(&source, "main"));
}

#[test]
fn systemd_units_are_valid_and_hardened() {
    let here = Installed::new();
    let units = here.prefix.join("lib/systemd/system");
    for entry in std::fs::read_dir(&units).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().replace("@.", "@srv-x.git.");
        let instance = here.sandbox.path(&name);
        std::fs::copy(&path, &instance).unwrap();
        for other in std::fs::read_dir(&units).unwrap() {
            let other = other.unwrap().path();
            let _ = std::fs::copy(&other, here.sandbox.path(other.file_name().unwrap().to_str().unwrap()));
        }
        let verified = said(here.command("systemd-analyze").args(["verify", "--man=no"]).arg(&instance));
        let ours: Vec<&str> = verified.err.lines().filter(|line| line.contains("git-mirror-push")).collect();
        assert!(verified.status == 0 && ours.is_empty(), "{name}: {verified:?}");
        if name.ends_with(".service") {
            let words = ["security", "--offline=yes", "--no-pager", "--threshold=25"];
            let exposed = said(here.command("systemd-analyze").args(words).arg(&instance));
            assert_eq!(exposed.status, 0, "{name}: {}", exposed.out.lines().last().unwrap_or_default());
        }
    }
}

#[test]
fn a_debian_package_installs_runs_and_purges() {
    let sandbox = Sandbox::new();
    let package = sandbox.path("git-mirror-push.deb");
    let built = said(developers("dist/deb").arg(&package));
    assert_eq!(built.status, 0, "{built:?}");
    let target = sandbox.path("target");
    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(target.join(directory)).unwrap();
    }
    std::fs::write(target.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |words: &[&str]| {
        let root = format!("--root={}", target.display());
        let all = ["--force-depends", "--force-not-root", "--log=/dev/null", &root];
        let said = said(sandbox.command("dpkg").args(all).args(words));
        assert_eq!(said.status, 0, "{said:?}");
    };
    dpkg(&["-i", package.to_str().unwrap()]);
    let program = target.join("usr/bin/git-mirror-push");
    let source = sandbox.bare("source.git");
    let mirror = sandbox.bare("mirror.git");
    let run = |words: &[&str]| said(sandbox.command(&program).arg("--git-dir").arg(&source).args(words));
    assert_eq!(run(&["add", "m", mirror.to_str().unwrap()]).status, 0);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    wait_for("the mirror", || sandbox.refs(&mirror) == sandbox.refs(&source));
    dpkg(&["--purge", "git-mirror-push"]);
    let left = said(sandbox.command("find").arg(target.join("usr")).args(["-type", "f"])).out;
    assert_eq!(left, "", "the purge leaves no file");
    assert!(!program.exists());
}

#[test]
fn a_thousand_repositories_by_one_template() {
    let here = Installed::new();
    const COUNT: usize = 1000;
    for directory in ["git", "mirrors"] {
        std::fs::create_dir(here.sandbox.path(directory)).unwrap();
    }
    let empty = here.sandbox.bare("empty.git");
    for hook in std::fs::read_dir(empty.join("hooks")).unwrap() {
        std::fs::remove_file(hook.unwrap().path()).unwrap();
    }
    let script = "import shutil, sys\nfor n in range(int(sys.argv[1])):\n    for to in ('git', 'mirrors'):\n        shutil.copytree('empty.git', f'{to}/r{n}.git')\n";
    here.ok(&here.sandbox.path(""), &["python3", "-c", script, &COUNT.to_string()]);
    let file = here.sandbox.path("server.toml");
    let (roots, mirrors) = (here.sandbox.path("git"), here.sandbox.path("mirrors"));
    let text = format!(
        "wake = \"none\"\n[[repositories]]\nroot = \"{}\"\n[remotes.backup]\nurl = \"{}/{{path}}.git\"\n",
        roots.display(),
        mirrors.display()
    );
    std::fs::write(&file, text).unwrap();
    let run = |words: &[&str]| {
        let all = [&["git", "mirror-push", "--config", file.to_str().unwrap()], words].concat();
        here.run(&here.sandbox.path(""), &all)
    };
    assert_eq!(run(&["install-hook", "--all"]).status, 0);
    let work = here.sandbox.path("work");
    here.ok(&here.sandbox.path(""), &["git", "init", "-q", work.to_str().unwrap()]);
    here.ok(&work, &["git", "commit", "-q", "--allow-empty", "-m", "one"]);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (here, work, roots, file) = (&here, &work, &roots, &file);
            scope.spawn(move || {
                for n in (part..COUNT).step_by(4) {
                    let to = roots.join(format!("r{n}.git"));
                    let mut push = here.command("git");
                    push.current_dir(work).args(["push", "-q"]).arg(to).arg("HEAD:refs/heads/main");
                    let said = said(push.env("GIT_MIRROR_PUSH_CONFIG", file));
                    assert_eq!((said.status, &*said.err), (0, ""), "{said:?}");
                }
            });
        }
    });
    let drained = run(&["drain", "--all", "-q"]);
    assert_eq!((drained.status, &*drained.err), (0, ""), "{drained:?}");
    let oid = here.sandbox.git(&work, &["rev-parse", "HEAD"]);
    for n in 0..COUNT {
        let there = std::fs::read_to_string(mirrors.join(format!("r{n}.git/refs/heads/main"))).unwrap();
        assert_eq!(there.trim(), oid, "{n}");
    }
    let status = run(&["status", "--all"]);
    assert_eq!(
        status.out.lines().next(),
        Some("1000 mirrors: 1000 finished, 0 failed, 0 scheduled, 0 started, 0 never tried, 0 disabled")
    );
    assert_eq!(status.out.lines().count(), 1, "a thousand healthy mirrors take one line");
}
