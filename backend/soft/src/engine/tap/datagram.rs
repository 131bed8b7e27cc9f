//! Datagrams between queue pairs of this host.

use super::local::lay_out;
use super::{Trip, address, known, pair};
use crate::engine::Engine;
use crate::engine::datagram::datagram_headers;
use crate::engine::objects::{Ah, Current};
use crate::engine::wire::{group_address, path_to};
use masq_device::Destination;
use masq_spec::verbs::Gid;
use masq_transport::OpcodeRules;
use masq_wire::PKey;

/// Who sees a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// Sender, and receiver if there is one.
    Both(Option<usize>),
    /// A member of the group, and how many are before it.
    Member(usize, u64),
}

impl Engine {
    /// A datagram whose payload `from` lists goes to a queue pair of this host.
    #[cold]
    pub(in crate::engine) fn show_local_datagram(
        &mut self,
        q: usize,
        seen: Seen,
        cur: &Current,
        ah: &Ah,
        qkey: u32,
        rules: OpcodeRules,
    ) {
        let _ = self.try_show_datagram(q, seen, cur, ah, qkey, rules);
    }

    /// The number of a datagram that was shown is used up.
    #[cold]
    pub(in crate::engine) fn note_datagram(&mut self, q: usize) {
        if let Some(qp) = self.qps.get_mut(q) {
            qp.count_psn();
        }
    }

    fn try_show_datagram(
        &self,
        q: usize,
        seen: Seen,
        cur: &Current,
        ah: &Ah,
        qkey: u32,
        rules: OpcodeRules,
    ) -> Option<()> {
        let qp = self.qps.get(q)?;
        let endpoint = |p: usize| self.qps.get(p).map(|peer| peer.endpoint);
        let ends = match seen {
            Seen::Both(p) => [Some(qp.endpoint), p.and_then(endpoint)],
            Seen::Member(p, before) => {
                let member = endpoint(p)?;
                let Destination::Multicast(group) = ah.destination else {
                    return None;
                };
                if member == qp.endpoint || self.is_represented(p, group, before as usize) {
                    return None;
                }
                [Some(member), None]
            }
        };
        let taps = self.taps.as_ref()?;
        if !ends.into_iter().flatten().any(|end| taps.watches(end)) {
            return None;
        }
        let src = self.virtual_address(q)?;
        let dst = match (ah.destination, seen) {
            (Destination::Multicast(group), _) => group_address(&group),
            (_, Seen::Both(Some(p))) => known(ah.attr.dgid).or_else(|| self.virtual_address(p))?,
            _ => address(ah.attr.dgid),
        };
        let session = self.sessions.get(qp.session)?;
        let partition = session.partition.unwrap_or(PKey::DEFAULT);
        let headers = datagram_headers(qp, cur, partition, qkey, rules);
        let payload = cur.total as usize;
        let emitted = headers.emit(payload).ok()?;
        let trip = Trip {
            ends,
            renamed: pair(src, dst),
            wire: None,
            path: path_to(dst, &ah.attr),
        };
        let len = usize::from(emitted.packet_len());
        taps.show(self.clock.now(), &trip, len, |out| {
            lay_out(&emitted, payload, out, |out| {
                self.load_front(false, 0, out, |_, _| false)
            })
        });
        Some(())
    }

    /// Whether an endpoint has a member of a group before member `p` at `at`.
    pub(super) fn is_represented(&self, p: usize, group: Gid, at: usize) -> bool {
        let Some(qp) = self.qps.get(p) else {
            return false;
        };
        let members = self.groups.get(&(qp.domain, group));
        let mut before = members.into_iter().flatten().take(at);
        before.any(|m| self.qps.get(*m).is_some_and(|m| m.endpoint == qp.endpoint))
    }
}
