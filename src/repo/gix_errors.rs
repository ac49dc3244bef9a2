//! What the errors of gix and of the system mean: refused by the system, or missing or damaged data. Pure.

use std::io::{self, ErrorKind};

/// Whether the operating system refused access (no descriptor, no permission, a failing disk). Unlike missing or damaged data,
/// this says nothing about what is stored.
#[must_use]
pub fn is_refused(error: &gix::Error) -> bool {
    error.downcast_any_ref::<io::Error>().map(io::Error::kind).is_some_and(is_refusal)
}

/// Whether an error of this kind is such a refusal.
pub(super) fn is_refusal(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// The message of a gix error and those of its causes, on one line.
#[must_use]
pub fn one_line(error: &gix::Error) -> String {
    let mut parts: Vec<String> = error.iter_errors().map(|cause| cause.to_string().replace('\n', " ")).collect();
    parts.dedup();
    parts.join(": ")
}
