//! Lines of hooks that push by themselves. They are found, and never changed.

/// A line of a script that runs `git push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushing {
    /// Which line, from 1 on.
    pub line: usize,
    /// Where it pushes to: a URL or the name of a remote. `None` if that is not written out.
    pub target: Option<String>,
}

/// The lines of a script that run `git push`. Comments do not count. A script that is no text has none.
#[must_use]
pub fn pushing_lines(script: &[u8]) -> Vec<Pushing> {
    let Ok(text) = std::str::from_utf8(script) else { return Vec::new() };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#'));
    lines.filter_map(|(at, line)| Some(Pushing { line: at + 1, target: target_of(line)? })).collect()
}

/// The target of a `git push` in a line; the inner `None` if it is not written out. `None` if the line has no such command.
fn target_of(line: &str) -> Option<Option<String>> {
    let is_between = |letter: char| letter.is_whitespace() || matches!(letter, ';' | '&' | '|' | '(' | ')' | '`');
    let words: Vec<&str> = line.split(is_between).filter(|word| !word.is_empty()).collect();
    let git = words.iter().position(|word| *word == "git" || word.ends_with("/git"))?;
    let push = git + words[git..].iter().position(|word| *word == "push")?;
    if words[push - 1] == "stash" {
        return None;
    }
    let Some(target) = words[push + 1..].iter().find(|word| !word.starts_with('-')) else { return Some(None) };
    let target = target.trim_matches(['"', '\'']);
    let is_literal = !target.is_empty() && !target.contains(['$', '<', '>', '*', '\\']);
    Some(is_literal.then(|| target.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_push_are_found() {
        let script =
            b"#!/bin/sh\n# git push --mirror x\nGIT_SSH_COMMAND='ssh -i k' git push -q --mirror git@host:a.git\n\
                       exec /usr/bin/git --git-dir=. push \"$REMOTE\" &\nfor r in a b; do git push --all backup; done\n\
                       echo pushed to git; git stash push x\n(nohup git push 'https://u:p@h/x.git' main >/dev/null 2>&1 &)\ngit push\n";
        let literal = |line, target: &str| Pushing { line, target: Some(target.into()) };
        let expected = [
            literal(3, "git@host:a.git"),
            Pushing { line: 4, target: None },
            literal(5, "backup"),
            literal(7, "https://u:p@h/x.git"),
            Pushing { line: 8, target: None },
        ];
        assert_eq!(pushing_lines(script), expected);
        assert_eq!(pushing_lines(b"\x7fELF\xff git push x"), []);
    }
}
