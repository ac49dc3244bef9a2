//! The rules for the sources and the documents that a program can check.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::panic, reason = "a test may read files and fail")]

use std::path::{Path, PathBuf};

mod documents;

fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for directory in ["src", "hooks", "tests"] {
        walk(&root.join(directory), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn files_are_short_enough_to_read() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 400, "{name} has {lines} lines; split it");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name} does not begin with a module header");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let is_hollow = lines.windows(2).any(|pair| pair[1] == "///" && !pair[0].starts_with("///"));
        assert!(!is_hollow, "{name} has documentation that begins with an empty line");
    }
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    const BANNED: [&str; 9] = ["util", "helper", "common", "core", "misc", "manager", "processor", "service", "info"];
    for (name, _) in sources() {
        let parts = name.split(['/', '.']);
        for part in parts.filter(|part| *part != "remote_helper") {
            assert!(!BANNED.contains(&part.trim_end_matches('s')), "{name}");
        }
    }
}

/// The modules of this crate that each module may import. They follow the flow of data.
const MAY_IMPORT: [(&str, &[&str]); 32] = [
    ("terminal", &[]),
    ("refs", &["terminal"]),
    ("durable", &[]),
    ("layout", &[]),
    ("wake", &["layout"]),
    ("replies", &[]),
    ("spool", &["durable", "layout", "refs"]),
    ("hook", &["durable", "layout", "refs", "spool", "terminal", "wake"]),
    ("repo", &["durable", "layout", "refs", "process", "replies"]),
    ("plan", &["refs"]),
    ("process", &[]),
    ("credentials", &["durable", "process", "terminal"]),
    ("wire", &["durable", "refs", "credentials", "process", "replies", "terminal"]),
    ("push", &["refs", "credentials", "process", "replies", "wire"]),
    ("fetch", &["durable", "refs", "replies", "process", "repo", "push", "credentials", "wire"]),
    ("config", &["durable", "layout", "refs", "repo", "plan", "wire", "credentials", "terminal"]),
    ("status", &["config", "credentials", "durable", "layout", "plan", "push", "refs", "repo", "spool", "wire"]),
    ("owner", &["config", "credentials", "durable", "process"]),
    ("metrics", &["durable", "spool", "status", "config", "repo", "terminal"]),
    ("tokens", &["durable", "credentials", "plan"]),
    ("notify", &["process", "config", "status"]),
    ("install", &["durable", "process", "repo"]),
    ("import", &["config", "mirror", "repo", "wire"]),
    ("mirror", &["layout", "durable", "refs", "spool", "process", "repo", "wire", "config", "credentials"]),
    ("create", &["config", "credentials", "process", "repo", "wire"]),
    ("fleet", &["config", "credentials", "layout", "mirror", "status", "wire"]),
    (
        "drain",
        &[
            "create",
            "durable",
            "process",
            "install",
            "refs",
            "spool",
            "repo",
            "plan",
            "wire",
            "push",
            "fetch",
            "config",
            "credentials",
            "status",
            "mirror",
            "notify",
            "replies",
        ],
    ),
    (
        "schedule",
        &[
            "durable",
            "layout",
            "spool",
            "process",
            "credentials",
            "repo",
            "plan",
            "wire",
            "push",
            "config",
            "owner",
            "status",
            "mirror",
            "drain",
        ],
    ),
    (
        "doctor",
        &[
            "durable",
            "refs",
            "spool",
            "repo",
            "plan",
            "wire",
            "push",
            "config",
            "credentials",
            "status",
            "mirror",
            "drain",
            "import",
            "install",
            "fleet",
            "process",
        ],
    ),
    (
        "remote_helper",
        &["durable", "refs", "repo", "plan", "wire", "config", "credentials", "status", "mirror", "drain", "process"],
    ),
    (
        "serve",
        &[
            "terminal",
            "durable",
            "layout",
            "repo",
            "spool",
            "plan",
            "wire",
            "config",
            "credentials",
            "status",
            "drain",
            "schedule",
            "mirror",
            "install",
            "metrics",
            "owner",
            "process",
            "tokens",
            "fleet",
        ],
    ),
    (
        "cli",
        &[
            "terminal",
            "layout",
            "refs",
            "spool",
            "repo",
            "plan",
            "wire",
            "push",
            "config",
            "credentials",
            "status",
            "drain",
            "schedule",
            "mirror",
            "doctor",
            "import",
            "install",
            "metrics",
            "tokens",
            "process",
            "wake",
            "owner",
            "fleet",
        ],
    ),
];

#[test]
fn imports_follow_the_flow() {
    for (name, text) in sources() {
        let Some(rest) = name.strip_prefix("src/") else { continue };
        let module = rest.split(['/', '.']).next().unwrap();
        if ["lib", "bin"].contains(&module) {
            continue;
        }
        let listed = MAY_IMPORT.iter().find(|(listed, _)| *listed == module);
        let (_, allowed) = listed.unwrap_or_else(|| panic!("{name} is in a module that MAY_IMPORT does not list"));
        for found in text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
            line.match_indices("crate::")
                .map(|(at, _)| line[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
        }) {
            let is_item = !MAY_IMPORT.iter().any(|(listed, _)| *listed == found);
            assert!(is_item || found == module || allowed.contains(&found), "{name} imports {found}");
        }
        assert!(!text.contains("super::super::super"), "{name} reaches too far up");
    }
}

/// Whether the header of a file says that it is pure.
fn says_pure(text: &str) -> bool {
    let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join(" ");
    header.contains("Pure.") || header.contains("pure.") || header.contains("Pure:")
}

#[test]
fn pure_modules_touch_nothing() {
    const PURE: [&str; 4] = ["src/plan/", "src/refs.rs", "src/push/report.rs", "src/push/command.rs"];
    const WORLD: [&str; 7] =
        ["std::fs", "std::net", "std::env::", "std::process", "SystemTime", "Instant", "std::thread"];
    let mut count = 0;
    for (name, text) in sources() {
        let is_pure = PURE.iter().any(|pure| name.starts_with(pure)) || name.starts_with("src/") && says_pure(&text);
        count += usize::from(is_pure);
        // Unit tests may touch anything.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
        for line in code.filter(|line| is_pure && !line.trim_start().starts_with("//")) {
            assert!(!WORLD.iter().any(|word| line.contains(word)), "{name} is pure but says: {line}");
        }
    }
    assert!(count >= 18, "{count} modules say that they are pure");
}

#[test]
fn functions_are_short_enough_to_read() {
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("src/")) {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(super) ");
            let words =
                words.trim_start_matches("pub(crate) ").trim_start_matches("const ").trim_start_matches("async ");
            if !words.starts_with("fn ") || line.trim_end().ends_with('}') || line.trim_end().ends_with(';') {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let length = lines[at..].iter().position(|line| **line == *close).unwrap_or(0) + 1;
            assert!(length <= 60, "{name}: {words} has {length} lines; split it");
        }
    }
}

#[test]
fn only_the_daemon_is_asynchronous() {
    // The client of the fleet's database has only an asynchronous API.
    let may_be = |name: &str| name.starts_with("src/serve/") || name == "src/fleet/database.rs";
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("src/") && !may_be(name)) {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(
                !["tokio::", "async fn", "async move", ".await"].iter().any(|word| line.contains(word)),
                "{name}: {line}"
            );
        }
    }
}

#[test]
fn the_hook_stays_small() {
    for (name, text) in sources().iter().filter(|(name, _)| name == "src/hook.rs" || name.starts_with("hooks/")) {
        for word in ["gix", "clap", "tokio", "toml::", "TcpStream", "UnixStream"] {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            assert!(code.into_iter().all(|line| !line.contains(word)), "{name} names {word}");
        }
    }
}

#[test]
fn the_number_of_dependencies_is_bounded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let count = lock.matches("[[package]]").count();
    assert!(count <= 330, "{count} packages in Cargo.lock; what is the new one for?");
}

#[test]
fn no_test_is_ignored_and_no_code_is_a_stub() {
    let words = ["#[ign", "ore"].concat();
    for (name, text) in sources() {
        for word in
            [&*words, &["should_", "panic"].concat(), &["todo", "!("].concat(), &["unimplemented", "!("].concat()]
        {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
