//! Numbers in Prometheus' text format, for node_exporter's textfile collector and `/metrics`.
//!
//! For each host there are the number of mirrors in each state, and sums over its mirrors. A mirror
//! has series of its own only if it is not up to date, has pushes that wait, or has corrupt
//! records, and never if it is disabled. So the text stays small with a hundred thousand mirrors.
//! The file of a single repository has series for all of its enabled mirrors. The labels are the
//! repository, the mirror, the host, the state of mirrors and the class of a failure, never refs or
//! URLs. A rename replaces the whole file, so the collector never reads half of it. A process that
//! is killed leaves the old file or the new one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;

use crate::durable::{self, with_mode};
use crate::status::{Failures, Standing, Summary};
use crate::terminal::escaped_lines;

/// Maximum number of mirrors that have series of their own.
const MAX_MIRRORS: usize = 1000;
/// Maximum number of hosts that have a label of their own. All others have the label `other`.
const MAX_HOSTS: usize = 200;
/// Maximum number of bytes of the series of mirrors.
const MAX_SIZE: usize = 800_000;
/// The series of one mirror: about how many bytes they have besides its labels, and how many times
/// its labels occur in them.
const SIZE_OF_MIRROR: (usize, usize) = (300, 7);

/// Which mirrors have series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// All that are enabled.
    OfAll,
    /// Those that are not up to date, or have waiting pushes or corrupt records; the worst first.
    OfWrong,
}

/// What is shown of many mirrors.
#[derive(Debug)]
pub struct Metrics {
    now: Timestamp,
    series: Series,
    /// The repository and the mirror.
    mirrors: Vec<(String, Summary)>,
    left_out: usize,
    hosts: BTreeMap<String, Host>,
}

/// What is counted of the mirrors at one host.
#[derive(Debug, Default)]
struct Host {
    standing: BTreeMap<Standing, usize>,
    failures: Failures,
    pending: usize,
    oldest_pending: u64,
    corrupt: usize,
    last_success: Option<Timestamp>,
    oldest_check: Option<Timestamp>,
}

type OfMirror = fn(&Summary, Timestamp) -> Option<f64>;
type OfHost = fn(&Host) -> Option<f64>;

/// The gauges of a mirror: name, help and value.
const GAUGES: [(&str, &str, OfMirror); 9] = [
    (
        "up_to_date",
        "Whether every selected ref is up to date on the mirror, or kept by the rules, and no push waits.",
        |m, _| Some(f64::from(u8::from(m.is_right()))),
    ),
    ("last_success_timestamp_seconds", "Time at which the last successful update ended.", |m, _| seconds(m.succeeded)),
    ("last_check_timestamp_seconds", "Time at which the upstream of a pull mirror was last checked.", |m, _| {
        seconds(m.checked)
    }),
    ("last_change_timestamp_seconds", "Time at which a pull mirror last took something from its upstream.", |m, _| {
        seconds(m.changed)
    }),
    ("pending_pushes", "Pushes that the mirror has not been given yet.", |m, _| Some(m.backlog.pushes as f64)),
    ("pending_refs", "Refs in the pushes that the mirror has not been given yet.", |m, _| Some(m.backlog.refs as f64)),
    ("oldest_pending_seconds", "Age of the oldest push that the mirror has not been given yet.", |m, now| {
        Some(m.oldest_pending(now) as f64)
    }),
    ("push_duration_seconds", "How long the last attempt took.", |m, _| {
        Some(seconds(m.tried)? - seconds(m.started)?).filter(|took| *took >= 0.0)
    }),
    ("corrupt_records", "Spool records of the repository that could not be read.", |m, _| {
        Some(m.corrupt as f64).filter(|count| *count > 0.0)
    }),
];

/// The gauges of a host: name, help and value.
const HOST_GAUGES: [(&str, &str, OfHost); 5] = [
    ("host_pending_pushes", "Pushes that the mirrors at the host have not been given yet.", |h| Some(h.pending as f64)),
    ("host_oldest_pending_seconds", "Age of the oldest push that a mirror at the host has not been given yet.", |h| {
        Some(h.oldest_pending as f64)
    }),
    ("host_last_success_timestamp_seconds", "Time at which the last successful update at the host ended.", |h| {
        seconds(h.last_success)
    }),
    (
        "host_oldest_check_timestamp_seconds",
        "Oldest of the times at which the upstreams at the host were last checked.",
        |h| seconds(h.oldest_check),
    ),
    ("host_corrupt_records", "Spool records that could not be read, counted for each mirror at the host.", |h| {
        Some(h.corrupt as f64)
    }),
];

impl Metrics {
    /// Metrics without mirrors.
    #[must_use]
    pub fn new(series: Series, now: Timestamp) -> Self {
        Self { now, series, mirrors: Vec::new(), left_out: 0, hosts: BTreeMap::new() }
    }

    /// Adds a mirror.
    pub fn add(&mut self, repository: &Path, mirror: &Summary) {
        let name = if self.hosts.len() < MAX_HOSTS { &mirror.host } else { "other" };
        match self.hosts.get_mut(&mirror.host) {
            Some(host) => host.add(mirror, self.now),
            None => self.hosts.entry(name.to_owned()).or_default().add(mirror, self.now),
        }
        if mirror.standing == Standing::Disabled || self.series == Series::OfWrong && !mirror.is_wrong() {
            return;
        }
        self.mirrors.push((repository.display().to_string(), mirror.clone()));
        if self.mirrors.len() >= 2 * MAX_MIRRORS {
            self.cut();
        }
    }

    /// Keeps the mirrors that are worst, as many as the limits allow.
    fn cut(&mut self) {
        self.mirrors.sort_by(|(path, one), (other_path, other)| {
            let key = |mirror: &Summary| (mirror.standing, mirror.failing_since.or(mirror.tried));
            key(one).cmp(&key(other)).then_with(|| (path, &one.name).cmp(&(other_path, &other.name)))
        });
        let mut size = 0;
        let size_until = |(repository, mirror): &(String, Summary)| {
            let (fixed, times) = SIZE_OF_MIRROR;
            size += fixed + times * (repository.len() + mirror.name.len() + "repository=,mirror=".len());
            size
        };
        let fitting = self.mirrors.iter().map(size_until).take_while(|size| *size <= MAX_SIZE).count();
        self.left_out += self.mirrors.len() - fitting.min(MAX_MIRRORS).min(self.mirrors.len());
        self.mirrors.truncate(fitting.min(MAX_MIRRORS));
    }

    /// The metrics as text.
    #[must_use]
    pub fn render(mut self) -> String {
        self.cut();
        let mut out = String::new();
        header(&mut out, "mirrors", "Mirrors by host and state.", "gauge");
        for (host, counts) in &self.hosts {
            for (standing, count) in &counts.standing {
                let (host, state) = (label(host), standing.word());
                let _ = writeln!(out, "git_mirror_push_mirrors{{host=\"{host}\",state=\"{state}\"}} {count}");
            }
        }
        for (name, help, value) in HOST_GAUGES {
            header(&mut out, name, help, "gauge");
            for (host, value) in self.hosts.iter().filter_map(|(host, sums)| Some((host, value(sums)?))) {
                let _ = writeln!(out, "git_mirror_push_{name}{{host=\"{}\"}} {value}", label(host));
            }
        }
        header(
            &mut out,
            "host_failed_attempts",
            "Failed attempts so far of the mirrors at the host, by class.",
            "gauge",
        );
        for (host, sums) in &self.hosts {
            failures(&mut out, "host_failed_attempts", &format!("host=\"{}\"", label(host)), sums.failures);
        }
        header(
            &mut out,
            "mirrors_left_out",
            "Mirrors that are not up to date and have no series of their own.",
            "gauge",
        );
        let _ = writeln!(out, "git_mirror_push_mirrors_left_out {}", self.left_out);
        let labels = |repository: &str, mirror: &Summary| {
            format!("repository=\"{}\",mirror=\"{}\"", label(repository), label(&mirror.name))
        };
        for (name, help, value) in GAUGES {
            header(&mut out, name, help, "gauge");
            for (repository, mirror) in &self.mirrors {
                if let Some(value) = value(mirror, self.now) {
                    let _ = writeln!(out, "git_mirror_push_{name}{{{}}} {value}", labels(repository, mirror));
                }
            }
        }
        header(&mut out, "failures_total", "Attempts that failed, by class.", "counter");
        for (repository, mirror) in &self.mirrors {
            failures(&mut out, "failures_total", &labels(repository, mirror), mirror.failures);
        }
        out
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// The operating system's; the old file is then still there.
    pub fn write(self, file: &Path) -> std::io::Result<()> {
        // The collector reads only names that end in .prom. The temporary file has another name, so a partial file is never read.
        durable::replace_unsynced(file, self.render().as_bytes(), with_mode(0o644))
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot write '{}': {error}", file.display())))
    }
}

impl Host {
    fn add(&mut self, mirror: &Summary, now: Timestamp) {
        *self.standing.entry(mirror.standing).or_default() += 1;
        self.failures.temporary += mirror.failures.temporary;
        self.failures.permanent += mirror.failures.permanent;
        self.failures.refs += mirror.failures.refs;
        self.pending += mirror.backlog.pushes;
        self.oldest_pending = self.oldest_pending.max(mirror.oldest_pending(now));
        self.corrupt += mirror.corrupt;
        self.last_success = self.last_success.max(mirror.succeeded);
        let checks = [self.oldest_check, mirror.checked.filter(|_| mirror.standing != Standing::Disabled)];
        self.oldest_check = checks.into_iter().flatten().min();
    }
}

fn failures(out: &mut String, name: &str, labels: &str, failures: Failures) {
    for (class, count) in [("temporary", failures.temporary), ("permanent", failures.permanent), ("ref", failures.refs)]
    {
        if count > 0 {
            let _ = writeln!(out, "git_mirror_push_{name}{{{labels},class=\"{class}\"}} {count}");
        }
    }
}

fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP git_mirror_push_{name} {help}\n# TYPE git_mirror_push_{name} {kind}");
}

fn label(text: &str) -> String {
    // Prometheus' text format has escapes for these three characters only.
    escaped_lines(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(time: Option<Timestamp>) -> Option<f64> {
    Some(time?.as_millisecond() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Backlog;
    use crate::status::UpdateStatus;
    use std::time::Duration;

    fn at(milliseconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millisecond(1_767_720_700_000 + milliseconds).expect("a time"))
    }

    fn mirror(name: &str, standing: Standing) -> Summary {
        Summary {
            id: 1,
            name: name.into(),
            host: "h:22".into(),
            standing,
            update_status: if standing == Standing::UpToDate { UpdateStatus::Finished } else { UpdateStatus::None },
            cause: None,
            error: None,
            failing_since: None,
            started: at(20_500),
            tried: at(22_000),
            succeeded: None,
            checked: None,
            changed: None,
            backlog: Backlog::default(),
            corrupt: 0,
            failures: Failures { temporary: 2, ..Failures::default() },
        }
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn renders_the_text_format() {
        let backlog = Backlog { pushes: 3, refs: 2, oldest: Some(Duration::from_secs(1_767_720_700)) };
        let mut metrics = Metrics::new(Series::OfWrong, at(22_000).expect("a time"));
        metrics.add(Path::new("/srv/a\"b.git"), &Summary { backlog, ..mirror("m", Standing::Waiting) });
        let (checked, changed) = (at(21_000), at(20_000));
        metrics.add(Path::new("/srv/b.git"), &Summary { checked, changed, ..mirror("up", Standing::NeverTried) });
        metrics.add(Path::new("/srv/c.git"), &Summary { succeeded: at(22_000), ..mirror("well", Standing::UpToDate) });
        metrics.add(Path::new("/srv/c.git"), &mirror("off", Standing::Disabled));
        let text = metrics.render();
        let labels = "{repository=\"/srv/a\\\"b.git\",mirror=\"m\"}";
        for line in [
            &format!("git_mirror_push_up_to_date{labels} 0"),
            &format!("git_mirror_push_pending_refs{labels} 2"),
            &format!("git_mirror_push_oldest_pending_seconds{labels} 22"),
            &format!("git_mirror_push_push_duration_seconds{labels} 1.5"),
            "git_mirror_push_last_check_timestamp_seconds{repository=\"/srv/b.git\",mirror=\"up\"} 1767720721",
            "git_mirror_push_last_change_timestamp_seconds{repository=\"/srv/b.git\",mirror=\"up\"} 1767720720",
            "# TYPE git_mirror_push_failures_total counter",
            "git_mirror_push_failures_total{repository=\"/srv/b.git\",mirror=\"up\",class=\"temporary\"} 2",
            "git_mirror_push_mirrors{host=\"h:22\",state=\"waiting\"} 1",
            "git_mirror_push_mirrors{host=\"h:22\",state=\"up_to_date\"} 1",
            "git_mirror_push_mirrors{host=\"h:22\",state=\"disabled\"} 1",
            "git_mirror_push_host_failed_attempts{host=\"h:22\",class=\"temporary\"} 8",
            "git_mirror_push_host_pending_pushes{host=\"h:22\"} 3",
            "git_mirror_push_host_oldest_pending_seconds{host=\"h:22\"} 22",
            "git_mirror_push_host_last_success_timestamp_seconds{host=\"h:22\"} 1767720722",
            "git_mirror_push_host_oldest_check_timestamp_seconds{host=\"h:22\"} 1767720721",
            "git_mirror_push_mirrors_left_out 0",
        ] {
            has(&text, line);
        }
        assert!(!text.contains("last_success_timestamp_seconds{repository"), "none of them ever succeeded: {text}");
        assert!(!text.contains(&format!("last_check_timestamp_seconds{labels}")), "a push mirror is not checked");
        assert!(!text.contains("mirror=\"well\"") && !text.contains("mirror=\"off\""), "{text}");
    }

    #[test]
    fn a_hundred_thousand_mirrors_make_less_than_a_megabyte() {
        let mut metrics = Metrics::new(Series::OfWrong, at(0).expect("a time"));
        for n in 0..100_000_u32 {
            let standing = if n % 10 == 0 { Standing::Waiting } else { Standing::UpToDate };
            let standing = if n == 99_999 { Standing::Failing } else { standing };
            let host = format!("host-{}", n % 700);
            metrics.add(
                Path::new(&format!("/srv/git/group-{}/{}/r{n:06}.git", n / 1000, "x".repeat(60))),
                &Summary { host, ..mirror("m", standing) },
            );
        }
        let text = metrics.render();
        assert!(text.len() < 1_000_000, "{}", text.len());
        let shown = text.lines().filter(|line| line.starts_with("git_mirror_push_up_to_date{")).count();
        assert!((500..=1000).contains(&shown), "{shown}");
        has(&text, &format!("git_mirror_push_mirrors_left_out {}", 10_001 - shown));
        let failing = text.lines().find(|line| line.starts_with("git_mirror_push_up_to_date{"));
        assert!(failing.is_some_and(|line| line.contains("r099999.git")), "the worst is first: {failing:?}");
        let hosts = |line: &&str| line.starts_with("git_mirror_push_host_pending_pushes{");
        assert_eq!(text.lines().filter(hosts).count(), 201);
    }
}
