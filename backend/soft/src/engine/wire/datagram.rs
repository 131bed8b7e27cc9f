//! Datagrams to and from other hosts (IBA 9.8.3), and management datagrams.

use super::Wire;
use super::arrivals::Desk;
use super::kept::KeptPacket;
use super::link::path_to;
use super::senders::{Held, Whose};
use crate::engine::Engine;
use crate::engine::datagram::{Datagram, datagram_headers, multicast_v4};
use crate::engine::objects::{Ah, Current};
use masq_device::{Arrival, DomainKey, MAD_LEN, Sender, SenderKey};
use masq_memory::{Piece, Target};
use masq_port::{Incoming, Path};
use masq_spec::verbs::{AhAttr, Gid};
use masq_transport::OpcodeRules;
use masq_wire::{Bth, Deth, Extended, Headers, Opcode, PKey, Psn, QKey, Qpn, TrafficClass};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;
use std::sync::Arc;

/// Hop limit of management datagrams.
const HOP_LIMIT: u8 = 64;

impl Wire {
    pub(super) fn send_management(
        &mut self,
        to: IpAddr,
        partition: PKey,
        mad: &[u8; MAD_LEN],
    ) -> bool {
        let path = Path {
            to,
            traffic_class: TrafficClass(0),
            hop_limit: HOP_LIMIT,
        };
        let psn = Psn::new(self.management_psn);
        self.management_psn = self.management_psn.wrapping_add(1);
        let mut bth = Bth::new(Opcode::UdSendOnly, Qpn::GSI, psn);
        bth.pkey = partition;
        let deth = Deth {
            qkey: QKey::GSI,
            src_qpn: Qpn::GSI,
        };
        let headers = Headers {
            bth,
            extended: Extended::Deth(deth),
        };
        self.write(&path, &headers, mad.len(), None, |out| {
            out.copy_from_slice(mad);
            Ok::<(), Infallible>(())
        })
        .is_ok()
    }
}

/// The IP address of a group: what a multicast GID stands for.
pub(in crate::engine) fn group_address(group: &Gid) -> IpAddr {
    match multicast_v4(group) {
        Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        None => IpAddr::V6(Ipv6Addr::from(*group)).to_canonical(),
    }
}

/// A datagram for QP1.
pub(super) fn management(desk: &mut Desk<'_>, incoming: &Incoming<'_>) {
    let packet = &incoming.packet;
    let privileged = packet.deth().is_some_and(|deth| deth.qkey() == QKey::GSI);
    let mad = <[u8; MAD_LEN]>::try_from(packet.payload());
    let (true, Ok(mad)) = (privileged, mad) else {
        desk.counters.senseless += 1;
        return;
    };
    let arrival = Arrival::Management {
        from: incoming.flow.addresses.src(),
        partition: packet.bth().pkey(),
        mad: Box::new(mad),
    };
    if !desk.inbox.push(arrival) {
        desk.counters.no_room += 1;
    }
}

impl Engine {
    /// Sends the datagram that `from` holds to another host.
    pub(in crate::engine) fn datagram_out(
        &mut self,
        q: usize,
        cur: &Current,
        ah: &Ah,
        to: IpAddr,
        qkey: u32,
        rules: OpcodeRules,
    ) {
        let Some(mut wire) = self.wire.take() else {
            return self.count_dropped(q);
        };
        let partition = self
            .qps
            .get(q)
            .and_then(|qp| self.sessions.get(qp.session)?.partition);
        if let (Some(partition), Some(qp)) = (partition, self.qps.get_mut(q)) {
            let headers = datagram_headers(qp, cur, partition, qkey, rules);
            qp.count_psn();
            let path = path_to(to, &ah.attr);
            // Read into the request before, if it was not mapped.
            let watch = self.watch(q, Some(ah), to);
            let len = cur.total as usize;
            let written = wire.write(&path, &headers, len, watch.as_ref(), |out| {
                match self.load_mapped(0, out) {
                    true => Ok(()),
                    false => Err(()),
                }
            });
            if written.is_err() {
                self.count_dropped(q);
            }
        } else {
            self.count_dropped(q);
        }
        self.wire = Some(wire);
    }

    /// Sends a datagram to the members of a group on other hosts.
    pub(in crate::engine) fn multicast_out(
        &mut self,
        q: usize,
        cur: &Current,
        ah: &Ah,
        group: &Gid,
        qkey: u32,
        rules: OpcodeRules,
    ) {
        if self.wire.is_some() {
            let to = group_address(group);
            self.datagram_out(q, cur, ah, to, qkey, rules);
        }
    }

    /// A datagram arrived.
    pub(super) fn datagram_in(&mut self, desk: &mut Desk<'_>, incoming: &Incoming<'_>) {
        let Some(deth) = incoming.packet.deth() else {
            return;
        };
        let sender = SenderKey {
            host: incoming.flow.addresses.src(),
            partition: incoming.packet.bth().pkey(),
            qpn: deth.src_qpn(),
        };
        let now = self.clock.now();
        match desk.senders.whose(sender, now) {
            Whose::Sender(who) => self.datagram_of(desk, &who, incoming),
            Whose::Nobody => desk.counters.refused_datagrams += 1,
            whose => {
                // Only what somebody here would take is worth a question.
                if !self.has_taker(incoming) {
                    desk.senders.not_asked(sender);
                    desk.counters.unknown_qp += 1;
                    return;
                }
                if matches!(whose, Whose::Ask)
                    && !desk.inbox.push(Arrival::UnknownSender { sender })
                {
                    desk.senders.not_asked(sender);
                }
                let held = Held {
                    sender,
                    until: Held::until(now),
                    packet: KeptPacket::of(incoming, Vec::new()),
                };
                if !desk.senders.hold(held, now) {
                    desk.counters.no_room += 1;
                }
            }
        }
    }

    fn has_taker(&self, incoming: &Incoming<'_>) -> bool {
        let qpn = incoming.packet.bth().dest_qpn();
        qpn == Qpn::MULTICAST || self.qpns.contains_key(&qpn.get())
    }

    /// The control side says whose a queue pair is: what was held of it arrives.
    pub(crate) fn learn(&mut self, key: SenderKey, who: Option<Sender>) {
        let now = self.clock.now();
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        wire.senders.learn(key, who, now);
        for held in wire.senders.release(key) {
            if let Some(incoming) = held.packet.incoming() {
                self.datagram_in(&mut Desk::of(&mut wire), &incoming);
            }
        }
        self.wire = Some(wire);
    }

    /// The directory or the policy has changed: all senders are asked for anew.
    pub(crate) fn forget_senders(&mut self) {
        if let Some(wire) = &mut self.wire {
            wire.senders.forget();
        }
    }

    /// A datagram of a known sender, to one queue pair or to a group.
    fn datagram_of(&mut self, desk: &mut Desk<'_>, who: &Arc<Sender>, incoming: &Incoming<'_>) {
        let packet = &incoming.packet;
        let (Some(deth), payload) = (packet.deth(), packet.payload()) else {
            return;
        };
        let partition = packet.bth().pkey();
        let to = incoming.flow.addresses.dst();
        let mut datagram = Datagram {
            total: payload.len() as u64,
            imm: packet.imm().map(|imm| u32::from_ne_bytes(imm.data())),
            solicited: packet.bth().solicited(),
            src_qpn: deth.src_qpn().get(),
            src_gid: who.gid,
            to_group: None,
            qkey: deth.qkey().0,
            attr: AhAttr {
                traffic_class: incoming.traffic_class.0,
                hop_limit: incoming.hop_limit,
                ..AhAttr::default()
            },
        };
        self.from.clear();
        if let Some(first) = payload.first() {
            self.from.push(Piece {
                // Only read from.
                target: Target::Mapped(NonNull::from(first)),
                len: payload.len() as u64,
            });
        }
        let qpn = packet.bth().dest_qpn();
        let mut taken = false;
        if qpn == Qpn::MULTICAST {
            for at in 0.. {
                let Some((p, group)) = self.member_by_address(to, partition, at) else {
                    break;
                };
                datagram.to_group = Some(group);
                let reached = self.qps.get(p).is_some_and(|qp| who.reaches(qp.endpoint));
                if reached && self.is_of(p, partition) {
                    if self.taps.is_some() {
                        self.show_member_datagram(p, at, who.gid, group, incoming);
                    }
                    taken |= self.deliver_datagram(p, &datagram);
                }
            }
        } else if let Some(p) = self.qpns.get(&qpn.get()).copied()
            && self.is_of(p, partition)
            && (who.trusted || self.qps.get(p).is_some_and(|qp| who.reaches(qp.endpoint)))
        {
            if self.taps.is_some() {
                self.show_datagram(p, who.gid, incoming);
            }
            taken = self.deliver_datagram(p, &datagram);
        }
        if !taken {
            desk.counters.refused_datagrams += 1;
        }
    }

    /// Whether a packet's partition is that of a queue pair's tenant.
    fn is_of(&self, p: usize, partition: PKey) -> bool {
        let session = self.qps.get(p).map(|qp| qp.session);
        let own = session.and_then(|s| self.sessions.get(s)?.partition);
        own.is_some_and(|own| own.matches(partition))
    }

    /// Member number `at` of the group with this IP address, in the tenant of a
    /// partition.
    fn member_by_address(&self, to: IpAddr, partition: PKey, at: usize) -> Option<(usize, Gid)> {
        let is_its = |(domain, _): &&(DomainKey, Gid)| {
            let lane = self.lane_of.get(domain).and_then(|l| self.lanes.get(*l));
            let own = lane.and_then(|lane| lane.partition);
            own.is_some_and(|own| own.matches(partition))
        };
        let (domain, group) = self.wire_groups.get(&to)?.iter().find(is_its)?;
        let p = self.groups.get(&(*domain, *group))?.get(at).copied()?;
        Some((p, *group))
    }

    /// A group of a tenant has its first member here.
    pub(in crate::engine) fn group_begun(&mut self, domain: DomainKey, group: Gid) {
        let Some(wire) = &mut self.wire else { return };
        let address = group_address(&group);
        if let Err(error) = wire.port.join(address) {
            tracing::warn!(%address, %error, "not joined: datagrams of other hosts will not arrive");
        }
        self.wire_groups
            .entry(address)
            .or_default()
            .push((domain, group));
    }

    /// A group of a tenant has lost its last member.
    pub(in crate::engine) fn group_ended(&mut self, domain: DomainKey, group: Gid) {
        let Some(wire) = &mut self.wire else { return };
        let address = group_address(&group);
        wire.port.leave(address);
        if let Some(groups) = self.wire_groups.get_mut(&address) {
            groups.retain(|joined| *joined != (domain, group));
            if groups.is_empty() {
                self.wire_groups.remove(&address);
            }
        }
    }
}
