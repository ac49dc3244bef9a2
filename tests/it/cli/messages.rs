//! The messages about problems: each names what it is about and says what to do, in one line.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::scene::Scene;
use crate::scene::sandbox::{Sandbox, wait_for};

fn has(text: &str, words: &str) {
    assert!(text.contains(words), "'{words}' is not in: {text}");
}

#[test]
fn a_url_that_cannot_be_meant_is_refused() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("/mirror.git", &[]);
    for (url, words) in [
        (
            "https://github.com/acme/w/tree/main",
            "web page; the URL of its repository is probably https://github.com/acme/w.git",
        ),
        (
            "https://gitlab.com/acme/w/-/issues",
            "web page; the URL of its repository is probably https://gitlab.com/acme/w.git",
        ),
        (
            "github.com/acme/w.git",
            "for host 'github.com' write https://github.com/acme/w.git, for the path ./github.com/acme/w.git",
        ),
        ("file:///", "the URL names no repository"),
    ] {
        let said = sandbox.mirror_push(&source, &["add", "x", url]);
        assert_eq!(said.status, 129, "{url}: {said:?}");
        has(&said.err, words);
        let said = sandbox.mirror_push(&source, &["set", "m", &format!("url={url}")]);
        assert_eq!(said.status, 129, "{url}: {said:?}");
    }
    // A relative path with a dot is taken as a path if it exists.
    std::fs::create_dir_all(source.join("mirrors.d/x.git")).unwrap();
    sandbox.mirror_push_ok(&source, &["-C", source.to_str().unwrap(), "add", "x", "mirrors.d/x.git", "--disabled"]);
    // In the configuration file such a URL is only a warning, so that an existing setup keeps working.
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("/mirror.git", "https://h/acme/w/tree/main");
    std::fs::write(&config, text).unwrap();
    has(
        &sandbox.mirror_push(&source, &["status"]).out,
        "web page; the URL of its repository is probably https://h/acme/w.git",
    );
    // The warning prevents no other change. A URL that ends in `.git` gives no warning.
    sandbox.mirror_push_ok(&source, &["set", "m", "--tags", "none"]);
    sandbox.mirror_push_ok(&source, &["add", "deep", "https://h/acme/tree/w.git", "--disabled"]);
}

#[test]
fn a_working_tree_is_mentioned() {
    let sandbox = Sandbox::new();
    let mirror = sandbox.bare("mirror.git");
    let tree = sandbox.path("tree");
    sandbox.git(&sandbox.path(""), &["init", "-q", "tree"]);
    let said = sandbox.mirror_push(&tree, &["add", "m", mirror.to_str().unwrap()]);
    has(&said.err, "a commit made in it runs no hook, and 'git mirror-push sync m' mirrors it");
    has(&sandbox.mirror_push(&tree, &["doctor"]).out, "working-tree: this repository has a working tree");
    let bare = sandbox.source("mirror.git", &[]);
    let said = sandbox.mirror_push(&bare, &["add", "n", "/n.git"]);
    assert!(!said.err.contains("working tree"), "{said:?}");
}

#[test]
fn a_secret_that_others_can_read_stops_its_mirror_alone() {
    let sandbox = Sandbox::new();
    sandbox.bare("mirror.git");
    let source = sandbox.source("mirror.git", &[]);
    let said = sandbox.mirror_push_with_input(
        &source,
        &["add", "web", "https://bot@h.invalid/x.git", "--password-stdin"],
        "pw\n",
    );
    assert_eq!(said.status, 0, "{said:?}");
    let secret = source.join("mirror-push/remotes/web/secret");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let fix = format!("chmod 600 '{}'", secret.display());
    let status = sandbox.mirror_push(&source, &["status"]);
    has(&status.out, &fix);
    has(&status.out, "m  ");
    for command in [&["list"][..], &["show", "web"], &["status", "--json"]] {
        assert!(sandbox.mirror_push(&source, command).status < 2, "{command:?}");
    }
    let synced = sandbox.mirror_push(&source, &["sync"]);
    assert_eq!(synced.status, 1);
    has(&synced.out, &format!("cannot get the credentials: other users can read '{}'; {fix}", secret.display()));
    let found = sandbox.mirror_push(&source, &["doctor"]).out;
    assert_eq!(found.matches(&fix).count(), 1, "said once: {found}");
    let config = source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("/x.git", "/acme/x/tree/main");
    std::fs::write(&config, text).unwrap();
    let found = sandbox.mirror_push(&source, &["doctor"]).out;
    assert!(found.contains(&fix) && found.contains("the address of a web page"), "it hides no other problem: {found}");
}

#[test]
fn an_empty_selection_is_mentioned() {
    let scene = Scene::local(&["--mirror-branch-regex", "^nothing$", "--tags", "none"]);
    let status = || scene.sandbox.mirror_push(&scene.source, &["status"]).out;
    assert!(!status().contains("nothing is mirrored"), "without refs there is nothing to select");
    scene.push(&["main"]);
    has(&status(), "no branch or tag of this repository matches mirror_branch_regex and tags");
    scene.push(&["main:nothing"]);
    assert!(!status().contains("nothing is mirrored"));
}

#[test]
fn a_divergent_ref_has_its_advice() {
    let scene = Scene::local(&["--divergent-refs", "keep"]).with(&["main"]);
    scene.theirs("main");
    scene.push(&["main"]);
    scene.sandbox.mirror_push(&scene.source, &["sync"]);
    let status = scene.sandbox.mirror_push(&scene.source, &["status"]).out;
    has(
        &status,
        "to fetch their commits: git fetch mirror::m; to overwrite them: git mirror-push set m --divergent-refs overwrite",
    );
}

#[test]
fn a_copied_repository_is_distinguished_from_a_moved_one() {
    let Scene { sandbox, source, .. } = Scene::local(&[]).with(&["main"]);
    let copy = sandbox.path("copy.git");
    let copied = sandbox.command("cp").arg("-a").args([&source, &copy]).status().unwrap();
    assert!(copied.success());
    let words = format!("this repository is a copy of '{}', which has the same mirror", source.display());
    has(&sandbox.mirror_push(&copy, &["status"]).out, &words);
    sandbox.mirror_push_ok(&copy, &["sync"]);
    has(&sandbox.mirror_push(&copy, &["status"]).out, &words);
    let doctor = sandbox.mirror_push(&copy, &["doctor"]);
    assert_eq!(doctor.status, 1, "{doctor:?}");
    has(&doctor.out, &words);
    let is_copy = |path: &Path| sandbox.mirror_push(path, &["status"]).out.contains("is a copy of");
    assert!(!is_copy(&source), "the original");
    let link = sandbox.path("link.git");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    assert!(!is_copy(&link), "another name of it");
    std::fs::remove_dir_all(&copy).unwrap();
    let moved = sandbox.path("moved.git");
    std::fs::rename(&source, &moved).unwrap();
    assert!(!is_copy(&moved), "moved");
}

#[test]
fn a_command_that_waits_says_what_for() {
    let scene = Scene::local(&[]);
    scene.push(&["main"]);
    let (sandbox, source) = (&scene.sandbox, &scene.source);
    let (begun, end) = (sandbox.path("begun"), sandbox.path("end"));
    let wait = format!("touch '{}'; while ! [ -e '{}' ]; do sleep 0.1; done", begun.display(), end.display());
    scene.hook("pre-receive", &wait);
    let mut running = sandbox.program(source).arg("sync").stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("the push", || begun.exists());
    let errors = sandbox.path("errors");
    let file = std::fs::File::create(&errors).unwrap();
    let mut removal = sandbox.program(source).args(["remove", "m"]).stderr(file).spawn().unwrap();
    wait_for("the message", || {
        std::fs::read_to_string(&errors).unwrap() == "warning: waiting for the running update of mirror 'm'\n"
    });
    std::fs::write(&end, "").unwrap();
    assert!(removal.wait().unwrap().success());
    running.wait().unwrap();
}

#[test]
fn a_long_run_ends_with_a_summary() {
    let scene = Scene::local(&[]);
    let names: Vec<String> = (0..24).map(|number| format!("main:b{number:02}")).collect();
    scene.push(&names.iter().map(String::as_str).collect::<Vec<_>>());
    scene.hook("update", "[ ${1%5} = $1 ]");
    let said = scene.sandbox.mirror_push(&scene.source, &["sync"]);
    assert_eq!(said.out.lines().last(), Some("   24 refs: 22 created, 2 remote rejected"), "{said:?}");
}

#[test]
fn a_mirror_with_a_working_tree_says_what_to_do_there() {
    let sandbox = Sandbox::new();
    sandbox.git(&sandbox.path(""), &["init", "-q", "tree"]);
    let tree = sandbox.path("tree");
    let theirs = sandbox.path("tree");
    sandbox.git(&theirs, &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "one"]);
    sandbox.git(&theirs, &["checkout", "-q", "-B", "main"]);
    let source = sandbox.source(tree.to_str().unwrap(), &[]);
    sandbox.git(&source, &["fetch", "-q", tree.to_str().unwrap(), "main:main"]);
    let work = sandbox.work(&source);
    work.git(&["pull", "-q", "origin", "main"]);
    work.commit("two");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["sync"]);
    has(&said.out, "branch is currently checked out there; make the mirror bare (there: git config core.bare true)");
    assert!(said.out.lines().all(|line| line.len() < 300), "{said:?}");
}

#[test]
fn missing_roots_and_owners_are_named_with_their_line() {
    let sandbox = Sandbox::new();
    let root = sandbox.path("git");
    std::fs::create_dir(&root).unwrap();
    let server = sandbox.path("server.toml");
    let missing = "[[repositories]]\nroot = \"/nowhere/git\"\n";
    let run = |text: &str, command: &[&str]| {
        std::fs::write(&server, text).unwrap();
        let mut program = sandbox.program(&root);
        program.env("GIT_MIRROR_PUSH_CONFIG", &server).args(command);
        let output = program.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let words = format!("{}:2: root '/nowhere/git' does not exist; create it, or remove its entry", server.display());
    for command in [&["status", "--all"][..], &["drain", "--all"], &["log", "--all"], &["doctor", "--all"], &["serve"]]
    {
        assert_eq!(run(missing, command), (128, format!("fatal: {words}\n")), "{command:?}");
    }
    // The other roots are served.
    let both = format!("{missing}[[repositories]]\nroot = \"{}\"\n", root.display());
    for command in [&["status", "--all"][..], &["drain", "--all"], &["doctor", "--all"]] {
        let (status, said) = run(&both, command);
        assert_eq!(status, 1, "{command:?}: {said}");
        assert_eq!(said.matches(&words).count(), 1, "{command:?}: {said}");
    }
    let (status, said) = run("", &["log", "--all"]);
    assert_eq!(status, 128, "{said}");
    has(&said, &format!("put [[repositories]] with a root into {}", server.display()));
    let unknown = format!("[[repositories]]\nroot = \"{}\"\nowners = [\"nosuchuser\", \"12345\"]\n", root.display());
    let (_, said) = run(&unknown, &["status", "--all"]);
    has(&said, "server.toml:2: owners names 'nosuchuser', and there is no such user");
    assert!(!said.contains("12345"), "{said}");
}
