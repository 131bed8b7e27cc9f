//! Memberships of multicast groups.

use super::Agent;
use super::state::{
    BITS_24, DEFAULT_QKEY, MAX_GROUPS, MAX_MEMBERSHIPS, Membership, Phase, Queued, Told,
};
use crate::address::gid_of;
use crate::error::CmError;
use crate::types::{Channel, Event, Target};
use masq_spec::verbs::{CmAddress, CmEnded, QpType};

/// Number of the queue pair that stands for a group.
const MULTICAST_QPN: u32 = BITS_24;
/// `RDMA_MC_JOIN_FLAG_RESERVED`: the first flag that does not exist.
const NO_FLAG: u32 = 2;

impl Agent {
    /// Joins a group, and queues MULTICAST_JOIN at once.
    ///
    /// # Errors
    /// [`CmError::Invalid`] for an address that is no group, for unknown flags, or
    /// unless the id is a datagram one whose address is bound or resolved;
    /// [`CmError::NoMemory`] beyond 1024 groups, or 4096 of all ids together.
    pub fn join(
        &mut self,
        target: Target,
        uid: u64,
        group: CmAddress,
        flags: u32,
    ) -> Result<u32, CmError> {
        let id = self.id(target)?;
        let group = group.socket().ok_or(CmError::Invalid)?.ip();
        if id.qp_type != QpType::Ud
            || !self.has_device(id)
            || !matches!(id.phase, Phase::Bound | Phase::AddressResolved)
            || !group.is_multicast()
            || flags >= NO_FLAG
        {
            return Err(CmError::Invalid);
        }
        if id.groups.len() >= MAX_GROUPS || self.memberships.len() >= MAX_MEMBERSHIPS {
            return Err(CmError::NoMemory);
        }
        let ah = Box::new(self.path_to(id, gid_of(group)));
        let number = loop {
            self.last_membership = self.last_membership.wrapping_add(1);
            if self.last_membership != 0 && !self.memberships.contains_key(&self.last_membership) {
                break self.last_membership;
            }
        };
        self.id_mut(target)?.groups.push(number);
        self.memberships.insert(
            number,
            Membership {
                id: target.id,
                reported: 0,
            },
        );
        self.queue(Queued {
            owner: target.id,
            id: target.id,
            uid,
            datagram: true,
            membership: Some(number),
            told: Told {
                qpn: MULTICAST_QPN,
                qkey: DEFAULT_QKEY,
                ..Told::default()
            },
            ah: Some(ah),
            ..Queued::plain(Event::MulticastJoin, 0)
        });
        Ok(number)
    }

    /// Leaves a group; its events that wait are dropped.
    ///
    /// # Errors
    /// [`CmError::NoSuchId`], [`CmError::OtherChannel`].
    pub fn leave(&mut self, channel: Channel, membership: u32) -> Result<CmEnded, CmError> {
        let member = self.memberships.get(&membership).ok_or(CmError::NoSuchId)?;
        let mut ended = CmEnded {
            reported: member.reported,
            dropped: 0,
        };
        let number = member.id;
        self.id(Target {
            channel,
            id: number,
        })?;
        self.memberships.remove(&membership);
        let Some(id) = self.ids.get_mut(&number) else {
            return Ok(ended);
        };
        id.groups.retain(|&group| group != membership);
        if let Some(state) = self.channels.get_mut(&channel) {
            id.events.retain(|sequence| {
                let its = state.events.get(sequence).and_then(|e| e.membership) == Some(membership);
                if its {
                    state.events.remove(sequence);
                    ended.dropped += 1;
                }
                !its
            });
        }
        Ok(ended)
    }
}
