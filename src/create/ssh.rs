//! `create = "ssh"`: `git init --bare` by a shell of the host.

use std::time::Duration;

use super::facts::Facts;
use super::{Error, Made, Wanted};
use crate::process::shell_word;
use crate::wire::{self, Address, Target, parse, shell};

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
    let command = command(path, facts).ok_or_else(|| {
        Error::Refused(format!(
            "a shell does not find '{}' by its quoted name; use a path without '~'",
            path.escape_debug()
        ))
    })?;
    match shell(&Target { address, ..wanted.target.clone() }, &command, LIMIT) {
        Ok(()) => Ok(Made::Now),
        Err(wire::Error::Program { program, status, message }) => Err(Error::Refused(format!(
            "the shell of the host failed ({program}{status}: {message}); create = \"ssh\" needs an account with a shell and git"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The command. The repository is made beside its place and moved there, so a command that is killed leaves no part of one there. What
/// exists is not changed. `None` if the path begins with the home directory of another user.
fn command(path: &str, facts: &Facts) -> Option<String> {
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
    let mut steps = vec![
        "set -e".to_owned(),
        format!("if test -e {place} || test -L {place}; then echo {place} exists >&2; exit 1; fi"),
        format!("mkdir -p -- {parent}"),
        format!("fresh=$(mktemp -d {parent}/{pattern})"),
        // mktemp(1) makes it for its user alone.
        "chmod \"$(printf %o $((0777 & ~$(umask))))\" \"$fresh\"".to_owned(),
    ];
    // The host's git may have another default.
    steps.push(format!("GIT_DEFAULT_HASH={} git init --quiet --bare -- \"$fresh\"", facts.object_format));
    if let Some(branch) = &facts.default_branch {
        // A git before 2.28 has no option for it.
        let head = shell_word(&format!("refs/heads/{branch}"));
        steps.push(format!("git --git-dir=\"$fresh\" symbolic-ref HEAD {head}"));
    }
    if !facts.description.is_empty() {
        let text = shell_word(&facts.description);
        steps.push(format!("printf '%s\\n' {text} >\"$fresh/description\""));
    }
    // With -T, mv does not move it into a directory that has come there meanwhile.
    steps.push(format!("mv -T -- \"$fresh\" {place}"));
    Some(steps.join("; "))
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
        let plain = command("/srv/a b.git", &facts(Some("main"), "sha1", "")).expect("a path");
        let expected = "mkdir -p -- '/srv'; fresh=$(mktemp -d '/srv'/'.a b.git.creating-XXXXXX'); ";
        assert!(plain.contains(expected), "{plain}");
        let expected = "GIT_DEFAULT_HASH=sha1 git init --quiet --bare -- \"$fresh\"; \
                        git --git-dir=\"$fresh\" symbolic-ref HEAD 'refs/heads/main'; mv -T -- \"$fresh\" '/srv/a b.git'";
        assert!(plain.ends_with(expected), "{plain}");
        let hostile = command("x';id;'", &facts(None, "sha256", "it's $(id)")).expect("a path");
        assert!(
            hostile.contains("GIT_DEFAULT_HASH=sha256 ")
                && hostile.contains(r"mv -T -- ")
                && hostile.contains(r" 'x'\'';id;'"),
            "{hostile}"
        );
        assert!(hostile.contains(r"printf '%s\n' 'it'\''s $(id)' >"), "{hostile}");
        for (path, quoted) in [("~/x.git", "'./x.git'"), ("-x.git", "'./-x.git'"), ("/x.git/", "'/x.git'")] {
            let command = command(path, &facts(None, "sha1", "")).expect("a path");
            assert!(command.ends_with(&format!(" {quoted}")), "{command}");
        }
        assert_eq!(command("~other/x.git", &facts(None, "sha1", "")), None);
    }
}
