//! `import --check`: a look at each new mirror before its first sync. Nothing is sent, and no ref
//! or status changes. Objects of an upstream are fetched into the stage.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{Judged, Unready, Verdict};
use crate::cli::{Base, every};
use crate::drain::Report;

/// Plans the first syncs of what was added, and notes for each whether it can run.
pub(super) fn look(base: &Base, additions: &BTreeMap<PathBuf, Vec<usize>>, judged: &mut [Judged]) {
    let is_added = |at: &&usize| matches!(judged[**at].verdict, Verdict::Add(_));
    let touched = additions.iter().filter(|(_, all)| all.iter().any(|at| is_added(&at)));
    let paths: Vec<PathBuf> = touched.map(|(path, _)| path.clone()).collect();
    let (seen, failed) = (Mutex::new(HashMap::new()), Mutex::new(HashMap::new()));
    every::plan(base, paths, &|report| match report {
        Ok(report) => {
            let looked = looked(&report);
            seen.lock().insert((PathBuf::from(report.repository), report.remote), looked);
        }
        Err((path, error)) => {
            failed.lock().insert(path, error.to_string());
        }
    });
    let (mut seen, failed) = (seen.into_inner(), failed.into_inner());
    for (path, all) in additions {
        for at in all {
            let Verdict::Add(addition) = &mut judged[*at].verdict else { continue };
            let unseen = || Err(unready(failed.get(path).map_or("it was not looked at", |why| why), None));
            addition.looked = Some(seen.remove(&(path.clone(), addition.name.clone())).unwrap_or_else(unseen));
        }
    }
}

/// Whether the sync would bring the mirror up to date. If it would not, the report of the plan has
/// an error.
fn looked(report: &Report) -> Result<(), Unready> {
    report.error.as_ref().map_or(Ok(()), |error| Err(unready(&error.to_string(), report.cause.clone())))
}

fn unready(why: &str, cause: Option<String>) -> Unready {
    Unready { why: why.to_owned(), cause: cause.unwrap_or_else(|| why.to_owned()) }
}
