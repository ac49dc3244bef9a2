//! Looking creates no repository. A repository is not created twice, for a mirror of the API, or
//! faster than configured. A mirror that was emptied or made again gets every ref.

use crate::scene::Scene;
use crate::scene::daemon::Daemon;
use crate::scene::estate::Estate;
use crate::scene::forge::{ADMIN, Brand, Forge};
use crate::scene::sandbox::{Sandbox, wait_for};

/// GitLab makes a project at the first request to receive-pack, whatever the URL. A mistyped URL
/// must not leave a project behind.
#[test]
fn looking_creates_nothing_at_a_host_that_creates_on_push() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let forge = Forge::start(&sandbox, Brand::Gitlab);
    forge.create_on_push();
    let source = sandbox.source(&forge.url("acme/typo.git"), &[]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main"]);
    for command in [&["plan"][..], &["doctor"], &["sync"], &["drain"], &["status"], &["check"]] {
        let said = sandbox.mirror_push(&source, command);
        assert!(!forge.repository("acme").exists(), "{command:?}: {said:?}");
    }
    let said = sandbox.mirror_push(&source, &["sync"]);
    assert!(said.status == 1 && said.out.contains("was not found") && said.out.contains("create it there"), "{said:?}");
    let asked = forge.requests();
    assert!(asked.iter().all(|request| request.contains("git-upload-pack")), "{asked:?}");

    sandbox.mirror_push_ok(&source, &["set", "m", "create=push"]);
    let said = sandbox.mirror_push_ok(&source, &["plan"]);
    assert!(said.out.contains("would create the repository") && !forge.repository("acme").exists(), "{said:?}");
    let said = sandbox.mirror_push_ok(&source, &["sync"]);
    assert!(said.out.contains("created the repository"), "{said:?}");
    assert_eq!(sandbox.refs(&forge.repository("acme/typo.git")), sandbox.refs(&source));
    assert_eq!(sandbox.status(&source)["created_repository"], true);

    // After the first sync, upload-pack is not asked before a push.
    forge.requests();
    let work = sandbox.work(&source);
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    let asked = forge.requests();
    assert!(!asked.iter().any(|request| request.contains("git-upload-pack")), "{asked:?}");
    // An optimistic push to a project that is gone fails. The run then does not ask receive-pack
    // for the refs, because that would make the project again. `plan` and `doctor` always ask
    // upload-pack first.
    std::fs::remove_dir_all(forge.repository("acme/typo.git")).unwrap();
    work.commit("three");
    work.push(&["main"]);
    let said = sandbox.mirror_push(&source, &["drain"]);
    assert!(said.status == 1 && said.out.contains("; it was there on 2"), "{said:?}");
    assert!(!forge.repository("acme/typo.git").exists(), "{said:?}");
    for command in ["plan", "doctor"] {
        let said = sandbox.mirror_push(&source, &[command]);
        assert!(said.status == 1 && !forge.repository("acme/typo.git").exists(), "{command}: {said:?}");
    }
}

#[test]
fn a_template_creates_at_the_pace_that_is_configured_and_one_at_a_time() {
    let estate = Estate::new("");
    let sandbox = &estate.sandbox;
    let forge = Forge::start(sandbox, Brand::Gitea);
    let token = sandbox.secret_file("admin.token", ADMIN);
    estate.configure(&format!(
        "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n[remotes.forge]\nurl = \"{}\"\nallow_insecure_http = true\n\
         create = \"gitea\"\ncreate_token_file = \"{}\"\ncreate_per_minute = 3\n",
        forge.url("acme/{path_dash}.git"),
        token
    ));
    for number in 0..7 {
        estate.repository(&format!("team/r{number}.git"));
    }
    let said = estate.run(&["sync", "--all", "--json"]);
    let reports = said.json();
    let reports = reports.as_array().unwrap();
    let created = reports.iter().filter(|report| report["created_repository"] == true).count();
    assert_eq!((created, forge.wishes().len()), (3, 3), "{said:?}");
    assert_eq!(forge.most_at_work(), 1, "one at a time");
    let waiting: Vec<&str> = reports.iter().filter_map(|report| report["error"].as_str()).collect();
    assert_eq!(waiting.len(), 4, "{waiting:?}");
    let is_said = |place: &str| {
        waiting.iter().any(|text| text.starts_with(&format!("waiting to be created, {place} at '127.0.0.1', about ")))
    };
    assert!(["1st", "2nd", "3rd", "4th"].into_iter().all(is_said), "{waiting:?}");
    assert!(reports.iter().all(|report| report["update_status"] != "failed"), "{said:?}");
    // A mirror that waits has not failed. A drain does not create its repository before its turn.
    assert_eq!(
        estate
            .run(&["drain", "--all", "--json"])
            .json()
            .as_array()
            .map(|all| all.iter().filter(|report| report["created_repository"] == true).count()),
        Some(0)
    );
    assert_eq!(forge.wishes().len(), 0);
    let status = estate.run(&["status", "--all", "--json"]).json();
    let failing = status.as_array().unwrap().iter().filter(|view| view["update_status"] == "failed").count();
    assert_eq!(failing, 0, "{status}");
}

/// Somebody may have chosen the address of a confined mirror. The token of the server must not go there.
#[test]
fn a_mirror_of_the_api_gets_no_repository_and_no_token() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let forge = Forge::start(&sandbox, Brand::Gitea);
    let token = sandbox.secret_file("admin.token", ADMIN);
    let keys = format!("create = \"gitea\"\ncreate_token_file = \"{token}\"\nallow_insecure_http = true\n");
    let template = format!("[defaults]\n{keys}\n[remotes.forge]\nurl = \"{}\"\n{keys}", forge.url("acme/{name}.git"));
    let daemon = Daemon::start(&sandbox, &format!("[api]\nallow_local_network = true\n{template}"));
    let repository = daemon.repository("widget");
    let work = sandbox.work(&repository);
    work.commit("one");
    work.push(&["main"]);
    // The repository of the template's mirror is created.
    wait_for("the mirror of the template", || forge.repository("acme/widget.git").exists());
    forge.wishes();
    // The repository of a mirror that the API added is not, although [defaults] has `create`.
    let id = daemon.add("widget", &forge.url("acme/other.git"));
    let shown = || daemon.api("GET", &format!("projects/widget/remote_mirrors/{id}"), "").json();
    wait_for("its failure", || shown()["update_status"] == "failed");
    assert!(shown()["last_error"].as_str().unwrap().contains("was not found"), "{}", shown());
    assert!(forge.wishes().is_empty() && !forge.repository("acme/other.git").exists());
}

/// The host makes a deleted project again when a run that is not optimistic asks for its refs. Then
/// the project gets every ref, not only the spooled ones.
#[test]
fn a_project_that_its_host_made_again_gets_every_ref() {
    let sandbox = Sandbox::of(("sha1", "files"));
    let forge = Forge::start(&sandbox, Brand::Gitlab);
    forge.create_on_push();
    let source = sandbox.source(&forge.url("acme/x.git"), &["create=push", "optimistic=false"]);
    let work = sandbox.work(&source);
    work.commit("one");
    work.push(&["main", "main:keep", "main:refs/tags/v1"]);
    sandbox.mirror_push_ok(&source, &["sync"]);
    std::fs::remove_dir_all(forge.repository("acme/x.git")).unwrap();
    work.commit("two");
    work.push(&["main"]);
    sandbox.mirror_push_ok(&source, &["drain"]);
    assert_eq!(sandbox.refs(&forge.repository("acme/x.git")), sandbox.refs(&source));
}

/// A wrong or hostile `Retry-After` does not delay the mirrors for years.
#[test]
fn no_host_parks_those_who_wait_for_longer_than_a_day() {
    let estate = Estate::new("");
    let sandbox = &estate.sandbox;
    let forge = Forge::start(sandbox, Brand::Gitea);
    let token = sandbox.secret_file("admin.token", ADMIN);
    estate.configure(&format!(
        "wake = \"none\"\n[[repositories]]\nroot = \"ROOT\"\n[remotes.forge]\nurl = \"{}\"\nallow_insecure_http = true\n\
         create = \"gitea\"\ncreate_token_file = \"{}\"\n",
        forge.url("acme/{path}.git"),
        token
    ));
    for number in 0..3 {
        estate.repository(&format!("r{number}.git"));
    }
    for _ in 0..3 {
        forge.prepare(429, &[("Retry-After", "99999999")], "{}");
    }
    estate.run(&["sync", "--all"]);
    let last = jiff::Timestamp::now().checked_add(std::time::Duration::from_secs(25 * 3600)).unwrap();
    for view in estate.run(&["status", "--all", "--json"]).json().as_array().unwrap() {
        let next: jiff::Timestamp = view["next_attempt_at"].as_str().unwrap().parse().unwrap();
        assert!(next < last, "{view}");
    }
    assert_eq!(forge.wishes().len(), 1, "no other repository is requested meanwhile");
}

/// A hook of the mirror deletes every ref after each push. Each run still ends, and the spooled
/// refs are not pushed again and again.
#[test]
fn a_mirror_that_empties_itself_ends_the_run() {
    let scene = Scene::local(&[]);
    let (sandbox, source) = (&scene.sandbox, &scene.source);
    let work = scene.work();
    work.commit("one");
    work.push(&["main", "main:a", "main:b", "main:c"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    let pushes = sandbox.path("pushes");
    scene.hook(
        "post-receive",
        &format!(
            "echo >>'{}'\ngit for-each-ref --format='delete %(refname)' | git update-ref --stdin",
            pushes.display()
        ),
    );
    for name in ["main", "a", "b", "c"] {
        sandbox.git(&scene.mirror, &["update-ref", "-d", &format!("refs/heads/{name}")]);
    }
    work.commit("two");
    work.push(&["main"]);
    for command in ["drain", "sync"] {
        let mut program = sandbox.command("timeout");
        let said = program.args(["60", env!("CARGO_BIN_EXE_git-mirror-push"), "--git-dir"]).arg(source).arg(command);
        let status = said.output().unwrap().status;
        assert_ne!(status.code(), Some(124), "{command} does not end");
        let count = std::fs::read_to_string(&pushes).unwrap().lines().count();
        assert!(count <= 20, "{command}: {count} pushes");
    }
}

/// A run that finds its mirror emptied requests a full sync before it pushes, so nothing is lost if
/// the run is killed.
#[test]
fn an_emptied_mirror_gets_every_ref_although_the_run_is_killed() {
    let scene = Scene::local(&[]);
    let (sandbox, source) = (&scene.sandbox, &scene.source);
    sandbox.add_mirror_config(
        source,
        "stall_timeout = \"1s\"\nretry_delay = \"1s\"\nmax_retry_delay = \"1s\"\noptimistic = false",
    );
    let work = scene.work();
    work.commit("one");
    work.push(&["main", "main:a", "main:b"]);
    sandbox.mirror_push_ok(source, &["drain"]);
    for name in ["main", "a", "b"] {
        sandbox.git(&scene.mirror, &["update-ref", "-d", &format!("refs/heads/{name}")]);
    }
    let armed = sandbox.path("armed");
    std::fs::write(&armed, "").unwrap();
    scene.hook(
        "post-receive",
        &format!("rm '{}' 2>/dev/null && kill -9 $(cat '{}')\nexit 0", armed.display(), sandbox.path("pid").display()),
    );
    work.commit("two");
    work.push(&["main"]);
    let mut program = sandbox.program(source);
    let mut drain = program.args(["drain", "-q"]).spawn().unwrap();
    std::fs::write(sandbox.path("pid"), drain.id().to_string()).unwrap();
    drain.wait().unwrap();
    wait_for("every ref", || {
        sandbox.mirror_push(source, &["drain", "-q"]);
        scene.is_mirrored()
    });
}
