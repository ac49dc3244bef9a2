//! Text for people, in the manner of `git push`.

use std::collections::HashMap;
use std::io::{self, Write};

use super::Base;
use crate::config::Direction;
use crate::credentials::Redactor;
use crate::doctor::{Finding, Severity};
use crate::drain::{Mode, Report};
use crate::fleet::Shown;
use crate::plan::Side;
use crate::refs::Oid;
use crate::status::{Outcome, RefOutcome, UpdateStatus, View};
use crate::terminal::escaped;

/// All sequences that [`painted`] writes.
pub(super) const COLOURS: [&str; 4] = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[m"];

/// A colour of the terminal.
#[derive(Clone, Copy)]
enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

fn painted(base: &Base, colour: Colour, text: &str) -> String {
    if base.is_coloured { format!("\x1b[{}m{text}\x1b[m", colour as u8) } else { text.to_owned() }
}

fn is_quiet(base: &Base, report: &Report) -> bool {
    base.global.quiet && !report.is_behind()
}

/// Prints what [`report`] prints, after a line that names the repository.
pub(super) fn report_of_many(base: &Base, shown: &Report, mode: Mode, out: &mut dyn Write) -> io::Result<()> {
    if is_quiet(base, shown) {
        return Ok(());
    }
    writeln!(out, "From {}", escaped(&shown.repository))?;
    report(base, shown, mode, out)
}

/// The result for one mirror: the refs that changed and those that are not up to date. With `-v`, all refs.
pub(super) fn report(base: &Base, report: &Report, mode: Mode, out: &mut dyn Write) -> io::Result<()> {
    let shown: Vec<&RefOutcome> =
        report.refs.iter().filter(|outcome| outcome.outcome != Outcome::UpToDate || base.global.verbose > 0).collect();
    if is_quiet(base, report) {
        return Ok(());
    }
    let (taken, sent): (Vec<&RefOutcome>, Vec<&RefOutcome>) = match report.direction {
        Direction::Push => (Vec::new(), shown.clone()),
        Direction::Pull => (shown.clone(), Vec::new()),
        // As in git, what is taken and what is sent is listed separately.
        Direction::Both => shown.iter().partition(|outcome| outcome.side == Side::Here),
    };
    let first = if report.direction == Direction::Push || taken.is_empty() && !sent.is_empty() { "To" } else { "From" };
    writeln!(out, "{first} {} ({})", report.url, report.remote)?;
    // The cause comes first.
    if let Some(error) = &report.error {
        writeln!(out, "   {}", painted(base, Colour::Red, &format!("{}: {error}", report.update_status.as_str())))?;
    }
    if report.created_repository {
        let what = if mode == Mode::Plan { "would create the repository" } else { "created the repository" };
        writeln!(out, "   {what}")?;
    }
    refs(base, &taken, "", out)?;
    if first == "From" && !sent.is_empty() {
        writeln!(out, "To {} ({})", report.url, report.remote)?;
    }
    refs(base, &sent, "", out)?;
    if shown.len() > MAX_SAME_REASON {
        writeln!(out, "   {}", sum(&shown))?;
    }
    if report.error.is_none() && shown.is_empty() && !report.created_repository {
        let nothing = if mode == Mode::Plan { "nothing to do" } else { "everything up to date" };
        writeln!(out, "   {nothing}")?;
    }
    Ok(())
}

/// How many refs with the same outcome and the same reason are listed without `-v`.
const MAX_SAME_REASON: usize = 10;

/// Prints the refs, grouped by outcome and reason. A ref without a reason is a group of its own. Prints the first ten of a group, or
/// all with `-v`.
fn refs(base: &Base, outcomes: &[&RefOutcome], indent: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut groups: Vec<Vec<&RefOutcome>> = Vec::new();
    let mut known: HashMap<(Outcome, &str), usize> = HashMap::new();
    for outcome in outcomes {
        let Some(reason) = &outcome.reason else {
            groups.push(vec![outcome]);
            continue;
        };
        let at = *known.entry((outcome.outcome, reason)).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(outcome);
    }
    let most = if base.global.verbose > 0 { usize::MAX } else { MAX_SAME_REASON };
    for group in groups {
        for outcome in group.iter().take(most) {
            writeln!(out, "{indent}{}", line(base, outcome))?;
        }
        if group.len() > most {
            writeln!(out, "{indent}   and {} more (same reason)", grouped(group.len() - most))?;
        }
    }
    Ok(())
}

/// How many refs there are, and how many of each outcome.
fn sum(outcomes: &[&RefOutcome]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for word in outcomes.iter().map(|outcome| outcome.outcome.as_str()) {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts = counts.iter().map(|(word, count)| format!("{} {}", grouped(*count), word.replace('_', " ")));
    format!("{}: {}", counted(outcomes.len(), "ref", "refs"), counts.collect::<Vec<_>>().join(", "))
}

/// A number with the singular or the plural of a noun.
pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number with commas between groups of three digits, counted from the right.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let ends = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % 3 == ends {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One ref, as `git push` prints it.
fn line(base: &Base, outcome: &RefOutcome) -> String {
    let short = |oid: Option<Oid>| oid.map(|oid| oid.short()).unwrap_or_default();
    let (old, new) = (short(outcome.old_value()), short(outcome.new_value()));
    let name = outcome.name.short();
    let kind = match (outcome.name.branch(), outcome.name.tag()) {
        (Some(_), _) => "[new branch]",
        (_, Some(_)) => "[new tag]",
        _ => "[new reference]",
    };
    let (flag, summary, note) = match outcome.outcome {
        Outcome::UpToDate => ('=', "[up to date]".to_owned(), ""),
        Outcome::Created => ('*', kind.to_owned(), ""),
        Outcome::FastForwarded => (' ', format!("{old}..{new}"), ""),
        Outcome::Forced => ('+', format!("{old}...{new}"), " (forced update)"),
        Outcome::Deleted => ('-', "[deleted]".to_owned(), ""),
        Outcome::Restored => ('*', "[restored]".to_owned(), ""),
        Outcome::Kept => ('=', "[kept]".to_owned(), ""),
        Outcome::Conflict => ('!', "[conflict]".to_owned(), ""),
        Outcome::Divergent => ('!', "[divergent]".to_owned(), ""),
        Outcome::Flapping => ('!', "[flapping]".to_owned(), ""),
        Outcome::Rejected => ('!', "[rejected]".to_owned(), ""),
        Outcome::RemoteRejected => ('!', "[remote rejected]".to_owned(), ""),
        Outcome::RemoteFailed => ('!', "[remote failure]".to_owned(), ""),
    };
    let reason = outcome.reason.as_ref().map(|reason| format!(" ({})", reason.replace('\n', " "))).unwrap_or_default();
    // A push keeps a replaced value only if that value was never here.
    let kept = match (&outcome.kept_as, outcome.side) {
        // The name contains the first digits of the kept value. The kept value may differ from the
        // replaced one: it may come from a conflict that is over.
        (Some(kept), Side::There) if !old.is_empty() && kept.text().contains(&format!("/{old}")) => {
            format!(" ({old} was not from here; kept as {kept})")
        }
        _ => String::new(),
    };
    let text = format!(" {flag} {summary:<17} {name}{note}{reason}{kept}");
    if outcome.outcome.is_failure() { painted(base, Colour::Red, &text) } else { text }
}

/// Prints the status of one mirror, and when it is tried next.
pub(super) fn view(base: &Base, view: &View, next: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let (word, colour) = match view.update_status {
        _ if !view.enabled => ("disabled", Colour::Yellow),
        UpdateStatus::Finished => ("finished", Colour::Green),
        UpdateStatus::Failed => ("failed", Colour::Red),
        status => (status.as_str(), Colour::Yellow),
    };
    writeln!(out, "{}  {}  {}", view.name, painted(base, colour, word), view.url)?;
    let never = "never".to_owned();
    writeln!(
        out,
        "  last success {}, last attempt {}, pending {}",
        view.last_successful_update_at.as_ref().unwrap_or(&never),
        view.last_update_at.as_ref().unwrap_or(&never),
        view.pending
    )?;
    if view.direction != Direction::Push.as_str() {
        let (check, change) = (view.last_check_at.as_ref(), view.last_change_at.as_ref());
        writeln!(out, "  last check {}, last change {}", check.unwrap_or(&never), change.unwrap_or(&never))?;
    }
    if let Some(error) = &view.last_error {
        writeln!(out, "  {}", painted(base, Colour::Red, error))?;
    }
    if let Some(next) = next {
        writeln!(out, "  {next}")?;
    }
    refs(base, &view.refs.iter().collect::<Vec<_>>(), " ", out)
}

/// One mirror of many on one line.
pub(super) fn row(base: &Base, view: &View, out: &mut dyn Write) -> io::Result<()> {
    let colour = match view.update_status {
        UpdateStatus::Finished => Colour::Green,
        UpdateStatus::Failed => Colour::Red,
        _ => Colour::Yellow,
    };
    let word = if view.enabled { view.update_status.as_str() } else { "disabled" };
    let error = view.last_error.as_ref().map(|error| format!("  {error}")).unwrap_or_default();
    let word = painted(base, colour, &format!("{word:<9}"));
    writeln!(out, "{word}  {}  {}{error}", escaped(&view.repository), view.name)
}

/// The copy of one mirror of the fleet on one line.
pub(super) fn copied(base: &Base, mirror: &Shown, out: &mut dyn Write) -> io::Result<()> {
    let text = |key: &str| mirror.shown.get(key).and_then(|value| value.as_str()).unwrap_or_default();
    let colour = match text("update_status") {
        "finished" => Colour::Green,
        "failed" => Colour::Red,
        _ => Colour::Yellow,
    };
    let is_disabled = mirror.shown.get("enabled").is_some_and(|enabled| enabled == false);
    let word = if is_disabled { "disabled" } else { text("update_status") };
    // Anybody with write access to the database could have put control sequences there.
    let clean = |text: &str| Redactor::default().clean(text).on_one_line();
    let error = Some(clean(text("last_error"))).filter(|error| !error.is_empty());
    let error = error.map(|error| format!("  {error}")).unwrap_or_default();
    let [node, repository, name] = [&mirror.node, text("repository"), text("name")].map(clean);
    let word = painted(base, colour, &format!("{:<9}", clean(word).to_string()));
    writeln!(out, "{word}  {node}  {repository}  {name}{error}")
}

/// Whether a node lives, as a word.
pub(super) fn live(base: &Base, is_live: bool) -> String {
    if is_live { painted(base, Colour::Green, "live") } else { painted(base, Colour::Red, "gone") }
}

/// One finding of the doctor, and its fix.
pub(super) fn finding(base: &Base, finding: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let (word, colour) = match finding.severity {
        Severity::Ok => ("ok", Colour::Green),
        Severity::Warning => ("warning", Colour::Yellow),
        Severity::Error => ("error", Colour::Red),
    };
    let subject = finding.remote.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    writeln!(out, "{}  {subject}{}: {}", painted(base, colour, &format!("{word:<7}")), finding.check, finding.text)?;
    match &finding.fix {
        Some(fix) => writeln!(out, "         {fix}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        for (number, text) in [(7, "7"), (999, "999"), (3475, "3,475"), (12_345, "12,345"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
