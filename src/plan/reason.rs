//! Why a ref is not updated. Pure; the sentences for people are in `status::reasons`.

use crate::refs::{Oid, RefName};

/// Why a ref is not updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name is too long: a command of the push protocol must fit in one packet line.
    NameTooLong,
    /// Our ref cannot be read.
    Unreadable,
    /// The ref of a mirror on this machine cannot be read.
    MirrorUnreadable,
    /// The mirror has no `delete-refs` capability.
    NoDeletes,
    /// `divergent_refs = "fail"`, and another ref diverges.
    OtherDiverges,
    /// First contact is not confirmed.
    Unconfirmed,
    /// First contact is not confirmed, and the mirror has this value, which we do not have.
    FirstContact(Oid),
    /// The mirror's value is not in this repository, or our history is not complete enough to compare.
    NotHere(Oid),
    /// The mirror's value is no ancestor of ours.
    NotInHistory(Oid),
    /// On the side that is updated, the ref went back and forth between values too often within an
    /// hour.
    Flapping {
        /// What the mirror has; `None` is no such ref.
        remote: Option<Oid>,
        /// What we have.
        local: Option<Oid>,
    },
    /// Both sides moved the ref, each to a value that does not contain the other's.
    Conflict {
        /// What we have; `None` is no such ref.
        local: Option<Oid>,
        /// What the mirror has; `None` is no such ref.
        remote: Option<Oid>,
        /// What both had before; `None` is no such ref.
        base: Option<Oid>,
    },
    /// The ref moved on one side after it was decided.
    Moved,
    /// Our refs could not be listed completely, for this reason.
    Incomplete(String),
    /// This repository has no refs.
    NoRefs,
    /// `prune = "never"`.
    PruneNever,
    /// This repository never had the ref.
    NeverHad,
    /// It was deleted here, and the mirror's value is not in the default branch.
    RemoteNotMerged,
    /// It was deleted here, and the value that was deleted is not in the default branch.
    ValueNotMerged,
    /// It was deleted here, and the mirror has a value that we never had.
    Foreign,
    /// We never had the mirror's value, and the policy is not to overwrite.
    NotOverwritten,
    /// It may be a symbolic ref, whose deletion would delete another ref.
    MaybeSymbolic,
    /// The HEAD of the mirror names it.
    Head {
        /// Our default branch.
        default_branch: Option<RefName>,
    },
    /// The HEAD of the mirror cannot be read, for this reason. It may name the ref.
    HeadUnreadable(String),
    /// A reason that only a pull has.
    Pull(PullReason),
    /// More refs would be deleted than the limit allows.
    TooManyDeletes {
        /// How many refs would be deleted.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why a pull does not take a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullReason {
    /// It was deleted here, and upstream has not changed it since.
    DeletedHere,
    /// It was moved here, and upstream has this value.
    MovedHere(Oid),
    /// Upstream no longer has the ref, but our value, or the base, is not in upstream's default branch.
    NotMergedUpstream,
    /// Upstream no longer has the ref, and it was moved here.
    GoneAndMoved,
    /// Upstream shows no refs, although it had some.
    NothingUpstream,
    /// The mirror has the ref and hides it from readers.
    Hidden,
    /// Our HEAD names it, and upstream no longer has it.
    OurHead,
    /// The histories of both sides have no commit in common.
    Unrelated,
    /// It is the first contact, and upstream's history does not contain our value.
    NotContained(Oid),
    /// Another pull mirror, which is named here, selects the ref too.
    TakenByOther(String),
    /// Upstream does not give its value, or gives it damaged. Holds why.
    Unfetched(String),
}
