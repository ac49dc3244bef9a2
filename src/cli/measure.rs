//! The summaries for `check`, and the metrics file for Prometheus' node_exporter.

use std::path::Path;

use super::{Base, Session, now};
use crate::metrics::{Metrics, Series};
use crate::mirror;
use crate::status::Summary;

/// The summary of every mirror of a repository.
pub(super) fn summaries(session: &Session<'_>) -> anyhow::Result<Vec<Summary>> {
    Ok(Summary::all(&session.repository.layout(), &session.config()?, now())?)
}

/// Writes the numbers of one repository.
pub(super) fn write_one(session: &Session<'_>, file: &Path) -> anyhow::Result<()> {
    let mut metrics = Metrics::new(Series::OfAll, now());
    summaries(session)?.iter().for_each(|mirror| metrics.add(session.repository.git_dir(), mirror));
    Ok(metrics.write(file)?)
}

/// Writes the numbers of all repositories.
pub(super) fn write_every(base: &Base, file: &Path) -> anyhow::Result<()> {
    let mut metrics = Metrics::new(Series::OfWrong, now());
    let summaries = |path: &Path| {
        Ok(mirror::with_shown(path, &base.server, |layout, config| Summary::all(layout, config, now()))??)
    };
    base.take_every(&summaries, &mut |git_dir, mirrors| {
        mirrors.iter().for_each(|mirror| metrics.add(git_dir, mirror));
        Ok(())
    })?;
    Ok(metrics.write(file)?)
}
