//! The manual pages, from the same source as `--help` and the list of keys.

use std::io::Write;

use clap::CommandFactory;

use super::DONE;
use super::args::{Cli, Page};
use crate::config::{SECTIONS, keys};

/// Prints a manual page.
pub(super) fn man(page: Page, out: &mut dyn Write) -> anyhow::Result<u8> {
    match page {
        Page::Commands => commands(out)?,
        Page::Configuration => configuration(out)?,
        Page::RemoteHelper => out.write_all(REMOTE_HELPER.as_bytes())?,
    }
    Ok(DONE)
}

/// git-mirror-push-config(5), from the list of keys.
fn configuration(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut text = CONFIGURATION.to_owned();
    for (place, heading) in SECTIONS {
        text.push_str(&format!(".SH {}\n", heading.to_uppercase()));
        for key in keys().filter(|key| key.place == place) {
            let [name, value, said] = [key.name, key.value, key.text].map(escaped);
            text.push_str(&format!(".TP\n\\fB{name}\\fR = {value}\n{said}\n"));
        }
    }
    text.push_str(".SH SEE ALSO\n\\fBgit-mirror-push\\fR(1), \\fBgit-remote-mirror\\fR(1)\n");
    Ok(out.write_all(text.as_bytes())?)
}

/// A text in roff: what would be a request or an escape is none.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

const CONFIGURATION: &str = r#".TH GIT-MIRROR-PUSH-CONFIG 5 "" "" "Git Manual"
.SH NAME
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
beside it count after it, in order. What a repository's file says of a mirror counts first, then the server's
.BR [remotes.NAME] ,
then
.BR [defaults] .
.B git mirror\-push show NAME \-\-origin
tells which file set each value.
.PP
Files are TOML. An unknown key is an error that names the key, the file and the line. Durations are texts: "10s", "5m", "3h", "2d".
In patterns * stands for any run of characters, / included; nothing else is special.
"#;

const REMOTE_HELPER: &str = r#".TH GIT-REMOTE-MIRROR 1 "" "" "Git Manual"
.SH NAME
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
git runs this program; it is not for typing. To clone a mirror, use its own URL.
.SH SEE ALSO
\fBgit-mirror-push\fR(1), \fBgit-mirror-push-config\fR(5), \fBgitremote-helpers\fR(7)
"#;

/// git-mirror-push(1), with every command.
fn commands(out: &mut dyn Write) -> anyhow::Result<()> {
    let mut top = Cli::command().bin_name("git-mirror-push");
    top.build();
    let page = clap_mangen::Man::new(top.clone()).title("GIT-MIRROR-PUSH").section("1").manual("Git Manual");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    for command in top.get_subcommands().filter(|command| !command.is_hide_set()) {
        let page = clap_mangen::Man::new(command.clone());
        let mut section = Vec::new();
        page.render_synopsis_section(&mut section)?;
        page.render_description_section(&mut section)?;
        page.render_options_section(&mut section)?;
        text.extend_from_slice(as_subsections(command.get_name(), &String::from_utf8_lossy(&section)).as_bytes());
    }
    page.render_extra_section(&mut text)?;
    text.extend_from_slice(b".SH \"SEE ALSO\"\n\\fBgit-mirror-push-config\\fR(5), \\fBgit-remote-mirror\\fR(1)\n");
    Ok(out.write_all(&text)?)
}

/// One section for a command; what were sections of its own page become headings in it. Common options are said once.
fn as_subsections(name: &str, section: &str) -> String {
    let mut text = format!(".SH \"{}\"\n", name.to_uppercase());
    let mut is_common = false;
    for line in section.lines() {
        if let Some(heading) = line.strip_prefix(".SH ") {
            is_common = heading.to_lowercase().contains("common options");
            match heading {
                _ if is_common => {}
                "DESCRIPTION" => text.push_str(".PP\n"),
                heading => text.push_str(&format!(".SS {heading}\n")),
            }
        } else if !is_common {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
