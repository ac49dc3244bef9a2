//! What became of a ref: the words of `status --json`, and the form in which they are kept.

use serde::{Deserialize, Serialize};

use super::reasons::sentence;
use crate::credentials::Cleaned;
use crate::plan::{Action, Decision, Side};
use crate::refs::{Oid, RefName};

/// What became of a ref, or would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides have the same value.
    UpToDate,
    /// Made.
    Created,
    /// Moved forward.
    FastForwarded,
    /// Replaced.
    Forced,
    /// Deleted.
    Deleted,
    /// Made again, because it was deleted on one side and changed on the other.
    Restored,
    /// Left as it is, because the mirror has a value that we never had.
    Divergent,
    /// Left as it is on both sides, because both moved it.
    Conflict,
    /// Left as it is, because the mirror's value goes back and forth.
    Flapping,
    /// Not deleted.
    Kept,
    /// Not sent, for a reason that was found here.
    Rejected,
    /// The mirror refused the command.
    RemoteRejected,
    /// Not done, for a reason that may pass: no answer, a temporary failure of the mirror, or a fact that could not be read.
    RemoteFailed,
}

impl Outcome {
    /// What a decision leads to when the mirror agrees.
    #[must_use]
    pub fn of(action: &Action) -> Self {
        match action {
            Action::UpToDate => Self::UpToDate,
            Action::Create => Self::Created,
            Action::Restore => Self::Restored,
            Action::FastForward => Self::FastForwarded,
            Action::Force => Self::Forced,
            Action::Delete => Self::Deleted,
            Action::Divergent(_) => Self::Divergent,
            Action::Conflict(_) => Self::Conflict,
            Action::Kept(_) => Self::Kept,
            Action::Flapping(_) => Self::Flapping,
            Action::Reject(_) => Self::Rejected,
            Action::Refused => Self::RemoteRejected,
            Action::Defer(_) => Self::RemoteFailed,
        }
    }

    /// Whether `status` lists the ref: it failed, or the rules kept it, which is no failure.
    #[must_use]
    pub fn is_listed(self) -> bool {
        self.is_failure() || self == Self::Kept
    }

    /// Whether a command was sent and carried out.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Created | Self::FastForwarded | Self::Forced | Self::Deleted | Self::Restored)
    }

    /// Whether a ref with this outcome makes the mirror not up to date. The mirror's status is then
    /// `scheduled` after [`Self::RemoteFailed`], and `failed` after the others.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Divergent
                | Self::Conflict
                | Self::Flapping
                | Self::Rejected
                | Self::RemoteRejected
                | Self::RemoteFailed
        )
    }

    /// The word of the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpToDate => "up_to_date",
            Self::Created => "created",
            Self::FastForwarded => "fast_forwarded",
            Self::Forced => "forced",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
            Self::Divergent => "divergent",
            Self::Conflict => "conflict",
            Self::Flapping => "flapping",
            Self::Kept => "kept",
            Self::Rejected => "rejected",
            Self::RemoteRejected => "remote_rejected",
            Self::RemoteFailed => "remote_failed",
        }
    }
}

/// What became of one ref.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct RefOutcome {
    /// Its name.
    pub name: RefName,
    /// What became of it.
    pub outcome: Outcome,
    /// The side that was to be updated.
    pub side: Side,
    /// Our value; for an update here, the value before.
    pub local: Option<Oid>,
    /// The mirror's value; for an update there, the value before.
    pub remote: Option<Oid>,
    /// The last value that both sides were known to have held, if it mattered.
    pub base: Option<Oid>,
    /// Why.
    pub reason: Option<Cleaned>,
    /// The ref that now holds our replaced value.
    pub kept_as: Option<RefName>,
}

impl RefOutcome {
    /// The outcome of a decision for which nothing is sent, or whose command the mirror carries
    /// out.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let reason = match &decision.action {
            Action::Divergent(reason)
            | Action::Conflict(reason)
            | Action::Kept(reason)
            | Action::Flapping(reason)
            | Action::Reject(reason)
            | Action::Defer(reason) => Some(sentence(reason)),
            _ => None,
        };
        Self::new(decision, Outcome::of(&decision.action), reason)
    }

    /// A ref that has the same value on both sides.
    #[must_use]
    pub fn unchanged(name: RefName, oid: Oid, side: Side) -> Self {
        let (outcome, value) = (Outcome::UpToDate, Some(oid));
        let base = value.filter(|_| side == Side::Here);
        Self { name, outcome, side, local: value, remote: value, base, reason: None, kept_as: None }
    }

    /// The value that was to be replaced.
    #[must_use]
    pub fn old_value(&self) -> Option<Oid> {
        if self.side == Side::Here { self.local } else { self.remote }
    }

    /// The value that was to replace it; `None` for a deletion.
    #[must_use]
    pub fn new_value(&self) -> Option<Oid> {
        if self.side == Side::Here { self.remote } else { self.local }
    }

    /// Another outcome of a decision.
    #[must_use]
    pub fn new(decision: &Decision, outcome: Outcome, reason: Option<Cleaned>) -> Self {
        Self {
            name: decision.name.clone(),
            outcome,
            side: decision.side,
            local: decision.local,
            remote: decision.remote,
            base: decision.base,
            reason,
            kept_as: None,
        }
    }
}

/// The form in files and JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Bytes that are not UTF-8 are replaced. `ref_hex` then holds all bytes of the name.
    #[serde(rename = "ref")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ref_hex: Option<String>,
    outcome: Outcome,
    #[serde(default)]
    side: Side,
    local: Option<String>,
    remote: Option<String>,
    #[serde(default)]
    base: Option<String>,
    reason: Option<Cleaned>,
    #[serde(default)]
    kept_as: Option<String>,
}

impl From<RefOutcome> for Written {
    fn from(outcome: RefOutcome) -> Self {
        let bytes = outcome.name.as_bytes();
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let text = |oid: Option<Oid>| oid.map(|oid| oid.to_string());
        Self {
            name: outcome.name.text().into_owned(),
            ref_hex: std::str::from_utf8(bytes).is_err().then(hex),
            outcome: outcome.outcome,
            side: outcome.side,
            local: text(outcome.local),
            remote: text(outcome.remote),
            base: text(outcome.base),
            reason: outcome.reason,
            kept_as: outcome.kept_as.map(|name| name.text().into_owned()),
        }
    }
}

impl TryFrom<Written> for RefOutcome {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let oid = |text: Option<String>| match text {
            None => Ok(None),
            Some(text) => Oid::from_hex(text.as_bytes()).map(Some).ok_or("an object id is malformed"),
        };
        let bytes = match &written.ref_hex {
            None => written.name.into_bytes(),
            Some(hex) => unhex(hex).ok_or("ref_hex is not hexadecimal")?,
        };
        Ok(Self {
            name: RefName::new(&bytes).ok_or("a ref name is malformed")?,
            outcome: written.outcome,
            side: written.side,
            local: oid(written.local)?,
            remote: oid(written.remote)?,
            base: oid(written.base)?,
            reason: written.reason,
            kept_as: written.kept_as.and_then(|name| RefName::new(name.as_bytes())),
        })
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_json_even_when_the_name_is_no_utf8() {
        for name in [&b"refs/heads/main"[..], b"refs/heads/\xff\xfe"] {
            let outcome = RefOutcome {
                name: RefName::new(name).expect("valid"),
                outcome: Outcome::Divergent,
                side: Side::Here,
                local: Oid::from_hex(&[b'1'; 40]),
                remote: None,
                base: Oid::from_hex(&[b'2'; 40]),
                reason: Some("why".into()),
                kept_as: RefName::new(b"refs/rewritten/m/1/heads/main"),
            };
            let json = serde_json::to_string(&outcome).expect("serializes");
            assert_eq!(serde_json::from_str::<RefOutcome>(&json).expect("parses"), outcome);
        }
        assert!(serde_json::from_str::<RefOutcome>("{\"ref\":\"x\",\"outcome\":\"kept\",\"local\":null}").is_err());
    }
}
