//! The check of an upstream: its list of refs, and whether anything is new. It takes no lock and changes nothing in the repository.

use sha2::{Digest, Sha256};

use super::Pull;
use crate::drain::Error;
use crate::fetch::{Listed, Session};
use crate::plan::Rules;
use crate::refs::{Local, Oid, RefName};
use crate::repo::{Listing, Repository};
use crate::wire::Error as WireError;

/// What upstream said, and the conversation in which it said it.
pub(in crate::drain) struct Heard {
    pub(super) session: Session,
    pub(super) listed: Listed,
    /// The selected refs, sorted.
    pub(super) refs: Vec<(RefName, Oid)>,
    /// The rules that selected them.
    rules: String,
}

impl Heard {
    /// Whether it was asked for with these rules.
    pub(super) fn is_heard_for(&self, rules: &Rules) -> bool {
        self.rules == format!("{rules:?}")
    }
}

impl Pull<'_> {
    /// Connects to upstream and reads its refs.
    pub(super) fn look(&self, rules: &Rules) -> Result<Heard, Error> {
        self.progress.begin("connecting");
        let known = self.before.pull.as_ref().and_then(|pull| pull.speaks_two.as_deref());
        let mut session = Session::connect(self.target, self.context.pool, known)?;
        self.progress.begin("comparing refs");
        let heard = self.list(&mut session, rules);
        let (listed, refs) = match heard {
            Err(_) if session.is_misjudged() => {
                session.end();
                session = Session::connect(self.target, self.context.pool, None)?;
                self.list(&mut session, rules)?
            }
            heard => heard?,
        };
        Ok(Heard { session, listed, refs, rules: format!("{rules:?}") })
    }

    /// Reads upstream's refs. `None` if both sides and the rules are as they were when the digest `seen` was made.
    pub(in crate::drain) fn look_for_news(&self, seen: &str) -> Result<Option<Heard>, Error> {
        let rules = self.context.rules(self.repository, self.mirror)?;
        let heard = self.look(&rules)?;
        let ours = self.ours(&rules)?;
        if self.digest(&rules, &heard.listed, &heard.refs, &ours)? != seen {
            return Ok(Some(heard));
        }
        heard.session.end();
        Ok(None)
    }

    /// Reads upstream's refs in this conversation.
    pub(super) fn list(&self, session: &mut Session, rules: &Rules) -> Result<(Listed, Vec<(RefName, Oid)>), Error> {
        let mut refs = Vec::new();
        let listed = session.list(&rules.prefixes(), &mut |name, oid| {
            if rules.selects(name) && !is_reserved(name.as_bytes()) {
                refs.push((name.to_owned(), oid));
            }
        })?;
        if !refs.is_sorted_by(|(one, _), (next, _)| one < next) {
            refs.sort_unstable();
            refs.dedup_by(|one, other| one.0 == other.0);
        }
        check_object_format(self.repository, &listed)?;
        Ok((listed, refs))
    }

    /// Our selected refs, sorted.
    pub(super) fn ours(&self, rules: &Rules) -> Result<Listing, Error> {
        let mut listing =
            self.repository.list(|name| rules.selects(name.borrowed()) && !is_reserved(name.as_bytes()))?;
        if !listing.refs.is_sorted_by(|one, next| one.0 <= next.0) {
            listing.refs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        }
        Ok(listing)
    }

    /// A digest of what decides a run: both sides with their HEADs, the settings of the mirror, and
    /// the rules. It does not cover whether another mirror takes a ref (`PullFacts::other`).
    pub(super) fn digest(
        &self,
        rules: &Rules,
        listed: &Listed,
        upstream: &[(RefName, Oid)],
        ours: &Listing,
    ) -> Result<String, Error> {
        let mut hasher = Sha256::new();
        let policy = (rules.divergent.as_str(), rules.conflicts, rules.prune.as_str(), rules.max_deletes);
        let heads = (&listed.head, listed.head_value, listed.is_empty, self.repository.default_branch()?);
        hasher.update(self.mirror.identity().as_bytes());
        hasher.update(format!("{policy:?}{:?}{heads:?}{:?}", self.mirror.pull, listed.symbolic));
        for (name, oid) in upstream {
            hasher.update(name.as_bytes());
            hasher.update(b"\0");
            hasher.update(oid.as_bytes());
        }
        hasher.update(b"\n");
        for (name, local) in &ours.refs {
            hasher.update(name.as_bytes());
            hasher.update(b"\0");
            match local {
                Local::At(oid) => hasher.update(oid.as_bytes()),
                other => hasher.update(format!("{other:?}")),
            }
        }
        hasher.update(format!("{:?}", ours.incomplete));
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Refuses an upstream of another object format.
pub(super) fn check_object_format(repository: &Repository, listed: &Listed) -> Result<(), Error> {
    let (ours, theirs) = (repository.object_format(), &*listed.object_format);
    // An empty upstream of an older version does not say its format.
    if ours == theirs || listed.is_empty {
        return Ok(());
    }
    let what = format!(
        "upstream's object format is {theirs} and this repository's is {ours}; take it into a repository made with 'git init --bare --object-format={theirs}'"
    );
    Err(WireError::Unable(what).into())
}

/// Whether a ref is one of ours that are never taken.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(b"refs/rewritten/") || name.starts_with(b"refs/conflicts/")
}
