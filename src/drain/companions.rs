//! The first push to an empty mirror sets the default branch alone. It also carries the objects of the refs that follow, its companions.
//! Pure.
//!
//! Without this, we would have to make a second pack, and the mirror would have to index it. A mirror that accepts the first push keeps
//! its whole pack, so the second push needs no objects. The first push still has one command. If the mirror refuses that command, the
//! next push carries the objects of the default branch alone, because an object of a companion may be the cause. If the mirror lacks the
//! objects later, the next push carries them again.
//!
//! After a crash between the two pushes, the mirror has objects that no ref needs. Its garbage collection removes them.

use crate::plan::Plan;
use crate::push::{Answer, Report};
use crate::refs::Oid;
use crate::replies::Cause;

/// What one run knows of the objects that it sent for the companions of the default branch.
#[derive(Default)]
pub(super) enum Companions {
    /// No push has carried any.
    #[default]
    Untried,
    /// The mirror accepted them. These are the values of the companions.
    Accepted(Vec<Oid>),
    /// The mirror refused them, or did not keep them. No other push of this run carries any.
    Refused,
}

impl Companions {
    /// The values whose objects the mirror has, although none of its refs may have them yet.
    pub(super) fn accepted(&self) -> &[Oid] {
        if let Self::Accepted(values) = self { values } else { &[] }
    }

    /// The most refs that may be companions in a push of at most `refs` refs.
    pub(super) fn most(&self, refs: usize) -> usize {
        if let Self::Untried = self { refs.saturating_sub(1) } else { 0 }
    }

    /// Learns from the report on the push that was just sent. Returns whether that push is to be repeated with the objects of its own refs
    /// only.
    pub(super) fn note(&mut self, plan: &Plan, report: &Report) -> bool {
        let is_done = plan.next_push().iter().all(|sent| report.answers.get(&sent.name) == Some(&Answer::Done));
        *self = match self {
            Self::Untried if plan.companions.is_empty() => return false,
            Self::Untried if is_done => {
                let values = plan.companions.iter().filter_map(|index| plan.decisions[*index].local);
                Self::Accepted(values.collect())
            }
            Self::Accepted(_) if !lacks_objects(report) => return false,
            Self::Refused => return false,
            Self::Untried | Self::Accepted(_) => Self::Refused,
        };
        matches!(self, Self::Refused) && report.cut.is_none()
    }

    /// Makes sure that no later push carries companions, after a push with them failed as a whole.
    /// An object of a companion may be the cause, for example one that is missing here. Returns
    /// `false` if the plan's next push has no companions.
    pub(super) fn give_up(&mut self, plan: &Plan) -> bool {
        let had_some = !plan.companions.is_empty();
        if had_some {
            *self = Self::Refused;
        }
        had_some
    }
}

/// Whether the mirror refused a ref because it lacks objects.
fn lacks_objects(report: &Report) -> bool {
    let is_told = |answer: &Answer| matches!(answer, Answer::Refused(message) if Cause::MissingObjects.is_in(message));
    report.answers.values().any(is_told)
}
