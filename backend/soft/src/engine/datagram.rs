//! Unreliable datagrams (IBA 9.8.3) and multicast within a tenant.

use super::completion::GRH_LEN;
use super::objects::{Ah, Current, Qp, ReceiveName};
use super::remote::Deferred;
use super::tap::Seen;
use super::{Engine, Step};
use masq_device::{Destination, DomainKey};
use masq_memory::{Piece, Target};
use masq_spec::queue::{Cqe, SendFlags, WcFlags, WcOpcode, WcStatus};
use masq_spec::verbs::{AhAttr, Gid, QpType};
use masq_transport::{Need, OpcodeRules, can_receive};
use masq_wire::{Bth, Deth, Extended, Headers, ImmDt, Opcode, PKey, Psn, QKey, Qpn};
use std::ptr::NonNull;

/// Largest datagram: the MTU of the port.
const MTU: u64 = 4096;
/// What a member of a group costs at least, in bytes of the turn's budget.
const MEMBER_COST: u64 = 256;
/// QPN that a multicast datagram is addressed to.
const MULTICAST_QPN: u32 = 0xff_ffff;

/// A datagram on its way to a queue pair of this host.
pub(super) struct Datagram {
    /// Payload bytes.
    pub(super) total: u64,
    pub(super) imm: Option<u32>,
    pub(super) solicited: bool,
    pub(super) src_qpn: u32,
    pub(super) src_gid: Gid,
    pub(super) to_group: Option<Gid>,
    pub(super) qkey: u32,
    /// Service level, and what its global route header shows.
    pub(super) attr: AhAttr,
}

impl Engine {
    /// A datagram: whatever becomes of it, the sender's request succeeds.
    pub(super) fn datagram(
        &mut self,
        q: usize,
        mut cur: Box<Current>,
        rules: OpcodeRules,
        bytes: &mut u64,
    ) -> Step {
        let Some(qp) = self.qps.get(q) else {
            return Step::Done;
        };
        let (session, domain, pd) = (qp.session, qp.domain, qp.pd);
        let ah = self
            .sessions
            .get(session)
            .and_then(|s| s.ahs.get(&cur.wqe.ah))
            .copied();
        let Some(ah) = ah.filter(|ah| ah.pd == pd.1) else {
            return self.complete(q, cur, WcStatus::LocQpOpErr);
        };
        let mtu = match (ah.destination, &self.wire) {
            (Destination::Host(_) | Destination::Multicast(_), Some(wire)) => {
                wire.mtu().bytes() as u64
            }
            _ => MTU,
        };
        if cur.total > mtu {
            return self.complete(q, cur, WcStatus::LocLenErr);
        }
        self.from.clear();
        if let Err(status) = self.gather(q, &cur, Need::LocalRead) {
            return self.complete(q, cur, status);
        }
        if self
            .from
            .iter()
            .any(|piece| matches!(piece.target, Target::Remote { .. }))
        {
            // Read into the request itself first, through the helper.
            if let Some(buffer) = cur.stage.take_gathered() {
                cur.datagram = buffer;
            }
            if cur.datagram.len() as u64 == cur.total {
                // It was.
            } else if matches!(cur.stage, super::remote::Stage::Failed { .. }) {
                return self.complete(q, cur, WcStatus::LocProtErr);
            } else {
                return match self.gather_remote(q, &cur) {
                    Ok(step) => self.keep(q, cur, step),
                    Err(_) => self.complete(q, cur, WcStatus::LocProtErr),
                };
            }
            if let Some(first) = cur.datagram.first_mut() {
                let len = cur.total;
                self.from.clear();
                self.from.push(Piece {
                    target: Target::Mapped(NonNull::from(first)),
                    len,
                });
            }
        }
        let qkey = (cur.wqe.compare_add >> 32) as u32;
        // A Q_Key with its high bit set stands for the queue pair's own.
        let qkey = match qkey >> 31 {
            0 => qkey,
            _ => self.qps.get(q).map_or(0, |qp| qp.attr.qkey),
        };
        let qpn = cur.wqe.compare_add as u32 & 0xff_ffff;
        let only = self
            .sessions
            .get(session)
            .and_then(|s| s.ah_only.get(&cur.wqe.ah));
        let is_barred = only.is_some_and(|only| !only.contains(&qpn));
        match ah.destination {
            // As if there were no such queue pair.
            _ if is_barred => self.count_dropped(q),
            Destination::Endpoint(endpoint) => {
                *bytes = bytes.saturating_sub(cur.total);
                match self.qp_by_number(domain, endpoint, qpn) {
                    Some(p) if self.lacks_receive(p, qkey) && self.may_hold(p, &cur) => {
                        return self.hold(q, p, cur);
                    }
                    found => {
                        if self.taps.is_some() {
                            let seen = Seen::Both(found);
                            self.show_local_datagram(q, seen, &cur, &ah, qkey, rules);
                            self.note_datagram(q);
                        }
                        match found {
                            Some(p) => self.datagram_to(q, p, &cur, &ah, qkey, rules),
                            None => self.count_dropped(q),
                        }
                    }
                }
            }
            Destination::Multicast(group) if qpn == MULTICAST_QPN => {
                // Another host's copy is shown as it leaves.
                let is_shown = self.taps.is_some() && self.wire.is_none();
                if is_shown && cur.offset == 0 {
                    let seen = Seen::Both(None);
                    self.show_local_datagram(q, seen, &cur, &ah, qkey, rules);
                }
                // The offset counts members: a large group takes several turns.
                while let Some(p) = self.member(domain, group, cur.offset) {
                    if *bytes == 0 {
                        return self.keep(q, cur, Step::More);
                    }
                    *bytes = bytes.saturating_sub(cur.total.max(MEMBER_COST));
                    cur.offset += 1;
                    if self.may_reach(session, p) {
                        if self.taps.is_some() {
                            let seen = Seen::Member(p, cur.offset - 1);
                            self.show_local_datagram(q, seen, &cur, &ah, qkey, rules);
                        }
                        self.datagram_to(q, p, &cur, &ah, qkey, rules);
                    }
                }
                if is_shown {
                    self.note_datagram(q);
                }
                self.multicast_out(q, &cur, &ah, &group, qkey, rules);
            }
            Destination::Multicast(_) => self.count_dropped(q),
            Destination::Host(to) => {
                *bytes = bytes.saturating_sub(cur.total);
                self.datagram_out(q, &cur, &ah, to, qkey, rules);
            }
        }
        if cur.datagram.capacity() > 0 {
            cur.datagram = Vec::new();
        }
        self.complete(q, cur, WcStatus::Success)
    }

    /// Whether `p` would take the datagram if it had a receive.
    fn lacks_receive(&self, p: usize, qkey: u32) -> bool {
        let takes = self
            .qps
            .get(p)
            .is_some_and(|peer| takes_datagram(peer, qkey));
        takes && !self.receive_ready(p)
    }

    /// Puts a request aside that is not finished.
    pub(super) fn keep(&mut self, q: usize, cur: Box<Current>, step: Step) -> Step {
        if let Some(qp) = self.qps.get_mut(q) {
            qp.current = Some(cur);
        }
        step
    }

    fn member(&self, domain: DomainKey, group: Gid, at: u64) -> Option<usize> {
        self.groups.get(&(domain, group))?.get(at as usize).copied()
    }

    /// Whether the policy lets multicast datagrams of a session reach `p`.
    fn may_reach(&self, session: usize, p: usize) -> bool {
        let (Some(session), Some(peer)) = (self.sessions.get(session), self.qps.get(p)) else {
            return false;
        };
        session
            .multicast_reach
            .binary_search(&peer.endpoint)
            .is_ok()
    }

    pub(super) fn count_dropped(&mut self, q: usize) {
        if let Some(qp) = self.qps.get_mut(q) {
            qp.counters.dropped += 1;
        }
    }

    /// Delivers the datagram that `from` holds to one queue pair of this host, or
    /// drops it.
    fn datagram_to(
        &mut self,
        q: usize,
        p: usize,
        cur: &Current,
        ah: &Ah,
        qkey: u32,
        rules: OpcodeRules,
    ) {
        let Some((src_qpn, src_gid)) = self
            .qps
            .get(q)
            .and_then(|qp| Some((qp.qpn, self.sessions.get(qp.session)?.gid)))
        else {
            return;
        };
        let flags = SendFlags::from_bits_truncate(cur.wqe.flags);
        let datagram = Datagram {
            total: cur.total,
            imm: rules.immediate.then_some(cur.wqe.imm_data),
            solicited: flags.contains(SendFlags::SOLICITED),
            src_qpn,
            src_gid,
            to_group: match ah.destination {
                Destination::Multicast(group) => Some(group),
                Destination::Endpoint(_) | Destination::Host(_) => None,
            },
            qkey,
            attr: ah.attr,
        };
        if !self.deliver_datagram(p, &datagram) {
            self.count_dropped(q);
        }
    }

    /// Delivers the datagram that `from` holds to one queue pair. False: it was
    /// dropped.
    pub(super) fn deliver_datagram(&mut self, p: usize, datagram: &Datagram) -> bool {
        let Some(peer) = self.qps.get(p) else {
            return true;
        };
        let taken = takes_datagram(peer, datagram.qkey);
        let dest_gid = self
            .sessions
            .get(peer.session)
            .map(|s| s.gid)
            .unwrap_or_default();
        // While a helper is writing a datagram, later ones queue up behind it:
        // receives complete in the order in which they were posted.
        let (in_order, epoch, peer_session) = (peer.deliveries > 0, peer.epoch, peer.session);
        if !taken || !self.receive_ready(p) {
            if let Some(peer) = self.qps.get_mut(p) {
                peer.counters.dropped += 1;
            }
            return false;
        }
        let mut receive = self.datagram_receive.take().unwrap_or_default();
        if !self.take_receive(p, &mut receive) {
            self.datagram_receive = Some(receive);
            return true;
        }
        let total = datagram.total + GRH_LEN as u64;
        let room: u64 = receive.list().iter().map(super::keys::sge_len).sum();
        self.to.clear();
        let peer_qpn = self.qps.get(p).map_or(0, |peer| peer.qpn);
        let resolved = self.keys.resolve_list(
            receive.pd,
            peer_qpn,
            receive.list(),
            total.min(room),
            Need::LocalWrite,
            &mut self.to,
        );
        let name = receive.name;
        self.datagram_receive = Some(receive);
        let status = match resolved {
            Err(_) => WcStatus::LocProtErr,
            Ok(()) if total > room => WcStatus::LocLenErr,
            Ok(()) => WcStatus::Success,
        };
        let ok = status == WcStatus::Success;
        let mut flags = WcFlags::GRH;
        flags.set(WcFlags::WITH_IMM, datagram.imm.is_some());
        let cqe = Cqe {
            status: status as u8,
            opcode: WcOpcode::Recv as u8,
            flags: flags.bits(),
            wr_id: name.wr_id,
            index: name.index,
            byte_len: if ok { total as u32 } else { 0 },
            imm_data: datagram.imm.unwrap_or(0),
            qp_num: peer_qpn,
            src_qp: datagram.src_qpn,
            sl: datagram.attr.sl & 7,
            ..Cqe::default()
        };
        let solicited = datagram.solicited;
        if ok {
            let to_gid = datagram.to_group.unwrap_or(dest_gid);
            let (from, payload) = (datagram.src_gid, datagram.total);
            write_grh(
                &mut self.grh.0,
                from,
                to_gid,
                payload as u16,
                &datagram.attr,
            );
            let is_remote = |piece: &Piece| matches!(piece.target, Target::Remote { .. });
            if in_order || self.to.iter().any(is_remote) {
                let mut buffer = self.grh.0.to_vec();
                self.append_from(payload, &mut buffer);
                let deferred = Deferred {
                    qpn: peer_qpn,
                    epoch,
                    cqe,
                    solicited,
                };
                self.deliver_remote(p, peer_session, buffer, deferred);
                return true;
            }
            self.copy_datagram(payload);
        }
        self.datagram_arrived(p, cqe, solicited);
        true
    }

    /// A helper has written a datagram.
    pub(super) fn datagram_written(&mut self, p: usize, deferred: &Deferred) {
        if let Some(peer) = self.qps.get_mut(p)
            && (peer.qpn, peer.epoch) == (deferred.qpn, deferred.epoch)
        {
            peer.deliveries = peer.deliveries.saturating_sub(1);
            self.datagram_arrived(p, deferred.cqe, deferred.solicited);
        }
    }

    /// Completes the receive of a datagram.
    fn datagram_arrived(&mut self, p: usize, cqe: Cqe, solicited: bool) {
        let Some(peer) = self.qps.get_mut(p) else {
            return;
        };
        if !peer.given_back(ReceiveName::of(&cqe)) {
            return;
        }
        if cqe.status == WcStatus::Success as u8 {
            peer.counters.rx_messages += 1;
            peer.counters.rx_bytes += u64::from(cqe.byte_len) - GRH_LEN as u64;
        }
        let cq = peer.recv_cq;
        self.push_cqe(cq, cqe, solicited);
        if cqe.status == WcStatus::LocProtErr as u8 {
            self.fail(p, "a receive names memory it may not write", None);
        }
    }
}

/// The headers of the datagram that queue pair `qp` sends next.
pub(super) fn datagram_headers(
    qp: &Qp,
    cur: &Current,
    partition: PKey,
    qkey: u32,
    rules: OpcodeRules,
) -> Headers {
    let opcode = match rules.immediate {
        true => Opcode::UdSendOnlyImm,
        false => Opcode::UdSendOnly,
    };
    let flags = SendFlags::from_bits_truncate(cur.wqe.flags);
    let to = Qpn::new(cur.wqe.compare_add as u32 & 0xff_ffff);
    let mut bth = Bth::new(opcode, to, Psn::new(qp.attr.sq_psn));
    bth.pkey = partition;
    bth.solicited = flags.contains(SendFlags::SOLICITED);
    bth.mig_req = true;
    let deth = Deth {
        qkey: QKey(qkey),
        src_qpn: Qpn::new(qp.qpn),
    };
    let extended = match rules.immediate {
        true => Extended::DethImm(deth, ImmDt(cur.wqe.imm_data.to_ne_bytes())),
        false => Extended::Deth(deth),
    };
    Headers { bth, extended }
}

/// Whether a queue pair takes datagrams with this Q_Key (IBA 10.2.5).
fn takes_datagram(qp: &Qp, qkey: u32) -> bool {
    qp.qp_type == QpType::Ud && can_receive(qp.state) && qp.attr.qkey == qkey
}

/// The header that a receiver of RoCEv2 finds before a datagram: an IPv6 header,
/// or 20 undefined bytes and an IPv4 header (RoCEv2 annex A17.4.5.2).
fn write_grh(
    grh: &mut [u8; GRH_LEN],
    from: Gid,
    to: Gid,
    payload: u16,
    attr: &masq_spec::verbs::AhAttr,
) {
    // BTH, DETH, payload and ICRC follow the UDP header.
    let udp_len = payload.saturating_add(8 + 12 + 8 + 4);
    let v4 = |gid: &Gid| {
        let mapped = gid.get(..12) == Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..]);
        mapped.then(|| [gid[12], gid[13], gid[14], gid[15]])
    };
    let (head, ip) = grh.split_at_mut(20);
    let hops = if attr.hop_limit == 0 {
        64
    } else {
        attr.hop_limit
    };
    if let (Some(source), Some(dest)) = (v4(&from), v4(&to).or_else(|| multicast_v4(&to))) {
        head.fill(0);
        let total = udp_len.saturating_add(20).to_be_bytes();
        ip.copy_from_slice(&[
            0x45,
            attr.traffic_class,
            total[0],
            total[1],
            0,
            0,
            0x40,
            0,
            hops,
            17,
            0,
            0,
            source[0],
            source[1],
            source[2],
            source[3],
            dest[0],
            dest[1],
            dest[2],
            dest[3],
        ]);
        let sum: u32 = ip
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes();
        ip[10..12].copy_from_slice(&checksum);
        return;
    }
    let first = 6 << 28 | u32::from(attr.traffic_class) << 20 | (attr.flow_label & 0xf_ffff);
    grh[..4].copy_from_slice(&first.to_be_bytes());
    grh[4..6].copy_from_slice(&udp_len.to_be_bytes());
    grh[6..8].copy_from_slice(&[17, hops]);
    grh[8..24].copy_from_slice(&from);
    grh[24..40].copy_from_slice(&to);
}

/// The IPv4 group that a multicast GID ff0e::ffff:a.b.c.d stands for.
pub(super) fn multicast_v4(gid: &Gid) -> Option<[u8; 4]> {
    let mapped = gid[0] == 0xff && gid[2..10].iter().all(|b| *b == 0) && gid[10..12] == [0xff; 2];
    mapped.then(|| [gid[12], gid[13], gid[14], gid[15]])
}
