//! Full comparison: one pass merges our refs, the advertised refs and the base (`mirrored/`), in the order of their names. The
//! advertisement and the base are read as streams, and only their differences from our refs are kept by name. Our selected refs, and each
//! distinct advertised value, are in memory.
//!
//! A mirror that does not sort its refs is scanned as well: a ref out of order counts as different, and the plan decides.

use std::iter::Peekable;

use super::Error;
use super::observe::{AdvertisedRefs, Remote, unreadable};
use crate::plan::Rules;
use crate::push::Session;
use crate::refs::{Local, NameRef, Oid, RefName};
use crate::repo::{Listing, Repository};
use crate::status::{Held, Mirrored};
use crate::wire::Address;

/// The result of a full scan, without the mirror's side.
#[derive(Default)]
pub(super) struct FullScan {
    /// Our refs, without those that are the same on both sides.
    pub(super) ours: Listing,
    /// Refs that are the same on both sides; empty unless they are to be reported.
    pub(super) unchanged: Vec<(RefName, Oid)>,
    /// Refs that are the same on both sides, but that `mirrored/` does not record at this value.
    pub(super) unnoted: Vec<(RefName, Oid)>,
    /// Refs that `mirrored/` records and that the mirror no longer has.
    pub(super) gone: Vec<RefName>,
}

/// Whether refs that are the same on both sides are reported too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// They are reported by name.
    Reported,
    /// They are left out.
    Omitted,
}

/// Reads the advertisement and compares.
pub(super) fn full_scan(
    session: &mut Session,
    address: &Address,
    rules: &Rules,
    repository: &Repository,
    mirrored: &Mirrored,
    unchanged: Unchanged,
) -> Result<(Remote, FullScan), Error> {
    session.begin()?;
    // All our refs are read before the mirror's answer. A read that waited for the mirror would be slow, and `git pack-refs` may hide refs
    // from a slow read.
    let mut listing = repository.list(|name| rules.selects(name.borrowed()))?;
    if !listing.refs.is_sorted_by(|one, next| one.0 <= next.0) {
        listing.refs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    }
    let mut heard = AdvertisedRefs::default();
    let mut scanned = FullScan::default();
    let read = mirrored.each(|noted| {
        let ours = listing.refs.into_iter().peekable();
        let mut three = ThreeWay { ours, noted: noted.peekable(), unchanged, into: &mut scanned };
        let advertised = session.advertisement(&mut |name, oid| {
            if heard.count(rules, name, oid) && !three.is_same(name, oid) {
                heard.refs.push((name.to_owned(), oid));
            }
        });
        three.finish();
        advertised
    });
    let there = heard.into_remote(read.map_err(unreadable)??, address);
    scanned.ours.incomplete = listing.incomplete;
    scanned.gone.retain(|name| rules.selects(name.borrowed()) && there.value(name).is_none());
    Ok((there, scanned))
}

/// The merge of the three sorted lists.
struct ThreeWay<'c, O: Iterator, N: Iterator> {
    ours: Peekable<O>,
    noted: Peekable<N>,
    unchanged: Unchanged,
    into: &'c mut FullScan,
}

impl<O: Iterator<Item = (RefName, Local)>, N: Iterator<Item = (RefName, Held)>> ThreeWay<'_, O, N> {
    /// Whether the mirror's ref has the same value here. Refs with smaller names in the other two lists are not on the mirror.
    fn is_same(&mut self, name: NameRef<'_>, oid: Oid) -> bool {
        while let Some(before) = self.ours.next_if(|(other, _)| other.borrowed() < name) {
            self.into.ours.refs.push(before);
        }
        while let Some((before, _)) = self.noted.next_if(|(other, _)| other.borrowed() < name) {
            self.into.gone.push(before);
        }
        let noted = self.noted.next_if(|(other, _)| other.borrowed() == name).map(|(_, held)| held);
        let Some((name, local)) = self.ours.next_if(|(other, _)| other.borrowed() == name) else { return false };
        if local != Local::At(oid) {
            self.into.ours.refs.push((name, local));
            return false;
        }
        if noted != Some(Held::at(oid)) {
            self.into.unnoted.push((name.clone(), oid));
        }
        if self.unchanged == Unchanged::Reported {
            self.into.unchanged.push((name, oid));
        }
        true
    }

    /// Ends the merge after the advertisement. The refs that are left in the other two lists are not on the mirror.
    fn finish(self) {
        self.into.ours.refs.extend(self.ours);
        self.into.gone.extend(self.noted.map(|(name, _)| name));
    }
}
