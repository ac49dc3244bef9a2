//! Many records become one set of touched refs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::refs::{Oid, RefName};
use crate::spool::Record;

/// What the records of a claim say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Each ref that a push moved, with what is known of it.
    pub(super) refs: BTreeMap<RefName, Known>,
    /// Whether a record asks for everything.
    pub(super) is_full: bool,
}

/// What the records know of one ref.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Values that it had here.
    pub(super) olds: BTreeSet<Oid>,
    /// Values with which it was deleted here.
    pub(super) deleted: BTreeSet<Oid>,
}

pub(super) fn coalesce(records: &[Record]) -> Touched {
    let mut touched = Touched::default();
    for record in records {
        let Some(updates) = &record.updates else {
            touched.is_full = true;
            continue;
        };
        for update in updates {
            let known = touched.refs.entry(update.name.clone()).or_default();
            if let Some(old) = update.old.non_null() {
                known.olds.insert(old);
                if update.new.is_null() {
                    known.deleted.insert(old);
                }
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
        let update =
            |old, new| Record { time: Duration::ZERO, updates: Some(vec![RefUpdate { old, new, name: name.clone() }]) };
        let null = oid(b'0');
        let records = [update(null, oid(b'1')), update(oid(b'1'), oid(b'2')), update(oid(b'2'), null)];
        let touched = coalesce(&records);
        assert!(!touched.is_full);
        let known = &touched.refs[&name];
        assert_eq!(known.olds, BTreeSet::from([oid(b'1'), oid(b'2')]));
        assert_eq!(known.deleted, BTreeSet::from([oid(b'2')]));
        assert!(coalesce(&[Record { time: Duration::ZERO, updates: None }]).is_full);
    }
}
