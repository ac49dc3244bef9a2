//! The manual pages, from the same source as `--help` and the list of keys.

use std::io::Write;

use clap::{Arg, Command, CommandFactory};

use super::DONE;
use super::args::{Cli, Page};
use super::examples::EXAMPLES;
use crate::config::{SECTIONS, keys};

/// Prints a manual page.
pub(super) fn man(page: Page, out: &mut dyn Write) -> anyhow::Result<u8> {
    match page {
        Page::Commands => commands(out)?,
        Page::Configuration => configuration(out)?,
        Page::RemoteHelper => out.write_all((heading("GIT-REMOTE-MIRROR", 1) + REMOTE_HELPER).as_bytes())?,
    }
    Ok(DONE)
}

/// git-mirror-push-config(5), from the list of keys.
fn configuration(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut text = heading("GIT-MIRROR-PUSH-CONFIG", 5) + CONFIGURATION;
    for (place, heading) in SECTIONS {
        text.push_str(&format!(".SH {}\n", heading.to_uppercase()));
        for key in keys().filter(|key| key.place == place) {
            let [name, value, said] = [key.name, key.value, key.text].map(escaped);
            text.push_str(&format!(".TP\n\\fB{name}\\fR = {value}\n{said}\n"));
        }
    }
    text.push_str(END_OF_CONFIGURATION);
    Ok(out.write_all(text.as_bytes())?)
}

/// Escapes a text for roff, so that nothing in it is a request or an escape.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

const CONFIGURATION: &str = r#".SH NAME
git\-mirror\-push\-config \- the configuration of git mirror\-push
.SH DESCRIPTION
A repository's mirrors stand in
.I mirror\-push/config.toml
in the repository; the commands edit it and keep its comments. The server's file,
.I /etc/git\-mirror\-push/config.toml
(or
.BR \-\-config ,
or
.BR $GIT_MIRROR_PUSH_CONFIG ),
has the same keys for many repositories; the files
.I conf.d/*.toml
beside it are read next, in order; a later file overrides an earlier one. A value in the repository's file takes precedence, then the server's
.BR [remotes.NAME] ,
then
.BR [defaults] .
.B git mirror\-push show NAME \-\-origin
shows which file set each value.
.PP
Files are TOML. An unknown key is an error that names the key, the file and the line. Durations are texts: "10s", "5m", "3h", "2d".
In patterns * stands for any run of characters, / included; nothing else is special.
"#;

const END_OF_CONFIGURATION: &str = r#".SH EXAMPLES
.nf
protected_branches = ["main", "*\-stable"]

[remotes.github]
url = "https://github.com/acme/widget.git"
username = "acme\-bot"
divergent_refs = "keep"
.fi
.SH FILES
.I mirror\-push/config.toml
in the repository,
.I /etc/git\-mirror\-push/config.toml
and
.I conf.d/*.toml
beside it.
.SH SEE ALSO
.BR git\-mirror\-push (1),
.BR git\-remote\-mirror (1)
"#;

const REMOTE_HELPER: &str = r#".SH NAME
git\-remote\-mirror \- a configured mirror as a remote of git
.SH SYNOPSIS
.nf
\fIgit ls\-remote\fR mirror::NAME
\fIgit fetch\fR mirror::NAME [REFSPEC...]
\fIgit push\fR mirror::NAME REF...
.fi
.SH DESCRIPTION
Reaches the mirror NAME of the repository that git works in, with its stored credentials and pinned host keys.
.PP
Fetching shows what someone else has pushed to the mirror:
.B git fetch mirror::github develop
brings the divergent commits of a branch that
.B git mirror\-push status
names.
.PP
A push obeys the mirror's rules: a mirror holds this repository's refs under their names, so what is pushed must be what the ref is
here, and a ref that the rules keep is refused with the reason, also with
.BR \-\-force .
.PP
git runs this program; users do not call it themselves. To clone a mirror, use its own URL.
.SH SEE ALSO
\fBgit-mirror-push\fR(1), \fBgit-mirror-push-config\fR(5), \fBgitremote-helpers\fR(7)
"#;

/// git-mirror-push(1), with every command.
fn commands(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut top = Cli::command().bin_name("git mirror-push");
    top.build();
    let commands = || top.get_subcommands().filter(|command| !command.is_hide_set());
    let mut text = heading("GIT-MIRROR-PUSH", 1);
    text.push_str(
        ".SH NAME\ngit\\-mirror\\-push \\- mirror the branches and tags of a bare repository\n.SH SYNOPSIS\n.nf\n",
    );
    text.push_str("\\fIgit mirror\\-push\\fR [OPTIONS] [COMMAND]\n");
    for command in commands() {
        text.push_str(&format!("{}\n", usage(command)));
    }
    text.push_str(".fi\n.SH DESCRIPTION\n");
    text.push_str(DESCRIPTION);
    text.push_str(".SH OPTIONS\n");
    options(&mut text, &top);
    text.push_str(".SH COMMANDS\n");
    for command in commands() {
        text.push_str(&format!(".SS \"{}\"\n", escaped(command.get_name())));
        section(&mut text, command);
    }
    text.push_str(".SH EXAMPLES\n");
    for (_, example, does) in EXAMPLES {
        text.push_str(&format!(".TP\n.B {}\n{}.\n", escaped(example), escaped(does)));
    }
    text.push_str(END);
    Ok(out.write_all(text.as_bytes())?)
}

/// The first line of a page. The date says when the fixed text of the pages last changed.
fn heading(name: &str, section: u8) -> String {
    format!(".TH {name} {section} 2026-11-27 \"git\\-mirror\\-push {}\" \"Git Manual\"\n", env!("CARGO_PKG_VERSION"))
}

/// One command: its synopsis, what it does, its options, and then the same for each of its subcommands.
fn section(text: &mut String, command: &Command) {
    text.push_str(&format!("{}\n.PP\n", usage(command)));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("{}.\n", escaped(&about)));
    options(text, command);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        text.push_str(".PP\n");
        section(text, below);
    }
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    escaped(usage.trim_start_matches("Usage: "))
}

/// The arguments and options of a command. The common ones are described once, with the program.
fn options(text: &mut String, command: &Command) {
    let is_top = command.get_name() == "git-mirror-push";
    let is_said = |argument: &&Arg| {
        !argument.is_hide_set() && (is_top || !argument.is_global_set()) && argument.get_id() != "help"
    };
    for argument in command.get_arguments().filter(is_said) {
        let short = argument.get_short().map(|short| format!("\\fB\\-{short}\\fR"));
        let long = argument.get_long().map(|long| format!("\\fB{}\\fR", escaped(&format!("--{long}"))));
        let value = match argument.get_value_names() {
            Some(names) if argument.get_action().takes_values() => format!("\\fI{}\\fR", escaped(&names.join(" "))),
            _ => String::new(),
        };
        let names: Vec<String> = short.into_iter().chain(long).collect();
        let name = [names.join(", "), value].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name().to_owned())
            .collect();
        let values = if values.is_empty() { String::new() } else { format!(" One of: {}.", values.join(", ")) };
        text.push_str(&format!(".TP\n{name}\n{}\n", escaped(&format!("{help}.{values}"))));
    }
}

const DESCRIPTION: &str = r#"A post-receive hook records each push in a spool on the disk. A drain mirrors what is recorded: it compares the refs of the mirror with
those of this repository, applies the rules, and pushes the difference. A push is never lost: it stays in the spool until each mirror's
outcome is on the disk.
.PP
.B git mirror\-push add
makes a mirror and installs the hook. From then on each push reaches the mirror by itself.
.B git mirror\-push status
shows the state of each mirror, which ref is not up to date, and why. Without a command, this is
.BR drain .
.PP
A pull mirror
.RB ( "add \-\-direction pull" )
takes what changes in an upstream repository, as if someone had pushed it here. Its values go on to the push mirrors of this repository.
A two\-way mirror
.RB ( "add \-\-direction both" )
does both: whichever side changed a ref, the other side gets it.
"#;

const END: &str = r#".SH FILES
.TP
.I mirror\-push/config.toml
The mirrors of this repository; see
.BR git\-mirror\-push\-config (5).
.TP
.I mirror\-push/spool
Pushes that no drain has taken yet.
.TP
.I mirror\-push/remotes/NAME
A mirror's queue, status, history, base, lock, keys and password.
.TP
.I /etc/git\-mirror\-push/config.toml
The server's file, for many repositories; then
.I conf.d/*.toml
beside it.
.TP
.I /var/lib/git\-mirror\-push
State of the daemon: tokens and project ids.
.SH ENVIRONMENT
.TP
.B GIT_DIR
The repository, unless
.B \-\-git\-dir
names one.
.TP
.B GIT_MIRROR_PUSH_CONFIG
The server's file, unless
.B \-\-config
names one.
.TP
.B MIRROR_PUSH_LOG
How much is logged: error, warn, info, debug or trace.
.TP
.B NO_COLOR
No colour, if it is not empty.
.TP
.BR http_proxy ", " https_proxy ", " no_proxy
The proxy for http and https, where the key
.B proxy
names none.
.TP
.BR STATE_DIRECTORY ", " RUNTIME_DIRECTORY ", " CREDENTIALS_DIRECTORY
As systemd sets them.
.SH EXIT STATUS
.TP
.B 0
Done, nothing to do, or nothing attempted.
.TP
.B 1
Something that was attempted is not up to date;
.BR status ", " plan " and " doctor
use it for what they found.
.TP
.B 128
A bad repository or configuration.
.TP
.B 129
Bad usage.
.PP
.B check
answers 0 OK, 1 WARNING, 2 CRITICAL or 3 UNKNOWN.
.SH SEE ALSO
.BR git\-mirror\-push\-config (5),
.BR git\-remote\-mirror (1),
.BR githooks (5)
"#;
