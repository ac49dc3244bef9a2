//! `import` from gitolite and Gerrit: their mirrors become ours, and their configuration is not
//! changed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::documents::{block, run};
use crate::scene::estate::Estate;
use crate::scene::sandbox::{Completed, Sandbox, script, wait_for};

/// The entries that `--json` printed, sorted, each as `REPOSITORY NAME ACTION URL`.
pub(super) fn actions(said: &Completed) -> Vec<String> {
    let all = said.json();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or("-").to_owned();
    let lines = all.as_array().unwrap().iter();
    let line = |one: &Value| {
        format!("{} {} {} {}", text(one, "repository"), text(one, "name"), text(one, "action"), text(one, "url"))
    };
    let mut lines: Vec<String> = lines.map(line).collect();
    lines.sort();
    lines
}

/// The configuration of a repository's mirrors, without the ids.
pub(super) fn config(repository: &Path) -> String {
    let text = std::fs::read_to_string(repository.join("mirror-push/config.toml")).unwrap();
    text.lines().filter(|line| !line.starts_with("id = ")).fold(String::new(), |all, line| all + line + "\n")
}

/// Every file below a directory, with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() => drop(found.insert(entry.path(), std::fs::read(entry.path()).unwrap())),
                _ => {}
            }
        }
    }
    found
}

/// Real gitolite: two copies by different options, a repository that is a copy itself, an external URL, and the key of the widespread hook.
#[test]
fn gitolite_copies_become_push_mirrors() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let home = sandbox.path("home");
    let gitolite = |arguments: &[&str]| {
        let mut command = sandbox.command("gitolite");
        let output = command.args(arguments).env("USER", "root").env("LOGNAME", "root").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let key = home.join("admin");
    let made = sandbox.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    gitolite(&["setup", "-pk", home.join("admin.pub").to_str().unwrap()]);
    let rc = home.join(".gitolite.rc");
    let text = std::fs::read_to_string(&rc).unwrap();
    let text = text.replace("GIT_CONFIG_KEYS                 =>  ''", "GIT_CONFIG_KEYS => '.*'");
    let text = text.replace("HOSTNAME", "OTHER_NAME");
    let text = text.replace("%RC = (", "%RC = (\n    HOSTNAME => 'frodo',");
    std::fs::write(&rc, text).unwrap();
    let (copy, extern_copy, simple) =
        (sandbox.bare("copy.git"), sandbox.bare("extern.git"), sandbox.bare("simple.git"));
    let conf = home.join(".gitolite/conf/gitolite.conf");
    let lines = format!(
        "\nrepo team/widget\n    RW+ = admin\n    option mirror.master = frodo\n    option mirror.copies-1 = sam gollum\n    \
         option mirror.copies.nosync-1 = gollum\n    option mirror.extcopy-1 = file://{}\n    config gitolite.mirror.simple = \"{}\"\n\
         \nrepo taken\n    RW+ = admin\n    option mirror.master = sam\n    option mirror.copies = frodo\n",
        extern_copy.display(),
        simple.display()
    );
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + &lines).unwrap();
    gitolite(&["compile"]);
    gitolite(&["trigger", "POST_COMPILE"]);
    let repositories = home.join("repositories");
    let before = files(&home.join(".gitolite/conf"));

    let log = sandbox.path("started");
    let import = |more: &[&str]| {
        // This script records each start of gitolite. What gitolite itself starts is not counted.
        let bin = sandbox.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let line = format!("#!/bin/sh\necho \"$1\" >>'{}'\nexec /usr/bin/gitolite \"$@\"\n", log.display());
        script(&bin.join("gitolite"), &line);
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = sandbox.command(env!("CARGO_BIN_EXE_git-mirror-push"));
        let all = [&["import", "gitolite"], more].concat();
        Completed::of(&command.args(all).env("PATH", path).env("USER", "root").output().unwrap())
    };
    let documented = "export USER=root; ".to_owned() + &block("docs/import.md", "sh", "import gitolite", &[]);
    let documented = run(&sandbox, &home, &documented, None);
    let said = import(&["--dry-run"]);
    assert_eq!((said.status, &said.out), (0, &documented.out), "{said:?}");
    assert!(said.err.contains("1 repository here is a copy of sam"), "{said:?}");
    assert!(said.out.contains("nosync-quiet-1") && said.out.contains("--exact"), "{said:?}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "query-rc\ngit-config\n", "two processes");
    // If no source is named, `import` finds gitolite too.
    let every = sandbox
        .command(env!("CARGO_BIN_EXE_git-mirror-push"))
        .args(["import", "--dry-run", "--root"])
        .arg(&repositories)
        .env("USER", "root")
        .output();
    let every = Completed::of(&every.unwrap());
    assert!(
        every.out.contains("gitolite's option mirror.copies (sam)") && every.out.contains("gitolite.mirror.simple"),
        "{every:?}"
    );
    let said = import(&["--yes", "--json"]);
    let widget = repositories.join("team/widget.git");
    let name = widget.display().to_string();
    let name = name.trim_end_matches(".git");
    let expected = [
        format!("{name} extcopy-1 added {}", extern_copy.display()),
        format!("{name} gollum added ssh://gollum/team/widget"),
        format!("{name} local added {}", simple.display()),
        format!("{name} sam added ssh://sam/team/widget"),
    ];
    assert_eq!(actions(&said), expected, "{said:?}");
    assert!(
        config(&widget).contains("[remotes.gollum]\nurl = \"gollum:team/widget\"\nenabled = false\n"),
        "{}",
        config(&widget)
    );
    assert_eq!(files(&home.join(".gitolite/conf")), before, "nothing changes at gitolite");
    let again = config(&widget);
    let said = import(&["--yes"]);
    assert!(said.out.contains("0 imported, 4 already here, 0 need you"), "{said:?}");
    assert_eq!(config(&widget), again, "a second import writes nothing");

    // A real push is mirrored. A path replaces the URL with the ssh alias. For comparison, git
    // pushes the same refs to another copy.
    sandbox.mirror_push_ok(&widget, &["set", "sam", "--url", copy.to_str().unwrap()]);
    let work = sandbox.work(&widget);
    work.commit("one");
    let mut push = sandbox.command("git");
    push.current_dir(sandbox.path("widget.git.work"))
        .env("GL_BYPASS_ACCESS_CHECKS", "1")
        .env("GL_LIBDIR", "/usr/share/gitolite3/lib");
    let pushed = Completed::of(
        &push.args(["push", "-q", "origin", "main", "main:topic", "main:refs/tags/v1"]).output().unwrap(),
    );
    assert_eq!(pushed.status, 0, "{pushed:?}");
    sandbox.mirror_push_ok(&widget, &["drain", "sam"]);
    let oracle = sandbox.bare("oracle.git");
    sandbox.git(&widget, &["push", "-q", "--mirror", oracle.to_str().unwrap()]);
    // A drain that the hook started may still run.
    wait_for("the copy", || sandbox.refs(&copy) == sandbox.refs(&oracle));
}

#[test]
fn gerrit_remotes_become_mirrors_of_each_project() {
    let estate = Estate::new("wake = \"none\"\n");
    let sandbox = &estate.sandbox;
    let site = sandbox.path("site");
    std::fs::create_dir_all(site.join("etc/replication")).unwrap();
    let say = |name: &str, text: &str| std::fs::write(site.join("etc").join(name), text).unwrap();
    say("gerrit.config", &format!("[gerrit]\n\tbasePath = {}\n", sandbox.path("git").display()));
    let mirrors = sandbox.path("mirrors").display().to_string();
    say(
        "replication.config",
        &format!(
            "[gerrit]\n\tautoReload = true\n[remote \"host-one\"]\n\turl = {mirrors}/${{name}}.git\n\tpush = +refs/heads/*:refs/heads/*\n\
             \tpush = +refs/tags/*:refs/tags/*\n\tthreads = 3\n\tauthGroup = Public\n[remote \"pubmirror\"]\n\
             \turl = http://127.0.0.1:9/pub/${{name}}.git\n\tprojects = acme/*\n\tremoteNameStyle = dash\n"
        ),
    );
    say("secure.config", "[remote \"pubmirror\"]\n\tusername = bot\n\tpassword = c4nary%/x\n");
    for name in ["acme/widget.git", "other.git"] {
        estate.repository(name);
    }
    let before = files(&site);
    let replaced = [("/srv/gerrit", site.to_str().unwrap())];
    let said = run(sandbox, &site, &block("docs/import.md", "sh", "import gerrit", &replaced), Some(&estate.file));
    assert!(said.status == 0 && said.out.contains("3 to import"), "{said:?}");
    let run = |more: &[&str]| estate.run(&[&["import", "gerrit", site.to_str().unwrap()], more].concat());
    let said = run(&["--yes", "--json"]);
    assert_eq!(said.status, 0, "{said:?}");
    let root = sandbox.path("git").display().to_string();
    let expected = [
        format!("{root}/acme/widget host-one added {mirrors}/acme/widget.git"),
        format!("{root}/acme/widget pubmirror added http://127.0.0.1:9/pub/acme-widget.git"),
        format!("{root}/other host-one added {mirrors}/other.git"),
    ];
    assert_eq!(actions(&said), expected, "{said:?}");
    assert!(!format!("{said:?}").contains("c4nary"), "{said:?}");
    let widget = sandbox.path("git/acme/widget.git");
    let secret = widget.join("mirror-push/remotes/pubmirror/secret");
    assert_eq!(std::fs::read_to_string(&secret).unwrap().trim_end(), "c4nary%/x");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let text = config(&widget);
    assert!(
        text.contains("enabled = false") && text.contains("prune = \"never\"") && !text.contains("c4nary"),
        "{text}"
    );
    assert_eq!(files(&site), before, "nothing changes at Gerrit");
    assert!(run(&["--yes"]).out.contains("0 imported, 3 already here, 0 need you"));

    // Without a source, the site above the repositories is found.
    let below = sandbox.path("site2");
    std::fs::create_dir_all(below.join("git")).unwrap();
    assert!(sandbox.command("cp").arg("-a").arg(site.join("etc")).arg(below.join("etc")).status().unwrap().success());
    std::fs::write(below.join("etc/gerrit.config"), "[gerrit]\n").unwrap();
    assert!(
        sandbox
            .command("cp")
            .arg("-a")
            .arg(sandbox.path("sample.git"))
            .arg(below.join("git/new.git"))
            .status()
            .unwrap()
            .success()
    );
    let said = estate.run(&["import", "--root", below.join("git").to_str().unwrap(), "--dry-run"]);
    assert!(said.out.contains("new: host-one (push)") && said.out.contains("replication.config"), "{said:?}");

    // Files for each remote replace the remotes of the main file. If one is damaged, nothing is
    // imported.
    say("replication/second.config", &format!("[remote \"any\"]\n\turl = {mirrors}/2/${{name}}.git\n"));
    let said = run(&["--dry-run", "--json"]);
    assert!(actions(&said).iter().all(|line| line.contains(" second add ")), "{said:?}");
    say("replication/second.config", "[remote \"any\n\turl = c4nary\n");
    let said = run(&["--yes"]);
    assert!(
        said.status == 129 && said.err.contains("replication/second.config") && !said.err.contains("c4nary"),
        "{said:?}"
    );
    let said = estate.run(&["import", "gerrit", root.as_str(), "--yes"]);
    assert!(said.status == 128 && said.err.contains("has no etc/replication.config"), "{said:?}");
}
