//! Measurements: what `check` judges, and the file for Prometheus' node_exporter.

use std::path::Path;

use super::{Base, Session, now};
use crate::metrics::{self, Measure};

/// The numbers of every enabled mirror of a repository.
pub(super) fn measures(session: &Session<'_>) -> anyhow::Result<Vec<Measure>> {
    Ok(metrics::measures(&session.repository, &session.config()?, now())?)
}

/// Writes the numbers of all repositories.
pub(super) fn write_every(base: &Base, file: &Path) -> anyhow::Result<()> {
    let (measures, _) = base.ask_every(&measures)?;
    Ok(metrics::write(file, &measures.concat(), now())?)
}
