//! The API of root's daemon in the repositories of other users.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{OWNER, estate, foreign, give};
use crate::scene::daemon::{Daemon, LOCAL};
use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, is_root, wait_for};
use crate::scene::servers::free_port;

/// A repository and a mirror of the owner, and the configuration of a daemon that serves them. `None` if this is not root.
fn scene() -> Option<(Estate, PathBuf, PathBuf)> {
    const SERVED: &str = "[[repositories]]\nroot = \"ROOT\"\nowners = [\"65534\"]\n";
    if !is_root("files of another owner are needed") {
        return None;
    }
    let (estate, source, mirror) = estate(&format!("{LOCAL}{SERVED}"));
    // Root reads the repository to show it.
    estate.sandbox.git(&estate.sandbox.path(""), &["config", "--global", "safe.directory", "*"]);
    Some((estate, source, mirror))
}

#[test]
fn changes_through_the_api_of_root_are_made_by_the_owner() {
    let Some((estate, source, mirror)) = scene() else { return };
    let sandbox = &estate.sandbox;
    let daemon = Daemon::start_as_configured(sandbox, free_port());
    let there = |path: &Path| {
        sandbox.try_git(path, &["-c", "safe.directory=*", "for-each-ref", "--format=%(refname) %(objectname)"]).out
    };
    let path = "projects/acme%2Fwidget/remote_mirrors";
    let added = daemon.api("POST", path, &format!("url={}&enabled=true", mirror.display()));
    assert_eq!(added.status, 201, "{} {}", added.text, daemon.log());
    let id = added.json()["id"].as_u64().unwrap();
    wait_for("the mirror", || !there(&mirror).is_empty() && there(&mirror) == there(&source));
    let all_owners = |of: &Path| assert_eq!(foreign(of), Vec::<PathBuf>::new());
    all_owners(&source);
    all_owners(&mirror);
    let config = || std::fs::read_to_string(source.join("mirror-push/config.toml")).unwrap();
    assert!(config().contains("confined = true"), "{}", config());
    let web = daemon.api("POST", path, "url=https://bot:s3cret@127.0.0.1:1/x.git");
    assert_eq!(web.status, 201, "{}", web.text);
    let secret = source.join("mirror-push/remotes/127.0.0.1/secret");
    let file = std::fs::metadata(&secret).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (OWNER, 0o600));
    assert_eq!(std::fs::read_to_string(&secret).unwrap().trim(), "s3cret");
    assert!(!config().contains("s3cret"), "{}", config());
    // Root cannot read the secret, and the URL may be changed nevertheless. A move to another host removes the secret.
    let web = format!("{path}/{}", web.json()["id"]);
    let said = daemon.api("PUT", &web, "url=https://bot@127.0.0.1:1/y.git");
    assert!(said.status == 200 && secret.exists(), "{} {}", said.text, daemon.log());
    let said = daemon.api("PUT", &web, "url=https://bot@127.0.0.1:2/y.git");
    assert!(said.status == 200 && !secret.exists(), "{} {}", said.text, daemon.log());
    let said = daemon.api("PUT", &web, "url=https://bot:n3w@127.0.0.1:2/y.git");
    assert!(said.status == 200 && secret.exists(), "{} {}", said.text, daemon.log());
    let said = daemon.api("DELETE", &web, "");
    assert!(said.status == 204 && !secret.exists(), "{}", said.text);
    assert!(source.join("hooks/post-receive").exists(), "the hook is installed");

    // What is refused is refused with the same words, and the file stays.
    let one = format!("{path}/{id}");
    let before = config();
    let said = daemon.api("PUT", &one, "mirror_branch_regex=(");
    assert!(said.status == 400 && said.text.contains("mirror_branch_regex"), "{} {}", said.status, said.text);
    assert_eq!(config(), before);
    let said = daemon.api("PUT", &one, "keep_divergent_refs=true");
    assert!(said.status == 200 && said.json()["keep_divergent_refs"] == true, "{}", said.text);
    assert!(config().contains("divergent_refs = \"keep\""), "{}", config());
    // Nobody told the daemon of this change, so only the sync that the request asks for finds it.
    let setpriv = ["--reuid=65534", "--clear-groups", "git", "--git-dir", source.to_str().unwrap()];
    let other = mirror.with_file_name("other.git");
    sandbox.git(&sandbox.path(""), &["init", "-q", "--bare", other.to_str().unwrap()]);
    give(sandbox, &other);
    let added = daemon.api("POST", path, &format!("url={}&enabled=true", other.display()));
    assert_eq!(added.status, 201, "{}", added.text);
    wait_for("the other mirror", || there(&other) == there(&source));
    let mut branch = sandbox.command("setpriv");
    assert!(branch.args(setpriv).args(["branch", "later", "main"]).status().unwrap().success());
    let said = daemon.api("POST", &format!("{one}/sync"), "");
    assert_eq!(said.status, 204, "{}", said.text);
    wait_for("the branch", || there(&mirror).contains("later"));
    assert!(!there(&other).contains("later"), "only the mirror that was asked for");
    for id in [&one, &format!("{path}/{}", added.json()["id"])] {
        let said = daemon.api("DELETE", id, "");
        assert_eq!(said.status, 204, "{}", said.text);
    }
    assert!(!config().contains("[remotes."), "{}", config());
    all_owners(&source);
}

/// The owner may stop a process that has the owner's rights.
#[test]
fn an_owner_who_stops_the_child_holds_up_no_request_for_long() {
    let Some((estate, source, mirror)) = scene() else { return };
    let sandbox = &estate.sandbox;
    let daemon = Daemon::start_as_configured(sandbox, free_port());
    let add = |name: &str| {
        let body = format!("url={}&name={name}", mirror.with_file_name(name).display());
        daemon.api("POST", "projects/acme%2Fwidget/remote_mirrors", &body)
    };
    assert_eq!(add("first").status, 201);
    // The child waits for this lock until it is stopped.
    let lock = std::fs::File::open(source.join("mirror-push/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::thread::scope(|scope| {
        let begin = std::time::Instant::now();
        let second = scope.spawn(|| add("second"));
        let is_child = |entry: &std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.ends_with(b"\0change\0") && String::from_utf8_lossy(&line).contains(source.to_str().unwrap())
        };
        let child = || std::fs::read_dir("/proc").unwrap().map(Result::unwrap).find(is_child);
        wait_for("the child", || {
            child().is_some_and(|child| std::fs::metadata(child.path()).is_ok_and(|file| file.uid() == OWNER))
        });
        let pid: i32 = child().unwrap().file_name().to_str().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let said = second.join().unwrap();
        assert!(
            said.status == 409 && said.text.contains("did not end within 20 seconds"),
            "{} {}",
            said.status,
            said.text
        );
        assert!(begin.elapsed() < std::time::Duration::from_secs(35), "{:?}", begin.elapsed());
        wait_for("the end of the child", || child().is_none());
    });
    drop(lock);
    assert_eq!(add("third").status, 201);
}

/// An owner may rename the repository, and put a link in its place that leads to a repository of root's.
#[test]
fn a_link_in_the_place_of_a_repository_leads_root_nowhere() {
    let Some((estate, source, mirror)) = scene() else { return };
    let sandbox = &estate.sandbox;
    let private = sandbox.path("private.git");
    sandbox.git(&sandbox.path(""), &["clone", "-q", "--bare", source.to_str().unwrap(), private.to_str().unwrap()]);
    let target = sandbox.bare("target.git");
    let said = sandbox.mirror_push(&private, &["add", "hidden", target.to_str().unwrap()]);
    assert_eq!(said.status, 0, "{said:?}");
    let daemon = Daemon::start_as_configured(sandbox, free_port());
    let path = "projects/acme%2Fwidget/remote_mirrors";
    let added = daemon.api("POST", path, &format!("url={}", mirror.display()));
    assert_eq!(added.status, 201, "{}", added.text);
    let before = std::fs::read_to_string(private.join("mirror-push/config.toml")).unwrap();
    let places = [source.clone(), source.parent().unwrap().to_owned()];
    for place in places {
        let aside = place.with_extension("aside");
        std::fs::rename(&place, &aside).unwrap();
        if place != source {
            let elsewhere = sandbox.path("elsewhere");
            std::fs::create_dir(&elsewhere).unwrap();
            std::fs::rename(&private, elsewhere.join("widget.git")).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
        } else {
            std::os::unix::fs::symlink(&private, &place).unwrap();
        }
        for (method, path, body) in [
            ("GET", path, ""),
            ("POST", path, "url=https://x.invalid/x.git"),
            ("GET", &format!("{path}/1"), ""),
            ("PUT", &format!("{path}/1"), "enabled=true"),
            ("POST", &format!("{path}/1/sync"), ""),
            ("DELETE", &format!("{path}/1"), ""),
            ("GET", "projects/acme%2Fwidget/mirror/pull", ""),
        ] {
            let said = daemon.api(method, path, body);
            assert!(
                said.status == 404 && !said.text.contains("hidden"),
                "{method} {path}: {} {}",
                said.status,
                said.text
            );
        }
        std::fs::remove_file(&place).unwrap();
        std::fs::rename(&aside, &place).unwrap();
    }
    let private = sandbox.path("elsewhere/widget.git");
    assert_eq!(std::fs::read_to_string(private.join("mirror-push/config.toml")).unwrap(), before);
    assert_eq!(daemon.api("GET", path, "").status, 200);
}

/// Root sees less of the owner's file than the owner: the keys of `[defaults]` do not count for root.
#[test]
fn a_change_is_made_where_root_and_the_owner_see_another_direction() {
    let Some((estate, source, mirror)) = scene() else { return };
    let file = source.join("mirror-push/config.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!(
        "[defaults]\ndirection = \"pull\"\n[remotes.m]\nid = 1\nurl = \"{}\"\nenabled = false\n",
        mirror.display()
    );
    std::fs::write(&file, text).unwrap();
    give(&estate.sandbox, &source);
    let daemon = Daemon::start_as_configured(&estate.sandbox, free_port());
    let said = daemon.api("PUT", "projects/acme%2Fwidget/remote_mirrors/1", "mirror_branch_regex=^main$");
    assert_eq!(said.status, 200, "{} {}", said.text, daemon.log());
    assert!(std::fs::read_to_string(&file).unwrap().contains("^main$"));
}

#[test]
fn a_webhook_of_the_owner_is_believed_by_its_secret() {
    let Some((estate, source, mirror)) = scene() else { return };
    let sandbox = &estate.sandbox;
    let daemon = Daemon::start_as_configured(sandbox, free_port());
    let as_owner = |arguments: &[&str]| {
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_git-mirror-push"), "--config"]);
        command.arg(&estate.file).arg("--git-dir").arg(&source).args(arguments);
        let said = Completed::of(&command.output().unwrap());
        assert_eq!(said.status, 0, "{said:?}");
        said
    };
    as_owner(&["add", "upstream", mirror.to_str().unwrap(), "--direction", "pull", "--disabled", "-q"]);
    let secret = as_owner(&["webhook", "upstream", "--json"]).json()["secret"].as_str().unwrap().to_owned();
    as_owner(&["enable", "upstream"]);
    let post = |secret: &str| {
        let path = "/api/v4/projects/acme%2Fwidget/mirror/pull";
        daemon.ask_with("POST", path, "", &[("X-Gitlab-Token", secret)]).unwrap().status
    };
    assert_eq!((post("wrong"), post(&secret)), (404, 202), "{}", daemon.log());
}
