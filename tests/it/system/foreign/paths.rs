//! Paths that another user made: links, hooks, objects and directories outside of the repository.

use super::*;

/// Bob puts links in place of the directories and files that we write.
#[test]
fn no_link_of_another_user_is_followed() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(BOB);
    shared.configure(&shared.remote());
    assert_eq!(shared.run(&["sync"]).status, 0);
    shared.give(&shared.source, BOB);
    let victim = shared.sandbox.path("victim");
    let ours = shared.config.parent().unwrap().to_owned();
    for name in
        ["remotes", "remotes/m", "remotes/m/queue", "remotes/m/mirrored", "spool", "spool/incoming", "spool/tmp"]
    {
        // A directory of ours that looks like theirs, with a file that a removal or a replacement would change.
        let aside = shared.sandbox.path("aside");
        std::fs::rename(ours.join(name), &aside).unwrap();
        let copied = shared.sandbox.command("cp").args(["-a"]).arg(&aside).arg(&victim).status().unwrap();
        assert!(copied.success());
        std::fs::write(victim.join("kept"), "").unwrap();
        shared.give(&victim, US);
        let listed = || {
            let mut command = shared.sandbox.command("find");
            Completed::of(&command.arg(&victim).args(["-printf", "%P %i %s %T@ %m\n"]).output().unwrap()).out
        };
        let before = listed();
        symlink(&victim, ours.join(name)).unwrap();
        std::os::unix::fs::lchown(ours.join(name), Some(BOB), None).unwrap();
        let work = shared.work();
        work.commit(name);
        work.push(&["main"]);
        for command in [&["sync"][..], &["drain"], &["status"], &["log"], &["doctor"], &["credential", "m", "--clear"]]
        {
            let said = shared.run(command);
            assert_eq!(listed(), before, "{name}, {command:?}: {said:?}");
        }
        // When the mirror is removed from the configuration, the files behind the link stay too.
        shared.configure("");
        shared.run(&["drain"]);
        assert_eq!(listed(), before, "{name}, removed");
        shared.configure(&shared.remote());
        std::fs::remove_file(ours.join(name)).unwrap();
        std::fs::remove_dir_all(&victim).unwrap();
        std::fs::rename(&aside, ours.join(name)).unwrap();
    }
    let said = shared.run(&["sync"]);
    assert!(said.status == 0 && shared.is_mirrored(), "{said:?}");
}

#[test]
fn no_hook_is_installed_and_no_object_is_read_outside_of_another_users_repository() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(BOB);
    shared.configure(&shared.remote());
    let elsewhere = shared.sandbox.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    shared.give(&elsewhere, US);
    shared.sandbox.git(&shared.source, &["config", "core.hooksPath", elsewhere.to_str().unwrap()]);
    let said = shared.run(&["install-hook"]);
    assert!(said.status == 128 && said.err.contains("the hook is not changed"), "{said:?}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    // In our own repository, which a group shares, `core.hooksPath` comes from another member.
    let member = Shared::new(US);
    chown(member.source.join("config"), Some(BOB), None).unwrap();
    let said = member.run(&["install-hook"]);
    assert_eq!(said.status, 0, "the hooks are in the repository: {said:?}");
    assert!(member.source.join("hooks/post-receive").is_symlink());
    member.sandbox.git(&member.source, &["config", "core.hooksPath", elsewhere.to_str().unwrap()]);
    chown(member.source.join("config"), Some(BOB), None).unwrap();
    let said = member.run(&["install-hook"]);
    assert!(said.status == 128 && said.err.contains("the hook is not changed"), "{said:?}");
    // Bob knows the id of a commit in a repository of ours. He tries to reach its objects by alternates, then by a link.
    let secret = shared.sandbox.bare("ours.git");
    let work = shared.sandbox.work(&secret);
    let id = work.commit("secret");
    work.push(&["main"]);
    let alternates = shared.source.join("objects/info/alternates");
    std::fs::create_dir_all(alternates.parent().unwrap()).unwrap();
    std::fs::write(&alternates, format!("{}\n", secret.join("objects").display())).unwrap();
    shared.sandbox.git(&shared.source, &["update-ref", "refs/heads/stolen", &id]);
    shared.give(&shared.source, BOB);
    let said = shared.run(&["sync"]);
    assert!(said.status == 128 && said.err.contains("leads out of a repository of user 65533"), "{said:?}");
    std::fs::remove_file(&alternates).unwrap();
    std::fs::rename(shared.source.join("objects"), shared.sandbox.path("objects")).unwrap();
    symlink(shared.sandbox.path("objects"), shared.source.join("objects")).unwrap();
    let said = shared.run(&["sync"]);
    assert!(said.status == 128 && said.err.contains("leads out of a repository of user 65533"), "{said:?}");
    assert_eq!(shared.sandbox.refs(&shared.mirror), Vec::<String>::new());
}

#[test]
fn a_directory_or_a_common_directory_of_another_user_stops_or_opens_nothing() {
    if !is_root("files of other users are needed") {
        return;
    }
    let shared = Shared::new(BOB);
    shared.configure(&shared.remote());
    let closed = shared.sandbox.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(&closed, Some(BOB), None).unwrap();
    let said = shared.run(&["sync", "--all"]);
    assert!(shared.is_mirrored(), "{said:?}");
    // A repository of ours, which Bob names in a repository of his.
    let ours = shared.sandbox.bare("ours.git");
    shared.give(&ours, US);
    let trap = shared.sandbox.bare("trap.git");
    std::fs::write(trap.join("commondir"), format!("{}\n", ours.display())).unwrap();
    shared.give(&trap, BOB);
    let said = shared.run(&["sync", "--all"]);
    assert!(said.err.contains("trap.git' is not a git repository: its files are in"), "{said:?}");
    assert!(!ours.join("mirror-push").exists());
}
