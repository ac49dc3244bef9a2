//! The first push to an empty mirror sets the default branch alone, and carries the objects of the refs that follow. A mirror may refuse
//! these objects or drop them.

use crate::scene::Scene;

/// A mirror that writes a line to its file `pushes` for each push: the refs, and how many objects came with them.
fn scene(options: &[&str]) -> Scene {
    let scene = Scene::local(options);
    scene.sandbox.git(&scene.mirror, &["config", "receive.unpackLimit", "1"]);
    scene.hook(
        "pre-receive",
        "refs=$(cut -d/ -f3 | tr '\\n' ' ')\n\
         count=$(GIT_ALTERNATE_OBJECT_DIRECTORIES= git count-objects -v | sed -n 's/^in-pack: //p')\n\
         echo \"$refs$count\" >> pushes",
    );
    let work = scene.work();
    work.commit("one");
    for topic in ["topic", "wip"] {
        work.git(&["checkout", "-q", "-b", topic, "main"]);
        std::fs::write(work.path.join(topic), format!("{topic}\n")).unwrap();
        work.git(&["add", "-A"]);
        work.commit(topic);
    }
    work.push(&["main", "topic", "wip"]);
    scene
}

/// The pushes since the last look.
fn pushes(scene: &Scene) -> Vec<String> {
    let file = scene.mirror.join("pushes");
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    std::fs::write(&file, "").unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Whether the mirror has all refs and all their objects.
fn is_whole(scene: &Scene) -> bool {
    let missing = scene.sandbox.git(&scene.mirror, &["rev-list", "--objects", "--all", "--missing=print"]);
    scene.is_mirrored() && !missing.lines().any(|line| line.starts_with('?'))
}

#[test]
fn an_empty_mirror_gets_one_pack_and_its_default_branch_first() {
    let scene = scene(&[]);
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    // Two objects of `main`: the commit and the empty tree. Three of each topic.
    assert_eq!(pushes(&scene), ["main 8", "topic wip 0"]);
    assert!(is_whole(&scene));
    // A mirror that has lost all its refs is an empty mirror again.
    for branch in ["main", "topic", "wip"] {
        scene.sandbox.git(&scene.mirror, &["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }
    scene.sandbox.mirror_push_ok(&scene.source, &["sync"]);
    assert_eq!(pushes(&scene), ["main 8", "topic wip 0"]);
    // If the mirror has refs, the default branch is not sent alone first.
    scene.sandbox.git(&scene.mirror, &["update-ref", "-d", "refs/heads/main"]);
    scene.sandbox.git(&scene.mirror, &["update-ref", "-d", "refs/heads/topic"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["sync"]);
    assert_eq!(pushes(&scene), ["main topic 3"]);
}

#[test]
fn an_object_that_the_mirror_refuses_does_not_stop_the_default_branch() {
    let scene = scene(&[]);
    // GitHub refuses a push with a large file in this way: it looks at each object that came, and not at the refs.
    scene.hook(
        "pre-receive",
        "for id in $(git cat-file --batch-all-objects --batch-check='%(objecttype) %(objectname)' | sed -n 's/^blob //p'); do\n\
         test \"$(git cat-file blob $id)\" = wip && { echo 'a forbidden file' >&2; exit 1; }\n\
         done; exit 0",
    );
    let said = scene.sandbox.mirror_push(&scene.source, &["drain", "--json"]);
    let outcomes = scene.sandbox.outcomes(&said);
    let of = |name: &str| &outcomes.iter().find(|(ref_name, _)| ref_name.ends_with(name)).unwrap().1;
    assert_eq!(
        (of("main").as_str(), of("topic").as_str(), of("wip").as_str()),
        ("created", "created", "remote_rejected")
    );
    let theirs = |branch: &str| scene.sandbox.oid(&scene.mirror, branch);
    assert_eq!(theirs("topic"), scene.sandbox.oid(&scene.source, "topic"));
    assert_eq!(scene.sandbox.git(&scene.mirror, &["for-each-ref"]).lines().count(), 2);
}

#[test]
fn objects_that_the_mirror_did_not_keep_are_sent_again() {
    let scene = scene(&[]);
    // When main is about to be set, the mirror has the whole pack. It keeps only what main needs.
    scene.hook(
        "update",
        "test $1 = refs/heads/main || exit 0\n\
         rm objects/pack/*.keep; git update-ref refs/keep/main $3 && git repack -adq && git prune --expire=now && touch pruned\n\
         git update-ref -d refs/keep/main",
    );
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert!(scene.mirror.join("pruned").exists());
    assert_eq!(pushes(&scene), ["main 8", "topic wip 0", "topic wip 6"]);
    assert!(is_whole(&scene));
    assert_eq!(scene.status()["refs"].as_array().map_or(0, Vec::len), 0, "{}", scene.status());
}

#[test]
fn what_is_too_large_together_is_sent_apart() {
    let scene = scene(&[]);
    let work = scene.work();
    for topic in ["topic", "wip"] {
        work.git(&["fetch", "-q"]);
        work.git(&["checkout", "-q", "-B", topic, &format!("origin/{topic}")]);
        let noise: String = (0..6000_u32)
            .map(|n| format!("{:08x}\n", (n + u32::from(topic == "wip")).wrapping_mul(2_654_435_761)))
            .collect();
        std::fs::write(work.path.join(topic), noise).unwrap();
        work.git(&["add", "-A"]);
        work.commit("large");
    }
    work.push(&["topic", "wip"]);
    scene.sandbox.git(&scene.mirror, &["config", "receive.maxInputSize", "50000"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert!(is_whole(&scene));
    let sent = pushes(&scene);
    assert_eq!(sent[0].split(' ').next(), Some("main"), "{sent:?}");
    assert_eq!(sent.len(), 3, "{sent:?}");
}

#[test]
fn companions_count_towards_max_refs_per_push() {
    let scene = scene(&["max_refs_per_push=2"]);
    scene.sandbox.mirror_push_ok(&scene.source, &["drain"]);
    assert_eq!(pushes(&scene), ["main 5", "topic wip 3"]);
    assert!(is_whole(&scene));
}

#[test]
fn a_damaged_branch_does_not_keep_the_default_branch_from_an_empty_mirror() {
    let scene = scene(&[]);
    // The file of `wip` is lost here, so no pack with it can be made.
    let blob = scene.sandbox.git(&scene.source, &["rev-parse", "wip:wip"]);
    std::fs::remove_file(scene.source.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    for _ in 0..2 {
        let said = scene.sandbox.mirror_push(&scene.source, &["sync"]);
        assert_eq!(said.status, 1, "{said:?}");
        scene.sandbox.git(&scene.source, &["update-ref", "refs/heads/again", "main"]);
    }
    assert_eq!(scene.sandbox.oid(&scene.mirror, "main"), scene.sandbox.oid(&scene.source, "main"));
}
