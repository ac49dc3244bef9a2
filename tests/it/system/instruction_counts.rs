//! How many instructions the installed program takes for the hook, for a comparison and for reading an advertisement. valgrind's
//! callgrind counts them, so the numbers do not depend on the speed or load of the machine. Examine a change that breaks a bound.

use std::path::{Path, PathBuf};

use crate::scene::sandbox::{Sandbox, run_with_input, script};
use crate::system::installed::Installed;

/// Instructions of the program itself, without those that it starts.
fn instructions(
    sandbox: &Sandbox,
    program: &Path,
    environment: &[(&str, &Path)],
    arguments: &[&str],
    input: &[u8],
) -> u64 {
    let mut command = sandbox.command("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", sandbox.path("callgrind").display()));
    command.arg(program).args(arguments).envs(environment.iter().copied());
    let said = run_with_input(&mut command, input);
    assert_eq!(said.status, 0, "{said:?}");
    let counted = said.err.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind tells");
    counted.1.trim().parse().unwrap()
}

/// A C program that does what a durable hook must, and no more.
fn floor(sandbox: &Sandbox) -> PathBuf {
    let (source, program) = (sandbox.path("floor.c"), sandbox.path("floor"));
    let text = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(void) {
            static char input[1 << 20];
            ssize_t size = read(0, input, sizeof input);
            int file = open("floor.tmp", O_WRONLY | O_CREAT | O_EXCL, 0600);
            if (size < 0 || file < 0 || write(file, input, size) != size || fsync(file) || close(file)) return 1;
            int directory = open(".", O_RDONLY);
            return rename("floor.tmp", "floor.entered") || directory < 0 || fsync(directory);
        }"#;
    std::fs::write(&source, text).unwrap();
    let built = sandbox.command("gcc").args(["-O2", "-o"]).arg(&program).arg(&source).status().unwrap();
    assert!(built.success());
    program
}

#[test]
fn the_hook_takes_fewer_than_a_shell_that_appends() {
    let here = Installed::new();
    let sandbox = &here.sandbox;
    let source = sandbox.source("mirror.git", &[]);
    let hook = here.prefix.join("libexec/git-mirror-push/git-mirror-post-receive");
    let line = format!("{} {} refs/heads/main\n", "0".repeat(40), "1".repeat(40)).into_bytes();
    let ours = instructions(sandbox, &hook, &[("GIT_DIR", &source)], &[], &line);
    assert_eq!(std::fs::read_dir(source.join("mirror-push/spool/incoming")).unwrap().count(), 1);
    let append = sandbox.path("append");
    script(&append, "while read -r line; do echo \"$line\" >> appended; done\n");
    let shell = instructions(sandbox, Path::new("/bin/sh"), &[], &[append.to_str().unwrap()], &line);
    let least = instructions(sandbox, &floor(sandbox), &[], &[], &line);
    eprintln!("hook {ours}, sh {shell}, C {least}");
    assert!(ours < shell && ours < 2 * least, "hook {ours}, sh {shell}, C {least}");
}

/// The instructions for each ref: what a mirror with MANY more refs costs, divided by MANY.
fn for_each_ref(here: &Installed, name: &str, arguments: &[&str]) -> u64 {
    const MANY: usize = 10_000;
    let program = here.prefix.join("bin/git-mirror-push");
    let cost = |count: usize| {
        let sandbox = Sandbox::new();
        let mirror = sandbox.bare("mirror.git");
        let source = sandbox.source(mirror.to_str().unwrap(), &[]);
        sandbox.add_mirror_config(&source, "optimistic = false");
        let work = sandbox.work(&source);
        let commit = work.commit("one");
        work.push(&["main"]);
        let creates: String = (0..count).map(|n| format!("create refs/heads/branch-{n:06} {commit}\n")).collect();
        sandbox.git_with_input(&source, &["update-ref", "--stdin"], creates.as_bytes());
        sandbox.git(&source, &["pack-refs", "--all"]);
        sandbox.mirror_push_ok(&source, &["sync"]);
        sandbox.git(&mirror, &["pack-refs", "--all"]);
        work.commit("two");
        work.push(&["main"]);
        let all = [&["--git-dir", source.to_str().unwrap()], arguments].concat();
        let taken = instructions(&sandbox, &program, &[], &all, b"");
        assert_eq!(sandbox.refs(&mirror), sandbox.refs(&source));
        taken
    };
    let each = cost(MANY).saturating_sub(cost(0)) / MANY as u64;
    eprintln!("{name}: {each} instructions for each ref");
    each
}

#[test]
fn a_ref_that_is_the_same_on_both_sides_costs_little() {
    let here = Installed::new();
    let each = for_each_ref(&here, "compared", &["sync", "-q"]);
    assert!(each < 9000, "{each}");
}

#[test]
fn a_ref_that_is_not_asked_for_costs_less() {
    let here = Installed::new();
    let each = for_each_ref(&here, "advertised", &["drain", "-q"]);
    assert!(each < 2600, "{each}");
}
