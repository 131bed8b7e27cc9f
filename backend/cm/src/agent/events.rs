//! Events: queued for a channel, handed out, dropped or moved with their id.

use super::Agent;
use super::state::Queued;
use crate::types::{Channel, Event, Output, Target};
use masq_spec::verbs::{AhAttr, CmEvent, CmParam, CmRoute, MAX_PRIVATE_DATA};

impl Agent {
    /// The channel's oldest event.
    pub fn next_event(&mut self, channel: Channel) -> Option<CmEvent> {
        let state = self.channels.get_mut(&channel)?;
        let (_, queued) = state.events.pop_first()?;
        if let Some(owner) = self.ids.get_mut(&queued.owner) {
            // An id's events leave in the order in which they came.
            owner.events.pop_front();
            owner.reported = owner.reported.saturating_add(1);
            if queued.event == Event::ConnectRequest {
                owner.backlog = owner.backlog.saturating_add(1);
            }
        }
        if queued.event == Event::ConnectRequest
            && let Some(new) = self.ids.get_mut(&queued.id)
        {
            new.announced = true;
        }
        if let Some(member) = queued.membership.and_then(|m| self.memberships.get_mut(&m)) {
            member.reported = member.reported.saturating_add(1);
        }
        self.drop_channel_if_empty(channel);
        let target = Target {
            channel,
            id: queued.id,
        };
        let route = self.query(target).unwrap_or_default();
        Some(CmEvent {
            route,
            ..finish(&queued)
        })
    }

    /// Queues an event of an id. What happens to an id that no program has
    /// accepted yet is not told (as on Linux): its accept fails.
    pub(super) fn post(&mut self, id: u32, event: Queued) {
        if let Some(uid) = self.ids.get(&id).filter(|id| id.named).map(|id| id.uid) {
            self.queue(Queued {
                owner: id,
                id,
                uid,
                ..event
            });
        }
    }

    /// Queues an event whose names are set.
    pub(super) fn queue(&mut self, event: Queued) {
        let Some(owner) = self.ids.get_mut(&event.owner) else {
            return;
        };
        self.last_event += 1;
        owner.events.push_back(self.last_event);
        let (channel, id) = (owner.channel, event.id);
        self.channels
            .entry(channel)
            .or_default()
            .events
            .insert(self.last_event, event);
        self.output.push_back(Output::Signal { channel, id });
    }

    /// Takes back one event that waits.
    pub(super) fn unqueue(&mut self, channel: Channel, sequence: u64) -> Option<Queued> {
        self.channels.get_mut(&channel)?.events.remove(&sequence)
    }

    pub(super) fn drop_channel_if_empty(&mut self, channel: Channel) {
        if self
            .channels
            .get(&channel)
            .is_some_and(|c| c.ids.is_empty() && c.events.is_empty())
        {
            self.channels.remove(&channel);
        }
    }
}

/// The event as the program's side gets it.
fn finish(queued: &Queued) -> CmEvent {
    let told = &queued.told;
    let mut private_data = [0; MAX_PRIVATE_DATA];
    queued.private.fill(&mut private_data);
    CmEvent {
        uid: queued.uid,
        id: queued.id,
        event: queued.event.raw(),
        status: queued.status,
        datagram: u32::from(queued.datagram),
        param: CmParam {
            qpn: told.qpn,
            qkey: told.qkey,
            private_len: told.private_len,
            srq: u8::from(told.srq),
            responder_resources: told.responder_resources,
            initiator_depth: told.initiator_depth,
            flow_control: u8::from(told.flow_control),
            retry_count: told.retry_count,
            rnr_retry_count: told.rnr_retry_count,
            reserved: 0,
            ece_vendor: told.ece_vendor,
            ece_options: told.ece_options,
            private_data,
        },
        ah: queued
            .ah
            .as_deref()
            .copied()
            .unwrap_or_else(AhAttr::default),
        route: CmRoute::default(),
    }
}
