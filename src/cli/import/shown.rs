//! What `import` prints.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::{Judged, Verdict};
use crate::cli::{Base, print_json};
use crate::credentials::{Cleaned, Redactor};

/// How many mirrors of one kind, or with one reason, are listed.
pub(super) const MAX_SHOWN: usize = 10;

/// How the mirrors are printed.
pub(super) struct Shown<'b> {
    pub(super) base: &'b Base,
    /// Whether nothing is written yet.
    pub(super) is_dry: bool,
    /// How many repositories could not be read.
    pub(super) unread: usize,
}

/// Text from outside, without control sequences for a terminal.
fn clean(text: &str) -> Cleaned {
    Redactor::default().clean(&text.replace('\n', " "))
}

/// A mirror as `--json` prints it.
#[derive(Serialize)]
struct Json<'a> {
    repository: &'a str,
    from: &'a str,
    action: &'static str,
    name: Option<&'a str>,
    direction: Option<&'a str>,
    url: Option<&'a str>,
    reason: Option<&'a str>,
    notes: &'a [String],
    /// `--check`: "ready", or why the first sync cannot run.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'a str>,
}

impl Shown<'_> {
    /// Prints what was found and what becomes of it.
    pub(super) fn print(&self, judged: &[Judged], out: &mut dyn Write) -> anyhow::Result<()> {
        if self.base.global.json {
            return self.json(judged, out);
        }
        if self.base.global.quiet && !self.is_dry {
            return self.sum(judged, out);
        }
        let most = if self.base.global.verbose > 0 { usize::MAX } else { MAX_SHOWN };
        let mut added = 0;
        for one in judged {
            let Verdict::Add(addition) = &one.verdict else { continue };
            added += 1;
            if added <= most {
                let (sign, url) = (addition.direction.as_str(), &addition.url);
                let (repository, from) = (clean(&one.repository), clean(&one.from));
                writeln!(out, "{repository}: {} ({sign}) {}  from {from}", addition.name, clean(url))?;
            }
        }
        if added > most {
            writeln!(out, "and {} more; -v shows them all", added - most)?;
        }
        let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
        for one in judged {
            if let Verdict::Add(addition) = &one.verdict {
                addition.notes.iter().for_each(|note| *notes.entry(note).or_default() += 1);
            }
        }
        let mut notes: Vec<(&str, usize)> = notes.into_iter().collect();
        // What concerns most mirrors comes first.
        notes.sort_by_key(|(_, count)| Reverse(*count));
        let left = notes.len().saturating_sub(most);
        for (note, count) in notes.into_iter().take(most) {
            let of = if count == 1 { "1 mirror".to_owned() } else { format!("{count} mirrors") };
            writeln!(out, "note for {of}: {}", clean(note))?;
        }
        if left > 0 {
            writeln!(out, "and {left} more notes; -v shows them all")?;
        }
        self.sum(judged, out)
    }

    /// Prints what needs a person, and the sums.
    pub(super) fn sum(&self, judged: &[Judged], out: &mut dyn Write) -> anyhow::Result<()> {
        if self.base.global.json {
            // Callers print the sums alone only after a question. `--json` asks none, and `print`
            // printed everything.
            return Ok(());
        }
        let mut people: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
        let (mut added, mut present) = (0, 0);
        let (mut ready, mut unready) = (0, BTreeMap::<&str, (&str, Vec<&Judged>)>::new());
        for one in judged {
            match &one.verdict {
                Verdict::Add(addition) => {
                    added += 1;
                    match &addition.looked {
                        Some(Ok(())) => ready += 1,
                        Some(Err(bad)) => unready.entry(&bad.cause).or_insert((&bad.why, Vec::new())).1.push(one),
                        None => {}
                    }
                }
                Verdict::Present(_) => present += 1,
                Verdict::Person(why) => people.entry(why).or_default().push(one),
            }
        }
        let needed: usize = people.values().map(Vec::len).sum();
        people.into_iter().try_for_each(|(why, all)| self.people("needs you", why, &all, out))?;
        let count: usize = unready.values().map(|(_, all)| all.len()).sum();
        unready.into_values().try_for_each(|(why, all)| self.people("not ready", why, &all, out))?;
        let word = if self.is_dry { "to import" } else { "imported" };
        let need = if needed == 1 { "needs you" } else { "need you" };
        let unread = match self.unread {
            0 => String::new(),
            1 => ", 1 repository cannot be read".to_owned(),
            count => format!(", {count} repositories cannot be read"),
        };
        if self.base.global.quiet {
            return Ok(());
        }
        let looked = if ready + count > 0 { format!(" ({ready} ready, {count} not ready)") } else { String::new() };
        Ok(writeln!(out, "{added} {word}{looked}, {present} already here, {needed} {need}{unread}")?)
    }

    fn people(&self, what: &str, why: &str, all: &[&Judged], out: &mut dyn Write) -> io::Result<()> {
        let most = if self.base.global.verbose > 0 { usize::MAX } else { MAX_SHOWN };
        writeln!(out, "{what}: {}", clean(why))?;
        for one in all.iter().take(most) {
            writeln!(out, "  {}: {}", clean(&one.repository), clean(&one.from))?;
        }
        if all.len() > most {
            writeln!(out, "  and {} more (same reason)", all.len() - most)?;
        }
        Ok(())
    }

    fn json(&self, judged: &[Judged], out: &mut dyn Write) -> anyhow::Result<()> {
        let all: Vec<Json<'_>> = judged
            .iter()
            .map(|Judged { repository, from, verdict }| {
                let empty = Json {
                    repository,
                    from,
                    action: "person",
                    name: None,
                    direction: None,
                    url: None,
                    reason: None,
                    notes: &[],
                    check: None,
                };
                match verdict {
                    Verdict::Add(addition) => Json {
                        action: if self.is_dry { "add" } else { "added" },
                        name: Some(&addition.name),
                        direction: Some(&addition.direction),
                        url: Some(&addition.url),
                        notes: &addition.notes,
                        check: addition
                            .looked
                            .as_ref()
                            .map(|looked| looked.as_ref().map_or_else(|bad| &*bad.why, |()| "ready")),
                        ..empty
                    },
                    Verdict::Present(name) => Json { action: "present", name: Some(name), ..empty },
                    Verdict::Person(why) => Json { reason: Some(why), ..empty },
                }
            })
            .collect();
        print_json(out, &all)
    }
}
