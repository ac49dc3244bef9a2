//! `create = "ssh"`: `git init --bare` by a shell of the host.

use std::time::Duration;

use super::facts::Facts;
use super::{Error, Made, Wanted};
use crate::process::shell_word;
use crate::wire::{self, Address, Target, parse, shell};

/// What the command says at its end.
const DONE: &str = "git-mirror-push: created";

/// How long the shell may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the repository at the mirror's URL, or at `create_url`.
pub(super) fn create(wanted: &Wanted<'_>, facts: &Facts) -> Result<Made, Error> {
    let address = match wanted.create.url.as_deref() {
        Some(url) => parse(url).map_err(|refused| Error::Refused(refused.to_string()))?.0,
        None => wanted.target.address.clone(),
    };
    let Address::Ssh { path, .. } = &address else {
        return Err(Error::Refused("the URL for the shell is no ssh URL".into()));
    };
    let script = script(path, facts).ok_or_else(|| {
        Error::Refused(format!(
            "a shell does not find '{}' by its quoted name; use a path without '~'",
            path.escape_debug()
        ))
    })?;
    match shell(&Target { address, ..wanted.target.clone() }, &script, LIMIT) {
        // A shell that does not understand the command may end with status 0 too.
        Ok(out) if out.trim_ascii().ends_with(DONE.as_bytes()) => Ok(Made::Now),
        Ok(_) => Err(Error::Refused(
            "the shell of the host did not make it; create = \"ssh\" needs an account with a shell and git".into(),
        )),
        Err(wire::Error::Program { program, status, message }) => Err(Error::Refused(format!(
            "the shell of the host failed ({program}{status}: {message}); create = \"ssh\" needs an account with a shell and git"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The script. The repository is made beside its place and moved there, so a script that is killed leaves no part of one there. What
/// exists is not changed. `None` if the path begins with the home directory of another user.
fn script(path: &str, facts: &Facts) -> Option<String> {
    let path = match path.strip_prefix("~/") {
        // The shell begins in the home directory.
        Some(below) => format!("./{below}"),
        None if path.starts_with('~') => return None,
        None if path.starts_with('-') => format!("./{path}"),
        None => path.to_owned(),
    };
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let parent = if parent.is_empty() { "/" } else { parent };
    let (place, parent) = (shell_word(path), shell_word(parent));
    let pattern = shell_word(&format!(".{name}.creating-XXXXXX"));
    let refuse = format!("echo {place} exists >&2; exit 1");
    let mut steps = vec![
        "set -e".to_owned(),
        format!("if test -e {place} || test -L {place}; then {refuse}; fi"),
        format!("mkdir -p -- {parent}"),
        format!("fresh=$(mktemp -d {parent}/{pattern})"),
        "trap 'rm -rf -- \"$fresh\"' EXIT".to_owned(),
        "trap 'exit 1' HUP INT TERM".to_owned(),
        // mktemp(1) makes the directory accessible only to its user. Without a letter before '=',
        // chmod(1) obeys the umask.
        "chmod '=rwx' \"$fresh\"".to_owned(),
        // The host's git may have another default.
        format!("GIT_DEFAULT_HASH={} git init --quiet --bare -- \"$fresh\"", facts.object_format),
    ];
    if let Some(branch) = &facts.default_branch {
        // A git before 2.28 has no option for it.
        let head = shell_word(&format!("refs/heads/{branch}"));
        steps.push(format!("git --git-dir=\"$fresh\" symbolic-ref HEAD {head}"));
    }
    if !facts.description.is_empty() {
        let text = shell_word(&facts.description);
        steps.push(format!("printf '%s\\n' {text} >\"$fresh/description\""));
    }
    steps.extend([
        format!("if test -e {place} || test -L {place}; then {refuse}; fi"),
        format!("mv -- \"$fresh\" {place}"),
        // If a directory had come to the place meanwhile, mv(1) moved the repository into it.
        format!("if test -e {place}/\"${{fresh##*/}}\"; then rm -rf -- {place}/\"${{fresh##*/}}\"; {refuse}; fi"),
        format!("echo '{DONE}'"),
    ]);
    // The script is one line, so that the shell reads all of it before anything runs.
    Some(steps.join("; ") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shell_reads_is_quoted() {
        let facts = |branch: Option<&str>, object_format, description: &str| Facts {
            default_branch: branch.map(str::to_owned),
            object_format,
            description: description.to_owned(),
        };
        let script = |path: &str, facts: &Facts| script(path, facts).expect("a path");
        let plain = script("/srv/a b.git", &facts(Some("main"), "sha1", ""));
        assert!(
            plain.contains("mkdir -p -- '/srv'; fresh=$(mktemp -d '/srv'/'.a b.git.creating-XXXXXX'); "),
            "{plain}"
        );
        assert!(plain.contains("GIT_DEFAULT_HASH=sha1 git init --quiet --bare -- \"$fresh\"; "), "{plain}");
        assert!(
            plain.contains("symbolic-ref HEAD 'refs/heads/main'; ")
                && plain.contains("mv -- \"$fresh\" '/srv/a b.git'; "),
            "{plain}"
        );
        let hostile = script("x';id;'", &facts(None, "sha256", "it's $(id)"));
        assert!(hostile.contains("GIT_DEFAULT_HASH=sha256 ") && hostile.contains(r"test -e 'x'\'';id;'"), "{hostile}");
        assert!(hostile.contains(r"printf '%s\n' 'it'\''s $(id)' >"), "{hostile}");
        for (path, quoted) in [("~/x.git", "'./x.git'"), ("-x.git", "'./-x.git'"), ("/x.git/", "'/x.git'")] {
            let script = script(path, &facts(None, "sha1", ""));
            assert!(script.contains(&format!("mv -- \"$fresh\" {quoted};")), "{script}");
        }
        assert_eq!(super::script("~other/x.git", &facts(None, "sha1", "")), None);
    }
    /// On a host, sh(1) may be any of these shells. Those that are installed here are tried.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "looks at what was made")]
    fn the_script_works_in_every_shell() {
        use std::os::unix::fs::PermissionsExt;
        let facts = Facts {
            default_branch: Some("trunk".into()),
            object_format: "sha1",
            description: "it's $(id) `x` !".into(),
        };
        let mut tried = 0;
        for shell in ["sh", "bash", "dash", "zsh", "ksh", "mksh"] {
            let directory = tempfile::tempdir().expect("a directory");
            let place = directory.path().join("far/it's a \"mirror\".git");
            let text = script(place.to_str().expect("text"), &facts).expect("a path");
            let run = || {
                let mut command = crate::process::command(shell);
                crate::process::run(shell, command.arg("-s"), text.as_bytes(), LIMIT)
            };
            let out = match run() {
                Err(crate::process::Error::Start { .. }) => continue,
                out => out.expect(shell),
            };
            tried += 1;
            assert!(out.trim_ascii().ends_with(DONE.as_bytes()), "{shell}");
            let read = |name: &str| std::fs::read_to_string(place.join(name)).expect(name);
            let expected = ("ref: refs/heads/trunk\n", "it's $(id) `x` !\n");
            assert_eq!((&*read("HEAD"), &*read("description")), expected, "{shell}");
            let plain = std::fs::metadata(directory.path().join("far")).expect("made").permissions().mode();
            let made = std::fs::metadata(&place).expect("made").permissions().mode();
            assert_eq!(made, plain, "{shell}: the umask decides");
            assert!(run().is_err(), "{shell}: it is not made twice");
            let names = std::fs::read_dir(directory.path().join("far")).expect("made").flatten();
            assert_eq!(names.count(), 1, "{shell}: nothing is left");
        }
        assert!(tried >= 2);
    }
}
