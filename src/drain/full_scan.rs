//! Full comparison: local refs, advertised refs and the base are merged in one pass, in the order of their names, while the
//! advertisement streams in. Only differences are kept, so memory follows the change.
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

/// What a look at all refs showed besides the mirror's side.
#[derive(Default)]
pub(super) struct FullScan {
    /// Our refs, without those that are the same on both sides.
    pub(super) ours: Listing,
    /// Refs that are the same on both sides; empty unless they are wanted.
    pub(super) unchanged: Vec<(RefName, Oid)>,
    /// Those of them that are not noted so.
    pub(super) unnoted: Vec<(RefName, Oid)>,
    /// Refs that are noted and that the mirror does not have.
    pub(super) gone: Vec<RefName>,
}

/// Whether refs that are the same on both sides are reported too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// Each by its name.
    Reported,
    /// Nobody asks for them.
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
    // Ours is read as a whole, and the mirror's is not waited for meanwhile: while refs are read slowly, `git pack-refs` may hide some
    // (see `Repository::list`).
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

/// The three lists as they go by.
struct ThreeWay<'c, O: Iterator, N: Iterator> {
    ours: Peekable<O>,
    noted: Peekable<N>,
    unchanged: Unchanged,
    into: &'c mut FullScan,
}

impl<O: Iterator<Item = (RefName, Local)>, N: Iterator<Item = (RefName, Held)>> ThreeWay<'_, O, N> {
    /// Whether the mirror's ref is the same here. What is before it in the other lists is not on the mirror.
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

    /// The mirror has said its last ref.
    fn finish(self) {
        self.into.ours.refs.extend(self.ours);
        self.into.gone.extend(self.noted.map(|(name, _)| name));
    }
}
