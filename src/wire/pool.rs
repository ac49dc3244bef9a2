//! Connections that outlive one contact: mirrors at one web server share a few, whatever their repository. For ssh see `ssh_control`.
//!
//! Credentials are sent with each request and do not belong to a connection, so mirrors with
//! different credentials may share it. A server may close an idle connection at any time. A request
//! for `info/refs` is then repeated once. A POST is never sent twice.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use ureq::Agent;

use super::ssh_control::ControlSockets;
use super::{Egress, Error};

/// Maximum number of kinds of connections that are kept. One more drops all others.
const MAX_KINDS: usize = 64;
/// Maximum number of connections of one kind to one host. By default, at most 16 jobs run at one host.
pub(super) const MAX_PER_HOST: usize = 16;

/// The connections of one run over many repositories, or of a daemon's life.
#[derive(Default)]
pub struct Pool {
    agents: Mutex<HashMap<Kind, Agent>>,
    /// Those of ssh.
    pub(super) ssh: ControlSockets,
}

/// What must be the same for two mirrors to share connections.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) ca_file: Option<(PathBuf, Option<SystemTime>)>,
    pub(super) proxy: Option<String>,
    pub(super) timeouts: [Duration; 3],
    /// The egress policy, and the host that it applies to.
    pub(super) egress: Option<(Egress, String)>,
}

impl Pool {
    /// The agent for that kind, and whether it may have open connections. A missing agent is made.
    pub(super) fn agent(
        &self,
        kind: Kind,
        make: impl FnOnce() -> Result<Agent, Error>,
    ) -> Result<(Agent, bool), Error> {
        let mut agents = self.agents.lock();
        if let Some(agent) = agents.get(&kind) {
            return Ok((agent.clone(), true));
        }
        if agents.len() >= MAX_KINDS {
            agents.clear();
        }
        let agent = make()?;
        agents.insert(kind, agent.clone());
        Ok((agent, false))
    }
}
