//! Completion scripts. clap makes them. For bash, zsh and fish we add the names of the mirrors, which the shell gets from
//! `git-mirror-push list`.

use std::io::Write;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::DONE;
use super::args::Cli;

/// Prints a completion script.
pub(super) fn completions(shell: Shell, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command().bin_name("git-mirror-push"), "git-mirror-push", &mut script);
    // In half of its labels, clap_complete 4.6 mistakes the hyphens in the program's name for separators of subcommands.
    let script = String::from_utf8(script)?.replace("git__subcmd__mirror__subcmd__push", "git__mirror__push");
    let commands = Cli::command();
    let commands: Vec<&Command> = commands.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let naming: Vec<&str> =
        commands.iter().filter(|command| takes_mirrors(command)).map(|command| command.get_name()).collect();
    match shell {
        Shell::Bash => write!(out, "{script}{}", BASH.replace("COMMANDS", &naming.join(" ")))?,
        Shell::Zsh => out.write_all(zsh(&script).as_bytes())?,
        Shell::Fish => {
            out.write_all(script.as_bytes())?;
            fish(&commands, &naming, out)?;
        }
        _ => out.write_all(script.as_bytes())?,
    }
    Ok(DONE)
}

/// Whether a command takes the names of existing mirrors.
fn takes_mirrors(command: &Command) -> bool {
    let mut names = command.get_positionals().map(|argument| argument.get_id().as_str());
    command.get_name() != "add" && names.any(|name| matches!(name, "name" | "names"))
}

/// Completes the names of mirrors, and defines the function that git's own completion calls after `git mirror-push` (git-completion.bash,
/// __git_complete_command).
const BASH: &str = r#"
_git_mirror_push_names() {
    _git__mirror__push "$@"
    local word command="" where=() at=1
    while ((at < COMP_CWORD)); do
        word=${COMP_WORDS[at]}
        case $word in
            -C | --git-dir | --config)
                # bash makes three words of --git-dir=PATH.
                [[ ${COMP_WORDS[at + 1]} == = ]] && ((at += 1))
                where+=("$word" "${COMP_WORDS[at + 1]/#\~\//$HOME/}")
                ((at += 1))
                ;;
            -*) ;;
            *) command=${command:-$word} ;;
        esac
        ((at += 1))
    done
    case " COMMANDS " in
        *" ${command:--} "*) ;;
        *) return ;;
    esac
    # A word after an option may be its value.
    [[ $2 == -* || $3 == --* || $3 == = ]] && return
    COMPREPLY+=($(compgen -W "$(git-mirror-push "${where[@]}" list 2>/dev/null | cut -f1)" -- "$2"))
}
complete -F _git_mirror_push_names -o bashdefault -o default git-mirror-push

_git_mirror_push() {
    # git's own options may come first: git -C DIR mirror-push.
    local at=1 current=$((COMP_CWORD - 1))
    while ((at < COMP_CWORD)) && [[ ${COMP_WORDS[at]} != mirror-push ]]; do at=$((at + 1)); done
    local words=("${COMP_WORDS[@]:1:at - 1}" "${COMP_WORDS[@]:at + 1}")
    local COMP_WORDS=(git-mirror-push "${words[@]}") COMP_CWORD=$current
    _git_mirror_push_names git-mirror-push "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
}
"#;

const ZSH: &str = r#"
_git_mirror_push_names() {
    local -a names=(${(f)"$(git-mirror-push list 2>/dev/null | cut -f1)"})
    compadd -a names
}
"#;

/// The script for zsh. It completes names of mirrors where clap's script calls `_default`, which
/// completes file names.
fn zsh(script: &str) -> String {
    let end = "if [ \"$funcstack[1]\"";
    let of_mirrors = |line: &str| {
        line.contains(":name -- The mirror")
            || line.contains(":name -- The pull mirror")
            || line.contains(":names -- The mirrors")
    };
    let mut text = String::with_capacity(script.len() + ZSH.len());
    for line in script.lines() {
        if line.starts_with(end) {
            text.push_str(ZSH);
        }
        let is_new = line.contains("'\\''s name");
        let line = if of_mirrors(line) && !is_new {
            line.replace(":_default'", ":_git_mirror_push_names'")
        } else {
            line.into()
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// For fish: the names of mirrors, and the commands after `git mirror-push`, which fish sees as arguments of git.
fn fish(commands: &[&Command], naming: &[&str], out: &mut dyn Write) -> std::io::Result<()> {
    let names = "(git-mirror-push list 2>/dev/null | cut -f1)";
    for command in naming {
        let condition = format!("__fish_git_mirror_push_using_subcommand {command}");
        writeln!(out, "complete -c git-mirror-push -n '{condition}' -f -a '{names}'")?;
    }
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default().replace('\'', "\\'");
        let name = command.get_name();
        writeln!(out, "complete -c git -n '__fish_git_using_command mirror-push' -f -a {name} -d '{about}'")?;
    }
    let condition =
        format!("__fish_git_using_command mirror-push; and __fish_seen_subcommand_from {}", naming.join(" "));
    writeln!(out, "complete -c git -n '{condition}' -f -a '{names}'")
}
