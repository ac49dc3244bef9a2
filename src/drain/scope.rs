//! Which refs a run looks at. Pure.

use super::Mode;
use super::coalesce::Touched;
use super::observe::Scope;
use crate::config::Mirror;
use crate::plan::Divergent;
use crate::status::{Outcome, Status};

/// The refs to look at. All refs are scanned if that is asked for, at first contact, and with `divergent_refs = "fail"`, where one
/// divergent ref stops the whole push. Refs that were not up to date are decided again at every contact, because the mirror may have
/// changed. But a ref that the mirror refused is sent again only after a push to it here, or after its slow interval.
pub(super) fn scope(
    mode: Mode,
    mirror: &Mirror,
    touched: &Touched,
    before: &Status,
    is_known: bool,
    is_retry_due: bool,
) -> Scope {
    let is_full = mode != Mode::Drain || touched.is_full || !is_known || mirror.divergent == Divergent::Fail;
    if is_full {
        return Scope::All;
    }
    let judged_again = before.refs.iter().filter(|outcome| is_retry_due || outcome.outcome != Outcome::RemoteRejected);
    Scope::Refs(touched.due.iter().cloned().chain(judged_again.map(|outcome| outcome.name.clone())).collect())
}

/// The refs that a run may change, for `at_work` in its status. `None` stands for all refs. More than 1000 names, or a name that is not
/// UTF-8, also become `None`.
pub(super) fn names(scope: &Scope) -> Option<Vec<String>> {
    const MAX_NAMES: usize = 1000;
    let Scope::Refs(names) = scope else { return None };
    let names = (names.len() <= MAX_NAMES).then_some(names)?;
    names.iter().map(|name| std::str::from_utf8(name.as_bytes()).ok().map(str::to_owned)).collect()
}
