//! The documents: `docs/configuration.md` is made from the list of keys, the links lead somewhere, and README stays short.

use std::path::Path;

use git_mirror_push::config::{KEYS, Place};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The page, from the same list as git-mirror-push-config(5).
fn configuration() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         A repository's mirrors are configured in `mirror-push/config.toml`. The commands edit this file and keep your comments. The server's file,\n\
         `/etc/git-mirror-push/config.toml`, has the same keys and a few more ([server.md](server.md)). A value in the repository's file takes\n\
         precedence. Unknown keys are errors that name the line. Durations are strings like `\"10s\"`, `\"5m\"`, `\"3h\"` or `\"2d\"`.\n\n\
         ```toml\n\
         protected_branches = [\"main\", \"*-stable\"]\n\n\
         [remotes.github]\n\
         url = \"https://github.com/acme/widget.git\"\n\
         username = \"acme-bot\"\n\
         divergent_refs = \"keep\"\n\
         ```\n",
    );
    for (place, heading) in [
        (Place::Top, "Keys at the top of either file"),
        (Place::Server, "Keys at the top of the server's files"),
        (Place::Api, "Keys of `[api]`"),
        (Place::Repositories, "Keys of `[[repositories]]`"),
        (Place::Remote, "Keys of `[remotes.NAME]` and `[defaults]`"),
    ] {
        page.push_str(&format!("\n## {heading}\n\n| key | value; default | meaning |\n|---|---|---|\n"));
        for key in KEYS.iter().filter(|key| key.place == place) {
            page.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.value, key.text.replace('*', "\\*")));
        }
    }
    page
}

/// `MIRROR_PUSH_WRITE=1` writes the page anew.
#[test]
fn the_page_of_the_configuration_is_that_of_the_keys() {
    let path = root().join("docs/configuration.md");
    if std::env::var_os("MIRROR_PUSH_WRITE").is_some() {
        std::fs::write(&path, configuration()).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored == configuration(), "run: MIRROR_PUSH_WRITE=1 cargo nextest run documents");
}

/// Every document, with its text.
fn documents() -> Vec<(std::path::PathBuf, String)> {
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let tops = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name));
    let all = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain(tops);
    all.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// GitHub's and mdBook's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept =
        heading.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let found = path.parent().unwrap().join(file);
            assert!(found.is_file(), "{}: {target}", path.display());
            let page = std::fs::read_to_string(&found).unwrap();
            let mut headings =
                page.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
            assert!(
                fragment.is_empty() || headings.any(|heading| anchor(heading) == fragment),
                "{}: {target}",
                path.display()
            );
        }
    }
}

#[test]
fn the_summary_names_every_page_and_readme_is_short() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for (path, text) in documents() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.parent().unwrap().ends_with("docs") && name != "SUMMARY.md" {
            assert!(summary.contains(&format!("({name})")), "{name}");
        }
        assert!(name != "README.md" || text.lines().count() <= 150);
    }
}

/// Whoever searches the manual for what the program said must find it. `…`, quotes and parentheses stand around what varies.
#[test]
fn the_messages_of_the_manual_are_those_of_the_program() {
    fn sources(directory: &Path, text: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                sources(&entry, text);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(entry).unwrap());
            }
        }
    }
    let mut source = String::new();
    sources(&root().join("src"), &mut source);
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let table = page.split("## Messages").nth(1).unwrap().split("\n## ").next().unwrap();
    let messages: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(messages.len() >= 8, "{messages:?}");
    for message in messages {
        let plain = message.split('(').next().unwrap();
        for part in plain.split(['…', '\'']).map(str::trim).filter(|part| part.len() > 7) {
            assert!(source.contains(part), "'{part}' of '{message}' is not in src");
        }
    }
}
