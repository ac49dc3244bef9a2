//! A push replaces or deletes what somebody else put on the mirror. The value is kept here, below
//! `refs/rewritten`.

use crate::scene::Scene;
use crate::scene::injected::{Fault, Threads, at_every_point, is_reached, under};
use crate::scene::sandbox::{Completed, Sandbox, run_with_input, script};
use crate::scene::servers::{Kind, Server, free_port};

impl Scene {
    /// What is kept here: `REF VALUE`.
    fn kept(&self) -> Vec<String> {
        let format = "--format=%(refname) %(objectname)";
        let all = self.sandbox.git(&self.source, &["for-each-ref", format, "refs/rewritten"]);
        all.lines().map(str::to_owned).collect()
    }

    /// Somebody commits a file of his own to a branch of the mirror.
    fn foreign(&self, branch: &str) -> String {
        self.foreign_with(branch, 4096)
    }

    /// Somebody commits a file with that many lines to a branch of the mirror.
    fn foreign_with(&self, branch: &str, lines: usize) -> String {
        let text: String = (0..lines).map(|number| format!("{number} {branch}\n")).collect();
        let blob = self.sandbox.git_with_input(&self.mirror, &["hash-object", "-w", "--stdin"], text.as_bytes());
        let entry = format!("100644 blob {}\ttheirs\n", blob.trim());
        let tree = self.sandbox.git_with_input(&self.mirror, &["mktree"], entry.as_bytes());
        let oid = self.sandbox.git(&self.mirror, &["commit-tree", "-m", "theirs", "-p", "main", tree.trim()]);
        self.sandbox.git(&self.mirror, &["update-ref", &format!("refs/heads/{branch}"), oid.trim()]);
        oid.trim().to_owned()
    }

    fn kept_as(oid: &str, branch: &str) -> String {
        format!("refs/rewritten/m/{}/heads/{branch} {oid}", &oid[..12])
    }

    /// Whether git must not drop a pack, although no ref may need it.
    fn holds_packs(&self) -> bool {
        let mut packs = std::fs::read_dir(self.source.join("objects/pack")).unwrap();
        packs.any(|entry| entry.unwrap().path().extension().is_some_and(|extension| extension == "keep"))
    }

    fn sync_foreign(&self) -> Completed {
        self.sandbox.mirror_push(&self.source, &["sync", "--json"])
    }
}

#[test]
fn what_is_replaced_or_deleted_there_is_kept_here_over_every_transport() {
    for kind in [None, Some(Kind::Git), Some(Kind::Ssh), Some(Kind::Http)] {
        let options = ["--prune", "mirror"];
        let scene = kind.map_or_else(|| Scene::local(&options), |kind| Scene::behind(kind, &options));
        let scene = scene.with(&["main", "main:topic"]);
        let (topic, extra) = (scene.foreign("topic"), scene.foreign("extra"));
        let said = scene.sync_foreign();
        assert_eq!(said.status, 0, "{kind:?}: {said:?}");
        assert!(scene.is_mirrored(), "{kind:?}: {said:?}");
        let mut expected = vec![Scene::kept_as(&topic, "topic"), Scene::kept_as(&extra, "extra")];
        expected.sort();
        assert_eq!(scene.kept(), expected, "{kind:?}: {said:?}");
        let refs = said.json()[0]["refs"].as_array().unwrap().clone();
        let entry = refs.iter().find(|entry| entry["ref"] == "refs/heads/topic").unwrap();
        assert!(expected.contains(&format!("{} {topic}", entry["kept_as"].as_str().unwrap())), "{kind:?}: {entry}");
        scene.sandbox.git(&scene.source, &["fsck", "--strict"]);
        assert!(!scene.source.join("mirror-push/remotes/m/incoming").exists());
        let listed = scene.sandbox.mirror_push_ok(&scene.source, &["kept", "--json"]).json();
        assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
        // A value that is restored under another name goes to the mirror like every branch.
        scene.sandbox.mirror_push_ok(&scene.source, &["kept", "m", "--restore", "topic", "--as", "rescued"]);
        scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
        assert_eq!(scene.sandbox.oid(&scene.mirror, "rescued"), topic, "{kind:?}");
        // A push that replaces nothing foreign keeps nothing.
        scene.push(&["+main"]);
        assert!(scene.sync_foreign().status == 0 && scene.kept().len() == 2, "{kind:?}");
    }
}

/// A value that was ours before, or that a branch here has, needs no ref below `refs/rewritten`.
/// `git gc` drops what no ref needs. It may run between the arrival of a value and the making of its ref.
#[test]
fn a_value_is_safe_from_garbage_collection_before_it_has_its_ref() {
    let scene = Scene::local(&[]).with(&["main"]);
    let oid = scene.foreign("main");
    let (bin, source) = (scene.sandbox.path("bin"), scene.source.display());
    std::fs::create_dir(&bin).unwrap();
    let usual = scene.sandbox.command("sh").args(["-c", "echo \"$PATH\""]).output().unwrap();
    let usual = String::from_utf8(usual.stdout).unwrap().trim().to_owned();
    let gc = format!("case \"$*\" in *update-ref*) git --git-dir='{source}' repack -adq; touch '{source}/ran';; esac");
    script(&bin.join("git"), &format!("#!/bin/sh\nPATH='{usual}'\n{gc}\nexec git \"$@\"\n"));
    let mut sync = scene.sandbox.program(&scene.source);
    let said = Completed::of(&sync.arg("sync").env("PATH", format!("{}:{usual}", bin.display())).output().unwrap());
    assert!(said.status == 0 && scene.source.join("ran").exists(), "{said:?}");
    assert_eq!(scene.kept(), [Scene::kept_as(&oid, "main")], "{said:?}");
    scene.sandbox.git(&scene.source, &["fsck", "--strict"]);
    assert!(!scene.holds_packs());
}

#[test]
fn what_was_ours_is_not_kept() {
    let scene = Scene::local(&["--prune", "mirror"]).with(&["main", "main:old"]);
    let work = scene.work();
    work.commit("two");
    work.push(&["main", ":old"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    let main = scene.sandbox.oid(&scene.source, "main");
    scene.sandbox.git(&scene.mirror, &["update-ref", "refs/heads/copy", &main]);
    assert_eq!(scene.sync_foreign().status, 0);
    assert!(scene.is_mirrored());
    assert_eq!(scene.kept(), Vec::<String>::new());
}

/// If a value cannot be kept, it is replaced nevertheless. The log contains the value.
#[test]
fn what_cannot_be_kept_is_replaced_all_the_same() {
    for (setting, kind) in [("max_rewritten_size=1KiB", None), ("keep_rewritten=0", None), ("", Some(Kind::Http))] {
        let scene = kind.map_or_else(|| Scene::local(&[]), |kind| Scene::behind(kind, &[])).with(&["main"]);
        match setting {
            "" => drop(scene.sandbox.git(&scene.mirror, &["config", "http.uploadpack", "false"])),
            setting => drop(scene.sandbox.mirror_push_ok(&scene.source, &["set", "m", setting])),
        }
        let oid = scene.foreign("main");
        let said = scene.sync_foreign();
        assert_eq!(said.status, 0, "{setting}: {said:?}");
        assert!(scene.is_mirrored(), "{setting}: {said:?}");
        assert_eq!(scene.kept(), Vec::<String>::new(), "{setting}");
        assert!(setting.starts_with("keep") || said.err.contains(&oid), "{setting}: {said:?}");
        let log = scene.sandbox.mirror_push_ok(&scene.source, &["log", "--json"]).out;
        assert!(log.contains(&oid), "{setting}: {log}");
        let objects = scene.sandbox.try_git(&scene.source, &["cat-file", "-e", &oid]);
        assert_ne!(objects.status, 0, "{setting}: nothing of it is here");
    }
}

/// If ssh itself fails during the request to upload-pack, the ref waits, and other refs are pushed.
/// If the server refuses upload-pack to this account, the ref is replaced and nothing is kept.
#[test]
fn a_value_waits_for_a_failure_that_may_pass() {
    for (status, waits) in [(255, true), (1, false)] {
        let sandbox = Sandbox::new();
        let (mirror, command) = (sandbox.bare("mirror.git"), sandbox.path("command"));
        let refusal = sandbox.path("refusal");
        let lines = format!(
            "#!/bin/sh\ncase $SSH_ORIGINAL_COMMAND in *upload-pack*) test -e {0} && echo 'no reading' >&2 && exit $(cat {0});; esac\n\
             exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            refusal.display()
        );
        script(&command, &lines);
        let directives = format!("ForceCommand {}", command.display());
        let server = Server::start_with(&sandbox, Kind::Ssh, free_port(), &directives);
        let source = server.source(&sandbox, "mirror.git", &[]);
        let scene = Scene { sandbox, source, mirror, server: Some(server) }.with(&["main", "main:x"]);
        let oid = scene.foreign("x");
        std::fs::write(&refusal, status.to_string()).unwrap();
        scene.push(&["main"]);
        let said = scene.sync_foreign();
        let (ours, theirs) = (&scene.source, &scene.mirror);
        assert_eq!(scene.sandbox.oid(theirs, "main"), scene.sandbox.oid(ours, "main"), "{said:?}");
        assert_eq!(scene.sandbox.oid(theirs, "x") == oid, waits, "{said:?}");
        assert_eq!(scene.status()["update_status"] == "scheduled", waits, "{said:?}");
        std::fs::remove_file(&refusal).unwrap();
        let said = scene.sync_foreign();
        assert_eq!(said.status, 0, "{said:?}");
        let expected = if waits { vec![Scene::kept_as(&oid, "x")] } else { vec![] };
        assert!(scene.is_mirrored() && scene.kept() == expected, "{status}: {:?} {said:?}", scene.kept());
    }
}

/// If one value cannot be kept, the others still are. A ref that upload-pack hides is requested by
/// its object id.
#[test]
fn each_value_that_can_be_kept_is() {
    let scene = Scene::local(&[]).with(&["main", "main:small", "main:large", "main:hidden"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["set", "m", "max_rewritten_size=1KiB"]);
    scene.sandbox.git(&scene.mirror, &["config", "uploadpack.hideRefs", "refs/heads/hidden"]);
    let (small, hidden) = (scene.foreign_with("small", 1), scene.foreign_with("hidden", 1));
    let large = scene.foreign("large");
    // `max_rewritten_size` limits all values of a run together. A value that did not fit with the
    // others has the whole size in the next run.
    let said = scene.sync_foreign();
    assert_eq!((said.status, scene.sandbox.oid(&scene.mirror, "large")), (1, large.clone()), "{said:?}");
    let said = scene.sync_foreign();
    assert!(said.status == 0 && scene.is_mirrored() && said.err.contains(&large), "{said:?}");
    let mut expected = vec![Scene::kept_as(&small, "small"), Scene::kept_as(&hidden, "hidden")];
    expected.sort();
    assert_eq!(scene.kept(), expected, "{said:?}");
}

/// A branch that contains the commit of a tag does not contain the tag object. A broken ref here
/// does not stop that.
#[test]
fn a_foreign_tag_is_kept() {
    let scene = Scene::local(&[]).with(&["main", "main:refs/tags/v1"]);
    if !crate::scene::sandbox::is_variant("reftable") {
        let broken = scene.sandbox.digits('1');
        std::fs::write(scene.source.join("refs/heads/broken"), format!("{broken}\n")).unwrap();
    }
    scene.sandbox.git(&scene.mirror, &["tag", "-f", "-a", "-m", "theirs", "v1", "main"]);
    let tag = scene.sandbox.oid(&scene.mirror, "refs/tags/v1");
    let said = scene.sync_foreign();
    assert_eq!(scene.sandbox.oid(&scene.mirror, "refs/tags/v1"), scene.sandbox.oid(&scene.source, "main"), "{said:?}");
    assert_eq!(scene.kept(), [format!("refs/rewritten/m/{}/tags/v1 {tag}", &tag[..12])], "{said:?}");
    let log = scene.sandbox.mirror_push_ok(&scene.source, &["log", "--json"]).out;
    assert!(log.contains(&tag), "{log}");
}

/// Whoever has a token controls a confined mirror. He must not fill the disk with kept values over
/// several runs.
#[test]
fn of_a_confined_mirror_only_so_much_is_kept() {
    let scene = Scene::behind(Kind::Http, &[]).with(&["main", "main:x"]);
    std::fs::write(scene.sandbox.path("server.toml"), "[api]\nallow_local_network = true\n").unwrap();
    let path = scene.source.join("mirror-push/config.toml");
    let text = std::fs::read_to_string(&path).unwrap() + "max_rewritten_size = \"1KiB\"\n";
    std::fs::write(&path, &text).unwrap();
    // Each value takes some 250 bytes.
    let is_kept = |lines: usize| {
        let oid = scene.foreign_with("x", lines);
        let said = scene.sandbox.mirror_push(&scene.source, &["--config", "server.toml", "sync"]);
        assert!(said.status == 0 && scene.is_mirrored(), "{said:?}");
        scene.kept().contains(&Scene::kept_as(&oid, "x"))
    };
    assert!((1..=8).all(is_kept), "each run has the whole size");
    scene.sandbox.mirror_push_ok(&scene.source, &["kept", "m", "--expire"]);
    std::fs::write(&path, text + "confined = true\n").unwrap();
    let kept: Vec<bool> = (9..=16).map(is_kept).collect();
    assert!(kept[0] && kept[1] && !kept[7], "{kept:?}");
    scene.sandbox.mirror_push_ok(&scene.source, &["kept", "m", "--expire"]);
    assert!(is_kept(17));
}

#[test]
fn a_value_that_no_ref_can_keep_is_not_replaced() {
    let scene = Scene::local(&[]).with(&["main", "main:x", "main:y"]);
    let (x, y) = (scene.foreign("x"), scene.foreign("y"));
    for length in 12..=x.len() {
        let taken = format!("refs/rewritten/m/{}/heads/x", &x[..length]);
        scene.sandbox.git(&scene.source, &["update-ref", &taken, "main"]);
    }
    let said = scene.sync_foreign();
    assert!(scene.sandbox.outcomes(&said).contains(&("refs/heads/x".into(), "rejected".into())), "{said:?}");
    assert_eq!(scene.sandbox.oid(&scene.mirror, "x"), x);
    assert_eq!(scene.sandbox.oid(&scene.mirror, "y"), scene.sandbox.oid(&scene.source, "y"));
    assert!(scene.kept().contains(&Scene::kept_as(&y, "y")), "{said:?}");
    // The ref `refs/rewritten/m` blocks all names below it.
    for line in scene.kept() {
        scene.sandbox.git(&scene.source, &["update-ref", "-d", line.split(' ').next().unwrap()]);
    }
    scene.sandbox.git(&scene.source, &["update-ref", "refs/rewritten/m", "main"]);
    let said = scene.sync_foreign();
    assert!(scene.sandbox.outcomes(&said).contains(&("refs/heads/x".into(), "rejected".into())), "{said:?}");
    assert_eq!(scene.sandbox.oid(&scene.mirror, "x"), x);
}

/// A value whose objects are incomplete is not kept.
#[test]
fn a_foreign_value_without_its_objects_is_not_kept() {
    let scene = Scene::local(&[]).with(&["main"]);
    let oid = scene.foreign("main");
    let blob = scene.sandbox.git(&scene.mirror, &["rev-parse", "main:theirs"]);
    let (first, rest) = blob.trim().split_at(2);
    std::fs::remove_file(scene.mirror.join("objects").join(first).join(rest)).unwrap();
    let said = scene.sync_foreign();
    assert!(scene.is_mirrored(), "{said:?}");
    assert!(scene.kept().is_empty() && said.err.contains(&oid), "{said:?}");
}

/// At whatever step a run is killed or the disk is full, the foreign value is on the mirror or is
/// kept here.
#[test]
fn a_foreign_value_survives_a_run_that_is_killed_or_has_no_space_at_any_step() {
    let scene = Scene::local(&[]).with(&["main"]);
    let oid = scene.foreign("main");
    let copy = |from: &str, to: &str| {
        let _ = std::fs::remove_dir_all(scene.sandbox.path(to));
        assert!(scene.sandbox.command("cp").args(["-a", "--", from, to]).status().unwrap().success());
    };
    let both = |from: &str, to: &str| {
        for name in ["source", "mirror"] {
            copy(&format!("{name}.{from}"), &format!("{name}.{to}"));
        }
    };
    both("git", "saved");
    for fault in [Fault::Kill, Fault::Error("ENOSPC")] {
        let points = at_every_point(|point| {
            both("saved", "git");
            let program = env!("CARGO_BIN_EXE_git-mirror-push");
            let mut command = under(&scene.sandbox, Some((fault, point)), Threads::Main, program);
            let first = run_with_input(command.arg("--git-dir").arg(&scene.source).arg("sync"), b"");
            if !is_reached(&scene.sandbox) {
                return false;
            }
            let at = format!("{fault:?}, {point:?}");
            let is_there = scene.sandbox.oid(&scene.mirror, "main") == oid;
            assert!(is_there || scene.kept() == [Scene::kept_as(&oid, "main")], "{at}: {first:?}");
            let said = scene.sync_foreign();
            assert!(said.status == 0 && scene.is_mirrored(), "{at}: {said:?}");
            assert_eq!(scene.kept(), [Scene::kept_as(&oid, "main")], "{at}");
            assert!(!scene.source.join("mirror-push/remotes/m/incoming").exists(), "{at}");
            assert!(!scene.holds_packs(), "{at}");
            true
        });
        assert!(points > 50, "{points}");
    }
    scene.sandbox.git(&scene.source, &["fsck", "--connectivity-only"]);
}
