//! What was taken goes on to the push mirrors.

use super::Taking;
use crate::scene::sandbox::wait_for;

/// Adds a push mirror to the repository here. Returns the mirror's path.
fn add_onward(s: &Taking, name: &str) -> std::path::PathBuf {
    let mirror = s.sandbox.bare(&format!("{name}.git"));
    s.sandbox.mirror_push_ok(&s.here, &["add", name, &mirror.display().to_string()]);
    mirror
}

#[test]
fn what_was_taken_is_spooled_whatever_hooks_says() {
    for hooks in ["all", "policy", "none"] {
        let s = Taking::local(&[&format!("hooks={hooks}")]);
        let onward = add_onward(&s, "onward");
        let work = s.work();
        work.commit("one");
        work.push(&["main", "main:x"]);
        s.pull_ok();
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        assert_eq!(s.sandbox.refs(&onward), s.sandbox.refs(&s.up), "{hooks}");
        work.push(&[":x"]);
        work.commit("two");
        work.push(&["main"]);
        s.pull_ok();
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        assert_eq!(s.sandbox.refs(&onward), s.sandbox.refs(&s.up), "{hooks}");
        let attempts = s.sandbox.mirror_push_ok(&s.here, &["log", "m", "--json"]).json();
        assert_eq!(attempts.as_array().unwrap().len(), 2, "{hooks}: a drain contacts no upstream");
    }
}

#[test]
fn a_run_that_was_killed_before_it_spooled_loses_nothing_onward() {
    let s = Taking::local(&["hooks=none"]).with(&["main"]);
    let onward = add_onward(&s, "onward");
    s.sandbox.mirror_push_ok(&s.here, &["drain"]);
    // As after a kill between receive-pack and the spool: the refs are here, and neither spool nor base knows it.
    let work = s.work();
    work.commit("two");
    work.push(&["main"]);
    s.sandbox.git(&s.here, &["fetch", "-q", &s.up.display().to_string(), "+refs/heads/*:refs/heads/*"]);
    s.pull_ok();
    s.sandbox.mirror_push_ok(&s.here, &["drain"]);
    assert_eq!(s.sandbox.refs(&onward), s.sandbox.refs(&s.up));
}

/// As after a kill between the deletion and the spool.
#[test]
fn a_deletion_that_was_not_spooled_goes_onward_with_the_next_run() {
    for hooks in ["policy", "none"] {
        let s = Taking::local(&[&format!("hooks={hooks}"), "--prune", "deleted"]).with(&["main", "main:x"]);
        let onward = add_onward(&s, "onward");
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        s.work().push(&[":x"]);
        s.sandbox.git(&s.here, &["update-ref", "-d", "refs/heads/x"]);
        s.pull_ok();
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        assert_eq!(s.sandbox.refs(&onward), s.sandbox.refs(&s.up), "{hooks}");
    }
}

#[test]
fn a_chain_of_three_passes_a_push_through_and_a_ring_comes_to_rest() {
    let s = Taking::local(&[]).with(&["main"]);
    // here <- up; third <- here; with a push mirror from third to fourth.
    let third = s.sandbox.source_named("third.git", &s.here.display().to_string(), &["--direction", "pull"]);
    let fourth = s.sandbox.bare("fourth.git");
    s.sandbox.mirror_push_ok(&third, &["add", "onward", &fourth.display().to_string()]);
    let round = || {
        s.pull_ok();
        s.sandbox.mirror_push_ok(&third, &["pull"]);
        s.sandbox.mirror_push_ok(&third, &["drain"]);
    };
    round();
    assert_eq!(s.sandbox.refs(&fourth), s.sandbox.refs(&s.up));
    // The ring: upstream pulls from the fourth repository.
    let text = format!("wake = \"none\"\n[remotes.ring]\nurl = \"{}\"\ndirection = \"pull\"\n", fourth.display());
    std::fs::create_dir_all(s.up.join("mirror-push")).unwrap();
    std::fs::write(s.up.join("mirror-push/config.toml"), text).unwrap();
    s.work().commit("two");
    s.work().push(&["main"]);
    for _ in 0..3 {
        round();
        s.sandbox.mirror_push_ok(&s.up, &["pull"]);
    }
    let refs = s.sandbox.refs(&s.up);
    for repository in [&s.here, &third, &fourth] {
        assert_eq!(s.sandbox.refs(repository), refs);
    }
    let attempts = |repository: &std::path::Path| {
        s.sandbox.mirror_push_ok(repository, &["log", "--json"]).json().as_array().unwrap().len()
    };
    let before = [attempts(&s.up), attempts(&s.here), attempts(&third)];
    round();
    s.sandbox.mirror_push_ok(&s.up, &["pull"]);
    assert_eq!([attempts(&s.up), attempts(&s.here), attempts(&third)], before, "it is at rest");
}

/// `receive.denyNonFastForwards` does not stop a decided update here. What switches it off for that must reach no other repository.
#[test]
fn our_settings_reach_no_other_receive_pack() {
    for hooks in ["all", "policy", "none"] {
        let s = Taking::local(&[&format!("hooks={hooks}")]).with(&["main"]);
        let onward = add_onward(&s, "onward");
        s.sandbox.mirror_push_ok(&s.here, &["drain"]);
        for repository in [&s.here, &onward] {
            s.sandbox.git(repository, &["config", "receive.denyNonFastForwards", "true"]);
        }
        // With wake = "auto", a drain is started after the pull.
        let config = s.here.join("mirror-push/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("wake = \"none\"\n", "")).unwrap();
        let work = s.work();
        work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
        work.push(&["+main"]);
        // Settings that somebody gives to the pull are for this repository too.
        let mut pull = s.sandbox.program(&s.here);
        pull.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "receive.denyNonFastForwards");
        pull.env("GIT_CONFIG_VALUE_0", "false").env("GIT_CONFIG_PARAMETERS", "'receive.denynonfastforwards=false'");
        assert!(pull.arg("pull").status().unwrap().success(), "{hooks}");
        assert!(s.is_taken(), "{hooks}: receive.denyNonFastForwards here does not stop a decided update");
        wait_for("the drain", || {
            s.sandbox.statuses(&s.here).as_array().unwrap().iter().any(|status| status["update_status"] == "failed")
        });
        assert_ne!(s.sandbox.oid(&onward, "main"), s.here("main"), "{hooks}: the mirror's own setting still counts");
    }
}
