//! Lines of hooks that run `git push`. This module finds them and changes none. Pure.

use super::git::{PUSHED, Wish, propose};
use super::list::name_of;
use super::{Found, Proposed};
use crate::config::Change;
use crate::repo::GitRemote;

/// A line of a script that runs `git push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushing {
    /// Which line, from 1 on.
    pub line: usize,
    /// Where it pushes to: a URL or the name of a remote. `None` if that is not literal (`$URL`).
    pub target: Option<String>,
    /// What it pushes, if the line is that command alone and everything in it is written out.
    pub pushed: Option<Pushed>,
}

/// What a `git push` sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// `--mirror`
    pub is_mirror: bool,
    /// `--prune`
    pub is_pruning: bool,
    /// `--atomic`
    pub is_atomic: bool,
    /// Refspecs, also those of `--all` and `--tags`, with `+` where they are forced.
    pub refspecs: Vec<String>,
}

/// A push in a script as a mirror of ours. `from` says where it stands.
#[must_use]
pub fn propose_push(
    url: &str,
    pushed: &Pushed,
    namespaces: &[(String, usize)],
    wish: Wish<'_>,
    from: &str,
) -> Vec<Found> {
    let remote = GitRemote {
        name: name_of(url),
        urls: vec![url.to_owned()],
        push_urls: vec![url.to_owned()],
        push: pushed.refspecs.clone(),
        is_mirror: pushed.is_mirror,
        ..GitRemote::default()
    };
    let own = |found| match found {
        Found::Person { why, .. } => Found::Person { from: from.to_owned(), why },
        Found::Mirror(mut mirror) => {
            if pushed.is_pruning {
                mirror.keys.retain(|(key, _)| *key != "prune");
                if wish.is_exact {
                    mirror.keys.push(("prune", Change::Text("mirror".into())));
                }
            }
            if pushed.is_atomic {
                mirror.keys.push(("atomic", Change::Flag(true)));
            }
            mirror.notes.retain(|note| note != PUSHED);
            mirror.notes.push(format!("until you delete {from}, it pushes too"));
            Found::Mirror(Proposed { from: from.to_owned(), ..mirror })
        }
    };
    propose(&remote, namespaces, wish).into_iter().map(own).collect()
}

/// The lines of a script that run `git push`. Comments do not count. A script that is no text has none.
#[must_use]
pub fn pushing_lines(script: &[u8]) -> Vec<Pushing> {
    let Ok(text) = std::str::from_utf8(script) else { return Vec::new() };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    lines
        .filter_map(|(at, line)| Some(Pushing { line: at + 1, target: target_of(line)?, pushed: pushed_by(line) }))
        .collect()
}

/// The target of a `git push` in a line. `None` if the line has no such command. `Some(None)` if
/// the target is missing or not literal.
fn target_of(line: &str) -> Option<Option<String>> {
    let is_between = |letter: char| letter.is_whitespace() || matches!(letter, ';' | '&' | '|' | '(' | ')' | '`');
    let words: Vec<&str> = line.split(is_between).filter(|word| !word.is_empty()).collect();
    let git = words.iter().position(|word| *word == "git" || word.ends_with("/git"))?;
    let push = git + words[git..].iter().position(|word| *word == "push")?;
    if words[push - 1] == "stash" {
        return None;
    }
    // git-push(1): options whose value may be the next word.
    let has_value = |word: &str| {
        matches!(word, "-o" | "--push-option" | "--recurse-submodules" | "--receive-pack" | "--exec" | "--repo")
    };
    let mut rest = words[push + 1..].iter();
    let target = loop {
        match rest.next() {
            None => return Some(None),
            Some(word) if has_value(word) => drop(rest.next()),
            Some(word) if word.starts_with('-') => {}
            Some(word) => break word,
        }
    };
    let target = target.trim_matches(['"', '\'']);
    let is_literal = !target.is_empty() && !target.contains(['$', '<', '>', '*', '\\']);
    Some(is_literal.then(|| target.to_owned()))
}

/// What the line pushes, if it is one command, not indented, in which every word is written out.
fn pushed_by(line: &str) -> Option<Pushed> {
    let end = line.find(['>', '<', '&', ';', '|']).unwrap_or(line.len());
    let rest = line[end..].trim_start_matches(['&', ';', ' ']);
    // A redirection may follow, and nothing that runs another command.
    let is_alone = rest.is_empty()
        || rest.starts_with(['>', '<']) && !rest.trim_end_matches(['&', ' ', ';']).contains([';', '|', '(']);
    // The number of a descriptor stands right before its redirection.
    let number = line[..end].strip_suffix(['1', '2']).filter(|rest| rest.ends_with(' '));
    let before = number.filter(|_| line[end..].starts_with(['>', '<'])).unwrap_or(&line[..end]);
    if !is_alone || line.starts_with(char::is_whitespace) || before.contains(['$', '`', '(', '\\', '"', '\'']) {
        return None;
    }
    let mut words = before.split_whitespace().skip_while(|word| matches!(*word, "exec" | "nohup"));
    let git = words.next().filter(|word| *word == "git" || word.starts_with('/') && word.ends_with("/git"));
    let (Some(_), Some("push")) = (git, words.next()) else { return None };
    let (mut pushed, mut is_forced, mut is_all, mut has_target) = (Pushed::default(), false, false, false);
    let mut specs = Vec::new();
    for word in words {
        match word {
            "-q" | "--quiet" | "-v" | "--verbose" | "--progress" | "--no-progress" | "--no-verify" | "--porcelain" => {}
            "-f" | "--force" => is_forced = true,
            "--mirror" => pushed.is_mirror = true,
            "--prune" => pushed.is_pruning = true,
            "--atomic" => pushed.is_atomic = true,
            "--all" | "--branches" => is_all = true,
            "--tags" => specs.push("refs/tags/*:refs/tags/*".to_owned()),
            _ if word.starts_with('-') => return None,
            _ if has_target => specs.push(word.to_owned()),
            _ => has_target = true,
        }
    }
    // Git refuses these together, and without any of them push.default decides.
    if usize::from(is_all) + usize::from(pushed.is_mirror) + usize::from(!specs.is_empty()) != 1 || !has_target {
        return None;
    }
    if is_all {
        specs.push("refs/heads/*:refs/heads/*".to_owned());
    }
    let plus = |spec: String| if is_forced && !spec.starts_with('+') { format!("+{spec}") } else { spec };
    pushed.refspecs = specs.into_iter().map(plus).collect();
    Some(pushed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_that_is_written_out_is_read() {
        let all = "refs/heads/*:refs/heads/*";
        for (line, expected) in [
            ("git push --mirror git@h:x.git", Some((true, false, vec![]))),
            ("/usr/bin/git push -q --mirror git@h:x.git >/dev/null 2>&1 &", Some((true, false, vec![]))),
            ("exec git push --force --all --prune backup", Some((false, true, vec![format!("+{all}")]))),
            ("git push /srv/x.git main +dev 2>/dev/null", Some((false, false, vec!["main".into(), "+dev".into()]))),
            ("git push git@h:x.git", None),
            ("git push --all --tags git@h:x.git", None),
            ("git push --mirror git@h:x.git main", None),
            ("  git push --mirror git@h:x.git", None),
            ("git push --mirror \"$URL\"", None),
            ("git push --mirror x && curl http://127.0.0.1", None),
            ("git push --mirror x | logger", None),
            ("git push --follow-tags x main", None),
            ("git push --mirror x >/dev/null; rm -rf y", None),
            ("test -e x || git push --mirror x", None),
            ("while read a b c; do git push --mirror x; done", None),
            ("GIT_SSH_COMMAND=x git push --mirror x", None),
        ] {
            let found = pushed_by(line).map(|pushed| (pushed.is_mirror, pushed.is_pruning, pushed.refspecs));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn lines_that_push_are_found() {
        let script =
            b"#!/bin/sh\n# git push --mirror x\nGIT_SSH_COMMAND='ssh -i k' git push -q --mirror git@host:a.git\n\
                       exec /usr/bin/git --git-dir=. push \"$REMOTE\" &\nfor r in a b; do git push --all backup; done\n\
                       echo pushed to git; git stash push x\n(nohup git push 'https://u:p@h/x.git' main >/dev/null 2>&1 &)\ngit push\n\
                       git push -o ci.skip --receive-pack git-receive-pack origin main\n";
        let literal = |line, target: &str| Pushing { line, target: Some(target.into()), pushed: None };
        let expected = [
            literal(3, "git@host:a.git"),
            Pushing { line: 4, target: None, pushed: None },
            literal(5, "backup"),
            literal(7, "https://u:p@h/x.git"),
            Pushing { line: 8, target: None, pushed: None },
            literal(9, "origin"),
        ];
        assert_eq!(pushing_lines(script), expected);
        assert_eq!(pushing_lines(b"\x7fELF\xff git push x"), []);
    }
}
