//! Lines of cron and systemd that push by themselves. They are reported and never changed. A person
//! replaces them with a list or a template.

#![expect(clippy::disallowed_methods, reason = "reads the files of cron and systemd")]

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::{Judged, Verdict};
use crate::credentials::Credentials;
use crate::import::pushing_lines;
use crate::process;
use crate::wire::parse;

/// Files and directories of cron and systemd (crontab(5), cron(8), systemd.unit(5)).
const PLACES: [&str; 7] = [
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/etc/systemd/system",
];

/// Bytes of a file that are read.
const MAX_READ: u64 = 64 << 10;

/// Every line that pushes, in these files, in the user's crontab, and in the scripts that they name.
pub(super) fn lines() -> Vec<Judged> {
    let mut texts: Vec<(String, Vec<u8>)> = PLACES.iter().flat_map(|place| files(Path::new(place))).collect();
    let crontab = process::run("crontab", process::command("crontab").arg("-l"), b"", Duration::from_secs(10));
    // A user without a crontab, or a machine without the program, has nothing to read.
    texts.extend(crontab.ok().map(|text| ("crontab -l".to_owned(), text)));
    let scripts: Vec<(String, Vec<u8>)> = texts.iter().flat_map(|(_, text)| scripts(text)).collect();
    let known: Vec<String> = texts.iter().map(|(name, _)| name.clone()).collect();
    texts.extend(scripts.into_iter().filter(|(name, _)| !known.contains(name)));
    texts.sort();
    texts.dedup_by(|one, other| one.0 == other.0);
    texts.iter().flat_map(|(name, text)| judged(name, text)).collect()
}

/// A file, or the files of a directory.
fn files(place: &Path) -> Vec<(String, Vec<u8>)> {
    let paths: Vec<PathBuf> = match std::fs::read_dir(place) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![place.to_owned()],
    };
    paths.into_iter().filter_map(|path| Some((path.display().to_string(), read(&path)?))).collect()
}

/// The beginning of a regular file. One that cannot be read counts as none.
fn read(path: &Path) -> Option<Vec<u8>> {
    // A line may name any file. Opening a pipe may block for ever, and opening
    // a device may have effects.
    std::fs::metadata(path).ok()?.is_file().then_some(())?;
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = Vec::new();
    file.take(MAX_READ).read_to_end(&mut text).ok()?;
    Some(text)
}

/// The scripts that lines of cron and `ExecStart=` name by their absolute path.
fn scripts(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text = String::from_utf8_lossy(text).into_owned();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| line.split([' ', '\t', '=', ';', '&', '|']));
    let named = words.filter(|word| word.starts_with('/') && !word.contains(['*', '$'])).map(Path::new);
    let is_script = |text: &Vec<u8>| text.starts_with(b"#!");
    named.filter_map(|path| Some((path.display().to_string(), read(path).filter(is_script)?))).collect()
}

fn judged(name: &str, text: &[u8]) -> Vec<Judged> {
    let one = |pushing: crate::import::Pushing| {
        let target = pushing.target.as_deref().and_then(|target| parse(target).ok());
        let why = match target {
            Some((address, _)) => format!(
                "it pushes to {} by itself; add that mirror (git mirror-push add), and delete the line",
                address.shown(&Credentials::default())
            ),
            None => "it pushes by itself and names no target here; replace it with a list (import list) or a template"
                .into(),
        };
        Judged {
            repository: "cron".into(),
            from: format!("{name}, line {}", pushing.line),
            verdict: Verdict::Person(why),
        }
    };
    pushing_lines(text).into_iter().map(one).collect()
}
