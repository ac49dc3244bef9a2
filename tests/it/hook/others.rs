//! The hook beside other hooks: earlier ones, `core.hooksPath`, links and dispatchers.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::records::incoming;
use crate::scene::sandbox::{Sandbox, run_with_input, script};

#[test]
fn a_previous_hook_runs_first_and_uninstall_restores_it() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.bare("source.git");
    std::fs::create_dir_all(source.join("mirror-push")).unwrap();
    std::fs::write(source.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    let hook = source.join("hooks/post-receive");
    let seen = sandbox.path("seen");
    script(
        &hook,
        &format!(
            "#!/bin/sh\necho from the previous hook\ncat > '{}'\nls mirror-push/spool/incoming >> '{}'\nexit 3\n",
            seen.display(),
            seen.display()
        ),
    );
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (before, bytes) = (std::fs::metadata(&hook).unwrap(), std::fs::read(&hook).unwrap());
    sandbox.mirror_push_ok(&source, &["add", "m", "mirror.git"]);
    sandbox.mirror_push_ok(&source, &["install-hook"]);
    let work = sandbox.work(&source);
    let oid = work.commit("one");
    let said = work.push(&["main"]);
    assert!(said.err.contains("remote: from the previous hook"), "{said:?}");
    assert_eq!(
        std::fs::read_to_string(&seen).unwrap(),
        format!("{} {oid} refs/heads/main\n", sandbox.digits('0')),
        "the previous hook runs before the record is written, with the same input"
    );
    assert_eq!(incoming(&source).len(), 1);
    let line = format!("{} {oid} refs/heads/x\n", sandbox.digits('0'));
    let said = run_with_input(sandbox.command(&hook).current_dir(&source).env("GIT_DIR", "."), line.as_bytes());
    assert_eq!(said.status, 3, "the exit status of the previous hook is kept");
    for _ in 0..2 {
        sandbox.mirror_push_ok(&source, &["uninstall-hook"]);
        let after = std::fs::symlink_metadata(&hook).unwrap();
        assert_eq!(
            (after.mode(), after.mtime(), after.mtime_nsec()),
            (before.mode(), before.mtime(), before.mtime_nsec())
        );
        assert_eq!(std::fs::read(&hook).unwrap(), bytes);
    }
    // git runs no hook that is not executable. So our hook does not run such a previous hook either.
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o644)).unwrap();
    sandbox.mirror_push_ok(&source, &["install-hook"]);
    std::fs::remove_file(&seen).unwrap();
    work.commit("two");
    work.push(&["main"]);
    assert!(!seen.exists());
}

#[test]
fn hooks_path_is_respected() {
    let sandbox = Sandbox::new();
    let source = sandbox.bare("source.git");
    sandbox.git(&source, &["config", "core.hooksPath", "elsewhere"]);
    sandbox.mirror_push_ok(&source, &["install-hook"]);
    assert!(std::fs::read_link(source.join("elsewhere/post-receive")).is_ok());
    assert!(!source.join("hooks/post-receive").exists());
    sandbox.mirror_push_ok(&source, &["uninstall-hook"]);
    assert!(!source.join("elsewhere/post-receive").exists());
}

#[test]
fn the_directory_of_hooks_is_the_one_that_git_names() {
    let sandbox = Sandbox::new();
    let source = sandbox.bare("source.git");
    let absolute = sandbox.path("absolute").display().to_string();
    for (file, value) in [
        ("--local", "elsewhere"),
        ("--local", "../beside"),
        ("--local", &*absolute),
        ("--local", "~/hooks"),
        ("--global", "~/of-all"),
    ] {
        sandbox.git(&source, &["config", file, "core.hooksPath", value]);
        let git = sandbox.git(&source, &["rev-parse", "--git-path", "hooks"]);
        sandbox.mirror_push_ok(&source, &["install-hook"]);
        let hook = source.join(git.trim()).join("post-receive");
        assert!(std::fs::read_link(&hook).is_ok(), "{value}: {}", hook.display());
        sandbox.mirror_push_ok(&source, &["uninstall-hook"]);
        sandbox.git(&source, &["config", file, "--unset", "core.hooksPath"]);
    }
}

#[test]
fn the_doctor_finds_our_hook_behind_links_scripts_and_dispatchers() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &["--disabled"]);
    sandbox.mirror_push_ok(&source, &["set", "m", "enabled=true"]);
    let hooks = source.join("hooks");
    let ours = std::fs::read_link(hooks.join("post-receive")).unwrap();
    let seen = || {
        let found = sandbox.mirror_push(&source, &["doctor", "--json"]).json();
        let hook = found.as_array().unwrap().iter().find(|finding| finding["check"] == "hook").unwrap().clone();
        hook["severity"] == "ok"
    };
    let clear = || {
        std::fs::remove_dir_all(&hooks).unwrap();
        std::fs::create_dir(&hooks).unwrap();
    };
    let put = |name: &str, text: &str| script(&hooks.join(name), text);
    let dispatcher = "#!/bin/sh\nfor hook in \"$0\".h*; do \"$hook\" \"$@\"; done\n";
    assert!(seen());
    clear();
    assert!(!seen());
    // A link to a link.
    std::os::unix::fs::symlink(&ours, hooks.join("first")).unwrap();
    std::os::unix::fs::symlink("first", hooks.join("post-receive")).unwrap();
    assert!(seen());
    clear();
    put("post-receive", &format!("#!/bin/sh\ntee >(logger) | {}\n", ours.display()));
    assert!(seen());
    sandbox.mirror_push_ok(&source, &["install-hook"]);
    assert!(!hooks.join("post-receive.previous").exists(), "a chained script that runs our hook would run it twice");
    std::fs::set_permissions(hooks.join("post-receive"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!seen(), "git runs no hook that is not executable");
    clear();
    // A dispatcher like gitolite's runs the files beside it (`post-receive.h*`).
    put("post-receive", dispatcher);
    assert!(!seen());
    std::os::unix::fs::symlink(&ours, hooks.join("post-receive.h00-mirror")).unwrap();
    assert!(seen());
    std::fs::remove_file(hooks.join("post-receive")).unwrap();
    assert!(!seen(), "without the dispatcher nothing runs the file beside it");
    clear();
    put("post-receive", &dispatcher.replace(".h*", ".d/*"));
    std::fs::create_dir(hooks.join("post-receive.d")).unwrap();
    std::os::unix::fs::symlink(&ours, hooks.join("post-receive.d/mirror")).unwrap();
    assert!(seen());
    put("post-receive", "#!/bin/sh\n# git-mirror-post-receive and $0.d/* ran here once\nexit 0\n");
    assert!(!seen(), "this one runs nothing");
    // A named pipe in place of the hook must not block the check.
    clear();
    let made = std::process::Command::new("mkfifo").arg("-m755").arg(hooks.join("post-receive")).status().unwrap();
    assert!(made.success() && !seen());
}
