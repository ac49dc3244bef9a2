//! What the daemon logs of a run.

use crate::config::Direction;
use crate::drain::{Host, Report};

/// Logs the outcome of a run.
pub(super) fn log_report(report: &Report) {
    if report.host == Host::Unknown && report.next_attempt_at.is_some() {
        // The mirror waits for its next attempt, or for a host that is down. The log already has the reason.
        return;
    }
    let word = if report.direction == Direction::Pull { "from" } else { "to" };
    let (repository, remote, state) = (&report.repository, &report.remote, report.update_status.as_str());
    match &report.error {
        Some(error) => tracing::warn!("'{repository}' {word} '{remote}': {state}: {error}"),
        None => tracing::info!("'{repository}' {word} '{remote}': {state}"),
    }
}
