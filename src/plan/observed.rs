//! The facts that decisions are made from.

use super::{Action, Limits};
use crate::refs::{Ancestry, Local, Oid, RefName};

/// Everything that is known about the two sides when a plan is made.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The refs in question.
    pub refs: Vec<RefFacts>,
    /// This repository.
    pub source: Source,
    /// The mirror.
    pub mirror: Mirror,
    /// Whether this is the first contact with the mirror's address.
    pub first_contact: FirstContact,
    /// What one push may hold.
    pub limits: Limits,
}

/// Whether the repository at this address is known to be the intended mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstContact {
    /// It is: it held a value of ours, it had no branches and tags, or a person confirmed it.
    #[default]
    Over,
    /// Nobody knows yet.
    Unconfirmed,
}

/// One ref.
#[derive(Clone, Debug)]
pub struct RefFacts {
    /// Its full name.
    pub name: RefName,
    /// Our value, "L".
    pub local: Local,
    /// The mirror's value, "R".
    pub remote: Option<Oid>,
    /// How R relates to L; of no meaning when one of them is missing.
    pub ancestry: Ancestry,
    /// Whether R is a value that this repository is known to have had for the ref, "R in M".
    pub is_remote_known: bool,
    /// Whether the mirror's ref is a plain or a symbolic ref.
    pub kind: Kind,
    /// What is known of its deletion here; of no meaning while the ref is here.
    pub deleted: Deleted,
    /// Whether this repository has the object R. It is looked up only at first contact; later it is `true` whenever R exists.
    pub is_remote_here: bool,
    /// Whether the ref would be set, for the third time within an hour, to a value that the mirror held before and left.
    pub is_flapping: bool,
    /// What was decided for a two-way mirror. It holds only while both sides have these values.
    pub decided: Option<Decided>,
    /// Whether the mirror refused to change the ref earlier in the run, and another try is of no use: R is the same as then, or the refusal
    /// is final.
    pub is_refused: bool,
}

/// What the table of a two-way mirror decided for the mirror's side of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Our value.
    pub local: Option<Oid>,
    /// The mirror's value.
    pub remote: Option<Oid>,
    /// What happens to the mirror's ref. The rules of a push still decide whether the ref is
    /// deleted.
    pub action: Action,
    /// The base.
    pub base: Option<Oid>,
}

impl Decided {
    /// Whether both sides still have the values for which it was decided.
    pub(super) fn holds(&self, local: Local, remote: Option<Oid>) -> bool {
        let ours = if let Local::At(oid) = local { Some(oid) } else { None };
        self.local == ours && self.remote == remote
    }
}

/// What the mirror's ref is. A command to a symbolic ref would change, or delete, the ref that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A ref with a value of its own.
    #[default]
    Plain,
    /// A symbolic ref.
    Symbolic,
    /// It was never ours, it has the value of another ref, and the protocol does not say whether it is a symbolic ref.
    MaybeSymbolic,
    /// The mirror is on this machine, and the operating system does not let us read the ref.
    Unreadable,
}

/// What is known of a ref's deletion here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The spool or `mirrored/` knows that the ref was here.
    pub is_known: bool,
    /// R is an ancestor of our default branch.
    pub is_remote_merged: bool,
    /// Every value that was deleted here is an ancestor of our default branch.
    pub is_value_merged: bool,
}

/// This repository.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The branch that HEAD names.
    pub default_branch: Option<RefName>,
    /// Whether it has no refs at all.
    pub is_empty: bool,
    /// Why the list of refs may lack something; `None` when it is complete.
    pub incomplete: Option<String>,
}

/// The mirror.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// Whether it advertised no refs at all.
    pub is_empty: bool,
    /// The branch that its HEAD names, as far as that can be seen.
    pub head: Option<RefName>,
    /// Why its HEAD cannot be read. Only for a mirror on this machine.
    pub head_error: Option<String>,
    /// How many refs it has that the rules select.
    pub selected: usize,
    /// Whether it lets refs be deleted (`delete-refs`).
    pub can_delete: bool,
    /// Whether it reports what it did with each ref (`report-status`, `report-status-v2`).
    pub can_report: bool,
    /// Whether it can take all of a push or nothing (`atomic`).
    pub can_push_atomically: bool,
    /// Whether it has branches or tags, and this repository has none of their objects. Computed only at first contact.
    pub is_stranger: bool,
}
