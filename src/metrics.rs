//! Numbers in Prometheus' text format, for node_exporter's textfile collector and `/metrics`.
//!
//! The labels are the repository, the mirror and the class of a failure, never refs or URLs. The file is replaced as a whole by a rename,
//! so the collector never reads half of it. A process that is killed leaves the old file or the new one.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;

use crate::config::Config;
use crate::durable::{self, with_mode};
use crate::repo::Repository;
use crate::spool::{self, Backlog};
use crate::status::{self, Status, UpdateStatus, last_check};

/// What is measured of one mirror.
#[derive(Clone, Debug)]
pub struct Measure {
    /// The repository's path.
    pub repository: String,
    /// The mirror's name.
    pub mirror: String,
    /// Its status.
    pub status: Status,
    /// When its upstream was last checked, if it is a pull mirror.
    pub checked: Option<Timestamp>,
    /// The pushes that are not mirrored yet.
    pub backlog: Backlog,
    /// Records of the repository that could not be read.
    pub corrupt: usize,
}

impl Measure {
    /// The age of the oldest push that is not mirrored yet, in seconds.
    #[must_use]
    pub fn oldest_pending(&self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        self.backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest.as_secs()))
    }
}

/// The numbers of every enabled mirror of a repository.
///
/// # Errors
/// The operating system's, when its files cannot be read.
pub fn measures(repository: &Repository, config: &Config, now: Timestamp) -> std::io::Result<Vec<Measure>> {
    let layout = repository.layout();
    let corrupt = spool::corrupt(&layout)?;
    let enabled = config.mirrors.iter().filter(|mirror| mirror.is_enabled);
    enabled
        .map(|mirror| {
            let status = status::of(&layout, mirror)?;
            let checked = status.pull.as_ref().and_then(|_| last_check(&layout.remote(&mirror.name), &status, now));
            Ok(Measure {
                repository: repository.git_dir().display().to_string(),
                mirror: mirror.name.clone(),
                status,
                checked,
                backlog: spool::backlog(&layout, &mirror.name)?,
                corrupt,
            })
        })
        .collect()
}

type Value = fn(&Measure, Timestamp) -> Option<f64>;

/// The gauges of a mirror: name, help and value.
const GAUGES: [(&str, &str, Value); 9] = [
    (
        "up_to_date",
        "Whether every selected ref is up to date on the mirror, or kept by the rules, and no push waits.",
        |m, _| Some(f64::from(u8::from(m.status.update_status == UpdateStatus::Finished && m.backlog.pushes == 0))),
    ),
    ("last_success_timestamp_seconds", "Time at which the last successful update ended.", |m, _| {
        seconds(m.status.last_successful_update_at.as_deref())
    }),
    ("last_check_timestamp_seconds", "Time at which the upstream of a pull mirror was last checked.", |m, _| {
        Some(m.checked?.as_millisecond() as f64 / 1000.0)
    }),
    ("last_change_timestamp_seconds", "Time at which a pull mirror last took something from its upstream.", |m, _| {
        seconds(m.status.pull.as_ref()?.last_change_at.as_deref())
    }),
    ("pending_pushes", "Pushes that the mirror has not been given yet.", |m, _| Some(m.backlog.pushes as f64)),
    ("pending_refs", "Refs in the pushes that the mirror has not been given yet.", |m, _| Some(m.backlog.refs as f64)),
    ("oldest_pending_seconds", "Age of the oldest push that the mirror has not been given yet.", |m, now| {
        Some(m.oldest_pending(now) as f64)
    }),
    ("push_duration_seconds", "How long the last attempt took.", |m, _| {
        let ended = seconds(m.status.last_update_at.as_deref())?;
        Some(ended - seconds(m.status.last_update_started_at.as_deref())?).filter(|took| *took >= 0.0)
    }),
    ("corrupt_records", "Spool records of the repository that could not be read.", |m, _| Some(m.corrupt as f64)),
];

/// The metrics as text.
#[must_use]
pub fn render(measures: &[Measure], now: Timestamp) -> String {
    let mut out = String::new();
    for (name, help, value) in GAUGES {
        header(&mut out, name, help, "gauge");
        for measure in measures {
            if let Some(value) = value(measure, now) {
                let _ = writeln!(out, "git_mirror_push_{name}{{{}}} {value}", labels(measure));
            }
        }
    }
    header(&mut out, "failures_total", "Attempts that failed, by class.", "counter");
    for measure in measures {
        let failures = &measure.status.failures;
        for (class, count) in
            [("temporary", failures.temporary), ("permanent", failures.permanent), ("ref", failures.refs)]
        {
            let _ = writeln!(out, "git_mirror_push_failures_total{{{},class=\"{class}\"}} {count}", labels(measure));
        }
    }
    out
}

/// Replaces the file.
///
/// # Errors
/// The operating system's; the old file is then still there.
pub fn write(file: &Path, measures: &[Measure], now: Timestamp) -> std::io::Result<()> {
    // The collector reads only names that end in .prom. The temporary file has another name, so a partial file is never read.
    durable::replace_unsynced(file, render(measures, now).as_bytes(), with_mode(0o644))
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot write '{}': {error}", file.display())))
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP git_mirror_push_{name} {help}\n# TYPE git_mirror_push_{name} {kind}");
}

fn labels(measure: &Measure) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("repository=\"{}\",mirror=\"{}\"", escaped(&measure.repository), escaped(&measure.mirror))
}

fn seconds(time: Option<&str>) -> Option<f64> {
    Some(time?.parse::<Timestamp>().ok()?.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::PullState;
    use std::time::Duration;

    #[test]
    fn renders_the_text_format() {
        let status = Status {
            update_status: UpdateStatus::Scheduled,
            last_update_started_at: Some("2026-01-06T17:32:00.500Z".into()),
            last_update_at: Some("2026-01-06T17:32:02.000Z".into()),
            ..Status::default()
        };
        let backlog = Backlog { pushes: 3, refs: 2, oldest: Some(Duration::from_secs(1_767_720_700)) };
        let measure = |mirror: &str, status, checked| {
            let (repository, mirror) = ("/srv/a\"b.git".into(), mirror.into());
            Measure { repository, mirror, status, checked, backlog, corrupt: 0 }
        };
        let pull = PullState { last_change_at: Some("2026-01-06T17:32:01Z".into()), ..PullState::default() };
        let pulled = Status { pull: Some(pull), ..Status::default() };
        let checked = Some(Timestamp::from_second(1_767_720_721).expect("in range"));
        let text = render(
            &[measure("m", status, None), measure("up", pulled, checked)],
            Timestamp::from_second(1_767_720_722).expect("in range"),
        );
        let labels = "{repository=\"/srv/a\\\"b.git\",mirror=\"m\"}";
        for line in [
            &format!("git_mirror_push_up_to_date{labels} 0"),
            &format!("git_mirror_push_pending_refs{labels} 2"),
            &format!("git_mirror_push_oldest_pending_seconds{labels} 22"),
            &format!("git_mirror_push_push_duration_seconds{labels} 1.5"),
            "git_mirror_push_last_check_timestamp_seconds{repository=\"/srv/a\\\"b.git\",mirror=\"up\"} 1767720721",
            "git_mirror_push_last_change_timestamp_seconds{repository=\"/srv/a\\\"b.git\",mirror=\"up\"} 1767720721",
            "# TYPE git_mirror_push_failures_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("last_success_timestamp_seconds{"), "the mirror never succeeded, so there is no value");
        assert!(!text.contains(&format!("last_check_timestamp_seconds{labels}")), "a push mirror is not checked");
    }
}
