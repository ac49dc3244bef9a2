//! The documents: what is generated is up to date, and every link, file and message that they name is there.

use std::path::PathBuf;

use git_mirror_push::config::{SECTIONS, keys};

use super::{root, sources};

/// The text of `docs/configuration.md`, from the same list of keys as git-mirror-push-config(5).
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
         ```\n\n\
         `set` writes any key of the repository's file, and `add` takes keys too. A value is TOML, a bare word is a string, and `KEY=` removes\n\
         the key:\n\n\
         ```sh\n\
         git mirror-push set github prune=never 'push_options=[\"ci.skip\"]'\n\
         git mirror-push set protected_branches='[\"main\", \"*-stable\"]'\n\
         git mirror-push set github prune=\n\
         ```\n",
    );
    for (place, heading) in SECTIONS {
        let marked = |word: &str| if word.starts_with('[') { format!("`{word}`") } else { word.to_owned() };
        let heading = heading.split(' ').map(marked).collect::<Vec<_>>().join(" ");
        page.push_str(&format!("\n## {heading}\n\n| key | value; default | meaning |\n|---|---|---|\n"));
        for key in keys().filter(|key| key.place == place) {
            page.push_str(&format!("| `{}` | {} | {} |\n", key.name, key.value, key.text.replace('*', "\\*")));
        }
    }
    page
}

/// With `MIRROR_PUSH_WRITE=1`, this test writes the page first.
#[test]
fn the_page_of_the_configuration_is_that_of_the_keys() {
    let path = root().join("docs/configuration.md");
    if std::env::var_os("MIRROR_PUSH_WRITE").is_some() {
        std::fs::write(&path, configuration()).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored == configuration(), "run: MIRROR_PUSH_WRITE=1 cargo nextest run the_page_of_the_configuration");
}

/// Every document, with its text.
fn documents() -> Vec<(PathBuf, String)> {
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
fn every_source_that_a_document_names_is_there() {
    for (path, text) in documents() {
        for name in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| ["src/", "tests/", "dist/"].iter().any(|at| name.starts_with(at)))
        {
            let file = name.split(' ').next().unwrap();
            assert!(root().join(file).exists(), "{}: {name}", path.display());
        }
    }
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
            let page = String::from_utf8_lossy(&std::fs::read(&found).unwrap()).into_owned();
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

/// A user searches the manual for a message as the program prints it. So each message in the manual must be in the source. `…`, quotes and
/// parentheses mark what varies.
#[test]
fn the_messages_of_the_manual_are_those_of_the_program() {
    let source: String =
        sources().into_iter().filter(|(name, _)| name.starts_with("src/")).map(|(_, text)| text).collect();
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

/// Blocks that no test runs: the first words, and why.
const NOT_RUN: [(&str, &str); 10] = [
    ("./install.sh --demo", "the test script runs it"),
    ("sudo ./install.sh", "the tests of the installed program run it"),
    ("github  finished", "output"),
    ("github  failed", "output"),
    ("cargo build", "for developers"),
    ("git push ─▶", "a picture"),
    ("upstream ─▶", "a picture"),
    ("tests/bench ", "takes an hour"),
    ("tests/bench_pull ", "takes an hour"),
    ("{\"repository\": \"/srv/git/widget.git\"", "input of a program of the reader"),
];

/// A test takes the block with these words from the document, by `block("DOCUMENT", "KIND", "WORDS", …)`.
fn blocks_of_tests() -> Vec<[String; 3]> {
    let mut found = Vec::new();
    for (_, text) in sources() {
        for call in text.split("block(").skip(1) {
            let mut strings = call.split('"').skip(1).step_by(2);
            if let (Some(document), Some(kind), Some(words)) = (strings.next(), strings.next(), strings.next()) {
                found.push([document, kind, words].map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn every_snippet_of_the_documents_runs_in_a_test() {
    let known = blocks_of_tests();
    let mut count = 0;
    for (path, text) in documents() {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for block in text.split("\n```").skip(1).step_by(2) {
            let (kind, body) = block.split_once('\n').unwrap();
            let is_run =
                |[document, of, words]: &&[String; 3]| *document == name && of == kind && body.contains(&**words);
            let is_known =
                known.iter().any(|one| is_run(&one)) || NOT_RUN.iter().any(|(words, _)| body.starts_with(words));
            assert!(is_known, "{name}: no test runs this block:\n{body}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}
