//! The completions for bash, zsh and fish, run by these shells.

use crate::system::installed::Installed;

#[test]
fn completions_work_after_git_too() {
    let here = Installed::new();
    let script = here.prefix.join("share/bash-completion/completions/git-mirror-push");
    let complete = |words: &str, n: usize| {
        let text = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={n}; _git_mirror_push; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        here.ok(&here.prefix, &["bash", "-c", &text]).out.trim().to_owned()
    };
    assert_eq!(complete("git mirror-push doc", 2), "doctor");
    assert!(complete("git mirror-push sync --allow", 3).contains("--allow-mass-delete"));
    let fish =
        std::fs::read_to_string(here.prefix.join("share/fish/vendor_completions.d/git-mirror-push.fish")).unwrap();
    assert!(fish.contains("__fish_git_using_command mirror-push' -f -a doctor"));
}

#[test]
fn completions_know_the_mirrors() {
    let here = Installed::new();
    let source = here.sandbox.bare("source.git");
    for name in ["office", "offsite", "backup"] {
        let mirror = here.sandbox.path(name).display().to_string();
        here.ok(&source, &["git", "mirror-push", "add", name, &mirror, "--disabled"]);
    }
    let share = |name: &str| here.prefix.join("share").join(name).display().to_string();
    let bash = |words: &str, n: usize| {
        let script = share("bash-completion/completions/git-mirror-push");
        let text = format!(
            "source '{script}'; COMP_WORDS=({words}); COMP_CWORD={n}; _git_mirror_push; echo ${{COMPREPLY[@]}}"
        );
        here.ok(&source, &["bash", "-c", &text]).out.trim().to_owned()
    };
    assert_eq!(bash("git mirror-push set off", 3), "office offsite");
    assert_eq!(bash("git mirror-push --git-dir . sync office b", 6), "backup");
    assert_eq!(bash("git mirror-push --git-dir = . sync b", 6), "backup");
    assert_eq!(bash("git mirror-push -C '~/../source.git' sync b", 5), "backup", "relative to home");
    assert_eq!(bash("git mirror-push set office --prune b", 5), "", "the value of an option");
    assert_eq!(bash("git mirror-push set office --prune = b", 6), "", "the same after =, as bash divides it");
    assert_eq!(bash("git mirror-push add off", 3), "", "a new name");
    assert_eq!(bash("git -C ../source.git mirror-push set off", 5), "office offsite", "git's own options");
    let fish = format!(
        "source '{}'; complete -C 'git-mirror-push status off'",
        share("fish/vendor_completions.d/git-mirror-push.fish")
    );
    assert_eq!(here.ok(&source, &["fish", "--no-config", "-c", &fish]).out, "office\noffsite\n");
    let zsh = format!(
        "autoload -U compinit; compinit -D -u; source '{}'; compadd() {{ print -l -- $names }}; _git_mirror_push_names",
        share("zsh/site-functions/_git-mirror-push")
    );
    let said = here.ok(&source, &["zsh", "-f", "-c", &zsh]).out;
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["office", "offsite", "backup"]);
    let script = std::fs::read_to_string(share("zsh/site-functions/_git-mirror-push")).unwrap();
    assert!(script.lines().filter(|line| line.ends_with(":_git_mirror_push_names' \\")).count() > 10, "{script}");
}
