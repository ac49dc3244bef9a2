//! The process that works on a mirror, so that others can tell whether it still runs.
//!
//! A process id alone proves nothing: it may belong to another container or boot, or be reused. So the machine, the boot, the pid namespace
//! and the start time of the process are stored with it (proc(5), machine-id(5)). What cannot be read is stored as empty. A
//! process without a start time counts as gone.

#![expect(clippy::disallowed_methods, reason = "reads /proc and /etc/machine-id")]

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The identity of a process, unique on all machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The machine, by machine-id(5).
    pub machine: String,
    /// The boot of the kernel.
    pub boot: String,
    /// The namespace in which `pid` counts.
    pub namespace: String,
    /// The process id.
    pub pid: u32,
    /// When the process began, in clock ticks since the boot.
    pub started: u64,
}

impl Runner {
    /// This process.
    #[must_use]
    pub fn this() -> Self {
        static THIS: OnceLock<Runner> = OnceLock::new();
        THIS.get_or_init(|| Self::of(std::process::id())).clone()
    }

    /// Another process of this machine.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self { pid, started: start_of(pid).unwrap_or_default(), ..Self::here() }
    }

    /// What all processes here have in common.
    fn here() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        Self {
            machine: text("/etc/machine-id"),
            boot: text("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.map(|link| link.display().to_string()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Whether that process still runs. `false` for a process of another machine, boot or pid namespace, which we cannot see.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let here = Self::this();
        let is_here = self.machine == here.machine && self.boot == here.boot && self.namespace == here.namespace;
        is_here && self.started != 0 && start_of(self.pid) == Some(self.started)
    }
}

/// When a process began, in clock ticks since the boot; `None` when it is gone or only waits to be reaped.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and may contain any character. So the fields begin after the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_only_as_itself() {
        let this = Runner::this();
        assert!(this.is_alive());
        assert!(!Runner { started: this.started + 1, ..this.clone() }.is_alive(), "the pid was given to another");
        assert!(!Runner { boot: "another".into(), ..this.clone() }.is_alive());
        assert!(!Runner { namespace: "another".into(), ..this.clone() }.is_alive());
        assert!(!Runner { machine: "another".into(), ..this.clone() }.is_alive());
        assert!(!Runner { pid: 0, ..this }.is_alive());
    }
}
