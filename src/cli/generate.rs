//! Completions and the manual page, from the same source as `--help`.

use std::io::Write;

use clap::CommandFactory;

use super::DONE;
use super::args::Cli;

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command().bin_name("git-mirror-push"), "git-mirror-push", &mut script);
    out.write_all(&script)?;
    Ok(DONE)
}

/// Prints git-mirror-push(1), with every command.
pub(super) fn man(out: &mut dyn Write) -> anyhow::Result<u8> {
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
    out.write_all(&text)?;
    Ok(DONE)
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
