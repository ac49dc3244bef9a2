//! Progress on a terminal. `script` (util-linux) makes the terminal.

use std::path::{Path, PathBuf};

use crate::scene::estate::{Estate, TEMPLATE};
use crate::scene::sandbox::{Sandbox, script};

/// Runs a command on a terminal of 24 lines and `columns` columns. Returns the texts that its lines had, each text once.
fn on_terminal(sandbox: &Sandbox, repository: &Path, columns: usize, command: &str) -> Vec<String> {
    let log = sandbox.path("typescript");
    let program = env!("CARGO_BIN_EXE_git-mirror-push");
    let text = format!("stty rows 24 cols {columns}; cd '{}'; '{program}' {command}", repository.display());
    let mut terminal = sandbox.command("script");
    terminal.args(["-qec", &text]).arg(&log).env("SHELL", "/bin/sh").env("TERM", "xterm");
    assert!(terminal.output().unwrap().status.success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
    let written = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    // Each control sequence (it moves the cursor, erases a line or sets a colour) separates two texts.
    let moved = regex::Regex::new("\x1b\\[[0-9;?]*[A-Za-z]").unwrap();
    let written = moved.replace_all(&written, "\n");
    let mut states: Vec<String> = Vec::new();
    for state in written.split(['\r', '\n']).map(str::trim_end).filter(|state| !state.is_empty()) {
        if states.iter().all(|known| known != state) {
            states.push(state.to_owned());
        }
    }
    states
}

const FILES: usize = 2500;

/// A repository whose first push takes a moment, and a mirror that tells its own progress.
fn scene(sandbox: &Sandbox) -> PathBuf {
    let mirror = sandbox.bare("mirror.git");
    // The hook sleeps between its two messages, so that the first one stays on the terminal for a while.
    let hook = mirror.join("hooks/pre-receive");
    let text = "#!/bin/sh\nprintf 'Checking size:  50%% (1/2)\\r' >&2; sleep 0.4; printf 'Checking size: 100%% (2/2), done.\\n' >&2\n";
    script(&hook, text);
    let source = sandbox.source("mirror.git", &[]);
    let work = sandbox.work(&source);
    // So much data that making the pack takes some tenths of a second.
    let mut random = 1_u64;
    let mut byte = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    for n in 0..FILES {
        let noise: Vec<u8> = (0..8_000).map(|_| byte()).collect();
        std::fs::write(work.path.join(format!("file{n}")), noise).unwrap();
    }
    work.git(&["add", "."]);
    work.commit("many");
    work.push(&["main"]);
    source
}

#[test]
fn a_terminal_shows_the_phase_and_the_percentage_of_both_sides() {
    let sandbox = Sandbox::new();
    let source = scene(&sandbox);
    let states = on_terminal(&sandbox, &source, 80, "sync");
    let has = |text: &str| states.iter().any(|state| state.contains(text));
    assert!(has("objects: ") && has(&format!("/{})", FILES + 2)), "{states:#?}");
    assert!(has("m: remote: Checking size:  50% (1/2)"), "{states:#?}");
    assert!(has("[new branch]      main"), "{states:#?}");
    // The line `Total …` of `git pack-objects` is progress too, and is not shown as a message.
    assert!(!has("Total "), "{states:#?}");
}

#[test]
fn a_narrow_terminal_cuts_the_lines() {
    let sandbox = Sandbox::new();
    let source = scene(&sandbox);
    let states = on_terminal(&sandbox, &source, 30, "sync");
    let lines: Vec<&String> = states.iter().filter(|state| state.starts_with("m: ")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.chars().count() <= 30), "{states:#?}");
}

#[test]
fn quiet_shows_no_progress_on_a_terminal() {
    let sandbox = Sandbox::new();
    let source = scene(&sandbox);
    let states = on_terminal(&sandbox, &source, 80, "sync -q");
    assert!(!states.iter().any(|state| state.contains("m: ") || state.contains("objects")), "{states:#?}");
}

#[test]
fn many_repositories_are_counted() {
    let estate = Estate::new(TEMPLATE);
    let names = ["a.git", "b.git", "c.git"];
    let repositories = names.map(|name| {
        estate.mirror(name);
        estate.repository(name)
    });
    let command = format!("--config '{}' sync --all", estate.file.display());
    let states = on_terminal(&estate.sandbox, &repositories[0], 80, &command);
    assert!(states.iter().any(|state| state.contains("mirrors done: ")), "{states:#?}");
    for name in names {
        assert!(states.iter().any(|state| state.starts_with("From ") && state.ends_with(name)), "{name}: {states:#?}");
    }
    assert!(states.iter().any(|state| state == "3 up to date, 0 not up to date, 0 waiting"), "{states:#?}");
}

#[test]
fn a_failure_is_reported_without_the_progress_before_it() {
    let sandbox = Sandbox::new();
    let source = scene(&sandbox);
    // One object is missing.
    let packs = source.join("objects/pack");
    let mut pack = std::fs::read_dir(&packs).unwrap().flatten().map(|entry| entry.path());
    let pack = pack.find(|path| path.extension().is_some_and(|extension| extension == "pack")).unwrap();
    let away = sandbox.path("away.pack");
    std::fs::rename(&pack, &away).unwrap();
    std::fs::remove_file(pack.with_extension("idx")).unwrap();
    sandbox.git_with_input(&source, &["unpack-objects", "-q"], &std::fs::read(&away).unwrap());
    let blob = sandbox.git(&source, &["rev-parse", "main:file7"]);
    std::fs::remove_file(source.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let states = on_terminal(&sandbox, &source, 200, "sync || true");
    let failed =
        states.iter().find(|state| state.contains("git pack-objects")).unwrap_or_else(|| panic!("{states:#?}"));
    assert!(failed.contains(&blob) && !failed.contains("objects: "), "{failed}");
}
