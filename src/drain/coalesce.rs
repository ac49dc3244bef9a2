//! Many spool records become one set of touched refs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::refs::{Oid, RefName};
use crate::spool::Record;

/// The combined content of the records that a run has claimed from the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// What is known of each ref that a record names.
    pub(super) refs: BTreeMap<RefName, RefHistory>,
    /// The refs of the records that are due.
    pub(super) due: BTreeSet<RefName>,
    /// Whether a record asks for everything.
    pub(super) is_full: bool,
    /// Whether a record asks to read the mirror's refs before anything is sent.
    pub(super) needs_look: bool,
    /// Whether a person asked to push flapping refs again.
    pub(super) is_released: bool,
    /// The addresses of mirrors for which a person confirmed first contact.
    pub(super) adopted: BTreeSet<String>,
}

/// What the records know of one ref.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RefHistory {
    /// Values that it had here before it moved on.
    pub(super) olds: BTreeSet<Oid>,
    /// Values to which it moved.
    pub(super) news: BTreeSet<Oid>,
    /// Values that it had here when it was deleted.
    pub(super) deleted: BTreeSet<Oid>,
}

/// Combines the records that are due. Records that still wait add only the values that they know.
pub(super) fn coalesce(records: &[Record], waiting: &[Record]) -> Touched {
    let mut touched = Touched::default();
    for record in records {
        touched.needs_look |= record.look.is_some();
        touched.is_released |= record.release;
        touched.adopted.extend(record.adopt.clone());
        match &record.updates {
            None => touched.is_full = true,
            Some(updates) => touched.due.extend(updates.iter().map(|update| update.name.clone())),
        }
    }
    for update in records.iter().chain(waiting).filter_map(|record| record.updates.as_ref()).flatten() {
        let known = touched.refs.entry(update.name.clone()).or_default();
        known.news.extend(update.new.non_null());
        if let Some(old) = update.old.non_null() {
            known.olds.insert(old);
            if update.new.is_null() {
                known.deleted.insert(old);
            }
        }
    }
    touched
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refs::RefUpdate;
    use std::time::Duration;

    #[test]
    fn many_pushes_to_a_ref_become_one() {
        let oid = |digit: u8| Oid::from_hex(&[digit; 40]).expect("valid");
        let name = RefName::new(b"refs/heads/x").expect("valid");
        let update = |old, new| Record::of(Duration::ZERO, vec![RefUpdate { old, new, name: name.clone() }]);
        let null = oid(b'0');
        let records = [update(null, oid(b'1')), update(oid(b'1'), oid(b'2')), update(oid(b'2'), null)];
        let touched = coalesce(&records, &[]);
        assert!(!touched.is_full && !touched.needs_look);
        assert_eq!(touched.due, BTreeSet::from([name.clone()]));
        let known = &touched.refs[&name];
        assert_eq!(known.olds, BTreeSet::from([oid(b'1'), oid(b'2')]));
        assert_eq!(known.deleted, BTreeSet::from([oid(b'2')]));
        assert!(coalesce(&[Record::full(Duration::ZERO)], &[]).is_full);
        let waits = Record { look: Some(Duration::MAX), ..update(oid(b'3'), oid(b'3')) };
        let touched = coalesce(&[], &[waits]);
        assert!(touched.due.is_empty() && touched.refs[&name].olds.contains(&oid(b'3')) && !touched.needs_look);
    }
}
