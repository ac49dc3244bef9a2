//! What became of a ref: the words of `status --json`, and the form in which they are kept.

use serde::{Deserialize, Serialize};

use super::reasons::sentence;
use crate::credentials::Cleaned;
use crate::plan::{Action, Decision};
use crate::refs::{Oid, RefName};

/// What became of a ref, or would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both sides have the same value.
    UpToDate,
    /// The mirror has it now.
    Created,
    /// Moved forward.
    FastForwarded,
    /// Replaced.
    Forced,
    /// Gone from the mirror.
    Deleted,
    /// Left as it is, because the mirror has a value that we never had.
    Divergent,
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
            Action::FastForward => Self::FastForwarded,
            Action::Force => Self::Forced,
            Action::Delete => Self::Deleted,
            Action::Divergent(_) => Self::Divergent,
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

    /// Whether a command was sent and the mirror agreed to it.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Created | Self::FastForwarded | Self::Forced | Self::Deleted)
    }

    /// Whether the mirror is not up to date because of it: `scheduled` after [`Self::RemoteFailed`], `failed` after the others.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Divergent | Self::Flapping | Self::Rejected | Self::RemoteRejected | Self::RemoteFailed)
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
            Self::Divergent => "divergent",
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
    /// Our value.
    pub local: Option<Oid>,
    /// The mirror's value before.
    pub remote: Option<Oid>,
    /// Why.
    pub reason: Option<Cleaned>,
}

impl RefOutcome {
    /// What becomes of a decision that is not sent, or that the mirror agrees to.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let reason = match &decision.action {
            Action::Divergent(reason)
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
    pub fn unchanged(name: RefName, oid: Oid) -> Self {
        Self { name, outcome: Outcome::UpToDate, local: Some(oid), remote: Some(oid), reason: None }
    }

    /// Another outcome of a decision.
    #[must_use]
    pub fn new(decision: &Decision, outcome: Outcome, reason: Option<Cleaned>) -> Self {
        Self { name: decision.name.clone(), outcome, local: decision.local, remote: decision.remote, reason }
    }
}

/// The form in files and JSON.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Bytes that are no UTF-8 are replaced. `ref_hex` then holds all bytes of the name.
    #[serde(rename = "ref")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ref_hex: Option<String>,
    outcome: Outcome,
    local: Option<String>,
    remote: Option<String>,
    reason: Option<Cleaned>,
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
            local: text(outcome.local),
            remote: text(outcome.remote),
            reason: outcome.reason,
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
            local: oid(written.local)?,
            remote: oid(written.remote)?,
            reason: written.reason,
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
                local: Oid::from_hex(&[b'1'; 40]),
                remote: None,
                reason: Some("why".into()),
            };
            let json = serde_json::to_string(&outcome).expect("serializes");
            assert_eq!(serde_json::from_str::<RefOutcome>(&json).expect("parses"), outcome);
        }
        assert!(serde_json::from_str::<RefOutcome>("{\"ref\":\"x\",\"outcome\":\"kept\",\"local\":null}").is_err());
    }
}
