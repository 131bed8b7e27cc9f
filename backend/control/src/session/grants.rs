//! The policy's `verbs` and `remote_access`, as the device is told of them.

use super::Session;
use crate::refusal::Refused;
use crate::rights::only_granted;
use crate::world::World;
use masq_device::Grants;
use masq_policy::{EndpointId, Policy, RemoteAccess, Request, Verb, Verbs};
use masq_spec::queue::SendOpcode;
use masq_spec::verbs::Access;

/// What the work requests of an endpoint may do; nothing if it is unknown.
pub(crate) fn grants(policy: &Policy, id: &EndpointId) -> Grants {
    let endpoint = policy.endpoint(id);
    let verbs = endpoint.map_or(Verbs::NONE, |e| e.verbs());
    let rights = endpoint.map_or(RemoteAccess::NONE, |e| e.remote_access());
    let opcodes = verbs.iter().flat_map(|verb| -> &'static [SendOpcode] {
        match verb {
            Verb::Send => &[SendOpcode::Send, SendOpcode::SendWithImm],
            Verb::SendInv => &[SendOpcode::SendWithInv],
            Verb::Write => &[SendOpcode::RdmaWrite, SendOpcode::RdmaWriteWithImm],
            Verb::Read => &[SendOpcode::RdmaRead],
            Verb::Atomic => &[SendOpcode::CompareSwap, SendOpcode::FetchAdd],
            Verb::BindMw => &[SendOpcode::BindMw],
            Verb::LocalInv => &[SendOpcode::LocalInv],
            // CREATE_SRQ and multicast are asked for when the object is made.
            _ => &[],
        }
    });
    Grants::new(opcodes.copied(), only_granted(Access::all(), rights))
}

impl Session {
    /// Asks the policy for an operation that a command makes possible.
    pub(super) fn may(&self, world: &World, verb: Verb) -> Result<(), Refused> {
        let endpoint = &self.endpoint;
        world.decide(&Request::Verb { endpoint, verb }).map(drop)
    }

    /// Tells the device of them again, after the policy changed.
    pub(super) fn recheck_grants(&mut self, world: &World) {
        if let Err(error) = self
            .device
            .set_grants(grants(&world.policy, &self.endpoint))
        {
            tracing::error!(session = self.id, %error, "the allowed verbs were not set");
        }
    }
}
