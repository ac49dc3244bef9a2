//! From decisions to the request and its pack.

use std::collections::HashMap;
use std::sync::Arc;

use super::observe::Remote;
use super::update::Run;
use crate::plan::{Decision, Plan};
use crate::push::{Command, DeltaBase, Incomplete, PackObjects, PackSource, Report, Request, Session};
use crate::refs::Oid;
use crate::wire::Error as PushError;

impl Run<'_> {
    /// Sends the next push of the plan. The caller has checked the fence.
    pub(super) fn push(
        &self,
        session: &mut Session,
        plan: &Plan,
        there: &Remote,
        base: DeltaBase,
    ) -> Result<Report, PushError> {
        self.progress.begin("preparing objects");
        let commands = self.commands(&plan.next_push());
        let request = self.request(&commands);
        let pack = request.needs_pack().then(|| self.pack(&plan.next_pack(), there, base));
        session.push(&request, pack)
    }

    pub(super) fn commands(&self, sent: &[&Decision]) -> Vec<Command> {
        let null = self.repository.null_oid();
        let command = |decision: &&Decision| Command {
            old: decision.remote.unwrap_or(null),
            new: decision.new_value().unwrap_or(null),
            name: decision.name.clone(),
        };
        sent.iter().map(command).collect()
    }

    pub(super) fn request<'c>(&'c self, commands: &'c [Command]) -> Request<'c> {
        Request {
            commands,
            shallow: &self.shallow,
            push_options: &self.mirror.push_options,
            is_atomic: self.mirror.is_atomic,
            progress: Some(&self.progress),
        }
    }

    /// A pack of the objects that the new values have and the mirror's values lack. `None` unless it is small.
    pub(super) fn small_pack(&self, packed: &[&Decision], haves: &HashMap<Oid, u32>) -> Option<PackSource> {
        let pack = self.repository.small_pack(&tips(packed), haves)?;
        Some(PackSource::Made(pack, Arc::clone(&self.progress)))
    }

    /// A pack of the objects that the new values have and the mirror's values lack.
    fn pack(&self, packed: &[&Decision], there: &Remote, base: DeltaBase) -> PackSource {
        if let Some(pack) = self.small_pack(packed, &there.values) {
            return pack;
        }
        let tips = tips(packed);
        let mut haves = self.repository.boundary(&tips, &there.values);
        // The mirror certainly has the replaced values, and they are close to the new ones.
        haves.extend(packed.iter().filter_map(|decision| decision.remote).filter(|old| self.repository.contains(*old)));
        haves.sort_unstable();
        haves.dedup();
        PackSource::Program(PackObjects {
            git_dir: self.repository.git_dir().to_owned(),
            tips,
            haves,
            ofs_delta: there.advertised.capabilities.ofs_delta,
            incomplete: self.incomplete(),
            base,
            progress: Arc::clone(&self.progress),
        })
    }

    /// What our repository lacks on purpose.
    pub(super) fn incomplete(&self) -> Incomplete {
        Incomplete { is_shallow: !self.shallow.is_empty(), is_partial: self.repository.is_partial() }
    }
}

/// The new values, each once.
fn tips(packed: &[&Decision]) -> Vec<Oid> {
    let mut tips: Vec<Oid> = packed.iter().filter_map(|decision| decision.new_value()).collect();
    tips.sort_unstable();
    tips.dedup();
    tips
}
