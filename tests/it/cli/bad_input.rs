//! Bad input: one clear line, the right exit status, nothing changed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::scene::sandbox::{Completed, Sandbox};

fn one_line(said: &Completed, status: i32, words: &str) {
    assert_eq!(said.status, status, "{said:?}");
    assert!(said.err.contains(words), "'{words}' is not in {said:?}");
    assert!(said.out.is_empty(), "{said:?}");
    if status == 128 || status == 129 && said.err.starts_with("fatal") {
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
        assert!(said.err.starts_with("fatal: "), "{said:?}");
    }
}

/// All paths below a directory, with the bytes of the files.
fn snapshot(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_bad_configuration_names_the_key_the_file_and_the_line() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    let config = source.join("mirror-push/config.toml");
    let remote = "[remotes.m]\nurl = \"/mirror.git\"\n";
    for (text, line, words) in [
        (format!("{remote}colour = 1\n"), 3, "unknown key 'colour'"),
        ("sielnt = true\n".to_owned(), 1, "unknown key 'sielnt'"),
        ("[remotes.m\n".to_owned(), 1, ""),
        (format!("\n\n{remote}mirror_branch_regex = \"(\"\n"), 5, "not a valid regex"),
        (format!("{remote}mirror_branch_regex = \"{}\"\n", "x".repeat(256)), 3, "longer than 255"),
        (format!("{remote}mirror_branch_regex = \"x\"\nonly_protected_branches = true\n"), 3, "exclude each other"),
        (format!("{remote}divergent_refs = \"maybe\"\n"), 3, "maybe"),
        (format!("{remote}timeout = \"soon\"\n"), 3, "'soon' is not a duration"),
        (format!("{remote}tags = 3\n"), 3, "tags is"),
        ("[remotes.m]\nurl = \"ext::sh -c id\"\n".to_owned(), 2, "'ext::' is a remote helper"),
        ("[remotes.m]\nurl = \"https://u:pw@h/x\"\n".to_owned(), 2, "holds a password"),
        ("[remotes.m]\nenabled = true\n".to_owned(), 1, "has no url"),
        ("[remotes.\"../x\"]\nurl = \"/x\"\n".to_owned(), 1, "is not a name for a mirror"),
        (format!("{remote}ssh_options = [\"ProxyCommand=id\"]\n"), 3, "not allowed here"),
        (format!("{remote}refspecs = [\"refs/heads/*\"]\n"), 3, "among the branches"),
        (format!("{remote}proxy = \"http://u:pw@proxy:3128/\"\n"), 3, "the proxy's URL holds a password"),
    ] {
        std::fs::write(&config, &text).unwrap();
        let before = snapshot(&source);
        for command in [&["drain"][..], &["status"], &["sync"], &["add", "x", "/x.git"], &["silent", "on"]] {
            let said = sandbox.mirror_push(&source, command);
            one_line(&said, 128, &format!("config.toml:{line}: "));
            assert!(said.err.contains(words) && !said.err.contains("pw@"), "{said:?}");
        }
        assert_eq!(snapshot(&source), before, "nothing changed");
    }
}

#[test]
fn bad_arguments_change_nothing() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let before = snapshot(&source);
    let fails = |arguments: &[&str], status: i32, words: &str| {
        one_line(&sandbox.mirror_push(&source, arguments), status, words);
        assert_eq!(snapshot(&source), before, "{arguments:?} changed something");
    };
    fails(&["add", "x", "ext::sh -c id"], 129, "'ext::' is a remote helper");
    fails(&["add", "x", "-oProxyCommand=id"], 129, "begins with '-'");
    fails(&["add", "x", "ssh://-oProxyCommand=id/x"], 129, "the host in the URL begins with '-'");
    fails(&["add", "x", "host:-oProxyCommand=id"], 129, "the path begins with '-'");
    fails(&["add", "x", "ftp://host/x"], 129, "the scheme 'ftp' is not supported");
    fails(&["add", "x", "https://host"], 129, "no path after the host");
    fails(&["add", "x", source.to_str().unwrap()], 129, "is this repository itself");
    fails(&["add", "m", "/elsewhere.git"], 129, "is there already");
    fails(&["add", "../x", "/x.git"], 129, "is not a name for a mirror");
    fails(&["add", "x", "/x.git", "--mirror-branch-regex", "("], 129, "not a valid regex");
    fails(
        &["add", "x", "/x.git", "--mirror-branch-regex", "x", "--only-protected-branches"],
        129,
        "exclude each other",
    );
    fails(&["add", "x", "/x.git", "--divergent-refs", "perhaps"], 129, "perhaps");
    fails(&["set", "m"], 129, "nothing to change");
    fails(&["set", "m", "--mirror-branch-regex", "("], 129, "not a valid regex");
    for key in ["timeout=\"30 minutes\"", "prune=sometimes", "atomic=3", "max_deletes=-1", "urll=x"] {
        fails(&["set", "m", key], 129, key.split('=').next().unwrap());
    }
    fails(&["add", "x", "/x.git", "--password-stdin"], 129, "standard input holds no password");
    fails(
        &["set", "m", "--allow-insecure-http"],
        129,
        "'allow_insecure_http' is a key of the configuration and not an option; write allow_insecure_http=VALUE",
    );
    fails(&["log", "-n", "x"], 129, "write a number");
    fails(&["protect", ""], 129, "is not a pattern");
    fails(&["set", "none", "--prune", "never"], 128, "no mirror 'none' here");
    for command in ["enable", "disable", "remove", "show", "drain", "sync", "plan", "status", "log"] {
        fails(&[command, "none"], 128, "no mirror 'none' here");
    }
    fails(&["unprotect", "x"], 128, "'x' is not protected");
    fails(&["frobnicate"], 129, "frobnicate");
    fails(&["completions", "tcsh"], 129, "tcsh");
    fails(&["token", "revoke", "none"], 128, "none");
    fails(&["-C", "/nowhere", "status"], 128, "cannot change to '/nowhere': No such file or directory");
}

#[test]
fn with_json_errors_are_json() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    for (arguments, status, words) in [
        (&["status", "none", "--json"][..], 128, "no mirror 'none' here"),
        (&["--json", "set", "m", "prune=sometimes"], 129, "'sometimes' is not a value of prune"),
        (&["--json", "frobnicate"], 129, "unrecognized subcommand 'frobnicate'"),
    ] {
        let said = sandbox.mirror_push(&source, arguments);
        assert_eq!((said.status, &*said.out), (status, ""), "{said:?}");
        let error: serde_json::Value = serde_json::from_str(&said.err).expect(&said.err);
        assert_eq!(error["exit_status"], status);
        assert!(error["error"].as_str().unwrap().starts_with(words), "{said:?}");
    }
}

#[test]
fn what_is_no_repository_or_not_ours_is_refused() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("file");
    std::fs::write(&file, "text").unwrap();
    one_line(&sandbox.mirror_push(&file, &["status"]), 128, "is not a git repository");
    one_line(&sandbox.mirror_push(&sandbox.path("none"), &["status"]), 128, "is not a git repository");
    let outside =
        sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push")).current_dir("/").arg("status").output().unwrap();
    assert_eq!(outside.status.code(), Some(128));
    assert!(String::from_utf8_lossy(&outside.stderr).contains("not in a git repository"));

    let source = sandbox.source("/mirror.git", &[]);
    if !crate::scene::sandbox::is_root("files of another owner are needed") {
        return;
    }
    let other = |path: &Path| std::os::unix::fs::chown(path, Some(12345), None).unwrap();
    other(&source.join("mirror-push/config.toml"));
    one_line(&sandbox.mirror_push(&source, &["status"]), 128, "belongs to another user");
    other(&source);
    let said = sandbox.mirror_push(&source, &["status"]);
    one_line(&said, 128, "git config --global --add safe.directory");
    let global = sandbox.path("gitconfig");
    let text = std::fs::read_to_string(&global).unwrap();
    std::fs::write(&global, format!("{text}[safe]\ndirectory = {}\n", source.display())).unwrap();
    assert_eq!(sandbox.mirror_push(&source, &["list"]).status, 0, "safe.directory is honoured, as by git");
}

#[test]
fn the_error_names_a_directory_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    let source = sandbox.bare("source.git");
    // A file in place of the directory stops every user, even root.
    std::fs::write(source.join("mirror-push"), "").unwrap();
    let before = snapshot(&source);
    let said = sandbox.mirror_push(&source, &["add", "m", "/mirror.git"]);
    one_line(&said, 128, "mirror-push");
    assert_eq!(snapshot(&source), before);
    std::fs::remove_file(source.join("mirror-push")).unwrap();
    std::fs::create_dir(source.join("mirror-push")).unwrap();
    std::fs::set_permissions(source.join("mirror-push"), std::fs::Permissions::from_mode(0o555)).unwrap();
    if rustix::process::geteuid().is_root() {
        // Permissions do not stop root, so root runs the command as another user.
        let program = env!("CARGO_BIN_EXE_git-mirror-push");
        let readable = sandbox.path("program");
        std::fs::copy(program, &readable).unwrap();
        std::fs::copy(
            program.replace("git-mirror-push", "git-mirror-post-receive"),
            sandbox.path("git-mirror-post-receive"),
        )
        .ok();
        for path in [sandbox.path(""), readable.clone()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::chown(source.join("mirror-push"), Some(65534), Some(65534)).unwrap();
        std::os::unix::fs::chown(&source, Some(65534), Some(65534)).unwrap();
        let output = sandbox
            .command("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&readable)
            .arg("--git-dir")
            .arg(&source)
            .args(["add", "m", "/mirror.git"])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(128), "{words}");
        assert!(words.contains("Permission denied") && words.contains("mirror-push"), "{words}");
        assert_eq!(std::fs::read_dir(source.join("mirror-push")).unwrap().count(), 0);
    }
}

/// If a user gives the path of a token's file by mistake, the error must not show the token.
#[test]
fn what_a_file_holds_is_not_printed() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("token");
    std::fs::write(&file, "s3cr3t-token\n").unwrap();
    let (directory, empty) = (sandbox.path("work"), sandbox.path("empty"));
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(&file, directory.join(".git")).unwrap();
    for (path, reason) in [
        (&file, "it is a file"),
        (&directory, "its '.git' does not lead to a repository"),
        (&empty, "it has no HEAD"),
        (&sandbox.path("none"), "there is no such directory"),
    ] {
        let said = sandbox.mirror_push(path, &["status"]);
        one_line(&said, 128, &format!("is not a git repository: {reason}"));
        assert!(!format!("{said:?}").contains("s3cr3t"), "{said:?}");
    }
}
