//! Faults that strace injects. A program is killed, or gets an error, at a system call in `CALLS`.
//! These calls open, write, truncate, sync, rename, link, remove, make or lock files and
//! directories, or change their mode. The programs that it starts run without faults.
//!
//! A run of the tests takes every third call. Which calls these are depends on the day.
//! `MIRROR_PUSH_POINTS=all` takes every call.

use std::process::Command;
use std::time::SystemTime;

use super::sandbox::Sandbox;

const CALLS: [&str; 21] = [
    "openat",
    "openat2",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "syncfs",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "chmod",
    "fchmod",
    "ftruncate",
    "flock",
];

/// A point: the n-th call of this name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    call: &'static str,
    n: usize,
}

impl Point {
    /// Which of the calls it is, from 1 on.
    pub(crate) fn n(self) -> usize {
        self.n
    }
}

/// What is done at a point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Kill,
    Error(&'static str),
}

impl Fault {
    fn inject(self, Point { call, n }: Point) -> String {
        match self {
            Self::Kill => format!("inject={call}:signal=KILL:when={n}"),
            Self::Error(name) => format!("inject={call}:error={name}:when={n}"),
        }
    }
}

/// The threads of the program whose calls are counted. strace counts each thread's calls from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    Main,
    All,
}

/// A command that starts `program`, under strace if there is a fault.
pub(crate) fn under(sandbox: &Sandbox, fault: Option<(Fault, Point)>, threads: Threads, program: &str) -> Command {
    let Some((fault, point)) = fault else { return sandbox.command(program) };
    let mut strace = sandbox.command("strace");
    strace.args(["-qq", "-o", sandbox.path("strace").to_str().unwrap()]);
    if threads == Threads::All {
        strace.args(["-f", "-b", "execve"]);
    }
    strace.args(["-e", &format!("trace={}", point.call), "-e", &fault.inject(point), "--", program]);
    strace
}

/// Whether the last fault was reached. If not, the program makes fewer such calls.
pub(crate) fn is_reached(sandbox: &Sandbox) -> bool {
    let log = std::fs::read_to_string(sandbox.path("strace")).unwrap();
    log.contains("INJECTED") || log.contains("killed by SIGKILL")
}

/// Runs `each` for the points of this day, of each call until `each` returns false: then the
/// program makes no more such calls. Returns a lower bound of the number of all points.
pub(crate) fn at_every_point(mut each: impl FnMut(Point) -> bool) -> usize {
    let step = if std::env::var("MIRROR_PUSH_POINTS").is_ok_and(|which| which == "all") { 1 } else { 3 };
    let day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 86400;
    let (mut points, mut taken) = (0, 0);
    for (index, call) in CALLS.into_iter().enumerate() {
        let first = 1 + (day as usize + index) % step;
        let reached = (first..).step_by(step).take_while(|n| each(Point { call, n: *n })).count();
        taken += reached;
        points += if reached == 0 { 0 } else { first + (reached - 1) * step };
    }
    eprintln!("{taken} of about {points} points, day {day}");
    points
}
