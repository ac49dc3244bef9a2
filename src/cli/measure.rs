//! Numbers for machines: what `check` judges, and the file for Prometheus' node_exporter.

use std::path::Path;

use super::{Base, Session, now};
use crate::metrics::{self, Measure};
use crate::spool;
use crate::status;

/// The numbers of every mirror of a repository.
pub(super) fn measures(session: &Session<'_>) -> anyhow::Result<Vec<Measure>> {
    let config = session.config()?;
    let layout = session.repository.layout();
    let corrupt = spool::corrupt(&layout)?;
    let enabled = config.mirrors.iter().filter(|mirror| mirror.is_enabled);
    enabled
        .map(|mirror| {
            let status = status::read(&layout.remote(&mirror.name))?;
            Ok(Measure {
                repository: session.repository.git_dir().display().to_string(),
                mirror: mirror.name.clone(),
                status,
                backlog: spool::backlog(&layout, &mirror.name)?,
                corrupt,
            })
        })
        .collect()
}

/// Writes the numbers of all repositories.
pub(super) fn write_every(base: &Base, file: &Path) -> anyhow::Result<()> {
    let (measures, _) = base.ask_every(&measures)?;
    Ok(metrics::write(file, &measures.concat(), now())?)
}
