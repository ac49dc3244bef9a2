//! Hooks and settings of this repository decide what may be taken.

use super::Taking;
use crate::scene::sandbox::script;

fn hook(s: &Taking, name: &str, lines: &str) {
    script(&s.here.join("hooks").join(name), &format!("#!/bin/sh\n{lines}\n"));
}

#[test]
fn a_hook_that_refuses_one_ref_stops_no_other() {
    let s = Taking::local(&[]);
    hook(&s, "update", "test \"$1\" != refs/heads/bad || { echo 'not this one' >&2; exit 1; }");
    let work = s.work();
    work.commit("one");
    work.push(&["main", "main:bad", "main:good"]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    let words: Vec<_> = s.changed(&said).into_iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(words, ["refs/heads/bad rejected", "refs/heads/good created", "refs/heads/main created"]);
    assert!(said.out.contains("not this one"), "{said:?}");
}

#[test]
fn a_pre_receive_hook_that_refuses_all_is_asked_again_with_less() {
    let s = Taking::local(&[]);
    hook(&s, "pre-receive", "! grep -q refs/heads/bad || { echo 'bad among them' >&2; exit 1; }");
    let work = s.work();
    work.commit("one");
    work.git(&["branch", "bad"]);
    for name in ["a", "b", "c", "d", "e"] {
        work.commit(name);
        work.git(&["branch", name]);
    }
    work.push(&["--all"]);
    let said = s.pull();
    assert_eq!(said.status, 1, "{said:?}");
    let all = s.sandbox.git(&s.here, &["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
    assert_eq!(all.lines().collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "main"]);
    s.sandbox.git(&s.here, &["fsck", "--connectivity-only"]);
}

#[test]
fn hooks_see_who_takes_and_the_environment_that_is_configured() {
    let s = Taking::local(&["hook_environment={ GL_USER = \"mirror\" }"]);
    let seen = s.sandbox.path("seen");
    hook(
        &s,
        "pre-receive",
        &format!("echo \"$GIT_MIRROR_PUSH_PULL $GL_USER\" > '{}'; cat > /dev/null", seen.display()),
    );
    s.work().commit("one");
    s.work().push(&["main"]);
    s.pull_ok();
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), "m mirror\n");
}

#[test]
fn hooks_none_runs_none_and_policy_those_that_refuse() {
    for (hooks, expected) in [("all", "pre\nupdate\npost\n"), ("policy", "pre\nupdate\n"), ("none", "")] {
        let s = Taking::local(&[&format!("hooks={hooks}")]);
        let seen = s.sandbox.path("seen");
        std::fs::write(&seen, "").unwrap();
        for (name, word) in [("pre-receive", "pre"), ("update", "update"), ("post-update", "post")] {
            hook(&s, name, &format!("echo {word} >> '{}'; cat > /dev/null", seen.display()));
        }
        s.work().commit("one");
        s.work().push(&["main"]);
        s.pull_ok();
        assert!(s.is_taken());
        assert_eq!(std::fs::read_to_string(&seen).unwrap(), expected, "{hooks}");
        assert_eq!(s.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn settings_for_people_do_not_stop_a_decided_update() {
    let s = Taking::local(&["--prune", "deleted"]).with(&["main", "main:gone"]);
    for key in ["receive.denyNonFastForwards", "receive.denyDeletes"] {
        s.sandbox.git(&s.here, &["config", key, "true"]);
    }
    let work = s.work();
    work.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    work.push(&["+main", ":gone"]);
    s.pull_ok();
    assert!(s.is_taken());
    // A hidden ref is one that nobody may change.
    s.sandbox.git(&s.here, &["config", "--add", "receive.hideRefs", "refs/heads/secret"]);
    work.push(&["main:secret", "main:open"]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    let words: Vec<_> = s.changed(&said).into_iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(words, ["refs/heads/open created", "refs/heads/secret rejected"], "{said:?}");
}

#[test]
fn a_malformed_object_is_refused_and_the_other_branches_come() {
    let s = Taking::local(&[]);
    s.sandbox.git(&s.here, &["config", "receive.fsckObjects", "true"]);
    let work = s.work();
    let good = work.commit("good");
    let tree = work.git(&["rev-parse", "HEAD^{tree}"]);
    let text = format!("tree {}\nauthor A <a@b> 1 +0000\ncommitter no date\n\nbad\n", tree.trim());
    let arguments = ["hash-object", "-t", "commit", "-w", "--stdin", "--literally"];
    let bad = s.sandbox.git_with_input(&s.up, &arguments, text.as_bytes());
    work.push(&["main"]);
    s.sandbox.git(&s.up, &["update-ref", "refs/heads/bad", bad.trim()]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    assert_eq!(said.status, 1);
    let words: Vec<_> = s.changed(&said).into_iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(words, ["refs/heads/bad rejected", "refs/heads/main created"], "{said:?}");
    assert_eq!(s.here("main"), good.trim());
    assert_eq!(
        s.sandbox.try_git(&s.here, &["cat-file", "-e", bad.trim()]).status,
        1,
        "it never entered the repository"
    );
    assert_eq!(s.leftovers(), Vec::<String>::new());
}

/// In a shared repository, a member of the group could make git run a program as the user who
/// pulls.
#[test]
fn what_members_of_the_group_may_have_written_stops_a_pull_of_a_shared_repository() {
    use std::os::unix::fs::PermissionsExt;
    let s = Taking::local(&[]).with(&["main"]);
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(s.here.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The mode of the directory shows that the repository is shared. A member cannot change it, but
    // could remove `core.sharedRepository` from a config that he can write.
    mode("", 0o2775);
    hook(&s, "update", "exit 0");
    mode("config", 0o644);
    mode("hooks", 0o755);
    mode("hooks/update", 0o755);
    s.pull_ok();
    for (path, open, closed) in [("config", 0o664, 0o644), ("hooks", 0o2775, 0o755), ("hooks/update", 0o775, 0o755)] {
        s.work().commit(path);
        s.work().push(&["main"]);
        mode(path, open);
        let said = s.pull();
        let text = format!("{said:?}");
        assert!(said.status == 1 && text.contains(path) && text.contains("chmod go-w"), "{path}: {text}");
        assert!(!s.is_taken(), "{path}");
        mode(path, closed);
        s.pull_ok();
        assert!(s.is_taken(), "{path}");
    }
}

/// A branch that is checked out in a linked worktree: git's own rule (`receive.denyCurrentBranch`) protects it from a push, and so from us.
#[test]
fn a_branch_that_is_checked_out_in_a_worktree_is_not_moved_below_it() {
    let s = Taking::local(&[]).with(&["main", "main:topic"]);
    let tree = s.sandbox.path("tree");
    s.sandbox.git(&s.here, &["worktree", "add", "-q", tree.to_str().unwrap(), "topic"]);
    let work = s.work();
    work.commit("two");
    work.push(&["main", "main:topic"]);
    let said = s.sandbox.mirror_push(&s.here, &["pull", "--json"]);
    let words: Vec<_> = s.changed(&said).into_iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(words, ["refs/heads/main fast_forwarded", "refs/heads/topic rejected"], "{said:?}");
    assert!(said.out.contains("checked out"), "{said:?}");
    assert_eq!(s.sandbox.git(&tree, &["status", "--porcelain"]), "");
    s.sandbox.git(&s.here, &["worktree", "remove", tree.to_str().unwrap()]);
    assert_eq!(s.sandbox.mirror_push(&s.here, &["pull"]).status, 0);
    assert!(s.is_taken());
}

/// gitolite's `update` hook decides about what is taken, as the user whom `hook_environment` names.
#[test]
fn a_repository_of_gitolite_takes_what_its_rules_allow() {
    let s = Taking::local(&[]);
    let home = s.sandbox.path("home");
    let gitolite = |words: &[&str]| {
        let mut command = s.sandbox.command("gitolite");
        let output = command.args(words).env("USER", "git").env("GL_USER", "admin").output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    };
    gitolite(&["setup", "-a", "admin"]);
    let rules = home.join(".gitolite/conf/gitolite.conf");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, text + "\nrepo pulled\n    -   locked$ = mirror\n    RW+ = mirror\n").unwrap();
    gitolite(&["setup"]);
    let here = home.join("repositories/pulled.git");
    let work = s.work();
    work.commit("one");
    work.push(&["main", "main:locked"]);
    let environment = "hook_environment={ GL_USER = \"mirror\", GL_REPO = \"pulled\", GL_LIBDIR = \"/usr/share/gitolite3/lib\", \
                       GL_BINDIR = \"/usr/share/gitolite3\" }";
    std::fs::create_dir_all(here.join("mirror-push")).unwrap();
    std::fs::write(here.join("mirror-push/config.toml"), "wake = \"none\"\n").unwrap();
    let add = ["add", "m", s.up.to_str().unwrap(), "--direction", "pull", environment];
    s.sandbox.mirror_push_ok(&here, &add);
    let said = s.sandbox.mirror_push(&here, &["pull", "--json"]);
    let words: Vec<_> = s.changed(&said).into_iter().map(|(name, word)| format!("{name} {word}")).collect();
    assert_eq!(words, ["refs/heads/locked rejected", "refs/heads/main created"], "{said:?}");
    assert!(said.out.contains("DENIED"), "{said:?}");
    // What pull.md says for those who want no rules for the mirror.
    let all = "hook_environment={ GL_LIBDIR = \"/usr/share/gitolite3/lib\", GL_BYPASS_ACCESS_CHECKS = \"1\" }";
    s.sandbox.mirror_push_ok(&here, &["set", "m", all]);
    s.sandbox.mirror_push_ok(&here, &["pull"]);
    assert_eq!(s.sandbox.refs(&here), s.sandbox.refs(&s.up));
}
